//! Services and EndpointSlices as the socket shows them.

use longshore_dataplane::wire::{EndpointSlice, Service};
use std::sync::Arc;
use tokio::sync::watch;

/// Whoever owns the services of this node.
pub trait ServiceView {
    fn services(&self) -> Vec<Arc<Service>>;
    fn slices(&self) -> Vec<Arc<EndpointSlice>>;
    /// Ticks with every change.
    fn changes(&self) -> watch::Receiver<u64>;
}
