//! The command line.

pub mod run;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A node's kubelet and service proxy in one small daemon.
#[derive(Parser)]
#[command(name = "longshore", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon.
    Run(run::Run),
}

pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(r) => r.main(),
    }
}
