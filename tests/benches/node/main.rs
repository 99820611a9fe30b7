//! What a node costs, measured on a real runtime beside the floor that bare CRI calls set in the same run.
//!
//! `make bench`, or `cargo bench -p longshore-tests --bench node`. The daemon measured is the one in
//! `LONGSHORE_BINARY` (a release build, if the figures are to mean anything). Figures are medians of
//! what was seen, budgets are those of the design; nothing here asserts, because machines are noisy.
//!
//! `LONGSHORE_BENCH_PODS` says how many pods. `LONGSHORE_BENCH_PART=cpu` measures only what their start costs in CPU, in as
//! many rounds as `LONGSHORE_BENCH_ROUNDS` says; `cluster` measures a member of a cluster.

use anyhow::{Context, Result, ensure};
use longshore_cri::client::{Client, Config};
use longshore_cri::container_config::{ContainerSpec, Image};
use longshore_cri::labels::PodIdentity;
use longshore_cri::sandbox_config::SandboxSpec;
use longshore_tests::lab::daemon::{Options, is_ready};
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, image, pods, usage};
use std::rc::Rc;
use std::time::{Duration, Instant};

use journal::Journal;

mod cluster;
mod cpu;
mod endpoints;
mod journal;
mod own;
mod rules;

/// Pods dropped at once.
const PODS: usize = 100;
/// How often, beside as many runs of the floor.
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(240);

fn main() -> Result<()> {
    let count = number("LONGSHORE_BENCH_PODS").unwrap_or(PODS);
    if std::env::var("LONGSHORE_BENCH_PART").is_ok_and(|part| part == "cluster") {
        return cluster::measure(count);
    }
    let lab = Lab::up()?;
    if std::env::var("LONGSHORE_BENCH_PART").is_ok_and(|part| part == "cpu") {
        return cpu::measure(&lab, count);
    }
    own::measure()?;
    println!("{count} one-container pods on containerd {:?}\n", lab.containerd.binary().version());
    let floor = floor(&lab, count)?;
    let mut daemon = lab.daemon(Options::default())?;
    let outcome = measure(&lab, &mut daemon, count, floor);
    if outcome.is_err() {
        eprintln!("the daemon logged:\n{}", daemon.log());
    }
    outcome
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

fn line(what: &str, ours: String, budget: &str) {
    println!("  {what:<44} {ours:>14}   budget {budget}");
}

fn measure(lab: &Lab, daemon: &mut Daemon, count: usize, floor: Floor) -> Result<()> {
    println!("the daemon:");
    std::thread::sleep(Duration::from_secs(3));
    let pid = daemon.pid().context("the daemon runs")?;
    let idle = usage::of(pid)?;
    line("resident, idle", mib(idle.resident), "15 MiB");
    let singles = singles(daemon, 10)?;
    line("single pod start, median of 10", ms(median(&singles)), "");
    line("  over the bare calls one at a time", ms(median(&singles).saturating_sub(floor.one)), "20 ms p99");
    endpoints::measure(lab, daemon)?;
    many(lab, daemon, count, floor.lanes)?;
    let pid = daemon.pid().context("the daemon runs")?;
    std::thread::sleep(Duration::from_secs(5));
    let start = usage::of(pid)?;
    line("resident, with the pods", mib(start.resident), "25 MiB");
    line("  of it anonymous", mib(start.anonymous), "");
    let window = Duration::from_secs(30);
    std::thread::sleep(window);
    let spent = usage::of(pid)?.cpu - start.cpu;
    line("CPU with the pods idle", format!("{:.1} m", 1000.0 * spent.as_secs_f64() / window.as_secs_f64()), "3 millicores");
    restart(lab, daemon, count)
}

/// Ends the pods of the round before.
fn none_left(lab: &Lab, daemon: &Daemon) -> Result<()> {
    daemon.remove("many.yaml")?;
    wait_for("the pods are gone", PATIENCE, || -> Result<_> { Ok(pods::observe(&lab.containerd.socket())?.is_empty().then_some(())) })
}

/// All pods at once, by the daemon and by bare calls in turn: the machine is never the one it was a minute ago. File
/// systems remember what was deleted, neighbours come and go. Leaves the daemon's last pods running.
fn many(lab: &Lab, daemon: &mut Daemon, count: usize, lanes: usize) -> Result<()> {
    let (mut ours, mut floors, mut middles, mut cpu) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, Vec::new());
    for round in 0..ROUNDS {
        if round > 0 {
            none_left(lab, daemon)?;
        }
        // It would take these pods for what an earlier life of its own left, and end them.
        daemon.stop()?;
        let bare = bare(lab, &format!("beside-{round}"), count, lanes)?;
        daemon.launch()?;
        let pid = daemon.pid().context("the daemon runs")?;
        let before = usage::of(pid)?;
        let ready = all_at_once(daemon, count)?;
        cpu.push(usage::of(pid)?.cpu - before.cpu);
        let last = *ready.last().context("some")?;
        println!("  {count} pods: {} beside {} by bare calls", ms(last), ms(bare));
        (ours, floors, middles) = (ours + last, floors + bare, middles + median(&ready));
    }
    cpu.sort();
    line("all Ready over the floor beside it", format!("{:.2} x", ours.as_secs_f64() / floors.as_secs_f64()), "1.15 x");
    line("  median pod over last pod", format!("{:.0} %", 100.0 * middles.as_secs_f64() / ours.as_secs_f64()), "60 %");
    line("  our CPU, median", ms(median(&cpu)), "500 ms");
    Ok(())
}

