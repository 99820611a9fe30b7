//! Environment variables that announce services (specification of the kubelet, 10.1).

use crate::pod::Protocol;

/// A service with a cluster IP, as far as the environment shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    pub namespace: String,
    pub name: String,
    pub cluster_ip: String,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
}

/// Variables for a pod of `namespace`: `default/kubernetes` always, the namespace's own services with `links`.
pub fn variables<'a>(services: impl Iterator<Item = &'a ServiceAddress>, namespace: &str, links: bool) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for s in services {
        let master = s.namespace == "default" && s.name == "kubernetes";
        if !s.ports.is_empty() && (master || (links && s.namespace == namespace)) {
            of_service(s, &mut out);
        }
    }
    out
}

fn of_service(s: &ServiceAddress, out: &mut Vec<(String, String)>) {
    let n = variable_name(&s.name);
    let host = if s.cluster_ip.contains(':') { format!("[{}]", s.cluster_ip) } else { s.cluster_ip.clone() };
    out.push((format!("{n}_SERVICE_HOST"), s.cluster_ip.clone()));
    out.push((format!("{n}_SERVICE_PORT"), s.ports[0].port.to_string()));
    for p in s.ports.iter().filter(|p| !p.name.is_empty()) {
        out.push((format!("{n}_SERVICE_PORT_{}", variable_name(&p.name)), p.port.to_string()));
    }
    for (i, p) in s.ports.iter().enumerate() {
        let scheme = p.protocol.to_string().to_lowercase();
        let url = format!("{scheme}://{host}:{}", p.port);
        if i == 0 {
            out.push((format!("{n}_PORT"), url.clone()));
        }
        let prefix = format!("{n}_PORT_{}_{}", p.port, p.protocol);
        out.push((prefix.clone(), url));
        out.push((format!("{prefix}_PROTO"), scheme));
        out.push((format!("{prefix}_PORT"), p.port.to_string()));
        out.push((format!("{prefix}_ADDR"), s.cluster_ip.clone()));
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_announced_as_docker_links_were() {
        let s = ServiceAddress {
            namespace: "default".into(),
            name: "tomcat-service".into(),
            cluster_ip: "10.254.80.192".into(),
            ports: vec![
                ServicePort { name: "http".into(), port: 8080, protocol: Protocol::TCP },
                ServicePort { name: "".into(), port: 53, protocol: Protocol::UDP },
            ],
        };
        let vars = variables([&s].into_iter(), "default", true);
        let get = |k: &str| vars.iter().find(|(n, _)| n == k).map(|(_, v)| v.as_str());
        assert_eq!(get("TOMCAT_SERVICE_SERVICE_HOST"), Some("10.254.80.192"));
        assert_eq!(get("TOMCAT_SERVICE_SERVICE_PORT_HTTP"), Some("8080"));
        assert_eq!(get("TOMCAT_SERVICE_PORT"), Some("tcp://10.254.80.192:8080"));
        assert_eq!(get("TOMCAT_SERVICE_PORT_53_UDP_PROTO"), Some("udp"));
        assert_eq!(get("TOMCAT_SERVICE_PORT_8080_TCP_ADDR"), Some("10.254.80.192"));
        assert!(variables([&s].into_iter(), "default", false).is_empty());
        assert!(variables([&s].into_iter(), "other", true).is_empty());
    }
}
