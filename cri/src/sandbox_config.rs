//! From a plain description of a pod's sandbox to the message that asks for it.
//!
//! Owns the shape of the request. Must never look anything up: every value is settled by the
//! caller. Tests: below.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use crate::labels::PodIdentity;
use crate::resources::Resources;
use crate::security::{GroupsPolicy, Namespaces, Profile, SeLinux, int64};
use crate::v1;

/// All that a sandbox is made from. Start from [`SandboxSpec::new`] and fill what differs.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxSpec {
    pub pod: PodIdentity,
    /// 0 for the first sandbox of a pod, one more for each that replaces it.
    pub attempt: u32,
    /// Empty with the host's network, which keeps the host's name.
    pub hostname: String,
    /// Absolute; containers' log paths are relative to it.
    pub log_directory: String,
    /// `None` leaves resolv.conf to the runtime (the node's own).
    pub dns: Option<Dns>,
    pub port_mappings: Vec<PortMapping>,
    /// The pod's own labels and annotations; the kubelet's are added.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// RuntimeClass handler; empty for the default.
    pub runtime_handler: String,
    /// Full path of the pod's cgroup in the notation of the cgroup driver.
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    pub namespaces: Namespaces,
    pub selinux: Option<SeLinux>,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub groups_policy: GroupsPolicy,
    /// Whether any container of the pod is privileged.
    pub privileged: bool,
    /// Sum over the containers, without overhead.
    pub resources: Option<Resources>,
    pub overhead: Option<Resources>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    /// 0 for none.
    pub host_port: u16,
    /// Empty for every address.
    pub host_ip: String,
}

impl PortMapping {
    fn to_cri(&self) -> v1::PortMapping {
        v1::PortMapping {
            protocol: match self.protocol {
                Protocol::Tcp => v1::Protocol::Tcp,
                Protocol::Udp => v1::Protocol::Udp,
                Protocol::Sctp => v1::Protocol::Sctp,
            } as i32,
            container_port: self.container_port.into(),
            host_port: self.host_port.into(),
            host_ip: self.host_ip.clone(),
        }
    }
}

impl SandboxSpec {
    pub fn new(pod: PodIdentity) -> Self {
        SandboxSpec {
            hostname: pod.name.to_string(),
            pod,
            attempt: 0,
            log_directory: String::new(),
            dns: None,
            port_mappings: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            runtime_handler: String::new(),
            cgroup_parent: String::new(),
            sysctls: BTreeMap::new(),
            namespaces: Namespaces::default(),
            selinux: None,
            run_as_user: None,
            run_as_group: None,
            supplemental_groups: Vec::new(),
            groups_policy: GroupsPolicy::default(),
            privileged: false,
            resources: None,
            overhead: None,
        }
    }

    /// Also what CreateContainer wants beside the container's own configuration.
    pub fn to_cri(&self) -> v1::PodSandboxConfig {
        let mut labels = self.labels.clone();
        self.pod.write(&mut labels);
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: self.pod.name.to_string(),
                uid: self.pod.uid.to_string(),
                namespace: self.pod.namespace.to_string(),
                attempt: self.attempt,
            }),
            // The node's own name is kept with the node's own network.
            hostname: if self.namespaces.host_network { String::new() } else { self.hostname.clone() },
            log_directory: self.log_directory.clone(),
            dns_config: self.dns.as_ref().map(|d| v1::DnsConfig {
                servers: d.servers.clone(),
                searches: d.searches.clone(),
                options: d.options.clone(),
            }),
            port_mappings: self.port_mappings.iter().map(PortMapping::to_cri).collect(),
            labels,
            annotations: self.annotations.clone(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                security_context: Some(self.security_context()),
                sysctls: self.sysctls.clone(),
                overhead: self.overhead.as_ref().map(Resources::to_cri),
                resources: self.resources.as_ref().map(Resources::to_cri),
            }),
            windows: None,
        }
    }

    fn security_context(&self) -> v1::LinuxSandboxSecurityContext {
        v1::LinuxSandboxSecurityContext {
            namespace_options: Some(self.namespaces.to_cri()),
            selinux_options: self.selinux.as_ref().map(SeLinux::to_cri),
            run_as_user: int64(self.run_as_user),
            run_as_group: int64(self.run_as_group),
            readonly_rootfs: false,
            supplemental_groups: self.supplemental_groups.clone(),
            supplemental_groups_policy: self.groups_policy.to_cri(),
            privileged: self.privileged,
            // Whatever the pod says: the sandbox's own process needs no more. Runtimes drop the
            // profile of a privileged sandbox by themselves.
            seccomp: Some(Profile::RuntimeDefault.to_cri()),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::PidNamespace;

    fn spec() -> SandboxSpec {
        SandboxSpec::new(PodIdentity::new("u1", "ns", "web"))
    }

    #[test]
    fn kubelet_labels_win_over_the_pods_own() {
        let mut s = spec();
        s.labels.insert("app".into(), "x".into());
        s.labels.insert("io.kubernetes.pod.uid".into(), "forged".into());
        let labels = s.to_cri().labels;
        assert_eq!(labels["io.kubernetes.pod.uid"], "u1");
        assert_eq!(labels["app"], "x");
        assert_eq!(labels.len(), 4);
    }

    #[test]
    fn host_network_keeps_the_hosts_name() {
        let mut s = spec();
        assert_eq!(s.to_cri().hostname, "web");
        s.namespaces.host_network = true;
        let config = s.to_cri();
        assert_eq!(config.hostname, "");
        let security = config.linux.and_then(|l| l.security_context);
        let options = security.and_then(|s| s.namespace_options).expect("always sent");
        assert_eq!(options.network(), v1::NamespaceMode::Node);
        assert_eq!(options.ipc(), v1::NamespaceMode::Pod);
        assert_eq!(options.userns_options, None);
    }

    #[test]
    fn seccomp_of_the_sandbox_is_always_the_runtimes_default() {
        for privileged in [false, true] {
            let s = SandboxSpec { privileged, ..spec() };
            let security = s.to_cri().linux.and_then(|l| l.security_context).expect("always sent");
            assert_eq!(security.privileged, privileged);
            let seccomp = security.seccomp.expect("always sent");
            assert_eq!(seccomp.profile_type(), v1::security_profile::ProfileType::RuntimeDefault);
        }
    }

    #[test]
    fn a_user_namespace_carries_its_mappings() {
        let mut s = spec();
        s.namespaces.pid = PidNamespace::Pod;
        let run = crate::security::IdMapping { host_id: 65536, container_id: 0, length: 65536 };
        s.namespaces.user = Some(crate::security::UserNamespace { uids: vec![run], gids: vec![run] });
        let options = s.namespaces.to_cri();
        assert_eq!(options.pid(), v1::NamespaceMode::Pod);
        let user = options.userns_options.expect("asked for");
        assert_eq!(user.mode(), v1::NamespaceMode::Pod);
        assert_eq!(user.uids, [v1::IdMapping { host_id: 65536, container_id: 0, length: 65536 }]);
    }
}
