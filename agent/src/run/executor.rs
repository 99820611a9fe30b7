//! Carries out one job for one pod. Looks nothing up and decides nothing: every piece of work carries
//! what it needs, and every failure goes back classified.

use super::cgroup_fs::CgroupFs;
use super::lanes::Lanes;
use super::observe::Observer;
use super::state_file::StateError;
use super::{clock, hooks, volumes};
use crate::node::effect::Job;
use crate::node::event::{Event, Observation};
use crate::node::results::POST_START;
use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use crate::volume::VolumeWork;
use crate::work::hooks::{Hook, PostStart};
use crate::work::{Failure, FailureKind, Finished, Kill, LogLink, SetUp, Start, TearDown, Work, WorkResult};
use longshore_cri::client::{Client, Made};
use longshore_cri::error::{Error, Kind};
use longshore_cri::labels::PodIdentity;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A container always has this long between its signals, whatever its hook took (seconds).
const LEAST_GRACE: u32 = 2;

#[derive(Clone)]
pub struct Executor {
    pub client: Client,
    pub observer: Observer,
    pub cgroups: Arc<CgroupFs>,
    pub lanes: Lanes,
    pub state: Rc<super::state_dir::StateDir>,
}

impl Executor {
    pub async fn run(&self, job: Job) -> Event {
        let mut results = Vec::with_capacity(job.works.len());
        let mut failed = false;
        let touches = job.works.iter().any(Work::touches_the_runtime);
        let (kills, others): (Vec<Work>, Vec<Work>) = job.works.into_iter().partition(|w| matches!(w, Work::Kill(_)));
        // Containers of a pod are stopped side by side: each has the whole grace.
        let killed = futures_util::future::join_all(kills.into_iter().map(|w| self.one(&job.uid, w))).await;
        results.extend(killed);
        for w in others {
            if failed {
                results.push(WorkResult::Skipped(w));
                continue;
            }
            let r = self.one(&job.uid, w).await;
            failed = matches!(r, WorkResult::Failed(..));
            results.push(r);
        }
        let observation = if touches { self.look(&job.uid, &results).await.ok().map(Box::new) } else { None };
        Event::Done { uid: job.uid, job: job.id, results, observation }
    }

    /// What the pod is like after the job. Where the job only made things, and every answer came, their ids say
    /// where to look; else the runtime is asked for all it has of the pod.
    async fn look(&self, uid: &PodUid, results: &[WorkResult]) -> Result<Observation, Error> {
        match made(results) {
            Some((identity, made)) => self.observer.made(identity, &made).await,
            None => self.observer.one(uid).await,
        }
    }

    async fn one(&self, uid: &PodUid, w: Work) -> WorkResult {
        let result = match &w {
            Work::SetUp(s) => self.set_up(uid, s).await,
            Work::CreateSandbox(s) => named(self.client.run_sandbox(s).await, "FailedCreatePodSandBox"),
            Work::StopSandbox { id } => plain(self.client.stop_sandbox(id).await, "FailedKillPod"),
            Work::RemoveSandbox { id } => plain(self.client.remove_sandbox(id).await, "FailedKillPod"),
            Work::Start(s) => self.start(uid, s).await,
            Work::Resume { id, links, post_start, .. } => self.resume(id, links, post_start.as_deref()).await,
            Work::Kill(k) => self.kill(k).await,
            Work::RemoveContainer { id, log_path, .. } => self.remove(uid, id, log_path).await,
            Work::RecordOutcome { uid, status } => self.record(uid, status).await.map_err(|e| local("FailedSync", e)),
            Work::TearDown(t) => self.tear_down(uid, t).await,
        };
        match result {
            Ok(f) => WorkResult::Done(w, f),
            Err(f) => {
                tracing::warn!(reason = f.reason, message = %f.message, "work failed");
                WorkResult::Failed(w, f)
            }
        }
    }

    async fn set_up(&self, uid: &PodUid, s: &SetUp) -> Result<Finished, Failure> {
        let (cgroups, s) = (self.cgroups.clone(), s.clone());
        let work = move || {
            if let Some((path, values)) = &s.qos {
                cgroups.apply(path, values).map_err(|e| local("FailedCreatePodContainer", e))?;
            }
            cgroups
                .apply(&s.cgroup, &s.cgroup_values)
                .map_err(|e| local("FailedCreatePodContainer", format!("unable to ensure pod container exists: {e}")))?;
            volumes::set_up(&s).map_err(|e| local("FailedMount", e))
        };
        self.lanes.run(uid, work).await.map(|()| Finished::default())
    }

    async fn record(&self, uid: &PodUid, status: &PodStatus) -> Result<Finished, StateError> {
        let written = self.state.write_outcome(uid, status)?;
        self.lanes.run(uid, move || written.make_durable()).await.map(|()| Finished::default())
    }

    /// Rewrites configuration volumes of a running pod.
    pub async fn refresh(&self, uid: &PodUid, list: Vec<VolumeWork>) {
        self.lanes.run(uid, move || volumes::refresh(&list)).await;
    }

    async fn start(&self, uid: &PodUid, s: &Start) -> Result<Finished, Failure> {
        let files = s.clone();
        self.lanes.run(uid, move || volumes::prepare(&files)).await.map_err(|e| local("CreateContainerConfigError", e))?;
        let id = self.client.create(&s.sandbox_id, &s.spec, &s.sandbox).await.map_err(|e| cri("CreateContainerError", &e))?;
        self.run_created(&id, &s.links, s.post_start.as_deref()).await
    }

    async fn resume(&self, id: &str, links: &LogLink, hook: Option<&PostStart>) -> Result<Finished, Failure> {
        self.run_created(id, links, hook).await
    }

