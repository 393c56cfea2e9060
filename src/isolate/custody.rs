//! Waiting for a run that may not come back.
//!
//! Two things in V8 heed no limit. A built-in that works on a huge text, as `replaceAll` on one of 500 MB, looks for
//! interrupts only when it is done. And where a size is impossible, or the heap is exhausted at a point that cannot
//! fail, V8 ends the process with a trap: `'x'.repeat(2 ** 29 - 24).split('')` is enough. And one thing in the runtime
//! does not bear being stopped: while it loads a script of its own, it panics where V8 called it, where nothing can be
//! unwound. None of these may take the process along. So whoever waits for a run waits no longer than its limits and a
//! grace, and a trap or such a panic on the thread of a run parks that thread for good. What such a run holds stays lost
//! until the process ends, which is little beside the runs that go on.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::error::{RunError, Severity};
use super::limits::{Limit, Limits, Tripwire};
use super::threads::Threads;

/// How long a run may take to end once it was told to. Dropping a large heap takes a second or two.
const GRACE: Duration = Duration::from_secs(5);

/// How often a waiter looks whether the run is lost, at first and at last: a thousand runs that wait for an hour are not to
/// keep a processor busy. A run that ends is noticed at once.
const LOOK: Duration = Duration::from_millis(50);
const LATE_LOOK: Duration = Duration::from_secs(1);

thread_local! {
    /// The tripwire of the run on this thread. Read by a signal handler, so it must need neither set-up nor memory.
    static CURRENT: Cell<*const Tripwire> = const { Cell::new(ptr::null()) };
}

/// Marks the current thread as the one of a run, until dropped.
pub struct Custody {
    /// Keeps alive what `CURRENT` points to.
    _tripwire: Arc<Tripwire>,
}

impl Custody {
    pub fn take(tripwire: Arc<Tripwire>) -> Self {
        CURRENT.set(Arc::as_ptr(&tripwire));
        Self { _tripwire: tripwire }
    }
}

impl Drop for Custody {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
    }
}

/// From now on, a trap on the thread of a run costs that thread and not the process.
pub fn park_on_traps() {
    // SAFETY: `action` is fully set: zero is an empty mask and no flags. The handler keeps to what POSIX allows in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGTRAP, &action, ptr::null_mut());
    }
}

extern "C" fn on_trap(signal: libc::c_int) {
    park_run();
    // Not a run's fault: end as without this handler.
    // SAFETY: both calls are allowed in a handler and touch no memory of ours.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// What a panic says that the standard library raises where it cannot unwind; it aborts the process next.
const CANNOT_UNWIND: &str = "panic in a function that cannot unwind";

/// From now on, a panic on the thread of a run that would end the process costs that thread instead.
pub fn park_on_aborts() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() == Some(CANNOT_UNWIND) {
            park_run();
        }
        report(panic);
    }));
}

/// Gives up the run on this thread, if there is one, and does not return. Safe to call from a signal handler.
fn park_run() {
    // SAFETY: a pointer that is not null is kept alive by the `Custody` further down this very thread's stack.
    let Some(tripwire) = (unsafe { CURRENT.get().as_ref() }) else { return };
    tripwire.lose();
    loop {
        // SAFETY: waits for signals, whose handlers run here; nothing else ever does.
        unsafe { libc::pause() };
    }
}

/// Patience with one run.
pub struct Vigil {
    tripwire: Arc<Tripwire>,
    limits: Limits,
    since: Instant,
    /// Since when the run has been told to end.
    told: Option<Instant>,
}

impl Vigil {
    pub fn new(tripwire: Arc<Tripwire>, limits: Limits) -> Self {
        Self { tripwire, limits, since: Instant::now(), told: None }
    }

    /// When to look next.
    fn next_look(&self) -> Duration {
        if self.told.is_some() { LOOK } else { (self.since.elapsed() / 4).clamp(LOOK, LATE_LOOK) }
    }

    /// Why nobody should wait for the run any longer, if it is lost: V8 cannot go on, or the run was told to end and
    /// does not.
    fn look(&mut self) -> Option<RunError> {
        if self.tripwire.is_lost() {
            if let Some(stop) = self.tripwire.tripped() {
                return Some(RunError::stopped(stop, &self.limits));
            }
            let message = "Job made a text, an array or an object that is larger than V8 can hold";
            let error = RunError::new("OOMError", Severity::Kill, message);
            return Some(RunError { limit: Some(Limit::Heap), ..error });
        }
        let stop = self.tripwire.tripped()?;
        if self.told.get_or_insert_with(Instant::now).elapsed() <= GRACE {
            return None;
        }
        // Its thread is not to be used again, should the run end after all.
        self.tripwire.lose();
        Some(RunError::stopped(stop, &self.limits))
    }
}

/// What is to be said of a run whose thread is gone.
fn panicked() -> RunError {
    let message = "the isolate's thread panicked: this is a bug in fnhost";
    RunError::new("ExecutionError", Severity::Exception, message)
}

/// Blocks until `outcome` is there, as long as that can be expected.
pub fn wait<T>(outcome: &Receiver<T>, threads: &Threads, mut vigil: Vigil) -> Result<T, RunError> {
    loop {
        match outcome.recv_timeout(vigil.next_look()) {
            Ok(outcome) => return Ok(outcome),
            Err(RecvTimeoutError::Disconnected) => return Err(panicked()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(error) = vigil.look() {
            threads.give_up();
            return Err(error);
        }
    }
}

/// As [`wait`], for callers that must not block, and whose run ends when `cancel` says so.
pub async fn watch<T>(
    mut outcome: oneshot::Receiver<T>,
    threads: &Threads,
    mut vigil: Vigil,
    cancel: &CancellationToken,
) -> Result<T, RunError> {
    let mut cancelled = false;
    loop {
        tokio::select! {
            biased;
            outcome = &mut outcome => return outcome.map_err(|_| panicked()),
            () = cancel.cancelled(), if !cancelled => {
                cancelled = true;
                vigil.tripwire.cancel();
            }
            () = tokio::time::sleep(vigil.next_look()) => if let Some(error) = vigil.look() {
                threads.give_up();
                return Err(error);
            }
        }
    }
}
