//! Threads that isolates live on, kept from one run to the next.
//!
//! A thread per run would be the simpler rule. But some of what the runtime keeps per thread is never given back when
//! the thread ends, as the buffers of 64 KiB that `node:net` reads into. So threads are used again, for one isolate at
//! a time, and there are never more of them than isolates were alive at once. What a run could leave on its thread for
//! the next is looked after where an isolate is made (`isolate_thread`).

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

/// Stack of an isolate's thread. V8 stops recursion itself at about 1 MB; the rest is for Rust frames below it.
const STACK_SIZE: usize = 8 << 20;

/// How long [`Threads::end`] waits for threads that still drop an isolate.
const LAST_DROPS: Duration = Duration::from_secs(5);

/// What a thread does until it is idle again.
pub type Task = Box<dyn FnOnce() -> Done + Send>;

/// The end of a task.
pub struct Done {
    /// Whether the thread may take another task. One that was given up for lost may not, should it come back.
    pub reusable: bool,
    /// Called when the thread counts as idle already, so that whoever hears of it finds the thread free.
    pub report: Box<dyn FnOnce()>,
}

/// Idle and busy threads. Cheap to clone. With the last clone the idle threads end, and the busy ones after their task.
#[derive(Clone, Default)]
pub struct Threads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Thread>,
    busy: usize,
    lost: u64,
    ended: bool,
}

/// An idle thread. Whoever holds it may give it a task, and it ends when nobody does.
struct Thread {
    tasks: Sender<(Task, Thread)>,
    handle: JoinHandle<()>,
}

impl Threads {
    /// Runs `task` on the thread that was used last, or on a new one.
    pub fn run(&self, task: Task) -> io::Result<()> {
        let mut state = self.0.lock();
        let thread = match state.idle.pop() {
            Some(thread) => thread,
            None => self.spawn()?,
        };
        state.busy += 1;
        let tasks = thread.tasks.clone();
        tasks.send((task, thread)).expect("an idle thread waits for a task");
        Ok(())
    }

    fn spawn(&self) -> io::Result<Thread> {
        let (tasks, queue) = mpsc::channel();
        let shared = Arc::downgrade(&self.0);
        let work = move || work(&queue, &shared);
        let handle = std::thread::Builder::new().name("isolate".into()).stack_size(STACK_SIZE).spawn(work)?;
        Ok(Thread { tasks, handle })
    }

    /// Counts a busy thread as lost: nobody waits for it any more, and its task must not call it reusable.
    pub fn give_up(&self) {
        let mut state = self.0.lock();
        state.busy = state.busy.saturating_sub(1);
        state.lost += 1;
    }

    /// How many threads were ever lost.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    /// Ends the idle threads, and waits for the busy ones, but for lost ones. No thread is kept from now on.
    pub fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        let idle = mem::take(&mut state.idle);
        let waited = self.0.returned.wait_timeout_while(state, LAST_DROPS, |state| state.busy > 0);
        let (state, _) = waited.expect("nothing panics while it holds the threads");
        if state.busy > 0 {
            tracing::warn!(threads = state.busy, "isolates that are still there are left to the end of the process");
        }
        drop(state);
        for thread in idle {
            drop(thread.tasks);
            let _ = thread.handle.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the threads")
    }
}

/// The life of a thread.
fn work(tasks: &Receiver<(Task, Thread)>, shared: &Weak<Shared>) {
    while let Ok((task, thread)) = tasks.recv() {
        let mut shift = Shift { shared, thread: Some(thread), reusable: None };
        let Done { reusable, report } = task();
        shift.reusable = Some(reusable);
        drop(shift);
        report();
    }
}

/// A thread at its task. Dropped, also when the task panics, it is no longer busy.
struct Shift<'a> {
    shared: &'a Weak<Shared>,
    thread: Option<Thread>,
    /// None: the task panicked.
    reusable: Option<bool>,
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        // What was given up is not counted as busy any more.
        if self.reusable == Some(false) {
            return;
        }
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = shared.lock();
        state.busy = state.busy.saturating_sub(1);
        if self.reusable == Some(true) && !state.ended {
            state.idle.extend(self.thread.take());
        }
        shared.returned.notify_all();
    }
}
