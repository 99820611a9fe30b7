//! The service proxy alone: kube-proxy's configuration, services from files or from an API server.
//!
//! Owns the reading of files and the wiring of one data plane. What services mean is the data plane's. Tests:
//! `tests/tests/namespaces_proxy.rs`.

use super::sources::{self, Watch};
use super::{cluster, process};
use crate::manifest::text::documents;
use longshore_dataplane::config::effective::{Settled, data_plane, needs_restart, settle};
use longshore_dataplane::config::flags::CommandLine;
use longshore_dataplane::config::kube_proxy::KubeProxyConfiguration;
use longshore_dataplane::wire::{EndpointSlice, Node, Service, ServiceCidr};
use longshore_dataplane::{Change, Dataplane, StartError, cleanup};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Files are looked at this often, watched or not.
const LOOK: Duration = Duration::from_secs(10);

/// What the command line and the file settled.
pub struct Options {
    pub source: Source,
    /// No local process is to take a service's node port.
    pub hold_node_ports: bool,
    pub line: CommandLine,
    pub settled: Settled,
}

/// Where services come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file or a directory.
    Files(PathBuf),
    /// The API server that `clientConnection` leads to.
    Server,
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not one YAML or JSON document: {message}", path.display())]
    Document { path: PathBuf, message: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Client(#[from] super::client::ClientError),
}

/// Does what the command line asks for.
pub fn run(options: Options) -> Result<(), ProxyError> {
    let Options { source, hold_node_ports, line, settled } = options;
    if line.version {
        println!("Kubernetes {}", crate::KUBERNETES_VERSION);
        return Ok(());
    }
    if line.help {
        println!("Flags: --{}", longshore_dataplane::config::flags::names().collect::<Vec<_>>().join(" --"));
        return Ok(());
    }
    if let Some(path) = &line.write_config_to {
        let text = serde_saphyr::to_string(&settled.configuration.to_json()).expect("plain data serialises");
        return std::fs::write(path, text).map_err(|source| ProxyError::Write { path: path.into(), source });
    }
    process::tune();
    let (levels, reload) = tracing_subscriber::reload::Layer::new(level(&settled.configuration));
    let text = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(levels);
    if settled.configuration.logging.format == "json" {
        registry.with(text.json()).init();
    } else {
        registry.with(text).init();
    }
    if line.cleanup {
        return Ok(cleanup(None)?);
    }
    settled.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let config = of(&settled.configuration, hold_node_ports);
    if line.init_only {
        if let Some(wanted) = &config.conntrack {
            longshore_dataplane::conntrack::tune::apply(Path::new("/"), wanted);
        }
        return Ok(());
    }
    spare(settled.configuration.oom_score_adj);
    let dataplane = Rc::new(Dataplane::start(config)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ProxyError::Runtime)?;
    let set_level = move |c: &KubeProxyConfiguration| {
        let _ = reload.reload(level(c));
    };
    let member = member(&settled.configuration);
    let follow = async {
        match &source {
            Source::Server => cluster::proxy::serve(&member, dataplane.clone()).await,
            Source::Files(path) => {
                tokio::select! {
                    () = record_events(&dataplane) => {}
                    () = follow_services(&dataplane, path) => {}
                }
                Ok(())
            }
        }
    };
    let changed = |c: &KubeProxyConfiguration| {
        dataplane.reconfigure(of(c, hold_node_ports));
    };
    let local = tokio::task::LocalSet::new();
    let ended = local.block_on(&runtime, async {
        tokio::select! {
            biased;
            () = process::asked_to_stop() => Ok(()),
            () = follow_configuration(&line, settled.configuration.clone(), set_level, changed) => Ok(()),
            ended = follow => ended,
        }
    });
    // What is under way is left where it is.
    drop(local);
    runtime.shutdown_background();
    ended?;
    tracing::info!("stopping; the rules stay");
    Ok(())
}

/// What the data plane is to do.
fn of(c: &KubeProxyConfiguration, hold_node_ports: bool) -> longshore_dataplane::Config {
    let config = data_plane(c, &node_name(c), &super::host_addresses::host_ips());
    longshore_dataplane::Config { hold_node_ports, ..config }
}

fn member(c: &KubeProxyConfiguration) -> cluster::proxy::Member {
    let client = &c.client_connection;
    cluster::proxy::Member {
        kubeconfig: PathBuf::from(&client.kubeconfig),
        qps: f64::from(client.qps),
        burst: u32::try_from(client.burst).unwrap_or(1),
        node: node_name(c),
    }
}

fn level(c: &KubeProxyConfiguration) -> LevelFilter {
    match c.logging.verbosity {
        0..=1 => LevelFilter::INFO,
        2..=4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

fn node_name(c: &KubeProxyConfiguration) -> String {
    process::node_name(Some(c.hostname_override.clone()).filter(|name| !name.is_empty()))
}

fn spare(score: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::debug!(%error, "the kernel may end this process for memory before others");
    }
}

/// The one document of a file.
pub fn document(path: &Path) -> Result<Value, ProxyError> {
    let text = sources::text(path).map_err(|source| ProxyError::Read { path: path.into(), source })?;
    let wrong = |message: String| ProxyError::Document { path: path.into(), message };
    let mut all = documents(&text);
    if all.len() != 1 {
        return Err(wrong(format!("there are {}", all.len())));
    }
    all.remove(0).content.map_err(|malformed| wrong(malformed.message))
}

/// Without an API server, the log is where events go: what they say stands there already, and this is their form.
async fn record_events(dataplane: &Dataplane) {
    let events = dataplane.events();
    loop {
        let event = events.next().await;
        tracing::debug!(regarding = ?event.regarding, reason = event.reason, action = event.action, "event: {}", event.message);
    }
}

/// Takes on what changed in the configuration file and can be while running.
async fn follow_configuration(
    line: &CommandLine,
    mut held: KubeProxyConfiguration,
    set_level: impl Fn(&KubeProxyConfiguration),
    reconfigure: impl Fn(&KubeProxyConfiguration),
) {
    let Some(path) = line.config.as_deref().map(Path::new) else { return std::future::pending().await };
    let mut watch = Watch::new(path);
    loop {
        watch.arm();
        watch.heard(LOOK).await;
        watch.drain(Duration::from_millis(20)).await;
        let settled = document(path).map_err(|e| e.to_string()).and_then(|document| {
            settle(line, Some(&document)).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        });
        match settled {
            Err(error) => tracing::error!(%error, "the changed configuration is not taken on"),
            Ok(Settled { configuration, .. }) if configuration == held => {}
            Ok(Settled { configuration, warnings }) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                let fixed = needs_restart(&held, &configuration);
                if !fixed.is_empty() {
                    tracing::warn!(fields = fixed.join(", "), "these change at the next start");
                }
                set_level(&configuration);
                reconfigure(&configuration);
                tracing::info!(mode = configuration.mode_name(), "the changed configuration is in force");
                held = configuration;
            }
        }
    }
}

/// What a file or directory holds.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Objects {
    pub services: BTreeMap<(String, String), Arc<Service>>,
    pub slices: BTreeMap<(String, String), Arc<EndpointSlice>>,
    pub ranges: BTreeMap<String, Arc<ServiceCidr>>,
    pub node: Option<Arc<Node>>,
}

