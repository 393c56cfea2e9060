//! A bounded number of runs at a time, in isolates that are made ahead. `slots` says which runs may go on.
//!
//! Unless its workflow asks for it (`kept`), a run's isolate is never used again. So its making is part of every run,
//! unless it was made before the run came. The pool keeps such spares for the adaptor sets used last: bootstrapped,
//! with the parts of the runtime loaded and the adaptors' code compiled that the run before needed. No code of an
//! adaptor has run in a spare: what an adaptor finds when it is loaded, such as the time, is of its run.
//!
//! Spares are made one at a time, a moment after a run has begun or ended, and only while a slot is free: a pool at its limit
//! has better use for the processor. When memory is short, spares and kept isolates go first.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::capacity;
use super::custody::{self, Vigil};
use super::error::{RunError, Severity};
use super::host::{AdaptorKey, AdaptorSet, Host, IdleIsolate, adaptor_key};
use super::isolate_thread::{IsolateThread, Order, Plan, release_memory};
use super::job::{Job, LogSink, Outcome};
use super::kept::{Aged, Kept, KeptOptions, Lodging};
use super::limits::{Limits, Stop};
use super::slots::{Bounds, Group, Part, Slots, Turn};
use super::spares::{Kind, Spares};

/// How many isolates a pool may hold.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Runs that compute at once, at least one.
    pub slots: usize,
    /// Runs under way at once, most of which wait for others.
    pub runs: usize,
    /// Bytes that the process has, above which no run begins.
    pub memory: usize,
    /// Warm isolates for each of the adaptor sets used last.
    pub spares_per_set: usize,
    /// Warm isolates altogether. The set used longest ago loses its own first.
    pub spares: usize,
    /// Isolates that are kept after their runs, where these allow it.
    pub kept: KeptOptions,
}

impl Default for PoolOptions {
    /// As many runs compute as the machine has cores, at least two, and there is a spare for each of twice as many adaptor
    /// sets. Three quarters of the memory are for runs.
    fn default() -> Self {
        let slots = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let memory = capacity::memory() / 4 * 3;
        let runs = capacity::runs(memory).max(slots);
        Self { slots, runs, memory, spares_per_set: 1, spares: 2 * slots, kept: KeptOptions::default() }
    }
}

/// How long a spare is not made after a run was given one. Most runs take less, and what is made beside one takes the
/// processor from it and from those who bring its answer.
const SPARE_DELAY: Duration = Duration::from_millis(3);
/// How often a caller who waits looks whether there is memory again.
const LOOK: Duration = Duration::from_millis(100);
/// How long a moment without runs is waited for when all isolates are to go.
const LULL: Duration = Duration::from_secs(2);
/// How long, if it does not come, runs are held back for those under way to end.
const HOLD: Duration = Duration::from_millis(100);
/// How many isolates are kept at most when all are to go: making them again takes some 10 ms each.
const FEW: usize = 32;
/// How often memory is looked for while it is short: it takes some milliseconds.
const MAKE_ROOM: Duration = Duration::from_millis(500);

/// What a pool holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Runs that can compute at once.
    pub slots: usize,
    /// Runs that can be under way at once.
    pub runs: usize,
    /// Runs under way.
    pub running: usize,
    /// Of these, those that wait for an event.
    pub idle: usize,
    /// Those that wait for a slot to go on.
    pub ready: usize,
    /// Callers who wait to begin a run.
    pub waiting: usize,
    /// Warm isolates that wait for a run.
    pub spares: usize,
    /// Isolates that wait for a further run.
    pub kept: usize,
    /// Isolates made since the start.
    pub created: u64,
    /// Runs that found a warm isolate.
    pub warm_runs: u64,
    /// Runs in isolates that had run before.
    pub kept_runs: u64,
    /// Isolates that were to be kept and were not, for what their last run left under way or how it ended.
    pub retired: u64,
    /// Runs that had to have one made.
    pub cold_runs: u64,
    /// Threads given up with runs that V8 could not end.
    pub lost: u64,
    /// Bytes in ArrayBuffers of all isolates of the host.
    pub buffers: usize,
}

/// Runs jobs, a bounded number at a time. Cheap to clone; must be used within a tokio runtime.
#[derive(Clone)]
pub struct IsolatePool(Arc<Pool>);

