//! Isolates that are kept for further runs, of workflows that ask for it.
//!
//! Whatever a run leaves in its isolate, the next run finds. So an isolate is kept for runs of one [`Tenant`] only. Here
//! is the book-keeping: which isolate is for a run, and which goes because it has served long enough, nobody needs it, or
//! there are too many. What is kept does not matter. Of those of a tenant the one used last is used next, so that what is
//! not needed grows old.

use std::time::{Duration, Instant};
use std::{fmt, mem};

use sha2::{Digest as _, Sha256};

use super::job::Job;

/// The runs that may have the same isolate, one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tenant {
    digest: [u8; 32],
    pub finds: Finds,
}

/// What a run finds of those before it in its isolate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finds {
    /// All they left.
    Everything,
    /// Compiled code: modules are evaluated anew, and what cannot be is made as it was.
    Code,
}

impl Tenant {
    /// The runs of `job` that belong to the same `owners`: texts that tell them from all others, their credential among
    /// them. All that a job could do with what another run left is part of it: its code, its adaptors, its limits, its
    /// reach.
    pub fn new(job: &Job, owners: &[&str], finds: Finds) -> Self {
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        owners.iter().for_each(|text| add(text));
        [job.name.as_str(), &job.step, &job.source, &job.compiled.code].into_iter().for_each(&mut add);
        add(&format!("{:?} {:?} {:?} {:?}", job.adaptors, job.limits, job.network, job.test));
        Self { digest: digest.finalize().into(), finds }
    }
}

// What went into the digest is nobody's business: a credential did.
impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tenant")
    }
}

/// A tenant's isolates of one sort: those whose runs are part of a trace have other built-ins than those whose are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lodging {
    pub tenant: Tenant,
    pub traced: bool,
}

/// What may be kept.
#[derive(Clone, Debug)]
pub struct KeptOptions {
    /// Isolates that wait for a run, all together.
    pub most: usize,
    /// Bytes that they may take, all together.
    pub memory: usize,
    /// Runs of one isolate.
    pub runs: u32,
    /// Time from the making of an isolate to its last run.
    pub age: Duration,
    /// Time without a run after which an isolate goes.
    pub idle: Duration,
}

impl Default for KeptOptions {
    fn default() -> Self {
        Self {
            most: usize::MAX,
            memory: 1 << 30,
            runs: 10_000,
            age: Duration::from_secs(3600),
            idle: Duration::from_secs(60),
        }
    }
}

/// What an isolate takes besides what its runs hold.
const BARE: usize = 4 << 20;

/// An isolate with its history.
pub struct Aged<T> {
    pub isolate: T,
    runs: u32,
    since: Instant,
    era: u64,
}

struct Waiting<T> {
    lodging: Lodging,
    aged: Aged<T>,
    memory: usize,
    returned: Instant,
}

/// The isolates that wait for a run of their tenant.
pub struct Kept<T> {
    options: KeptOptions,
    /// The one used last is last.
    waiting: Vec<Waiting<T>>,
    /// Isolates of an earlier era do not come back.
    era: u64,
    /// Whether somebody will call [`Self::retire_idle`].
    is_looked_after: bool,
}

impl<T> Kept<T> {
    pub fn new(options: KeptOptions) -> Self {
        Self { options, waiting: Vec::new(), era: 0, is_looked_after: false }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    fn memory(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.memory + BARE).sum()
    }

    /// A new isolate, before its first run.
    pub fn begin(&self, isolate: T) -> Aged<T> {
        Aged { isolate, runs: 0, since: Instant::now(), era: self.era }
    }

    /// An isolate for a run.
    pub fn take(&mut self, lodging: Lodging) -> Option<Aged<T>> {
        let at = self.waiting.iter().rposition(|waiting| waiting.lodging == lodging)?;
        Some(self.waiting.remove(at).aged)
    }

    /// Takes an isolate back after a run that left `memory` bytes. Returns those that go: it, if it has served long enough,
    /// or others to make room.
    #[must_use = "dropping an isolate takes time that others need the lock for"]
    pub fn put(&mut self, lodging: Lodging, mut aged: Aged<T>, memory: usize) -> Vec<T> {
        aged.runs += 1;
        let has_served = aged.runs >= self.options.runs || aged.since.elapsed() >= self.options.age;
        if has_served || aged.era != self.era {
            return vec![aged.isolate];
        }
        self.waiting.push(Waiting { lodging, aged, memory, returned: Instant::now() });
        let mut gone = Vec::new();
        while self.waiting.len() > self.options.most || self.memory() > self.options.memory {
            gone.push(self.waiting.remove(0).aged.isolate);
        }
        gone
    }

    /// True if isolates wait and nobody sees to it that those go which are not used. From now on the caller does.
    pub fn needs_looking_after(&mut self) -> bool {
        !self.waiting.is_empty() && !mem::replace(&mut self.is_looked_after, true)
    }

