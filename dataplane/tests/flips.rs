//! A service whose only endpoint becomes ready and unready over and over. Once the kernel is said to hold it, the
//! first connection is answered; once it is said to be without, refused. Nothing comes late and nothing too early.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use lab::objects::{PORT, TARGET_PORT, pod_ip, service, vip};
use lab::traffic::{Answer, is_refused, serve, tcp_here};
use lab::{Lab, Namespace, eventually, programmed};
use longshore_dataplane::{Change, Dataplane, wire};
use serde_json::json;

const RUN: Duration = Duration::from_secs(8);
/// Between two looks or attempts of a client.
const PACE: Duration = Duration::from_micros(200);

/// The web service's endpoint, ready or not, in both families.
fn endpoint(ready: bool) -> [Change; 2] {
    [false, true].map(|v6| {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let object: wire::EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": format!("web-{family}"), "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": family,
            "endpoints": [{"addresses": [pod_ip(1, v6)], "conditions": {"ready": ready}, "nodeName": "node"}],
            "ports": [{"name": "t", "port": TARGET_PORT, "protocol": "TCP"}]}))
        .unwrap();
        Change::SetSlice(Arc::new(object))
    })
}

/// What the kernel is said to hold. Each number is one such time: 1, 5, 9 … with the endpoint, 3, 7, 11 … without, and
/// even ones between them, when either may be so.
#[derive(Default)]
struct Times {
    now: AtomicU64,
    over: AtomicBool,
}

impl Times {
    fn is_ready(time: u64) -> Option<bool> {
        [None, Some(true), None, Some(false)][(time % 4) as usize]
    }
}

/// One client, which connects all the time.
struct Client<'a> {
    name: &'a str,
    from: &'a Namespace,
    to: SocketAddr,
    /// The last time in which a whole connection of its lay.
    seen: AtomicU64,
    connections: AtomicU64,
}

impl Client<'_> {
    /// Until it is over, or something else comes than what the time promises.
    fn connect(&self, times: &Times) {
        while !times.over.load(SeqCst) {
            let before = times.now.load(SeqCst);
            if self.seen.load(SeqCst) == before {
                // The kernel cannot commit while clients take all of the processor.
                std::thread::sleep(PACE);
                continue;
            }
            let outcome = tcp_here(self.to);
            let ready = Times::is_ready(before).filter(|_| times.now.load(SeqCst) == before);
            let Some(ready) = ready else {
                std::thread::sleep(PACE);
                continue;
            };
            if !as_promised(ready, &outcome) {
                times.over.store(true, SeqCst);
                panic!("{} to {} in time {before}, endpoint ready: {ready}: {outcome:?}", self.name, self.to);
            }
            self.connections.fetch_add(1, SeqCst);
            self.seen.store(before, SeqCst);
        }
    }
}

fn as_promised(ready: bool, outcome: &io::Result<Answer>) -> bool {
    if ready { outcome.as_ref().is_ok_and(|answer| answer.server == "p1") } else { is_refused(outcome) }
}

/// Makes the endpoint ready and unready until the end, or until a client complains; how often.
fn flip(dataplane: &Dataplane, times: &Times, clients: &[Client], run: Duration) -> u64 {
    let end = Instant::now() + run;
    let mut flips = 0;
    while Instant::now() < end && !times.over.load(SeqCst) {
        for ready in [true, false] {
            let last = endpoint(ready).map(|change| dataplane.apply(change))[1];
            programmed(dataplane, last);
            let time = times.now.fetch_add(1, SeqCst) + 1;
            assert_eq!(Times::is_ready(time), Some(ready));
            let all = || clients.iter().all(|client| client.seen.load(SeqCst) == time);
            eventually("every client has connected", || all() || times.over.load(SeqCst));
            times.now.fetch_add(1, SeqCst);
        }
        flips += 1;
    }
    times.over.store(true, SeqCst);
    flips
}

#[test]
fn what_is_said_to_be_programmed_holds_for_the_next_connection() {
    let lab = Lab::new();
    serve(&lab.pods[1], "p1", TARGET_PORT);
    let mut config = lab.config();
    config.coalesce = Duration::ZERO;
    let dataplane = Dataplane::start(config).unwrap();
    dataplane.apply(service("web", json!({})));
    let _ = endpoint(false).map(|change| dataplane.apply(change));
    programmed(&dataplane, dataplane.apply(Change::Synced));

    let client = |name, from| Client {
        name,
        from,
        // A refused TCP connection over IPv6 learns of it from its second packet, a second later: the kernel's doing.
        to: SocketAddr::new(vip(false), PORT),
        seen: AtomicU64::default(),
        connections: AtomicU64::default(),
    };
    let clients = [client("a pod", &lab.pods[0]), client("the node", &lab.node), client("the outside", &lab.outside)];
    let times = Times::default();
    let run = std::env::var("LONGSHORE_CHURN_SECONDS").map_or(RUN, |s| Duration::from_secs(s.parse().unwrap()));
    let flips = std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| client.from.run(|| client.connect(&times)));
        }
        flip(&dataplane, &times, &clients, run)
    });
    let connections: u64 = clients.iter().map(|client| client.connections.load(SeqCst)).sum();
    println!("{flips} times ready and unready, {connections} connections");
    assert!(flips >= 50, "too little to tell: {flips}");
}
