#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Volumes as values: where each lives, what it holds (specification of the kubelet, 9).
//!
//! Must never touch the file system; `run::volumes` does. Tests: `volume/tests.rs`.

pub mod payload;

use crate::env::ConfigError;
use crate::pod::Volume;
use crate::work::{Context, paths};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One volume of one pod, ready to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeWork {
    EmptyDir { name: String, path: String, medium: Medium, fs_group: Option<i64> },
    HostPath { name: String, path: String, kind: String },
    Files { name: String, path: String, medium: Medium, files: BTreeMap<String, File>, fs_group: Option<i64> },
}

impl VolumeWork {
    pub fn name(&self) -> &str {
        match self {
            VolumeWork::EmptyDir { name, .. } | VolumeWork::HostPath { name, .. } | VolumeWork::Files { name, .. } => name,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    Disk,
    /// tmpfs of at most `size` bytes.
    Memory {
        size: Option<i64>,
    },
    /// hugetlbfs with this page size (`2Mi`); empty: the pod's only one.
    HugePages {
        size: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Arc<[u8]>,
    pub mode: u32,
}

/// All volumes of the pod that a container mounts; the others are never made.
pub fn works(ctx: &Context<'_>) -> Result<Vec<VolumeWork>, ConfigError> {
    ctx.pod.spec.volumes.iter().filter(|v| v.image.is_none() && is_used(ctx, v)).map(|v| work(ctx, v)).collect()
}

fn is_used(ctx: &Context<'_>, v: &Volume) -> bool {
    ctx.pod.containers().any(|(_, c)| c.volume_mounts.iter().any(|m| m.name == v.name))
}

/// Whether the node writes the volume, from objects, and the pod only reads it.
pub fn holds_configuration(v: &Volume) -> bool {
    v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some()
}

/// The volumes that hold configuration and may change under a running pod. One whose object is missing
/// keeps what it holds.
pub fn live(ctx: &Context<'_>) -> Vec<VolumeWork> {
    ctx.pod.spec.volumes.iter().filter(|v| holds_configuration(v) && is_used(ctx, v)).filter_map(|v| work(ctx, v).ok()).collect()
}

fn work(ctx: &Context<'_>, v: &Volume) -> Result<VolumeWork, ConfigError> {
    let (name, path) = (v.name.clone(), host_path(ctx, v)?);
    let fs_group = ctx.pod.spec.security_context.fs_group;
    if let Some(e) = &v.empty_dir {
        return Ok(VolumeWork::EmptyDir { name, path, medium: payload::medium(ctx, e), fs_group });
    }
    if let Some(h) = &v.host_path {
        return Ok(VolumeWork::HostPath { name, path, kind: h.kind.clone() });
    }
    let failed = |e: ConfigError| ConfigError::Other(format!("MountVolume.SetUp failed for volume {name:?} : {e}"));
    let files = payload::files(ctx, v).map_err(failed)?;
    Ok(VolumeWork::Files { path, medium: payload::medium_of_files(ctx, v), files, fs_group, name })
}

/// What the containers of the pod mount.
pub fn host_path(ctx: &Context<'_>, v: &Volume) -> Result<String, ConfigError> {
    if let Some(h) = &v.host_path {
        return Ok(h.path.clone());
    }
    let plugin = match v {
        Volume { empty_dir: Some(_), .. } => "empty-dir",
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { downward_api: Some(_), .. } => "downward-api",
        Volume { projected: Some(_), .. } => "projected",
        _ => {
            let kind = v.other.keys().next().map_or("no source", String::as_str);
            return Err(ConfigError::Other(format!("volume {:?}: this node cannot mount {kind}", v.name)));
        }
    };
    Ok(paths::volume_dir(ctx.config, &ctx.pod.metadata.uid, plugin, &v.name))
}

#[cfg(test)]
mod tests;
