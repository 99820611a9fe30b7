//! `/etc/hosts` and the hostname of a pod (specification of the kubelet, 10.2).

use super::{Context, Error, paths};
use crate::pod::Pod;
use std::fmt::Write as _;

/// The managed hosts file; with the host's network the node's own file stands first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsFile {
    pub path: String,
    pub include_host_file: bool,
    pub header: String,
    pub aliases: String,
}

impl HostsFile {
    /// The file's content; `node` is the node's own file, used where it is to be included.
    pub fn text(&self, node: &str) -> String {
        let HostsFile { header, aliases, .. } = self;
        if self.include_host_file { format!("{header}{node}{aliases}") } else { format!("{header}{aliases}") }
    }
}

const FQDN_MAX: usize = 64;
const LABEL_MAX: usize = 63;

/// Hostname and domain of a pod.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = &pod.spec;
    if let Some(name) = &spec.hostname_override {
        return (name.clone(), String::new());
    }
    let mut name = if spec.hostname.is_empty() { pod.metadata.name.clone() } else { spec.hostname.clone() };
    if name.len() > LABEL_MAX {
        name.truncate(LABEL_MAX);
        name = name.trim_end_matches(['-', '.']).to_owned();
    }
    let domain = if spec.subdomain.is_empty() {
        String::new()
    } else {
        format!("{}.{}.svc.{cluster_domain}", spec.subdomain, pod.metadata.namespace)
    };
    (name, domain)
}

/// The name that the sandbox is given; empty with the host's network.
pub fn sandbox_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, Error> {
    if pod.spec.host_network && pod.spec.hostname_override.is_none() {
        return Ok(String::new());
    }
    let (name, domain) = hostname(pod, cluster_domain);
    if !pod.spec.set_hostname_as_fqdn || domain.is_empty() {
        return Ok(name);
    }
    let fqdn = format!("{name}.{domain}");
    if fqdn.len() > FQDN_MAX {
        let text = format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({FQDN_MAX} characters is the max, {} characters requested)",
            fqdn.len()
        );
        return Err(Error::Other(text));
    }
    Ok(fqdn)
}

/// The file for a container, unless a volume is mounted in its place or the pod has no address yet.
pub fn hosts_file(ctx: &Context<'_>) -> Option<HostsFile> {
    let pod = ctx.pod;
    let path = paths::hosts_file(ctx.config, &pod.metadata.uid);
    if pod.spec.host_network {
        let header = "# Kubernetes-managed hosts file (host network).\n".to_owned();
        return Some(HostsFile { path, include_host_file: true, header, aliases: aliases(pod) });
    }
    if ctx.pod_ips.is_empty() {
        return None;
    }
    let mut header = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let (name, domain) = hostname(pod, &ctx.config.cluster_domain);
    for ip in ctx.pod_ips {
        let _ = if domain.is_empty() { writeln!(header, "{ip}\t{name}") } else { writeln!(header, "{ip}\t{name}.{domain}\t{name}") };
    }
    Some(HostsFile { path, include_host_file: false, header, aliases: aliases(pod) })
}

fn aliases(pod: &Pod) -> String {
    let mut text = String::new();
    if pod.spec.host_aliases.is_empty() {
        return text;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for a in &pod.spec.host_aliases {
        let _ = writeln!(text, "{}\t{}", a.ip, a.hostnames.join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subdomain_makes_a_name_in_the_cluster() {
        let mut pod = Pod::default();
        pod.metadata.name = "web-0".into();
        pod.metadata.namespace = "default".into();
        assert_eq!(hostname(&pod, "cluster.local"), ("web-0".into(), String::new()));
        pod.spec.subdomain = "nginx".into();
        assert_eq!(hostname(&pod, "cluster.local"), ("web-0".into(), "nginx.default.svc.cluster.local".into()));
        pod.spec.set_hostname_as_fqdn = true;
        assert_eq!(sandbox_hostname(&pod, "cluster.local").unwrap(), "web-0.nginx.default.svc.cluster.local");
        pod.spec.hostname = "x".repeat(63);
        assert!(sandbox_hostname(&pod, "cluster.local").is_err());
    }

    #[test]
    fn a_long_pod_name_is_cut_to_a_label() {
        let mut pod = Pod::default();
        pod.metadata.name = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        assert_eq!(hostname(&pod, "c").0, "a".repeat(62));
    }
}
