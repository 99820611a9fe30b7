//! The floor: what each mechanism's kernel part needs for the same change when all is prepared.
//!
//! With nftables the same elements, in batches of netlink messages; with iptables the same lines, fed to a bare
//! `iptables-restore`. No files, no objects, no comparing: that has been done before the clock starts.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use longshore_dataplane::Family;
use longshore_dataplane::backend::iptables::kernel::Kernel as Iptables;
use longshore_dataplane::backend::iptables::program::Program;
use longshore_dataplane::backend::iptables::render::Input;
use longshore_dataplane::backend::iptables::schema;
use longshore_dataplane::backend::nft::compile::compile;
use longshore_dataplane::backend::nft::ir::Op;
use longshore_dataplane::backend::nft::kernel::Kernel as Nftables;
use longshore_dataplane::backend::nft::table::{Loaded, Table};
use longshore_dataplane::backend::{NodeAddresses, Options};
use longshore_dataplane::model::ObjectName;
use longshore_dataplane::resolve::Resolved;
use longshore_dataplane::store::ServiceStore;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::network::Network;
use super::serve;
use super::services::{Change, Services, parsed};

pub struct Floor {
    store: ServiceStore,
    rules: Rules,
    pub loaded: Duration,
    pub cpu: Duration,
}

enum Rules {
    Nft(Box<Table>, Nftables),
    Iptables(Box<Program>, Restorer),
}

pub enum Prepared {
    Nft(Vec<Vec<Op>>),
    Iptables(Input),
}

fn used(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.cast_unsigned())
}

impl Floor {
    pub fn load(mode: &str, network: &Network, services: &Services) -> Result<Floor, String> {
        let mut store = ServiceStore::new("node", None, &[]);
        for index in 0..services.len() {
            let (service, slice) = parsed(index, services.endpoints(index));
            store.set_service(&service);
            store.set_slice(&slice);
        }
        let options = Options::of(&serve::config(mode), Family::V4);
        let resolved: Vec<(ObjectName, Resolved)> =
            store.take_dirty().into_iter().map(|name| (name.clone(), store.resolve(&name, Family::V4))).collect();
        let (rules, loaded) = match mode {
            "nftables" => network.node.run(|| load_nft(options, resolved))?,
            "iptables" => load_iptables(options, network, &resolved)?,
            other => return Err(format!("no floor is known for {other}")),
        };
        Ok(Floor { store, rules, loaded, cpu: Duration::ZERO })
    }

    /// Finds the elements or lines of a change.
    pub fn prepare(&mut self, change: &Change) -> Prepared {
        let (_, slice) = parsed(change.service, change.endpoints);
        self.store.set_slice(&slice);
        let names = self.store.take_dirty();
        match &mut self.rules {
            Rules::Nft(table, _) => {
                for name in &names {
                    let resolved = self.store.resolve(name, Family::V4);
                    let fragment = compile(name, resolved, &**table);
                    table.set(name, fragment);
                }
                let transactions = table.plan();
                table.committed();
                Prepared::Nft(transactions)
            }
            Rules::Iptables(program, _) => {
                names.iter().for_each(|name| program.set(name, &self.store.resolve(name, Family::V4)));
                let plan = program.plan(&program.waiting());
                let input = plan.input();
                program.committed(&plan);
                Prepared::Iptables(input)
            }
        }
    }

    pub fn commit(&mut self, prepared: Prepared) -> Result<(), String> {
        match (&mut self.rules, prepared) {
            (Rules::Nft(_, kernel), Prepared::Nft(transactions)) => {
                let before = used(UsageWho::RUSAGE_THREAD);
                for transaction in &transactions {
                    kernel.commit(Family::V4, transaction).map_err(|error| error.to_string())?;
                }
                self.cpu += used(UsageWho::RUSAGE_THREAD) - before;
            }
            (Rules::Iptables(_, restorer), Prepared::Iptables(input)) => {
                let before = used(UsageWho::RUSAGE_CHILDREN);
                restorer.restore(input)?;
                self.cpu += used(UsageWho::RUSAGE_CHILDREN) - before;
            }
            _ => unreachable!("what is prepared is committed by the same"),
        }
        Ok(())
    }
}

fn load_nft(options: Options, resolved: Vec<(ObjectName, Resolved)>) -> Result<(Rules, Duration), String> {
    let said = |error: longshore_dataplane::backend::nft::kernel::KernelError| error.to_string();
    let mut kernel = Nftables::open(longshore_dataplane::TABLE).map_err(said)?;
    let mut table = Table::new(options);
    for (name, resolved) in resolved {
        let fragment = compile(&name, resolved, &table);
        table.set(&name, fragment);
    }
    let creation = table.plan_creation(&Loaded::Nothing);
    table.created(&Loaded::Nothing);
    let transactions = table.plan();
    table.committed();
    let began = Instant::now();
    kernel.commit(Family::V4, &creation).map_err(said)?;
    for transaction in &transactions {
        kernel.commit(Family::V4, transaction).map_err(said)?;
    }
    Ok((Rules::Nft(Box::new(table), kernel), began.elapsed()))
}

fn load_iptables(options: Options, network: &Network, resolved: &[(ObjectName, Resolved)]) -> Result<(Rules, Duration), String> {
    let restorer = Restorer::start(network)?;
    let options =
        schema::Options { common: options, localhost_node_ports: false, liberal: false, accounting: false, node_port_ips: Vec::new() };
    let mut program = Program::new(options);
    program.adopt(longshore_dataplane::backend::iptables::diff::Holding::default());
    program.set_node_port_ips(NodeAddresses::default().node_ports);
    resolved.iter().for_each(|(name, resolved)| program.set(name, resolved));
    let plan = program.plan(&program.waiting());
    let input = plan.input();
    program.committed(&plan);
    let began = Instant::now();
    restorer.restore(input)?;
    Ok((Rules::Iptables(Box::new(program), restorer), began.elapsed()))
}

/// A thread in the node's namespace that runs `iptables-restore`.
pub struct Restorer {
    inputs: mpsc::Sender<Input>,
    outcomes: mpsc::Receiver<Result<(), String>>,
}

impl Restorer {
    fn start(network: &Network) -> Result<Restorer, String> {
        let (inputs, input) = mpsc::channel::<Input>();
        let (outcome, outcomes) = mpsc::channel();
        let node = network.node.clone();
        std::thread::spawn(move || {
            node.enter();
            let kernel = match Iptables::open(Family::V4) {
                Ok(kernel) => kernel,
                Err(error) => return drop(outcome.send(Err(error.to_string()))),
            };
            let jumps = || schema::JUMPS.iter().try_for_each(|jump| kernel.insert(jump));
            let mut jumped = false;
            for input in input {
                let mut done = kernel.restore(&input);
                if !std::mem::replace(&mut jumped, true) {
                    done = done.and_then(|()| jumps());
                }
                // Whoever waits may have given up.
                let _ = outcome.send(done.map_err(|error| error.to_string()));
            }
        });
        Ok(Restorer { inputs, outcomes })
    }

    fn restore(&self, input: Input) -> Result<(), String> {
        let gone = || "the thread that restores has ended".to_string();
        self.inputs.send(input).map_err(|_| gone())?;
        self.outcomes.recv().map_err(|_| gone())?
    }
}
