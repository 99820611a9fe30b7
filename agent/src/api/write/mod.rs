//! What a write makes of an object: create, update, patch, delete and the sub-resources that write.
//!
//! `decide` takes what is there, what is asked for and the time, and says what is to be there then, or why not, in
//! an API server's words. Must never keep anything: whoever calls makes the outcome durable and puts it into the
//! store. Tests: `write/tests.rs`, and the vectors of `agent/tests/`.

pub mod canonical;
mod check;
mod create;
mod delete;
pub mod meta;
mod pod;
mod refuse;
#[cfg(test)]
mod tests;
mod update;

pub use check::{Validation, plain, shape_of};
pub use create::written;
pub use delete::DeleteOptions;
pub use refuse::invalid;

use super::Failure;
use super::access::User;
use super::patch::{Editor, PatchKind};
use super::request::Request;
use super::resource::{Home, Id};
use crate::manifest::Rules;
use crate::time::Wall;
use serde_json::{Value, json};

/// Who asks, how, and when.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user: User,
    /// `kubectl-client-side-apply`, `kubelet`, ...
    pub manager: String,
    pub now: Wall,
    /// Makes uids and generated names that nobody guesses.
    pub seed: u64,
    pub dry_run: bool,
    pub validation: Validation,
    /// Of server-side apply.
    pub force: bool,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Op {
    Create(Value),
    Update(Value),
    Patch(PatchKind, Vec<u8>),
    Delete(DeleteOptions),
}

/// What is to be there afterwards.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing changes.
    None,
    Put(Value),
    /// A pod begins to end: to be put, and whoever runs it is told.
    Ending(Value),
    Remove,
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub effect: Effect,
    /// What to answer with, where it is neither what is put nor what was there.
    pub answer: Option<Value>,
    /// Of a new object, what the client wrote, before anything was filled in.
    pub authored: Option<Value>,
    pub warnings: Vec<String>,
    /// The HTTP status.
    pub code: u16,
}

impl Caller {
    fn editor<'a>(&'a self, id: Id, version: &'a str, sub: &'a str) -> Editor<'a> {
        Editor { manager: &self.manager, api_version: version, kind: id.row().kind, subresource: sub, force: self.force, now: self.now }
    }
}

impl Outcome {
    fn new(effect: Effect, code: u16) -> Outcome {
        Outcome { effect, answer: None, authored: None, warnings: Vec::new(), code }
    }
}

/// What decisions depend on beside the object itself.
#[derive(Clone, Debug, Default)]
pub struct Context {
    pub rules: Rules,
    /// Of a lone node: where pods are bound to. Empty: there are many nodes.
    pub node: String,
    /// A lone node keeps what people write in files, where the reader of files gives identities.
    pub lone: bool,
}

/// Decides a write. `old` is the object as it is, if there is one.
pub fn decide(op: Op, r: &Request, old: Option<&Value>, caller: &Caller, context: &Context) -> Result<Outcome, Failure> {
    let missing = || Failure::missing(r.resource.subject(&r.name));
    match (op, r.sub.as_str()) {
        (Op::Create(object), "") => create::create(object, r, old, caller, context),
        (Op::Create(object), sub) => pod::create_sub(object, sub, r, old.ok_or_else(missing)?, caller),
        (Op::Update(object), _) => match old {
            Some(old) => update::update(object, r, old, caller, context),
            None => Err(missing()),
        },
        (Op::Patch(kind, body), _) => match (old, kind) {
            (Some(old), _) => update::patch(kind, &body, r, old, caller, context),
            (None, PatchKind::Apply) if r.sub.is_empty() => create::apply(&body, r, caller, context),
            (None, _) => Err(missing()),
        },
        (Op::Delete(options), _) => delete::delete(&options, r, old.ok_or_else(missing)?, caller),
    }
}

/// What is told of an object that is gone, where it is not shown itself.
pub fn deleted(id: Id, name: &str, old: Option<&Value>) -> Value {
    let row = id.row();
    let mut details = json!({"name": name, "kind": row.plural});
    if !row.group.is_empty() {
        details["group"] = row.group.into();
    }
    if let Some(old) = old {
        details["uid"] = meta::text(old, "uid").into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Whether uids and times are given by the reader of the manifests directory.
fn identified_elsewhere(id: Id, context: &Context) -> bool {
    context.lone && id.row().home == Home::Files
}
