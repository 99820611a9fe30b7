//! What is believed for a while: who a token is, what somebody may do.

use crate::time::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

/// Answers by question, each until its time. Holds so many at most: the one that would end first gives way.
#[derive(Debug)]
pub struct Cache<K, V> {
    most: usize,
    entries: BTreeMap<K, (Mono, V)>,
}

impl<K: Ord + Clone, V> Cache<K, V> {
    pub fn new(most: usize) -> Cache<K, V> {
        Cache { most: most.max(1), entries: BTreeMap::new() }
    }

    pub fn get(&self, key: &K, now: Mono) -> Option<&V> {
        self.entries.get(key).filter(|(until, _)| now < *until).map(|(_, v)| v)
    }

    /// Believes this for so long; not at all where that is no time.
    pub fn put(&mut self, key: K, value: V, now: Mono, life: Duration) {
        if life.is_zero() {
            return;
        }
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            self.entries.retain(|_, (until, _)| now < *until);
        }
        if self.entries.len() >= self.most
            && !self.entries.contains_key(&key)
            && let Some(first) = self.entries.iter().min_by_key(|(_, (until, _))| *until).map(|(k, _)| k.clone())
        {
            self.entries.remove(&first);
        }
        self.entries.insert(key, (now + life, value));
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    #[test]
    fn an_answer_is_believed_until_its_time() {
        let mut c = Cache::new(10);
        c.put("a", 1, at(0), Duration::from_secs(30));
        assert_eq!((c.get(&"a", at(29)), c.get(&"a", at(30)), c.get(&"b", at(0))), (Some(&1), None, None));
        c.put("b", 2, at(0), Duration::ZERO);
        assert_eq!(c.get(&"b", at(0)), None);
        c.put("a", 3, at(40), Duration::from_secs(30));
        assert_eq!(c.get(&"a", at(41)), Some(&3));
    }

    #[test]
    fn what_would_end_first_gives_way() {
        let mut c = Cache::new(2);
        c.put("short", 1, at(0), Duration::from_secs(5));
        c.put("long", 2, at(0), Duration::from_secs(50));
        c.put("new", 3, at(1), Duration::from_secs(10));
        assert_eq!((c.get(&"short", at(1)), c.get(&"long", at(1)), c.get(&"new", at(1))), (None, Some(&2), Some(&3)));
    }

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_bound(puts in proptest::collection::vec((0u8..40, 0u64..20, 0u64..9), 0..80)) {
            let mut c = Cache::new(8);
            for (key, now, life) in puts {
                c.put(key, key, at(now), Duration::from_secs(life));
                prop_assert!(c.len() <= 8);
            }
        }
    }
}
