//! Which objects of its namespace a pod reads: each is watched for as long as a pod here needs it, and no other, since
//! a node may read no more than that.
//!
//! Tests: at the end of this file.

use crate::pod::{Pod, Referent};
use std::collections::BTreeSet;

/// Kind and name, in the pod's own namespace.
pub fn of(pod: &Pod) -> BTreeSet<(Referent, &str)> {
    let mut out: BTreeSet<(Referent, &str)> = pod.spec.volumes.iter().flat_map(|v| v.references()).map(|(k, n, _)| (k, n)).collect();
    for (_, c) in pod.containers() {
        for from in &c.env_from {
            out.extend(from.config_map_ref.iter().map(|r| (Referent::ConfigMap, r.name.as_str())));
            out.extend(from.secret_ref.iter().map(|r| (Referent::Secret, r.name.as_str())));
        }
        for from in c.env.iter().filter_map(|v| v.value_from.as_ref()) {
            out.extend(from.config_map_key_ref.iter().map(|r| (Referent::ConfigMap, r.name.as_str())));
            out.extend(from.secret_key_ref.iter().map(|r| (Referent::Secret, r.name.as_str())));
        }
    }
    out.extend(pod.spec.image_pull_secrets.iter().map(|r| (Referent::Secret, r.name.as_str())));
    out.retain(|(_, name)| !name.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn volumes_environments_and_pull_secrets_count() {
        let pod: Pod = crate::typed::read(&json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
            "volumes": [{"name": "a", "configMap": {"name": "c1"}}, {"name": "b", "secret": {"secretName": "s1"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "c2"}}, {"secret": {"name": "s2"}}]}}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "c3"}}]}],
            "containers": [{"name": "m", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}},
                {"name": "Y", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}}]}]}}))
        .unwrap();
        use Referent::{ConfigMap, Secret};
        let want =
            [(ConfigMap, "c1"), (ConfigMap, "c2"), (ConfigMap, "c3"), (Secret, "pull"), (Secret, "s1"), (Secret, "s2"), (Secret, "s3")];
        assert_eq!(of(&pod), BTreeSet::from(want));
    }
}
