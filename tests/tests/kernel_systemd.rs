//! The systemd cgroup driver with a real systemd, in User-mode Linux: pods' slices, and containers in them.

use anyhow::{Context, Result, ensure};
use longshore::cgroup::{CgroupValues, Driver, Layout};
use longshore::pod::{PodUid, QosClass};
use longshore::run::cgroup_fs::CgroupFs;
use longshore_tests::lab::vm::user_mode_systemd;
use longshore_tests::lab::{Home, Lab, image, pods};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(150);
/// Preparation of the machine: its network plugins' iptables is the one whose kernel part it has.
const NETWORK: &str =
    "modprobe -a br_netfilter bridge veth nf_conntrack ip_tables iptable_nat iptable_filter ip6_tables ip6table_nat xt_comment xt_mark
ln -sf iptables-legacy /usr/sbin/iptables
ln -sf ip6tables-legacy /usr/sbin/ip6tables";

#[test]
fn pods_are_slices_and_containers_scopes_under_systemd() -> Result<()> {
    let home = Home::new()?;
    let own = std::env::current_exe()?;
    let script = format!("#!/bin/sh\nset -e\n{NETWORK}\nexec {} slices_inside --exact --ignored --nocapture", own.display());
    let report = user_mode_systemd(&home, &script, 1024, LIMIT)?;
    ensure!(report.status == 0 && report.output.contains("as systemd has it"), "{}", report.output);
    Ok(())
}

fn systemctl(arguments: &[&str]) -> Result<String> {
    let out = Command::new("systemctl").args(arguments).output()?;
    ensure!(out.status.success(), "systemctl {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

fn read(directory: &Path, file: &str) -> Result<String> {
    let path = directory.join(file);
    Ok(fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?.trim().to_owned())
}

fn values(memory: i64) -> CgroupValues {
    CgroupValues { cpu_shares: Some(512), cpu_quota: Some(20_000), memory_max: Some(memory), pids_max: Some(64) }
}

#[test]
#[ignore = "runs inside a virtual machine, where pods_are_slices_and_containers_scopes_under_systemd starts it"]
fn slices_inside() -> Result<()> {
    let layout = Layout::new(Driver::Systemd, "");
    let groups = CgroupFs::open(layout.clone())?;
    let pod = layout.pod(QosClass::Burstable, &PodUid::new("12ab-34cd"));
    for above in [layout.kubepods(), layout.qos(QosClass::Burstable)] {
        groups.apply(&above, &CgroupValues::default())?;
    }
    groups.apply(&pod, &values(64 << 20))?;
    let slice = "kubepods-burstable-pod12ab_34cd.slice";
    let directory = PathBuf::from(format!("/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/{slice}"));
    let limits = || -> Result<_> { Ok((read(&directory, "memory.max")?, read(&directory, "cpu.max")?, read(&directory, "pids.max")?)) };
    assert_eq!(limits()?, ("67108864".into(), "20000 100000".into(), "64".into()));
    let known = systemctl(&["show", slice, "--property=MemoryMax,CPUQuotaPerSecUSec,TasksMax"])?;
    for property in ["MemoryMax=67108864", "CPUQuotaPerSecUSec=200ms", "TasksMax=64"] {
        assert!(known.contains(property), "{known}");
    }

    // Another value, which a reload of systemd does not take back.
    groups.apply(&pod, &values(32 << 20))?;
    assert_eq!(limits()?.0, "33554432");
    systemctl(&["daemon-reload"])?;
    assert_eq!(limits()?.0, "33554432");

    // A container of the runtime is a scope in the slice.
    let lab = Lab::up()?;
    let parent = layout.cri_parent(&pod);
    assert_eq!(parent, slice);
    let web = pods::run(&lab.containerd, "web", image::WORKLOAD, &["sleep"], &parent)?;
    let scope = directory.join(format!("cri-containerd-{}.scope", web.container));
    assert!(read(&scope, "cgroup.procs")?.lines().count() > 0);
    assert_eq!(groups.pods().into_iter().collect::<Vec<_>>(), [(QosClass::Burstable, PodUid::new("12ab-34cd"))]);

    pods::remove_all(&lab.containerd.socket())?;
    groups.remove(&pod)?;
    assert!(!directory.exists(), "{} is still there", directory.display());
    println!("as systemd has it");
    Ok(())
}
