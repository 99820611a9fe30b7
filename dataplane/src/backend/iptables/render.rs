//! Operations to iptables-restore's input.
//!
//! Owns the spelling, which is kube-proxy's: the order of arguments, and numbers as it writes them. Tests: `parse`
//! (round trips) and `tests`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;

use super::ir::{Match, Op, Rule, Section, State, Target, Write};

/// iptables-restore's input, and whose each line is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    pub text: String,
    /// For each line, the index of the piece it came from; `None` for those between.
    lines: Vec<Option<u32>>,
}

impl Input {
    /// The piece that a line, counted from 1, came from.
    pub fn piece_of(&self, line: usize) -> Option<usize> {
        self.lines.get(line.checked_sub(1)?).copied().flatten().map(|piece| piece as usize)
    }

    /// A line, counted from 1.
    pub fn line(&self, line: usize) -> Option<&str> {
        self.text.lines().nth(line.checked_sub(1)?)
    }

    fn push(&mut self, piece: Option<usize>, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.text.push('\n');
        self.lines.push(piece.map(|piece| u32::try_from(piece).expect("a cluster has fewer services")));
    }
}

/// Renders the pieces' writes as one input: section by section, and in each, chains are made first and removed last.
pub fn render(pieces: &[&[Write]]) -> Input {
    let mut writes: Vec<(usize, &Write)> =
        pieces.iter().enumerate().flat_map(|(index, piece)| piece.iter().map(move |write| (index, write))).collect();
    writes.sort_by_key(|(_, write)| (write.section, write.op.phase()));
    let mut input = Input::default();
    let mut open: Option<Section> = None;
    for (piece, write) in writes {
        if open != Some(write.section) {
            if open.is_some() {
                input.push(None, |text| text.push_str("COMMIT"));
            }
            input.push(None, |text| {
                text.push('*');
                text.push_str(write.section.table().name());
            });
            open = Some(write.section);
        }
        input.push(Some(piece), |text| op(text, &write.op));
    }
    if open.is_some() {
        input.push(None, |text| text.push_str("COMMIT"));
    }
    input
}

fn op(text: &mut String, op: &Op) {
    // Writing to a string cannot fail.
    let _ = match op {
        Op::Declare(chain) => write!(text, ":{chain} - [0:0]"),
        Op::Append(chain, held) => write!(text, "-A {chain}").map(|()| rule(text, held)),
        Op::Insert(chain, held) => write!(text, "-I {chain}").map(|()| rule(text, held)),
        Op::Delete(chain, held) => write!(text, "-D {chain}").map(|()| rule(text, held)),
        Op::Remove(chain) => write!(text, "-X {chain}"),
    };
}

/// A rule's arguments, each with a space before it.
pub fn rule(text: &mut String, rule: &Rule) {
    for held in &rule.matches {
        matching(text, held, rule);
    }
    let addressed_by_port = rule.matches.iter().any(|m| matches!(m, Match::Port(_)));
    if !addressed_by_port {
        protocol(text, rule);
        destination(text, rule);
    }
    if let Some(source) = &rule.source {
        let not = if source.not { " !" } else { "" };
        let _ = write!(text, "{not} -s {}", source.within);
    }
    if let Some(interface) = &rule.interface {
        let not = if interface.not { " !" } else { "" };
        let _ = write!(text, "{not} -i {}", interface.name);
    }
    if let Some(held) = &rule.target {
        target(text, held);
    }
}

fn protocol(text: &mut String, rule: &Rule) {
    if let Some(protocol) = rule.protocol {
        let _ = write!(text, " -p {protocol}");
    }
}

fn destination(text: &mut String, rule: &Rule) {
    if let Some(destination) = &rule.destination {
        let not = if destination.not { " !" } else { "" };
        let _ = write!(text, "{not} -d {}", destination.within);
    }
}

