//! Health: of the proxy itself, and of services towards load balancers.
//!
//! `proxy` and `service` (pure) own what is answered; `server` owns the sockets. Tests: in each, and the namespace tests.

pub mod proxy;
pub mod service;
