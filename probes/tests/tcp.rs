//! tcpSocket checks.

mod servers;

use longshore_probes::{Check, Outcome, check};
use servers::*;

async fn tcp(host: &str, port: u16) -> Outcome {
    check::run(&Check::Tcp { host: host.into(), port }, LONG).await
}

#[tokio::test]
async fn whoever_listens_is_well() {
    for on in ["127.0.0.1:0", "[::1]:0"] {
        let (_open, at) = listener(on).await;
        assert_eq!(tcp(&at.ip().to_string(), at.port()).await, Outcome::Success(String::new()));
    }
    let (_open, at) = listener("127.0.0.1:0").await;
    assert_eq!(tcp("localhost", at.port()).await, Outcome::Success(String::new()));
}

#[tokio::test]
async fn failures_read_as_from_go() {
    for on in ["127.0.0.1:0", "[::1]:0"] {
        let at = listener(on).await.1;
        let want = format!("dial tcp {at}: connect: connection refused");
        assert_eq!(tcp(&at.ip().to_string(), at.port()).await, Outcome::Failure(want));
    }
    let outcome = tcp("no-such-host.invalid", 80).await;
    assert_eq!(outcome.text(), "dial tcp: lookup no-such-host.invalid: no such host");
}

#[tokio::test]
async fn a_connection_that_nobody_accepts_times_out() {
    // A backlog of none that is full: further handshakes go unanswered.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(0).unwrap();
    let at = full.local_addr().unwrap();
    let _held = tokio::net::TcpStream::connect(at).await.unwrap();
    let check = Check::Tcp { host: "127.0.0.1".into(), port: at.port() };
    let outcome = check::run(&check, std::time::Duration::from_millis(200)).await;
    assert_eq!(outcome, Outcome::Failure(format!("dial tcp {at}: i/o timeout")));
}
