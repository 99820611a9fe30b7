//! Reads what containers, pods and the node use, when somebody asks: a few small files for each, and nothing in between.
//!
//! Owns the samples before, from which rates come. Blocks: call it on a thread that may. Must never decide how figures
//! are told: `crate::stats` does. Tests: in this file, `tests/tests/runtime_port.rs`.

use super::clock;
use crate::cgroup::{CgroupPath, Layout};
use crate::node::NodeState;
use crate::pod::qos_class;
use crate::stats::{ContainerFigures, Cpu, Disk, Figures, Interface, NodeFigures, PodFigures, SystemFigures, Usage, kernel};
use crate::time::Wall;
use longshore_cri::snapshot::{ContainerState, ObservedContainer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Rates are over at least so long, and a sample is kept for the next until it is so old.
const OVER: Duration = Duration::from_secs(1);
const KEEP: Duration = Duration::from_secs(10);

/// What is to be read of one container.
#[derive(Clone, Debug)]
pub struct ContainerTarget {
    pub name: String,
    pub id: String,
    pub image: String,
    pub started: Wall,
    /// Its first process, where the runtime tells: the kernel says in which group it is.
    pub pid: Option<i32>,
    pub log: PathBuf,
}

/// What is to be read of one pod.
#[derive(Clone, Debug)]
pub struct PodTarget {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub started: Wall,
    pub cgroup: CgroupPath,
    /// Any process in its network; None: it has the host's, or none runs.
    pub network: Option<i32>,
    pub containers: Vec<ContainerTarget>,
}

/// All pods that run something.
pub fn targets(n: &NodeState) -> Vec<PodTarget> {
    let running = n.pods.values().filter(|e| e.observed.running().next().is_some());
    running
        .map(|e| {
            let (pod, seen) = (&e.desired.pod, &e.observed);
            let sandbox = seen.sandbox().filter(|s| !s.host_network);
            let pid = || seen.running().find_map(|c| c.pid);
            PodTarget {
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
                uid: pod.metadata.uid.clone(),
                started: e.status.as_ref().and_then(|s| s.start_time).unwrap_or_default(),
                cgroup: n.config.cgroups.pod(qos_class(pod), &pod.uid()),
                network: sandbox.and_then(|s| s.pid.or_else(pid)),
                containers: seen.running().map(|c| container(c)).collect(),
            }
        })
        .collect()
}

fn container(c: &ObservedContainer) -> ContainerTarget {
    let started = match c.state {
        ContainerState::Running { started_at } => Wall(started_at),
        _ => Wall::default(),
    };
    let image = if c.user_specified_image.is_empty() { &c.image } else { &c.user_specified_image };
    ContainerTarget {
        name: c.name.to_string(),
        id: c.id.to_string(),
        image: image.to_string(),
        started,
        pid: c.pid,
        log: PathBuf::from(&*c.log_path),
    }
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Places {
    pub node: String,
    pub layout: Layout,
    pub v2: bool,
    /// `/sys/fs/cgroup` and `/proc`.
    pub cgroups: PathBuf,
    pub proc: PathBuf,
    pub root_dir: PathBuf,
}

pub struct Reader {
    places: Places,
    before: Mutex<BTreeMap<String, (Wall, u64)>>,
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Reader {
    pub fn new(places: Places) -> Reader {
        Reader { places, before: Mutex::default() }
    }

    /// Figures of the node and of these pods. `brief`: of processor and memory alone.
    pub fn read(&self, targets: &[PodTarget], brief: bool) -> Figures {
        let node = self.node(brief);
        let pods: Vec<PodFigures> = targets.iter().map(|t| self.pod(t, node.disk, brief)).collect();
        if let Ok(mut before) = self.before.lock() {
            // Groups that are gone.
            let now = node.usage.at;
            before.retain(|_, (at, _)| now.since(*at) < KEEP * 60);
        }
        Figures { node, pods }
    }

    fn node(&self, brief: bool) -> NodeFigures {
        let proc = |name: &str| text(&self.places.proc.join(name));
        let (cpu, booted) = kernel::cpu_of_machine(&proc("stat")).unzip();
        let (memory, total) = kernel::memory_of_machine(&proc("meminfo"), &proc("vmstat")).unzip();
        let mut usage = Usage { at: clock::now().wall, cpu, memory, ..Usage::default() };
        usage.nano_cores = self.rate("/", &usage);
        let pressure = |name: &str| kernel::pressure(&proc(&format!("pressure/{name}")));
        (usage.cpu_pressure, usage.memory_pressure, usage.io_pressure) = (pressure("cpu"), pressure("memory"), pressure("io"));
        let started = Wall::from_seconds(booted.unwrap_or(0));
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let mut out = NodeFigures {
            name: self.places.node.clone(),
            started,
            usage,
            cores,
            memory: total.unwrap_or(0),
            system: vec![self.own(), self.pods_together(started)],
            ..NodeFigures::default()
        };
        if !brief {
            out.default_interface = kernel::default_interface(&proc("net/route")).unwrap_or_default().into();
            out.network = kernel::interfaces(&proc("net/dev"));
            out.disk = disk(&self.places.root_dir);
            let most = kernel::number(&proc("sys/kernel/pid_max"));
            let now = proc("loadavg").split(' ').nth(3).and_then(|t| t.split_once('/')?.1.parse().ok());
            out.processes = most.zip(now);
        }
        out
    }

    /// This process.
    fn own(&self) -> SystemFigures {
        let mut out = SystemFigures { name: "kubelet", ..SystemFigures::default() };
        out.usage.at = clock::now().wall;
        let Ok(stat) = procfs::process::Process::myself().and_then(|p| p.stat()) else { return out };
        let (user, system) = (stat.utime * kernel::TICK, stat.stime * kernel::TICK);
        out.usage.cpu = Some(Cpu { total: user + system, user, system, ..Cpu::default() });
        out.usage.nano_cores = self.rate("kubelet", &out.usage);
        let resident = stat.rss * procfs::page_size();
        out.usage.memory = Some(crate::stats::Memory {
            usage: resident,
            working_set: resident,
            rss: resident,
            faults: stat.minflt,
            major_faults: stat.majflt,
            ..Default::default()
        });
        let up = text(&self.places.proc.join("uptime")).split(' ').next().and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
        let age = (up - stat.starttime as f64 / 100.0).max(0.0);
        out.started = Wall(out.usage.at.0 - (age * 1e9) as i64);
        out
    }

    fn pods_together(&self, started: Wall) -> SystemFigures {
        let path = format!("/{}", self.places.layout.fs_path(&self.places.layout.kubepods()));
        SystemFigures { name: "pods", started, usage: self.group(&path, &path) }
    }

    fn pod(&self, t: &PodTarget, node: Option<Disk>, brief: bool) -> PodFigures {
        let cgroup = format!("/{}", self.places.layout.fs_path(&t.cgroup));
        let network = match t.network.filter(|_| !brief) {
            Some(pid) => kernel::interfaces(&text(&self.places.proc.join(format!("{pid}/net/dev")))),
            None => Vec::<Interface>::new(),
        };
        PodFigures {
            name: t.name.clone(),
            namespace: t.namespace.clone(),
            uid: t.uid.clone(),
            started: t.started,
            usage: self.group(&cgroup, &cgroup),
            containers: t.containers.iter().map(|c| self.container(c, &cgroup, node, brief)).collect(),
            cgroup,
            network,
        }
    }

    fn container(&self, c: &ContainerTarget, pod: &str, node: Option<Disk>, brief: bool) -> ContainerFigures {
        let said = c.pid.map(|pid| text(&self.places.proc.join(format!("{pid}/cgroup")))).unwrap_or_default();
        let below = format!("{pod}/{}", c.id);
        let of = |controller: &str| kernel::cgroup_of(&said, controller).map_or(below.clone(), str::to_owned);
        let (cpu, memory) = (of("cpuacct"), of("memory"));
        let logs = node.filter(|_| !brief).and_then(|whole| logs(&c.log, whole));
        ContainerFigures {
            name: c.name.clone(),
            id: c.id.clone(),
            image: c.image.clone(),
            started: c.started,
            usage: self.group(&cpu, &memory),
            cgroup: memory,
            logs,
            rootfs: None,
        }
    }

    /// One group; on v1 it may have two names.
    fn group(&self, cpu: &str, memory: &str) -> Usage {
        let mut usage = if self.places.v2 { self.group_v2(memory) } else { self.group_v1(cpu, memory) };
        usage.nano_cores = self.rate(memory, &usage);
        usage
    }

    fn group_v2(&self, path: &str) -> Usage {
        let directory = self.places.cgroups.join(path.trim_start_matches('/'));
        let file = |name: &str| text(&directory.join(name));
        let memory = kernel::memory_v2(
            &file("memory.current"),
            &file("memory.stat"),
            &file("memory.max"),
            &file("memory.swap.current"),
            &file("memory.swap.max"),
        );
        Usage {
            at: clock::now().wall,
            cpu: kernel::cpu_v2(&file("cpu.stat")),
            memory,
            processes: kernel::number(&file("pids.current")),
            cpu_pressure: kernel::pressure(&file("cpu.pressure")),
            memory_pressure: kernel::pressure(&file("memory.pressure")),
            io_pressure: kernel::pressure(&file("io.pressure")),
            nano_cores: None,
        }
    }

    fn group_v1(&self, cpu: &str, memory: &str) -> Usage {
        let at = |controller: &str, path: &str, name: &str| {
            text(&self.places.cgroups.join(controller).join(path.trim_start_matches('/')).join(name))
        };
        let (usage, stat) = (at("cpuacct", cpu, "cpuacct.usage"), at("cpuacct", cpu, "cpuacct.stat"));
        let own = |name: &str| at("memory", memory, name);
        Usage {
            at: clock::now().wall,
            cpu: kernel::cpu_v1(&usage, &stat, &at("cpu", cpu, "cpu.stat")),
            memory: kernel::memory_v1(&own("memory.usage_in_bytes"), &own("memory.stat"), &own("memory.limit_in_bytes")),
            processes: kernel::number(&at("pids", memory, "pids.current")),
            ..Usage::default()
        }
    }

    /// Against the sample before, which then is this one if it was old enough.
    fn rate(&self, of: &str, usage: &Usage) -> Option<u64> {
        let total = usage.cpu?.total;
        let mut before = self.before.lock().ok()?;
        let Some((at, was)) = before.get(of).copied() else {
            before.insert(of.into(), (usage.at, total));
            return None;
        };
        let over = usage.at.since(at);
        // A group of the same name that was made anew begins at nothing.
        if total < was || over >= KEEP {
            before.insert(of.into(), (usage.at, total));
        }
        let used = u128::from(total.checked_sub(was)?);
        (over >= OVER).then(|| u64::try_from(used * 1_000_000_000 / over.as_nanos()).unwrap_or(u64::MAX))
    }
}

pub fn disk(at: &Path) -> Option<Disk> {
    let s = rustix::fs::statvfs(at).ok()?;
    Some(Disk {
        available: s.f_bavail * s.f_frsize,
        capacity: s.f_blocks * s.f_frsize,
        used: (s.f_blocks - s.f_bfree) * s.f_frsize,
        inodes_free: s.f_ffree,
        inodes: s.f_files,
        inodes_used: s.f_files - s.f_ffree,
    })
}

/// The files beside a container's log: those of its runs, and what was rotated away.
fn logs(log: &Path, whole: Disk) -> Option<Disk> {
    use std::os::unix::fs::MetadataExt as _;
    let files = std::fs::read_dir(log.parent()?).ok()?.flatten().filter_map(|e| e.metadata().ok()).filter(|m| m.is_file());
    let (used, inodes_used) = files.fold((0, 0), |(bytes, n), m| (bytes + m.blocks() * 512, n + 1));
    Some(Disk { used, inodes_used, ..whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Driver;

    fn reader(dir: &Path, v2: bool) -> Reader {
        let places = Places {
            node: "n".into(),
            layout: Layout::new(Driver::Cgroupfs, ""),
            v2,
            cgroups: dir.join("cgroup"),
            proc: dir.join("proc"),
            root_dir: dir.to_owned(),
        };
        Reader::new(places)
    }

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn target(dir: &Path) -> PodTarget {
        let layout = Layout::new(Driver::Cgroupfs, "");
        let uid = crate::pod::PodUid::new("1");
        PodTarget {
            name: "web".into(),
            namespace: "default".into(),
            uid: "1".into(),
            started: Wall::default(),
            cgroup: layout.pod(crate::pod::QosClass::BestEffort, &uid),
            network: Some(7),
            containers: vec![ContainerTarget {
                name: "main".into(),
                id: "abc".into(),
                image: "app:1".into(),
                started: Wall::default(),
                pid: Some(7),
                log: dir.join("logs/0.log"),
            }],
        }
    }

    #[test]
    fn a_container_is_found_by_its_process_on_either_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let (d, c) = (dir.path(), dir.path().join("cgroup"));
        write(d.join("proc/7/cgroup"), "4:memory:/elsewhere/m\n3:cpu,cpuacct:/elsewhere/c\n");
        write(d.join("proc/7/net/dev"), "eth0: 10 2 0 0 0 0 0 0 20 3 0 0 0 0 0 0\n");
        write(d.join("logs/0.log"), "line\n");
        write(c.join("cpuacct/elsewhere/c/cpuacct.usage"), "55\n");
        write(c.join("memory/elsewhere/m/memory.usage_in_bytes"), "4096\n");
        write(c.join("memory/kubepods/besteffort/pod1/memory.usage_in_bytes"), "8192\n");
        let f = reader(d, false).read(&[target(d)], false);
        let main = &f.pods[0].containers[0];
        assert_eq!((main.usage.cpu.unwrap().total, main.usage.memory.unwrap().usage), (55, 4096));
        assert_eq!((f.pods[0].usage.memory.unwrap().usage, f.pods[0].network[0].rx_bytes), (8192, 10));
        assert_eq!(main.logs.unwrap().inodes_used, 1);

        write(d.join("proc/7/cgroup"), "0::/there\n");
        write(c.join("there/cpu.stat"), "usage_usec 3\n");
        write(c.join("there/memory.current"), "77\n");
        let f = reader(d, true).read(&[target(d)], true);
        let main = &f.pods[0].containers[0];
        assert_eq!((main.usage.cpu.unwrap().total, main.usage.memory.unwrap().usage), (3000, 77));
        assert!(main.logs.is_none() && f.pods[0].network.is_empty(), "brief");
    }

    #[test]
    fn a_rate_is_over_a_while_and_starts_anew_with_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let r = reader(dir.path(), true);
        let at = |s, total| Usage { at: Wall::from_seconds(s), cpu: Some(Cpu { total, ..Cpu::default() }), ..Usage::default() };
        assert_eq!(r.rate("g", &at(100, 1_000)), None);
        assert_eq!(r.rate("g", &at(100, 2_000)), None, "in no time");
        assert_eq!(r.rate("g", &at(104, 5_000)), Some(1_000));
        assert_eq!(r.rate("g", &at(104, 500)), None, "it was made anew");
        assert_eq!(r.rate("g", &at(106, 2_500)), Some(1_000));
    }

    #[test]
    fn what_is_not_there_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let f = reader(dir.path(), true).read(&[target(dir.path())], false);
        assert_eq!((f.pods[0].usage.cpu, f.pods[0].usage.memory, f.node.usage.cpu), (None, None, None));
    }
}
