//! Makes, bounds and removes the groups of pods, on cgroup v1 and v2, directly or through systemd.
//!
//! Crate cgroups-rs makes, writes and deletes. Three things it does not do are done here: values are read
//! before they are written, so that a restart writes nothing (the crate reads fourteen files to tell one
//! memory limit); what could not be delegated is an error (the crate drops it); and slices are started over
//! D-Bus (`systemd`: the crate starts no unit without processes). All of it blocks; never call it on the
//! loop's thread once the loop runs. Tests: here on made-up hierarchies, `tests/tests/runtime_resources.rs`.

mod leftovers;
mod systemd;

use crate::cgroup::values::{PERIOD_US, weight};
use crate::cgroup::{CgroupPath, CgroupValues, Driver, Layout};
use crate::pod::{PodUid, QosClass};
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::freezer::FreezerController;
use cgroups_rs::fs::hierarchies::{UNIFIED_MOUNTPOINT, V1, V2, is_cgroup2_unified_mode};
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, Controller, Hierarchy, MaxValue, Subsystem};
use procfs::FromRead as _;
use std::collections::BTreeSet;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use systemd::Systemd;

/// Which hierarchies this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    /// v1 for resources, with v2 mounted beside it for something else.
    Hybrid,
    V2,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error(
        "no cgroup controller {0:?} on this machine: mount cgroup v2 at /sys/fs/cgroup (or the v1 hierarchies below it), and see that the kernel's command line does not disable it"
    )]
    NoController(&'static str),
    #[error("cannot make cgroup {path}: {cause}")]
    Create { path: PathBuf, cause: String },
    #[error(
        "cgroup {path} lacks the controllers {missing}: a group above it does not pass them on (see cgroup.subtree_control there); one with processes of its own cannot"
    )]
    NotDelegated { path: PathBuf, missing: String },
    #[error("cannot write {value:?} to {path}: {cause}")]
    Write { path: PathBuf, value: String, cause: String },
    #[error("cannot remove cgroup {path}: {cause}")]
    Remove { path: PathBuf, cause: String },
    #[error(transparent)]
    Systemd(#[from] systemd::SystemdError),
}

/// Controllers that pods' groups have on v2, as far as the machine has them.
const WANTED_V2: [&str; 5] = ["cpu", "cpuset", "memory", "hugetlb", "pids"];
/// Those without which pods cannot be bounded.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// Limits of v1 are whole pages.
const PAGE: i64 = 4096;

pub struct CgroupFs {
    layout: Layout,
    version: Version,
    mounted: Mounted,
    /// Where v2 is mounted beside v1. Nothing is bounded there, but runtimes leave pods' groups in it.
    beside: Option<PathBuf>,
    systemd: Option<Systemd>,
    /// Groups above the pods' that were found whole: they are brought up to date with every pod that starts, and
    /// looking at each hierarchy again costs more than all else.
    seen: Mutex<BTreeSet<CgroupPath>>,
}

/// The machine's hierarchies, read once.
#[derive(Clone, Debug)]
struct Mounted {
    subsystems: Vec<Subsystem>,
    root: PathBuf,
    v2: bool,
}

impl Hierarchy for Mounted {
    fn subsystems(&self) -> Vec<Subsystem> {
        self.subsystems.clone()
    }

    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    fn root_control_group(&self) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), "")
    }

    fn parent_control_group(&self, path: &str) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), Path::new(path).parent().unwrap_or(Path::new("")))
    }

    fn v2(&self) -> bool {
        self.v2
    }
}

