//! Probes of one pod: which machines exist, which checks are due, what their verdicts mean.

use super::effect::{Effect, ProbeRun};
use super::state::{NodeConfig, PodEntry};
use crate::plan::{Life, ProbeVerdicts, Verdict};
use crate::pod::{Container, ContainerKind, Probe};
use crate::time::{Mono, Now, Wall};
use crate::work::hooks;
use longshore_cri::snapshot::{ContainerState, ObservedContainer};
use longshore_probes::{Check, Machine, ProbeKind, Settings};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Machines by container id and kind.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    machines: BTreeMap<(Box<str>, ProbeKind), Machine>,
    /// Due checks count only while this holds.
    gated: BTreeMap<Box<str>, bool>,
}

impl Probes {
    pub(super) fn next_due(&self) -> Option<Mono> {
        self.machines.iter().filter(|((id, kind), _)| self.may_ask(id, *kind)).filter_map(|(_, m)| m.due()).min().map(Mono)
    }

    pub fn get(&self, id: &str, kind: ProbeKind) -> Option<&Machine> {
        self.machines.get(&(Box::from(id), kind))
    }

    pub(super) fn get_mut(&mut self, id: &str, kind: ProbeKind) -> Option<&mut Machine> {
        self.machines.get_mut(&(Box::from(id), kind))
    }

    /// Liveness and readiness wait for startup.
    fn may_ask(&self, id: &str, kind: ProbeKind) -> bool {
        kind == ProbeKind::Startup || !self.gated.get(id).copied().unwrap_or(false)
    }
}

fn probe_of(c: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => c.startup_probe.as_ref(),
        ProbeKind::Liveness => c.liveness_probe.as_ref(),
        ProbeKind::Readiness => c.readiness_probe.as_ref(),
    }
}

const KINDS: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

/// Brings the machines in line with the containers that run, and the verdicts in line with the machines.
pub(super) fn refresh(e: &mut PodEntry, config: &NodeConfig, now: Now) {
    let ending = !matches!(e.desired.life, Life::Running);
    let pod = e.desired.pod.clone();
    let mut live: Vec<Box<str>> = Vec::new();
    for (_, c) in pod.containers().filter(|(k, _)| matches!(k, ContainerKind::Main | ContainerKind::Sidecar)) {
        let Some(record) = e.observed.container(&c.name).cloned() else { continue };
        let ContainerState::Running { started_at } = record.state else { continue };
        live.push(record.id.clone());
        for probe_kind in KINDS {
            let Some(p) = probe_of(c, probe_kind) else { continue };
            let key = (record.id.clone(), probe_kind);
            if !e.probes.machines.contains_key(&key) {
                let was_started = previously_started(e, &c.name, &record);
                let machine = machine(probe_kind, p, Wall(started_at), config, now, was_started);
                e.probes.machines.insert(key.clone(), machine);
            }
            if ending && let Some(m) = e.probes.machines.get_mut(&key) {
                m.pod_is_ending();
            }
        }
        gate(e, c, &record, now);
    }
    e.probes.machines.retain(|(id, _), _| live.contains(id));
    e.probes.gated.retain(|id, _| live.contains(id));
    e.verdicts.probes.clear();
    for id in live {
        let get = |kind| e.probes.get(&id, kind).map_or(Verdict::Unknown, Machine::verdict);
        let v =
            ProbeVerdicts { startup: get(ProbeKind::Startup), liveness: get(ProbeKind::Liveness), readiness: get(ProbeKind::Readiness) };
        e.verdicts.probes.insert(id, v);
    }
}

fn previously_started(e: &PodEntry, name: &str, record: &ObservedContainer) -> bool {
    let statuses = |s: &crate::pod::status::PodStatus| {
        let all = s.container_statuses.iter().chain(&s.init_container_statuses);
        all.filter(|c| c.name == name && c.container_id.ends_with(&*record.id)).any(|c| c.started == Some(true))
    };
    e.status.as_ref().is_some_and(|s| statuses(s))
}

