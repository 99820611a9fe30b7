//! From messages to pictures: lists grouped by pod, statuses read in full.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{ContainerState, Exit, ObservedContainer, ObservedMount, ObservedPod, ObservedSandbox, User};
use crate::labels::{CONTAINER_NAME, ContainerFacts, LONGSHORE_PREFIX, PodIdentity};
use crate::resources::Resources;
use crate::v1;

/// The two lists, grouped by pod. Objects without a kubelet's labels are left out: they are not
/// ours to touch.
#[derive(Debug, Default)]
pub struct Listing {
    pub pods: BTreeMap<Arc<str>, ListedPod>,
}

#[derive(Debug)]
pub struct ListedPod {
    pub identity: PodIdentity,
    pub sandboxes: Vec<v1::PodSandbox>,
    pub containers: Vec<v1::Container>,
}

/// What must still be asked about one pod, given an older picture of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub sandboxes: Vec<String>,
    /// Id, and whether a first process may be there to ask for.
    pub containers: Vec<(String, bool)>,
}

impl Listing {
    pub fn new(sandboxes: Vec<v1::PodSandbox>, containers: Vec<v1::Container>) -> Self {
        let mut listing = Listing::default();
        for s in sandboxes {
            if let Some(id) = PodIdentity::read(&s.labels) {
                listing.pod(id).sandboxes.push(s);
            }
        }
        for c in containers {
            if !c.labels.contains_key(CONTAINER_NAME) {
                continue;
            }
            if let Some(id) = PodIdentity::read(&c.labels) {
                listing.pod(id).containers.push(c);
            }
        }
        listing
    }

    fn pod(&mut self, identity: PodIdentity) -> &mut ListedPod {
        self.pods.entry(identity.uid.clone()).or_insert_with(|| ListedPod { identity, sandboxes: Vec::new(), containers: Vec::new() })
    }
}

impl ListedPod {
    /// Compares ids and states with an older picture. What never changes is not asked again: an
    /// exited container, a sandbox in the same state.
    pub fn changes(&self, previous: Option<&ObservedPod>) -> Changes {
        let mut changes = Changes::default();
        for s in &self.sandboxes {
            let same = previous.is_some_and(|p| known_sandbox(p, s).is_some());
            if !same {
                changes.sandboxes.push(s.id.clone());
            }
        }
        for c in &self.containers {
            let same = previous.is_some_and(|p| known_container(p, c).is_some());
            if !same {
                let alive = c.state() != v1::ContainerState::ContainerExited;
                changes.containers.push((c.id.clone(), alive));
            }
        }
        changes
    }

    /// Nothing was added, removed or changed since `previous` was taken.
    pub fn matches(&self, previous: &ObservedPod) -> bool {
        self.sandboxes.len() == previous.sandboxes.len()
            && self.containers.len() == previous.containers.len()
            && self.changes(Some(previous)) == Changes::default()
    }

    /// Puts the picture together from fresh answers and, for the rest, the older picture. Objects
    /// with neither vanished while we looked and are left out.
    pub fn assemble(
        &self,
        previous: Option<&ObservedPod>,
        sandboxes: Vec<ObservedSandbox>,
        containers: Vec<ObservedContainer>,
    ) -> ObservedPod {
        let mut all_sandboxes: Vec<_> = sandboxes.into_iter().map(Arc::new).collect();
        let mut all_containers: Vec<_> = containers.into_iter().map(Arc::new).collect();
        if let Some(p) = previous {
            for s in &self.sandboxes {
                if !all_sandboxes.iter().any(|f| *f.id == *s.id) {
                    all_sandboxes.extend(known_sandbox(p, s).cloned());
                }
            }
            for c in &self.containers {
                if !all_containers.iter().any(|f| *f.id == *c.id) {
                    all_containers.extend(known_container(p, c).cloned());
                }
            }
        }
        let mut pod = ObservedPod {
            uid: self.identity.uid.clone(),
            namespace: self.identity.namespace.clone(),
            name: self.identity.name.clone(),
            sandboxes: all_sandboxes,
            containers: all_containers,
        };
        pod.sort();
        pod
    }

    /// The sandbox of a listed container; statuses do not say.
    pub fn sandbox_of(&self, container_id: &str) -> &str {
        self.containers.iter().find(|c| c.id == container_id).map_or("", |c| c.pod_sandbox_id.as_str())
    }
}

impl ObservedPod {
    pub(crate) fn sort(&mut self) {
        self.sandboxes.sort_by(|a, b| (b.attempt, b.created_at, &b.id).cmp(&(a.attempt, a.created_at, &a.id)));
        self.containers.sort_by(|a, b| {
            let newest = |c: &ObservedContainer| Reverse((c.attempt, c.created_at));
            (&a.name, newest(a), Reverse(&a.id)).cmp(&(&b.name, newest(b), Reverse(&b.id)))
        });
    }
}

/// The older picture of a listed sandbox, if it still tells the truth.
fn known_sandbox<'a>(p: &'a ObservedPod, s: &v1::PodSandbox) -> Option<&'a Arc<ObservedSandbox>> {
    let ready = s.state() == v1::PodSandboxState::SandboxReady;
    p.sandboxes.iter().find(|o| {
        // A ready sandbox without an address may be given one yet.
        *o.id == *s.id && o.ready == ready && (!ready || o.host_network || !o.ips.is_empty())
    })
}

