//! Life-cycle hooks with their names resolved (specification of the kubelet, 6).

use crate::pod::{Container, Handler, Pod, PortRef};
use longshore_probes::HttpCheck;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    Exec {
        command: Vec<String>,
    },
    /// The answer's status is ignored: only a transport error fails.
    Http(HttpCheck),
    Sleep {
        seconds: u64,
    },
    /// Cannot be run as written; the text says why.
    Invalid(String),
}

/// A postStart hook, and how its container is stopped if it fails: like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostStart {
    pub hook: Hook,
    /// Seconds for the preStop hook and the stop together.
    pub grace: u32,
    pub pre_stop: Option<Hook>,
}

pub fn post_start(pod: &Pod, c: &Container, pod_ip: Option<IpAddr>) -> Option<Box<PostStart>> {
    let lifecycle = c.lifecycle.as_ref()?;
    let hook = hook(lifecycle.post_start.as_ref()?, c, pod_ip);
    let grace = u32::try_from(pod.spec.termination_grace_period_seconds.max(0)).unwrap_or(u32::MAX);
    let pre_stop = lifecycle.pre_stop.as_ref().filter(|_| grace > 0).map(|h| self::hook(h, c, pod_ip));
    Some(Box::new(PostStart { hook, grace, pre_stop }))
}

pub fn hook(h: &Handler, c: &Container, pod_ip: Option<IpAddr>) -> Hook {
    if let Some(e) = &h.exec {
        return Hook::Exec { command: e.command.clone() };
    }
    if let Some(s) = &h.sleep {
        return Hook::Sleep { seconds: u64::try_from(s.seconds).unwrap_or(0) };
    }
    if let Some(g) = &h.http_get {
        return match http_check(g, c, pod_ip) {
            Ok(check) => Hook::Http(check),
            Err(why) => Hook::Invalid(why),
        };
    }
    Hook::Invalid("invalid handler: only exec, httpGet and sleep can be hooks".into())
}

/// An `httpGet` with its port number and host.
pub fn http_check(g: &crate::pod::HttpGetAction, c: &Container, pod_ip: Option<IpAddr>) -> Result<HttpCheck, String> {
    let port = port_number(&g.port, c)?;
    let host = if g.host.is_empty() { pod_ip.map(|ip| ip.to_string()).ok_or("the pod has no address")? } else { g.host.clone() };
    Ok(HttpCheck {
        https: g.scheme.eq_ignore_ascii_case("https"),
        host,
        port,
        path: g.path.clone(),
        headers: g.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
    })
}

/// A port by number or by name among the container's ports.
pub fn port_number(p: &PortRef, c: &Container) -> Result<u16, String> {
    match p {
        PortRef::Number(0) => Err("port 0 is not a port".into()),
        PortRef::Number(n) => Ok(*n),
        PortRef::Name(name) => {
            let named = c.ports.iter().find(|p| p.name == *name).map(|p| p.container_port);
            named.or_else(|| name.parse().ok()).ok_or_else(|| format!("couldn't find port: {name:?} in container {}", c.name))
        }
    }
}
