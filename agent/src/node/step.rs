//! The one function that changes the node's state.

use super::effect::{Effect, EventRecord};
use super::event::{Event, Observation};
use super::reconcile::{adopt_orphan, event, reconcile};
use super::results;
use super::state::{Held, NodeState, PodEntry};
use crate::admit::{self, Admission};
use crate::cluster::report;
use crate::plan::{DesiredPod, ImageState, Life, Termination, TerminationCause};
use crate::pod::status::PodStatus;
use crate::pod::{ObjectName, Pod, PodUid, Referent};
use crate::status;
use crate::time::Now;
use crate::volume;
use crate::work::{Context, WorkResult};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Takes in one event and says what is to be done about it.
pub fn step(s: &mut NodeState, event: Event, now: Now) -> Vec<Effect> {
    let mut out = Vec::new();
    let mut dirty = take_in(s, event, now, &mut out);
    while !dirty.is_empty() {
        for uid in &dirty {
            reconcile(s, uid, now, &mut out);
        }
        // Some may have ended for others that wait for their room.
        dirty = take_room(s, now, &mut out);
    }
    out
}

fn all(s: &NodeState) -> BTreeSet<PodUid> {
    s.pods.keys().cloned().collect()
}

fn only(uid: PodUid) -> BTreeSet<PodUid> {
    BTreeSet::from([uid])
}

/// Updates the state; returns the pods to look at again.
fn take_in(s: &mut NodeState, e: Event, now: Now, out: &mut Vec<Effect>) -> BTreeSet<PodUid> {
    match e {
        Event::SetPod(pod) => set_pod(s, pod, now, out),
        Event::RemovePod(uid) => remove_pod(s, &uid, TerminationCause::Deleted, None, now, out),
        Event::EndPod { uid, grace } => remove_pod(s, &uid, TerminationCause::Deleted, Some(grace), now, out),
        Event::SourcesReady => {
            s.sources_ready = true;
            forget_strangers(s, out);
            all(s)
        }
        Event::SetConfig { kind, namespace, name, data } => {
            s.objects.config.insert((kind, ObjectName::new(&namespace, &name)), data);
            config_changed(s, kind, &namespace, &name, out)
        }
        Event::RemoveConfig { kind, namespace, name } => {
            s.objects.config.remove(&(kind, ObjectName::new(&namespace, &name)));
            config_changed(s, kind, &namespace, &name, out)
        }
        Event::Token { uid, wish, token } => {
            s.objects.tokens.insert((uid.clone(), wish), token);
            read_again(s, &uid, out);
            only(uid)
        }
        Event::Node { labels, taints } => {
            (s.facts.labels, s.facts.taints) = (labels, taints);
            BTreeSet::new()
        }
        Event::Reported { uid, status } => reported(s, uid, &status),
        Event::Services(list) => {
            s.services = list;
            BTreeSet::new()
        }
        Event::Relisted(list) => relisted(s, list, now, out),
        Event::Observed(o) => {
            let uid = PodUid(o.pod.uid.clone());
            observe(s, &uid, *o, out);
            only(uid)
        }
        Event::ObserveFailed { uid } => {
            if let Some(e) = s.pods.get_mut(&uid) {
                e.observing = false;
                e.verdicts.retry_end = Some(now.mono + std::time::Duration::from_secs(1));
            }
            BTreeSet::new()
        }
        Event::Changed { uid } => {
            if let Some(e) = s.pods.get_mut(&uid)
                && e.job.is_none()
                && !e.observing
            {
                e.not_before = now.mono;
            }
            only(uid)
        }
        Event::Done { uid, job, results, observation } => done(s, &uid, job, results, observation, now, out),
        Event::Image { uid, image, container, state, pulled } => {
            if let Some(e) = s.pods.get_mut(&uid) {
                results::image(e, &image, &container, state, pulled, now, out);
            }
            only(uid)
        }
        Event::Probe { uid, container_id, kind, outcome } => {
            if let Some(e) = s.pods.get_mut(&uid) {
                results::probe(e, &container_id, kind, &outcome, out);
            }
            only(uid)
        }
        Event::PullProgress { uid, image, progress } => {
            if let Some(ImageState::Pulling { progress: known, .. }) = s.pods.get_mut(&uid).and_then(|e| e.verdicts.images.get_mut(&image))
            {
                *known = Some(progress);
            }
            BTreeSet::new()
        }
        Event::Invalid { kind, namespace, name, message } => {
            out.push(invalid(s, kind, namespace, name, message));
            BTreeSet::new()
        }
        Event::Runtime { ready, network } => {
            let changed = s.runtime_error != ready || s.network_error != network;
            (s.runtime_error, s.network_error) = (ready, network);
            if changed { all(s) } else { BTreeSet::new() }
        }
        Event::Proxy(record) => {
            out.push(Effect::Event(record));
            BTreeSet::new()
        }
        Event::Tick => tick(s, now, out),
    }
}

