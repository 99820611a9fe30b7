//! What the model shows of itself: lists, statuses, and whole pods.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use super::containers::{Container, Sandbox};
use super::model::{Model, Refusal};
use super::script::Behaviour;
use crate::snapshot::{self, Listing, ObservedPod};
use crate::v1;

impl Model {
    pub fn list_sandboxes(&self, filter: Option<&v1::PodSandboxFilter>) -> Vec<v1::PodSandbox> {
        let wanted = |id: &str, s: &Sandbox| {
            filter.is_none_or(|f| {
                (f.id.is_empty() || f.id == id)
                    && f.state.as_ref().is_none_or(|v| v.state() == sandbox_state(s))
                    && selects(&f.label_selector, &s.config.labels)
            })
        };
        let found = self.sandboxes.iter().filter(|(id, s)| wanted(id, s));
        found
            .map(|(id, s)| v1::PodSandbox {
                id: id.clone(),
                metadata: s.config.metadata.clone(),
                state: sandbox_state(s) as i32,
                created_at: s.created_at,
                labels: s.config.labels.clone(),
                annotations: s.config.annotations.clone(),
                runtime_handler: s.handler.clone(),
            })
            .collect()
    }

    pub fn list_containers(&self, filter: Option<&v1::ContainerFilter>) -> Vec<v1::Container> {
        let wanted = |id: &str, c: &Container| {
            filter.is_none_or(|f| {
                (f.id.is_empty() || f.id == id)
                    && (f.pod_sandbox_id.is_empty() || f.pod_sandbox_id == c.sandbox_id)
                    && f.state.as_ref().is_none_or(|v| v.state() == c.state)
                    && selects(&f.label_selector, &c.config.labels)
            })
        };
        let found = self.containers.iter().filter(|(id, c)| wanted(id, c));
        found
            .map(|(id, c)| v1::Container {
                id: id.clone(),
                pod_sandbox_id: c.sandbox_id.clone(),
                metadata: c.config.metadata.clone(),
                image: c.config.image.clone(),
                image_ref: c.image_ref.clone(),
                state: c.state as i32,
                created_at: c.created_at,
                labels: c.config.labels.clone(),
                annotations: c.config.annotations.clone(),
                image_id: c.image_ref.clone(),
            })
            .collect()
    }

    pub fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatusResponse, Refusal> {
        let s = self.sandbox(id)?;
        let linux = s.config.linux.clone().unwrap_or_default();
        let cgroup = serde_json::json!({"config": {"linux": {"cgroup_parent": linux.cgroup_parent}}});
        Ok(v1::PodSandboxStatusResponse {
            status: Some(v1::PodSandboxStatus {
                id: id.into(),
                metadata: s.config.metadata.clone(),
                state: sandbox_state(s) as i32,
                created_at: s.created_at,
                network: Some(v1::PodSandboxNetworkStatus { ip: s.ip.clone(), additional_ips: Vec::new() }),
                linux: Some(v1::LinuxPodSandboxStatus {
                    namespaces: Some(v1::Namespace { options: linux.security_context.and_then(|c| c.namespace_options) }),
                }),
                labels: s.config.labels.clone(),
                annotations: s.config.annotations.clone(),
                runtime_handler: s.handler.clone(),
            }),
            info: BTreeMap::from([("info".into(), cgroup.to_string())]),
            ..Default::default()
        })
    }

    pub fn container_status(&self, id: &str) -> Result<v1::ContainerStatusResponse, Refusal> {
        let c = self.container(id)?;
        let mut image = c.config.image.clone().unwrap_or_default();
        // The name, not the id it was created from.
        if let Some(name) = self.image(&c.image_ref).and_then(|i| i.repo_tags.into_iter().next()) {
            image.image = name;
        }
        Ok(v1::ContainerStatusResponse {
            status: Some(v1::ContainerStatus {
                id: id.into(),
                metadata: c.config.metadata.clone(),
                state: c.state as i32,
                created_at: c.created_at,
                started_at: c.started_at,
                finished_at: c.finished_at,
                exit_code: c.exit_code,
                image: Some(image),
                image_ref: c.image_ref.clone(),
                reason: c.reason.clone(),
                message: c.message.clone(),
                labels: c.config.labels.clone(),
                annotations: c.config.annotations.clone(),
                mounts: c.config.mounts.clone(),
                log_path: c.log_path.clone(),
                resources: Some(v1::ContainerResources { linux: Some(c.resources.clone()), windows: None }),
                image_id: c.image_ref.clone(),
                user: None,
                stop_signal: c.config.stop_signal,
            }),
            info: c.pid.map(|pid| ("info".into(), serde_json::json!({"pid": pid}).to_string())).into_iter().collect(),
        })
    }

