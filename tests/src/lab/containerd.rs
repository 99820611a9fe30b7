//! A private containerd: its own root, state, socket, configuration and pods' network.
//!
//! Must never touch another containerd of the machine. It may be restarted, or killed, under running
//! pods: the shims stay, as on a real node.

use super::containerd_config::{Settings, format_2, format_3};
use super::image::{Archive, PAUSE};
use super::net::{Namespace, output};
use super::process::Running;
use super::wait::wait_for;
use super::{Home, PodNetwork, cni};
use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Longer than any start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// containerd leaves within moments of a TERM; its shims stay.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// CRI's images and containers live in this containerd namespace.
const NAMESPACE: &str = "k8s.io";
/// The file that tells which containerd the directory belongs to.
const BINARY: &str = "binary";
const CAP_SYS_RESOURCE: u32 = 24;

/// A containerd to run, with the programs that come with it in the same directory.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
    major: u32,
    minor: u32,
}

impl Binary {
    /// The machine's own.
    pub fn in_path() -> Result<Binary> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).map(|dir| dir.join("containerd")).find(|path| path.exists());
        Binary::at(&found.context("no containerd in PATH: install the package containerd")?)
    }

    /// The machine's own and a 2.x, which is fetched and kept when it is not there yet.
    pub fn every() -> Result<Vec<Binary>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup/containerd2.sh");
        let fetched = output(Command::new(script)).context("cannot get containerd 2.x")?;
        Ok(vec![Binary::in_path()?, Binary::at(Path::new(fetched.trim()))?])
    }

    /// The containerd at `path`.
    pub fn at(path: &Path) -> Result<Binary> {
        let mut command = Command::new(path);
        command.arg("--version");
        let said = output(command)?;
        let (major, minor) = version(&said).with_context(|| format!("no version in {said:?}"))?;
        Ok(Binary { path: path.to_owned(), major, minor })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor version.
    pub fn version(&self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// A program that belongs to it (`ctr`), run with its directory first in PATH, where it finds its
    /// shim.
    fn command(&self, program: &str) -> Command {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let paths = [directory.to_owned()].into_iter().chain(std::env::split_paths(&rest));
        let mut command = Command::new(directory.join(program));
        command.env("PATH", std::env::join_paths(paths).expect("came from PATH"));
        command
    }
}

/// `containerd github.com/containerd/containerd 1.6.20~ds1 …` has the version in its third word.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_whitespace().nth(2)?.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A running containerd; killed when dropped, with what it runs left to its [`Home`].
pub struct Containerd {
    binary: Binary,
    base: PathBuf,
    cgroup: String,
    namespace: Option<PathBuf>,
    registries: PathBuf,
    running: Option<Running>,
}

impl Containerd {
    /// Starts one in the lab `home`, in `namespace` (the machine's own network when `None`), and
    /// waits until its CRI service answers.
    pub fn start(binary: &Binary, home: &Home, namespace: Option<&Namespace>, network: &PodNetwork) -> Result<Containerd> {
        let base = home.directory("containerd")?;
        let registries = home.directory("registries")?;
        let settings = Settings {
            base: &base,
            pause_image: PAUSE,
            snapshotter: if overlayfs_works(&base)? { "overlayfs" } else { "native" },
            cni_plugins: &cni::plugins()?,
            cni_configuration: &network.write(home)?,
            registries: &registries,
            restrict_oom_score: !has_capability(CAP_SYS_RESOURCE)?,
            systemd: super::on_systemd(),
        };
        let configuration = match binary.major {
            1 => format_2(&settings),
            _ => format_3(&settings, binary.minor),
        };
        fs::write(base.join("config.toml"), configuration).context("cannot write config.toml")?;
        fs::write(base.join(BINARY), binary.path.display().to_string())?;
        let mut containerd = Containerd {
            binary: binary.clone(),
            base,
            cgroup: home.cgroup() + "/runtime",
            namespace: namespace.map(Namespace::path),
            registries,
            running: None,
        };
        containerd.launch()?;
        Ok(containerd)
    }

    /// The containerd that an earlier owner of `home` started, if any.
    pub fn previous(home: &Home) -> Result<Option<Binary>> {
        let path = fs::read_to_string(home.base().join("containerd").join(BINARY)).ok();
        path.map(|path| Binary::at(Path::new(&path))).transpose()
    }

    /// Its socket's path.
    pub fn socket(&self) -> PathBuf {
        self.base.join("containerd.sock")
    }

    /// The CRI endpoint as the daemon wants it: `unix:///…`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn binary(&self) -> &Binary {
        &self.binary
    }

    /// The directory with a sub-directory per registry host (`hosts.toml`).
    pub fn registries(&self) -> &Path {
        &self.registries
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.running.as_ref().map_or_else(String::new, Running::output)
    }

    /// Runs `ctr` against it, in the namespace of CRI and on the node's network (`ctr images pull`
    /// fetches in its own process).
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.binary.command("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", NAMESPACE]).args(arguments);
        if let Some(path) = &self.namespace {
            Namespace::open(path)?.adopt(&mut command);
        }
        output(command)
    }

    /// Runs a container without CRI: `ctr run OPTIONS IMAGE NAME ARGUMENTS`, in a cgroup of the lab
    /// and with runc's own records in the lab's directory, where equal names cannot meet.
    pub fn run(&self, options: &[&str], image: &str, name: &str, arguments: &[&str]) -> Result<String> {
        let records = self.base.join("runc").display().to_string();
        let cgroup = format!("{}/{name}", self.cgroup);
        let places = ["run", "--runc-root", &records, "--cgroup", &cgroup];
        self.ctr(&[&places[..], options, &[image, name], arguments].concat())
    }

    /// Makes an image known to it.
    pub fn import(&self, archive: &Archive) -> Result<()> {
        let path = self.base.join("import.tar");
        fs::write(&path, archive.to_tar()).with_context(|| format!("cannot write {}", path.display()))?;
        let file = path.display().to_string();
        self.ctr(&["images", "import", &file]).with_context(|| format!("cannot import {}", archive.name))?;
        fs::remove_file(&path).ok();
        Ok(())
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill_nine`](Self::kill_nine).
    pub fn launch(&mut self) -> Result<()> {
        // A socket of a killed run would be taken for a sign of life.
        fs::remove_file(self.socket()).ok();
        let mut command = self.binary.command("containerd");
        command.arg("--config").arg(self.base.join("config.toml"));
        let namespace = self.namespace.as_deref().map(Namespace::open).transpose()?;
        let log = self.base.join("containerd.log");
        self.running = Some(Running::start(command, &log, namespace.as_ref(), &self.cgroup)?);
        wait_for("containerd answers", START_LIMIT, || self.cri_is_up())
            .flatten()
            .with_context(|| format!("containerd does not start; it logged:\n{}", self.log()))
    }

    /// TERM; pods go on running.
    pub fn stop(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |mut running| running.stop(STOP_LIMIT).map(|_| ()))
    }

    /// `kill -9`; pods go on running.
    pub fn kill_nine(&mut self) {
        self.running.take();
    }

    fn cri_is_up(&mut self) -> Result<Option<Result<()>>> {
        if let Some(status) = self.running.as_mut().and_then(Running::ended) {
            return Ok(Some(Err(anyhow!("it ended: {status}"))));
        }
        if !self.socket().exists() {
            return Ok(None);
        }
        let plugins = self.ctr(&["plugins", "ls"])?;
        let cri = plugins.lines().find(|line| line.split_whitespace().nth(1) == Some("cri"));
        match cri.context("it has no CRI plugin")? {
            line if line.trim_end().ends_with("ok") => Ok(Some(Ok(()))),
            line => bail!("its CRI plugin is not ok: {line}"),
        }
    }
}

/// Tries an overlay mount where the snapshots will be.
fn overlayfs_works(base: &Path) -> Result<bool> {
    let probe = tempfile::Builder::new().prefix("overlay-probe").tempdir_in(base)?;
    let part = |name: &str| -> Result<PathBuf> {
        let path = probe.path().join(name);
        fs::create_dir(&path)?;
        Ok(path)
    };
    let (lower, upper, work, merged) = (part("lower")?, part("upper")?, part("work")?, part("merged")?);
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let mounted = mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    if mounted.is_ok() {
        umount(&merged).context("cannot unmount the overlay probe")?;
    }
    Ok(mounted.is_ok())
}

fn has_capability(number: u32) -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.context("no CapEff in status")?.trim(), 16)?;
    Ok(effective >> number & 1 == 1)
}

/// Runs the installed `ctr` against the containerd at a socket, in the namespace of CRI.
pub fn ctr(socket: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket).args(["--namespace", NAMESPACE]).args(arguments);
    output(command)
}
