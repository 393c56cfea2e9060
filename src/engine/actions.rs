//! What people do by hand: start, cancel, repeat.

use super::ingest::{Start, names};
use super::{Engine, EngineError, Event, EventKind};
use crate::model::{MessageId, Priority, RunId, RunState, TaskInput};
use crate::store::{Cancellation, Intake, Redrive, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("there is no {0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
}

impl From<StoreError> for ActionError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

/// A run to be started by hand.
#[derive(Clone, Debug, Default)]
pub struct RunRequest {
    pub workflow: String,
    /// The state to begin with: JSON text, an object. None: what a clock would begin with.
    pub state: Option<String>,
    pub traceparent: Option<String>,
}

impl Engine {
    /// Starts a workflow by hand.
    pub async fn start_run(&self, request: RunRequest) -> Result<RunId, ActionError> {
        let served = self.served();
        let definition = served
            .workflows
            .get(&request.workflow)
            .ok_or_else(|| ActionError::NotFound(format!("workflow `{}`", request.workflow)))?;
        let input = request.state.map_or(TaskInput::Cursor, TaskInput::State);
        let start = Start { traceparent: request.traceparent, ..self.at_once() };
        let run = start.run(definition, None, (definition.workflow.start.as_str(), input));
        self.admit_run(run).await
    }

    /// Repeats a run with the workflow as it is now: from a step on, with the state that the step started with, or from
    /// the beginning.
    pub async fn retry_run(&self, id: RunId, from: Option<&str>) -> Result<RunId, ActionError> {
        let detail = self.shared.store.run(id).await?.ok_or_else(|| ActionError::NotFound(format!("run {id}")))?;
        let served = self.served();
        let workflow = &detail.run.workflow;
        let definition = served.workflows.get(workflow).ok_or_else(|| {
            ActionError::Conflict(format!("the workflow `{workflow}` is not in the project any more"))
        })?;
        let task = match from {
            Some(step) => detail.tasks.iter().map(|(task, _)| task).rfind(|task| task.step == step),
            None => detail.tasks.first().map(|(task, _)| task),
        };
        let task = task.ok_or_else(|| {
            ActionError::Conflict(format!("the run did not come to the step `{}`", from.unwrap_or_default()))
        })?;
        if definition.workflow.step(&task.step).is_none() {
            return Err(ActionError::Conflict(format!("the workflow has no step `{}` any more", task.step)));
        }
        let start = Start { message: detail.run.message, retry_of: Some(id), ..self.at_once() };
        let run = start.run(definition, detail.run.trigger.as_deref(), (&task.step, task.input.clone()));
        self.admit_run(run).await
    }

    /// Holds a message against the triggers as they are now, and starts what it matches.
    pub async fn replay(&self, id: MessageId) -> Result<Vec<(RunId, String)>, ActionError> {
        let message =
            self.shared.store.message(id).await?.ok_or_else(|| ActionError::NotFound(format!("message {id}")))?;
        let entrances = self.entrances_for(&message).await?;
        let start = Start { message: Some(id), ..self.at_once() };
        let runs = start.runs(&entrances);
        let started = names(&runs);
        if !runs.is_empty() {
            self.admit(Intake { runs, ..Intake::default() }).await?;
        }
        Ok(started)
    }

    /// Cancels a run: what waits is not started, what is under way is stopped.
    pub async fn cancel(&self, run: RunId) -> Result<Cancellation, ActionError> {
        let cancelled = self.shared.store.cancel(run, self.now()).await?;
        if let Cancellation::Cancelled { .. } = &cancelled {
            self.shared.stop_attempts(run).await;
            if let Some(detail) = self.shared.store.run(run).await? {
                self.run_ended(&detail.run, RunState::Cancelled);
                let kind = EventKind::RunEnded { state: RunState::Cancelled };
                self.shared.events.send(Event { time: self.now(), run, workflow: detail.run.workflow, kind });
                self.shared.timers.notify_one();
            }
        }
        Ok(cancelled)
    }

    /// Sends dead tasks on their way again; how many.
    pub async fn redrive(&self, redrive: Redrive) -> Result<usize, ActionError> {
        let count = self.shared.store.redrive(redrive, self.now()).await?;
        self.shared.places.wake(None);
        Ok(count)
    }

    async fn admit_run(&self, run: crate::store::NewRun) -> Result<RunId, ActionError> {
        let id = run.run.id;
        self.admit(Intake { runs: vec![run], ..Intake::default() }).await?;
        Ok(id)
    }

    fn at_once(&self) -> Start {
        let now = self.now();
        Start { now, run_at: now, message: None, priority: Priority::Immediate, traceparent: None, retry_of: None }
    }
}