fn tick(s: &mut NodeState, now: Now, out: &mut Vec<Effect>) -> BTreeSet<PodUid> {
    let mut due = BTreeSet::new();
    for (uid, e) in &mut s.pods {
        if e.wakes_by(now.mono) {
            results::age_pulls(e, now, out);
            if results::may_retry_end(e, now) {
                e.verdicts.retry_end = None;
            }
            due.insert(uid.clone());
        }
    }
    due
}

fn set_pod(s: &mut NodeState, pod: Arc<Pod>, now: Now, out: &mut Vec<Effect>) -> BTreeSet<PodUid> {
    let uid = pod.uid();
    if let Some(waiting) = s.held.get_mut(&uid) {
        waiting.pod = pod;
        return BTreeSet::new();
    }
    if let Some(e) = s.pods.get_mut(&uid) {
        if matches!(&e.desired.life, Life::Terminating(t) if t.removes_the_pod()) {
            // It came back while it ends: it starts afresh when the end is done.
            s.queued.insert(pod.object_name(), pod);
            return BTreeSet::new();
        }
        e.desired.pod = pod;
        refresh_volumes(s, &uid, out);
        return only(uid);
    }
    let name = pod.object_name();
    let others: Vec<PodUid> = s.pods.values().filter(|e| e.desired.pod.object_name() == name).map(|e| e.desired.pod.uid()).collect();
    if !others.is_empty() {
        s.queued.insert(name, pod);
        return others.into_iter().flat_map(|old| remove_pod(s, &old, TerminationCause::Replaced, None, now, out)).collect();
    }
    insert(s, pod, now, out)
}

/// Takes the pod, or says why not. Returns the pods to look at again.
fn insert(s: &mut NodeState, pod: Arc<Pod>, now: Now, out: &mut Vec<Effect>) -> BTreeSet<PodUid> {
    let uid = pod.uid();
    let recovered = s.recovered.remove(&uid).unwrap_or_default();
    let desired = DesiredPod { pod, life: Life::Running, limits: s.config.limits };
    s.next_order += 1;
    let mut e = PodEntry::new(desired, s.next_order);
    // Nothing that was read before the pod was known speaks for it.
    e.not_before = if s.listed { now.mono } else { e.not_before };
    if let Some(status) = recovered.status {
        // One that no kubelet has begun with is as new.
        e.admitted = status.start_time.is_some();
        e.verdicts.finished_before = status.phase.is_terminal();
        if status.phase.is_terminal() {
            e.desired.life = Life::Finished;
        }
        e.status = Some(Arc::new(status));
    }
    if !e.admitted {
        let others = s.pods.values().filter(|o| o.admitted && !o.is_over()).map(|o| &*o.desired.pod);
        match admit::admit(&e.desired.pod, others, &s.facts, &s.config) {
            Admission::Admitted => {}
            Admission::Preempts(victims) => return preempt(s, e.desired.pod, victims, now, out),
            Admission::Rejected(r) => {
                out.push(event(&e.desired.pod, None, true, r.reason.clone(), r.message.clone()));
                let status = Arc::new(status::rejected(&e.desired.pod, &r.reason, &r.message, now));
                out.push(Effect::Status { uid: uid.clone(), status: status.clone() });
                e.status = Some(status);
                e.verdicts.finished_before = true;
                e.desired.life = Life::Finished;
            }
        }
        e.admitted = true;
    }
    s.pods.insert(uid.clone(), e);
    only(uid)
}

