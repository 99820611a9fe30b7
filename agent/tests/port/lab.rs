//! A port for one test, credentials of every sort, and a client.

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore::api::access::{Attributes, NODE_GROUP, User};
use longshore::cgroup::{Driver, Layout};
use longshore::env::NodeFacts;
use longshore::lone::Lone;
use longshore::lone::addresses::Ranges;
use longshore::node::state::NodeConfig;
use longshore::node::{Event, NodeState, step};
use longshore::plan::backoff;
use longshore::port::PortConfig;
use longshore::run::api::pki::{Identity, Pki};
use longshore::run::clock;
use longshore::run::event_loop::Question;
use longshore::run::events::Recorder;
use longshore::run::port::{AccessAnswer, Parts, ReviewError, Reviews, Source, TlsError, TokenAnswer, start};
use longshore::run::prober;
use longshore::run::server::{Changes, Server};
use longshore::run::services::Services;
use longshore::run::stats::{Places, Reader};
use longshore_cri::client;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_rustls::client::TlsStream;

/// Nothing here takes so long; a test that hangs fails.
const DEADLINE: Duration = Duration::from_secs(120);
pub const NODE: &str = "n1";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// An API server that knows two tokens and what each may do.
#[derive(Default)]
pub struct Staff {
    pub token_questions: Cell<u32>,
    pub access_questions: Cell<u32>,
    pub asked: RefCell<Vec<(String, Attributes)>>,
    /// It does not answer.
    pub away: Cell<bool>,
    /// It takes for ever.
    pub slow: Cell<bool>,
    /// Whatever it said before, nobody is known and nothing is allowed now.
    pub changed_its_mind: Cell<bool>,
}

impl Reviews for Staff {
    fn token(&self, token: String, _: Vec<String>) -> LocalBoxFuture<'static, Result<TokenAnswer, ReviewError>> {
        self.token_questions.set(self.token_questions.get() + 1);
        let user = match token.as_str() {
            _ if self.changed_its_mind.get() => None,
            "t-admin" => Some(User::new("alice", &["admins"])),
            "t-reader" => Some(User::new("scraper", &["readers"])),
            _ => None,
        };
        let (away, slow) = (self.away.get(), self.slow.get());
        Box::pin(async move {
            if slow {
                std::future::pending::<()>().await;
            }
            if away { Err(ReviewError("away".into())) } else { Ok(TokenAnswer { user, audiences: Vec::new() }) }
        })
    }

    fn access(&self, user: User, a: Attributes) -> LocalBoxFuture<'static, Result<AccessAnswer, ReviewError>> {
        self.access_questions.set(self.access_questions.get() + 1);
        let reads = a.verb == "get" && ["metrics", "stats", "pods", "healthz"].contains(&a.sub.as_str());
        // Who has `get nodes/proxy` may read what the port shows.
        let proxies = user.is_in("proxies") && a.verb == "get" && a.sub == "proxy";
        let allowed = user.is_in("admins") || user.is_in("readers") && reads || proxies;
        let allowed = allowed && a.resource == "nodes" && a.name == NODE && !self.changed_its_mind.get();
        self.asked.borrow_mut().push((user.name, a));
        let away = self.away.get();
        Box::pin(
            async move { if away { Err(ReviewError("away".into())) } else { Ok(AccessAnswer { allowed, ..AccessAnswer::default() }) } },
        )
    }
}

pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub struct Port {
    pub staff: Rc<Staff>,
    pub pki: Rc<Pki>,
    pub address: SocketAddr,
    pub dir: TempDir,
}

/// Runs a test on a thread of its own, as the daemon runs the port.
fn alone(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(DEADLINE, test).await.expect("the test ends in time") });
}

/// A port that nobody else has now.
pub fn free() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A port as `shape` leaves its configuration, and a test for it.
pub fn with_port(shape: impl FnOnce(&mut PortConfig), test: impl AsyncFnOnce(&Port)) {
    alone(async {
        let port = Port::start(shape).await;
        test(&port).await;
    });
}

