use super::{container, told, told_of_container, told_of_spec};
use crate::manifest::schema::{Shape, shape_of};

#[test]
fn a_misspelt_field_is_named_with_the_one_that_was_meant() {
    for (fields, want) in [
        (
            "livenessProbe: {tcpSocket: {port: 80}, initialDelayInSeconds: 3}",
            "livenessProbe.initialDelayInSeconds: unknown field, did you mean initialDelaySeconds?",
        ),
        ("imagePullpolicy: Always", "imagePullpolicy: unknown field, did you mean imagePullPolicy?"),
        ("ports: [{containerport: 80}]", "ports[0].containerport: unknown field, did you mean containerPort?"),
        ("readynessProbe: {}", "readynessProbe: unknown field, did you mean readinessProbe?"),
        ("colour: red", "colour: unknown field"),
    ] {
        assert!(told_of_container(fields).contains(&want.to_owned()), "{:?}", told_of_container(fields));
    }
    assert_eq!(told_of_spec("hostnetwork: true"), ["hostnetwork: unknown field, did you mean hostNetwork?"]);
    assert_eq!(told_of_spec("volumes: [{name: v, emptydir: {}}]"), ["volumes[0].emptydir: unknown field, did you mean emptyDir?"]);
}

#[test]
fn a_value_of_the_wrong_type_is_told_and_how_to_mend_it() {
    for (fields, want) in [
        ("env: [{name: A, value: 8080}]", "env[0].value: must be a text, not the number 8080; put it in quotes"),
        ("env: [{name: A, value: yes}]", "env[0].value: must be a text, not the boolean true; put it in quotes"),
        ("command: sleep", "command: must be a list, not the text \"sleep\""),
        ("tty: \"true\"", "tty: must be true or false, not the text \"true\""),
        ("ports: [{containerPort: \"80\"}]", "ports[0].containerPort: must be a whole number, not the text \"80\""),
        ("ports: [{containerPort: 70000}]", "ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ("ports: [{containerPort: 80.5}]", "ports[0].containerPort: must be a whole number, not the number 80.5"),
        (
            "ports: [{containerPort: 80, protocol: tcp}]",
            "ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "imagePullPolicy: always",
            "imagePullPolicy: Unsupported value: \"always\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            "resources: {limits: {memory: 64MB}}",
            "resources.limits[memory]: \"64MB\" is not a quantity; write a number with an optional suffix (m, k, M, G, Ki, Mi, Gi, ...), such as 250m or 64Mi",
        ),
        ("securityContext: []", "securityContext: must be an object, not a list"),
    ] {
        assert_eq!(told_of_container(fields), [want]);
    }
    assert_eq!(
        told_of_spec("volumes: [{name: v, configMap: {name: m, defaultMode: 01000}}]"),
        ["volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"]
    );
}

#[test]
fn fields_of_the_api_that_a_node_does_not_use_pass() {
    let text = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  uid: 11111111-1111-1111-1111-111111111111
  resourceVersion: "12"
  generation: 3
  creationTimestamp: 2026-01-01T00:00:00Z
  selfLink: /api/v1/x
  clusterName: c
  managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
  ownerReferences: [{apiVersion: v1, kind: Node, name: node, uid: u, controller: true}]
spec:
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [a]}]}]}}}
  topologySpreadConstraints: [{maxSkew: 1}]
  serviceAccount: robot
  schedulingGates: []
  priorityClassName: high
  preemptionPolicy: Never
  containers:
  - name: c
    image: x
    resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}]
    securityContext: {windowsOptions: {hostProcess: false}}
    stdinOnce: true
status: {phase: Running, containerStatuses: [{foo: 1}]}
"#;
    let p = super::pod_of(text);
    assert_eq!((p.metadata.uid.as_str(), p.metadata.generation, p.metadata.creation_timestamp), ("", 0, None));
    assert_eq!(p.spec.service_account_name, "robot");
}

