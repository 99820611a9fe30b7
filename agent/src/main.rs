//! The daemon and its command line.

fn main() -> std::process::ExitCode {
    longshore::cli::main()
}
