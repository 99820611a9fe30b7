//! The command line. Must never touch the runtime or the state directory by itself: the daemon answers.

mod check;
mod client;
mod exec;
mod get;
mod kubeconfig;
mod kubelet;
mod logs;
mod proxy;
mod resource;
pub mod run;
pub mod spdy;
mod tell;
mod terminal;
mod trace;

use clap::{Args, Parser, Subcommand};
use client::ClientError;
use std::process::ExitCode;

/// A node's kubelet and service proxy in one small daemon.
#[derive(Parser)]
#[command(
    name = "longshore",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 failed, with the reason on standard error; 2 wrong usage; of exec, the command's own.
The commands talk to the daemon over its socket, as root: --socket or LONGSHORE_SOCKET names another one."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Proxy(proxy::Proxy),
    Check(check::Check),
    Get(get::Get),
    Describe(tell::Describe),
    Logs(logs::Logs),
    Exec(exec::Exec),
    Why(tell::WhyCommand),
    Trace(Box<trace::Trace>),
    Plan(trace::Plan),
    Kubeconfig(kubeconfig::Kubeconfig),
    Version(tell::Version),
    Completion(tell::Completion),
}

/// Where an object is looked for.
#[derive(Args)]
struct Scope {
    /// Namespace of the object
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
}

/// Why a command ends with another code than 0.
struct Fault {
    code: u8,
    /// Empty: everything was said.
    message: String,
}

impl Fault {
    fn quiet(code: u8) -> Fault {
        Fault { code, message: String::new() }
    }
}

impl<T: Into<String>> From<T> for Fault {
    fn from(message: T) -> Fault {
        let message: String = message.into();
        let message = if message.starts_with("error") { message } else { format!("error: {message}") };
        Fault { code: 1, message }
    }
}

impl From<ClientError> for Fault {
    fn from(e: ClientError) -> Fault {
        e.to_string().into()
    }
}

pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let called = words.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
    match called.and_then(std::ffi::OsStr::to_str) {
        Some("kube-proxy") => return proxy::by_name(&words[1..]),
        Some("kubelet") => return kubelet::by_name(&words[1..]),
        _ => {}
    }
    match Cli::parse().command {
        Command::Run(r) => r.main(),
        Command::Proxy(p) => p.main(),
        Command::Check(c) => ask(async move { c.main() }),
        Command::Get(c) => ask(c.main()),
        Command::Describe(c) => ask(c.main()),
        Command::Logs(c) => ask(c.main()),
        Command::Exec(c) => ask(c.main()),
        Command::Why(c) => ask(c.main()),
        Command::Trace(c) => ask(c.main()),
        Command::Plan(c) => ask(async move { c.main() }),
        Command::Kubeconfig(c) => ask(c.main()),
        Command::Version(c) => ask(c.main()),
        Command::Completion(c) => ask(async move { c.main() }),
    }
}

/// Runs a command that talks to the daemon.
fn ask(command: impl Future<Output = Result<(), Fault>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(command);
    // A thread that still waits for standard input must not hold us up.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(f) => {
            if !f.message.is_empty() {
                eprintln!("{}", f.message);
            }
            ExitCode::from(f.code)
        }
    }
}
