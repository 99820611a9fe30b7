//! `/stats/summary`.

use super::{ContainerFigures, Disk, Figures, Interface, NodeFigures, PodFigures, Pressure, Stall, Usage};
use crate::time::Wall;
use serde_json::{Map, Value, json};

/// The whole, or what autoscalers need of it.
pub fn summary(f: &Figures, only_cpu_and_memory: bool) -> Value {
    let pods: Vec<Value> = f.pods.iter().map(|p| pod(p, &f.node, only_cpu_and_memory)).collect();
    json!({"node": node(&f.node, only_cpu_and_memory), "pods": pods})
}

fn node(n: &NodeFigures, brief: bool) -> Value {
    let system: Vec<Value> = n
        .system
        .iter()
        .map(|s| {
            let mut out = Map::new();
            out.insert("name".into(), s.name.into());
            out.insert("startTime".into(), s.started.rfc3339().into());
            add(&mut out, &s.usage, brief);
            Value::Object(out)
        })
        .collect();
    let mut out = Map::new();
    out.insert("nodeName".into(), n.name.clone().into());
    out.insert("systemContainers".into(), system.into());
    out.insert("startTime".into(), n.started.rfc3339().into());
    add(&mut out, &n.usage, brief);
    if brief {
        return out.into();
    }
    let at = n.usage.at;
    if !n.network.is_empty() {
        out.insert("network".into(), network(&n.network, &n.default_interface, at));
    }
    if let Some(d) = &n.disk {
        out.insert("fs".into(), disk(d, at));
    }
    if let Some(d) = n.images.as_ref() {
        out.insert("runtime".into(), json!({"imageFs": disk(d, at), "containerFs": disk(d, at)}));
    }
    if let Some((most, now)) = n.processes {
        out.insert("rlimit".into(), json!({"time": at.rfc3339(), "maxpid": most, "curproc": now}));
    }
    out.into()
}

fn pod(p: &PodFigures, n: &NodeFigures, brief: bool) -> Value {
    let mut out = Map::new();
    out.insert("podRef".into(), json!({"name": p.name, "namespace": p.namespace, "uid": p.uid}));
    out.insert("startTime".into(), p.started.rfc3339().into());
    out.insert("containers".into(), p.containers.iter().map(|c| container(c, n, brief)).collect());
    add(&mut out, &p.usage, brief);
    if brief {
        return out.into();
    }
    if !p.network.is_empty() {
        out.insert("network".into(), network(&p.network, "eth0", p.usage.at));
    }
    if let Some(whole) = ephemeral(p, n) {
        out.insert("ephemeral-storage".into(), disk(&whole, p.usage.at));
    }
    if let Some(count) = p.usage.processes {
        out.insert("process_stats".into(), json!({"process_count": count}));
    }
    out.into()
}

/// Logs and writable layers together.
fn ephemeral(p: &PodFigures, n: &NodeFigures) -> Option<Disk> {
    let whole = n.disk.as_ref()?;
    let logs = p.containers.iter().filter_map(|c| c.logs).map(|d| (d.used, d.inodes_used));
    let layers = p.containers.iter().filter_map(|c| c.rootfs);
    let (used, inodes_used) = logs.chain(layers).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    Some(Disk { used, inodes_used, ..*whole })
}

fn container(c: &ContainerFigures, n: &NodeFigures, brief: bool) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), c.name.clone().into());
    out.insert("startTime".into(), c.started.rfc3339().into());
    add(&mut out, &c.usage, brief);
    if brief {
        return out.into();
    }
    if let Some((used, inodes_used)) = c.rootfs {
        let whole = n.images.or(n.disk).unwrap_or_default();
        out.insert("rootfs".into(), disk(&Disk { used, inodes_used, ..whole }, c.usage.at));
    }
    if let Some(d) = &c.logs {
        out.insert("logs".into(), disk(d, c.usage.at));
    }
    out.into()
}

fn add(out: &mut Map<String, Value>, u: &Usage, brief: bool) {
    let time = u.at.rfc3339();
    if let Some(cpu) = &u.cpu {
        let mut v = json!({"time": time, "usageCoreNanoSeconds": cpu.total});
        if let Some(rate) = u.nano_cores {
            v["usageNanoCores"] = rate.into();
        }
        psi(&mut v, u.cpu_pressure.as_ref());
        out.insert("cpu".into(), v);
    }
    if let Some(m) = &u.memory {
        let mut v = json!({"time": time, "usageBytes": m.usage, "workingSetBytes": m.working_set, "rssBytes": m.rss,
            "pageFaults": m.faults, "majorPageFaults": m.major_faults});
        if let Some(limit) = m.limit {
            v["availableBytes"] = limit.saturating_sub(m.working_set).into();
        }
        psi(&mut v, u.memory_pressure.as_ref());
        out.insert("memory".into(), v);
        if let Some(used) = m.swap.filter(|_| !brief) {
            let mut v = json!({"time": time, "swapUsageBytes": used});
            if let Some(limit) = m.swap_limit {
                v["swapAvailableBytes"] = limit.saturating_sub(used).into();
            }
            out.insert("swap".into(), v);
        }
    }
    if let Some(p) = u.io_pressure.as_ref().filter(|_| !brief) {
        let mut v = json!({"time": time});
        psi(&mut v, Some(p));
        out.insert("io".into(), v);
    }
}

