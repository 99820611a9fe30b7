#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! A pod and what happened to it, for a human to read, in kubectl's order and words.
//!
//! Must never fetch anything or read a clock. Tests: in this file.

mod container;
mod text;
mod volume;

use crate::api::{EventObject, PodObject};
use crate::table::events::how_often;
use crate::table::{Table, or_none};
use crate::time::Wall;
use text::Text;

/// The whole description.
pub fn pod(p: &PodObject, events: &[EventObject], now: Wall) -> String {
    let mut t = Text::default();
    head(&mut t, p);
    let s = &p.status;
    for (title, specs, statuses) in [
        ("Init Containers", &p.spec.init_containers, &s.init_container_statuses),
        ("Containers", &p.spec.containers, &s.container_statuses),
        ("Ephemeral Containers", &p.spec.ephemeral_containers, &s.ephemeral_container_statuses),
    ] {
        if !specs.is_empty() {
            t.line(0, format!("{title}:"));
        }
        for c in specs {
            container::describe(&mut t, c, statuses.iter().find(|s| s.name == c.name));
        }
    }
    conditions(&mut t, p);
    volume::describe(&mut t, &p.spec.volumes);
    tail(&mut t, p);
    let mut out = t.render();
    out.push_str(&event_lines(events, now));
    out
}

