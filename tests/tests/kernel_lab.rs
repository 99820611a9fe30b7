//! The virtual machines: they boot, have what the tests on them need, and report.

use anyhow::{Context, Result};
use longshore_tests::lab::vm::{Qemu, user_mode};
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Home, Lab, image, pods};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn user_mode_linux_offers_ipvs_and_cgroups_of_version_two() -> Result<()> {
    let home = Home::new()?;
    let script = "#!/bin/sh
        set -e
        modprobe -a ip_vs ip_vs_rr ip_set dummy overlay br_netfilter nf_conntrack_netlink
        grep -q Virtual /proc/net/ip_vs
        ip link add kube-ipvs0 type dummy
        echo +memory >/sys/fs/cgroup/cgroup.subtree_control
        mkdir /sys/fs/cgroup/pod
        cat /sys/fs/cgroup/pod/memory.max
        touch /etc/only-in-memory
        exit 7";
    let report = user_mode(&home, script, 512, LIMIT)?;
    assert_eq!((report.status, report.output.trim()), (7, "max"));
    assert!(!std::path::Path::new("/etc/only-in-memory").exists());
    Ok(())
}

#[test]
fn a_stock_kernel_offers_pressure_files_and_nftables_as_modules() -> Result<()> {
    let home = Home::new()?;
    let script = "#!/bin/sh
        set -e
        test -e /proc/pressure/memory
        test -e /sys/fs/cgroup/memory.pressure
        nft add table inet probe
        nft list tables
        ipset --version >/dev/null
        mkdir /tmp/l /tmp/u /tmp/w /tmp/m
        mount -t overlay -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w overlay /tmp/m
        exit 3";
    let modules = ["nf_tables", "ip_set", "br_netfilter", "ip_vs_rr", "overlay", "veth"];
    let machine = Qemu::new()?.modules(&modules).program("nft")?.program("ipset")?;
    let report = machine.run(&home, script, LIMIT)?;
    assert_eq!((report.status, report.output.trim()), (3, "table inet probe"));
    Ok(())
}

/// Not a test of its own: what the next test runs in the virtual machine.
#[test]
#[ignore = "runs inside a virtual machine, where pods_run_under_cgroups_of_version_two starts it"]
fn a_pod_inside() -> Result<()> {
    let lab = Lab::up()?;
    let parent = lab.home.cgroup() + "/pods";
    let pod = pods::run(&lab.containerd, "web", image::WORKLOAD, &["serve-http", "8080"], &parent)?;
    let client = &lab.network.outside[0].namespace;
    for ip in &pod.ips {
        wait_for("the pod answers", LIMIT, || client.get((*ip, 8080).into(), "/healthz", LIMIT).map(Some))?;
    }
    let cgroup = Path::new("/sys/fs/cgroup").join(parent.trim_start_matches('/')).join(&pod.container);
    assert!(cgroup.join("memory.max").exists(), "no cgroup2 {}", cgroup.display());
    println!("answered on {} addresses", pod.ips.len());
    Ok(())
}

#[test]
fn pods_run_under_cgroups_of_version_two() -> Result<()> {
    let home = Home::new()?;
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    // The network plugins' iptables is the one whose kernel part this kernel has.
    let script = format!(
        "#!/bin/sh
        set -e
        modprobe -a br_netfilter bridge veth nf_conntrack ip_tables iptable_nat iptable_filter ip6_tables ip6table_nat xt_comment xt_mark
        ln -sf iptables-legacy /usr/sbin/iptables
        ln -sf ip6tables-legacy /usr/sbin/ip6tables
        exec {} a_pod_inside --exact --ignored --nocapture",
        own.display()
    );
    let report = user_mode(&home, &script, 1024, LIMIT)?;
    assert!(report.status == 0 && report.output.contains("answered on 2 addresses"), "{}", report.output);
    Ok(())
}
