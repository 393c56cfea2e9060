//! Tells those who watch the service of what has ended: a line in the log, numbers, spans. What is told here is in the
//! store already.

use super::{Engine, metrics, trace};
use crate::model::{Attempt, AttemptOutcome, Run, RunState, TaskState};
use crate::store::ClaimedTask;

impl Engine {
    pub(super) fn attempt_ended(&self, claimed: &ClaimedTask, attempt: &Attempt, state: TaskState) {
        metrics::attempt_ended(claimed, attempt, state);
        trace::attempt_ended(claimed, attempt);
        let Some(failure) = attempt.failure.as_ref().filter(|_| attempt.outcome != AttemptOutcome::Cancelled) else {
            return;
        };
        tracing::warn!(
            run = %claimed.run.id,
            task = %claimed.task.id,
            workflow = claimed.run.workflow,
            step = claimed.task.step,
            trace = trace::trace_id(&claimed.run),
            attempt = attempt.number,
            error = failure.class,
            message_of_error = failure.message,
            then = state.name(),
            "an attempt failed"
        );
    }

    pub(super) fn run_ended(&self, run: &Run, state: RunState) {
        let now = self.now();
        metrics::run_ended(run, state, now);
        trace::run_ended(run, state, now);
        tracing::info!(
            run = %run.id,
            workflow = run.workflow,
            trace = trace::trace_id(run),
            trigger = run.trigger,
            state = state.name(),
            ms = now.since(run.created_at).as_millis() as u64,
            "a run ended"
        );
    }
}
