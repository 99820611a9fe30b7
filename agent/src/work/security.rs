//! Security contexts merged and checked (specification of the kubelet, 10.3).

use super::{Context, Error, Image};
use crate::pod::{Container, SecurityProfile};
use longshore_cri::container_config::Security;
use longshore_cri::security::{GroupsPolicy, ProcMount, Profile, SeLinux};

pub fn security(ctx: &Context<'_>, c: &Container, image: &Image) -> Result<Security, Error> {
    let pod = &ctx.pod.spec.security_context;
    let own = c.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(pod.run_as_user);
    let must_not_be_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
    let full = crate::plan::view::full_name(ctx.pod);
    if must_not_be_root {
        non_root(user, image, &full, &c.name)?;
    }
    let profile = |p: Option<&SecurityProfile>| p.map(|p| to_profile(ctx, p));
    let seccomp = profile(own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()));
    let default_seccomp = if ctx.config.seccomp_default { Profile::RuntimeDefault } else { Profile::Unconfined };
    let apparmor = own.app_armor_profile.as_ref().or(pod.app_armor_profile.as_ref());
    let mut groups: Vec<i64> = pod.fs_group.into_iter().collect();
    groups.extend(pod.supplemental_groups.iter().filter(|g| Some(**g) != pod.fs_group));
    Ok(Security {
        privileged: own.privileged,
        run_as_user: user.or(image.uid.filter(|_| image.username.is_empty())),
        run_as_username: if user.is_none() { image.username.to_string() } else { String::new() },
        run_as_group: own.run_as_group.or(pod.run_as_group),
        supplemental_groups: groups,
        groups_policy: groups_policy(ctx),
        readonly_rootfs: own.read_only_root_filesystem,
        no_new_privs: own.allow_privilege_escalation == Some(false),
        add_capabilities: own.capabilities.as_ref().map(|k| k.add.clone()).unwrap_or_default(),
        drop_capabilities: own.capabilities.as_ref().map(|k| k.drop.clone()).unwrap_or_default(),
        selinux: own.se_linux_options.as_ref().or(pod.se_linux_options.as_ref()).map(selinux),
        seccomp: Some(if own.privileged { Profile::Unconfined } else { seccomp.unwrap_or(default_seccomp) }),
        apparmor: apparmor.map(|p| match p.kind.as_str() {
            "Localhost" => Profile::Localhost(p.localhost_profile.clone().unwrap_or_default().into()),
            "Unconfined" => Profile::Unconfined,
            _ => Profile::RuntimeDefault,
        }),
        proc_mount: if own.proc_mount.as_deref() == Some("Unmasked") || own.privileged {
            ProcMount::Unmasked
        } else {
            ProcMount::default()
        },
    })
}

fn non_root(user: Option<i64>, image: &Image, pod: &str, container: &str) -> Result<(), Error> {
    match (user, image.uid, &*image.username) {
        (Some(0), _, _) => {
            Err(Error::Other(format!("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")))
        }
        (Some(_), _, _) => Ok(()),
        (None, Some(0), _) | (None, None, "") => {
            Err(Error::Other(format!("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")))
        }
        (None, None, name) => Err(Error::Other(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
        ))),
        (None, Some(_), _) => Ok(()),
    }
}

fn to_profile(ctx: &Context<'_>, p: &SecurityProfile) -> Profile {
    match p.kind.as_str() {
        "Localhost" => {
            let name = p.localhost_profile.as_deref().unwrap_or_default();
            Profile::Localhost(format!("{}/seccomp/{name}", ctx.config.root_dir).into())
        }
        "Unconfined" => Profile::Unconfined,
        _ => Profile::RuntimeDefault,
    }
}

pub fn groups_policy(ctx: &Context<'_>) -> GroupsPolicy {
    match ctx.pod.spec.security_context.supplemental_groups_policy.as_deref() {
        Some("Strict") => GroupsPolicy::Strict,
        _ => GroupsPolicy::Merge,
    }
}

pub fn selinux(o: &crate::pod::SeLinuxOptions) -> SeLinux {
    SeLinux { user: o.user.as_str().into(), role: o.role.as_str().into(), r#type: o.kind.as_str().into(), level: o.level.as_str().into() }
}
