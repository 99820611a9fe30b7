//! What happens to a packet, and why: from the services, by the same rules that are compiled for the kernel.
//!
//! Owns the explanation. The outcome with its odds is what the simulator says of the compiled rules, each random draw
//! tried; the reasons are `resolve`'s. With what the kernel holds instead of what was compiled, the same question checks
//! the kernel. Never touches the kernel. Tests are at the end of this file, and the namespace tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::backend::Options;
use crate::config::{DetectLocal, Mode};
use crate::model::{FrontendKey, ObjectName};
use crate::resolve::{Action, Frontend, FrontendKind};
use crate::sim::{Outcome, Packet, Remembered, Surroundings};
use crate::store::ServiceStore;

mod rules;

pub use rules::{Held, Rules, Setting, Step, plan};

/// Random draws that are tried at most: a service with so many endpoints is explained in part.
const RUNS: usize = 20_000;

/// Who sent it, as policies see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Pod,
    Node,
    Outside,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sender::Pod => "a pod",
            Sender::Node => "this node",
            Sender::Outside => "neither a pod of the cluster nor this node",
        })
    }
}

/// The frontend that a packet is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    pub service: ObjectName,
    pub port_name: String,
    pub key: FrontendKey,
    pub kind: FrontendKind,
    /// What decided, in words.
    pub because: String,
    pub affinity_seconds: Option<u32>,
    /// Only some sources may come here.
    pub guarded: bool,
}

/// One way it may go, and how often of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    pub outcome: Outcome,
    pub odds: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub packet: Packet,
    /// The rules' form.
    pub mode: &'static str,
    pub sender: Sender,
    pub matched: Option<Matched>,
    /// Likeliest first; they sum up to 1.
    pub ways: Vec<Way>,
    /// The slice of each endpoint among the ways.
    pub slices: BTreeMap<SocketAddr, ObjectName>,
}

impl Trace {
    /// Whether the service keeps clients with their endpoints.
    pub fn is_sticky(&self) -> bool {
        self.matched.as_ref().is_some_and(|matched| matched.affinity_seconds.is_some())
    }
}

/// Explains a packet by the services of a store and the rules that they compile to. `None` when a rule is none that we
/// write.
pub fn trace(store: &ServiceStore, setting: &Setting, rules: &Rules, packet: &Packet) -> Option<Trace> {
    let sender = sender(setting, packet);
    let matched = matched(store, setting, packet);
    let sticky = matched.as_ref().is_some_and(|hit| hit.frontend.affinity_seconds.is_some());
    let ways = ways(rules, setting, packet, sticky)?;
    let mut slices = BTreeMap::new();
    if let Some(matched) = &matched {
        for way in &ways {
            if let Outcome::Delivered { to, .. } = way.outcome
                && let Some(slice) = store.slice_of(&matched.service, to.ip())
            {
                slices.insert(to, slice.clone());
            }
        }
    }
    let matched = matched.map(|hit| explained(hit, setting, sender));
    Some(Trace { packet: packet.clone(), mode: setting.config.mode.name(), sender, matched, ways, slices })
}

fn sender(setting: &Setting, packet: &Packet) -> Sender {
    let ip = packet.source.ip();
    let interface = packet.interface.as_deref();
    let pod = match &setting.options().detect_local {
        DetectLocal::ClusterCidr(cidrs) => cidrs.iter().any(|cidr| cidr.contains(ip)),
        DetectLocal::BridgeInterface(name) => interface == Some(name),
        DetectLocal::InterfacePrefix(prefix) => interface.is_some_and(|name| name.starts_with(prefix)),
        DetectLocal::NodeCidr | DetectLocal::None => false,
    };
    match (interface.is_none() || setting.local().any(|own| own == ip), pod) {
        (true, _) => Sender::Node,
        (false, true) => Sender::Pod,
        (false, false) => Sender::Outside,
    }
}

/// A frontend with its service, before the reasons are put into words.
struct Hit {
    service: ObjectName,
    frontend: Frontend,
}

