//! The verbs: each one call to the runtime, with its deadline.
//!
//! Owns the connections. One channel per socket, opened when first needed and opened again when it
//! breaks; calls in flight then fail as [`Kind::Unavailable`](crate::Kind), the next one connects
//! anew. Must never retry or decide. Pictures of pods are in `client/observe.rs`, what goes out at once in
//! `client/gather.rs`, images in [`images`](crate::images), commands in [`exec`](crate::exec). Tests: `tests/client.rs`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use crate::container_config::ContainerSpec;
use crate::error::{Error, Verb, ignore_not_found};
use crate::resources::Resources;
use crate::sandbox_config::SandboxSpec;
use crate::v1;
use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

/// One unary call: deadline here and in the header, failures classified.
macro_rules! call {
    ($client:ident.$stub:ident, $method:ident, $verb:expr, $object:expr, $deadline:expr, $message:expr) => {{
        let (mut stub, deadline) = ($client.$stub(), $deadline);
        let request = $crate::client::request($message, deadline);
        $crate::client::within($verb, $object, deadline, stub.$method(request)).await
    }};
}
pub(crate) use call;

mod gather;
mod observe;
pub use observe::{Made, Relist};

/// As large a message as a kubelet takes.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach the runtime.
#[derive(Debug, Clone)]
pub struct Config {
    /// `unix:///run/containerd/containerd.sock`, or a bare path.
    pub runtime_endpoint: String,
    /// Where images are served from; the runtime's own socket if `None`.
    pub image_endpoint: Option<String>,
    /// `runtimeRequestTimeout`: every call's deadline, or the part beyond what the call itself
    /// waits for. A pull has none.
    pub request_timeout: Duration,
    /// How long a relist waits for one pod's statuses before it goes on without them.
    pub relist_patience: Duration,
}

impl Config {
    /// One socket, two minutes, five seconds.
    pub fn new(runtime_endpoint: &str) -> Self {
        Config {
            runtime_endpoint: runtime_endpoint.into(),
            image_endpoint: None,
            request_timeout: Duration::from_secs(120),
            relist_patience: Duration::from_secs(5),
        }
    }
}

/// An endpoint that is no unix socket.
#[derive(Debug, Clone, thiserror::Error)]
#[error("endpoint {endpoint:?} is not a unix socket (use unix:///run/containerd/containerd.sock)")]
pub struct InvalidEndpoint {
    pub endpoint: String,
}

/// A handle on the runtime. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    channel: Channel,
    pub(crate) request_timeout: Duration,
    relist_patience: Duration,
}

/// What the runtime is, from `Version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Also the scheme of container ids: `containerd`.
    pub runtime_name: String,
    pub runtime_version: String,
    pub runtime_api_version: String,
}

/// Which driver the runtime writes cgroups with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    Systemd,
    Cgroupfs,
}

