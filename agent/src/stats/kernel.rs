//! The kernel's text, read.

use super::{Cpu, Interface, Memory, Pressure, Stall};
use std::collections::BTreeMap;

/// Of a clock tick of `USER_HZ`, in nanoseconds.
pub const TICK: u64 = 10_000_000;

/// Lines of `name number`, as in `memory.stat` and `cpu.stat`.
pub fn pairs(text: &str) -> BTreeMap<&str, u64> {
    text.lines().filter_map(|l| l.split_once(' ')).filter_map(|(k, v)| Some((k, v.trim().parse().ok()?))).collect()
}

/// A number alone; `max` is None.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Limits of v1 that are none are the largest number of pages.
fn limit_v1(text: &str) -> Option<u64> {
    number(text).filter(|n| *n < 1 << 62)
}

/// `cpu.stat` of v2.
pub fn cpu_v2(stat: &str) -> Option<Cpu> {
    let p = pairs(stat);
    let micros = |k: &str| p.get(k).map_or(0, |n| n.saturating_mul(1000));
    p.contains_key("usage_usec").then(|| Cpu {
        total: micros("usage_usec"),
        user: micros("user_usec"),
        system: micros("system_usec"),
        periods: p.get("nr_periods").copied().unwrap_or(0),
        throttled: p.get("nr_throttled").copied().unwrap_or(0),
        throttled_time: micros("throttled_usec"),
    })
}

/// `cpuacct.usage`, `cpuacct.stat` and `cpu.stat` of v1.
pub fn cpu_v1(usage: &str, stat: &str, cpu_stat: &str) -> Option<Cpu> {
    let (ticks, limits) = (pairs(stat), pairs(cpu_stat));
    let of = |m: &BTreeMap<&str, u64>, k: &str| m.get(k).copied().unwrap_or(0);
    Some(Cpu {
        total: number(usage)?,
        user: of(&ticks, "user").saturating_mul(TICK),
        system: of(&ticks, "system").saturating_mul(TICK),
        periods: of(&limits, "nr_periods"),
        throttled: of(&limits, "nr_throttled"),
        throttled_time: of(&limits, "throttled_time"),
    })
}

/// Files of a group in v2: `memory.current`, `memory.stat`, `memory.max`, `memory.swap.current`, `memory.swap.max`.
pub fn memory_v2(current: &str, stat: &str, max: &str, swap: &str, swap_max: &str) -> Option<Memory> {
    let p = pairs(stat);
    let of = |k: &str| p.get(k).copied().unwrap_or(0);
    let usage = number(current)?;
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(of("inactive_file")),
        rss: of("anon"),
        cache: of("file"),
        mapped: of("file_mapped"),
        limit: number(max),
        faults: of("pgfault"),
        major_faults: of("pgmajfault"),
        swap: number(swap),
        swap_limit: number(swap_max),
    })
}

/// Files of a group in v1: `memory.usage_in_bytes`, `memory.stat`, `memory.limit_in_bytes`.
pub fn memory_v1(usage: &str, stat: &str, limit: &str) -> Option<Memory> {
    let p = pairs(stat);
    let of = |k: &str| p.get(k).copied();
    let usage = number(usage)?;
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(of("total_inactive_file").unwrap_or(0)),
        rss: of("total_rss").unwrap_or(0),
        cache: of("total_cache").unwrap_or(0),
        mapped: of("total_mapped_file").unwrap_or(0),
        limit: limit_v1(limit),
        faults: of("total_pgfault").unwrap_or(0),
        major_faults: of("total_pgmajfault").unwrap_or(0),
        swap: of("total_swap"),
        swap_limit: None,
    })
}

/// The whole machine: `/proc/meminfo` and `/proc/vmstat`.
pub fn memory_of_machine(meminfo: &str, vmstat: &str) -> Option<(Memory, u64)> {
    let kib: BTreeMap<&str, u64> = meminfo
        .lines()
        .filter_map(|l| l.split_once(':'))
        .filter_map(|(k, v)| Some((k, v.trim().trim_end_matches(" kB").parse::<u64>().ok()?.saturating_mul(1024))))
        .collect();
    let of = |k: &str| kib.get(k).copied().unwrap_or(0);
    let (total, vm) = (*kib.get("MemTotal")?, pairs(vmstat));
    let usage = total.saturating_sub(of("MemFree"));
    let memory = Memory {
        usage,
        working_set: usage.saturating_sub(of("Inactive(file)")),
        rss: of("AnonPages"),
        cache: of("Cached"),
        mapped: of("Mapped"),
        limit: Some(total),
        faults: vm.get("pgfault").copied().unwrap_or(0),
        major_faults: vm.get("pgmajfault").copied().unwrap_or(0),
        swap: Some(of("SwapTotal").saturating_sub(of("SwapFree"))),
        swap_limit: Some(of("SwapTotal")),
    };
    Some((memory, total))
}

/// The first line of `/proc/stat`: all processors, and when the machine booted, in seconds since the epoch.
pub fn cpu_of_machine(stat: &str) -> Option<(Cpu, i64)> {
    let ticks: Vec<u64> = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let at = |i: usize| ticks.get(i).copied().unwrap_or(0).saturating_mul(TICK);
    // user nice system idle iowait irq softirq steal
    let (user, system) = (at(0).saturating_add(at(1)), at(2).saturating_add(at(5)).saturating_add(at(6)));
    let booted = stat.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|t| t.trim().parse().ok()).unwrap_or(0);
    Some((Cpu { total: user.saturating_add(system), user, system, ..Cpu::default() }, booted))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same of `full`.
