//! QEMU without hardware acceleration, Debian's cloud kernel, and a root that we put together.

use super::cpio::Cpio;
use super::{Report, report};
use crate::lab::Home;
use crate::lab::net::output;
use crate::lab::process::Running;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What programs expect of any machine.
const ETC: [(&str, &str); 5] = [
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("hostname", "stock\n"),
    ("resolv.conf", ""),
    ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("group", "root:x:0:\n"),
];
/// What modprobe reads to find a module.
const INDICES: &[&str] = &[
    "modules.alias.bin",
    "modules.builtin.bin",
    "modules.builtin.alias.bin",
    "modules.dep",
    "modules.dep.bin",
    "modules.softdep",
    "modules.symbols.bin",
];
/// Before the last line of the script's channel.
const STATUS: &str = "longshore-vm-status ";

/// The first process: moves everything into a real mount (a container runtime cannot pivot away from
/// a kernel's first root), loads the modules, runs the script.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
if [ ! -e /moved ]; then
    mkdir /moved
    mount -t tmpfs -o size=90% tmpfs /moved
    for entry in /*; do
        [ "$entry" = /moved ] || cp -a "$entry" /moved
    done
    mkdir /moved/moved
    exec switch_root /moved /init
fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for directory in /dev/shm /run /tmp; do mount -t tmpfs tmpfs $directory; done
stty -opost </dev/ttyS1
while read -r module; do insmod "$module" || echo "cannot load $module"; done </modules >/dev/ttyS1 2>&1
ip link set lo up
/script >/dev/ttyS1 2>&1 </dev/null
echo "longshore-vm-status $?" >/dev/ttyS1
poweroff -f
"#;

/// A machine to be. Paths of programs and files are the same inside as on this machine.
pub struct Qemu {
    root: PathBuf,
    release: String,
    modules: Vec<String>,
    loadable: Vec<String>,
    files: BTreeSet<PathBuf>,
    contents: Vec<(String, Vec<u8>)>,
    mebibytes: u32,
}

impl Qemu {
    /// The stock kernel, fetched when it is not there yet, with busybox.
    pub fn new() -> Result<Qemu> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup/kernel.sh");
        let root = output(Command::new(script)).context("cannot get the cloud kernel")?;
        let root = PathBuf::from(root.trim());
        let modules = root.join("lib/modules");
        let release = fs::read_dir(&modules)?.flatten().next().context("the kernel has no modules")?;
        Ok(Qemu {
            release: release.file_name().to_string_lossy().into_owned(),
            root,
            modules: Vec::new(),
            loadable: Vec::new(),
            files: BTreeSet::new(),
            contents: Vec::new(),
            mebibytes: 512,
        })
    }

    pub fn memory(mut self, mebibytes: u32) -> Qemu {
        self.mebibytes = mebibytes;
        self
    }

    /// Kernel modules to load before the script, with what they depend on.
    pub fn modules(mut self, names: &[&str]) -> Qemu {
        self.modules.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Modules that are there to be loaded, with what they depend on, but are not: names, or
    /// directories such as `kernel/net/netfilter/`. Brings modprobe, which the kernel calls too.
    pub fn loadable(mut self, modules: &[&str]) -> Result<Qemu> {
        self.loadable.extend(modules.iter().map(|name| (*name).to_owned()));
        self.program("modprobe")
    }

    /// All files below a directory of this machine.
    pub fn directory(mut self, path: &Path) -> Result<Qemu> {
        for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?.flatten() {
            match entry.path() {
                path if path.is_dir() => self = self.directory(&path)?,
                path => drop(self.files.insert(path)),
            }
        }
        Ok(self)
    }

    /// A program of this machine (a name in PATH, or a path) with the libraries it is linked to.
    pub fn program(mut self, name: &str) -> Result<Qemu> {
        let path = find(name)?;
        self.files.extend(libraries(&path)?);
        self.files.insert(path);
        Ok(self)
    }

    /// A file of this machine.
    pub fn file(mut self, path: &Path) -> Qemu {
        self.files.insert(path.to_owned());
        self
    }

    /// A file with this content.
    pub fn content(mut self, path: &str, content: impl Into<Vec<u8>>) -> Qemu {
        self.contents.push((path.to_owned(), content.into()));
        self
    }

    /// Boots it and runs `script` (with its `#!` line; `/bin/sh` is busybox).
    pub fn run(&self, home: &Home, script: &str, limit: Duration) -> Result<Report> {
        let base = tempfile::Builder::new().prefix("qemu-").tempdir_in(home.base())?;
        let initrd = base.path().join("initrd");
        fs::write(&initrd, self.initrd(script)?)?;
        let kernel = self.root.join(format!("boot/vmlinuz-{}", self.release));
        let channel = base.path().join("output");
        let mut command = Command::new(format!("qemu-system-{}", std::env::consts::ARCH));
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-net", "none"]);
        command.args(["-accel", "tcg", "-cpu", "max", "-smp", "2"]);
        command.args(["-m", &self.mebibytes.to_string()]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        command.args(["-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on"]);
        command.args(["-serial", "stdio"]).arg("-serial").arg(format!("file:{}", channel.display()));
        let log = base.path().join("console");
        let machine = Running::start(command, &log, None, &(home.cgroup() + "/vm")).context("QEMU is in the package qemu-system-x86")?;
        let status = || {
            let said = fs::read(&channel).ok()?;
            let said = String::from_utf8_lossy(&said).into_owned();
            said.rsplit_once(STATUS)?.1.trim().parse().ok()
        };
        let mut report = report(machine, &channel, status, limit)?;
        let end = report.output.rfind(STATUS).unwrap_or(report.output.len());
        report.output.truncate(end);
        Ok(report)
    }

    fn initrd(&self, script: &str) -> Result<Vec<u8>> {
        let busybox = find("busybox")?;
        let mut root = Root::default();
        for directory in ["dev", "proc", "sys", "run", "tmp", "root", "etc", "var/lib", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
            root.parents(&format!("{directory}/x"));
        }
        // The kernel calls /sbin/modprobe, programs name their loader in /lib64.
        for part in MERGED {
            root.archive.symlink(part, &format!("usr/{part}"));
        }
        for (name, content) in ETC {
            root.file(&format!("etc/{name}"), 0o644, content.as_bytes());
        }
        for path in &self.files {
            root.file(&path.display().to_string(), 0o755, &read(path)?);
        }
        root.file("bin/busybox", 0o755, &read(&busybox)?);
        let mut list = Command::new(&busybox);
        list.arg("--list");
        for applet in output(list)?.lines() {
            root.link_unless_there(applet, "/bin/busybox");
        }
        let mut load = String::new();
        let index = Modules::read(&self.root.join("lib/modules").join(&self.release))?;
        let loaded = index.with_dependencies(&self.modules)?;
        let loadable = index.with_dependencies(&self.loadable)?;
        for module in &loaded {
            load += &format!("/lib/modules/{}/{module}\n", self.release);
        }
        let indices = if self.loadable.is_empty() { &[][..] } else { INDICES };
        let files = loaded.iter().chain(&loadable).map(String::as_str).collect::<BTreeSet<_>>();
        for file in files.into_iter().chain(indices.iter().copied()) {
            let path = format!("lib/modules/{}/{file}", self.release);
            root.file(&path, 0o644, &read(&self.root.join(&path))?);
        }
        for (path, content) in &self.contents {
            root.file(path, 0o755, content);
        }
        root.file("modules", 0o644, load.as_bytes());
        root.file("script", 0o755, script.as_bytes());
        root.file("init", 0o755, INIT.as_bytes());
        Ok(root.archive.finish())
    }
}

/// The kernel's modules: path and dependencies by name.
struct Modules {
    listed: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
}

impl Modules {
    fn read(directory: &Path) -> Result<Modules> {
        let text = |name: &str| -> Result<String> { Ok(String::from_utf8(read(&directory.join(name))?)?) };
        let listed = text("modules.dep")?;
        let pairs = listed.lines().filter_map(|line| line.split_once(':'));
        let listed = pairs.map(|(path, needs)| {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            (module_name(path), (path.to_owned(), needs))
        });
        Ok(Modules { listed: listed.collect(), builtin: text("modules.builtin")?.lines().map(module_name).collect() })
    }

    /// Paths of the wanted modules (names, or directories) and of all they depend on, those first that
    /// others need.
    fn with_dependencies(&self, wanted: &[String]) -> Result<Vec<String>> {
        let mut order: Vec<String> = Vec::new();
        for wanted in wanted {
            let name = module_name(wanted);
            let found: Vec<_> = match wanted.contains('/') {
                true => self.listed.values().filter(|(path, _)| path.starts_with(wanted.as_str())).collect(),
                false => self.listed.get(&name).into_iter().collect(),
            };
            if found.is_empty() && !self.builtin.contains(&name) {
                bail!("the kernel has no module {wanted}");
            }
            for (path, needs) in found {
                // modules.dep lists what is needed last to first.
                for path in needs.iter().rev().chain([path]) {
                    if !order.contains(path) {
                        order.push(path.clone());
                    }
                }
            }
        }
        Ok(order)
    }
}

/// The file tree of the machine, directories made as needed.
#[derive(Default)]
struct Root {
    archive: Cpio,
    directories: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// Directories that are links into /usr, as everywhere by now.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let in_usr = MERGED.iter().any(|part| path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/')));
    if in_usr { format!("usr/{path}") } else { path.to_owned() }
}

impl Root {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = merged(path);
        if self.files.insert(path.clone()) {
            self.parents(&path);
            self.archive.file(&path, mode, content);
        }
    }

    /// A program of busybox, where the machine does not have the real one.
    fn link_unless_there(&mut self, name: &str, target: &str) {
        if !["bin", "sbin"].iter().any(|part| self.files.contains(&format!("usr/{part}/{name}"))) {
            self.archive.symlink(&format!("usr/bin/{name}"), target);
        }
    }

    fn parents(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            if self.directories.insert(path[..at].to_owned()) {
                self.archive.directory(&path[..at]);
            }
        }
    }
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn find(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no program {name} in PATH"))
}

/// What the dynamic loader would load, and the loader; nothing for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // `libc.so.6 => /lib/… (0x…)` or `/lib64/ld-… (0x…)`.
    let words = said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(words.map(PathBuf::from).collect())
}
