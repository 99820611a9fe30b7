//! One world: the node, the model of its runtime, the clock, what is on its way.

use super::{Random, laws, workload};
use crate::cgroup::{Driver, Layout};
use crate::env::NodeFacts;
use crate::node::event::{Observation, Recovered};
use crate::node::state::NodeConfig;
use crate::node::{Effect, Event, Job, JobId, NodeState, step};
use crate::plan::{Host, ImageState, ImageVerb, PresentImage, PullFailure, backoff};
use crate::pod::{Pod, PodUid};
use crate::time::{Mono, Now, Wall};
use crate::work::{Failure, FailureKind, Finished, Work, WorkResult};
use longshore_cri::container_config::ContainerSpec;
use longshore_cri::error::Verb;
use longshore_cri::fake::{Model, RemoteImage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use workload::Does;

const MS: i64 = 1_000_000;
/// Milliseconds between two relists.
const RELIST: i64 = 30_000;
const START: i64 = 1_700_000_000_000_000_000;
/// Virtual time within which everything must have come to rest after the last disturbance: long enough
/// for the largest back-offs.
const PATIENCE: i64 = 1_200_000 * MS;

/// A world in which the daemon dies more often never gets anywhere.
const DEATHS: u64 = 30;

enum Pending {
    Deliver(Event),
    /// The next piece of a job, with what came of the ones before.
    Work(Box<Job>, usize, Vec<WorkResult>),
    /// A kill in the middle of its stop.
    Killed(Box<Job>, usize, Vec<WorkResult>),
    Look(PodUid),
    Relist,
}

pub(super) struct World {
    pub model: Model,
    pub node: NodeState,
    pub persisted: BTreeMap<PodUid, Recovered>,
    pub wanted: BTreeMap<PodUid, Arc<Pod>>,
    pub does: BTreeMap<PodUid, Vec<Does>>,
    /// Percent of calls that fail, and of steps after which the daemon dies.
    pub faults: u64,
    pub crashes: u64,
    deaths: u64,
    /// Everything the runtime was asked to do, for comparing courses.
    pub course: Vec<String>,
    pub laws: laws::Memory,
    /// The runtime was changed since the laws were looked at.
    touched: bool,
    now: i64,
    random: Random,
    queue: BTreeMap<(i64, u64), Pending>,
    serial: u64,
    pods: u64,
    cancelled: BTreeSet<JobId>,
}

pub(crate) fn config() -> NodeConfig {
    NodeConfig {
        root_dir: "/root".into(),
        pod_logs_dir: "/logs".into(),
        container_logs_dir: "/links".into(),
        cgroups: Layout::new(Driver::Cgroupfs, ""),
        cgroup_v2: true,
        pod_pids_limit: -1,
        cluster_domain: "cluster.local".into(),
        cluster_dns: Vec::new(),
        host_resolv: crate::work::dns::Resolv::default(),
        limits: backoff::Limits::default(),
        max_pods: 110,
        seccomp_default: false,
        allowed_unsafe_sysctls: Vec::new(),
        single_process_oom_kill: false,
        runtime_name: "fake".into(),
        started: Wall(START),
    }
}

fn facts() -> NodeFacts {
    NodeFacts { name: "node".into(), host_ips: vec![[192, 0, 2, 1].into()], memory_bytes: 8 << 30, ..NodeFacts::default() }
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let mut model = Model::new();
        model.network_ready = true;
        for n in 0..3 {
            let name = format!("localhost/image-{n}:1");
            match random.below(4) {
                0 => drop(model.preload(&name)),
                1 => model.publish(&name, RemoteImage { broken: Some("not found".into()), ..RemoteImage::default() }),
                _ => model.publish(&name, RemoteImage { pull_ms: random.below(20_000) as i64, ..RemoteImage::default() }),
            }
        }
        let mut w = World {
            model,
            node: NodeState::new(config(), facts(), BTreeMap::new()),
            persisted: BTreeMap::new(),
            wanted: BTreeMap::new(),
            does: BTreeMap::new(),
            faults: 8,
            crashes: 0,
            deaths: 0,
            course: Vec::new(),
            laws: laws::Memory::default(),
            touched: false,
            now: START,
            random,
            queue: BTreeMap::new(),
            serial: 0,
            pods: 0,
            cancelled: BTreeSet::new(),
        };
        w.boot();
        w
    }

    pub fn now(&self) -> Now {
        let wall = Wall(self.now);
        Now { mono: Mono(Duration::from_nanos((self.now - START).unsigned_abs()) + Duration::from_secs(1 << 20)), wall }
    }

    /// A fresh process: what it knows is what was written down and what it sees.
    pub fn rebuilt(&self) -> NodeState {
        let mut n = NodeState::new(NodeConfig { started: Wall(self.now), ..config() }, facts(), self.persisted.clone());
        for event in self.first_events() {
            drop(step(&mut n, event, self.now()));
        }
        n
    }

    fn first_events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = self.wanted.values().map(|p| Event::SetPod(p.clone())).collect();
        events.push(Event::SourcesReady);
        events.push(Event::Runtime { ready: None, network: None });
        events.push(self.relist());
        events
    }

    fn boot(&mut self) {
        self.deaths += 1;
        self.queue.clear();
        self.cancelled.clear();
        self.node = NodeState::new(NodeConfig { started: Wall(self.now), ..config() }, facts(), self.persisted.clone());
        for e in self.first_events() {
            self.later(0, Pending::Deliver(e));
        }
        self.later(RELIST, Pending::Relist);
    }

    fn relist(&self) -> Event {
        let began = self.now().mono;
        let look = |pod| Observation { pod, began, messages: BTreeMap::new() };
        Event::Relisted(self.model.observe_all().into_iter().map(look).collect())
    }

    fn observation(&self, uid: &PodUid) -> Observation {
        let pod = self.model.observe(uid.as_str());
        let pod = pod.unwrap_or_else(|| crate::plan::view::nothing(uid, "default", "gone"));
        Observation { pod, began: self.now().mono, messages: BTreeMap::new() }
    }

    fn later(&mut self, ms: i64, what: Pending) {
        self.serial += 1;
        self.queue.insert((self.now + ms * MS, self.serial), what);
    }

    fn soon(&mut self) -> i64 {
        self.random.below(80) as i64
    }

    /// Adds, edits and removes pods, lets containers crash, and lets time pass between.
    pub fn disturb(&mut self, times: u64) {
        for _ in 0..times {
            match self.random.below(10) {
                0..=3 => self.add(),
                4 => self.remove_one(),
                5 => self.change_image(),
                6 => self.crash_a_container(),
                7 => self.break_a_sandbox(),
                _ => {}
            }
            let pause = [10, 500, 5_000, 60_000][self.random.below(4) as usize];
            self.run_for(pause);
        }
    }

    fn add(&mut self) {
        self.pods += 1;
        let planned = workload::pod(&mut self.random, self.pods);
        for (subject, behaviour) in planned.scripts {
            self.model.script(subject, behaviour);
        }
        let pod = Arc::new(planned.pod);
        self.does.insert(pod.uid(), planned.does);
        self.wanted.insert(pod.uid(), pod.clone());
        self.later(0, Pending::Deliver(Event::SetPod(pod)));
    }

    fn remove_one(&mut self) {
        let i = self.random.below(self.wanted.len().max(1) as u64) as usize;
        let Some(uid) = self.wanted.keys().nth(i).cloned() else { return };
        self.wanted.remove(&uid);
        self.later(0, Pending::Deliver(Event::RemovePod(uid)));
    }

    pub fn remove_all(&mut self) {
        while !self.wanted.is_empty() {
            self.remove_one();
        }
    }

    fn change_image(&mut self) {
        let i = self.random.below(self.wanted.len().max(1) as u64) as usize;
        let Some(pod) = self.wanted.values().nth(i).cloned() else { return };
        let mut pod = (*pod).clone();
        let image = format!("localhost/image-{}:1", self.random.below(3));
        pod.spec.containers[0].image = image;
        let pod = Arc::new(pod);
        self.wanted.insert(pod.uid(), pod.clone());
        self.later(0, Pending::Deliver(Event::SetPod(pod)));
    }

    fn crash_a_container(&mut self) {
        let running: Vec<Box<str>> =
            self.model.observe_all().iter().flat_map(|p| p.running().map(|c| c.id.clone()).collect::<Vec<_>>()).collect();
        let i = self.random.below(running.len().max(1) as u64) as usize;
        if let Some(id) = running.get(i) {
            let _ = self.model.crash(self.now, id, 139);
        }
    }

    fn break_a_sandbox(&mut self) {
        let all: Vec<Box<str>> =
            self.model.observe_all().iter().flat_map(|p| p.sandboxes.iter().map(|s| s.id.clone()).collect::<Vec<_>>()).collect();
        let i = self.random.below(all.len().max(1) as u64) as usize;
        if let Some(id) = all.get(i) {
            let _ = self.model.break_sandbox(self.now, id);
        }
    }

    /// No more faults, and as much time as it takes.
    pub fn settle(&mut self) {
        (self.faults, self.crashes) = (0, 0);
        self.run_for(PATIENCE / MS);
    }

    /// Lets everything that is under way end, and no more.
    pub fn quiesce(&mut self) {
        (self.faults, self.crashes) = (0, 0);
        self.run_for(120_000);
    }

    fn run_for(&mut self, ms: i64) {
        let end = self.now + ms * MS;
        for round in 0_u64.. {
            let queued = self.queue.keys().next().map(|(t, _)| *t);
            let wake = self.node.next_wake().map(|m| self.now + (m - self.now().mono).as_nanos() as i64);
            let model = self.model.next_change_at();
            assert!(round < 60_000, "the node never rests: {queued:?} {wake:?} {model:?} {} {:?}", self.now, self.unrest());
            let Some(next) = [queued, wake, model].into_iter().flatten().min().filter(|t| *t <= end) else { break };
            self.now = self.now.max(next);
            self.model.advance(self.now);
            self.runtime_events();
            if queued.is_some_and(|t| t <= self.now) {
                let (_, what) = self.queue.pop_first().expect("just seen");
                self.happen(what);
            } else if wake.is_some_and(|t| t <= self.now) {
                self.deliver(Event::Tick);
            }
            if std::mem::take(&mut self.touched) {
                laws::always(self);
            }
        }
        self.now = end;
        self.model.advance(self.now);
        self.runtime_events();
    }

    /// One pod, for messages.
    pub fn describe(&self, uid: &PodUid) -> String {
        let e = self.node.pods.get(uid);
        let containers =
            self.model.observe(uid.as_str()).map(|o| o.containers.iter().map(|c| (c.name.clone(), c.state.clone())).collect::<Vec<_>>());
        let course: Vec<&String> = self.course.iter().filter(|c| c.contains(uid.as_str())).collect();
        format!("{:?} {:?} {:?} {containers:?} {course:#?}", e.map(|e| &e.desired.life), e.map(|e| &e.plan), e.map(|e| &e.status))
    }

    /// Who wants to be woken at once, and what for; what was done last.
    fn unrest(&self) -> Vec<String> {
        eprintln!("the last that was done:\n{}", self.course[self.course.len().saturating_sub(30)..].join("\n"));
        let soon = self.now().mono + Duration::from_secs(1);
        let plans = self.node.pods.values().filter(|e| e.wakes_by(soon));
        plans.map(|e| format!("{} {:?} {:?} {:?}", e.desired.pod.metadata.name, e.desired.life, e.plan, e.verdicts)).collect()
    }

    /// Most exits are told at once; some only by the relist.
    fn runtime_events(&mut self) {
        for e in self.model.take_events() {
            if self.random.chance(80) {
                let delay = self.soon();
                self.later(delay, Pending::Deliver(Event::Changed { uid: PodUid::new(&e.pod_uid) }));
            }
        }
    }

    fn happen(&mut self, what: Pending) {
        match what {
            Pending::Deliver(e) => self.deliver(e),
            Pending::Look(uid) => {
                let o = self.observation(&uid);
                let delay = self.soon();
                self.later(delay, Pending::Deliver(Event::Observed(Box::new(o))));
            }
            Pending::Relist => {
                let e = self.relist();
                let delay = self.soon();
                self.later(delay, Pending::Deliver(e));
                self.later(RELIST, Pending::Relist);
            }
            Pending::Work(job, at, results) => self.work(job, at, results),
            Pending::Killed(job, at, mut results) => {
                results.push(WorkResult::Done(job.works[at].clone(), Finished::default()));
                self.work(job, at + 1, results);
            }
        }
    }

    fn deliver(&mut self, e: Event) {
        let now = self.now();
        let effects = step(&mut self.node, e, now);
        // The daemon may die between any two effects.
        let dies = (self.deaths < DEATHS && self.random.chance(self.crashes)).then(|| self.random.below(effects.len() as u64 + 1) as usize);
        for (i, effect) in effects.into_iter().enumerate() {
            if dies == Some(i) {
                return self.boot();
            }
            self.carry_out(effect);
        }
        if dies.is_some() {
            self.boot();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        laws::effect(self, &effect);
        match effect {
            Effect::Observe { uid } => {
                let delay = self.soon();
                self.later(delay, Pending::Look(uid));
            }
            Effect::Run(job) => {
                let delay = self.soon();
                self.later(delay, Pending::Work(job, 0, Vec::new()));
            }
            Effect::Cancel { uid, job } => {
                if self.cancelled.insert(job) {
                    let done = Event::Done { uid, job, results: Vec::new(), observation: None };
                    self.later(0, Pending::Deliver(done));
                }
            }
            Effect::CheckImage { uid, container, image } => {
                let state = self.image_state(&image);
                let delay = self.soon();
                self.later(delay, Pending::Deliver(Event::Image { uid, image, container, state, pulled: None }));
            }
            Effect::Pull { uid, container, image, .. } => {
                let (state, at) = match self.model.pull(self.now, &image, None) {
                    Ok((image_ref, at)) => {
                        (ImageState::Present(PresentImage { image_ref: image_ref.into(), ..PresentImage::default() }), at)
                    }
                    Err(r) => (failed_pull(&r.message), self.now),
                };
                let delay = (at - self.now) / MS + self.soon();
                self.later(delay, Pending::Deliver(Event::Image { uid, image, container, state, pulled: None }));
            }
            Effect::Status { uid, status } => self.persisted.entry(uid).or_default().status = Some((*status).clone()),
            Effect::RecordDeletion { uid, since, grace } => self.persisted.entry(uid).or_default().deletion = Some((since, grace)),
            Effect::Forget { uid } => {
                self.persisted.remove(&uid);
            }
            Effect::Probe(_) | Effect::Event(_) | Effect::RefreshVolumes { .. } => {}
        }
    }

    fn image_state(&self, image: &str) -> ImageState {
        match self.model.image(image) {
            Some(i) => ImageState::Present(PresentImage { image_ref: i.id.into(), ..PresentImage::default() }),
            None => ImageState::Absent,
        }
    }

    fn work(&mut self, job: Box<Job>, at: usize, mut results: Vec<WorkResult>) {
        if self.cancelled.contains(&job.id) {
            return;
        }
        let failed = results.iter().any(|r| matches!(r, WorkResult::Failed(..)));
        if at >= job.works.len() || failed {
            results.extend(job.works[at.min(job.works.len())..].iter().cloned().map(WorkResult::Skipped));
            let observation = Some(Box::new(self.observation(&job.uid)));
            let delay = self.soon();
            let done = Event::Done { uid: job.uid, job: job.id, results, observation };
            return self.later(delay, Pending::Deliver(done));
        }
        let w = job.works[at].clone();
        let fault = self.random.chance(self.faults);
        if fault && self.random.chance(50) {
            results.push(WorkResult::Failed(w, failure("refused", FailureKind::Retry)));
        } else {
            match self.act(&job.uid, &w) {
                Ok(Some(until)) => {
                    let delay = (until - self.now).max(0) / MS + 1;
                    return self.later(delay, Pending::Killed(job, at, results));
                }
                // It happened, and the answer was lost.
                Ok(None) if fault => results.push(WorkResult::Failed(w, failure("lost", FailureKind::Unknown))),
                Ok(None) => results.push(WorkResult::Done(w, Finished::default())),
                Err(message) => results.push(WorkResult::Failed(w, failure(&message, FailureKind::Retry))),
            }
        }
        let delay = self.soon();
        self.later(delay, Pending::Work(job, at + 1, results));
    }

    /// Does one piece of work; for kills, tells when it will be done.
    fn act(&mut self, uid: &PodUid, w: &Work) -> Result<Option<i64>, String> {
        let now = self.now;
        let text = |r: longshore_cri::fake::Refusal| r.message;
        laws::act(self, uid, w);
        self.touched = true;
        match w {
            Work::SetUp(_) => {
                self.laws.host.insert(uid.clone());
            }
            Work::CreateSandbox(s) => drop(self.model.run_sandbox(now, s.to_cri(), &s.runtime_handler).map_err(text)?),
            Work::StopSandbox { id } => gone_is_fine(self.model.stop_sandbox(now, id))?,
            Work::RemoveSandbox { id } => gone_is_fine(self.model.remove_sandbox(now, id))?,
            Work::Start(s) => {
                let id = self.model.create(now, &s.sandbox_id, ContainerSpec::to_cri(&s.spec)).map_err(text)?;
                // The daemon may die between the two calls.
                if !self.random.chance(self.crashes / 3) {
                    self.model.start(now, &id).map_err(text)?;
                }
            }
            Work::Resume { id, .. } => self.model.start(now, id).map_err(text)?,
            Work::Kill(k) => return stopped(self.model.stop(now, &k.id, i64::from(k.grace.max(2)) * 1000)),
            Work::RemoveContainer { id, .. } => gone_is_fine(self.model.remove(now, id))?,
            Work::RecordOutcome { status, .. } => self.persisted.entry(uid.clone()).or_default().status = Some((**status).clone()),
            Work::TearDown(_) => {
                self.laws.host.remove(uid);
            }
        }
        self.course.push(format!("{} {uid} {}", self.now, name(w)));
        Ok(None)
    }

    /// Makes two states comparable: what a daemon may forget is levelled.
    pub fn level(a: &NodeState, b: &mut NodeState) {
        for (uid, e) in &mut b.pods {
            let Some(o) = a.pods.get(uid) else { continue };
            e.verdicts.images.clone_from(&o.verdicts.images);
            e.verdicts.failures.clone_from(&o.verdicts.failures);
            e.verdicts.host = match o.verdicts.host {
                Host::Unknown => Host::Unknown,
                ref h => h.clone(),
            };
        }
    }
}