impl Client {
    /// Connects when first used. Must be called inside a tokio runtime.
    pub fn new(config: &Config) -> Result<Self, InvalidEndpoint> {
        let channel = channel(socket_path(&config.runtime_endpoint)?);
        let images = match &config.image_endpoint {
            Some(e) if *e != config.runtime_endpoint => self::channel(socket_path(e)?),
            _ => channel.clone(),
        };
        Ok(Client {
            channel: channel.clone(),
            runtime: RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(images).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE),
            request_timeout: config.request_timeout,
            relist_patience: config.relist_patience,
        })
    }

    /// The generated client, for calls that have no verb here.
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    /// The generated client, for calls that have no verb here.
    pub fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }

    /// The connection to the runtime, for services of its own.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The usual deadline of a call.
    pub(crate) fn usual(&self) -> Option<Duration> {
        Some(self.request_timeout)
    }

    pub async fn version(&self) -> Result<Version, Error> {
        let message = v1::VersionRequest { version: "0.1.0".into() };
        let v = call!(self.runtime, version, Verb::Version, "", self.usual(), message)?;
        if v.version != "0.1.0" {
            let what = format!("the runtime speaks kubelet version {:?}, not 0.1.0", v.version);
            return Err(Error::malformed(Verb::Version, "", &what));
        }
        Ok(Version { runtime_name: v.runtime_name, runtime_version: v.runtime_version, runtime_api_version: v.runtime_api_version })
    }

    /// Conditions (`RuntimeReady`, `NetworkReady`), handlers and features.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        let message = v1::StatusRequest { verbose: false };
        call!(self.runtime, status, Verb::Status, "", self.usual(), message)
    }

    /// The cgroup driver. `Unimplemented` before containerd 2.0: configuration must tell.
    pub async fn runtime_config(&self) -> Result<CgroupDriver, Error> {
        let (verb, message) = (Verb::RuntimeConfig, v1::RuntimeConfigRequest {});
        let answer = call!(self.runtime, runtime_config, verb, "", self.usual(), message)?;
        match answer.linux.map(|l| l.cgroup_driver()) {
            Some(v1::CgroupDriver::Systemd) => Ok(CgroupDriver::Systemd),
            Some(v1::CgroupDriver::Cgroupfs) => Ok(CgroupDriver::Cgroupfs),
            None => Err(Error::malformed(verb, "", "runtime did not provide linux configuration")),
        }
    }

    /// Tells the runtime the node's pod address ranges, comma-separated.
    pub async fn update_runtime_config(&self, pod_cidr: &str) -> Result<(), Error> {
        let message = v1::UpdateRuntimeConfigRequest {
            runtime_config: Some(v1::RuntimeConfig { network_config: Some(v1::NetworkConfig { pod_cidr: pod_cidr.into() }) }),
        };
        let verb = Verb::UpdateRuntimeConfig;
        call!(self.runtime, update_runtime_config, verb, pod_cidr, self.usual(), message).map(drop)
    }

    /// Makes and starts a sandbox; returns its id. Twice the usual deadline, since the network
    /// plugins run within it.
    pub async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error> {
        let message = v1::RunPodSandboxRequest { config: Some(spec.to_cri()), runtime_handler: spec.runtime_handler.clone() };
        let object = format!("{}_{}({})", spec.pod.name, spec.pod.namespace, spec.pod.uid);
        let (verb, deadline) = (Verb::RunPodSandbox, Some(self.request_timeout * 2));
        let answer = call!(self.runtime, run_pod_sandbox, verb, &object, deadline, message)?;
        named(verb, &object, answer.pod_sandbox_id)
    }

    /// Kills what runs in the sandbox and gives its network back. Safe to repeat.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let message = v1::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        let verb = Verb::StopPodSandbox;
        let result = call!(self.runtime, stop_pod_sandbox, verb, id, self.usual(), message);
        ignore_not_found(result.map(drop))
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let message = v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        let verb = Verb::RemovePodSandbox;
        let result = call!(self.runtime, remove_pod_sandbox, verb, id, self.usual(), message);
        ignore_not_found(result.map(drop))
    }

    /// `Unimplemented` on runtimes that leave the pod's cgroup to the kubelet; ignore that.
    pub async fn update_sandbox_resources(&self, id: &str, resources: &Resources, overhead: Option<&Resources>) -> Result<(), Error> {
        let message = v1::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.into(),
            overhead: overhead.map(Resources::to_cri),
            resources: Some(resources.to_cri()),
        };
        let verb = Verb::UpdatePodSandboxResources;
        call!(self.runtime, update_pod_sandbox_resources, verb, id, self.usual(), message).map(drop)
    }

    /// Makes a container in a sandbox; returns its id.
    pub async fn create(&self, sandbox_id: &str, spec: &ContainerSpec, sandbox: &SandboxSpec) -> Result<String, Error> {
        let message = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.into(),
            config: Some(spec.to_cri()),
            sandbox_config: Some(sandbox.to_cri()),
        };
        let verb = Verb::CreateContainer;
        let answer = call!(self.runtime, create_container, verb, &spec.name, self.usual(), message)?;
        named(verb, &spec.name, answer.container_id)
    }

    pub async fn start(&self, id: &str) -> Result<(), Error> {
        let message = v1::StartContainerRequest { container_id: id.into() };
        let verb = Verb::StartContainer;
        call!(self.runtime, start_container, verb, id, self.usual(), message).map(drop)
    }

    /// Asks the container to end and kills it `grace_seconds` later; returns when it has ended.
    pub async fn stop(&self, id: &str, grace_seconds: i64) -> Result<(), Error> {
        let message = v1::StopContainerRequest { container_id: id.into(), timeout: grace_seconds };
        let grace = Duration::from_secs(grace_seconds.max(0).unsigned_abs());
        let (verb, deadline) = (Verb::StopContainer, self.request_timeout.checked_add(grace));
        let result = call!(self.runtime, stop_container, verb, id, deadline, message);
        ignore_not_found(result.map(drop))
    }

    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let message = v1::RemoveContainerRequest { container_id: id.into() };
        let verb = Verb::RemoveContainer;
        let result = call!(self.runtime, remove_container, verb, id, self.usual(), message);
        ignore_not_found(result.map(drop))
    }

    pub async fn update_resources(&self, id: &str, resources: &Resources) -> Result<(), Error> {
        let message =
            v1::UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(resources.to_cri()), ..Default::default() };
        let verb = Verb::UpdateContainerResources;
        call!(self.runtime, update_container_resources, verb, id, self.usual(), message).map(drop)
    }

    /// After its log file was moved away: the runtime opens a new one under the old name.
    pub async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let message = v1::ReopenContainerLogRequest { container_id: id.into() };
        let verb = Verb::ReopenContainerLog;
        call!(self.runtime, reopen_container_log, verb, id, self.usual(), message).map(drop)
    }

    /// Writes a checkpoint archive. `timeout` as the runtime understands it, in seconds; 0 for the
    /// runtime's default.
    pub async fn checkpoint(&self, id: &str, location: &Path, timeout: i64) -> Result<(), Error> {
        let message =
            v1::CheckpointContainerRequest { container_id: id.into(), location: location.to_string_lossy().into_owned(), timeout };
        let allowed = Duration::from_secs(timeout.max(0).unsigned_abs());
        let (verb, deadline) = (Verb::CheckpointContainer, self.request_timeout.checked_add(allowed));
        call!(self.runtime, checkpoint_container, verb, id, deadline, message).map(drop)
    }

    /// Usage of one container.
    pub async fn container_stats(&self, id: &str) -> Result<v1::ContainerStats, Error> {
        let message = v1::ContainerStatsRequest { container_id: id.into() };
        let verb = Verb::ContainerStats;
        let answer = call!(self.runtime, container_stats, verb, id, self.usual(), message)?;
        answer.stats.ok_or_else(|| Error::malformed(verb, id, "the runtime returned no stats"))
    }

    /// Usage of every container the runtime knows, ours or not.
    pub async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, Error> {
        let message = v1::ListContainerStatsRequest { filter: None };
        let verb = Verb::ListContainerStats;
        call!(self.runtime, list_container_stats, verb, "", self.usual(), message).map(|a| a.stats)
    }

    /// Usage of every sandbox and its containers. `Unimplemented` before containerd 1.7.
    pub async fn list_sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>, Error> {
        let message = v1::ListPodSandboxStatsRequest { filter: None };
        let verb = Verb::ListPodSandboxStats;
        call!(self.runtime, list_pod_sandbox_stats, verb, "", self.usual(), message).map(|a| a.stats)
    }
}

