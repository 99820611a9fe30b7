//! The desired state: all Services and EndpointSlices, and which services changed since they were last asked for.
//!
//! Owns the compact objects. Never resolves, never programs. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::claims::Claims;
use crate::events::Event;
use crate::model::{Cidr, Family, ObjectName, Service, Slice, convert};
use crate::resolve::{NodeView, Resolved, claims, resolve};
use crate::wire;

/// A service as the store has it. Slices may come before their service.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Service>,
    /// In the order of their names, so that it does not depend on history.
    slices: Vec<(ObjectName, Slice)>,
}

impl Entry {
    fn position(&self, name: &ObjectName) -> Result<usize, usize> {
        self.slices.binary_search_by(|(held, _)| held.cmp(name))
    }

    /// False when it was there already.
    fn put_slice(&mut self, name: &ObjectName, slice: Slice) -> bool {
        match self.position(name) {
            Ok(at) if self.slices[at].1 == slice => return false,
            Ok(at) => self.slices[at].1 = slice,
            Err(at) => {
                // Most services have one slice.
                self.slices.reserve_exact(1);
                self.slices.insert(at, (name.clone(), slice));
            }
        }
        true
    }
}

#[derive(Debug)]
pub struct ServiceStore {
    node_name: String,
    node: NodeView,
    entries: HashMap<ObjectName, Entry>,
    /// The service each slice belongs to, for when it moves or goes.
    slice_owners: HashMap<ObjectName, ObjectName>,
    /// Entries with a service.
    services: usize,
    names: PortNames,
    claims: Claims,
    service_cidrs: BTreeMap<String, Vec<Cidr>>,
    dirty: BTreeSet<ObjectName>,
    events: Vec<Event>,
    /// Slices with parts that cannot be used, which was told.
    malformed: HashSet<ObjectName>,
}

impl ServiceStore {
    pub fn new(node_name: &str, zone: Option<&str>, node_ips: &[IpAddr]) -> ServiceStore {
        ServiceStore {
            node_name: node_name.into(),
            node: NodeView { zone: zone.map(Arc::from), node_ips: node_ips.into() },
            entries: HashMap::new(),
            slice_owners: HashMap::new(),
            services: 0,
            names: PortNames::default(),
            claims: Claims::default(),
            service_cidrs: BTreeMap::new(),
            dirty: BTreeSet::new(),
            events: Vec::new(),
            malformed: HashSet::new(),
        }
    }

    /// Returns whether it is a change.
    pub fn set_service(&mut self, object: &wire::Service) -> bool {
        let name = ObjectName::new(&object.metadata.namespace, &object.metadata.name);
        let service = convert::service(object);
        let used = service.is_some();
        let changed = self.put_service(name.clone(), service);
        if changed && used {
            for objection in convert::service_objections(object) {
                self.events.push(Event::warning(&name, "InvalidService", "Program", objection));
            }
        }
        changed
    }

    pub fn delete_service(&mut self, name: ObjectName) -> bool {
        self.put_service(name, None)
    }

    fn put_service(&mut self, name: ObjectName, mut service: Option<Service>) -> bool {
        for port in service.iter_mut().flat_map(|service| &mut service.ports) {
            port.name = self.names.share(&port.name);
        }
        let held = self.entries.get_key_value(&name).map(|(name, _)| name.clone());
        let name = held.unwrap_or(name);
        let before = self.entries.get(&name).and_then(|entry| entry.service.as_ref());
        let changed = before != service.as_ref();
        if changed {
            self.services += usize::from(service.is_some());
            self.services -= usize::from(before.is_some());
            self.shift_claims(&name, service.as_ref());
            self.dirty.insert(name.clone());
            self.entries.entry(name.clone()).or_default().service = service;
        }
        self.forget_if_empty(&name);
        changed
    }

