//! Tells watchers that something changed; what, they look up themselves, so that no change can be missed.

use crate::node::NodeState;
use crate::pod::PodUid;
use crate::pod::status::PodStatus;
use crate::run::event_loop::PodListener;
use crate::run::events::Recorded;
use std::sync::Arc;
use tokio::sync::watch;

pub struct Changes {
    ticks: watch::Sender<u64>,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { ticks: watch::Sender::new(0) }
    }
}

impl Changes {
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }
}

impl PodListener for Changes {
    fn changed(&self, _: &NodeState, _: &PodUid, _: Option<&Arc<PodStatus>>) {
        self.ticks.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn recorded(&self, _: &Recorded) {
        self.ticks.send_modify(|n| *n = n.wrapping_add(1));
    }
}
