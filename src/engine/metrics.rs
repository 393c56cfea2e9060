//! What the engine counts and measures. Names and units are part of the interface: see `docs/metrics.md`.

use std::collections::HashSet;
use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::Engine;
use crate::model::{Attempt, Run, RunState, TaskState, Timestamp};
use crate::store::{ClaimedTask, QueueDepth, StoreError};
use crate::telemetry::metrics::{BYTES, Kind, LONG, Metric, SHORT};

const MESSAGES: &str = "fnhost_messages_received_total";
const REFUSED: &str = "fnhost_messages_refused_total";
const INGEST_SECONDS: &str = "fnhost_ingest_duration_seconds";
const RUNS: &str = "fnhost_runs_total";
const RUN_SECONDS: &str = "fnhost_run_duration_seconds";
const ATTEMPTS: &str = "fnhost_attempts_total";
const ATTEMPT_SECONDS: &str = "fnhost_attempt_duration_seconds";
const QUEUE_SECONDS: &str = "fnhost_queue_delay_seconds";
const QUEUE: &str = "fnhost_queue_tasks";
const OLDEST: &str = "fnhost_queue_oldest_due_seconds";
const SLOTS: &str = "fnhost_isolate_slots";
const MOST_RUNS: &str = "fnhost_jobs_under_way_limit";
const UNDER_WAY: &str = "fnhost_jobs_under_way";
const ISOLATES: &str = "fnhost_isolates";
const ISOLATES_CREATED: &str = "fnhost_isolates_created_total";
const ISOLATES_RETIRED: &str = "fnhost_isolates_retired_total";
const ISOLATES_LOST: &str = "fnhost_isolates_lost_total";
const ISOLATE_RUNS: &str = "fnhost_isolate_runs_total";
const HEAP: &str = "fnhost_isolate_heap_bytes";
const BUFFERS: &str = "fnhost_isolate_buffers_bytes";
const STORE_ERRORS: &str = "fnhost_store_errors_total";
const STORE_QUEUE: &str = "fnhost_store_queue_operations";
const STORE_BYTES: &str = "fnhost_store_bytes";
const CLOCK: &str = "fnhost_clock_ahead_seconds";

/// The topic of messages that no trigger listens to: their names are up to whoever sends them.
const OTHER_TOPIC: &str = "other";