struct Pool {
    host: Host,
    slots: Slots,
    spares: Mutex<Spares<IsolateThread>>,
    kept: Mutex<Kept<IsolateThread>>,
    /// Has what all isolates share, even if there is no other.
    resident: Mutex<Option<IdleIsolate>>,
    draining: CancellationToken,
    /// Spares are going to be looked after.
    will_tend: AtomicBool,
    /// When memory was last looked for.
    room_made: Mutex<Option<Instant>>,
    running: AtomicUsize,
    created: AtomicU64,
    warm_runs: AtomicU64,
    kept_runs: AtomicU64,
    retired: AtomicU64,
    cold_runs: AtomicU64,
}

impl IsolatePool {
    pub fn new(host: Host, options: PoolOptions) -> Self {
        let PoolOptions { slots, runs, memory, .. } = options;
        Self(Arc::new(Pool {
            host,
            slots: Slots::new(Bounds { slots, runs, memory }),
            spares: Mutex::new(Spares::new(options.spares_per_set, options.spares)),
            kept: Mutex::new(Kept::new(options.kept)),
            resident: Mutex::default(),
            draining: CancellationToken::new(),
            will_tend: AtomicBool::new(false),
            room_made: Mutex::default(),
            running: AtomicUsize::new(0),
            created: AtomicU64::new(0),
            warm_runs: AtomicU64::new(0),
            kept_runs: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            cold_runs: AtomicU64::new(0),
        }))
    }

    /// The host whose adaptors the jobs use.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Runs that could begin at this moment, as far as slots go.
    pub fn available(&self) -> usize {
        let (bounds, load) = (self.0.slots.bounds(), self.0.slots.load());
        let available = bounds.slots.saturating_sub(load.taken).min(bounds.runs.saturating_sub(load.runs));
        if self.0.draining.is_cancelled() { 0 } else { available }
    }

    /// The right to one run of a group. Waits until it may begin, first come, first served within a group. None once the
    /// pool is drained.
    pub async fn slot(&self, group: &Group) -> Option<Slot> {
        let mut asked = self.0.slots.ask(group);
        loop {
            tokio::select! {
                biased;
                () = self.0.draining.cancelled() => return None,
                turn = &mut asked => return Some(Slot { pool: self.0.clone(), turn: turn.ok()? }),
                () = tokio::time::sleep(LOOK) => self.0.make_room(),
            }
        }
    }

    /// As [`Self::slot`], without waiting. None also if none may begin now.
    pub fn try_slot(&self, group: &Group) -> Option<Slot> {
        if self.0.draining.is_cancelled() {
            return None;
        }
        Some(Slot { pool: self.0.clone(), turn: self.0.slots.try_begin(group)? })
    }

