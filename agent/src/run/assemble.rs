//! The one place where the pieces are made and joined.

use super::api::auth::Credentials;
use super::api::node_object;
use super::api::persist::{Files, Journal};
use super::api::{self, Api, Door, Show};
use super::cgroup_fs::{CgroupFs, Version};
use super::dns::Dns;
use super::event_loop::{EventLoop, PodListener};
use super::events::Recorder;
use super::executor::Executor;
use super::housekeeping::Housekeeping;
use super::images::Images;
use super::lanes::Lanes;
use super::observe::Observer;
use super::port::open::{Home, With};
use super::process::{self, Lock};
use super::proxy_settings::{NoRange, ProxySettings};
use super::runner::Runner;
use super::server::{self, Changes, Server};
use super::services::{self, Services};
use super::sources::door;
use super::sources::manifests::{Manifests, Tell};
use super::sources::ready::Ready;
use super::sources::statics::Statics;
use super::state_dir::StateDir;
use super::stats::{Places, Reader};
use super::{clock, cluster, lookout, machine, tunables};
use crate::cgroup::{CgroupValues, Driver, Layout, values};
use crate::cluster::node_object::About;
use crate::env::NodeFacts;
use crate::lone::Lone;
use crate::lone::addresses::{ParseRangeError, Range, Ranges};
use crate::node::NodeState;
use crate::node::state::NodeConfig;
use crate::pod::QosClass;
use crate::port::PortConfig;
use crate::work::dns::Resolv;
use longshore_cri::client::{self, CgroupDriver, Client};
use longshore_dataplane::config::Servers;
use longshore_dataplane::wire::{ServiceCidr, ServiceCidrSpec};
use longshore_dataplane::{Change, Dataplane, Family};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How the daemon is to run, settled from flags and files.
#[derive(Clone, Debug)]
pub struct Options {
    pub manifests: PathBuf,
    /// `staticPodPath`: a directory or a file of a kubelet's static pods.
    pub static_pods: Option<PathBuf>,
    /// `fileCheckFrequency`
    pub static_pods_period: Duration,
    pub runtime_endpoint: String,
    pub state_dir: PathBuf,
    pub root_dir: PathBuf,
    pub run_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    pub container_logs_dir: PathBuf,
    pub cluster_cidrs: Vec<String>,
    pub service_cidrs: Vec<String>,
    pub dns_address: Option<IpAddr>,
    /// What services are written in: nftables, ipvs, iptables or userspace.
    pub proxy_mode: String,
    /// No local process is to take a service's node port.
    pub hold_node_ports: bool,
    /// Ranges, or `primary`.
    pub node_port_addresses: Vec<String>,
    pub proxy_health: Option<std::net::SocketAddr>,
    pub proxy_metrics: Option<std::net::SocketAddr>,
    /// First and last.
    pub node_ports: (u16, u16),
    /// Where the API is served over TLS; None: on the socket alone.
    pub api_address: Option<std::net::SocketAddr>,
    /// Files: tokens (`token,user,uid,"group,group"`), and who has which role.
    pub api_tokens: Option<PathBuf>,
    pub api_roles: Option<PathBuf>,
    /// Where the kubelet's own port is served; None: nowhere. And more of what a `KubeletConfiguration` says of it.
    pub kubelet_address: Option<std::net::SocketAddr>,
    pub kubelet_config: Option<PathBuf>,
    /// What else a `KubeletConfiguration` says.
    pub kubelet: super::kubelet::Settings,
    /// Services are served here; else another process does it.
    pub service_proxy: bool,
    pub cluster_domain: String,
    pub node_name: String,
    pub cgroup_driver: Driver,
    pub cgroup_root: String,
    pub max_pods: usize,
    pub parallel_starts: usize,
    /// Of a call to the runtime.
    pub request_timeout: Duration,
    /// None: this machine has no control plane.
    pub cluster: Option<cluster::Options>,
}

