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
use crate::backend::nft::compile::compile;
use crate::backend::nft::diff::Image;
use crate::backend::nft::ir::Op;
use crate::backend::nft::program::Program;
use crate::backend::nft::table::{Loaded, Table};
use crate::config::DetectLocal;
use crate::model::{Family, FrontendKey, ObjectName};
use crate::resolve::{Action, Frontend, FrontendKind};
use crate::sim::{Outcome, Packet, Remembered, Surroundings, send};
use crate::store::ServiceStore;

/// Random draws that are tried at most: a service with so many endpoints is explained in part.
const RUNS: usize = 20_000;

/// The packet, and what its node is like.
#[derive(Debug, Clone)]
pub struct Question {
    pub packet: Packet,
    /// Addresses of this node.
    pub local: Vec<IpAddr>,
    /// Those that answer on node ports, when not all do.
    pub node_port_ips: Vec<IpAddr>,
}

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
    pub sender: Sender,
    pub matched: Option<Matched>,
    /// Likeliest first; they sum up to 1.
    pub ways: Vec<Way>,
    /// The slice of each endpoint among the ways.
    pub slices: BTreeMap<SocketAddr, ObjectName>,
}

/// The transactions that lead from what is held, if anything is, to what services compile to.
pub fn plan(store: &ServiceStore, options: &Options, node_port_ips: &[IpAddr], held: Loaded) -> Vec<Vec<Op>> {
    let Loaded::Ours(program) = held else { return vec![table(store, options, node_port_ips, None).plan_creation(&Loaded::Foreign)] };
    table(store, options, node_port_ips, Some(program)).plan()
}

/// What services compile to, as a program.
pub fn program(store: &ServiceStore, options: &Options, node_port_ips: &[IpAddr]) -> Program {
    table(store, options, node_port_ips, None).want().clone()
}

/// The whole table that services compile to.
pub fn image(store: &ServiceStore, options: &Options, node_port_ips: &[IpAddr]) -> Image {
    let mut image = Image::default();
    let creation = table(store, options, node_port_ips, None).plan_creation(&Loaded::Foreign);
    image.apply(&creation[1..]).expect("a whole table applies to nothing");
    image
}

fn table(store: &ServiceStore, options: &Options, node_port_ips: &[IpAddr], held: Option<Program>) -> Table {
    let mut table = Table::new(options.clone());
    // First, so that endpoints keep their slots.
    held.into_iter().for_each(|program| table.adopt(program));
    if !options.node_ports_everywhere {
        table.set_node_port_ips(node_port_ips.iter().copied().filter(|ip| Family::of(*ip) == options.family).collect());
    }
    table.set_service_cidrs(&store.service_cidrs(options.family));
    for name in store.names() {
        let fragment = compile(name, store.resolve(name, options.family), &table);
        table.set(name, fragment);
    }
    table
}

/// Explains a packet by the services of a store. `None` when a rule of the image is none that we write.
pub fn trace(store: &ServiceStore, options: &Options, image: &Image, question: &Question) -> Option<Trace> {
    let sender = sender(options, question);
    let matched = matched(store, options, question);
    let ways = ways(image, options, question)?;
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
    Some(Trace { packet: question.packet.clone(), sender, matched: matched.map(|m| explained(m, options, sender)), ways, slices })
}

