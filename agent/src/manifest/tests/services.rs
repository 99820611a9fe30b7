use super::{one, told};
use crate::manifest::{Object, Rules, read};

fn service(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{{spec}}}\n")
}

fn told_of(spec: &str) -> Vec<String> {
    told(&service(spec)).into_iter().map(|l| l.replace("document 1: Service default/s: spec.", "")).collect()
}

#[test]
fn services_keep_to_the_rules() {
    for (spec, want) in [
        ("ports: [{port: 80}]", ""),
        ("selector: {a: b}", "ports: Required value"),
        ("clusterIP: None, selector: {a: b}", ""),
        ("ports: [{}]", "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ("ports: [{port: 80}, {port: 81}]", "ports[0].name: Required value\nports[1].name: Required value"),
        ("ports: [{port: 80, name: a}, {port: 81, name: a}]", "ports[1].name: Duplicate value: \"a\""),
        ("ports: [{port: 80, name: a}, {port: 80, name: b}]", "ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"),
        ("ports: [{port: 80, name: a}, {port: 80, name: b, protocol: UDP}]", ""),
        (
            "ports: [{port: 80, targetPort: A_B}]",
            "ports[0].targetPort: Invalid value: \"A_B\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)\nports[0].targetPort: Invalid value: \"A_B\": must contain at least one letter (a-z)",
        ),
        ("ports: [{port: 80, nodePort: 30000}]", "ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
        (
            "type: NodePort, ports: [{port: 80, nodePort: 80}]",
            "ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            "type: nodeport, ports: [{port: 80}]",
            "type: Unsupported value: \"nodeport\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            "clusterIP: 10.0.0, ports: [{port: 80}]",
            "clusterIP: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            "clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2], ports: [{port: 80}]",
            "clusterIPs: Invalid value: \"10.0.0.2\": first value must match `clusterIP`",
        ),
        (
            "clusterIPs: [10.0.0.1, 10.0.0.2], ports: [{port: 80}]",
            "clusterIPs[1]: Invalid value: \"10.0.0.2\": may specify no more than one IP for each IP family",
        ),
        ("ipFamilies: [IPv4, IPv4], ports: [{port: 80}]", "ipFamilies[1]: Duplicate value: \"IPv4\""),
        (
            "clusterIP: 10.0.0.1, ipFamilies: [IPv6], ports: [{port: 80}]",
            "clusterIP: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`, not IPv4",
        ),
        (
            "type: NodePort, clusterIP: None, ports: [{port: 80}]",
            "clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        ("type: ExternalName", "externalName: Required value"),
        ("type: ExternalName, externalName: example.com.", ""),
        (
            "type: ExternalName, externalName: example.com, clusterIP: 10.0.0.1",
            "clusterIPs[0]: Forbidden: may not be set for ExternalName services",
        ),
        (
            "ports: [{port: 80}], sessionAffinity: clientip",
            "sessionAffinity: Unsupported value: \"clientip\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            "ports: [{port: 80}], sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}",
            "sessionAffinityConfig: Forbidden: must not be set when session affinity is None",
        ),
        (
            "ports: [{port: 80}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 90000}}",
            "sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0 and less than 86400",
        ),
        (
            "ports: [{port: 80}], externalIPs: [127.0.0.1]",
            "externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            "ports: [{port: 80}], externalTrafficPolicy: Local",
            "externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            "ports: [{port: 80}], loadBalancerSourceRanges: [10.0.0.0/8]",
            "loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            "type: LoadBalancer, ports: [{port: 80}], loadBalancerSourceRanges: [10.0.0.0]",
            "loadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ),
        (
            "ports: [{port: 80}], selector: {'a b': c}",
            "selector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        ("portz: [{port: 80}]", "portz: unknown field, did you mean ports?\nports: Required value"),
    ] {
        assert_eq!(told_of(spec), want.lines().collect::<Vec<_>>(), "{spec}");
    }
    assert!(
        told(&service("ports: [{port: 80}]").replace("name: s", "name: 0s"))[0]
            .contains("metadata.name: Invalid value: \"0s\": a DNS-1035 label must")
    );
    let rules = Rules { node_ports: (80, 90), ..Rules::default() };
    assert_eq!(read("f", &service("type: NodePort, ports: [{port: 80, nodePort: 80}]"), &rules).problems, []);
}

#[test]
fn slices_keep_to_the_rules() {
    let slice = |rest: &str| {
        let text = format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s}}\n{rest}\n");
        told(&text).join("\n").replace("document 1: EndpointSlice default/s: ", "")
    };
    for (rest, want) in [
        ("addressType: IPv4\nendpoints: [{addresses: [10.1.2.3]}]\nports: [{port: 80}]", ""),
        ("addressType: IPv4\nendpoints: null\nports: null", ""),
        ("endpoints: []", "addressType: Required value"),
        ("addressType: IPv5", "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""),
        ("addressType: IPv4\nendpoints: [{addresses: []}]", "endpoints[0].addresses: Required value: must contain at least 1 address"),
        (
            "addressType: IPv4\nendpoints: [{addresses: ['fd00::1']}]",
            "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
        ),
        (
            "addressType: IPv4\nendpoints: [{addresses: [127.0.0.1]}]",
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        ("addressType: IPv4\nports: [{port: 80}, {port: 81}]", "ports[1].name: Duplicate value: \"\""),
    ] {
        assert_eq!(slice(rest), want, "{rest}");
    }
}

#[test]
fn endpoints_become_slices_as_the_controller_mirrors_them() {
    let text = "apiVersion: v1
kind: Endpoints
metadata: {name: db, labels: {team: a}, annotations: {x: z, kubectl.kubernetes.io/last-applied-configuration: z}}
subsets:
- addresses: [{ip: 192.0.2.1, hostname: one, nodeName: node}, {ip: '2001:db8::1'}]
  notReadyAddresses: [{ip: 192.0.2.2}]
  ports: [{port: 5432}]
- addresses: [{ip: 192.0.2.3}]
  ports: [{port: 5433, name: other, protocol: UDP}]
";
    let c = read("f", text, &Rules::default());
    assert_eq!(c.problems, []);
    assert_eq!(c.objects[0].key().to_string(), "Endpoints default/db");
    let slices: Vec<_> = c.objects[1..].iter().map(|o| if let Object::EndpointSlice(s) = o { &**s } else { panic!() }).collect();
    let brief: Vec<_> = slices
        .iter()
        .map(|s| {
            let e: Vec<_> = s.endpoints.iter().map(|e| (e.addresses[0].as_str(), e.conditions.ready.unwrap())).collect();
            (s.metadata.name.as_str(), s.address_type.as_str(), s.ports[0].port.unwrap(), e)
        })
        .collect();
    assert_eq!(
        brief,
        [
            ("db-mirrored-v6-0", "IPv6", 5432, vec![("2001:db8::1", true)]),
            ("db-mirrored-v4-0", "IPv4", 5432, vec![("192.0.2.1", true), ("192.0.2.2", false)]),
            ("db-mirrored-v4-1", "IPv4", 5433, vec![("192.0.2.3", true)]),
        ]
    );
    let m = &slices[1].metadata;
    assert_eq!(m.labels["kubernetes.io/service-name"], "db");
    assert_eq!(m.labels["team"], "a");
    assert_eq!(m.annotations.keys().collect::<Vec<_>>(), ["x"]);
    assert_eq!(slices[1].endpoints[0].hostname.as_deref(), Some("one"));
    assert_eq!(slices[2].ports[0].protocol.as_deref(), Some("UDP"));
    let skipped = text.replace("{team: a}", "{endpointslice.kubernetes.io/skip-mirror: \"true\"}");
    let skipped = read("f", &skipped, &Rules::default());
    assert_eq!((skipped.objects.len(), skipped.problems), (1, vec![]), "only the Endpoints themselves");
    assert_eq!(
        told("apiVersion: v1\nkind: Endpoints\nmetadata: {name: db}\nsubsets: [{addresses: [{ip: x}], ports: [{name: a}]}, {}]\n"),
        [
            "document 1: Endpoints default/db: subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "document 1: Endpoints default/db: subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "document 1: Endpoints default/db: subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
        ]
    );
}

#[test]
fn a_dump_of_a_live_service_is_taken_without_what_the_server_owned() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s, uid: u, resourceVersion: '5', creationTimestamp: 2026-01-01T00:00:00Z}\nspec: {type: LoadBalancer, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, nodePort: 30080}], allocateLoadBalancerNodePorts: true, loadBalancerIP: 192.0.2.9}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.9, ipMode: VIP}]}}\n";
    let Object::Service(s) = one(text) else { panic!() };
    assert_eq!(
        (s.metadata.uid.as_str(), s.metadata.creation_timestamp, s.status.load_balancer.ingress[0].ip.as_str()),
        ("", None, "192.0.2.9")
    );
}
