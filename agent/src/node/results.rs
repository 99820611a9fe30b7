//! What the results of work, pulls and probes mean for a pod.

use super::effect::Effect;
use super::event::PullReport;
use super::reconcile::event;
use super::state::PodEntry;
use crate::plan::{Host, ImageState, ImageVerb, Life, PullFailure, StartFailure};
use crate::time::{Mono, Now, go_duration};
use crate::work::{Failure, FailureKind, Finished, Work, WorkResult};
use longshore_probes::{Outcome, ProbeKind};
use std::time::Duration;

/// Pause after a failed piece of work; the kubelet resyncs a failed pod after as long.
const RETRY: Duration = Duration::from_secs(10);
/// Pause after a kill or a clean-up that failed: soon, because something is to be gone.
const RETRY_END: Duration = Duration::from_secs(2);
/// The reason of a container whose postStart hook failed.
pub const POST_START: &str = "PostStartHookError";
const PULL_INITIAL: Duration = Duration::from_secs(10);
const PULL_MAX: Duration = Duration::from_secs(300);
/// A look at an image that the runtime does not answer says nothing about the image: it is soon made again.
const INSPECT_INITIAL: Duration = Duration::from_secs(1);
const INSPECT_MAX: Duration = Duration::from_secs(10);

/// Applies one job's results; true when nothing is left of the pod.
pub(super) fn job(e: &mut PodEntry, results: Vec<WorkResult>, now: Now, out: &mut Vec<Effect>) -> bool {
    let mut gone = false;
    for r in results {
        match r {
            WorkResult::Done(w, f) => gone |= done(e, w, &f, out),
            WorkResult::Failed(w, f) => failed(e, w, f, now, out),
            WorkResult::Skipped(_) => {}
        }
    }
    gone
}

fn done(e: &mut PodEntry, w: Work, f: &Finished, out: &mut Vec<Effect>) -> bool {
    let pod = e.desired.pod.clone();
    match w {
        Work::SetUp(_) => e.verdicts.host = Host::Ready,
        Work::CreateSandbox(_) => {
            e.verdicts.failures.remove("");
        }
        Work::Start(s) => {
            e.verdicts.failures.remove(&s.name);
            e.told.retain(|(c, _), _| *c != s.name);
            // Known images are asked for again at the next start: they may be collected meanwhile, and
            // policy Always pulls each time.
            if let Some((_, c)) = pod.container(&s.name) {
                e.verdicts.images.remove(c.image.as_str());
            }
            out.push(event(&pod, Some(&s.name), false, "Created", "Container created".into()));
            out.push(event(&pod, Some(&s.name), false, "Started", "Container started".into()));
            out.extend(fallback(&pod, f));
        }
        Work::Resume { name, .. } => {
            e.verdicts.failures.remove(&name);
            out.push(event(&pod, Some(&name), false, "Started", "Container started".into()));
            out.extend(fallback(&pod, f));
        }
        Work::Kill(k) => {
            if k.restarts {
                e.verdicts.restart.insert(k.id.clone());
            }
            if f.hook_failed {
                out.push(event(&pod, Some(&k.name), true, "FailedPreStopHook", "PreStopHook failed".into()));
            }
            out.extend(fallback(&pod, f));
        }
        Work::RemoveContainer { id, .. } => {
            e.verdicts.restart.remove(&id);
        }
        Work::RecordOutcome { status, .. } => {
            e.verdicts.finished_before = true;
            e.status = Some(status.clone());
            out.push(Effect::Status { uid: pod.uid(), status });
            if matches!(e.desired.life, Life::Running) {
                e.desired.life = Life::Finished;
            }
        }
        Work::TearDown(t) => {
            e.verdicts.host = Host::Gone;
            return t.logs.is_some();
        }
        Work::StopSandbox { .. } | Work::RemoveSandbox { .. } => {}
    }
    false
}

/// A hook with https met a server without.
fn fallback(pod: &crate::pod::Pod, f: &Finished) -> Option<Effect> {
    let host = f.http_fallback.as_ref()?;
    let text = format!("request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded");
    Some(event(pod, None, true, "LifecycleHTTPFallback", text))
}

