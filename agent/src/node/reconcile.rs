//! One pod: plan it, expand the plan's actions into work, tell what changed.

use super::effect::{Effect, EventRecord, Job};
use super::state::{self, NodeState, PodEntry};
use super::{orphan, probing};
use crate::env::services;
use crate::plan::{Action, ImageState, Life, Step, Termination, TerminationCause, plan};
use crate::pod::{ContainerKind, Pod, PodUid, QosClass, qos_class};
use crate::status;
use crate::time::Now;
use crate::work::{self, Context, Work, container, hooks, setup};
use std::borrow::Cow;
use std::sync::Arc;

/// Plans the pod as often as it takes to settle what can be settled without the outside world.
pub(super) fn reconcile(s: &mut NodeState, uid: &PodUid, now: Now, out: &mut Vec<Effect>) {
    let Some(e) = s.pods.get_mut(uid) else { return };
    deadline(e, now, out);
    probing::refresh(e, &s.config, now);
    out.extend(probing::due(e, now));
    hasten_end(e, out);
    if e.job.is_some() {
        return tell_status(s, uid, now, out);
    }
    if e.as_of.is_none_or(|t| t < e.not_before) {
        if !e.observing {
            e.observing = true;
            out.push(Effect::Observe { uid: uid.clone() });
        }
        return;
    }
    if s.runtime_error.is_some() {
        // Nothing is decided while the runtime does not answer: a snapshot may be of another life.
        return;
    }
    if e.verdicts.retry_end.is_some_and(|at| at > now.mono) {
        // What failed a moment ago would fail again.
        return tell_status(s, uid, now, out);
    }
    settle(s, uid, now, out);
}

/// The pod's deadline, from its start time.
fn deadline(e: &mut PodEntry, now: Now, out: &mut Vec<Effect>) {
    let Some(seconds) = e.desired.pod.spec.active_deadline_seconds else { return };
    let Some(start) = e.status.as_ref().and_then(|s| s.start_time) else { return };
    let at = start + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    e.verdicts.deadline = Some(now.mono_at(at));
    if now.wall >= at && matches!(e.desired.life, Life::Running) {
        let grace = e.desired.pod.spec.termination_grace_period_seconds;
        e.desired.life = Life::Terminating(Termination::new(now.wall, grace, TerminationCause::DeadlineExceeded));
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        out.push(event(&e.desired.pod, None, false, "DeadlineExceeded", message));
    }
}

/// A pod that is to end drops whatever job starts things, and kills with a longer grace than it now has.
fn hasten_end(e: &PodEntry, out: &mut Vec<Effect>) {
    if let Life::Terminating(t) = &e.desired.life
        && let Some(job) = &e.job
        && job.ends_with_grace.is_none_or(|g| g > t.grace())
    {
        out.push(Effect::Cancel { uid: e.desired.pod.uid(), job: job.id });
    }
}

fn settle(s: &mut NodeState, uid: &PodUid, now: Now, out: &mut Vec<Effect>) {
    // Each round either hands out work or learns of one more container that cannot be configured.
    let rounds = s.pods.get(uid).map_or(0, |e| e.desired.pod.containers().count()) + 2;
    if let Some(e) = s.pods.get_mut(uid) {
        e.verdicts.config.clear();
    }
    for _ in 0..rounds {
        let Some(e) = s.pods.get_mut(uid) else { return };
        e.verdicts.network.clone_from(&s.network_error.as_deref().map(Into::into));
        e.verdicts.host_ip = s.facts.host_ips.first().copied();
        e.plan = plan(&e.desired, &e.observed, &e.verdicts, now);
        let Step::Act(actions) = e.plan.step.clone() else { break };
        let (beside, inside): (Vec<_>, Vec<_>) = actions.into_iter().partition(Action::runs_beside);
        for action in beside {
            run_beside(s, uid, action, now, out);
        }
        if inside.is_empty() {
            continue;
        }
        match expand_all(s, uid, &inside, now) {
            Ok(works) => {
                hand_out(s, uid, works, &inside, now, out);
                break;
            }
            Err((name, message)) => cannot_configure(s, uid, &name, message, now, out),
        }
    }
    tell_status(s, uid, now, out);
}

