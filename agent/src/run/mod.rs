//! The thin shell: turns the world into events and effects into the world.
//!
//! Everything here may do I/O and nothing here decides: what to do comes as effects, what happened goes
//! back as events. `assemble` is the one place where the pieces are made and joined.

pub mod api;
pub mod assemble;
pub mod cgroup_fs;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod dns;
pub mod event_loop;
pub mod events;
pub mod executor;
pub mod grpc;
pub mod hooks;
pub mod host_addresses;
pub mod housekeeping;
pub mod images;
pub mod kubelet;
pub mod lanes;
pub mod lookout;
pub mod machine;
pub mod observe;
pub mod plugins;
pub mod port;
pub mod prober;
pub mod process;
pub mod proxy;
pub mod proxy_settings;
pub mod runner;
pub mod server;
pub mod services;
pub mod sources;
pub mod state_dir;
pub mod state_file;
pub mod stats;
pub mod tunables;
pub mod volumes;
