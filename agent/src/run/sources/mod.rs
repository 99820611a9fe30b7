//! Where objects come from.

pub mod door;
mod files;
pub mod manifests;
pub mod ready;
mod record;
pub mod replace;
pub mod statics;
mod watch;
mod wishes;

pub use files::{list, text};
pub use watch::Watch;
