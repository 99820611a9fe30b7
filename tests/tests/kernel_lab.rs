//! The virtual machines: they boot, have what the tests on them need, and report.

use anyhow::Result;
use longshore_tests::lab::Home;
use longshore_tests::lab::vm::{Qemu, user_mode};
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
