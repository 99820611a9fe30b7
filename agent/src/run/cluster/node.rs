//! This node's own object: registered once, kept up to date, and watched for what others say in it.

use super::reflector::Consumer;
use super::services::Services;
use crate::cluster::node_object::{self, About, Handler, Health, Image};
use crate::cluster::pace::{Backoff, stretched};
use crate::cluster::reflect::Told;
use crate::node::Event;
use crate::node::effect::EventRecord;
use crate::run::api::node_object::health;
use crate::run::client::{Ask, Client, ClientError, JSON, MERGE, STRATEGIC, chance};
use crate::run::clock;
use crate::run::event_loop::Question;
use hyper::Method;
use longshore_cri::client::Client as Runtime;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Between tries to register.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_AT_MOST: Duration = Duration::from_secs(7);
/// How often a node that is not ready yet looks whether it is, and for how long after its start.
const SOON: Duration = Duration::from_millis(100);
const START: Duration = Duration::from_secs(120);
/// A condition that changes is told at once: this is how often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
const JITTER: f64 = 0.04;
/// Images and what the runtime can do change seldom.
const INVENTORY: Duration = Duration::from_secs(30);

/// How often the status is told.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// `nodeStatusUpdateFrequency`: a change is told within this.
    pub update: Duration,
    /// `nodeStatusReportFrequency`: it is told anew without one.
    pub report: Duration,
}

pub struct Node {
    pub client: Client,
    pub runtime: Runtime,
    pub about: About,
    pub cadence: Cadence,
    pub ask: mpsc::Sender<Question>,
    pub to: mpsc::Sender<Event>,
    /// As the server has it.
    pub there: Rc<RefCell<Value>>,
    pub uid: Rc<RefCell<Option<String>>>,
    /// False: somebody else made the object.
    pub register: bool,
}

impl Node {
    fn path(&self) -> String {
        format!("/api/v1/nodes/{}", self.about.facts.name)
    }

