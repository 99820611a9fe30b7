//! The kubelet's own port of a daemon, and clients of it as an API server is one: with a certificate of the node's
//! authority or a token, over plain requests, SPDY and WebSocket.

use super::client::{self, Request, Response};
use super::daemon::Daemon;
use super::net::Namespace;
use anyhow::{Context, Result, bail, ensure};
use longshore::cli::spdy::{self, Frame, Opener};
use longshore::run::api::pki::{Identity, Pki};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Where the daemons of tests serve it; each has a network of its own.
pub const ADDRESS: &str = "127.0.0.1:10250";
const LIMIT: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A client of the port.
pub struct KubeletPort<'a> {
    namespace: &'a Namespace,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    token: Option<String>,
}

impl<'a> KubeletPort<'a> {
    /// Nobody.
    pub fn new(daemon: &Daemon, namespace: &'a Namespace) -> Result<KubeletPort<'a>> {
        KubeletPort::with(namespace, Pki::open(&daemon.state_directory().join("pki"))?.certificate(), None)
    }

    /// Somebody with a certificate of the node's own authority.
    pub fn member(daemon: &Daemon, namespace: &'a Namespace, name: &str, groups: &[&str]) -> Result<KubeletPort<'a>> {
        let pki = Pki::open(&daemon.state_directory().join("pki"))?;
        let own = pki.client(name, groups, DAY)?;
        KubeletPort::with(namespace, pki.certificate(), Some(&own))
    }

    /// The port of a member of a cluster, which has made its certificate itself; `own`: of the cluster's authority.
    pub fn of_member(daemon: &Daemon, namespace: &'a Namespace, own: Option<&Identity>) -> Result<KubeletPort<'a>> {
        let path = daemon.root_directory().join("pki/kubelet.crt");
        let roots = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        KubeletPort::with(namespace, &roots, own)
    }

    /// The same with a token.
    pub fn and_token(self, token: &str) -> KubeletPort<'a> {
        KubeletPort { token: Some(token.into()), ..self }
    }

    /// Somebody with a token.
    pub fn token(daemon: &Daemon, namespace: &'a Namespace, token: &str) -> Result<KubeletPort<'a>> {
        Ok(KubeletPort::new(daemon, namespace)?.and_token(token))
    }

    fn with(namespace: &'a Namespace, authorities: &str, own: Option<&Identity>) -> Result<KubeletPort<'a>> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
        let config = match own {
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes())?];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes())?)?
            }
            None => config.with_no_client_auth(),
        };
        Ok(KubeletPort { namespace, address: ADDRESS.parse()?, config: Arc::new(config), token: None })
    }

    pub fn connect(&self) -> Result<Stream> {
        let stream = self.namespace.enter(|| client::connect(self.address, LIMIT))??;
        let connection = ClientConnection::new(self.config.clone(), ServerName::from(self.address.ip()))?;
        Ok(StreamOwned::new(connection, stream))
    }

    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Response> {
        let bearer = self.token.as_ref().map(|t| format!("Bearer {t}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|b| ("Authorization", b.as_str())).collect();
        client::exchange(self.connect()?, "node", &Request { method, path, headers: &headers, body })
    }

    /// What a path holds; anything but a 200 is an error that shows the answer.
    pub fn get(&self, path: &str) -> Result<String> {
        let answer = self.ask("GET", path, b"")?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        Ok(answer.text())
    }

    /// Sends a request for another protocol; the head of the answer, and the stream behind it with what was read of it.
    pub fn upgrade(&self, method: &str, path: &str, headers: &str) -> Result<(String, Stream, Vec<u8>)> {
        let mut stream = self.connect()?;
        let bearer = self.token.as_ref().map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\n{bearer}{headers}\r\n")?;
        let mut read = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let n = stream.read(&mut chunk)?;
            ensure!(n > 0, "the port hung up: {:?}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&chunk[..n]);
            if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = read.split_off(end + 4);
                return Ok((String::from_utf8_lossy(&read).into_owned(), stream, rest));
            }
        }
    }

    /// Runs a command over SPDY: what came out, and how it ended.
    pub fn exec(&self, path: &str, stdin: &[u8]) -> Result<(String, String)> {
        let head = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
        let (answer, stream, rest) = self.upgrade("POST", path, head)?;
        ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}{}", String::from_utf8_lossy(&rest));
        let mut opener = Opener::default();
        let mut opening = opener.open(1, "streamtype", "error");
        if !stdin.is_empty() {
            opening.extend(opener.open(3, "streamtype", "stdin"));
        }
        opening.extend(opener.open(5, "streamtype", "stdout"));
        if !stdin.is_empty() {
            opening.extend(spdy::data(3, stdin, true));
        }
        let said = spdy_talk(stream, rest, &opening, |said| said.iter().filter(|(id, _, last)| *last && *id != 3).count() >= 2)?;
        let of = |id: u32| -> String {
            let bytes: Vec<u8> = said.iter().filter(|(stream, ..)| *stream == id).flat_map(|(_, bytes, _)| bytes.clone()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok((of(5), of(1)))
    }

    /// Says something to a container's own process over SPDY, until its output ends with `end`; all that it said.
    pub fn attach(&self, path: &str, stdin: &[u8], end: &str) -> Result<String> {
        let head = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
        let (answer, stream, rest) = self.upgrade("POST", path, head)?;
        ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}{}", String::from_utf8_lossy(&rest));
        let mut opener = Opener::default();
        let streams = [(1, "error"), (3, "stdin"), (5, "stdout")];
        let mut opening: Vec<u8> = streams.iter().flat_map(|(id, kind)| opener.open(*id, "streamtype", kind)).collect();
        opening.extend(spdy::data(3, stdin, false));
        let heard = |said: &[Said]| -> String {
            let bytes: Vec<u8> = said.iter().filter(|(s, ..)| *s == 5).flat_map(|(_, b, _)| b.clone()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let said = spdy_talk(stream, rest, &opening, |said| heard(said).ends_with(end))?;
        Ok(heard(&said))
    }

    /// Sends bytes to a port of a pod over SPDY, until something that ends with `end` comes back.
    pub fn forward(&self, path: &str, port: u16, bytes: &[u8], end: &[u8]) -> Result<String> {
        let head = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n";
        let (answer, stream, rest) = self.upgrade("POST", path, head)?;
        ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}{}", String::from_utf8_lossy(&rest));
        let mut opener = Opener::default();
        let port = port.to_string();
        let with = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
        let opening = [opener.open_with(1, &with("error")), opener.open_with(3, &with("data")), spdy::data(3, bytes, false)].concat();
        let data = |said: &[Said]| -> Vec<u8> { said.iter().filter(|(s, ..)| *s == 3).flat_map(|(_, b, _)| b.clone()).collect() };
        let said = spdy_talk(stream, rest, &opening, |said| data(said).ends_with(end))?;
        Ok(String::from_utf8_lossy(&data(&said)).into_owned())
    }

    /// Runs a command over a WebSocket: what came out of each channel.
    pub fn exec_by_websocket(&self, path: &str, protocol: &str) -> Result<Vec<(u8, String)>> {
        let head = format!(
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {protocol}\r\n"
        );
        let (answer, mut stream, mut read) = self.upgrade("GET", path, &head)?;
        ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}{}", String::from_utf8_lossy(&read));
        let mut out = Vec::new();
        loop {
            while let Some((kind, payload)) = websocket_frame(&mut read) {
                match (kind, payload.split_first()) {
                    (8, _) => return Ok(out),
                    (1 | 2, Some((channel, text))) if !text.is_empty() => out.push((*channel, String::from_utf8_lossy(text).into_owned())),
                    _ => {}
                }
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(out),
                Ok(n) => read.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(out),
                Err(e) => bail!("the stream broke after {out:?}: {e}"),
            }
        }
    }
}

