//! The state machine: what exists, what time does to it, which faults wait. Its verbs are in
//! `containers.rs` and `images.rs`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use tonic::{Code, Status};

use super::containers::{Container, Sandbox};
use super::images::{RemoteImage, StoredImage};
use super::script::{Behaviour, Call, ExecScript, Fault, FaultRule, Subject};
use crate::error::Verb;
use crate::v1;

pub(super) const MS: i64 = 1_000_000;

/// A runtime. Time comes in with every verb, in nanoseconds since the epoch, and never runs
/// backwards; between two verbs nothing happens until [`Model::advance`] says so.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) images: BTreeMap<String, StoredImage>,
    pub(super) registry: BTreeMap<String, RemoteImage>,
    /// Pulls on their way: when they are done, and what will then be there.
    pub(super) pulls: Vec<(i64, StoredImage)>,
    pub(super) behaviours: BTreeMap<Subject, Behaviour>,
    /// By container name and command line; the empty command line stands for all.
    pub(super) execs: BTreeMap<(String, Vec<String>), ExecScript>,
    pub(super) events: Vec<ModelEvent>,
    /// RuntimeClass handlers besides the default one.
    pub handlers: Vec<String>,
    /// How long each call takes, in milliseconds; for whoever runs the model to respect.
    pub latency: BTreeMap<Verb, i64>,
    pub network_ready: bool,
    /// Whether a sandbox whose network failed stays behind, not ready and with its name taken, as
    /// with containerd 1.6 where taking the network down fails too.
    pub keeps_failed_sandboxes: bool,
    pub(super) usage: BTreeMap<String, Usage>,
    faults: Vec<FaultRule>,
    calls: Vec<Call>,
    made: u64,
    addresses: u32,
}

/// What a container uses, as far as its stats tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Since its start.
    pub cpu_nanoseconds: u64,
    pub working_set_bytes: u64,
    /// Of its writable layer.
    pub disk_bytes: u64,
}

/// Something happened to a container or sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelEvent {
    pub at: i64,
    pub kind: v1::ContainerEventType,
    /// Of the container, or of the sandbox itself.
    pub id: String,
    pub pod_uid: String,
}

/// Why the runtime said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

impl Refusal {
    /// As the client would report it; for simulators.
    pub fn error(&self, verb: Verb, object: &str) -> crate::Error {
        crate::Error::from_status(verb, object, &Status::new(self.code, self.message.clone()))
    }

    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into() }
    }

    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Refusal::new(Code::Unknown, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Refusal::new(Code::NotFound, message)
    }
}

impl From<Refusal> for Status {
    fn from(r: Refusal) -> Status {
        Status::new(r.code, r.message)
    }
}

impl Model {
    pub fn new() -> Self {
        Model { network_ready: true, ..Model::default() }
    }

    /// Lets what is due by `now` happen, in order of time.
    pub fn advance(&mut self, now: i64) {
        while let Some(at) = self.next_change_at().filter(|at| *at <= now) {
            self.finish_pulls(at);
            self.end_due(at);
        }
    }

    /// When something will happen by itself, if ever.
    pub fn next_change_at(&self) -> Option<i64> {
        let exits = self.containers.values().filter_map(Container::ends_at);
        exits.chain(self.pulls.iter().map(|(at, _)| *at)).min()
    }

    /// Takes what happened since the last time.
    pub fn take_events(&mut self) -> Vec<ModelEvent> {
        std::mem::take(&mut self.events)
    }

    pub fn script(&mut self, subject: Subject, behaviour: Behaviour) {
        self.behaviours.insert(subject, behaviour);
    }

    /// Answers `command` in containers of this name; an empty command line answers every other.
    pub fn script_exec(&mut self, container: &str, command: &[&str], answer: ExecScript) {
        let command = command.iter().map(|c| (*c).to_owned()).collect();
        self.execs.insert((container.to_owned(), command), answer);
    }

    /// What a container's stats say from now on.
    pub fn set_usage(&mut self, id: &str, usage: Usage) {
        self.usage.insert(id.to_owned(), usage);
    }

    /// Strikes the next call of this verb, whatever it is about.
    pub fn fail_next(&mut self, verb: Verb, fault: Fault) {
        self.add_fault(FaultRule { verb, object: String::new(), times: Some(1), fault });
    }

    pub fn add_fault(&mut self, rule: FaultRule) {
        self.faults.push(rule);
    }

    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Notes a call and says what should go wrong with it. Whoever runs the model asks this before
    /// each verb.
    pub fn arrive(&mut self, verb: Verb, object: &str) -> Option<Fault> {
        self.calls.push(Call { verb, object: object.to_owned() });
        let hit = self.faults.iter().position(|r| r.verb == verb && r.times != Some(0) && object.contains(r.object.as_str()))?;
        let rule = &mut self.faults[hit];
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        let fault = rule.fault.clone();
        self.faults.retain(|r| r.times != Some(0));
        Some(fault)
    }

    /// Every call so far, in order of arrival.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    pub fn count(&self, verb: Verb) -> usize {
        self.calls.iter().filter(|c| c.verb == verb).count()
    }

    pub fn forget_calls(&mut self) {
        self.calls.clear();
    }

    pub(super) fn emit(&mut self, at: i64, kind: v1::ContainerEventType, id: &str, pod_uid: &str) {
        self.events.push(ModelEvent { at, kind, id: id.to_owned(), pod_uid: pod_uid.to_owned() });
    }

    /// 64 hexadecimal digits, as runtimes like them; the same in every run.
    pub(super) fn new_id(&mut self) -> String {
        self.made += 1;
        (0..4).map(|part| format!("{:016x}", scatter(self.made * 4 + part))).collect()
    }

    pub(super) fn new_address(&mut self) -> String {
        self.addresses += 1;
        let n = self.addresses;
        format!("10.88.{}.{}", n / 254 % 256, n % 254 + 1)
    }
}

/// One step of splitmix64: neighbours get unlike ids.
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
