//! The virtual machines: they boot, have what the tests on them need, and report.

use anyhow::{Context, Result};
use longshore_tests::demo::machine::Changes;
use longshore_tests::lab::vm::{Qemu, Report, user_mode};
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Home, Lab, cni, image, pods};
use std::fs;
use std::path::{Path, PathBuf};
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
    // The network plugins' iptables is the one whose kernel part this kernel has.
    let preparation = "
        modprobe -a br_netfilter bridge veth nf_conntrack ip_tables iptable_nat iptable_filter ip6_tables ip6table_nat xt_comment xt_mark
        ln -sf iptables-legacy /usr/sbin/iptables
        ln -sf ip6tables-legacy /usr/sbin/ip6tables";
    let report = inside("a_pod_inside", preparation)?;
    assert!(report.status == 0 && report.output.contains("answered on 2 addresses"), "{}", report.output);
    Ok(())
}

/// A stock machine with a container runtime: all that a node needs is a module, and none is loaded.
fn stock_node() -> Result<Qemu> {
    let mut machine = Qemu::new()?.memory(2048);
    for program in ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "ip", "iptables", "ip6tables", "nft", "mount"] {
        machine = machine.program(program)?;
    }
    for plugin in ["bridge", "host-local", "loopback", "portmap"] {
        machine = machine.program(&cni::plugins()?.join(plugin).display().to_string())?;
    }
    let extensions = format!("/usr/lib/{}-linux-gnu/xtables", std::env::consts::ARCH);
    let modules = ["kernel/net/netfilter/", "kernel/net/ipv4/netfilter/", "kernel/net/ipv6/netfilter/", "kernel/net/bridge/"];
    let more = ["overlay", "veth", "br_netfilter"];
    machine.directory(Path::new(&extensions))?.loadable(&[&modules[..], &more[..]].concat())
}

#[test]
fn a_stock_node_has_its_modules_loaded_and_runs_a_pod() -> Result<()> {
    let home = Home::new()?;
    let own = std::env::current_exe().context("cannot tell where this program is")?.display().to_string();
    let script = format!(
        "#!/bin/sh
        set -e
        test ! -e /proc/sys/net/bridge
        modprobe overlay
        {own} changes_inside --exact --ignored --nocapture
        modprobe br_netfilter
        {own} a_pod_inside --exact --ignored --nocapture"
    );
    let report = stock_node()?.program(&own)?.run(&home, &script, LIMIT)?;
    assert!(report.status == 0 && report.output.contains("answered on 2 addresses"), "{}", report.output);
    Ok(())
}

/// Runs an ignored test of this program in User-mode Linux, after some lines of shell.
fn inside(test: &str, preparation: &str) -> Result<Report> {
    let home = Home::new()?;
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let script = format!("#!/bin/sh\nset -e\n{preparation}\nexec {} {test} --exact --ignored --nocapture", own.display());
    user_mode(&home, &script, 1024, LIMIT)
}

/// All that the demonstration may change of a machine.
fn settings() -> String {
    let sysctls = ["net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];
    let sysctls = sysctls.map(|name| Path::new("/proc/sys").join(name));
    let files = ["/etc/sysctl.d/99-kubernetes-cri.conf", "/etc/modules-load.d/longshore.conf"].map(PathBuf::from);
    let text = |path: &PathBuf| format!("{}: {:?}\n", path.display(), fs::read_to_string(path).ok());
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    // Not what these depend on: modprobe leaves that loaded, and it does nothing by itself.
    let ours = ["overlay", "br_netfilter", "nf_conntrack"];
    let mut modules: Vec<&str> = modules.lines().filter_map(|line| line.split(' ').next()).collect();
    modules.retain(|name| ours.contains(name));
    sysctls.iter().chain(&files).map(text).collect::<String>() + &modules.join(" ")
}

#[test]
#[ignore = "runs inside a virtual machine, where changes_to_a_machine_are_taken_back starts it"]
fn changes_inside() -> Result<()> {
    let before = settings();
    let mut changes = Changes::recorded()?;
    // The first module, overlay, is there already.
    assert_eq!(changes.load_modules()?, ["br_netfilter", "nf_conntrack"]);
    // The two switches of the bridge start as ones.
    let made = changes.prepare_network()?;
    assert_eq!(made, ["net.ipv4.ip_forward=1", "/etc/sysctl.d/99-kubernetes-cri.conf", "/etc/modules-load.d/longshore.conf"]);
    assert!(settings().contains("overlay\\nbr_netfilter\\nnf_conntrack"), "{}", settings());
    // As after a kill: what is known is what was written down.
    let mut again = Changes::recorded()?;
    assert!(again.load_modules()?.is_empty() && again.prepare_network()?.is_empty());
    drop(changes);
    again.restore()?;
    assert_eq!(settings(), before);
    assert!(Changes::recorded()?.restore()?.is_empty());
    println!("all as it was");
    Ok(())
}

#[test]
fn changes_to_a_machine_are_taken_back() -> Result<()> {
    let report = inside("changes_inside", "")?;
    assert!(report.status == 0 && report.output.contains("all as it was"), "{}", report.output);
    Ok(())
}
