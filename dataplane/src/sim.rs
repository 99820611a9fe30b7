//! What the kernel would do with the first packet of a connection: the rules, interpreted.
//!
//! Owns an interpreter of the nftables backend's expressions over a table's image, as exact as the rules need. It
//! answers `longshore trace`, and lets tests compare rules with what was resolved. Never touches the kernel. Tests are
//! at the end of this file; the namespace tests compare it with the kernel.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::backend::nft::diff::Image;
use crate::backend::nft::ir::{
    Bytes, Chain, ChainKind, Comparison, CtKey, Data, Expr, Found, Header, Hook, MetaKey, Register, Rule, SetSpec, Side, Verdict,
};
use crate::backend::nft::schema;
use crate::model::address::{from_octets, octets};
use crate::model::{Family, Protocol};

/// Where destinations are rewritten; chains of a lower priority run before.
const TRANSLATION: i32 = -100;

/// The first packet of a connection, as it enters the node or leaves one of its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Where it came in; `None` for a packet of this node's own.
    pub interface: Option<String>,
}

/// Where the packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Delivered {
        to: SocketAddr,
        /// The receiver sees an address of this node.
        masked: bool,
    },
    Refused,
    Dropped,
}

/// What the rules may ask about besides the packet.
pub struct Surroundings<'a> {
    pub family: Family,
    /// Addresses of this node.
    pub local: &'a [IpAddr],
    /// Draws a number below the one given.
    pub random: &'a mut dyn FnMut(u32) -> u32,
    /// Clients that sets remember. Time does not pass here: none is forgotten.
    pub remembered: &'a mut Remembered,
}

/// Elements of the sets that packets fill, by set.
pub type Remembered = BTreeSet<(String, Vec<u8>)>;

/// Sends a packet through a table. `None` when a rule is none that we write, or is broken.
pub fn send(image: &Image, packet: &Packet, around: &mut Surroundings) -> Option<Outcome> {
    let mut walk =
        Walk { image, around, packet: packet.clone(), mark: 0, priority: 0, translated: false, masked: false, registers: [0; 64] };
    let incoming = packet.interface.is_some();
    let first = if incoming { Hook::Prerouting } else { Hook::Output };
    if walk.hook_at(first, ChainKind::Filter, i32::MIN..=TRANSLATION - 1)? == End::Drop {
        return Some(Outcome::Dropped);
    }
    walk.hook(if incoming { Hook::Prerouting } else { Hook::Output }, ChainKind::Nat)?;
    let here = walk.around.local.contains(&walk.packet.destination.ip());
    // A packet to oneself leaves and comes in.
    let filters: &[Hook] = match (incoming, here) {
        (true, true) => &[Hook::Input],
        (true, false) => &[Hook::Forward],
        (false, true) => &[Hook::Output, Hook::Input],
        (false, false) => &[Hook::Output],
    };
    for filter in filters {
        match walk.hook(*filter, ChainKind::Filter)? {
            End::Drop => return Some(Outcome::Dropped),
            End::Reject => return Some(Outcome::Refused),
            End::Accept | End::Fell => {}
        }
    }
    if !(incoming && here) {
        walk.hook(Hook::Postrouting, ChainKind::Nat)?;
    }
    Some(Outcome::Delivered { to: walk.packet.destination, masked: walk.masked })
}

/// How a chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing decided.
    Fell,
    Accept,
    Drop,
    Reject,
}

/// What one expression or rule says.
enum Step {
    Next,
    /// The rule does not match.
    Break,
    Decided(Verdict),
    Ended(End),
}

struct Walk<'a, 'b> {
    image: &'a Image,
    around: &'a mut Surroundings<'b>,
    packet: Packet,
    mark: u32,
    priority: u32,
    translated: bool,
    masked: bool,
    registers: [u8; 64],
}

impl Walk<'_, '_> {
    fn hook(&mut self, hook: Hook, kind: ChainKind) -> Option<End> {
        self.hook_at(hook, kind, TRANSLATION..=i32::MAX)
    }