/// Others go for this pod, with their own grace; it comes when they have gone.
fn preempt(s: &mut NodeState, pod: Arc<Pod>, victims: Vec<PodUid>, now: Now, out: &mut Vec<Effect>) -> BTreeSet<PodUid> {
    for e in victims.iter().filter_map(|uid| s.pods.get(uid)) {
        out.push(event(&e.desired.pod, None, true, "Preempting", status::PREEMPTED.into()));
    }
    for uid in &victims {
        if let Some(e) = s.pods.get_mut(uid)
            && matches!(e.desired.life, Life::Running)
        {
            let grace = e.desired.pod.spec.termination_grace_period_seconds;
            e.desired.life = Life::Terminating(Termination::new(now.wall, grace, TerminationCause::Preempted));
        }
    }
    let victims: BTreeSet<PodUid> = victims.into_iter().collect();
    s.held.insert(pod.uid(), Held { pod, victims: victims.clone() });
    victims
}

/// Pods whose room is there now.
fn take_room(s: &mut NodeState, now: Now, out: &mut Vec<Effect>) -> BTreeSet<PodUid> {
    let gone = |s: &NodeState, uid: &PodUid| s.pods.get(uid).is_none_or(PodEntry::is_over);
    let ready: Vec<PodUid> = s.held.iter().filter(|(_, h)| h.victims.iter().all(|v| gone(s, v))).map(|(uid, _)| uid.clone()).collect();
    let mut dirty = BTreeSet::new();
    for uid in ready {
        if let Some(h) = s.held.remove(&uid) {
            dirty.extend(insert(s, h.pod, now, out));
        }
    }
    dirty
}

fn remove_pod(
    s: &mut NodeState,
    uid: &PodUid,
    why: TerminationCause,
    grace: Option<i64>,
    now: Now,
    out: &mut Vec<Effect>,
) -> BTreeSet<PodUid> {
    s.queued.retain(|_, p| p.uid() != *uid);
    if s.held.remove(uid).is_some() {
        // Nothing of it was begun.
        out.push(Effect::Forget { uid: uid.clone() });
        return BTreeSet::new();
    }
    let recovered = s.recovered.get(uid).and_then(|r| r.deletion);
    let Some(e) = s.pods.get_mut(uid) else { return BTreeSet::new() };
    let own = e.desired.pod.spec.termination_grace_period_seconds;
    let (since, grace) = match &mut e.desired.life {
        Life::Terminating(t) if t.removes_the_pod() => {
            let before = t.grace();
            t.shorten(grace.unwrap_or(own));
            if t.grace() == before {
                return only(uid.clone());
            }
            (t.since, i64::from(t.grace()))
        }
        life => {
            let (since, grace) = recovered.unwrap_or((now.wall, grace.unwrap_or(own)));
            *life = Life::Terminating(Termination::new(since, grace, why));
            (since, grace)
        }
    };
    let mut pod = (*e.desired.pod).clone();
    pod.metadata.deletion_timestamp = Some((since + std::time::Duration::from_secs(grace.max(1).unsigned_abs())).truncated());
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    e.desired.pod = Arc::new(pod);
    out.push(Effect::RecordDeletion { uid: uid.clone(), since, grace });
    only(uid.clone())
}

fn config_changed(s: &mut NodeState, kind: Referent, namespace: &str, name: &str, out: &mut Vec<Effect>) -> BTreeSet<PodUid> {
    let users: Vec<PodUid> = s.pods.iter().filter(|(_, e)| uses(&e.desired.pod, kind, namespace, name)).map(|(u, _)| u.clone()).collect();
    for uid in &users {
        read_again(s, uid, out);
    }
    users.into_iter().collect()
}

/// What this pod reads has changed.
fn read_again(s: &mut NodeState, uid: &PodUid, out: &mut Vec<Effect>) {
    if let Some(e) = s.pods.get_mut(uid)
        && matches!(e.verdicts.host, crate::plan::Host::Failed { .. })
    {
        // What was missing may have come.
        e.verdicts.host = crate::plan::Host::Unknown;
    }
    refresh_volumes(s, uid, out);
}

