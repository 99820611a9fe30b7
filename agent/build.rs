//! How the shipped program is linked: functions that came out the same are kept once, since nothing here compares
//! functions by their address, and without the tables for unwinding (see discard.ld). A seventh of the program.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=discard.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    // Where Rust links with its own LLD. Daily builds are linked more often than they are shipped, and they unwind.
    let lld = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if lld && is("OPT_LEVEL", "z") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/discard.ld", env!("CARGO_MANIFEST_DIR"));
    }
}
