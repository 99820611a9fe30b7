//! The pods of this node: as they are wanted, and as the runtime runs them.

use super::Port;
use crate::api::object;
use crate::run::api::{Answer, bytes, json};
use serde_json::{Value, json};

impl Port {
    /// What the node knows, with its statuses. Rendered outside of the event loop, which has better to do.
    pub(super) async fn pods(&self) -> Answer {
        let known = self.server.ask(|n, _| {
            let entries = n.pods.values().map(|e| (e.desired.pod.clone(), e.status.clone().unwrap_or_default()));
            entries.collect::<Vec<_>>()
        });
        let mut out = br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#.to_vec();
        for (i, (pod, status)) in known.await?.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&object::pod(pod, status, &self.node_name));
        }
        out.extend_from_slice(b"]}");
        Ok(bytes(out))
    }

    pub(super) async fn running_pods(&self) -> Answer {
        let seen = self.server.ask(|n, _| n.pods.values().map(|e| e.observed.clone()).collect::<Vec<_>>()).await?;
        let items: Vec<Value> = seen.iter().filter(|p| p.running().next().is_some() || p.sandboxes.iter().any(|s| s.ready)).map(|p| {
            let containers: Vec<Value> =
                p.running().map(|c| json!({"name": c.name, "image": c.image, "resources": {}})).collect();
            json!({"metadata": {"name": p.name, "namespace": p.namespace, "uid": p.uid}, "spec": {"containers": containers}, "status": {}})
        }).collect();
        Ok(json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
    }
}
