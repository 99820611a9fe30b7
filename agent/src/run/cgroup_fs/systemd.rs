//! Pods' slices, made by systemd on our behalf (cgroup driver `systemd`).
//!
//! cgroups-rs sets properties and stops units; it starts only units with processes (`PIDs` is required, and
//! systemd refuses that property for a slice), so that slices are started here over the same D-Bus library.
//! Each call is made on a thread that may block, and only when something is to change. Tests: below, and with a
//! real systemd in `tests/tests/kernel_systemd.rs`.

use crate::cgroup::CgroupValues;
use crate::cgroup::values::{PERIOD_US, weight};
use cgroups_rs::systemd::props::PropertiesBuilder;
use cgroups_rs::systemd::{
    CPU_QUOTA_PER_SEC_US, CPU_SHARES, CPU_WEIGHT, MEMORY_LIMIT, MEMORY_MAX, Property, SystemdClient, TASKS_MAX, UNIT_MODE_REPLACE, WANTS,
};
use std::path::Path;
use std::time::{Duration, Instant};
use zbus::zvariant::Value;

#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error("cannot reach systemd over D-Bus: {source}; is this machine run by systemd? --cgroup-driver cgroupfs does without")]
    Bus { source: Box<zbus::Error> },
    #[error("systemd does not start {unit}: {source}")]
    Start { unit: String, source: Box<zbus::Error> },
    #[error("systemd started {unit}, but its group did not appear within {} s", WAIT.as_secs())]
    Late { unit: String },
    #[error("systemd does not {verb} {unit}: {cause}")]
    Refused { verb: &'static str, unit: String, cause: String },
}

/// How long a slice may take to appear.
const WAIT: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(5);
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

pub struct Systemd {
    v2: bool,
}

impl Systemd {
    pub fn new(v2: bool) -> Systemd {
        Systemd { v2 }
    }

    /// Starts a slice with these values and waits until its group, `directory`, is there.
    pub fn start(&self, unit: &str, values: &CgroupValues, directory: &Path) -> Result<(), SystemdError> {
        let mut properties = PropertiesBuilder::default()
            .cpu_accounting(true)
            .memory_accounting(true)
            .task_accounting(true)
            .io_accounting(true)
            .default_dependencies(false)
            .description(format!("pods of Longshore: {unit}"))
            .build();
        // The builder sends one string, and systemd takes a list only ("Unexpected message contents").
        properties.push((WANTS, Value::from(vec![parent(unit)])));
        properties.extend(self.properties(values));
        let bus = zbus::blocking::Connection::system().map_err(|e| SystemdError::Bus { source: e.into() })?;
        let auxiliary: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
        let body = (unit, UNIT_MODE_REPLACE, properties, auxiliary);
        let manager = "org.freedesktop.systemd1.Manager";
        let answer =
            bus.call_method(Some("org.freedesktop.systemd1"), "/org/freedesktop/systemd1", Some(manager), "StartTransientUnit", &body);
        match answer {
            Ok(_) => {}
            Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == UNIT_EXISTS => {}
            Err(e) => return Err(SystemdError::Start { unit: unit.to_owned(), source: e.into() }),
        }
        let late = Instant::now() + WAIT;
        while !directory.is_dir() {
            if Instant::now() > late {
                return Err(SystemdError::Late { unit: unit.to_owned() });
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Tells systemd of new values, so that a reload does not bring the old ones back.
    pub fn set(&self, unit: &str, values: &CgroupValues) -> Result<(), SystemdError> {
        let refused = refused("set properties of", unit);
        SystemdClient::new(unit, Vec::new()).and_then(|mut c| c.set_properties(&self.properties(values))).map_err(refused)
    }

    pub fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        SystemdClient::new(unit, Vec::new()).and_then(|c| c.stop()).map_err(refused("stop", unit))
    }

    fn properties(&self, v: &CgroupValues) -> Vec<Property<'static>> {
        let mut out = Vec::new();
        let bound = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
        if let Some(shares) = v.cpu_shares {
            out.push(if self.v2 { (CPU_WEIGHT, weight(shares).into()) } else { (CPU_SHARES, shares.into()) });
        }
        if let Some(quota) = v.cpu_quota {
            // Microseconds per second; systemd keeps whole multiples of ten milliseconds.
            let per_second = u64::try_from(quota).map_or(u64::MAX, |q| (q * 1_000_000 / PERIOD_US).next_multiple_of(10_000));
            out.push((CPU_QUOTA_PER_SEC_US, per_second.into()));
        }
        if let Some(memory) = v.memory_max {
            out.push((if self.v2 { MEMORY_MAX } else { MEMORY_LIMIT }, bound(memory).into()));
        }
        if let Some(pids) = v.pids_max {
            out.push((TASKS_MAX, bound(pids).into()));
        }
        out
    }
}

fn refused(verb: &'static str, unit: &str) -> impl Fn(cgroups_rs::systemd::dbus::error::Error) -> SystemdError {
    let unit = unit.to_owned();
    move |e| SystemdError::Refused { verb, unit: unit.clone(), cause: e.to_string() }
}

/// The slice above: `a-b.slice` for `a-b-c.slice`, the root for `a.slice`.
fn parent(unit: &str) -> String {
    unit.rsplit_once('-').map_or_else(|| "-.slice".to_owned(), |(above, _)| format!("{above}.slice"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_wants_the_one_above_it() {
        assert_eq!(parent("kubepods-burstable-pod1_2.slice"), "kubepods-burstable.slice");
        assert_eq!(parent("kubepods.slice"), "-.slice");
    }

    #[test]
    fn values_become_the_properties_of_each_version() {
        let values = CgroupValues { cpu_shares: Some(1024), cpu_quota: Some(20_500), memory_max: Some(1 << 20), pids_max: Some(-1) };
        let of = |v2| Systemd { v2 }.properties(&values);
        let want = |cpu: &'static str, share: u64, memory: &'static str| -> Vec<Property<'static>> {
            vec![
                (cpu, share.into()),
                (CPU_QUOTA_PER_SEC_US, 210_000_u64.into()),
                (memory, (1_u64 << 20).into()),
                (TASKS_MAX, u64::MAX.into()),
            ]
        };
        assert_eq!(of(true), want("CPUWeight", 39, "MemoryMax"));
        assert_eq!(of(false), want("CPUShares", 1024, "MemoryLimit"));
        let unbounded = CgroupValues { cpu_quota: Some(-1), ..CgroupValues::default() };
        assert_eq!(Systemd { v2: true }.properties(&unbounded), [(CPU_QUOTA_PER_SEC_US, Value::from(u64::MAX))]);
    }
}
