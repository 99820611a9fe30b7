//! Operations to nftables' netlink messages, and back.
//!
//! Owns message layout and batching; `exprs` has the expressions. The kernel answers dumps with the messages that
//! would create what is there, so one parser reads both. Tests are at the end of this file.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;

use super::exprs;
use super::ir::{Base, Bytes, ChainKind, Counter, Data, Hook, Op, Rule, SetSpec, Verdict};
use super::schema::{self, TYPE_VERDICT};
use crate::model::Family;
use crate::netlink::attr::{Attr, Attrs, MAX_ATTRIBUTE, Message, Messages, Writer};
use crate::netlink::socket::{NLM_F_ACK, NLM_F_REQUEST};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

pub const NEW_TABLE: u16 = SUBSYSTEM << 8;
pub const GET_TABLE: u16 = NEW_TABLE + 1;
const DEL_TABLE: u16 = NEW_TABLE + 2;
pub const NEW_CHAIN: u16 = NEW_TABLE + 3;
pub const GET_CHAIN: u16 = NEW_TABLE + 4;
const DEL_CHAIN: u16 = NEW_TABLE + 5;
pub const NEW_RULE: u16 = NEW_TABLE + 6;
pub const GET_RULE: u16 = NEW_TABLE + 7;
const DEL_RULE: u16 = NEW_TABLE + 8;
pub const NEW_SET: u16 = NEW_TABLE + 9;
pub const GET_SET: u16 = NEW_TABLE + 10;
const DEL_SET: u16 = NEW_TABLE + 11;
pub const NEW_ELEMENT: u16 = NEW_TABLE + 12;
pub const GET_ELEMENT: u16 = NEW_TABLE + 13;
const DEL_ELEMENT: u16 = NEW_TABLE + 14;
pub const NEW_GENERATION: u16 = NEW_TABLE + 15;
pub const GET_GENERATION: u16 = NEW_TABLE + 16;
pub const GENERATION_ID: u16 = 1;

/// The table's name is attribute 1 of every message that has one.
pub const TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
pub const TABLE_HANDLE: u16 = 4;
const TABLE_USERDATA: u16 = 6;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_TIMEOUT: u16 = 11;
const SET_USERDATA: u16 = 13;
const SET_EXPR: u16 = 17;
const DESC_SIZE: u16 = 1;
const DESC_CONCATENATION: u16 = 2;
const FIELD_LEN: u16 = 1;
pub const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_EXPR: u16 = 7;
const ELEMENT_KEY_END: u16 = 10;
pub const DATA_VALUE: u16 = 1;
pub const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// In the user data of tables and rules: a comment.
const NOTE_COMMENT: u8 = 0;

/// Elements of one message take at most so many bytes of its list.
const ELEMENT_LIST: usize = MAX_ATTRIBUTE - 512;

/// A transaction in the kernel's format.
#[derive(Debug)]
pub struct Batch {
    pub writer: Writer,
    /// Sequence numbers of the frame's beginning and of the last message within it, which asks for an
    /// acknowledgement.
    pub first: u32,
    pub last: u32,
    /// For each message within the frame, the index of its (first) operation.
    pub operations: Vec<usize>,
}

/// Counters to begin with, for elements that are replaced.
pub type Carried = HashMap<(&'static str, Bytes), Counter>;

/// The table that a transaction is for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub family: Family,
    pub table: &'a str,
    pub carried: &'a Carried,
}

/// Renders a transaction, whose messages are numbered from `first`; at most `ops.len() + 2` numbers are used.
pub fn render(ops: &[Op], target: Target, first: u32) -> Batch {
    let mut batch = Batch { writer: Writer::default(), first, last: first, operations: Vec::new() };
    batch.writer.begin(BATCH_BEGIN, NLM_F_REQUEST, first, 0, SUBSYSTEM);
    batch.writer.end();
    let mut rest = ops;
    while let [op, ..] = rest {
        batch.last = batch.last.wrapping_add(1);
        batch.operations.push(ops.len() - rest.len());
        let used = message(&mut batch.writer, rest, op, target, batch.last);
        rest = &rest[used..];
    }
    batch.writer.add_flags(NLM_F_ACK);
    batch.writer.begin(BATCH_END, NLM_F_REQUEST, batch.last.wrapping_add(1), 0, SUBSYSTEM);
    batch.writer.end();
    batch
}