/// In control again: it answers with every pod Ready, the runtime holds what it held, the kernel heard nothing, and
/// no pod was told to be anything but Ready.
fn restart(lab: &Lab, daemon: &mut Daemon, count: usize) -> Result<()> {
    let before = runs(lab)?;
    let rules = rules::Watch::begin(lab)?;
    let mut journal = Journal::tail(daemon)?;
    daemon.kill_nine();
    let began = Instant::now();
    daemon.spawn()?;
    let mut took = None;
    while began.elapsed() < PATIENCE && took.is_none() {
        let list = daemon.get("pods").unwrap_or_default();
        let ready = list["items"].as_array().map_or(0, |items| items.iter().filter(|p| is_ready(p)).count());
        if ready >= count {
            took = Some(began.elapsed());
        }
    }
    line("in control again after kill -9", took.map_or("never".into(), ms), "1 s");
    std::thread::sleep(Duration::from_secs(12));
    ensure!(before == runs(lab)?, "containers were restarted");
    line("  containers restarted", "0".into(), "0");
    let flips = journal.news()?.iter().filter(|r| r["status"].is_object() && !is_ready(r)).count();
    line("  statuses written that were not Ready", flips.to_string(), "0");
    line("  changes to the kernel's rules", rules.changes()?.to_string(), "0");
    Ok(())
}

fn runs(lab: &Lab) -> Result<Vec<(String, Option<i32>)>> {
    let mut out = Vec::new();
    for pod in pods::observe(&lab.containerd.socket())? {
        out.extend(pod.running().map(|c| (c.id.to_string(), c.pid)));
    }
    out.sort();
    Ok(out)
}

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{ name: main, image: {}, imagePullPolicy: IfNotPresent, command: [sleep, '100000'] }}\n",
        image::BUSYBOX
    )
}

/// Times from the manifest to Ready, pods one after the other.
fn singles(daemon: &Daemon, n: usize) -> Result<Vec<Duration>> {
    let mut out = Vec::new();
    for i in 0..n {
        let name = format!("single-{i}");
        let mut journal = Journal::tail(daemon)?;
        let began = Instant::now();
        daemon.apply(&format!("{name}.yaml"), &manifest(&name))?;
        out.push(*journal.wait_ready(began, 1)?.first().context("one")?);
        daemon.remove(&format!("{name}.yaml"))?;
        std::thread::sleep(Duration::from_millis(2500));
    }
    Ok(out)
}

/// Times from one drop of all manifests to each pod's Ready.
fn all_at_once(daemon: &Daemon, count: usize) -> Result<Vec<Duration>> {
    let list: String = (0..count).map(|i| format!("---\n{}", manifest(&format!("many-{i:03}")))).collect();
    let mut journal = Journal::tail(daemon)?;
    let began = Instant::now();
    daemon.apply("many.yaml", &list)?;
    journal.wait_ready(began, count)
}

#[derive(Clone, Copy)]
struct Floor {
    /// How many at a time is best.
    lanes: usize,
    /// One pod alone.
    one: Duration,
}

/// The same pods by bare calls: what no daemon can beat.
fn floor(lab: &Lab, count: usize) -> Result<Floor> {
    println!("bare CRI calls:");
    let mut one = Vec::new();
    for i in 0..5 {
        one.push(bare(lab, &format!("one-{i}"), 1, 1)?);
    }
    println!("  one pod alone, median of 5: {}", ms(median(&one)));
    let mut best = (PATIENCE, 1);
    for lanes in [4, 8, 16] {
        let took = bare(lab, &format!("lanes-{lanes}"), count, lanes)?;
        println!("  {count} pods, {lanes} at a time: {}", ms(took));
        best = best.min((took, lanes));
    }
    println!();
    Ok(Floor { lanes: best.1, one: median(&one) })
}

fn bare(lab: &Lab, prefix: &str, count: usize, lanes: usize) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let parent = format!("{}/kubepods/besteffort", lab.home.cgroup());
    let took = local.block_on(&runtime, async {
        let client = Client::new(&Config::new(&lab.containerd.endpoint()))?;
        let permits = Rc::new(tokio::sync::Semaphore::new(lanes));
        let began = Instant::now();
        let mut tasks = Vec::new();
        for i in 0..count {
            let (client, permits, name, parent) = (client.clone(), permits.clone(), format!("{prefix}-{i}"), parent.clone());
            tasks.push(tokio::task::spawn_local(async move {
                let _permit = permits.acquire().await;
                start(&client, &name, &parent).await
            }));
        }
        for t in tasks {
            t.await??;
        }
        Ok::<_, anyhow::Error>(began.elapsed())
    })?;
    pods::remove_all(&lab.containerd.socket())?;
    Ok(took)
}

async fn start(client: &Client, name: &str, parent: &str) -> Result<()> {
    let identity = PodIdentity::new(&format!("uid-{name}"), "default", name);
    let mut sandbox = SandboxSpec::new(identity.clone());
    sandbox.cgroup_parent = format!("{parent}/pod{name}");
    let mut spec = ContainerSpec::new(identity, "main", Image::named(image::BUSYBOX));
    spec.command = vec!["sleep".into(), "100000".into()];
    let id = client.run_sandbox(&sandbox).await?;
    let container = client.create(&id, &spec, &sandbox).await?;
    client.start(&container).await?;
    Ok(())
}

fn median(list: &[Duration]) -> Duration {
    let mut sorted = list.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn ms(d: Duration) -> String {
    format!("{:.0} ms", d.as_secs_f64() * 1000.0)
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
