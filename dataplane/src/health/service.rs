//! Health checks of services: what a load balancer's probe of a healthCheckNodePort is told, and which ports listen.
//!
//! Owns the answer and the difference between ports that listen and ports that should. Never opens a socket. Tests are
//! at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use crate::model::{Family, ObjectName};
use crate::resolve::HealthCheck;

/// One service's health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    pub port: u16,
    /// Distinct addresses of ready endpoints on this node.
    pub local_endpoints: usize,
}

/// All health checks, by service and family: each family's server tells its own count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks(BTreeMap<(ObjectName, Family), Check>);

impl Checks {
    /// Returns whether anything changed.
    pub fn set(&mut self, name: &ObjectName, family: Family, check: Option<HealthCheck>) -> bool {
        match check {
            Some(HealthCheck { port, local_endpoints }) => {
                let check = Check { port, local_endpoints };
                self.0.insert((name.clone(), family), check) != Some(check)
            }
            None => !self.0.is_empty() && self.0.remove(&(name.clone(), family)).is_some(),
        }
    }

    pub fn get(&self, name: &ObjectName, family: Family) -> Option<Check> {
        self.0.get(&(name.clone(), family)).copied()
    }

    /// The ports that should listen.
    pub fn ports(&self) -> BTreeMap<(ObjectName, Family), u16> {
        self.0.iter().map(|(key, check)| (key.clone(), check.port)).collect()
    }
}

/// Status, body and weight of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub healthy: bool,
    pub body: String,
    /// Of the header `X-Load-Balancing-Endpoint-Weight`.
    pub weight: usize,
}

/// Well only with an endpoint on this node and a proxy that keeps up.
pub fn answer(name: &ObjectName, local_endpoints: usize, proxy_healthy: bool) -> Answer {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {},\n\t\t\"name\": {}\n\t}},\n\t\"localEndpoints\": {local_endpoints},\n\t\
         \"serviceProxyHealthy\": {proxy_healthy}\n}}",
        quoted(name.namespace()),
        quoted(name.name())
    );
    Answer { healthy: local_endpoints > 0 && proxy_healthy, body, weight: local_endpoints }
}

/// What is to be closed, and then opened, for `want` to listen instead of `have`.
pub fn plan<K: Ord + Clone>(have: &BTreeMap<K, u16>, want: &BTreeMap<K, u16>) -> (Vec<K>, Vec<(K, u16)>) {
    let close = have.iter().filter(|(key, port)| want.get(*key) != Some(*port)).map(|(key, _)| key.clone()).collect();
    let open = want.iter().filter(|(key, port)| have.get(*key) != Some(*port)).map(|(key, port)| (key.clone(), *port)).collect();
    (close, open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_to_the_byte_what_load_balancers_know() {
        let got = answer(&ObjectName::new("ns1", "web"), 2, true);
        let wanted = "{\n\t\"service\": {\n\t\t\"namespace\": \"ns1\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\
            \"serviceProxyHealthy\": true\n}";
        assert_eq!((got.body.as_str(), got.healthy, got.weight), (wanted, true, 2));
        assert!(!answer(&ObjectName::new("ns1", "web"), 0, true).healthy);
        assert!(!answer(&ObjectName::new("ns1", "web"), 1, false).healthy);
    }

    #[test]
    fn a_port_that_changed_is_closed_before_the_new_one_is_opened() {
        let have = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
        let want = BTreeMap::from([("a", 1), ("b", 9), ("d", 4)]);
        assert_eq!(plan(&have, &want), (vec!["b", "c"], vec![("b", 9), ("d", 4)]));
    }

    #[test]
    fn each_family_has_its_own_count() {
        let mut checks = Checks::default();
        let web = ObjectName::new("ns1", "web");
        let of = |local_endpoints| Some(HealthCheck { port: 31_000, local_endpoints });
        assert!(checks.set(&web, Family::V4, of(1)));
        assert!(!checks.set(&web, Family::V4, of(1)));
        assert!(checks.set(&web, Family::V6, of(0)));
        assert_eq!(checks.get(&web, Family::V6).map(|check| check.local_endpoints), Some(0));
        assert!(checks.set(&web, Family::V4, None));
        assert_eq!(checks.ports().len(), 1);
    }
}
