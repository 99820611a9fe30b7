//! The iptables backend: kube-proxy's chains, names, comments and jumps, written by `iptables-restore --noflush` with
//! only the chains that changed.
//!
//! | file | owns |
//! |---|---|
//! | `names` | names and hashes of chains |
//! | `ir` | what can be said |
//! | `schema` | the part that is the same on every node |
//! | `compile` | a service to its rules |
//! | `diff` | what the kernel holds, and the fewest lines from there |
//! | `program` | what is desired of all services |
//! | `render`, `parse` | to and from iptables' text |
//! | `image`, `sim` | the tables in memory, and what they do with a packet |
//! | `variant` | legacy or nft |
//! | `kernel`, `watch`, `accounting`, `plane` | the only parts that touch the world |
//!
//! Where a packet's lot is another than with nftables, it is kube-proxy's: other ports of a cluster IP pass
//! untranslated, not refused; so do the node's own packets to an external address of a service without endpoints
//! (nothing jumps from OUTPUT to KUBE-EXTERNAL-SERVICES); such a service refuses everybody, whatever its source ranges;
//! node ports answer on 127.0.0.1. Affinity remembers as many clients of an endpoint as `xt_recent` does, 100 unless
//! its module is told otherwise.
//!
//! Tests: `tests` (laws), each file's own, and the namespace tests.

pub mod accounting;
pub mod compile;
pub mod diff;
pub mod image;
pub mod ir;
pub mod kernel;
pub mod names;
pub mod parse;
pub mod plane;
pub mod program;
pub mod render;
pub mod schema;
pub mod sim;
#[cfg(test)]
mod tests;
pub mod variant;
mod view;
mod watch;

pub use plane::cleanup;
