//! The nftables backend's conversation with the kernel: read a table, commit a transaction.
//!
//! Owns one netlink socket. Decides nothing: what a dump means is `read`'s, what to commit `table`'s. Tests: the
//! namespace tests.

use std::collections::HashSet;

use crate::model::Family;
use crate::netlink::attr::{Message, Writer};
use crate::netlink::socket::{NLM_F_DUMP, NLM_F_REQUEST, NetfilterSocket, SocketError};

use super::ir::{Bytes, Counter, Data, Op};
use super::render::{self, Carried, Counted, Target, render};
use super::schema::Options;
use super::sticky::is_affinity_set;
use super::table::Loaded;
use super::watch::Watch;
use super::{exprs, read, schema};

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot read table {table} of family {family}{}: {source}", hint(why))]
    Read { family: Family, table: String, why: Option<String>, source: SocketError },
    #[error("cannot load {what} into table {table} of family {family}{}: {source}", hint(why))]
    Commit { family: Family, table: String, what: String, why: Option<String>, source: SocketError },
}

fn hint(why: &Option<String>) -> String {
    why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default()
}

/// One netlink socket to nftables.
#[derive(Debug)]
pub struct Kernel {
    socket: NetfilterSocket,
    table: String,
}

impl Kernel {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(table: &str) -> Result<Kernel, KernelError> {
        Ok(Kernel { socket: NetfilterSocket::open()?, table: table.into() })
    }

    pub fn table(&self) -> &str {
        &self.table
    }

    /// Tells of commits by others. To be opened in the network namespace of this socket.
    pub fn watch(&self) -> std::io::Result<Watch> {
        Watch::open(self.socket.port()?)
    }

    /// A number that every commit of anybody changes.
    pub fn generation(&mut self) -> Result<u32, KernelError> {
        let seq = self.socket.reserve_seq(1);
        let mut w = Writer::default();
        w.begin(render::GET_GENERATION, NLM_F_REQUEST, seq, 0, 0);
        w.end();
        let mut generation = 0;
        let answer = self.socket.request(w.bytes(), seq, |answer| {
            let id = answer.attrs().find(render::GENERATION_ID).and_then(|a| a.u32());
            generation = id.unwrap_or(generation);
        });
        answer.map_err(|source| self.read_error(Family::V4, source))?;
        Ok(generation)
    }

    /// Reads one family's table as a whole.
    pub fn read(&mut self, options: &Options) -> Result<Loaded, KernelError> {
        let family = options.family;
        if self.table_handle(family)?.is_none() {
            return Ok(Loaded::Nothing);
        }
        let mut found = Found { ops: vec![Op::AddTable], foreign: false };
        for kind in [render::GET_SET, render::GET_CHAIN, render::GET_RULE] {
            self.dump(family, kind, None, &mut found)?;
        }
        let sets: Vec<String> = found.ops.iter().filter_map(set_of).collect();
        for set in sets {
            match schema::set_name(&set) {
                Some(known) => self.dump(family, render::GET_ELEMENT, Some(known), &mut found)?,
                // The kernel fills these itself.
                None if is_affinity_set(&set) => {}
                None => found.foreign = true,
            }
        }
        Ok(if found.foreign { Loaded::Foreign } else { read::read(options, found.ops) })
    }

    /// The kernel's number of the table, anew whenever it is made; `None` when there is no such table.
    pub fn table_handle(&mut self, family: Family) -> Result<Option<u64>, KernelError> {
        let seq = self.socket.reserve_seq(1);
        let mut w = Writer::default();
        w.begin(render::GET_TABLE, NLM_F_REQUEST, seq, family.number(), 0);
        w.put_str(render::TABLE, &self.table);
        w.end();
        let mut handle = None;
        let answer = self.socket.request(w.bytes(), seq, |answer| {
            handle = answer.attrs().find(render::TABLE_HANDLE).and_then(|a| a.u64());
        });
        match answer {
            Ok(()) => Ok(handle),
            Err(error) if error.refused_with() == Some(libc::ENOENT) => Ok(None),
            Err(source) => Err(self.read_error(family, source)),
        }
    }

