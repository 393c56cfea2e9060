//! What a run may use, and the watchdog that ends a run that uses more.
//!
//! Only `terminate_execution` stops JavaScript, so every limit ends there, by way of an interrupt that looks whether the
//! runtime bears it at this moment. Three mechanisms feed it: a callback of V8
//! near the heap limit, an allocator that counts ArrayBuffer memory (which V8's heap limit leaves out), and one
//! watchdog thread per process that compares wall clock and CPU clock of each live run with its limits. A run that
//! waits on I/O executes no JavaScript; [`Tripwire::wait`] wakes it.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use deno_core::v8;
use tokio::sync::Notify;

/// Bytes in one MiB.
pub const MIB: usize = 1 << 20;

/// What one run may use. A limit that is hit ends the run; the process goes on.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Wall clock from the first line of the job's module graph to its outcome.
    pub wall: Duration,
    /// CPU time of the run's thread. Waiting for I/O does not count.
    pub cpu: Option<Duration>,
    /// V8 heap in bytes; at least 64 MiB, below which V8 cannot start.
    pub heap: usize,
    /// Bytes in ArrayBuffers and Buffers, which live outside the heap.
    pub buffers: usize,
    /// Bytes of the final state as JSON text.
    pub state: usize,
    /// Bytes of log messages over the whole run.
    pub log: usize,
}

/// The smallest heap in bytes with which V8 starts reliably.
pub const MIN_HEAP: usize = 64 * MIB;

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(300),
            cpu: None,
            heap: 500 * MIB,
            buffers: 500 * MIB,
            state: 125 * MIB,
            log: 10 * MIB,
        }
    }
}

/// Which limit ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Limit {
    Wall = 1,
    Cpu,
    Heap,
    Buffers,
    State,
    Log,
}

impl Limit {
    fn from_u8(value: u8) -> Option<Self> {
        [Self::Wall, Self::Cpu, Self::Heap, Self::Buffers, Self::State, Self::Log]
            .into_iter()
            .find(|limit| *limit as u8 == value)
    }
}

/// Why a run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Limit(Limit),
    /// Nobody wants its outcome any more.
    Cancelled,
}

impl Stop {
    const CANCELLED: u8 = u8::MAX;

    fn from_u8(value: u8) -> Option<Self> {
        if value == Self::CANCELLED { Some(Self::Cancelled) } else { Limit::from_u8(value).map(Self::Limit) }
    }
}

/// Shared by a run, its allocator and the watchdog: who tripped first, and a way to stop the isolate.
#[derive(Default)]
pub struct Tripwire {
    tripped: AtomicU8,
    isolate: OnceLock<v8::IsolateHandle>,
    notify: Notify,
    /// Where the isolate lives: it may wait for a slot there.
    thread: OnceLock<Thread>,
    lost: AtomicBool,
    /// When the stop was first put off.
    put_off: OnceLock<Instant>,
}

/// How long a stop is put off while the runtime does not bear it, and how soon it is tried again.
const PUT_OFF: Duration = Duration::from_secs(1);
const TRY_AGAIN: Duration = Duration::from_millis(2);

impl Tripwire {
    /// Names the isolate to stop, and its context. Until then a trip is only recorded.
    pub fn arm(self: &Arc<Self>, isolate: &mut v8::Isolate, context: v8::Global<v8::Context>) {
        if self.isolate.get().is_some() {
            return;
        }
        isolate.set_slot(MainContext(context));
        let _ = self.isolate.set(isolate.thread_safe_handle());
        if self.tripped().is_some() {
            self.terminate();
        }
    }

    /// The isolate lives on the calling thread.
    pub fn runs_here(&self) {
        let _ = self.thread.set(thread::current());
    }

    /// Records the limit unless something else came first, and stops the isolate.
    pub fn trip(self: &Arc<Self>, limit: Limit) {
        self.stop(limit as u8);
    }

    /// Stops the isolate because its run is no longer wanted.
    pub fn cancel(self: &Arc<Self>) {
        self.stop(Stop::CANCELLED);
    }

