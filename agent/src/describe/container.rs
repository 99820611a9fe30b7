//! One container of a description.

use super::text::Text;
use super::time;
use crate::pod::status::{ContainerState, ContainerStatus};
use crate::pod::{Container, EnvSource, EnvVar, PortRef, Probe, VolumeMount};
use crate::quantity::Quantity;
use std::collections::BTreeMap;

pub(super) fn describe(t: &mut Text, c: &Container, s: Option<&ContainerStatus>) {
    t.line(2, format!("{}:", c.name));
    if let Some(s) = s {
        t.pair(4, "Container ID", &*s.container_id);
    }
    t.pair(4, "Image", &*c.image);
    if let Some(s) = s {
        t.pair(4, "Image ID", &*s.image_id);
    }
    let port = |p: &crate::pod::ContainerPort| format!("{}/{}", p.container_port, p.protocol);
    let host = |p: &crate::pod::ContainerPort| format!("{}/{}", p.host_port, p.protocol);
    let plural = |n: &str| if c.ports.len() > 1 { format!("{n}s") } else { n.to_owned() };
    t.pair(4, &plural("Port"), crate::table::or_none(&c.ports.iter().map(port).collect::<Vec<_>>().join(", ")));
    t.pair(4, &plural("Host Port"), crate::table::or_none(&c.ports.iter().map(host).collect::<Vec<_>>().join(", ")));
    words(t, "Command", &c.command);
    words(t, "Args", &c.args);
    if let Some(s) = s {
        state(t, "State", &s.state);
        if !s.last_state.is_none() {
            state(t, "Last State", &s.last_state);
        }
        t.pair(4, "Ready", if s.ready { "True" } else { "False" });
        t.pair(4, "Restart Count", s.restart_count.to_string());
    }
    amounts(t, "Limits", &c.resources.limits);
    amounts(t, "Requests", &c.resources.requests);
    for (name, probe) in [("Liveness", &c.liveness_probe), ("Readiness", &c.readiness_probe), ("Startup", &c.startup_probe)] {
        if let Some(p) = probe {
            t.pair(4, name, describe_probe(p));
        }
    }
    environment(t, c);
    if c.volume_mounts.is_empty() {
        t.line(4, "Mounts:  <none>");
    } else {
        t.line(4, "Mounts:");
        c.volume_mounts.iter().for_each(|m| t.line(6, mount(m)));
    }
}

fn words(t: &mut Text, title: &str, words: &[String]) {
    if !words.is_empty() {
        t.line(4, format!("{title}:"));
        words.iter().flat_map(|w| w.split('\n')).for_each(|w| t.line(6, w));
    }
}

/// Width of the longest name beside a state, `Restart Count:`.
fn headed(title: &str, value: &str) -> String {
    format!("{:<14}  {value}", format!("{title}:"))
}

fn state(t: &mut Text, title: &str, s: &ContainerState) {
    if let Some(r) = &s.running {
        t.line(4, headed(title, "Running"));
        t.pair(6, "Started", time(r.started_at));
    } else if let Some(e) = &s.terminated {
        t.line(4, headed(title, "Terminated"));
        if !e.reason.is_empty() {
            t.pair(6, "Reason", &*e.reason);
        }
        if !e.message.is_empty() {
            t.pair(6, "Message", e.message.trim_end().replace('\n', " "));
        }
        t.pair(6, "Exit Code", e.exit_code.to_string());
        if e.signal != 0 {
            t.pair(6, "Signal", e.signal.to_string());
        }
        t.pair(6, "Started", time(e.started_at));
        t.pair(6, "Finished", time(e.finished_at));
    } else {
        t.line(4, headed(title, "Waiting"));
        if let Some(w) = &s.waiting {
            if !w.reason.is_empty() {
                t.pair(6, "Reason", &*w.reason);
            }
            if !w.message.is_empty() {
                t.pair(6, "Message", &*w.message);
            }
        }
    }
}

fn amounts(t: &mut Text, title: &str, of: &BTreeMap<String, Quantity>) {
    if !of.is_empty() {
        t.line(4, format!("{title}:"));
        of.iter().for_each(|(k, q)| t.pair(6, k, q.to_string()));
    }
}

/// `http-get http://:8080/ok delay=0s timeout=1s period=10s #success=1 #failure=3`
fn describe_probe(p: &Probe) -> String {
    let port = |p: &PortRef| match p {
        PortRef::Number(n) => n.to_string(),
        PortRef::Name(n) => n.clone(),
    };
    let what = if let Some(e) = &p.exec {
        format!("exec [{}]", e.command.join(" "))
    } else if let Some(h) = &p.http_get {
        format!("http-get {}://{}:{}{}", h.scheme.to_lowercase(), h.host, port(&h.port), h.path)
    } else if let Some(s) = &p.tcp_socket {
        format!("tcp-socket {}:{}", s.host, port(&s.port))
    } else if let Some(g) = &p.grpc {
        format!("grpc <pod>:{} {}", g.port, g.service).trim_end().to_owned()
    } else {
        "unknown".into()
    };
    let (delay, timeout, period) = (p.initial_delay_seconds, p.timeout_seconds, p.period_seconds);
    let counts = format!("#success={} #failure={}", p.success_threshold, p.failure_threshold);
    format!("{what} delay={delay}s timeout={timeout}s period={period}s {counts}")
}

fn environment(t: &mut Text, c: &Container) {
    if !c.env_from.is_empty() {
        t.line(4, "Environment Variables from:");
        for f in &c.env_from {
            if let Some(r) = &f.config_map_ref {
                t.pair(6, &r.name, format!("ConfigMap  Optional: {}", r.optional));
            }
            if let Some(r) = &f.secret_ref {
                t.pair(6, &r.name, format!("Secret  Optional: {}", r.optional));
            }
        }
    }
    if c.env.is_empty() {
        t.line(4, "Environment:  <none>");
        return;
    }
    t.line(4, "Environment:");
    c.env.iter().for_each(|e| t.pair(6, &e.name, variable(e)));
}

fn variable(e: &EnvVar) -> String {
    match &e.value_from {
        Some(source) => from(source),
        None => e.value.replace('\n', "\\n"),
    }
}

fn from(s: &EnvSource) -> String {
    let optional = |o: bool| if o { "  Optional: true" } else { "" };
    if let Some(f) = &s.field_ref {
        format!("({}:{})", f.api_version, f.field_path)
    } else if let Some(r) = &s.resource_field_ref {
        format!("({})", r.resource)
    } else if let Some(k) = &s.config_map_key_ref {
        format!("<set to the key '{}' of config map '{}'>{}", k.key, k.name, optional(k.optional))
    } else if let Some(k) = &s.secret_key_ref {
        format!("<set to the key '{}' in secret '{}'>{}", k.key, k.name, optional(k.optional))
    } else if let Some(k) = &s.file_key_ref {
        format!("<set to the key '{}' of file '{}' in volume '{}'>{}", k.key, k.path, k.volume_name, optional(k.optional))
    } else {
        "<unknown>".into()
    }
}

fn mount(m: &VolumeMount) -> String {
    let mut flags = vec![if m.read_only { "ro".to_owned() } else { "rw".to_owned() }];
    let sub = [&m.sub_path, &m.sub_path_expr].into_iter().find(|s| !s.is_empty());
    flags.extend(sub.map(|s| format!("path={s:?}")));
    format!("{} from {} ({})", m.mount_path, m.name, flags.join(","))
}
