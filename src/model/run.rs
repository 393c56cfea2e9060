//! What is being done: runs, their tasks, and the attempts at them.

use serde::{Deserialize, Serialize};

use super::{AttemptId, Failure, MessageId, RunId, TaskId, Timestamp};

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

states!(
    /// How far a run is.
    RunState {
        /// None of its tasks has started.
        Pending = "pending",
        Running = "running",
        /// It ended, and every failure in it was handled by a step that follows.
        Completed = "completed",
        Failed = "failed",
        Cancelled = "cancelled",
    }
);

states!(
    /// How far a task is.
    TaskState {
        /// Waiting for its time.
        Scheduled = "scheduled",
        /// Waiting for a free place.
        Queued = "queued",
        Running = "running",
        /// An attempt failed; waiting for the next.
        Retrying = "retrying",
        Completed = "completed",
        /// It failed, and a step that follows handles it.
        Failed = "failed",
        Cancelled = "cancelled",
        /// It failed for good, and nothing handles it: someone has to look.
        Dead = "dead",
    }
);

impl RunState {
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl TaskState {
    /// States in which a task can be claimed once its time has come.
    pub const WAITING: [Self; 3] = [Self::Scheduled, Self::Queued, Self::Retrying];

    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Dead)
    }
}

/// Which of two tasks goes first within a workflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    #[default]
    Normal = 0,
    /// Someone waits for the answer.
    Immediate = 1,
}

/// One execution of one workflow.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: RunId,
    pub workflow: String,
    /// Which version of the workflow's definition.
    pub version: i64,
    /// The trigger that started it; None: someone did by hand.
    pub trigger: Option<String>,
    pub message: Option<MessageId>,
    /// The run this one repeats, in whole or from a step on.
    pub retry_of: Option<RunId>,
    pub state: RunState,
    pub priority: Priority,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// The first failure that nothing handled.
    pub failure: Option<Failure>,
    /// W3C trace context of what started it.
    pub traceparent: Option<String>,
}

/// One step of one run, in the queue or done.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: TaskId,
    pub run: RunId,
    pub workflow: String,
    pub step: String,
    pub state: TaskState,
    /// Not to be started earlier.
    pub run_at: Timestamp,
    pub priority: Priority,
    /// Attempts started so far.
    pub attempts: u32,
    pub input: TaskInput,
    pub created_at: Timestamp,
}

/// Where the state comes from that a step starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskInput {
    /// From the run's message.
    Message,
    /// What another attempt left.
    Output(AttemptId),
    /// What the step left at its last success, in whichever run that was; at first the workflow's initial state.
    Cursor,
    /// This JSON text.
    State(String),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    Success,
    Failure,
    Cancelled,
    /// It was cut: nothing is known of how far it came.
    Lost,
}

impl AttemptOutcome {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Success, Self::Failure, Self::Cancelled, Self::Lost].into_iter().find(|one| one.name() == name)
    }
}

/// One try of a task. Its output and its log are read on their own, as they can be large.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: AttemptId,
    pub task: TaskId,
    /// From 1.
    pub number: u32,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub outcome: AttemptOutcome,
    pub failure: Option<Failure>,
    pub usage: Usage,
}

/// What an attempt took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// Bytes of V8 heap at the end.
    pub heap: u64,
    /// Most bytes of ArrayBuffers alive at once.
    pub buffers: u64,
}