fn failed(e: &mut PodEntry, w: Work, f: Failure, now: Now, out: &mut Vec<Effect>) {
    let pod = e.desired.pod.clone();
    let failure = || StartFailure { reason: f.reason.into(), message: f.message.as_str().into(), retry: now.mono + RETRY };
    match w {
        Work::SetUp(_) => {
            out.push(event(&pod, None, true, f.reason, f.message.clone()));
            e.verdicts.host = Host::Failed { message: f.message.as_str().into(), retry: now.mono + RETRY };
        }
        Work::CreateSandbox(_) => {
            let text = format!("Failed to create pod sandbox: {}", f.message);
            out.push(event(&pod, None, true, "FailedCreatePodSandBox", text));
            e.verdicts.failures.insert("".into(), StartFailure { reason: "FailedCreatePodSandBox".into(), ..failure() });
        }
        Work::Start(s) => {
            if f.reason == POST_START {
                out.push(event(&pod, Some(&s.name), false, "Created", "Container created".into()));
            }
            start_failed(e, &s.name, &f, failure(), out);
        }
        Work::Resume { name, .. } => start_failed(e, &name, &f, failure(), out),
        Work::Kill(_) | Work::StopSandbox { .. } => {
            out.push(event(&pod, None, true, "FailedKillPod", format!("error killing pod: {}", f.message)));
            e.verdicts.retry_end = Some(now.mono + RETRY_END);
        }
        Work::RemoveSandbox { .. } | Work::RemoveContainer { .. } | Work::TearDown(_) | Work::RecordOutcome { .. } => {
            e.verdicts.retry_end = Some(now.mono + RETRY_END);
        }
    }
}

fn start_failed(e: &mut PodEntry, name: &str, f: &Failure, failure: StartFailure, out: &mut Vec<Effect>) {
    let pod = e.desired.pod.clone();
    if f.reason == POST_START {
        // It did start: its hook failed, and it was stopped for that.
        out.push(event(&pod, Some(name), false, "Started", "Container started".into()));
        out.push(event(&pod, Some(name), true, "FailedPostStartHook", "PostStartHook failed".into()));
        out.push(event(&pod, Some(name), false, "Killing", "FailedPostStartHook".into()));
    }
    if f.kind == FailureKind::Unknown {
        // It may have happened: the next look at the runtime tells.
        return;
    }
    if f.reason != POST_START {
        out.push(event(&pod, Some(name), true, "Failed", format!("Error: {}", f.message)));
    }
    e.verdicts.failures.insert(name.into(), failure);
    if let Some((_, c)) = pod.container(name) {
        e.verdicts.images.remove(c.image.as_str());
    }
}

/// An image was looked for or pulled.
pub(super) fn image(
    e: &mut PodEntry,
    image: &str,
    container: &str,
    state: ImageState,
    pulled: Option<PullReport>,
    now: Now,
    out: &mut Vec<Effect>,
) {
    let pod = e.desired.pod.clone();
    let tell = |warning, reason, message| event(&pod, Some(container), warning, reason, message);
    let state = match state {
        ImageState::Present(p) => {
            e.pull_failures.remove(image);
            e.inspect_failures.remove(image);
            out.push(match pulled {
                Some(r) => {
                    let (took, waited) = (go_duration(rounded(r.took)), go_duration(rounded(r.with_waiting)));
                    let text = format!(
                        "Successfully pulled image {image:?} in {took} ({waited} including waiting). Image size: {} bytes.",
                        r.bytes
                    );
                    tell(false, "Pulled", text)
                }
                None => {
                    let text = format!("Container image {image:?} already present on machine and can be accessed by the pod");
                    tell(false, "Pulled", text)
                }
            });
            ImageState::Present(p)
        }
        ImageState::Failed(f) if f.during == ImageVerb::Inspect => {
            let n = e.inspect_failures.get(image).copied().unwrap_or(0).saturating_add(1);
            e.inspect_failures.insert(image.into(), n);
            out.push(tell(true, "InspectFailed", f.message.to_string()));
            out.push(tell(true, "Failed", format!("Error: {}", f.reason)));
            let delay = INSPECT_INITIAL.saturating_mul(1 << (n - 1).min(5)).min(INSPECT_MAX);
            ImageState::Failed(PullFailure { failures: n, retry: now.mono + delay, ..f })
        }
        ImageState::Failed(f) => {
            let n = e.pull_failures.get(image).copied().unwrap_or(0).saturating_add(1);
            e.pull_failures.insert(image.into(), n);
            out.push(tell(true, "Failed", format!("Failed to pull image {image:?}: {}", f.message)));
            out.push(tell(true, "Failed", format!("Error: {}", f.reason)));
            let delay = PULL_INITIAL.saturating_mul(1 << (n - 1).min(5)).min(PULL_MAX);
            // The failure shows as itself for a moment and as a back-off after.
            e.pull_shown = Some(now.mono + Duration::from_secs(1));
            ImageState::Failed(PullFailure { failures: n, retry: now.mono + delay, ..f })
        }
        other => other,
    };
    if matches!(state, ImageState::Absent) {
        e.inspect_failures.remove(image);
        let never = pod.container(container).is_some_and(|(_, c)| c.image_pull_policy == Some(crate::pod::ImagePullPolicy::Never));
        if never {
            let text = format!("Container image {image:?} is not present with pull policy of Never");
            out.push(tell(true, "ErrImageNeverPull", text.clone()));
            out.push(tell(true, "Failed", "Error: ErrImageNeverPull".into()));
        }
    }
    e.verdicts.images.insert(image.into(), state);
}

