//! A resolved service to its chains and rules.
//!
//! Owns which rules kube-proxy writes for a service port, in which order, and with which comments. Never decides where
//! packets may go: that is `resolve`'s. Tests: `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::ir::{Interface, Match, Place, Rule, Table, Target};
use super::names::{Chain, ChainHash, Fixed, Kind, service_port};
use super::schema::{LOCALHOST_ACCEPTED, Options, host, not_within, unmark_masq, within};
use crate::config::DetectLocal;
use crate::model::{Cidr, FrontendKey, ObjectName, Protocol};
use crate::resolve::{Action, Frontend, FrontendKind, Resolved};

/// One service in one family, as little as its rules can be made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    pub ports: Box<[Port]>,
    pub health_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub frontends: Box<[(FrontendKind, FrontendKey)]>,
    /// Endpoints for cluster-wide traffic, and for that which stays on this node.
    pub cluster: Arc<[SocketAddr]>,
    pub local: Arc<[SocketAddr]>,
    pub internal_local: bool,
    pub external_local: bool,
    /// There are endpoints somewhere.
    pub any: bool,
    pub affinity_seconds: Option<u32>,
    /// Of the load balancer's addresses; empty lets all in.
    pub sources: Box<[Cidr]>,
}

impl Fragment {
    pub fn of(resolved: &Resolved) -> Fragment {
        let same_port = |a: &Frontend, b: &Frontend| a.port_name == b.port_name && a.key.protocol() == b.key.protocol();
        let ports = resolved.frontends.chunk_by(same_port).map(|frontends| Port::of(frontends, resolved.internal_local));
        Fragment { ports: ports.collect(), health_port: resolved.health.map(|health| health.port) }
    }

    /// In all lists.
    pub fn endpoints(&self) -> usize {
        self.ports.iter().map(|port| port.cluster.len().max(port.local.len())).sum()
    }
}

impl Port {
    fn of(frontends: &[Frontend], internal_local: bool) -> Port {
        let first = &frontends[0];
        let mut port = Port {
            name: first.port_name.clone(),
            protocol: first.key.protocol(),
            frontends: frontends.iter().map(|frontend| (frontend.kind, frontend.key)).collect(),
            cluster: Arc::default(),
            local: Arc::default(),
            internal_local,
            external_local: false,
            any: false,
            affinity_seconds: first.affinity_seconds,
            sources: frontends.iter().find(|f| !f.source_ranges.is_empty()).map_or_else(Box::default, |f| f.source_ranges.clone()),
        };
        for frontend in frontends {
            port.any |= frontend.action != Action::Refuse;
            match &frontend.action {
                Action::Forward { endpoints } if internal_local => port.local = endpoints.clone(),
                Action::Forward { endpoints } | Action::ForwardMasked { endpoints } => port.cluster = endpoints.clone(),
                Action::ForwardLocal { cluster, local } => {
                    port.cluster = cluster.clone();
                    port.external_local = true;
                    if !local.is_empty() {
                        port.local = local.clone();
                    }
                }
                Action::Drop => port.external_local |= frontend.kind != FrontendKind::ClusterIp,
                Action::Refuse => {}
            }
        }
        port
    }

    fn is_external(&self) -> bool {
        self.frontends.iter().any(|(kind, _)| *kind != FrontendKind::ClusterIp)
    }

    fn has_internal(&self) -> bool {
        self.any && !(self.internal_local && self.local.is_empty())
    }

    fn has_external(&self) -> bool {
        self.any && !(self.external_local && self.local.is_empty())
    }

    fn is_guarded(&self) -> bool {
        self.any && !self.sources.is_empty()
    }
}

/// A service's rules: chains of its own in nat, and what it adds to the chains of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    pub chains: BTreeMap<Chain, Vec<Rule>>,
    pub shared: Vec<(Place, Rule)>,
}

/// Compiles a service. In a large cluster comments are left out of the chains that grow with endpoints.
pub fn compile(name: &ObjectName, fragment: &Fragment, options: &Options, large: bool) -> Compiled {
    let mut chains = BTreeMap::new();
    for port in &fragment.ports {
        Writer::new(name, port, options, large).chains(&mut chains);
    }
    Compiled { chains, shared: shared(name, fragment, options) }
}

