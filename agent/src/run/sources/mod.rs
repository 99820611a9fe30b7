//! Where objects come from.

mod files;
pub mod manifests;
mod watch;

pub use files::{list, text};
pub use watch::Watch;
