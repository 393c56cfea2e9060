//! An isolate on its thread: made there, given its runs, dropped there.
//!
//! Mostly that is one run. An isolate that may be kept, and in which its run left nothing behind, waits for another.
//!
//! The thread has served other isolates before and will serve others after. What the runtime keeps per thread must not
//! carry over. The event loop, timers, sockets, blobs and resources belong to the isolate or to its tokio runtime, and
//! both go with the run. Node's look at the files is kept per thread, and forgotten before each isolate. The symbols
//! that mark WebCrypto's keys are set anew by each isolate (`setup` in `js/host.js`): those of a dropped isolate would
//! end the process.

#![allow(unsafe_code)] // malloc_trim

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::custody::Custody;
use super::error::{RunError, Severity};
use super::host::Host;
use super::job::{Job, LogSink, Outcome, RunStats};
use super::limits::{MIB, ThreadClock, Tripwire};
use super::pack::{Footprint, Pack};
use super::packages::Packages;
use super::run::Isolate;
use super::slots::Part;
use super::snapshot::Snapshot;
use super::threads::Done;

/// After a run that held this much outside V8's heap, memory that malloc keeps for later goes back to the system.
const LARGE: usize = 16 * MIB;

/// How long an isolate that is kept waits until it gives back memory.
const IDLE: Duration = Duration::from_secs(20);

/// What an isolate is made for.
pub struct Plan {
    /// What it starts from instead of the runtime's own snapshot.
    pub snapshot: Option<Snapshot>,
    pub pack: Option<Arc<Pack>>,
    /// Limit of V8's heap in bytes.
    pub heap: usize,
    /// What to load before there is a job.
    pub footprint: Arc<Footprint>,
    /// What the isolate's first run is to tell beside its outcome.
    pub purpose: Purpose,
    /// Its process ends after its run, so taking it down would be for nothing.
    pub ends_with_process: bool,
}

/// What an isolate's first run shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What a job loads, which is remembered with the pack.
    Work,
    /// What adaptors export.
    Listing,
    /// Which modules may be evaluated in a snapshot.
    Rehearsal,
}

impl Plan {
    /// An isolate with nothing in it, from the runtime's own snapshot.
    pub fn plain(heap: usize) -> Self {
        Self {
            snapshot: None,
            pack: None,
            heap,
            footprint: Arc::default(),
            purpose: Purpose::Listing,
            ends_with_process: false,
        }
    }
}

/// A run for an isolate.
pub struct Order {
    pub job: Job,
    pub state: String,
    pub sink: LogSink,
    /// When the run was asked for.
    pub asked: Instant,
    /// Whether the isolate was made before that.
    pub warm: bool,
    /// None: nobody counts who computes.
    pub part: Option<Part>,
    /// For an isolate that was made before it was known.
    pub pack: Option<Arc<Pack>>,
    pub report: Report,
}

/// Takes the outcome of a run when its isolate is ready for another, or gone and its thread free.
pub type Report = Box<dyn FnOnce(Outcome) + Send>;

/// An isolate that waits for a run, from outside its thread. Dropped, it ends.
pub struct IsolateThread {
    orders: Sender<Order>,
    pub tripwire: Arc<Tripwire>,
}

impl IsolateThread {
    /// Starts making an isolate. It can be given its job at once.
    pub fn start(host: &Host, plan: Plan) -> Result<Self, RunError> {
        Self::start_and_tell(host, plan, |_| {})
    }

    /// As [`Self::start`]; `made` is called on the isolate's thread, with false if there is no isolate.
    pub fn start_and_tell(host: &Host, plan: Plan, made: impl FnOnce(bool) + Send + 'static) -> Result<Self, RunError> {
        let tripwire = Arc::<Tripwire>::default();
        let (orders, queue) = mpsc::channel();
        let task = {
            let (host, tripwire) = (host.clone(), tripwire.clone());
            move || {
                let report = live(&host, &plan, &tripwire, made, &queue);
                Done { reusable: !tripwire.is_lost(), report }
            }
        };
        match host.threads.run(Box::new(task)) {
            Ok(()) => Ok(Self { orders, tripwire }),
            Err(error) => {
                let message = format!("cannot start a thread for the isolate: {error}");
                Err(RunError::new("ExecutionError", Severity::Exception, message))
            }
        }
    }

