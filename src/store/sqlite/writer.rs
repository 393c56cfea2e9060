//! The one thread that writes, and its group commit.
//!
//! A commit that survives a power failure costs a sync of the disk, and a disk syncs some hundred or thousand times a
//! second. So operations queue up while one sync is under way, and share the next: one transaction for all that wait.
//! Nobody gets an answer before the commit.
//!
//! An operation that fails must take back its own writes only. A savepoint for each would see to that, at the price of a
//! copy of every page that it touches. As hardly any fails, a batch is tried without, and if one fails all of them are
//! taken back and done once more, each in a savepoint of its own. So operations must bear being done twice.
//!
//! The thread outlives everything but its store: an operation that panics, a full disk, a lock that another program
//! holds. It answers with the error and takes the next batch, so the store works again as soon as the cause is gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::lock::ProcessLock;
use crate::store::{Result, StoreError};
use crate::telemetry::metrics::{Kind, Metric, SHORT};

const COMMIT_SECONDS: &str = "fnhost_store_commit_duration_seconds";
const BATCH: &str = "fnhost_store_batch_operations";

/// What the writer measures.
pub const METRICS: &[Metric] = &[
    Metric {
        name: COMMIT_SECONDS,
        kind: Kind::Histogram(SHORT),
        labels: &[],
        help: "How long commits took, which is how long the disk took to sync, in seconds",
    },
    Metric {
        name: BATCH,
        kind: Kind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
        labels: &[],
        help: "Operations that shared a commit",
    },
];

/// How long a batch takes operations in, so that a few heavy ones do not make the others wait.
const BATCH_TIME: Duration = Duration::from_millis(50);

/// Without work for so long, the thread tidies up the file.
const IDLE: Duration = Duration::from_millis(500);

/// Pages given back to the disk at a time.
const PAGES_GIVEN_BACK: u32 = 2000;

/// The share of free pages that the file may keep for what comes next: one in so many.
const SPARE_PAGES: u32 = 10;

/// A queue's place is for an operation with so many bytes of payload. Larger ones take several, which bounds the memory
/// that waits.
const BYTES_PER_PLACE: usize = 64 * 1024;

/// How long an operation waits for its place in the queue, and how much of it it takes.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    patience: Duration,
    bytes: usize,
}

impl Admission {
    /// New work: refused early, so that its sender learns of the overload.
    pub const fn intake(bytes: usize) -> Self {
        Self { patience: Duration::from_millis(250), bytes }
    }

    /// What brings work under way to its end, and so relieves the store.
    pub const fn progress(bytes: usize) -> Self {
        Self { patience: Duration::from_secs(30), bytes }
    }
}

/// What the writer tells of itself.
#[derive(Debug, Default)]
pub struct Gauges {
    pub queued: AtomicUsize,
    pub commits: Arc<AtomicU64>,
    pub operations: AtomicU64,
    pub last_batch: AtomicUsize,
    pub last_commit_us: AtomicU64,
}

#[derive(Debug)]
pub struct Writer {
    queue: Mutex<Option<Sender<Queued>>>,
    places: Arc<Semaphore>,
    capacity: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
    gauges: Arc<Gauges>,
}

