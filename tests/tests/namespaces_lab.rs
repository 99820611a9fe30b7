//! The lab's network: hosts reach each other, and nothing else.

use anyhow::Result;
use longshore_tests::lab::{Home, Network};

#[test]
fn outside_hosts_reach_the_node_and_nobody_else() -> Result<()> {
    let home = Home::new()?;
    let network = Network::new(&home, 2)?;
    for outside in &network.outside {
        for node in ["192.0.2.10", "2001:db8::10"] {
            outside.namespace.run(&["busybox", "ping", "-c", "1", "-W", "5", node])?;
        }
        let routes = outside.namespace.run(&["ip", "route", "show", "default"])?;
        assert_eq!(routes, "", "an outside host has a way out");
    }
    let links = network.node.run(&["ip", "-brief", "link", "show", "up"])?;
    let links: Vec<&str> = links.lines().filter_map(|line| line.split(['@', ' ']).next()).collect();
    assert_eq!(links, ["lo", "eth0"], "the node's network is the lab's alone");
    Ok(())
}