    fn stop(self: &Arc<Self>, reason: u8) {
        let _ = self.tripped.compare_exchange(0, reason, Ordering::AcqRel, Ordering::Acquire);
        self.terminate();
        self.notify.notify_one();
        self.thread.get().into_iter().for_each(Thread::unpark);
    }

    /// Why the run is stopped, if it is.
    pub fn tripped(&self) -> Option<Stop> {
        Stop::from_u8(self.tripped.load(Ordering::Acquire))
    }

    /// Resolves once the run is stopped.
    pub async fn wait(&self) -> Stop {
        loop {
            if let Some(stop) = self.tripped() {
                return stop;
            }
            self.notify.notified().await;
        }
    }

    /// Records that nobody waits for the isolate's thread: it will hardly go on. Safe to call from a signal handler.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether the isolate's thread is lost.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn terminate(self: &Arc<Self>) {
        // The thread of a lost isolate may hold the lock that this would wait for.
        if let Some(isolate) = self.isolate.get().filter(|_| !self.is_lost()) {
            isolate.request_interrupt(stop_now_or_later, Arc::as_ptr(self).cast_mut().cast());
        }
    }

    fn put_off(self: &Arc<Self>) -> bool {
        let patient = self.put_off.get_or_init(Instant::now).elapsed() < PUT_OFF;
        if patient {
            watchdog().try_again(self.clone());
        }
        patient
    }
}

/// V8 calls this on the isolate's thread, between two steps of JavaScript.
extern "C" fn stop_now_or_later(mut isolate: v8::UnsafeRawIsolatePtr, tripwire: *mut c_void) {
    let tripwire: *const Tripwire = tripwire.cast_const().cast();
    // SAFETY: the pointer is from an `Arc` that the isolate's thread holds for as long as there is the isolate, and with
    // it this call; the count is raised for the `Arc` made here.
    let tripwire = unsafe {
        Arc::increment_strong_count(tripwire);
        Arc::from_raw(tripwire)
    };
    // SAFETY: V8 passes the isolate that it interrupts, on whose thread this is.
    let isolate = unsafe { v8::Isolate::ref_from_raw_isolate_ptr_mut(&mut isolate) };
    if !loads_own_script(isolate) || !tripwire.put_off() {
        isolate.terminate_execution();
    }
}

/// What an isolate keeps of its own for [`loads_own_script`].
struct MainContext(v8::Global<v8::Context>);

/// Frames of the stack that are looked at.
const DEPTH: usize = 200;

/// Whether the runtime is loading one of its own scripts. It takes for granted that this succeeds.
fn loads_own_script(isolate: &mut v8::Isolate) -> bool {
    let Some(context) = isolate.get_slot::<MainContext>().map(|context| context.0.clone()) else { return false };
    v8::scope!(let scope, isolate);
    let context = v8::Local::new(scope, context);
    let scope = &mut v8::ContextScope::new(scope, context);
    let Some(stack) = v8::StackTrace::current_stack_trace(scope, DEPTH) else { return false };
    (0..stack.get_frame_count()).any(|index| {
        let Some(frame) = stack.get_frame(scope, index) else { return false };
        let is = |text: Option<v8::Local<v8::String>>, expected: &[&str]| {
            text.is_some_and(|text| expected.contains(&text.to_rust_string_lossy(scope).as_str()))
        };
        is(frame.get_script_name(scope), &["ext:core/01_core.js"])
            && is(frame.get_function_name(scope), &["lazyLoad", "loadExtScript"])
    })
}

/// Counts the bytes of live ArrayBuffers of one isolate.
pub struct BufferAccount {
    live: AtomicUsize,
    peak: AtomicUsize,
    limit: AtomicUsize,
    tripwire: Arc<Tripwire>,
    /// Bytes in the ArrayBuffers of all isolates.
    total: Arc<AtomicUsize>,
}

