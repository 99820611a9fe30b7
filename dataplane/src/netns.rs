//! Entering a network namespace, for the calling thread alone.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Moves the calling thread into the network namespace at `path`. Sockets opened from now on are of that namespace.
pub fn enter(path: &Path) -> io::Result<()> {
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}
