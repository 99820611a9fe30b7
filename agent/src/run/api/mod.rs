//! The API server of this node: doors, watches, and the one writer.
//!
//! Owns the store (filled by the writer and by whoever publishes), the connections and the credentials. What a
//! write means is decided in `crate::api`; here requests are read, access is asked for, what was decided is made
//! durable, and watchers are woken. A lone node adds what only it can answer (logs, commands) as a `Node`; without
//! one this is an API server and nothing else. Tests: `agent/tests/api_*.rs`.

pub mod auth;
pub mod config;
mod connection;
mod lists;
mod namespaces;
pub mod node_object;
pub mod persist;
pub mod pki;
mod questions;
mod reply;
mod serve;
pub mod show;
pub mod signing;
mod watches;
mod writer;
mod writes;

pub use connection::{Door, Host, Limits, Peer, serve};
pub use reply::{Answer, Reply, bytes, json, stream, with_status};
pub use show::Show;

use crate::api::access::{Roles, User};
use crate::api::resource::{Id, RESOURCES};
use crate::api::store::{Name, Store};
use crate::api::write::Context;
use crate::api::{Failure, request};
use crate::run::clock;
use auth::Credentials;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use persist::Files;
use serde_json::Value;
use std::cell::{Cell, Ref, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What a lone node answers beside objects.
pub trait Node {
    /// `log`, `exec`, `attach`, `portforward`, `proxy` of a pod, a service or a node.
    fn connect(&self, to: request::Request, request: Request<Incoming>) -> LocalBoxFuture<'static, Answer>;
    /// A path that is no resource. None: nothing is there.
    fn other(&self, path: &str, request: &Request<Incoming>) -> Option<LocalBoxFuture<'static, Answer>>;
}

/// Who renders objects only when they are looked at.
pub trait Lazy {
    /// Publishes what has changed since the last time.
    fn settle(&self);
}

/// What an API server is made of.
pub struct Parts {
    pub context: Context,
    pub roles: Roles,
    pub credentials: Credentials,
    /// Where objects outlive the process; None: nowhere.
    pub state: Option<persist::Journal>,
    /// Of a lone node: the manifests directory.
    pub files: Option<Rc<dyn Files>>,
    pub node: Option<Rc<dyn Node>>,
    pub limits: Limits,
}

pub struct Api {
    store: RefCell<Store>,
    /// The last revision of each resource, for watchers.
    ticks: Vec<watch::Sender<u64>>,
    writer: mpsc::Sender<writer::Job>,
    keeper: mpsc::Sender<persist::Line>,
    context: Context,
    roles: RefCell<Roles>,
    credentials: RefCell<Credentials>,
    node: RefCell<Option<Rc<dyn Node>>>,
    lazy: RefCell<Option<Weak<dyn Lazy>>>,
    issuer: RefCell<Option<config::ClientIssuer>>,
    limits: Limits,
    seed: Cell<u64>,
    watchers: Cell<usize>,
}

impl Api {
    /// Makes the server and starts its writer on the current local set.
    pub fn start(parts: Parts) -> Rc<Api> {
        let micros = u64::try_from(clock::now().wall.0 / 1000).unwrap_or(1);
        let (state, kept) = match parts.state {
            Some(journal) => {
                let kept = journal.objects();
                (Some(journal), kept)
            }
            None => (None, Vec::new()),
        };
        let mut store = Store::new(micros);
        for (id, object) in kept {
            store.put(id, object);
        }
        store.compact();
        let (to, jobs) = mpsc::channel(writer::QUEUE);
        let (keeper, kept) = mpsc::channel(writer::QUEUE);
        let api = Rc::new(Api {
            store: RefCell::new(store),
            ticks: RESOURCES.iter().map(|_| watch::Sender::new(0)).collect(),
            writer: to,
            keeper,
            context: parts.context,
            roles: RefCell::new(parts.roles),
            credentials: RefCell::new(parts.credentials),
            node: RefCell::new(parts.node),
            lazy: RefCell::default(),
            issuer: RefCell::default(),
            limits: parts.limits,
            seed: Cell::new(seed()),
            watchers: Cell::new(0),
        });
        let writer = writer::Writer { api: Rc::downgrade(&api), jobs, kept, state: state.map(Rc::new), files: parts.files };
        tokio::task::spawn_local(writer.run());
        tokio::task::spawn_local(writer::expire(Rc::downgrade(&api)));
        api
    }

    pub fn set_node(&self, node: Rc<dyn Node>) {
        *self.node.borrow_mut() = Some(node);
    }

    pub fn set_lazy(&self, lazy: Weak<dyn Lazy>) {
        *self.lazy.borrow_mut() = Some(lazy);
    }

    /// Who makes certificates for clients of the port.
    pub fn set_issuer(self: &Rc<Self>, issuer: config::ClientIssuer) {
        self.sign_requests(issuer.pki(), signing::Approval::ByHand);
        *self.issuer.borrow_mut() = Some(issuer);
    }

    /// Answers requests for certificates with those of this authority.
    pub fn sign_requests(self: &Rc<Self>, pki: Rc<pki::Pki>, approval: signing::Approval) {
        self.sign_requests_for(pki, approval, signing::MOST);
    }

    /// The same with certificates that are good for at most so long.
    pub fn sign_requests_for(self: &Rc<Self>, pki: Rc<pki::Pki>, approval: signing::Approval, most: Duration) {
        tokio::task::spawn_local(signing::keep(Rc::downgrade(self), pki, approval, most));
    }

    /// The namespaces that every cluster has.
    pub fn make_standard_namespaces(&self) {
        namespaces::ALWAYS.iter().for_each(|n| namespaces::ensure(self, n));
    }

    /// Another file of roles.
    pub fn set_roles(&self, roles: Roles) {
        *self.roles.borrow_mut() = roles;
    }

    /// Other certificates or tokens.
    pub fn set_credentials(&self, credentials: Credentials) {
        *self.credentials.borrow_mut() = credentials;
    }

    pub fn credentials(&self) -> Ref<'_, Credentials> {
        self.credentials.borrow()
    }

    /// All objects, with all that is known of them by now.
    pub fn store(&self) -> Ref<'_, Store> {
        let lazy = self.lazy.borrow().as_ref().and_then(Weak::upgrade);
        if let Some(lazy) = lazy {
            lazy.settle();
        }
        self.store.borrow()
    }

    /// All objects as they were when somebody last looked.
    fn unsettled(&self) -> Ref<'_, Store> {
        self.store.borrow()
    }

    /// Whether somebody waits for changes of this resource.
    fn is_watched(&self, id: Id) -> bool {
        self.ticks[usize::from(id.0)].receiver_count() > 0
    }

    /// An object as it is shown now.
    pub fn object(&self, id: Id, name: &Name) -> Option<Value> {
        self.store().get(id, &name.namespace, &name.name).map(|e| e.object())
    }

    /// Shows an object that its owner keeps: the node its pods, the directory its manifests.
    pub fn publish(&self, id: Id, object: Value) -> u64 {
        let before = self.store.borrow().revision();
        let revision = self.store.borrow_mut().put(id, object);
        if revision > before {
            self.tick(id);
        }
        revision
    }

    /// Writes down what is shown of an object, when there is time for it.
    pub fn keep(&self, id: Id, name: &Name) {
        let object = self.unsettled().get(id, &name.namespace, &name.name).map(|e| e.object());
        if let Some(object) = object {
            // Full: the disk is far behind, and what is told of the node is the least of it.
            let _ = self.keeper.try_send(persist::Line::put(id, &object, false));
        }
    }

    pub fn retract(&self, id: Id, namespace: &str, name: &str) -> Option<Bytes> {
        let gone = self.store.borrow_mut().remove(id, namespace, name);
        self.tick(id);
        gone
    }

    /// Forgets the history, as an API server does every few minutes: watchers from before have to list again.
    pub fn compact(&self) {
        self.store.borrow_mut().compact();
        self.ticks.iter().for_each(|t| t.send_modify(|_| {}));
    }

    fn tick(&self, id: Id) {
        let revision = self.store.borrow().revision();
        self.ticks[usize::from(id.0)].send_replace(revision);
    }

    /// Another one each time; nobody guesses the next.
    pub fn next_seed(&self) -> u64 {
        let seed = self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed.set(seed);
        seed ^ u64::try_from(clock::now().wall.0).unwrap_or(0)
    }

    pub fn watchers(&self) -> usize {
        self.watchers.get()
    }

    fn allow(&self, user: &User, a: &crate::api::access::Attributes) -> Result<(), Failure> {
        match self.roles.borrow().allow(user, a) {
            Some(_) => Ok(()),
            None => Err(a.forbidden(user)),
        }
    }
}

/// From the kernel's randomness.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the buffer is ours and as long as we say.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 8 { u64::from_ne_bytes(bytes) } else { u64::try_from(clock::now().wall.0).unwrap_or(0) }
}
