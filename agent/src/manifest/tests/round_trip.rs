use super::{pod_of, read};
use crate::api::resource::CONFIG_MAPS;
use crate::manifest::edit::{self, Which};
use crate::manifest::{Object, Rules};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The object as a manifest, as `longshore get -o json` would print it.
fn render(o: &Object) -> Value {
    let (kind, version, mut v) = match o {
        Object::Pod(p) => ("Pod", "v1", serde_json::to_value(p).unwrap()),
        Object::Service(s) => ("Service", "v1", serde_json::to_value(s).unwrap()),
        Object::EndpointSlice(s) => ("EndpointSlice", "discovery.k8s.io/v1", serde_json::to_value(s).unwrap()),
        Object::Config { .. } | Object::Other { .. } => panic!("not rendered"),
    };
    v["kind"] = kind.into();
    v["apiVersion"] = version.into();
    v
}

fn again(o: &Object) -> Object {
    for text in [render(o).to_string(), serde_saphyr::to_string(&render(o)).unwrap()] {
        let c = read("f", &text, &Rules::default());
        assert_eq!(c.problems, [], "{text}");
        assert_eq!(c.objects, std::slice::from_ref(o), "{text}");
    }
    o.clone()
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]([-a-z0-9]{0,8}[a-z0-9])?"
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just("yes".to_owned()), Just("0644".to_owned()), Just("~".to_owned()), Just("1e3".to_owned()), "[ -~äß\n\t]{0,12}"]
}

fn quantity() -> impl Strategy<Value = String> {
    prop_oneof![
        (1..2000_u32).prop_map(|n| format!("{n}m")),
        (1..64_u32).prop_map(|n| n.to_string()),
        (1..999_u32).prop_map(|n| format!("{n}Mi"))
    ]
}

prop_compose! {
    fn a_container()(
        image in "[a-z]{1,6}(:[a-z0-9]{1,4})?",
        env in proptest::collection::btree_map("[A-Z]{1,6}", text(), 0..4),
        command in proptest::collection::vec(text(), 0..3),
        ports in proptest::collection::btree_set(1..65535_u16, 0..3),
        cpu in proptest::option::of(quantity()),
        period in 0..20_i64,
        probe in 0..4_u8,
        privileged in any::<bool>(),
        stdin in any::<bool>(),
        mount in any::<bool>(),
    ) -> Value {
        let env: Vec<Value> = env.into_iter().map(|(k, v)| json!({"name": k, "value": v})).collect();
        let ports: Vec<Value> = ports.into_iter().map(|p| json!({"containerPort": p})).collect();
        let mut c = json!({"image": image, "env": env, "command": command, "ports": ports, "stdin": stdin});
        if let Some(cpu) = cpu { c["resources"] = json!({"limits": {"cpu": cpu}}); }
        let handler = match probe { 0 => json!({"exec": {"command": ["a"]}}), 1 => json!({"httpGet": {"port": "http"}}), _ => json!({"grpc": {"port": 9}}) };
        if probe < 3 { c["livenessProbe"] = handler; c["livenessProbe"]["periodSeconds"] = period.into(); }
        if privileged { c["securityContext"] = json!({"privileged": true}); }
        if mount { c["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]); }
        c
    }
}

prop_compose! {
    fn a_pod()(
        name in name(),
        labels in proptest::collection::btree_map("[a-z]{1,5}", "[a-z0-9]{0,5}", 0..3),
        annotations in proptest::collection::btree_map("[a-z]{1,5}", text(), 0..3),
        mut containers in proptest::collection::vec(a_container(), 1..4),
        host_network in any::<bool>(),
        grace in 0..100_i64,
        restart in prop_oneof![Just("Always"), Just("Never"), Just("OnFailure")],
        source in prop_oneof![Just(json!({"emptyDir": {}})), Just(json!({"nfs": {"server": "s", "path": "/"}})), Just(json!({"configMap": {"name": "m", "defaultMode": 256}})), Just(json!({}))],
    ) -> Value {
        for (i, c) in containers.iter_mut().enumerate() { c["name"] = format!("c{i}").into(); }
        let mut volume = source;
        volume["name"] = "v".into();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"containers": containers, "hostNetwork": host_network, "terminationGracePeriodSeconds": grace, "restartPolicy": restart, "volumes": [volume]}})
    }
}

