//! The Node object of a lone machine, and its lease: what the node knows of itself, in the API's words.
//!
//! Must never decide anything: conditions follow from what the runtime said last. Tests: at the end of this file.

use super::Show;
use crate::api::resource::{LEASES, NODES};
use crate::env::NodeFacts;
use crate::run::clock;
use crate::run::event_loop::Question;
use crate::time::Wall;
use serde_json::{Map, Value, json};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the conditions are looked at, and how often the lease is renewed.
const LOOK: Duration = Duration::from_secs(1);
const RENEW: Duration = Duration::from_secs(10);
/// How often a status is told anew that did not change.
const REPORT: Duration = Duration::from_secs(300);
const LEASE_SECONDS: i32 = 40;

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct About {
    pub facts: NodeFacts,
    /// `containerd://1.6.20`
    pub runtime: String,
    pub started: Wall,
    /// Of the kubelet's own server; 0: it has none.
    pub port: u16,
}

/// What the machine says of itself.
#[derive(Clone, Debug, Default)]
struct Machine {
    info: Map<String, Value>,
}

/// What the runtime said last; None: all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Health {
    runtime: Option<String>,
    network: Option<String>,
}

/// Shows the node until the daemon ends.
pub async fn keep(show: Rc<Show>, ask: mpsc::Sender<Question>, about: About) {
    let machine = machine(&about);
    let mut shown: Option<(Health, Wall, Wall)> = None;
    let mut renewed: Option<Wall> = None;
    loop {
        let (to, from) = tokio::sync::oneshot::channel();
        let question: Question = Box::new(move |n, _| {
            // The daemon may be ending.
            let _ = to.send(Health { runtime: n.runtime_error.clone(), network: n.network_error.clone() });
        });
        if ask.send(question).await.is_err() {
            return;
        }
        let Ok(health) = from.await else { return };
        let now = clock::now().wall;
        let changed = shown.as_ref().filter(|(h, _, _)| *h == health);
        let since = changed.map_or(now, |(_, since, _)| *since);
        if changed.is_none_or(|(_, _, told)| now.since(*told) >= REPORT) {
            show.set(NODES, node(&about, &machine, &health, since, now));
            shown = Some((health, since, now));
        }
        if renewed.is_none_or(|at| now.since(at) >= RENEW) {
            show.set(LEASES, lease(show.node_name(), now));
            renewed = Some(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn lease(name: &str, now: Wall) -> Value {
    json!({"metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now.rfc3339_micro()}})
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// `PRETTY_NAME` of the system.
fn system(release: &str) -> String {
    let value = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    value.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn machine(about: &About) -> Machine {
    let info = json!({
        "machineID": read("/etc/machine-id"),
        "systemUUID": read("/sys/class/dmi/id/product_uuid"),
        "bootID": read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": read("/proc/sys/kernel/osrelease"),
        "osImage": system(&read("/etc/os-release")),
        "containerRuntimeVersion": about.runtime,
        "kubeletVersion": crate::KUBERNETES_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": about.facts.architecture,
    });
    Machine { info: info.as_object().cloned().unwrap_or_default() }
}

/// Amounts as nodes tell them: cores and pods by number, memory in Ki.
fn amounts(facts: &NodeFacts) -> Map<String, Value> {
    let nano = crate::pod::resources::NANO;
    let text = |(name, amount): (&String, &i128)| {
        let whole = amount / nano;
        let text = if name == "memory" { format!("{}Ki", whole / 1024) } else { whole.to_string() };
        (name.clone(), Value::from(text))
    };
    facts.allocatable.iter().map(text).collect()
}

fn node(about: &About, machine: &Machine, health: &Health, since: Wall, now: Wall) -> Value {
    let facts = &about.facts;
    let mut labels = json!({"beta.kubernetes.io/arch": facts.architecture, "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": facts.architecture,
        "kubernetes.io/os": "linux", "kubernetes.io/hostname": facts.name});
    for (k, v) in &facts.labels {
        labels[k] = v.clone().into();
    }
    let mut addresses: Vec<Value> = facts.host_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": facts.name}));
    json!({
        "metadata": {"name": facts.name, "labels": labels, "creationTimestamp": about.started.rfc3339()},
        "spec": {},
        "status": {"addresses": addresses, "capacity": amounts(facts), "allocatable": amounts(facts), "nodeInfo": machine.info,
            "conditions": conditions(health, since, now), "daemonEndpoints": {"kubeletEndpoint": {"Port": about.port}}},
    })
}

fn conditions(health: &Health, since: Wall, now: Wall) -> Vec<Value> {
    let one = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now.rfc3339(), "lastTransitionTime": since.rfc3339()})
    };
    let wrong: Vec<&str> = [&health.runtime, &health.network].into_iter().flatten().map(String::as_str).collect();
    let ready = match wrong[..] {
        [] => one("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        _ => one("Ready", "False", "KubeletNotReady", &format!("[{}]", wrong.join(", "))),
    };
    vec![ready]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_runtime_is_down_is_not_ready_and_says_why() {
        let health = Health { runtime: Some("container runtime is down: gone".into()), network: None };
        let c = conditions(&health, Wall::from_seconds(5), Wall::from_seconds(9));
        assert_eq!((&c[0]["status"], &c[0]["message"]), (&json!("False"), &json!("[container runtime is down: gone]")));
        assert_eq!(c[0]["lastTransitionTime"], "1970-01-01T00:00:05Z");
        assert_eq!(conditions(&Health::default(), Wall::default(), Wall::default())[0]["reason"], "KubeletReady");
    }

    #[test]
    fn amounts_read_as_nodes_tell_them() {
        let nano = crate::pod::resources::NANO;
        let facts =
            NodeFacts { allocatable: [("cpu".to_owned(), 2 * nano), ("memory".to_owned(), 4096 * nano)].into(), ..NodeFacts::default() };
        assert_eq!(Value::Object(amounts(&facts)), json!({"cpu": "2", "memory": "4Ki"}));
        assert_eq!(system("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"), "Debian GNU/Linux 12 (bookworm)");
    }
}
