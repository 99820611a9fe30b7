//! Sandboxes and containers of the model.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use tonic::Code;

use super::model::{MS, Model, Refusal};
use super::script::{Behaviour, ExecScript, Life, OnTerm, StartOutcome, Subject};
use crate::v1;
use v1::ContainerEventType as Happened;
use v1::ContainerState as State;

/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;

#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) config: v1::PodSandboxConfig,
    pub(super) handler: String,
    pub(super) created_at: i64,
    pub(super) ready: bool,
    /// Empty with the host's network and after a stop.
    pub(super) ip: String,
}

#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) sandbox_id: String,
    pub(super) config: v1::ContainerConfig,
    pub(super) image_ref: String,
    pub(super) log_path: String,
    pub(super) state: State,
    pub(super) created_at: i64,
    pub(super) started_at: i64,
    pub(super) finished_at: i64,
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) resources: v1::LinuxContainerResources,
    pub(super) behaviour: Behaviour,
    pub(super) reopened_logs: u32,
    /// A real process that stands for it, where the server makes some.
    pub(super) pid: Option<u32>,
    end: Option<End>,
}

/// An end that is already settled.
#[derive(Debug, Clone, Copy)]
struct End {
    at: i64,
    code: i32,
    reason: &'static str,
}

impl Container {
    pub(super) fn ends_at(&self) -> Option<i64> {
        self.end.map(|e| e.at)
    }

    /// An end no later than those settled before replaces them.
    fn end_by(&mut self, end: End) {
        if self.end.is_none_or(|e| end.at < e.at) {
            self.end = Some(end);
        }
    }

    fn name(&self) -> &str {
        self.config.metadata.as_ref().map_or("", |m| m.name.as_str())
    }
}

impl Sandbox {
    pub(super) fn uid(&self) -> String {
        self.config.metadata.as_ref().map(|m| m.uid.clone()).unwrap_or_default()
    }

    /// The name containerd reserves.
    fn reserved_name(config: &v1::PodSandboxConfig) -> String {
        let m = config.metadata.clone().unwrap_or_default();
        format!("{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt)
    }

    fn host_network(&self) -> bool {
        let security = self.config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let options = security.and_then(|s| s.namespace_options.as_ref());
        options.is_some_and(|o| o.network() == v1::NamespaceMode::Node)
    }
}

fn state_name(state: State) -> &'static str {
    state.as_str_name()
}

impl Model {
    pub fn run_sandbox(&mut self, now: i64, config: v1::PodSandboxConfig, handler: &str) -> Result<String, Refusal> {
        self.advance(now);
        if config.metadata.as_ref().is_none_or(|m| m.uid.is_empty() || m.name.is_empty()) {
            return Err(Refusal::new(Code::InvalidArgument, "sandbox config must include metadata"));
        }
        let name = Sandbox::reserved_name(&config);
        let taken = self.sandboxes.iter().find(|(_, s)| Sandbox::reserved_name(&s.config) == name);
        if let Some((id, _)) = taken {
            return Err(Refusal::unknown(format!("failed to reserve sandbox name {name:?}: name {name:?} is reserved for {id:?}")));
        }
        if !handler.is_empty() && !self.handlers.iter().any(|h| h == handler) {
            return Err(Refusal::unknown(format!("failed to get sandbox runtime: no runtime for {handler:?} is configured")));
        }
        let mut sandbox = Sandbox { config, handler: handler.into(), created_at: now, ready: true, ip: String::new() };
        if !sandbox.host_network() {
            if !self.network_ready {
                if self.keeps_failed_sandboxes {
                    let id = self.new_id();
                    self.sandboxes.insert(id, Sandbox { ready: false, ..sandbox });
                }
                return Err(Refusal::unknown("failed to setup network for sandbox: cni plugin not initialized"));
            }
            sandbox.ip = self.new_address();
        }
        let (id, uid) = (self.new_id(), sandbox.uid());
        self.sandboxes.insert(id.clone(), sandbox);
        self.emit(now, Happened::ContainerCreatedEvent, &id, &uid);
        self.emit(now, Happened::ContainerStartedEvent, &id, &uid);
        Ok(id)
    }

