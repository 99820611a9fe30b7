//! Rows of the kinds that have no types here, from their JSON.

use super::age::{age, human};
use super::{Table, or_none};
use crate::time::Wall;
use serde_json::Value;

/// Names of columns, how many show without `-o wide`, and what makes a row.
struct Print {
    kind: &'static str,
    columns: &'static [&'static str],
    narrow: usize,
    cells: fn(&Value, Wall) -> Vec<String>,
}

static PRINTS: &[Print] = &[
    Print {
        kind: "ConfigMap",
        columns: &["NAME", "DATA", "AGE"],
        narrow: 3,
        cells: |o, now| vec![keys(o, &["data", "binaryData"]), old(o, now)],
    },
    Print {
        kind: "Secret",
        columns: &["NAME", "TYPE", "DATA", "AGE"],
        narrow: 4,
        cells: |o, now| vec![at(o, "/type"), keys(o, &["data"]), old(o, now)],
    },
    Print { kind: "Namespace", columns: &["NAME", "STATUS", "AGE"], narrow: 3, cells: |o, now| vec![at(o, "/status/phase"), old(o, now)] },
    Print {
        kind: "Node",
        columns: &[
            "NAME",
            "STATUS",
            "ROLES",
            "AGE",
            "VERSION",
            "INTERNAL-IP",
            "EXTERNAL-IP",
            "OS-IMAGE",
            "KERNEL-VERSION",
            "CONTAINER-RUNTIME",
        ],
        narrow: 5,
        cells: node,
    },
    Print {
        kind: "ServiceAccount",
        columns: &["NAME", "SECRETS", "AGE"],
        narrow: 3,
        cells: |o, now| vec![count(&o["secrets"]), old(o, now)],
    },
    Print {
        kind: "PersistentVolume",
        columns: &["NAME", "CAPACITY", "ACCESS MODES", "RECLAIM POLICY", "STATUS", "CLAIM", "STORAGECLASS", "AGE", "VOLUMEMODE"],
        narrow: 8,
        cells: volume,
    },
    Print {
        kind: "PersistentVolumeClaim",
        columns: &["NAME", "STATUS", "VOLUME", "CAPACITY", "ACCESS MODES", "STORAGECLASS", "AGE", "VOLUMEMODE"],
        narrow: 7,
        cells: claim,
    },
    Print {
        kind: "StorageClass",
        columns: &["NAME", "PROVISIONER", "RECLAIMPOLICY", "VOLUMEBINDINGMODE", "ALLOWVOLUMEEXPANSION", "AGE"],
        narrow: 6,
        cells: |o, now| {
            let expands = if o["allowVolumeExpansion"] == true { "true" } else { "false" };
            let (reclaim, binding) = (default(at(o, "/reclaimPolicy"), "Delete"), default(at(o, "/volumeBindingMode"), "Immediate"));
            vec![at(o, "/provisioner"), reclaim, binding, expands.into(), old(o, now)]
        },
    },
    Print {
        kind: "Lease",
        columns: &["NAME", "HOLDER", "AGE"],
        narrow: 3,
        cells: |o, now| vec![at(o, "/spec/holderIdentity"), old(o, now)],
    },
    Print {
        kind: "Endpoints",
        columns: &["NAME", "ENDPOINTS", "AGE"],
        narrow: 3,
        cells: |o, now| vec![or_none(&endpoints(o).join(",")), old(o, now)],
    },
    Print {
        kind: "CertificateSigningRequest",
        columns: &["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"],
        narrow: 6,
        cells: request,
    },
    Print { kind: "RuntimeClass", columns: &["NAME", "HANDLER", "AGE"], narrow: 3, cells: |o, now| vec![at(o, "/handler"), old(o, now)] },
    Print {
        kind: "CSINode",
        columns: &["NAME", "DRIVERS", "AGE"],
        narrow: 3,
        cells: |o, now| vec![count(&o["spec"]["drivers"]), old(o, now)],
    },
    Print {
        kind: "CSIDriver",
        columns: &["NAME", "ATTACHREQUIRED", "PODINFOONMOUNT", "STORAGECAPACITY", "AGE"],
        narrow: 5,
        cells: |o, now| {
            let flag = |name: &str, default: bool| o["spec"][name].as_bool().unwrap_or(default).to_string();
            vec![flag("attachRequired", true), flag("podInfoOnMount", false), flag("storageCapacity", false), old(o, now)]
        },
    },
    Print {
        kind: "VolumeAttachment",
        columns: &["NAME", "ATTACHER", "PV", "NODE", "ATTACHED", "AGE"],
        narrow: 6,
        cells: |o, now| {
            let attached = o["status"]["attached"].as_bool().unwrap_or(false).to_string();
            vec![at(o, "/spec/attacher"), at(o, "/spec/source/persistentVolumeName"), at(o, "/spec/nodeName"), attached, old(o, now)]
        },
    },
    Print {
        kind: "ServiceCIDR",
        columns: &["NAME", "CIDRS", "AGE"],
        narrow: 3,
        cells: |o, now| vec![texts(&o["spec"]["cidrs"]).join(","), old(o, now)],
    },
];