    /// Usage of a running container, at `now`.
    pub fn container_stats(&self, now: i64, id: &str) -> Result<v1::ContainerStats, Refusal> {
        let c = self.container(id)?;
        if c.state != v1::ContainerState::ContainerRunning {
            return Err(Refusal::not_found(format!("failed to get task stats: task {id} not found: not found")));
        }
        let usage = self.usage.get(id).copied().unwrap_or_default();
        let of = |value| Some(v1::UInt64Value { value });
        Ok(v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: id.into(),
                metadata: c.config.metadata.clone(),
                labels: c.config.labels.clone(),
                annotations: c.config.annotations.clone(),
            }),
            cpu: Some(v1::CpuUsage { timestamp: now, usage_core_nano_seconds: of(usage.cpu_nanoseconds), ..Default::default() }),
            memory: Some(v1::MemoryUsage { timestamp: now, working_set_bytes: of(usage.working_set_bytes), ..Default::default() }),
            writable_layer: Some(v1::FilesystemUsage {
                timestamp: now,
                fs_id: Some(v1::FilesystemIdentifier { mountpoint: "/".into() }),
                used_bytes: of(usage.disk_bytes),
                inodes_used: of(1),
            }),
            ..Default::default()
        })
    }

    /// Usage of every running container, at `now`.
    pub fn all_container_stats(&self, now: i64) -> Vec<v1::ContainerStats> {
        self.containers.keys().filter_map(|id| self.container_stats(now, id).ok()).collect()
    }

    /// Every pod, as the client would read it at this instant.
    pub fn observe_all(&self) -> Vec<ObservedPod> {
        let listing = Listing::new(self.list_sandboxes(None), self.list_containers(None));
        let pods = listing.pods.values().map(|listed| {
            let status = |id: &str| self.sandbox_status(id).expect("it was just listed");
            let sandboxes = listed.sandboxes.iter().filter_map(|s| snapshot::sandbox(status(&s.id)));
            let containers = listed.containers.iter().filter_map(|c| {
                let status = self.container_status(&c.id).expect("it was just listed");
                snapshot::container(status, &c.pod_sandbox_id)
            });
            let sandboxes = sandboxes.map(|(_, s)| s).collect();
            listed.assemble(None, sandboxes, containers.map(|(_, c)| c).collect())
        });
        pods.collect()
    }

    /// One pod, as the client would read it at this instant.
    pub fn observe(&self, pod_uid: &str) -> Option<ObservedPod> {
        self.observe_all().into_iter().find(|p| &*p.uid == pod_uid)
    }

    /// How often the log of a container was reopened.
    pub fn reopened_logs(&self, id: &str) -> u32 {
        self.containers.get(id).map_or(0, |c| c.reopened_logs)
    }

    pub(super) fn behaviour(&self, id: &str) -> Option<&Behaviour> {
        self.containers.get(id).map(|c| &c.behaviour)
    }

    /// The configuration a container was created with.
    pub fn container_config(&self, id: &str) -> Option<&v1::ContainerConfig> {
        self.containers.get(id).map(|c| &c.config)
    }

    /// The configuration a sandbox was created with.
    pub fn sandbox_config(&self, id: &str) -> Option<&v1::PodSandboxConfig> {
        self.sandboxes.get(id).map(|s| &s.config)
    }
}

fn sandbox_state(s: &Sandbox) -> v1::PodSandboxState {
    if s.ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}