    fn hook_at(&mut self, hook: Hook, kind: ChainKind, at: RangeInclusive<i32>) -> Option<End> {
        let image = self.image;
        let ours = |chain: &&Chain| chain.base.is_some_and(|base| base.hook == hook && base.kind == kind && at.contains(&base.priority));
        let mut chains: Vec<&Chain> = image.structure.chains.values().filter(ours).collect();
        chains.sort_by_key(|chain| chain.base.map(|base| base.priority));
        for chain in chains {
            match self.chain(chain)? {
                End::Fell | End::Accept => {}
                end => return Some(end),
            }
        }
        Some(End::Fell)
    }

    fn chain(&mut self, chain: &Chain) -> Option<End> {
        for rule in &chain.rules {
            match self.rule(rule)? {
                Step::Next | Step::Break => {}
                Step::Ended(end) => return Some(end),
                Step::Decided(Verdict::Accept) => return Some(End::Accept),
                Step::Decided(Verdict::Drop) => return Some(End::Drop),
                Step::Decided(Verdict::Return) => return Some(End::Fell),
                Step::Decided(Verdict::Goto(name)) => {
                    return self.chain(self.image.structure.chains.get(&name)?);
                }
                Step::Decided(Verdict::Jump(name)) => match self.chain(self.image.structure.chains.get(&name)?)? {
                    End::Fell => {}
                    end => return Some(end),
                },
            }
        }
        Some(End::Fell)
    }

    fn rule(&mut self, rule: &Rule) -> Option<Step> {
        for expr in &rule.exprs {
            match self.expr(expr)? {
                Step::Next => {}
                other => return Some(other),
            }
        }
        Some(Step::Next)
    }

    fn store(&mut self, to: Register, bytes: &[u8]) -> Option<Step> {
        let start = usize::from(to) * 4;
        let padded = bytes.len().next_multiple_of(4);
        let place = self.registers.get_mut(start..start + padded)?;
        place.fill(0);
        place[..bytes.len()].copy_from_slice(bytes);
        Some(Step::Next)
    }

    fn load(&self, from: Register, len: usize) -> Option<&[u8]> {
        let start = usize::from(from) * 4;
        self.registers.get(start..start + len)
    }

    fn load_number(&self, from: Register) -> Option<u32> {
        Some(u32::from_ne_bytes(self.load(from, 4)?.try_into().ok()?))
    }

    fn expr(&mut self, expr: &Expr) -> Option<Step> {
        match expr {
            Expr::Meta { key, to } => self.meta(*key, *to),
            Expr::SetMeta { key, from } => {
                let value = self.load_number(*from)?;
                match key {
                    MetaKey::Mark => self.mark = value,
                    MetaKey::Priority => self.priority = value,
                    MetaKey::InterfaceName | MetaKey::L4Protocol => return None,
                }
                Some(Step::Next)
            }
            Expr::Ct { key: CtKey::State, to } => self.store(*to, &schema::CT_STATE_NEW.to_ne_bytes()),
            Expr::Ct { key: CtKey::Status, to } => {
                let status = if self.translated { schema::CT_STATUS_DNAT } else { 0 };
                self.store(*to, &status.to_ne_bytes())
            }
            Expr::Payload { header, offset, len, to } => {
                let bytes = self.payload(*header, *offset, *len)?;
                self.store(*to, &bytes)
            }
            Expr::FibType { side, to } => {
                const RTN_UNICAST: u32 = 1;
                let here = self.around.local.contains(&self.address(*side).ip());
                let kind = if here { schema::RTN_LOCAL } else { RTN_UNICAST };
                self.store(*to, &kind.to_ne_bytes())
            }
            Expr::Compare { what, how, with } => {
                let equal = self.load(*what, with.len())? == with.as_slice();
                Some(if equal == (*how == Comparison::Equal) { Step::Next } else { Step::Break })
            }
            Expr::Bitwise { from, to, mask, xor } => {
                let bytes = self.load(*from, mask.len())?.to_vec();
                let out = bytes.iter().zip(mask).zip(xor).map(|((byte, mask), xor)| byte & mask ^ xor);
                self.store(*to, &out.collect::<Vec<u8>>())
            }
            Expr::Immediate { to, value } => self.store(*to, value),
            Expr::Random { modulus, offset, to } => {
                let drawn = (self.around.random)(*modulus) + offset;
                self.store(*to, &drawn.to_ne_bytes())
            }
            Expr::Lookup { set, key, found } => self.look_up(set, *key, *found),
            Expr::Verdict(verdict) => Some(Step::Decided(verdict.clone())),
            Expr::DestinationNat { address, port } => {
                let ip = from_octets(self.load(*address, self.around.family.address_len())?)?;
                let port = u16::from_be_bytes(self.load(*port, 2)?.try_into().ok()?);
                self.packet.destination = SocketAddr::new(ip, port);
                self.translated = true;
                Some(Step::Ended(End::Accept))
            }
            Expr::Masquerade => {
                self.masked = true;
                Some(Step::Ended(End::Accept))
            }
            Expr::Reject => Some(Step::Ended(End::Reject)),
            Expr::Remember { set, key } => {
                let key = self.load(*key, self.key_len(set)?)?.to_vec();
                self.around.remembered.insert((set.clone(), key));
                Some(Step::Next)
            }
            Expr::Foreign(_) => None,
        }
    }