    /// Settles who has which frontend from now on.
    fn shift_claims(&mut self, name: &ObjectName, after: Option<&Service>) {
        let of = |service: Option<&Service>| service.map_or_else(Default::default, |service| (claims(service), service.created));
        let entries = &self.entries;
        let service_of = |name: &ObjectName| entries.get(name).and_then(|entry| entry.service.as_ref());
        let (before, was_created) = of(service_of(name));
        let (after, created) = of(after);
        let age = |other: &ObjectName| service_of(other).map_or(u64::MAX, |service| service.created);
        let shift = self.claims.set(name, (&before, was_created), (&after, created), age);
        self.dirty.extend(shift.touched);
        for (key, loser, owner) in shift.denied {
            let message = format!("{key} is service {owner}'s, which is older or comes first by name");
            self.events.push(Event::warning(&loser, "DuplicateFrontend", "Program", message));
        }
    }

    /// Returns whether it is a change.
    pub fn set_slice(&mut self, object: &wire::EndpointSlice) -> bool {
        let name = ObjectName::new(&object.metadata.namespace, &object.metadata.name);
        let converted = convert::slice(object, &self.node_name);
        self.complain(&name, object, converted.as_ref());
        let Some(mut slice) = converted else {
            return self.delete_slice(&name);
        };
        if self.slice_owners.get(&name).is_some_and(|owner| *owner != slice.service) {
            self.delete_slice(&name);
        }
        // One copy of each name serves all.
        let held = self.entries.get_key_value(&slice.service).map(|(name, _)| name.clone());
        let owner = held.unwrap_or_else(|| slice.service.clone());
        slice.service = owner.clone();
        for port in &mut slice.ports {
            port.name = self.names.share(&port.name);
        }
        let changed = self.entries.entry(owner.clone()).or_default().put_slice(&name, slice);
        if changed {
            self.slice_owners.insert(name, owner.clone());
            self.touch(owner);
        }
        changed
    }

    /// Tells, once, of parts of a slice that cannot be used.
    fn complain(&mut self, name: &ObjectName, object: &wire::EndpointSlice, converted: Option<&Slice>) {
        let whole = |slice: &Slice| slice.endpoints.len() == object.endpoints.len() && slice.ports.len() == object.ports.len();
        let objections = if converted.is_some_and(whole) { Vec::new() } else { convert::slice_objections(object) };
        if objections.is_empty() {
            if !self.malformed.is_empty() {
                self.malformed.remove(name);
            }
        } else if self.malformed.insert(name.clone()) {
            for objection in objections {
                let message = format!("EndpointSlice {name}: {objection}");
                let owner = converted.map(|slice| &slice.service).unwrap_or(name);
                self.events.push(Event::warning(owner, "InvalidEndpointSlice", "Program", message));
            }
        }
    }

    /// Returns whether it was there.
    pub fn delete_slice(&mut self, name: &ObjectName) -> bool {
        self.malformed.remove(name);
        let Some(owner) = self.slice_owners.remove(name) else { return false };
        if let Some(entry) = self.entries.get_mut(&owner)
            && let Ok(at) = entry.position(name)
        {
            entry.slices.remove(at);
        }
        self.touch(owner.clone());
        self.forget_if_empty(&owner);
        true
    }

    /// Slices of a service that does not exist change nothing.
    fn touch(&mut self, name: ObjectName) {
        if self.entries.get(&name).is_some_and(|entry| entry.service.is_some()) {
            self.dirty.insert(name);
        }
    }

    fn forget_if_empty(&mut self, name: &ObjectName) {
        if self.entries.get(name).is_some_and(|entry| entry.service.is_none() && entry.slices.is_empty()) {
            self.entries.remove(name);
        }
    }

    /// The node's zone decides about topology hints, so every service may change.
    pub fn set_zone(&mut self, zone: Option<&str>) {
        if self.node.zone.as_deref() != zone {
            self.node.zone = zone.map(Arc::from);
            self.touch_all();
        }
    }

    /// This node's addresses decide who may use load balancers' addresses.
    pub fn set_node_ips(&mut self, ips: &[IpAddr]) {
        if *self.node.node_ips != *ips {
            self.node.node_ips = ips.into();
            let entries = self.entries.iter();
            let guarded = entries.filter(|(_, entry)| entry.service.as_ref().is_some_and(|s| !s.source_ranges.is_empty()));
            self.dirty.extend(guarded.map(|(name, _)| name.clone()));
        }
    }