fn name(w: &Work) -> String {
    match w {
        Work::SetUp(_) => "set up".into(),
        Work::CreateSandbox(s) => format!("sandbox {}", s.attempt),
        Work::Start(s) => format!("start {} {}", s.name, s.spec.facts.restart_count),
        Work::Kill(k) => format!("kill {} {}", k.name, k.grace),
        Work::StopSandbox { .. } => "stop sandbox".into(),
        Work::RemoveSandbox { .. } => "remove sandbox".into(),
        Work::Resume { name, .. } => format!("resume {name}"),
        Work::RemoveContainer { name, .. } => format!("remove {name}"),
        Work::RecordOutcome { .. } => "outcome".into(),
        Work::TearDown(_) => "tear down".into(),
    }
}

fn gone_is_fine(r: Result<(), longshore_cri::fake::Refusal>) -> Result<(), String> {
    match r {
        Err(e) if !e.error(Verb::RemoveContainer, "").is_not_found() => Err(e.message),
        _ => Ok(()),
    }
}

fn stopped(r: Result<i64, longshore_cri::fake::Refusal>) -> Result<Option<i64>, String> {
    match r {
        Ok(at) => Ok(Some(at)),
        Err(e) if e.error(Verb::StopContainer, "").is_not_found() => Ok(None),
        Err(e) => Err(e.message),
    }
}

fn failure(message: &str, kind: FailureKind) -> Failure {
    Failure { reason: "CreateContainerError", message: message.into(), kind }
}

fn failed_pull(message: &str) -> ImageState {
    ImageState::Failed(PullFailure {
        during: ImageVerb::Pull,
        reason: "ErrImagePull".into(),
        message: message.into(),
        failures: 1,
        retry: Mono::default(),
        backing_off: false,
    })
}
