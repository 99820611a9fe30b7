//! Where objects come from.

pub mod door;
mod files;
pub mod manifests;
mod record;
pub mod replace;
mod watch;
mod wishes;

pub use files::{list, text};
pub use watch::Watch;