fn gate(e: &mut PodEntry, c: &Container, record: &ObservedContainer, now: Now) {
    let started = match e.probes.get(&record.id, ProbeKind::Startup).map(Machine::verdict) {
        None | Some(Verdict::Success) => true,
        Some(Verdict::Unknown) => previously_started(e, &c.name, record),
        Some(Verdict::Failure) => false,
    };
    let before = e.probes.gated.insert(record.id.clone(), !started);
    if before == Some(true) && started {
        // A container that has just started need not wait for the next tick to become ready.
        if let Some(m) = e.probes.get_mut(&record.id, ProbeKind::Readiness) {
            m.hasten(now.mono.0);
        }
    }
}

fn machine(kind: ProbeKind, p: &Probe, started: Wall, config: &NodeConfig, now: Now, was_started: bool) -> Machine {
    let seconds = |n: i64, least: i64| Duration::from_secs(u64::try_from(n.max(least)).unwrap_or(0));
    let count = |n: i64| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
    let settings = Settings {
        initial_delay: seconds(p.initial_delay_seconds, 0),
        period: seconds(p.period_seconds, 1),
        timeout: seconds(p.timeout_seconds, 1),
        success_threshold: count(p.success_threshold),
        failure_threshold: count(p.failure_threshold),
    };
    // A container that ran before this process did is adopted: no verdict is assumed, so that nothing flips.
    let adopted = started < config.started;
    if kind == ProbeKind::Startup && adopted && was_started {
        // What a container was like while it started may hold no longer: asked again, it might be killed for that.
        return Machine::passed(settings);
    }
    // The start on the monotonic scale; a container older than the scale started at its origin.
    let started_mono = now.mono.0.saturating_sub(now.wall.since(started));
    // Spread over the period by the start's own fraction of a second: steady, and different for each.
    let spread = (started.0.rem_euclid(Wall::SECOND)) as f64 / Wall::SECOND as f64;
    Machine::new(kind, settings, started_mono, now.mono.0, adopted.then_some(spread))
}

/// Checks that are due now.
pub(super) fn due(e: &mut PodEntry, now: Now) -> Vec<Effect> {
    let mut out = Vec::new();
    let pod = e.desired.pod.clone();
    let ip = e.observed.sandbox().and_then(|s| s.ips.first().copied()).or(e.verdicts.host_ip.filter(|_| pod.spec.host_network));
    let ids: Vec<(Box<str>, ProbeKind)> = e
        .probes
        .machines
        .iter()
        .filter(|((id, kind), m)| e.probes.may_ask(id, *kind) && m.due().is_some_and(|d| d <= now.mono.0))
        .map(|(k, _)| k.clone())
        .collect();
    for (id, kind) in ids {
        let Some(c) = e.observed.by_id(&id).and_then(|r| pod.container(&r.name)).map(|(_, c)| c) else { continue };
        let Some(p) = probe_of(c, kind) else { continue };
        let check = check(p, c, ip);
        if let Some(m) = e.probes.get_mut(&id, kind) {
            m.begin(now.mono.0);
            let timeout = m.settings().timeout;
            let run = ProbeRun { uid: pod.uid(), container_id: id, kind, check, timeout };
            out.push(Effect::Probe(Box::new(run)));
        }
    }
    out
}