/// The API server's word counts where nothing of ours is newer: a pod of which nothing was written down goes on from
/// it, and conditions that are not a kubelet's are as it says.
fn reported(s: &mut NodeState, uid: PodUid, status: &PodStatus) -> BTreeSet<PodUid> {
    let Some(e) = s.pods.get_mut(&uid) else {
        s.recovered.entry(uid).or_default().status.get_or_insert_with(|| status.clone());
        return BTreeSet::new();
    };
    let Some(known) = &mut e.status else { return BTreeSet::new() };
    let theirs = |s: &PodStatus| report::foreign(s).cloned().collect::<Vec<_>>();
    if theirs(known) == theirs(status) {
        return BTreeSet::new();
    }
    let mut fresh = (**known).clone();
    fresh.conditions.retain(|c| report::OURS.contains(&c.kind.as_str()));
    fresh.conditions.extend(theirs(status));
    *known = Arc::new(fresh);
    only(uid)
}

/// Whether the pod reads this object, by volume or by environment.
fn uses(pod: &Pod, kind: Referent, namespace: &str, name: &str) -> bool {
    if pod.metadata.namespace != namespace {
        return false;
    }
    let volumes = pod.spec.volumes.iter().any(|v| v.references().iter().any(|(k, n, _)| *k == kind && *n == name));
    let is = |n: Option<&str>| n == Some(name);
    volumes
        || pod.containers().any(|(_, c)| match kind {
            Referent::ConfigMap => {
                c.env_from.iter().any(|f| is(f.config_map_ref.as_ref().map(|r| r.name.as_str())))
                    || c.env
                        .iter()
                        .filter_map(|v| v.value_from.as_ref())
                        .any(|v| is(v.config_map_key_ref.as_ref().map(|r| r.name.as_str())))
            }
            Referent::Secret => {
                c.env_from.iter().any(|f| is(f.secret_ref.as_ref().map(|r| r.name.as_str())))
                    || c.env.iter().filter_map(|v| v.value_from.as_ref()).any(|v| is(v.secret_key_ref.as_ref().map(|r| r.name.as_str())))
            }
        })
}

/// Files of configuration follow their objects while the pod runs. A missing object leaves them as they are.
fn refresh_volumes(s: &NodeState, uid: &PodUid, out: &mut Vec<Effect>) {
    let runs = |e: &&PodEntry| matches!(e.desired.life, Life::Running) && e.observed.sandbox().is_some_and(|s| s.ready);
    let Some(e) = s.pods.get(uid).filter(runs) else { return };
    let pod = &*e.desired.pod;
    let ips = status::pod_ips(pod, &e.observed, &s.facts);
    let ctx = Context { pod, config: &s.config, node: &s.facts, objects: &s.objects, services: &[], pod_ips: &ips };
    let volumes = volume::live(&ctx);
    if !volumes.is_empty() {
        out.push(Effect::RefreshVolumes { uid: uid.clone(), volumes });
    }
}

/// Records of pods that neither a source nor the runtime knows: they ended while nobody watched.
fn forget_strangers(s: &mut NodeState, out: &mut Vec<Effect>) {
    if !s.sources_ready || !s.listed {
        return;
    }
    let queued: BTreeSet<PodUid> = s.queued.values().map(|p| p.uid()).collect();
    let strangers = std::mem::take(&mut s.recovered);
    for (uid, r) in strangers {
        if queued.contains(&uid) {
            s.recovered.insert(uid, r);
        } else {
            out.push(Effect::Forget { uid });
        }
    }
}

fn observe(s: &mut NodeState, uid: &PodUid, o: Observation, out: &mut Vec<Effect>) {
    let Some(e) = s.pods.get_mut(uid) else { return };
    e.observing = false;
    if o.began < e.not_before || e.as_of.is_some_and(|t| t > o.began) {
        return;
    }
    let first = e.as_of.is_none();
    e.observed = o.pod;
    e.as_of = Some(o.began);
    e.messages = o.messages;
    if first {
        // Its configuration may have changed while nobody watched.
        refresh_volumes(s, uid, out);
    }
}