    /// Gives the isolate a run. If its thread is gone, the report is dropped uncalled.
    pub fn give(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// The life of an isolate. Returns what is left to do when the thread is free.
fn live(
    host: &Host,
    plan: &Plan,
    tripwire: &Arc<Tripwire>,
    made: impl FnOnce(bool),
    orders: &Receiver<Order>,
) -> Box<dyn FnOnce()> {
    let _custody = Custody::take(tripwire.clone());
    tripwire.runs_here();
    Packages::refresh();
    let seat = Seat::default();
    let served = match seat.event_loop(tripwire).build() {
        Ok(runtime) => runtime.block_on(make_and_serve(host, plan, tripwire, made, orders, &seat)),
        Err(error) => refuse(orders, format!("cannot start the isolate's event loop: {error}")),
    };
    Box::new(move || {
        let Some((report, outcome)) = served else { return };
        let large = outcome.stats.buffers + outcome.state.as_ref().map_or(0, String::len) > LARGE;
        report(outcome);
        if large {
            release_memory();
        }
    })
}

/// What the run on this thread does with its slot, whenever the event loop waits.
#[derive(Clone, Default)]
struct Seat(Arc<Mutex<Option<Part>>>);

impl Seat {
    /// The next run comes.
    fn take(&self, part: Option<Part>) {
        *self.0.lock() = part;
    }

    /// An event loop whose thread has a slot only while it does not wait.
    fn event_loop(&self, tripwire: &Arc<Tripwire>) -> tokio::runtime::Builder {
        let (before, after, tripwire) = (self.clone(), self.clone(), tripwire.clone());
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all();
        builder.on_thread_park(move || before.0.lock().iter().for_each(Part::pause));
        builder.on_thread_unpark(move || after.0.lock().iter().for_each(|part| part.resume(&tripwire)));
        builder
    }
}

async fn make_and_serve(
    host: &Host,
    plan: &Plan,
    tripwire: &Arc<Tripwire>,
    made: impl FnOnce(bool),
    orders: &Receiver<Order>,
    seat: &Seat,
) -> Option<(Report, Outcome)> {
    let clock = ThreadClock::current();
    let mut cpu = clock.now();
    let start = Instant::now();
    let isolate = Isolate::create(host, plan, tripwire.clone());
    let create = start.elapsed();
    made(isolate.is_ok());
    let mut isolate = match isolate {
        Ok((isolate, making)) => {
            making.tell(create);
            isolate
        }
        Err(message) => return refuse(orders, message),
    };
    let mut idle = None;
    loop {
        let Order { job, state, sink, asked, warm, part, pack, report } = wait(orders, idle, &mut isolate)?;
        pack.iter().for_each(|pack| isolate.use_pack(pack));
        seat.take(part);
        let mut stats = RunStats { warm, waited: asked.elapsed(), ..RunStats::default() };
        if warm {
            cpu = clock.now();
        } else {
            stats.create = create;
        }
        let mut outcome = isolate.run(&job, state, sink, stats).await;
        if outcome.isolate_is_kept {
            outcome.stats.cpu = clock.now() - cpu;
            report(outcome);
            idle = Some(IDLE);
            continue;
        }
        if plan.ends_with_process {
            outcome.stats.cpu = clock.now() - cpu;
            report(outcome);
            loop {
                thread::park();
            }
        }
        let start = Instant::now();
        drop(isolate);
        outcome.stats.teardown = start.elapsed();
        outcome.stats.cpu = clock.now() - cpu;
        return Some((report, outcome));
    }
}

/// Waits for a run, and blocks the thread: without one, the isolate has nothing else to do. After `idle` it gives back
/// memory that it does not need.
fn wait(orders: &Receiver<Order>, idle: Option<Duration>, isolate: &mut Isolate) -> Option<Order> {
    if let Some(idle) = idle {
        match orders.recv_timeout(idle) {
            Ok(order) => return Some(order),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => isolate.trim(),
        }
    }
    orders.recv().ok()
}

/// Waits for a job only to say that there is no isolate for it.
fn refuse(orders: &Receiver<Order>, message: String) -> Option<(Report, Outcome)> {
    let order = orders.recv().ok()?;
    Some((order.report, Outcome::exception(message)))
}

/// Gives memory back to the system that malloc keeps for later: a thread that goes on keeps its arena, and the arena what
/// was freed in it.
pub fn release_memory() {
    // SAFETY: only touches memory that nobody has allocated.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}