    /// Registers, and tells how the node is until the daemon ends.
    pub async fn run(self) {
        self.tell("Starting", "Starting kubelet.".into(), false);
        if self.register {
            self.registered().await;
        }
        let began = Instant::now();
        let mut inventory = (Health::default(), None::<Instant>);
        let mut told: Option<(Instant, Duration)> = None;
        let mut trouble = Trouble { backoff: Backoff::new(RETRY, RETRY_AT_MOST), said: String::new() };
        loop {
            if inventory.1.is_none_or(|at| at.elapsed() >= INVENTORY) {
                inventory = (self.inventory(&inventory.0).await, Some(Instant::now()));
            }
            let Some(conditions) = health(&self.ask).await else { return };
            let health = Health { runtime: conditions.runtime, network: conditions.network, ..inventory.0.clone() };
            let before = self.there.borrow()["status"].clone();
            let is = node_object::status(&self.about, &health, &before["conditions"], clock::now().wall);
            let differs = node_object::differs(&before, &is);
            let turned = node_object::is_ready(&before) != node_object::is_ready(&is);
            let since = told.map_or(Duration::MAX, |(at, _)| at.elapsed());
            let due = turned || (differs && since >= self.cadence.update) || told.is_none_or(|(at, period)| at.elapsed() >= period);
            if due && self.patch(&is, &mut trouble).await {
                if turned {
                    self.turned(&is);
                }
                // Nodes of a cluster that change at once do not report at once for ever.
                let period = self.cadence.report.mul_f64(0.5 + chance());
                told = Some((Instant::now(), period));
            }
            let ready = node_object::is_ready(&is);
            let pause = if !ready && began.elapsed() < START { SOON } else { stretched(LOOK, JITTER, chance()) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn registered(&self) {
        let mut backoff = Backoff::new(RETRY, RETRY_AT_MOST);
        let mut complained = false;
        while let Err(error) = self.try_to_register().await {
            if !complained {
                tracing::warn!(%error, server = %self.client.server(), "this node cannot be registered yet; trying again");
                complained = true;
            }
            if !error.is_outage() {
                tokio::time::sleep(backoff.next(chance())).await;
            }
        }
        tracing::info!(node = %self.about.facts.name, server = %self.client.server(), "registered");
    }

    async fn try_to_register(&self) -> Result<(), ClientError> {
        let Some(health) = health(&self.ask).await else { return std::future::pending().await };
        let whole = node_object::node(&self.about, &health, &Value::Null, clock::now().wall);
        let made = match self.client.ask(Ask::send(Method::POST, "/api/v1/nodes", JSON, &whole)).await {
            Ok(made) => made,
            Err(refused) if matches!(refused.code(), 409 | 403) => {
                let there = self.client.ask(Ask::get(&self.path())).await.map_err(|_| refused)?;
                let boot = |v: &Value| v["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_owned();
                let (was, is) = (boot(&there), self.about.info.get("bootID").and_then(Value::as_str).unwrap_or_default());
                if !was.is_empty() && was != is {
                    let name = &self.about.facts.name;
                    self.tell("Rebooted", format!("Node {name} has been rebooted, boot id: {is}"), true);
                }
                match node_object::reconcile(&there, &self.about) {
                    Some(patch) => self.client.ask(Ask::send(Method::PATCH, &self.path(), MERGE, &patch)).await?,
                    None => there,
                }
            }
            Err(e) => return Err(e),
        };
        self.there(made);
        Ok(())
    }

    fn there(&self, node: Value) {
        *self.uid.borrow_mut() = node["metadata"]["uid"].as_str().map(str::to_owned);
        *self.there.borrow_mut() = node;
    }

    async fn patch(&self, is: &Value, trouble: &mut Trouble) -> bool {
        let path = format!("{}/status", self.path());
        let ask = Ask::send(Method::PATCH, &path, STRATEGIC, &node_object::patch(is));
        match self.client.ask(ask.urgent(Duration::from_secs(10))).await {
            Ok(node) => {
                self.there(node);
                trouble.backoff.reset();
                trouble.said.clear();
                true
            }
            Err(e) if e.is_outage() => false,
            Err(error) => {
                let why = error.to_string();
                if trouble.said != why {
                    tracing::warn!(error = %why, "the status of this node could not be told; trying again");
                    trouble.said = why;
                }
                tokio::time::sleep(trouble.backoff.next(chance())).await;
                false
            }
        }
    }

    fn turned(&self, is: &Value) {
        let reason = if node_object::is_ready(is) { "NodeReady" } else { "NodeNotReady" };
        self.tell(reason, format!("Node {} status is now: {reason}", self.about.facts.name), false);
    }

    fn tell(&self, reason: &'static str, message: String, warning: bool) {
        // Events may be lost when the node has too much to do.
        let _ = self.to.try_send(about_node(&self.about.facts.name, reason, message, warning));
    }

    /// What the runtime has and can do; what cannot be had stays as it was.
    async fn inventory(&self, before: &Health) -> Health {
        let mut health = before.clone();
        if let Ok(mut images) = self.runtime.list_images().await {
            images.sort_by_key(|i| std::cmp::Reverse(i.size));
            let names = |i: &longshore_cri::images::ImageFacts| i.repo_digests.iter().chain(&i.repo_tags).cloned().collect();
            health.images = images.iter().map(|i| Image { names: names(i), bytes: i.size }).collect();
        }
        if let Ok(status) = self.runtime.status().await {
            let handler = |h: &longshore_cri::v1::RuntimeHandler| {
                let f = h.features.unwrap_or_default();
                Handler {
                    name: h.name.clone(),
                    recursive_read_only_mounts: f.recursive_read_only_mounts,
                    user_namespaces: f.user_namespaces,
                }
            };
            health.handlers = status.runtime_handlers.iter().map(handler).collect();
            health.supplemental_groups_policy = status.features.is_some_and(|f| f.supplemental_groups_policy);
        }
        health
    }
}

/// The status cannot be told: what was said of it last, and how long to wait.
struct Trouble {
    backoff: Backoff,
    said: String,
}

fn about_node(name: &str, reason: &'static str, message: String, warning: bool) -> Event {
    Event::Proxy(Box::new(EventRecord {
        kind: "Node".into(),
        namespace: "default".into(),
        name: name.to_owned(),
        // As every kubelet has it: clients look events of nodes up by this.
        uid: name.to_owned(),
        component: "kubelet",
        field_path: String::new(),
        warning,
        reason: reason.into(),
        message,
    }))
}

/// What others say in the object: labels, whether pods may come, which addresses pods have.
pub struct Watch {
    pub name: String,
    pub to: mpsc::Sender<Event>,
    pub there: Rc<RefCell<Value>>,
    pub uid: Rc<RefCell<Option<String>>>,
    pub services: Rc<Services>,
    /// Who keeps mirrors waits for the node's object.
    pub mirrored: Rc<Notify>,
    pub runtime: Runtime,
    pub cordoned: Option<bool>,
    pub ranges: Vec<String>,
}

impl Consumer for Watch {
    async fn told(&mut self, told: Told) {
        let Told::Set(node) = told else { return };
        *self.uid.borrow_mut() = node["metadata"]["uid"].as_str().map(str::to_owned);
        self.services.set_node(&node);
        let labels: BTreeMap<String, String> = crate::typed::read(&node["metadata"]["labels"]).unwrap_or_default();
        // The node may be ending.
        let taints = crate::typed::read(&node["spec"]["taints"]).unwrap_or_default();
        let _ = self.to.send(Event::Node { labels, taints }).await;
        self.cordon(&node).await;
        self.pod_ranges(&node).await;
        *self.there.borrow_mut() = node;
        self.mirrored.notify_one();
    }
}

impl Watch {
    async fn cordon(&mut self, node: &Value) {
        let is = node["spec"]["unschedulable"] == true;
        let before = self.cordoned.replace(is);
        if before.is_some_and(|b| b != is) {
            let reason = if is { "NodeNotSchedulable" } else { "NodeSchedulable" };
            let message = format!("Node {} status is now: {reason}", self.name);
            let _ = self.to.send(about_node(&self.name, reason, message, false)).await;
        }
    }

    /// Runtimes that make the pods' network themselves want to know its addresses.
    async fn pod_ranges(&mut self, node: &Value) {
        let spec = &node["spec"];
        let mut ranges: Vec<String> = crate::typed::read(&spec["podCIDRs"]).unwrap_or_default();
        if ranges.is_empty() {
            ranges.extend(spec["podCIDR"].as_str().map(str::to_owned));
        }
        if ranges.is_empty() || ranges == self.ranges {
            return;
        }
        match self.runtime.update_runtime_config(&ranges.join(",")).await {
            Ok(()) => self.ranges = ranges,
            Err(error) => tracing::warn!(%error, "the runtime does not take the pods' addresses; trying again with the next change"),
        }
    }
}
