//! The calls of the interface, each handed to the model.

use std::io::Write;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tonic::{Code, Request, Response, Status};

use super::model::{Model, ModelEvent};
use super::server::{Shared, wall_clock};
use crate::error::Verb;
use crate::v1;
use v1::image_service_server::ImageService;
use v1::runtime_service_server::RuntimeService;

#[derive(Clone)]
pub(super) struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Service { shared }
    }
}

type Events = tonic::codegen::BoxStream<v1::ContainerEventResponse>;
type Answer<T> = Result<Response<T>, Status>;

/// A call that the model answers at once: verb, what it is about, and what it answers.
macro_rules! answer {
    ($self:ident, $verb:ident, $object:expr, |$m:ident, $now:ident| $act:expr) => {
        $self.shared.answer(Verb::$verb, $object, |$m, $now| $act).await.map(Response::new)
    };
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        answer!(self, Version, "", |_m, _now| Ok(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.0.0".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let condition = |kind: &str, status| v1::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: if status { String::new() } else { "NetworkPluginNotReady".into() },
            message: if status { String::new() } else { "cni plugin not initialized".into() },
        };
        answer!(self, Status, "", |m, _now| Ok(v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", m.network_ready),],
            }),
            runtime_handlers: std::iter::once("")
                .chain(m.handlers.iter().map(String::as_str))
                .map(|name| v1::RuntimeHandler { name: name.into(), features: None })
                .collect(),
            ..Default::default()
        }))
    }

    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Answer<v1::RuntimeConfigResponse> {
        let driver = self.shared.options.cgroup_driver;
        let driver = self.shared.answer(Verb::RuntimeConfig, "", |_, _| Ok(driver)).await?;
        let driver = driver.ok_or_else(|| unknown_method("RuntimeConfig"))?;
        Ok(Response::new(v1::RuntimeConfigResponse { linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: driver as i32 }) }))
    }

    async fn update_runtime_config(&self, r: Request<v1::UpdateRuntimeConfigRequest>) -> Answer<v1::UpdateRuntimeConfigResponse> {
        let network = r.into_inner().runtime_config.and_then(|c| c.network_config);
        let cidr = network.map(|n| n.pod_cidr).unwrap_or_default();
        answer!(self, UpdateRuntimeConfig, &cidr, |_m, _now| Ok(Default::default()))
    }

    async fn run_pod_sandbox(&self, r: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        let r = r.into_inner();
        let config = r.config.unwrap_or_default();
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        answer!(self, RunPodSandbox, &name, |m, now| m
            .run_sandbox(now, config, &r.runtime_handler)
            .map(|pod_sandbox_id| v1::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(&self, r: Request<v1::StopPodSandboxRequest>) -> Answer<v1::StopPodSandboxResponse> {
        let id = r.into_inner().pod_sandbox_id;
        answer!(self, StopPodSandbox, &id, |m, now| m.stop_sandbox(now, &id).map(|()| Default::default()))
    }

    async fn remove_pod_sandbox(&self, r: Request<v1::RemovePodSandboxRequest>) -> Answer<v1::RemovePodSandboxResponse> {
        let id = r.into_inner().pod_sandbox_id;
        answer!(self, RemovePodSandbox, &id, |m, now| m.remove_sandbox(now, &id).map(|()| Default::default()))
    }

    async fn pod_sandbox_status(&self, r: Request<v1::PodSandboxStatusRequest>) -> Answer<v1::PodSandboxStatusResponse> {
        let r = r.into_inner();
        answer!(self, PodSandboxStatus, &r.pod_sandbox_id, |m, _now| m.sandbox_status(&r.pod_sandbox_id).map(|mut a| {
            if !r.verbose {
                a.info.clear();
            }
            a
        }))
    }

    async fn list_pod_sandbox(&self, r: Request<v1::ListPodSandboxRequest>) -> Answer<v1::ListPodSandboxResponse> {
        let filter = r.into_inner().filter;
        answer!(self, ListPodSandbox, "", |m, _now| Ok(v1::ListPodSandboxResponse { items: m.list_sandboxes(filter.as_ref()) }))
    }

    async fn create_container(&self, r: Request<v1::CreateContainerRequest>) -> Answer<v1::CreateContainerResponse> {
        let r = r.into_inner();
        let config = r.config.unwrap_or_default();
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        answer!(self, CreateContainer, &name, |m, now| m
            .create(now, &r.pod_sandbox_id, config)
            .map(|container_id| v1::CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, r: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        let id = r.into_inner().container_id;
        answer!(self, StartContainer, &id, |m, now| m.start(now, &id).map(|()| Default::default()))
    }

    async fn stop_container(&self, r: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let r = r.into_inner();
        let grace_ms = r.timeout.saturating_mul(1000);
        let id = r.container_id;
        let until = self.shared.answer(Verb::StopContainer, &id, |m, now| m.stop(now, &id, grace_ms)).await?;
        if until > wall_clock() {
            self.shared.sleep_until(until).await;
        }
        Ok(Response::new(Default::default()))
    }

    async fn remove_container(&self, r: Request<v1::RemoveContainerRequest>) -> Answer<v1::RemoveContainerResponse> {
        let id = r.into_inner().container_id;
        answer!(self, RemoveContainer, &id, |m, now| m.remove(now, &id).map(|()| Default::default()))
    }

    async fn list_containers(&self, r: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        let filter = r.into_inner().filter;
        answer!(self, ListContainers, "", |m, _now| Ok(v1::ListContainersResponse { containers: m.list_containers(filter.as_ref()) }))
    }

    async fn container_status(&self, r: Request<v1::ContainerStatusRequest>) -> Answer<v1::ContainerStatusResponse> {
        let (id, verbose) = (r.get_ref().container_id.clone(), r.get_ref().verbose);
        answer!(self, ContainerStatus, &id, |m, _now| m.container_status(&id).map(|mut a| {
            if !verbose {
                a.info.clear();
            }
            a
        }))
    }

    async fn update_container_resources(
        &self,
        r: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let r = r.into_inner();
        let to = r.linux.unwrap_or_default();
        answer!(self, UpdateContainerResources, &r.container_id, |m, now| m
            .update_resources(now, &r.container_id, &to)
            .map(|()| Default::default()))
    }

    async fn reopen_container_log(&self, r: Request<v1::ReopenContainerLogRequest>) -> Answer<v1::ReopenContainerLogResponse> {
        let id = r.into_inner().container_id;
        answer!(self, ReopenContainerLog, &id, |m, now| m.reopen_log(now, &id).map(|()| Default::default()))
    }

    async fn exec_sync(&self, r: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let r = r.into_inner();
        let id = &r.container_id;
        let script = self.shared.answer(Verb::ExecSync, id, |m, now| m.exec(now, id, &r.cmd)).await?;
        let limit_ms = r.timeout.saturating_mul(1000);
        if r.timeout > 0 && script.takes_ms > limit_ms {
            self.shared.sleep_until(wall_clock() + limit_ms * 1_000_000).await;
            return Err(Status::deadline_exceeded(format!(
                "failed to exec in container: timeout {}s exceeded: context deadline exceeded",
                r.timeout
            )));
        }
        if script.takes_ms > 0 {
            self.shared.sleep_until(wall_clock() + script.takes_ms * 1_000_000).await;
        }
        Ok(Response::new(v1::ExecSyncResponse { stdout: script.stdout, stderr: script.stderr, exit_code: script.exit_code }))
    }

    async fn exec(&self, r: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        let r = r.into_inner();
        answer!(self, Exec, &r.container_id, |m, now| m
            .exec(now, &r.container_id, &r.cmd)
            .map(|_| v1::ExecResponse { url: stream_url("exec", &r.container_id) }))
    }

    async fn attach(&self, r: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        let id = r.into_inner().container_id;
        answer!(self, Attach, &id, |m, now| m.exec(now, &id, &[]).map(|_| v1::AttachResponse { url: stream_url("attach", &id) }))
    }

    async fn port_forward(&self, r: Request<v1::PortForwardRequest>) -> Answer<v1::PortForwardResponse> {
        let id = r.into_inner().pod_sandbox_id;
        answer!(self, PortForward, &id, |m, _now| m
            .sandbox_status(&id)
            .map(|_| v1::PortForwardResponse { url: stream_url("portforward", &id) }))
    }

    async fn container_stats(&self, r: Request<v1::ContainerStatsRequest>) -> Answer<v1::ContainerStatsResponse> {
        let id = r.into_inner().container_id;
        answer!(self, ContainerStats, &id, |m, now| m
            .container_stats(now, &id)
            .map(|stats| v1::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(&self, _: Request<v1::ListContainerStatsRequest>) -> Answer<v1::ListContainerStatsResponse> {
        answer!(self, ListContainerStats, "", |m, now| Ok(v1::ListContainerStatsResponse { stats: m.all_container_stats(now) }))
    }

    async fn get_container_events(&self, _: Request<v1::GetEventsRequest>) -> Answer<Events> {
        let supported = self.shared.options.events;
        let events = self.shared.events.subscribe();
        self.shared.answer(Verb::GetContainerEvents, "", |_, _| Ok(())).await?;
        if !supported {
            return Err(unknown_method("GetContainerEvents"));
        }
        let stream = futures_util::stream::unfold(events, |mut events| async {
            match events.recv().await {
                Ok((event, sandbox)) => Some((Ok(wire_event(event, sandbox)), events)),
                // As a runtime does whose listener is too slow.
                Err(RecvError::Lagged(n)) => Some((Err(Status::unknown(format!("{n} events were lost"))), events)),
                Err(RecvError::Closed) => None,
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, _: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        answer!(self, ListImages, "", |m, _now| Ok(v1::ListImagesResponse { images: m.all_images() }))
    }

    async fn image_status(&self, r: Request<v1::ImageStatusRequest>) -> Answer<v1::ImageStatusResponse> {
        let name = r.into_inner().image.unwrap_or_default().image;
        answer!(self, ImageStatus, &name, |m, _now| Ok(v1::ImageStatusResponse { image: m.image(&name), ..Default::default() }))
    }

    async fn pull_image(&self, r: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let r = r.into_inner();
        let name = r.image.unwrap_or_default().image;
        let (image_ref, done) = self.shared.answer(Verb::PullImage, &name, |m, now| m.pull(now, &name, r.auth.as_ref())).await?;
        if done > wall_clock() {
            self.shared.sleep_until(done).await;
        }
        Ok(Response::new(v1::PullImageResponse { image_ref }))
    }

    async fn remove_image(&self, r: Request<v1::RemoveImageRequest>) -> Answer<v1::RemoveImageResponse> {
        let name = r.into_inner().image.unwrap_or_default().image;
        answer!(self, RemoveImage, &name, |m, now| m.remove_image(now, &name).map(|()| Default::default()))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        answer!(self, ImageFsInfo, "", |m, now| {
            let used = m.all_images().iter().map(|i| i.size).sum();
            Ok(v1::ImageFsInfoResponse {
                image_filesystems: vec![v1::FilesystemUsage {
                    timestamp: now,
                    fs_id: Some(v1::FilesystemIdentifier { mountpoint: "/".into() }),
                    used_bytes: Some(v1::UInt64Value { value: used }),
                    inodes_used: Some(v1::UInt64Value { value: 1 }),
                }],
                container_filesystems: Vec::new(),
            })
        })
    }
}

fn unknown_method(name: &str) -> Status {
    Status::new(Code::Unimplemented, format!("unknown method {name} for service runtime.v1.RuntimeService"))
}

fn stream_url(what: &str, id: &str) -> String {
    format!("http://127.0.0.1:1/{what}/{}", &id[..8.min(id.len())])
}

fn wire_event(e: ModelEvent, sandbox: Option<v1::PodSandboxStatus>) -> v1::ContainerEventResponse {
    v1::ContainerEventResponse {
        container_id: e.id,
        container_event_type: e.kind as i32,
        created_at: e.at,
        pod_sandbox_status: sandbox,
        containers_statuses: Vec::new(),
    }
}

/// A container's output when it starts, its termination message when it ends. Files that cannot be
/// written are the test's business: it will miss them.
pub(super) fn write_files(model: &Model, event: &ModelEvent) {
    let Ok(status) = model.container_status(&event.id) else { return };
    let status = status.status.unwrap_or_default();
    let Some(behaviour) = model.behaviour(&event.id) else { return };
    match event.kind {
        v1::ContainerEventType::ContainerStartedEvent if !status.log_path.is_empty() => {
            let Ok(mut log) = std::fs::OpenOptions::new().create(true).append(true).open(&status.log_path) else {
                return;
            };
            for line in &behaviour.output {
                let _ = writeln!(log, "{} stdout F {line}", rfc3339(event.at));
            }
        }
        v1::ContainerEventType::ContainerStoppedEvent => {
            let path = status.annotations.get(crate::labels::TERMINATION_MESSAGE_PATH);
            let mount = status.mounts.iter().find(|m| Some(&m.container_path) == path);
            if let (Some(message), Some(mount)) = (&behaviour.termination_message, mount) {
                let _ = std::fs::write(&mount.host_path, message);
            }
        }
        _ => {}
    }
}

/// The time of a log line; days are counted by the civil calendar.
fn rfc3339(ns: i64) -> String {
    let (days, rest) = (ns.div_euclid(86_400_000_000_000), ns.rem_euclid(86_400_000_000_000));
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (s, nanos) = (rest / 1_000_000_000, rest % 1_000_000_000);
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn log_times_are_rfc3339() {
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(super::rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(super::rfc3339(1_767_225_599_123_000_000), "2025-12-31T23:59:59.123000000Z");
    }
}
