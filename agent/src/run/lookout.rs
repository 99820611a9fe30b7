//! Watches the runtime: its health, its events where it has them, exits of first processes, and a slow
//! relist as the net under both.

use super::observe::Observer;
use crate::node::event::Event;
use longshore_cri::client::Client;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the runtime is asked how it is.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How often everything is listed where exits are seen at once anyway.
const RELIST_EVERY: Duration = Duration::from_secs(10);
/// How long a container may take to be listed as ended after its first process is gone.
const EXIT_SETTLES: Duration = Duration::from_secs(5);

/// Asks the runtime for its conditions, for ever.
pub async fn health(client: Client, to: mpsc::Sender<Event>) {
    let mut last: Option<(Option<String>, Option<String>)> = None;
    let mut pause = Duration::from_millis(100);
    loop {
        let (ready, network) = match client.status().await {
            Ok(s) => {
                let conditions = s.status.map(|s| s.conditions).unwrap_or_default();
                let problem = |kind: &str| {
                    let c = conditions.iter().find(|c| c.r#type == kind)?;
                    (!c.status).then(|| format!("{}: {}", c.reason, c.message))
                };
                (problem("RuntimeReady").map(|m| format!("container runtime not ready: {m}")), problem("NetworkReady"))
            }
            Err(e) => (Some(format!("container runtime is down: {e}")), None),
        };
        pause = if ready.is_some() { (pause * 2).min(STATUS_EVERY) } else { STATUS_EVERY };
        let state = (ready, network);
        if last.as_ref() != Some(&state) {
            if let Some(error) = &state.0 {
                tracing::warn!(%error, "the runtime does not serve");
            }
            let event = Event::Runtime { ready: state.0.clone(), network: state.1.clone() };
            if to.send(event).await.is_err() {
                return;
            }
            last = Some(state);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Lists everything now and then. The first list comes as soon as the runtime answers.
pub async fn relist(observer: Observer, to: mpsc::Sender<Event>) {
    let mut pause = Duration::from_millis(100);
    loop {
        match observer.all().await {
            Ok(list) => {
                pause = RELIST_EVERY;
                if to.send(Event::Relisted(list)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the runtime could not be listed");
                pause = (pause * 2).min(RELIST_EVERY);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Turns ended processes into looks at their pods.
pub async fn exits(client: Client, observer: Observer, mut exited: mpsc::Receiver<Box<str>>, to: mpsc::Sender<Event>) {
    while let Some(id) = exited.recv().await {
        let Some(uid) = observer.owner(&id) else { continue };
        let (client, to) = (client.clone(), to.clone());
        tokio::task::spawn_local(async move {
            // The kernel is quicker than the runtime: looking before it has noticed would show the old state.
            if let Err(error) = client.await_exit(&id, EXIT_SETTLES).await {
                tracing::debug!(%id, %error, "the exit is left to the relist");
            }
            let _ = to.send(Event::Changed { uid }).await;
        });
    }
}

/// Container events of runtimes that have them.
pub async fn events(client: Client, to: mpsc::Sender<Event>) {
    loop {
        let (tx, mut rx) = mpsc::channel(64);
        let forward = client.forward_events(tx);
        let receive = async {
            while let Some(e) = rx.recv().await {
                if let Some(uid) = e.pod_uid {
                    let _ = to.send(Event::Changed { uid: crate::pod::PodUid(uid) }).await;
                }
            }
        };
        let (ended, ()) = tokio::join!(forward, receive);
        if let Err(e) = ended
            && e.is_unimplemented()
        {
            tracing::info!("the runtime has no container events; exits are watched in the kernel");
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
