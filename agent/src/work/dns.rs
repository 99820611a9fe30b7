//! The resolver configuration of a pod (specification of the kubelet, 10.2).

use super::Context;
use crate::pod::DnsPolicy;
use longshore_cri::sandbox_config::Dns;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The host's resolver configuration, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolv {
    /// Reads resolv.conf's text; the last `search` line counts, a trailing dot and `.` go.
    pub fn parse(text: &str) -> Resolv {
        let mut r = Resolv::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => r.servers.extend(words.next().map(str::to_owned)),
                Some("search") => {
                    r.searches = words.map(|w| w.trim_end_matches('.').to_owned()).filter(|w| !w.is_empty()).collect();
                }
                Some("options") => r.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        r
    }
}

/// What a pod gets, and the warnings that go with it (reason and message of an Event).
pub fn dns(ctx: &Context<'_>) -> (Dns, Vec<(&'static str, String)>) {
    let (spec, host) = (&ctx.pod.spec, &ctx.config.host_resolv);
    let mut warnings = Vec::new();
    let cluster = match spec.dns_policy {
        DnsPolicy::ClusterFirst => !spec.host_network,
        DnsPolicy::ClusterFirstWithHostNet => true,
        DnsPolicy::Default | DnsPolicy::None => false,
    };
    let mut dns = match spec.dns_policy {
        DnsPolicy::None => Dns::default(),
        _ if cluster && !ctx.config.cluster_dns.is_empty() => of_cluster(ctx),
        _ => {
            if cluster {
                let policy = format!("{:?}", spec.dns_policy);
                warnings.push(("MissingClusterDNS", format!("kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy.")));
            }
            Dns { servers: host.servers.clone(), searches: host.searches.clone(), options: host.options.clone() }
        }
    };
    if let Some(own) = &spec.dns_config {
        append(&mut dns.servers, &own.nameservers);
        append(
            &mut dns.searches,
            &own.searches.iter().map(|s| s.trim_end_matches('.').to_owned()).filter(|s| !s.is_empty()).collect::<Vec<_>>(),
        );
        for o in &own.options {
            dns.options.retain(|e| e.split(':').next() != Some(o.name.as_str()));
            dns.options.push(o.value.as_ref().map_or_else(|| o.name.clone(), |v| format!("{}:{v}", o.name)));
        }
    }
    limit(&mut dns, &mut warnings);
    (dns, warnings)
}

fn of_cluster(ctx: &Context<'_>) -> Dns {
    let (domain, host) = (&ctx.config.cluster_domain, &ctx.config.host_resolv);
    let mut searches = Vec::new();
    if !domain.is_empty() {
        let ns = &ctx.pod.metadata.namespace;
        searches = vec![format!("{ns}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    }
    append(&mut searches, &host.searches);
    let mut options = host.options.clone();
    options.retain(|o| !o.starts_with("ndots:"));
    options.push("ndots:5".into());
    Dns { servers: ctx.config.cluster_dns.iter().map(ToString::to_string).collect(), searches, options }
}

fn append(to: &mut Vec<String>, more: &[String]) {
    for m in more {
        if !to.contains(m) {
            to.push(m.clone());
        }
    }
}

fn limit(dns: &mut Dns, warnings: &mut Vec<(&'static str, String)>) {
    if dns.servers.len() > MAX_NAMESERVERS {
        dns.servers.truncate(MAX_NAMESERVERS);
        let line = dns.servers.join(" ");
        warnings.push((
            "DNSConfigForming",
            format!("Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"),
        ));
    }
    let before = dns.searches.len();
    dns.searches.truncate(MAX_SEARCHES);
    while dns.searches.join(" ").len() > MAX_SEARCH_CHARS {
        dns.searches.pop();
    }
    if dns.searches.len() < before {
        let line = dns.searches.join(" ");
        warnings.push((
            "DNSConfigForming",
            format!("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_configuration_is_read_as_the_resolver_reads_it() {
        let r = Resolv::parse("# c\nnameserver 10.0.0.1\nnameserver ::1 # x\nsearch a. b.c .\noptions ndots:2 rotate\n");
        assert_eq!(r.servers, ["10.0.0.1", "::1"]);
        assert_eq!(r.searches, ["a", "b.c"]);
        assert_eq!(r.options, ["ndots:2", "rotate"]);
    }
}