fn matched(store: &ServiceStore, setting: &Setting, packet: &Packet) -> Option<Hit> {
    let to = packet.destination;
    let protocol = packet.protocol;
    let vip = FrontendKey::Vip { ip: to.ip(), protocol, port: to.port() };
    let node_port = FrontendKey::NodePort { protocol, port: to.port() };
    let answers = answers_node_ports(setting, to.ip());
    let wanted = |key: &FrontendKey| *key == vip || (answers && *key == node_port);
    let mut hits: Vec<Hit> = Vec::new();
    for name in store.names() {
        let frontends = store.resolve(name, setting.family).frontends;
        hits.extend(frontends.into_iter().filter(|f| wanted(&f.key)).map(|frontend| Hit { service: name.clone(), frontend }));
    }
    // An address is looked up before the port alone.
    hits.into_iter().min_by_key(|hit| hit.frontend.key)
}

/// Whether node ports answer on an address.
fn answers_node_ports(setting: &Setting, ip: IpAddr) -> bool {
    let everywhere = setting.options().node_ports_everywhere;
    match &setting.config.mode {
        Mode::Iptables(own) if everywhere && ip.is_loopback() => own.localhost_node_ports && ip.is_ipv4(),
        Mode::Nftables | Mode::Iptables(_) if everywhere => setting.local().any(|own| own == ip) && !ip.is_loopback(),
        _ => setting.addresses.node_ports.contains(&ip),
    }
}

fn explained(hit: Hit, setting: &Setting, sender: Sender) -> Matched {
    let Hit { service, frontend } = hit;
    Matched {
        because: because(&frontend, &setting.options(), &setting.config.mode, sender),
        service,
        port_name: frontend.port_name.to_string(),
        key: frontend.key,
        kind: frontend.kind,
        affinity_seconds: frontend.affinity_seconds,
        guarded: !frontend.source_ranges.is_empty(),
    }
}

fn because(frontend: &Frontend, options: &Options, mode: &Mode, sender: Sender) -> String {
    match (mode, &frontend.action) {
        (Mode::Userspace, Action::Forward { .. } | Action::ForwardMasked { .. }) => {
            return "whoever relays opens a connection of its own, so the source is masked".into();
        }
        (Mode::Ipvs(_), Action::ForwardLocal { local, .. }) if local.is_empty() => {
            return "externalTrafficPolicy is Local and no endpoint is on this node: IPVS has the others, for pods and this node".into();
        }
        (Mode::Ipvs(_), Action::ForwardLocal { .. }) => {
            return "externalTrafficPolicy is Local: with IPVS this node's endpoints for everybody, and the source is kept".into();
        }
        (Mode::Ipvs(_), Action::Drop) => return "a policy is Local and no endpoint is on this node: with IPVS it is refused".into(),
        _ => {}
    }
    let internal = frontend.kind == FrontendKind::ClusterIp;
    let detector = options.detect_local != DetectLocal::None;
    match &frontend.action {
        Action::Refuse => "the service has no endpoint that can serve, so connections are refused".into(),
        Action::Drop if internal => "internalTrafficPolicy is Local and no endpoint is on this node".into(),
        Action::Drop => "externalTrafficPolicy is Local and no endpoint is left for anybody".into(),
        Action::Forward { .. } if options.masquerade_all => "masqueradeAll masks every connection to a cluster IP".into(),
        Action::Forward { .. } if detector && sender != Sender::Pod => format!("{sender} is masked towards a cluster IP"),
        Action::Forward { .. } => "the source is kept towards a cluster IP".into(),
        Action::ForwardMasked { .. } => "externalTrafficPolicy is Cluster: all endpoints, and the source is masked".into(),
        Action::ForwardLocal { local, .. } => match sender {
            Sender::Node => "externalTrafficPolicy is Local, but this node itself uses all endpoints, masked".into(),
            Sender::Pod if detector => "externalTrafficPolicy is Local, but pods use all endpoints with their source kept".into(),
            _ if local.is_empty() => "externalTrafficPolicy is Local and no endpoint is on this node".into(),
            _ => "externalTrafficPolicy is Local: this node's endpoints, and the source is kept".into(),
        },
    }
}

