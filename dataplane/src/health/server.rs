//! The servers' thread: `/healthz` and `/livez`, metrics, and the health checks of services.
//!
//! Owns the listeners. It has a thread of its own, so that a long pass over services holds up no probe. What it tells
//! stands in [`Shared`]. Tests: the namespace tests.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};

use super::http::{self, Answer, Server};
use super::proxy::Question;
use super::shared::Shared;
use super::{pages, service};
use crate::config::Servers;
use crate::events::{Event, Events, Regarding};
use crate::inbox::Inbox;
use crate::model::{Family, ObjectName};
use crate::snapshot::Status;

/// A port that is taken is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// What the servers need of the data plane.
#[derive(Debug, Clone)]
pub struct Context {
    pub shared: Arc<Shared>,
    pub events: Arc<Events>,
    pub status: watch::Receiver<Status>,
    pub inbox: Arc<Inbox>,
    pub node_name: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot start the servers' thread: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot listen at {address} for {what}: {source}")]
    Bind { what: &'static str, address: SocketAddr, source: io::Error },
}

/// The running servers. Dropping it stops them.
#[derive(Debug)]
pub struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the servers' thread panicked");
        }
    }
}

/// Starts the servers in the calling thread's network namespace.
pub fn start(servers: Servers, context: Context) -> Result<Running, ServeError> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (bound_in, bound) = std::sync::mpsc::channel();
    let run = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = bound_in.send(Err(ServeError::Thread(error)));
                return;
            }
        };
        let work = async move {
            // With a hard failure asked for, the caller waits for the ports.
            let ports = if servers.hard_fail { bind_now(&servers, &context) } else { Ok(Vec::new()) };
            let ports = match ports {
                Ok(ports) => ports,
                Err(error) => {
                    let _ = bound_in.send(Err(error));
                    return;
                }
            };
            let _ = bound_in.send(Ok(()));
            let context = Rc::new(context);
            let mut running: Vec<Server> = ports.into_iter().map(|(page, listener)| serve(page, listener, &context)).collect();
            if !servers.hard_fail {
                running.push(keep_binding(servers.clone(), context.clone()));
            }
            tokio::select! {
                _ = stopped => {}
                () = service_checks(context) => {}
            }
        };
        tokio::task::LocalSet::new().block_on(&runtime, work);
    };
    let thread = std::thread::Builder::new().name("proxy-servers".into()).spawn(run).map_err(ServeError::Thread)?;
    let running = Running { stop: Some(stop), thread: Some(thread) };
    let outcome = bound.recv().unwrap_or_else(|_| Err(ServeError::Thread(io::Error::other("it ended before it had started"))));
    outcome.map(|()| running)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Health,
    Metrics,
}

impl Page {
    fn what(self) -> &'static str {
        match self {
            Page::Health => "health",
            Page::Metrics => "metrics",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Page::Health => "FailedToStartProxierHealthcheck",
            Page::Metrics => "FailedToStartMetricServer",
        }
    }
}

fn wanted(servers: &Servers) -> impl Iterator<Item = (Page, SocketAddr)> {
    let health = servers.health.map(|address| (Page::Health, address));
    health.into_iter().chain(servers.metrics.map(|address| (Page::Metrics, address)))
}

fn bind_page(page: Page, address: SocketAddr, context: &Context) -> Result<tokio::net::TcpListener, ServeError> {
    http::bind_at(address, false).map_err(|source| {
        let error = ServeError::Bind { what: page.what(), address, source };
        let message = error.to_string();
        let event = Event { warning: true, regarding: Regarding::Node, reason: page.reason(), action: "StartKubeProxy", message };
        context.events.put(event);
        error
    })
}

fn bind_now(servers: &Servers, context: &Context) -> Result<Vec<(Page, tokio::net::TcpListener)>, ServeError> {
    wanted(servers).map(|(page, address)| Ok((page, bind_page(page, address, context)?))).collect()
}

