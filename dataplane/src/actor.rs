//! The data plane's thread: takes changes in, brings the kernel to what is desired, tries again after failures.
//!
//! Owns the store, the tables and the kernel sockets. All decisions are made in pure modules; here they are put in
//! order. Tests: the namespace tests.

mod settings;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::addresses;
use crate::backend::{self, BackendError, Found, NodeAddresses, Options, Plane, Written, is_critical};
use crate::config::{Config, NodePortAddresses};
use crate::conntrack::plan::Ledger;
use crate::conntrack::tune;
use crate::conntrack::worker::Worker;
use crate::dataplane::StartError;
use crate::events::{Event, Events};
use crate::health::proxy::ProxyHealth;
use crate::health::server::{self, Context, Running};
use crate::health::service::Checks;
use crate::health::shared::{Shared, Told};
use crate::inbox::{Inbox, Pending};
use crate::malloc;
use crate::metrics::{Metrics, NoLocalEndpoints, Pass};
use crate::model::{Family, ObjectName, convert, time};
use crate::resolve::MAX_ENDPOINTS;
use crate::snapshot::{Snapshot, Status};
use crate::store::ServiceStore;
use crate::wire;

const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A pass over so many services leaves much freed memory behind.
const LARGE: usize = 1000;

/// One family's rules with what waits for them.
struct Lane {
    plane: Box<dyn Plane>,
    /// Services to hand over before the next commit.
    waiting: BTreeSet<ObjectName>,
    flows: Ledger,
    /// Services with a Local policy that find no endpoint here: how many of their ports, for cluster IPs and others.
    no_local: HashMap<ObjectName, (usize, usize)>,
    /// Services with more endpoints than a list can have, which was told.
    crowded: BTreeSet<ObjectName>,
    /// When endpoint changes that are not programmed yet were made, at their source.
    triggers: Vec<SystemTime>,
    /// By which change each service came into the kernel.
    programmed: HashMap<ObjectName, u64>,
    handed_over: Vec<ObjectName>,
}

impl Lane {
    fn new(plane: Box<dyn Plane>) -> Lane {
        Lane {
            plane,
            waiting: BTreeSet::new(),
            flows: Ledger::default(),
            no_local: HashMap::new(),
            crowded: BTreeSet::new(),
            triggers: Vec::new(),
            programmed: HashMap::new(),
            handed_over: Vec::new(),
        }
    }
}

pub struct Actor {
    config: Config,
    inbox: Arc<Inbox>,
    status: watch::Sender<Status>,
    events: Arc<Events>,
    store: ServiceStore,
    /// Readable when somebody else may have changed a plane's rules.
    alarms: Vec<AsyncFd<OwnedFd>>,
    lanes: Vec<Lane>,
    conntrack: Worker,
    /// What the servers tell.
    shared: Arc<Shared>,
    context: Context,
    servers: Option<Running>,
    /// Changes from before do not count as ours.
    started: SystemTime,
    synced: bool,
    /// Number of the last change that was taken in.
    taken: u64,
    next_audit: Instant,
    retry: Option<(Instant, Duration)>,
    /// Planes of the mode before, to be deleted.
    retired: Vec<backend::Leaving>,
    /// Whether other backends' rules are still to be looked for.
    take_over: bool,
    taking_over: Option<JoinHandle<()>>,
    watch: Option<addresses::Watch>,
}

