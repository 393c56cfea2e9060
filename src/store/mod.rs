//! Durable state, behind one trait: the engine knows what is kept, not how.
//!
//! Everything that belongs together happens in one transaction of one method: a message and the runs it starts
//! ([`Store::admit`]), the end of an attempt and what follows from it ([`Store::settle`]). A method that returns `Ok` has
//! its effect on disk. Whoever wants a task to work on takes a *lease* on it ([`Store::claim`]); a lease that runs out is
//! how the death of its holder shows.

mod secret;
pub mod sqlite;
#[cfg(test)]
mod suite;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;

use crate::model::{
    Attempt, AttemptId, Message, MessageId, Run, RunId, RunState, Task, TaskId, TaskState, Timestamp, Workflow,
};

pub use secret::{Sealed, SecretKey};

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing can be written, or read, for now: the disk is full or read-only, the database is locked or away.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// More work than the store can take at the moment.
    #[error("the store has more to write than it can keep up with")]
    Overloaded,
    /// The database is not what this program wrote, or a bug.
    #[error("the store is damaged or of another version: {0}")]
    Broken(String),
}

/// What arrives, and what it starts: kept together, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    pub message: Option<Message>,
    /// The point in time of a cron trigger that starts the runs.
    pub tick: Option<Tick>,
    pub runs: Vec<NewRun>,
    /// Who works on those of the tasks that are running already: kept and claimed in one.
    pub lease: Option<Lease>,
}

/// The right to work on tasks, for a while.
#[derive(Clone, Debug)]
pub struct Lease {
    pub owner: String,
    pub started: Timestamp,
    pub until: Timestamp,
}

#[derive(Clone, Debug)]
pub struct Tick {
    pub trigger: String,
    pub scheduled_at: Timestamp,
    /// Start nothing while another run of the same workflow has not ended.
    pub alone: bool,
}

/// A run and its first tasks.
#[derive(Clone, Debug)]
pub struct NewRun {
    pub run: Run,
    pub tasks: Vec<Task>,
}

/// What became of an intake.
#[derive(Clone, Debug, PartialEq)]
pub enum Admitted {
    New,
    /// The topic has a message with this key already. It started these runs: id and workflow.
    Duplicate {
        message: MessageId,
        runs: Vec<(RunId, String)>,
    },
    /// The trigger has fired for this time, or a later one, before.
    Stale,
    /// Another run has not ended. The tick counts as done.
    Overlap,
}

/// A wish for tasks.
#[derive(Clone, Debug)]
pub struct Claim {
    pub owner: String,
    pub now: Timestamp,
    pub lease_until: Timestamp,
    /// How many at most.
    pub limit: usize,
    /// Workflow → how many more of its tasks may be claimed.
    pub allowance: HashMap<String, usize>,
    /// The same for workflows that are not listed.
    pub otherwise: usize,
    /// Workflow → how many of its tasks run now: those with few go first.
    pub running: HashMap<String, usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// Urgent ones first, otherwise in turns over the workflows; within a workflow, the longest waiting first. Their
    /// state is running and `attempts` counts the attempt that is about to start.
    pub tasks: Vec<ClaimedTask>,
    /// When the next task that nobody has claimed falls due, if that lies ahead; None: no such task.
    pub next_due: Option<Timestamp>,
    /// Whose tasks may be due and were not claimed.
    pub left: Left,
}

/// Workflows that have tasks which are due and claimed by nobody.
#[derive(Clone, Debug, PartialEq)]
pub enum Left {
    /// Any may have: the claim took as many as it wished for.
    Any,
    /// These may have, and no others: they had no more room.
    Only(HashSet<String>),
}

impl Default for Left {
    fn default() -> Self {
        Self::Only(HashSet::new())
    }
}

#[derive(Clone, Debug)]
pub struct ClaimedTask {
    pub task: Task,
    pub run: Run,
    /// Attempts that do not count for the retry policy, as someone sent the task on its way again after them.
    pub forgiven: u32,
    pub lease_started: Timestamp,
}

