//! A bounded number of runs at a time, in isolates that are made ahead.
//!
//! Unless its workflow asks for it (`kept`), a run's isolate is never used again. So its making is part of every run,
//! unless it was made before the run came. The pool keeps such spares for the adaptor sets used last: bootstrapped,
//! with the parts of the runtime loaded and the adaptors' code compiled that the run before needed. No code of an
//! adaptor has run in a spare: what an adaptor finds when it is loaded, such as the time, is of its run.
//!
//! Spares are made one at a time, and only while a slot is free: a pool at its limit has better use for the processor.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::custody::{self, Vigil};
use super::error::{RunError, Severity};
use super::host::{AdaptorKey, AdaptorSet, Host, adaptor_key};
use super::isolate_thread::{IsolateThread, Order, Plan};
use super::kept::{Aged, Kept, KeptOptions, Lodging};
use super::limits::{Limits, Stop};
use super::run::{Job, LogSink, Outcome};
use super::spares::{Kind, Spares};

/// How many isolates a pool may hold.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Runs at once, at least one.
    pub size: usize,
    /// Warm isolates for each of the adaptor sets used last.
    pub spares_per_set: usize,
    /// Warm isolates altogether. The set used longest ago loses its own first.
    pub spares: usize,
    /// Isolates that are kept after their runs, where these allow it.
    pub kept: KeptOptions,
}

impl Default for PoolOptions {
    /// As many runs as the machine has cores, at least two, and a spare for each of twice as many adaptor sets.
    fn default() -> Self {
        let size = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        Self { size, spares_per_set: 1, spares: 2 * size, kept: KeptOptions::default() }
    }
}

/// What a pool holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Runs that are possible at once.
    pub size: usize,
    /// Runs under way.
    pub running: usize,
    /// Callers who wait for a slot.
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
    size: usize,
    slots: Arc<Semaphore>,
    spares: Mutex<Spares<IsolateThread>>,
    kept: Mutex<Kept<IsolateThread>>,
    draining: CancellationToken,
    running: AtomicUsize,
    waiting: AtomicUsize,
    created: AtomicU64,
    warm_runs: AtomicU64,
    kept_runs: AtomicU64,
    retired: AtomicU64,
    cold_runs: AtomicU64,
}

impl IsolatePool {
    pub fn new(host: Host, options: PoolOptions) -> Self {
        let size = options.size.max(1);
        Self(Arc::new(Pool {
            host,
            size,
            slots: Arc::new(Semaphore::new(size)),
            spares: Mutex::new(Spares::new(options.spares_per_set, options.spares)),
            kept: Mutex::new(Kept::new(options.kept)),
            draining: CancellationToken::new(),
            running: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
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

    /// Slots that are free at this moment.
    pub fn available(&self) -> usize {
        if self.0.draining.is_cancelled() { 0 } else { self.0.slots.available_permits() }
    }

    /// The right to one run. Waits until there is one, first come, first served. None once the pool is drained.
    pub async fn slot(&self) -> Option<Slot> {
        let waiting = Counted::new(&self.0.waiting);
        let permit = tokio::select! {
            biased;
            () = self.0.draining.cancelled() => return None,
            permit = self.0.slots.clone().acquire_owned() => permit.ok()?,
        };
        drop(waiting);
        Some(Slot { pool: self.0.clone(), permit })
    }

    /// As [`Self::slot`], without waiting. None also if all slots are taken.
    pub fn try_slot(&self) -> Option<Slot> {
        if self.0.draining.is_cancelled() {
            return None;
        }
        let permit = self.0.slots.clone().try_acquire_owned().ok()?;
        Some(Slot { pool: self.0.clone(), permit })
    }

    /// Waits for a slot and runs the job in it. Dropped, the future takes the run with it.
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
                slot = pool.slot() => slot,
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

    pub fn stats(&self) -> PoolStats {
        let pool = &self.0;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolStats {
            size: pool.size,
            running: pool.running.load(Ordering::Relaxed),
            waiting: pool.waiting.load(Ordering::Relaxed),
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
        // Never fails: nothing closes the semaphore.
        let all = self.0.slots.acquire_many(self.0.size as u32).await;
        self.0.spares().clear();
        self.retire_kept();
        let threads = self.0.host.threads.clone();
        let _ = tokio::task::spawn_blocking(move || threads.end()).await;
        drop(all);
    }
}

impl Pool {
    fn spares(&self) -> MutexGuard<'_, Spares<IsolateThread>> {
        self.spares.lock().expect("nothing panics while it holds the spares")
    }

    fn kept(&self) -> MutexGuard<'_, Kept<IsolateThread>> {
        self.kept.lock().expect("nothing panics while it holds the kept isolates")
    }

    /// Runs a job, and stops it when it is cancelled.
    async fn supervise(
        self: &Arc<Self>,
        asked: Instant,
        job: Job,
        state: String,
        sink: LogSink,
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
        isolate.isolate.give(Order { job, state, sink, asked, warm, report });
        // Nobody else gives this isolate a run: if it is not to be kept, it ends after this one.
        let kept = lodging.map(|lodging| (lodging, isolate));
        self.tend();
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
        let (isolate, warm) = self.isolate(&set, &kind)?;
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

    /// Makes one more spare if one is wanted and fewer runs are under way than may be, and when it is made looks again.
    fn tend(self: &Arc<Self>) {
        if self.running.load(Ordering::Relaxed) >= self.size || self.draining.is_cancelled() {
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
    fn isolate(self: &Arc<Self>, set: &AdaptorSet, kind: &Kind) -> Result<(IsolateThread, bool), RunError> {
        let exploration = set.plan_to_explore(kind.heap);
        let spare = if exploration.is_none() { self.spares().take(kind) } else { None };
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
    permit: OwnedSemaphorePermit,
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
            let Self { pool, permit } = self;
            let running = Counted::new(&pool.running);
            let outcome = pool.supervise(asked, job, state, sink, &token).await;
            drop(running);
            drop(permit);
            pool.tend();
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
