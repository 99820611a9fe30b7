//! Makes checks: those of the network by ourselves, exec through the runtime.

use crate::node::effect::ProbeRun;
use crate::node::event::Event;
use longshore_cri::client::Client;
use longshore_cri::error::Kind;
use longshore_probes::{Check, Outcome, check};
use tokio::sync::mpsc;

/// Bytes of a check's output that are kept.
const OUTPUT_MAX: usize = 10 * 1024;

/// How often a check is made that says nothing of its container, before it is told as an error.
const TRIES: u32 = 3;

pub async fn run(client: Client, run: ProbeRun, to: mpsc::Sender<Event>) {
    let mut outcome = once(&client, &run).await;
    for _ in 1..TRIES {
        if outcome.error_state().is_none() {
            break;
        }
        outcome = once(&client, &run).await;
    }
    let _ = to.send(Event::Probe { uid: run.uid, container_id: run.container_id, kind: run.kind, outcome }).await;
}

async fn once(client: &Client, run: &ProbeRun) -> Outcome {
    match &run.check {
        Check::Exec { command } => exec(client, run, command).await,
        other => check::run(other, run.timeout).await,
    }
}

async fn exec(client: &Client, run: &ProbeRun, command: &[String]) -> Outcome {
    match client.exec_sync(&run.container_id, command, Some(run.timeout)).await {
        Ok(o) => {
            let mut text = o.stdout;
            text.extend_from_slice(&o.stderr);
            text.truncate(OUTPUT_MAX);
            let text = String::from_utf8_lossy(&text).into_owned();
            if o.exit_code == 0 { Outcome::Success(text) } else { Outcome::Failure(text) }
        }
        Err(e) if e.kind == Kind::Timeout => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}",
            command.join(" "),
            crate::time::go_duration(run.timeout)
        )),
        Err(e) => Outcome::Error(e.rpc_text()),
    }
}
