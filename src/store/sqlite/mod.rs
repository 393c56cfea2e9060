//! The store in one SQLite file, for a service on one machine: nothing to install, and one file to back up.
//!
//! One thread writes ([`writer`]), several connections read ([`readers`]), and the rooms between them and the trait each
//! know the statements of one matter. What a statement costs is bounded everywhere, by an index or by a limit, however
//! long the service has been in use.

mod catalog;
mod checkpoint;
mod error;
mod intake;
mod lists;
mod lock;
mod queue;
mod readers;
mod remembered;
mod retention;
mod rows;
mod runs;
mod schema;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;

use self::checkpoint::Checkpointer;
use self::lock::ProcessLock;
use self::queue::Turns;
use self::readers::Readers;
use self::remembered::Remembered;
pub use self::writer::METRICS;
use self::writer::{Admission, Writer};
use super::{
    Admitted, Cancellation, Claim, Claimed, ClaimedTask, Intake, Load, MessageFilter, Page, PageRequest, QueueDepth,
    Redrive, Result, Retention, RunDetail, RunFilter, Sealed, Settled, Settlement, Store, TaskFilter, Then, Token,
    TopicSummary, WorkflowSummary,
};
use crate::model::{Attempt, AttemptId, Message, MessageId, Run, RunId, Task, TaskId, TaskInput, Timestamp, Workflow};

/// Workflow versions kept in memory; past that, all are read anew.
const WORKFLOWS_IN_MEMORY: usize = 256;

/// For so long one check answers for those that follow.
const CHECK_HOLDS: Duration = Duration::from_secs(1);

/// What a check writes: more than most messages, so that a disk is known to be full before they are refused.
const PROBE_BYTES: u32 = 64 * 1024;

/// Counting the queue takes time if it is long: then an answer holds for a multiple of what it took.
const LONG_COUNT: Duration = Duration::from_millis(20);
const COUNT_HOLDS: u32 = 20;

#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Connections that read.
    pub readers: u32,
    /// Operations in one transaction at most.
    pub batch: usize,
    /// Operations that may wait to be written; large payloads take the place of several.
    pub queue: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { readers: 4, batch: 256, queue: 1024 }
    }
}

/// What the store is doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteStats {
    /// Operations that wait to be written.
    pub queued: usize,
    /// Transactions since the start.
    pub commits: u64,
    /// Operations since the start.
    pub operations: u64,
    /// Operations in the last transaction.
    pub last_batch: usize,
    /// What its commit took.
    pub last_commit: Duration,
}

#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    writer: Arc<Writer>,
    checkpointer: Mutex<Option<Checkpointer>>,
    readers: Readers,
    turns: Arc<Mutex<Turns>>,
    workflows: Mutex<HashMap<i64, Arc<Workflow>>>,
    last_check: Remembered<Result<()>>,
    last_queue: Remembered<Result<Vec<QueueDepth>>>,
}

impl SqliteStore {
    /// Opens the database at `path`, and makes it if there is none. The directory must be there. Blocks for as long as
    /// that takes.
    pub fn open(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Self> {
        let path = path.as_ref();
        let lock = ProcessLock::acquire(path)?;
        let connection = schema::open_writer(path)?;
        queue::void_leases(&connection)?;
        probe(&connection)?;
        let readers = Readers::open(path, options.readers)?;
        let beside = schema::open_checkpointer(path)?;
        let writer = Writer::start(connection, lock, options.queue, options.batch)?;
        let checkpointer = Checkpointer::start(beside, writer.gauges().commits.clone())?;
        Ok(Self {
            path: path.to_owned(),
            writer: Arc::new(writer),
            checkpointer: Mutex::new(Some(checkpointer)),
            readers,
            turns: Arc::default(),
            workflows: Mutex::default(),
            last_check: Remembered::default(),
            last_queue: Remembered::default(),
        })
    }

    pub fn stats(&self) -> SqliteStats {
        let gauges = self.writer.gauges();
        SqliteStats {
            queued: gauges.queued.load(Relaxed),
            commits: gauges.commits.load(Relaxed),
            operations: gauges.operations.load(Relaxed),
            last_batch: gauges.last_batch.load(Relaxed),
            last_commit: Duration::from_micros(gauges.last_commit_us.load(Relaxed)),
        }
    }

    /// Does what is queued, and lets go of the file. Blocks until then.
    fn stop(writer: &Writer, checkpointer: Option<Checkpointer>) {
        if let Some(checkpointer) = checkpointer {
            checkpointer.stop();
        }
        writer.stop();
    }

    fn take_checkpointer(&self) -> Option<Checkpointer> {
        self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.readers.read(work).await
    }

    /// A small write that brings things forward.
    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T> + Send + 'static,
    {
        self.writer.execute(Admission::progress(0), work).await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        Self::stop(&self.writer, self.take_checkpointer());
    }
}

/// Writes something, to find out whether that works. Random, as SQLite does not write pages that did not change.
fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE probe SET ballast = randomblob(?1)")?.execute([PROBE_BYTES]).map(drop)
}

