//! Device plugins: who has registered, and which devices each says it has.
//!
//! Owns the connections to plugins. A plugin that goes away takes its devices' health with it.

use super::{PluginError, make};
use crate::grpc::frame::{Code, Status};
use crate::grpc::messages::{Device, DevicePluginOptions, Empty, ListAndWatchResponse, RegisterRequest, device};
use crate::manifest::validate::names;
use crate::pod::resources::is_extended;
use crate::run::grpc::{Answer, Channel, GrpcError, Service, reply, request, unknown};
use futures_util::future::LocalBoxFuture;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const DIAL: Duration = Duration::from_secs(10);

/// What one plugin has told.
#[derive(Debug, Default)]
pub struct Offer {
    pub devices: Vec<Device>,
    /// Ends the watch of the plugin that was before.
    watch: Option<Watching>,
}

#[derive(Debug)]
struct Watching(tokio::task::JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub struct Devices {
    directory: PathBuf,
    offers: Rc<RefCell<BTreeMap<String, Offer>>>,
}

/// Whether a plugin of this version may bring this resource; the text is a kubelet's.
pub fn check<'a>(mut versions: impl Iterator<Item = &'a str>, resource: &str) -> Result<(), String> {
    let all: Vec<&str> = versions.by_ref().collect();
    if !all.contains(&device::VERSION) {
        let told = all.first().copied().unwrap_or_default();
        return Err(format!("requested API version {told:?} is not supported by kubelet. Supported version is [{:?}]", device::VERSION));
    }
    if !is_extended(resource) || !names::qualified(&format!("requests.{resource}")).is_empty() {
        return Err(format!("the ResourceName {resource:?} is invalid"));
    }
    Ok(())
}

/// The directory as a start wants it: sockets of plugins of before are gone, and they register anew.
pub fn clean(directory: &Path) -> Result<(), PluginError> {
    make(directory)?;
    let at = |source| PluginError { path: directory.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(at)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_socket()) {
            // It may have gone meanwhile.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

impl Devices {
    pub fn new(directory: &Path) -> Devices {
        Devices { directory: directory.to_owned(), offers: Rc::default() }
    }

    /// By resource, what its plugin has told last.
    pub fn offers(&self) -> Vec<(String, Vec<Device>)> {
        self.offers.borrow().iter().map(|(name, o)| (name.clone(), o.devices.clone())).collect()
    }

    /// Connects to a plugin, and follows its devices from then on.
    pub async fn connect(&self, resource: &str, socket: &Path) -> Result<(), GrpcError> {
        let mut channel = Channel::dial(socket, DIAL).await?;
        let _: DevicePluginOptions = channel.call(device::OPTIONS, &Empty {}, DIAL).await?;
        let offers = self.offers.clone();
        let name = resource.to_owned();
        let watch = tokio::task::spawn_local(async move {
            let error = follow(&mut channel, &name, &offers).await.err();
            let why = error.map_or_else(|| "it ended the stream".to_owned(), |e| e.to_string());
            tracing::warn!(resource = %name, error = %why, "a device plugin has gone; its devices are not healthy any more");
            if let Some(o) = offers.borrow_mut().get_mut(&name) {
                o.devices.iter_mut().for_each(|d| d.health = "Unhealthy".into());
            }
        });
        tracing::info!(%resource, socket = %socket.display(), "a device plugin has registered");
        self.offers.borrow_mut().entry(resource.to_owned()).or_default().watch = Some(Watching(watch));
        Ok(())
    }

    /// The plugin is no more.
    pub fn disconnect(&self, resource: &str) {
        if let Some(o) = self.offers.borrow_mut().get_mut(resource) {
            o.watch = None;
            o.devices.iter_mut().for_each(|d| d.health = "Unhealthy".into());
        }
    }
}

async fn follow(channel: &mut Channel, name: &str, offers: &RefCell<BTreeMap<String, Offer>>) -> Result<(), GrpcError> {
    let mut lists = channel.open(device::LIST_AND_WATCH, &Empty {}).await?;
    while let Some(list) = lists.next::<ListAndWatchResponse>().await? {
        let healthy = list.devices.iter().filter(|d| d.health == device::HEALTHY).count();
        tracing::info!(resource = %name, devices = list.devices.len(), healthy, "a device plugin has told of its devices");
        offers.borrow_mut().entry(name.to_owned()).or_default().devices = list.devices;
    }
    Ok(())
}

impl Service for Devices {
    fn call(self: Rc<Self>, path: String, message: Vec<u8>) -> LocalBoxFuture<'static, Answer> {
        Box::pin(async move {
            if path != device::REGISTER {
                return Err(unknown(&path));
            }
            let r: RegisterRequest = request(message)?;
            let failed = |message: String| Status::new(Code::Unknown, message);
            check([r.version.as_str()].into_iter(), &r.resource_name).map_err(failed)?;
            // A name, not a path: a plugin may not lead us elsewhere.
            if r.endpoint.is_empty() || r.endpoint.contains('/') {
                return Err(failed(format!("the endpoint {:?} is no name of a socket in {}", r.endpoint, self.directory.display())));
            }
            self.connect(&r.resource_name, &self.directory.join(&r.endpoint)).await.map_err(|e| failed(e.to_string()))?;
            reply(&Empty {})
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_brings_an_extended_resource_in_a_version_that_is_spoken() {
        let of = |v: &'static str, name: &str| check([v].into_iter(), name);
        assert_eq!(of("v1beta1", "example.com/gpu"), Ok(()));
        assert_eq!(
            of("v1", "example.com/gpu").unwrap_err(),
            "requested API version \"v1\" is not supported by kubelet. Supported version is [\"v1beta1\"]"
        );
        for name in ["gpu", "kubernetes.io/gpu", "requests.example.com/gpu", "example.com/", "example.com/a b"] {
            assert_eq!(of("v1beta1", name).unwrap_err(), format!("the ResourceName {name:?} is invalid"));
        }
    }
}