proptest! {
    #[test]
    fn what_was_parsed_and_rendered_parses_to_the_same(v in a_pod()) {
        let p = pod_of(&v.to_string());
        again(&Object::Pod(Box::new(p)));
    }

    #[test]
    fn nothing_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = read("f", &text, &Rules::default());
    }

    #[test]
    fn a_document_is_taken_whole_or_not_at_all(v in a_pod(), at in 0..400_usize, byte in any::<u8>()) {
        let mut bytes = v.to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte & 0x7f;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let c = read("f", &text, &Rules::default());
        prop_assert!(c.objects.is_empty() || c.problems.is_empty(), "{}", text);
    }
}

/// What a client may write: texts that YAML would take for something else, and shapes of every kind.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000..1000_i32).prop_map(|n| Value::from(f64::from(n) / 4.0)),
        text().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop_oneof![
            Just("---\na"),
            Just("# x"),
            Just("a: b"),
            Just("- a"),
            Just("...\n"),
            Just(" x "),
            Just("\t"),
            Just("|\n"),
            Just("0x1f"),
            Just(".nan"),
            Just("*a"),
            Just("&a b"),
            Just("!!str"),
            Just("<<")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(prop_oneof![text(), "[a-z]{1,5}".prop_map(String::from)], inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn which(name: &str) -> Which<'_> {
    Which { id: CONFIG_MAPS, namespace: "default", name }
}

fn config_map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

proptest! {
    #[test]
    fn an_object_that_is_written_into_a_file_reads_as_it_is_and_all_else_keeps_every_byte(
        new in any_value(), others in proptest::collection::vec(any_value(), 0..3), place in 0..4_usize, comment in "# [ -~]{0,10}", as_json in any::<bool>(),
    ) {
        let print = |v: &Value| if as_json { format!("{v:#}\n") } else { format!("{comment}\n{}", edit::yaml(v).unwrap()) };
        let mut documents: Vec<String> = others.iter().enumerate().map(|(n, v)| print(&config_map(&format!("o{n}"), v))).collect();
        let place = place.min(documents.len());
        documents.insert(place, print(&config_map("m", &json!({"old": "1"}))));
        let source = documents.join(if as_json { "" } else { "---\n" });
        let wanted = config_map("m", &new);
        let out = edit::replace(&source, &which("m"), Some(&wanted)).unwrap().unwrap();
        prop_assert_eq!(edit::find(&out, &which("m")), Some(wanted.clone()), "{}", out);
        for (n, value) in others.iter().enumerate() {
            let name = format!("o{n}");
            prop_assert_eq!(edit::find(&out, &which(&name)), Some(config_map(&name, value)), "{}", out);
        }
        if !as_json {
            let rest: Vec<&String> = documents.iter().enumerate().filter(|(i, _)| *i != place).map(|(_, d)| d).collect();
            prop_assert!(rest.iter().all(|d| out.contains(d.as_str())), "{}", out);
        }
        prop_assert_eq!(edit::replace(&out, &which("m"), Some(&wanted)).unwrap(), Some(out.clone()), "written twice is written once");
        let without = edit::replace(&out, &which("m"), None).unwrap();
        prop_assert_eq!(without.is_none(), others.is_empty());
        prop_assert!(without.is_none_or(|t| edit::find(&t, &which("m")).is_none()));
    }
}

#[test]
fn services_and_slices_survive_too() {
    for text in [
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: NodePort, sessionAffinity: ClientIP, selector: {a: b}, ports: [{port: 80, targetPort: http}]}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ExternalName, externalName: example.com}\n",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: IPv4\nendpoints: [{addresses: [10.1.2.3], hints: {forZones: [{name: a}]}}]\nports: [{port: 80}]\n",
    ] {
        again(&super::one(text));
    }
}
