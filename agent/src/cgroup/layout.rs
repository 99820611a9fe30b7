//! Names of the groups under `kubepods` for both cgroup drivers (specification of the kubelet, 7.2).

use crate::pod::{PodUid, QosClass};
use serde::Deserialize;

/// Who writes the hierarchy: we, or systemd on our behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// A group by its logical components under the cgroup root: `["kubepods", "burstable", "pod1234"]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupPath {
    parts: Vec<String>,
}

/// Where groups live on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub driver: Driver,
    /// Components above `kubepods`; empty unless `cgroupRoot` is configured.
    pub root: Vec<String>,
}

impl Layout {
    pub fn new(driver: Driver, cgroup_root: &str) -> Layout {
        let root = cgroup_root.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        Layout { driver, root }
    }

    pub fn kubepods(&self) -> CgroupPath {
        let mut parts = self.root.clone();
        parts.push("kubepods".into());
        CgroupPath { parts }
    }

    /// The parent of a class's pods; guaranteed pods stand directly under `kubepods`.
    pub fn qos(&self, class: QosClass) -> CgroupPath {
        match class {
            QosClass::Guaranteed => self.kubepods(),
            QosClass::Burstable => self.kubepods().child("burstable"),
            QosClass::BestEffort => self.kubepods().child("besteffort"),
        }
    }

    pub fn pod(&self, class: QosClass, uid: &PodUid) -> CgroupPath {
        self.qos(class).child(&format!("pod{uid}"))
    }

    /// The path under a hierarchy's mount point, without a leading slash.
    pub fn fs_path(&self, path: &CgroupPath) -> String {
        match self.driver {
            Driver::Cgroupfs => path.parts.join("/"),
            Driver::Systemd => slices(&path.parts).join("/"),
        }
    }

    /// The text of `cgroup_parent` for the runtime, in the driver's notation.
    pub fn cri_parent(&self, path: &CgroupPath) -> String {
        match self.driver {
            Driver::Cgroupfs => format!("/{}", path.parts.join("/")),
            Driver::Systemd => slices(&path.parts).pop().unwrap_or_default(),
        }
    }

    /// The uid in a group's directory name, if it is a pod's.
    pub fn uid_of(&self, directory: &str) -> Option<PodUid> {
        match self.driver {
            Driver::Cgroupfs => directory.strip_prefix("pod").map(PodUid::new),
            Driver::Systemd => {
                let name = directory.strip_suffix(".slice")?;
                let last = name.rsplit('-').next()?;
                last.strip_prefix("pod").map(|u| PodUid::new(&u.replace('_', "-")))
            }
        }
    }
}

impl CgroupPath {
    pub fn child(mut self, name: &str) -> CgroupPath {
        self.parts.push(name.to_owned());
        self
    }
}

/// systemd spells nesting in the name: `a`, `a-b`, ... each a `.slice`; a dash inside one component
/// would add a level, so it becomes an underscore.
fn slices(parts: &[String]) -> Vec<String> {
    let mut prefix = String::new();
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(&part.replace('-', "_"));
        out.push(format!("{prefix}.slice"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid() -> PodUid {
        PodUid::new("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9")
    }

    #[test]
    fn cgroupfs_names_are_the_kubelets() {
        let l = Layout::new(Driver::Cgroupfs, "");
        assert_eq!(l.fs_path(&l.kubepods()), "kubepods");
        assert_eq!(l.fs_path(&l.pod(QosClass::Guaranteed, &uid())), "kubepods/pod0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9");
        assert_eq!(l.cri_parent(&l.pod(QosClass::Burstable, &uid())), "/kubepods/burstable/pod0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9");
        let under = Layout::new(Driver::Cgroupfs, "/lab/");
        assert_eq!(under.fs_path(&under.qos(QosClass::BestEffort)), "lab/kubepods/besteffort");
    }

    #[test]
    fn systemd_names_are_the_kubelets() {
        let l = Layout::new(Driver::Systemd, "/");
        let pod = l.pod(QosClass::Burstable, &uid());
        assert_eq!(
            l.fs_path(&pod),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9.slice"
        );
        assert_eq!(l.cri_parent(&pod), "kubepods-burstable-pod0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9.slice");
        assert_eq!(
            l.fs_path(&l.pod(QosClass::Guaranteed, &uid())),
            "kubepods.slice/kubepods-pod0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9.slice"
        );
    }

    #[test]
    fn a_pods_uid_is_read_back_from_its_directory() {
        for driver in [Driver::Cgroupfs, Driver::Systemd] {
            let l = Layout::new(driver, "");
            for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
                let path = l.fs_path(&l.pod(class, &uid()));
                assert_eq!(l.uid_of(path.rsplit('/').next().unwrap()), Some(uid()));
            }
            assert_eq!(l.uid_of("burstable"), None);
            assert_eq!(l.uid_of("kubepods-burstable.slice"), None);
        }
    }
}