/// Writes the next message and says how many operations it holds.
fn message(w: &mut Writer, rest: &[Op], op: &Op, target: Target, seq: u32) -> usize {
    let Target { family, table, carried } = target;
    let create = NLM_F_REQUEST | NLM_F_CREATE;
    let (kind, flags) = match op {
        Op::AddTable => (NEW_TABLE, create),
        Op::DeleteTable => (DEL_TABLE, NLM_F_REQUEST),
        Op::AddSet { .. } => (NEW_SET, create),
        Op::DeleteSet { .. } => (DEL_SET, NLM_F_REQUEST),
        Op::AddChain { .. } => (NEW_CHAIN, create),
        Op::DeleteChain { .. } => (DEL_CHAIN, NLM_F_REQUEST),
        Op::FlushChain { .. } => (DEL_RULE, NLM_F_REQUEST),
        Op::AddRule { .. } => (NEW_RULE, create | NLM_F_APPEND),
        Op::AddElement { .. } => (NEW_ELEMENT, create),
        Op::DeleteElement { .. } => (DEL_ELEMENT, NLM_F_REQUEST),
    };
    w.begin(kind, flags, seq, family.number(), 0);
    w.put_str(TABLE, table);
    let mut used = 1;
    match op {
        Op::AddTable => w.put(TABLE_USERDATA, &comment_note(schema::TABLE_COMMENT)),
        Op::DeleteTable => {}
        Op::AddSet { name, spec } => set(w, name, spec, seq),
        Op::DeleteSet { name } => w.put_str(SET_NAME, name),
        Op::AddChain { name, base } => chain(w, name, base.as_ref()),
        Op::DeleteChain { name } => w.put_str(CHAIN_NAME, name),
        Op::FlushChain { name } => w.put_str(RULE_CHAIN, name),
        Op::AddRule { chain, rule } => {
            w.put_str(RULE_CHAIN, chain);
            w.nested(RULE_EXPRESSIONS, |w| rule.exprs.iter().for_each(|expr| exprs::write(w, expr, family)));
            if let Some(comment) = &rule.comment {
                w.put(RULE_USERDATA, &comment_note(comment));
            }
        }
        Op::AddElement { set, .. } | Op::DeleteElement { set, .. } => used = elements(w, rest, set, carried),
    }
    w.end();
    used
}

fn comment_note(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len() + 1).expect("our comments are short");
    [&[NOTE_COMMENT, len], text.as_bytes(), &[0]].concat()
}

fn set(w: &mut Writer, name: &str, spec: &SetSpec, id: u32) {
    w.put_str(SET_NAME, name);
    w.put_u32(SET_FLAGS, spec.flags);
    w.put_u32(SET_KEY_TYPE, spec.key_type);
    w.put_u32(SET_KEY_LEN, spec.key_len);
    if spec.data_type != 0 {
        w.put_u32(SET_DATA_TYPE, spec.data_type);
        if spec.data_type != TYPE_VERDICT {
            w.put_u32(SET_DATA_LEN, spec.data_len);
        }
    }
    if spec.size != 0 || !spec.ranges.is_empty() {
        w.nested(SET_DESC, |w| set_description(w, spec));
    }
    // The kernel insists on a number by which later messages of the batch could name the set.
    w.put_u32(SET_ID, id);
    if spec.timeout_ms != 0 {
        w.put_u64(SET_TIMEOUT, spec.timeout_ms);
    }
    if !spec.userdata.is_empty() {
        w.put(SET_USERDATA, &spec.userdata);
    }
    if spec.counter {
        w.nested(SET_EXPR, |w| exprs::write_counter(w, &Counter::default()));
    }
}