impl CgroupFs {
    /// Looks at what is mounted. Fails when pods could not be bounded here.
    pub fn open(layout: Layout) -> Result<CgroupFs, CgroupError> {
        let root = PathBuf::from(UNIFIED_MOUNTPOINT);
        let v2 = is_cgroup2_unified_mode();
        let subsystems = if v2 { V2::new().subsystems() } else { V1::new().subsystems() };
        for name in NEEDED {
            if !subsystems.iter().any(|s| s.controller_name() == name) {
                return Err(CgroupError::NoController(name));
            }
        }
        let beside = if v2 { None } else { mount_point_of_v2() };
        let version = match (v2, &beside) {
            (true, _) => Version::V2,
            (false, Some(_)) => Version::Hybrid,
            (false, None) => Version::V1,
        };
        let systemd = (layout.driver == Driver::Systemd).then(|| Systemd::new(v2));
        Ok(CgroupFs { layout, version, mounted: Mounted { subsystems, root, v2 }, beside, systemd, seen: Mutex::default() })
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Makes the group if it is not there, and writes the values that differ.
    pub fn apply(&self, path: &CgroupPath, values: &CgroupValues) -> Result<(), CgroupError> {
        let known = self.seen.lock().is_ok_and(|seen| seen.contains(path));
        let applied = self.bring(path, values, known);
        match applied {
            // Somebody took it away.
            Err(_) if known => self.bring(path, values, false),
            applied => applied,
        }
    }

    fn bring(&self, path: &CgroupPath, values: &CgroupValues, known: bool) -> Result<(), CgroupError> {
        let is_a_pods = self.is_a_pods(path);
        let group = if is_a_pods { self.bounded(path, values) } else { self.group(path) };
        let fresh = !known && self.lacks(&group).is_some();
        if let Some(systemd) = &self.systemd {
            let directory = self.directories(&group).into_iter().next().unwrap_or_default();
            if fresh {
                systemd.start(&self.layout.cri_parent(path), values, &directory)?;
            } else if !changes(&group, values).is_empty() {
                systemd.set(&self.layout.cri_parent(path), values)?;
            }
        }
        if fresh {
            self.create(&group)?;
        }
        changes(&group, values).into_iter().try_for_each(|c| c.make())?;
        if !known
            && !is_a_pods
            && let Ok(mut seen) = self.seen.lock()
        {
            seen.insert(path.clone());
        }
        Ok(())
    }

    fn is_a_pods(&self, path: &CgroupPath) -> bool {
        let path = self.layout.fs_path(path);
        let name = Path::new(&path).file_name().and_then(|n| n.to_str());
        name.is_some_and(|n| self.layout.uid_of(n).is_some())
    }

    /// A pod's group, on v1 only where one of the values binds it. The runtime makes it in the other hierarchies, on
    /// the way to its containers' groups there; nine directories a pod were most of what this module cost.
    fn bounded(&self, path: &CgroupPath, v: &CgroupValues) -> Cgroup {
        if self.mounted.v2 {
            return self.group(path);
        }
        let binds = [("cpu", true), ("memory", v.memory_max.is_some()), ("pids", v.pids_max.is_some())];
        let wanted = binds.iter().filter(|(_, binds)| *binds).map(|(name, _)| (*name).to_owned()).collect();
        Cgroup::load_with_specified_controllers(Box::new(self.mounted.clone()), self.layout.fs_path(path), wanted)
    }

    fn group(&self, path: &CgroupPath) -> Cgroup {
        let relative = self.layout.fs_path(path);
        let hierarchy = Box::new(self.mounted.clone());
        if !self.mounted.v2 {
            return Cgroup::load(hierarchy, relative);
        }
        let have = |name: &str| self.mounted.subsystems.iter().any(|s| s.controller_name() == name);
        let wanted = WANTED_V2.iter().filter(|c| have(c)).map(|c| (*c).to_owned()).collect();
        Cgroup::load_with_specified_controllers(hierarchy, relative, wanted)
    }

    /// Where the group is: one directory on v2, one per hierarchy on v1.
    fn directories(&self, group: &Cgroup) -> BTreeSet<PathBuf> {
        group.subsystems().iter().map(|s| s.to_controller().path().to_owned()).collect()
    }

    fn create(&self, group: &Cgroup) -> Result<(), CgroupError> {
        let path = self.directories(group).into_iter().next().unwrap_or_default();
        group.create().map_err(|e| CgroupError::Create { path, cause: cause(&e) })?;
        self.lacks(group).map_or(Ok(()), Err)
    }

    /// What a group that should be complete lacks.
    fn lacks(&self, group: &Cgroup) -> Option<CgroupError> {
        if self.mounted.v2 {
            let path = self.directories(group).into_iter().next()?;
            let has = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
            let has: BTreeSet<&str> = has.split_whitespace().collect();
            let names = group.subsystems().iter().map(Subsystem::controller_name);
            let missing: Vec<String> = names.filter(|n| !has.contains(n.as_str())).collect();
            return (!missing.is_empty()).then(|| CgroupError::NotDelegated { path, missing: missing.join(", ") });
        }
        for s in group.subsystems() {
            let path = s.to_controller().path().to_owned();
            if !path.is_dir() {
                return Some(CgroupError::Create { path, cause: "it is not there".into() });
            }
            // No process can live in a cpuset of v1 before it has CPUs and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if matches!(s, Subsystem::CpuSet(_)) && read(&path.join(file)).is_none_or(|t| t.is_empty()) {
                    return Some(CgroupError::Create { path, cause: format!("{file} is empty, as it is in a group above it") });
                }
            }
        }
        None
    }

    /// Removes a pod's group and what the runtime left in it, processes included, as a kubelet does: by now no
    /// container of the pod is left that they could belong to. A group that is gone is no error.
    pub fn remove(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        let group = self.group(path);
        leftovers::end(self.directories(&group).into_iter().chain(self.beside.iter().map(|root| root.join(self.layout.fs_path(path)))));
        if let Some(systemd) = &self.systemd
            && group.exists()
        {
            systemd.stop(&self.layout.cri_parent(path))?;
        }
        let beside = self.beside.iter().map(|root| {
            // Only its path counts: any controller can delete.
            Subsystem::Freezer(FreezerController::new(root.join(self.layout.fs_path(path)), PathBuf::new(), true))
        });
        for s in group.subsystems().iter().cloned().chain(beside) {
            let c = s.to_controller();
            if let Err(e) = c.delete()
                && c.exists()
            {
                return Err(CgroupError::Remove { path: c.path().to_owned(), cause: cause(&e) });
            }
        }
        Ok(())
    }

    /// The pods that have a group, in any hierarchy.
    pub fn pods(&self) -> BTreeSet<(QosClass, PodUid)> {
        let mut found = BTreeSet::new();
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            let above = self.layout.qos(class);
            let beside = self.beside.iter().map(|root| root.join(self.layout.fs_path(&above)));
            for directory in self.directories(&self.group(&above)).into_iter().chain(beside) {
                let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
                let directories = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
                found.extend(directories.filter_map(|e| Some((class, self.layout.uid_of(e.file_name().to_str()?)?))));
            }
        }
        found
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