    /// `None` deletes it. Returns whether it is a change.
    pub fn set_service_cidr(&mut self, name: &str, object: Option<&wire::ServiceCidr>) -> bool {
        let before = match object {
            Some(object) => self.service_cidrs.insert(name.into(), convert::service_cidrs(object)),
            None => self.service_cidrs.remove(name),
        };
        before.as_ref() != self.service_cidrs.get(name)
    }

    /// All ranges that cluster IPs are allocated from, none within another.
    pub fn service_cidrs(&self, family: Family) -> Box<[Cidr]> {
        Cidr::aggregate(self.service_cidrs.values().flatten().copied().filter(|cidr| cidr.family() == family))
    }

    pub fn touch_all(&mut self) {
        let services = self.entries.iter().filter(|(_, entry)| entry.service.is_some());
        self.dirty.extend(services.map(|(name, _)| name.clone()));
    }

    /// Services that changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.dirty)
    }

    /// What users should be told since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Names of the services that exist.
    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.entries.iter().filter(|(_, entry)| entry.service.is_some()).map(|(name, _)| name)
    }

    /// How many services exist.
    pub fn services(&self) -> usize {
        self.services
    }

    /// The slice of a service that has an endpoint with this address.
    pub fn slice_of(&self, service: &ObjectName, ip: IpAddr) -> Option<&ObjectName> {
        let slices = &self.entries.get(service)?.slices;
        slices.iter().find(|(_, slice)| slice.endpoints.iter().any(|e| e.ip == ip)).map(|(name, _)| name)
    }

    /// What a service is now; nothing, when it does not exist.
    pub fn resolve(&self, name: &ObjectName, family: Family) -> Resolved {
        let entry = self.entries.get(name);
        let Some((entry, service)) = entry.and_then(|entry| Some((entry, entry.service.as_ref()?))) else {
            return Resolved::default();
        };
        let mut resolved = resolve(service, entry.slices.iter().map(|(_, slice)| slice), family, &self.node);
        if self.claims.any_contested() {
            resolved.frontends.retain(|frontend| self.claims.has(name, &(family, frontend.key)));
            for port in &mut resolved.udp {
                port.frontends.retain(|key| self.claims.has(name, &(family, *key)));
            }
        }
        resolved
    }
}

/// Names of ports: few, and each held once.
#[derive(Debug, Default)]
struct PortNames(HashSet<Arc<str>>);