    /// Kills everything in it and gives its address back. Stopping twice is fine.
    pub fn stop_sandbox(&mut self, now: i64, id: &str) -> Result<(), Refusal> {
        self.advance(now);
        self.sandbox(id)?;
        for c in self.containers.values_mut().filter(|c| c.sandbox_id == id) {
            if c.state == State::ContainerRunning {
                c.end_by(End { at: now, code: KILLED, reason: "Error" });
            }
        }
        self.end_due(now);
        let sandbox = self.sandboxes.get_mut(id).expect("looked up above");
        sandbox.ip.clear();
        let uid = sandbox.uid();
        if std::mem::replace(&mut sandbox.ready, false) {
            self.emit(now, Happened::ContainerStoppedEvent, id, &uid);
        }
        Ok(())
    }

    /// Takes its containers along; refuses while it is ready.
    pub fn remove_sandbox(&mut self, now: i64, id: &str) -> Result<(), Refusal> {
        self.advance(now);
        let sandbox = self.sandbox(id)?;
        if sandbox.ready {
            return Err(Refusal::unknown(format!("sandbox container {id:?} is not fully stopped")));
        }
        let uid = sandbox.uid();
        let inside: Vec<String> = self.containers.iter().filter(|(_, c)| c.sandbox_id == id).map(|(id, _)| id.clone()).collect();
        for container in inside {
            self.containers.remove(&container);
            self.emit(now, Happened::ContainerDeletedEvent, &container, &uid);
        }
        self.sandboxes.remove(id);
        self.emit(now, Happened::ContainerDeletedEvent, id, &uid);
        Ok(())
    }

    /// As if the sandbox's own process had died (a reboot, a kill from outside): its containers go
    /// with it, its address is lost.
    pub fn break_sandbox(&mut self, now: i64, id: &str) -> Result<(), Refusal> {
        self.stop_sandbox(now, id)
    }

    pub fn create(&mut self, now: i64, sandbox_id: &str, config: v1::ContainerConfig) -> Result<String, Refusal> {
        self.advance(now);
        let sandbox = self
            .sandboxes
            .get(sandbox_id)
            .ok_or_else(|| Refusal::not_found(format!("failed to find sandbox id {sandbox_id:?}: not found")))?;
        if !sandbox.ready {
            return Err(Refusal::not_found(format!(
                "failed to get sandbox container task: no running task found: task {sandbox_id} not found: not found"
            )));
        }
        let Some(metadata) = config.metadata.clone().filter(|m| !m.name.is_empty()) else {
            return Err(Refusal::new(Code::InvalidArgument, "container config must include metadata"));
        };
        let taken = self.containers.iter().find(|(_, c)| c.sandbox_id == sandbox_id && c.config.metadata.as_ref() == Some(&metadata));
        let pod = sandbox.config.metadata.clone().unwrap_or_default();
        if let Some((id, _)) = taken {
            let name = format!("{}_{}_{}_{}_{}", metadata.name, pod.name, pod.namespace, pod.uid, metadata.attempt);
            return Err(Refusal::unknown(format!("failed to reserve container name {name:?}: name {name:?} is reserved for {id:?}")));
        }
        let spec = config.image.clone().unwrap_or_default();
        let image_ref = self.present_image(&spec.image)?.id.clone();
        let asked = if spec.user_specified_image.is_empty() { &spec.image } else { &spec.user_specified_image };
        let behaviour = self.behaviour_of(&pod.name, &metadata, asked);
        let container = Container {
            sandbox_id: sandbox_id.into(),
            image_ref,
            log_path: join(&sandbox.config.log_directory, &config.log_path),
            state: State::ContainerCreated,
            created_at: now,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            resources: config.linux.clone().and_then(|l| l.resources).unwrap_or_default(),
            behaviour,
            reopened_logs: 0,
            pid: None,
            end: None,
            config,
        };
        let id = self.new_id();
        self.containers.insert(id.clone(), container);
        self.emit(now, Happened::ContainerCreatedEvent, &id, &pod.uid);
        Ok(id)
    }

