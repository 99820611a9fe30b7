//! The user-space backend: for kernels without any packet filter, this process relays.
//!
//! Every address of a service is put on a link of our own and listened on, as is every node port; a connection is
//! relayed by `splice`, a datagram by `recvmmsg` and `sendmmsg`, one session for each client. What other backends do
//! and this one cannot: servers see the node's address, never the client's; a relayed connection ends with this
//! process; what is to be dropped is refused; pods are told by their address alone; SCTP is not served.
//!
//! | file | owns |
//! |---|---|
//! | `balance` | whose turn it is, and who stays |
//! | `compile` | a service to what is listened on |
//! | `link` | addresses in the kernel |
//! | `relay` | the thread on which everything is relayed |
//! | `tcp`, `udp`, `batch` | the relays |
//! | `plane` | the order of it all |
//!
//! Tests: the files' own, and `tests/userspace.rs`.

mod balance;
mod batch;
pub mod compile;
mod link;
pub mod plane;
mod relay;
mod tcp;
mod udp;

pub use link::cleanup;
pub use relay::Times;