    fn dump(&mut self, family: Family, kind: u16, set: Option<&str>, found: &mut Found) -> Result<(), KernelError> {
        let table = self.table.clone();
        let build = |seq| {
            let mut w = Writer::default();
            w.begin(kind, NLM_F_REQUEST | NLM_F_DUMP, seq, family.number(), 0);
            w.put_str(render::TABLE, &table);
            if let Some(set) = set {
                w.put_str(render::ELEMENTS_SET, set);
            }
            w.end();
            w.bytes().to_vec()
        };
        let before = found.ops.len();
        let taken = self.socket.dump(found, build, |found| found.ops.truncate(before), |found, answer| found.take(&answer, &table));
        taken.map_err(|source| self.read_error(family, source))
    }

    fn read_error(&self, family: Family, source: SocketError) -> KernelError {
        let why = match source.refused_with() {
            Some(libc::EPERM) => Some("needs CAP_NET_ADMIN in this network namespace".to_string()),
            Some(libc::EOPNOTSUPP | libc::EINVAL) => Some("load nf_tables, CONFIG_NF_TABLES".to_string()),
            Some(libc::EAFNOSUPPORT) => Some(format!("load nf_tables with support for {family}")),
            _ => None,
        };
        KernelError::Read { family, table: self.table.clone(), why, source }
    }

    /// Commits one transaction: all of it, or nothing.
    pub fn commit(&mut self, family: Family, ops: &[Op]) -> Result<(), KernelError> {
        if ops.is_empty() {
            return Ok(());
        }
        let most = u32::try_from(ops.len() + 2).expect("transactions are far smaller");
        let first = self.socket.reserve_seq(most);
        let carried = self.counters_of_replaced(family, ops);
        let target = Target { family, table: &self.table, carried: &carried };
        let batch = render(ops, target, first);
        let sent = self.socket.batch(batch.writer.bytes(), batch.first, batch.last);
        sent.map_err(|source| {
            let refused = match &source {
                SocketError::Refused(refused) => refused.seq.wrapping_sub(first).checked_sub(1),
                _ => None,
            };
            let index = refused.and_then(|message| batch.operations.get(message as usize));
            let op = index.and_then(|index| ops.get(*index));
            let what = op.map_or_else(|| "a transaction".to_string(), describe);
            let why = reason(family, op, &source);
            KernelError::Commit { family, table: self.table.clone(), what, why, source }
        })
    }

