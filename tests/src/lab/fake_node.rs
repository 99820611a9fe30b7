//! A daemon whose runtime is the one in memory: the whole process, with every fault a runtime can have.
//!
//! The daemon programs its kernel's services, so it lives in a network namespace that leads nowhere.

use super::control_plane::Signing;
use super::daemon::{Options, binary};
use super::net::Namespace;
use super::{ControlPlane, Daemon, Home};
use anyhow::{Context, Result};
use longshore_cri::fake::{FakeRuntime, Model, Options as FakeOptions};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// The image that every model has.
pub const APP: &str = "docker.io/library/app:1";
/// A specification of one container of it.
pub const ONE: &str = "{ containers: [ { name: main, image: 'app:1' } ] }";
/// Several back-offs of ten seconds fit in, when a busy machine lets a call miss its deadline.
const SOON: Duration = Duration::from_secs(60);

/// A daemon on a runtime in memory. Fields are dropped in order.
pub struct FakeNode {
    pub daemon: Daemon,
    pub namespace: Namespace,
    pub fake: FakeRuntime,
    runtime: tokio::runtime::Handle,
    /// Runs `fake` until it is dropped.
    _thread: Thread,
    _home: Home,
}

struct Thread(Option<tokio::sync::oneshot::Sender<()>>, Option<std::thread::JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.0.take());
        if let Some(t) = self.1.take() {
            // A panic of the runtime's thread was printed when it happened.
            let _ = t.join();
        }
    }
}

/// What a command printed.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl FakeNode {
    /// Starts a runtime as `script` leaves it, and a daemon on it.
    pub fn start(options: Options, runtime_options: FakeOptions, script: impl FnOnce(&mut Model)) -> Result<FakeNode> {
        let mut node = FakeNode::with(runtime_options, script, |_, _| Ok(options))?;
        node.daemon.launch()?;
        Ok(node)
    }

    /// The same as a member of a cluster.
    pub fn join(options: Options, runtime_options: FakeOptions, script: impl FnOnce(&mut Model)) -> Result<(ControlPlane, FakeNode)> {
        FakeNode::join_with(options, runtime_options, script, |_, _| Ok(()))
    }

    /// The same with options that depend on the control plane, or on files that are there before the daemon.
    pub fn join_with(
        options: Options,
        runtime_options: FakeOptions,
        script: impl FnOnce(&mut Model),
        more: impl FnOnce(&ControlPlane, &mut Options) -> Result<()>,
    ) -> Result<(ControlPlane, FakeNode)> {
        FakeNode::join_as(Signing::default(), options, runtime_options, script, |plane, _, options| {
            options.arguments.extend(["--kubeconfig".to_owned(), plane.kubeconfig.to_string_lossy().into_owned()]);
            more(plane, options)
        })
    }

    /// The same without a kubeconfig; options may also depend on the directory of everything.
    pub fn join_as(
        signing: Signing,
        options: Options,
        runtime_options: FakeOptions,
        script: impl FnOnce(&mut Model),
        more: impl FnOnce(&ControlPlane, &Path, &mut Options) -> Result<()>,
    ) -> Result<(ControlPlane, FakeNode)> {
        let mut plane = None;
        let mut node = FakeNode::with(runtime_options, script, |home, namespace| {
            let plane = plane.insert(ControlPlane::start(home, namespace, &options.node_name, signing)?);
            let mut options = options;
            more(plane, home.base(), &mut options)?;
            Ok(options)
        })?;
        node.daemon.launch()?;
        Ok((plane.context("made above")?, node))
    }

    /// A runtime, and a daemon that is not started yet.
    pub fn with(
        runtime_options: FakeOptions,
        script: impl FnOnce(&mut Model),
        options: impl FnOnce(&Home, &Namespace) -> Result<Options>,
    ) -> Result<FakeNode> {
        let home = Home::new()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let mut model = Model::new();
        model.preload(APP);
        script(&mut model);
        let fake = {
            let _inside = runtime.enter();
            FakeRuntime::serve(&home.base().join("cri.sock"), model, runtime_options)?
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            // The sender's end tells as well as a message.
            let _ = runtime.block_on(stopped);
        });
        let namespace = Namespace::create(&home, "node")?;
        let options = options(&home, &namespace)?;
        let daemon = Daemon::prepare(&home, Some(&namespace), &fake.endpoint(), options)?;
        Ok(FakeNode { daemon, namespace, fake, runtime: handle, _thread: Thread(Some(stop), Some(thread)), _home: home })
    }

    /// Puts a pod with this specification (YAML) into the directory.
    pub fn apply(&self, name: &str, spec: &str) -> Result<()> {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, labels: {{ app: {name} }} }}\nspec: {spec}\n");
        self.daemon.apply(&format!("{name}.yaml"), &text)
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        self.daemon.remove(&format!("{name}.yaml"))
    }

    /// Runs the command line, whatever comes of it.
    pub fn run(&self, arguments: &[&str]) -> Result<Said> {
        run(&self.daemon.socket().to_string_lossy(), arguments)
    }

    pub fn wait_for_phase(&self, name: &str, phase: &str) -> Result<Value> {
        let what = format!("in phase {phase}");
        let pod = self.daemon.wait_for_pod(("default", name), &what, SOON, |p| p["status"]["phase"] == phase);
        pod.with_context(|| format!("the daemon logged:\n{}", self.daemon.log()))
    }

    /// Waits until the runtime satisfies a condition.
    pub fn until(&self, what: &str, condition: impl Fn(&Model) -> bool) -> Result<()> {
        let waited = self.runtime.block_on(async { tokio::time::timeout(SOON, self.fake.until(condition)).await });
        waited.with_context(|| format!("not within {SOON:?}: {what}; the daemon logged:\n{}", self.daemon.log()))
    }

    /// The runtime goes away, and its socket with it.
    pub fn stop_runtime(&mut self) {
        self.fake.stop();
    }

    /// It comes back as it was.
    pub fn start_runtime(&mut self) -> Result<()> {
        let _inside = self.runtime.enter();
        self.fake.start().context("the runtime cannot be served again")
    }
}

/// The command line with the socket of a daemon that may not be there.
pub fn run(socket: &str, arguments: &[&str]) -> Result<Said> {
    let Output { status, stdout, stderr } =
        Command::new(binary()?).arg(arguments[0]).args(["--socket", socket]).args(&arguments[1..]).output()?;
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    Ok(Said { code: status.code(), out: text(stdout), err: text(stderr) })
}
