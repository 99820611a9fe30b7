#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! A probe as values, with names resolved and defaults applied.

use std::net::IpAddr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As events begin: `Readiness probe failed: ...`.
    pub fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// Thresholds and timing. Thresholds are at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    Http(HttpCheck),
    Tcp {
        host: String,
        port: u16,
    },
    Grpc {
        host: IpAddr,
        port: u16,
        service: String,
    },
    /// Made through the runtime by whoever owns its client.
    Exec {
        command: Vec<String>,
    },
    /// The probe cannot be made as it is written; the text says why.
    Impossible(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Path with its query, as written.
    pub path: String,
    /// In order; a name may occur more than once.
    pub headers: Vec<(String, String)>,
}