/// Bytes that a settlement writes.
fn size(settlement: &Settlement) -> usize {
    let states = match &settlement.then {
        Then::Next { tasks, .. } => tasks
            .iter()
            .map(|task| match &task.input {
                TaskInput::State(state) => state.len(),
                _ => 0,
            })
            .sum(),
        _ => 0,
    };
    settlement.output.as_ref().map_or(0, |output| output.len()) + settlement.log.len() + states
}

#[async_trait]
impl Store for SqliteStore {
    async fn publish(&self, workflows: &[Workflow], now: Timestamp) -> Result<HashMap<String, i64>> {
        let workflows = workflows.to_vec();
        self.write(move |connection| catalog::publish(connection, &workflows, now)).await
    }

    async fn workflow(&self, version: i64) -> Result<Option<Arc<Workflow>>> {
        let known = |workflows: &HashMap<i64, Arc<Workflow>>| workflows.get(&version).cloned();
        if let Some(workflow) = known(&self.workflows.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(Some(workflow));
        }
        let workflow = self.read(move |connection| catalog::workflow(connection, version)).await?.map(Arc::new);
        if let Some(workflow) = &workflow {
            let mut workflows = self.workflows.lock().unwrap_or_else(PoisonError::into_inner);
            if workflows.len() >= WORKFLOWS_IN_MEMORY {
                workflows.clear();
            }
            workflows.insert(version, workflow.clone());
        }
        Ok(workflow)
    }

    async fn workflows(&self) -> Result<Vec<WorkflowSummary>> {
        self.read(|connection| Ok(catalog::workflows(connection)?)).await
    }

