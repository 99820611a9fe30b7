#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! What a control plane would do for a machine that has none: addresses for services, endpoints from
//! selectors, names for the DNS.
//!
//! Owns the effective services and slices of the node. Everything is derived from the directory's
//! objects, the pods' states and the record of addresses once given; the record is handed out to be
//! written down before an address is used. Must never do I/O. Tests: in each file.

pub mod addresses;
pub mod endpoints;
pub mod zone;

use crate::env::services::{ServiceAddress, ServicePort};
use crate::pod::{ObjectName, PodUid, Protocol};
use addresses::{Given, Ranges};
use endpoints::PodFacts;
use longshore_dataplane::Change;
use longshore_dataplane::wire::{EndpointSlice, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What follows from a change.
#[derive(Clone, Debug)]
pub enum Output {
    /// To be written down before what comes after it is acted on.
    Record(BTreeMap<String, Given>),
    Dataplane(Change),
    /// The services that environments announce.
    Environment(Arc<Vec<ServiceAddress>>),
    /// A service could not be given what it asks for: its name, and why.
    Refused(ObjectName, String),
}

/// The services of a lone machine.
#[derive(Debug)]
pub struct Lone {
    pub ranges: Ranges,
    pub node_name: String,
    given: BTreeMap<String, Given>,
    /// As the directory has them.
    wanted: BTreeMap<ObjectName, Arc<Service>>,
    /// With addresses and ports.
    services: BTreeMap<ObjectName, Arc<Service>>,
    manual_slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    pods: BTreeMap<PodUid, PodFacts>,
    /// The directory was read once.
    objects_known: bool,
    /// The node has told of all its pods once.
    pods_known: bool,
}

impl Lone {
    /// `given` is the record that was written down last.
    pub fn new(ranges: Ranges, node_name: &str, given: BTreeMap<String, Given>) -> Lone {
        Lone {
            ranges,
            node_name: node_name.to_owned(),
            given,
            wanted: BTreeMap::new(),
            services: BTreeMap::new(),
            manual_slices: BTreeMap::new(),
            slices: BTreeMap::new(),
            pods: BTreeMap::new(),
            objects_known: false,
            pods_known: false,
        }
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn slices(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.values()
    }

    /// The directory's services and slices, whole.
    pub fn set_objects(&mut self, services: Vec<Arc<Service>>, slices: Vec<Arc<EndpointSlice>>) -> Vec<Output> {
        let name = |m: &longshore_dataplane::wire::ObjectMeta| ObjectName::new(&m.namespace, &m.name);
        self.wanted = services.into_iter().map(|s| (name(&s.metadata), s)).collect();
        self.manual_slices = slices.into_iter().map(|s| (name(&s.metadata), s)).collect();
        let mut out = Vec::new();
        self.give_addresses(&mut out);
        let all: Vec<ObjectName> = self.services.keys().cloned().collect();
        self.refresh_slices(all, &mut out);
        if !self.objects_known {
            self.objects_known = true;
            self.sync(&mut out);
        }
        out
    }

    /// The node has told of all its pods: what was said is all there is. Nothing is programmed before, or
    /// a restart of the daemon would take the endpoints of every service away for a moment.
    pub fn all_pods_told(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        if !self.pods_known {
            self.pods_known = true;
            self.sync(&mut out);
        }
        out
    }

    fn sync(&self, out: &mut Vec<Output>) {
        if self.objects_known && self.pods_known {
            out.push(Output::Dataplane(Change::Synced));
        }
    }

    /// A pod changed, or went.
    pub fn set_pod(&mut self, uid: &PodUid, facts: Option<PodFacts>) -> Vec<Output> {
        let before = match facts {
            Some(f) if self.pods.get(uid) == Some(&f) => return Vec::new(),
            Some(f) => self.pods.insert(uid.clone(), f),
            None => self.pods.remove(uid),
        };
        let after = self.pods.get(uid);
        let touched = |s: &Service| before.iter().chain(after).any(|p| endpoints::selects(s, p));
        let services: Vec<ObjectName> = self.services.iter().filter(|(_, s)| touched(s)).map(|(n, _)| n.clone()).collect();
        let mut out = Vec::new();
        self.refresh_slices(services, &mut out);
        out
    }

    fn give_addresses(&mut self, out: &mut Vec<Output>) {
        let (effective, given, refused) = addresses::give(&self.ranges, &self.given, self.wanted.values().map(AsRef::as_ref));
        if given != self.given {
            self.given = given.clone();
            out.push(Output::Record(given));
        }
        out.extend(refused.into_iter().map(|(name, why)| Output::Refused(name, why)));
        let fresh: BTreeMap<ObjectName, Arc<Service>> = effective
            .into_iter()
            .map(|s| {
                let name = ObjectName::new(&s.metadata.namespace, &s.metadata.name);
                let known = self.services.get(&name).filter(|k| ***k == s).cloned();
                (name, known.unwrap_or_else(|| Arc::new(s)))
            })
            .collect();
        for (name, s) in &fresh {
            if !self.services.get(name).is_some_and(|k| Arc::ptr_eq(k, s)) {
                out.push(Output::Dataplane(Change::SetService(s.clone())));
            }
        }
        for name in self.services.keys().filter(|n| !fresh.contains_key(*n)) {
            out.push(Output::Dataplane(Change::DeleteService { namespace: name.namespace.to_string(), name: name.name.to_string() }));
        }
        if self.services != fresh || !self.objects_known {
            self.services = fresh;
            out.push(Output::Environment(Arc::new(self.environment())));
        }
    }

    fn environment(&self) -> Vec<ServiceAddress> {
        self.services.values().filter_map(|s| announced(s)).collect()
    }

    /// Makes the slices of these services anew, and drops those whose service or manifest is gone.
    fn refresh_slices(&mut self, services: Vec<ObjectName>, out: &mut Vec<Output>) {
        let scope: BTreeSet<ObjectName> = services.into_iter().collect();
        let mut fresh: BTreeMap<ObjectName, EndpointSlice> = BTreeMap::new();
        for name in &scope {
            let Some(s) = self.services.get(name).filter(|s| !s.spec.selector.is_empty()) else { continue };
            for slice in endpoints::slices(s, self.pods.values(), &self.node_name) {
                fresh.insert(ObjectName::new(&slice.metadata.namespace, &slice.metadata.name), slice);
            }
        }
        fresh.extend(self.manual_slices.iter().map(|(n, s)| (n.clone(), (**s).clone())));
        let owner = |s: &EndpointSlice| {
            let service = s.metadata.labels.get(endpoints::SERVICE_NAME).map_or("", String::as_str);
            ObjectName::new(&s.metadata.namespace, service)
        };
        let in_scope = |s: &EndpointSlice| scope.contains(&owner(s)) || !self.services.contains_key(&owner(s));
        let gone: Vec<ObjectName> =
            self.slices.iter().filter(|(n, s)| in_scope(s) && !fresh.contains_key(*n)).map(|(n, _)| n.clone()).collect();
        for name in gone {
            self.slices.remove(&name);
            out.push(Output::Dataplane(Change::DeleteSlice { namespace: name.namespace.to_string(), name: name.name.to_string() }));
        }
        for (name, slice) in fresh {
            if self.slices.get(&name).is_none_or(|k| **k != slice) {
                let slice = Arc::new(slice);
                self.slices.insert(name, slice.clone());
                out.push(Output::Dataplane(Change::SetSlice(slice)));
            }
        }
    }
}

/// What environments show of a service; None of one without an address.
pub fn announced(s: &Service) -> Option<ServiceAddress> {
    if s.spec.cluster_ip.is_empty() || s.spec.cluster_ip == "None" {
        return None;
    }
    let port = |p: &longshore_dataplane::wire::ServicePort| ServicePort {
        name: p.name.clone(),
        port: u16::try_from(p.port).unwrap_or(0),
        protocol: match p.protocol.as_str() {
            "UDP" => Protocol::UDP,
            "SCTP" => Protocol::SCTP,
            _ => Protocol::TCP,
        },
    };
    Some(ServiceAddress {
        namespace: s.metadata.namespace.clone(),
        name: s.metadata.name.clone(),
        cluster_ip: s.spec.cluster_ip.clone(),
        ports: s.spec.ports.iter().map(port).collect(),
    })
}
