//! Makes checks: those of the network by ourselves, exec through the runtime.

use crate::node::NodeState;
use crate::node::effect::ProbeRun;
use crate::node::event::Event;
use crate::pod::PodUid;
use longshore_cri::client::Client;
use longshore_cri::error::Kind;
use longshore_probes::{Check, Outcome, ProbeKind, check};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::sync::mpsc;

/// Bytes of a check's output that are kept.
const OUTPUT_MAX: usize = 10 * 1024;

/// How often a check is made that says nothing of its container, before it is told as an error.
const TRIES: u32 = 3;

/// Whose probe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probed {
    pub namespace: Box<str>,
    pub pod: Box<str>,
    pub uid: Box<str>,
    pub container: Box<str>,
    pub kind: ProbeKind,
}

impl Probed {
    /// None: the container is gone.
    pub fn of(n: &NodeState, run: &ProbeRun) -> Option<Probed> {
        let e = n.pods.get(&run.uid)?;
        let meta = &e.desired.pod.metadata;
        let container = e.observed.by_id(&run.container_id)?.name.clone();
        Some(Probed {
            namespace: (&*meta.namespace).into(),
            pod: (&*meta.name).into(),
            uid: run.uid.as_str().into(),
            container,
            kind: run.kind,
        })
    }
}

/// How often each probe came out how. Those of a pod go with it.
#[derive(Default)]
pub struct Counts(RefCell<BTreeMap<(Probed, &'static str), u64>>);

impl Counts {
    fn add(&self, probed: Probed, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Success(_) | Outcome::Warning(_) => "successful",
            Outcome::Failure(_) => "failed",
            Outcome::Error(_) | Outcome::Unreadable(_) => "unknown",
        };
        *self.0.borrow_mut().entry((probed, result)).or_default() += 1;
    }

    pub fn forget(&self, uid: &PodUid) {
        self.0.borrow_mut().retain(|(p, _), _| *p.uid != *uid.as_str());
    }

    pub fn each(&self, mut take: impl FnMut(&Probed, &'static str, u64)) {
        self.0.borrow().iter().for_each(|((p, result), n)| take(p, result, *n));
    }
}

/// Makes a check, counts how it came out, and tells.
pub async fn counted(client: Client, run: ProbeRun, probed: Option<Probed>, counts: Rc<Counts>, to: mpsc::Sender<Event>) {
    let outcome = outcome(&client, &run).await;
    if let Some(probed) = probed {
        counts.add(probed, &outcome);
    }
    let _ = to.send(Event::Probe { uid: run.uid, container_id: run.container_id, kind: run.kind, outcome }).await;
}

async fn outcome(client: &Client, run: &ProbeRun) -> Outcome {
    let mut outcome = once(client, run).await;
    for _ in 1..TRIES {
        if outcome.error_state().is_none() {
            break;
        }
        outcome = once(client, run).await;
    }
    outcome
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
