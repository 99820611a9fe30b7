//! This node as a member of a cluster: what the API server wants of it comes in, what is so goes back.
//!
//! Owns the tasks that watch and report, over one connection. Decides nothing: that is `crate::cluster` and the node
//! itself. A server that is away is waited for; what runs here runs on. Tests: `agent/tests/cluster`,
//! `tests/tests/process_cluster.rs`.

pub mod certificates;
mod config;
mod elsewhere;
mod events;
mod lease;
mod mirrors;
mod node;
mod pods;
pub mod proxy;
mod reflector;
mod reviews;
mod services;
mod status;
mod tokens;

use crate::cluster::node_object::About;
use crate::node::Event;
use crate::run::client::{self, Client, ClientError};
use crate::run::event_loop::{PodListener, Question};
use crate::run::port::Reviews;
use crate::run::sources::ready::Ready;
use config::ConfigWatches;
pub use elsewhere::Elsewhere;
use longshore_cri::client::Client as Runtime;
use longshore_dataplane::Dataplane;
use pods::{Forward, Pods, Remotes, Source};
use reflector::{What, follow};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Told by the watch and not yet taken.
const QUEUE: usize = 64;

/// Where a kubelet keeps its certificates.
const CERTIFICATES: &str = "/var/lib/kubelet/pki";

/// How this node is a member.
#[derive(Clone, Debug)]
pub struct Options {
    pub kubeconfig: PathBuf,
    /// By whose credentials services and their endpoints are watched; None: the node's own.
    pub proxy_kubeconfig: Option<PathBuf>,
    /// `kubeAPIQPS`, `kubeAPIBurst`
    pub qps: f64,
    pub burst: u32,
    /// `eventRecordQPS`, `eventBurst`
    pub event_qps: f64,
    pub event_burst: u32,
    pub register: bool,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Value>,
    pub provider_id: String,
    pub update: Duration,
    pub report: Duration,
    pub certificates: certificates::Options,
}

impl Options {
    /// As a kubelet has it by default.
    pub fn new(kubeconfig: PathBuf) -> Options {
        Options {
            kubeconfig,
            proxy_kubeconfig: None,
            qps: 50.0,
            burst: 100,
            event_qps: 50.0,
            event_burst: 100,
            register: true,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: String::new(),
            update: Duration::from_secs(10),
            report: Duration::from_secs(300),
            certificates: certificates::Options::new(CERTIFICATES.into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Certificates(#[from] certificates::CertificateError),
}

/// What it needs of the daemon.
pub struct Parts {
    pub to: mpsc::Sender<Event>,
    pub ask: mpsc::Sender<Question>,
    pub runtime: Runtime,
    pub about: About,
    pub dataplane: Option<Rc<Dataplane>>,
    /// Told when the node knows all pods of the server.
    pub ready: Ready,
}

fn config(o: &Options, about: &About) -> client::Config {
    let user_agent = format!("longshore/{} ({}/{})", env!("CARGO_PKG_VERSION"), std::env::consts::OS, about.facts.architecture);
    client::Config { kubeconfig: o.kubeconfig.clone(), qps: o.qps, burst: o.burst, user_agent }
}

/// The connection to the API server, which nobody uses yet.
pub fn client(o: &Options, about: &About) -> Result<Client, ClientError> {
    Client::open(&config(o, about))
}

/// The API server as the one who knows tokens and what somebody may do.
pub fn reviews(client: &Client) -> Rc<dyn Reviews> {
    Rc::new(reviews::Asked(client.clone()))
}

/// Joins the cluster. Returns who wants to hear of pods and events.
pub fn join(o: &Options, client: Client, parts: Parts) -> Result<Vec<Rc<dyn PodListener>>, JoinError> {
    let name = parts.about.facts.name.clone();
    let news = Rc::new(Notify::new());
    let known = Rc::new(Cell::new(false));
    let services = services::Services::new(parts.dataplane, parts.to.clone(), known.clone(), news.clone());
    let (there, uid) = (Rc::new(RefCell::new(Value::Null)), Rc::new(RefCell::new(None)));
    let (at_server, mirrored) = (there.clone(), Rc::new(Notify::new()));
    certificates::keep(&o.certificates, &client, &config(o, &parts.about), &name, there.clone())?;
    match &o.proxy_kubeconfig {
        None => services.start(&client),
        Some(kubeconfig) => services.start(&Client::open(&client::Config { kubeconfig: kubeconfig.clone(), ..config(o, &parts.about) })?),
    }
    let watch = node::Watch {
        name: name.clone(),
        to: parts.to.clone(),
        there: there.clone(),
        uid: uid.clone(),
        services,
        mirrored: mirrored.clone(),
        runtime: parts.runtime.clone(),
        cordoned: None,
        ranges: Vec::new(),
    };
    tokio::task::spawn_local(follow(client.clone(), What::named("/api/v1/nodes", &name), watch));
    tokio::task::spawn_local(lease::keep(client.clone(), name.clone(), uid.clone()));
    let about = About { labels: o.labels.clone(), taints: o.taints.clone(), provider_id: o.provider_id.clone(), ..parts.about };
    let cadence = node::Cadence { update: o.update, report: o.report };
    let (to, ask) = (parts.to.clone(), parts.ask);
    let own = node::Node { client: client.clone(), runtime: parts.runtime, about, cadence, ask, to, there, uid, register: o.register };
    tokio::task::spawn_local(own.run());
    let remotes = Rc::new(RefCell::new(Remotes::default()));
    let reporter = status::Reporter::new(client.clone(), remotes.clone());
    let mirrors = mirrors::Mirrors::new(client.clone(), &name, remotes.clone(), at_server, mirrored.clone());
    let pods = Pods {
        remotes,
        config: ConfigWatches::new(client.clone(), parts.to.clone(), news.clone()),
        tokens: tokens::Tokens::new(client.clone(), parts.to.clone(), news.clone()),
        services: known,
        to: parts.to,
        reporter: reporter.clone(),
        mirrored,
        news,
        source: Source::Unread,
        ready: Some(parts.ready),
    };
    let (told, from) = mpsc::channel(QUEUE);
    let bound = What::all("/api/v1/pods").select("fieldSelector", &format!("spec.nodeName={name}"));
    tokio::task::spawn_local(follow(client.clone(), bound, Forward(told)));
    tokio::task::spawn_local(pods.run(from));
    tokio::task::spawn_local(reporter.clone().run());
    tokio::task::spawn_local(mirrors.clone().run());
    let events = events::Events::new(client, &name, o.event_qps, o.event_burst);
    tokio::task::spawn_local(events.clone().run());
    Ok(vec![reporter, mirrors, events])
}