/// Objects of one kind; kinds without columns of their own show name and age.
pub fn table(kind: &str, objects: &[Value], now: Wall) -> Table {
    let print = PRINTS.iter().find(|p| p.kind == kind);
    let mut t = print.map_or_else(|| Table::new(&["NAME", "AGE"], 2), |p| Table::new(p.columns, p.narrow));
    let row = |o: &Value| {
        let mut cells = vec![at(o, "/metadata/name")];
        cells.extend(print.map_or_else(|| vec![old(o, now)], |p| (p.cells)(o, now)));
        cells
    };
    t.rows = objects.iter().map(row).collect();
    t
}

fn at(o: &Value, pointer: &str) -> String {
    o.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn default(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.into() } else { text }
}

fn time(o: &Value, pointer: &str) -> Option<Wall> {
    o.pointer(pointer).and_then(Value::as_str).and_then(Wall::parse_rfc3339)
}

fn old(o: &Value, now: Wall) -> String {
    age(time(o, "/metadata/creationTimestamp"), now)
}

fn count(v: &Value) -> String {
    v.as_array().map_or(0, Vec::len).to_string()
}

fn keys(o: &Value, fields: &[&str]) -> String {
    fields.iter().map(|f| o[*f].as_object().map_or(0, serde_json::Map::len)).sum::<usize>().to_string()
}

fn texts(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn node(o: &Value, now: Wall) -> Vec<String> {
    let conditions = o["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready").map(|c| c["status"] == "True");
    let mut status = vec![match ready {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }];
    if o["spec"]["unschedulable"] == true {
        status.push("SchedulingDisabled");
    }
    let labels = o["metadata"]["labels"].as_object();
    let role = |k: &String| k.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()).map(str::to_owned);
    let roles: Vec<String> = labels.into_iter().flatten().filter_map(|(k, _)| role(k)).collect();
    let address = |kind: &str| {
        let all = o["status"]["addresses"].as_array();
        let found = all.into_iter().flatten().find(|a| a["type"] == kind);
        or_none(found.and_then(|a| a["address"].as_str()).unwrap_or_default())
    };
    let info = |field: &str| at(o, &format!("/status/nodeInfo/{field}"));
    vec![
        status.join(","),
        or_none(&roles.join(",")),
        old(o, now),
        info("kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        default(info("osImage"), "<unknown>"),
        default(info("kernelVersion"), "<unknown>"),
        default(info("containerRuntimeVersion"), "<unknown>"),
    ]
}

/// `RWO,ROX`
fn modes(v: &Value) -> String {
    const SHORT: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let all = texts(v);
    let shown: Vec<&str> = SHORT.iter().filter(|(long, _)| all.iter().any(|m| m == long)).map(|(_, short)| *short).collect();
    shown.join(",")
}

fn volume(o: &Value, now: Wall) -> Vec<String> {
    let claim = match at(o, "/spec/claimRef/name") {
        name if name.is_empty() => name,
        name => format!("{}/{name}", at(o, "/spec/claimRef/namespace")),
    };
    vec![
        at(o, "/spec/capacity/storage"),
        modes(&o["spec"]["accessModes"]),
        default(at(o, "/spec/persistentVolumeReclaimPolicy"), "Retain"),
        phase(o),
        claim,
        at(o, "/spec/storageClassName"),
        old(o, now),
        default(at(o, "/spec/volumeMode"), "Filesystem"),
    ]
}

fn phase(o: &Value) -> String {
    let ending = !at(o, "/metadata/deletionTimestamp").is_empty();
    if ending { "Terminating".into() } else { at(o, "/status/phase") }
}

fn claim(o: &Value, now: Wall) -> Vec<String> {
    vec![
        phase(o),
        at(o, "/spec/volumeName"),
        at(o, "/status/capacity/storage"),
        modes(&o["status"]["accessModes"]),
        at(o, "/spec/storageClassName"),
        old(o, now),
        default(at(o, "/spec/volumeMode"), "Filesystem"),
    ]
}

fn endpoints(o: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for subset in o["subsets"].as_array().into_iter().flatten() {
        let ports = subset["ports"].as_array();
        for address in subset["addresses"].as_array().into_iter().flatten() {
            let ip = address["ip"].as_str().unwrap_or_default();
            all.extend(ports.into_iter().flatten().map(|p| format!("{ip}:{}", p["port"])));
        }
    }
    all
}

fn request(o: &Value, now: Wall) -> Vec<String> {
    let kinds: Vec<&str> = o["status"]["conditions"].as_array().into_iter().flatten().filter_map(|c| c["type"].as_str()).collect();
    let mut state = match () {
        () if kinds.contains(&"Denied") => "Denied",
        () if kinds.contains(&"Approved") => "Approved",
        () if kinds.contains(&"Failed") => "Failed",
        () => "Pending",
    }
    .to_owned();
    if !at(o, "/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    let asked = o["spec"]["expirationSeconds"].as_i64().map_or_else(|| "<none>".into(), human);
    vec![old(o, now), at(o, "/spec/signerName"), at(o, "/spec/username"), asked, state]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_row_has_a_cell_for_each_column() {
        for p in PRINTS {
            let t = table(p.kind, &[json!({"metadata": {"name": "x"}})], Wall::from_seconds(0));
            assert_eq!(t.rows[0].len(), t.columns.len(), "{}", p.kind);
        }
    }

    #[test]
    fn a_node_shows_its_state_and_roles() {
        let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
        let t = table("Node", &[node], Wall::from_seconds(0));
        assert_eq!(t.rows[0][..3], ["n", "Ready,SchedulingDisabled", "control-plane"]);
        assert_eq!(t.rows[0][5], "192.0.2.1");
    }
}