/// Every way the packet may go by these rules, with its odds: each random draw is tried. `sticky`: its service keeps
/// clients with their endpoints.
pub fn ways(rules: &Rules, setting: &Setting, packet: &Packet, sticky: bool) -> Option<Vec<Way>> {
    let local: Vec<IpAddr> = setting.local().collect();
    // Of a chance of one in so many, all that is not the one is the other.
    let chances = rules.draws_are_chances(sticky);
    let kinds = |below: u32| if chances { below.min(2) } else { below };
    let mut odds: Vec<(Outcome, f64)> = Vec::new();
    // The draws of the run before, and below what each was drawn.
    let mut draws: Vec<(u32, u32)> = Vec::new();
    for _ in 0..RUNS {
        let mut asked = 0;
        let mut share = 1.0;
        let outcome = {
            let mut draw = |below: u32| {
                if asked == draws.len() {
                    draws.push((0, below));
                }
                let (value, _) = draws[asked];
                asked += 1;
                share *= if chances && value > 0 { f64::from(below - 1) } else { 1.0 } / f64::from(below);
                value
            };
            let mut remembered = Remembered::new();
            let mut around = Surroundings { family: setting.family, local: &local, random: &mut draw, remembered: &mut remembered };
            rules.send(packet, &mut around)?
        };
        match odds.iter_mut().find(|(held, _)| *held == outcome) {
            Some((_, sum)) => *sum += share,
            None => odds.push((outcome, share)),
        }
        // On to the next combination, as an odometer goes on.
        draws.truncate(asked);
        while draws.last().is_some_and(|(value, below)| value + 1 >= kinds(*below)) {
            draws.pop();
        }
        match draws.last_mut() {
            Some((value, _)) => *value += 1,
            None => break,
        }
    }
    let mut ways: Vec<Way> = odds.into_iter().map(|(outcome, odds)| Way { outcome, odds }).collect();
    ways.sort_by(|a, b| b.odds.total_cmp(&a.odds).then_with(|| target(a).cmp(&target(b))));
    Some(ways)
}

fn target(way: &Way) -> Option<SocketAddr> {
    match way.outcome {
        Outcome::Delivered { to, .. } => Some(to),
        _ => None,
    }
}

