//! Health: of the proxy itself, and of services towards load balancers; and the metrics server.
//!
//! `proxy` and `service` (pure) own what is answered, `pages` the metrics server's pages; `server` owns the sockets, in a
//! thread of its own, `http` how requests are read, and `shared` what the actor tells them. Tests: in each, and the
//! namespace tests.

pub mod http;
pub mod pages;
pub mod proxy;
pub mod server;
pub mod service;
pub mod shared;
