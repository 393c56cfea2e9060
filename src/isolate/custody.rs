//! Waiting for a run that may not come back.
//!
//! Two things in V8 heed no limit. A built-in that works on a huge text, as `replaceAll` on one of 500 MB, looks for
//! interrupts only when it is done. And where a size is impossible, or the heap is exhausted at a point that cannot
//! fail, V8 ends the process with a trap: `'x'.repeat(2 ** 29 - 24).split('')` is enough. Neither may take the process
//! along. So whoever waits for a run waits no longer than its limits and a grace, and a trap on the thread of a run
//! parks that thread for good. What such a run holds stays lost until the process ends, which is little beside the runs
//! that go on.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::{RunError, Severity};
use super::limits::{Limit, Limits, Tripwire};

/// How long a run may take to end once it was told to. Dropping a large heap takes a second or two.
const GRACE: Duration = Duration::from_secs(5);

/// How often a waiter looks whether the run is lost. A run that ends is noticed at once.
const LOOK: Duration = Duration::from_millis(50);

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
    let tripwire = CURRENT.get();
    // SAFETY: a pointer that is not null is kept alive by the `Custody` further down this very thread's stack.
    match unsafe { tripwire.as_ref() } {
        Some(tripwire) => {
            tripwire.lose();
            loop {
                // SAFETY: waits for signals, whose handlers run here; nothing else ever does.
                unsafe { libc::pause() };
            }
        }
        // Not a run's fault: end as without this handler.
        None => unsafe {
            // SAFETY: both calls are allowed in a handler and touch no memory of ours.
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        },
    }
}

/// Why there is no result.
pub enum Lost {
    /// V8 cannot go on, or a limit was hit and the run does not end.
    Run(Box<RunError>),
    /// The thread panicked.
    Panicked,
}

/// Waits for what `thread` sends through `result`, as long as that can be expected.
pub fn wait<T>(thread: JoinHandle<()>, result: &Receiver<T>, tripwire: &Tripwire, limits: &Limits) -> Result<T, Lost> {
    let mut told: Option<Instant> = None;
    loop {
        match result.recv_timeout(LOOK) {
            Ok(result) => {
                let _ = thread.join();
                return Ok(result);
            }
            Err(RecvTimeoutError::Disconnected) => return Err(Lost::Panicked),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if tripwire.is_lost() {
            let message = "Job made a text, an array or an object that is larger than V8 can hold";
            let error = RunError::new("OOMError", Severity::Kill, message);
            return Err(Lost::Run(Box::new(RunError { limit: Some(Limit::Heap), ..error })));
        }
        if let Some(limit) = tripwire.tripped()
            && told.get_or_insert_with(Instant::now).elapsed() > GRACE
        {
            return Err(Lost::Run(Box::new(RunError::limit(limit, limits))));
        }
    }
}