impl Objects {
    /// Reads all there is. What cannot be read is told, and the rest is used.
    pub fn read(path: &Path) -> io::Result<Objects> {
        let mut objects = Objects::default();
        for (name, stamp) in sources::list(path)?.files {
            let full = if stamp.alone { path.to_owned() } else { path.join(&name) };
            match sources::text(&full) {
                Ok(text) => objects.text(&full, &text),
                Err(error) => tracing::error!(file = %full.display(), %error, "cannot be read"),
            }
        }
        Ok(objects)
    }

    fn text(&mut self, file: &Path, text: &str) {
        for document in documents(text) {
            match document.content {
                Ok(value) => self.add(file, value),
                Err(e) => tracing::error!(file = %file.display(), line = e.line, "{}", e.message),
            }
        }
    }

    /// Takes an object or a list of them; `file` is where it came from.
    pub fn add(&mut self, file: &Path, value: Value) {
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "Service" => {
                if let Some(mut object) = object::<Service>(file, value) {
                    in_default(&mut object.metadata.namespace);
                    self.services.insert((object.metadata.namespace.clone(), object.metadata.name.clone()), Arc::new(object));
                }
            }
            "EndpointSlice" => {
                if let Some(mut object) = object::<EndpointSlice>(file, value) {
                    in_default(&mut object.metadata.namespace);
                    self.slices.insert((object.metadata.namespace.clone(), object.metadata.name.clone()), Arc::new(object));
                }
            }
            "ServiceCIDR" => {
                if let Some(object) = object::<ServiceCidr>(file, value) {
                    self.ranges.insert(object.metadata.name.clone(), Arc::new(object));
                }
            }
            "Node" => self.node = object::<Node>(file, value).map(Arc::new).or(self.node.take()),
            _ if value["items"].is_array() => {
                let item_kind = kind.strip_suffix("List").unwrap_or_default();
                let Value::Object(mut list) = value else { return };
                let Some(Value::Array(items)) = list.remove("items") else { return };
                for mut item in items {
                    // Items of a typed list need not say what they are.
                    if item["kind"].is_null() {
                        item["kind"] = item_kind.into();
                    }
                    self.add(file, item);
                }
            }
            _ => {}
        }
    }

    /// What leads from one state to the other.
    pub fn changes(&self, after: &Objects) -> Vec<Change> {
        let mut changes = Vec::new();
        let gone = self.services.keys().filter(|key| !after.services.contains_key(*key));
        changes.extend(gone.map(|(namespace, name)| Change::DeleteService { namespace: namespace.clone(), name: name.clone() }));
        let gone = self.slices.keys().filter(|key| !after.slices.contains_key(*key));
        changes.extend(gone.map(|(namespace, name)| Change::DeleteSlice { namespace: namespace.clone(), name: name.clone() }));
        let gone = self.ranges.keys().filter(|name| !after.ranges.contains_key(*name));
        changes.extend(gone.map(|name| Change::DeleteServiceCidr { name: name.clone() }));
        if after.node != self.node {
            changes.extend(after.node.clone().map(Change::SetNode));
        }
        let new = after.ranges.iter().filter(|(name, object)| self.ranges.get(*name) != Some(object));
        changes.extend(new.map(|(_, object)| Change::SetServiceCidr(object.clone())));
        let new = after.services.iter().filter(|(key, object)| self.services.get(*key) != Some(object));
        changes.extend(new.map(|(_, object)| Change::SetService(object.clone())));
        let new = after.slices.iter().filter(|(key, object)| self.slices.get(*key) != Some(object));
        changes.extend(new.map(|(_, object)| Change::SetSlice(object.clone())));
        changes
    }
}

fn in_default(namespace: &mut String) {
    if namespace.is_empty() {
        *namespace = "default".into();
    }
}

fn object<T: DeserializeOwned>(file: &Path, value: Value) -> Option<T> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match crate::typed::read(&value) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(file = %file.display(), object = name, %error, "this object is left out");
            None
        }
    }
}

/// Keeps the data plane at what the files say.
async fn follow_services(dataplane: &Dataplane, path: &Path) {
    let mut held = Objects::default();
    let mut synced = false;
    let mut watch = Watch::new(path);
    loop {
        watch.arm();
        match Objects::read(path) {
            Ok(objects) => {
                for change in held.changes(&objects) {
                    dataplane.apply(change);
                }
                held = objects;
                if !synced {
                    dataplane.apply(Change::Synced);
                    synced = true;
                }
            }
            Err(error) => tracing::error!(path = %path.display(), %error, "services cannot be read; what is programmed stays"),
        }
        watch.heard(LOOK).await;
        watch.drain(Duration::from_millis(5)).await;
    }
}
