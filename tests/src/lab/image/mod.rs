//! The images of the tests and of the demonstration, built here from programs on this machine.
//!
//! No registry is asked: `pause` and `workload` are compiled with this crate, `busybox` is the
//! static one of the distribution. An image is one uncompressed layer in an OCI archive.

pub mod oci;
pub mod tar;

use anyhow::{Context, Result};
pub use oci::{Archive, Config};
use std::process::Command;
use tar::Tar;

/// Holds a pod's namespaces.
pub const PAUSE: &str = "localhost/longshore/pause:1";
/// busybox with all its applets, and the test program; runs `sh`.
pub const BUSYBOX: &str = "localhost/longshore/busybox:1";
/// busybox that serves a page with its name and the pod's on port 8080.
pub const DEMO: &str = "localhost/longshore/demo:1";
/// The test program; see `tests/workload/main.rs` for what it can do.
pub const WORKLOAD: &str = "localhost/longshore/workload:1";

const PAUSE_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
const WORKLOAD_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workload"));

/// Serves /www, after writing the page: the greeting from a mounted file, then who answers.
const DEMO_SCRIPT: &str = r#"#!/bin/sh
mkdir -p /tmp/www
{ cat "${GREETING_FILE:-/etc/demo/greeting}" 2>/dev/null || echo "Hello from Longshore"
  echo "pod: ${POD_NAME:-$(hostname)}"; } > /tmp/www/index.html
echo "serving on port ${PORT:-8080}"
# As the first process of its container httpd would not hear TERM: the shell does.
trap 'exit 0' TERM
httpd -f -p "${PORT:-8080}" -h /tmp/www &
wait $!
"#;

/// All four images.
pub fn standard() -> Result<Vec<Archive>> {
    Ok(vec![pause(), busybox()?, demo()?, workload()])
}

/// The pause program alone.
pub fn pause() -> Archive {
    let mut root = Tar::default();
    root.file("pause", 0o755, PAUSE_PROGRAM);
    let config = Config { entrypoint: &["/pause"], user: "65535:65535", ..Config::default() };
    Archive::new(PAUSE, root.finish(), &config)
}

/// The test program, in a root with the directories that programs expect.
pub fn workload() -> Archive {
    let mut root = Tar::default();
    skeleton(&mut root);
    root.file("bin/workload", 0o755, WORKLOAD_PROGRAM);
    Archive::new(WORKLOAD, root.finish(), &Config { entrypoint: &["/bin/workload"], ..Config::default() })
}

/// busybox and its applets.
pub fn busybox() -> Result<Archive> {
    let mut root = Tar::default();
    busybox_root(&mut root)?;
    Ok(Archive::new(BUSYBOX, root.finish(), &Config { command: &["sh"], ..Config::default() }))
}

/// The image of the demonstration.
pub fn demo() -> Result<Archive> {
    let mut root = Tar::default();
    busybox_root(&mut root)?;
    root.file("bin/demo", 0o755, DEMO_SCRIPT.as_bytes());
    let config = Config { entrypoint: &["/bin/demo"], ports: &["8080/tcp"], ..Config::default() };
    Ok(Archive::new(DEMO, root.finish(), &config))
}

fn skeleton(root: &mut Tar) {
    for directory in ["bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var"] {
        root.directory(directory, 0o755);
    }
    root.directory("tmp", 0o1777);
    root.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
    root.file("etc/group", 0o644, b"root:x:0:\nstaff:x:2000:nobody\nnogroup:x:65534:\n");
    root.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n");
}

fn busybox_root(root: &mut Tar) -> Result<()> {
    let program = ["/bin/busybox", "/usr/bin/busybox"];
    let program = program.into_iter().find(|path| std::path::Path::new(path).exists());
    let program = program.context("no busybox here: install the package busybox-static")?;
    let listing = Command::new(program).arg("--list").output().context("cannot run busybox")?;
    skeleton(root);
    let content = std::fs::read(program).with_context(|| format!("cannot read {program}"))?;
    root.file("bin/busybox", 0o755, &content);
    for applet in String::from_utf8_lossy(&listing.stdout).lines().filter(|name| *name != "busybox") {
        root.symlink(&format!("bin/{applet}"), "busybox");
    }
    root.symlink("usr/bin/env", "/bin/busybox");
    // Its wget and nslookup depend on libraries that a static program has to find at run time.
    root.file("bin/workload", 0o755, WORKLOAD_PROGRAM);
    Ok(())
}