fn cannot_configure(s: &mut NodeState, uid: &PodUid, name: &str, message: String, now: Now, out: &mut Vec<Effect>) {
    let Some(e) = s.pods.get_mut(uid) else { return };
    let told = e.told.get(&(Box::from(name), "Config")).is_some_and(|m| **m == *message);
    if name.is_empty() {
        e.verdicts.host =
            crate::plan::Host::Failed { message: message.as_str().into(), retry: now.mono + std::time::Duration::from_secs(5) };
    } else {
        e.verdicts.config.insert(name.into(), message.as_str().into());
    }
    if !told {
        e.told.insert((name.into(), "Config"), message.as_str().into());
        let (reason, text) = if name.is_empty() { ("FailedMount", message) } else { ("Failed", format!("Error: {message}")) };
        out.push(event(&e.desired.pod, Some(name), true, reason, text));
    }
}

fn run_beside(s: &mut NodeState, uid: &PodUid, action: Action, now: Now, out: &mut Vec<Effect>) {
    let secrets = pull_secrets(s, uid);
    let Some(e) = s.pods.get_mut(uid) else { return };
    match action {
        Action::CheckImage { image } => {
            e.verdicts.images.insert(image.clone(), ImageState::Checking);
            let container = user_of(&e.desired.pod, &image);
            out.push(Effect::CheckImage { uid: uid.clone(), container, image });
        }
        Action::PullImage { container, image } => {
            e.verdicts.images.insert(image.clone(), ImageState::Pulling { since: now.mono, progress: None });
            out.push(event(&e.desired.pod, Some(&container), false, "Pulling", format!("Pulling image {image:?}")));
            out.push(Effect::Pull { uid: uid.clone(), container, image, secrets });
        }
        _ => {}
    }
}

fn user_of(pod: &Pod, image: &str) -> Box<str> {
    pod.containers().find(|(_, c)| c.image == image).map_or("", |(_, c)| c.name.as_str()).into()
}

fn pull_secrets(s: &NodeState, uid: &PodUid) -> Vec<work::PullSecret> {
    use crate::env::ConfigSource as _;
    let Some(e) = s.pods.get(uid) else { return Vec::new() };
    let pod = &e.desired.pod;
    let secret = |r: &crate::pod::LocalReference| {
        let data = s.objects.get(crate::pod::Referent::Secret, &pod.metadata.namespace, &r.name)?;
        let json = data.data.get(".dockerconfigjson").map(|j| (j, false)).or_else(|| data.data.get(".dockercfg").map(|j| (j, true)));
        json.map(|(j, legacy)| work::PullSecret { json: j.clone(), legacy })
    };
    pod.spec.image_pull_secrets.iter().filter_map(secret).collect()
}

/// Expands all actions, or says which container's configuration cannot be made.
fn expand_all(s: &NodeState, uid: &PodUid, actions: &[Action], now: Now) -> Result<Vec<Work>, (String, String)> {
    let Some(e) = s.pods.get(uid) else { return Ok(Vec::new()) };
    let pod = e.desired.pod.clone();
    let variables = services::variables(s.services.iter(), &pod.metadata.namespace, pod.spec.enable_service_links);
    let pod_ips = status::pod_ips(&pod, &e.observed, &s.facts);
    let ctx = Context { pod: &pod, config: &s.config, node: &s.facts, objects: &s.objects, services: &variables, pod_ips: &pod_ips };
    actions.iter().map(|a| expand(s, e, &ctx, a, now)).collect()
}

fn active<'a>(s: &'a NodeState, class: QosClass, except: Option<&'a PodUid>) -> impl Iterator<Item = &'a Pod> {
    let counts = move |e: &&PodEntry| matches!(e.desired.life, Life::Running) && qos_class(&e.desired.pod) == class && e.admitted;
    s.pods.iter().filter(move |(uid, _)| Some(*uid) != except).map(|(_, e)| e).filter(counts).map(|e| &*e.desired.pod)
}

