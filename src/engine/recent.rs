//! States that were just written and will soon be read: a run begins with the message that started it, and a step with
//! what the step before left. The store has all of them; those in memory need not be read from it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes of states that are kept; the oldest go first.
const MOST_BYTES: usize = 16 << 20;
/// What a state takes beside its text.
const OVERHEAD: usize = 128;

/// The id of a message, or of an attempt.
type Key = [u8; 16];

/// See the module. JSON texts, each an object.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    states: HashMap<Key, Arc<str>>,
    oldest_first: VecDeque<Key>,
    bytes: usize,
}

impl Recent {
    pub fn put(&self, key: &Key, state: Arc<str>) {
        let size = state.len() + OVERHEAD;
        if size > MOST_BYTES / 4 {
            return;
        }
        let mut kept = self.0.lock();
        while kept.bytes + size > MOST_BYTES
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            let gone = kept.states.remove(&oldest).map_or(0, |state| state.len() + OVERHEAD);
            kept.bytes -= gone;
        }
        if kept.states.insert(*key, state).is_none() {
            kept.oldest_first.push_back(*key);
            kept.bytes += size;
        }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<str>> {
        self.0.lock().states.get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let recent = Recent::default();
        let state: Arc<str> = "x".repeat(1 << 20).into();
        for number in 0..40 {
            recent.put(&[number; 16], state.clone());
        }
        assert!(recent.get(&[0; 16]).is_none());
        assert_eq!(recent.get(&[39; 16]).as_deref(), Some(&*state));
        assert!((8..16).contains(&recent.0.lock().states.len()));
        recent.put(&[50; 16], "x".repeat(MOST_BYTES).into());
        assert!(recent.get(&[50; 16]).is_none());
    }
}