/// `Fri, 20 Nov 2026 10:58:09 +0000`
fn time(at: Option<Wall>) -> String {
    let Some(at) = at else { return "<unknown>".into() };
    let Ok(t) = jiff::Timestamp::from_second(at.seconds()) else { return at.rfc3339() };
    t.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn pairs(map: &std::collections::BTreeMap<String, String>, sign: &str) -> Vec<String> {
    map.iter().map(|(k, v)| format!("{k}{sign}{v}")).collect()
}

fn head(t: &mut Text, p: &PodObject) {
    let (m, s) = (&p.metadata, &p.status);
    t.pair(0, "Name", &*m.name);
    t.pair(0, "Namespace", &*m.namespace);
    t.pair(0, "Priority", p.spec.priority.unwrap_or(0).to_string());
    if !p.spec.priority_class_name.is_empty() {
        t.pair(0, "Priority Class Name", &*p.spec.priority_class_name);
    }
    t.pair(0, "Service Account", &*p.spec.service_account_name);
    let node = if s.host_ip.is_empty() { p.spec.node_name.clone() } else { format!("{}/{}", p.spec.node_name, s.host_ip) };
    t.pair(0, "Node", or_none(&node));
    if s.start_time.is_some() {
        t.pair(0, "Start Time", time(s.start_time));
    }
    t.list(0, "Labels", pairs(&m.labels, "="));
    t.list(0, "Annotations", pairs(&m.annotations, ": "));
    match m.deletion_timestamp {
        Some(at) => {
            t.pair(0, "Status", format!("Terminating (by {})", time(Some(at))));
            t.pair(0, "Termination Grace Period", format!("{}s", m.deletion_grace_period_seconds.unwrap_or(0)));
        }
        None => t.pair(0, "Status", s.phase.as_str()),
    }
    if !s.reason.is_empty() {
        t.pair(0, "Reason", &*s.reason);
    }
    if !s.message.is_empty() {
        t.pair(0, "Message", &*s.message);
    }
    t.pair(0, "IP", &*s.pod_ip);
    if s.pod_ips.is_empty() {
        t.pair(0, "IPs", "<none>");
    } else {
        t.line(0, "IPs:");
        s.pod_ips.iter().for_each(|ip| t.pair(2, "IP", &*ip.ip));
    }
}

fn conditions(t: &mut Text, p: &PodObject) {
    if p.status.conditions.is_empty() {
        return;
    }
    t.line(0, "Conditions:");
    t.lines_of(2, ("Type", "Status"), p.status.conditions.iter().map(|c| (c.kind.clone(), c.status.clone())));
    let why: Vec<_> = p.status.conditions.iter().filter(|c| !c.message.is_empty()).collect();
    for c in why {
        t.line(2, format!("{}: {} ({})", c.kind, c.message, c.reason));
    }
}

fn tail(t: &mut Text, p: &PodObject) {
    let qos = p.status.qos_class.map_or_else(String::new, |q| q.to_string());
    t.pair(0, "QoS Class", or_none(&qos));
    t.list(0, "Node-Selectors", pairs(&p.spec.node_selector, "="));
    let toleration = |o: &crate::pod::Toleration| {
        let value = if o.value.is_empty() { String::new() } else { format!("={}", o.value) };
        let effect = if o.effect.is_empty() { String::new() } else { format!(":{}", o.effect) };
        let op = if o.operator == "Exists" { " op=Exists" } else { "" };
        let long = o.toleration_seconds.map(|s| format!(" for {s}s")).unwrap_or_default();
        format!("{}{value}{effect}{op}{long}", o.key)
    };
    t.list(0, "Tolerations", p.spec.tolerations.iter().map(toleration));
}

fn event_lines(events: &[EventObject], now: Wall) -> String {
    if events.is_empty() {
        return "Events:  <none>\n".into();
    }
    let mut t = Table::new(&["Type", "Reason", "Age", "From", "Message"], 5);
    t.rows.push(["----", "------", "----", "----", "-------"].map(String::from).to_vec());
    for e in events {
        let message = e.message.trim().replace('\n', " ");
        t.rows.push(vec![e.kind.clone(), e.reason.clone(), how_often(e, now), e.source.component.clone(), message]);
    }
    let indented: String = t.text(false, true, &[]).lines().map(|l| format!("  {l}\n")).collect();
    format!("Events:\n{indented}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn example() -> PodObject {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "app:1", "command": ["app", "--serve"],
                "ports": [{"containerPort": 80, "name": "http"}],
                "env": [{"name": "A", "value": "b"}, {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"path": "/ok", "port": 80}},
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}]}],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "c"}}]},
            "status": {"phase": "Running", "hostIP": "192.0.2.1", "podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}], "qosClass": "Burstable",
                "startTime": "2026-11-20T10:58:09Z",
                "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "containers with unready status: [main]"}],
                "containerStatuses": [{"name": "main", "image": "app:1", "imageID": "sha256:1", "containerID": "containerd://2", "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}},
                    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-20T10:59:00Z"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn a_description_tells_what_a_reader_looks_for() {
        let event = EventObject {
            reason: "BackOff".into(),
            kind: "Warning".into(),
            message: "Back-off restarting".into(),
            count: 3,
            first_timestamp: Some(Wall::from_seconds(0)),
            last_timestamp: Some(Wall::from_seconds(60)),
            ..EventObject::default()
        };
        let text = pod(&example(), &[event], Wall::from_seconds(70));
        for want in [
            "Node:             n1/192.0.2.1\n",
            "Start Time:       Fri, 20 Nov 2026 10:58:09 +0000\n",
            "Labels:           app=web\n",
            "IPs:\n  IP:  10.1.1.1\n",
            "    State:          Waiting\n      Reason:   CrashLoopBackOff\n      Message:  back-off 20s\n",
            "    Last State:     Terminated\n      Reason:     Error\n      Exit Code:  1\n",
            "    Restart Count:  2\n",
            "    Limits:\n      cpu:  500m\n    Requests:\n      cpu:  100m\n",
            "http-get http://:80/ok delay=0s timeout=1s period=10s #success=1 #failure=3\n",
            "      A:  b\n      K:  <set to the key 'k' in secret 's'>\n",
            "      /data from data (ro)\n",
            "  Ready   False\n",
            "containers with unready status: [main] (ContainersNotReady)\n",
            "QoS Class:       Burstable\n",
            "EmptyDir (a temporary directory that shares a pod's lifetime)\n",
            "10s (x3 over 70s)",
        ] {
            assert!(text.contains(want), "{want:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_pod_of_defaults_is_described_too() {
        assert!(pod(&PodObject::default(), &[], Wall::default()).ends_with("Events:  <none>\n"));
    }
}
