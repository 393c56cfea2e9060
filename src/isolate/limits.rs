//! What a run may use, and the watchdog that ends a run that uses more.
//!
//! Only `terminate_execution` stops JavaScript, so every limit ends there. Three mechanisms feed it: a callback of V8
//! near the heap limit, an allocator that counts ArrayBuffer memory (which V8's heap limit leaves out), and one
//! watchdog thread per process that compares wall clock and CPU clock of each live run with its limits. A run that
//! waits on I/O executes no JavaScript; [`Tripwire::wait`] wakes it.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
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
    lost: AtomicBool,
}

impl Tripwire {
    /// Names the isolate to stop. Until then a trip is only recorded.
    pub fn arm(&self, isolate: v8::IsolateHandle) {
        let _ = self.isolate.set(isolate);
        if self.tripped().is_some() {
            self.terminate();
        }
    }

    /// Records the limit unless something else came first, and stops the isolate.
    pub fn trip(&self, limit: Limit) {
        self.stop(limit as u8);
    }

    /// Stops the isolate because its run is no longer wanted.
    pub fn cancel(&self) {
        self.stop(Stop::CANCELLED);
    }

    fn stop(&self, reason: u8) {
        let _ = self.tripped.compare_exchange(0, reason, Ordering::AcqRel, Ordering::Acquire);
        self.terminate();
        self.notify.notify_one();
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

    fn terminate(&self) {
        // The thread of a lost isolate may hold the lock that this would wait for.
        if let Some(isolate) = self.isolate.get().filter(|_| !self.is_lost()) {
            isolate.terminate_execution();
        }
    }
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

    /// The most bytes that were alive at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
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
    runs: Mutex<(u64, Vec<Watched>)>,
    changed: Condvar,
}

/// How often CPU clocks are read while runs with a CPU limit are alive.
const CPU_TICK: Duration = Duration::from_millis(5);

fn watchdog() -> &'static Watchdog {
    static WATCHDOG: OnceLock<&'static Watchdog> = OnceLock::new();
    WATCHDOG.get_or_init(|| {
        let watchdog: &'static Watchdog = Box::leak(Box::default());
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watchdog.patrol())
            .expect("a thread for the watchdog");
        watchdog
    })
}

impl Watchdog {
    fn patrol(&self) {
        let mut runs = self.runs.lock().expect("watchdog lock");
        loop {
            let now = Instant::now();
            let mut sleep: Option<Duration> = None;
            runs.1.retain(|run| {
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
                let mut next = run.deadline - now;
                if run.cpu.is_some() {
                    next = next.min(CPU_TICK);
                }
                sleep = Some(sleep.map_or(next, |sleep| sleep.min(next)));
                true
            });
            runs = match sleep {
                Some(sleep) => self.changed.wait_timeout(runs, sleep).expect("watchdog lock").0,
                None => self.changed.wait(runs).expect("watchdog lock"),
            };
        }
    }
}

/// Watches the calling thread's run until dropped.
pub struct Watch(u64);

impl Watch {
    /// Starts the clocks of `limits` now, for a run on the calling thread.
    pub fn start(limits: &Limits, tripwire: Arc<Tripwire>) -> Self {
        let watchdog = watchdog();
        let clock = ThreadClock::current();
        let mut runs = watchdog.runs.lock().expect("watchdog lock");
        runs.0 += 1;
        let id = runs.0;
        runs.1.push(Watched {
            id,
            deadline: Instant::now() + limits.wall,
            cpu: limits.cpu.map(|limit| (clock, clock.now() + limit)),
            tripwire,
        });
        watchdog.changed.notify_one();
        Self(id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut runs = watchdog().runs.lock().expect("watchdog lock");
        runs.1.retain(|run| run.id != self.0);
    }
}
