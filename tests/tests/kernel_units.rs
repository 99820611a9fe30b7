//! The systemd unit: systemd understands all of it, and every restriction says why it is there.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn service() -> Result<String> {
    fs::read_to_string(units().join("longshore.service")).context("cannot read the unit")
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let unit = directory.path().join("longshore.service");
    // The program need not be installed for its unit to be right.
    fs::write(&unit, service()?.replace("/usr/local/bin/longshore", "/bin/true"))?;
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).arg(&unit).output();
    let verify = verify.context("systemd-analyze is in the package systemd")?;
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert!(verify.status.success() && said.is_empty(), "{said}");
    Ok(())
}

#[test]
fn verification_would_notice_a_misspelt_directive() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let unit = directory.path().join("longshore.service");
    let spoilt = service()?.replace("/usr/local/bin/longshore", "/bin/true").replace("TasksMax=", "TasksMost=");
    fs::write(&unit, spoilt)?;
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).arg(&unit).output()?;
    assert!(String::from_utf8_lossy(&verify.stderr).contains("TasksMost"));
    Ok(())
}

#[test]
fn every_restriction_gives_its_reason() -> Result<()> {
    let service = service()?;
    let lines: Vec<&str> = service.lines().collect();
    let start = lines.iter().position(|line| *line == "[Service]").context("no [Service]")?;
    let mut explained = false;
    let mut directives = 0;
    for line in &lines[start + 1..] {
        match *line {
            "" => explained = false,
            "[Install]" => break,
            line if line.starts_with('#') => explained = true,
            // What to run explains itself; the rest stands under a comment of its paragraph.
            line if line.starts_with("ExecStart=") || line.starts_with("EnvironmentFile=") => {}
            line => {
                assert!(explained, "{line} has no reason");
                directives += 1;
            }
        }
    }
    assert!(directives > 15);
    Ok(())
}

#[test]
fn nothing_gives_the_daemon_a_mount_namespace_of_its_own() -> Result<()> {
    const ISOLATING: &[&str] = &[
        "BindPaths",
        "BindReadOnlyPaths",
        "ExecPaths",
        "InaccessiblePaths",
        "MountAPIVFS",
        "MountImages",
        "NoExecPaths",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateTmp",
        "PrivateUsers",
        "ProcSubset",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProtectSystem",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "RootDirectory",
        "RootImage",
        "TemporaryFileSystem",
        "DynamicUser",
    ];
    let service = service()?;
    for directive in service.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')) {
        assert!(!ISOLATING.contains(&directive.0), "{}= would hide volumes from the runtime", directive.0);
    }
    Ok(())
}
