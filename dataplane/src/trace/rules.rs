//! One mode's rules, whichever it is: what services compile to, what is held, and what leads from one to the other.
//!
//! Owns the choice of the backend's compiler, simulator and spelling by the configured mode. Never touches the kernel:
//! what it holds comes in. Tests are at the end of `trace`, and in the namespace tests.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::IpAddr;
use std::sync::Arc;

use crate::backend::iptables::diff::Holding;
use crate::backend::iptables::program::Program as IptablesProgram;
use crate::backend::ipvs::compile::{Around as IpvsAround, Balance};
use crate::backend::ipvs::ir::LINK;
use crate::backend::ipvs::render::Saved;
use crate::backend::ipvs::state::{Read, State};
use crate::backend::nft::table::{Loaded, Table};
use crate::backend::userspace::compile::{Around as RelayAround, Entrance, addresses};
use crate::backend::{NodeAddresses, Options, iptables, ipvs, nft, userspace};
use crate::config::{Config, IpvsConfig, Mode};
use crate::model::{Family, ObjectName};
use crate::resolve::Resolved;
use crate::sim::{self, Outcome, Packet, Surroundings};
use crate::store::ServiceStore;

/// What rules depend on besides services.
#[derive(Debug, Clone)]
pub struct Setting {
    pub config: Config,
    pub family: Family,
    pub addresses: NodeAddresses,
    /// The connection tracker takes packets outside the window.
    pub liberal: bool,
    /// There are accounting objects to count in (so do they on this).
    pub accounting: bool,
}

impl Setting {
    pub fn options(&self) -> Options {
        Options { liberal: self.liberal, ..Options::of(&self.config, self.family) }
    }

    /// Every address of this node.
    pub fn local(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.links.iter().filter(|(link, _)| link != LINK).map(|(_, ip)| *ip)
    }

    fn iptables(&self, own: &crate::config::IptablesConfig) -> iptables::schema::Options {
        let mut options = iptables::schema::Options::of(&self.config, own, self.family, self.liberal);
        options.accounting = self.accounting;
        if !options.common.node_ports_everywhere {
            options.node_port_ips.clone_from(&self.addresses.node_ports);
        }
        options
    }
}

/// The rules as a simulator follows them.
#[derive(Debug, Clone)]
pub enum Rules {
    Nftables(Box<nft::diff::Image>),
    Iptables(iptables::image::Image),
    Ipvs(Box<ipvs::ir::Image>),
    /// Listeners, and whom they take for pods and for this node.
    Userspace {
        entrances: Vec<Entrance>,
        around: RelayAround,
        node_ports: Vec<IpAddr>,
    },
}

/// What the kernel holds, or is taken to hold.
#[derive(Debug, Clone)]
pub enum Held {
    Nftables(Box<Loaded>),
    Iptables {
        holding: Holding,
        image: iptables::image::Image,
        /// There is a rule in our chains that is none that we write.
        foreign: bool,
    },
    Ipvs(Box<Read>),
    /// A relay leaves nothing in the kernel.
    Userspace(Vec<Entrance>),
}

/// Lines that are handed to the kernel together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub title: String,
    pub lines: Vec<String>,
}

impl Rules {
    /// What services compile to.
    pub fn compiled(store: &ServiceStore, setting: &Setting) -> Rules {
        match &setting.config.mode {
            Mode::Nftables => {
                let mut image = nft::diff::Image::default();
                let creation = nft_table(store, setting, None).plan_creation(&Loaded::Foreign);
                image.apply(&creation[1..]).expect("a whole table applies to nothing");
                Rules::Nftables(Box::new(image))
            }
            Mode::Iptables(own) => Rules::Iptables(iptables_image(store, setting, own)),
            Mode::Ipvs(own) => Rules::Ipvs(Box::new(ipvs_image(store, setting, own))),
            Mode::Userspace => Rules::Userspace {
                entrances: entrances(store, setting.family),
                around: RelayAround::of(&setting.options(), setting.local().collect()),
                node_ports: setting.addresses.node_ports.clone(),
            },
        }
    }