    fn meta(&mut self, key: MetaKey, to: Register) -> Option<Step> {
        match key {
            MetaKey::Mark => self.store(to, &self.mark.to_ne_bytes()),
            MetaKey::Priority => self.store(to, &self.priority.to_ne_bytes()),
            MetaKey::L4Protocol => self.store(to, &[self.packet.protocol.number()]),
            MetaKey::InterfaceName => {
                let mut name = self.packet.interface.clone().unwrap_or_default().into_bytes();
                name.resize(16, 0);
                self.store(to, &name)
            }
        }
    }

    fn address(&self, side: Side) -> SocketAddr {
        match side {
            Side::Source => self.packet.source,
            Side::Destination => self.packet.destination,
        }
    }

    fn payload(&self, header: Header, offset: u32, len: u32) -> Option<Vec<u8>> {
        let address_len = self.around.family.address_len() as u32;
        let sources = if self.around.family == Family::V4 { 12 } else { 8 };
        let side = |at: u32, step: u32| match offset.checked_sub(at) {
            Some(0) => Some(Side::Source),
            Some(distance) if distance == step => Some(Side::Destination),
            _ => None,
        };
        match header {
            Header::Network if len == address_len => Some(octets(self.address(side(sources, address_len)?).ip())),
            Header::Transport if len == 2 => Some(self.address(side(0, 2)?).port().to_be_bytes().to_vec()),
            _ => None,
        }
    }

    fn key_len(&self, set: &str) -> Option<usize> {
        Some(self.image.structure.sets.get(set)?.key_len as usize)
    }

    fn look_up(&mut self, set: &str, key: Register, found: Found) -> Option<Step> {
        let key = Bytes::new(self.load(key, self.key_len(set)?)?)?;
        let Some(name) = schema::set_name(set) else {
            let member = self.around.remembered.contains(&(set.to_string(), key.as_slice().to_vec()));
            return Some(if member == (found == Found::Member) { Step::Next } else { Step::Break });
        };
        let spec = self.image.structure.sets.get(name)?;
        let data = if spec.ranges.is_empty() {
            self.image.elements.get(&(name, key))
        } else {
            let elements = self.image.elements.range((name, Bytes::EMPTY)..=(name, key));
            elements.map(|((_, first), data)| (first, data)).find(|(first, data)| within(spec, first, data, &key)).map(|(_, data)| data)
        };
        match (found, data) {
            (Found::Member, Some(_)) | (Found::NotMember, None) => Some(Step::Next),
            (Found::Member, None) | (Found::NotMember, Some(_)) => Some(Step::Break),
            (_, None) => Some(Step::Break),
            (Found::To(to), Some(Data::Value(bytes))) => {
                let bytes = *bytes;
                self.store(to, bytes.as_slice())
            }
            (Found::Verdict, Some(Data::Verdict(verdict))) => Some(Step::Decided(verdict.clone())),
            _ => None,
        }
    }
}

