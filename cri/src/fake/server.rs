//! The model on a unix socket, in real time.
//!
//! Owns the socket, the clock and the connections; the calls are in `service.rs`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tonic::Status;

use super::model::{Model, ModelEvent, Refusal};
use super::script::Fault;
use crate::error::Verb;
use crate::v1::ContainerEventType;
use crate::v1::image_service_server::ImageServiceServer;
use crate::v1::runtime_service_server::RuntimeServiceServer;

/// What kind of runtime to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether GetContainerEvents exists (containerd 1.7 and later).
    pub events: bool,
    /// Whether RuntimeConfig exists, and what it says (containerd 2.0 and later).
    pub cgroup_driver: Option<crate::v1::CgroupDriver>,
    /// Whether to write containers' output and termination messages where they belong.
    pub write_files: bool,
    /// Whether each running container has a real process, to be watched by its pid.
    pub processes: bool,
}

impl Default for Options {
    /// The abilities of containerd 2.
    fn default() -> Self {
        Options { events: true, cgroup_driver: Some(crate::v1::CgroupDriver::Cgroupfs), write_files: true, processes: false }
    }
}

/// A model being served. Dropping it ends the service.
pub struct FakeRuntime {
    shared: Arc<Shared>,
    socket: PathBuf,
    serving: Option<JoinHandle<()>>,
    clock: JoinHandle<()>,
}

pub(super) struct Shared {
    model: Mutex<Model>,
    /// Bumped after every change of the model.
    changed: watch::Sender<u64>,
    pub(super) events: broadcast::Sender<(ModelEvent, Option<crate::v1::PodSandboxStatus>)>,
    pub(super) options: Options,
    /// Second handles on the open connections, to break them with.
    connections: Mutex<Vec<OwnedFd>>,
    in_flight: Mutex<InFlight>,
    processes: Mutex<BTreeMap<String, Child>>,
}

#[derive(Default)]
struct InFlight {
    now: BTreeMap<Verb, usize>,
    peak: BTreeMap<Verb, usize>,
    total: usize,
    total_peak: usize,
}

impl FakeRuntime {
    /// Serves `model` at `socket`. Must be called inside a tokio runtime.
    pub fn serve(socket: &Path, model: Model, options: Options) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            model: Mutex::new(model),
            changed: watch::Sender::new(0),
            events: broadcast::Sender::new(1024),
            options,
            connections: Mutex::default(),
            in_flight: Mutex::default(),
            processes: Mutex::default(),
        });
        let mut runtime = FakeRuntime { clock: tokio::spawn(run_clock(shared.clone())), shared, socket: socket.to_owned(), serving: None };
        runtime.start()?;
        Ok(runtime)
    }

    /// For [`Config::new`](crate::client::Config::new).
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Looks at the model, or changes it, at the present time.
    pub fn with<T>(&self, f: impl FnOnce(&mut Model, i64) -> T) -> T {
        self.shared.with(f)
    }

    /// Waits until the model satisfies `condition`.
    pub async fn until(&self, condition: impl Fn(&Model) -> bool) {
        let mut changes = self.shared.changed.subscribe();
        while !self.with(|m, _| condition(m)) {
            changes.changed().await.expect("the sender lives in self");
        }
    }

    /// Breaks every connection; new ones are taken at once.
    pub fn disconnect(&self) {
        self.shared.disconnect();
    }

    /// Goes away: no socket, no connections. The model stays, and its time goes on.
    pub fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
        // Absent after the first stop: nothing to do then.
        let _ = std::fs::remove_file(&self.socket);
        self.shared.disconnect();
    }

    /// Comes back after [`stop`](Self::stop).
    pub fn start(&mut self) -> io::Result<()> {
        let listener = UnixListener::bind(&self.socket)?;
        self.serving = Some(tokio::spawn(accept(self.shared.clone(), listener)));
        Ok(())
    }

    /// Restarts the runtime: all connections break, the model stays.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        self.start()
    }

    /// The most calls of a verb that were ever in flight at once.
    pub fn peak(&self, verb: Verb) -> usize {
        lock(&self.shared.in_flight).peak.get(&verb).copied().unwrap_or(0)
    }

    /// The most calls of any kind that were ever in flight at once.
    pub fn total_peak(&self) -> usize {
        lock(&self.shared.in_flight).total_peak
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        self.stop();
        self.clock.abort();
        for (_, child) in std::mem::take(&mut *lock(&self.shared.processes)) {
            reap(child);
        }
    }
}

