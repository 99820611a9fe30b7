//! The iptables commands that hold the rules around IPVS.
//!
//! Owns the running of `-save` and `-restore`. Decides nothing: what a line means is `render`'s. Tests: the tests on
//! other kernels.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use super::render::Saved;
use crate::backend::iptables::variant::{Commands, Evidence, Variant, choose};
use crate::model::Family;
use crate::netlink::attr::Writer;
use crate::netlink::socket::{NLM_F_ACK, NLM_F_REQUEST, NetfilterSocket};

/// Seconds that a command waits for others that hold iptables' lock.
const LOCK_SECONDS: &str = "5";

#[derive(Debug, thiserror::Error)]
pub enum XtablesError {
    #[error("cannot run {command} (is the package iptables installed?): {source}")]
    Run { command: &'static str, source: io::Error },
    #[error("{command} failed: {said}")]
    Failed { command: &'static str, said: String },
    #[error("neither iptables-nft nor iptables-legacy works here: {said}")]
    None { said: String },
}

/// One family's commands, of the variant that this node uses.
#[derive(Debug, Clone, Copy)]
pub struct Xtables(Commands);

impl Xtables {
    /// Those that work here.
    pub fn all(family: Family) -> Vec<Xtables> {
        let variants = [Variant::Nft, Variant::Legacy].map(|variant| Xtables(Commands::of(variant, family)));
        variants.into_iter().filter(|one| one.evidence().is_ok()).collect()
    }

    /// Finds the variant that this node uses.
    pub fn find(family: Family) -> Result<Xtables, XtablesError> {
        let [legacy, nft] = [Variant::Legacy, Variant::Nft].map(|variant| Xtables(Commands::of(variant, family)).evidence());
        let said = || [&legacy, &nft].map(|one| one.as_ref().err().map(ToString::to_string).unwrap_or_default()).join("; ");
        let none = XtablesError::None { said: said() };
        choose(legacy.ok(), nft.ok()).map(|variant| Xtables(Commands::of(variant, family))).ok_or(none)
    }

    /// What there is of a variant's rules; an error when it does not work here.
    fn evidence(&self) -> Result<Evidence, XtablesError> {
        // The nft variant lists nothing, and says that all is well, on kernels where it can make nothing.
        if self.0.variant == Variant::Nft && !has_nftables(self.0.family) {
            let said = format!("the kernel has no nftables for {}", self.0.family);
            return Err(XtablesError::Failed { command: self.0.save, said });
        }
        let mut evidence = Evidence::default();
        evidence.take(&self.save()?);
        Ok(evidence)
    }

    /// All tables in use, as text.
    pub fn save(&self) -> Result<String, XtablesError> {
        let output = run(self.0.save, &[], "")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Feeds `-restore`. Each table is taken as a whole, or not at all; after an error the first may be in force.
    pub fn restore(&self, input: &str) -> Result<(), XtablesError> {
        run(self.0.restore, &["-w", LOCK_SECONDS, "--noflush"], input).map(drop)
    }
}

/// Whether the chains that both have are the ipvs backend's. False when that cannot be seen.
pub fn has_taken_over(commands: Commands) -> bool {
    Xtables(commands).save().is_ok_and(|text| Saved::read(&text).are_ours())
}

/// Whether the kernel's nftables has the family that iptables' tables are in: a table is made, in a transaction that is
/// never ended and so never happens.
pub fn has_nftables(family: Family) -> bool {
    const NFTABLES: u16 = 10;
    const BATCH_BEGIN: u16 = 16;
    const CREATE: u16 = 0x400;
    const TABLE_NAME: u16 = 1;
    let Ok(mut socket) = NetfilterSocket::open() else { return false };
    let first = socket.reserve_seq(2);
    let mut w = Writer::default();
    w.begin(BATCH_BEGIN, NLM_F_REQUEST, first, 0, NFTABLES);
    w.end();
    w.begin(NFTABLES << 8, NLM_F_REQUEST | NLM_F_ACK | CREATE, first.wrapping_add(1), family.number(), 0);
    w.put_str(TABLE_NAME, "nat");
    w.end();
    socket.batch(w.bytes(), first, first.wrapping_add(1)).is_ok()
}

fn run(command: &'static str, args: &[&str], input: &str) -> Result<Output, XtablesError> {
    let run = || -> io::Result<Output> {
        let pipes = Command::new(command).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = pipes?;
        // It prints nothing before it has read everything. If it ended early, its status tells why.
        let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        if output.status.success() { fed.map(|()| output) } else { Ok(output) }
    };
    let output = run().map_err(|source| XtablesError::Run { command, source })?;
    if output.status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    Err(XtablesError::Failed { command, said: if words.is_empty() { output.status.to_string() } else { words } })
}
