//! gRPC on unix sockets: a server of single answers, and a client of plugins.
//!
//! The framing is `crate::grpc`'s and HTTP/2 is hyper's; a library's server would bring a second router into a program
//! that has three methods to serve. Tests: `agent/tests/plugins.rs`.

mod client;
mod server;

pub use client::{Channel, GrpcError, Messages};
pub use server::{Answer, Service, reply, request, serve, unknown};

use std::future::Future;

/// All of it lives on one thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
