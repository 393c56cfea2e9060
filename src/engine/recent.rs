//! States that were just written and will soon be read: a run begins with the message that started it, and a step with
//! what the step before left. The store has all of them; those in memory need not be read from it. A state goes when all
//! tasks that begin with it have begun, so that what is kept is what waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes of states that are kept; the oldest go first.
const MOST_BYTES: usize = 16 << 20;
/// What a state takes beside its text.
const OVERHEAD: usize = 128;

/// The id of a message, or of an attempt: ids begin with the time at which they were made.
type Key = [u8; 16];

/// See the module. JSON texts, each an object.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    states: BTreeMap<Key, Awaited>,
    bytes: usize,
}

#[derive(Debug)]
struct Awaited {
    state: Arc<str>,
    /// Tasks that have not begun with it yet.
    readers: usize,
}

impl Recent {
    /// Keeps a state for so many tasks.
    pub fn put(&self, key: &Key, state: Arc<str>, readers: usize) {
        let size = size(&state);
        if size > MOST_BYTES / 4 || readers == 0 {
            return;
        }
        let mut kept = self.0.lock();
        kept.states.insert(*key, Awaited { state, readers });
        kept.bytes += size;
        while kept.bytes > MOST_BYTES
            && let Some((_, oldest)) = kept.states.pop_first()
        {
            kept.bytes -= self::size(&oldest.state);
        }
    }

    /// The state for one of its tasks.
    pub fn take(&self, key: &Key) -> Option<Arc<str>> {
        let mut kept = self.0.lock();
        let awaited = kept.states.get_mut(key)?;
        awaited.readers -= 1;
        let state = awaited.state.clone();
        if awaited.readers == 0 {
            kept.states.remove(key);
            kept.bytes -= size(&state);
        }
        Some(state)
    }

    /// There will be no task that begins with it.
    pub fn forget(&self, key: &Key) {
        let mut kept = self.0.lock();
        if let Some(awaited) = kept.states.remove(key) {
            kept.bytes -= size(&awaited.state);
        }
    }
}

fn size(state: &str) -> usize {
    state.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let recent = Recent::default();
        let state: Arc<str> = "x".repeat(1 << 20).into();
        for number in 0..40 {
            recent.put(&[number; 16], state.clone(), 1);
        }
        assert!(recent.take(&[0; 16]).is_none());
        assert!((8..16).contains(&recent.0.lock().states.len()));
        assert_eq!(recent.take(&[39; 16]).as_deref(), Some(&*state));
        recent.put(&[50; 16], "x".repeat(MOST_BYTES).into(), 1);
        assert!(recent.take(&[50; 16]).is_none());
    }

    #[test]
    fn a_state_goes_with_the_last_task_that_begins_with_it() {
        let recent = Recent::default();
        recent.put(&[1; 16], "{}".into(), 2);
        assert_eq!(recent.take(&[1; 16]).as_deref(), Some("{}"));
        assert_eq!(recent.take(&[1; 16]).as_deref(), Some("{}"));
        assert_eq!(recent.take(&[1; 16]), None);
        assert_eq!(recent.0.lock().bytes, 0);
    }
}