fn set_description(w: &mut Writer, spec: &SetSpec) {
    if spec.size != 0 {
        w.put_u32(DESC_SIZE, spec.size);
    }
    if !spec.ranges.is_empty() {
        let field = |w: &mut Writer, len: &u32| w.nested(LIST_ELEMENT, |w| w.put_u32(FIELD_LEN, *len));
        w.nested(DESC_CONCATENATION, |w| spec.ranges.iter().for_each(|len| field(w, len)));
    }
}

fn chain(w: &mut Writer, name: &str, base: Option<&Base>) {
    w.put_str(CHAIN_NAME, name);
    let Some(base) = base else { return };
    w.nested(CHAIN_HOOK, |w| {
        w.put_u32(HOOK_NUMBER, base.hook as u32);
        w.put_u32(HOOK_PRIORITY, base.priority.cast_unsigned());
    });
    w.put_str(CHAIN_TYPE, chain_kind_name(base.kind));
}

fn chain_kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    }
}

/// Puts as many of the leading operations as are of one kind, on one set, into one message.
fn elements(w: &mut Writer, rest: &[Op], name: &str, carried: &Carried) -> usize {
    let adding = matches!(rest.first(), Some(Op::AddElement { .. }));
    w.put_str(ELEMENTS_SET, name);
    let mut used = 0;
    let before = w.message_len();
    w.nested(ELEMENTS, |w| {
        for op in rest {
            match op {
                Op::AddElement { set, key, data } if adding && *set == name => {
                    element(w, key, data, carried.get(&(*set, *key)));
                }
                Op::DeleteElement { set, key, upto } if !adding && *set == name => {
                    element(w, key, &upto.map_or(Data::None, Data::Upto), None);
                }
                _ => return,
            }
            used += 1;
            if w.message_len() - before > ELEMENT_LIST {
                return;
            }
        }
    });
    used
}

fn element(w: &mut Writer, key: &Bytes, data: &Data, counter: Option<&Counter>) {
    w.nested(LIST_ELEMENT, |w| {
        w.nested(ELEMENT_KEY, |w| w.put(DATA_VALUE, key.as_slice()));
        match data {
            Data::None => {}
            Data::Value(bytes) => w.nested(ELEMENT_DATA, |w| w.put(DATA_VALUE, bytes.as_slice())),
            Data::Verdict(verdict) => w.nested(ELEMENT_DATA, |w| write_verdict(w, verdict)),
            Data::Upto(end) => w.nested(ELEMENT_KEY_END, |w| w.put(DATA_VALUE, end.as_slice())),
        }
        if let Some(counter) = counter {
            w.nested(ELEMENT_EXPR, |w| exprs::write_counter(w, counter));
        }
    });
}

const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

pub fn write_verdict(w: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (DROP, None),
        Verdict::Accept => (ACCEPT, None),
        Verdict::Return => (RETURN, None),
        Verdict::Jump(chain) => (JUMP, Some(chain)),
        Verdict::Goto(chain) => (GOTO, Some(chain)),
    };
    w.nested(DATA_VERDICT, |w| {
        w.put_u32(VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain {
            w.put_str(VERDICT_CHAIN, chain);
        }
    });
}

pub fn parse_verdict(attr: Attr) -> Option<Verdict> {
    let chain = attr.attrs().find(VERDICT_CHAIN).and_then(|a| a.str()).map(String::from);
    match (attr.attrs().find(VERDICT_CODE)?.u32()?.cast_signed(), chain) {
        (DROP, None) => Some(Verdict::Drop),
        (ACCEPT, None) => Some(Verdict::Accept),
        (RETURN, None) => Some(Verdict::Return),
        (JUMP, Some(chain)) => Some(Verdict::Jump(chain)),
        (GOTO, Some(chain)) => Some(Verdict::Goto(chain)),
        _ => None,
    }
}

