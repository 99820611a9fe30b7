//! What runs inside the machine.

mod life;
mod limits;
mod packets;
mod speed;
mod two_nodes;
mod victim;

use super::lab::objects::{NODE_PORT, PORT, service, slices, vip};
use super::lab::{Lab, NODE_V4, NODE_V6, programmed};
use longshore_dataplane::config::{IpvsConfig, Mode};
use longshore_dataplane::{Change, Config, Dataplane};
use std::net::SocketAddr;

const FAMILIES: [bool; 2] = [false, true];

fn config(lab: &Lab, ipvs: IpvsConfig) -> Config {
    Config { mode: Mode::Ipvs(ipvs), ..lab.config() }
}

fn start_with(config: Config, changes: impl IntoIterator<Item = Change>) -> Dataplane {
    let dataplane = Dataplane::start(config).unwrap();
    apply(&dataplane, changes.into_iter().chain([Change::Synced]));
    dataplane
}

fn start(lab: &Lab, changes: impl IntoIterator<Item = Change>) -> Dataplane {
    start_with(config(lab, IpvsConfig::default()), changes)
}

/// Applies, and waits until the kernel has it.
fn apply(dataplane: &Dataplane, changes: impl IntoIterator<Item = Change>) {
    let last = changes.into_iter().map(|change| dataplane.apply(change)).last().unwrap();
    programmed(dataplane, last);
}

fn web(extra: serde_json::Value, pods: &[usize]) -> Vec<Change> {
    let mut changes = vec![service("web", extra)];
    changes.extend(slices("web", pods));
    changes
}

fn cluster_ip(v6: bool) -> SocketAddr {
    SocketAddr::new(vip(v6), PORT)
}

fn node_address(v6: bool) -> SocketAddr {
    SocketAddr::new(if v6 { NODE_V6 } else { NODE_V4 }.parse().unwrap(), NODE_PORT)
}

/// The virtual servers, as `ipvsadm` saves them, sorted; `what` is a part of the lines that are wanted.
fn servers(lab: &Lab, what: &str) -> Vec<String> {
    let saved = lab.node.command("ipvsadm", &["-Sn"]);
    let mut lines: Vec<String> = saved.lines().filter(|line| line.contains(what)).map(|line| line.trim().to_string()).collect();
    lines.sort();
    lines
}

/// The entries of a set, sorted.
fn members(lab: &Lab, set: &str) -> Vec<String> {
    let listed = lab.node.command("ipset", &["list", set]);
    let mut lines: Vec<String> = listed.lines().skip_while(|line| *line != "Members:").skip(1).map(String::from).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}

/// The rules, without counters and comments.
fn rules(lab: &Lab, v6: bool) -> String {
    let saved = lab.node.command(if v6 { "ip6tables-legacy-save" } else { "iptables-legacy-save" }, &[]);
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| if line.starts_with(':') { line.split(" [").next().unwrap() } else { line });
    lines.map(|line| format!("{line}\n")).collect()
}

/// All that there is of services: servers, sets, rules, addresses.
fn everything(lab: &Lab) -> String {
    let mut text = servers(lab, "").join("\n");
    let sets = lab.node.command("ipset", &["save"]);
    // But for seeds of hashes.
    let mut sets: Vec<&str> = sets.lines().map(|line| line.split(" bucketsize").next().unwrap()).collect();
    sets.sort_unstable();
    text = format!("{text}\n{}", sets.join("\n"));
    let addresses = lab.node.command("ip", &["-o", "address", "show"]);
    let mut addresses: Vec<&str> =
        addresses.lines().filter(|line| line.contains("kube-ipvs0")).filter_map(|line| line.split_whitespace().nth(3)).collect();
    addresses.sort_unstable();
    text + "\n" + &addresses.join("\n") + "\n" + &rules(lab, false) + &rules(lab, true)
}
