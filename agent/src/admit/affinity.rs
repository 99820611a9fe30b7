//! Whether a pod wants this node and bears with it: selectors, required affinity, taints (specification of the kubelet,
//! 1.5; the scheduler's rules). Tests: at the end of this file.

use crate::pod::{Pod, Toleration};
use serde::Deserialize;
use serde_json::Value;

/// A taint of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

/// `label` gives the node's label of this key.
pub fn selects(pod: &Pod, name: &str, label: &dyn Fn(&str) -> Option<String>) -> bool {
    let all = pod.spec.node_selector.iter().all(|(k, v)| label(k).as_deref() == Some(v.as_str()));
    let required = pod.spec.affinity.as_ref().map(|a| &a["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]);
    all && required.filter(|r| r.is_object()).is_none_or(|r| list(&r["nodeSelectorTerms"]).any(|t| term(t, name, label)))
}

fn list(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

/// A term that asks for nothing matches nothing.
fn term(t: &Value, name: &str, label: &dyn Fn(&str) -> Option<String>) -> bool {
    let (expressions, fields) = (&t["matchExpressions"], &t["matchFields"]);
    if list(expressions).next().is_none() && list(fields).next().is_none() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then(|| name.to_owned());
    list(expressions).all(|e| holds(e, label)) && list(fields).all(|e| holds(e, &field))
}

fn holds(e: &Value, of: &dyn Fn(&str) -> Option<String>) -> bool {
    let is = of(e["key"].as_str().unwrap_or_default());
    let values: Vec<&str> = list(&e["values"]).filter_map(Value::as_str).collect();
    let compared = |by: fn(&i64, &i64) -> bool| {
        let (Some(is), [value]) = (is.as_deref(), &values[..]) else { return false };
        matches!((is.parse(), value.parse()), (Ok(a), Ok(b)) if by(&a, &b))
    };
    match e["operator"].as_str().unwrap_or_default() {
        "In" => is.is_some_and(|v| values.contains(&v.as_str())),
        "NotIn" => is.is_none_or(|v| !values.contains(&v.as_str())),
        "Exists" => is.is_some(),
        "DoesNotExist" => is.is_none(),
        "Gt" => compared(i64::gt),
        "Lt" => compared(i64::lt),
        _ => false,
    }
}

/// Pods that do not bear with it are not to run at all.
pub fn is_driven_off(pod: &Pod, taints: &[Taint]) -> bool {
    taints.iter().filter(|t| t.effect == "NoExecute").any(|t| !pod.spec.tolerations.iter().any(|o| tolerates(o, t)))
}

fn tolerates(o: &Toleration, t: &Taint) -> bool {
    let effect = o.effect.is_empty() || o.effect == t.effect;
    let key = o.key.is_empty() || o.key == t.key;
    let value = match o.operator.as_str() {
        "Exists" => true,
        "" | "Equal" => !o.key.is_empty() && o.value == t.value,
        _ => false,
    };
    effect && key && value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: Value) -> Pod {
        crate::typed::read(&json!({ "spec": spec })).unwrap()
    }

    fn label(key: &str) -> Option<String> {
        Some(match key {
            "disk" => "ssd".into(),
            "cores" => "8".into(),
            _ => return None,
        })
    }

    fn wants(terms: Value) -> bool {
        let spec = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        selects(&pod(spec), "n1", &label)
    }

    #[test]
    fn operators_are_the_schedulers() {
        let one = |key: &str, operator: &str, values: &[&str]| {
            wants(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
        };
        for (key, operator, values, want) in [
            ("disk", "In", &["ssd", "hdd"][..], true),
            ("disk", "In", &["hdd"], false),
            ("none", "In", &["x"], false),
            ("disk", "NotIn", &["hdd"], true),
            ("none", "NotIn", &["hdd"], true),
            ("disk", "Exists", &[], true),
            ("none", "Exists", &[], false),
            ("none", "DoesNotExist", &[], true),
            ("cores", "Gt", &["7"], true),
            ("cores", "Gt", &["8"], false),
            ("cores", "Lt", &["9"], true),
            ("disk", "Lt", &["9"], false),
            ("cores", "Maybe", &["8"], false),
        ] {
            assert_eq!(one(key, operator, values), want, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn one_term_is_enough_and_an_empty_one_is_none() {
        let ssd = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]});
        let other = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]});
        assert!(wants(json!([other, ssd])));
        assert!(!wants(json!([other])));
        assert!(wants(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])));
        assert!(!wants(json!([])) && !wants(json!([{}])));
        let both = json!({"nodeSelector": {"disk": "hdd"}, "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [ssd]}}}});
        assert!(!selects(&pod(both), "n1", &label), "a selector counts as well");
        assert!(selects(&pod(json!({})), "n1", &label));
    }

    #[test]
    fn only_what_is_tolerated_stays() {
        let taint = |effect: &str| Taint { key: "gpu".into(), value: "yes".into(), effect: effect.into() };
        let off = |tolerations: Value, effect: &str| is_driven_off(&pod(json!({"tolerations": tolerations})), &[taint(effect)]);
        assert!(off(json!([]), "NoExecute"));
        assert!(!off(json!([]), "NoSchedule"), "it is here already");
        assert!(!off(json!([{"operator": "Exists"}]), "NoExecute"));
        assert!(!off(json!([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]), "NoExecute"));
        assert!(!off(json!([{"key": "gpu", "value": "yes"}]), "NoExecute"));
        assert!(off(json!([{"key": "gpu", "value": "no"}]), "NoExecute"));
        assert!(off(json!([{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]), "NoExecute"));
        assert!(off(json!([{"key": "other", "operator": "Exists"}]), "NoExecute"));
    }
}
