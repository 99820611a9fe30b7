//! `longshore proxy`: the service proxy alone, on services from files.

use super::Fault;
use crate::run::proxy::{self, Options};
use clap::Args;
use longshore_dataplane::config::effective::settle;
use longshore_dataplane::config::flags;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run the service proxy alone, on services from files
#[derive(Args)]
#[command(after_help = "FLAGS are kube-proxy's: --config, --cluster-cidr, --nodeport-addresses, --cleanup and all the others.
Without --mode and --config, the mode is nftables. Files are read anew when they change. It ends at once on SIGTERM
and leaves the rules in the kernel; the next one adopts them.

Examples:
  longshore proxy --services ./services --mode nftables
  longshore proxy --services all.yaml --config kube-proxy.yaml --hostname-override n1
  longshore proxy --cleanup                         deletes what any mode has in the kernel")]
pub struct Proxy {
    /// File or directory with Services, EndpointSlices, ServiceCIDRs and this Node
    #[arg(long, value_name = "FILE|DIR")]
    services: Option<PathBuf>,
    /// Written in: nftables, ipvs or iptables
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Flags of kube-proxy
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

impl Proxy {
    pub fn main(self) -> ExitCode {
        match self.options().and_then(|options| proxy::run(options).map_err(|e| e.to_string().into())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Fault { code, message }) => {
                if !message.is_empty() {
                    eprintln!("{message}");
                }
                ExitCode::from(code)
            }
        }
    }

    fn options(self) -> Result<Options, Fault> {
        // Our own two may stand anywhere among kube-proxy's.
        let (mut services, mut mode, mut words) = (self.services, self.mode, Vec::new());
        let mut rest = self.flags.into_iter().filter(|word| word != "--");
        while let Some(word) = rest.next() {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value.to_owned())));
            match name {
                "--services" => services = value.or_else(|| rest.next()).map(PathBuf::from),
                "--mode" => mode = value.or_else(|| rest.next()),
                _ => words.push(word),
            }
        }
        if let Some(mode) = mode {
            words.push(format!("--proxy-mode={mode}"));
        } else if !words.iter().any(|word| word.starts_with("--config") || word.starts_with("--proxy-mode")) {
            words.push("--proxy-mode=nftables".into());
        }
        let all = |errors: Vec<longshore_dataplane::config::decode::FieldError>| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Fault { code: 2, message: format!("error: {}", lines.join("\nerror: ")) }
        };
        let line = flags::parse(&words);
        let document =
            line.config.as_deref().map(|path| proxy::document(path.as_ref())).transpose().map_err(|e| Fault::from(e.to_string()))?;
        let settled = settle(&line, document.as_ref()).map_err(all)?;
        let idle = line.cleanup || line.init_only || line.version || line.help || line.write_config_to.is_some();
        if services.is_none() && !idle {
            return Err("--services names no file or directory".into());
        }
        Ok(Options { services, line, settled })
    }
}
