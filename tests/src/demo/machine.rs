//! What running pods needs of the machine itself: kernel modules and forwarding, now and after a boot.
//!
//! Every change is written down before it is made, in a file outside any lab, so that [`Changes::restore`]
//! can take it back after whatever happened in between. Labs share that file and take turns at it. What is fine already is left alone, as are
//! modules that the kernel has built in.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const RECORD: &str = "/var/lib/longshore-lab/changes.json";
/// A directory that stays: a lock on it leaves nothing behind.
const TURN: &str = "/var/lib";

/// Modules, and what exists once each is there.
const MODULES: [(&str, Sign); 3] = [
    ("overlay", Sign::FileSystem("overlay")),
    ("br_netfilter", Sign::Path("/proc/sys/net/bridge/bridge-nf-call-iptables")),
    ("nf_conntrack", Sign::Path("/proc/sys/net/netfilter/nf_conntrack_max")),
];
const MODULES_FILE: &str = "/etc/modules-load.d/longshore.conf";

/// IPv6 forwarding is not among them: it would make a machine deaf to router advertisements, so the
/// demonstration's pods on a machine's own network have IPv4 alone.
const SYSCTLS: [&str; 3] = ["net.bridge.bridge-nf-call-iptables", "net.ipv4.ip_forward", "net.bridge.bridge-nf-call-ip6tables"];
const SYSCTLS_FILE: &str = "/etc/sysctl.d/99-kubernetes-cri.conf";

enum Sign {
    FileSystem(&'static str),
    Path(&'static str),
}

impl Sign {
    fn shows(&self) -> bool {
        match self {
            Sign::Path(path) => Path::new(path).exists(),
            Sign::FileSystem(name) => {
                let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
                known.lines().any(|line| line.split_whitespace().next_back() == Some(name))
            }
        }
    }
}

/// What was changed, and how it was before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Changes {
    modules: Vec<String>,
    sysctls: BTreeMap<String, String>,
    /// Content before; `None` for files that were not there.
    files: BTreeMap<PathBuf, Option<String>>,
}

impl Changes {
    /// What earlier runs have changed and nobody has restored.
    pub fn recorded() -> Result<Changes> {
        match fs::read(RECORD) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{RECORD} is damaged")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Changes::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {RECORD}")),
        }
    }

    /// Waits until no other lab is at the record, and takes in what others wrote there.
    fn turn(&mut self) -> Result<File> {
        let turn = File::open(TURN).with_context(|| format!("cannot open {TURN}"))?;
        turn.lock().with_context(|| format!("cannot lock {TURN}"))?;
        *self = Changes::recorded()?;
        Ok(turn)
    }

    /// Loads the modules that are missing; returns their names.
    pub fn load_modules(&mut self) -> Result<Vec<&'static str>> {
        let _turn = self.turn()?;
        let mut loaded = Vec::new();
        for (module, _) in MODULES.iter().filter(|(_, sign)| !sign.shows()) {
            self.modules.push((*module).to_owned());
            self.record()?;
            modprobe(&[module])?;
            loaded.push(*module);
        }
        Ok(loaded)
    }

    /// Turns forwarding on, and has all of it come back at the next boot; returns what it changed.
    pub fn prepare_network(&mut self) -> Result<Vec<String>> {
        let _turn = self.turn()?;
        let mut changed = Vec::new();
        for name in SYSCTLS {
            let path = sysctl(name);
            let Ok(before) = fs::read_to_string(&path) else { continue };
            if before.trim() != "1" {
                self.sysctls.entry(name.to_owned()).or_insert_with(|| before.trim().to_owned());
                self.record()?;
                fs::write(&path, "1").with_context(|| format!("cannot set {name}"))?;
                changed.push(format!("{name}=1"));
            }
        }
        let sysctls = SYSCTLS.map(|name| format!("{name} = 1"));
        changed.extend(self.persist(Path::new(SYSCTLS_FILE), &sysctls)?);
        let modules: Vec<String> = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
        let modules: Vec<String> = modules.into_iter().filter(|name| is_loadable(name)).collect();
        changed.extend(self.persist(Path::new(MODULES_FILE), &modules)?);
        Ok(changed)
    }

    /// Notes what sysctls are now, for someone else is about to set them.
    pub fn remember(&mut self, names: &[&str]) -> Result<()> {
        let _turn = self.turn()?;
        for name in names {
            if let Ok(now) = fs::read_to_string(sysctl(name)) {
                self.sysctls.entry((*name).to_owned()).or_insert_with(|| now.trim().to_owned());
            }
        }
        self.record()
    }

    /// Adds lines to a configuration file that lacks them.
    fn persist(&mut self, path: &Path, lines: &[String]) -> Result<Option<String>> {
        let before = fs::read_to_string(path).ok();
        let mut text = before.clone().unwrap_or_default();
        let squeezed = |line: &str| line.split_whitespace().collect::<String>();
        let present: Vec<String> = text.lines().map(squeezed).collect();
        let missing: Vec<&String> = lines.iter().filter(|line| !present.contains(&squeezed(line))).collect();
        if missing.is_empty() {
            return Ok(None);
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for line in missing {
            text += &format!("{line}\n");
        }
        self.files.entry(path.to_owned()).or_insert(before);
        self.record()?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Some(path.display().to_string()))
    }

    fn record(&self) -> Result<()> {
        let directory = Path::new(RECORD).parent().expect("the record is in a directory");
        fs::create_dir_all(directory)?;
        let draft = format!("{RECORD}.draft");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&draft, RECORD))
            .with_context(|| format!("cannot write {RECORD}"))
    }

    /// Takes everything back; returns what it did.
    pub fn restore(mut self) -> Result<Vec<String>> {
        let _turn = self.turn()?;
        let mut done = Vec::new();
        for (path, before) in &self.files {
            match before {
                Some(text) => fs::write(path, text),
                None => ignore_missing(fs::remove_file(path)),
            }
            .with_context(|| format!("cannot restore {}", path.display()))?;
            done.push(format!("{} as it was", path.display()));
        }
        for (name, before) in &self.sysctls {
            let now = fs::read_to_string(sysctl(name)).unwrap_or_default();
            if now.trim() == before {
                continue;
            }
            fs::write(sysctl(name), before).with_context(|| format!("cannot restore {name}"))?;
            done.push(format!("{name}={before}"));
        }
        for module in self.modules.iter().rev() {
            // One that something uses by now has to stay.
            if modprobe(&["-r", module]).is_ok() {
                done.push(format!("module {module} unloaded"));
            }
        }
        ignore_missing(fs::remove_file(RECORD)).with_context(|| format!("cannot remove {RECORD}"))?;
        Ok(done)
    }
}

/// Whether the running kernel has it as a module, loaded or not, rather than built in.
fn is_loadable(module: &str) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = Path::new("/lib/modules").join(release.trim()).join("modules.dep");
    let file = format!("/{module}.ko");
    let list = fs::read_to_string(list).unwrap_or_default();
    list.lines().filter_map(|line| line.split(':').next()).any(|path| path.contains(&file))
}

fn ignore_missing(outcome: std::io::Result<()>) -> std::io::Result<()> {
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sysctl(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

fn modprobe(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("modprobe");
    command.args(arguments);
    crate::lab::net::output(command).map(drop).context("modprobe is in the package kmod")
}