/// Whether two lists of ways are the same, but for rounding.
pub fn agree(a: &[Way], b: &[Way]) -> bool {
    let near = |x: &Way, y: &Way| x.outcome == y.outcome && (x.odds - y.odds).abs() < 1e-6;
    a.len() == b.len() && a.iter().all(|x| b.iter().any(|y| near(x, y)))
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { protocol, source, destination, interface } = &self.packet;
        writeln!(f, "packet    {protocol} {} -> {destination}", source.ip())?;
        writeln!(f, "mode      {}", self.mode)?;
        let arrived = interface.as_ref().map(|name| format!(", arrived on {name}")).unwrap_or_default();
        writeln!(f, "sender    {}{arrived}", self.sender)?;
        match &self.matched {
            None => writeln!(f, "frontend  none: no service has this destination")?,
            Some(matched) => {
                let kind = match matched.kind {
                    FrontendKind::ClusterIp => "cluster IP",
                    FrontendKind::ExternalIp => "external IP",
                    FrontendKind::LoadBalancer => "load balancer's address",
                    FrontendKind::NodePort => "node port",
                };
                let port = if matched.port_name.is_empty() { String::new() } else { format!(", port {}", matched.port_name) };
                writeln!(f, "frontend  {} ({kind} of Service {}{port})", matched.key, matched.service)?;
                writeln!(f, "policy    {}", matched.because)?;
                if matched.guarded {
                    writeln!(f, "guard     loadBalancerSourceRanges say who may come here")?;
                }
                if let Some(seconds) = matched.affinity_seconds {
                    writeln!(f, "affinity  the client stays with its endpoint for {seconds} s; the odds are a new client's")?;
                }
            }
        }
        for way in &self.ways {
            let share = format!("{:.2} %", way.odds * 100.0);
            match way.outcome {
                Outcome::Delivered { to, masked } if to == *destination => {
                    writeln!(f, "result    {share}  untouched{}", if masked { ", source masked" } else { "" })?;
                }
                Outcome::Delivered { to, masked } => {
                    let source = if masked { "with this node's address as the source" } else { "with its source kept" };
                    let slice = self.slices.get(&to).map(|name| format!(" (EndpointSlice {name})")).unwrap_or_default();
                    writeln!(f, "result    {share}  to {to} {source}{slice}")?;
                }
                Outcome::Refused => writeln!(f, "result    {share}  refused (ICMP port unreachable)")?,
                Outcome::Dropped => writeln!(f, "result    {share}  dropped")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::NodeAddresses;
    use crate::config::{Config, IptablesConfig, IpvsConfig, NodePortAddresses};
    use crate::model::{Cidr, Family, Protocol};
    use crate::wire;
    use serde_json::{Value, json};

    fn store(spec: Value, endpoints: Value) -> ServiceStore {
        let mut store = ServiceStore::new("n1", None, &[]);
        let service = json!({"metadata": {"name": "web", "namespace": "ns1"}, "spec": spec});
        store.set_service(&serde_json::from_value::<wire::Service>(service).unwrap());
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}],
            "metadata": {"name": "web-1", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}}});
        store.set_slice(&serde_json::from_value::<wire::EndpointSlice>(slice).unwrap());
        store
    }

    fn modes() -> [Mode; 4] {
        [Mode::Nftables, Mode::Iptables(IptablesConfig::default()), Mode::Ipvs(IpvsConfig::default()), Mode::Userspace]
    }

    fn setting(mode: &Mode) -> Setting {
        let own: IpAddr = "192.0.2.1".parse().unwrap();
        let config = Config {
            mode: mode.clone(),
            detect_local: DetectLocal::ClusterCidr(vec![Cidr::parse("10.1.0.0/16").unwrap()]),
            node_port_addresses: NodePortAddresses::All,
            ..Config::default()
        };
        let addresses = NodeAddresses { node_ports: vec![own], links: vec![("eth0".into(), own)] };
        Setting { config, family: Family::V4, addresses, liberal: false, accounting: false }
    }

    fn packet(from: &str, to: &str) -> Packet {
        Packet {
            protocol: Protocol::Tcp,
            source: (from.parse::<IpAddr>().unwrap(), 40_000).into(),
            destination: to.parse().unwrap(),
            interface: (from != "192.0.2.1").then(|| "eth0".into()),
        }
    }

    fn ask_of(mode: &Mode, store: &ServiceStore, from: &str, to: &str) -> Trace {
        let setting = setting(mode);
        let rules = Rules::compiled(store, &setting);
        let got = trace(store, &setting, &rules, &packet(from, to)).unwrap();
        // What would be held says the same.
        if !matches!(mode, Mode::Userspace) {
            let held = Rules::held(&Held::of(store, &setting), store, &setting).unwrap();
            assert!(agree(&got.ways, &ways(&held, &setting, &packet(from, to), got.is_sticky()).unwrap()), "{mode:?}");
        }
        got
    }

    fn ask(store: &ServiceStore, from: &str, to: &str) -> Trace {
        ask_of(&Mode::Nftables, store, from, to)
    }

    fn ready(lasts: &[u8]) -> Value {
        lasts.iter().map(|last| json!({"addresses": [format!("10.1.0.{last}")], "nodeName": "n1"})).collect()
    }

    #[test]
    fn odds_are_what_the_rules_give_each_endpoint() {
        for affinity in ["None", "ClientIP"] {
            let spec = json!({"clusterIP": "10.96.0.1", "sessionAffinity": affinity, "ports": [{"name": "http", "port": 80}]});
            let many: Vec<u8> = (1..=40).collect();
            for mode in modes() {
                let got = ask_of(&mode, &store(spec.clone(), ready(&many)), "10.1.0.99", "10.96.0.1:80");
                assert_eq!(got.ways.len(), 40, "{mode:?}");
                for way in &got.ways {
                    assert!((way.odds - 1.0 / 40.0).abs() < 1e-9, "{mode:?}: {way:?}");
                    let relayed = matches!(mode, Mode::Userspace);
                    assert!(matches!(way.outcome, Outcome::Delivered { masked, .. } if masked == relayed), "{mode:?}: {way:?}");
                }
            }
            let got = ask(&store(spec, ready(&[1, 2, 3])), "10.1.0.9", "10.96.0.1:80");
            assert_eq!((got.sender, got.slices.len()), (Sender::Pod, 3));
            let text = got.to_string();
            assert!(text.contains("frontend  tcp 10.96.0.1:80 (cluster IP of Service ns1/web, port http)"), "{text}");
            assert!(text.contains("33.33 %  to 10.1.0.1:8080 with its source kept (EndpointSlice ns1/web-1)"), "{text}");
        }
    }

    #[test]
    fn policies_are_named_and_obeyed() {
        let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local",
            "ports": [{"name": "http", "port": 80, "nodePort": 30_080}]});
        let endpoints = json!([{"addresses": ["10.1.0.1"], "nodeName": "n1"}, {"addresses": ["10.1.0.2"], "nodeName": "n2"}]);
        let local = store(spec.clone(), endpoints);
        let outside = ask(&local, "203.0.113.9", "192.0.2.1:30080");
        assert_eq!((outside.ways.len(), outside.sender), (1, Sender::Outside));
        assert!(outside.to_string().contains("this node's endpoints, and the source is kept"), "{outside}");
        assert_eq!(ask(&local, "10.1.0.9", "192.0.2.1:30080").ways.len(), 2);
        let node = ask(&local, "192.0.2.1", "192.0.2.1:30080");
        assert!(node.ways.iter().all(|way| matches!(way.outcome, Outcome::Delivered { masked: true, .. })), "{node}");
        let nobody = store(spec, json!([]));
        assert_eq!(ask(&nobody, "10.1.0.9", "10.96.0.1:80").ways, [Way { outcome: Outcome::Refused, odds: 1.0 }]);
        let unknown = ask(&nobody, "10.1.0.9", "10.1.0.77:80");
        assert!(unknown.matched.is_none() && unknown.to_string().contains("untouched"), "{unknown}");
    }

    #[test]
    fn a_plan_is_empty_towards_oneself_and_small_for_a_small_change() {
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]});
        let (before, after) = (store(spec.clone(), ready(&[1, 2])), store(spec, ready(&[1, 2, 3])));
        for mode in modes() {
            let setting = setting(&mode);
            let whole = plan(&after, &setting, Held::nothing(&mode));
            let lines = |steps: &[Step]| steps.iter().map(|step| step.lines.len()).sum::<usize>();
            let text = |steps: &[Step]| steps.iter().flat_map(|step| step.lines.clone()).collect::<Vec<_>>().join("\n");
            assert!(text(&whole).contains("10.1.0.3:8080") || text(&whole).contains("10.1.0.3 . 8080"), "{mode:?}: {}", text(&whole));
            assert_eq!(plan(&after, &setting, Held::of(&after, &setting)), [], "{mode:?}");
            let difference = plan(&after, &setting, Held::of(&before, &setting));
            assert!(lines(&difference) > 0 && lines(&difference) <= 20, "{mode:?}: {}", text(&difference));
            assert!(text(&difference).contains("10.1.0.3") && !text(&difference).contains("KUBE-POSTROUTING"), "{mode:?}");
        }
    }

    #[test]
    fn what_others_hold_is_told_and_not_followed() {
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]});
        let store = store(spec, ready(&[1]));
        for mode in modes() {
            let setting = setting(&mode);
            assert!(Rules::held(&Held::nothing(&mode), &store, &setting).unwrap_err().starts_with("holds "), "{mode:?}");
        }
    }
}
