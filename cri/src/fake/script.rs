//! What a test tells the fake runtime to do.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use tonic::Code;

use crate::error::Verb;

/// How a container's process behaves. The default runs until SIGTERM and then ends at once with 0.
/// Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behaviour {
    pub start: StartOutcome,
    pub life: Life,
    pub on_term: OnTerm,
    /// Lines it writes to standard output when it starts.
    pub output: Vec<String>,
    /// What it leaves in its termination message file when it ends.
    pub termination_message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StartOutcome {
    #[default]
    Starts,
    /// StartContainer fails with this text; the container is then exited with 128, `StartError`.
    Fails(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Life {
    #[default]
    Forever,
    Exits {
        after_ms: i64,
        code: i32,
    },
    /// Killed by the kernel for its memory: 137, `OOMKilled`.
    OutOfMemory {
        after_ms: i64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTerm {
    Exits {
        after_ms: i64,
        code: i32,
    },
    /// Only SIGKILL ends it.
    Ignores,
}

impl Default for OnTerm {
    fn default() -> Self {
        OnTerm::Exits { after_ms: 0, code: 0 }
    }
}

impl Behaviour {
    pub fn exits(after_ms: i64, code: i32) -> Self {
        Behaviour { life: Life::Exits { after_ms, code }, ..Behaviour::default() }
    }

    pub fn ignores_term() -> Self {
        Behaviour { on_term: OnTerm::Ignores, ..Behaviour::default() }
    }

    pub fn ends_on_term(after_ms: i64, code: i32) -> Self {
        Behaviour { on_term: OnTerm::Exits { after_ms, code }, ..Behaviour::default() }
    }

    pub fn fails_to_start(message: &str) -> Self {
        Behaviour { start: StartOutcome::Fails(message.into()), ..Behaviour::default() }
    }

    pub fn out_of_memory(after_ms: i64) -> Self {
        Behaviour { life: Life::OutOfMemory { after_ms }, ..Behaviour::default() }
    }
}

/// Whom a behaviour is for. The narrowest that matches counts: a run, a container, an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// By the name in the pod.
    Image(String),
    Container {
        pod: String,
        container: String,
    },
    Run {
        pod: String,
        container: String,
        attempt: u32,
    },
}

/// The answer to commands run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecScript {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
    /// How long the command runs; beyond the caller's timeout it fails with DeadlineExceeded.
    pub takes_ms: i64,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Refused; nothing happens.
    Error(Code, String),
    /// Never answered; nothing happens.
    Hang,
    /// The connections break; nothing happens.
    Disconnect,
    /// It happens, and then the connections break: the caller cannot know.
    DisconnectAfter,
    /// It happens, so many milliseconds late.
    Delay(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    pub verb: Verb,
    /// Calls about something whose id or name contains this; empty for all.
    pub object: String,
    /// How many calls are struck; `None` for all from now on.
    pub times: Option<u32>,
    pub fault: Fault,
}

/// A call as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub verb: Verb,
    pub object: String,
}