/// The end of an attempt and what follows from it.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub owner: String,
    pub attempt: Attempt,
    /// The state it left: JSON text.
    pub output: Option<Arc<str>>,
    /// Its log: one JSON object a line.
    pub log: String,
    /// Keep the output as what the step left at its last success: the state that a cron run starts with.
    pub keep_cursor: bool,
    pub then: Then,
    /// Who works on those of the tasks that follow which are running already.
    pub lease: Option<Lease>,
}

#[derive(Clone, Debug)]
pub enum Then {
    /// The task has ended as completed or failed (and handled), and these follow.
    Next {
        state: TaskState,
        tasks: Vec<Task>,
    },
    /// Once more.
    Retry {
        run_at: Timestamp,
    },
    /// It failed for good, unhandled.
    Dead,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The run goes on.
    Open,
    /// That was its last task: the run has ended in this state.
    Finished(RunState),
    /// The task is not this owner's any more: nothing was written, but for the log of a task that was cancelled.
    LeaseLost,
}

/// What a cancellation met.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancellation {
    NotFound,
    AlreadyEnded(RunState),
    /// Waiting tasks are cancelled; attempts at these are under way and should be stopped.
    Cancelled {
        running: Vec<TaskId>,
    },
}

/// Which runs. Conditions are combined by *and*.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    pub states: Vec<RunState>,
    pub workflow: Option<String>,
    pub trigger: Option<String>,
    pub message: Option<MessageId>,
    /// Created at or after.
    pub since: Option<Timestamp>,
    /// Created before.
    pub until: Option<Timestamp>,
    /// In the failure's class or message, in the id, or in the data of the message.
    pub text: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    pub topic: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// In the data, in the id, or in the deduplication key.
    pub text: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    pub states: Vec<TaskState>,
    pub workflow: Option<String>,
    pub run: Option<RunId>,
    pub step: Option<String>,
}

/// A part of a list, the newest first.
#[derive(Clone, Debug)]
pub struct Page<T, Id> {
    pub items: Vec<T>,
    /// Where the next page starts; None: this is the last.
    pub next: Option<Id>,
}

/// How a list is read: what lies after `after`, at most `limit`.
#[derive(Clone, Debug)]
pub struct PageRequest<Id> {
    pub after: Option<Id>,
    pub limit: usize,
}

/// A run with all that belongs to it, but for states and logs.
#[derive(Clone, Debug)]
pub struct RunDetail {
    pub run: Run,
    /// In the order in which they were made.
    pub tasks: Vec<(Task, Vec<Attempt>)>,
}

#[derive(Clone, Debug)]
pub struct TopicSummary {
    pub topic: String,
    pub messages: u64,
    pub last_received: Option<Timestamp>,
}

/// A workflow as the store knows it.
#[derive(Clone, Debug)]
pub struct WorkflowSummary {
    pub name: String,
    pub version: i64,
    pub published_at: Timestamp,
    /// In the project that is served now.
    pub current: bool,
}

/// The queue of one workflow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueDepth {
    pub workflow: String,
    /// Tasks that could start now.
    pub due: u64,
    /// Tasks whose time lies ahead.
    pub later: u64,
    pub running: u64,
    pub dead: u64,
    /// Since when the first of those due is waiting.
    pub oldest_due: Option<Timestamp>,
}

/// How busy the store is, and how large.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Operations that wait to be written.
    pub queued: usize,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What may be forgotten: everything that ended, or was received, before the time given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Runs that completed or were cancelled, with their tasks and attempts.
    pub runs: Option<Timestamp>,
    /// Runs that failed; their dead tasks go too.
    pub failed_runs: Option<Timestamp>,
    /// Logs of attempts.
    pub logs: Option<Timestamp>,
    /// Messages that no run refers to any more.
    pub messages: Option<Timestamp>,
}

/// Access for a program or a person. The token itself is not kept.
#[derive(Clone, Debug)]
pub struct Token {
    pub id: String,
    pub name: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    pub scopes: Vec<String>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// Tasks that are dead, or only those of a workflow or a run.
#[derive(Clone, Debug, Default)]
pub struct Redrive {
    pub task: Option<TaskId>,
    pub run: Option<RunId>,
    pub workflow: Option<String>,
    /// At most so many at once.
    pub limit: usize,
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    // What is served.

