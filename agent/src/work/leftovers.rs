//! What is left on this host of pods that nobody knows any more (specification of the kubelet, 2.7, 8.4).

use crate::pod::{PodUid, QosClass};
use std::collections::BTreeSet;

/// What stands on the host, or what of it is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Directories of pods below the root directory.
    pub pods: BTreeSet<PodUid>,
    /// Names below the pods' log directory.
    pub logs: BTreeSet<String>,
    pub groups: BTreeSet<(QosClass, PodUid)>,
}

impl Leftovers {
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.logs.is_empty() && self.groups.is_empty()
    }

    /// The pods that these belong to.
    pub fn owners(&self) -> BTreeSet<PodUid> {
        let logs = self.logs.iter().filter_map(|name| log_owner(name));
        self.pods.iter().cloned().chain(logs).chain(self.groups.iter().map(|(_, uid)| uid.clone())).collect()
    }

    /// What of these belongs to one pod.
    pub fn of(&self, uid: &PodUid) -> Leftovers {
        self.only(|owner| owner == uid)
    }

    fn only(&self, keep: impl Fn(&PodUid) -> bool) -> Leftovers {
        Leftovers {
            pods: self.pods.iter().filter(|u| keep(u)).cloned().collect(),
            logs: self.logs.iter().filter(|n| log_owner(n).is_some_and(|u| keep(&u))).cloned().collect(),
            groups: self.groups.iter().filter(|(_, u)| keep(u)).cloned().collect(),
        }
    }
}

/// What is to go: all that belongs to a pod that is not `known`. What does not look like a pod's is not ours.
pub fn leftovers(found: &Leftovers, known: &BTreeSet<PodUid>) -> Leftovers {
    found.only(|uid| is_uid(uid) && !known.contains(uid))
}

/// The uid in `<namespace>_<name>_<uid>`, the name of a pod's log directory; names of objects hold no `_`.
fn log_owner(name: &str) -> Option<PodUid> {
    let mut parts = name.split('_');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(ns), Some(pod), Some(uid), None) if !ns.is_empty() && !pod.is_empty() && !uid.is_empty() => Some(PodUid::new(uid)),
        _ => None,
    }
}

/// Uids are UUIDs, or the hashes that static pods have.
fn is_uid(uid: &PodUid) -> bool {
    let text = uid.as_str();
    text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    const TWO: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn found(pods: &[&str], logs: &[&str], groups: &[&str]) -> Leftovers {
        Leftovers {
            pods: pods.iter().map(|u| PodUid::new(u)).collect(),
            logs: logs.iter().map(|n| (*n).to_owned()).collect(),
            groups: groups.iter().map(|u| (QosClass::Burstable, PodUid::new(u))).collect(),
        }
    }

    #[test]
    fn what_unknown_pods_left_goes_and_what_known_pods_have_stays() {
        let all = found(&[ONE, TWO], &[&format!("default_web_{ONE}"), &format!("default_db_{TWO}")], &[ONE, TWO]);
        let known = BTreeSet::from([PodUid::new(ONE)]);
        assert_eq!(leftovers(&all, &known), found(&[TWO], &[&format!("default_db_{TWO}")], &[TWO]));
        assert_eq!(leftovers(&all, &known).owners(), BTreeSet::from([PodUid::new(TWO)]));
        assert!(leftovers(&all, &BTreeSet::from([PodUid::new(ONE), PodUid::new(TWO)])).is_empty());
    }

    #[test]
    fn what_is_not_named_as_a_pods_is_left_alone() {
        let strange = found(&["lost+found", "backup"], &["default_web", "notes", &format!("a_b_c_{ONE}"), "a_b_short"], &["x"]);
        assert!(leftovers(&strange, &BTreeSet::new()).is_empty());
    }
}
