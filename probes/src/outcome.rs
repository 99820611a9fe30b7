#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The result of one check.

/// What one check found. The text is what events show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success(String),
    /// Counts as success and is told (a redirect to another host).
    Warning(String),
    Failure(String),
    /// The check itself could not be made: it says nothing about the container.
    Error(String),
    /// An answer came and could not be read to its end: it says nothing either.
    Unreadable(String),
}

impl Outcome {
    /// What the check itself came to where it says nothing about the container, as events have it:
    /// `Liveness probe errored and resulted in unknown state: ...`.
    pub fn error_state(&self) -> Option<&'static str> {
        match self {
            Outcome::Error(_) => Some("unknown"),
            Outcome::Unreadable(_) => Some("failure"),
            _ => None,
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Outcome::Success(t) | Outcome::Warning(t) | Outcome::Failure(t) | Outcome::Error(t) | Outcome::Unreadable(t) => t,
        }
    }
}
