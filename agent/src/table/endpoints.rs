//! Endpoints of services, gathered from their slices.

use super::age::age;
use super::{Table, or_none};
use crate::time::Wall;
use longshore_dataplane::wire::EndpointSlice;
use std::collections::BTreeMap;

/// The label by which a slice belongs to its service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Addresses in a row at most; the others are counted.
const MOST: usize = 3;

/// One row per service; the namespace of each beside the table.
pub fn table(slices: &[EndpointSlice], now: Wall) -> (Table, Vec<String>) {
    let mut services: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for s in slices {
        services.entry((&s.metadata.namespace, service_of(s))).or_default().push(s);
    }
    let mut t = Table::new(&["NAME", "ENDPOINTS", "AGE"], 3);
    let mut namespaces = Vec::new();
    for ((namespace, name), slices) in services {
        let created = slices.iter().filter_map(|s| s.metadata.creation_timestamp.as_deref().and_then(Wall::parse_rfc3339)).min();
        t.rows.push(vec![name.to_owned(), addresses(&slices), age(created, now)]);
        namespaces.push(namespace.to_owned());
    }
    (t, namespaces)
}

/// One row per slice.
pub fn slices(slices: &[EndpointSlice], now: Wall) -> Table {
    let mut t = Table::new(&["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"], 5);
    let row = |s: &EndpointSlice| {
        let ports: Vec<String> = s.ports.iter().filter_map(|p| p.port).map(|p| p.to_string()).collect();
        let addresses: Vec<&str> = s.endpoints.iter().flat_map(|e| &e.addresses).map(String::as_str).collect();
        let more = addresses.len().saturating_sub(MOST);
        let shown = addresses[..addresses.len() - more].join(",");
        let shown = if more > 0 { format!("{shown} + {more} more...") } else { or_unset(shown) };
        let created = s.metadata.creation_timestamp.as_deref().and_then(Wall::parse_rfc3339);
        vec![s.metadata.name.clone(), s.address_type.clone(), or_unset(ports.join(",")), shown, age(created, now)]
    };
    t.rows = slices.iter().map(row).collect();
    t
}

fn or_unset(text: String) -> String {
    if text.is_empty() { "<unset>".into() } else { text }
}

/// The service of a slice; the slice's own name where the label is missing.
pub fn service_of(s: &EndpointSlice) -> &str {
    s.metadata.labels.get(SERVICE_NAME).unwrap_or(&s.metadata.name)
}

/// Ready addresses with their ports.
fn addresses(slices: &[&EndpointSlice]) -> String {
    let mut all = Vec::new();
    for s in slices {
        let ready = s.endpoints.iter().filter(|e| e.conditions.ready != Some(false));
        for address in ready.flat_map(|e| &e.addresses) {
            let host = if s.address_type == "IPv6" { format!("[{address}]") } else { address.clone() };
            let mut ports = s.ports.iter().filter_map(|p| p.port).peekable();
            if ports.peek().is_none() {
                all.push(host.clone());
            }
            all.extend(ports.map(|p| format!("{host}:{p}")));
        }
    }
    if all.len() <= MOST {
        return or_none(&all.join(","));
    }
    format!("{} + {} more...", all[..MOST].join(","), all.len() - MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(n: usize, ready: bool) -> EndpointSlice {
        let endpoints: Vec<_> =
            (1..=n).map(|i| serde_json::json!({"addresses": [format!("10.0.0.{i}")], "conditions": {"ready": ready}})).collect();
        serde_json::from_value(serde_json::json!({"metadata": {"name": "web-x", "namespace": "a", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints}))
        .unwrap()
    }

    #[test]
    fn endpoints_are_gathered_by_service_and_counted_beyond_three() {
        let (t, namespaces) = table(&[slice(2, true), slice(3, true)], Wall::default());
        assert_eq!(t.rows, [["web", "10.0.0.1:80,10.0.0.2:80,10.0.0.1:80 + 2 more...", "<unknown>"]]);
        assert_eq!(namespaces, ["a"]);
    }

    #[test]
    fn endpoints_that_are_not_ready_do_not_show() {
        assert_eq!(table(&[slice(2, false)], Wall::default()).0.rows[0][1], "<none>");
    }
}
