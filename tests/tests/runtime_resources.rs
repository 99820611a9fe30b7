//! What pods may use, as the kernel has it: the files of their groups, and what that does to them.

use anyhow::{Context, Result, ensure};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::wait::{wait_for, wait_until};
use longshore_tests::lab::{Daemon, Lab, image, pods};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(40);
/// How long processor time is measured.
const SPAN: Duration = Duration::from_secs(5);

struct Bench {
    /// Dropped first.
    daemon: Daemon,
    lab: Lab,
}

impl Bench {
    fn up() -> Result<Bench> {
        let lab = Lab::up()?;
        let endpoint = lab.containerd.endpoint();
        let mut daemon = Daemon::prepare(&lab.home, Some(&lab.network.node), &endpoint, Options::default())?;
        daemon.spawn()?;
        Ok(Bench { daemon, lab })
    }

    fn apply(&self, name: &str, containers: &str) -> Result<()> {
        let head =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n");
        let text = head + &containers.replace("WORKLOAD", image::WORKLOAD).replace("BUSYBOX", image::BUSYBOX);
        self.daemon.apply(&format!("{name}.yaml"), &text)
    }

    fn ready(&self, pod: &str) -> Result<String> {
        let seen =
            self.daemon.wait_until_ready(("default", pod), SOON).with_context(|| format!("the daemon logged:\n{}", self.daemon.log()))?;
        Ok(seen["metadata"]["uid"].as_str().context("no uid")?.to_owned())
    }

    /// A group below the lab's in one hierarchy of v1.
    fn group(&self, controller: &str, path: &str) -> PathBuf {
        PathBuf::from(format!("/sys/fs/cgroup/{controller}{}/kubepods{path}", self.lab.home.cgroup()))
    }

    /// First process of a container, and its path in a hierarchy.
    fn process(&self, pod: &str, container: &str) -> Result<i32> {
        let pods = pods::observe(&self.lab.containerd.socket())?;
        let found = pods.iter().filter(|p| &*p.name == pod).flat_map(|p| &p.containers).find(|c| &*c.name == container && c.pid.is_some());
        found.and_then(|c| c.pid).with_context(|| format!("{pod}/{container} has no process"))
    }

    /// Where in a hierarchy a container is.
    fn container(&self, pod: &str, container: &str, controller: &str) -> Result<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.process(pod, container)?))?;
        let line = text.lines().find_map(|l| l.split_once(&format!(":{controller}:"))).with_context(|| text.clone())?;
        Ok(PathBuf::from(format!("/sys/fs/cgroup/{controller}{}", line.1)))
    }

    /// Processor time that a container takes in a span, in thousandths of one processor.
    fn taken(&self, pod: &str, containers: &[&str]) -> Result<Vec<u64>> {
        let files = containers.iter().map(|c| Ok(self.container(pod, c, "cpuacct")?.join("cpuacct.usage"))).collect::<Result<Vec<_>>>()?;
        let read = || files.iter().map(|f| Ok(text(f)?.parse()?)).collect::<Result<Vec<u64>>>();
        let (began, before) = (Instant::now(), read()?);
        // A share of time can only be measured over time.
        std::thread::sleep(SPAN);
        let (spent, after) = (began.elapsed(), read()?);
        let nanoseconds = u64::try_from(spent.as_nanos())?;
        Ok(before.iter().zip(&after).map(|(b, a)| (a - b) * 1000 / nanoseconds).collect())
    }
}

fn text(file: &Path) -> Result<String> {
    Ok(fs::read_to_string(file).with_context(|| file.display().to_string())?.trim().to_owned())
}

/// All directories below a directory whose name has a part in it.
fn named(dir: &Path, part: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if entry.file_name().to_string_lossy().contains(part) {
                out.push(entry.path());
            }
            out.extend(named(&entry.path(), part));
        }
    }
    out
}

const BOUNDED: &str = "  - { name: one, image: WORKLOAD, args: [sleep], resources: { requests: { cpu: 100m, memory: 16Mi }, limits: { cpu: 200m, memory: 32Mi } } }
  - { name: two, image: WORKLOAD, args: [sleep], resources: { requests: { cpu: 50m, memory: 16Mi }, limits: { cpu: 300m, memory: 32Mi } } }
";

