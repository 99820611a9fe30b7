//! What can be said to iptables: tables, chains, rules, and the operations on them.
//!
//! Owns the typed form only; `schema` and `compile` say which of it we write, `render` how iptables spells it. What
//! iptables shows in another form than it was written (a mark's number, a probability's decimals) is here in one form,
//! so that equal means equal in the kernel. Tests: `render` (round trips) and `tests` (laws).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use super::names::{Chain, Fixed};
use crate::model::{Cidr, Protocol};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Filter,
    Nat,
    /// Holds nothing of ours but the canary.
    Mangle,
}

impl Table {
    pub const ALL: [Table; 3] = [Table::Filter, Table::Nat, Table::Mangle];

    pub fn name(self) -> &'static str {
        match self {
            Table::Filter => "filter",
            Table::Nat => "nat",
            Table::Mangle => "mangle",
        }
    }
}

/// A packet's source or destination address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    pub within: Cidr,
    pub not: bool,
}

/// Where a packet came in. A name that ends in `+` stands for all that begin so.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Interface {
    pub name: Box<str>,
    pub not: bool,
}

/// What a connection is to the connection tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Invalid,
    New,
    Related,
    Established,
    /// Its destination was rewritten.
    Dnat,
}

impl State {
    pub const ALL: [(State, &'static str); 5] = [
        (State::Invalid, "INVALID"),
        (State::New, "NEW"),
        (State::Related, "RELATED"),
        (State::Established, "ESTABLISHED"),
        (State::Dnat, "DNAT"),
    ];
}

/// Text that says what a rule is for. Held without anything that means something to iptables-restore.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Comment(Box<str>);

impl Comment {
    /// Longest that the kernel takes, without its final NUL.
    pub const MAX: usize = 255;

    /// Objects' names come in here. Names that the API accepts pass unchanged; of others, what could end the comment
    /// or the line becomes `?`.
    pub fn new(text: &str) -> Comment {
        let harmless = |c: char| if c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\')) { c } else { '?' };
        Comment(text.chars().map(harmless).take(Comment::MAX).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Match {
    Comment(Comment),
    /// The protocol's own match, and the destination port if there is one.
    Port(Option<u16>),
    SourceIsLocal,
    DestinationIsLocal,
    Mark {
        value: u32,
        mask: u32,
        not: bool,
    },
    /// The states are in the order of [`State::ALL`].
    Conntrack {
        states: Box<[State]>,
        not: bool,
    },
    /// The source came by this chain's [`Match::Remember`] in the last so many seconds.
    Remembered {
        list: Chain,
        seconds: u32,
    },
    Remember {
        list: Chain,
    },
    /// One of so many packets, at random.
    OneIn(u32),
    /// Counted by this accounting object.
    Account(Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    Jump(Chain),
    Accept,
    Drop,
    Return,
    /// ICMP port unreachable.
    Reject,
    /// `mark = (mark & !mask) ^ value`
    Mark {
        value: u32,
        mask: u32,
    },
    Masquerade {
        random: bool,
    },
    Dnat(SocketAddr),
}

/// A rule that we may write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    pub protocol: Option<Protocol>,
    pub source: Option<Address>,
    pub destination: Option<Address>,
    pub interface: Option<Interface>,
    /// In the order in which the kernel asks them.
    pub matches: Vec<Match>,
    pub target: Option<Target>,
}

impl Rule {
    pub fn to(target: Target) -> Rule {
        Rule { target: Some(target), ..Rule::default() }
    }

    pub fn jump(chain: Chain) -> Rule {
        Rule::to(Target::Jump(chain))
    }

    pub fn when(mut self, what: Match) -> Rule {
        self.matches.push(what);
        self
    }

    pub fn comment(self, text: &str) -> Rule {
        self.when(Match::Comment(Comment::new(text)))
    }

    /// A fingerprint that is the same for the same rule in every process.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// The same without the comment: kube-proxy leaves comments out of the chains of a large cluster, and with or
    /// without is the same to us.
    pub fn fingerprint_without_comment(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.protocol, &self.source, &self.destination, &self.interface, &self.target).hash(&mut hasher);
        self.matches.iter().filter(|m| !matches!(m, Match::Comment(_))).for_each(|m| m.hash(&mut hasher));
        hasher.finish()
    }
}

/// A line of iptables-save or -restore that is a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Rule(Rule),
    /// One that we never write.
    Foreign(Box<str>),
}

/// A chain of a table.
pub type Place = (Table, Chain);

/// One line of iptables-restore's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Makes a chain, or empties it.
    Declare(Chain),
    Append(Chain, Rule),
    /// At the head.
    Insert(Chain, Rule),
    Delete(Chain, Rule),
    /// The chain must be empty, and nothing may jump to it.
    Remove(Chain),
}

impl Op {
    pub fn chain(&self) -> Chain {
        match self {
            Op::Declare(chain) | Op::Append(chain, _) | Op::Insert(chain, _) | Op::Delete(chain, _) | Op::Remove(chain) => *chain,
        }
    }

    pub fn is_about_a_rule(&self) -> bool {
        matches!(self, Op::Append(..) | Op::Insert(..) | Op::Delete(..))
    }

    /// Operations of one commit are sorted by this: a chain is there before a rule names it, and goes after.
    pub fn phase(&self) -> u8 {
        match self {
            Op::Declare(_) => 0,
            Op::Append(..) | Op::Insert(..) | Op::Delete(..) => 1,
            Op::Remove(_) => 2,
        }
    }
}

/// A part of the input that the kernel takes as a whole. Each table has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    Mangle,
    /// What refuses or admits packets comes before they are translated otherwise...
    FilterFirst,
    Nat,
    /// ...and what refused them goes after they are translated: no packet passes between the two untranslated.
    FilterLast,
}

impl Section {
    pub fn table(self) -> Table {
        match self {
            Section::Mangle => Table::Mangle,
            Section::FilterFirst | Section::FilterLast => Table::Filter,
            Section::Nat => Table::Nat,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub section: Section,
    pub op: Op,
}

impl Write {
    pub fn place(&self) -> Place {
        (self.section.table(), self.op.chain())
    }
}

/// Whether a chain holds rules of many services.
pub fn is_shared(chain: Chain) -> bool {
    matches!(chain, Chain::Fixed(Fixed::Services | Fixed::ExternalServices | Fixed::NodePorts | Fixed::ProxyFirewall))
}
