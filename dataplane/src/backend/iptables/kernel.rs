//! The iptables backend's conversation with the kernel, which is a conversation with iptables' commands.
//!
//! Owns the running of them: `-save` to read, `-restore` on its standard input to write; and, through the `iptables`
//! crate, single commands for the jumps and the canaries. Every command has a deadline. Decides nothing: what a line
//! means is `parse`'s, what to write `program`'s. Tests: the namespace tests.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use iptables::IPTables;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::diff::Holding;
use super::image::Image;
use super::ir::{Line, Table};
use super::names::{Chain, Fixed};
use super::parse::{Saved, saved};
use super::render::{Input, rule};
use super::schema::{INVALID_DROPPED, Jump};
use super::variant::{Commands, Evidence, Variant, choose, parse_version};
use crate::backend::ipvs::xtables::has_nftables;
use crate::model::Family;
use crate::trace::Held;

/// Seconds that a command waits for others that hold iptables' lock.
const LOCK_SECONDS: &str = "5";
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Longer than the largest table takes.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first with `-restore -w` and `--random-fully`.
const OLDEST: [u32; 3] = [1, 6, 2];
/// Its exit status when somebody else holds the lock.
const LOCKED: i32 = 4;
/// … and when there is no such rule.
const NOT_THERE: i32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    #[error("cannot find a working iptables (is the package iptables installed, and its kernel part loaded?): {0}")]
    NoCommands(String),
    #[error("{command} is version {}, and at least {} is needed", version(found), version(&OLDEST))]
    TooOld { command: &'static str, found: [u32; 3] },
    #[error("cannot run {command}: {source}")]
    Run { command: &'static str, source: io::Error },
    #[error("{command} took longer than {} s", PATIENCE.as_secs())]
    TooSlow { command: &'static str },
    #[error("{command}: somebody else held the xtables lock for {LOCK_SECONDS} s")]
    Locked { command: &'static str },
    #[error("{command} failed: {said}")]
    Failed { command: &'static str, said: String },
    #[error("{command} refused {what}: {said}")]
    Refused { command: &'static str, line: Option<usize>, what: String, said: String },
    #[error("cannot {verb} the jump from {from} to {to} in table {table}: {said}")]
    Jump { verb: &'static str, table: &'static str, from: String, to: String, said: String },
}

fn version(parts: &[u32; 3]) -> String {
    parts.map(|part| part.to_string()).join(".")
}

/// One family's iptables, in the network namespace of the calling thread.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    commands: Commands,
}

impl Kernel {
    /// Finds the variant that this node uses. Nothing is written.
    pub fn open(family: Family) -> Result<Kernel, IptablesError> {
        let mut tried = Vec::new();
        let legacy = evidence(Variant::Legacy, &mut tried);
        let nft = evidence(Variant::Nft, &mut tried);
        let commands = match choose(legacy, nft) {
            Some(variant) => Commands::of(variant, family),
            None => plain(family, &mut tried).ok_or_else(|| IptablesError::NoCommands(tried.join("; ")))?,
        };
        Kernel::with(commands)
    }

    /// The variant is known. Sees that the family's tables can be read.
    pub fn with(commands: Commands) -> Result<Kernel, IptablesError> {
        let said = output(commands.iptables, &["--version"])?;
        if let Some((_, found)) = parse_version(&said).filter(|(_, found)| *found < OLDEST) {
            return Err(IptablesError::TooOld { command: commands.iptables, found });
        }
        output(commands.save, &["-t", Table::Nat.name()])?;
        Ok(Kernel { commands })
    }

    /// Those that work here, for cleaning up.
    pub fn all(family: Family) -> Vec<Kernel> {
        let variants = [Variant::Legacy, Variant::Nft].map(|variant| Commands::of(variant, family));
        variants.into_iter().filter(|commands| output(commands.save, &[]).is_ok()).map(|commands| Kernel { commands }).collect()
    }

    pub fn commands(&self) -> Commands {
        self.commands
    }

    /// Reads all tables. Those that nobody uses are not made by it.
    pub fn read(&self) -> Result<Holding, IptablesError> {
        let mut have = Holding::default();
        let mut table = None;
        self.each_line(|line| have.take(&mut table, line))?;
        Ok(have)
    }

    /// The same, with every rule of ours as it stands there.
    pub fn read_rules(&self) -> Result<Held, IptablesError> {
        let (mut holding, mut image, mut foreign) = (Holding::default(), Image::default(), false);
        let (mut table, mut at) = (None, None);
        self.each_line(|line| {
            let others = |chain: &Chain| matches!(chain, Chain::BuiltIn(_) | Chain::Fixed(Fixed::Firewall));
            foreign |= matches!(&line, Saved::Rule(Some(chain), Line::Foreign(_)) if !others(chain));
            image.take(&mut at, &line);
            holding.take(&mut table, line);
        })?;
        Ok(Held::Iptables { holding, image, foreign })
    }

    fn each_line(&self, mut take: impl FnMut(Saved)) -> Result<(), IptablesError> {
        let command = self.commands.save;
        let mut running = Running::start(command, &[], None, true)?;
        let lines = running.lines().map_err(|source| IptablesError::Run { command, source });
        lines?
            .try_for_each(|line| {
                take(saved(&line?));
                Ok(())
            })
            .map_err(|source: io::Error| match source.kind() {
                io::ErrorKind::TimedOut => IptablesError::TooSlow { command },
                _ => IptablesError::Run { command, source },
            })?;
        running.end()
    }

    /// Feeds `-restore`. Each section is taken as a whole, or not at all; after an error those before may be in force.
    pub fn restore(&self, input: &Input) -> Result<(), IptablesError> {
        let command = self.commands.restore;
        let running = Running::start(command, &["-w", LOCK_SECONDS, "--noflush"], Some(&input.text), false)?;
        running.end().map_err(|error| match error {
            IptablesError::Failed { said, .. } => {
                let line = line_number(&said);
                let what = line.and_then(|line| input.line(line)).map_or_else(|| "its input".into(), |line| format!("{line:?}"));
                IptablesError::Refused { command, line, what, said }
            }
            other => other,
        })
    }

    /// The crate's commands wait for the lock without end: so it is waited for before, and not without end.
    fn single(&self, patience: Duration) -> Result<IPTables, IptablesError> {
        if self.commands.variant == Variant::Legacy && !lock_is_free(patience) {
            return Err(IptablesError::Locked { command: self.commands.iptables });
        }
        Ok(IPTables { cmd: self.commands.iptables, has_check: true, has_wait: true, is_numeric: true })
    }

    /// Puts a jump at the head of its chain.
    pub fn insert(&self, jump: &Jump) -> Result<(), IptablesError> {
        let (from, text) = arguments(jump);
        let done = self.single(LOCK_PATIENCE)?.insert(jump.table.name(), &from, &text, 1);
        done.map_err(|error| failure("make", jump, &error.to_string()))
    }

    /// Takes every copy of a jump away.
    pub fn delete(&self, jump: &Jump) -> Result<(), IptablesError> {
        let (from, text) = arguments(jump);
        let done = self.single(LOCK_PATIENCE)?.delete_all(jump.table.name(), &from, &text);
        done.map_err(|error| failure("delete", jump, &error.to_string()))
    }

    /// Whether rules can count in accounting objects here: both the commands and the kernel must know how. There need be
    /// none for it.
    pub fn can_count(&self) -> Result<bool, IptablesError> {
        let command = self.commands.iptables;
        let check = ["-w", LOCK_SECONDS, "-C", "FORWARD", "-m", "nfacct", "--nfacct-name", INVALID_DROPPED, "-j", "DROP"];
        let (status, said) = Running::start(command, &check, None, false)?.finish()?;
        // Newer commands only warn of what the kernel lacks, and say that there is no such rule.
        let understood = matches!(status.code(), Some(0 | NOT_THERE)) && !said.contains("missing kernel module");
        if status.code() == Some(LOCKED) { Err(IptablesError::Locked { command }) } else { Ok(understood) }
    }

    /// Whether the canaries of all tables are there.
    pub fn canaries_live(&self) -> bool {
        let name = Chain::Fixed(Fixed::Canary).to_string();
        // What cannot be asked is asked again later: it is no sign of a flush.
        let Ok(tables) = self.single(Duration::ZERO) else { return true };
        Table::ALL.into_iter().all(|table| tables.chain_exists(table.name(), &name).unwrap_or(true))
    }
}

/// Whether somebody could have iptables' lock within this time. One that cannot be looked at is left to the command.
fn lock_is_free(patience: Duration) -> bool {
    let path = std::env::var_os("XTABLES_LOCKFILE").unwrap_or_else(|| "/run/xtables.lock".into());
    let Ok(file) = File::open(path) else { return true };
    let deadline = Instant::now() + patience;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Closing the file gives it back.
            Ok(()) => return true,
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::WOULDBLOCK) => return false,
            Err(_) => return true,
        }
    }
}

fn arguments(jump: &Jump) -> (String, String) {
    let mut text = String::new();
    rule(&mut text, &jump.rule());
    (Chain::BuiltIn(jump.from).to_string(), text)
}

fn failure(verb: &'static str, jump: &Jump, said: &str) -> IptablesError {
    let (from, to) = (Chain::BuiltIn(jump.from).to_string(), Chain::Fixed(jump.to).to_string());
    IptablesError::Jump { verb, table: jump.table.name(), from, to, said: said.trim().into() }
}

/// What a variant has in both families; `None` when it does not work here. `tried` is told why.
fn evidence(variant: Variant, tried: &mut Vec<String>) -> Option<Evidence> {
    // Its commands list nothing, and say that all is well, on kernels where they can make nothing.
    if variant == Variant::Nft && !Family::ALL.into_iter().any(has_nftables) {
        tried.push("the kernel has no nftables for iptables".into());
        return None;
    }
    let mut evidence = Evidence::default();
    let mut works = false;
    for family in Family::ALL {
        let commands = Commands::of(variant, family);
        // Asking legacy iptables for one table would make it. nft's list of all may be long, and the kubelet's chains
        // are in this one.
        let table: &[&str] = if variant == Variant::Nft { &["-t", "mangle"] } else { &[] };
        let mut saved = output(commands.save, table);
        if variant == Variant::Nft && saved.as_ref().is_ok_and(|saved| !saved.contains(":KUBE-")) {
            saved = output(commands.save, &[]);
        }
        match saved {
            Ok(saved) => {
                works = true;
                evidence.take(&saved);
            }
            Err(error) => tried.push(error.to_string()),
        }
    }
    works.then_some(evidence)
}

fn plain(family: Family, tried: &mut Vec<String>) -> Option<Commands> {
    let commands = Commands::plain(Variant::Legacy, family);
    match output(commands.iptables, &["--version"]) {
        Ok(said) => Some(Commands { variant: parse_version(&said)?.0, ..commands }),
        Err(error) => {
            tried.push(error.to_string());
            None
        }
    }
}

fn output(command: &'static str, args: &[&str]) -> Result<String, IptablesError> {
    let mut running = Running::start(command, args, None, true)?;
    let mut text = Vec::new();
    let read = running.output().and_then(|mut output| output.read_to_end(&mut text));
    read.map_err(|source| IptablesError::Run { command, source })?;
    running.end()?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The line that a complaint of iptables-restore is about: `Error occurred at line: 5`, `line 11: RULE_APPEND failed`.
fn line_number(said: &str) -> Option<usize> {
    let mut words = said.split(|c: char| c.is_whitespace() || c == ':').filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        if word == "line"
            && let Some(number) = words.next().and_then(|next| next.parse().ok())
        {
            return Some(number);
        }
    }
    None
}

/// A command that runs, and is killed when it takes too long or is no longer wanted.
struct Running {
    command: &'static str,
    child: Child,
    pidfd: Option<OwnedFd>,
    complaints: File,
    deadline: Instant,
}

impl Running {
    fn start(command: &'static str, args: &[&str], input: Option<&str>, output: bool) -> Result<Running, IptablesError> {
        let run = || -> io::Result<Running> {
            // Files in memory never fill up as pipes do.
            let complaints = File::from(memfd_create("complaints", MemfdFlags::CLOEXEC)?);
            let stdin = match input {
                None => Stdio::null(),
                Some(text) => {
                    let mut file = File::from(memfd_create("rules", MemfdFlags::CLOEXEC)?);
                    file.write_all(text.as_bytes())?;
                    file.seek(SeekFrom::Start(0))?;
                    file.into()
                }
            };
            let stdout = if output { Stdio::piped() } else { Stdio::null() };
            let child = Command::new(command).args(args).stdin(stdin).stdout(stdout).stderr(complaints.try_clone()?).spawn()?;
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // Kernels before 5.3 have none: then only the end of the output is waited for with a deadline.
            let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            Ok(Running { command, child, pidfd, complaints, deadline: Instant::now() + PATIENCE })
        };
        run().map_err(|source| IptablesError::Run { command, source })
    }

    fn output(&mut self) -> io::Result<impl Read> {
        let pipe = self.child.stdout.take().ok_or_else(|| io::Error::other("its output was taken already"))?;
        Ok(Patient { pipe, deadline: self.deadline })
    }

    fn lines(&mut self) -> io::Result<impl Iterator<Item = io::Result<String>>> {
        Ok(BufReader::with_capacity(64 * 1024, self.output()?).lines())
    }

    /// Waits for the end, and sees whether it went well.
    fn end(self) -> Result<(), IptablesError> {
        let command = self.command;
        let (status, said) = self.finish()?;
        match status.code() {
            _ if status.success() => Ok(()),
            Some(LOCKED) => Err(IptablesError::Locked { command }),
            _ => Err(IptablesError::Failed { command, said }),
        }
    }

    /// Waits for the end, however it went; and what it complained of, in one line.
    fn finish(mut self) -> Result<(ExitStatus, String), IptablesError> {
        let command = self.command;
        let status = self.wait().map_err(|source| match source.kind() {
            io::ErrorKind::TimedOut => IptablesError::TooSlow { command },
            _ => IptablesError::Run { command, source },
        })?;
        let mut said = String::new();
        let told = self.complaints.seek(SeekFrom::Start(0)).and_then(|_| self.complaints.read_to_string(&mut said));
        if told.is_err() || said.trim().is_empty() {
            said = status.to_string();
        }
        Ok((status, said.split_whitespace().collect::<Vec<_>>().join(" ")))
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(pidfd) = &self.pidfd {
            wait_readable(pidfd, self.deadline)?;
        }
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // It may have ended by itself in between.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A pipe that is waited for no longer than until a deadline.
struct Patient<P> {
    pipe: P,
    deadline: Instant,
}

impl<P: Read + AsFd> Read for Patient<P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wait_readable(&self.pipe, self.deadline)?;
        self.pipe.read(buffer)
    }
}

fn wait_readable(what: &impl AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(what, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_their_line() {
        let cases = [
            ("iptables-restore: line 20 failed", Some(20)),
            (
                "iptables-nft-restore v1.8.9 (nf_tables): \nline 11: RULE_APPEND failed (No such file or directory): rule in chain KUBE-FORWARD",
                Some(11),
            ),
            ("iptables-restore v1.8.9 (legacy): Bad argument `x'\nError occurred at line: 3\nTry `iptables-restore -h'", Some(3)),
            ("command line problem", None),
            ("", None),
        ];
        for (said, expected) in cases {
            assert_eq!(line_number(said), expected, "{said}");
        }
    }
}