impl Writer {
    /// Starts the thread. It keeps the lock until it has ended.
    pub fn start(connection: Connection, lock: ProcessLock, queue: usize, batch: usize) -> Result<Self> {
        let (sender, receiver) = channel();
        let gauges = Arc::new(Gauges::default());
        let worker = Worker { connection, receiver, batch: batch.max(1), gauges: gauges.clone() };
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            worker.run();
            drop(lock);
        });
        let thread = thread.map_err(|error| StoreError::Unavailable(format!("no thread for the store: {error}")))?;
        // A semaphore holds at most so many, and a request for places is a u32.
        let capacity = queue.clamp(1, 1 << 20);
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            places: Arc::new(Semaphore::new(capacity)),
            capacity,
            thread: Mutex::new(Some(thread)),
            gauges,
        })
    }

    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Does `work` in a transaction. When this returns Ok, its effect is on disk.
    pub async fn execute<T, F>(&self, admission: Admission, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T> + Send + 'static,
    {
        let places = (1 + admission.bytes / BYTES_PER_PLACE).min(self.capacity) as u32;
        let place = tokio::time::timeout(admission.patience, self.places.clone().acquire_many_owned(places));
        let place = place.await.map_err(|_| StoreError::Overloaded)?.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let operation = Box::new(Pending { work, result: None, reply });
        self.send(Queued { operation, _place: place })?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn send(&self, queued: Queued) -> Result<()> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = queue.as_ref().ok_or_else(closed)?;
        self.gauges.queued.fetch_add(1, Relaxed);
        sender.send(queued).map_err(|_| closed())
    }

    /// Takes nothing more, does what is queued, and ends the thread. Blocks until then.
    pub fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked; what it had not answered is not kept");
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

struct Queued {
    operation: Box<dyn Operation>,
    /// Given back when the operation was answered.
    _place: OwnedSemaphorePermit,
}

/// Work whose type of result the writer need not know.
trait Operation: Send {
    /// Does the work, perhaps once more: what was done before was taken back. An error: take it back.
    fn perform(&mut self, connection: &Connection) -> Result<()>;
    /// Tells the result, or why it is not kept.
    fn answer(self: Box<Self>, committed: Result<()>);
}

struct Pending<T, F> {
    work: F,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Operation for Pending<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T> + Send,
{
    fn perform(&mut self, connection: &Connection) -> Result<()> {
        let work = &mut self.work;
        // Whatever a panic left half-done in the database is taken back.
        let result = catch_unwind(AssertUnwindSafe(|| work(connection)))
            .unwrap_or_else(|_| Err(StoreError::Broken("an operation panicked; this is a bug in fnhost".into())));
        self.result.insert(result).as_ref().map(drop).map_err(StoreError::clone)
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let result = match (self.result, committed) {
            (Some(Ok(result)), Ok(())) => Ok(result),
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (None, Ok(())) => Err(StoreError::Broken("an operation was committed untried; this is a bug".into())),
        };
        // Whoever asked may have gone; that changes nothing.
        let _ = self.reply.send(result);
    }
}

struct Worker {
    connection: Connection,
    receiver: Receiver<Queued>,
    batch: usize,
    gauges: Arc<Gauges>,
}

impl Worker {
    fn run(self) {
        loop {
            match self.receiver.recv_timeout(IDLE) {
                Ok(first) => self.commit_batch(first),
                Err(RecvTimeoutError::Timeout) => self.tidy(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit_batch(&self, first: Queued) {
        let mut batch = Vec::with_capacity(self.batch);
        let performed = match self.begin() {
            Ok(()) => self.perform_all(first, &mut batch).or_else(|_| self.perform_again(&mut batch)),
            Err(error) => {
                // All that wait would meet the same.
                batch.push(first);
                batch.extend(self.receiver.try_iter());
                self.gauges.queued.fetch_sub(batch.len(), Relaxed);
                Err(error)
            }
        };
        let committed = performed.and_then(|()| self.commit(batch.len()));
        if let Err(error) = &committed {
            tracing::warn!(%error, operations = batch.len(), "the store could not commit");
            self.roll_back();
        }
        for queued in batch {
            queued.operation.answer(committed.clone());
        }
    }

    fn begin(&self) -> Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    /// Performs `first` and what waits behind it, until one fails.
    fn perform_all(&self, first: Queued, batch: &mut Vec<Queued>) -> Result<()> {
        let started = Instant::now();
        let mut next = Some(first);
        while let Some(mut queued) = next {
            self.gauges.queued.fetch_sub(1, Relaxed);
            let performed = queued.operation.perform(&self.connection);
            batch.push(queued);
            performed?;
            let full = batch.len() >= self.batch || started.elapsed() >= BATCH_TIME;
            next = if full { None } else { self.receiver.try_recv().ok() };
        }
        Ok(())
    }

    /// Takes back what was done, and performs each so that those that fail leave the others be. An error: the whole
    /// transaction is gone.
    fn perform_again(&self, batch: &mut [Queued]) -> Result<()> {
        self.roll_back();
        self.begin()?;
        let connection = &self.connection;
        for queued in batch {
            connection.execute_batch("SAVEPOINT operation")?;
            match queued.operation.perform(connection) {
                Ok(()) => connection.execute_batch("RELEASE operation")?,
                // A full disk, for one, makes SQLite roll back the whole transaction.
                Err(error) if connection.is_autocommit() => return Err(error),
                Err(_) => connection.execute_batch("ROLLBACK TO operation; RELEASE operation")?,
            }
        }
        Ok(())
    }

    fn commit(&self, operations: usize) -> Result<()> {
        let started = Instant::now();
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        let gauges = &self.gauges;
        gauges.commits.fetch_add(1, Relaxed);
        gauges.operations.fetch_add(operations as u64, Relaxed);
        gauges.last_batch.store(operations, Relaxed);
        let took = started.elapsed();
        gauges.last_commit_us.store(took.as_micros() as u64, Relaxed);
        metrics::histogram!(COMMIT_SECONDS).record(took);
        metrics::histogram!(BATCH).record(operations as f64);
        Ok(())
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the store could not roll back");
        }
    }

    /// Gives a part of the free pages back to the disk, if there are many.
    fn tidy(&self) {
        if let Err(error) = give_back_pages(&self.connection) {
            tracing::debug!(%error, "the store gave no space back");
        }
    }
}

fn give_back_pages(connection: &Connection) -> rusqlite::Result<()> {
    let pages = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
    if pages("freelist_count")? > pages("page_count")? / SPARE_PAGES {
        // Each step frees a page.
        let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_GIVEN_BACK})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
    }
    Ok(())
}
