//! The pure path of one endpoint change: resolve, compile, take into the table, diff. Its cost must not depend on the
//! number of services.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be taken ends")]

use divan::{Bencher, black_box};
use longshore_dataplane::backend::nft::compile::compile;
use longshore_dataplane::backend::nft::diff::create;
use longshore_dataplane::backend::nft::render::{Carried, Target, render};
use longshore_dataplane::backend::nft::schema::{Options, structure};
use longshore_dataplane::backend::nft::table::{Loaded, Table};
use longshore_dataplane::model::ObjectName;
use longshore_dataplane::store::ServiceStore;
use longshore_dataplane::{DetectLocal, Family, wire};
use serde_json::json;

const SIZES: [usize; 3] = [100, 10_000, 30_000];

fn main() {
    divan::main();
}

fn options() -> Options {
    Options {
        family: Family::V4,
        detect_local: DetectLocal::None,
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        node_ports_everywhere: true,
        endpoint_counters: false,
        liberal: false,
    }
}

fn service(index: usize) -> wire::Service {
    serde_json::from_value(json!({"metadata": {"name": format!("service-{index}"), "namespace": "ns"}, "spec": {
        "clusterIP": format!("10.{}.{}.{}", 96 + (index >> 16), index >> 8 & 255, index & 255),
        "ports": [{"name": "http", "port": 80}]}}))
    .unwrap()
}

fn slice(index: usize, lasts: [u8; 2]) -> wire::EndpointSlice {
    let address = |last: u8| json!({"addresses": [format!("10.{}.{}.{last}", 128 + (index >> 8), index & 255)]});
    serde_json::from_value(json!({"addressType": "IPv4", "endpoints": lasts.map(address),
        "metadata": {"name": format!("service-{index}-abcde"), "namespace": "ns",
            "labels": {"kubernetes.io/service-name": format!("service-{index}")}},
        "ports": [{"name": "http", "port": 8080}]}))
    .unwrap()
}

/// A store and a table that are in sync.
fn synced(services: usize) -> (ServiceStore, Table) {
    let mut store = ServiceStore::new("node", None, &[]);
    for index in 0..services {
        store.set_service(&service(index));
        store.set_slice(&slice(index, [1, 2]));
    }
    let mut table = Table::new(options());
    table.created(&Loaded::Nothing);
    settle(&mut store, &mut table);
    (store, table)
}

fn settle(store: &mut ServiceStore, table: &mut Table) -> usize {
    for name in store.take_dirty() {
        let resolved = store.resolve(&name, Family::V4);
        let fragment = compile(&name, resolved, table);
        table.set(&name, fragment);
    }
    let operations = table.plan().iter().map(Vec::len).sum();
    table.committed();
    operations
}

/// From the object to the transaction, which holds two operations.
#[divan::bench(args = SIZES)]
fn one_endpoint_replaced(bencher: Bencher, services: usize) {
    let (mut store, mut table) = synced(services);
    let changes = [slice(services / 2, [1, 3]), slice(services / 2, [1, 2])];
    let mut round = 0;
    bencher.bench_local(|| {
        round += 1;
        store.set_slice(&changes[(round + 1) % 2]);
        assert_eq!(settle(&mut store, &mut table), 2);
    });
}

#[divan::bench(args = SIZES)]
fn resolve_one(bencher: Bencher, services: usize) {
    let (store, _) = synced(services);
    let name = ObjectName::new("ns", &format!("service-{}", services / 2));
    bencher.bench_local(|| black_box(store.resolve(&name, Family::V4)));
}

#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn first_program(bencher: Bencher, services: usize) {
    bencher.bench_local(|| black_box(synced(services)));
}

#[divan::bench]
fn render_the_empty_table(bencher: Bencher) {
    let ops = create(false, &structure(&options()));
    let carried = Carried::new();
    let target = Target { family: Family::V4, table: "kube-proxy", carried: &carried };
    bencher.bench_local(|| black_box(render(&ops, target, 1)));
}