fn mount_point_of_v2() -> Option<PathBuf> {
    let mounts = procfs::process::MountInfos::from_file("/proc/self/mountinfo").ok()?;
    mounts.into_iter().find(|m| m.fs_type == "cgroup2").map(|m| m.mount_point)
}

/// A value that is not yet what it should be.
struct Change<'a> {
    file: PathBuf,
    value: String,
    write: Box<dyn Fn() -> cgroups_rs::fs::error::Result<()> + 'a>,
}

impl Change<'_> {
    fn make(self) -> Result<(), CgroupError> {
        (self.write)().map_err(|e| CgroupError::Write { path: self.file, value: self.value, cause: cause(&e) })
    }
}

/// What has to be written for the group to have these values, in the order in which the kernel takes it.
fn changes<'a>(group: &'a Cgroup, v: &CgroupValues) -> Vec<Change<'a>> {
    let mut out: Vec<Change<'a>> = Vec::new();
    let v2 = group.v2();
    if let Some(c) = group.controller_of::<CpuController>() {
        if let Some(shares) = v.cpu_shares {
            let (name, value) = if v2 { ("cpu.weight", weight(shares)) } else { ("cpu.shares", shares) };
            differ(&mut out, c.path().join(name), value.to_string(), move || c.set_shares(value));
        }
        if let Some(quota) = v.cpu_quota {
            cpu_bound(&mut out, c, quota, v2);
        }
    }
    if let (Some(max), Some(c)) = (v.memory_max, group.controller_of::<MemController>()) {
        let (name, value) = match (v2, max) {
            (true, -1) => ("memory.max", "max".to_owned()),
            (true, n) => ("memory.max", (n / PAGE * PAGE).to_string()),
            (false, -1) => ("memory.limit_in_bytes", (i64::MAX / PAGE * PAGE).to_string()),
            (false, n) => ("memory.limit_in_bytes", (n / PAGE * PAGE).to_string()),
        };
        differ(&mut out, c.path().join(name), value, move || c.set_limit(max));
    }
    if let (Some(max), Some(c)) = (v.pids_max, group.controller_of::<PidController>()) {
        let value = if max < 0 { MaxValue::Max } else { MaxValue::Value(max) };
        differ(&mut out, c.path().join("pids.max"), value.to_string(), move || c.set_pid_max(value));
    }
    out
}

fn cpu_bound<'a>(out: &mut Vec<Change<'a>>, c: &'a CpuController, quota: i64, v2: bool) {
    if v2 {
        let value = if quota > 0 { format!("{quota} {PERIOD_US}") } else { format!("max {PERIOD_US}") };
        return differ(out, c.path().join("cpu.max"), value, move || c.set_cfs_quota_and_period(Some(quota), Some(PERIOD_US)));
    }
    differ(out, c.path().join("cpu.cfs_period_us"), PERIOD_US.to_string(), move || c.set_cfs_period(PERIOD_US));
    differ(out, c.path().join("cpu.cfs_quota_us"), quota.to_string(), move || c.set_cfs_quota(quota));
}

fn differ<'a>(out: &mut Vec<Change<'a>>, file: PathBuf, value: String, write: impl Fn() -> cgroups_rs::fs::error::Result<()> + 'a) {
    if read(&file).as_deref() != Some(&value) {
        out.push(Change { file, value, write: Box::new(write) });
    }
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok().map(|t| t.trim().to_owned())
}

/// The crate's errors name the file twice and the cause in Rust's terms.
fn cause(e: &cgroups_rs::fs::error::Error) -> String {
    e.source().map_or_else(|| e.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests;
