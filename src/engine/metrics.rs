//! What the engine counts and measures. Names and units are part of the interface: see `docs/metrics.md`.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::Engine;
use crate::model::{Attempt, Run, RunState, TaskState};
use crate::store::ClaimedTask;

const MESSAGES: &str = "fnhost_messages_received_total";
const RUNS: &str = "fnhost_runs_total";
const RUN_SECONDS: &str = "fnhost_run_duration_seconds";
const ATTEMPTS: &str = "fnhost_attempts_total";
const ATTEMPT_SECONDS: &str = "fnhost_attempt_duration_seconds";
const QUEUE_SECONDS: &str = "fnhost_queue_delay_seconds";
const QUEUE: &str = "fnhost_queue_tasks";
const OLDEST: &str = "fnhost_queue_oldest_due_seconds";
const ISOLATES: &str = "fnhost_isolates";
const ISOLATES_CREATED: &str = "fnhost_isolates_created_total";
const HEAP: &str = "fnhost_isolate_heap_bytes";
const STORE_ERRORS: &str = "fnhost_store_errors_total";
const CLOCK: &str = "fnhost_clock_ahead_seconds";

/// Says what each name means.
pub fn describe() {
    describe_counter!(MESSAGES, "Messages taken in, by topic and whether they had come before (duplicate)");
    describe_counter!(RUNS, "Runs that ended, by workflow and state");
    describe_histogram!(RUN_SECONDS, Unit::Seconds, "From a run's creation to its end, by workflow");
    describe_counter!(ATTEMPTS, "Attempts, by workflow, outcome and class of error");
    describe_histogram!(ATTEMPT_SECONDS, Unit::Seconds, "How long attempts took, by workflow");
    describe_histogram!(QUEUE_SECONDS, Unit::Seconds, "How long tasks were due before they started, by workflow");
    describe_gauge!(QUEUE, "Tasks in the queue, by workflow and state: due, later, running, dead");
    describe_gauge!(OLDEST, Unit::Seconds, "How long the first of the due tasks has been waiting, by workflow");
    describe_gauge!(ISOLATES, "Isolates, by state: running, waiting (callers without one), spare, lost");
    describe_counter!(ISOLATES_CREATED, "Isolates created");
    describe_histogram!(HEAP, Unit::Bytes, "V8 heap in use at the end of an attempt");
    describe_counter!(STORE_ERRORS, "Times the store could not do its part");
    describe_gauge!(CLOCK, Unit::Seconds, "How far the machine's clock has been set back");
}

pub fn message(topic: &str, duplicate: bool) {
    counter!(MESSAGES, "topic" => topic.to_owned(), "duplicate" => duplicate.to_string()).increment(1);
}

pub(super) fn attempt(claimed: &ClaimedTask, attempt: &Attempt, state: TaskState) {
    let workflow = claimed.task.workflow.clone();
    let error = attempt.failure.as_ref().map_or(String::new(), |failure| failure.class.clone());
    let outcome = attempt.outcome.name();
    counter!(ATTEMPTS, "workflow" => workflow.clone(), "outcome" => outcome, "error" => error, "state" => state.name())
        .increment(1);
    let took = attempt.finished_at.since(attempt.started_at);
    let waited = attempt.started_at.since(claimed.task.run_at);
    histogram!(ATTEMPT_SECONDS, "workflow" => workflow.clone()).record(took);
    histogram!(QUEUE_SECONDS, "workflow" => workflow).record(waited);
    if attempt.usage.heap > 0 {
        histogram!(HEAP).record(attempt.usage.heap as f64);
    }
}

pub(super) fn run_ended(run: &Run, state: RunState, now: crate::model::Timestamp) {
    counter!(RUNS, "workflow" => run.workflow.clone(), "state" => state.name()).increment(1);
    histogram!(RUN_SECONDS, "workflow" => run.workflow.clone()).record(now.since(run.created_at));
}

pub(super) fn store_error() {
    counter!(STORE_ERRORS).increment(1);
}

impl Engine {
    /// Brings up to date what is a reading and not a count.
    pub async fn read_gauges(&self) {
        let now = self.now();
        for depth in self.shared.store.queue(now).await.unwrap_or_default() {
            let states = [("due", depth.due), ("later", depth.later), ("running", depth.running), ("dead", depth.dead)];
            for (state, tasks) in states {
                gauge!(QUEUE, "workflow" => depth.workflow.clone(), "state" => state).set(tasks as f64);
            }
            let oldest = depth.oldest_due.map_or(Duration::ZERO, |due| now.since(due));
            gauge!(OLDEST, "workflow" => depth.workflow).set(oldest);
        }
        let isolates = self.shared.runner.pool.stats();
        for (state, count) in [
            ("running", isolates.running),
            ("waiting", isolates.waiting),
            ("spare", isolates.spares),
            ("lost", isolates.lost as usize),
        ] {
            gauge!(ISOLATES, "state" => state).set(count as f64);
        }
        counter!(ISOLATES_CREATED).absolute(isolates.created);
        gauge!(CLOCK).set(self.shared.clock.ahead());
    }
}