pub fn pressure(text: &str) -> Option<Pressure> {
    let line = |name: &str| {
        let rest = text.lines().find_map(|l| l.strip_prefix(name))?;
        let fields: BTreeMap<&str, &str> = rest.split_whitespace().filter_map(|f| f.split_once('=')).collect();
        let average = |k: &str| fields.get(k).and_then(|v| v.parse().ok()).unwrap_or(0.0);
        let total = fields.get("total").and_then(|v| v.parse().ok())?;
        Some(Stall { total, avg10: average("avg10"), avg60: average("avg60"), avg300: average("avg300") })
    };
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

/// `/proc/net/dev` without the loopback.
pub fn interfaces(text: &str) -> Vec<Interface> {
    let one = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let n: Vec<u64> = rest.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = n[..] else {
            return None;
        };
        let name = name.trim().to_owned();
        Some(Interface { name, rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped })
    };
    text.lines().filter_map(one).filter(|i| i.name != "lo").collect()
}

/// The interface of the default route in `/proc/net/route`.
pub fn default_interface(text: &str) -> Option<&str> {
    text.lines().skip(1).find_map(|l| {
        let mut fields = l.split_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then_some(name)
    })
}

/// The path of a process's group in a hierarchy of v1, or of v2 where the controller is none of v1's
/// (`/proc/PID/cgroup`).
pub fn cgroup_of<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    let mut unified = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        if controllers.split(',').any(|c| c == controller) {
            return Some(path);
        }
        if id == "0" {
            unified = Some(path);
        }
    }
    unified
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn groups_of_v2_are_read() {
        let cpu = cpu_v2("usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\nthrottled_usec 9\n").unwrap();
        assert_eq!(cpu, Cpu { total: 5000, user: 3000, system: 2000, periods: 7, throttled: 1, throttled_time: 9000 });
        let m = memory_v2("100\n", "anon 40\nfile 50\ninactive_file 30\npgfault 8\npgmajfault 1\n", "max\n", "3\n", "0\n").unwrap();
        assert_eq!((m.usage, m.working_set, m.rss, m.limit, m.faults, m.swap, m.swap_limit), (100, 70, 40, None, 8, Some(3), Some(0)));
        assert_eq!(memory_v2("", "", "", "", ""), None);
    }

    #[test]
    fn groups_of_v1_are_read() {
        let cpu = cpu_v1("123456\n", "user 3\nsystem 4\n", "nr_periods 2\nnr_throttled 1\nthrottled_time 77\n").unwrap();
        assert_eq!(cpu, Cpu { total: 123_456, user: 30_000_000, system: 40_000_000, periods: 2, throttled: 1, throttled_time: 77 });
        let m = memory_v1("100\n", "inactive_file 1\ntotal_inactive_file 130\ntotal_rss 9\n", "9223372036854771712\n").unwrap();
        assert_eq!((m.working_set, m.rss, m.limit), (0, 9, None), "never below nothing");
        assert_eq!(memory_v1("1", "", "4096").unwrap().limit, Some(4096));
    }

    #[test]
    fn the_machine_is_read() {
        let (m, total) =
            memory_of_machine("MemTotal: 10 kB\nMemFree: 4 kB\nInactive(file): 1 kB\nSwapTotal: 3 kB\nSwapFree: 1 kB\n", "pgfault 5\n")
                .unwrap();
        assert_eq!((m.usage, m.working_set, total, m.faults, m.swap), (6144, 5120, 10240, 5, Some(2048)));
        let (cpu, booted) = cpu_of_machine("cpu  1 2 3 100 50 1 1 0 0 0\ncpu0 1\nbtime 99\n").unwrap();
        assert_eq!((cpu.total, cpu.user, booted), (80_000_000, 30_000_000, 99));
    }

    #[test]
    fn pressure_and_networks_are_read() {
        let p = pressure("some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.25 total=3\n").unwrap();
        assert_eq!((p.some.avg10, p.some.total, p.full.avg300, p.full.total), (1.5, 12, 0.25, 3));
        let dev =
            "Inter-| Receive | Transmit\n face |bytes\n  lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth0: 10 2 1 0 0 0 0 0 20 3 4 5 0 0 0 0\n";
        let found = interfaces(dev);
        assert_eq!((found.len(), found[0].name.as_str(), found[0].rx_bytes, found[0].tx_bytes, found[0].tx_errors), (1, "eth0", 10, 20, 4));
        assert_eq!(default_interface("Iface Dest\neth1 0000FEA9 x\neth0 00000000 x\n"), Some("eth0"));
        let text = "4:memory:/a\n3:cpu,cpuacct:/b\n0::/c\n";
        assert_eq!(
            (cgroup_of(text, "cpuacct"), cgroup_of(text, "memory"), cgroup_of("0::/c\n", "memory")),
            (Some("/b"), Some("/a"), Some("/c"))
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(\\PC|\n| |=|:|[0-9]){0,80}") {
            let _ = (cpu_v2(&text), cpu_v1(&text, &text, &text), memory_v2(&text, &text, &text, &text, &text), memory_v1(&text, &text, &text));
            let _ = (memory_of_machine(&text, &text), cpu_of_machine(&text), pressure(&text), interfaces(&text), default_interface(&text), cgroup_of(&text, "cpu"));
        }
    }
}
