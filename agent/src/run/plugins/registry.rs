//! The directory where plugins put sockets to be found: each is asked what it is, and told what became of it.

use super::devices::{Devices, check};
use crate::cluster::pace::Backoff;
use crate::grpc::messages::{Empty, PluginInfo, RegistrationStatus, registration};
use crate::run::client::chance;
use crate::run::grpc::{Channel, GrpcError};
use futures_util::StreamExt as _;
use inotify::{Inotify, WatchMask};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const DIAL: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(1);
const NOTIFY: Duration = Duration::from_secs(5);
/// The directory is looked at this often, whatever was heard.
const LOOK: Duration = Duration::from_secs(60);
/// Between tries with a plugin that does not answer.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_AT_MOST: Duration = Duration::from_secs(122);
/// Directories in directories go no deeper.
const DEPTH: usize = 4;

/// One socket. Who drops it, ends what is done about it.
struct Plugin {
    /// The file that it is: one that was made anew is another.
    inode: u64,
    task: tokio::task::JoinHandle<()>,
    registered: Rc<std::cell::RefCell<Option<PluginInfo>>>,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches until the daemon ends.
pub async fn watch(directory: PathBuf, devices: Rc<Devices>) {
    let stream = Inotify::init().and_then(|i| i.into_event_stream([0; 4096]));
    let mut stream = stream.inspect_err(|error| tracing::warn!(%error, "plugins are noticed late: their directory cannot be watched")).ok();
    let mut plugins: BTreeMap<PathBuf, Plugin> = BTreeMap::new();
    loop {
        let mut sockets = BTreeMap::new();
        let mut directories = vec![directory.clone()];
        find(&directory, DEPTH, &mut sockets, &mut directories);
        if let Some(s) = &mut stream {
            let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM;
            for d in &directories {
                // One that has gone is not looked at either.
                let _ = s.watches().add(d, mask);
            }
        }
        plugins.retain(|path, p| {
            let stays = sockets.get(path) == Some(&p.inode);
            if !stays {
                gone(&p.registered.take(), &devices);
            }
            stays
        });
        for (path, inode) in sockets {
            plugins.entry(path.clone()).or_insert_with(|| {
                let registered = Rc::default();
                let task = tokio::task::spawn_local(register(path, devices.clone(), Rc::clone(&registered)));
                Plugin { inode, task, registered }
            });
        }
        match &mut stream {
            // What was heard is looked up.
            Some(s) => drop(tokio::time::timeout(LOOK, s.next()).await),
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

fn find(directory: &Path, depth: usize, sockets: &mut BTreeMap<PathBuf, u64>, directories: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let hidden = entry.file_name().to_str().is_none_or(|n| n.starts_with('.'));
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() && depth > 0 {
            directories.push(entry.path());
            find(&entry.path(), depth - 1, sockets, directories);
        } else if meta.file_type().is_socket() && !hidden {
            sockets.insert(entry.path(), meta.ino());
        }
    }
}

fn gone(plugin: &Option<PluginInfo>, devices: &Devices) {
    if let Some(p) = plugin {
        tracing::info!(plugin = %p.name, kind = %p.kind, "a plugin has gone");
        devices.disconnect(&p.name);
    }
}

async fn register(socket: PathBuf, devices: Rc<Devices>, registered: Rc<std::cell::RefCell<Option<PluginInfo>>>) {
    let mut backoff = Backoff::new(RETRY, RETRY_AT_MOST);
    loop {
        match meet(&socket, &devices).await {
            Ok(Ok(info)) => {
                *registered.borrow_mut() = Some(info);
                return;
            }
            // It was told so, and will not be another before its socket is.
            Ok(Err(why)) => return tracing::warn!(socket = %socket.display(), error = %why, "a plugin was refused"),
            Err(error) => {
                tracing::warn!(socket = %socket.display(), %error, "a plugin could not be registered; trying again");
                tokio::time::sleep(backoff.next(chance())).await;
            }
        }
    }
}

/// Asks the plugin what it is, and tells it what became of it.
async fn meet(socket: &Path, devices: &Devices) -> Result<Result<PluginInfo, String>, GrpcError> {
    let mut channel = Channel::dial(socket, DIAL).await?;
    let info: PluginInfo = channel.call(registration::GET_INFO, &Empty {}, ANSWER).await?;
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) };
    let outcome = match info.kind.as_str() {
        "DevicePlugin" => match check(info.supported_versions.iter().map(String::as_str), &info.name) {
            Ok(()) => devices
                .connect(&info.name, &endpoint)
                .await
                .map_err(|e| format!("RegisterPlugin error -- plugin registration failed with err: {e}")),
            Err(why) => Err(format!("RegisterPlugin error -- plugin validation failed with err: {why}")),
        },
        other => Err(format!("RegisterPlugin error -- no handler registered for plugin type: {other} at socket {}", socket.display())),
    };
    let status = RegistrationStatus { plugin_registered: outcome.is_ok(), error: outcome.clone().err().unwrap_or_default() };
    let _: Empty = channel.call(registration::NOTIFY, &status, NOTIFY).await?;
    Ok(outcome.map(|()| info))
}
