//! Which isolates are kept after their runs.
//!
//! Here is only the book-keeping: which of them is for a run, and which goes when there are too many. What is kept does
//! not matter. Of those for the same runs the one used last is used next, so that what is not needed grows old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::isolation::Keep;
use super::pack::Footprint;

/// What may be kept.
#[derive(Clone, Debug)]
pub struct KeptOptions {
    /// Isolates that wait for a run, all together.
    pub most: usize,
    /// Bytes that they may take, all together.
    pub memory: usize,
    /// Runs of one isolate.
    pub runs: u32,
    /// Time from the first run of an isolate to its last.
    pub age: Duration,
    /// Time without a run after which an isolate goes.
    pub idle: Duration,
}

impl Default for KeptOptions {
    fn default() -> Self {
        Self {
            most: 64,
            memory: 1 << 30,
            runs: 1000,
            age: Duration::from_secs(3600),
            idle: Duration::from_secs(60),
        }
    }
}

/// An isolate with its history.
pub struct Veteran<T> {
    pub isolate: T,
    runs: u32,
    since: Instant,
}

impl<T> Veteran<T> {
    pub fn new(isolate: T) -> Self {
        Self { isolate, runs: 0, since: Instant::now() }
    }
}

struct Waiting<T> {
    keep: Keep,
    veteran: Veteran<T>,
    memory: usize,
    returned: Instant,
}

/// The isolates that wait for a run of their kind.
pub struct Kept<T> {
    options: KeptOptions,
    /// The one used last is last.
    waiting: Vec<Waiting<T>>,
    /// What the runs of a kind load, by which the next isolate for them is made.
    footprints: HashMap<[u8; 32], Arc<Footprint>>,
}

/// Kinds of run whose footprints are remembered.
const MOST_FOOTPRINTS: usize = 1000;

impl<T> Kept<T> {
    pub fn new(options: KeptOptions) -> Self {
        Self { options, waiting: Vec::new(), footprints: HashMap::new() }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that they hold.
    pub fn memory(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.memory).sum()
    }

    /// An isolate for a run of this kind.
    pub fn take(&mut self, keep: &Keep) -> Option<Veteran<T>> {
        let at = self.waiting.iter().rposition(|waiting| waiting.keep == *keep)?;
        Some(self.waiting.remove(at).veteran)
    }

    /// Takes an isolate back after a run. Returns those that go: it, if it has served long enough, or others to make room.
    #[must_use = "dropping an isolate takes time that others need the lock for"]
    pub fn put(&mut self, keep: Keep, mut veteran: Veteran<T>, memory: usize) -> Vec<T> {
        veteran.runs += 1;
        if veteran.runs >= self.options.runs || veteran.since.elapsed() >= self.options.age {
            return vec![veteran.isolate];
        }
        self.waiting.push(Waiting { keep, veteran, memory, returned: Instant::now() });
        let mut gone = Vec::new();
        while self.waiting.len() > self.options.most || self.memory() > self.options.memory {
            gone.push(self.waiting.remove(0).veteran.isolate);
        }
        gone
    }

    /// Takes out those that nobody has used for long, and tells when to look again.
    pub fn retire_idle(&mut self) -> (Vec<T>, Option<Instant>) {
        let idle = self.options.idle;
        let first = self.waiting.partition_point(|waiting| waiting.returned.elapsed() >= idle);
        let gone = self.waiting.drain(..first).map(|waiting| waiting.veteran.isolate).collect();
        (gone, self.waiting.first().map(|waiting| waiting.returned + idle))
    }

    /// Takes out all, and keeps none from now on.
    pub fn clear(&mut self) -> Vec<T> {
        self.options.most = 0;
        self.waiting.drain(..).map(|waiting| waiting.veteran.isolate).collect()
    }

    /// What a run of this kind loaded, if there was one.
    pub fn footprint(&self, keep: &Keep) -> Option<Arc<Footprint>> {
        self.footprints.get(keep.kind()).cloned()
    }

    /// Remembers what a run of this kind loaded, besides what runs before it did.
    pub fn remember(&mut self, keep: &Keep, footprint: &Footprint) {
        let known = self.footprints.get(keep.kind());
        if known.is_some_and(|known| known.includes(footprint)) {
            return;
        }
        let both = known.map_or_else(|| footprint.clone(), |known| known.with(footprint));
        if self.footprints.len() >= MOST_FOOTPRINTS {
            self.footprints.clear();
        }
        self.footprints.insert(*keep.kind(), Arc::new(both));
    }
}