    /// Waits for a slot and runs the job in it, as one of no group. Dropped, the future takes the run with it.
    pub fn run(
        &self,
        job: Job,
        state: String,
        sink: LogSink,
        cancel: CancellationToken,
    ) -> impl Future<Output = Outcome> + Send + 'static {
        let pool = self.clone();
        let asked = Instant::now();
        async move {
            let slot = tokio::select! {
                biased;
                () = cancel.cancelled() => return cancelled(),
                slot = pool.slot(&None) => slot,
            };
            match slot {
                Some(slot) => slot.start(asked, job, state, sink, cancel).await,
                None => Outcome::exception("fnhost is shutting down and starts no more runs"),
            }
        }
    }

    /// Gets a set of adaptors ready before it is needed: on disk, as [`Host::warm`] does, and with spares for runs with
    /// this limit of the heap in bytes.
    pub async fn warm(&self, specifiers: &[String], heap: usize) -> Result<(), RunError> {
        let host = self.0.host.clone();
        let specifiers = specifiers.to_vec();
        let kind = Kind { adaptors: adaptor_key(&specifiers), heap };
        blocking(move || host.warm(&specifiers)).await?;
        self.0.spares().touch(&kind);
        self.0.tend();
        Ok(())
    }

    /// Loads all runs' adaptors from one pack and one snapshot, as [`Host::load_together`] does. Without effect if they cannot
    /// be packed.
    pub async fn load_together(&self, specifiers: &[String]) {
        let (host, specifiers) = (self.0.host.clone(), specifiers.to_vec());
        let resident = tokio::task::spawn_blocking(move || host.load_together(&specifiers)).await;
        *self.0.resident() = resident.ok().flatten();
    }

    /// Loads all runs' adaptors from `set` from now on. All isolates must end for that, which those do that are kept, and runs
    /// that come then wait for some 20 ms. Where runs never cease, those that come wait for those under way, but not for
    /// long. None, and nothing is changed, if these do not end soon enough, or many isolates are kept; else for how long runs
    /// were held back.
    pub async fn take_up(&self, set: Arc<AdaptorSet>) -> Option<Duration> {
        let pool = &self.0;
        if pool.kept().len() > FEW {
            return None;
        }
        let _ = tokio::time::timeout(LULL, pool.slots.all_over()).await;
        let (hold, since) = (pool.slots.hold(), Instant::now());
        tokio::time::timeout(HOLD, pool.slots.all_over()).await.ok()?;
        let gone = (pool.spares().give_up(), pool.kept().renew(), pool.resident().take());
        drop(gone);
        let host = pool.host.clone();
        let taken_up = tokio::task::spawn_blocking(move || host.take_up(&set)).await;
        let (is_done, resident) = taken_up.unwrap_or_default();
        *pool.resident() = resident.filter(|_| !pool.draining.is_cancelled());
        drop(hold);
        pool.tend();
        is_done.then(|| since.elapsed())
    }

    pub fn stats(&self) -> PoolStats {
        let pool = &self.0;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (bounds, load) = (pool.slots.bounds(), pool.slots.load());
        PoolStats {
            slots: bounds.slots,
            runs: bounds.runs,
            running: pool.running.load(Ordering::Relaxed),
            idle: load.idle,
            ready: load.ready,
            waiting: load.asking,
            spares: pool.spares().len(),
            kept: pool.kept().len(),
            created: count(&pool.created),
            warm_runs: count(&pool.warm_runs),
            kept_runs: count(&pool.kept_runs),
            retired: count(&pool.retired),
            cold_runs: count(&pool.cold_runs),
            lost: pool.host.threads.lost(),
            buffers: pool.host.buffers.load(Ordering::Relaxed),
        }
    }

    /// Ends the isolates that are kept, those of runs under way after these: what they hold is out of date.
    pub fn retire_kept(&self) {
        let gone = self.0.kept().renew();
        drop(gone);
    }

    /// Gives out no more slots, waits for the runs under way, and ends spares and threads. To hurry, cancel the runs.
    pub async fn drain(&self) {
        self.0.draining.cancel();
        self.0.slots.all_over().await;
        self.0.spares().clear();
        self.retire_kept();
        drop(self.0.resident().take());
        let threads = self.0.host.threads.clone();
        let _ = tokio::task::spawn_blocking(move || threads.end()).await;
    }
}

