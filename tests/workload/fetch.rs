//! The client's side: names and pages. (Static builds of busybox cannot look names up everywhere.)

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3);

/// Prints the addresses of a name, one per line.
pub fn resolve(name: &str) -> Result<(), Error> {
    for address in (name, 0).to_socket_addrs()? {
        println!("{}", address.ip());
    }
    Ok(())
}

/// Prints what `http://host[:port]/path` serves; an error unless it is a success.
pub fn fetch(url: &str) -> Result<(), Error> {
    let invalid = || Error::new(ErrorKind::InvalidInput, format!("{url} is no http:// address"));
    let rest = url.strip_prefix("http://").ok_or_else(invalid)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let target = if with_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut outcome = Err(invalid());
    for address in target.to_socket_addrs()? {
        outcome = TcpStream::connect_timeout(&address, LIMIT);
        if outcome.is_ok() {
            break;
        }
    }
    let mut stream = outcome?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("{url} answered no HTTP")))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        return Err(Error::other(format!("{url} answered {status}")));
    }
    std::io::stdout().write_all(&answer[end + 4..])
}
