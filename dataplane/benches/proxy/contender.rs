//! Who is measured: a process that follows the files, or the floor.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::floor::{Floor, Prepared};
use super::network::Network;
use super::serve;
use super::services::{Change, Services};

#[derive(Debug, Clone)]
pub enum Kind {
    Command {
        name: String,
        command: String,
        mode: Option<String>,
    },
    /// The same elements or lines, made beforehand and handed to the kernel.
    Floor {
        mode: String,
    },
}

impl Kind {
    /// Ours, by this program itself unless another command line is given.
    pub fn ours(mode: &str, command: Option<&str>) -> Kind {
        let own = std::env::current_exe().unwrap();
        let own = format!("exec {} {} {mode} {{services}}", own.display(), serve::VERB);
        let command = command.map_or(own, |command| command.replace("{mode}", mode));
        Kind::Command { name: format!("longshore {mode}"), command, mode: Some(mode.into()) }
    }

    pub fn name(&self) -> String {
        match self {
            Kind::Command { name, .. } => name.clone(),
            Kind::Floor { mode } => format!("floor {mode}"),
        }
    }

    pub fn mode(&self) -> Option<&str> {
        match self {
            Kind::Command { mode, .. } => mode.as_deref(),
            Kind::Floor { mode } => Some(mode),
        }
    }
}

/// What a contender has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_kib: u64,
}

pub enum Contender {
    Process(Child),
    Floor(Box<Floor>),
}

impl Contender {
    pub fn start(kind: &Kind, network: &Network, services: &Services) -> Result<Contender, String> {
        let Kind::Command { command, .. } = kind else {
            let Kind::Floor { mode } = kind else { unreachable!("the only other kind") };
            return Ok(Contender::Floor(Box::new(Floor::load(mode, network, services)?)));
        };
        let netns = network.node.path();
        let line = command.replace("{services}", &services.folder().display().to_string()).replace("{netns}", &netns.display().to_string());
        let spawn = || Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).process_group(0).spawn();
        network.node.run(spawn).map(Contender::Process).map_err(|error| format!("{line}: {error}"))
    }

    /// How long loading took, for one that is loaded when it is there.
    pub fn loaded(&self) -> Option<Duration> {
        match self {
            Contender::Process(_) => None,
            Contender::Floor(floor) => Some(floor.loaded),
        }
    }

    /// An error when it has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self {
            Contender::Process(child) => match child.try_wait() {
                Ok(Some(status)) => Err(format!("it ended: {status}")),
                _ => Ok(()),
            },
            Contender::Floor(_) => Ok(()),
        }
    }

    /// What can be done before the clock starts.
    pub fn prepare(&mut self, change: &Change) -> Option<Prepared> {
        match self {
            Contender::Process(_) => None,
            Contender::Floor(floor) => Some(floor.prepare(change)),
        }
    }

    pub fn change(&mut self, change: &Change, prepared: Option<Prepared>) -> Result<(), String> {
        match (self, prepared) {
            (Contender::Floor(floor), Some(prepared)) => floor.commit(prepared),
            _ => {
                change.write();
                Ok(())
            }
        }
    }

    /// Of a process, with its children that have ended.
    pub fn usage(&self) -> Usage {
        match self {
            Contender::Process(child) => group_usage(child.id()),
            Contender::Floor(floor) => Usage { cpu: floor.cpu, resident_kib: 0 },
        }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Contender::Process(child) = self {
            let group = nix::unistd::Pid::from_raw(-i32::try_from(child.id()).unwrap_or(i32::MAX));
            let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

/// Of all processes of a group: a shell may stand before the proxy, and a proxy may have children.
fn group_usage(group: u32) -> Usage {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| process_usage(pid, group))
        .fold(Usage::default(), |sum, one| Usage { cpu: sum.cpu + one.cpu, resident_kib: sum.resident_kib + one.resident_kib })
}

/// `None` for a process of another group.
fn process_usage(pid: u32, group: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // What follows the name: state, parent, group, ...
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    (fields.get(2)?.parse() == Ok(group)).then_some(())?;
    // Of children that were waited for, in hundredths of a second.
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let children = Duration::from_millis((ticks(13) + ticks(14)) * 10);
    // Its own threads to the nanosecond.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let on_cpu = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    let own = Duration::from_nanos(on_cpu.sum());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident_kib = resident.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    Some(Usage { cpu: own + children, resident_kib })
}