fn sender(options: &Options, question: &Question) -> Sender {
    let ip = question.packet.source.ip();
    let interface = question.packet.interface.as_deref();
    let pod = match &options.detect_local {
        DetectLocal::ClusterCidr(cidrs) => cidrs.iter().any(|cidr| cidr.contains(ip)),
        DetectLocal::BridgeInterface(name) => interface == Some(name),
        DetectLocal::InterfacePrefix(prefix) => interface.is_some_and(|name| name.starts_with(prefix)),
        DetectLocal::NodeCidr | DetectLocal::None => false,
    };
    match (interface.is_none() || question.local.contains(&ip), pod) {
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

fn matched(store: &ServiceStore, options: &Options, question: &Question) -> Option<Hit> {
    let to = question.packet.destination;
    let protocol = question.packet.protocol;
    let vip = FrontendKey::Vip { ip: to.ip(), protocol, port: to.port() };
    let answers = match options.node_ports_everywhere {
        true => question.local.contains(&to.ip()) && !to.ip().is_loopback(),
        false => question.node_port_ips.contains(&to.ip()),
    };
    let node_port = FrontendKey::NodePort { protocol, port: to.port() };
    let wanted = |key: &FrontendKey| *key == vip || (answers && *key == node_port);
    let mut hits: Vec<Hit> = Vec::new();
    for name in store.names() {
        let frontends = store.resolve(name, options.family).frontends;
        hits.extend(frontends.into_iter().filter(|f| wanted(&f.key)).map(|frontend| Hit { service: name.clone(), frontend }));
    }
    // An address is looked up before the port alone.
    hits.into_iter().min_by_key(|hit| hit.frontend.key)
}

fn explained(hit: Hit, options: &Options, sender: Sender) -> Matched {
    let Hit { service, frontend } = hit;
    Matched {
        because: because(&frontend, options, sender),
        service,
        port_name: frontend.port_name.to_string(),
        key: frontend.key,
        kind: frontend.kind,
        affinity_seconds: frontend.affinity_seconds,
        guarded: !frontend.source_ranges.is_empty(),
    }
}

fn because(frontend: &Frontend, options: &Options, sender: Sender) -> String {
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

/// Every way the packet may go by an image, with its odds: each random draw is tried.
pub fn ways(image: &Image, options: &Options, question: &Question) -> Option<Vec<Way>> {
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
                share /= f64::from(below);
                value
            };
            let mut remembered = Remembered::new();
            let mut around =
                Surroundings { family: options.family, local: &question.local, random: &mut draw, remembered: &mut remembered };
            send(image, &question.packet, &mut around)?
        };
        match odds.iter_mut().find(|(held, _)| *held == outcome) {
            Some((_, sum)) => *sum += share,
            None => odds.push((outcome, share)),
        }
        // On to the next combination, as an odometer goes on.
        draws.truncate(asked);
        while draws.last().is_some_and(|(value, below)| value + 1 >= *below) {
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
    use crate::config::{Config, NodePortAddresses};
    use crate::model::{Cidr, Protocol};
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

    fn ask(store: &ServiceStore, from: &str, to: &str) -> Trace {
        let config = Config {
            detect_local: DetectLocal::ClusterCidr(vec![Cidr::parse("10.1.0.0/16").unwrap()]),
            node_port_addresses: NodePortAddresses::All,
            ..Config::default()
        };
        let options = Options::of(&config, Family::V4);
        let source: IpAddr = from.parse().unwrap();
        let own = "192.0.2.1".parse().unwrap();
        let packet = Packet {
            protocol: Protocol::Tcp,
            source: (source, 40_000).into(),
            destination: to.parse().unwrap(),
            interface: (source != own).then(|| "eth0".into()),
        };
        let question = Question { packet, local: vec![own], node_port_ips: Vec::new() };
        trace(store, &options, &image(store, &options, &[]), &question).unwrap()
    }

    fn ready(lasts: &[u8]) -> Value {
        lasts.iter().map(|last| json!({"addresses": [format!("10.1.0.{last}")], "nodeName": "n1"})).collect()
    }

    #[test]
    fn odds_are_what_the_rules_give_each_endpoint() {
        for affinity in ["None", "ClientIP"] {
            let spec = json!({"clusterIP": "10.96.0.1", "sessionAffinity": affinity, "ports": [{"name": "http", "port": 80}]});
            let got = ask(&store(spec, ready(&[1, 2, 3])), "10.1.0.9", "10.96.0.1:80");
            assert_eq!(got.ways.len(), 3);
            for way in &got.ways {
                assert!((way.odds - 1.0 / 3.0).abs() < 1e-9, "{way:?}");
                assert!(matches!(way.outcome, Outcome::Delivered { masked: false, .. }), "{way:?}");
            }
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
}
