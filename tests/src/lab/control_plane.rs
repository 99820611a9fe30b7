//! A control plane for a node under test: the API of a lone node, served over TLS in the node's namespace, behind a
//! relay that can lose the connection in every way that a network can.

use super::Home;
use super::client::{Request, Response, http_on};
use super::net::Namespace;
use super::wait::wait_for;
use anyhow::{Context, Result, ensure};
use longshore::api::Query;
use longshore::api::access::{BOOTSTRAP, Roles};
use longshore::run::api::pki::Pki;
use longshore::run::api::signing::{self, Approval};
use longshore::run::api::{Api, Door, Limits, Parts, config, serve};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};

const SERVER: &str = "127.0.0.1:6443";
const RELAY: &str = "127.0.0.1:6444";
const SOON: Duration = Duration::from_secs(60);

/// What the network does to those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Good,
    /// Nobody listens, and who was connected is cut off.
    Down,
    /// Connections stay, and nothing passes any more.
    Silent,
}

/// How it signs certificates.
#[derive(Clone, Copy, Debug)]
pub struct Signing {
    pub approval: Approval,
    /// How long they are good at most.
    pub life: Duration,
}

impl Default for Signing {
    fn default() -> Signing {
        Signing { approval: Approval::OfNodes, life: signing::MOST }
    }
}

/// A bootstrap token of its.
const TOKEN: &str = "abcdef.0123456789abcdef";

type Job = Box<dyn FnOnce(&Rc<Api>) + Send>;

/// A running one. Its thread ends with it.
pub struct ControlPlane {
    pub kubeconfig: PathBuf,
    /// Its authority: `ca.crt` and what belongs to it.
    pub pki: PathBuf,
    /// A kubeconfig with a bootstrap token.
    pub bootstrap: PathBuf,
    socket: PathBuf,
    line: watch::Sender<(Line, u64)>,
    jobs: mpsc::UnboundedSender<Job>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ControlPlane {
    /// Serves in `namespace`, for a node of this name.
    pub fn start(home: &Home, namespace: &Namespace, node: &str, signing: Signing) -> Result<ControlPlane> {
        let base = home.directory("control-plane")?;
        let (socket, kubeconfig, bootstrap) = (base.join("api.sock"), base.join("node.conf"), base.join("bootstrap.conf"));
        let own = base.join("pki");
        let inside = fs::File::open(namespace.path())?;
        let (line, lines) = watch::channel((Line::Good, 0));
        let (jobs, mut todo) = mpsc::unbounded_channel::<Job>();
        let (ready, is_ready) = oneshot::channel();
        let (node, unix) = (node.to_owned(), socket.clone());
        let thread = std::thread::spawn(move || {
            let run = async {
                setns(inside.as_fd(), CloneFlags::CLONE_NEWNET)?;
                let address: SocketAddr = SERVER.parse()?;
                let tokens = base.join("tokens");
                fs::write(&tokens, format!("{TOKEN},system:bootstrap:abcdef,,\"{BOOTSTRAP}\"\n"))?;
                let config = config::open(&base, address, Some(&tokens))?;
                let pki = config.issuer.pki();
                fs::write(base.join("bootstrap.conf"), bootstrap_config(&base.join("pki/ca.crt"))?)?;
                let mut query = Query::default();
                query.push("user", format!("system:node:{node}"));
                query.push("group", "system:nodes");
                query.push("server", format!("https://{RELAY}"));
                let text = config.issuer.kubeconfig(&query).map_err(|f| anyhow::anyhow!(f.message))?;
                fs::write(base.join("node.conf"), text)?;
                let rules = longshore::manifest::Rules { control_plane: true, ..Default::default() };
                let context = longshore::api::write::Context { rules, ..Default::default() };
                let api = Api::start(Parts {
                    context,
                    roles: Roles::default(),
                    credentials: config.credentials,
                    state: None,
                    files: None,
                    node: None,
                    limits: Limits::default(),
                });
                api.make_standard_namespaces();
                api.sign_requests_for(pki, signing.approval, signing.life);
                tokio::task::spawn_local(serve(api.clone(), Door::Unix(UnixListener::bind(&unix)?)));
                let tls = config.tls;
                tokio::task::spawn_local(serve(
                    api.clone(),
                    Door::Tls(TcpListener::bind(address).await?, std::sync::Arc::new(move || Some(tls.clone()))),
                ));
                tokio::task::spawn_local(relay(lines));
                // Whoever waits is there.
                let _ = ready.send(());
                while let Some(job) = todo.recv().await {
                    job(&api);
                }
                anyhow::Ok(())
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
            if let Err(error) = tokio::task::LocalSet::new().block_on(&runtime, run) {
                eprintln!("the control plane ended: {error:?}");
            }
        });
        is_ready.blocking_recv().context("the control plane did not start")?;
        Ok(ControlPlane { kubeconfig, pki: own, bootstrap, socket, line, jobs, thread: Some(thread) })
    }

    /// What happens to connections from now on.
    pub fn line(&self, line: Line) {
        self.line.send_modify(|(l, n)| (*l, *n) = (line, *n + 1));
    }

    /// Cuts everyone off once.
    pub fn cut(&self) {
        self.line(Line::Down);
        self.line(Line::Good);
    }

    /// Does something with the server itself.
    pub fn with<T: Send + 'static>(&self, work: impl FnOnce(&Rc<Api>) -> T + Send + 'static) -> Result<T> {
        let (to, from) = oneshot::channel();
        let job: Job = Box::new(move |api| drop(to.send(work(api))));
        self.jobs.send(job).ok().context("the control plane has ended")?;
        from.blocking_recv().context("the control plane has ended")
    }

    /// The server forgets what happened: watchers have to begin anew.
    pub fn compact(&self) -> Result<()> {
        self.with(|api| api.compact())
    }

    /// The authority of its clients and its nodes.
    pub fn pki(&self) -> Result<Pki> {
        Ok(Pki::open(&self.socket.with_file_name("pki"))?)
    }

    /// As an administrator.
    pub fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Response> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request { method, path, headers: &[("content-type", kind)], body: body.as_bytes() };
        http_on(&self.socket, &request, SOON)
    }