/// Asks for one element.
pub fn get_element(w: &mut Writer, target: Target, set: &str, key: &Bytes, seq: u32) {
    w.begin(GET_ELEMENT, NLM_F_REQUEST, seq, target.family.number(), 0);
    w.put_str(TABLE, target.table);
    w.put_str(ELEMENTS_SET, set);
    w.nested(ELEMENTS, |w| element(w, key, &Data::None, None));
    w.end();
}

/// An element with what it counted.
pub type Counted = (Bytes, Data, Counter);

/// The counting elements of a message.
pub fn parse_counted<'a>(message: &Message<'a>) -> impl Iterator<Item = Counted> + use<'a> {
    let list = message.attrs().find(ELEMENTS).map_or(Attrs(&[]), |a| a.attrs());
    list.filter_map(|element| {
        let key = Bytes::new(element.attrs().find(ELEMENT_KEY)?.attrs().find(DATA_VALUE)?.payload)?;
        let counter = exprs::parse_counter(element.attrs().find(ELEMENT_EXPR)?)?;
        Some((key, parse_data(element)?, counter))
    })
}

/// Reads a batch, or the answers to a dump. `None` when something in it can be none of ours.
pub fn parse(bytes: &[u8]) -> Option<Vec<Op>> {
    let mut ops = Vec::new();
    for message in Messages(bytes).filter(|m| ![BATCH_BEGIN, BATCH_END].contains(&m.kind)) {
        parse_message(&message, &mut ops)?;
    }
    Some(ops)
}

/// Reads one message, which can hold many elements.
pub fn parse_message(message: &Message, ops: &mut Vec<Op>) -> Option<()> {
    let attrs = message.attrs();
    let string = |kind: u16| attrs.find(kind).and_then(|a| a.str()).map(String::from);
    ops.push(match message.kind {
        NEW_TABLE if attrs.find(TABLE_FLAGS).and_then(|a| a.u32()).unwrap_or(0) == 0 => Op::AddTable,
        DEL_TABLE => Op::DeleteTable,
        NEW_CHAIN => Op::AddChain { name: string(CHAIN_NAME)?, base: parse_base(attrs)? },
        DEL_CHAIN => Op::DeleteChain { name: string(CHAIN_NAME)? },
        NEW_RULE => Op::AddRule { chain: string(RULE_CHAIN)?, rule: parse_rule(attrs) },
        DEL_RULE => Op::FlushChain { name: string(RULE_CHAIN)? },
        NEW_SET => Op::AddSet { name: string(SET_NAME)?, spec: parse_set(attrs)? },
        DEL_SET => Op::DeleteSet { name: string(SET_NAME)? },
        NEW_ELEMENT | DEL_ELEMENT => {
            let set = schema::set_name(attrs.find(ELEMENTS_SET)?.str()?)?;
            let list = attrs.find(ELEMENTS).map_or(Attrs(&[]), |a| a.attrs());
            for element in list {
                let key = Bytes::new(element.attrs().find(ELEMENT_KEY)?.attrs().find(DATA_VALUE)?.payload)?;
                ops.push(match message.kind {
                    NEW_ELEMENT => Op::AddElement { set, key, data: parse_data(element)? },
                    _ => Op::DeleteElement { set, key, upto: parse_key_end(element) },
                });
            }
            return Some(());
        }
        _ => return None,
    });
    Some(())
}

/// The outer `None` is a hook that we never use.
fn parse_base(attrs: Attrs) -> Option<Option<Base>> {
    let Some(hook) = attrs.find(CHAIN_HOOK) else { return Some(None) };
    let number = hook.attrs().find(HOOK_NUMBER)?.u32()?;
    let kind = attrs.find(CHAIN_TYPE)?.str()?;
    Some(Some(Base {
        kind: [ChainKind::Filter, ChainKind::Nat].into_iter().find(|k| chain_kind_name(*k) == kind)?,
        hook: Hook::ALL.into_iter().find(|h| *h as u32 == number)?,
        priority: hook.attrs().find(HOOK_PRIORITY)?.u32()?.cast_signed(),
    }))
}