impl Shared {
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Model, i64) -> T) -> T {
        let (result, events) = {
            let mut model = lock(&self.model);
            let now = wall_clock();
            model.advance(now);
            let result = f(&mut model, now);
            (result, self.publishable(&mut model))
        };
        for event in events {
            // Without listeners there is nobody to tell.
            let _ = self.events.send(event);
        }
        self.changed.send_modify(|n| *n += 1);
        result
    }

    fn publishable(&self, model: &mut Model) -> Vec<(ModelEvent, Option<crate::v1::PodSandboxStatus>)> {
        let events = model.take_events();
        let of = |e: &ModelEvent| {
            let listed = model.list_sandboxes(None);
            let mine = |s: &&crate::v1::PodSandbox| s.metadata.as_ref().is_some_and(|m| m.uid == e.pod_uid);
            let sandbox = listed.iter().filter(mine).max_by_key(|s| s.created_at)?;
            model.sandbox_status(&sandbox.id).ok()?.status
        };
        if self.options.write_files {
            events.iter().for_each(|e| super::service::write_files(model, e));
        }
        let published = events.iter().map(|e| (e.clone(), of(e))).collect();
        if self.options.processes {
            events.iter().for_each(|e| self.follow_with_process(model, e));
        }
        published
    }

    /// Keeps one process per running container: it ends when the container does.
    fn follow_with_process(&self, model: &mut Model, event: &ModelEvent) {
        let Some(container) = model.containers.get_mut(&event.id) else { return };
        match event.kind {
            ContainerEventType::ContainerStartedEvent => {
                // Waits for its input to end, so that it outlives neither us nor its container.
                let spawned = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
                let child = spawned.expect("cat is on every machine");
                container.pid = Some(child.id());
                lock(&self.processes).insert(event.id.clone(), child);
            }
            ContainerEventType::ContainerStoppedEvent => {
                container.pid = None;
                if let Some(child) = lock(&self.processes).remove(&event.id) {
                    reap(child);
                }
            }
            _ => {}
        }
    }

    /// One call from arrival to answer: noted, struck by faults, delayed, then `act`.
    pub(super) async fn answer<T>(
        &self,
        verb: Verb,
        object: &str,
        act: impl FnOnce(&mut Model, i64) -> Result<T, Refusal>,
    ) -> Result<T, Status> {
        let _flying = Flying::new(self, verb);
        let (fault, latency) = self.with(|m, _| (m.arrive(verb, object), m.latency.get(&verb).copied().unwrap_or(0)));
        pause(latency).await;
        match fault {
            None => {}
            Some(Fault::Error(code, text)) => return Err(Status::new(code, text)),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Delay(ms)) => pause(ms).await,
            Some(Fault::Disconnect) => return self.broken().await,
            Some(Fault::DisconnectAfter) => {
                // Whatever came of it, the caller will not know.
                let _ = self.with(act);
                return self.broken().await;
            }
        }
        self.with(act).map_err(Status::from)
    }

    async fn broken<T>(&self) -> Result<T, Status> {
        self.disconnect();
        std::future::pending().await
    }

    /// Waits until the model's time has come to `at`.
    pub(super) async fn sleep_until(&self, at: i64) {
        pause((at - wall_clock()).max(0).div_euclid(1_000_000) + 1).await;
        self.with(|_, _| ());
    }

    fn disconnect(&self) {
        for connection in lock(&self.connections).drain(..) {
            // SAFETY: shutdown on a descriptor that `connection` owns; no memory is involved.
            unsafe { libc::shutdown(connection.as_raw_fd(), libc::SHUT_RDWR) };
        }
    }
}

/// Counts a call for as long as it lasts, cancelled ones too.
struct Flying<'a> {
    shared: &'a Shared,
    verb: Verb,
}

impl<'a> Flying<'a> {
    fn new(shared: &'a Shared, verb: Verb) -> Self {
        let mut f = lock(&shared.in_flight);
        f.total += 1;
        f.total_peak = f.total_peak.max(f.total);
        let now = f.now.entry(verb).or_default();
        *now += 1;
        let now = *now;
        let peak = f.peak.entry(verb).or_default();
        *peak = now.max(*peak);
        Flying { shared, verb }
    }
}

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        let mut f = lock(&self.shared.in_flight);
        f.total -= 1;
        *f.now.entry(self.verb).or_default() -= 1;
    }
}

/// Ends a stand-in by ending its input.
fn reap(mut child: Child) {
    drop(child.stdin.take());
    child.wait().expect("it is our child");
}

const MAX_MESSAGE: usize = 16 << 20;

async fn accept(shared: Arc<Shared>, listener: UnixListener) {
    let service = super::service::Service::new(shared.clone());
    let incoming = futures_util::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let incoming = futures_util::StreamExt::map(incoming, move |accepted: io::Result<UnixStream>| {
        let stream = accepted?;
        lock(&shared.connections).push(stream.as_fd().try_clone_to_owned()?);
        Ok::<_, io::Error>(stream)
    });
    // As large as containerd takes and gives.
    let runtime = RuntimeServiceServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let served = tonic::transport::Server::builder()
        .add_service(runtime)
        .add_service(ImageServiceServer::new(service))
        .serve_with_incoming(incoming);
    served.await.expect("the stream of connections never fails");
}

/// Lets the model's own changes happen when they are due.
async fn run_clock(shared: Arc<Shared>) {
    let mut changes = shared.changed.subscribe();
    loop {
        changes.borrow_and_update();
        let next = lock(&shared.model).next_change_at();
        match next {
            Some(at) => {
                tokio::select! {
                    () = shared.sleep_until(at) => {}
                    _ = changes.changed() => {}
                }
            }
            None => {
                // The sender lives in `shared`, which this task holds.
                let _ = changes.changed().await;
            }
        }
    }
}

async fn pause(ms: i64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms.unsigned_abs())).await;
    }
}

pub(super) fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A test that panicked elsewhere must not hide its own message behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
