//! The ipvs backend on a kernel that has IPVS: User-mode Linux, with real packets between namespaces.
//!
//! Each test here boots a machine and runs a group of the ignored tests in it, one after the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "ipvs/mod.rs"]
mod inside;
#[path = "../../dataplane/tests/lab/mod.rs"]
mod lab;

use longshore_tests::lab::Home;
use longshore_tests::lab::vm::user_mode;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(400);

/// Figures are taken alone: two machines on two processors disturb each other.
static ALONE: RwLock<()> = RwLock::new(());

/// What the lab needs of the kernel. What the backend needs, it loads itself.
const MODULES: &str = "modprobe -a bridge veth br_netfilter ip6_tables ip6table_nat ip_tables iptable_nat";

/// Runs the tests of a group in User-mode Linux; tells what they printed.
fn run(group: &str) {
    let home = Home::new().unwrap();
    let own = std::env::current_exe().unwrap().display().to_string();
    let script = format!("#!/bin/sh\n{MODULES}\nexec {own} inside::{group}:: --ignored --nocapture --test-threads=1");
    let report = user_mode(&home, &script, 1024, LIMIT).unwrap();
    println!("{}", report.output);
    assert!(report.status == 0 && report.output.contains("test result: ok"), "{}", report.output);
}

#[test]
fn packets_go_where_services_say() {
    let _together = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    run("packets");
}

#[test]
fn others_and_earlier_lives_are_respected() {
    let _together = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    run("life");
}

#[test]
fn too_much_is_told_and_what_is_late_is_waited_for() {
    let _together = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    run("limits");
}

#[test]
fn two_nodes_serve_as_one_cluster() {
    let _together = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    run("two_nodes");
}

#[test]
fn a_change_is_timed_beside_its_bare_message() {
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    run("speed");
}
