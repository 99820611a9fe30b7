//! Pods in rows, with the one word for their state that kubectl shows.

use super::age::{age, human};
use super::{Table, or_none};
use crate::api::PodObject;
use crate::pod::status::{ContainerStatus, Terminated};
use crate::pod::{Container, ContainerRestartPolicy};
use crate::time::Wall;

pub fn table(pods: &[PodObject], now: Wall) -> Table {
    let mut t = Table::new(&["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"], 5);
    t.rows = pods.iter().map(|p| row(p, now)).collect();
    t
}

fn row(p: &PodObject, now: Wall) -> Vec<String> {
    let s = summary(p);
    let restarts = match s.last_restart {
        Some(at) if s.restarts > 0 => format!("{} ({} ago)", s.restarts, human(now.seconds() - at.seconds())),
        _ => s.restarts.to_string(),
    };
    vec![
        p.metadata.name.clone(),
        format!("{}/{}", s.ready, s.total),
        s.state,
        restarts,
        age(p.metadata.creation_timestamp, now),
        or_none(&p.status.pod_ip),
        or_none(&p.spec.node_name),
        // No scheduler nominates anything here.
        "<none>".into(),
        gates(p),
    ]
}

/// How many of its readiness gates are open: `1/2`.
fn gates(p: &PodObject) -> String {
    let all = &p.spec.readiness_gates;
    let open = all.iter().filter(|g| condition(p, &g.condition_type)).count();
    if all.is_empty() { "<none>".into() } else { format!("{open}/{}", all.len()) }
}

/// A pod in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Main containers and sidecars.
    pub ready: usize,
    pub total: usize,
    /// `Running`, `Init:0/1`, `CrashLoopBackOff`, ...
    pub state: String,
    pub restarts: i32,
    pub last_restart: Option<Wall>,
}

impl Summary {
    fn restarted(&mut self, c: &ContainerStatus) {
        self.restarts += c.restart_count;
        self.last_restart = self.last_restart.max(c.last_state.terminated.as_ref().and_then(|t| t.finished_at));
    }
}

pub fn summary(p: &PodObject) -> Summary {
    let reason = if p.status.reason.is_empty() { p.status.phase.as_str() } else { &p.status.reason };
    let sidecars = p.spec.init_containers.iter().filter(|c| is_sidecar(c)).count();
    let mut s = Summary { total: p.spec.containers.len() + sidecars, state: reason.into(), ..Summary::default() };
    // Restarts of sidecars count on after the pod is initialised, those of ordinary init containers do not.
    let mut of_sidecars = Summary::default();
    let initializing = init(p, &mut s, &mut of_sidecars);
    if !initializing || condition(p, "Initialized") {
        (s.restarts, s.last_restart) = (of_sidecars.restarts, of_sidecars.last_restart);
        main(p, &mut s);
    }
    if p.metadata.deletion_timestamp.is_some() && !p.status.phase.is_terminal() {
        s.state = "Terminating".into();
    }
    s
}

fn is_sidecar(c: &Container) -> bool {
    c.restart_policy == Some(ContainerRestartPolicy::Always)
}

fn condition(p: &PodObject, kind: &str) -> bool {
    p.status.conditions.iter().any(|c| c.kind == kind && c.is_true())
}

/// The first init container that is not done says what the pod does.
fn init(p: &PodObject, s: &mut Summary, of_sidecars: &mut Summary) -> bool {
    for (i, c) in p.status.init_container_statuses.iter().enumerate() {
        s.restarted(c);
        let sidecar = p.spec.init_containers.iter().any(|spec| spec.name == c.name && is_sidecar(spec));
        if sidecar {
            of_sidecars.restarted(c);
        }
        match (&c.state.terminated, &c.state.waiting) {
            (Some(t), _) if t.exit_code == 0 => continue,
            _ if sidecar && c.started == Some(true) => {
                s.ready += usize::from(c.ready);
                continue;
            }
            (Some(t), _) => s.state = format!("Init:{}", ended(t)),
            (None, Some(w)) if !w.reason.is_empty() && w.reason != "PodInitializing" => s.state = format!("Init:{}", w.reason),
            _ => s.state = format!("Init:{i}/{}", p.spec.init_containers.len()),
        }
        return true;
    }
    false
}

fn main(p: &PodObject, s: &mut Summary) {
    let mut running = false;
    // Backwards: the first container's reason is the one that stays.
    for c in p.status.container_statuses.iter().rev() {
        s.restarted(c);
        match (&c.state.waiting, &c.state.terminated) {
            (Some(w), _) if !w.reason.is_empty() => s.state.clone_from(&w.reason),
            (_, Some(t)) => s.state = ended(t),
            _ if c.ready && c.state.running.is_some() => {
                running = true;
                s.ready += 1;
            }
            _ => {}
        }
    }
    if s.state == "Completed" && running {
        s.state = if condition(p, "Ready") { "Running" } else { "NotReady" }.into();
    }
}