    fn behaviour_of(&self, pod: &str, of: &v1::ContainerMetadata, image: &str) -> Behaviour {
        let (pod, container, attempt) = (pod.to_owned(), of.name.clone(), of.attempt);
        let run = Subject::Run { pod: pod.clone(), container: container.clone(), attempt };
        [run, Subject::Container { pod, container }, Subject::Image(image.to_owned())]
            .iter()
            .find_map(|s| self.behaviours.get(s))
            .cloned()
            .unwrap_or_default()
    }

    pub fn start(&mut self, now: i64, id: &str) -> Result<(), Refusal> {
        self.advance(now);
        let container = self.container(id)?;
        let (state, sandbox_id) = (container.state, container.sandbox_id.clone());
        if state != State::ContainerCreated {
            return Err(Refusal::unknown(format!(
                "failed to set starting state for container {id:?}: container is in {} state",
                state_name(state)
            )));
        }
        let sandbox = self.sandboxes.get(&sandbox_id);
        let uid = sandbox.map(Sandbox::uid).unwrap_or_default();
        if sandbox.is_none_or(|s| !s.ready) {
            return Err(Refusal::unknown(format!("sandbox container {sandbox_id:?} is not running")));
        }
        let c = self.containers.get_mut(id).expect("looked up above");
        if let StartOutcome::Fails(message) = c.behaviour.start.clone() {
            c.state = State::ContainerExited;
            (c.finished_at, c.exit_code) = (now, 128);
            (c.reason, c.message) = ("StartError".into(), message.clone());
            self.emit(now, Happened::ContainerStoppedEvent, id, &uid);
            return Err(Refusal::unknown(message));
        }
        c.state = State::ContainerRunning;
        c.started_at = now;
        c.end = match c.behaviour.life {
            Life::Forever => None,
            Life::Exits { after_ms, code } => {
                let reason = if code == 0 { "Completed" } else { "Error" };
                Some(End { at: now + after_ms * MS, code, reason })
            }
            Life::OutOfMemory { after_ms } => Some(End { at: now + after_ms * MS, code: KILLED, reason: "OOMKilled" }),
        };
        self.emit(now, Happened::ContainerStartedEvent, id, &uid);
        Ok(())
    }

    /// Sends SIGTERM, and SIGKILL `grace_ms` later. Returns when the container will have ended;
    /// the call itself returns then, not before.
    pub fn stop(&mut self, now: i64, id: &str, grace_ms: i64) -> Result<i64, Refusal> {
        self.advance(now);
        self.container(id)?;
        let c = self.containers.get_mut(id).expect("looked up above");
        if c.state != State::ContainerRunning {
            return Ok(now);
        }
        let kill = now + grace_ms.max(0) * MS;
        c.end_by(End { at: kill, code: KILLED, reason: "Error" });
        if grace_ms > 0
            && let OnTerm::Exits { after_ms, code } = c.behaviour.on_term
        {
            let reason = if code == 0 { "Completed" } else { "Error" };
            c.end_by(End { at: now + after_ms * MS, code, reason });
        }
        let until = c.ends_at().unwrap_or(now);
        self.end_due(now);
        Ok(until)
    }

    /// Ends a running container as if from outside the runtime.
    pub fn crash(&mut self, now: i64, id: &str, code: i32) -> Result<(), Refusal> {
        self.advance(now);
        self.container(id)?;
        let c = self.containers.get_mut(id).expect("looked up above");
        if c.state == State::ContainerRunning {
            c.end_by(End { at: now, code, reason: if code == 0 { "Completed" } else { "Error" } });
        }
        self.end_due(now);
        Ok(())
    }

    pub fn remove(&mut self, now: i64, id: &str) -> Result<(), Refusal> {
        self.advance(now);
        let container = self.container(id)?;
        if container.state == State::ContainerRunning {
            return Err(Refusal::new(Code::FailedPrecondition, format!("container {id:?} is still running, to be stopped first")));
        }
        let uid = self.sandboxes.get(&container.sandbox_id).map(Sandbox::uid).unwrap_or_default();
        self.containers.remove(id);
        self.emit(now, Happened::ContainerDeletedEvent, id, &uid);
        Ok(())
    }

