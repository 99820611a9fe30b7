//! What configuration volumes hold: names, bytes and modes of their files.

use super::{File, Medium};
use crate::env::{ConfigError, fields};
use crate::pod::{ConfigData, Container, DownwardApiFile, EmptyDir, KeyToPath, Referent, Volume};
use crate::work::Context;
use crate::work::container::env_context;
use std::collections::BTreeMap;

type Files = BTreeMap<String, File>;

/// Secrets, projected volumes and the downward API never touch a disk.
pub fn is_tmpfs(v: &Volume) -> bool {
    v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some()
}

/// tmpfs is bounded by the smallest of the node's memory, the pod's limit and the volume's own.
pub fn medium(ctx: &Context<'_>, e: &EmptyDir) -> Medium {
    if e.medium == "Memory" {
        let own = e.size_limit.as_ref().map(|q| q.value()).filter(|n| *n > 0);
        let pod = crate::pod::resources::limit(ctx.pod, "memory").map(crate::pod::resources::to_units).filter(|n| *n > 0);
        let node = ctx.node.allocatable.get("memory").map(|n| crate::pod::resources::to_units(*n)).filter(|n| *n > 0);
        return Medium::Memory { size: [own, pod, node].into_iter().flatten().min() };
    }
    match e.medium.strip_prefix("HugePages") {
        Some(size) => Medium::HugePages { size: size.trim_start_matches('-').to_owned() },
        None => Medium::Disk,
    }
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
    // Later sources override earlier ones where their paths meet.
    for s in v.projected.iter().flat_map(|p| &p.sources) {
        let mode = v.projected.as_ref().map_or(0o644, |p| p.default_mode);
        if let Some(k) = &s.config_map {
            object(ctx, Referent::ConfigMap, &k.name, k.optional, &k.items, mode, &mut out)?;
        }
        if let Some(k) = &s.secret {
            object(ctx, Referent::Secret, &k.name, k.optional, &k.items, mode, &mut out)?;
        }
        if let Some(d) = &s.downward_api {
            downward(ctx, &d.items, mode, &mut out)?;
        }
        if s.service_account_token.is_some() {
            return Err(ConfigError::Other("service account tokens need a control plane; this node has none".into()));
        }
    }
    Ok(out)
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
