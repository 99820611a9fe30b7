#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Why a pod is as it is: the planner's own reasons, in sentences.
//!
//! Must never decide or guess: every sentence is read off the node's state. Tests: in this file.

use crate::node::state::PodEntry;
use crate::node::{JobId, NodeState};
use crate::plan::{Host, ImageState, Life, PullProgress, Step, TerminationCause, Verdict, Wait, WaitReason};
use crate::pod::{Container, ContainerKind};
use crate::time::{Mono, Now, go_duration};
use longshore_cri::snapshot::ContainerState;
use longshore_probes::ProbeKind;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What `longshore why` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    pub namespace: String,
    pub name: String,
    /// One line: how the pod is.
    pub summary: String,
    /// What is under way, what waits and for what, what fails. Empty: all is as it should be.
    pub reasons: Vec<String>,
}

/// None: there is no such pod.
pub fn why(n: &NodeState, namespace: &str, name: &str, now: Now) -> Option<Why> {
    let found = n.by_name(namespace, name);
    let queued = n.queued.values().find(|p| p.metadata.namespace == namespace && p.metadata.name == name);
    let mut reasons = node_wide(n);
    let summary = match (found, queued) {
        (None, None) => return None,
        (None, Some(_)) => "waits for another pod of its name to end".to_owned(),
        (Some(e), queued) => {
            reasons.extend(of_pod(e, now));
            if queued.is_some() {
                reasons.push("pod: a new version of it starts when this one has ended".to_owned());
            }
            summary(e, now)
        }
    };
    Some(Why { namespace: namespace.into(), name: name.into(), summary, reasons })
}

/// What keeps every pod waiting.
fn node_wide(n: &NodeState) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(e) = &n.runtime_error {
        out.push(format!("node: {e}; nothing is decided until it answers"));
    } else if let Some(e) = &n.network_error {
        out.push(format!("node: the runtime's network is not ready: {e}"));
    }
    if !n.sources_ready {
        out.push("node: the manifests are not all read yet".into());
    }
    out
}

fn summary(e: &PodEntry, now: Now) -> String {
    let status = e.status.as_deref();
    let phase = status.map_or("Pending", |s| s.phase.as_str());
    let said = status.filter(|s| !s.reason.is_empty());
    let mut out = phase.to_owned();
    if let Some(s) = said {
        out.push_str(&format!(" ({}: {})", s.reason, s.message));
    }
    match &e.desired.life {
        Life::Running if e.is_ready() => out.push_str(", ready"),
        Life::Running => out.push_str(", not ready"),
        Life::Finished => out.push_str(", finished: nothing of it will run again"),
        Life::Terminating(t) => {
            let spent = now.wall.since(t.since);
            let left = Duration::from_secs(u64::from(t.grace())).saturating_sub(spent);
            let why = match t.why {
                TerminationCause::Deleted => "its manifest is gone",
                TerminationCause::Replaced => "its manifest changed in a way that a running pod cannot follow",
                TerminationCause::DeadlineExceeded => "it ran longer than activeDeadlineSeconds",
                TerminationCause::Preempted => "a critical pod needs its room",
                TerminationCause::Completed => "its containers are done",
            };
            let left = if left.is_zero() { "its grace is over".to_owned() } else { format!("{} of its grace left", whole(left)) };
            out.push_str(&format!(", ending for {} because {why}; {left}", whole(spent)));
        }
    }
    out
}

fn of_pod(e: &PodEntry, now: Now) -> Vec<String> {
    let mut out = Vec::new();
    if let Some((JobId(id), since, doing)) = e.job_under_way() {
        out.push(format!("pod: at work for {} (job {id}): {}", span(now, since), doing.join(", ")));
    } else if e.as_of.is_none() {
        out.push("pod: not looked at yet".into());
    } else if let (Step::Act(actions), true) = (&e.plan.step, matches!(e.desired.life, Life::Running)) {
        let first: Vec<String> = actions.iter().filter(|a| !a.runs_beside()).map(|a| a.describe()).collect();
        if !first.is_empty() {
            out.push(format!("pod: next: {}", first.join(", ")));
        }
    }
    if let Host::Failed { message, .. } = &e.verdicts.host
        && !e.plan.waits.iter().any(|w| matches!(w.reason, WaitReason::Host { .. }))
    {
        out.push(format!("pod: its directories or volumes failed: {message}"));
    }
    out.extend(e.plan.waits.iter().map(|w| wait(e, w, now)));
    for (kind, c) in e.desired.pod.containers() {
        out.extend(probes(e, kind, c, now));
    }
    let gates = e.status.iter().flat_map(|s| &s.conditions).filter(|c| c.kind == "Ready" && c.reason == "ReadinessGatesNotReady");
    out.extend(gates.map(|c| format!("pod: {}", c.message)));
    out
}

