//! The refusals of writes.

use super::super::failure::Cause;
use super::super::resource::Id;
use super::Failure;
use crate::manifest::problem::Fault;

pub fn exists(id: Id, name: &str) -> Failure {
    Failure::already_exists(id.subject(name))
}

pub fn conflict(id: Id, name: &str, why: &str) -> Failure {
    Failure::conflict(id.subject(name), why)
}

pub fn modified(id: Id, name: &str) -> Failure {
    conflict(id, name, "the object has been modified; please apply your changes to the latest version and try again")
}

/// `Pod "web" is invalid: spec.containers[0].image: Required value`, with each fault as a cause.
pub fn invalid(id: Id, name: &str, faults: &[Fault]) -> Failure {
    Failure::invalid(id.kind_subject(name), faults.iter().map(Cause::from).collect())
}
