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
}

impl Outcome {
    pub fn text(&self) -> &str {
        match self {
            Outcome::Success(t) | Outcome::Warning(t) | Outcome::Failure(t) | Outcome::Error(t) => t,
        }
    }
}
