//! Security contexts.

use super::names;
use crate::manifest::problem::{Faults, Path};
use crate::pod::{Container, Pod, SecurityContext, SecurityProfile};

const ID: &str = "must be between 0 and 2147483647, inclusive";

fn id(n: Option<i64>, path: &Path, out: &mut Faults) {
    if let Some(n) = n.filter(|n| !(0..=i64::from(i32::MAX)).contains(n)) {
        out.invalid_number(path, n, ID);
    }
}

pub fn pod(p: &Pod, path: &Path, out: &mut Faults) {
    let s = &p.spec.security_context;
    for (name, n) in [("runAsUser", s.run_as_user), ("runAsGroup", s.run_as_group), ("fsGroup", s.fs_group)] {
        id(n, &path.child(name), out);
    }
    for (i, g) in s.supplemental_groups.iter().enumerate() {
        id(Some(*g), &path.child("supplementalGroups").index(i), out);
    }
    profiles(s.seccomp_profile.as_ref(), s.app_armor_profile.as_ref(), path, out);
    sysctls(p, &path.child("sysctls"), out);
    if p.spec.share_process_namespace && p.spec.host_pid {
        out.invalid(&Path::root("spec").child("shareProcessNamespace"), "true", "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    if p.spec.host_users == Some(false) {
        let path = Path::root("spec");
        for (name, set) in [("hostNetwork", p.spec.host_network), ("hostPID", p.spec.host_pid), ("hostIPC", p.spec.host_ipc)] {
            if set {
                out.forbidden(&path.child(name), "when `hostUsers` is false");
            }
        }
    }
}

fn sysctls(p: &Pod, path: &Path, out: &mut Faults) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, s) in p.spec.security_context.sysctls.iter().enumerate() {
        let path = path.index(i).child("name");
        let dotted = s.name.replace('/', ".");
        if s.name.is_empty() {
            out.required(&path, "");
            continue;
        }
        if !names::is_sysctl(&s.name) {
            let why =
                "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            out.invalid(&path, &s.name, why);
        } else if !seen.insert(dotted.clone()) {
            out.duplicate(&path, &s.name);
        }
        if p.spec.host_network && dotted.starts_with("net.") {
            out.invalid(&path, &s.name, "may not be specified when 'hostNetwork' is true");
        }
        if p.spec.host_ipc
            && (dotted.starts_with("kernel.shm")
                || dotted.starts_with("kernel.msg")
                || dotted == "kernel.sem"
                || dotted.starts_with("fs.mqueue."))
        {
            out.invalid(&path, &s.name, "may not be specified when 'hostIPC' is true");
        }
    }
}

pub fn container(c: &Container, p: &Pod, path: &Path, out: &mut Faults) {
    let Some(s) = &c.security_context else { return };
    id(s.run_as_user, &path.child("runAsUser"), out);
    id(s.run_as_group, &path.child("runAsGroup"), out);
    profiles(s.seccomp_profile.as_ref(), s.app_armor_profile.as_ref(), path, out);
    if s.proc_mount.as_deref() == Some("Unmasked") && p.spec.host_users != Some(false) {
        out.invalid(&path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    escalation(s, path, out);
}

fn escalation(s: &SecurityContext, path: &Path, out: &mut Faults) {
    if s.allow_privilege_escalation != Some(false) {
        return;
    }
    let path = path.child("allowPrivilegeEscalation");
    if s.privileged {
        out.0.push(crate::manifest::problem::Fault::invalid(
            &path,
            "false",
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ));
    }
    if s.capabilities.iter().flat_map(|c| &c.add).any(|c| matches!(c.as_str(), "CAP_SYS_ADMIN")) {
        out.0.push(crate::manifest::problem::Fault::invalid(
            &path,
            "false",
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        ));
    }
}

fn profiles(seccomp: Option<&SecurityProfile>, app_armor: Option<&SecurityProfile>, path: &Path, out: &mut Faults) {
    if let Some(p) = seccomp {
        profile(p, true, &path.child("seccompProfile"), out);
    }
    if let Some(p) = app_armor {
        profile(p, false, &path.child("appArmorProfile"), out);
    }
}

fn profile(p: &SecurityProfile, seccomp: bool, path: &Path, out: &mut Faults) {
    let local = p.localhost_profile.as_deref();
    let at = path.child("localhostProfile");
    match p.kind.as_str() {
        "" => out.required(&path.child("type"), "type is required when the profile is set"),
        "RuntimeDefault" | "Unconfined" => {
            if let Some(l) = local {
                out.invalid(&at, l, "can only be set when `type` is \"Localhost\"");
            }
        }
        "Localhost" => match local {
            None | Some("") => out.required(&at, "must be set when `type` is \"Localhost\""),
            Some(l) if seccomp => {
                if let Some(why) = names::local_path(l) {
                    out.invalid(&at, l, why);
                }
            }
            Some(l) if l.trim() != l || l.len() > 4095 => {
                out.invalid(&at, l, "must be no more than 4095 bytes and not be padded with whitespace");
            }
            Some(_) => {}
        },
        other => out.unsupported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}
