//! What can go wrong with a call to the runtime, sorted by what a planner may do about it.
//!
//! Owns the classification of gRPC statuses. Must never decide on a retry: that is the caller's.
//! Tests: below, and against a socket in `tests/client.rs`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use tonic::{Code, Status};

/// A call of the runtime interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Version,
    Status,
    RuntimeConfig,
    UpdateRuntimeConfig,
    RunPodSandbox,
    StopPodSandbox,
    RemovePodSandbox,
    PodSandboxStatus,
    ListPodSandbox,
    UpdatePodSandboxResources,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    ContainerStatus,
    ListContainers,
    UpdateContainerResources,
    ReopenContainerLog,
    GetContainerEvents,
    ExecSync,
    Exec,
    Attach,
    PortForward,
    CheckpointContainer,
    ContainerStats,
    ListContainerStats,
    PodSandboxStats,
    ListPodSandboxStats,
    ListMetricDescriptors,
    ListPodSandboxMetrics,
    ListImages,
    ImageStatus,
    PullImage,
    RemoveImage,
    ImageFsInfo,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a call failed, as far as a planner cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The runtime cannot be reached, or went away during the call. Its outcome is unknown.
    Unavailable,
    /// The deadline passed, here or in the runtime. The outcome is unknown.
    Timeout,
    /// The request itself is wrong; the same request will fail again.
    Invalid,
    /// The object is in another state than the call needs, or its name is taken.
    Conflict,
    /// Credentials are missing or not good enough.
    Denied,
    /// The object does not exist. Deletes turn this into success before it gets here.
    NotFound,
    /// The runtime does not know the call.
    Unimplemented,
    Other,
}

/// A failed call: which one, on what, and what the runtime said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{verb}{}{object}: {}{}", if object.is_empty() { "" } else { " " }, self.rpc_text(), self.hint())]
pub struct Error {
    pub kind: Kind,
    pub verb: Verb,
    /// The id, name or path the call was about; empty for calls about the runtime.
    pub object: Box<str>,
    /// The gRPC code as received, or the one that stands for what happened on this side.
    pub code: Code,
    /// The runtime's own description, to the byte: it ends up in events and statuses.
    pub description: Box<str>,
}

impl Error {
    /// Classifies a status. Statuses born on this side of the socket carry a source; those are
    /// losses of the connection whatever code they bear.
    pub fn from_status(verb: Verb, object: &str, status: &Status) -> Self {
        let local = std::error::Error::source(status).is_some();
        if causes(status).any(|c| c.is::<tonic::TimeoutExpired>()) {
            return Error::timeout(verb, object);
        }
        let kind = classify(status.code(), status.message(), local);
        // The last cause in the chain says what happened; the others say "transport error".
        let description = match causes(status).last() {
            Some(cause) => cause.to_string().into(),
            None => status.message().into(),
        };
        let code = if local { Code::Unavailable } else { status.code() };
        Error { kind, verb, object: object.into(), code, description }
    }

    /// No answer within `deadline`; the text is the one Go's gRPC gives.
    pub fn timeout(verb: Verb, object: &str) -> Self {
        Error {
            kind: Kind::Timeout,
            verb,
            object: object.into(),
            code: Code::DeadlineExceeded,
            description: "context deadline exceeded".into(),
        }
    }

    /// The runtime answered, but not as the interface promises.
    pub fn malformed(verb: Verb, object: &str, what: &str) -> Self {
        Error { kind: Kind::Other, verb, object: object.into(), code: Code::Internal, description: what.into() }
    }

    /// As a kubelet prints a failed call: `rpc error: code = NotFound desc = …`.
    pub fn rpc_text(&self) -> String {
        format!("rpc error: code = {} desc = {}", go_code(self.code), self.description)
    }

    /// As a kubelet prints a failed pull: code `Unknown` says nothing and is left out.
    pub fn pull_text(&self) -> String {
        if self.code == Code::Unknown { self.description.to_string() } else { self.rpc_text() }
    }

