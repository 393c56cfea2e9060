//! Snapshots that isolates start from: the runtime, bootstrapped, with the host's own JavaScript, the parts of the Node
//! layer that adaptors use as soon as they load, and what those adaptors evaluate when they load.
//!
//! The runtime brings a snapshot of its own, which is taken before its bootstrap and without the Node layer. Doing that
//! in each isolate costs more than a small job does, and so does evaluating lodash. So each set of adaptors gets a
//! snapshot that is made from that one. Nothing of a run is in it: every isolate that starts from it has copies of its own.
//!
//! Not everything that adaptors evaluate may be done once for all runs: not what depends on the moment, such as the time
//! or a random number, and not what V8 or the runtime cannot write down. A *rehearsal* finds out (`js/snapshot.js`), and
//! leaves the rest to the runs.
//!
//! V8 writes a text into a snapshot, from where each isolate copies it, unless its address is in a list that is the same
//! for whoever reads the snapshot. So the sources of the runtime's scripts stand beside it ([`sidecar`]), and those of
//! packages, which cannot, are kept short: packs have no comments.
//!
//! All isolates of a process share V8's read-only heap, which is that of the first one. V8 moves into it what cannot
//! change when it takes a snapshot: names, templates. So only one snapshot of ours can be used in a process,
//! beside the runtime's, whose read-only heap is the beginning of it; [`Stay`] sees to it. A server therefore has one
//! for all its adaptors, and to use a better one it must be without isolates for a moment (`IsolatePool::take_up`). And snapshots are made in a process of their own ([`workshop`]), also because V8 ends a process
//! that it cannot make one in.

mod build;
mod file;
mod sidecar;
mod workshop;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use file::{Kept, load};
pub use workshop::{commission, work};

/// A snapshot in V8's form, which V8 reads in place.
pub type Snapshot = &'static [u8];

/// Which isolates there are in this process.
#[derive(Default)]
struct Census {
    isolates: usize,
    /// Address of the snapshot of ours that the first one came from, while there are any.
    origin: Option<usize>,
}

static CENSUS: Mutex<Census> = Mutex::new(Census { isolates: 0, origin: None });

/// Told when the last isolate has gone.
static LAST_GONE: Condvar = Condvar::new();

/// Held while the first isolate is made.
static FIRST: Mutex<()> = Mutex::new(());

/// To be had before an isolate is made, and kept for as long as it lives: with the last isolate goes what all share.
pub struct Stay {
    /// What the isolate is to start from; None: from the runtime's own.
    pub snapshot: Option<Snapshot>,
    first: Option<MutexGuard<'static, ()>>,
}

impl Stay {
    /// For an isolate that would like to start from this snapshot of ours.
    pub fn begin(wanted: Option<Snapshot>) -> Self {
        let mut census = census();
        census.isolates += 1;
        let address = wanted.map(|wanted| wanted.as_ptr() as usize);
        if census.isolates == 1 {
            census.origin = address;
            return Self { snapshot: wanted, first: Some(FIRST.lock().unwrap_or_else(PoisonError::into_inner)) };
        }
        let snapshot = wanted.filter(|_| census.origin == address);
        drop(census);
        // Until the first one is there.
        drop(FIRST.lock());
        Self { snapshot, first: None }
    }

    /// The isolate has been made.
    pub fn made(&mut self) {
        self.first = None;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut census = census();
        census.isolates -= 1;
        if census.isolates == 0 {
            LAST_GONE.notify_all();
        }
    }
}

fn census() -> MutexGuard<'static, Census> {
    CENSUS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until there is no isolate in this process, so that the next one may start from any snapshot. False if that takes
/// longer.
pub fn is_free_within(patience: Duration) -> bool {
    let free = LAST_GONE.wait_timeout_while(census(), patience, |census| census.isolates > 0);
    !free.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

/// Whether the isolates of this process, of which there is one, start from this snapshot of ours, or from none.
pub fn is_in_use(snapshot: Option<Snapshot>) -> bool {
    census().origin == snapshot.map(|snapshot| snapshot.as_ptr() as usize)
}
