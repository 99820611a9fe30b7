use super::{container, one, pod, pod_of};
use crate::manifest::Object;
use crate::pod::{DnsPolicy, ImagePullPolicy, Protocol, TerminationMessagePolicy};
use longshore_dataplane::wire::IntOrString;

#[test]
fn what_a_pod_does_not_say_is_filled_in() {
    let p = pod_of(&container(
        "livenessProbe: {httpGet: {port: 80}, periodSeconds: 0, timeoutSeconds: 0, successThreshold: 0, failureThreshold: 0}, resources: {limits: {cpu: 1, memory: 64Mi}, requests: {cpu: 500m}}, ports: [{containerPort: 80}], terminationMessagePath: \"\"",
    ));
    let c = &p.spec.containers[0];
    let probe = c.liveness_probe.as_ref().unwrap();
    assert_eq!((probe.period_seconds, probe.timeout_seconds, probe.success_threshold, probe.failure_threshold), (10, 1, 1, 3));
    let http = probe.http_get.as_ref().unwrap();
    assert_eq!((http.path.as_str(), http.scheme.as_str()), ("/", "HTTP"));
    assert_eq!((c.resources.requests["cpu"].to_string(), c.resources.requests["memory"].to_string()), ("500m".into(), "64Mi".into()));
    assert_eq!(c.ports[0].protocol, Protocol::TCP);
    assert_eq!(c.termination_message_path, "/dev/termination-log");
    assert_eq!(c.termination_message_policy, TerminationMessagePolicy::File);
    assert_eq!(
        (p.metadata.namespace.as_str(), p.spec.dns_policy, p.spec.termination_grace_period_seconds),
        ("default", DnsPolicy::ClusterFirst, 30)
    );
    assert!(p.spec.enable_service_links);
    assert_eq!((p.spec.scheduler_name.as_str(), p.spec.service_account_name.as_str()), ("default-scheduler", "default"));
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, want) in [
        ("x", ImagePullPolicy::Always),
        ("x:latest", ImagePullPolicy::Always),
        ("x:1", ImagePullPolicy::IfNotPresent),
        ("reg:5000/x", ImagePullPolicy::Always),
        ("x@sha256:0000000000000000000000000000000000000000000000000000000000000000", ImagePullPolicy::IfNotPresent),
    ] {
        let p = pod_of(&pod(&format!("containers: [{{name: c, image: \"{image}\"}}]")));
        assert_eq!(p.spec.containers[0].image_pull_policy, Some(want), "{image}");
    }
}

#[test]
fn a_pod_on_the_hosts_network_holds_its_ports_there() {
    let p = pod_of(&pod("hostNetwork: true\ncontainers: [{name: c, image: x, ports: [{containerPort: 80}]}]"));
    assert_eq!(p.spec.containers[0].ports[0].host_port, 80);
}

#[test]
fn modes_of_files_are_0644_in_both_writings() {
    let p = pod_of(&pod(
        "volumes: [{name: a, secret: {secretName: s}}, {name: b, configMap: {name: m, defaultMode: 0400}}, {name: c, configMap: {name: m, defaultMode: 256}}, {name: d}]\ncontainers: [{name: c, image: x}]",
    ));
    let v = &p.spec.volumes;
    assert_eq!(v[0].secret.as_ref().unwrap().default_mode, 0o644);
    assert_eq!(v[1].config_map.as_ref().unwrap().default_mode, 0o400);
    assert_eq!(v[2].config_map.as_ref().unwrap().default_mode, 0o400);
    assert!(v[3].empty_dir.is_some(), "a volume without a source is an emptyDir");
}

#[test]
fn what_a_service_does_not_say_is_filled_in() {
    let text =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: NodePort, sessionAffinity: ClientIP, ports: [{port: 80}]}\n";
    let Object::Service(s) = one(text) else { panic!() };
    assert_eq!(s.spec.ports[0].protocol, "TCP");
    assert_eq!(s.spec.ports[0].target_port, Some(IntOrString::Int(80)));
    assert_eq!(s.spec.session_affinity_config.unwrap().client_ip.unwrap().timeout_seconds, Some(10_800));
    assert_eq!(s.spec.external_traffic_policy.as_deref(), Some("Cluster"));
    let Object::Service(s) = one("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n") else { panic!() };
    assert_eq!((s.spec.type_.as_str(), s.spec.session_affinity.as_str(), s.spec.external_traffic_policy), ("ClusterIP", "None", None));
}