impl BufferAccount {
    /// An account without a limit.
    pub fn new(tripwire: Arc<Tripwire>, total: Arc<AtomicUsize>) -> Arc<Self> {
        let limit = AtomicUsize::new(usize::MAX);
        Arc::new(Self { live: AtomicUsize::new(0), peak: AtomicUsize::new(0), limit, tripwire, total })
    }

    /// Sets how many bytes may be alive from now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The most bytes that were alive at once since this was last asked.
    pub fn take_peak(&self) -> usize {
        self.peak.swap(self.live.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    /// The bytes that are alive now.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// An allocator for one isolate that reports to this account.
    pub fn allocator(self: &Arc<Self>) -> v8::UniqueRef<v8::Allocator> {
        let handle = Arc::into_raw(self.clone());
        // SAFETY: the vtable's functions take the handle as a pointer from `Arc::into_raw`, and `drop_account` gives
        // it back exactly once.
        unsafe { v8::new_rust_allocator(handle, &VTABLE) }
    }

    /// Takes `len` bytes into account. False when a single allocation is so far over the limit that it must fail at
    /// once; a small excess is granted because V8 aborts the process when some of its own allocations fail, and the
    /// run is being ended anyway.
    pub(super) fn reserve(&self, len: usize) -> bool {
        let live = self.live.fetch_add(len, Ordering::Relaxed) + len;
        let limit = self.limit.load(Ordering::Relaxed);
        if live > limit {
            self.tripwire.trip(Limit::Buffers);
            if live - limit > GRACE {
                self.live.fetch_sub(len, Ordering::Relaxed);
                return false;
            }
        }
        self.total.fetch_add(len, Ordering::Relaxed);
        self.peak.fetch_max(live, Ordering::Relaxed);
        true
    }

    /// Gives back `len` bytes that [`Self::reserve`] granted.
    pub(super) fn release(&self, len: usize) {
        self.live.fetch_sub(len, Ordering::Relaxed);
        self.total.fetch_sub(len, Ordering::Relaxed);
    }
}

const GRACE: usize = 16 * MIB;

static VTABLE: v8::RustAllocatorVtable<BufferAccount> = v8::RustAllocatorVtable {
    allocate: allocate_zeroed,
    allocate_uninitialized: allocate_raw,
    free: free_buffer,
    drop: drop_account,
};

unsafe extern "C" fn allocate_zeroed(account: &BufferAccount, len: usize) -> *mut c_void {
    if !account.reserve(len) {
        return std::ptr::null_mut();
    }
    // SAFETY: calloc takes any size; a null result is what V8 expects on failure.
    unsafe { libc::calloc(len.max(1), 1) }
}

unsafe extern "C" fn allocate_raw(account: &BufferAccount, len: usize) -> *mut c_void {
    if !account.reserve(len) {
        return std::ptr::null_mut();
    }
    // SAFETY: as above.
    unsafe { libc::malloc(len.max(1)) }
}

unsafe extern "C" fn free_buffer(account: &BufferAccount, data: *mut c_void, len: usize) {
    account.release(len);
    // SAFETY: V8 frees only what the two functions above gave it.
    unsafe { libc::free(data) }
}

unsafe extern "C" fn drop_account(account: *const BufferAccount) {
    // SAFETY: the pointer came from `Arc::into_raw` in `allocator`, and V8 drops an allocator once.
    drop(unsafe { Arc::from_raw(account) });
}

/// CPU clock of one thread, readable from another while that thread lives.
#[derive(Clone, Copy)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The clock of the calling thread.
    pub fn current() -> Self {
        let mut clock = 0;
        // SAFETY: `clock` outlives the call; the thread id is the caller's own. It cannot fail for a live thread.
        unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        Self(clock)
    }

    /// CPU time the thread has used since it started.
    pub fn now(self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` outlives the call. For a thread that has ended the call fails and leaves zero.
        unsafe { libc::clock_gettime(self.0, &mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

struct Watched {
    id: u64,
    deadline: Instant,
    cpu: Option<(ThreadClock, Duration)>,
    tripwire: Arc<Tripwire>,
}

#[derive(Default)]
struct Watchdog {
    beat: Mutex<Beat>,
    changed: Condvar,
}

/// What the watchdog watches.
#[derive(Default)]
struct Beat {
    last_id: u64,
    runs: Vec<Watched>,
    /// Stops that were put off, and when each is due.
    put_off: Vec<(Instant, Arc<Tripwire>)>,
    /// Until when the watchdog sleeps, if nobody wakes it; None: for ever.
    asleep_until: Option<Instant>,
}

/// How often CPU clocks are read while runs with a CPU limit are alive.
const CPU_TICK: Duration = Duration::from_millis(5);

fn watchdog() -> &'static Watchdog {
    static WATCHDOG: OnceLock<&'static Watchdog> = OnceLock::new();
    WATCHDOG.get_or_init(|| {
        let watchdog: &'static Watchdog = Box::leak(Box::default());
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watchdog.patrol())
            .expect("a thread for the watchdog");
        watchdog
    })
}

impl Watchdog {
    fn patrol(&self) {
        let mut beat = self.beat();
        loop {
            let now = Instant::now();
            let sleep = beat.look(now);
            beat.asleep_until = sleep.map(|sleep| now + sleep);
            beat = match sleep {
                Some(sleep) => self.changed.wait_timeout(beat, sleep).expect("watchdog lock").0,
                None => self.changed.wait(beat).expect("watchdog lock"),
            };
        }
    }

    fn try_again(&self, tripwire: Arc<Tripwire>) {
        let due = Instant::now() + TRY_AGAIN;
        let mut beat = self.beat();
        beat.put_off.push((due, tripwire));
        self.wake_by(beat, due);
    }

    /// Sees to it that the watchdog looks at this time. Waking it costs more than a small run, so it is left to sleep if
    /// it wakes early enough by itself.
    fn wake_by(&self, beat: MutexGuard<'_, Beat>, time: Instant) {
        if beat.asleep_until.is_none_or(|until| until > time) {
            drop(beat);
            self.changed.notify_one();
        }
    }

    fn beat(&self) -> MutexGuard<'_, Beat> {
        self.beat.lock().expect("watchdog lock")
    }
}

impl Beat {
    /// Stops what is to be stopped, and tells how long there is nothing to do, if anything is left to watch.
    fn look(&mut self, now: Instant) -> Option<Duration> {
        let mut sleep: Option<Duration> = None;
        let mut wake_in = |next: Duration| sleep = Some(sleep.map_or(next, |sleep| sleep.min(next)));
        self.put_off.retain(|(due, tripwire)| {
            if now >= *due {
                tripwire.terminate();
                return false;
            }
            wake_in(*due - now);
            true
        });
        self.runs.retain(|run| {
            let limit = if now >= run.deadline {
                Some(Limit::Wall)
            } else if run.cpu.is_some_and(|(clock, limit)| clock.now() >= limit) {
                Some(Limit::Cpu)
            } else {
                None
            };
            if let Some(limit) = limit {
                run.tripwire.trip(limit);
                return false;
            }
            wake_in(run.deadline - now);
            if run.cpu.is_some() {
                wake_in(CPU_TICK);
            }
            true
        });
        sleep
    }
}

/// Watches the calling thread's run until dropped.
pub struct Watch(u64);

impl Watch {
    /// Starts the clocks of `limits` now, for a run on the calling thread.
    pub fn start(limits: &Limits, tripwire: Arc<Tripwire>) -> Self {
        let watchdog = watchdog();
        let now = Instant::now();
        let deadline = now + limits.wall;
        let cpu = limits.cpu.map(|limit| {
            let clock = ThreadClock::current();
            (clock, clock.now() + limit)
        });
        let first_look = if cpu.is_some() { deadline.min(now + CPU_TICK) } else { deadline };
        let mut beat = watchdog.beat();
        beat.last_id += 1;
        let id = beat.last_id;
        beat.runs.push(Watched { id, deadline, cpu, tripwire });
        watchdog.wake_by(beat, first_look);
        Self(id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        watchdog().beat().runs.retain(|run| run.id != self.0);
    }
}
