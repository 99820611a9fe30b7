//! The lab itself: what the tests of the daemon stand on must stand.

use anyhow::{Context, Result};
use longshore_tests::lab::net::{NODE_V4, NODE_V6};
use longshore_tests::lab::registry::Login;
use longshore_tests::lab::wait::{wait_for, wait_until};
use longshore_tests::lab::{Containerd, Home, Lab, Network, PodNetwork, Registry, containerd, image, pods};
use std::net::IpAddr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_private_containerd_of_every_kind_comes_up_with_the_test_images() -> Result<()> {
    let binaries = containerd::Binary::every()?;
    let majors: Vec<u32> = binaries.iter().map(|binary| binary.version().0).collect();
    assert_eq!(majors, [1, 2]);
    for binary in &binaries {
        let lab = Lab::with(binary, 1)?;
        let images = lab.containerd.ctr(&["images", "ls", "--quiet"])?;
        for name in [image::PAUSE, image::BUSYBOX, image::DEMO, image::WORKLOAD] {
            assert!(images.lines().any(|line| line == name), "{name} is not among {images}");
        }
    }
    Ok(())
}

#[test]
fn pods_get_addresses_in_both_families_and_give_everything_back() -> Result<()> {
    for binary in &containerd::Binary::every()? {
        let lab = Lab::with(binary, 1)?;
        let parent = lab.home.cgroup() + "/pods";
        let server = ["serve-http", "8080"];
        let pod = pods::run(&lab.containerd, "web", image::WORKLOAD, &server, &parent)?;
        assert_eq!(pod.ips.len(), 2, "{pod:?}");
        for ip in &pod.ips {
            let client = &lab.network.outside[0].namespace;
            let name = wait_for("the pod answers", SOON, || client.get((*ip, 8080).into(), "/hostname", SOON).map(Some))?;
            assert_eq!(name.trim(), "web");
        }
        assert_eq!(pods::remove_all(&lab.containerd.socket())?, 1);
        assert_eq!(pods::remove_all(&lab.containerd.socket())?, 0);
        assert_eq!(lab.containerd.ctr(&["containers", "ls", "--quiet"])?, "");
    }
    Ok(())
}

#[test]
fn containers_of_the_images_run_and_survive_a_kill_of_their_containerd() -> Result<()> {
    let mut lab = Lab::up()?;
    let program = ["/bin/workload", "sleep"];
    lab.containerd.run(&["--detach"], image::WORKLOAD, "sleeper", &program)?;
    let sleeper = task(&lab.containerd, "sleeper")?;
    lab.containerd.kill_nine();
    lab.containerd.launch()?;
    assert_eq!(task(&lab.containerd, "sleeper")?, sleeper);
    assert!(sleeper.contains("RUNNING"), "{sleeper}");
    let log = lab.home.base().join("shell.log");
    let options = ["--detach", "--log-uri", &format!("file://{}", log.display())];
    lab.containerd.run(&options, image::BUSYBOX, "shell", &["sh", "-c", "echo $((6*7))"])?;
    wait_until("the shell has printed its sum", SOON, || fs::read_to_string(&log).is_ok_and(|text| text == "42\n"))?;
    Ok(())
}

/// `ctr task ls` for one task: name, pid and state.
fn task(containerd: &Containerd, name: &str) -> Result<String> {
    let tasks = containerd.ctr(&["task", "ls"])?;
    let line = tasks.lines().find(|line| line.split_whitespace().next() == Some(name));
    Ok(line.with_context(|| format!("no task {name} in {tasks}"))?.to_owned())
}

#[test]
fn pause_reaps_orphans_and_leaves_on_term() -> Result<()> {
    let lab = Lab::up()?;
    // As in a pod with a shared PID namespace: an orphan of another program becomes pause's child.
    let options = ["--detach", "--mount", BUSYBOX_MOUNT];
    lab.containerd.run(&options, image::PAUSE, "hold", &[])?;
    let exec = ["task", "exec", "--exec-id", "orphan", "hold", "/bin/busybox", "sh", "-c"];
    let orphan = "/bin/busybox sh -c '/bin/busybox sleep 0.05 & exec /bin/busybox true'";
    lab.containerd.ctr(&[&exec[..], &[orphan]].concat())?;
    let line = task(&lab.containerd, "hold")?;
    let pid: i32 = line.split_whitespace().nth(1).context("no pid")?.parse()?;
    wait_until("pause has no children, living or dead", SOON, || children(pid).is_empty())?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    wait_until("pause has left", SOON, || task(&lab.containerd, "hold").is_ok_and(|line| line.contains("STOPPED")))
}

const BUSYBOX_MOUNT: &str = "type=bind,src=/bin/busybox,dst=/bin/busybox,options=rbind:ro";

fn children(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
}