    /// What is held; the error says why that cannot be followed. The services say which virtual servers and rules are
    /// theirs.
    pub fn held(held: &Held, store: &ServiceStore, setting: &Setting) -> Result<Rules, &'static str> {
        Ok(match (held, &setting.config.mode) {
            (Held::Nftables(loaded), _) => match &**loaded {
                Loaded::Ours(program) => Rules::Nftables(Box::new(nft::diff::Image::of(&setting.options(), program))),
                Loaded::Nothing => return Err("holds no rules of ours in nftables"),
                Loaded::Foreign => return Err("holds rules that were made with other settings, or by somebody else"),
            },
            (Held::Iptables { holding, .. }, _) if !holding.forwards() => return Err("holds no rules for services in iptables"),
            (Held::Iptables { foreign: true, .. }, _) => return Err("holds a rule of somebody else's in our chains"),
            (Held::Iptables { image, .. }, _) => Rules::Iptables(image.clone()),
            (Held::Ipvs(read), Mode::Ipvs(own)) => {
                let mut state = ipvs_state(store, setting, own);
                state.adopt((**read).clone());
                // Whether the rules are those that these services need is seen when what differs is planned.
                let _ = state.plan();
                let image = state.have().filter(|image| image.skeleton.is_some()).cloned();
                Rules::Ipvs(Box::new(image.ok_or("holds other iptables rules around IPVS than these services need")?))
            }
            (Held::Ipvs(_) | Held::Userspace(_), _) => return Err("holds no rules in this mode: a process of ours relays"),
        })
    }

    /// Sends a packet through them. `None` when one is none that we write.
    pub fn send(&self, packet: &Packet, around: &mut Surroundings) -> Option<Outcome> {
        match self {
            Rules::Nftables(image) => sim::send(image, packet, around),
            Rules::Iptables(image) => iptables::sim::send(image, packet, around),
            Rules::Ipvs(image) => ipvs::verdict::send(image, packet, around),
            Rules::Userspace { entrances, around: relay, node_ports } => Some(relayed(entrances, relay, node_ports, packet, around)),
        }
    }

    /// Whether each draw asks for one chance in so many, and not for one of so many. nftables' rules do so for clients
    /// that are to stay with their endpoint.
    pub(super) fn draws_are_chances(&self, sticky: bool) -> bool {
        matches!(self, Rules::Iptables(_)) || (sticky && matches!(self, Rules::Nftables(_)))
    }
}

impl Held {
    pub fn nothing(mode: &Mode) -> Held {
        match mode {
            Mode::Nftables => Held::Nftables(Box::new(Loaded::Nothing)),
            Mode::Iptables(_) => Held::Iptables { holding: Holding::default(), image: iptables::image::Image::default(), foreign: false },
            Mode::Ipvs(_) => Held::Ipvs(Box::default()),
            Mode::Userspace => Held::Userspace(Vec::new()),
        }
    }

    /// What the kernel would hold of these services.
    pub fn of(store: &ServiceStore, setting: &Setting) -> Held {
        match &setting.config.mode {
            Mode::Nftables => Held::Nftables(Box::new(Loaded::Ours(nft_table(store, setting, None).want().clone()))),
            Mode::Iptables(own) => {
                let image = iptables_image(store, setting, own);
                Held::Iptables { holding: image.holding(), image, foreign: false }
            }
            Mode::Ipvs(own) => {
                let mut image = ipvs_image(store, setting, own);
                let saved = image.skeleton.take().map(|skeleton| Saved::of(&skeleton)).unwrap_or_default();
                Held::Ipvs(Box::new(Read { image, saved, elsewhere: setting.local().collect() }))
            }
            Mode::Userspace => Held::Userspace(entrances(store, setting.family)),
        }
    }
}