/// A probe with names resolved.
fn check(p: &Probe, c: &Container, ip: Option<IpAddr>) -> Check {
    if let Some(e) = &p.exec {
        let env = crate::env::static_environment(c);
        let look_up = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        return Check::Exec { command: e.command.iter().map(|w| crate::env::expand::expand(w, look_up)).collect() };
    }
    if let Some(g) = &p.http_get {
        return hooks::http_check(g, c, ip).map_or_else(Check::Impossible, Check::Http);
    }
    let Some(ip) = ip else { return Check::Impossible("the pod has no address".into()) };
    if let Some(t) = &p.tcp_socket {
        let host = if t.host.is_empty() { ip.to_string() } else { t.host.clone() };
        return hooks::port_number(&t.port, c).map_or_else(Check::Impossible, |port| Check::Tcp { host, port });
    }
    match &p.grpc {
        Some(g) => Check::Grpc { host: ip, port: g.port, service: g.service.clone() },
        None => Check::Impossible("missing probe handler".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::results;
    use crate::node::simulator::config;
    use crate::plan::{DesiredPod, backoff};
    use crate::pod::Pod;
    use crate::pod::status::{ContainerStatus, PodStatus};
    use longshore_probes::Outcome;
    use std::sync::Arc;

    const STARTED: i64 = 1000;

    fn at(seconds: i64) -> Now {
        Now { mono: Mono(Duration::from_secs(100_000 + seconds.unsigned_abs())), wall: Wall::from_seconds(seconds) }
    }

    /// A pod whose container has all three probes and runs since STARTED; `was` is its status from before.
    fn pod(was: Option<bool>) -> PodEntry {
        let probe = || Some(Probe { tcp_socket: Some(Default::default()), ..Probe::default() });
        let (startup_probe, liveness_probe, readiness_probe) = (probe(), probe(), probe());
        let mut pod = Pod::default();
        pod.spec.containers = vec![Container { name: "c".into(), startup_probe, liveness_probe, readiness_probe, ..Container::default() }];
        let desired = DesiredPod { pod: Arc::new(pod), life: Life::Running, limits: backoff::Limits::default() };
        let mut e = PodEntry::new(desired, 0);
        e.observed.containers.push(Arc::new(ObservedContainer {
            id: "id".into(),
            sandbox_id: "s".into(),
            name: "c".into(),
            attempt: 0,
            state: ContainerState::Running { started_at: Wall::from_seconds(STARTED).0 },
            created_at: 0,
            image: "".into(),
            user_specified_image: "".into(),
            image_ref: "".into(),
            image_id: "".into(),
            log_path: "".into(),
            facts: Default::default(),
            pid: None,
            user: None,
            mounts: [].into(),
            resources: None,
            stop_signal: None,
        }));
        e.status = was.map(|started| {
            let c = ContainerStatus {
                name: "c".into(),
                container_id: "fake://id".into(),
                started: Some(started),
                ..ContainerStatus::default()
            };
            Arc::new(PodStatus { container_statuses: vec![c], ..PodStatus::default() })
        });
        e
    }

    /// Kinds that are asked within a period after the daemon started at `daemon`.
    fn asked(e: &mut PodEntry, daemon: i64) -> Vec<ProbeKind> {
        let config = NodeConfig { started: Wall::from_seconds(daemon), ..config() };
        refresh(e, &config, at(daemon.max(STARTED)));
        refresh(e, &config, at(daemon.max(STARTED) + 10));
        let runs = due(e, at(daemon.max(STARTED) + 10));
        runs.iter().map(|r| if let Effect::Probe(p) = r { p.kind } else { panic!("{r:?}") }).collect()
    }

    #[test]
    fn a_new_container_is_asked_for_startup_first_and_for_readiness_at_once_after() {
        let mut e = pod(None);
        assert_eq!(asked(&mut e, STARTED - 50), [ProbeKind::Startup]);
        results::probe(&mut e, "id", ProbeKind::Startup, &Outcome::Success(String::new()), &mut Vec::new());
        refresh(&mut e, &config(), at(STARTED + 10));
        let now: Vec<_> = due(&mut e, at(STARTED + 10)).into_iter().collect();
        assert!(now.iter().any(|r| matches!(r, Effect::Probe(p) if p.kind == ProbeKind::Readiness)), "{now:?}");
        assert!(!now.iter().any(|r| matches!(r, Effect::Probe(p) if p.kind == ProbeKind::Startup)), "{now:?}");
    }

    #[test]
    fn an_adopted_container_that_had_started_is_not_asked_for_startup_again() {
        assert_eq!(asked(&mut pod(Some(true)), STARTED + 5), [ProbeKind::Liveness, ProbeKind::Readiness]);
        assert_eq!(asked(&mut pod(Some(false)), STARTED + 5), [ProbeKind::Startup]);
    }

    #[test]
    fn a_check_that_could_not_be_made_is_told_and_counts_for_nothing() {
        let mut e = pod(Some(true));
        asked(&mut e, STARTED + 5);
        for (outcome, state) in [(Outcome::Error("x".into()), "unknown"), (Outcome::Unreadable("x".into()), "failure")] {
            let mut out = Vec::new();
            assert!(!results::probe(&mut e, "id", ProbeKind::Liveness, &outcome, &mut out));
            let Some(Effect::Event(told)) = out.first() else { panic!("{out:?}") };
            assert_eq!(told.message, format!("Liveness probe errored and resulted in {state} state: x"));
        }
    }
}
