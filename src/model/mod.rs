//! The nouns of the service, their states and their rules. No I/O, no clock, no V8: what is true of a workflow or a run
//! whoever stores it and whoever runs it.
//!
//! A [`Message`] arrives on a topic. A [`Trigger`] decides that it starts a [`Workflow`], which makes a [`Run`]. The run
//! goes through the workflow's [`Step`]s; each step that is to be done is a [`Task`] in the queue, and each try of a task
//! is an [`Attempt`].

mod criteria;
mod failure;
mod id;
mod message;
mod retry;
mod run;
mod time;
mod trigger;
mod workflow;

pub use criteria::Criteria;
pub use failure::{Failure, Severity};
pub use id::{AttemptId, MessageId, RunId, TaskId};
pub use message::{Message, Request};
pub use retry::{Backoff, RetryPolicy};
pub use run::{Attempt, AttemptOutcome, Priority, Run, RunState, Task, TaskInput, TaskState, Usage};
pub use time::Timestamp;
pub use trigger::{
    AuthScheme, Cron, Misfire, Reply, Signature, SignatureEncoding, Trigger, TriggerKind, Webhook, WebhookAuth,
};
pub use workflow::{Condition, Dialect, Edge, Isolation, JsStep, Step, StepKind, Workflow, WorkflowError};
