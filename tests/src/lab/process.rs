//! Processes, cgroups and mounts of a lab: starting, finding, ending, removing.
//!
//! What belongs to a lab is told by its cgroup, by its directory in the command line of a runtime's
//! process, or by the runtime's own record of a container's first process; nothing else is ended.

use super::net::Namespace;
use super::wait::wait_until;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Programs whose command line may name a lab's directory without being part of the lab are many (an
/// editor, `tail`); these are ours.
const PROGRAMS: &[&str] = &["containerd", "longshore", "docker-registry", "registry"];

/// A process that was started here; killed when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` with its output appended to `log`, in the network namespace and in the cgroup
    /// given (a path from the root of the hierarchies; made when absent).
    pub fn start(mut command: Command, log: &Path, namespace: Option<&Namespace>, cgroup: &str) -> Result<Running> {
        let output = fs::OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C at the terminal is for us; what we started is ended in order.
        command.process_group(0);
        // A mask of ours would be inherited, and keep TERM from what is to be ended with it.
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
        }
        join_cgroup(&mut command, cgroup)?;
        if let Some(namespace) = namespace {
            namespace.adopt(&mut command);
        }
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Running { child, log: log.to_owned() })
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids fit in i32")
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its exit status once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal).with_context(|| format!("cannot signal {}", self.pid()))
    }

    /// Asks with TERM; an error when it has not left within `limit` (it is killed then).
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        let left = wait_until("the process leaves on TERM", limit, || self.ended().is_some());
        if left.is_err() {
            self.kill_nine();
        }
        left?;
        self.child.wait().context("cannot wait for a child")
    }

    /// `kill -9`, and reaps it.
    pub fn kill_nine(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_nine();
    }
}

/// Makes a command's process enter a cgroup between fork and exec, so that nothing it starts escapes.
fn join_cgroup(command: &mut Command, cgroup: &str) -> Result<()> {
    let root = bookkeeping_root().context("no pids cgroup and no cgroup2 is mounted")?;
    let directory = root.join(cgroup.trim_start_matches('/'));
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let procs = directory.join("cgroup.procs");
    let procs = fs::OpenOptions::new().write(true).open(&procs).with_context(|| format!("cannot open {}", procs.display()))?;
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(move || enter_through(&procs));
    }
    Ok(())
}

fn enter_through(procs: &File) -> std::io::Result<()> {
    // SAFETY: a valid descriptor and a one-byte buffer; "0" stands for the writer itself.
    match unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) } {
        1 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The hierarchy in which the lab's own processes are kept together: v1's pids, else v2.
fn bookkeeping_root() -> Option<PathBuf> {
    let mounts = cgroup_mounts();
    let pids = mounts.iter().find(|(kind, options, _)| kind == "cgroup" && options.split(',').any(|option| option == "pids"));
    pids.or_else(|| mounts.iter().find(|(kind, ..)| kind == "cgroup2")).map(|(.., root)| root.clone())
}

/// (type, super options, mount point) of every cgroup mount.
fn cgroup_mounts() -> Vec<(String, String, PathBuf)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.len() > 3 && matches!(fields[2], "cgroup" | "cgroup2"))
        .map(|fields| (fields[2].to_owned(), fields[3].to_owned(), PathBuf::from(fields[1])))
        .collect()
}

/// Removes a cgroup and those below it from every hierarchy; a busy one stays.
pub fn remove_cgroups(cgroup: &str) {
    for (.., root) in cgroup_mounts() {
        remove_cgroup(&root.join(cgroup.trim_start_matches('/')));
    }
}

fn remove_cgroup(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    fs::remove_dir(directory).ok();
}

