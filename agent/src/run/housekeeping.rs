//! Removes what pods left that nobody knows any more, and keeps the groups above pods as they should be.
//!
//! Runs every few seconds, once all sources have spoken and the runtime was listed. What is to go is decided
//! by [`leftovers`]; the node and the runtime are both asked first, and the node once more when the pod's
//! turn has come, so that a pod that comes back meanwhile keeps what is its own. Must never cross a mount
//! that is not ours.

use super::cgroup_fs::CgroupFs;
use super::event_loop::Question;
use super::lanes::Lanes;
use super::volumes;
use crate::cgroup::values::qos_values;
use crate::cgroup::{CgroupPath, CgroupValues};
use crate::node::NodeState;
use crate::plan::Life;
use crate::pod::{PodUid, QosClass};
use crate::work::leftovers::{Leftovers, leftovers};
use longshore_cri::client::Client;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether the first round may begin.
const GLANCE: Duration = Duration::from_millis(200);

pub struct Housekeeping {
    pub ask: mpsc::Sender<Question>,
    pub client: Client,
    pub cgroups: Arc<CgroupFs>,
    pub lanes: Lanes,
    /// Where pods' directories, their logs and the links to these are.
    pub pods: PathBuf,
    pub pod_logs: PathBuf,
    pub container_logs: PathBuf,
}

impl Housekeeping {
    /// Runs for ever.
    pub async fn run(self) {
        while self.question(|n| n.sources_ready && n.listed && n.runtime_error.is_none()).await != Some(true) {
            tokio::time::sleep(GLANCE).await;
        }
        let mut told = BTreeSet::new();
        let mut dangling = BTreeSet::new();
        loop {
            self.groups().await;
            let failures = self.round().await;
            for text in &failures {
                if !told.contains(text) {
                    tracing::warn!("{text}");
                }
            }
            told = failures;
            dangling = self.links(dangling).await;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// None while the daemon ends.
    async fn question<T: 'static>(&self, question: impl FnOnce(&NodeState) -> T + 'static) -> Option<T> {
        let (to, from) = tokio::sync::oneshot::channel();
        let asked: Question = Box::new(move |n, _| drop(to.send(question(n))));
        self.ask.send(asked).await.ok()?;
        from.await.ok()
    }

    /// Shares of the QoS classes, as the kubelet refreshes them: jobs of pods write them too, each with what
    /// was true when it was planned.
    async fn groups(&self) {
        let Some(values) = self.question(qos).await else { return };
        let cgroups = self.cgroups.clone();
        let work = move || values.iter().try_for_each(|(path, v)| cgroups.apply(path, v));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(%error, "the groups of the QoS classes could not be brought up to date");
        }
    }

    /// One look at everything; what could not be removed, as text.
    async fn round(&self) -> BTreeSet<String> {
        let (cgroups, pods, logs) = (self.cgroups.clone(), self.pods.clone(), self.pod_logs.clone());
        let found = tokio::task::spawn_blocking(move || listing(&cgroups, &pods, &logs)).await;
        let (Ok(found), Some(mut known)) = (found, self.question(known).await) else { return BTreeSet::new() };
        if leftovers(&found, &known).is_empty() {
            return BTreeSet::new();
        }
        // The runtime is asked only when there is something to ask about.
        let Ok(listed) = self.client.list_all(&[]).await else { return BTreeSet::new() };
        known.extend(listed.pods.iter().map(|p| PodUid(p.uid.clone())));
        known.extend(listed.unread.into_iter().map(|(uid, _)| PodUid(uid)));
        let remove = leftovers(&found, &known);
        let mut failures = BTreeSet::new();
        for uid in remove.owners() {
            failures.extend(self.remove(uid.clone(), remove.of(&uid)).await.err());
        }
        failures
    }

    async fn remove(&self, uid: PodUid, what: Leftovers) -> Result<(), String> {
        let turn = self.lanes.turn(&uid).await;
        let asked = uid.clone();
        if self.question(move |n| known(n).contains(&asked)).await != Some(false) {
            return Ok(());
        }
        let (cgroups, pods, logs) = (self.cgroups.clone(), self.pods.clone(), self.pod_logs.clone());
        let removed = turn.run(move || {
            for (class, uid) in &what.groups {
                cgroups.remove(&cgroups.layout().pod(*class, uid)).map_err(|e| e.to_string())?;
            }
            for uid in &what.pods {
                volumes::remove_pod_dir(&pods.join(uid.as_str())).map_err(|e| e.to_string())?;
            }
            for name in &what.logs {
                let path = logs.join(name);
                volumes::dir::remove_tree(&path.to_string_lossy()).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            Ok(())
        });
        removed.await.inspect(|()| tracing::info!(%uid, "removed what a pod left that nobody knows"))
    }

    /// Removes links to logs that lead nowhere now and did in the last round; the former are returned.
    async fn links(&self, before: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let (directory, logs) = (self.container_logs.clone(), self.pod_logs.clone());
        let work = move || {
            let mut now = dangling(&directory, &logs);
            now.retain(|link| !before.contains(link) || std::fs::remove_file(link).is_err());
            now
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }
}

/// Links into the pods' logs whose log is gone.
fn dangling(directory: &Path, logs: &Path) -> BTreeSet<PathBuf> {
    let links = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
    links.filter(|l| std::fs::read_link(l).is_ok_and(|target| target.starts_with(logs) && !target.exists())).collect()
}

fn known(n: &NodeState) -> BTreeSet<PodUid> {
    n.pods.keys().cloned().chain(n.queued.values().map(|p| p.uid())).collect()
}

fn qos(n: &NodeState) -> Vec<(CgroupPath, CgroupValues)> {
    let active = || n.pods.values().filter(|e| matches!(e.desired.life, Life::Running) && !e.is_over()).map(|e| &*e.desired.pod);
    [QosClass::Burstable, QosClass::BestEffort].map(|class| (n.config.cgroups.qos(class), qos_values(class, active()))).into()
}

fn listing(cgroups: &CgroupFs, pods: &Path, logs: &Path) -> Leftovers {
    let names = |directory: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).filter_map(|e| e.file_name().into_string().ok()).collect()
    };
    Leftovers {
        pods: names(pods).iter().map(|n| PodUid::new(n)).collect(),
        logs: names(logs).into_iter().collect(),
        groups: cgroups.pods(),
    }
}