/// Stream, bytes, and whether they are its last.
type Said = (u32, Vec<u8>, bool);

fn spdy_talk(mut stream: Stream, mut read: Vec<u8>, opening: &[u8], done: impl Fn(&[Said]) -> bool) -> Result<Vec<Said>> {
    stream.write_all(opening)?;
    let mut said = Vec::new();
    loop {
        while let Some(frame) = spdy::take(&mut read) {
            match frame {
                Frame::Data { stream, bytes, last } => said.push((stream, bytes, last)),
                Frame::Reset { stream } => said.push((stream, Vec::new(), true)),
                Frame::Ping(back) => stream.write_all(&back)?,
                Frame::GoAway => return Ok(said),
                Frame::Other => {}
            }
        }
        if done(&said) {
            return Ok(said);
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(said),
            Ok(n) => read.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(said),
            Err(e) => return Err(e).with_context(|| format!("the stream broke after {said:?}")),
        }
    }
}

/// A server's frame, which is not masked: its kind and what is in it.
fn websocket_frame(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (kind, short) = (buffer.first()? & 0x0f, usize::from(*buffer.get(1)? & 0x7f));
    let (head, length) = match short {
        126 => (4, usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)).ok()?),
        n => (2, n),
    };
    if buffer.len() < head + length {
        return None;
    }
    let rest = buffer.split_off(head + length);
    let frame = std::mem::replace(buffer, rest);
    Some((kind, frame[head..].to_vec()))
}
