//! Field and resource references of the downward API.

use super::{ConfigError, Context};
use crate::pod::resources::NANO;
use crate::pod::{Container, ResourceFieldRef};

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

/// The value of a field that both environment variables and volumes may refer to.
fn common(ctx: &Context<'_>, path: &str) -> Option<String> {
    let m = &ctx.pod.metadata;
    if let Some(key) = subscript(path, "metadata.labels") {
        return Some(m.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Some(m.annotations.get(key).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => m.name.clone(),
        "metadata.namespace" => m.namespace.clone(),
        "metadata.uid" => m.uid.clone(),
        _ => return None,
    })
}

/// `valueFrom.fieldRef` of an environment variable.
pub fn env_field(ctx: &Context<'_>, path: &str) -> Result<String, ConfigError> {
    let joined = |ips: &[std::net::IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[std::net::IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    Ok(match path {
        "spec.nodeName" => ctx.node.name.clone(),
        "spec.serviceAccountName" => ctx.pod.spec.service_account_name.clone(),
        "status.hostIP" => first(&ctx.node.host_ips),
        "status.hostIPs" => joined(&ctx.node.host_ips),
        "status.podIP" => first(ctx.pod_ips),
        "status.podIPs" => joined(ctx.pod_ips),
        other => return common(ctx, other).ok_or_else(|| ConfigError::Field(format!("unsupported fieldPath: {other}"))),
    })
}

/// The content of a downward API file.
pub fn file_field(ctx: &Context<'_>, path: &str) -> Result<String, ConfigError> {
    let map =
        |m: &std::collections::BTreeMap<String, String>| m.iter().map(|(k, v)| format!("{k}={}", quoted(v))).collect::<Vec<_>>().join("\n");
    Ok(match path {
        "metadata.labels" => map(&ctx.pod.metadata.labels),
        "metadata.annotations" => map(&ctx.pod.metadata.annotations),
        other => return common(ctx, other).ok_or_else(|| ConfigError::Field(format!("unsupported fieldPath: {other}"))),
    })
}

/// A value as Go's `%q` prints it, for the characters that occur in practice.
fn quoted(v: &str) -> String {
    let mut out = String::with_capacity(v.len() + 2);
    out.push('"');
    for c in v.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `resourceFieldRef`: whole multiples of the divisor, rounded up. A missing limit of cpu, memory or
/// ephemeral-storage reads as the pod-level limit, else as the node's allocatable amount.
pub fn resource(ctx: &Context<'_>, own: &Container, r: &ResourceFieldRef) -> Result<String, ConfigError> {
    let c = if r.container_name.is_empty() {
        own
    } else {
        let found = ctx.pod.container(&r.container_name);
        found.map(|(_, c)| c).ok_or_else(|| ConfigError::Field(format!("container {} not found", r.container_name)))?
    };
    let unsupported = || ConfigError::Field(format!("unsupported container resource: {}", r.resource));
    let (list, name) = r.resource.split_once('.').ok_or_else(unsupported)?;
    let nanos = match list {
        "requests" => c.resources.requests.get(name).map_or(0, |q| q.nanos()),
        "limits" => limit(ctx, c, name),
        _ => return Err(unsupported()),
    };
    let divisor = r.divisor.as_ref().map(|q| q.nanos()).filter(|n| *n > 0).unwrap_or(NANO);
    Ok((nanos + divisor - 1).div_euclid(divisor).to_string())
}

fn limit(ctx: &Context<'_>, c: &Container, name: &str) -> i128 {
    let own = c.resources.limits.get(name).filter(|q| !q.is_zero());
    let level = || ctx.pod.spec.resources.as_ref().and_then(|r| r.limits.get(name));
    match own.or_else(level) {
        Some(q) => q.nanos(),
        None => ctx.node.allocatable.get(name).copied().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::NodeFacts;
    use crate::env::tests::Objects;
    use crate::pod::Pod;
    use crate::quantity::Quantity;

    fn with<T>(pod: &Pod, f: impl Fn(&Context<'_>) -> T) -> T {
        let node =
            NodeFacts { allocatable: [("cpu".to_owned(), 2 * NANO), ("memory".to_owned(), NANO << 30)].into(), ..NodeFacts::default() };
        f(&Context { pod, config: &Objects::default(), services: &[], node: &node, pod_ips: &[] })
    }

    #[test]
    fn a_missing_limit_reads_as_the_nodes_allocatable() {
        let reference = |resource: &str, divisor: &str| ResourceFieldRef {
            resource: resource.into(),
            divisor: (!divisor.is_empty()).then(|| Quantity::parse(divisor).unwrap()),
            ..ResourceFieldRef::default()
        };
        let mut c = Container::default();
        c.resources.limits.insert("cpu".into(), Quantity::parse("1500m").unwrap());
        let read = |r: ResourceFieldRef| with(&Pod::default(), |ctx| resource(ctx, &c, &r));
        assert_eq!(read(reference("limits.cpu", "")).unwrap(), "2");
        assert_eq!(read(reference("limits.cpu", "1m")).unwrap(), "1500");
        assert_eq!(read(reference("limits.memory", "1Mi")).unwrap(), "1024");
        assert_eq!(read(reference("requests.memory", "1Mi")).unwrap(), "0");
        assert!(read(reference("cpu", "")).is_err());
    }

    #[test]
    fn labels_are_printed_sorted_and_quoted() {
        let mut pod = Pod::default();
        pod.metadata.labels = [("b", "two \"quoted\""), ("a", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(with(&pod, |ctx| file_field(ctx, "metadata.labels")).unwrap(), "a=\"1\"\nb=\"two \\\"quoted\\\"\"");
        assert_eq!(with(&pod, |ctx| file_field(ctx, "metadata.labels['a']")).unwrap(), "1");
        assert!(with(&pod, |ctx| file_field(ctx, "status.podIP")).is_err());
    }
}
