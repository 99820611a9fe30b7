//! From a plain description of a container to the message that asks for it.
//!
//! Owns the shape of the request. Must never look anything up: every value is settled by the
//! caller. Tests: below.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use crate::labels::{CONTAINER_NAME, ContainerFacts, PodIdentity};
use crate::resources::Resources;
use crate::security::{GroupsPolicy, IdMapping, Namespaces, ProcMount, Profile, SeLinux, int64};
use crate::v1;

/// All that a container is made from. Start from [`ContainerSpec::new`] and fill what differs.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    pub pod: PodIdentity,
    pub name: String,
    pub image: Image,
    pub command: Vec<String>,
    pub args: Vec<String>,
    /// Empty for the image's own.
    pub working_dir: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Fully qualified CDI names.
    pub cdi_devices: Vec<String>,
    /// What is remembered on the container; its restart count is also the attempt and the log's name.
    pub facts: ContainerFacts,
    /// Annotations of device plugins.
    pub annotations: BTreeMap<String, String>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// `None` for the image's own.
    pub stop_signal: Option<v1::Signal>,
    pub resources: Resources,
    pub namespaces: Namespaces,
    pub security: Security,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// What the pull or the look-up returned: an id or a digest.
    pub image_ref: String,
    /// What the pod says.
    pub user_specified: String,
    pub runtime_handler: String,
    pub annotations: BTreeMap<String, String>,
}

impl Image {
    /// For pulls and look-ups, where only the name is known.
    pub fn named(name: &str) -> Self {
        Image { image_ref: name.into(), user_specified: name.into(), ..Image::default() }
    }

