//! `make run` on a machine's own network: a stock machine, all of whose modules wait to be loaded. It
//! is as it was afterwards.

use anyhow::{Context, Result};
use longshore_tests::lab::daemon::{binary, copy_manifests};
use longshore_tests::lab::vm::Qemu;
use longshore_tests::lab::{Home, cni, image};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(400);

/// All that a run might leave: links, addresses, routes, rules, settings, modules' list, files, mounts,
/// processes of the runtime.
const SNAPSHOT: &str = r#"
snapshot() {
    ip -o link | sed 's/^[0-9]*: //; s/ .*//' | sort
    ip -o address; ip route
    iptables-save | grep -v '^[#:]' | sort; nft list tables
    for name in net.ipv4.ip_forward net.ipv4.conf.all.route_localnet vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops; do
        sysctl $name
    done || echo not all
    ls -A /etc/sysctl.d /etc/modules-load.d /run/netns /run/containerd /run/containerd/s /var/lib
    cut -d' ' -f2 /proc/mounts | grep -v '^/sys\|^/proc\|^/dev' | sort
    ps | grep '[c]ontainerd\|[l]ongshore run' || echo no runtime
    find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d
} 2>&1
"#;

fn machine() -> Result<Qemu> {
    let mut machine = Qemu::new()?.memory(3072);
    let programs = ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "ip", "iptables", "iptables-save", "nft", "mount"];
    for program in programs {
        machine = machine.program(program)?;
    }
    for plugin in ["bridge", "host-local", "loopback", "portmap"] {
        machine = machine.program(&cni::plugins()?.join(plugin).display().to_string())?;
    }
    let extensions = format!("/usr/lib/{}-linux-gnu/xtables", std::env::consts::ARCH);
    let modules = ["kernel/net/netfilter/", "kernel/net/ipv4/netfilter/", "kernel/net/ipv6/netfilter/", "kernel/net/bridge/"];
    let more = ["overlay", "veth", "br_netfilter", "dummy"];
    machine.directory(Path::new(&extensions))?.loadable(&[&modules[..], &more[..]].concat())
}

#[test]
fn a_run_on_the_machine_itself_serves_and_leaves_it_as_it_was() -> Result<()> {
    let home = Home::new()?;
    let lab = env!("CARGO_BIN_EXE_longshore-lab");
    let daemon = binary().context("the daemon has to be built first")?.display().to_string();
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/examples/manifests").canonicalize()?;
    let script = format!(
        "#!/bin/sh
        set -e
        {SNAPSHOT}
        export LONGSHORE_BINARY={daemon}
        mkdir -p /etc/sysctl.d /etc/modules-load.d /run/netns /run/containerd/s /var/lib
        ip link add uplink type dummy
        ip link set uplink up
        ip address add 198.51.100.7/24 dev uplink
        ip route add default via 198.51.100.1
        # The first chain makes an empty table that stays; every machine with iptables has had one.
        iptables -t nat -N PROBE
        iptables -t nat -X PROBE
        snapshot >/tmp/before
        {lab} up --once --manifests {}
        {lab} clean
        snapshot >/tmp/after
        diff /tmp/before /tmp/after
        echo as before",
        manifests.display()
    );
    let machine = machine()?.program(lab)?.program(&daemon)?.directory(&manifests)?;
    let report = machine.run(&home, &script, LIMIT)?;
    let answers = report.output.matches("Hello from a machine without a control plane.").count();
    assert!(report.status == 0 && answers == 2 && report.output.contains("as before"), "{}", report.output);
    Ok(())
}

/// Three pods, one of each class, that hold memory.
const CLASSES: &str = "
apiVersion: v1
kind: Pod
metadata: { name: guaranteed }
spec:
  containers: [{ name: main, image: WORKLOAD, args: [eat-memory, '24'], resources: { limits: { cpu: 200m, memory: 64Mi } } }]
---
apiVersion: v1
kind: Pod
metadata: { name: burstable }
spec:
  containers: [{ name: main, image: WORKLOAD, args: [eat-memory, '24'], resources: { requests: { cpu: 100m, memory: 48Mi } } }]
---
apiVersion: v1
kind: Pod
metadata: { name: besteffort }
spec:
  restartPolicy: Never
  containers: [{ name: main, image: WORKLOAD, args: [eat-memory, '24'] }]
";

#[test]
fn classes_have_their_groups_limits_and_scores_and_die_in_their_order() -> Result<()> {
    let home = Home::new()?;
    let lab = env!("CARGO_BIN_EXE_longshore-lab");
    let daemon = binary().context("the daemon has to be built first")?.display().to_string();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/examples/manifests").canonicalize()?;
    let manifests = home.directory("manifests")?;
    copy_manifests(&examples, &manifests)?;
    std::fs::write(manifests.join("90-classes.yaml"), CLASSES.replace("WORKLOAD", image::WORKLOAD))?;
    let script = format!(
        "#!/bin/sh
        export LONGSHORE_BINARY={daemon}
        mkdir -p /etc/sysctl.d /etc/modules-load.d /run/netns /run/containerd/s /var/lib
        {lab} up --sandbox --manifests {} >/tmp/up 2>&1 &
        for second in $(seq 300); do grep -q 'Ctrl-C ends it' /tmp/up && break; sleep 1; done
        grep -q 'Ctrl-C ends it' /tmp/up || cat /tmp/up
        cd $(find /sys/fs/cgroup -type d -name kubepods)
        scores() {{ for p in $(cat $1/*/cgroup.procs); do tr '\\0' ' ' </proc/$p/cmdline | grep -q eat-memory && cat /proc/$p/oom_score_adj; done; }}
        echo cpu: $(cat pod*/cpu.max) memory: $(cat pod*/memory.max)
        echo container: $(sort -u pod*/*/memory.max) group: $(sort -u pod*/*/memory.oom.group) swap: $(sort -u pod*/*/memory.swap.max)
        echo weights: $(cat besteffort/cpu.weight) $(cat besteffort/pod*/cpu.weight)
        echo guaranteed: $(scores 'pod*') besteffort: $(scores 'besteffort/pod*')
        echo burstable: $(for p in burstable/pod*; do scores $p; done)
        # A little too little for all of them: the kernel has to choose, once.
        for try in $(seq 300); do
            echo $(( $(cat memory.current) - 1000000 )) >memory.max
            grep -q 'oom_kill [1-9]' besteffort/memory.events && break
        done
        echo max >memory.max
        dmesg | sed -n 's/.*Killed process.*oom_score_adj:/victim: /p' >/tmp/victims
        echo first $(head -n 1 /tmp/victims)
        echo guaranteed victims: $(grep -c -e -99 /tmp/victims)",
        manifests.display()
    );
    let machine = machine()?.program(lab)?.program(&daemon)?.directory(&manifests)?;
    let report = machine.run(&home, &script, LIMIT)?;
    let expected = [
        "cpu: 20000 100000 memory: 67108864",
        "container: 67108864 max group: 0 1 swap: 0 max",
        "weights: 1 1",
        "guaranteed: -997 besteffort: 1000",
        "first victim: 1000",
        "guaranteed victims: 0",
    ];
    for line in expected {
        assert!(report.output.contains(line), "no {line:?} in\n{}", report.output);
    }
    Ok(())
}