fn relisted(s: &mut NodeState, list: Vec<Observation>, now: Now, out: &mut Vec<Effect>) -> BTreeSet<PodUid> {
    s.listed = true;
    let Some(began) = list.iter().map(|o| o.began).min().or(Some(now.mono)) else { return BTreeSet::new() };
    let mut dirty = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for o in list {
        let uid = PodUid(o.pod.uid.clone());
        seen.insert(uid.clone());
        if !s.pods.contains_key(&uid) {
            // Before all sources have spoken nobody is an orphan.
            if !s.sources_ready || o.pod.is_empty() || s.queued.values().any(|p| p.uid() == uid) {
                continue;
            }
            adopt_orphan(s, &o.pod, now);
        }
        let changed = s.pods.get(&uid).is_some_and(|e| e.as_of.is_none() || e.observed != o.pod);
        if changed && s.pods.get(&uid).is_some_and(|e| e.job.is_none()) {
            observe(s, &uid, o, out);
            dirty.insert(uid);
        }
    }
    forget_strangers(s, out);
    for (uid, e) in &mut s.pods {
        if seen.contains(uid) || e.job.is_some() || began < e.not_before {
            continue;
        }
        if e.as_of.is_none() || !e.observed.is_empty() {
            e.observed = crate::plan::view::nothing(uid, &e.desired.pod.metadata.namespace, &e.desired.pod.metadata.name);
            e.as_of = Some(began);
            dirty.insert(uid.clone());
        }
    }
    dirty
}

fn done(
    s: &mut NodeState,
    uid: &PodUid,
    job: super::JobId,
    results: Vec<crate::work::WorkResult>,
    observation: Option<Box<Observation>>,
    now: Now,
    out: &mut Vec<Effect>,
) -> BTreeSet<PodUid> {
    let Some(e) = s.pods.get_mut(uid) else { return BTreeSet::new() };
    if e.job.as_ref().is_none_or(|j| j.id != job) {
        return BTreeSet::new();
    }
    e.job = None;
    let work = |r: &crate::work::WorkResult| match r {
        WorkResult::Done(w, _) | WorkResult::Failed(w, _) | WorkResult::Skipped(w) => w.touches_the_runtime(),
    };
    if results.is_empty() || results.iter().any(work) {
        // The read behind `observation` began after the job's last action.
        e.not_before = observation.as_ref().map_or(now.mono, |o| o.began);
    }
    let gone = results::job(e, results, now, out);
    if let Some(o) = observation {
        observe(s, uid, *o, out);
    }
    if !gone {
        return only(uid.clone());
    }
    let name = s.pods.remove(uid).map(|e| e.desired.pod.object_name());
    s.objects.tokens.retain(|(pod, _), _| pod != uid);
    out.push(Effect::Forget { uid: uid.clone() });
    let Some(next) = name.and_then(|n| s.queued.remove(&n)) else { return BTreeSet::new() };
    insert(s, next, now, out)
}

/// A pod whose definition was refused may not exist; where it does, the event is about it. What concerns no object
/// is told of the node, in the namespace that events of nodes are in.
fn invalid(s: &NodeState, kind: String, namespace: String, pod: String, message: String) -> Effect {
    let (kind, namespace, pod) =
        if kind.is_empty() { ("Node".into(), "default".into(), s.facts.name.clone()) } else { (kind, namespace, pod) };
    let known = s.pods.values().map(|e| &e.desired.pod).find(|p| p.metadata.namespace == namespace && p.metadata.name == pod);
    let uid = known.filter(|_| kind == "Pod").map(|p| p.metadata.uid.to_string()).unwrap_or_default();
    let message = match &*kind {
        "Pod" => format!("Error validating pod {pod}.{namespace} from file, ignoring: {message}"),
        _ => message,
    };
    Effect::Event(Box::new(EventRecord {
        kind,
        namespace,
        name: pod,
        uid,
        component: "kubelet",
        field_path: String::new(),
        warning: true,
        reason: "FailedValidation".into(),
        message,
    }))
}
