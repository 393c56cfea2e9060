//! What the runs of a pack load, so that a snapshot can hold that and nothing else.
//!
//! Every object of a snapshot costs each isolate the time to copy it, used or not. So what a snapshot evaluates ahead is
//! what runs were seen to evaluate. The first of them that is looked at *explores*: it has an isolate in which nothing is
//! loaded yet, and shows all that it needs. Those after it add what they load beyond their snapshot. Another then explores,
//! since only code that was compiled in such an isolate can be put into a snapshot as it is. Nothing is forgotten: what one
//! run in a thousand needs costs the others less than it saves that one.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::{Deserialize, Serialize};

use super::Footprint;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Habits {
    /// A run has shown all that it needs.
    known: bool,
    /// Runs have added to that since the last one that explored.
    have_grown: bool,
    /// Numbers of the pack's modules whose evaluation brings all others, in the order of it.
    roots: Vec<u32>,
    /// Specifiers of the runtime's own scripts.
    scripts: BTreeSet<String>,
}

impl Habits {
    /// Whether anything is known.
    pub fn are_known(&self) -> bool {
        self.known
    }

    /// Whether the next run is to explore.
    pub fn want_exploration(&self) -> bool {
        !self.known || self.have_grown
    }

    pub fn roots(&self) -> &[u32] {
        &self.roots
    }

    pub fn scripts(&self) -> &BTreeSet<String> {
        &self.scripts
    }

    /// Takes in what a run loaded, `whole` if its isolate had nothing loaded before. Returns whether it was new.
    pub(super) fn learn(&mut self, footprint: &Footprint, whole: bool) -> bool {
        if !self.known && !whole {
            return false;
        }
        let before = (self.roots.len(), self.scripts.len());
        let was_wanted = self.want_exploration();
        for root in footprint.modules.iter().filter(|module| module.is_root) {
            if !self.roots.contains(&root.number) {
                self.roots.push(root.number);
            }
        }
        self.scripts.extend(footprint.scripts.iter().cloned());
        let is_new = before != (self.roots.len(), self.scripts.len());
        self.known = true;
        self.have_grown = !whole && (self.have_grown || is_new);
        is_new || was_wanted != self.want_exploration()
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
    use crate::isolate::pack::Evaluated;

    fn footprint(roots: &[u32], scripts: &[&str]) -> Footprint {
        let roots = roots.iter().map(|&number| Evaluated { number, parent: None, is_root: true });
        Footprint { modules: roots.collect(), scripts: scripts.iter().map(|&script| script.to_owned()).collect() }
    }

    #[test]
    fn what_a_snapshot_had_loaded_shows_nothing_until_a_run_without_one_was_seen() {
        let mut habits = Habits::default();
        assert!(!habits.learn(&footprint(&[1], &[]), false));
        assert!(!habits.are_known());
        assert!(habits.learn(&footprint(&[2], &["node:http"]), true));
        assert!(!habits.learn(&footprint(&[2], &["node:http"]), true));
        assert_eq!(habits.roots(), [2]);
    }

    #[test]
    fn what_is_added_is_explored_once() {
        let mut habits = Habits::default();
        habits.learn(&footprint(&[2], &[]), true);
        assert!(!habits.want_exploration());
        let before = habits.fingerprint();
        assert!(habits.learn(&footprint(&[3], &[]), false));
        assert!(habits.want_exploration());
        assert!(!habits.learn(&footprint(&[2], &[]), false));
        assert!(habits.want_exploration());
        assert!(habits.learn(&footprint(&[2, 3], &[]), true));
        assert!(!habits.want_exploration() && habits.fingerprint() != before);
        assert_eq!(habits.roots(), [2, 3]);
    }
}