#[test]
fn limits_are_in_the_groups_of_pods_and_containers_and_go_with_them() -> Result<()> {
    let mut bench = Bench::up()?;
    bench.apply("bounded", BOUNDED)?;
    bench.apply("loose", "  - { name: main, image: WORKLOAD, args: [sleep] }\n")?;
    let (bounded, loose) = (bench.ready("bounded")?, bench.ready("loose")?);
    let pod = format!("/burstable/pod{bounded}");
    for (controller, path, file, want) in [
        ("cpu", pod.as_str(), "cpu.shares", "153"),
        ("cpu", &pod, "cpu.cfs_quota_us", "50000"),
        ("cpu", &pod, "cpu.cfs_period_us", "100000"),
        ("memory", &pod, "memory.limit_in_bytes", "67108864"),
        ("cpu", &format!("/besteffort/pod{loose}"), "cpu.shares", "2"),
        ("cpu", &format!("/besteffort/pod{loose}"), "cpu.cfs_quota_us", "-1"),
        ("cpu", "/besteffort", "cpu.shares", "2"),
        ("cpu", "/burstable", "cpu.shares", "153"),
    ] {
        assert_eq!(text(&bench.group(controller, path).join(file))?, want, "{path}/{file}");
    }
    let cores = std::thread::available_parallelism()?.get() * 1024;
    assert_eq!(text(&bench.group("cpu", "").join("cpu.shares"))?, cores.to_string());
    let container = |file: &str, controller: &str| text(&bench.container("bounded", "one", controller)?.join(file));
    assert_eq!(container("cpu.shares", "cpu")?, "102");
    assert_eq!(container("cpu.cfs_quota_us", "cpu")?, "20000");
    assert_eq!(container("memory.limit_in_bytes", "memory")?, "33554432");
    assert!(bench.container("bounded", "one", "memory")?.starts_with(bench.group("memory", &pod)));
    let score = |pod: &str, name: &str| -> Result<i32> {
        Ok(text(&PathBuf::from(format!("/proc/{}/oom_score_adj", bench.process(pod, name)?)))?.parse()?)
    };
    // 1000 less its part of the machine's memory, in thousandths.
    assert!((990..=999).contains(&score("bounded", "one")?), "{}", score("bounded", "one")?);
    assert_eq!(score("loose", "main")?, 1000);
    // A daemon that starts again finds all as it should be.
    let stamp = |file: &str| -> Result<_> { Ok(fs::metadata(bench.group("cpu", &pod).join(file))?.modified()?) };
    let before = stamp("cpu.shares")?;
    bench.daemon.kill_nine();
    bench.daemon.launch()?;
    bench.ready("bounded")?;
    assert_eq!(fs::metadata(bench.group("cpu", &pod).join("cpu.shares"))?.modified()?, before);
    bench.daemon.remove("bounded.yaml")?;
    wait_until("no group of the pod is left in any hierarchy", SOON, || named(Path::new("/sys/fs/cgroup"), &bounded).is_empty())
        .with_context(|| format!("{:?}; the daemon logged:\n{}", named(Path::new("/sys/fs/cgroup"), &bounded), bench.daemon.log()))?;
    wait_until("the class weighs what is left in it", SOON, || {
        text(&bench.group("cpu", "/burstable").join("cpu.shares")).is_ok_and(|t| t == "2")
    })
}

#[test]
fn a_fifth_of_a_processor_is_a_fifth() -> Result<()> {
    let bench = Bench::up()?;
    bench.apply("fifth", "  - { name: main, image: WORKLOAD, args: [spin], resources: { limits: { cpu: 200m, memory: 32Mi } } }\n")?;
    bench.ready("fifth")?;
    // Neighbours on a busy machine can keep it from its fifth; nothing gives it more.
    wait_for("it has its fifth", SOON, || -> Result<_> {
        let taken = bench.taken("fifth", &["main"])?[0];
        assert!(taken <= 230, "{taken} thousandths");
        ensure!(taken >= 170, "{taken} thousandths");
        Ok(Some(()))
    })
}

#[test]
fn processors_are_shared_as_requested() -> Result<()> {
    let bench = Bench::up()?;
    // Both on one processor, so that they have something to share.
    let spin = |name: &str, cpu: &str| {
        format!(
            "  - {{ name: {name}, image: BUSYBOX, command: [taskset, '1', sh, -c, 'while :; do :; done'], resources: {{ requests: {{ cpu: {cpu} }} }} }}\n"
        )
    };
    bench.apply("shares", &(spin("two", "200m") + &spin("five", "500m")))?;
    bench.ready("shares")?;
    let taken = bench.taken("shares", &["two", "five"])?;
    let ratio = taken[1] as f64 / taken[0] as f64;
    assert!((2.2..=2.8).contains(&ratio), "{taken:?} thousandths, {ratio:.2} times");
    Ok(())
}

#[test]
fn a_container_beyond_its_memory_is_killed_and_the_status_says_so() -> Result<()> {
    let bench = Bench::up()?;
    // Several: containerd loses its own notice of a kill now and then, when the container's group is gone before it is read.
    for name in ["hungry-1", "hungry-2", "hungry-3", "hungry-4", "hungry-5"] {
        bench.apply(name, "  - { name: main, image: WORKLOAD, args: [eat-memory, '64'], resources: { limits: { memory: 16Mi } } }\n")?;
    }
    let killed = |pod: &serde_json::Value| {
        let container = &pod["status"]["containerStatuses"][0];
        [&container["state"]["terminated"], &container["lastState"]["terminated"]]
            .iter()
            .any(|t| t["reason"] == "OOMKilled" && t["exitCode"] == 137)
    };
    wait_for("one is killed for its memory", SOON, || -> Result<_> {
        let list: serde_json::Value = serde_json::from_str(&bench.daemon.cli(&["get", "pods", "-o", "json"])?)?;
        Ok(list["items"].as_array().into_iter().flatten().any(killed).then_some(()))
    })?;
    wait_for("it is told", SOON, || -> Result<_> {
        let list = bench.daemon.cli(&["get", "pods", "-A"])?;
        Ok((list.contains("OOMKilled") || list.contains("CrashLoopBackOff")).then_some(()))
    })
}