    /// Only the settings that are given change.
    pub fn update_resources(&mut self, now: i64, id: &str, to: &v1::LinuxContainerResources) -> Result<(), Refusal> {
        self.advance(now);
        let state = self.container(id)?.state;
        if !matches!(state, State::ContainerCreated | State::ContainerRunning) {
            return Err(Refusal::unknown(format!("failed to update resources: container is in {} state", state_name(state))));
        }
        let have = &mut self.containers.get_mut(id).expect("looked up above").resources;
        for (have, to) in [
            (&mut have.cpu_shares, to.cpu_shares),
            (&mut have.cpu_quota, to.cpu_quota),
            (&mut have.cpu_period, to.cpu_period),
            (&mut have.memory_limit_in_bytes, to.memory_limit_in_bytes),
            (&mut have.oom_score_adj, to.oom_score_adj),
            (&mut have.memory_swap_limit_in_bytes, to.memory_swap_limit_in_bytes),
        ] {
            if to != 0 {
                *have = to;
            }
        }
        for (have, to) in [(&mut have.cpuset_cpus, &to.cpuset_cpus), (&mut have.cpuset_mems, &to.cpuset_mems)] {
            if !to.is_empty() {
                have.clone_from(to);
            }
        }
        have.unified.extend(to.unified.clone());
        Ok(())
    }

    pub fn reopen_log(&mut self, now: i64, id: &str) -> Result<(), Refusal> {
        self.running(now, id, "failed to reopen log")?;
        self.containers.get_mut(id).expect("looked up above").reopened_logs += 1;
        Ok(())
    }

    /// What a command in this container answers; an empty success unless scripted.
    pub fn exec(&mut self, now: i64, id: &str, command: &[String]) -> Result<ExecScript, Refusal> {
        let name = self.running(now, id, "failed to exec in container")?.name().to_owned();
        let find = |command| self.execs.get(&(name.clone(), command));
        Ok(find(command.to_vec()).or_else(|| find(Vec::new())).cloned().unwrap_or_default())
    }

    fn running(&mut self, now: i64, id: &str, what: &str) -> Result<&Container, Refusal> {
        self.advance(now);
        let container = self.container(id)?;
        if container.state != State::ContainerRunning {
            return Err(Refusal::unknown(format!("{what}: container is in {} state", state_name(container.state))));
        }
        Ok(container)
    }

    pub(super) fn end_due(&mut self, now: i64) {
        let mut ended: Vec<(i64, String, String)> = Vec::new();
        for (id, c) in &mut self.containers {
            let Some(end) = c.end.filter(|e| e.at <= now) else { continue };
            c.end = None;
            c.state = State::ContainerExited;
            (c.finished_at, c.exit_code, c.reason) = (end.at, end.code, end.reason.into());
            let uid = self.sandboxes.get(&c.sandbox_id).map(Sandbox::uid).unwrap_or_default();
            ended.push((end.at, id.clone(), uid));
        }
        ended.sort();
        for (at, id, uid) in ended {
            self.emit(at, Happened::ContainerStoppedEvent, &id, &uid);
        }
    }

    pub(super) fn sandbox(&self, id: &str) -> Result<&Sandbox, Refusal> {
        self.sandboxes.get(id).ok_or_else(|| Refusal::not_found(format!("an error occurred when try to find sandbox: {id:?}: not found")))
    }

    pub(super) fn container(&self, id: &str) -> Result<&Container, Refusal> {
        self.containers.get(id).ok_or_else(|| Refusal::not_found(format!("an error occurred when try to find container {id:?}: not found")))
    }
}

fn join(directory: &str, path: &str) -> String {
    if directory.is_empty() || path.is_empty() {
        return String::new();
    }
    format!("{}/{path}", directory.trim_end_matches('/'))
}