impl Actor {
    /// Opens the kernel in the calling thread's network namespace, and sees that every family's rules can be read.
    /// Needs the context of a tokio runtime.
    pub fn open(mut config: Config, inbox: Arc<Inbox>, status: watch::Sender<Status>, events: Arc<Events>) -> Result<Actor, StartError> {
        // Rules depend on some of these settings.
        if let Some(wanted) = &config.conntrack {
            tune::apply(Path::new("/"), wanted);
        }
        let lanes = backend::open_all(&mut config)?.into_iter().map(Lane::new).collect();
        let (audit, take_over) = (config.audit, config.take_over);
        status.send_modify(|status| status.mode = config.mode.name());
        let store = ServiceStore::new(&config.node_name, config.zone.as_deref(), &config.node_ips);
        let told = Told {
            health: ProxyHealth::new(&config.families, config.health_timeout),
            metrics: Metrics::default(),
            checks: Checks::default(),
            listen: config.families.iter().map(|family| (*family, None)).collect(),
            mode: config.mode.name(),
            configuration: config.servers.configuration.clone(),
        };
        let shared = Arc::new(Shared::new(told));
        let conntrack = Worker::new(status.clone(), config.node_ips.clone(), shared.clone());
        let context = Context {
            shared: shared.clone(),
            events: events.clone(),
            status: status.subscribe(),
            inbox: inbox.clone(),
            node_name: config.node_name.clone(),
        };
        let asked = config.servers.health.is_some() || config.servers.metrics.is_some();
        let servers = if asked { Some(server::start(config.servers.clone(), context.clone())?) } else { None };
        let mut actor = Actor {
            conntrack,
            shared,
            context,
            servers,
            started: SystemTime::now(),
            config,
            inbox,
            status,
            events,
            store,
            alarms: Vec::new(),
            lanes,
            synced: false,
            taken: 0,
            next_audit: Instant::now() + audit,
            retry: None,
            retired: Vec::new(),
            take_over,
            taking_over: None,
            watch: None,
        };
        actor.watch_planes();
        Ok(actor)
    }

    fn watch_planes(&mut self) {
        self.alarms.clear();
        for fd in self.lanes.iter().filter_map(|lane| lane.plane.alarm()) {
            // SAFETY: an owned descriptor is the same one, and open, as long as it lives.
            let register = |fd: OwnedFd| unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
            let registered = fd.try_clone_to_owned().and_then(|fd| Ok(register(fd)?));
            match registered {
                Ok(alarm) => self.alarms.push(alarm),
                Err(error) => tracing::warn!(%error, "changes of our rules by others are found late"),
            }
        }
    }

    /// Runs until it is told to shut down.
    pub async fn run(mut self) {
        self.watch_addresses();
        loop {
            self.wait().await;
            let pending = self.inbox.take();
            if let Some(keep_rules) = pending.shutdown {
                self.end_take_over();
                if !keep_rules {
                    self.delete_rules();
                }
                return;
            }
            let mut questions = Vec::new();
            self.take_in(pending, &mut questions);
            if self.synced && self.has_work() && self.may_try() {
                let large = self.lanes.iter().any(|lane| lane.waiting.len() > LARGE || lane.plane.needs_read());
                self.pass_and_report();
                if large {
                    malloc::trim();
                }
            }
            for question in questions {
                // Whoever asked may have given up.
                let snapshot = self.snapshot();
                let _ = question.send(snapshot);
            }
        }
    }

