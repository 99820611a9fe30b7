//! User-mode Linux with this machine's files.

use super::{Report, report};
use crate::lab::Home;
use crate::lab::process::Running;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Makes the machine usable, then runs the script. The root is a memory overlay on the host's files;
/// its tools are the host's own, not busybox's: those find themselves through /proc, which is the
/// host's until ours is mounted.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/modules/lib/modules /mnt/upper /mnt/work /mnt/root
release=$(uname -r)
ln -s "/usr/lib/uml/modules/$release" "/mnt/modules/lib/modules/$release"
modprobe -d /mnt/modules overlay
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root || exit
mkdir -p host vm
pivot_root . host
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for directory in /dev/shm /run /tmp LABS; do
    mkdir -p "$directory"
    mount -t tmpfs tmpfs "$directory"
done
mount -t hostfs -o BASE hostfs /vm
mkdir -p /lib/modules
ln -sfn "/usr/lib/uml/modules/$release" "/lib/modules/$release"
ip link set lo up
START
"#;

/// Runs the script and ends the machine.
const RUN: &str = r#"/vm/script >/vm/output 2>&1 </dev/null
echo $? >/vm/status
sync
echo o >/proc/sysrq-trigger
sleep 60
"#;

/// Leaves the machine to systemd, with a message bus and the script as its only services.
const SYSTEMD: &str = r#"units=/etc/systemd/system
cat >$units/lab.service <<UNIT
[Unit]
DefaultDependencies=no
Requires=dbus.socket dbus.service
After=dbus.service
[Service]
Type=oneshot
Environment=HOME=/root PATH=$PATH LONGSHORE_LAB_CGROUP_DRIVER=systemd
Delegate=yes
ExecStart=/bin/sh /vm/run
UNIT
cat >$units/dbus.socket <<UNIT
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
UNIT
cat >$units/dbus.service <<UNIT
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
UNIT
cat >$units/lab.target <<UNIT
[Unit]
DefaultDependencies=no
Wants=lab.service
UNIT
exec /lib/systemd/systemd --unit=lab.target --log-target=console --show-status=no
"#;

/// Boots the user-mode kernel with `mebibytes` of memory and runs `script` (with its `#!` line) as
/// root. Programs and files of this machine are there under their own paths; what the script writes
/// is lost, but for /vm. The lab's directory is empty there, so that labs can be made inside.
pub fn user_mode(home: &Home, script: &str, mebibytes: u32, limit: Duration) -> Result<Report> {
    boot(home, script, RUN, mebibytes, limit)
}

/// The same on a machine that systemd runs: the script is a service of its own, with `systemctl` and a message bus.
pub fn user_mode_systemd(home: &Home, script: &str, mebibytes: u32, limit: Duration) -> Result<Report> {
    boot(home, script, SYSTEMD, mebibytes, limit)
}

fn boot(home: &Home, script: &str, start: &str, mebibytes: u32, limit: Duration) -> Result<Report> {
    let base = tempfile::Builder::new().prefix("uml-").tempdir_in(home.base())?;
    let write = |name: &str, text: &str| -> Result<()> {
        let path = base.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    };
    let labs = home.base().parent().unwrap_or(Path::new("/")).display().to_string();
    let init = INIT.replace("START", start).replace("LABS", &labs).replace("BASE", &base.path().display().to_string());
    write("init", &init)?;
    write("run", RUN)?;
    write("script", script)?;
    let mut command = Command::new("linux");
    command.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"]);
    command.args(["con=null", "con0=null,fd:1"]).arg(format!("mem={mebibytes}M"));
    command.arg(format!("init={}/init", base.path().display()));
    // Where it keeps its own sockets.
    command.env("HOME", base.path());
    let log = base.path().join("console");
    let machine =
        Running::start(command, &log, None, &(home.cgroup() + "/vm")).context("User-mode Linux is in the package user-mode-linux")?;
    let status = base.path().join("status");
    let status = || fs::read_to_string(&status).ok()?.trim().parse().ok();
    report(machine, &base.path().join("output"), status, limit)
}