fn parse_rule(attrs: Attrs) -> Rule {
    let exprs = attrs.find(RULE_EXPRESSIONS).map_or(Attrs(&[]), |a| a.attrs()).map(exprs::parse).collect();
    let note = attrs.find(RULE_USERDATA).map_or(&[][..], |a| a.payload);
    let comment = match note {
        [NOTE_COMMENT, len, rest @ ..] => rest.get(..usize::from(*len).saturating_sub(1)),
        _ => None,
    };
    Rule { exprs, comment: comment.and_then(|text| std::str::from_utf8(text).ok()).map(String::from) }
}

fn parse_set(attrs: Attrs) -> Option<SetSpec> {
    let number = |kind: u16| attrs.find(kind).and_then(|a| a.u32()).unwrap_or(0);
    let data_type = number(SET_DATA_TYPE);
    let description = attrs.find(SET_DESC).map_or(Attrs(&[]), |a| a.attrs());
    let size = description.find(DESC_SIZE).and_then(|a| a.u32());
    let fields = description.find(DESC_CONCATENATION).map_or(Attrs(&[]), |a| a.attrs());
    Some(SetSpec {
        flags: number(SET_FLAGS),
        key_type: number(SET_KEY_TYPE),
        key_len: attrs.find(SET_KEY_LEN)?.u32()?,
        data_type,
        // The kernel tells the length of its own verdict structure.
        data_len: if data_type == TYPE_VERDICT { 0 } else { number(SET_DATA_LEN) },
        size: size.unwrap_or(0),
        ranges: fields.filter_map(|field| field.attrs().find(FIELD_LEN)?.u32()).collect(),
        timeout_ms: attrs.find(SET_TIMEOUT).and_then(|a| a.u64()).unwrap_or(0),
        counter: attrs.find(SET_EXPR).is_some_and(exprs::is_counter),
        userdata: attrs.find(SET_USERDATA).map_or(Vec::new(), |a| a.payload.to_vec()),
    })
}

fn parse_key_end(element: Attr) -> Option<Bytes> {
    Bytes::new(element.attrs().find(ELEMENT_KEY_END)?.attrs().find(DATA_VALUE)?.payload)
}

fn parse_data(element: Attr) -> Option<Data> {
    if let Some(end) = parse_key_end(element) {
        return Some(Data::Upto(end));
    }
    let Some(data) = element.attrs().find(ELEMENT_DATA) else { return Some(Data::None) };
    if let Some(value) = data.attrs().find(DATA_VALUE) {
        return Some(Data::Value(Bytes::new(value.payload)?));
    }
    data.attrs().find(DATA_VERDICT).and_then(parse_verdict).map(Data::Verdict)
}

#[cfg(test)]
mod tests {
    use super::super::program::{Class, ClassKind};
    use super::super::schema::{KeyKind, Options, class_chain, structure};
    use super::*;
    use crate::config::DetectLocal;
    use proptest::prelude::*;