/// What leads from what is held to what services compile to, in the words of the tools that people know.
pub fn plan(store: &ServiceStore, setting: &Setting, held: Held) -> Vec<Step> {
    match (held, &setting.config.mode) {
        (Held::Nftables(loaded), Mode::Nftables) => nft_plan(store, setting, *loaded),
        (Held::Iptables { holding, .. }, Mode::Iptables(own)) => iptables_plan(store, setting, own, holding),
        (Held::Ipvs(read), Mode::Ipvs(own)) => ipvs_plan(store, setting, own, *read),
        (Held::Userspace(before), Mode::Userspace) => {
            let lines = |entrances: &[Entrance]| entrances.iter().map(|entrance| listening(entrance, setting)).collect::<Vec<_>>();
            let (before, after) = (lines(&before), lines(&entrances(store, setting.family)));
            let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("no longer {line}"));
            let lines: Vec<String> = gone.chain(after.iter().filter(|line| !before.contains(line)).cloned()).collect();
            if lines.is_empty() { Vec::new() } else { vec![Step { title: "listeners".into(), lines }] }
        }
        // What another mode holds is no beginning.
        (_, mode) => plan(store, setting, Held::nothing(mode)),
    }
}

fn resolved(store: &ServiceStore, family: Family) -> Vec<(&ObjectName, Resolved)> {
    let mut all: Vec<_> = store.names().map(|name| (name, store.resolve(name, family))).collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

fn nft_table(store: &ServiceStore, setting: &Setting, held: Option<nft::program::Program>) -> Table {
    let options = setting.options();
    let mut table = Table::new(options.clone());
    // First, so that endpoints keep their slots.
    held.into_iter().for_each(|program| table.adopt(program));
    if !options.node_ports_everywhere {
        table.set_node_port_ips(setting.addresses.node_ports.clone());
    }
    table.set_service_cidrs(&store.service_cidrs(setting.family));
    for (name, resolved) in resolved(store, setting.family) {
        let fragment = nft::compile::compile(name, resolved, &table);
        table.set(name, fragment);
    }
    table
}

fn nft_plan(store: &ServiceStore, setting: &Setting, loaded: Loaded) -> Vec<Step> {
    let transactions = match loaded {
        Loaded::Ours(program) => nft_table(store, setting, Some(program)).plan(),
        loaded => {
            let mut table = nft_table(store, setting, None);
            let creation = table.plan_creation(&loaded);
            table.created(&loaded);
            [vec![creation], table.plan()].concat()
        }
    };
    let step = |(index, ops): (usize, &Vec<nft::ir::Op>)| Step {
        title: format!("transaction {}", index + 1),
        lines: ops.iter().map(|op| nft::text::line(setting.family, &setting.config.table, op)).collect(),
    };
    transactions.iter().enumerate().map(step).collect()
}

fn iptables_image(store: &ServiceStore, setting: &Setting, own: &crate::config::IptablesConfig) -> iptables::image::Image {
    let services = resolved(store, setting.family);
    iptables::image::Image::of(&setting.iptables(own), services.iter().map(|(name, resolved)| (*name, resolved)))
}

fn iptables_plan(store: &ServiceStore, setting: &Setting, own: &crate::config::IptablesConfig, holding: Holding) -> Vec<Step> {
    let mut program = IptablesProgram::new(setting.iptables(own));
    program.adopt(holding);
    resolved(store, setting.family).iter().for_each(|(name, resolved)| program.set(name, resolved));
    let command = if setting.family == Family::V4 { "iptables" } else { "ip6tables" };
    let written = program.plan(&program.waiting()).input();
    let mut steps = vec![Step { title: format!("{command}-restore --noflush"), lines: written.text.lines().map(String::from).collect() }];
    let jump = |jump: &iptables::schema::Jump| {
        let mut rule = String::new();
        iptables::render::rule(&mut rule, &jump.rule());
        format!("{command} -t {} -I {} 1{rule}", jump.table.name(), iptables::names::Chain::BuiltIn(jump.from))
    };
    steps.push(Step { title: "jumps".into(), lines: program.missing_jumps().iter().map(jump).collect() });
    steps.retain(|step| !step.lines.is_empty());
    steps
}

fn ipvs_state(store: &ServiceStore, setting: &Setting, own: &IpvsConfig) -> State {
    // A scheduler that is none is refused when the mode starts.
    let balance = Balance::parse(&own.scheduler).or_else(|| Balance::parse("")).expect("nothing is the default");
    let mut state = State::new(setting.options(), balance, own.exclude_cidrs.clone());
    state.set_around(IpvsAround { node_ports: setting.addresses.node_ports.clone(), elsewhere: setting.local().collect() });
    for (name, resolved) in resolved(store, setting.family) {
        let fragment = ipvs::compile::compile(&resolved, setting.family, balance);
        state.set(name, fragment);
    }
    state
}

fn ipvs_image(store: &ServiceStore, setting: &Setting, own: &IpvsConfig) -> ipvs::ir::Image {
    let mut state = ipvs_state(store, setting, own);
    let mut image = ipvs::ir::Image::default();
    state.adopt(Read::default());
    for op in state.plan() {
        image.apply(&op).expect("a whole plan applies to nothing");
    }
    image
}

fn ipvs_plan(store: &ServiceStore, setting: &Setting, own: &IpvsConfig, read: Read) -> Vec<Step> {
    let mut state = ipvs_state(store, setting, own);
    state.adopt(read);
    let ops = state.plan();
    let saved: Arc<Saved> = state.saved().clone();
    let lines: Vec<String> = ops.iter().flat_map(|op| ipvs::text::lines(op, setting.family, &saved)).collect();
    if lines.is_empty() { Vec::new() } else { vec![Step { title: "in this order".into(), lines }] }
}

fn entrances(store: &ServiceStore, family: Family) -> Vec<Entrance> {
    resolved(store, family).iter().flat_map(|(_, resolved)| userspace::compile::compile(resolved)).collect()
}

fn listening(entrance: &Entrance, setting: &Setting) -> String {
    let at = addresses(&entrance.key, &setting.addresses.node_ports);
    let at = at.iter().map(|address| format!("{} {address}", entrance.key.protocol())).collect::<Vec<_>>().join(", ");
    let list = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match &entrance.rule {
        None => format!("{at} refused: nobody listens"),
        Some(rule) => match &rule.local {
            None => format!("listen on {at} for {}", list(&rule.cluster)),
            Some(local) => format!("listen on {at} for {} (the outside world: {})", list(&rule.cluster), list(local)),
        },
    }
}

/// What a relay does with a connection.
fn relayed(entrances: &[Entrance], relay: &RelayAround, node_ports: &[IpAddr], packet: &Packet, around: &mut Surroundings) -> Outcome {
    let (protocol, to) = (packet.protocol, packet.destination);
    let here = |entrance: &&Entrance| entrance.key.protocol() == protocol && addresses(&entrance.key, node_ports).contains(&to);
    // A service's address is this node's, so nothing goes on to elsewhere.
    let ours = |entrance: &Entrance| addresses(&entrance.key, &[]).iter().any(|address| address.ip() == to.ip());
    let Some(entrance) = entrances.iter().find(here) else {
        let refused = entrances.iter().any(ours);
        return if refused { Outcome::Refused } else { Outcome::Delivered { to, masked: false } };
    };
    let endpoints = entrance.rule.as_ref().map(|rule| rule.endpoints(packet.source.ip(), relay)).unwrap_or_default();
    match u32::try_from(endpoints.len()) {
        // Whoever relays has its own address.
        Ok(count @ 1..) => Outcome::Delivered { to: endpoints[(around.random)(count) as usize], masked: true },
        _ => Outcome::Refused,
    }
}