    async fn run_created(&self, id: &str, links: &LogLink, hook: Option<&PostStart>) -> Result<Finished, Failure> {
        self.client.start(id).await.map_err(|e| cri("RunContainerError", &e))?;
        if let Err(error) = volumes::link_log(links, id) {
            tracing::warn!(%error, "the log's link could not be made");
        }
        let mut finished = Finished { id: id.into(), ..Finished::default() };
        if let Some(post_start) = hook {
            match hooks::run(&self.client, id, &post_start.hook).await {
                Ok(fallback) => finished.http_fallback = fallback,
                Err(message) => {
                    // A container whose postStart failed is killed; its restart follows the policy.
                    if let Err(error) = self.stop(id, post_start.grace, post_start.pre_stop.as_ref()).await {
                        tracing::warn!(%id, %error, "a container whose postStart hook failed could not be stopped");
                    }
                    return Err(Failure { reason: POST_START, message, kind: FailureKind::Retry });
                }
            }
        }
        Ok(finished)
    }

    async fn kill(&self, k: &Kill) -> Result<Finished, Failure> {
        let stopped = self.stop(&k.id, k.grace, k.pre_stop.as_ref()).await.map_err(|e| cri("FailedKillPod", &e))?;
        Ok(Finished { id: k.id.clone(), ..stopped })
    }

    /// The hook and the stop share one grace (seconds); the hook is left alone, not ended, when it is spent.
    async fn stop(&self, id: &str, grace: u32, pre_stop: Option<&Hook>) -> Result<Finished, Error> {
        let began = clock::mono();
        let mut finished = Finished::default();
        if let Some(hook) = pre_stop.filter(|_| grace > 0) {
            let (client, of, hook) = (self.client.clone(), id.to_owned(), hook.clone());
            let running = tokio::task::spawn_local(async move { hooks::run(&client, &of, &hook).await });
            match tokio::time::timeout(Duration::from_secs(u64::from(grace)), running).await {
                Ok(Ok(Ok(fallback))) => finished.http_fallback = fallback,
                Ok(Ok(Err(error))) => {
                    tracing::warn!(container = %id, %error, "preStop hook failed");
                    finished.hook_failed = true;
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(container = %id, grace, "preStop hook not completed in its grace period");
                    finished.hook_failed = true;
                }
            }
        }
        let spent = u32::try_from((clock::mono() - began).as_secs()).unwrap_or(u32::MAX);
        let left = grace.saturating_sub(spent).max(LEAST_GRACE);
        self.client.stop(id, i64::from(left)).await.map(|()| finished)
    }

    async fn remove(&self, uid: &PodUid, id: &str, log_path: &str) -> Result<Finished, Failure> {
        let removed = match self.client.remove(id).await {
            Err(e) if e.is_leftover_task() => self.remove_with_its_task(id).await,
            r => r,
        };
        let removed = plain(removed, "FailedKillPod")?;
        let path = log_path.to_owned();
        self.lanes.run(uid, move || volumes::remove_log(&path)).await;
        Ok(removed)
    }

    /// A start that nobody waited for (the daemon before us was killed) may have left a task that the runtime's
    /// CRI service lost sight of.
    async fn remove_with_its_task(&self, id: &str) -> Result<(), Error> {
        tracing::warn!(container = %id, "containerd lost sight of this container's task; it is deleted with it");
        self.client.delete_leftover_task(id).await?;
        self.client.remove(id).await
    }

    async fn tear_down(&self, uid: &PodUid, t: &TearDown) -> Result<Finished, Failure> {
        let (cgroups, t) = (self.cgroups.clone(), t.clone());
        let work = move || {
            volumes::tear_down(&t).map_err(|e| local("FailedUnmount", e))?;
            cgroups.remove(&t.cgroup).map_err(|e| local("FailedKillPod", e))?;
            let Some((path, values)) = &t.qos else { return Ok(()) };
            cgroups.apply(path, values).map_err(|e| local("FailedKillPod", e))
        };
        self.lanes.run(uid, work).await.map(|()| Finished::default())
    }
}

/// What a job made, if it did nothing else and all of it was done.
fn made(results: &[WorkResult]) -> Option<(&PodIdentity, Made<'_>)> {
    let (mut of, mut made) = (None, Made::default());
    for r in results {
        let WorkResult::Done(work, finished) = r else { return None };
        match work {
            Work::SetUp(_) => {}
            Work::CreateSandbox(s) => (of, made.sandbox) = (Some(&s.pod), Some(&*finished.id)),
            Work::Start(s) => {
                of = Some(&s.sandbox.pod);
                made.containers.push((&finished.id, &s.sandbox_id));
            }
            _ => return None,
        }
    }
    Some((of?, made))
}

fn plain(r: Result<(), Error>, reason: &'static str) -> Result<Finished, Failure> {
    r.map(|()| Finished::default()).map_err(|e| cri(reason, &e))
}

fn named(r: Result<String, Error>, reason: &'static str) -> Result<Finished, Failure> {
    r.map(|id| Finished { id: id.into(), ..Finished::default() }).map_err(|e| cri(reason, &e))
}

fn cri(reason: &'static str, e: &Error) -> Failure {
    let kind = match e.kind {
        Kind::Unavailable | Kind::Timeout => FailureKind::Unknown,
        Kind::Invalid | Kind::Unimplemented => FailureKind::Invalid,
        _ => FailureKind::Retry,
    };
    Failure { reason, message: e.rpc_text(), kind }
}

fn local(reason: &'static str, e: impl std::fmt::Display) -> Failure {
    Failure { reason, message: e.to_string(), kind: FailureKind::Retry }
}
