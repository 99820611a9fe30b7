//! tcpSocket: connects and closes. Tests: `tests/tcp.rs`.

use super::dial;
use super::url::join;
use crate::Outcome;
use std::time::Duration;

pub(super) async fn probe(host: &str, port: u16, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, dial::connect(host, port)).await {
        Ok(Ok(_)) => Outcome::Success(String::new()),
        Ok(Err(text)) => Outcome::Failure(text),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", join(host, port))),
    }
}