impl PortNames {
    fn share(&mut self, name: &Arc<str>) -> Arc<str> {
        match self.0.get(name) {
            Some(held) => held.clone(),
            None => {
                self.0.insert(name.clone());
                name.clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Action;
    use serde_json::json;

    fn service(port: u16) -> wire::Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns1"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]}}))
        .unwrap()
    }

    fn slice(name: &str, owner: &str, ip: &str) -> wire::EndpointSlice {
        serde_json::from_value(json!({"addressType": "IPv4", "endpoints": [{"addresses": [ip]}],
            "ports": [{"name": "", "port": 8080}],
            "metadata": {"name": name, "namespace": "ns1", "labels": {"kubernetes.io/service-name": owner}}}))
        .unwrap()
    }

    fn dirty(store: &mut ServiceStore) -> Vec<String> {
        store.take_dirty().iter().map(ObjectName::to_string).collect()
    }

    #[test]
    fn a_slice_may_come_before_its_service_and_is_used_then() {
        let mut store = ServiceStore::new("n1", None, &[]);
        store.set_slice(&slice("web-1", "web", "10.1.0.1"));
        assert!(dirty(&mut store).is_empty());
        store.set_service(&service(80));
        assert_eq!(dirty(&mut store), ["ns1/web"]);
        let resolved = store.resolve(&ObjectName::new("ns1", "web"), Family::V4);
        assert!(matches!(resolved.frontends[0].action, Action::Forward { .. }));
    }

    #[test]
    fn the_same_object_again_is_no_change() {
        let mut store = ServiceStore::new("n1", None, &[]);
        store.set_service(&service(80));
        store.set_slice(&slice("web-1", "web", "10.1.0.1"));
        store.take_dirty();
        store.set_service(&service(80));
        store.set_slice(&slice("web-1", "web", "10.1.0.1"));
        assert!(!store.has_dirty());
        store.set_slice(&slice("web-1", "web", "10.1.0.2"));
        assert_eq!(dirty(&mut store), ["ns1/web"]);
    }

    #[test]
    fn the_older_of_two_services_with_one_address_has_it_and_the_other_is_told() {
        let mut store = ServiceStore::new("n1", None, &[]);
        let at = |name: &str, created: &str| {
            let mut object = service(80);
            object.metadata.name = name.into();
            object.metadata.creation_timestamp = Some(created.into());
            object.spec.cluster_ip = format!("10.96.0.{}", name.len());
            object.spec.external_ips = vec!["192.0.2.1".into()];
            object
        };
        let external = |store: &ServiceStore, name: &str| store.resolve(&ObjectName::new("ns1", name), Family::V4).frontends.len() == 2;
        store.set_service(&at("young", "2026-02-01T00:00:00Z"));
        store.take_dirty();
        store.set_service(&at("ancient", "2026-01-01T00:00:00Z"));
        assert_eq!(dirty(&mut store), ["ns1/ancient", "ns1/young"]);
        assert!(external(&store, "ancient") && !external(&store, "young"));
        let events = store.take_events();
        assert_eq!((events.len(), events[0].reason), (1, "DuplicateFrontend"));
        assert!(events[0].message.starts_with("tcp 192.0.2.1:80 is service ns1/ancient's"), "{}", events[0].message);
        store.delete_service(ObjectName::new("ns1", "ancient"));
        assert_eq!(dirty(&mut store), ["ns1/ancient", "ns1/young"]);
        assert!(external(&store, "young"));
    }

    #[test]
    fn malformed_parts_of_a_slice_are_told_once() {
        let mut store = ServiceStore::new("n1", None, &[]);
        let mut bad = slice("web-1", "web", "10.1.0.1");
        bad.endpoints.push(wire::Endpoint { addresses: vec!["fd00::1".into()], ..Default::default() });
        store.set_slice(&bad);
        assert_eq!(store.take_events().len(), 1);
        store.set_slice(&bad);
        assert_eq!(store.take_events(), []);
        store.set_slice(&slice("web-1", "web", "10.1.0.1"));
        store.set_slice(&bad);
        assert_eq!(store.take_events().len(), 1);
    }

    #[test]
    fn a_slice_that_changes_its_owner_touches_both() {
        let mut store = ServiceStore::new("n1", None, &[]);
        store.set_service(&service(80));
        let mut other = service(80);
        other.metadata.name = "other".into();
        store.set_service(&other);
        store.set_slice(&slice("s", "web", "10.1.0.1"));
        store.take_dirty();
        store.set_slice(&slice("s", "other", "10.1.0.1"));
        assert_eq!(dirty(&mut store), ["ns1/other", "ns1/web"]);
    }

    #[test]
    fn what_is_deleted_is_forgotten() {
        let mut store = ServiceStore::new("n1", None, &[]);
        store.set_service(&service(80));
        store.set_slice(&slice("web-1", "web", "10.1.0.1"));
        store.delete_service(ObjectName::new("ns1", "web"));
        store.delete_slice(&ObjectName::new("ns1", "web-1"));
        assert_eq!(dirty(&mut store), ["ns1/web"]);
        assert!(store.entries.is_empty() && store.slice_owners.is_empty());
    }

    #[test]
    fn a_new_zone_touches_every_service() {
        let mut store = ServiceStore::new("n1", Some("a"), &[]);
        store.set_service(&service(80));
        store.take_dirty();
        store.set_zone(Some("a"));
        assert!(!store.has_dirty());
        store.set_zone(Some("b"));
        assert_eq!(dirty(&mut store), ["ns1/web"]);
    }
}
