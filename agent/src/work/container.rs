//! A container's configuration: environment, mounts, resources, facts for the next daemon.

use super::{Context, Error, Image, LogLink, Start, SubPath, hooks, hosts, paths, sandbox, security};
use crate::cgroup::{oom, values};
use crate::env::{self, expand};
use crate::pod::{Container, ContainerKind, MountPropagation, TerminationMessagePolicy, VolumeMount};
use crate::volume;
use longshore_cri::container_config::{ContainerSpec, Image as CriImage, Mount, MountSource, Propagation};
use longshore_cri::labels::{self, ContainerFacts};
use longshore_cri::resources::Resources;
use longshore_cri::sandbox_config::SandboxSpec;
use longshore_cri::security::PidNamespace;
use std::sync::Arc;

/// What the plan settled for this start.
pub struct Attempt<'a> {
    pub sandbox_id: &'a str,
    pub sandbox: Arc<SandboxSpec>,
    pub attempt: u32,
    pub streak: u32,
    pub image: &'a Image,
    /// Id of the container whose processes an ephemeral container sees.
    pub target: Option<Box<str>>,
}

pub fn start(ctx: &Context<'_>, kind: ContainerKind, c: &Container, a: &Attempt<'_>) -> Result<Start, Error> {
    let environment = env::environment(&env_context(ctx), c)?;
    let (command, args) = env::command(c, &environment);
    let (uid, config) = (&ctx.pod.metadata.uid, ctx.config);
    let image = CriImage { image_ref: a.image.image_ref.to_string(), user_specified: c.image.clone(), ..CriImage::default() };
    let mut spec = ContainerSpec::new(sandbox::identity(ctx.pod), &c.name, image);
    let mut sub_paths = Vec::new();
    spec.mounts = mounts(ctx, c, &environment, &mut sub_paths)?;
    let hosts = hosts::hosts_file(ctx).filter(|_| !c.volume_mounts.iter().any(|m| m.mount_path == "/etc/hosts"));
    if let Some(h) = &hosts {
        spec.mounts.push(Mount::bind(&h.path, "/etc/hosts", false));
    }
    let termination_log = (!c.termination_message_path.is_empty()).then(|| paths::termination_log(config, uid, &c.name, a.attempt));
    if let Some(file) = &termination_log {
        spec.mounts.push(Mount::bind(file, &c.termination_message_path, false));
    }
    spec.env = environment;
    (spec.command, spec.args) = (command, args);
    spec.working_dir.clone_from(&c.working_dir);
    (spec.stdin, spec.stdin_once, spec.tty) = (c.stdin, c.stdin_once, c.tty);
    spec.facts = facts(ctx, kind, c, a);
    spec.resources = resources(ctx, kind, c);
    spec.namespaces = sandbox::namespaces(ctx.pod);
    if let Some(target) = &a.target {
        spec.namespaces.pid = PidNamespace::Target(target.clone());
    }
    spec.security = security::security(ctx, c, a.image)?;
    Ok(Start {
        name: c.name.as_str().into(),
        sandbox_id: a.sandbox_id.into(),
        links: log_link(ctx, &c.name, a.attempt),
        log_dir: format!("{}/{}", paths::log_dir(config, ctx.pod), c.name),
        sandbox: a.sandbox.clone(),
        spec,
        hosts,
        termination_log,
        sub_paths,
        post_start: hooks::post_start(ctx.pod, c, ctx.pod_ips.first().copied()),
    })
}

/// The link for the container's log of this attempt.
pub fn log_link(ctx: &Context<'_>, container: &str, attempt: u32) -> LogLink {
    LogLink {
        directory: ctx.config.container_logs_dir.clone(),
        prefix: paths::log_link_prefix(ctx.pod, container),
        target: format!("{}/{container}/{attempt}.log", paths::log_dir(ctx.config, ctx.pod)),
    }
}

pub fn env_context<'a>(ctx: &Context<'a>) -> env::Context<'a> {
    env::Context { pod: ctx.pod, config: ctx.objects, services: ctx.services, node: ctx.node, pod_ips: ctx.pod_ips }
}