/// Only what a service adds to the chains of all.
pub fn shared(name: &ObjectName, fragment: &Fragment, options: &Options) -> Vec<(Place, Rule)> {
    let mut shared = Vec::new();
    for port in &fragment.ports {
        let writer = Writer::new(name, port, options, false);
        for (kind, key) in &port.frontends {
            writer.frontend(*kind, key, &mut shared);
        }
        shared.extend(fragment.health_port.map(|health| writer.health_check(health)));
    }
    shared
}

/// One service port on its way into rules.
struct Writer<'a> {
    port: &'a Port,
    options: &'a Options,
    large: bool,
    /// `ns/name:port`
    name: String,
    hash: ChainHash,
}

impl<'a> Writer<'a> {
    fn new(service: &ObjectName, port: &'a Port, options: &'a Options, large: bool) -> Writer<'a> {
        let name = service_port(service, &port.name);
        let hash = ChainHash::of_port(&name, port.protocol);
        Writer { port, options, large, name, hash }
    }

    fn chain(&self, kind: Kind) -> Chain {
        Chain::Of(kind, self.hash)
    }

    fn policy_chain(&self, local: bool) -> Chain {
        self.chain(if local { Kind::Local } else { Kind::Cluster })
    }

    /// A rule for packets to one of the service's addresses, or to its node port.
    fn to_frontend(&self, key: &FrontendKey, rule: Rule) -> Rule {
        let (destination, port) = match key {
            FrontendKey::Vip { ip, port, .. } => (within(host(*ip)), *port),
            FrontendKey::NodePort { port, .. } => (None, *port),
        };
        Rule { protocol: Some(self.port.protocol), destination, ..rule.when(Match::Port(Some(port))) }
    }

    fn chains(&self, chains: &mut BTreeMap<Chain, Vec<Rule>>) {
        let port = self.port;
        if port.any && port.is_external() {
            chains.insert(self.chain(Kind::External), self.external());
        }
        if port.is_guarded() {
            chains.insert(self.chain(Kind::Firewall), self.firewall());
        }
        for (local, list) in [(false, &port.cluster), (true, &port.local)] {
            if list.is_empty() {
                continue;
            }
            let mut rules = self.masquerade_internal(local);
            let endpoints = sorted(list);
            self.balance(&endpoints, &mut rules);
            chains.insert(self.policy_chain(local), rules);
            for endpoint in endpoints {
                chains.entry(self.endpoint_chain(endpoint)).or_insert_with(|| self.endpoint(endpoint));
            }
        }
    }

    /// What a frontend adds to the chains of all services.
    fn frontend(&self, kind: FrontendKind, key: &FrontendKey, shared: &mut Vec<(Place, Rule)>) {
        let port = self.port;
        let (what, nat) = match kind {
            FrontendKind::ClusterIp => ("cluster IP", self.policy_chain(port.internal_local)),
            FrontendKind::ExternalIp => ("external IP", self.chain(Kind::External)),
            FrontendKind::LoadBalancer if port.is_guarded() => ("loadbalancer IP", self.chain(Kind::Firewall)),
            FrontendKind::LoadBalancer => ("loadbalancer IP", self.chain(Kind::External)),
            FrontendKind::NodePort => ("", self.chain(Kind::External)),
        };
        let internal = kind == FrontendKind::ClusterIp;
        let mut add = |table: Table, chain: Fixed, rule: Rule| shared.push(((table, Chain::Fixed(chain)), rule));
        if if internal { port.has_internal() } else { port.any } {
            match kind {
                FrontendKind::NodePort => {
                    self.node_port(key).into_iter().for_each(|rule| add(Table::Nat, Fixed::NodePorts, rule));
                }
                _ => {
                    let rule = Rule::jump(nat).comment(&format!("{} {what}", self.name));
                    add(Table::Nat, Fixed::Services, self.to_frontend(key, rule));
                }
            }
        }
        if kind == FrontendKind::LoadBalancer && port.is_guarded() {
            let comment = format!("{} traffic not accepted by {}", self.name, self.chain(Kind::Firewall));
            add(Table::Filter, Fixed::ProxyFirewall, self.to_frontend(key, Rule::to(Target::Drop).comment(&comment)));
        }
        if !if internal { port.has_internal() } else { port.has_external() } {
            let chain = if internal { Fixed::Services } else { Fixed::ExternalServices };
            add(Table::Filter, chain, self.refusal(kind, key));
        }
    }

    /// Load balancers may ask for the service's health, whatever else the node's firewall says.
    fn health_check(&self, port: u16) -> (Place, Rule) {
        let rule = Rule::to(Target::Accept).comment(&format!("{} health check node port", self.name));
        let rule = Rule { protocol: Some(Protocol::Tcp), ..rule.when(Match::Port(Some(port))) };
        ((Table::Filter, Chain::Fixed(Fixed::NodePorts)), rule)
    }

    /// Nothing answers: refused when there is no endpoint at all, dropped when there is none on this node.
    fn refusal(&self, kind: FrontendKind, key: &FrontendKey) -> Rule {
        let (what, target) = if self.port.any { ("has no local endpoints", Target::Drop) } else { ("has no endpoints", Target::Reject) };
        let mut rule = Rule::to(target).comment(&format!("{} {what}", self.name));
        if kind == FrontendKind::NodePort {
            rule = rule.when(Match::DestinationIsLocal);
        }
        self.to_frontend(key, rule)
    }

    fn node_port(&self, key: &FrontendKey) -> Vec<Rule> {
        let rule = || self.to_frontend(key, Rule::jump(self.chain(Kind::External)).comment(&self.name));
        let mut rules = Vec::new();
        if self.options.localhost_node_ports && self.options.accounting {
            let counted = rule().when(Match::Account(LOCALHOST_ACCEPTED.into()));
            rules.push(Rule { destination: within(self.options.loopback()), ..counted });
        }
        rules.push(rule());
        rules
    }

    /// The first rules of the chain that the cluster IP leads to: whose source is masked.
    fn masquerade_internal(&self, local: bool) -> Vec<Rule> {
        let cluster_ip = self.port.frontends.iter().find(|(kind, _)| *kind == FrontendKind::ClusterIp);
        let Some((_, key)) = cluster_ip.filter(|_| local == self.port.internal_local) else { return Vec::new() };
        let comment = format!("{} cluster IP", self.name);
        let rule = || self.to_frontend(key, Rule::jump(Chain::Fixed(Fixed::MarkMasq)).comment(&comment));
        if self.options.common.masquerade_all {
            return vec![rule()];
        }
        let detectors = detectors(self.options);
        if let [one] = &detectors[..] {
            return vec![one.rule(rule(), true)];
        }
        if detectors.is_empty() {
            return Vec::new();
        }
        // One rule cannot say "from none of these": so all are marked, and pods' packets are not in the end.
        let unmarked = |detector: &Detector| {
            let unmark = Rule { target: Some(unmark_masq(self.options)), ..rule() };
            detector.rule(unmark, false)
        };
        [rule()].into_iter().chain(detectors.iter().map(unmarked)).collect()
    }

    fn external(&self) -> Vec<Rule> {
        let name = &self.name;
        let mark = || Rule::jump(Chain::Fixed(Fixed::MarkMasq));
        let mut rules = Vec::new();
        if self.port.external_local {
            let pods = || Rule::jump(self.chain(Kind::Cluster)).comment(&format!("pod traffic for {name} external destinations"));
            rules.extend(detectors(self.options).iter().map(|detector| detector.rule(pods(), false)));
            let comment = format!("masquerade LOCAL traffic for {name} external destinations");
            rules.push(mark().comment(&comment).when(Match::SourceIsLocal));
            let comment = format!("route LOCAL traffic for {name} external destinations");
            rules.push(Rule::jump(self.chain(Kind::Cluster)).comment(&comment).when(Match::SourceIsLocal));
        } else {
            rules.push(mark().comment(&format!("masquerade traffic for {name} external destinations")));
        }
        if self.port.has_external() {
            rules.push(Rule::jump(self.policy_chain(self.port.external_local)));
        }
        rules
    }

    fn firewall(&self) -> Vec<Rule> {
        let comment = format!("{} loadbalancer IP", self.name);
        let admit = |range: &Cidr| Rule { source: within(*range), ..Rule::jump(self.chain(Kind::External)).comment(&comment) };
        let mut rules: Vec<Rule> = self.port.sources.iter().map(admit).collect();
        // Stops nothing; it tells whoever reads the rules what does.
        let rest = format!("other traffic to {} will be dropped by KUBE-PROXY-FIREWALL", self.name);
        rules.push(Rule::default().comment(&rest));
        rules
    }

    fn endpoint_chain(&self, endpoint: SocketAddr) -> Chain {
        Chain::Of(Kind::Endpoint, ChainHash::of_endpoint(&self.name, self.port.protocol, endpoint))
    }

    fn commented(&self, rule: Rule, text: impl FnOnce() -> String) -> Rule {
        if self.large { rule } else { rule.comment(&text()) }
    }

    /// Clients that are remembered go where they went, others to any endpoint with the same odds.
    fn balance(&self, endpoints: &[SocketAddr], rules: &mut Vec<Rule>) {
        let to =
            |endpoint: SocketAddr| self.commented(Rule::jump(self.endpoint_chain(endpoint)), || format!("{} -> {endpoint}", self.name));
        if let Some(seconds) = self.port.affinity_seconds {
            let remembered = |endpoint: SocketAddr| Match::Remembered { list: self.endpoint_chain(endpoint), seconds };
            rules.extend(endpoints.iter().map(|endpoint| to(*endpoint).when(remembered(*endpoint))));
        }
        for (endpoint, left) in endpoints.iter().zip((1..=endpoints.len() as u32).rev()) {
            let rule = to(*endpoint);
            rules.push(if left == 1 { rule } else { rule.when(Match::OneIn(left)) });
        }
    }

    fn endpoint(&self, endpoint: SocketAddr) -> Vec<Rule> {
        let named = |rule: Rule| self.commented(rule, || self.name.clone());
        // A pod that is balanced back to itself would answer itself past the translation.
        let hairpin = Rule { source: within(host(endpoint.ip())), ..named(Rule::jump(Chain::Fixed(Fixed::MarkMasq))) };
        let mut translate = named(Rule::to(Target::Dnat(endpoint)));
        if self.port.affinity_seconds.is_some() {
            translate = translate.when(Match::Remember { list: self.endpoint_chain(endpoint) });
        }
        vec![hairpin, Rule { protocol: Some(self.port.protocol), ..translate.when(Match::Port(None)) }]
    }
}