pub(crate) fn request<T>(message: T, deadline: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(d) = deadline {
        request.set_timeout(d);
    }
    request
}

/// Bounds a call by its deadline. The same deadline goes to the runtime in a header, so that it
/// gives up too.
pub(crate) async fn within<T>(
    verb: Verb,
    object: &str,
    deadline: Option<Duration>,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    let result = match deadline {
        Some(d) => tokio::time::timeout(d, call).await.map_err(|_| Error::timeout(verb, object))?,
        None => call.await,
    };
    result.map(Response::into_inner).map_err(|status| Error::from_status(verb, object, &status))
}

/// An id must not be empty: every later call would be about nothing.
fn named(verb: Verb, object: &str, id: String) -> Result<String, Error> {
    if id.is_empty() {
        return Err(Error::malformed(verb, object, "the runtime returned an empty id"));
    }
    Ok(id)
}

fn socket_path(endpoint: &str) -> Result<PathBuf, InvalidEndpoint> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let path = Path::new(path);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err(InvalidEndpoint { endpoint: endpoint.into() }) }
}

fn channel(socket: PathBuf) -> Channel {
    // The authority must be a plain host name: some servers refuse a socket path there.
    Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT).connect_with_connector_lazy(tower::service_fn(
        move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(|stream| TokioIo::new(gather::Gather::new(stream))) }
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        let path = |e| socket_path(e).map(|p| p.to_string_lossy().into_owned()).ok();
        assert_eq!(path("unix:///run/x.sock").as_deref(), Some("/run/x.sock"));
        assert_eq!(path("/run/x.sock").as_deref(), Some("/run/x.sock"));
        assert_eq!(path("tcp://1.2.3.4:5"), None);
        assert_eq!(path(""), None);
    }
}