    pub fn to_cri(&self) -> v1::ImageSpec {
        v1::ImageSpec {
            image: self.image_ref.clone(),
            annotations: self.annotations.clone(),
            user_specified_image: self.user_specified.clone(),
            runtime_handler: self.runtime_handler.clone(),
            image_ref: String::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    HostPath(String),
    /// An image volume, with the path inside it (empty for all of it).
    Image {
        image: Image,
        sub_path: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: MountSource,
    pub container_path: String,
    pub readonly: bool,
    /// Only with `readonly` and private propagation, where the handler can do it.
    pub recursive_readonly: bool,
    pub selinux_relabel: bool,
    pub propagation: Propagation,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    pub options: Vec<String>,
}

impl Mount {
    /// A private bind mount.
    pub fn bind(host_path: &str, container_path: &str, readonly: bool) -> Self {
        Mount {
            source: MountSource::HostPath(host_path.into()),
            container_path: container_path.into(),
            readonly,
            recursive_readonly: false,
            selinux_relabel: false,
            propagation: Propagation::Private,
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
            options: Vec::new(),
        }
    }

    /// An image seen as a volume; runtimes mount it read-only whatever is asked.
    pub fn image(image: Image, sub_path: &str, container_path: &str) -> Self {
        Mount { source: MountSource::Image { image, sub_path: sub_path.into() }, ..Mount::bind("", container_path, true) }
    }

    fn to_cri(&self) -> v1::Mount {
        let (host_path, image, image_sub_path) = match &self.source {
            MountSource::HostPath(path) => (path.clone(), None, String::new()),
            MountSource::Image { image, sub_path } => (String::new(), Some(image.to_cri()), sub_path.clone()),
        };
        v1::Mount {
            container_path: self.container_path.clone(),
            host_path,
            readonly: self.readonly,
            selinux_relabel: self.selinux_relabel,
            propagation: match self.propagation {
                Propagation::Private => v1::MountPropagation::PropagationPrivate,
                Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
                Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
            } as i32,
            uid_mappings: self.uid_mappings.iter().map(|m| m.to_cri()).collect(),
            gid_mappings: self.gid_mappings.iter().map(|m| m.to_cri()).collect(),
            recursive_read_only: self.recursive_readonly,
            image,
            image_sub_path,
            mount_options: self.options.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub host_path: String,
    pub container_path: String,
    /// Of the letters r, w and m.
    pub permissions: String,
}

/// A container's security context, with pod-level settings already merged in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    pub privileged: bool,
    pub run_as_user: Option<i64>,
    /// The image's user where it is a name; counts without `run_as_user`.
    pub run_as_username: String,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub groups_policy: GroupsPolicy,
    pub readonly_rootfs: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privs: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub selinux: Option<SeLinux>,
    /// `None` sends no profile at all; a kubelet sends `Unconfined` where a pod says nothing.
    pub seccomp: Option<Profile>,
    pub apparmor: Option<Profile>,
    pub proc_mount: ProcMount,
}

impl Security {
    fn to_cri(&self, namespaces: &Namespaces) -> v1::LinuxContainerSecurityContext {
        let (masked_paths, readonly_paths) = self.proc_mount.to_cri();
        let capabilities = (!self.add_capabilities.is_empty() || !self.drop_capabilities.is_empty()).then(|| v1::Capability {
            add_capabilities: self.add_capabilities.clone(),
            drop_capabilities: self.drop_capabilities.clone(),
            add_ambient_capabilities: Vec::new(),
        });
        v1::LinuxContainerSecurityContext {
            capabilities,
            privileged: self.privileged,
            namespace_options: Some(namespaces.to_cri()),
            selinux_options: self.selinux.as_ref().map(SeLinux::to_cri),
            run_as_user: int64(self.run_as_user),
            run_as_group: int64(self.run_as_group),
            // The runtime refuses a user given twice.
            run_as_username: match self.run_as_user {
                Some(_) => String::new(),
                None => self.run_as_username.clone(),
            },
            readonly_rootfs: self.readonly_rootfs,
            supplemental_groups: self.supplemental_groups.clone(),
            supplemental_groups_policy: self.groups_policy.to_cri(),
            no_new_privs: self.no_new_privs,
            masked_paths,
            readonly_paths,
            seccomp: self.seccomp.as_ref().map(Profile::to_cri),
            apparmor: self.apparmor.as_ref().map(Profile::to_cri),
            ..Default::default()
        }
    }
}

impl ContainerSpec {
    pub fn new(pod: PodIdentity, name: &str, image: Image) -> Self {
        ContainerSpec {
            pod,
            name: name.into(),
            image,
            command: Vec::new(),
            args: Vec::new(),
            working_dir: String::new(),
            env: Vec::new(),
            mounts: Vec::new(),
            devices: Vec::new(),
            cdi_devices: Vec::new(),
            facts: ContainerFacts::default(),
            annotations: BTreeMap::new(),
            stdin: false,
            stdin_once: false,
            tty: false,
            stop_signal: None,
            resources: Resources::default(),
            namespaces: Namespaces::default(),
            security: Security::default(),
        }
    }

    /// Log file relative to the sandbox's log directory.
    pub fn log_path(&self) -> String {
        format!("{}/{}.log", self.name, self.facts.restart_count)
    }

    pub fn to_cri(&self) -> v1::ContainerConfig {
        let mut labels = BTreeMap::from([(CONTAINER_NAME.to_owned(), self.name.clone())]);
        self.pod.write(&mut labels);
        let mut annotations = self.annotations.clone();
        self.facts.write(&mut annotations);
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: self.name.clone(), attempt: self.facts.restart_count }),
            image: Some(self.image.to_cri()),
            command: self.command.clone(),
            args: self.args.clone(),
            working_dir: self.working_dir.clone(),
            envs: self.env.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone().into() }).collect(),
            mounts: self.mounts.iter().map(Mount::to_cri).collect(),
            devices: self.devices.iter().map(Device::to_cri).collect(),
            labels,
            annotations,
            log_path: self.log_path(),
            stdin: self.stdin,
            stdin_once: self.stdin_once,
            tty: self.tty,
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(self.resources.to_cri()),
                security_context: Some(self.security.to_cri(&self.namespaces)),
            }),
            windows: None,
            cdi_devices: self.cdi_devices.iter().map(|name| v1::CdiDevice { name: name.clone() }).collect(),
            stop_signal: self.stop_signal.unwrap_or(v1::Signal::RuntimeDefault) as i32,
        }
    }
}