/// In the order of their text, as kube-proxy has them.
fn sorted(endpoints: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut endpoints = endpoints.to_vec();
    endpoints.sort_by_cached_key(SocketAddr::to_string);
    endpoints
}

/// One way to tell that a packet comes from a pod.
enum Detector<'a> {
    Source(Cidr),
    Interface(&'a str, &'static str),
}

impl Detector<'_> {
    fn rule(&self, rule: Rule, not: bool) -> Rule {
        match self {
            Detector::Source(cidr) => Rule { source: if not { not_within(*cidr) } else { within(*cidr) }, ..rule },
            Detector::Interface(name, rest) => Rule { interface: Some(Interface { name: format!("{name}{rest}").into(), not }), ..rule },
        }
    }
}

fn detectors(options: &Options) -> Vec<Detector<'_>> {
    match &options.common.detect_local {
        DetectLocal::None | DetectLocal::NodeCidr => Vec::new(),
        DetectLocal::ClusterCidr(cidrs) => {
            let ours = cidrs.iter().filter(|cidr| cidr.family() == options.family());
            Cidr::aggregate(ours.copied()).iter().map(|cidr| Detector::Source(*cidr)).collect()
        }
        DetectLocal::BridgeInterface(name) => vec![Detector::Interface(name, "")],
        DetectLocal::InterfacePrefix(prefix) => vec![Detector::Interface(prefix, "+")],
    }
}