const QUEUE: usize = 1024;
/// How long the start waits for the runtime's first answer.
const GREETING: Duration = Duration::from_secs(10);
/// Where the DNS listens on the node, behind the service with the DNS address.
const DNS_PORT: u16 = 10_053;

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error(transparent)]
    Endpoint(#[from] client::InvalidEndpoint),
    #[error(transparent)]
    State(#[from] super::state_file::StateError),
    #[error(transparent)]
    Cgroup(#[from] super::cgroup_fs::CgroupError),
    #[error("--service-cidr: {0}")]
    ServiceRange(ParseRangeError),
    #[error("--cluster-cidr: {0}")]
    ClusterRange(ParseRangeError),
    #[error("--cluster-cidr or --nodeport-addresses: {0:?} is not an address range")]
    Cidr(String),
    #[error(transparent)]
    Dataplane(#[from] longshore_dataplane::StartError),
    #[error(transparent)]
    Dns(#[from] super::dns::DnsError),
    #[error(transparent)]
    Listen(#[from] server::ListenError),
    #[error(transparent)]
    Lock(#[from] process::LockError),
    #[error(transparent)]
    Api(#[from] super::api::config::ConfigError),
    #[error(transparent)]
    Port(#[from] super::port::open::OpenError),
    #[error(transparent)]
    Client(#[from] super::client::ClientError),
    #[error(transparent)]
    Certificates(#[from] cluster::certificates::CertificateError),
    #[error(transparent)]
    Join(#[from] cluster::JoinError),
}

/// Runs the daemon until it is told to stop.
pub async fn run(o: Options) -> Result<(), AssembleError> {
    // Secrets pass through the state; the socket guards itself.
    let _locks = (Lock::take(&o.state_dir, "lock", 0o700)?, Lock::take(&o.run_dir, "longshore.lock", 0o755)?);
    let client = Client::new(&client::Config { request_timeout: o.request_timeout, ..client::Config::new(&o.runtime_endpoint) })?;
    let (state, recovered) = StateDir::open(&o.state_dir)?;
    let state = Rc::new(state);
    let runtime = greet(&client, o.cgroup_driver).await;
    let layout = Layout::new(runtime.driver, &o.cgroup_root);
    let cgroups = Arc::new(CgroupFs::open(layout.clone())?);
    let facts = facts(&o);
    top_groups(&cgroups, &facts)?;
    tunables::set(std::path::Path::new("/proc/sys"));
    let services_ranges = ranges(&o)?;
    let node_ips = super::host_addresses::host_ips();
    let runtime_version = format!("{}://{}", runtime.name, runtime.version);
    let v2 = cgroups.version() == Version::V2;
    let stats = Arc::new(Reader::new(places(&o, &layout, v2)));
    let config = node_config(&o, runtime.name, layout, v2);
    let (to, events) = mpsc::channel(QUEUE);
    let (ask, questions) = mpsc::channel(QUEUE);
    let (exited, exits) = mpsc::channel(QUEUE);
    let lone = Lone::new(services_ranges, &o.node_name, services::given(&o.state_dir));
    let dataplane = o.service_proxy.then(|| start_dataplane(&o, &node_ips)).transpose()?;
    let rules = crate::manifest::Rules { node_ports: o.node_ports, ..crate::manifest::Rules::default() };
    let (files, wishes) = door::door();
    let files: Rc<dyn Files> = match &o.cluster {
        None => Rc::new(files),
        Some(member) => {
            cluster::certificates::prepare(&member.certificates, &member.kubeconfig)?;
            Rc::new(cluster::Elsewhere { server: super::client::read(&member.kubeconfig)?.server.url() })
        }
    };
    let show = Show::new(start_api(&o, &rules, files)?, &o.node_name);
    let services = Rc::new(Services::new(lone, dataplane.clone(), &o.state_dir, to.clone(), Some(show.clone())));
    tokio::task::spawn_local(services.clone().record_events());
    if o.cluster.is_none() {
        start_dns(&o, &services, &node_ips).await?;
    }
    let observer = Observer::new(client.clone(), exited);
    let lanes = Lanes::default();
    let housekeeping = Housekeeping {
        ask: ask.clone(),
        client: client.clone(),
        cgroups: cgroups.clone(),
        lanes: lanes.clone(),
        pods: o.root_dir.join("pods"),
        pod_logs: o.pod_logs_dir.clone(),
        container_logs: o.container_logs_dir.clone(),
    };
    tokio::task::spawn_local(housekeeping.run());
    let executor = Executor { client: client.clone(), observer: observer.clone(), cgroups, lanes, state: state.clone() };
    let changes: Rc<Changes> = Rc::default();
    let (listener, _place) = server::listen(&o.run_dir)?;
    let programmed = services.clone();
    let programmed = async move {
        if let Some(d) = programmed.dataplane()
            && d.wait_programmed(0).await.is_err()
        {
            tracing::error!("the data plane ended before it had programmed anything");
        }
    };
    tokio::task::spawn_local(process::report(ask.clone(), programmed));
    tokio::task::spawn_local(process::trim());
    let (ask_node, ask_health) = (ask.clone(), ask.clone());
    let server = Server {
        ask,
        services: services.clone(),
        changes: changes.clone(),
        client: client.clone(),
        node_name: o.node_name.clone(),
        idle: PortConfig::default().streaming_connection_idle_timeout.0,
    };
    show.api().set_node(Rc::new(server.clone()));
    tokio::task::spawn_local(api::serve(show.api().clone(), Door::Unix(listener)));
    let port_config = super::port::open::settings(&o)?;
    let port = port_config.as_ref().filter(|c| c.enable_server).map_or(0, |c| c.port);
    let info = machine::info(&runtime_version, &facts.architecture);
    let about = About { facts: facts.clone(), info, port, ..About::default() };
    open_door(&o, show.api()).await?;
    let probes = Rc::new(super::prober::Counts::default());
    super::plugins::start(&o.root_dir, server.clone());
    let of_cluster = o.cluster.as_ref().map(|member| cluster::client(member, &about)).transpose()?;
    if let Some(config) = port_config {
        let home = match &of_cluster {
            None => Home::Lone(show.api().clone()),
            Some(c) => Home::Cluster(cluster::reviews(c), about.facts.host_ips.clone()),
        };
        super::port::open::open(&o, config, With { home, server, stats, probes: probes.clone() }).await?;
    }
    let ready = Ready::new(1 + usize::from(o.static_pods.is_some()), to.clone());
    let mut listeners: Vec<Rc<dyn PodListener>> = vec![changes, show.clone()];
    match o.cluster.as_ref().zip(of_cluster) {
        None => {
            listeners.insert(0, services.clone());
            tokio::task::spawn_local(node_object::keep(show.clone(), ask_node, about));
        }
        Some((member, of_cluster)) => {
            let (to, ready) = (to.clone(), ready.clone());
            let parts = cluster::Parts { to, ask: ask_health, runtime: client.clone(), about, dataplane, ready };
            listeners.extend(cluster::join(member, of_cluster, parts)?);
        }
    }
    let event_loop = EventLoop {
        node: NodeState::new(config, facts, recovered),
        recorder: Recorder::default(),
        client: client.clone(),
        observer: observer.clone(),
        images: Images::new(client.clone(), o.kubelet.parallel_pulls, to.clone()),
        runner: Runner::new(executor, to.clone(), o.parallel_starts),
        state,
        listeners,
        events,
        to_self: to.clone(),
        questions,
        flush_at: None,
        probes,
        beat: Rc::new(RefCell::new(clock::mono())),
    };
    tokio::task::spawn_local(lookout::health(client.clone(), to.clone()));
    tokio::task::spawn_local(lookout::relist(observer.clone(), to.clone()));
    tokio::task::spawn_local(lookout::exits(client.clone(), observer, exits, to.clone()));
    tokio::task::spawn_local(lookout::events(client, to.clone()));
    if o.cluster.is_none() {
        let directory = Manifests::new(o.manifests.clone(), &o.state_dir, rules);
        let set_services = Box::new(move |list, slices| services.set_objects(list, slices));
        let ready = ready.clone();
        tokio::task::spawn_local(directory.run(Tell { to: to.clone(), set_services, show: Some(show), ready }, wishes));
    }
    if let Some(path) = o.static_pods.clone() {
        let statics = Statics::new(path, &o.node_name, o.static_pods_period);
        tokio::task::spawn_local(statics.run(to, ready));
    }
    event_loop.run().await;
    Ok(())
}

/// The service proxy.
fn start_dataplane(o: &Options, node_ips: &[IpAddr]) -> Result<Rc<Dataplane>, AssembleError> {
    let dataplane = Rc::new(Dataplane::start(dataplane_config(o, node_ips)?)?);
    // A kernel that lacks the mode has got another.
    ProxySettings { mode: dataplane.status().mode.into(), ..settings(o) }.write(&o.run_dir);
    if o.cluster.is_none() {
        // Packets to addresses of services that are none must not leave the machine.
        let spec = ServiceCidrSpec { cidrs: o.service_cidrs.clone() };
        dataplane.apply(Change::SetServiceCidr(Arc::new(ServiceCidr { spec, ..ServiceCidr::default() })));
    }
    Ok(dataplane)
}

/// The API of this node, without its doors.
fn start_api(o: &Options, rules: &crate::manifest::Rules, files: Rc<dyn Files>) -> Result<Rc<Api>, AssembleError> {
    let roles = match &o.api_roles {
        Some(path) => super::api::config::roles(path)?,
        None => crate::api::access::Roles::default(),
    };
    let context = crate::api::write::Context { rules: rules.clone(), node: o.node_name.clone(), lone: true };
    let parts = api::Parts {
        context,
        roles,
        credentials: Credentials::default(),
        state: Some(Journal::open(&o.state_dir.join("api.jsonl"))?),
        files: Some(files),
        node: None,
        limits: api::Limits::default(),
    };
    Ok(Api::start(parts))
}

/// The port for clients that cannot use the socket, where one is wished for.
async fn open_door(o: &Options, api: &Rc<Api>) -> Result<(), AssembleError> {
    let Some(address) = o.api_address else {
        if o.kubelet_address.is_some() {
            // Whoever comes to the kubelet's port is known by the same tokens.
            let pki = super::api::pki::Pki::open(&o.state_dir.join("pki")).map_err(super::api::config::ConfigError::from)?;
            api.set_credentials(super::api::config::credentials(&pki, o.api_tokens.as_deref())?);
        }
        return Ok(());
    };
    let config = super::api::config::open(&o.state_dir, address, o.api_tokens.as_deref())?;
    api.set_credentials(config.credentials);
    api.set_issuer(config.issuer);
    let at = |source| AssembleError::Api(super::api::config::ConfigError::Listen { address, source });
    let listener = tokio::net::TcpListener::bind(address).await.map_err(at)?;
    tracing::info!(%address, "the API is served; longshore kubeconfig prints what kubectl needs");
    let tls = config.tls;
    tokio::task::spawn_local(api::serve(api.clone(), Door::Tls(listener, Arc::new(move || Some(tls.clone())))));
    Ok(())
}

/// What the runtime says of itself at the start.
struct Greeting {
    name: String,
    version: String,
    driver: Driver,
}

/// Asks for the runtime's name and cgroup driver. A runtime that is not up yet is waited for a while; after
/// that the configuration stands, and the node says why it does not serve.
async fn greet(client: &Client, configured: Driver) -> Greeting {
    let deadline = tokio::time::Instant::now() + GREETING;
    let (name, version) = loop {
        match client.version().await {
            Ok(v) => break (v.runtime_name, v.runtime_version),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                tracing::warn!(%error, "the runtime does not answer; going on as for containerd");
                break ("containerd".into(), "Unknown".into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let driver = match client.runtime_config().await {
        Ok(CgroupDriver::Systemd) => Driver::Systemd,
        Ok(CgroupDriver::Cgroupfs) => Driver::Cgroupfs,
        // Before containerd 2.0 only the configuration can tell.
        Err(_) => configured,
    };
    if driver != configured {
        tracing::warn!(?driver, ?configured, "the runtime's cgroup driver is used instead of the configured one");
    }
    Greeting { name, version, driver }
}

/// The groups above all pods, bounded by what the machine has. Shares of the QoS classes follow their pods.
fn top_groups(cgroups: &CgroupFs, facts: &NodeFacts) -> Result<(), super::cgroup_fs::CgroupError> {
    let layout = cgroups.layout();
    let cores = facts.allocatable.get("cpu").map_or(1000, |n| crate::pod::resources::to_milli(*n));
    cgroups.apply(&layout.kubepods(), &values::node_values(cores, facts.memory_bytes, max_pids()))?;
    cgroups.apply(&layout.qos(QosClass::Burstable), &CgroupValues::default())?;
    cgroups.apply(&layout.qos(QosClass::BestEffort), &values::qos_values(QosClass::BestEffort, std::iter::empty()))
}

/// Processes and threads that the kernel can have at once.
fn max_pids() -> Option<i64> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse::<i64>().ok();
    [read("pid_max"), read("threads-max")].into_iter().flatten().min()
}

fn ranges(o: &Options) -> Result<Ranges, AssembleError> {
    let services = o.service_cidrs.iter().map(|t| Range::parse(t)).collect::<Result<_, _>>().map_err(AssembleError::ServiceRange)?;
    Ok(Ranges { services, node_ports: o.node_ports, reserved: o.dns_address.into_iter().collect() })
}

fn dataplane_config(o: &Options, node_ips: &[IpAddr]) -> Result<longshore_dataplane::Config, AssembleError> {
    let families = Family::ALL.into_iter().filter(|f| {
        let v4 = *f == Family::V4;
        o.service_cidrs.iter().any(|c| c.contains(':') != v4)
    });
    let servers = Servers { health: o.proxy_health, metrics: o.proxy_metrics, ..Servers::default() };
    let base = settings(o).config(node_ips).map_err(|NoRange(text)| AssembleError::Cidr(text))?;
    let hold_node_ports = o.hold_node_ports;
    Ok(longshore_dataplane::Config { servers, hold_node_ports, fall_back: true, families: families.collect(), ..base })
}

/// What commands are to know of the service proxy.
fn settings(o: &Options) -> ProxySettings {
    ProxySettings {
        mode: o.proxy_mode.clone(),
        node_name: o.node_name.clone(),
        cluster_cidrs: o.cluster_cidrs.clone(),
        service_cidrs: o.service_cidrs.clone(),
        node_port_addresses: o.node_port_addresses.clone(),
    }
}

/// Starts the DNS where pods are told to look for it.
async fn start_dns(o: &Options, services: &Rc<Services>, node_ips: &[IpAddr]) -> Result<(), AssembleError> {
    let Some(address) = o.dns_address else { return Ok(()) };
    let Some(ip) = node_ips.iter().copied().find(|ip| ip.is_ipv4() == address.is_ipv4()) else { return Ok(()) };
    let host = Resolv::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let clients = o.cluster_cidrs.iter().map(|t| Range::parse(t)).collect::<Result<_, _>>().map_err(AssembleError::ClusterRange)?;
    let upstream = host.servers.iter().filter_map(|s| s.parse().ok()).filter(|s| *s != address).collect();
    let dns = Rc::new(Dns { services: services.clone(), domain: o.cluster_domain.clone(), upstream, clients, own: node_ips.to_vec() });
    // The same port over restarts, so that the kernel's rules need no change; any other if it is taken.
    let port = match dns.listen(ip, DNS_PORT).await {
        Ok(port) => port,
        Err(_) => dns.listen(ip, 0).await?,
    };
    let (service, slice) = super::dns::service(address, ip, port);
    services.add_own(service, slice);
    Ok(())
}

fn node_config(o: &Options, runtime_name: String, cgroups: Layout, cgroup_v2: bool) -> NodeConfig {
    let text = |p: &std::path::Path| p.to_string_lossy().trim_end_matches('/').to_owned();
    NodeConfig {
        root_dir: text(&o.root_dir),
        pod_logs_dir: text(&o.pod_logs_dir),
        container_logs_dir: text(&o.container_logs_dir),
        cgroups,
        cgroup_v2,
        pod_pids_limit: o.kubelet.pod_pids_limit,
        cluster_domain: o.cluster_domain.clone(),
        cluster_dns: o.dns_address.into_iter().chain(o.kubelet.cluster_dns.iter().copied()).collect(),
        host_resolv: Resolv::parse(&o.kubelet.host_resolv()),
        limits: o.kubelet.restarts,
        max_pods: o.max_pods,
        seccomp_default: o.kubelet.seccomp_default,
        allowed_unsafe_sysctls: o.kubelet.allowed_unsafe_sysctls.clone(),
        single_process_oom_kill: o.kubelet.single_process_oom_kill,
        runtime_name,
        started: clock::now().wall,
    }
}

fn places(o: &Options, layout: &Layout, v2: bool) -> Places {
    let (cgroups, proc) = (PathBuf::from("/sys/fs/cgroup"), PathBuf::from("/proc"));
    Places { node: o.node_name.clone(), layout: layout.clone(), v2, cgroups, proc, root_dir: o.root_dir.clone() }
}

/// A lone node has all that it is known by, a member of a cluster what a kubelet has.
fn host_ips(o: &Options) -> Vec<IpAddr> {
    let found = super::host_addresses::host_ips();
    if o.cluster.is_some() { super::host_addresses::of_member(found, &o.kubelet.node_ips) } else { found }
}

fn facts(o: &Options) -> NodeFacts {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory_bytes();
    let nano = crate::pod::resources::NANO;
    let huge = machine::huge_pages();
    let for_all = i128::from(memory) - huge.iter().map(|(_, bytes)| bytes).sum::<i128>();
    let mut allocatable = BTreeMap::from([
        ("cpu".to_owned(), i128::try_from(cores).unwrap_or(1) * nano),
        ("memory".to_owned(), for_all.max(0) * nano),
        ("pods".to_owned(), i128::try_from(o.max_pods).unwrap_or(110) * nano),
    ]);
    allocatable.extend(huge.into_iter().map(|(size, bytes)| (format!("hugepages-{size}"), bytes * nano)));
    let disk = machine::disk(&o.root_dir);
    if disk > 0 {
        allocatable.insert("ephemeral-storage".into(), i128::from(disk) * nano);
    }
    NodeFacts {
        name: o.node_name.clone(),
        host_ips: host_ips(o),
        allocatable,
        memory_bytes: memory,
        architecture: architecture().into(),
        ..NodeFacts::default()
    }
}

/// As Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_bytes() -> i64 {
    use procfs::Current as _;
    procfs::Meminfo::current().map_or(0, |m| i64::try_from(m.mem_total).unwrap_or(i64::MAX))
}