#[test]
fn all_problems_of_a_document_are_told_at_once() {
    let text = container("imag: y, ports: [{containerPort: 0}, {containerPort: 99999}], livenessProbe: {}, env: [{value: x}]")
        .replace("web", "Web_1");
    let got = told(&text);
    assert_eq!(got.len(), 6, "{got:#?}");
    for part in [
        "imag: unknown field",
        "ports[1].containerPort: Invalid value: 99999",
        "metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123",
    ] {
        assert!(got.iter().any(|g| g.contains(part)), "{part}: {got:#?}");
    }
}

#[test]
fn nothing_is_the_same_as_absent() {
    assert_eq!(told_of_container("livenessProbe: null, env: ~, imagePullPolicy: \"\""), [""; 0]);
    assert_eq!(told_of_container("env: [null]"), ["env[0]: must be an object, not empty"]);
}

/// The shape at a path; elements of lists have no name in it.
fn shape(version: &str, kind: &str, path: &str) -> Shape {
    let fields = shape_of(version, kind).expect("a kind that is served");
    path.split('.').fold(Shape::Object(fields), |s, name| {
        let s = match s.inner() {
            Shape::Keyed(_, inner) | Shape::List(inner) => *inner,
            other => other,
        };
        s.field(name)
    })
}

/// What a strategic merge and server-side apply tell the elements of a list apart by.
#[test]
fn lists_of_the_api_are_keyed_as_the_api_keys_them() {
    for (version, kind, path, want) in [
        ("v1", "Pod", "metadata.ownerReferences", "Keyed([\"uid\"]"),
        ("v1", "Pod", "metadata.finalizers", "Set("),
        ("v1", "Pod", "spec.containers", "Keyed([\"name\"]"),
        ("v1", "Pod", "spec.containers.ports", "Keyed([\"containerPort\", \"protocol\"]"),
        ("v1", "Pod", "spec.ephemeralContainers.env", "Keyed([\"name\"]"),
        ("v1", "Pod", "spec.containers.args", "List("),
        ("v1", "Pod", "spec.containers.resources.claims", "Replaced(Keyed([\"name\"]"),
        ("v1", "Pod", "spec.topologySpreadConstraints", "Keyed([\"topologyKey\", \"whenUnsatisfiable\"]"),
        ("v1", "Pod", "spec.volumes", "Retained(Keyed([\"name\"]"),
        ("v1", "Pod", "spec.nodeSelector", "Atomic(Map("),
        ("v1", "Pod", "spec.tolerations", "List("),
        ("v1", "Pod", "status.hostIPs", "Atomic(Keyed([\"ip\"]"),
        ("v1", "Pod", "status.podIPs", "Keyed([\"ip\"]"),
        ("v1", "Pod", "status.containerStatuses", "List("),
        ("v1", "Service", "spec.ports", "Keyed([\"port\", \"protocol\"]"),
        ("v1", "Service", "spec.selector", "Atomic(Map("),
        ("v1", "Node", "status.conditions", "Keyed([\"type\"]"),
        ("v1", "Node", "spec.podCIDRs", "Set("),
        ("v1", "PersistentVolume", "spec.claimRef", "Object("),
        ("v1", "PersistentVolumeClaim", "spec.selector", "Atomic(Object("),
        ("storage.k8s.io/v1", "CSINode", "spec.drivers", "Keyed([\"name\"]"),
        ("certificates.k8s.io/v1", "CertificateSigningRequest", "status.conditions", "Replaced(Keyed([\"type\"]"),
        ("events.k8s.io/v1", "Event", "regarding", "Atomic(Object("),
    ] {
        let got = format!("{:?}", shape(version, kind, path));
        assert!(got.starts_with(want), "{kind} {path}: {got}");
    }
    assert!(shape_of("v1", "Deployment").is_none() && shape_of("v2", "Pod").is_none());
}
