//! `longshore exec`.

use super::client::{Client, ClientError, Socket, refused};
use super::spdy::{self, Frame, Opener};
use super::terminal::{self, Raw};
use super::{Fault, Scope, logs, resource};
use crate::api::resource::PODS;
use crate::api::{Failure, Query, query};
use clap::Args;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use std::io::{self, Read as _, Write};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

const ERROR: u32 = 1;
const STDIN: u32 = 3;
const STDOUT: u32 = 5;
const STDERR: u32 = 7;
const RESIZE: u32 = 9;

/// Run a command in a container
#[derive(Args)]
#[command(after_help = "The command's exit code becomes longshore's own.

Examples:
  longshore exec web -- date                       run a command
  longshore exec -it web -c main -- sh             a shell with a terminal
  cat dump.sql | longshore exec -i db -- psql      feed it from here")]
pub struct Exec {
    /// POD or pod/POD
    #[arg(value_name = "POD")]
    pod: String,
    /// The command, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    /// Container of the pod; the first unless named
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not tell which container was chosen
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Exec {
    pub async fn main(mut self) -> Result<(), Fault> {
        let client = Client::new(&self.socket);
        let pod = resource::pod_name(&self.pod)?;
        let namespace = &self.scope.namespace;
        let container = match self.container.take() {
            Some(c) => c,
            None => logs::default_container(&client, namespace, &pod, self.quiet).await?,
        };
        let raw = if self.tty && self.stdin { Raw::enter() } else { None };
        if self.tty && self.stdin && raw.is_none() {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
            self.tty = false;
        }
        let mut q = Query::default();
        self.command.iter().for_each(|c| q.push("command", c));
        q.push("container", &container);
        for (name, on) in [("stdin", self.stdin), ("stdout", true), ("stderr", !self.tty), ("tty", self.tty)] {
            q.push(name, on);
        }
        let path = format!("{}/{}/exec", PODS.path(Some(namespace)), query::encode(&pod));
        let headers = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];
        let response = client.send(Method::POST, &path, &q, &headers.map(|(k, v)| (k, v.to_owned()))).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(response).await.into());
        }
        let joined = TokioIo::new(hyper::upgrade::on(response).await.map_err(ClientError::from)?);
        let end = self.talk(joined).await;
        drop(raw);
        match end?.exit_code_or_failure() {
            Ok(0) => Ok(()),
            Ok(code) => Err(Fault::quiet(u8::try_from(code).unwrap_or(1))),
            Err(f) => Err(format!("the command could not be run: {}", f.message).into()),
        }
    }

    /// Opens the streams, passes bytes on until the command ends, and returns how it ended.
    async fn talk(&self, io: impl AsyncRead + AsyncWrite) -> Result<End, Fault> {
        let (mut from, to) = tokio::io::split(io);
        let (send, mut frames) = mpsc::channel::<Vec<u8>>(8);
        let mut streams = vec![(ERROR, "error"), (STDOUT, "stdout")];
        streams.extend(self.stdin.then_some((STDIN, "stdin")));
        streams.extend((!self.tty).then_some((STDERR, "stderr")));
        streams.extend(self.tty.then_some((RESIZE, "resize")));
        streams.sort_unstable();
        let mut opener = Opener::default();
        let opening: Vec<u8> = streams.iter().flat_map(|(id, kind)| opener.open(*id, "streamtype", kind)).collect();
        if self.stdin {
            let send = send.clone();
            // A thread of its own: a read of standard input cannot be called off.
            std::thread::spawn(move || pass_input(&send));
        }
        if self.tty {
            tokio::spawn(pass_size(send.clone()));
        }
        let mut to = Box::pin(to);
        let write = async {
            to.write_all(&opening).await?;
            while let Some(frame) = frames.recv().await {
                to.write_all(&frame).await?;
            }
            io::Result::Ok(())
        };
        let read = async {
            let mut end = End {
                open: streams.iter().map(|(id, _)| *id).filter(|id| matches!(*id, ERROR | STDOUT | STDERR)).collect(),
                status: Vec::new(),
            };
            let mut buffer = Vec::new();
            while !end.open.is_empty() {
                match from.read_buf(&mut buffer).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    // The other side closes as soon as it has said all.
                    Err(_) if !end.status.is_empty() => break,
                    Err(e) => return Err(Fault::from(format!("the connection to the container broke: {e}"))),
                }
                while let Some(frame) = spdy::take(&mut buffer) {
                    end.take_in(frame, &send).await?;
                }
            }
            Ok(end)
        };
        tokio::pin!(read);
        tokio::select! {
            end = &mut read => end,
            // A write that fails says less than what can still be read.
            _ = write => read.await,
        }
    }
}

/// How a command is ending.
struct End {
    /// Streams from the container that have not ended.
    open: Vec<u32>,
    status: Vec<u8>,
}

impl End {
    async fn take_in(&mut self, frame: Frame, send: &mpsc::Sender<Vec<u8>>) -> Result<(), Fault> {
        match frame {
            Frame::Data { stream, bytes, last } => {
                match stream {
                    STDOUT => pass(&mut io::stdout(), &bytes)?,
                    STDERR => pass(&mut io::stderr(), &bytes)?,
                    ERROR => self.status.extend_from_slice(&bytes),
                    _ => {}
                }
                if last {
                    self.open.retain(|s| *s != stream);
                }
            }
            Frame::Reset { stream } => self.open.retain(|s| *s != stream),
            Frame::Ping(p) => {
                // Nobody to answer to: the end shows in the next read.
                let _ = send.send(p).await;
            }
            Frame::GoAway | Frame::Other => {}
        }
        Ok(())
    }

    fn exit_code_or_failure(&self) -> Result<i32, Failure> {
        let text = String::from_utf8_lossy(&self.status);
        match crate::typed::read_text::<Failure>(&self.status) {
            Ok(f) => f.exit_code().ok_or(f),
            Err(_) if text.trim().is_empty() => {
                Err(Failure::internal("the connection ended before the command told how it ended; the container may have been stopped"))
            }
            Err(_) => Err(Failure::internal(text.trim())),
        }
    }
}

fn pass(out: &mut impl Write, bytes: &[u8]) -> Result<(), Fault> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Fault::quiet(0)),
        Err(e) => Err(format!("cannot write: {e}").into()),
        Ok(()) => Ok(()),
    }
}

fn pass_input(send: &mpsc::Sender<Vec<u8>>) {
    let mut stdin = io::stdin().lock();
    let mut chunk = vec![0; spdy::CHUNK];
    loop {
        let n = stdin.read(&mut chunk).unwrap_or(0);
        if send.blocking_send(spdy::data(STDIN, &chunk[..n], n == 0)).is_err() || n == 0 {
            return;
        }
    }
}

/// The size now, and whenever the user changes it.
async fn pass_size(send: mpsc::Sender<Vec<u8>>) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some(size) = terminal::size()
            && send.send(spdy::data(RESIZE, size.as_bytes(), false)).await.is_err()
        {
            return;
        }
        if changed.recv().await.is_none() {
            return;
        }
    }
}