fn node_config() -> NodeConfig {
    NodeConfig {
        root_dir: "/nowhere".into(),
        pod_logs_dir: "/nowhere".into(),
        container_logs_dir: "/nowhere".into(),
        cgroups: Layout::new(Driver::Cgroupfs, ""),
        cgroup_v2: true,
        pod_pids_limit: -1,
        cluster_domain: "cluster.local".into(),
        cluster_dns: Vec::new(),
        host_resolv: Default::default(),
        limits: backoff::Limits::default(),
        max_pods: 110,
        seccomp_default: false,
        allowed_unsafe_sysctls: Vec::new(),
        single_process_oom_kill: false,
        runtime_name: "containerd".into(),
        started: clock::now().wall,
    }
}

/// A node with one pod that has not started.
fn node(mut questions: mpsc::Receiver<Question>) {
    tokio::task::spawn_local(async move {
        let mut node = NodeState::new(node_config(), NodeFacts::default(), BTreeMap::new());
        let pod = serde_json::json!({"metadata": {"name": "web", "namespace": "default", "uid": "u-1"},
            "spec": {"containers": [{"name": "main", "image": "app:1"}]}});
        step(&mut node, Event::SetPod(Arc::new(serde_json::from_value(pod).unwrap())), clock::now());
        let recorder = Recorder::default();
        while let Some(question) = questions.recv().await {
            question(&node, &recorder);
        }
    });
}

impl Port {
    async fn start(shape: impl FnOnce(&mut PortConfig)) -> Port {
        let dir = tempfile::tempdir().unwrap();
        let pki = Rc::new(Pki::open(&dir.path().join("pki")).unwrap());
        let mut config = PortConfig { healthz_port: 0, address: "127.0.0.1".parse().unwrap(), port: free(), ..PortConfig::default() };
        config.authentication.x509.client_ca_file = dir.path().join("pki/ca.crt").to_str().unwrap().into();
        shape(&mut config);
        let address = config.main();
        let (ask, questions) = mpsc::channel(16);
        node(questions);
        let (to_node, _) = mpsc::channel(16);
        let lone = Lone::new(Ranges { services: Vec::new(), node_ports: (1, 2), reserved: Vec::new() }, NODE, BTreeMap::new());
        let server = Server {
            ask,
            changes: Rc::new(Changes::default()),
            client: client::Client::new(&client::Config::new("unix:///nowhere/cri.sock")).unwrap(),
            node_name: NODE.into(),
            services: Rc::new(Services::new(lone, None, dir.path(), to_node, None)),
            idle: YEAR,
        };
        let places = Places {
            node: NODE.into(),
            layout: Layout::new(Driver::Cgroupfs, ""),
            v2: true,
            cgroups: "/sys/fs/cgroup".into(),
            proc: "/proc".into(),
            root_dir: dir.path().to_owned(),
        };
        let logs = dir.path().join("log");
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(logs.join("syslog"), "a line\n").unwrap();
        let staff = Rc::new(Staff::default());
        let own = pki.clone();
        let made = move || own.server(&["localhost".to_owned()], &["127.0.0.1".parse().unwrap()]).map_err(TlsError::from);
        let source = match config.tls_cert_file.as_str() {
            "" => Source::Made(Box::new(made)),
            file => Source::Files { certificate: PathBuf::from(file), key: PathBuf::from(&config.tls_private_key_file) },
        };
        let parts = Parts {
            configuration: serde_json::to_value(&config).unwrap(),
            config,
            node_name: NODE.into(),
            server,
            reviews: Some(staff.clone()),
            source,
            flags: vec![("v".into(), "2".into())],
            verbosity: Some(Rc::new(|n| if n < 10 { Ok(()) } else { Err("too much".into()) })),
            root_dir: dir.path().to_owned(),
            log_dir: logs,
            stats: Arc::new(Reader::new(places)),
            probes: Rc::new(prober::Counts::default()),
        };
        start(parts).await.unwrap();
        Port { staff, pki, address, dir }
    }