/// Whether a key lies within an element's range in each of its components.
fn within(spec: &SetSpec, first: &Bytes, data: &Data, key: &Bytes) -> bool {
    let Data::Upto(last) = data else { return false };
    let mut start = 0;
    spec.ranges.iter().all(|len| {
        let part = start..start + *len as usize;
        start = part.end;
        let of = |bytes: &Bytes| bytes.as_slice().get(part.clone()).map(<[u8]>::to_vec);
        of(first) <= of(key) && of(key) <= of(last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::nft::compile::compile;
    use crate::backend::nft::schema::Options;
    use crate::backend::nft::table::{Loaded, Table};
    use crate::config::DetectLocal;
    use crate::model::{Cidr, FrontendKey, ObjectName};
    use crate::resolve::{Action, Frontend, FrontendKind, Resolved};
    use proptest::prelude::*;

    const NODE: [u8; 4] = [192, 0, 2, 1];

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum From {
        Pod,
        Node,
        Outside,
    }

    fn options(masquerade_all: bool, detector: bool) -> Options {
        let cidrs = vec![Cidr::parse("10.1.0.0/16").unwrap()];
        Options {
            family: Family::V4,
            detect_local: if detector { DetectLocal::ClusterCidr(cidrs) } else { DetectLocal::None },
            masquerade_all,
            masquerade_mark: 1 << 14,
            node_ports_everywhere: true,
            endpoint_counters: false,
            liberal: false,
        }
    }

    fn key(kind: FrontendKind) -> FrontendKey {
        let ip = match kind {
            FrontendKind::NodePort => return FrontendKey::NodePort { protocol: Protocol::Tcp, port: 30080 },
            FrontendKind::ClusterIp => [10, 96, 0, 1],
            _ => [198, 51, 100, 1],
        };
        FrontendKey::Vip { ip: ip.into(), protocol: Protocol::Tcp, port: 80 }
    }

    fn image(options: &Options, kind: FrontendKind, action: &Action, affinity: bool) -> Image {
        let frontend = Frontend {
            key: key(kind),
            kind,
            port_name: "".into(),
            action: action.clone(),
            affinity_seconds: affinity.then_some(10),
            source_ranges: [].into(),
        };
        let resolved = Resolved {
            frontends: vec![frontend],
            cluster_ip: Some([10, 96, 0, 1].into()),
            hairpins: vec![[10, 1, 0, 1].into()],
            ..Resolved::default()
        };
        let mut table = Table::new(options.clone());
        let name = ObjectName::new("ns1", "web");
        table.set(&name, compile(&name, resolved, &()));
        let mut image = Image::default();
        image.apply(&table.plan_creation(&Loaded::Foreign)[1..]).unwrap();
        image
    }

    fn packet(from: From, kind: FrontendKind) -> Packet {
        let source = match from {
            From::Pod => [10, 1, 0, 1],
            From::Node => NODE,
            From::Outside => [203, 0, 113, 9],
        };
        let destination = match key(kind) {
            FrontendKey::Vip { ip, port, .. } => SocketAddr::new(ip, port),
            FrontendKey::NodePort { port, .. } => SocketAddr::from((NODE, port)),
        };
        let interface = (from != From::Node).then(|| "eth0".to_string());
        Packet { protocol: Protocol::Tcp, source: (source, 40_000).into(), destination, interface }
    }

    fn list() -> impl Strategy<Value = std::sync::Arc<[SocketAddr]>> {
        let endpoint = (1u8..9).prop_map(|last| SocketAddr::from(([10, 1, 0, last], 8080)));
        proptest::collection::btree_set(endpoint, 1..6).prop_map(|set| set.into_iter().collect())
    }

    fn action(external: bool) -> BoxedStrategy<Action> {
        let refusals = prop_oneof![Just(Action::Refuse), Just(Action::Drop)];
        if !external {
            let forward = list().prop_map(|endpoints| Action::Forward { endpoints });
            return prop_oneof![3 => forward, 1 => refusals].boxed();
        }
        let masked = list().prop_map(|endpoints| Action::ForwardMasked { endpoints });
        let nobody = std::sync::Arc::from([]);
        let local = (list(), prop_oneof![list(), Just(nobody)]).prop_map(|(cluster, local)| Action::ForwardLocal { cluster, local });
        prop_oneof![2 => masked, 3 => local, 1 => refusals].boxed()
    }

    fn case() -> impl Strategy<Value = (FrontendKind, Action)> {
        let kinds = [FrontendKind::ClusterIp, FrontendKind::LoadBalancer, FrontendKind::NodePort];
        proptest::sample::select(kinds.to_vec())
            .prop_flat_map(|kind| action(kind != FrontendKind::ClusterIp).prop_map(move |action| (kind, action)))
    }

    /// What the traffic policies say, without any rules: the endpoints one may get, and whether the source is masked.
    fn expected(options: &Options, kind: FrontendKind, action: &Action, from: From) -> Result<(Vec<SocketAddr>, bool), Outcome> {
        let detector = options.detect_local != DetectLocal::None;
        let list = |list: &[SocketAddr], masked| Ok((list.to_vec(), masked));
        match action {
            Action::Refuse => Err(Outcome::Refused),
            Action::Drop => Err(Outcome::Dropped),
            Action::Forward { endpoints } => {
                let outsider = kind == FrontendKind::ClusterIp && detector && from != From::Pod;
                list(endpoints, options.masquerade_all || outsider)
            }
            Action::ForwardMasked { endpoints } => list(endpoints, true),
            Action::ForwardLocal { cluster, .. } if from == From::Node => list(cluster, true),
            Action::ForwardLocal { cluster, .. } if from == From::Pod && detector => list(cluster, false),
            Action::ForwardLocal { local, .. } if local.is_empty() => Err(Outcome::Dropped),
            Action::ForwardLocal { local, .. } => list(local, false),
        }
    }

    proptest! {
        #[test]
        fn rules_do_what_was_resolved(
            (kind, action) in case(),
            from in proptest::sample::select(vec![From::Pod, From::Node, From::Outside]),
            masquerade_all: bool,
            detector: bool,
            affinity: bool,
            draws in proptest::collection::vec(any::<u32>(), 4),
        ) {
            let options = options(masquerade_all, detector);
            let image = image(&options, kind, &action, affinity);
            let packet = packet(from, kind);
            let mut draws = draws.into_iter().cycle();
            let mut random = |below: u32| draws.next().unwrap() % below;
            let mut remembered = Remembered::new();
            let mut around = Surroundings { family: Family::V4, local: &[IpAddr::from(NODE)], random: &mut random, remembered: &mut remembered };
            let outcome = send(&image, &packet, &mut around).expect("our rules can be interpreted");
            match expected(&options, kind, &action, from) {
                Err(refusal) => prop_assert_eq!(outcome, refusal),
                Ok((endpoints, masked)) => {
                    let Outcome::Delivered { to, masked: was_masked } = outcome else { panic!("{outcome:?}") };
                    prop_assert!(endpoints.contains(&to), "{to} is not of {endpoints:?}");
                    let to_itself = to.ip() == packet.source.ip() && to.ip() == IpAddr::from([10, 1, 0, 1]);
                    prop_assert_eq!(was_masked, masked || to_itself);
                    // The same client again, and again from another port.
                    for port in [40_000, 40_001] {
                        let again = Packet { source: SocketAddr::new(packet.source.ip(), port), ..packet.clone() };
                        let outcome = send(&image, &again, &mut around);
                        prop_assert!(!affinity || outcome == Some(Outcome::Delivered { to, masked: was_masked }), "{:?}", outcome);
                    }
                }
            }
        }

        #[test]
        fn other_traffic_passes_untouched(last in 2u8.., port: u16) {
            let endpoints = [SocketAddr::from(([10, 1, 0, 3], 8080))].into();
            let image = image(&options(true, true), FrontendKind::ClusterIp, &Action::Forward { endpoints }, false);
            let mut packet = packet(From::Outside, FrontendKind::ClusterIp);
            packet.destination = SocketAddr::from(([10, 1, 0, last], port));
            let mut remembered = Remembered::new();
            let mut around = Surroundings { family: Family::V4, local: &[], random: &mut |_| 0, remembered: &mut remembered };
            let untouched = Outcome::Delivered { to: packet.destination, masked: false };
            prop_assert_eq!(send(&image, &packet, &mut around), Some(untouched));
        }
    }

    #[test]
    fn unknown_ports_of_a_cluster_ip_are_refused() {
        let endpoints = [SocketAddr::from(([10, 1, 0, 3], 8080))].into();
        let image = image(&options(false, true), FrontendKind::ClusterIp, &Action::Forward { endpoints }, false);
        let mut packet = packet(From::Outside, FrontendKind::ClusterIp);
        packet.destination.set_port(81);
        let mut remembered = Remembered::new();
        let mut around = Surroundings { family: Family::V4, local: &[], random: &mut |_| 0, remembered: &mut remembered };
        assert_eq!(send(&image, &packet, &mut around), Some(Outcome::Refused));
    }
}
