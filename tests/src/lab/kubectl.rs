//! A real kubectl against a daemon's API.

use super::daemon::Daemon;
use super::net::{Namespace, output};
use anyhow::{Context, Result, ensure};
use std::cell::Cell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where the daemons of tests serve the API; each has a network of its own.
pub const API_ADDRESS: &str = "127.0.0.1:6443";

/// kubectl with a kubeconfig, run where the daemon runs.
pub struct Kubectl<'a> {
    namespace: &'a Namespace,
    binary: PathBuf,
    config: PathBuf,
    cache: PathBuf,
    count: Cell<usize>,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Debian unstable's kubectl, which is fetched and kept when it is not there yet.
pub fn fetch() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup/kubectl.sh");
    Ok(PathBuf::from(output(Command::new(script)).context("cannot get kubectl")?.trim()))
}

impl<'a> Kubectl<'a> {
    /// As the user whom `longshore kubeconfig` makes with these arguments.
    pub fn new(daemon: &Daemon, namespace: &'a Namespace, directory: &Path, arguments: &[&str]) -> Result<Kubectl<'a>> {
        let config = directory.join(format!("kubeconfig{}", arguments.join("-").replace('/', "-")));
        let mut all = vec!["kubeconfig"];
        all.extend(arguments);
        std::fs::write(&config, daemon.cli(&all)?)?;
        Ok(Kubectl { namespace, binary: fetch()?, config, cache: directory.join("kubectl-cache"), count: Cell::new(0) })
    }

    /// How many commands were given.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.count.set(self.count.get() + 1);
        let mut c = self.namespace.command(&self.binary);
        c.arg("--kubeconfig").arg(&self.config).arg("--cache-dir").arg(&self.cache).args(arguments).env("HOME", &self.cache);
        c
    }

    /// On a terminal of its own, which script(1) makes; what it shows.
    pub fn on_terminal(&self, arguments: &[&str]) -> Result<String> {
        self.count.set(self.count.get() + 1);
        let quoted = |a: &str| format!("'{}'", a.replace('\'', "'\\''"));
        let (binary, config) = (self.binary.display().to_string(), self.config.display().to_string());
        let line: Vec<String> = [&[&*binary, "--kubeconfig", &*config], arguments].concat().iter().map(|a| quoted(a)).collect();
        let mut c = self.namespace.command("script");
        c.args(["-q", "-e", "-c", &line.join(" "), "/dev/null"]).env("HOME", &self.cache).stdin(Stdio::null());
        output(c)
    }

    pub fn say(&self, arguments: &[&str], stdin: &str) -> Result<Said> {
        let mut child = self.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("no stdin")?.write_all(stdin.as_bytes())?;
        let Output { status, stdout, stderr } = child.wait_with_output()?;
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        Ok(Said { code: status.code(), out: text(stdout), err: text(stderr) })
    }

    /// What it prints; it must succeed.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        self.fed(arguments, "")
    }

    /// The same with something on its standard input.
    pub fn fed(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let said = self.say(arguments, stdin)?;
        ensure!(said.code == Some(0), "kubectl {}: {said:#?}", arguments.join(" "));
        Ok(said.out)
    }

    /// What it complains of; it must fail.
    pub fn refused(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let said = self.say(arguments, stdin)?;
        ensure!(said.code != Some(0), "kubectl {} was to fail: {said:#?}", arguments.join(" "));
        Ok(said.err)
    }
}