    /// Counters of elements that a transaction deletes and adds again: a service's total does not start anew when the
    /// number of its endpoints changes. Packets between this and the commit go uncounted.
    fn counters_of_replaced(&mut self, family: Family, ops: &[Op]) -> Carried {
        let counting = |op: &Op| match op {
            Op::AddElement { set, key, .. } if schema::counts(set) => Some((*set, *key)),
            _ => None,
        };
        let added: HashSet<(&'static str, Bytes)> = ops.iter().filter_map(counting).collect();
        let mut carried = Carried::new();
        for op in ops {
            let Op::DeleteElement { set, key, .. } = op else { continue };
            if !added.contains(&(*set, *key)) {
                continue;
            }
            carried.extend(self.counted(family, set, key).map(|(_, counter)| ((*set, *key), counter)));
        }
        carried
    }

    /// One element and what it counted, if it counts.
    pub fn counted(&mut self, family: Family, set: &str, key: &Bytes) -> Option<(Data, Counter)> {
        let seq = self.socket.reserve_seq(1);
        let mut w = Writer::default();
        let target = Target { family, table: &self.table, carried: &Carried::new() };
        render::get_element(&mut w, target, set, key, seq);
        let mut found = None;
        // If it cannot be read, a commit that is about it will say why.
        let _ = self.socket.request(w.bytes(), seq, |answer| {
            found = render::parse_counted(&answer).next().map(|(_, data, counter)| (data, counter));
        });
        found
    }

    /// Every element of a set and what it counted.
    pub fn all_counted(&mut self, family: Family, set: &str) -> Result<Vec<Counted>, KernelError> {
        let build = self.get_elements(family, set);
        let mut found = Vec::new();
        let taken = self.socket.dump(&mut found, build, Vec::clear, |found, answer| found.extend(render::parse_counted(&answer)));
        taken.map_err(|source| self.read_error(family, source))?;
        Ok(found)
    }

    fn get_elements(&self, family: Family, set: &str) -> impl Fn(u32) -> Vec<u8> + use<> {
        let (table, set) = (self.table.clone(), set.to_string());
        move |seq| {
            let mut w = Writer::default();
            w.begin(render::GET_ELEMENT, NLM_F_REQUEST | NLM_F_DUMP, seq, family.number(), 0);
            w.put_str(render::TABLE, &table);
            w.put_str(render::ELEMENTS_SET, &set);
            w.end();
            w.bytes().to_vec()
        }
    }

    /// Deletes the table of a family; it is no error when there is none.
    pub fn delete_table(&mut self, family: Family) -> Result<(), KernelError> {
        match self.commit(family, &[Op::DeleteTable]) {
            Err(KernelError::Commit { source, .. }) if source.refused_with() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }
}

/// What a dump has told so far.
#[derive(Debug)]
struct Found {
    ops: Vec<Op>,
    foreign: bool,
}

impl Found {
    fn take(&mut self, answer: &Message, table: &str) {
        // Older kernels do not filter chains by table.
        let of_table = answer.attrs().find(render::TABLE).and_then(|a| a.str()) == Some(table);
        let wanted = [render::NEW_CHAIN, render::NEW_RULE, render::NEW_SET, render::NEW_ELEMENT];
        if of_table && wanted.contains(&answer.kind) && render::parse_message(answer, &mut self.ops).is_none() {
            self.foreign = true;
        }
    }
}

fn set_of(op: &Op) -> Option<String> {
    match op {
        Op::AddSet { name, .. } => Some(name.clone()),
        _ => None,
    }
}

fn describe(op: &Op) -> String {
    match op {
        Op::AddTable | Op::DeleteTable => "the table itself".into(),
        Op::AddSet { name, .. } | Op::DeleteSet { name } => format!("set {name}"),
        Op::AddChain { name, .. } | Op::DeleteChain { name } | Op::FlushChain { name } => format!("chain {name}"),
        Op::AddRule { chain, .. } => format!("a rule of chain {chain}"),
        Op::AddElement { set, key, .. } => format!("element {key:?} of set {set}"),
        Op::DeleteElement { set, key, .. } => format!("the removal of element {key:?} from set {set}"),
    }
}

/// What an administrator can do about a refused operation.
fn reason(family: Family, op: Option<&Op>, error: &SocketError) -> Option<String> {
    let errno = error.refused_with()?;
    if errno == libc::EPERM {
        return Some("needs CAP_NET_ADMIN in this network namespace".into());
    }
    let missing = [libc::ENOENT, libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT];
    if !missing.contains(&errno) {
        return None;
    }
    let number = if family == Family::V4 { 4 } else { 6 };
    let load = match op {
        None | Some(Op::AddTable | Op::AddSet { .. }) => "nf_tables".to_string(),
        Some(Op::AddChain { base: Some(_), .. }) => format!("nf_tables for IPv{number}, nft_chain_nat, nf_nat"),
        Some(Op::AddRule { rule, .. }) => {
            let modules: Vec<String> = rule.exprs.iter().filter_map(|expr| module(exprs::name(expr), number)).collect();
            (!modules.is_empty()).then(|| modules.join(", "))?
        }
        _ => return None,
    };
    Some(format!("is everything of {load} loaded or built in?"))
}

/// The module of an expression, for those that have one of their own.
fn module(expr: &str, number: u8) -> Option<String> {
    match expr {
        "ct" | "masq" | "nat" | "numgen" => Some(format!("nft_{expr}")),
        "fib" | "reject" => Some(format!("nft_{expr}_ipv{number}")),
        _ => None,
    }
}