impl Device {
    fn to_cri(&self) -> v1::Device {
        v1::Device { container_path: self.container_path.clone(), host_path: self.host_path.clone(), permissions: self.permissions.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{MASKED_PATHS, PidNamespace};

    fn spec() -> ContainerSpec {
        let image = Image { image_ref: "sha256:1".into(), ..Image::named("web:1") };
        let mut s = ContainerSpec::new(PodIdentity::new("u1", "ns", "p"), "web", image);
        s.facts.restart_count = 4;
        s
    }

    #[test]
    fn attempt_and_log_follow_the_restart_count() {
        let c = spec().to_cri();
        assert_eq!(c.metadata.as_ref().map(|m| m.attempt), Some(4));
        assert_eq!(c.log_path, "web/4.log");
        assert_eq!(c.annotations["io.kubernetes.container.restartCount"], "4");
        assert_eq!(c.labels["io.kubernetes.container.name"], "web");
        assert_eq!(c.labels.len(), 4);
    }

    #[test]
    fn the_image_is_asked_for_by_id_and_remembered_by_name() {
        let image = spec().to_cri().image.expect("always sent");
        assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:1", "web:1"));
    }

    #[test]
    fn masks_follow_proc_mount() {
        let mut s = spec();
        s.security.proc_mount = ProcMount::Default { also_masked: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()] };
        let sc = |s: &ContainerSpec| s.to_cri().linux.and_then(|l| l.security_context).expect("always sent");
        assert_eq!(sc(&s).masked_paths.len(), MASKED_PATHS.len() + 1);
        assert_eq!(sc(&s).readonly_paths.len(), 5);
        s.security.proc_mount = ProcMount::Unmasked;
        assert!(sc(&s).masked_paths.is_empty() && sc(&s).readonly_paths.is_empty());
    }

    #[test]
    fn a_numeric_user_leaves_no_room_for_a_name() {
        let mut s = spec();
        s.security.run_as_username = "www".into();
        let sc = |s: &ContainerSpec| s.to_cri().linux.and_then(|l| l.security_context).expect("always sent");
        assert_eq!(sc(&s).run_as_username, "www");
        s.security.run_as_user = Some(0);
        assert_eq!(sc(&s).run_as_username, "");
        assert_eq!(sc(&s).run_as_user, Some(v1::Int64Value { value: 0 }));
    }

    #[test]
    fn mounts_show_host_paths_or_images() {
        let mut s = spec();
        let mut bind = Mount::bind("/h", "/c", true);
        bind.recursive_readonly = true;
        bind.propagation = Propagation::HostToContainer;
        s.mounts = vec![bind, Mount::image(Image::named("data:1"), "sub", "/img")];
        let m = s.to_cri().mounts;
        assert_eq!(m[0].host_path, "/h");
        assert!(m[0].recursive_read_only && m[0].readonly);
        assert_eq!(m[0].propagation(), v1::MountPropagation::PropagationHostToContainer);
        assert_eq!(m[1].host_path, "");
        assert_eq!(m[1].image.as_ref().map(|i| i.image.as_str()), Some("data:1"));
        assert_eq!(m[1].image_sub_path, "sub");
    }

    #[test]
    fn an_ephemeral_container_joins_its_targets_processes() {
        let mut s = spec();
        s.namespaces.pid = PidNamespace::Target("abc".into());
        let sc = s.to_cri().linux.and_then(|l| l.security_context).expect("always sent");
        let options = sc.namespace_options.expect("always sent");
        assert_eq!(options.pid(), v1::NamespaceMode::Target);
        assert_eq!(options.target_id, "abc");
        assert_eq!(sc.capabilities, None);
    }
}
