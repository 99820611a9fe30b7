use super::{one, told};
use crate::manifest::{Object, Rules, read};

fn kind(kind: &str, version: &str) -> String {
    told(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n")).join("\n")
}

#[test]
fn kinds_that_need_controllers_are_refused_with_a_way_out() {
    let replicas = "this node has no controllers: take the Pod out of spec.template and write it as a Pod, one manifest for each replica";
    for k in ["Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"] {
        assert_eq!(kind(k, "apps/v1"), format!("document 1: {k} default/x: {replicas}"));
    }
    for (k, want) in [
        ("DaemonSet", "write it as a Pod"),
        ("Job", "restartPolicy OnFailure or Never"),
        ("CronJob", "spec.jobTemplate.spec.template"),
        ("Ingress", "run a proxy as a Pod"),
        ("Role", "no accounts"),
        ("HorizontalPodAutoscaler", "remove it"),
        ("pod", "there is no kind \"pod\", did you mean Pod?"),
        (
            "Widget",
            "this node knows no kind \"Widget\"; it takes CSIDriver, ConfigMap, EndpointSlice, Endpoints, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, RuntimeClass, Secret, Service, ServiceAccount, ServiceCIDR, StorageClass",
        ),
    ] {
        assert!(kind(k, "v1").contains(want), "{}", kind(k, "v1"));
    }
}

#[test]
fn kind_and_version_must_be_there_and_fit() {
    assert_eq!(told("metadata: {name: x}\n"), ["document 1: kind: Required value"]);
    assert_eq!(told("kind: Pod\n"), ["document 1: Pod default/(no name): apiVersion: Required value: a Pod is of v1"]);
    assert_eq!(kind("Pod", "apps/v1"), "document 1: Pod default/x: apiVersion: Invalid value: \"apps/v1\": a Pod is of v1");
    assert_eq!(
        kind("EndpointSlice", "discovery.k8s.io/v1beta1"),
        "document 1: EndpointSlice default/x: apiVersion: Invalid value: \"discovery.k8s.io/v1beta1\": a EndpointSlice is of discovery.k8s.io/v1"
    );
    assert_eq!(told("- a\n- b\n"), ["document 1: a manifest is an object with apiVersion, kind and metadata"]);
    assert_eq!(told("kind: 5\n"), ["document 1: kind: must be a text"]);
}

#[test]
fn a_namespace_is_kept_as_it_is() {
    let c = read("f", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\nspec: {finalizers: [kubernetes]}\n", &Rules::default());
    assert_eq!(c.problems, []);
    assert_eq!(c.objects[0].key().to_string(), "Namespace x");
}

#[test]
fn lists_of_every_kind_are_opened() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}}\n- {apiVersion: v1, kind: ServiceList, items: [{metadata: {name: b}, spec: {ports: [{port: 80}]}}]}\n";
    let c = read("f", text, &Rules::default());
    assert_eq!(c.problems, []);
    assert_eq!(c.objects.iter().map(|o| o.key().to_string()).collect::<Vec<_>>(), ["Secret default/a", "Service default/b"]);
    let text = "apiVersion: v1\nkind: PodList\nitems:\n- {metadata: {name: a}, spec: {containers: [{name: c}]}}\n";
    assert_eq!(told(text), ["document 1: Pod default/a: items[0].spec.containers[0].image: Required value"]);
}

#[test]
fn a_problem_is_one_line_that_says_where() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c}]}\n";
    let c = read("20-web.yaml", text, &Rules::default());
    assert_eq!(c.objects.len(), 1);
    assert_eq!(c.problems[0].to_string(), "20-web.yaml: document 2: Pod default/web: spec.containers[0].image: Required value");
    let c = read("x.yaml", "a: 1\n---\nb: [1\n", &Rules::default());
    let line = c.problems[1].to_string();
    assert!(line.starts_with("x.yaml:") && line.contains(": document 2: ") && !line.contains('\n'), "{line}");
}

#[test]
fn config_maps_and_secrets_become_bytes() {
    let text =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nimmutable: true\ndata: {a: aGVs\n    bG8=, b: eA==}\nstringData: {b: why}\n";
    let Object::Config { data, .. } = one(&text.replace("\n    ", "")) else { panic!() };
    assert_eq!((&*data.data["a"], &*data.data["b"], data.kind.as_str(), data.immutable), (&b"hello"[..], &b"why"[..], "Opaque", true));
    let Object::Config { data, .. } = one("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: x}\nbinaryData: {b: /w==}\n")
    else {
        panic!()
    };
    assert_eq!((&*data.data["a"], &*data.data["b"]), (&b"x"[..], &[0xff][..]));
    assert_eq!(
        told("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: hello!}\n"),
        ["document 1: Secret default/s: data[a]: not base64: invalid symbol 33, offset 5; plain text belongs into stringData"]
    );
    assert_eq!(
        told("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a/b: x, n: 5}\n"),
        [
            "document 1: ConfigMap default/m: data[n]: must be a text, not the number 5; put it in quotes",
            "document 1: ConfigMap default/m: data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ]
    );
    let tls = "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: s}\nstringData: {tls.crt: x}\n";
    assert_eq!(told(tls), ["document 1: Secret default/s: data[tls.key]: Required value"]);
    let docker =
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/dockerconfigjson\nmetadata: {name: s}\nstringData: {.dockerconfigjson: '{'}\n";
    assert_eq!(
        told(docker),
        ["document 1: Secret default/s: data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": must be valid JSON"]
    );
}

#[test]
fn a_file_beyond_ten_mebibytes_is_refused() {
    let c = read("f", &"#".repeat((10 << 20) + 1), &Rules::default());
    assert_eq!(c.problems[0].to_string(), "f: the file has 10485761 bytes; 10485760 (10 MiB) are the most");
}
