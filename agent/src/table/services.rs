//! Services in rows.

use super::age::age;
use super::{Table, or_none, selector};
use crate::time::Wall;
use longshore_dataplane::wire::{Service, ServicePort};

pub fn table(services: &[Service], now: Wall) -> Table {
    let mut t = Table::new(&["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"], 6);
    t.rows = services.iter().map(|s| row(s, now)).collect();
    t
}

fn row(s: &Service, now: Wall) -> Vec<String> {
    let kind = if s.spec.type_.is_empty() { "ClusterIP" } else { &s.spec.type_ };
    let created = s.metadata.creation_timestamp.as_deref().and_then(Wall::parse_rfc3339);
    vec![
        s.metadata.name.clone(),
        kind.to_owned(),
        or_none(&s.spec.cluster_ip),
        external(s, kind),
        ports(&s.spec.ports),
        age(created, now),
        selector(&s.spec.selector),
    ]
}

/// `<pending>` while a load balancer is waited for.
fn external(s: &Service, kind: &str) -> String {
    if kind == "ExternalName" {
        return or_none(&s.spec.external_name);
    }
    let ingress = s.status.load_balancer.ingress.iter().map(|i| if i.ip.is_empty() { &i.hostname } else { &i.ip });
    let mut all: Vec<String> = if kind == "LoadBalancer" { ingress.cloned().collect() } else { Vec::new() };
    all.extend(s.spec.external_ips.iter().cloned());
    if all.is_empty() && kind == "LoadBalancer" { "<pending>".into() } else { or_none(&all.join(",")) }
}

/// `80:30080/TCP,53/UDP`
pub fn ports(ports: &[ServicePort]) -> String {
    let one = |p: &ServicePort| {
        let protocol = if p.protocol.is_empty() { "TCP" } else { &p.protocol };
        if p.node_port > 0 { format!("{}:{}/{protocol}", p.port, p.node_port) } else { format!("{}/{protocol}", p.port) }
    };
    or_none(&ports.iter().map(one).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(json: &str) -> Vec<String> {
        let s: Service = serde_json::from_str(json).unwrap();
        row(&s, Wall::from_seconds(100))
    }

    #[test]
    fn services_show_their_addresses_and_ports() {
        let row = show(
            r#"{"metadata":{"name":"web","creationTimestamp":"1970-01-01T00:00:10Z"},"spec":{"clusterIP":"10.96.0.5",
            "ports":[{"port":80},{"port":53,"protocol":"UDP","nodePort":30053}],"selector":{"app":"web"}}}"#,
        );
        assert_eq!(row, ["web", "ClusterIP", "10.96.0.5", "<none>", "80/TCP,53:30053/UDP", "90s", "app=web"]);
    }

    #[test]
    fn a_load_balancer_without_an_address_is_pending() {
        let head = r#"{"metadata":{"name":"lb"},"spec":{"type":"LoadBalancer""#;
        assert_eq!(show(&format!("{head}}}}}"))[3], "<pending>");
        let with = format!(r#"{head},"externalIPs":["192.0.2.1"]}},"status":{{"loadBalancer":{{"ingress":[{{"ip":"198.51.100.7"}}]}}}}}}"#);
        assert_eq!(show(&with)[3], "198.51.100.7,192.0.2.1");
        let name = r#"{"metadata":{"name":"x"},"spec":{"type":"ExternalName","externalName":"db.example.com"}}"#;
        assert_eq!(show(name)[1..4], ["ExternalName", "<none>", "db.example.com"]);
    }
}