impl Pool {
    fn spares(&self) -> MutexGuard<'_, Spares<IsolateThread>> {
        self.spares.lock().expect("nothing panics while it holds the spares")
    }

    fn kept(&self) -> MutexGuard<'_, Kept<IsolateThread>> {
        self.kept.lock().expect("nothing panics while it holds the kept isolates")
    }

    fn resident(&self) -> MutexGuard<'_, Option<IdleIsolate>> {
        self.resident.lock().expect("nothing panics while it holds the resident isolate")
    }

    /// Runs a job, and stops it when it is cancelled.
    async fn supervise(
        self: &Arc<Self>,
        asked: Instant,
        job: Job,
        state: String,
        sink: LogSink,
        part: Part,
        cancel: &CancellationToken,
    ) -> Outcome {
        if cancel.is_cancelled() {
            return cancelled();
        }
        let lodging = job.tenant.map(|tenant| Lodging { tenant, traced: job.traceparent.is_some() });
        let kept = lodging.and_then(|lodging| self.kept_isolate(lodging));
        let chosen = match kept {
            Some(chosen) => Ok(chosen),
            None => self.new_isolate(&job, lodging).await,
        };
        let Chosen { isolate, warm, lodging, set } = match chosen {
            Ok(chosen) => chosen,
            Err(error) => return Outcome::failed(error),
        };
        let vigil = Vigil::new(isolate.isolate.tripwire.clone(), job.limits.clone());
        let (sender, outcome) = oneshot::channel();
        let report = Box::new(move |outcome| drop(sender.send(outcome)));
        isolate.isolate.give(Order { job, state, sink, asked, warm, part: Some(part), pack: None, report });
        // Nobody else gives this isolate a run: if it is not to be kept, it ends after this one.
        let kept = lodging.map(|lodging| (lodging, isolate));
        self.tend_soon();
        match custody::watch(outcome, &self.host.threads, vigil, cancel).await {
            Ok(mut outcome) => {
                if let Some((lodging, isolate)) = kept {
                    self.keep(lodging, isolate, &outcome);
                }
                let loaded = outcome.footprint.take().filter(|_| outcome.error.is_none());
                if let (Some(set), Some(footprint)) = (set, loaded)
                    && set.set_footprint(footprint)
                {
                    let host = self.host.clone();
                    tokio::task::spawn_blocking(move || host.save_packs());
                }
                outcome
            }
            Err(lost) => Outcome::failed(lost),
        }
    }

    /// An isolate that was kept after a run of the same tenant.
    fn kept_isolate(&self, lodging: Lodging) -> Option<Chosen> {
        let isolate = self.kept().take(lodging).filter(|aged| !aged.isolate.tripwire.is_lost())?;
        self.kept_runs.fetch_add(1, Ordering::Relaxed);
        Some(Chosen { isolate, warm: true, lodging: Some(lodging), set: None })
    }

    /// An isolate that has not run yet.
    async fn new_isolate(self: &Arc<Self>, job: &Job, lodging: Option<Lodging>) -> Result<Chosen, RunError> {
        let kind = Kind { adaptors: adaptor_key(&job.adaptors), heap: job.limits.heap };
        let set = self.adaptors(&kind.adaptors).await?;
        let (isolate, warm) = self.isolate(&set, &kind, job)?;
        let isolate = self.kept().begin(isolate);
        Ok(Chosen { isolate, warm, lodging: lodging.filter(|_| set.lets_keep(job)), set: Some(set) })
    }

    /// Keeps an isolate after its run, if it may have another.
    fn keep(self: &Arc<Self>, lodging: Lodging, isolate: Aged<IsolateThread>, outcome: &Outcome) {
        // A cancellation that came too late for its run must not hit the next one.
        if !outcome.isolate_is_kept || isolate.isolate.tripwire.tripped().is_some() {
            self.retired.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (gone, needs_looking_after) = {
            let mut kept = self.kept();
            (kept.put(lodging, isolate, outcome.stats.heap + outcome.stats.buffers), kept.needs_looking_after())
        };
        drop(gone);
        if needs_looking_after {
            tokio::spawn(retire_idle(Arc::downgrade(self)));
        }
    }

    async fn adaptors(&self, key: &AdaptorKey) -> Result<Arc<AdaptorSet>, RunError> {
        if let Some(set) = self.host.prepared(key) {
            return Ok(set);
        }
        let (host, key) = (self.host.clone(), key.clone());
        blocking(move || host.prepare(&key)).await
    }

    /// Ends isolates that have nothing to do, if runs wait for want of memory, and looks again whether there is some.
    fn make_room(&self) {
        if !self.slots.lack_memory() {
            return;
        }
        let is_due = {
            let mut made = self.room_made.lock().expect("nothing panics while it holds the time");
            let is_due = made.is_none_or(|made| made.elapsed() > MAKE_ROOM);
            if is_due {
                *made = Some(Instant::now());
            }
            is_due
        };
        if is_due {
            let gone = (self.spares().give_up(), self.kept().renew());
            drop(gone);
            release_memory();
        }
        self.slots.look_again();
    }

    /// As [`Self::tend`], when the run that has just taken a spare or ended is likely to have been answered.
    fn tend_soon(self: &Arc<Self>) {
        if self.spares().wanted().is_none() || self.will_tend.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(SPARE_DELAY).await;
            let Some(pool) = pool.upgrade() else { return };
            pool.will_tend.store(false, Ordering::Release);
            pool.tend();
        });
    }

    /// Makes one more spare if one is wanted and there is a slot that nobody waits for, and when it is made looks again.
    fn tend(self: &Arc<Self>) {
        if self.draining.is_cancelled() || !self.slots.have_time() {
            return;
        }
        let mut spares = self.spares();
        let Some(kind) = spares.wanted() else { return };
        // Runs prepare their adaptors; what is still being prepared is looked at again after the run.
        let Some(set) = self.host.prepared(&kind.adaptors) else { return };
        let made = {
            let pool = Arc::downgrade(self);
            move |made| {
                let Some(pool) = pool.upgrade() else { return };
                pool.spares().finish(made);
                pool.tend();
            }
        };
        let plan = Plan { footprint: set.footprint(), ..set.plan_for_work(kind.heap) };
        if let Ok(isolate) = IsolateThread::start_and_tell(&self.host, plan, made) {
            self.created.fetch_add(1, Ordering::Relaxed);
            spares.begin(kind, isolate);
        }
    }

    /// A spare, or an isolate that is only being made. The second value tells whether it is a spare.
    fn isolate(self: &Arc<Self>, set: &AdaptorSet, kind: &Kind, job: &Job) -> Result<(IsolateThread, bool), RunError> {
        // What a test run loads is not what others need, so nothing is learned from it.
        let exploration = if job.test { None } else { set.plan_to_explore(kind.heap) };
        let spare = if exploration.is_none() {
            self.spares().take(kind)
        } else {
            // Runs after this one want spares as well.
            self.spares().touch(kind);
            None
        };
        if let Some(isolate) = spare.filter(|spare| !spare.tripwire.is_lost()) {
            self.warm_runs.fetch_add(1, Ordering::Relaxed);
            return Ok((isolate, true));
        }
        let plan = exploration.unwrap_or_else(|| set.plan_for_work(kind.heap));
        let isolate = IsolateThread::start(&self.host, plan)?;
        self.cold_runs.fetch_add(1, Ordering::Relaxed);
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok((isolate, false))
    }
}

