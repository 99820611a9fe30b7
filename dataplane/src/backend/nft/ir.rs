//! What can be said to nftables: tables, chains, rules, sets, elements, and the operations on them.
//!
//! Owns the typed form only; `schema` says which of it we load, `render` how the kernel spells it. Registers are
//! counted in 32-bit units. Tests: `render` (round trips) and `diff` (laws).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;

/// Index of a 32-bit register, 0 to 15. An address of 16 bytes fills four.
pub type Register = u8;

/// Up to 48 bytes without an allocation: the keys and data of set elements.
#[derive(Clone, Copy)]
pub struct Bytes {
    len: u8,
    data: [u8; Bytes::CAPACITY],
}

impl Bytes {
    pub const CAPACITY: usize = 47;
    pub const EMPTY: Bytes = Bytes { len: 0, data: [0; Bytes::CAPACITY] };

    /// `None` when there are more than [`Bytes::CAPACITY`].
    pub fn new(bytes: &[u8]) -> Option<Bytes> {
        let mut out = Bytes::EMPTY;
        out.data.get_mut(..bytes.len())?.copy_from_slice(bytes);
        out.len = bytes.len() as u8;
        Some(out)
    }

    /// Appends one component of a concatenation: each starts at a multiple of four.
    pub fn component(mut self, bytes: &[u8]) -> Bytes {
        let start = usize::from(self.len);
        let end = start + bytes.len();
        self.data[start..end].copy_from_slice(bytes);
        self.len = end.next_multiple_of(4) as u8;
        self
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.data[..usize::from(self.len)]
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Bytes) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Bytes) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl std::hash::Hash for Bytes {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_slice() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    Mark,
    Priority,
    InterfaceName,
    L4Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    State,
    Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    Network,
    Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
}

/// Where a looked-up datum goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A set: being there is all.
    Member,
    NotMember,
    To(Register),
    Verdict,
}

/// One expression of a rule. A rule ends at the first that does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    Meta {
        key: MetaKey,
        to: Register,
    },
    SetMeta {
        key: MetaKey,
        from: Register,
    },
    Ct {
        key: CtKey,
        to: Register,
    },
    Payload {
        header: Header,
        offset: u32,
        len: u32,
        to: Register,
    },
    /// The type of the route to an address, an `RTN_*` number.
    FibType {
        side: Side,
        to: Register,
    },
    Compare {
        what: Register,
        how: Comparison,
        with: Vec<u8>,
    },
    /// `to = (from & mask) ^ xor`
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// A constant.
    Immediate {
        to: Register,
        value: Vec<u8>,
    },
    /// A random number in `offset .. offset + modulus`.
    Random {
        modulus: u32,
        offset: u32,
        to: Register,
    },
    Lookup {
        set: String,
        key: Register,
        found: Found,
    },
    Verdict(Verdict),
    /// Rewrites the destination to the address and port in these registers.
    DestinationNat {
        address: Register,
        port: Register,
    },
    /// Rewrites the source to the outgoing interface's address, with a fully random port.
    Masquerade,
    /// ICMP port unreachable.
    Reject,
    /// Adds the key to a dynamic set, or refreshes its time.
    Remember {
        set: String,
        key: Register,
    },
    /// Something we never write.
    Foreign(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub exprs: Vec<Expr>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Hook {
    pub const ALL: [Hook; 5] = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
}

/// What makes a chain a base chain. The policy is always accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

/// A set's or map's declaration. Two are the same if the kernel would hold the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetSpec {
    pub flags: u32,
    /// nft's number of the key's data type, six bits per component; and its length in bytes.
    pub key_type: u32,
    pub key_len: u32,
    /// The same of a map's data; zero for a set.
    pub data_type: u32,
    pub data_len: u32,
    /// Lengths of the key's components, for a set whose elements are ranges in each of them; else empty.
    pub ranges: Vec<u32>,
    /// Most elements a dynamic set may hold; 0 is no limit.
    pub size: u32,
    /// Milliseconds after which elements of a dynamic set go.
    pub timeout_ms: u64,
    /// Every element counts packets.
    pub counter: bool,
    /// What `nft list` needs to print the types.
    pub userdata: Vec<u8>,
}

pub const SET_INTERVAL: u32 = 4;
pub const SET_MAP: u32 = 8;
pub const SET_TIMEOUT: u32 = 0x10;
pub const SET_EVAL: u32 = 0x20;
pub const SET_CONCATENATED: u32 = 0x80;

/// What a counting element counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    None,
    Value(Bytes),
    Verdict(Verdict),
    /// No datum: the element is a range from its key to this, in each component.
    Upto(Bytes),
}

impl Data {
    /// The chain of a verdict that goes to one.
    pub fn chain(&self) -> Option<&str> {
        match self {
            Data::Verdict(Verdict::Goto(chain)) => Some(chain),
            _ => None,
        }
    }
}

/// One change of the kernel's rules. Element operations are nearly all there ever is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    AddTable,
    DeleteTable,
    AddSet {
        name: String,
        spec: SetSpec,
    },
    DeleteSet {
        name: String,
    },
    AddChain {
        name: String,
        base: Option<Base>,
    },
    DeleteChain {
        name: String,
    },
    /// Deletes all rules of a chain.
    FlushChain {
        name: String,
    },
    AddRule {
        chain: String,
        rule: Rule,
    },
    AddElement {
        set: &'static str,
        key: Bytes,
        data: Data,
    },
    /// A range needs its end as well; other data do not matter.
    DeleteElement {
        set: &'static str,
        key: Bytes,
        upto: Option<Bytes>,
    },
}

impl Op {
    pub fn is_element(&self) -> bool {
        matches!(self, Op::AddElement { .. } | Op::DeleteElement { .. })
    }
}

/// Chains and sets, without elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Structure {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, SetSpec>,
}

impl Structure {
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.chains.values().flat_map(|chain| &chain.rules)
    }
}
