//! One long download through a service outlives whatever becomes of the proxy, and no byte of it is lost.

mod proxy;

use anyhow::{Context as _, Result, ensure};
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Namespace, Running};
use proxy::{CLUSTER_IP, NODE_PORT, Node, SOON, answers, cluster_ip, pod_ip, service, slice, without_loss};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const DOWNLOAD_IP: &str = "10.96.0.60";
const DOWNLOAD_PORT: u16 = 9;
/// Services that change all the time, each with so many endpoints: transactions are long and many.
const CHURNED: usize = 40;
const KILLS: usize = 12;

/// Bytes sent or received, and what they were.
struct Sum {
    bytes: u64,
    digest: Sha256,
}

impl Sum {
    fn new() -> Sum {
        Sum { bytes: 0, digest: Sha256::default() }
    }

    fn add(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.digest.update(chunk);
    }

    fn end(self) -> (u64, Vec<u8>) {
        (self.bytes, self.digest.finalize().to_vec())
    }
}

/// A connection on which data moves until it is stopped.
struct Download {
    server: JoinHandle<Result<(u64, Vec<u8>)>>,
    client: JoinHandle<Result<(u64, Vec<u8>)>>,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Download {
    /// From a pod that serves one client to a client at this address.
    fn begin(pod: &Namespace, client: &Namespace, port: u16) -> Result<Download> {
        let listener = pod.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))??;
        let to = SocketAddr::new(DOWNLOAD_IP.parse()?, port);
        let stream = wait_for("the download is accepted", SOON, || -> Result<_> {
            Ok(Some(client.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)))??))
        })?;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), received.clone());
        let server = std::thread::spawn(move || send(listener.accept()?.0, &stopped));
        let client = std::thread::spawn(move || receive(stream, &counter));
        Ok(Download { server, client, received, stop })
    }

    /// Waits until a megabyte more has come.
    fn goes_on(&self) -> Result<()> {
        let before = self.received.load(Ordering::Relaxed);
        wait_for("the download goes on", SOON, || -> Result<_> {
            ensure!(!self.client.is_finished() && !self.server.is_finished(), "it broke off");
            Ok((self.received.load(Ordering::Relaxed) > before + (1 << 20)).then_some(()))
        })
    }

    /// Ends it: what was sent must be what came.
    fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let join = |thread: JoinHandle<_>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (sent, came) = (join(self.server).context("the server")?, join(self.client).context("the client")?);
        ensure!(sent == came, "{} bytes were sent, and {} came, or others", sent.0, came.0);
        Ok(sent.0)
    }
}

/// Sends numbers, eight bytes each, some megabytes a second.
fn send(mut stream: TcpStream, stop: &AtomicBool) -> Result<(u64, Vec<u8>)> {
    stream.set_write_timeout(Some(SOON))?;
    let (mut sum, mut number) = (Sum::new(), 0u64);
    while !stop.load(Ordering::Relaxed) {
        let chunk: Vec<u8> = (number..number + 1024).flat_map(u64::to_le_bytes).collect();
        number += 1024;
        stream.write_all(&chunk)?;
        sum.add(&chunk);
        // Leaves the machine to what is under test.
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(sum.end())
}

fn receive(mut stream: TcpStream, counter: &AtomicU64) -> Result<(u64, Vec<u8>)> {
    stream.set_read_timeout(Some(SOON))?;
    let (mut sum, mut buffer) = (Sum::new(), vec![0; 64 << 10]);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(sum.end());
        }
        sum.add(&buffer[..length]);
        counter.store(sum.bytes, Ordering::Relaxed);
    }
}

/// Rewrites the endpoints of many services, over and over, while `act` runs.
fn under_churn<T>(node: &Node, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churning = scope.spawn(|| -> Result<u64> {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let endpoints = |service: u64| -> Vec<String> {
                    (0..5).map(|n| format!("10.244.{}.{}", 1 + service % 200, 1 + (round + n) % 200)).collect()
                };
                let text: String = (0..CHURNED as u64).map(|n| slice(&format!("churned-{n}"), &endpoints(n), 8080)).collect();
                node.write(node.services()?.join("churned-slices.yaml"), &text)?;
                round += 1;
            }
            Ok(round)
        });
        let outcome = act();
        stop.store(true, Ordering::Relaxed);
        let rounds = churning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        println!("  {rounds} rounds of {CHURNED} changes");
        outcome
    })
}

fn started(node: &Node, mode: &str) -> Result<Running> {
    node.proxy(&["--mode", mode, "--cluster-cidr", "10.244.0.0/16"])
}

/// Waits until a proxy has taken on a change made now, whichever pod served before.
fn follows(node: &Node, pod: usize) -> Result<()> {
    node.endpoints(&[pod])?;
    answers(node.outside(), cluster_ip(), &format!("pod{pod} "))
}

/// Restarts the proxy, kills it while it writes, and changes the mode and back; each time connections must be answered
/// and the download goes on.
fn through_it_all(node: &Node, mode: &str, other: &str, download: &Download) -> Result<()> {
    let mut running = started(node, mode)?;
    follows(node, 1)?;
    running.stop(SOON)?;
    download.goes_on()?;
    under_churn(node, || {
        for kill in 0..KILLS {
            let mut running = started(node, mode)?;
            // At different moments of its life: in its first program, or in some change.
            for pod in 0..kill % 4 {
                follows(node, pod % 2)?;
            }
            running.kill_nine();
            download.goes_on()?;
        }
        Ok(())
    })?;
    for mode in [mode, other, mode] {
        let mut running = started(node, mode)?;
        follows(node, 0)?;
        follows(node, 1)?;
        download.goes_on()?;
        running.stop(SOON)?;
    }
    download.goes_on()
}

fn survives(mode: &str, other: &str) -> Result<()> {
    let node = Node::new()?;
    node.serve()?;
    let mut text = service("web", CLUSTER_IP, 80, Some(NODE_PORT)) + &service("download", DOWNLOAD_IP, DOWNLOAD_PORT, None);
    text += &slice("download", &[pod_ip(1)], DOWNLOAD_PORT);
    (0..CHURNED).for_each(|n| text += &service(&format!("churned-{n}"), &format!("10.96.1.{}", n + 1), 80, None));
    node.write(node.services()?.join("services.yaml"), &text)?;
    node.endpoints(&[0])?;
    let mut first = started(&node, mode)?;
    answers(node.outside(), cluster_ip(), "pod0 ")?;
    let download = Download::begin(&node.pods[1], node.outside(), DOWNLOAD_PORT)?;
    download.goes_on()?;
    first.kill_nine();
    without_loss(node.outside(), cluster_ip(), || through_it_all(&node, mode, other, &download))?;
    println!("  {mode}: {} bytes, none lost", download.end()?);
    // What the last one left is whole: the next has nothing to mend, and a cleanup leaves nothing.
    fs::remove_file(node.services()?.join("churned-slices.yaml"))?;
    let mut last = started(&node, mode)?;
    follows(&node, 0)?;
    last.stop(SOON)?;
    let (content, said) = node.run(&["--cleanup"])?;
    ensure!(content && node.rules()?.is_empty(), "{said}");
    Ok(())
}

#[test]
fn a_download_through_nftables_survives_restarts_kills_amid_transactions_and_another_mode() -> Result<()> {
    survives("nftables", "iptables")
}

#[test]
fn a_download_through_iptables_survives_restarts_kills_amid_transactions_and_another_mode() -> Result<()> {
    survives("iptables", "nftables")
}
