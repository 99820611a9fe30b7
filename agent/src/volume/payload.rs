//! What configuration volumes hold: names, bytes and modes of their files.

use super::{File, Medium};
use crate::env::{ConfigError, fields};
use crate::pod::{
    ConfigData, Container, DownwardApiFile, EmptyDir, KeyToPath, Pod, ProjectedVolume, Referent, TokenFile, Volume, resources,
};
use crate::quantity::Quantity;
use crate::work::Context;
use crate::work::container::env_context;
use std::collections::BTreeMap;

/// Bytes of a path and of each of its parts.
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;

type Files = BTreeMap<String, File>;

/// Secrets, projected volumes and the downward API never touch a disk.
pub fn medium_of_files(ctx: &Context<'_>, v: &Volume) -> Medium {
    if v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some() {
        Medium::Memory { size: bound(ctx, None) }
    } else {
        Medium::Disk
    }
}

pub fn medium(ctx: &Context<'_>, e: &EmptyDir) -> Medium {
    if e.medium == "Memory" {
        return Medium::Memory { size: bound(ctx, e.size_limit.as_ref().map(Quantity::value)) };
    }
    match e.medium.strip_prefix("HugePages") {
        Some("") => Medium::HugePages { size: page_size(ctx.pod) },
        Some(size) => Medium::HugePages { size: size.trim_start_matches('-').to_owned() },
        None => Medium::Disk,
    }
}

/// tmpfs is bounded by the smallest of the node's memory, the pod's limit and the volume's own.
fn bound(ctx: &Context<'_>, own: Option<i64>) -> Option<i64> {
    let pod = resources::limit(ctx.pod, "memory").map(resources::to_units);
    let node = ctx.node.allocatable.get("memory").map(|n| resources::to_units(*n));
    [own, pod, node].into_iter().flatten().filter(|n| *n > 0).min()
}

/// The size of the pages that the pod asks for, where the volume leaves it open.
fn page_size(pod: &Pod) -> String {
    let names = pod.containers().flat_map(|(_, c)| c.resources.requests.keys().chain(c.resources.limits.keys()));
    names.filter_map(|n| n.strip_prefix("hugepages-")).next().unwrap_or_default().to_owned()
}

pub fn files(ctx: &Context<'_>, v: &Volume) -> Result<Files, ConfigError> {
    let mut out = Files::new();
    if let Some(c) = &v.config_map {
        object(ctx, Referent::ConfigMap, &c.name, c.optional, &c.items, c.default_mode, &mut out)?;
    }
    if let Some(s) = &v.secret {
        object(ctx, Referent::Secret, &s.secret_name, s.optional, &s.items, s.default_mode, &mut out)?;
    }
    if let Some(d) = &v.downward_api {
        downward(ctx, &d.items, d.default_mode, &mut out)?;
    }
    if let Some(p) = &v.projected {
        projected(ctx, p, &mut out)?;
    }
    match out.keys().find_map(|path| wrong(path)) {
        Some(text) => Err(ConfigError::Other(text)),
        None => Ok(out),
    }
}

/// All sources are tried, so that one event names all that is missing. Later sources override earlier ones
/// where their paths meet.
fn projected(ctx: &Context<'_>, p: &ProjectedVolume, out: &mut Files) -> Result<(), ConfigError> {
    let mut errors = Vec::new();
    for s in &p.sources {
        let mut take = |r: Result<(), ConfigError>| errors.extend(r.err());
        if let Some(k) = &s.config_map {
            take(object(ctx, Referent::ConfigMap, &k.name, k.optional, &k.items, p.default_mode, out));
        }
        if let Some(k) = &s.secret {
            take(object(ctx, Referent::Secret, &k.name, k.optional, &k.items, p.default_mode, out));
        }
        if let Some(d) = &s.downward_api {
            take(downward(ctx, &d.items, p.default_mode, out));
        }
        if let Some(t) = &s.service_account_token {
            take(token(ctx, t, p.default_mode, out));
        }
        if s.cluster_trust_bundle.is_some() {
            take(Err(ConfigError::Other("cluster trust bundles need a control plane; this node has none".into())));
        }
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(ConfigError::Other(format!("[{}]", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))),
    }
}

fn token(ctx: &Context<'_>, t: &TokenFile, mode: u32, out: &mut Files) -> Result<(), ConfigError> {
    // Whoever has the volume's group can read it; without one it is as the volume says.
    let mode = if ctx.pod.spec.security_context.fs_group.is_some() { 0o600 } else { mode };
    match ctx.objects.token(&ctx.pod.uid(), &t.wish()) {
        Some(Ok(token)) => {
            out.insert(t.path.clone(), File { bytes: token.as_bytes().into(), mode });
            Ok(())
        }
        Some(Err(why)) => Err(ConfigError::Other(format!("failed to fetch token: {why}"))),
        None => Err(ConfigError::Other("service account tokens need a control plane; this node has none".into())),
    }
}

/// Paths that would leave the volume, or collide with the links that make it atomic.
fn wrong(path: &str) -> Option<String> {
    let parts = || path.split('/');
    if path.is_empty() || path.starts_with('/') {
        return Some(format!("invalid path {path:?}: must be relative"));
    }
    if path.len() > PATH_MAX || parts().any(|p| p.len() > NAME_MAX) {
        return Some(format!("invalid path {path:?}: too long"));
    }
    if parts().any(|p| p == "..") || path.starts_with("..") {
        return Some(format!("invalid path {path:?}: must not contain or start with '..'"));
    }
    None
}

fn object(
    ctx: &Context<'_>,
    kind: Referent,
    name: &str,
    optional: bool,
    items: &[KeyToPath],
    mode: u32,
    out: &mut Files,
) -> Result<(), ConfigError> {
    let Some(data) = ctx.objects.get(kind, &ctx.pod.metadata.namespace, name) else {
        return match (optional, kind) {
            (true, _) => Ok(()),
            (_, Referent::ConfigMap) => Err(ConfigError::NoConfigMap(name.to_owned())),
            (_, Referent::Secret) => Err(ConfigError::NoSecret(name.to_owned())),
        };
    };
    if items.is_empty() {
        out.extend(data.data.iter().map(|(k, v)| (k.clone(), File { bytes: v.as_ref().into(), mode })));
        return Ok(());
    }
    for item in items {
        one_key(kind, data, optional, item, mode, out)?;
    }
    Ok(())
}

fn one_key(kind: Referent, data: &ConfigData, optional: bool, item: &KeyToPath, mode: u32, out: &mut Files) -> Result<(), ConfigError> {
    match data.data.get(&item.key) {
        Some(v) => {
            out.insert(item.path.clone(), File { bytes: v.as_ref().into(), mode: item.mode.unwrap_or(mode) });
            Ok(())
        }
        None if optional => Ok(()),
        None => {
            let text = match kind {
                Referent::ConfigMap => format!("configmap references non-existent config key: {}", item.key),
                Referent::Secret => format!("references non-existent secret key: {}", item.key),
            };
            Err(ConfigError::Other(text))
        }
    }
}

fn downward(ctx: &Context<'_>, items: &[DownwardApiFile], mode: u32, out: &mut Files) -> Result<(), ConfigError> {
    let env = env_context(ctx);
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(f), _) => fields::file_field(&env, &f.field_path)?,
            (None, Some(r)) => fields::resource(&env, &Container::default(), r)?,
            (None, None) => String::new(),
        };
        out.insert(item.path.clone(), File { bytes: text.into_bytes().into(), mode: item.mode.unwrap_or(mode) });
    }
    Ok(())
}
