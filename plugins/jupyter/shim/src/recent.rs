//! A bounded memory of ids.
//!
//! For: dropping requests that are sent a second time.
//! Promises: constant time and bounded memory; the last [`Recent::IDS`] ids are known.

use std::collections::{HashSet, VecDeque};

/// Remembers the last ids.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    known: HashSet<String>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Recent {
    /// Ids remembered: far more than a client repeats after losing sight of a kernel.
    const IDS: usize = 1024;

    /// Remembers `id`; false if it is known already.
    pub(crate) fn insert(&mut self, id: String) -> bool {
        if !self.known.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > Self::IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_known_until_many_others_came() {
        let mut recent = Recent::default();
        assert!(recent.insert("a".into()));
        assert!(!recent.insert("a".into()));
        (0..Recent::IDS).for_each(|id| assert!(recent.insert(id.to_string())));
        assert!(recent.insert("a".into()));
        assert_eq!((recent.known.len(), recent.order.len()), (Recent::IDS, Recent::IDS));
    }
}