    fn done(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Value> {
        let answer = self.ask(method, path, kind, body)?;
        ensure!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.done("POST", path, "application/json", object)
    }

    /// A merge patch.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<Value> {
        self.done("PATCH", path, "application/merge-patch+json", patch)
    }

    pub fn delete(&self, path: &str) -> Result<Value> {
        self.done("DELETE", path, "application/json", &Value::Null)
    }

    /// None: it is not there.
    pub fn get(&self, path: &str) -> Result<Option<Value>> {
        let answer = self.ask("GET", path, "", &Value::Null)?;
        ensure!(matches!(answer.status, 200 | 404), "GET {path}: {} {}", answer.status, answer.text());
        if answer.status == 404 { Ok(None) } else { Ok(Some(serde_json::from_slice(&answer.body)?)) }
    }

    /// A pod bound to this node.
    pub fn bind(&self, name: &str, node: &str, spec: Value) -> Result<Value> {
        let mut pod = json!({"metadata": {"name": name}, "spec": spec});
        pod["spec"]["nodeName"] = node.into();
        self.create("/api/v1/namespaces/default/pods", &pod)
    }

    /// Waits until an object is as it should be.
    pub fn wait(&self, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = None;
        let got = wait_for(what, SOON, || -> Result<Option<Value>> {
            last = self.get(path)?;
            Ok(last.clone().filter(&is))
        });
        got.with_context(|| format!("{path} is {}", last.map_or_else(|| "not there".to_owned(), |v| format!("{v:#}"))))
    }

    pub fn wait_gone(&self, path: &str) -> Result<()> {
        wait_for("it is gone", SOON, || Ok::<_, anyhow::Error>(self.get(path)?.is_none().then_some(()))).with_context(|| path.to_owned())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let (end, _) = mpsc::unbounded_channel();
        drop(std::mem::replace(&mut self.jobs, end));
        if let Some(t) = self.thread.take() {
            // What it panicked with was printed.
            let _ = t.join();
        }
    }
}

/// As kubeadm writes it, with the authority in a file.
fn bootstrap_config(authority: &Path) -> Result<String> {
    Ok(serde_json::to_string(&json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "tls-bootstrap-token-user@kubernetes",
        "clusters": [{"name": "kubernetes", "cluster": {"certificate-authority": authority, "server": format!("https://{RELAY}")}}],
        "contexts": [{"name": "tls-bootstrap-token-user@kubernetes", "context": {"cluster": "kubernetes", "user": "tls-bootstrap-token-user"}}],
        "users": [{"name": "tls-bootstrap-token-user", "user": {"token": TOKEN}}],
    }))?)
}

/// Passes bytes between those who connect and the server, as the line is.
async fn relay(mut line: watch::Receiver<(Line, u64)>) {
    loop {
        if line.borrow_and_update().0 == Line::Down {
            // The sender's end is the end of the test.
            if line.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Ok(listener) = TcpListener::bind(RELAY).await else { return };
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((from, _)) = accepted {
                    tokio::task::spawn_local(pass(from, line.clone()));
                },
                changed = line.changed() => match changed {
                    Err(_) => return,
                    Ok(()) if line.borrow().0 == Line::Down => break,
                    Ok(()) => {}
                },
            }
        }
    }
}

async fn pass(mut from: TcpStream, mut line: watch::Receiver<(Line, u64)>) {
    let (_, began) = *line.borrow_and_update();
    let Ok(mut to) = TcpStream::connect(SERVER).await else { return };
    tokio::select! {
        // Either side's end is the other's.
        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => return,
        changed = line.wait_for(|(_, serial)| *serial != began) => match changed.map(|l| l.0) {
            // The peers are held, and hear nothing.
            Ok(Line::Silent) => {}
            _ => return,
        },
    }
    // An end of the sender is an end as well.
    let _ = line.changed().await;
}
