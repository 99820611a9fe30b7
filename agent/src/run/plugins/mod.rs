//! What programs beside the node ask of a kubelet on unix sockets: plugins register, monitors ask which pod has which
//! devices (specification of the kubelet, 12.2 to 12.4).
//!
//! Plugins are heard, and what they offer is known; nothing is allocated yet, so the node does not tell of it either.
//! Tests: `agent/tests/plugins.rs`.

pub mod devices;
pub mod registry;
pub mod resources;

use super::grpc::{Service, serve};
use super::server::Server;
use devices::Devices;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::net::UnixListener;

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PluginError {
    path: PathBuf,
    source: io::Error,
}

/// Opens the sockets under a kubelet's root directory. One that cannot be opened is told of, and the node goes on.
pub fn start(root: &Path, server: Server) -> Rc<Devices> {
    let directory = root.join("device-plugins");
    let devices = Rc::new(Devices::new(&directory));
    let told = |what: &str, done: Result<(), PluginError>| {
        if let Err(error) = done {
            tracing::warn!(%error, "{what}");
        }
    };
    let open = || {
        devices::clean(&directory)?;
        listen(&directory.join("kubelet.sock"), devices.clone())
    };
    told("device plugins cannot register", open());
    let monitors = Rc::new(resources::Resources::new(server, devices.clone()));
    told("nobody can ask for the resources of pods", listen(&root.join("pod-resources/kubelet.sock"), monitors));
    let plugins = root.join("plugins_registry");
    told(
        "plugins cannot register",
        make(&plugins).map(|()| drop(tokio::task::spawn_local(registry::watch(plugins.clone(), devices.clone())))),
    );
    devices
}

fn make(directory: &Path) -> Result<(), PluginError> {
    let at = |source| PluginError { path: directory.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(at)
}

/// Serves at this socket, in the place of one that an earlier daemon left.
fn listen(path: &Path, service: Rc<dyn Service>) -> Result<(), PluginError> {
    let at = |source| PluginError { path: path.to_owned(), source };
    make(path.parent().unwrap_or(Path::new("/")))?;
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(at)?;
    tokio::task::spawn_local(serve(listener, service));
    Ok(())
}