    /// Returns when there may be something to do. Changes are given a little time to gather.
    async fn wait(&mut self) {
        let retry_at = self.retry.map(|(at, _)| at);
        let audit_at = self.next_audit;
        let planes = self.lanes.iter().map(|lane| &lane.plane).chain(self.retired.iter().map(|(_, plane)| plane));
        let deadline = planes.filter_map(|plane| plane.next_deadline()).min().map(Instant::from_std);
        let watch = &mut self.watch;
        let alarms = &self.alarms;
        let moved = async {
            match watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.inbox.arrived.notified() => {
                // Even the shortest sleep takes a millisecond.
                if !self.config.coalesce.is_zero() {
                    sleep(self.config.coalesce).await;
                }
            }
            () = sleep_until(retry_at.unwrap_or(audit_at)), if retry_at.is_some() => {}
            () = sleep_until(deadline.unwrap_or(audit_at)), if self.synced && deadline.is_some() => self.audit(),
            () = sleep_until(audit_at), if self.synced => self.audit(),
            outcome = alarmed(alarms), if self.synced => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "changes of our rules by others are found late");
                    self.alarms.clear();
                }
                self.audit();
            }
            result = moved => {
                if let Err(error) = result {
                    tracing::warn!(%error, "no longer told of address changes");
                    self.watch = None;
                }
                self.refresh_addresses();
            }
        }
    }

    fn take_in(&mut self, pending: Pending, questions: &mut Vec<tokio::sync::oneshot::Sender<Snapshot>>) {
        questions.extend(pending.snapshots);
        let (mut services, mut slices) = (0, 0);
        for (_, service) in pending.services.iter().filter(|(_, service)| service.is_some()) {
            services += service.iter().filter(|service| self.store.set_service(service)).count();
        }
        for ((namespace, name), _) in pending.services.iter().filter(|(_, service)| service.is_none()) {
            services += usize::from(self.store.delete_service(ObjectName::new(namespace, name)));
        }
        for ((namespace, name), slice) in &pending.slices {
            let changed = match slice {
                Some(slice) => self.store.set_slice(slice),
                None => self.store.delete_slice(&ObjectName::new(namespace, name)),
            };
            slices += usize::from(changed);
            if let Some(at) = slice.as_ref().filter(|_| changed).and_then(|slice| trigger(slice)).filter(|at| *at >= self.started) {
                self.lanes.iter_mut().for_each(|lane| lane.triggers.push(at));
            }
        }
        for (name, object) in &pending.service_cidrs {
            if self.store.set_service_cidr(name, object.as_deref()) {
                self.lanes.iter_mut().for_each(|lane| lane.plane.set_service_cidrs(&self.store.service_cidrs(lane.plane.family())));
            }
        }
        if let Some(zone) = pending.zone {
            self.store.set_zone(zone.as_deref());
        }
        if let Some(config) = pending.config {
            self.reconfigure(*config);
        }
        if let Some(node) = pending.node {
            self.set_node(convert::node(&node, self.config.bind_ip));
        }
        for event in self.store.take_events() {
            tracing::warn!(regarding = ?event.regarding, reason = event.reason, "{}", event.message);
            self.events.put(event);
        }
        self.taken = pending.generation;
        if pending.synced && !self.synced {
            self.synced = true;
            self.refresh_addresses();
        }
        self.report_arrivals(services as u64, slices as u64);
        let dirty = self.store.take_dirty();
        for lane in &mut self.lanes {
            lane.waiting.extend(dirty.iter().cloned());
        }
    }

    fn report_arrivals(&self, services: u64, slices: u64) {
        let mut told = self.shared.lock();
        told.metrics.service_changes += services;
        told.metrics.endpoint_changes += slices;
        told.metrics.service_changes_pending += services;
        told.metrics.endpoint_changes_pending += slices;
        // Nothing is late before the first lists are complete.
        if self.synced && self.store.has_dirty() {
            let now = SystemTime::now();
            told.health.queued(now);
            told.metrics.queued(&self.config.families, now);
        }
    }

    fn has_work(&self) -> bool {
        let due = |plane: &dyn Plane| plane.next_deadline().is_some_and(|at| Instant::from_std(at) <= Instant::now());
        let lacking = |lane: &Lane| lane.plane.needs_read() || !lane.waiting.is_empty() || lane.plane.is_touched() || due(&*lane.plane);
        let reported = self.status.borrow().programmed_generation;
        self.taken != reported || self.lanes.iter().any(lacking) || self.retired.iter().any(|(_, plane)| due(&**plane))
    }

    /// False while a back-off lasts. A kernel that refuses would otherwise be read anew at each change.
    fn may_try(&self) -> bool {
        self.retry.is_none_or(|(at, _)| at <= Instant::now())
    }

    fn pass_and_report(&mut self) {
        let result = self.pass();
        self.delete_stale_flows();
        match &result {
            Ok(()) => self.retry = None,
            Err(error) => {
                let delay = self.retry.map_or(FIRST_RETRY, |(_, delay)| (delay * 2).min(LAST_RETRY));
                tracing::warn!(%error, retry_in = ?delay, "cannot program services");
                self.retry = Some((Instant::now() + delay, delay));
            }
        }
        let frontends = self.lanes.iter().map(|lane| lane.plane.frontends()).sum();
        let services = self.store.services();
        self.status.send_modify(|status| {
            status.counters.passes += 1;
            status.counters.failed_passes += u64::from(result.is_err());
            status.counters.services = services;
            status.counters.frontends = frontends;
            status.last_error = result.as_ref().err().map(ToString::to_string);
            if result.is_ok() {
                status.ready = true;
                status.programmed_generation = self.taken;
            }
        });
        if result.is_ok() {
            self.delete_others();
        }
    }

    /// Brings every family's rules to what is desired. A family that fails does not hold up the other.
    fn pass(&mut self) -> Result<(), BackendError> {
        let mut outcome = Ok(());
        for index in 0..self.lanes.len() {
            let began = std::time::Instant::now();
            let full = self.lanes[index].plane.needs_read();
            let result = self.pass_family(index);
            let counts = self.lanes[index].plane.take_counts();
            let pass = Pass { took: began.elapsed(), full, failed: result.is_err(), ended: SystemTime::now(), counts };
            self.report_pass(index, pass);
            // They stand in the log already.
            self.lanes[index].plane.take_events().into_iter().for_each(|event| self.events.put(event));
            if let Err(error) = result {
                // What the kernel holds now is not known: the next pass reads it.
                self.lanes[index].plane.forget();
                outcome = outcome.and(Err(error));
            }
        }
        if outcome.is_ok() {
            let mut told = self.shared.lock();
            (told.metrics.service_changes_pending, told.metrics.endpoint_changes_pending) = (0, 0);
        }
        outcome
    }

    fn report_pass(&mut self, index: usize, pass: Pass) {
        let lane = &mut self.lanes[index];
        let family = lane.plane.family();
        let mut told = self.shared.lock();
        told.metrics.passed(family, pass);
        if pass.failed {
            return;
        }
        told.health.updated(family, pass.ended);
        for at in lane.triggers.drain(..) {
            told.metrics.programmed(family, pass.ended.duration_since(at).unwrap_or_default());
        }
        let sum = |of: fn(&(usize, usize)) -> usize| lane.no_local.values().map(of).sum();
        told.metrics.set_no_local_endpoints(family, NoLocalEndpoints { internal: sum(|n| n.0), external: sum(|n| n.1) });
        for name in lane.handed_over.drain(..) {
            lane.programmed.insert(name, self.taken);
        }
    }

    fn pass_family(&mut self, index: usize) -> Result<(), BackendError> {
        if self.lanes[index].plane.needs_read() {
            self.status.send_modify(|status| status.counters.kernel_reads += 1);
            let found = self.lanes[index].plane.read()?;
            self.lanes[index].waiting.extend(self.store.names().cloned());
            if found == Found::Nothing {
                // What the cluster itself needs to work does not wait for the rest.
                self.hand_over(index, is_critical);
                self.apply(index)?;
            }
        }
        self.hand_over(index, |_| true);
        self.apply(index)
    }

    /// Tells a plane of waiting services.
    fn hand_over(&mut self, index: usize, which: impl Fn(&ObjectName) -> bool) {
        let lane = &mut self.lanes[index];
        let family = lane.plane.family();
        let waiting = std::mem::take(&mut lane.waiting);
        let mut checks_changed = false;
        for name in waiting {
            if !which(&name) {
                lane.waiting.insert(name);
                continue;
            }
            let resolved = self.store.resolve(&name, family);
            lane.flows.note(&name, &resolved.udp);
            checks_changed |= self.shared.lock().checks.set(&name, family, resolved.health);
            match resolved.without_local_endpoints() {
                (0, 0) => lane.no_local.remove(&name),
                counts => lane.no_local.insert(name.clone(), counts),
            };
            if resolved.left_out == 0 {
                lane.crowded.remove(&name);
            } else if lane.crowded.insert(name.clone()) {
                let event = too_many_endpoints(&name, family, resolved.left_out);
                tracing::warn!(service = %name, "{}", event.message);
                self.events.put(event);
            }
            if resolved.cluster_ip.is_some() {
                lane.handed_over.push(name.clone());
            } else {
                lane.programmed.remove(&name);
            }
            lane.plane.set(&name, resolved);
        }
        if checks_changed && self.config.servers.service_health {
            self.shared.checks_changed.notify_one();
            self.start_servers();
        }
    }

    /// Services may ask for a port when nothing else is served.
    fn start_servers(&mut self) {
        if self.servers.is_some() {
            return;
        }
        match server::start(self.config.servers.clone(), self.context.clone()) {
            Ok(servers) => self.servers = Some(servers),
            Err(error) => tracing::error!(%error, "health checks of services are not answered"),
        }
    }

    fn apply(&mut self, index: usize) -> Result<(), BackendError> {
        let Written { transactions, writes } = self.lanes[index].plane.apply(std::time::Instant::now())?;
        if transactions > 0 {
            self.status.send_modify(|status| {
                status.counters.kernel_transactions += transactions;
                status.counters.kernel_writes += writes;
            });
        }
        Ok(())
    }

    fn delete_stale_flows(&mut self) {
        for lane in self.lanes.iter_mut().filter(|lane| !lane.plane.needs_read()) {
            let stale = lane.flows.take_stale();
            if stale.is_empty() {
                continue;
            }
            if let Err(error) = self.conntrack.delete(lane.plane.family(), stale) {
                tracing::warn!(%error, "cannot start the thread that deletes stale flows");
            }
        }
    }

    /// Looks whether somebody else changed our rules.
    fn audit(&mut self) {
        self.next_audit = Instant::now() + self.config.audit;
        for lane in &mut self.lanes {
            match lane.plane.audit(std::time::Instant::now()) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(family = %lane.plane.family(), "somebody may have changed our rules");
                    self.status.send_modify(|status| status.counters.foreign_changes += 1);
                    lane.plane.forget();
                }
                Err(error) => tracing::warn!(%error, "cannot look whether somebody changed our rules"),
            }
        }
    }

    fn follows_addresses(&self) -> bool {
        let by_config = matches!(self.config.node_port_addresses, NodePortAddresses::Cidrs(_));
        by_config || self.lanes.iter().any(|lane| lane.plane.wants_addresses())
    }

    fn watch_addresses(&mut self) {
        if !self.follows_addresses() {
            self.watch = None;
            return;
        }
        match addresses::Watch::open() {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => tracing::warn!(%error, "changes of this node's addresses go unnoticed"),
        }
    }

    fn refresh_addresses(&mut self) {
        let links = if self.follows_addresses() { addresses::all() } else { Ok(Vec::new()) };
        let links = match links {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(%error, "cannot read this node's addresses");
                return;
            }
        };
        let mut listen = Vec::new();
        for lane in &mut self.lanes {
            let family = lane.plane.family();
            let addresses = NodeAddresses::of(&self.config, family, &links);
            let everywhere = Options::of(&self.config, family).node_ports_everywhere;
            let own = NodeAddresses { links: Vec::new(), ..addresses.clone() };
            listen.push((family, (!everywhere).then_some(own)));
            lane.plane.set_node_addresses(addresses);
        }
        self.shared.lock().listen = listen;
        self.shared.checks_changed.notify_one();
    }

    fn delete_rules(&mut self) {
        let retired = self.retired.iter_mut().map(|(_, plane)| plane);
        for plane in self.lanes.iter_mut().map(|lane| &mut lane.plane).chain(retired) {
            if let Err(error) = plane.delete() {
                tracing::warn!(%error, "cannot delete our rules");
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut snapshot = Snapshot { status: self.status.borrow().clone(), ..Snapshot::default() };
        for lane in &mut self.lanes {
            let family = lane.plane.family();
            snapshot.services.extend(lane.plane.services());
            snapshot.generations.extend(lane.programmed.iter().map(|(name, generation)| (name.clone(), family, *generation)));
            match lane.plane.traffic() {
                Ok(traffic) => snapshot.traffic.extend(traffic),
                Err(error) => tracing::warn!(%error, %family, "cannot read what was counted"),
            }
        }
        snapshot.generations.sort_unstable();
        snapshot
    }
}

fn too_many_endpoints(name: &ObjectName, family: Family, left_out: usize) -> Event {
    let message = format!("only {MAX_ENDPOINTS} of {} {family} endpoints of a port of {name} get connections", MAX_ENDPOINTS + left_out);
    Event::warning(name, "TooManyEndpoints", "Program", message)
}

/// When the change of a slice was made, at its source.
fn trigger(slice: &wire::EndpointSlice) -> Option<SystemTime> {
    slice.metadata.annotations.get("endpoints.kubernetes.io/last-change-trigger-time").and_then(|text| time::parse(text))
}

/// Returns when a plane may have been changed by somebody else.
async fn alarmed(alarms: &[AsyncFd<OwnedFd>]) -> io::Result<()> {
    std::future::poll_fn(|context| {
        for alarm in alarms {
            if let std::task::Poll::Ready(ready) = alarm.poll_read_ready(context) {
                // The audit reads all there is.
                return std::task::Poll::Ready(ready.map(|mut guard| guard.clear_ready()));
            }
        }
        std::task::Poll::Pending
    })
    .await
}
