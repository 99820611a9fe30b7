//! Carries out one job for one pod. Looks nothing up and decides nothing: every piece of work carries
//! what it needs, and every failure goes back classified.

use super::cgroup_fs::CgroupFs;
use super::lanes::Lanes;
use super::observe::Observer;
use super::{clock, hooks, volumes};
use crate::node::effect::Job;
use crate::node::event::Event;
use crate::pod::PodUid;
use crate::volume::VolumeWork;
use crate::work::{Failure, FailureKind, Finished, Kill, LogLink, SetUp, Start, TearDown, Work, WorkResult};
use longshore_cri::client::Client;
use longshore_cri::error::{Error, Kind};
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
        let observation = if touches { self.observer.one(&job.uid).await.ok().map(Box::new) } else { None };
        Event::Done { uid: job.uid, job: job.id, results, observation }
    }

    async fn one(&self, uid: &PodUid, w: Work) -> WorkResult {
        let result = match &w {
            Work::SetUp(s) => self.set_up(uid, s).await,
            Work::CreateSandbox(s) => made(self.client.run_sandbox(s).await, "FailedCreatePodSandBox"),
            Work::StopSandbox { id } => plain(self.client.stop_sandbox(id).await, "FailedKillPod"),
            Work::RemoveSandbox { id } => plain(self.client.remove_sandbox(id).await, "FailedKillPod"),
            Work::Start(s) => self.start(uid, s).await,
            Work::Resume { id, links, post_start, .. } => self.resume(id, links, post_start.as_ref()).await,
            Work::Kill(k) => self.kill(k).await,
            Work::RemoveContainer { id, log_path, .. } => self.remove(uid, id, log_path).await,
            Work::RecordOutcome { uid, status } => {
                self.state.write_outcome(uid, status).map(|()| Finished::default()).map_err(|e| local("FailedSync", e))
            }
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

    /// Rewrites configuration volumes of a running pod.
    pub async fn refresh(&self, uid: &PodUid, list: Vec<VolumeWork>) {
        self.lanes.run(uid, move || volumes::refresh(&list)).await;
    }

    async fn start(&self, uid: &PodUid, s: &Start) -> Result<Finished, Failure> {
        let files = s.clone();
        self.lanes.run(uid, move || volumes::prepare(&files)).await.map_err(|e| local("CreateContainerConfigError", e))?;
        let id = self.client.create(&s.sandbox_id, &s.spec, &s.sandbox).await.map_err(|e| cri("CreateContainerError", &e))?;
        self.run_created(&id, &s.links, s.post_start.as_ref()).await
    }

    async fn resume(&self, id: &str, links: &LogLink, hook: Option<&crate::work::hooks::Hook>) -> Result<Finished, Failure> {
        self.run_created(id, links, hook).await
    }

    async fn run_created(&self, id: &str, links: &LogLink, hook: Option<&crate::work::hooks::Hook>) -> Result<Finished, Failure> {
        self.client.start(id).await.map_err(|e| cri("RunContainerError", &e))?;
        if let Err(error) = volumes::link_log(links, id) {
            tracing::warn!(%error, "the log's link could not be made");
        }
        if let Some(hook) = hook
            && let Err(message) = hooks::run(&self.client, id, hook).await
        {
            // A container whose postStart failed is killed; its restart follows the policy.
            let _ = self.client.stop(id, i64::from(LEAST_GRACE)).await;
            return Err(Failure { reason: "PostStartHookError", message, kind: FailureKind::Retry });
        }
        Ok(Finished { id: id.into(), hook_failed: false })
    }

    /// The hook and the stop share one grace; the hook is left alone when it is spent.
    async fn kill(&self, k: &Kill) -> Result<Finished, Failure> {
        let began = clock::mono();
        let mut hook_failed = false;
        if let Some(hook) = &k.pre_stop {
            let limit = Duration::from_secs(u64::from(k.grace));
            hook_failed = match tokio::time::timeout(limit, hooks::run(&self.client, &k.id, hook)).await {
                Ok(Ok(())) => false,
                Ok(Err(error)) => {
                    tracing::warn!(container = %k.name, %error, "preStop hook failed");
                    true
                }
                Err(_) => true,
            };
        }
        let spent = u32::try_from((clock::mono() - began).as_secs()).unwrap_or(u32::MAX);
        let grace = k.grace.saturating_sub(spent).max(LEAST_GRACE);
        match self.client.stop(&k.id, i64::from(grace)).await {
            Ok(()) => Ok(Finished { id: k.id.clone(), hook_failed }),
            Err(e) => Err(cri("FailedKillPod", &e)),
        }
    }

    async fn remove(&self, uid: &PodUid, id: &str, log_path: &str) -> Result<Finished, Failure> {
        let removed = plain(self.client.remove(id).await, "FailedKillPod")?;
        let path = log_path.to_owned();
        self.lanes.run(uid, move || volumes::remove_log(&path)).await;
        Ok(removed)
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

fn plain(r: Result<(), Error>, reason: &'static str) -> Result<Finished, Failure> {
    r.map(|()| Finished::default()).map_err(|e| cri(reason, &e))
}

fn made(r: Result<String, Error>, reason: &'static str) -> Result<Finished, Failure> {
    r.map(|id| Finished { id: id.into(), hook_failed: false }).map_err(|e| cri(reason, &e))
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
