//! Relaying connections.
//!
//! Owns a connection from its acceptance to its end: the choice of an endpoint that answers, two directions that end
//! one after the other, and resets that are passed on. Bytes go from socket to socket through a pipe by `splice`, and
//! never come into this process. Tests: the namespace tests.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};

use super::relay::{Listener, Telling};

/// As much as a pipe holds by default.
const PIPE: usize = 64 * 1024;
/// When there are no descriptors left, others must end before one more can be accepted.
const BREATH: Duration = Duration::from_millis(50);

/// Accepts until the task is aborted.
pub async fn serve(listener: Telling<TcpListener>, rules: Arc<Listener>) {
    loop {
        match listener.accept().await {
            Ok((client, from)) => {
                let rules = rules.clone();
                tokio::spawn(async move { relay(client, from.ip().to_canonical(), &rules).await });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn relay(client: TcpStream, from: std::net::IpAddr, rules: &Listener) {
    let Some(server) = connect(from, rules).await else {
        return reset(&client);
    };
    for end in [&client, &server] {
        // A peer that vanished is found out about; failure costs no more than that.
        let _ = setsockopt(end, sockopt::KeepAlive, &true);
        let _ = end.set_nodelay(true);
    }
    let outcome = tokio::try_join!(pump(&client, &server), pump(&server, &client));
    if outcome.is_err() {
        reset(&client);
        reset(&server);
    }
}

/// The first endpoint that answers.
async fn connect(from: std::net::IpAddr, rules: &Listener) -> Option<TcpStream> {
    for endpoint in rules.candidates(from) {
        let attempt = tokio::time::timeout(rules.times.connect, TcpStream::connect(endpoint)).await;
        match attempt {
            Ok(Ok(server)) => {
                rules.reached(from, endpoint);
                return Some(server);
            }
            Ok(Err(error)) => tracing::debug!(%endpoint, %error, "an endpoint does not answer; trying the next"),
            Err(_) => tracing::debug!(%endpoint, "an endpoint does not answer in time; trying the next"),
        }
        rules.failed(from);
    }
    None
}

/// The end of this connection is a reset, not an orderly one.
fn reset(stream: &TcpStream) {
    let _ = setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Moves bytes one way until that direction ends, and ends it on the other side.
async fn pump(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (drain, fill) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        let filled = from.async_io(Interest::READABLE, || Ok(splice(from, None, &fill, None, PIPE, flags)?)).await;
        let mut waiting = match filled {
            Ok(count) => count,
            // Some kernels cannot splice sockets.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return copy(from, to).await,
            Err(error) => return Err(error),
        };
        if waiting == 0 {
            return finish(to);
        }
        while waiting > 0 {
            waiting -= pour(&drain, to, waiting, flags).await?;
        }
    }
}

async fn pour(drain: &OwnedFd, to: &TcpStream, waiting: usize, flags: SpliceFlags) -> io::Result<usize> {
    to.async_io(Interest::WRITABLE, || Ok(splice(drain, None, to, None, waiting, flags)?)).await
}

async fn copy(from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; PIPE];
    loop {
        from.readable().await?;
        match from.try_read(&mut buffer) {
            Ok(0) => return finish(to),
            Ok(count) => write_all(&mut to, &buffer[..count]).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write_all(to: &mut &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Half of the connection is over; the other half may go on.
fn finish(to: &TcpStream) -> io::Result<()> {
    match nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&to.as_fd()), nix::sys::socket::Shutdown::Write) {
        // The other side may have gone for good.
        Ok(()) | Err(nix::errno::Errno::ENOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
