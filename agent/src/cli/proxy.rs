//! `longshore proxy`: the service proxy alone, on services from files or from an API server. Called `kube-proxy`, the
//! program is this with that program's command line.

use super::Fault;
use crate::run::proxy::{self, Options, Source};
use clap::Args;
use longshore_dataplane::config::effective::settle;
use longshore_dataplane::config::flags;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run the service proxy alone, on services from files or from an API server
#[derive(Args)]
#[command(
    after_help = "FLAGS are kube-proxy's: --config, --kubeconfig, --cluster-cidr, --nodeport-addresses, --cleanup and all the others.
Without --mode and --config, the mode is nftables. Files are read anew when they change. It ends at once on SIGTERM
and leaves the rules in the kernel; the next one adopts them.

Examples:
  longshore proxy --services ./services --mode nftables
  longshore proxy --services all.yaml --config kube-proxy.yaml --hostname-override n1
  longshore proxy --kubeconfig /var/lib/kube-proxy/kubeconfig.conf
  longshore proxy --cleanup                         deletes what any mode has in the kernel"
)]
pub struct Proxy {
    /// File or directory with Services, EndpointSlices, ServiceCIDRs and this Node
    #[arg(long, value_name = "FILE|DIR")]
    services: Option<PathBuf>,
    /// Written in: nftables, ipvs or iptables
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Listen on the node ports of services, so that no other process takes them
    #[arg(long)]
    hold_node_ports: bool,
    /// Flags of kube-proxy
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

/// As `kube-proxy`: these are that program's flags, and its mode is iptables unless they say otherwise.
pub fn by_name(words: &[String]) -> ExitCode {
    end(settled(words, None, false).and_then(started))
}

impl Proxy {
    pub fn main(self) -> ExitCode {
        end(self.options().and_then(started))
    }

    fn options(self) -> Result<Options, Fault> {
        // Our own may stand anywhere among kube-proxy's.
        let (mut services, mut mode, mut hold, mut words) = (self.services, self.mode, self.hold_node_ports, Vec::new());
        let mut rest = self.flags.into_iter().filter(|word| word != "--");
        while let Some(word) = rest.next() {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value.to_owned())));
            match name {
                "--services" => services = value.or_else(|| rest.next()).map(PathBuf::from),
                "--mode" => mode = value.or_else(|| rest.next()),
                "--hold-node-ports" => hold = true,
                _ => words.push(word),
            }
        }
        if let Some(mode) = mode {
            words.push(format!("--proxy-mode={mode}"));
        } else if !words.iter().any(|word| word.starts_with("--config") || word.starts_with("--proxy-mode")) {
            words.push("--proxy-mode=nftables".into());
        }
        settled(&words, services, hold)
    }
}

/// What these flags of kube-proxy, and the file that they name, come to; all mistakes at once.
fn settled(words: &[String], services: Option<PathBuf>, hold_node_ports: bool) -> Result<Options, Fault> {
    let all = |errors: Vec<longshore_dataplane::config::decode::FieldError>| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Fault { code: 2, message: format!("error: {}", lines.join("\nerror: ")) }
    };
    let line = flags::parse(words);
    let document = line.config.as_deref().map(|path| proxy::document(path.as_ref())).transpose().map_err(|e| Fault::from(e.to_string()))?;
    let settled = settle(&line, document.as_ref()).map_err(all)?;
    let idle = line.cleanup || line.init_only || line.version || line.help || line.write_config_to.is_some();
    let source = match services {
        Some(path) => Source::Files(path),
        None if idle || !settled.configuration.client_connection.kubeconfig.is_empty() => Source::Server,
        None => {
            return Err(
                "no services: --services names a file or directory, or --kubeconfig (clientConnection.kubeconfig) an API server".into()
            );
        }
    };
    Ok(Options { source, hold_node_ports, line, settled })
}

fn started(options: Options) -> Result<(), Fault> {
    proxy::run(options).map_err(|e| e.to_string().into())
}

fn end(result: Result<(), Fault>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fault { code, message }) => {
            if !message.is_empty() {
                eprintln!("{message}");
            }
            ExitCode::from(code)
        }
    }
}