/// An isolate for a run.
struct Chosen {
    isolate: Aged<IsolateThread>,
    /// Whether it was made before the run asked for it.
    warm: bool,
    /// For which runs it may be kept.
    lodging: Option<Lodging>,
    /// The adaptors, of one that has not run yet.
    set: Option<Arc<AdaptorSet>>,
}

/// Ends isolates that nobody uses any more, as long as there are any.
async fn retire_idle(pool: Weak<Pool>) {
    loop {
        let Some(next) = pool.upgrade().and_then(|pool| {
            let (gone, next) = pool.kept().retire_idle();
            drop(gone);
            next
        }) else {
            return;
        };
        tokio::time::sleep_until(next.into()).await;
    }
}

/// One that is counted until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to one run. Goes back when it is dropped.
pub struct Slot {
    pool: Arc<Pool>,
    turn: Turn,
}

impl Slot {
    /// A run in this slot, which starts when it is first polled. It ends early when `cancel` says so or the future is
    /// dropped; either way the slot stays taken until the isolate is gone, or free for another run.
    pub fn run(self, job: Job, state: String, sink: LogSink, cancel: CancellationToken) -> Running {
        self.start(Instant::now(), job, state, sink, cancel)
    }

    fn start(self, asked: Instant, job: Job, state: String, sink: LogSink, cancel: CancellationToken) -> Running {
        let cancel = cancel.child_token();
        let token = cancel.clone();
        let run = async move {
            let Self { pool, turn } = self;
            let running = Counted::new(&pool.running);
            let outcome = pool.supervise(asked, job, state, sink, turn.part(), &token).await;
            drop(running);
            drop(turn);
            pool.tend_soon();
            outcome
        };
        Running { run: Some(Box::pin(run)), cancel, runtime: Handle::current() }
    }
}

/// A run under way. Dropped, it takes the run with it.
pub struct Running {
    /// None when it has ended.
    run: Option<Pin<Box<dyn Future<Output = Outcome> + Send>>>,
    cancel: CancellationToken,
    runtime: Handle,
}

impl Future for Running {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let run = self.run.as_mut().expect("nobody polls a run that has ended");
        let outcome = ready!(run.as_mut().poll(context));
        self.run = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.cancel.cancel();
            // Somebody has to wait for the isolate, or for its thread to be given up.
            self.runtime.spawn(run);
        }
    }
}

fn cancelled() -> Outcome {
    Outcome::failed(RunError::stopped(Stop::Cancelled, &Limits::default()))
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let message = format!("preparing the adaptors failed: {error}");
        Err(RunError::new("ExecutionError", Severity::Exception, message))
    })
}
