//! The checks that go over the network, made without a process.

pub mod http;
mod tcp;

use crate::{Check, Outcome};
use std::time::Duration;

/// Makes one check; `timeout` covers all of it. Exec checks belong to whoever holds the runtime's client.
pub async fn run(check: &Check, timeout: Duration) -> Outcome {
    match check {
        Check::Http(h) => http::probe(h, timeout).await,
        Check::Tcp { host, port } => tcp::probe(host, *port, timeout).await,
        Check::Impossible(why) => Outcome::Error(why.clone()),
        Check::Grpc { .. } | Check::Exec { .. } => Outcome::Error("this check is made elsewhere".into()),
    }
}