fn expand(s: &NodeState, e: &PodEntry, ctx: &Context<'_>, action: &Action, now: Now) -> Result<Work, (String, String)> {
    let pod = ctx.pod;
    let of_pod = |err: work::Error| (String::new(), err.to_string());
    let class = qos_class(pod);
    Ok(match action {
        Action::SetUp => Work::SetUp(Box::new(setup::set_up(ctx, active(s, class, None)).map_err(of_pod)?)),
        Action::CreateSandbox { attempt } => Work::CreateSandbox(Box::new(work::sandbox_spec(ctx, *attempt).map_err(of_pod)?)),
        Action::StopSandbox { id } => Work::StopSandbox { id: id.clone() },
        Action::RemoveSandbox { id } => Work::RemoveSandbox { id: id.clone() },
        Action::StartContainer { name, sandbox, image_ref, attempt, streak } => {
            let started = start(e, ctx, name, sandbox, image_ref, *attempt, *streak);
            Work::Start(Box::new(started.map_err(|err| (name.to_string(), err.to_string()))?))
        }
        Action::ResumeContainer { name, id } => {
            let attempt = e.observed.by_id(id).map_or(0, |c| c.attempt);
            let c = pod.container(name).map(|(_, c)| c);
            Work::Resume {
                name: name.clone(),
                id: id.clone(),
                links: container::log_link(ctx, name, attempt),
                post_start: c.and_then(|c| hooks::post_start(pod, c, ctx.pod_ips.first().copied())),
            }
        }
        Action::KillContainer { name, id, grace, why } => {
            let c = pod.container(name);
            let init = c.is_some_and(|(k, _)| matches!(k, ContainerKind::Init | ContainerKind::Sidecar));
            let hook = c.and_then(|(_, c)| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?))).filter(|_| *grace > 0);
            Work::Kill(Box::new(work::Kill {
                name: name.clone(),
                id: id.clone(),
                grace: *grace,
                pre_stop: hook.map(|(c, h)| hooks::hook(h, c, ctx.pod_ips.first().copied())),
                message: why.message(name, init, pod.spec.restart_policy != crate::pod::RestartPolicy::Never),
                restarts: why.is_restart(),
            }))
        }
        Action::RemoveContainer { name, id } => {
            let log_path = e.observed.by_id(id).map(|c| c.log_path.clone()).unwrap_or_default();
            Work::RemoveContainer { name: name.clone(), id: id.clone(), log_path }
        }
        Action::RecordOutcome => Work::RecordOutcome { uid: pod.uid(), status: Arc::new(make_status(s, e, now)) },
        Action::TearDown { forget } => Work::TearDown(Box::new(setup::tear_down(ctx, *forget, active(s, class, Some(&pod.uid()))))),
        Action::CheckImage { .. } | Action::PullImage { .. } => return Err((String::new(), "an image action is no job".into())),
    })
}

fn start(
    e: &PodEntry,
    ctx: &Context<'_>,
    name: &str,
    sandbox_id: &str,
    image_ref: &str,
    attempt: u32,
    streak: u32,
) -> Result<work::Start, work::Error> {
    let (kind, c) = ctx.pod.container(name).ok_or_else(|| work::Error::Other(format!("container {name} is not in the spec")))?;
    let image = match e.verdicts.images.get(c.image.as_str()) {
        Some(ImageState::Present(p)) => p.clone(),
        _ => work::Image { image_ref: image_ref.into(), ..work::Image::default() },
    };
    let target = (!c.target_container_name.is_empty()).then(|| {
        let found = e.observed.container(&c.target_container_name).filter(|r| r.state.is_running());
        found
            .map(|r| r.id.clone())
            .ok_or_else(|| work::Error::Other(format!("unable to find target container {:?}", c.target_container_name)))
    });
    let sandbox_attempt = e.observed.sandbox().map_or(0, |s| s.attempt);
    let sandbox = Arc::new(work::sandbox_spec(ctx, sandbox_attempt)?);
    let a = container::Attempt { sandbox_id, sandbox, attempt, streak, image: &image, target: target.transpose()? };
    work::start(ctx, kind, c, &a)
}

