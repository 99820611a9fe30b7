//! QEMU without hardware acceleration, Debian's cloud kernel, and a root that we put together.

use super::cpio::Cpio;
use super::{Report, report};
use crate::lab::Home;
use crate::lab::net::output;
use crate::lab::process::Running;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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
        for directory in ["dev", "proc", "sys", "run", "tmp", "root", "etc", "bin", "var/lib"] {
            root.parents(&format!("{directory}/x"));
        }
        root.file("bin/busybox", 0o755, &read(&busybox)?);
        let mut list = Command::new(&busybox);
        list.arg("--list");
        for applet in output(list)?.lines().filter(|applet| *applet != "busybox") {
            root.archive.symlink(&format!("bin/{applet}"), "/bin/busybox");
        }
        for path in &self.files {
            root.file(&path.display().to_string(), 0o755, &read(path)?);
        }
        let mut load = String::new();
        for module in self.load_order()? {
            let path = format!("lib/modules/{}/{module}", self.release);
            root.file(&path, 0o644, &read(&self.root.join(&path))?);
            load += &format!("/{path}\n");
        }
        for (path, content) in &self.contents {
            root.file(path, 0o755, content);
        }
        root.file("modules", 0o644, load.as_bytes());
        root.file("script", 0o755, script.as_bytes());
        root.file("init", 0o755, INIT.as_bytes());
        Ok(root.archive.finish())
    }

    /// Paths of the wanted modules and of all they depend on, those first that others need.
    fn load_order(&self) -> Result<Vec<String>> {
        let directory = self.root.join("lib/modules").join(&self.release);
        let listed = String::from_utf8(read(&directory.join("modules.dep"))?)?;
        let builtin = String::from_utf8(read(&directory.join("modules.builtin"))?)?;
        let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
        let dependencies: HashMap<String, (&str, Vec<&str>)> = listed
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| (module_name(path), (path, needs.split_whitespace().collect())))
            .collect();
        let mut order: Vec<String> = Vec::new();
        for wanted in &self.modules {
            let name = module_name(wanted);
            if builtin.contains(&name) {
                continue;
            }
            let Some((path, needs)) = dependencies.get(&name) else {
                bail!("the kernel has no module {wanted}");
            };
            // modules.dep lists what is needed last to first.
            for path in needs.iter().rev().chain([path]) {
                if !order.iter().any(|have| have == path) {
                    order.push((*path).to_owned());
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
}

impl Root {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.parents(path);
        self.archive.file(path, mode, content);
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
