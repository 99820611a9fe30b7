//! When all sources of pods have told everything once. Before that nobody is taken for a stranger.

use crate::node::Event;
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::mpsc;

/// Shared by all sources.
#[derive(Clone)]
pub struct Ready {
    left: Rc<Cell<usize>>,
    to: mpsc::Sender<Event>,
}

impl Ready {
    /// Of so many sources; each is to call `told` once.
    pub fn new(sources: usize, to: mpsc::Sender<Event>) -> Ready {
        Ready { left: Rc::new(Cell::new(sources)), to }
    }

    /// One has told everything, and the node has it.
    pub async fn told(self) {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        if left == 0 {
            // The node may be ending.
            let _ = self.to.send(Event::SourcesReady).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_one_makes_the_node_ready() {
        let (to, mut from) = mpsc::channel(4);
        let ready = Ready::new(2, to);
        ready.clone().told().await;
        assert!(from.try_recv().is_err());
        ready.told().await;
        assert!(matches!(from.try_recv(), Ok(Event::SourcesReady)));
    }
}
