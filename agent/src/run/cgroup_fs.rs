//! Makes, bounds and removes the groups of pods.

use crate::cgroup::values::{PERIOD_US, weight};
use crate::cgroup::{CgroupPath, CgroupValues, Layout};
use std::path::{Path, PathBuf};

/// Which hierarchies this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

pub struct CgroupFs {
    root: PathBuf,
    layout: Layout,
    version: Version,
}

#[derive(Debug, thiserror::Error)]
#[error("cgroup {path}: {source}")]
pub struct CgroupError {
    path: PathBuf,
    source: std::io::Error,
}

const V1_CONTROLLERS: [&str; 7] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices"];
const V2_CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];

/// cgroup v2 is in use when it is mounted at the root of the hierarchies.
pub fn detect(root: &Path) -> Version {
    if root.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 }
}

fn at<T>(path: &Path, r: std::io::Result<T>) -> Result<T, CgroupError> {
    r.map_err(|source| CgroupError { path: path.to_owned(), source })
}

impl CgroupFs {
    pub fn new(root: PathBuf, layout: Layout) -> CgroupFs {
        let version = detect(&root);
        CgroupFs { root, layout, version }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Makes the group if it is not there and writes `values`.
    pub fn apply(&self, path: &CgroupPath, values: &CgroupValues) -> Result<(), CgroupError> {
        let relative = self.layout.fs_path(path);
        match self.version {
            Version::V1 => self.apply_v1(&relative, values),
            Version::V2 => self.apply_v2(&relative, values),
        }
    }

    fn controllers(&self) -> impl Iterator<Item = PathBuf> + '_ {
        V1_CONTROLLERS.iter().map(|c| self.root.join(c)).filter(|p| p.join("tasks").exists())
    }

    fn apply_v1(&self, relative: &str, v: &CgroupValues) -> Result<(), CgroupError> {
        for base in self.controllers() {
            let dir = base.join(relative);
            if !dir.exists() {
                at(&dir, std::fs::create_dir_all(&dir))?;
                inherit_cpuset(&base, relative)?;
            }
        }
        let file = |controller: &str, name: &str| self.root.join(controller).join(relative).join(name);
        if let Some(s) = v.cpu_shares {
            write(&file("cpu", "cpu.shares"), &s.to_string())?;
        }
        if let Some(q) = v.cpu_quota {
            if q > 0 {
                write(&file("cpu", "cpu.cfs_period_us"), &PERIOD_US.to_string())?;
            }
            write(&file("cpu", "cpu.cfs_quota_us"), &q.to_string())?;
        }
        if let Some(m) = v.memory_max {
            write(&file("memory", "memory.limit_in_bytes"), &m.to_string())?;
        }
        if let Some(p) = v.pids_max {
            write(&file("pids", "pids.max"), &p.to_string())?;
        }
        Ok(())
    }

    fn apply_v2(&self, relative: &str, v: &CgroupValues) -> Result<(), CgroupError> {
        let mut dir = self.root.clone();
        for part in relative.split('/') {
            delegate(&dir)?;
            dir.push(part);
            if !dir.exists() {
                at(&dir, std::fs::create_dir(&dir))?;
            }
        }
        if let Some(s) = v.cpu_shares {
            write(&dir.join("cpu.weight"), &weight(s).to_string())?;
        }
        if let Some(q) = v.cpu_quota {
            let quota = if q > 0 { q.to_string() } else { "max".into() };
            write(&dir.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
        }
        let bound = |n: i64| if n >= 0 { n.to_string() } else { "max".into() };
        if let Some(m) = v.memory_max {
            write(&dir.join("memory.max"), &bound(m))?;
        }
        if let Some(p) = v.pids_max {
            write(&dir.join("pids.max"), &bound(p))?;
        }
        Ok(())
    }

    /// Removes the group and what the runtime left in it. A group that is gone is no error.
    pub fn remove(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        let relative = self.layout.fs_path(path);
        match self.version {
            Version::V1 => self.controllers().try_for_each(|base| remove_tree(&base.join(&relative))),
            Version::V2 => remove_tree(&self.root.join(&relative)),
        }
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    at(path, std::fs::write(path, value))
}

/// Children may use the controllers that the parent has.
fn delegate(dir: &Path) -> Result<(), CgroupError> {
    let available = at(dir, std::fs::read_to_string(dir.join("cgroup.controllers")))?;
    let wanted = V2_CONTROLLERS.iter().filter(|c| available.split_whitespace().any(|a| a == **c));
    let line = wanted.map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ");
    write(&dir.join("cgroup.subtree_control"), &line)
}

/// A new cpuset of v1 is empty, and no process can live in it, until it takes its parent's values.
fn inherit_cpuset(base: &Path, relative: &str) -> Result<(), CgroupError> {
    if base.file_name().is_none_or(|n| n != "cpuset") {
        return Ok(());
    }
    let mut dir = base.to_owned();
    for part in relative.split('/') {
        let parent = dir.clone();
        dir.push(part);
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let own = at(&dir, std::fs::read_to_string(dir.join(name)))?;
            if own.trim().is_empty() {
                let value = at(&parent, std::fs::read_to_string(parent.join(name)))?;
                write(&dir.join(name), value.trim())?;
            }
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(e) => e,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return at(dir, Err(e)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => at(dir, Err(e)),
        _ => Ok(()),
    }
}