    async fn admit(&self, intake: Intake) -> Result<Admitted> {
        let admission = Admission::intake(intake::size(&intake));
        self.writer.execute(admission, move |connection| intake::admit(connection, &intake)).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed> {
        let turns = self.turns.clone();
        self.write(move |connection| {
            let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
            queue::claim(connection, &mut turns, &claim)
        })
        .await
    }

    async fn claim_lost(
        &self,
        owner: &str,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>> {
        let owner = owner.to_owned();
        self.write(move |connection| queue::claim_lost(connection, &owner, now, lease_until, limit)).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled> {
        let admission = Admission::progress(size(&settlement));
        self.writer.execute(admission, move |connection| runs::settle(connection, &settlement)).await
    }

    async fn renew(&self, owner: &str, tasks: &[TaskId], lease_until: Timestamp) -> Result<Vec<TaskId>> {
        let (owner, tasks) = (owner.to_owned(), tasks.to_vec());
        self.write(move |connection| Ok(queue::renew(connection, &owner, &tasks, lease_until)?)).await
    }

    async fn release(&self, owner: &str, tasks: &[TaskId]) -> Result<()> {
        let (owner, tasks) = (owner.to_owned(), tasks.to_vec());
        self.write(move |connection| Ok(queue::release(connection, &owner, &tasks)?)).await
    }

    async fn cancel(&self, run: RunId, now: Timestamp) -> Result<Cancellation> {
        self.write(move |connection| runs::cancel(connection, run, now)).await
    }

    async fn redrive(&self, redrive: Redrive, now: Timestamp) -> Result<usize> {
        self.write(move |connection| runs::redrive(connection, &redrive, now)).await
    }

    async fn last_tick(&self, trigger: &str) -> Result<Option<Timestamp>> {
        let trigger = trigger.to_owned();
        self.read(move |connection| Ok(intake::last_tick(connection, &trigger)?)).await
    }

    async fn set_last_tick(&self, trigger: &str, at: Timestamp) -> Result<()> {
        let trigger = trigger.to_owned();
        self.write(move |connection| Ok(intake::set_last_tick(connection, &trigger, at)?)).await
    }

    async fn cursor(&self, workflow: &str, step: &str) -> Result<Option<String>> {
        let (workflow, step) = (workflow.to_owned(), step.to_owned());
        self.read(move |connection| Ok(runs::cursor(connection, &workflow, &step)?)).await
    }

    async fn runs(&self, filter: RunFilter, page: PageRequest<RunId>) -> Result<Page<Run, RunId>> {
        self.read(move |connection| lists::runs(connection, &filter, &page)).await
    }

    async fn run(&self, id: RunId) -> Result<Option<RunDetail>> {
        self.read(move |connection| lists::run(connection, id)).await
    }

    async fn tasks(&self, filter: TaskFilter, page: PageRequest<TaskId>) -> Result<Page<Task, TaskId>> {
        self.read(move |connection| lists::tasks(connection, &filter, &page)).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>> {
        self.read(move |connection| Ok(lists::task(connection, id)?)).await
    }

    async fn messages(&self, filter: MessageFilter, page: PageRequest<MessageId>) -> Result<Page<Message, MessageId>> {
        self.read(move |connection| lists::messages(connection, &filter, &page)).await
    }

    async fn message(&self, id: MessageId) -> Result<Option<Message>> {
        self.read(move |connection| Ok(lists::message(connection, id)?)).await
    }

    async fn topics(&self) -> Result<Vec<TopicSummary>> {
        self.read(|connection| Ok(lists::topics(connection)?)).await
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<Attempt>> {
        self.read(move |connection| Ok(lists::attempt(connection, id)?)).await
    }

    async fn output(&self, attempt: AttemptId) -> Result<Option<String>> {
        self.read(move |connection| Ok(lists::output(connection, attempt)?)).await
    }

    async fn log(&self, attempt: AttemptId) -> Result<Option<String>> {
        self.read(move |connection| Ok(lists::log(connection, attempt)?)).await
    }

    async fn queue(&self, now: Timestamp) -> Result<Vec<QueueDepth>> {
        let count = self.read(move |connection| Ok(queue::depth(connection, now)?));
        self.last_queue.get(count, |took| if took < LONG_COUNT { Duration::ZERO } else { took * COUNT_HOLDS }).await
    }

    async fn latest(&self) -> Result<Option<Timestamp>> {
        self.read(|connection| Ok(lists::latest(connection)?)).await
    }

    async fn prune(&self, retention: Retention, batch: usize) -> Result<usize> {
        self.write(move |connection| retention::prune(connection, &retention, batch)).await
    }

    fn load(&self) -> Load {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        Load { queued: self.stats().queued, bytes: size(&self.path) + size(Path::new(&log)) }
    }

    async fn check(&self) -> Result<()> {
        let write = self.write(|connection| Ok(probe(connection)?));
        self.last_check.get(write, |_| CHECK_HOLDS).await
    }

    async fn close(&self) {
        self.readers.close().await;
        let (writer, checkpointer) = (self.writer.clone(), self.take_checkpointer());
        // It fails only if the runtime is going down, and then dropping the store does it.
        let _ = tokio::task::spawn_blocking(move || Self::stop(&writer, checkpointer)).await;
    }

    async fn put_credential(&self, name: &str, sealed: Sealed, now: Timestamp) -> Result<()> {
        let name = name.to_owned();
        self.write(move |connection| Ok(catalog::put_credential(connection, &name, &sealed, now)?)).await
    }

    async fn credential(&self, name: &str) -> Result<Option<Sealed>> {
        let name = name.to_owned();
        self.read(move |connection| Ok(catalog::credential(connection, &name)?)).await
    }

    async fn credentials(&self) -> Result<Vec<String>> {
        self.read(|connection| Ok(catalog::credentials(connection)?)).await
    }

    async fn delete_credential(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write(move |connection| Ok(catalog::delete_credential(connection, &name)?)).await
    }

    async fn add_token(&self, token: Token) -> Result<()> {
        self.write(move |connection| Ok(catalog::add_token(connection, &token)?)).await
    }

    async fn token_by_hash(&self, hash: [u8; 32]) -> Result<Option<Token>> {
        self.read(move |connection| Ok(catalog::token_by_hash(connection, &hash)?)).await
    }

    async fn tokens(&self) -> Result<Vec<Token>> {
        self.read(|connection| Ok(catalog::tokens(connection)?)).await
    }

    async fn revoke_token(&self, id: &str, now: Timestamp) -> Result<bool> {
        let id = id.to_owned();
        self.write(move |connection| Ok(catalog::revoke_token(connection, &id, now)?)).await
    }
}
