//! Compiles the programs that go into the test images: `pause` and `workload`.
//!
//! They are plain `rustc` builds, static and without dependencies, so that an image is one file and
//! the lab needs no compiler when it runs: the finished programs are embedded in the library.

use std::path::Path;
use std::process::Command;

/// A few hundred bytes of program deserve no libc and no start files.
const PAUSE_FLAGS: &[&str] = &[
    "-Copt-level=s",
    "-Cpanic=abort",
    "-Cstrip=symbols",
    "-Crelocation-model=static",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-static",
    "-Clink-arg=-Wl,--build-id=none,-n,-z,norelro",
];

const WORKLOAD_FLAGS: &[&str] = &["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"];

fn main() {
    compile("pause/main.rs", "pause", PAUSE_FLAGS);
    compile("workload/main.rs", "workload", WORKLOAD_FLAGS);
}

fn compile(source: &str, name: &str, flags: &[&str]) {
    let directory = Path::new(source).parent().expect("sources lie in a directory");
    println!("cargo:rerun-if-changed={}", directory.display());
    let out = Path::new(&std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join(name);
    let rustc = std::env::var("RUSTC").expect("cargo sets RUSTC");
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", "bin", "--crate-name", name, "--target"]);
    command.arg(target).args(flags).arg("-o").arg(&out).arg(source);
    let status = command.status().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(status.success(), "{command:?} failed: {status}");
}