    /// Which waiting reason a failed pull leads to. Runtimes signal the two special ones by the
    /// first word of the description.
    pub fn pull_reason(&self) -> PullFailure {
        let text = self.pull_text();
        if let Some(rest) = text.strip_prefix("RegistryUnavailable") {
            PullFailure::RegistryUnavailable { rest: rest.into() }
        } else if let Some(rest) = text.strip_prefix("SignatureValidationFailed") {
            PullFailure::SignatureValidationFailed { rest: rest.into() }
        } else {
            PullFailure::ErrImagePull
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    pub fn is_unimplemented(&self) -> bool {
        self.kind == Kind::Unimplemented
    }

    /// Whether the call may have taken effect although it failed.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Timeout)
    }

    fn hint(&self) -> &'static str {
        match (self.kind, &*self.description) {
            (Kind::Unavailable, d) if d.contains("os error 2") => " (is the runtime running?)",
            (Kind::Unavailable, d) if d.contains("os error 13") => " (needs root)",
            (_, d) if d.contains("can't get final child's PID from pipe") => {
                " (without CAP_SYS_RESOURCE containerd needs restrict_oom_score_adj = true)"
            }
            _ => "",
        }
    }
}

/// Reason of the waiting state after a failed pull; `rest` is what followed the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullFailure {
    ErrImagePull,
    RegistryUnavailable { rest: Box<str> },
    SignatureValidationFailed { rest: Box<str> },
}

/// NotFound on delete is success: the object is as gone as it was asked to be.
pub fn ignore_not_found(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

fn classify(code: Code, text: &str, local: bool) -> Kind {
    match code {
        Code::DeadlineExceeded => Kind::Timeout,
        Code::Unavailable => Kind::Unavailable,
        _ if local => Kind::Unavailable,
        // A runtime that is shutting down cancels what it was doing.
        Code::Cancelled => Kind::Unavailable,
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => Kind::Conflict,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::NotFound => Kind::NotFound,
        Code::Unimplemented => Kind::Unimplemented,
        // containerd gives most failures no code. A name that is taken, and a container in the
        // wrong state, can be told by their text.
        _ if text.contains(" is reserved for ") => Kind::Conflict,
        _ if text.contains("container is in CONTAINER_") => Kind::Conflict,
        _ => Kind::Other,
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |e| e.source())
}

/// Go's spelling of the codes.
fn go_code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: Code, text: &str) -> Error {
        Error::from_status(Verb::PullImage, "img", &Status::new(code, text))
    }

    #[test]
    fn texts_are_those_a_kubelet_shows() {
        let e = failed(Code::NotFound, "failed to pull and unpack image \"x\": not found");
        assert_eq!(e.rpc_text(), "rpc error: code = NotFound desc = failed to pull and unpack image \"x\": not found");
        assert_eq!(e.pull_text(), e.rpc_text());
        assert_eq!(failed(Code::Unknown, "no luck").pull_text(), "no luck");
        assert_eq!(failed(Code::Cancelled, "x").rpc_text(), "rpc error: code = Canceled desc = x");
    }

    #[test]
    fn pull_tokens_are_recognised_at_the_start_only() {
        let at_start = failed(Code::Unknown, "RegistryUnavailable: down for today");
        assert_eq!(at_start.pull_reason(), PullFailure::RegistryUnavailable { rest: ": down for today".into() });
        let signature = failed(Code::Unknown, "SignatureValidationFailed");
        assert_eq!(signature.pull_reason(), PullFailure::SignatureValidationFailed { rest: "".into() });
        let inside = failed(Code::Unknown, "oh: RegistryUnavailable");
        assert_eq!(inside.pull_reason(), PullFailure::ErrImagePull);
        // With a code other than Unknown the text starts with "rpc error", as upstream's does.
        let coded = failed(Code::Internal, "RegistryUnavailable");
        assert_eq!(coded.pull_reason(), PullFailure::ErrImagePull);
    }

    #[test]
    fn conflicts_are_told_by_their_text_where_containerd_gives_no_code() {
        let text = "failed to reserve container name \"c_p_ns_u_0\": name \"c_p_ns_u_0\" is reserved for \"abc\"";
        assert_eq!(failed(Code::Unknown, text).kind, Kind::Conflict);
        let text = "failed to set starting state for container \"abc\": container is in CONTAINER_RUNNING state";
        assert_eq!(failed(Code::Unknown, text).kind, Kind::Conflict);
        assert_eq!(failed(Code::Unknown, "something else").kind, Kind::Other);
    }

    #[test]
    fn not_found_on_delete_is_success() {
        assert!(ignore_not_found(Err(failed(Code::NotFound, "gone"))).is_ok());
        assert!(ignore_not_found(Err(failed(Code::Unavailable, "down"))).is_err());
    }

    #[test]
    fn the_message_names_call_object_and_cause() {
        let e = Error::timeout(Verb::StopContainer, "abc");
        assert_eq!(e.to_string(), "StopContainer abc: rpc error: code = DeadlineExceeded desc = context deadline exceeded");
        assert!(e.outcome_unknown());
    }
}