fn facts(ctx: &Context<'_>, kind: ContainerKind, c: &Container, a: &Attempt<'_>) -> ContainerFacts {
    let json = |h: &crate::pod::Handler| serde_json::to_string(h).expect("plain data serialises");
    ContainerFacts {
        hash: Some(labels::container_hash(&c.name, &c.image)),
        restart_count: a.attempt,
        termination_message_path: c.termination_message_path.as_str().into(),
        termination_message_policy: match c.termination_message_policy {
            TerminationMessagePolicy::File => labels::TerminationMessagePolicy::File,
            TerminationMessagePolicy::FallbackToLogsOnError => labels::TerminationMessagePolicy::FallbackToLogsOnError,
        },
        pre_stop_handler: c.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()).map(|h| json(h).into()),
        ports: c.ports.iter().map(port).collect(),
        deletion_grace_period: ctx.pod.metadata.deletion_grace_period_seconds,
        termination_grace_period: Some(ctx.pod.spec.termination_grace_period_seconds),
        crash_streak: Some(a.streak),
        kind: Some(match kind {
            ContainerKind::Init => labels::ContainerKind::Init,
            ContainerKind::Sidecar => labels::ContainerKind::Sidecar,
            ContainerKind::Main => labels::ContainerKind::Regular,
            ContainerKind::Ephemeral => labels::ContainerKind::Ephemeral,
        }),
    }
}

fn port(p: &crate::pod::ContainerPort) -> labels::ContainerPort {
    labels::ContainerPort {
        name: p.name.as_str().into(),
        host_port: p.host_port.into(),
        container_port: p.container_port.into(),
        protocol: p.protocol.to_string().into(),
        host_ip: p.host_ip.as_str().into(),
    }
}

fn resources(ctx: &Context<'_>, kind: ContainerKind, c: &Container) -> Resources {
    let v = values::container_values(ctx.pod, c);
    let mut r = Resources {
        cpu_shares: i64::try_from(v.shares).unwrap_or(i64::MAX),
        cpu_quota: v.quota_us,
        cpu_period: i64::try_from(v.period_us).unwrap_or(100_000),
        memory_limit: v.memory_bytes,
        oom_score_adj: i64::from(oom::score(ctx.pod, c, kind, ctx.node.memory_bytes)),
        ..Resources::default()
    };
    if ctx.config.cgroup_v2 {
        if !ctx.config.single_process_oom_kill {
            r = r.kill_as_group();
        }
        r = r.swap_max(0);
    }
    r
}

fn mounts(ctx: &Context<'_>, c: &Container, env: &[(String, String)], sub_paths: &mut Vec<SubPath>) -> Result<Vec<Mount>, Error> {
    let mut out = Vec::new();
    for (index, m) in c.volume_mounts.iter().enumerate() {
        let volume = ctx.pod.spec.volumes.iter().find(|v| v.name == m.name);
        let volume = volume.ok_or_else(|| Error::Other(format!("volume {:?} of mount {:?} does not exist", m.name, m.mount_path)))?;
        if let Some(image) = &volume.image {
            out.push(Mount::image(CriImage::named(&image.reference), &m.sub_path, &m.mount_path));
            continue;
        }
        let root = volume::host_path(ctx, volume)?;
        // Configuration is the node's to write, whatever the mount says.
        let mut mount = Mount::bind(&root, &absolute(&m.mount_path), m.read_only || volume::holds_configuration(volume));
        mount.propagation = match m.mount_propagation {
            None | Some(MountPropagation::None) => Propagation::Private,
            Some(MountPropagation::HostToContainer) => Propagation::HostToContainer,
            Some(MountPropagation::Bidirectional) => Propagation::Bidirectional,
        };
        mount.recursive_readonly = m.recursive_read_only.as_deref() == Some("Enabled");
        let sub_path = sub_path(m, env)?;
        if !sub_path.is_empty() {
            let target = paths::sub_path_target(ctx.config, &ctx.pod.metadata.uid, &m.name, &c.name, index);
            mount.source = MountSource::HostPath(target.clone());
            sub_paths.push(SubPath { volume: m.name.clone(), root, path: sub_path, target });
        }
        out.push(mount);
    }
    Ok(out)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn sub_path(m: &VolumeMount, env: &[(String, String)]) -> Result<String, Error> {
    if m.sub_path_expr.is_empty() {
        return Ok(m.sub_path.clone());
    }
    let missing = std::cell::RefCell::new(None);
    let look_up = |name: &str| match env.binary_search_by(|(k, _)| k.as_str().cmp(name)) {
        Ok(i) => Some(env[i].1.as_str()),
        Err(_) => {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
            None
        }
    };
    let path = expand::expand(&m.sub_path_expr, look_up);
    match missing.into_inner() {
        Some(name) => Err(Error::Other(format!("missing value for {name:?}"))),
        None => Ok(path),
    }
}
