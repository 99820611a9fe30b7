//! A proxy that is started to be killed.

use super::super::lab::objects::slices_on;
use super::apply;
use super::life::cluster;
use longshore_dataplane::config::{IpvsConfig, Mode};
use longshore_dataplane::{Change, Cidr, Config, Dataplane, DetectLocal};

#[test]
#[ignore = "is killed by a_proxy_that_is_killed_at_any_moment_leaves_what_another_repairs"]
fn a_proxy_that_never_rests() {
    let netns = std::env::var_os("LONGSHORE_NETNS").expect("started by another test").into();
    let node_ips = ["192.0.2.1", "fd00:2::1"].map(|ip| ip.parse().unwrap()).into();
    let detect_local = DetectLocal::ClusterCidr(["10.1.0.0/16", "fd00:1::/64"].map(|cidr| Cidr::parse(cidr).unwrap()).into());
    let mode = Mode::Ipvs(IpvsConfig::default());
    let config = Config { mode, netns: Some(netns), node_name: "node".into(), node_ips, detect_local, ..Config::default() };
    let dataplane = Dataplane::start(config).unwrap();
    for change in cluster() {
        dataplane.apply(change);
    }
    println!("begins");
    apply(&dataplane, [Change::Synced]);
    loop {
        for pods in [&[(0, "node")][..], &[], &[(1, "elsewhere"), (2, "node")], &[(0, "node"), (1, "elsewhere")]] {
            let names = ["plain", "sticky", "ports", "local", "guarded"];
            apply(&dataplane, names.iter().flat_map(|name| slices_on(name, pods)).collect::<Vec<_>>());
        }
        apply(&dataplane, [Change::DeleteService { namespace: "ns1".into(), name: "guarded".into() }]);
        apply(&dataplane, cluster());
    }
}