fn ended(t: &Terminated) -> String {
    if !t.reason.is_empty() {
        return t.reason.clone();
    }
    if t.signal != 0 { format!("Signal:{}", t.signal) } else { format!("ExitCode:{}", t.exit_code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value, status: Value) -> PodObject {
        serde_json::from_value(json!({"metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": spec,
            "status": status}))
        .unwrap()
    }

    fn two() -> Value {
        json!({"containers": [{"name": "a"}, {"name": "b"}]})
    }

    fn running(name: &str, ready: bool) -> Value {
        json!({"name": name, "ready": ready, "state": {"running": {"startedAt": "1970-01-01T00:00:05Z"}}})
    }

    fn state(name: &str, state: Value, restarts: i32) -> Value {
        json!({"name": name, "state": state, "restartCount": restarts,
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "1970-01-01T00:00:50Z"}}})
    }

    #[test]
    fn a_healthy_pod_is_running() {
        let p = pod(two(), json!({"phase": "Running", "podIP": "10.1.1.1", "containerStatuses": [running("a", true), running("b", true)]}));
        assert_eq!(row(&p, Wall::from_seconds(60)), ["web", "2/2", "Running", "0", "60s", "10.1.1.1", "<none>", "<none>", "<none>"]);
    }

    #[test]
    fn a_crashing_container_names_its_back_off_and_its_restarts() {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let p = pod(two(), json!({"phase": "Running", "containerStatuses": [state("a", waiting, 3), running("b", true)]}));
        assert_eq!(row(&p, Wall::from_seconds(60))[1..4], ["1/2", "CrashLoopBackOff", "3 (10s ago)"]);
    }

    #[test]
    fn the_first_container_in_trouble_speaks_for_the_pod() {
        let failed = json!({"terminated": {"exitCode": 3}});
        let killed = json!({"terminated": {"exitCode": 137, "signal": 9}});
        let p = pod(two(), json!({"phase": "Failed", "containerStatuses": [state("a", failed, 0), state("b", killed.clone(), 0)]}));
        assert_eq!(summary(&p).state, "ExitCode:3");
        let p = pod(two(), json!({"phase": "Failed", "containerStatuses": [running("a", false), state("b", killed, 0)]}));
        assert_eq!(summary(&p).state, "Signal:9");
    }

    #[test]
    fn init_containers_count_up() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let wait = json!({"waiting": {"reason": "PodInitializing"}});
        let status = |j: Value| json!({"phase": "Pending", "initContainerStatuses": [state("i", done.clone(), 0), state("j", j, 2)]});
        assert_eq!(summary(&pod(spec.clone(), status(wait))).state, "Init:1/2");
        let crash = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let s = summary(&pod(spec.clone(), status(crash)));
        assert_eq!((s.state.as_str(), s.restarts, s.total), ("Init:CrashLoopBackOff", 2, 1));
        let error = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        assert_eq!(summary(&pod(spec, status(error))).state, "Init:Error");
    }

    #[test]
    fn a_started_sidecar_counts_as_a_container() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let mut s = running("s", true);
        s["started"] = json!(true);
        let p = pod(spec, json!({"phase": "Running", "initContainerStatuses": [s], "containerStatuses": [running("a", true)]}));
        let s = summary(&p);
        assert_eq!((s.ready, s.total, s.state.as_str()), (2, 2, "Running"));
    }

    #[test]
    fn a_pod_half_done_is_running_or_not_ready() {
        let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let statuses = json!([state("a", done, 0), running("b", true)]);
        let mut p = pod(two(), json!({"phase": "Running", "containerStatuses": statuses}));
        assert_eq!(summary(&p).state, "NotReady");
        p.status.conditions = vec![crate::pod::status::Condition { kind: "Ready".into(), status: "True".into(), ..Default::default() }];
        assert_eq!(summary(&p).state, "Running");
    }

    #[test]
    fn a_deleted_pod_is_terminating_and_an_evicted_one_says_so() {
        let mut p = pod(two(), json!({"phase": "Running"}));
        p.metadata.deletion_timestamp = Some(Wall::default());
        assert_eq!(summary(&p).state, "Terminating");
        assert_eq!(summary(&pod(two(), json!({"phase": "Failed", "reason": "Evicted"}))).state, "Evicted");
    }
}