    /// Makes these the current workflows, and gives the version of each. A definition that did not change keeps its
    /// version.
    async fn publish(&self, workflows: &[Workflow], now: Timestamp) -> Result<HashMap<String, i64>>;
    /// A version of a workflow, current or not.
    async fn workflow(&self, version: i64) -> Result<Option<Arc<Workflow>>>;
    async fn workflows(&self) -> Result<Vec<WorkflowSummary>>;

    // The queue.

    async fn admit(&self, intake: Intake) -> Result<Admitted>;
    async fn claim(&self, claim: Claim) -> Result<Claimed>;
    /// Takes over tasks whose lease ran out. The attempt at each was cut: settle it as lost.
    async fn claim_lost(
        &self,
        owner: &str,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>>;
    async fn settle(&self, settlement: Settlement) -> Result<Settled>;
    /// Prolongs leases. Those that are not in the answer are lost: cancelled, or taken over.
    async fn renew(&self, owner: &str, tasks: &[TaskId], lease_until: Timestamp) -> Result<Vec<TaskId>>;
    /// Hands back tasks that were claimed and not begun: they can be claimed at once, and the attempt is not counted.
    async fn release(&self, owner: &str, tasks: &[TaskId]) -> Result<()>;
    async fn cancel(&self, run: RunId, now: Timestamp) -> Result<Cancellation>;
    /// Sends dead tasks on their way again; how many.
    async fn redrive(&self, redrive: Redrive, now: Timestamp) -> Result<usize>;
    /// When a cron trigger fired last.
    async fn last_tick(&self, trigger: &str) -> Result<Option<Timestamp>>;
    /// Counts a cron trigger as having fired last at `at`, which may be earlier than it did.
    async fn set_last_tick(&self, trigger: &str, at: Timestamp) -> Result<()>;
    /// What a step left at its last success.
    async fn cursor(&self, workflow: &str, step: &str) -> Result<Option<String>>;

    // Reading.

    async fn runs(&self, filter: RunFilter, page: PageRequest<RunId>) -> Result<Page<Run, RunId>>;
    async fn run(&self, id: RunId) -> Result<Option<RunDetail>>;
    async fn tasks(&self, filter: TaskFilter, page: PageRequest<TaskId>) -> Result<Page<Task, TaskId>>;
    async fn task(&self, id: TaskId) -> Result<Option<Task>>;
    async fn messages(&self, filter: MessageFilter, page: PageRequest<MessageId>) -> Result<Page<Message, MessageId>>;
    async fn message(&self, id: MessageId) -> Result<Option<Message>>;
    async fn topics(&self) -> Result<Vec<TopicSummary>>;
    async fn attempt(&self, id: AttemptId) -> Result<Option<Attempt>>;
    async fn output(&self, attempt: AttemptId) -> Result<Option<String>>;
    async fn log(&self, attempt: AttemptId) -> Result<Option<String>>;
    async fn queue(&self, now: Timestamp) -> Result<Vec<QueueDepth>>;
    /// The latest point in time that anything in the store tells of: a clock that stands before it went back.
    async fn latest(&self) -> Result<Option<Timestamp>>;

    // Keeping house.

    /// Forgets at most `batch` things; how many it was. Zero: nothing is left to forget.
    async fn prune(&self, retention: Retention, batch: usize) -> Result<usize>;
    /// What the store has to do, and how much it holds. Never waits.
    fn load(&self) -> Load;
    /// That something can be written.
    async fn check(&self) -> Result<()>;
    /// Writes what is under way and lets go of the files.
    async fn close(&self);

    // Secrets.

    async fn put_credential(&self, name: &str, sealed: Sealed, now: Timestamp) -> Result<()>;
    async fn credential(&self, name: &str) -> Result<Option<Sealed>>;
    async fn credentials(&self) -> Result<Vec<String>>;
    async fn delete_credential(&self, name: &str) -> Result<bool>;
    async fn add_token(&self, token: Token) -> Result<()>;
    async fn token_by_hash(&self, hash: [u8; 32]) -> Result<Option<Token>>;
    async fn tokens(&self) -> Result<Vec<Token>>;
    /// False: there is no such token in force.
    async fn revoke_token(&self, id: &str, now: Timestamp) -> Result<bool>;
}