/// The wait's own sentence, with what a pull has to add.
fn wait(e: &PodEntry, w: &Wait, now: Now) -> String {
    if let WaitReason::ImagePull { image } = &w.reason
        && let Some(ImageState::Pulling { since, progress }) = e.verdicts.images.get(image)
    {
        let (container, for_) = (&w.container, span(now, *since));
        return match progress {
            Some(PullProgress { done, total }) => {
                format!("container {container}: waiting for image {image}: pull {} of {}, for {for_}", mib(*done), mib(*total))
            }
            None => format!("container {container}: waiting for image {image}: pull for {for_}"),
        };
    }
    w.sentence(now)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Probes that fail, and those whose first answer is waited for.
fn probes(e: &PodEntry, kind: ContainerKind, c: &Container, now: Now) -> Vec<String> {
    if !matches!(kind, ContainerKind::Main | ContainerKind::Sidecar) {
        return Vec::new();
    }
    let Some(record) = e.observed.container(&c.name) else { return Vec::new() };
    if !matches!(record.state, ContainerState::Running { .. }) {
        return Vec::new();
    }
    let mut out = Vec::new();
    for (kind, title) in [(ProbeKind::Startup, "startup"), (ProbeKind::Liveness, "liveness"), (ProbeKind::Readiness, "readiness")] {
        let Some(m) = e.probe(&record.id, kind) else { continue };
        let last = e.last_probe_failure.as_ref().filter(|(k, n, _, _)| *k == kind && **n == *c.name).map(|(_, _, text, _)| &**text);
        let line = match (m.failing(), m.verdict()) {
            (Some((n, of)), v) => {
                let text = last.map(|t| format!(": {t}")).unwrap_or_default();
                let meaning = match (kind, v) {
                    (ProbeKind::Readiness, Verdict::Failure) => ", not ready",
                    (_, Verdict::Failure) => ", to be restarted",
                    _ => "",
                };
                format!("{title} probe failing {}/{of}{meaning}{text}", n.min(of.max(n)))
            }
            (None, Verdict::Unknown) => format!("waiting for its {title} probe{}", due(m.due(), now)),
            (None, Verdict::Failure) if kind == ProbeKind::Readiness => {
                format!("not ready until its {title} probe succeeds{}", due(m.due(), now))
            }
            _ => continue,
        };
        out.push(format!("container {}: {line}", c.name));
    }
    out
}

fn due(at: Option<Duration>, now: Now) -> String {
    match at {
        Some(at) if Mono(at) > now.mono => format!(", next check in {}", whole(Mono(at) - now.mono)),
        Some(_) => String::new(),
        None => ", a check is under way".into(),
    }
}

fn span(now: Now, since: Mono) -> String {
    whole(now.mono - since)
}

fn whole(d: Duration) -> String {
    go_duration(Duration::from_secs(d.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Driver, Layout};
    use crate::env::NodeFacts;
    use crate::node::state::NodeConfig;
    use crate::node::{Event, step};
    use crate::plan::backoff::Limits;
    use crate::pod::Pod;
    use crate::time::Wall;
    use crate::work::dns::Resolv;
    use std::sync::Arc;

    fn at(seconds: u64) -> Now {
        let wall = Wall::from_seconds(1_000_000 + i64::try_from(seconds).unwrap());
        Now { mono: Mono(Duration::from_secs(1_000_000 + seconds)), wall }
    }

    fn node() -> NodeState {
        let config = NodeConfig {
            root_dir: "/r".into(),
            pod_logs_dir: "/l".into(),
            container_logs_dir: "/c".into(),
            cgroups: Layout::new(Driver::Cgroupfs, "/"),
            cgroup_v2: true,
            pod_pids_limit: -1,
            cluster_domain: "cluster.local".into(),
            cluster_dns: Vec::new(),
            host_resolv: Resolv::parse(""),
            limits: Limits::default(),
            max_pods: 10,
            seccomp_default: false,
            allowed_unsafe_sysctls: Vec::new(),
            single_process_oom_kill: false,
            runtime_name: "containerd".into(),
            started: at(0).wall,
        };
        let allocatable = [("cpu", 4), ("memory", 1 << 30), ("pods", 10)].map(|(k, n)| (k.to_owned(), n * crate::pod::resources::NANO));
        let facts = NodeFacts { allocatable: allocatable.into(), ..NodeFacts::default() };
        NodeState::new(config, facts, std::collections::BTreeMap::new())
    }

    fn pod() -> Arc<Pod> {
        let json = serde_json::json!({"metadata": {"name": "web", "namespace": "a", "uid": "1"},
            "spec": {"containers": [{"name": "main", "image": "app:1", "imagePullPolicy": "IfNotPresent"}]}});
        Arc::new(serde_json::from_value(json).unwrap())
    }

    fn told(n: &NodeState, seconds: u64) -> Why {
        why(n, "a", "web", at(seconds)).unwrap()
    }

    #[test]
    fn a_silent_runtime_is_the_reason_of_all() {
        let mut n = node();
        step(&mut n, Event::SetPod(pod()), at(0));
        let w = told(&n, 1);
        assert_eq!(w.summary, "Pending, not ready");
        assert_eq!(w.reasons[0], "node: container runtime status check may not have completed yet; nothing is decided until it answers");
        assert_eq!(w.reasons[1], "node: the manifests are not all read yet");
        assert_eq!(why(&n, "a", "other", at(1)), None);
    }

    fn working() -> NodeState {
        let mut n = node();
        step(&mut n, Event::Runtime { ready: None, network: None }, at(0));
        step(&mut n, Event::SetPod(pod()), at(0));
        step(&mut n, Event::SourcesReady, at(0));
        step(&mut n, Event::Relisted(Vec::new()), at(0));
        n
    }

    #[test]
    fn the_job_under_way_says_what_it_does_and_since_when() {
        let w = told(&working(), 3);
        let job = w.reasons.iter().find(|r| r.contains("at work")).unwrap_or_else(|| panic!("{w:?}"));
        assert!(job.starts_with("pod: at work for 3s (job 1): make its cgroup, directories and volumes"), "{w:?}");
    }

    #[test]
    fn an_ending_pod_tells_why_and_how_long_it_has_left() {
        let mut n = working();
        step(&mut n, Event::RemovePod(pod().uid()), at(5));
        let w = told(&n, 12);
        assert_eq!(
            w.summary,
            "Pending, not ready, ending for 7s because its manifest is gone; 23s of its grace left".replace(", not ready", "")
        );
        assert!(told(&n, 50).summary.ends_with("its grace is over"));
    }
}
