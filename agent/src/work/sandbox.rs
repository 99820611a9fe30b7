//! The sandbox's configuration.

use super::{Context, Error, dns, hosts, paths, security};
use crate::pod::resources::{limit, requests, to_milli, to_units};
use crate::pod::{Pod, Protocol, qos_class};
use longshore_cri::labels::PodIdentity;
use longshore_cri::resources::Resources;
use longshore_cri::sandbox_config::{PortMapping, Protocol as CriProtocol, SandboxSpec};
use longshore_cri::security::{Namespaces, PidNamespace};

pub fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity::new(&pod.metadata.uid, &pod.metadata.namespace, &pod.metadata.name)
}

pub fn namespaces(pod: &Pod) -> Namespaces {
    let pid = match (pod.spec.host_pid, pod.spec.share_process_namespace) {
        (true, _) => PidNamespace::Node,
        (false, true) => PidNamespace::Pod,
        (false, false) => PidNamespace::Container,
    };
    Namespaces { host_network: pod.spec.host_network, host_ipc: pod.spec.host_ipc, pid, user: None }
}

pub fn sandbox_spec(ctx: &Context<'_>, attempt: u32) -> Result<SandboxSpec, Error> {
    let (pod, config) = (ctx.pod, ctx.config);
    let sc = &pod.spec.security_context;
    let mut s = SandboxSpec::new(identity(pod));
    s.attempt = attempt;
    s.hostname = hosts::sandbox_hostname(pod, &config.cluster_domain)?;
    s.log_directory = paths::log_dir(config, pod);
    s.dns = Some(dns::dns(ctx).0);
    s.port_mappings = if pod.spec.host_network { Vec::new() } else { port_mappings(pod) };
    s.labels = pod.metadata.labels.clone();
    s.annotations = pod.metadata.annotations.clone();
    s.cgroup_parent = config.cgroups.cri_parent(&config.cgroups.pod(qos_class(pod), &pod.uid()));
    s.sysctls = sc.sysctls.iter().map(|s| (s.name.replace('/', "."), s.value.clone())).collect();
    s.namespaces = namespaces(pod);
    s.selinux = sc.se_linux_options.as_ref().map(security::selinux);
    s.run_as_user = sc.run_as_user;
    s.run_as_group = sc.run_as_group.filter(|_| sc.run_as_user.is_some());
    s.supplemental_groups = sc.fs_group.into_iter().chain(sc.supplemental_groups.iter().copied()).collect();
    s.groups_policy = security::groups_policy(ctx);
    s.privileged = pod.containers().any(|(_, c)| c.security_context.as_ref().is_some_and(|s| s.privileged));
    s.resources = Some(aggregate(pod));
    Ok(s)
}

fn aggregate(pod: &Pod) -> Resources {
    let r = requests(pod);
    let request = r.get("cpu").map(|n| to_milli(*n)).filter(|n| *n > 0);
    let bound = limit(pod, "cpu").map(to_milli).filter(|n| *n > 0);
    let period = i64::try_from(crate::cgroup::values::PERIOD_US).expect("a tenth of a second in microseconds");
    Resources::default().cpu(request, bound, period).memory(limit(pod, "memory").map_or(0, to_units))
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let main = pod.spec.containers.iter().chain(pod.spec.init_containers.iter());
    main.flat_map(|c| &c.ports)
        .map(|p| PortMapping {
            protocol: match p.protocol {
                Protocol::TCP => CriProtocol::Tcp,
                Protocol::UDP => CriProtocol::Udp,
                Protocol::SCTP => CriProtocol::Sctp,
            },
            container_port: p.container_port,
            host_port: p.host_port,
            host_ip: p.host_ip.clone(),
        })
        .collect()
}