fn matching(text: &mut String, held: &Match, rule: &Rule) {
    let _ = match held {
        Match::Comment(comment) => write!(text, " -m comment --comment \"{}\"", comment.as_str()),
        Match::Port(port) => {
            if let Some(protocol) = rule.protocol {
                let _ = write!(text, " -m {protocol}");
            }
            protocol(text, rule);
            destination(text, rule);
            port.map_or(Ok(()), |port| write!(text, " --dport {port}"))
        }
        Match::SourceIsLocal => write!(text, " -m addrtype --src-type LOCAL"),
        Match::DestinationIsLocal => write!(text, " -m addrtype --dst-type LOCAL"),
        Match::Mark { value, mask, not } => {
            let not = if *not { " !" } else { "" };
            write!(text, " -m mark{not} --mark {value:#010x}/{mask:#010x}")
        }
        Match::Conntrack { states, not } => {
            let not = if *not { " !" } else { "" };
            let names: Vec<&str> = State::ALL.iter().filter(|(state, _)| states.contains(state)).map(|(_, name)| *name).collect();
            write!(text, " -m conntrack{not} --ctstate {}", names.join(","))
        }
        Match::Remembered { list, seconds } => write!(text, " -m recent --name {list} --rcheck --seconds {seconds} --reap"),
        Match::Remember { list } => write!(text, " -m recent --name {list} --set"),
        Match::OneIn(count) => write!(text, " -m statistic --mode random --probability {}", probability(*count)),
        Match::Account(name) => write!(text, " -m nfacct --nfacct-name {name}"),
    };
}

fn target(text: &mut String, target: &Target) {
    let _ = match target {
        Target::Jump(chain) => write!(text, " -j {chain}"),
        Target::Accept => write!(text, " -j ACCEPT"),
        Target::Drop => write!(text, " -j DROP"),
        Target::Return => write!(text, " -j RETURN"),
        Target::Reject => write!(text, " -j REJECT"),
        Target::Mark { value, mask: 0 } => write!(text, " -j MARK --xor-mark {value:#010x}"),
        Target::Mark { value, mask } if value == mask => write!(text, " -j MARK --or-mark {value:#010x}"),
        Target::Mark { value, mask } => write!(text, " -j MARK --set-xmark {value:#010x}/{mask:#010x}"),
        Target::Masquerade { random: true } => write!(text, " -j MASQUERADE --random-fully"),
        Target::Masquerade { random: false } => write!(text, " -j MASQUERADE"),
        Target::Dnat(to) => write!(text, " -j DNAT --to-destination {to}"),
    };
}

/// One in so many, as kube-proxy writes it.
pub fn probability(one_in: u32) -> String {
    format!("{:.10}", 1.0 / f64::from(one_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the specification's test vectors.
    #[test]
    fn probabilities_have_ten_decimals() {
        let of = |count: u32| (2..=count).rev().map(probability).collect::<Vec<_>>();
        assert!(of(1).is_empty());
        assert_eq!(of(2), ["0.5000000000"]);
        assert_eq!(of(3), ["0.3333333333", "0.5000000000"]);
        let seven = ["0.1428571429", "0.1666666667", "0.2000000000", "0.2500000000", "0.3333333333", "0.5000000000"];
        assert_eq!(of(7), seven);
    }

    /// Of the specification's test vectors.
    #[test]
    fn marks_have_eight_digits() {
        for (bit, text) in [(14, "0x00004000"), (0, "0x00000001"), (31, "0x80000000")] {
            let mark = 1 << bit;
            let mut line = String::new();
            rule(&mut line, &Rule::to(Target::Mark { value: mark, mask: mark }));
            assert_eq!(line, format!(" -j MARK --or-mark {text}"));
        }
    }

    #[test]
    fn lines_lead_back_to_their_pieces() {
        use crate::backend::iptables::names::{Chain, Fixed};
        let chain = Chain::Fixed(Fixed::Services);
        let write = |section, op| Write { section, op };
        let first = [write(Section::Nat, Op::Append(chain, Rule::to(Target::Drop))), write(Section::FilterLast, Op::Remove(chain))];
        let second = [write(Section::Nat, Op::Declare(chain))];
        let input = render(&[&first, &second]);
        let expected = "*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -j DROP\nCOMMIT\n*filter\n-X KUBE-SERVICES\nCOMMIT\n";
        assert_eq!(input.text, expected);
        let pieces: Vec<Option<usize>> = (0..=8).map(|line| input.piece_of(line)).collect();
        assert_eq!(pieces, [None, None, Some(1), Some(0), None, None, Some(0), None, None]);
        assert_eq!(input.line(3), Some("-A KUBE-SERVICES -j DROP"));
    }
}
