//! What the runs of a pack load, so that a snapshot can hold that and nothing else.
//!
//! Every object of a snapshot costs each isolate the time to copy it, used or not. So what a snapshot evaluates ahead is
//! what runs were seen to evaluate. The first of them that is looked at has an isolate in which nothing is loaded yet, and
//! shows all that it needs; those after it add what they load beyond their snapshot. Nothing is forgotten: what one run in
//! a thousand needs costs the others less than it saves that one.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::{Deserialize, Serialize};

use super::Footprint;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Habits {
    /// A run has shown all that it needs.
    known: bool,
    /// Numbers of the pack's modules.
    modules: BTreeSet<u32>,
    /// Specifiers of the runtime's own scripts.
    scripts: BTreeSet<String>,
}

impl Habits {
    /// Whether anything is known.
    pub fn are_known(&self) -> bool {
        self.known
    }

    pub fn modules(&self) -> &BTreeSet<u32> {
        &self.modules
    }

    pub fn scripts(&self) -> &BTreeSet<String> {
        &self.scripts
    }

    /// Takes in what a run loaded, `whole` if its isolate had nothing loaded before. Returns whether it was new.
    pub(super) fn learn(&mut self, footprint: &Footprint, whole: bool) -> bool {
        if !self.known && !whole {
            return false;
        }
        let before = (self.known, self.modules.len(), self.scripts.len());
        self.known = true;
        self.modules.extend(&footprint.modules);
        self.scripts.extend(footprint.scripts.iter().cloned());
        before != (self.known, self.modules.len(), self.scripts.len())
    }

    /// The same for the same habits, in every process.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint(modules: &[u32], scripts: &[&str]) -> Footprint {
        Footprint { modules: modules.to_vec(), scripts: scripts.iter().map(|&script| script.to_owned()).collect() }
    }

    #[test]
    fn what_a_snapshot_had_loaded_shows_nothing_until_a_run_without_one_was_seen() {
        let mut habits = Habits::default();
        assert!(!habits.learn(&footprint(&[1], &[]), false));
        assert!(!habits.are_known());
        assert!(habits.learn(&footprint(&[2], &["node:http"]), true));
        assert!(habits.learn(&footprint(&[3], &[]), false));
        assert!(!habits.learn(&footprint(&[2, 3], &["node:http"]), true));
        assert_eq!(habits.modules().iter().copied().collect::<Vec<_>>(), [2, 3]);
    }
}