    /// Speaks TLS, as the owner of a certificate or nobody.
    pub async fn connect(&self, own: Option<&Identity>, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.trusting(self.pki.certificate(), own, protocol).await
    }

    /// The same, believing in this authority.
    pub async fn trusting(&self, authority: &str, own: Option<&Identity>, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        super::tls_client::connect(self.address, authority, own, protocol).await
    }

    pub async fn ask(&self, who: &Who, method: &str, path: &str) -> Answer {
        let stream = self.connect(who.certificate.as_ref(), "http/1.1").await.unwrap();
        talk(stream, who.request(method, path)).await.unwrap()
    }

    pub async fn get(&self, who: &Who, path: &str) -> Answer {
        self.ask(who, "GET", path).await
    }

    /// Somebody with a certificate of the port's own authority.
    pub fn member(&self, name: &str, groups: &[&str]) -> Who {
        Who { certificate: Some(self.pki.client(name, groups, YEAR).unwrap()), ..Who::default() }
    }

    /// The authority's key makes a certificate whose time is over, or anything else that `shape` makes of it.
    pub fn forged(&self, shape: impl FnOnce(&mut CertificateParams)) -> Who {
        let key = std::fs::read_to_string(self.dir.path().join("pki/ca.key")).unwrap();
        let authority = Issuer::from_ca_cert_pem(self.pki.certificate(), KeyPair::from_pem(&key).unwrap()).unwrap();
        Who { certificate: Some(issue(&authority, shape)), ..Who::default() }
    }
}

pub fn issue(authority: &Issuer<'_, KeyPair>, shape: impl FnOnce(&mut CertificateParams)) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut p = CertificateParams::default();
    p.distinguished_name.push(DnType::CommonName, "alice");
    p.distinguished_name.push(DnType::OrganizationName, "admins");
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    shape(&mut p);
    Identity { certificate: p.signed_by(&key, authority).unwrap().pem(), key: key.serialize_pem() }
}

/// Somebody with a certificate of an authority that nobody here has heard of.
pub fn stranger() -> Who {
    let key = KeyPair::generate().unwrap();
    let mut p = CertificateParams::default();
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Who { certificate: Some(issue(&Issuer::new(p, key), |_| {})), ..Who::default() }
}

/// What somebody shows.
#[derive(Clone, Default)]
pub struct Who {
    pub certificate: Option<Identity>,
    pub token: Option<&'static str>,
}

pub fn nobody() -> Who {
    Who::default()
}

pub fn token(token: &'static str) -> Who {
    Who { token: Some(token), ..Who::default() }
}

pub fn node_identity(port: &Port) -> Who {
    port.member("system:node:n2", &[NODE_GROUP])
}

impl Who {
    pub fn request(&self, method: &str, path: &str) -> Request<Empty<Bytes>> {
        let mut r = Request::builder().method(method).uri(path).header("host", "node");
        if let Some(token) = self.token {
            r = r.header("authorization", format!("Bearer {token}"));
        }
        r.body(Empty::new()).unwrap()
    }
}

/// One request on a connection of its own.
pub async fn talk(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let line = tokio::task::spawn_local(async {
        let _ = connection.await;
    });
    let (head, body) = sender.send_request(request).await?.into_parts();
    let answer = Answer { status: head.status.as_u16(), body: body.collect().await?.to_bytes() };
    line.abort();
    Ok(answer)
}

/// The same over HTTP/2.
pub async fn talk2(stream: TlsStream<TcpStream>, mut request: Request<Empty<Bytes>>) -> Result<Answer, hyper::Error> {
    let path = request.uri().to_string();
    *request.uri_mut() = format!("https://node{path}").parse().unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let line = tokio::task::spawn_local(async {
        let _ = connection.await;
    });
    let (head, body) = sender.send_request(request).await?.into_parts();
    let answer = Answer { status: head.status.as_u16(), body: body.collect().await?.to_bytes() };
    line.abort();
    Ok(answer)
}