const fn metric(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

/// Everything that this room measures.
pub const METRICS: &[Metric] = &[
    metric(
        MESSAGES,
        Kind::Counter,
        &["topic", "duplicate"],
        "Messages taken in, by topic, and whether they had come before; topics without a trigger are `other`",
    ),
    metric(REFUSED, Kind::Counter, &["reason"], "Messages that were not taken in, by reason"),
    metric(INGEST_SECONDS, Kind::Histogram(SHORT), &[], "From a message at hand until it is on disk, in seconds"),
    metric(RUNS, Kind::Counter, &["workflow", "state"], "Runs that ended, by how: completed, failed, cancelled"),
    metric(RUN_SECONDS, Kind::Histogram(LONG), &["workflow"], "From a run's creation to its end, in seconds"),
    metric(
        ATTEMPTS,
        Kind::Counter,
        &["workflow", "outcome", "error", "task"],
        "Attempts, by outcome, class of error, and what became of the task",
    ),
    metric(ATTEMPT_SECONDS, Kind::Histogram(LONG), &["workflow", "outcome"], "How long attempts took, in seconds"),
    metric(
        QUEUE_SECONDS,
        Kind::Histogram(LONG),
        &["workflow"],
        "How long tasks were due before they began, in seconds",
    ),
    metric(
        QUEUE,
        Kind::Gauge,
        &["workflow", "state"],
        "Tasks in the queue: due, later (their time lies ahead), running, dead (someone has to look)",
    ),
    metric(OLDEST, Kind::Gauge, &["workflow"], "How long the first of the due tasks has been waiting, in seconds"),
    metric(SLOTS, Kind::Gauge, &[], "Jobs that may compute at once"),
    metric(MOST_RUNS, Kind::Gauge, &[], "Jobs that may be under way at once"),
    metric(
        UNDER_WAY,
        Kind::Gauge,
        &["state"],
        "Jobs under way: computing, waiting (for an answer or a time), ready (waiting for a slot to go on)",
    ),
    metric(
        ISOLATES,
        Kind::Gauge,
        &["state"],
        "Isolates: running, spare (made ahead), kept (for a further run), and waiting (attempts that have none yet)",
    ),
    metric(ISOLATES_CREATED, Kind::Counter, &[], "Isolates created"),
    metric(ISOLATES_LOST, Kind::Counter, &[], "Threads given up with an isolate that V8 could not end"),
    metric(
        ISOLATES_RETIRED,
        Kind::Counter,
        &[],
        "Isolates not kept for a further run, for what the last one left under way, what it changed, or how it ended",
    ),
    metric(ISOLATE_RUNS, Kind::Counter, &["start"], "Runs in isolates: warm (made ahead), cold, or kept"),
    metric(HEAP, Kind::Histogram(BYTES), &[], "V8 heap in use at the end of an attempt, in bytes"),
    metric(BUFFERS, Kind::Gauge, &[], "ArrayBuffers of all isolates, which are outside V8's heap, in bytes"),
    metric(STORE_ERRORS, Kind::Counter, &[], "Times that the store could not do its part"),
    metric(STORE_QUEUE, Kind::Gauge, &[], "Operations that wait to be written"),
    metric(STORE_BYTES, Kind::Gauge, &[], "The database on disk, with what is not yet merged into it, in bytes"),
    metric(CLOCK, Kind::Gauge, &[], "How far the machine's clock was set back behind times in the store, in seconds"),
];

/// A message that was taken in. `known`: a trigger listens to its topic.
pub(super) fn received(topic: &str, known: bool, duplicate: bool, took: Duration) {
    let topic = if known { topic } else { OTHER_TOPIC };
    let duplicate = if duplicate { "true" } else { "false" };
    counter!(MESSAGES, "topic" => topic.to_owned(), "duplicate" => duplicate).increment(1);
    histogram!(INGEST_SECONDS).record(took);
}

/// A message that was not taken in.
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(super) fn refused_by_store(error: &StoreError) {
    store_error();
    refused(match error {
        StoreError::Overloaded => "overloaded",
        StoreError::Unavailable(_) => "store_unavailable",
        StoreError::Broken(_) => "store_broken",
    });
}

pub(super) fn attempt_ended(claimed: &ClaimedTask, attempt: &Attempt, state: TaskState) {
    let workflow = claimed.task.workflow.clone();
    let error = attempt.failure.as_ref().map_or(String::new(), |failure| failure.class.clone());
    let outcome = attempt.outcome.name();
    counter!(ATTEMPTS, "workflow" => workflow.clone(), "outcome" => outcome, "error" => error, "task" => state.name())
        .increment(1);
    let took = attempt.finished_at.since(attempt.started_at);
    let waited = attempt.started_at.since(claimed.task.run_at);
    histogram!(ATTEMPT_SECONDS, "workflow" => workflow.clone(), "outcome" => outcome).record(took);
    histogram!(QUEUE_SECONDS, "workflow" => workflow).record(waited);
    if attempt.usage.heap > 0 {
        histogram!(HEAP).record(attempt.usage.heap as f64);
    }
}

pub(super) fn run_ended(run: &Run, state: RunState, now: Timestamp) {
    counter!(RUNS, "workflow" => run.workflow.clone(), "state" => state.name()).increment(1);
    histogram!(RUN_SECONDS, "workflow" => run.workflow.clone()).record(now.since(run.created_at));
}

pub(super) fn store_error() {
    counter!(STORE_ERRORS).increment(1);
}

impl Engine {
    /// Brings up to date what is a reading and not a count.
    pub async fn read_gauges(&self) {
        match self.shared.store.queue(self.now()).await {
            Ok(depths) => self.read_queue(&depths),
            Err(error) => self.shared.store_trouble(&error, "cannot read how long the queue is"),
        }
        let load = self.shared.store.load();
        gauge!(STORE_QUEUE).set(load.queued as f64);
        gauge!(STORE_BYTES).set(load.bytes as f64);
        self.read_isolates();
        gauge!(CLOCK).set(self.shared.clock.ahead());
    }

    fn read_queue(&self, depths: &[QueueDepth]) {
        let now = self.now();
        for depth in depths {
            let states = [("due", depth.due), ("later", depth.later), ("running", depth.running), ("dead", depth.dead)];
            for (state, tasks) in states {
                gauge!(QUEUE, "workflow" => depth.workflow.clone(), "state" => state).set(tasks as f64);
            }
            let oldest = depth.oldest_due.map_or(Duration::ZERO, |due| now.since(due));
            gauge!(OLDEST, "workflow" => depth.workflow.clone()).set(oldest);
        }
        // A workflow whose queue has emptied is not in the answer any more.
        let listed: HashSet<&str> = depths.iter().map(|depth| depth.workflow.as_str()).collect();
        for workflow in self.served().workflows.keys().filter(|name| !listed.contains(name.as_str())) {
            for state in ["due", "later", "running", "dead"] {
                gauge!(QUEUE, "workflow" => workflow.clone(), "state" => state).set(0);
            }
            gauge!(OLDEST, "workflow" => workflow.clone()).set(0);
        }
    }

    fn read_isolates(&self) {
        let pool = self.shared.runner.pool.stats();
        gauge!(SLOTS).set(pool.slots as f64);
        gauge!(MOST_RUNS).set(pool.runs as f64);
        let computing = pool.running.saturating_sub(pool.idle + pool.ready);
        for (state, count) in [("computing", computing), ("waiting", pool.idle), ("ready", pool.ready)] {
            gauge!(UNDER_WAY, "state" => state).set(count as f64);
        }
        let isolates =
            [("running", pool.running), ("waiting", pool.waiting), ("spare", pool.spares), ("kept", pool.kept)];
        for (state, count) in isolates {
            gauge!(ISOLATES, "state" => state).set(count as f64);
        }
        counter!(ISOLATES_CREATED).absolute(pool.created);
        counter!(ISOLATES_LOST).absolute(pool.lost);
        counter!(ISOLATES_RETIRED).absolute(pool.retired);
        counter!(ISOLATE_RUNS, "start" => "kept").absolute(pool.kept_runs);
        counter!(ISOLATE_RUNS, "start" => "warm").absolute(pool.warm_runs);
        counter!(ISOLATE_RUNS, "start" => "cold").absolute(pool.cold_runs);
        gauge!(BUFFERS).set(pool.buffers as f64);
    }
}