/// The older picture of a listed container, if it still tells the truth.
fn known_container<'a>(p: &'a ObservedPod, c: &v1::Container) -> Option<&'a Arc<ObservedContainer>> {
    p.containers.iter().find(|o| {
        *o.id == *c.id
            && matches!(
                (&o.state, c.state()),
                (ContainerState::Created, v1::ContainerState::ContainerCreated)
                    | (ContainerState::Running { .. }, v1::ContainerState::ContainerRunning)
                    | (ContainerState::Exited(_), v1::ContainerState::ContainerExited)
            )
    })
}

/// What the verbose answers of containerd and CRI-O have in common and we need.
#[derive(Deserialize, Default)]
struct VerboseInfo {
    #[serde(default)]
    pid: i64,
    #[serde(default)]
    config: Option<VerboseConfig>,
}

#[derive(Deserialize)]
struct VerboseConfig {
    #[serde(default)]
    linux: Option<VerboseLinux>,
}

#[derive(Deserialize)]
struct VerboseLinux {
    #[serde(default)]
    cgroup_parent: String,
}

impl VerboseInfo {
    /// A runtime's verbose text is nobody's interface: what does not parse tells nothing.
    fn parse(info: &BTreeMap<String, String>) -> Self {
        info.get("info").and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
    }

    fn pid(&self) -> Option<i32> {
        i32::try_from(self.pid).ok().filter(|pid| *pid > 0)
    }
}

/// Reads a sandbox's status. `None` without a kubelet's labels.
pub fn sandbox(response: v1::PodSandboxStatusResponse) -> Option<(PodIdentity, ObservedSandbox)> {
    let status = response.status?;
    let identity = PodIdentity::read(&status.labels)?;
    let info = VerboseInfo::parse(&response.info);
    let options = status.linux.and_then(|l| l.namespaces).and_then(|n| n.options);
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip.as_str())
        .chain(network.additional_ips.iter().map(|a| a.ip.as_str()))
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let observed = ObservedSandbox {
        id: status.id.into(),
        attempt: status.metadata.map_or(0, |m| m.attempt),
        created_at: status.created_at,
        ready: status.state == v1::PodSandboxState::SandboxReady as i32,
        ips,
        host_network: options.is_some_and(|o| o.network() == v1::NamespaceMode::Node),
        runtime_handler: status.runtime_handler.into(),
        pid: info.pid(),
        cgroup_parent: info.config.and_then(|c| c.linux).map(|l| l.cgroup_parent.into_boxed_str()).filter(|p| !p.is_empty()),
        annotations: status
            .annotations
            .into_iter()
            .filter(|(k, _)| k.starts_with("kubernetes.io/config.") || k.starts_with(LONGSHORE_PREFIX))
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
    };
    Some((identity, observed))
}

/// Reads a container's status. `None` without a kubelet's labels.
pub fn container(response: v1::ContainerStatusResponse, sandbox_id: &str) -> Option<(PodIdentity, ObservedContainer)> {
    let status = response.status?;
    let identity = PodIdentity::read(&status.labels)?;
    let name = status.labels.get(CONTAINER_NAME)?.as_str().into();
    let state = container_state(&status);
    let pid = match state {
        ContainerState::Running { .. } => VerboseInfo::parse(&response.info).pid(),
        _ => None,
    };
    let image = status.image.unwrap_or_default();
    let stop_signal = v1::Signal::try_from(status.stop_signal).ok();
    let observed = ObservedContainer {
        id: status.id.into(),
        sandbox_id: sandbox_id.into(),
        name,
        attempt: status.metadata.map_or(0, |m| m.attempt),
        state,
        created_at: status.created_at,
        image: image.image.into(),
        user_specified_image: image.user_specified_image.into(),
        image_ref: status.image_ref.into(),
        image_id: status.image_id.into(),
        log_path: status.log_path.into(),
        facts: ContainerFacts::read(&status.annotations),
        pid,
        user: status.user.and_then(|u| u.linux).map(|u| User { uid: u.uid, gid: u.gid, supplemental_groups: u.supplemental_groups.into() }),
        mounts: status.mounts.into_iter().map(mount).collect(),
        resources: status.resources.and_then(|r| r.linux).map(|r| Box::new(Resources::from_cri(&r))),
        stop_signal: stop_signal.filter(|s| *s != v1::Signal::RuntimeDefault).map(|s| s.as_str_name().trim_start_matches("SIGNAL_").into()),
    };
    Some((identity, observed))
}

fn container_state(status: &v1::ContainerStatus) -> ContainerState {
    match status.state() {
        v1::ContainerState::ContainerCreated => ContainerState::Created,
        v1::ContainerState::ContainerRunning => ContainerState::Running { started_at: status.started_at },
        v1::ContainerState::ContainerExited => ContainerState::Exited(Box::new(Exit {
            exit_code: status.exit_code,
            reason: status.reason.as_str().into(),
            message: status.message.as_str().into(),
            started_at: status.started_at,
            finished_at: status.finished_at,
        })),
        v1::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

fn mount(m: v1::Mount) -> ObservedMount {
    ObservedMount {
        container_path: m.container_path.into(),
        host_path: m.host_path.into(),
        readonly: m.readonly,
        recursive_readonly: m.recursive_read_only,
    }
}
