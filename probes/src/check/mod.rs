//! The checks that go over the network, made without a process and without anything kept between two of
//! them. Tests: `tests/{http,tcp,grpc}.rs` against servers of all kinds.

mod dial;
mod grpc;
pub mod http;
mod request;
mod stream;
mod tcp;
mod tls;
mod url;

use crate::{Check, Outcome};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// Makes one check; `timeout` covers all of it. Exec checks belong to whoever holds the runtime's client.
pub async fn run(check: &Check, timeout: Duration) -> Outcome {
    match check {
        Check::Http(h) => http::probe(h, timeout).await,
        Check::Tcp { host, port } => tcp::probe(host, *port, timeout).await,
        Check::Grpc { host, port, service } => grpc::probe(*host, *port, service, timeout).await,
        Check::Impossible(why) => Outcome::Error(why.clone()),
        Check::Exec { .. } => Outcome::Error("a command is run by the runtime".into()),
    }
}

/// Does `work` over a connection that has to be driven meanwhile: without a task of its own nothing of it
/// outlives the check, whatever ends that.
async fn drive<C: Future + Unpin, T>(connection: &mut C, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut open = true;
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        if open && Pin::new(&mut *connection).poll(cx).is_ready() {
            open = false;
            // Its end is part of the answer.
            return work.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}