/// Binds what can be bound, and tries the rest again and again.
fn keep_binding(servers: Servers, context: Rc<Context>) -> Server {
    Server::task(async move {
        let mut waiting: Vec<(Page, SocketAddr)> = wanted(&servers).collect();
        let mut running = Vec::new();
        loop {
            waiting.retain(|(page, address)| match bind_page(*page, *address, &context) {
                Ok(listener) => {
                    running.push(serve(*page, listener, &context));
                    false
                }
                Err(error) => {
                    tracing::error!(%error, retry_in = ?RETRY, "cannot serve");
                    true
                }
            });
            if waiting.is_empty() {
                return std::future::pending().await;
            }
            tokio::time::sleep(RETRY).await;
        }
    })
}

fn serve(page: Page, listener: tokio::net::TcpListener, context: &Rc<Context>) -> Server {
    let context = context.clone();
    match page {
        Page::Health => http::serve(listener, move |path| {
            let answer = proxy_health(&context, &path);
            async move { answer }
        }),
        Page::Metrics => http::serve(listener, move |path| {
            let context = context.clone();
            async move { pages::answer(&path, &context).await }
        }),
    }
}

fn proxy_health(context: &Context, path: &str) -> Answer {
    let question = match path {
        "/healthz" => Question::Health,
        "/livez" => Question::Life,
        _ => return Answer::not_found(),
    };
    let mut told = context.shared.lock();
    let answer = told.health.answer(question, SystemTime::now());
    let metrics = &mut told.metrics;
    let counts = if question == Question::Health { &mut metrics.healthz } else { &mut metrics.livez };
    counts[usize::from(!answer.healthy)] += 1;
    Answer::json(if answer.healthy { 200 } else { 503 }, answer.body)
}

type CheckKey = (ObjectName, Family);

/// Keeps a port open for each health check of a service.
async fn service_checks(context: Rc<Context>) {
    let mut open: BTreeMap<CheckKey, (u16, Vec<Server>)> = BTreeMap::new();
    let mut listening = Vec::new();
    loop {
        let (want, listen) = {
            let told = context.shared.lock();
            (told.checks.ports(), told.listen.clone())
        };
        if listen != listening {
            // Other addresses: every port anew.
            open.clear();
            listening = listen;
        }
        let have = open.iter().map(|(key, (port, _))| (key.clone(), *port)).collect();
        let (close, missing) = service::plan(&have, &want);
        close.iter().for_each(|key| drop(open.remove(key)));
        let mut failed = false;
        for (key, port) in missing {
            match listen_for(&key, port, &listening, &context) {
                Ok(servers) => drop(open.insert(key, (port, servers))),
                Err(error) => {
                    failed = true;
                    let message = format!("node {} failed to start healthcheck {} on port {port}: {error}", context.node_name, key.0);
                    tracing::error!("{message}");
                    context.events.put(Event::warning(&key.0, "FailedToStartServiceHealthcheck", "Listen", message));
                }
            }
        }
        let retry = async { if failed { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
        tokio::select! {
            () = context.shared.checks_changed.notified() => {}
            () = retry => {}
        }
    }
}

/// All of the service's listeners, or none.
fn listen_for(
    key: &CheckKey,
    port: u16,
    listen: &[(Family, Option<crate::backend::NodeAddresses>)],
    context: &Rc<Context>,
) -> io::Result<Vec<Server>> {
    let (name, family) = key;
    let addresses = listen.iter().find(|(of, _)| of == family).and_then(|(_, addresses)| addresses.clone());
    let ips = addresses.map_or_else(|| vec![http::any(*family == Family::V4)], |addresses| addresses.node_ports);
    let listeners: Vec<_> = ips.into_iter().map(|ip| http::bind_at(SocketAddr::new(ip, port), true)).collect::<io::Result<_>>()?;
    let serve = |listener| {
        let (context, name, family) = (context.clone(), name.clone(), *family);
        http::serve(listener, move |_| {
            let answer = service_health(&context, &name, family);
            async move { answer }
        })
    };
    Ok(listeners.into_iter().map(serve).collect())
}

fn service_health(context: &Context, name: &ObjectName, family: Family) -> Answer {
    let (local, healthy) = {
        let told = context.shared.lock();
        let local = told.checks.get(name, family).map_or(0, |check| check.local_endpoints);
        (local, told.health.live(SystemTime::now()))
    };
    let answer = service::answer(name, local, healthy);
    let weight = ("X-Load-Balancing-Endpoint-Weight", answer.weight.to_string());
    Answer { headers: vec![weight], ..Answer::json(if answer.healthy { 200 } else { 503 }, answer.body) }
}