    fn target(family: Family, carried: &Carried) -> Target<'_> {
        Target { family, table: "kube-proxy", carried }
    }

    fn options(family: Family, detect_local: DetectLocal) -> Options {
        Options {
            family,
            detect_local,
            masquerade_all: false,
            masquerade_mark: 1 << 14,
            node_ports_everywhere: family == Family::V4,
            endpoint_counters: false,
            liberal: false,
        }
    }

    fn everything(options: &Options) -> Vec<Op> {
        let structure = structure(options);
        let mut ops = vec![Op::DeleteTable, Op::AddTable];
        ops.extend(structure.sets.into_iter().map(|(name, spec)| Op::AddSet { name, spec }));
        let class = Class { kind: ClassKind::Local, cluster: 3, local: 2 };
        let mut chains: Vec<_> = structure.chains.into_iter().collect();
        chains.push(("class".into(), class_chain(options, KeyKind::Vip, class)));
        for (name, chain) in chains {
            ops.push(Op::AddChain { name: name.clone(), base: chain.base });
            ops.push(Op::FlushChain { name: name.clone() });
            ops.extend(chain.rules.into_iter().map(|rule| Op::AddRule { chain: name.clone(), rule }));
            ops.push(Op::DeleteChain { name });
        }
        ops
    }

    #[test]
    fn every_rule_we_load_survives_the_round_trip() {
        let cidrs = ["10.0.0.0/8", "fd00::/8"].map(|c| crate::model::Cidr::parse(c).unwrap()).into();
        let detectors = [DetectLocal::None, DetectLocal::ClusterCidr(cidrs), DetectLocal::InterfacePrefix("cali".into())];
        for (family, detector) in Family::ALL.into_iter().flat_map(|f| detectors.clone().map(|d| (f, d))) {
            let ops = everything(&options(family, detector));
            let batch = render(&ops, target(family, &Carried::new()), 7);
            assert_eq!(parse(batch.writer.bytes()), Some(ops.clone()));
            assert_eq!(batch.last - batch.first, ops.len() as u32);
        }
    }

    fn element_op() -> impl Strategy<Value = Op> {
        const NAMES: [&str; 4] = ["frontend-ips", "endpoint-ips", "cluster-ips", "dispatch-ips"];
        let bytes = || proptest::collection::vec(any::<u8>(), 1..40).prop_map(|b| Bytes::new(&b).unwrap());
        let data = prop_oneof![
            Just(Data::None),
            bytes().prop_map(Data::Value),
            Just(Data::Verdict(Verdict::Drop)),
            bytes().prop_map(Data::Upto),
            "[a-z]{1,9}".prop_map(|chain| Data::Verdict(Verdict::Goto(chain))),
        ];
        (proptest::sample::select(&NAMES[..]), bytes(), data, any::<bool>()).prop_map(|(name, key, data, add)| {
            let set = schema::set_name(name).unwrap();
            let upto = if let Data::Upto(end) = data { Some(end) } else { None };
            if add { Op::AddElement { set, key, data } } else { Op::DeleteElement { set, key, upto } }
        })
    }

    proptest! {
        #[test]
        fn elements_survive_the_round_trip(ops in proptest::collection::vec(element_op(), 1..60)) {
            let batch = render(&ops, target(Family::V6, &Carried::new()), 1);
            prop_assert_eq!(parse(batch.writer.bytes()), Some(ops));
        }
    }

    #[test]
    fn a_replaced_element_carries_its_counter() {
        let key = Bytes::EMPTY.component(&[1]);
        let set = schema::set_name("frontend-ips").unwrap();
        let counter = Counter { packets: 7, bytes: 420 };
        let carried = Carried::from([((set, key), counter)]);
        let ops = [Op::AddElement { set, key, data: Data::None }];
        let batch = render(&ops, target(Family::V4, &carried), 1);
        let added = Messages(batch.writer.bytes()).find(|message| message.kind == NEW_ELEMENT).unwrap();
        assert_eq!(parse_counted(&added).collect::<Vec<_>>(), [(key, Data::None, counter)]);
    }

    #[test]
    fn long_lists_of_elements_are_cut_into_messages() {
        let add = |n: u32| Op::AddElement { set: schema::CLUSTER_IPS, key: Bytes::EMPTY.component(&n.to_be_bytes()), data: Data::None };
        let ops: Vec<Op> = (0..10_000).map(add).collect();
        let batch = render(&ops, target(Family::V4, &Carried::new()), 1);
        assert!(batch.operations.len() > 1 && batch.operations.len() < 10, "{}", batch.operations.len());
        assert_eq!(parse(batch.writer.bytes()), Some(ops));
    }
}
