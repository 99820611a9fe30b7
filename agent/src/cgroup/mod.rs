#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Control groups as values: where each pod's group is (`layout`) and what is written into it
//! (`values`). Must never touch the file system; `run::cgroup_fs` does. Tests: in each file.

pub mod layout;
pub mod oom;
pub mod values;

pub use layout::{CgroupPath, Driver, Layout};
pub use values::CgroupValues;
