//! What iptables would do with the first packet of a connection: the rules, interpreted.
//!
//! Owns an interpreter over the tables' image, with the packets and outcomes of the simulator that all backends share.
//! Never touches the kernel. Tests: `tests`, where it agrees with the other backends'.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::SocketAddr;

use super::image::Image;
use super::ir::{Address, Interface, Match, Rule, State, Table, Target};
use super::names::{BuiltIn, Chain};
use crate::sim::{Outcome, Packet, Surroundings};

/// Sends a packet through the tables. `None` when a rule jumps to a chain that is not there.
pub fn send(image: &Image, packet: &Packet, around: &mut Surroundings) -> Option<Outcome> {
    let incoming = packet.interface.is_some();
    let mut walk = Walk { image, around, packet: packet.clone(), mark: 0, translated: false, masked: false };
    walk.enter(Table::Nat, if incoming { BuiltIn::Prerouting } else { BuiltIn::Output })?;
    let here = walk.around.local.contains(&walk.packet.destination.ip());
    // A packet to oneself leaves and comes in.
    let filters: &[BuiltIn] = match (incoming, here) {
        (true, true) => &[BuiltIn::Input],
        (true, false) => &[BuiltIn::Forward],
        (false, true) => &[BuiltIn::Output, BuiltIn::Input],
        (false, false) => &[BuiltIn::Output],
    };
    for filter in filters {
        match walk.enter(Table::Filter, *filter)? {
            End::Drop => return Some(Outcome::Dropped),
            End::Reject => return Some(Outcome::Refused),
            End::Accept | End::Fell => {}
        }
    }
    if !(incoming && here) {
        walk.enter(Table::Nat, BuiltIn::Postrouting)?;
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

struct Walk<'a, 'b> {
    image: &'a Image,
    around: &'a mut Surroundings<'b>,
    packet: Packet,
    mark: u32,
    translated: bool,
    masked: bool,
}

impl Walk<'_, '_> {
    /// A built-in chain that nobody has written to lets everything pass.
    fn enter(&mut self, table: Table, chain: BuiltIn) -> Option<End> {
        let place = (table, Chain::BuiltIn(chain));
        if self.image.chains.contains_key(&place) { self.chain(table, place.1) } else { Some(End::Fell) }
    }

    fn chain(&mut self, table: Table, chain: Chain) -> Option<End> {
        let image = self.image;
        for rule in image.chains.get(&(table, chain))? {
            if !self.matches(rule) {
                continue;
            }
            match &rule.target {
                None => {}
                Some(Target::Jump(to)) => match self.chain(table, *to)? {
                    End::Fell => {}
                    end => return Some(end),
                },
                Some(Target::Return) => return Some(End::Fell),
                Some(Target::Accept) => return Some(End::Accept),
                Some(Target::Drop) => return Some(End::Drop),
                Some(Target::Reject) => return Some(End::Reject),
                Some(Target::Mark { value, mask }) => self.mark = self.mark & !mask ^ value,
                Some(Target::Masquerade { .. }) => {
                    self.masked = true;
                    return Some(End::Accept);
                }
                Some(Target::Dnat(to)) => {
                    self.packet.destination = *to;
                    self.translated = true;
                    return Some(End::Accept);
                }
            }
        }
        Some(End::Fell)
    }

    fn matches(&mut self, rule: &Rule) -> bool {
        rule.protocol.is_none_or(|protocol| protocol == self.packet.protocol)
            && is_from(&rule.source, self.packet.source)
            && is_from(&rule.destination, self.packet.destination)
            && rule.interface.as_ref().is_none_or(|interface| self.came_by(interface))
            && rule.matches.iter().all(|held| self.match_one(held))
    }

    fn came_by(&self, interface: &Interface) -> bool {
        // A packet of the node's own came by none.
        let name = self.packet.interface.as_deref().unwrap_or_default();
        let named = match interface.name.strip_suffix('+') {
            Some(prefix) => name.starts_with(prefix),
            None => name == &*interface.name,
        };
        named != interface.not
    }

    fn match_one(&mut self, held: &Match) -> bool {
        match held {
            Match::Comment(_) | Match::Account(_) | Match::Remember { .. } => true,
            Match::Port(port) => port.is_none_or(|port| port == self.packet.destination.port()),
            Match::SourceIsLocal => self.around.local.contains(&self.packet.source.ip()),
            Match::DestinationIsLocal => self.around.local.contains(&self.packet.destination.ip()),
            Match::Mark { value, mask, not } => (self.mark & mask == *value) != *not,
            Match::Conntrack { states, not } => {
                let is = states.contains(&State::New) || self.translated && states.contains(&State::Dnat);
                is != *not
            }
            // Nobody has been here before.
            Match::Remembered { .. } => false,
            Match::OneIn(count) => (self.around.random)(*count) == 0,
        }
    }
}

fn is_from(wanted: &Option<Address>, address: SocketAddr) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted.within.contains(address.ip()) != wanted.not)
}
