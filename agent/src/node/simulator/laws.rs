//! What must hold, at every step and at rest.

use super::workload::Does;
use super::world::World;
use crate::node::Effect;
use crate::plan::{Life, Step, WaitReason, plan};
use crate::pod::status::Phase;
use crate::pod::{ContainerKind, PodUid, RestartPolicy};
use crate::work::Work;
use longshore_cri::snapshot::ContainerState;
use std::collections::{BTreeMap, BTreeSet};

/// What earlier steps oblige later ones to.
#[derive(Default)]
pub(super) struct Memory {
    /// Pods whose directories are set up.
    pub host: BTreeSet<PodUid>,
    /// The least grace that each container of an ending pod was given.
    grace: BTreeMap<Box<str>, u32>,
    /// Pods whose terminal phase was told.
    over: BTreeMap<PodUid, Phase>,
}

/// After every step.
pub(super) fn always(w: &World) {
    for pod in w.model.observe_all() {
        let mut running: Vec<&str> = pod.running().map(|c| &*c.name).collect();
        let all = running.len();
        running.sort_unstable();
        running.dedup();
        assert_eq!(running.len(), all, "two running instances of one container in {}", pod.name);
        assert!(pod.sandboxes.iter().filter(|s| s.ready).count() <= 1, "two ready sandboxes of {}", pod.name);
    }
}

/// When the node wants something.
pub(super) fn effect(w: &mut World, e: &Effect) {
    match e {
        Effect::Run(job) => {
            let ends = !w.wanted.contains_key(&job.uid);
            let entry = w.node.pods.get(&job.uid).expect("jobs are for pods that are known");
            for work in &job.works {
                let starts = matches!(work, Work::Start(_) | Work::CreateSandbox(_) | Work::Resume { .. } | Work::SetUp(_));
                assert!(!starts || matches!(entry.desired.life, Life::Running), "an ending pod starts something");
                if let Work::Kill(k) = work
                    && ends
                    && matches!(entry.desired.life, Life::Terminating(_))
                {
                    let least = w.laws.grace.entry(k.id.clone()).or_insert(k.grace);
                    assert!(k.grace <= *least, "the grace of {} grew from {least} to {}", k.name, k.grace);
                    *least = k.grace;
                }
            }
        }
        Effect::Status { uid, status } => {
            if let Some(before) = w.laws.over.get(uid) {
                assert_eq!(*before, status.phase, "a terminal phase changed");
            }
            if status.phase.is_terminal() {
                w.laws.over.insert(uid.clone(), status.phase);
            }
        }
        Effect::Forget { uid } => {
            w.laws.over.remove(uid);
        }
        _ => {}
    }
}

/// When something is done to the runtime.
pub(super) fn act(w: &World, uid: &PodUid, work: &Work) {
    let Work::Start(s) = work else { return };
    assert!(!w.laws.over.contains_key(uid), "a finished pod runs again: {} {:?}", w.describe(uid), s.name);
    assert!(w.laws.host.contains(uid), "a container starts before its directories are there");
    let Some(pod) = w.wanted.get(uid) else { return };
    let Some(observed) = w.model.observe(uid.as_str()) else { return };
    let Some((ContainerKind::Main, _)) = pod.container(&s.name) else { return };
    for (kind, c) in pod.containers().take(pod.spec.init_containers.len()) {
        let record = observed.records(&c.name).find(|r| r.sandbox_id == s.sandbox_id);
        let done = record.is_some_and(|r| match kind {
            ContainerKind::Sidecar => true,
            _ => r.state.exit().is_some_and(|x| x.exit_code == 0),
        });
        assert!(done, "{} starts before {} has done its work: {:?}", s.name, c.name, record.map(|r| &r.state));
    }
}

/// After enough time without disturbance.
pub(super) fn at_rest(w: &World) {
    for pod in w.model.observe_all() {
        assert!(w.wanted.contains_key(&PodUid(pod.uid.clone())), "{} is left though nobody wants it", pod.name);
    }
    for (uid, pod) in &w.wanted {
        let e = w.node.pods.get(uid).unwrap_or_else(|| panic!("{} is forgotten", pod.metadata.name));
        let status = e.status.as_ref().unwrap_or_else(|| panic!("{} has no status", pod.metadata.name));
        let excused = |r: &WaitReason| {
            // An image that cannot be had is asked for again and again.
            matches!(
                r,
                WaitReason::BackOff { .. }
                    | WaitReason::ImageBackOff { .. }
                    | WaitReason::PullFailed { .. }
                    | WaitReason::NeverPull { .. }
                    | WaitReason::ImagePull { .. }
            )
        };
        let stuck_on_image = e.plan.waits.iter().any(|x| excused(&x.reason));
        let does = &w.does[uid];
        // An init container that always fails is always about to run once more.
        let fails = |name: &str| pod.containers().zip(does).any(|((_, c), does)| c.name == name && *does == Does::Fails);
        if e.plan.waits.iter().any(|x| matches!(&x.reason, WaitReason::Initializing { on } if fails(on))) {
            continue;
        }
        let name = &pod.metadata.name;
        if matches!(e.desired.life, Life::Finished) {
            finished(w, uid, status.phase);
            continue;
        }
        assert!(!matches!(e.plan.step, Step::Act(_)) || stuck_on_image, "{name} still acts: {:?}", e.plan);
        for ((_, c), does) in pod.containers().zip(does) {
            let waits = e.plan.waits.iter().any(|x| *x.container == *c.name || x.container.is_empty());
            let running = e.observed.container(&c.name).is_some_and(|r| r.state.is_running());
            if *does == Does::Runs && !stuck_on_image && !waits {
                assert!(running, "{name}/{} does not run: {:?} {:?}", c.name, e.plan, e.observed.container(&c.name).map(|r| &r.state));
            }
        }
    }
}

fn finished(w: &World, uid: &PodUid, phase: Phase) {
    let pod = &w.wanted[uid];
    let observed = w.model.observe(uid.as_str());
    let live = observed.iter().flat_map(|o| o.containers.iter()).any(|c| matches!(c.state, ContainerState::Running { .. }));
    assert!(!live, "{} is over and still runs", pod.metadata.name);
    assert!(phase.is_terminal(), "{} is over in phase {phase:?}", pod.metadata.name);
    assert_ne!(pod.spec.restart_policy, RestartPolicy::Always, "a pod that always restarts is over: {}", pod.metadata.name);
}

/// A process that knows only what was written down and what it sees comes to the same plans.
pub(super) fn restart_transparency(w: &World) {
    let mut fresh = w.rebuilt();
    World::level(&w.node, &mut fresh);
    for (uid, e) in &w.node.pods {
        let f = fresh.pods.get(uid).unwrap_or_else(|| panic!("{uid} is not found again"));
        if e.as_of.is_none() || w.model.observe(uid.as_str()).is_some_and(|o| o != e.observed) {
            // The old process has not seen the latest; nothing can be compared.
            continue;
        }
        let before = plan(&e.desired, &e.observed, &e.verdicts, w.now());
        let after = plan(&f.desired, &f.observed, &f.verdicts, w.now());
        assert_eq!(before, after, "the plan for {} depends on memory", e.desired.pod.metadata.name);
        let ready = |n: &crate::node::PodEntry| n.status.as_ref().map(|s| s.container_statuses.iter().map(|c| c.ready).collect::<Vec<_>>());
        assert_eq!(ready(e), ready(f), "readiness flips over a restart");
    }
}