/// Kills all processes of a lab and waits until they are gone.
pub fn end_all(base: &Path, cgroup: &str, limit: Duration) -> Result<()> {
    let gone = wait_until("the lab's processes are gone", limit, || {
        let remaining = members(base, cgroup);
        for pid in &remaining {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        remaining.is_empty()
    });
    if gone.is_err() {
        bail!("processes {:?} do not go away", members(base, cgroup));
    }
    Ok(())
}

/// Kills the programs of exactly these names that have the lab's directory on their command line.
pub fn end_programs(base: &Path, names: &[&str], limit: Duration) -> Result<()> {
    wait_until("the lab's daemons are gone", limit, || {
        let remaining = living(|process| runs(process, base, |program| names.contains(&program)));
        for pid in &remaining {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        remaining.is_empty()
    })
}

/// The living processes of a lab.
fn members(base: &Path, cgroup: &str) -> Vec<i32> {
    let containers = containers(base);
    living(|process| is_member(process, base, cgroup, &containers))
}

/// The other living processes, given as `/proc/<pid>`, that `matches` holds for.
fn living(matches: impl Fn(&Path) -> bool) -> Vec<i32> {
    let own = std::process::id().to_string();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().into_string().ok());
    numbers
        .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && *pid != own)
        .filter(|pid| {
            let process = Path::new("/proc").join(pid);
            matches(&process) && !is_zombie(&process)
        })
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn is_member(process: &Path, base: &Path, cgroup: &str, containers: &[String]) -> bool {
    let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let below = |path: &str| path.strip_prefix(cgroup).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if paths().any(below) || containers.iter().any(|id| paths().any(|path| path.ends_with(id.as_str()))) {
        return true;
    }
    runs(process, base, |program| PROGRAMS.iter().any(|ours| program.starts_with(ours)))
}

/// Whether a process is a program of the given name with the lab's directory on its command line.
fn runs(process: &Path, base: &Path, named: impl Fn(&str) -> bool) -> bool {
    let arguments = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
    let mut arguments = arguments.split('\0');
    let program = arguments.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let about = |argument: &str| {
        let parts = argument.split(['=', ':']).map(|part| part.trim_start_matches("//"));
        parts.into_iter().any(|part| Path::new(part).starts_with(base))
    };
    named(program) && arguments.any(about)
}

fn is_zombie(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

/// Ids of the containers whose bundles the lab's runtime still has; their cgroups end with the id.
fn containers(base: &Path) -> Vec<String> {
    bundles(base).iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect()
}

fn bundles(base: &Path) -> Vec<PathBuf> {
    let tasks = base.join("containerd/state/io.containerd.runtime.v2.task");
    let namespaces = fs::read_dir(tasks).into_iter().flatten().flatten();
    namespaces.flat_map(|namespace| fs::read_dir(namespace.path()).into_iter().flatten().flatten()).map(|bundle| bundle.path()).collect()
}

/// Shims listen on sockets outside the lab's directory, under names that are hashes; killed shims
/// leave them behind. Each bundle records its own.
pub fn remove_shim_sockets(base: &Path) {
    for bundle in bundles(base) {
        let address = fs::read_to_string(bundle.join("address")).unwrap_or_default();
        if let Some(path) = address.trim().strip_prefix("unix://") {
            fs::remove_file(path).ok();
        }
    }
}

/// Mounts a directory on itself, shared, so that mounts below propagate between the daemon, the
/// runtime and the containers. Does nothing the second time.
pub fn shared_mount(directory: &Path) -> Result<()> {
    if mount_points(directory).iter().any(|point| point == directory) {
        return Ok(());
    }
    let none: Option<&str> = None;
    mount(Some(directory), directory, none, MsFlags::MS_BIND, none)
        .and_then(|()| mount(none, directory, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none))
        .with_context(|| format!("cannot make {} a shared mount", directory.display()))
}

/// Unmounts a directory and everything mounted below it.
pub fn unmount_below(directory: &Path) -> Result<()> {
    for point in mount_points(directory).iter().rev() {
        match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Propagation may have taken it already.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => bail!("cannot unmount {}: {error}", point.display()),
        }
    }
    Ok(())
}

/// Mount points at or below a directory, oldest first.
fn mount_points(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(directory)).collect()
}