fn rounded(d: Duration) -> Duration {
    Duration::from_millis(u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Failed pulls that were shown as such now read as back-offs; an image that was refused is asked for again.
pub(super) fn age_pulls(e: &mut PodEntry, now: Now, out: &mut Vec<Effect>) {
    if e.pull_shown.is_none_or(|at| at > now.mono) {
        return;
    }
    e.pull_shown = None;
    let pod = e.desired.pod.clone();
    for (image, state) in &mut e.verdicts.images {
        if let ImageState::Failed(f) = state
            && !f.backing_off
            && f.during == ImageVerb::Pull
        {
            f.backing_off = true;
            let user = pod.containers().find(|(_, c)| *c.image == **image).map(|(_, c)| c.name.clone());
            out.push(event(&pod, user.as_deref(), false, "BackOff", format!("Back-off pulling image {image:?}")));
            out.push(event(&pod, user.as_deref(), true, "Failed", "Error: ImagePullBackOff".into()));
        }
    }
}

/// A check was made. True when a verdict changed.
pub(super) fn probe(e: &mut PodEntry, id: &str, kind: ProbeKind, outcome: &Outcome, out: &mut Vec<Effect>) -> bool {
    let pod = e.desired.pod.clone();
    let name = e.observed.by_id(id).map(|c| c.name.clone()).unwrap_or_default();
    let Some(m) = e.probes.get_mut(id, kind) else { return false };
    let effect = m.observe(outcome);
    let title = kind.title();
    match outcome {
        Outcome::Failure(text) => {
            out.push(event(&pod, Some(&name), true, "Unhealthy", format!("{title} probe failed: {text}")));
        }
        Outcome::Warning(text) => out.push(event(&pod, Some(&name), true, "ProbeWarning", format!("{title} probe warning: {text}"))),
        Outcome::Error(text) | Outcome::Unreadable(text) => {
            let state = outcome.error_state().unwrap_or_default();
            out.push(event(&pod, Some(&name), true, "Unhealthy", format!("{title} probe errored and resulted in {state} state: {text}")));
        }
        Outcome::Success(_) => {}
    }
    e.last_probe_failure = match outcome {
        Outcome::Failure(t) | Outcome::Error(t) | Outcome::Unreadable(t) => Some((kind, name, t.as_str().into(), m.failing())),
        _ => e.last_probe_failure.take().filter(|(k, n, _, _)| *k != kind || *n != name),
    };
    effect.changed.is_some()
}

/// When a failed end may be tried again.
pub(super) fn may_retry_end(e: &PodEntry, now: Now) -> bool {
    e.verdicts.retry_end.is_none_or(|at: Mono| at <= now.mono)
}