    /// Takes out those that nobody has used for long, and tells when to look again; None: there is nothing to look after.
    #[must_use = "dropping an isolate takes time that others need the lock for"]
    pub fn retire_idle(&mut self) -> (Vec<T>, Option<Instant>) {
        let idle = self.options.idle;
        let first = self.waiting.partition_point(|waiting| waiting.returned.elapsed() >= idle);
        let gone = self.waiting.drain(..first).map(|waiting| waiting.aged.isolate).collect();
        let next = self.waiting.first().map(|waiting| waiting.returned + idle);
        self.is_looked_after = next.is_some();
        (gone, next)
    }

    /// Takes out all; those that have a run now do not come back.
    #[must_use = "dropping an isolate takes time that others need the lock for"]
    pub fn renew(&mut self) -> Vec<T> {
        self.era += 1;
        self.waiting.drain(..).map(|waiting| waiting.aged.isolate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u32; 0] = [];

    fn of(name: u8) -> Lodging {
        Lodging { tenant: Tenant { digest: [name; 32], finds: Finds::Everything }, traced: false }
    }

    fn kept(change: impl FnOnce(&mut KeptOptions)) -> Kept<u32> {
        let mut options = KeptOptions::default();
        change(&mut options);
        Kept::new(options)
    }

    /// Isolates that go when `isolate` comes back from its first run.
    fn put(kept: &mut Kept<u32>, lodging: Lodging, isolate: u32, memory: usize) -> Vec<u32> {
        let aged = kept.begin(isolate);
        kept.put(lodging, aged, memory)
    }

    fn take(kept: &mut Kept<u32>, lodging: Lodging) -> Option<u32> {
        kept.take(lodging).map(|aged| aged.isolate)
    }

    #[test]
    fn an_isolate_is_for_one_run_at_a_time_of_its_own_tenant() {
        let mut kept = kept(|_| {});
        assert_eq!(put(&mut kept, of(1), 10, 0), NONE);
        assert_eq!(put(&mut kept, of(1), 11, 0), NONE);
        assert_eq!(take(&mut kept, of(2)), None);
        assert_eq!(take(&mut kept, Lodging { traced: true, ..of(1) }), None);
        let fresh = Tenant { finds: Finds::Code, ..of(1).tenant };
        assert_eq!(take(&mut kept, Lodging { tenant: fresh, ..of(1) }), None);
        assert_eq!(take(&mut kept, of(1)), Some(11), "the one used last");
        assert_eq!(take(&mut kept, of(1)), Some(10));
        assert_eq!(take(&mut kept, of(1)), None);
    }

    #[test]
    fn one_that_has_served_long_enough_goes() {
        let mut kept_for_runs = kept(|options| options.runs = 3);
        assert_eq!(put(&mut kept_for_runs, of(1), 10, 0), NONE);
        let aged = kept_for_runs.take(of(1)).unwrap();
        assert_eq!(kept_for_runs.put(of(1), aged, 0), NONE);
        let aged = kept_for_runs.take(of(1)).unwrap();
        assert_eq!(kept_for_runs.put(of(1), aged, 0), [10]);
        assert_eq!(put(&mut kept(|options| options.age = Duration::ZERO), of(1), 10, 0), [10]);
    }

    #[test]
    fn the_one_used_longest_ago_makes_room() {
        let mut two = kept(|options| options.most = 2);
        put(&mut two, of(1), 10, 0);
        put(&mut two, of(2), 20, 0);
        let aged = two.take(of(1)).unwrap();
        assert_eq!(two.put(of(1), aged, 0), NONE);
        assert_eq!(put(&mut two, of(3), 30, 0), [20]);
        let mut small = kept(|options| options.memory = 3 * BARE);
        put(&mut small, of(1), 10, 0);
        assert_eq!(put(&mut small, of(2), 20, 2 * BARE), [10]);
        assert_eq!(put(&mut small, of(3), 30, 3 * BARE), [20, 30], "it does not fit at all");
        assert_eq!(put(&mut kept(|options| options.most = 0), of(1), 10, 0), [10]);
    }

    #[test]
    fn what_nobody_uses_goes() {
        let mut long = kept(|_| {});
        assert!(!long.needs_looking_after(), "there is nothing");
        put(&mut long, of(1), 10, 0);
        assert!(long.needs_looking_after());
        assert!(!long.needs_looking_after(), "somebody does already");
        let (gone, next) = long.retire_idle();
        assert_eq!((gone, next.is_some()), (Vec::new(), true));
        let mut short = kept(|options| options.idle = Duration::ZERO);
        put(&mut short, of(1), 10, 0);
        assert!(short.needs_looking_after());
        assert_eq!(short.retire_idle(), (vec![10], None));
        put(&mut short, of(1), 11, 0);
        assert!(short.needs_looking_after(), "it began anew");
    }

    #[test]
    fn none_of_an_earlier_era_comes_back() {
        let mut kept = kept(|_| {});
        put(&mut kept, of(1), 10, 0);
        put(&mut kept, of(1), 11, 0);
        let running = kept.take(of(1)).unwrap();
        assert_eq!(kept.renew(), [10]);
        assert_eq!(kept.put(of(1), running, 0), [11]);
        assert_eq!(put(&mut kept, of(1), 12, 0), NONE);
    }
}