fn hand_out(s: &mut NodeState, uid: &PodUid, works: Vec<Work>, actions: &[Action], now: Now, out: &mut Vec<Effect>) {
    let id = s.job_id();
    let Some(e) = s.pods.get_mut(uid) else { return };
    let kills = actions.iter().any(|a| matches!(a, Action::KillContainer { .. }));
    let starts = actions.iter().any(|a| {
        matches!(a, Action::SetUp | Action::CreateSandbox { .. } | Action::StartContainer { .. } | Action::ResumeContainer { .. })
    });
    let grace = match &e.desired.life {
        Life::Terminating(t) => Some(t.grace()),
        // A kill for a restart counts as no end: an end cancels it if its own grace is shorter.
        _ => None,
    };
    for w in &works {
        if let Work::Kill(k) = w {
            out.push(event(&e.desired.pod, Some(&k.name), false, "Killing", k.message.clone()));
        }
    }
    let job = Job { uid: uid.clone(), id, order: e.order, urgent: kills || !starts, works };
    e.job = Some(state::running(&job, grace, actions, now.mono));
    out.push(Effect::Run(Box::new(job)));
}

fn make_status(s: &NodeState, e: &PodEntry, now: Now) -> crate::pod::status::PodStatus {
    status::status(&status::Input {
        desired: &e.desired,
        observed: &e.observed,
        verdicts: &e.verdicts,
        plan: &e.plan,
        previous: e.status.as_deref(),
        node: &s.facts,
        runtime: &s.config.runtime_name,
        messages: &e.messages,
        now,
    })
}

/// Tells the status if it changed.
pub(super) fn tell_status(s: &mut NodeState, uid: &PodUid, now: Now, out: &mut Vec<Effect>) {
    let Some(e) = s.pods.get(uid) else { return };
    if e.as_of.is_none() && e.status.is_some() {
        // Nothing was seen yet by this process: what the last one saw stands.
        return;
    }
    if matches!(e.desired.life, Life::Finished) && e.status.as_ref().is_some_and(|p| p.phase.is_terminal()) {
        return;
    }
    let made = make_status(s, e, now);
    if e.status.as_deref() == Some(&made) {
        return;
    }
    let status = Arc::new(made);
    let Some(e) = s.pods.get_mut(uid) else { return };
    e.status = Some(status.clone());
    out.push(Effect::Status { uid: uid.clone(), status });
}

/// An Event about a pod, or about one of its containers.
pub(super) fn event(pod: &Pod, container: Option<&str>, warning: bool, reason: impl Into<Cow<'static, str>>, message: String) -> Effect {
    let field_path = match container.filter(|c| !c.is_empty()).and_then(|c| pod.container(c)) {
        Some((ContainerKind::Init | ContainerKind::Sidecar, c)) => format!("spec.initContainers{{{}}}", c.name),
        Some((ContainerKind::Main, c)) => format!("spec.containers{{{}}}", c.name),
        Some((ContainerKind::Ephemeral, c)) => format!("spec.ephemeralContainers{{{}}}", c.name),
        None => String::new(),
    };
    let m = &pod.metadata;
    Effect::Event(Box::new(EventRecord {
        kind: "Pod".into(),
        namespace: m.namespace.clone(),
        name: m.name.clone(),
        uid: m.uid.clone(),
        component: "kubelet",
        field_path,
        warning,
        reason: reason.into(),
        message,
    }))
}

/// A pod that only the runtime knows.
pub(super) fn adopt_orphan(s: &mut NodeState, o: &longshore_cri::snapshot::ObservedPod, now: Now) -> PodUid {
    let pod = Arc::new(orphan::pod(o));
    let uid = pod.uid();
    let recovered = s.recovered.remove(&uid).unwrap_or_default();
    let (since, grace) = recovered.deletion.unwrap_or((now.wall, pod.spec.termination_grace_period_seconds));
    let life = Life::Terminating(Termination::new(since, grace, TerminationCause::Deleted));
    let desired = crate::plan::DesiredPod { pod, life, limits: s.config.limits };
    s.next_order += 1;
    let mut e = PodEntry::new(desired, s.next_order);
    e.status = recovered.status.map(Arc::new);
    e.admitted = true;
    s.pods.insert(uid.clone(), e);
    uid
}