fn psi(v: &mut Value, p: Option<&Pressure>) {
    let stall = |s: &Stall| json!({"total": s.total, "avg10": s.avg10, "avg60": s.avg60, "avg300": s.avg300});
    if let Some(p) = p {
        v["psi"] = json!({"full": stall(&p.full), "some": stall(&p.some)});
    }
}

fn network(all: &[Interface], default: &str, at: Wall) -> Value {
    let one = |i: &Interface| json!({"name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors, "txBytes": i.tx_bytes, "txErrors": i.tx_errors});
    let list: Vec<Value> = all.iter().map(one).collect();
    let mut out = all.iter().find(|i| i.name == default).or(all.first()).map_or(json!({"name": ""}), one);
    out["time"] = at.rfc3339().into();
    out["interfaces"] = list.into();
    out
}

fn disk(d: &Disk, at: Wall) -> Value {
    json!({"time": at.rfc3339(), "availableBytes": d.available, "capacityBytes": d.capacity, "usedBytes": d.used,
        "inodesFree": d.inodes_free, "inodes": d.inodes, "inodesUsed": d.inodes_used})
}

#[cfg(test)]
pub mod tests {
    use super::super::{Cpu, Memory};
    use super::*;

    pub fn figures() -> Figures {
        let usage = Usage {
            at: Wall::from_seconds(100),
            cpu: Some(Cpu { total: 5_000_000_000, user: 3, system: 2, ..Cpu::default() }),
            nano_cores: Some(7),
            memory: Some(Memory {
                usage: 100,
                working_set: 60,
                rss: 40,
                limit: Some(1000),
                swap: Some(1),
                swap_limit: Some(3),
                ..Memory::default()
            }),
            processes: Some(2),
            cpu_pressure: Some(Pressure::default()),
            ..Usage::default()
        };
        let eth = Interface { name: "eth0".into(), rx_bytes: 10, tx_bytes: 20, ..Interface::default() };
        let container = ContainerFigures {
            name: "main".into(),
            id: "abc".into(),
            image: "app:1".into(),
            started: Wall::from_seconds(50),
            cgroup: "/kubepods/pod1/abc".into(),
            usage: usage.clone(),
            logs: Some(Disk { used: 5, inodes_used: 1, ..Disk::default() }),
            rootfs: Some((7, 2)),
        };
        let pod = PodFigures {
            name: "web".into(),
            namespace: "default".into(),
            uid: "1".into(),
            started: Wall::from_seconds(49),
            cgroup: "/kubepods/pod1".into(),
            usage: usage.clone(),
            network: vec![eth.clone()],
            containers: vec![container],
        };
        let whole = Disk { available: 50, capacity: 100, used: 50, inodes_free: 5, inodes: 10, inodes_used: 5 };
        let node = NodeFigures {
            name: "n".into(),
            usage,
            default_interface: "eth0".into(),
            network: vec![eth],
            disk: Some(whole),
            processes: Some((32768, 90)),
            cores: 2,
            memory: 1000,
            ..NodeFigures::default()
        };
        Figures { node, pods: vec![pod] }
    }

    #[test]
    fn the_summary_has_upstreams_fields() {
        let s = summary(&figures(), false);
        assert_eq!(s["node"]["cpu"]["usageNanoCores"], 7);
        assert_eq!(s["node"]["memory"]["availableBytes"], 940);
        assert_eq!(s["node"]["rlimit"], json!({"time": "1970-01-01T00:01:40Z", "maxpid": 32768, "curproc": 90}));
        let p = &s["pods"][0];
        assert_eq!(p["podRef"], json!({"name": "web", "namespace": "default", "uid": "1"}));
        assert_eq!((&p["network"]["rxBytes"], &p["network"]["interfaces"][0]["txBytes"]), (&json!(10), &json!(20)));
        assert_eq!((&p["ephemeral-storage"]["usedBytes"], &p["ephemeral-storage"]["capacityBytes"]), (&json!(12), &json!(100)));
        assert_eq!((&p["containers"][0]["logs"]["usedBytes"], &p["containers"][0]["rootfs"]["usedBytes"]), (&json!(5), &json!(7)));
        assert_eq!(p["containers"][0]["swap"]["swapAvailableBytes"], 2);
        assert!(p["cpu"]["psi"]["some"].is_object());
    }

    #[test]
    fn a_brief_summary_is_of_cpu_and_memory_alone() {
        let s = summary(&figures(), true);
        let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&s["pods"][0]["containers"][0]), ["cpu", "memory", "name", "startTime"]);
        assert_eq!(keys(&s["pods"][0]), ["containers", "cpu", "memory", "podRef", "startTime"]);
        assert_eq!(keys(&s["node"]), ["cpu", "memory", "nodeName", "startTime", "systemContainers"]);
    }
}
