//! Pods by bare CRI calls, without a daemon: a floor to measure against, and the way to clean up.

use super::Containerd;
use anyhow::{Context, Result};
use longshore_cri::Client;
use longshore_cri::client::Config;
use longshore_cri::container_config::{ContainerSpec, Image};
use longshore_cri::labels::PodIdentity;
use longshore_cri::sandbox_config::SandboxSpec;
use longshore_cri::snapshot::ObservedPod;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// A pod of one container, made by hand.
#[derive(Debug)]
pub struct BarePod {
    pub sandbox: String,
    pub container: String,
    /// Primary address first.
    pub ips: Vec<IpAddr>,
}

/// Runs `work` with a CRI client to the runtime at `endpoint` (`unix:///…`).
pub fn with_client<T, F>(endpoint: &str, work: impl FnOnce(Client) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { work(Client::new(&Config::new(endpoint))?).await })
}

/// Starts a pod `default/<name>` with `image` and `arguments` in the cgroup `parent`.
pub fn run(containerd: &Containerd, name: &str, image: &str, arguments: &[&str], parent: &str) -> Result<BarePod> {
    let identity = PodIdentity::new(&format!("uid-of-{name}"), "default", name);
    let mut sandbox = SandboxSpec::new(identity.clone());
    sandbox.cgroup_parent = parent.to_owned();
    let mut spec = ContainerSpec::new(identity, name, Image::named(image));
    spec.args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    with_client(&containerd.endpoint(), async |client| {
        let id = client.run_sandbox(&sandbox).await?;
        let container = client.create(&id, &spec, &sandbox).await?;
        client.start(&container).await?;
        let observed = client.sandbox_status(&id).await?.context("the new sandbox has no status")?;
        Ok(BarePod { sandbox: id, container, ips: observed.ips.to_vec() })
    })
}

/// Every pod as the runtime has it, by uid.
pub fn observe(socket: &Path) -> Result<Vec<Arc<ObservedPod>>> {
    with_client(&format!("unix://{}", socket.display()), async |client| Ok(client.list_all(&[]).await?.pods))
}

/// Stops and removes every pod of a runtime, so that the network plugins give everything back;
/// returns how many there were.
pub fn remove_all(socket: &Path) -> Result<usize> {
    remove(socket, |_| true)
}

/// Removes the pods whose uids are wanted gone.
pub fn remove(socket: &Path, wanted: impl Fn(&str) -> bool) -> Result<usize> {
    with_client(&format!("unix://{}", socket.display()), async |client| {
        let mut pods = client.list(None).await?.pods;
        pods.retain(|uid, _| wanted(uid));
        for sandbox in pods.values().flat_map(|pod| &pod.sandboxes) {
            client.stop_sandbox(&sandbox.id).await?;
            client.remove_sandbox(&sandbox.id).await?;
        }
        Ok(pods.len())
    })
}
