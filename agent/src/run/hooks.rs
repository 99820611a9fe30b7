//! Runs life-cycle hooks.

use crate::work::hooks::Hook;
use longshore_cri::client::Client;
use longshore_probes::check::http;
use std::time::Duration;

/// Runs one hook to its end; the text says what failed. An https hook that was answered in plain tells by
/// whom.
pub async fn run(client: &Client, container: &str, hook: &Hook) -> Result<Option<String>, String> {
    match hook {
        Hook::Exec { command } => match client.exec_sync(container, command, None).await {
            Ok(o) if o.exit_code == 0 => Ok(None),
            Ok(o) => {
                let text = String::from_utf8_lossy(if o.stderr.is_empty() { &o.stdout } else { &o.stderr }).trim().to_owned();
                Err(format!("command {command:?} exited with {}: {text}", o.exit_code))
            }
            Err(e) => Err(e.rpc_text()),
        },
        Hook::Http(check) => http::hook(check).await,
        Hook::Sleep { seconds } => {
            tokio::time::sleep(Duration::from_secs(*seconds)).await;
            Ok(None)
        }
        Hook::Invalid(why) => Err(why.clone()),
    }
}