#[test]
fn images_pushed_to_a_registry_with_a_password_can_be_pulled_with_it() -> Result<()> {
    let lab = Lab::up()?;
    let login = Login { user: "puller".to_owned(), password: "let me in".to_owned() };
    let host = &lab.network.outside[0];
    let registry = Registry::start(&lab.home, host, Some(login))?;
    let name = registry.push(host, &image::workload(), "team/workload", "2")?;
    let hosts = lab.containerd.registries().display().to_string();
    registry.introduce(&lab.containerd)?;
    let pull = ["images", "pull", "--hosts-dir", &hosts];
    let denied = lab.containerd.ctr(&[&pull[..], &["--user", "puller:wrong", &name]].concat());
    let denied = format!("{:#}", denied.expect_err("the password is wrong"));
    assert!(denied.contains("401"), "{denied}");
    let pulled = lab.containerd.ctr(&[&pull[..], &["--user", "puller:let me in", &name]].concat())?;
    assert!(pulled.contains("done"), "{pulled}");
    Ok(())
}

#[test]
fn pods_would_find_the_workloads_answering() -> Result<()> {
    let lab = Lab::up()?;
    let server = ["/bin/workload", "udp-echo", "7000"];
    let options = ["--detach", "--with-ns", &format!("network:{}", lab.network.node.path().display())];
    lab.containerd.run(&options, image::WORKLOAD, "udp", &server)?;
    let server = ["/bin/workload", "serve-http", "8080"];
    lab.containerd.run(&options, image::WORKLOAD, "http", &server)?;
    let client = &lab.network.outside[0].namespace;
    for node in [IpAddr::from(NODE_V4), IpAddr::from(NODE_V6)] {
        wait_for("HTTP answers", SOON, || client.get((node, 8080).into(), "/healthz", SOON).map(Some))?;
        let seen = client.get((node, 8080).into(), "/client", SOON)?;
        let own = if node.is_ipv4() { "192.0.2.1:" } else { "2001:db8::1]:" };
        assert!(seen.contains(own), "{seen}");
        let echo = client.udp((node, 7000).into(), b"ahoy", SOON)?;
        assert_eq!(echo, b"ahoy");
    }
    client.get((NODE_V4, 8080).into(), "/unhealthy", SOON)?;
    let unhealthy = client.get((NODE_V4, 8080).into(), "/healthz", SOON);
    assert!(format!("{:#}", unhealthy.expect_err("told to be unhealthy")).contains("503"));
    Ok(())
}

/// Not a test of its own: the process that the next test kills.
const VICTIM: &str = "a_lab_to_be_killed";

#[test]
#[ignore = "runs as a child of killed_runs_are_swept_away"]
fn a_lab_to_be_killed() -> Result<()> {
    let lab = Lab::up()?;
    let program = ["/bin/workload", "sleep"];
    lab.containerd.run(&["--detach"], image::WORKLOAD, "left", &program)?;
    println!("home {}", lab.home.base().display());
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

#[test]
fn killed_runs_are_swept_away() -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?)
        .args([VICTIM, "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(victim.stdout.take().context("piped")?).lines();
    let base = lines.find_map(|line| line.ok()?.split_once("home ").map(|(_, base)| base.to_owned()));
    let base = base.context("the victim did not get as far as its home")?;
    victim.kill()?;
    victim.wait()?;
    assert!(Path::new(&base).exists());
    let id = base.rsplit('/').next().context("a path")?;
    let _home = Home::new()?;
    assert!(!Path::new(&base).exists());
    let mentions = |text: String| text.contains(&format!("longshore-lab/{id}"));
    assert!(!mentions(fs::read_to_string("/proc/self/mountinfo")?));
    for process in living_processes()? {
        let about = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
        assert!(!mentions(about("cmdline")) && !mentions(about("cgroup")), "{}", about("status"));
    }
    let namespaces = fs::read_dir("/run/netns")?.flatten();
    let prefix = format!("longshore-lab-{id}-");
    assert!(!namespaces.into_iter().any(|ns| ns.file_name().to_string_lossy().starts_with(&prefix)));
    Ok(())
}

/// `/proc/<pid>` of all processes but the dead that wait to be reaped.
fn living_processes() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let state = |path: &Path| fs::read_to_string(path.join("status")).unwrap_or_default();
    let alive = |path: &PathBuf| state(path).lines().any(|line| line.starts_with("State:") && !line.contains('Z'));
    Ok(entries.filter(alive).collect())
}

#[test]
fn a_machine_without_ipv6_pods_is_served_too() -> Result<()> {
    let home = Home::new()?;
    let network = Network::new(&home, 1)?;
    let binary = containerd::Binary::in_path()?;
    let containerd = Containerd::start(&binary, &home, Some(&network.node), &PodNetwork::v4_only())?;
    assert!(containerd.ctr(&["version"])?.contains("Server"));
    Ok(())
}
