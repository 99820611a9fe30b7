//! The tool behind `make run`: a node to look at, from nothing, and back to nothing.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use longshore_tests::demo;
use longshore_tests::lab::wait;
use nix::sys::signal::{SigSet, Signal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;

/// Longshore on a node made for it.
#[derive(Parser)]
struct CommandLine {
    /// Name of the lab, where there are to be several.
    #[arg(long, default_value = "run")]
    name: String,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Starts a container runtime and longshore, shows pods and services, runs until Ctrl-C.
    Up {
        /// Do it all in network namespaces with no way out; nothing of the machine's network changes.
        #[arg(long)]
        sandbox: bool,
        /// Socket of a running containerd to use instead of a private one.
        #[arg(long, value_name = "SOCKET", conflicts_with_all = ["sandbox", "containerd"])]
        runtime_endpoint: Option<String>,
        /// Containerd to start instead of the one in PATH.
        #[arg(long, value_name = "FILE")]
        containerd: Option<PathBuf>,
        /// What to run.
        #[arg(long, value_name = "DIRECTORY", default_value = "agent/examples/manifests")]
        manifests: PathBuf,
        /// Leave once everything has answered.
        #[arg(long)]
        once: bool,
        /// More of longshore's own command line.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Leaves the machine as it was before the first `up`.
    Clean,
}

fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longshore-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(CommandLine { name, command }: CommandLine) -> Result<()> {
    let Verb::Up { sandbox, runtime_endpoint, containerd, manifests, once, arguments } = command else {
        return demo::clean(&name);
    };
    let runtime = runtime_endpoint.map(|endpoint| PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(&endpoint)));
    let interrupts = interrupts()?;
    let plan = demo::Plan { name, sandbox, runtime, containerd, manifests, arguments };
    let demo = demo::up(&plan)?;
    if !once {
        println!("\nTry it from another terminal:\n    {}", demo.invitation());
        println!("Manifests in {} are live: edit, add, remove. Ctrl-C ends it.", demo.manifests().display());
        interrupts.recv().context("no signals can come")?;
        wait::resume();
        println!();
    }
    demo.down()
}

/// Signals that ask us to leave, one message each; a wait under way ends with an error.
fn interrupts() -> Result<mpsc::Receiver<Signal>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("cannot block signals")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            wait::interrupt();
            if sender.send(signal).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}
