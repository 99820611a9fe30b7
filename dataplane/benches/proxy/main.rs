//! What a service proxy costs, with a real `connect()` as the clock: ours, any other, and the kernel's floor, on the
//! same services in network namespaces with no way out.
//!
//! `make bench-proxy`, or `cargo bench -p longshore-dataplane --bench proxy -- --help`. Every contender gets a network
//! of its own and the same files, one for each service; a change is a file put in the place of another. The clock runs
//! from there to the first connection that reaches the new endpoint. Nothing here asserts, because machines are noisy.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be taken ends")]

mod clock;
mod contender;
mod floor;
mod network;
mod report;
mod serve;
mod services;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clock::Client;
use contender::{Contender, Kind};
use network::Network;
use report::{Cell, Report};
use services::Services;

const HELP: &str = "\
bench-proxy [OPTIONS] [SERVICES...]       (default: 100 1000 10000 30000; iptables up to 10000)
  --mode MODE         of ours: nftables (default) or iptables; may be given several times
  --other COMMAND     another proxy to run beside ours; may be given several times. It is started with `sh -c` in the
                      node's network namespace; {services} is the folder of services, {netns} the namespace's path
  --ours COMMAND      ours under another command line; {mode} is the mode
  --changes N         changes to measure for each number of services (default 60, as far as 30 s suffice)
  --out FOLDER        where samples.csv and proxy.svg go (default target/bench-proxy)
Each file of the folder of services is a JSON List of a Service and its EndpointSlice; a change is a file renamed into
the folder. Pods are 10.128.0.0/9, services 10.96.0.0/11.";

struct Arguments {
    sizes: Vec<usize>,
    kinds: Vec<Kind>,
    changes: usize,
    out: PathBuf,
}

fn parse(mut words: impl Iterator<Item = String>) -> Arguments {
    let (mut sizes, mut modes, mut others, mut ours) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut arguments = Arguments { sizes: Vec::new(), kinds: Vec::new(), changes: 60, out: "target/bench-proxy".into() };
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value\n{HELP}"));
        match word.as_str() {
            "--mode" => modes.push(value()),
            "--other" => others.push(value()),
            "--ours" => ours = Some(value()),
            "--changes" => arguments.changes = value().parse().expect("--changes needs a number"),
            "--out" => arguments.out = value().into(),
            // Cargo's own.
            "--bench" => {}
            "--help" | "-h" => {
                println!("{HELP}");
                std::process::exit(0);
            }
            number => sizes.push(number.parse().unwrap_or_else(|_| panic!("what is {number:?}?\n{HELP}"))),
        }
    }
    if modes.is_empty() {
        modes.push("nftables".into());
    }
    for mode in modes {
        arguments.kinds.push(Kind::ours(&mode, ours.as_deref()));
        arguments.kinds.push(Kind::Floor { mode });
    }
    for (index, command) in others.iter().enumerate() {
        let mut name = name_of(command);
        if others[..index].iter().any(|other| name_of(other) == name) {
            name = format!("{name} #{}", index + 1);
        }
        arguments.kinds.push(Kind::Command { name, command: command.clone(), mode: None });
    }
    arguments.sizes = if sizes.is_empty() { vec![100, 1_000, 10_000, 30_000] } else { sizes };
    arguments
}

/// The program's name, for a column's head.
fn name_of(command: &str) -> String {
    let program = command.split_whitespace().find(|word| !word.contains('=') && *word != "exec").unwrap_or(command);
    program.rsplit('/').next().unwrap_or(program).into()
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(serve::VERB) {
        return serve::main(std::env::args().skip(2));
    }
    let arguments = parse(std::env::args().skip(1));
    let mut report = Report::default();
    for services in &arguments.sizes {
        for kind in arguments.kinds.iter().filter(|kind| kind.mode() != Some("iptables") || *services <= 10_000) {
            eprintln!("{services} services: {} ...", kind.name());
            match measure(kind, *services, arguments.changes) {
                Ok(cell) => report.add(kind.name(), *services, cell),
                Err(why) => eprintln!("{services} services: {}: {why}", kind.name()),
            }
        }
        report.print(*services);
    }
    report.write(&arguments.out);
}

/// Time that changes of one contender with one number of services may take.
const ENOUGH: Duration = Duration::from_secs(30);
/// Connections whose time is taken, to services all over.
const FIRST_PACKETS: usize = 2000;

fn measure(kind: &Kind, count: usize, changes: usize) -> Result<Cell, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let network = Network::new();
    let mut services = Services::write(folder.path(), count);
    let client = Client::new(&network);
    let began = Instant::now();
    let mut contender = Contender::start(kind, &network, &services)?;
    let cold = match contender.loaded() {
        Some(loaded) => loaded,
        None => {
            client.wait_until_all_answer(&services, &mut contender)?;
            began.elapsed()
        }
    };
    let mut cell = Cell { cold, ..Cell::default() };
    let first = client.first_packets(&services, FIRST_PACKETS);
    cell.first_packet = first.0;
    cell.direct = first.1;
    let before = contender.usage();
    let deadline = Instant::now() + ENOUGH;
    for round in 0..changes {
        if Instant::now() > deadline && round >= 5 {
            break;
        }
        let change = services.next_change(round);
        cell.change.push(client.time_change(&change, &mut contender)?);
    }
    let after = contender.usage();
    cell.cpu_per_change = (after.cpu - before.cpu) / u32::try_from(cell.change.len()).unwrap_or(1).max(1);
    cell.resident_kib = after.resident_kib;
    Ok(cell)
}
