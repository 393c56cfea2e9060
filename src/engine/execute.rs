//! One attempt at one task: read the state it starts with, do the step, settle.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::{Instrument as _, debug_span};

use super::ingest::new_task;
use super::places::Place;
use super::served::Definition;
use super::{Engine, Event, EventKind, Hold, trace};
use crate::isolate::{LogLine, LogSink};
use crate::model::{
    Attempt, AttemptId, AttemptOutcome, Failure, Message, Run, RunState, Severity, Task, TaskId, TaskInput, TaskState,
    Timestamp, Workflow,
};
use crate::secrets::Secrets;
use crate::step::StepResult;
use crate::step::js::with_member;
use crate::store::{ClaimedTask, Settled, Settlement, StoreError, Then};

/// Attempts cut by the end of their process after which a task is given up, if its policy allows no more than that: it
/// may be what ends the process.
const MOST_LOST: u32 = 5;
/// The longest wait between two tries to write to a store that is away.
const LONGEST_WRITE_WAIT: Duration = Duration::from_secs(5);

impl Engine {
    /// Runs a claimed task and settles it.
    pub(super) async fn execute(&self, claimed: ClaimedTask, hold: &mut Hold) {
        let claimed = Arc::new(claimed);
        let begun = self.begin(&claimed, hold).await;
        let Some(begun) = begun else {
            self.hand_back(&claimed, hold).await;
            return;
        };
        self.finish(&claimed, begun, hold).await;
    }

    /// None: the attempt did not begin, as the engine stops or the store is away.
    async fn begin(&self, claimed: &Arc<ClaimedTask>, hold: &mut Hold) -> Option<Begun> {
        let definition = match self.definition(claimed.run.version).await {
            Ok(Some(definition)) => definition,
            Ok(None) => {
                let gone = Failure::new("WorkflowError", Severity::Exception, "the workflow's definition is gone");
                return Some(Begun::without_definition(self.now(), gone));
            }
            Err(error) => {
                self.shared.store_trouble(&error, "cannot read a workflow");
                return None;
            }
        };
        let unready = |definition, input, failure| {
            let (started_at, result, log) = (self.now(), StepResult::failed(failure), Log::default());
            Some(Begun { definition: Some(definition), started_at, input, result, log })
        };
        let cancel = hold.cancel.clone();
        // The state is read in turn: those of all that wait could fill the memory.
        let turn = tokio::select! {
            turn = self.shared.turns.take(&claimed.task.workflow) => turn?,
            () = cancel.cancelled() => return None,
            () = self.shared.shutdown.cancelled() => return None,
        };
        let input = match self.state_for(&claimed.task, &claimed.run, &definition.workflow).await {
            Ok(Some(input)) => input,
            Ok(None) => {
                let gone = "the state that this step starts with is not kept any more";
                let failure = Failure::new("InputError", Severity::Crash, gone);
                return unready(definition, "{}".into(), failure);
            }
            Err(error) => {
                self.shared.store_trouble(&error, "cannot read the state of a task");
                return None;
            }
        };
        let prepared = match definition.step(&claimed.task.step) {
            Some(Ok(prepared)) => prepared,
            other => {
                let reason = match other {
                    Some(Err(error)) => error.to_string(),
                    _ => format!("the workflow has no step `{}`", claimed.task.step),
                };
                let failure = Failure::new("PrepareError", Severity::Crash, reason);
                return unready(definition.clone(), input, failure);
            }
        };
        let group = Some(claimed.task.workflow.as_str().into());
        let slot = tokio::select! {
            slot = self.shared.runner.pool.slot(&group) => slot?,
            () = cancel.cancelled() => return None,
            () = self.shared.shutdown.cancelled() => return None,
        };
        drop(turn);
        let began = Instant::now();
        hold.began();
        let started_at = self.now();
        self.tell(
            claimed,
            EventKind::TaskStarted {
                task: claimed.task.id,
                step: claimed.task.step.clone(),
                attempt: claimed.task.attempts,
            },
        );
        let log = Log::default();
        let sink = self.sink(&log, claimed, prepared.secrets());
        let traceparent = trace::context_of_attempt(&claimed.run, &claimed.task);
        let span = debug_span!("attempt", run = %claimed.run.id, task = %claimed.task.id, step = claimed.task.step);
        let result = prepared.run(slot, &input, traceparent, sink, cancel).instrument(span).await;
        hold.took(began);
        Some(Begun { definition: Some(definition.clone()), started_at, input, result, log })
    }

    /// The state that a task starts with, or started with; None: there is no such task.
    pub async fn task_input(&self, id: TaskId) -> Result<Option<String>, StoreError> {
        let store = &self.shared.store;
        let Some(task) = store.task(id).await? else { return Ok(None) };
        let Some(run) = store.run(task.run).await?.map(|detail| detail.run) else { return Ok(None) };
        let Some(workflow) = store.workflow(run.version).await? else { return Ok(None) };
        Ok(self.state_for(&task, &run, &workflow).await?.map(|state| state.to_string()))
    }

    /// JSON text, an object; None: it is not kept any more.
    async fn state_for(&self, task: &Task, run: &Run, workflow: &Workflow) -> Result<Option<Arc<str>>, StoreError> {
        let recent = match &task.input {
            TaskInput::Message => run.message.and_then(|id| self.shared.recent.take(id.as_bytes())),
            TaskInput::Output(attempt) => self.shared.recent.take(attempt.as_bytes()),
            TaskInput::Cursor | TaskInput::State(_) => None,
        };
        if recent.is_some() {
            return Ok(recent);
        }
        let store = &self.shared.store;
        let text = match &task.input {
            TaskInput::Message => match run.message {
                Some(id) => store.message(id).await?.map(|message| message_state(&message)),
                None => None,
            },
            TaskInput::Output(attempt) => store.output(*attempt).await?,
            TaskInput::Cursor => match store.cursor(&run.workflow, &task.step).await? {
                Some(state) => Some(state),
                None => Some(workflow.initial_state.clone().unwrap_or_else(|| r#"{"data":{}}"#.to_owned())),
            },
            TaskInput::State(state) => Some(state.clone()),
        };
        Ok(text.map(object).map(Arc::from))
    }

    async fn finish(&self, claimed: &ClaimedTask, begun: Begun, hold: &mut Hold) {
        let now = self.now();
        let Begun { definition, started_at, input, mut result, log } = begun;
        let cut = hold.cancel.is_cancelled() && result.failure.is_some();
        let outcome = match (&result.failure, cut) {
            (None, _) => AttemptOutcome::Success,
            (Some(_), true) if self.shared.stopping() => AttemptOutcome::Lost,
            (Some(_), true) => AttemptOutcome::Cancelled,
            (Some(_), false) => AttemptOutcome::Failure,
        };
        if outcome == AttemptOutcome::Lost {
            result.failure = Some(Failure::lost());
        }
        let attempt = Attempt {
            id: AttemptId::new(),
            task: claimed.task.id,
            number: claimed.task.attempts,
            started_at,
            finished_at: now,
            outcome,
            failure: result.failure.clone(),
            usage: result.usage,
        };
        let output = match &result.failure {
            None => Some(result.output.map_or_else(|| "{}".into(), object)),
            Some(failure) => {
                let state = result.output.map(object).map_or(input, Arc::from);
                Some(with_error(&state, &claimed.task.step, failure))
            }
        };
        let output: Option<Arc<str>> = output.map(Arc::from);
        let mut then = self.then(claimed, definition.as_deref(), &attempt, now);
        let _between = self.shared.claiming.read().await;
        let ours = self.follow_at_once(claimed, &mut then, now);
        if let (Then::Next { tasks, .. }, Some(output)) = (&then, &output) {
            self.shared.recent.put(attempt.id.as_bytes(), output.clone(), tasks.len());
        }
        let keep_cursor =
            outcome == AttemptOutcome::Success && definition.as_deref().is_some_and(Definition::keeps_cursor);
        let (owner, log, lease) = (self.shared.owner.clone(), log.take(), self.lease(&ours, now));
        let settlement = Settlement { owner, attempt, output, log, keep_cursor, then, lease };
        let settling = Instant::now();
        let settled = self.settle(claimed, &settlement, hold).await;
        tracing::debug!(
            run = %claimed.run.id,
            task = %claimed.task.id,
            step = claimed.task.step,
            queued_us = started_at.since(claimed.task.run_at).as_micros() as u64,
            took_us = now.since(started_at).as_micros() as u64,
            kept_us = settling.elapsed().as_micros() as u64,
            "an attempt is over"
        );
        if settled != Settled::LeaseLost {
            ours.into_iter().for_each(|(task, place)| self.attempt(task, place));
        }
        let final_state_path = definition.as_ref().and_then(|found| found.workflow.final_state_path.as_deref());
        if let (Settled::Finished(RunState::Completed), Some(path)) = (settled, final_state_path) {
            self.write_final_state(path, settlement.output.unwrap_or_default()).await;
        }
    }

    /// Takes those of the tasks that follow which no other goes before: they are kept as claimed.
    fn follow_at_once(&self, claimed: &ClaimedTask, then: &mut Then, now: Timestamp) -> Vec<(ClaimedTask, Place)> {
        let Then::Next { tasks, .. } = then else { return Vec::new() };
        let (served, run) = (self.served(), &claimed.run);
        let take = |task: &mut Task| {
            let place = self.place_at_once(task, served.limits(), now)?;
            Some((ClaimedTask { task: task.clone(), run: run.clone(), forgiven: 0, lease_started: now }, place))
        };
        tasks.iter_mut().filter_map(take).collect()
    }

    /// Leaves the last final state where the project asks for it.
    async fn write_final_state(&self, path: &Path, state: Arc<str>) {
        let path = self.served().dir.join(path);
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || {
            let dir = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(state.as_bytes())?;
            file.persist(&path).map_err(|error| error.error)
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(path = shown, %error, "cannot write the final state");
        }
    }

    /// What follows from an attempt.
    fn then(&self, claimed: &ClaimedTask, definition: Option<&Definition>, attempt: &Attempt, now: Timestamp) -> Then {
        let task = &claimed.task;
        let number = task.attempts.saturating_sub(claimed.forgiven);
        if attempt.outcome == AttemptOutcome::Cancelled {
            return Then::Cancelled;
        }
        let lost = attempt.outcome == AttemptOutcome::Lost;
        let Some((definition, step)) = definition.and_then(|found| Some((found, found.workflow.step(&task.step)?)))
        else {
            return if lost && number < MOST_LOST { Then::Retry { run_at: now } } else { Then::Dead };
        };
        let policy = definition.workflow.retry_of(step);
        if lost && number < policy.max_attempts.max(MOST_LOST) {
            return Then::Retry { run_at: now };
        }
        if let Some(failure) = attempt.failure.as_ref().filter(|_| !lost)
            && let Some(wait) = policy.next(number, failure, random())
        {
            return Then::Retry { run_at: now.saturating_add(wait) };
        }
        let next: Vec<Task> = step
            .following(attempt.failure.as_ref())
            .map(|id| new_task(&claimed.run, id, TaskInput::Output(attempt.id), now, now))
            .collect();
        match &attempt.failure {
            None => Then::Next { state: TaskState::Completed, tasks: next },
            Some(_) if next.is_empty() => Then::Dead,
            Some(_) => Then::Next { state: TaskState::Failed, tasks: next },
        }
    }

    /// Settles an attempt whose process is gone.
    pub(super) async fn settle_lost(&self, claimed: Arc<ClaimedTask>, hold: &mut Hold) {
        let definition = match self.definition(claimed.run.version).await {
            Ok(definition) => definition,
            // The lease is ours now, and runs out again.
            Err(error) => return self.shared.store_trouble(&error, "cannot read a workflow"),
        };
        let now = self.now();
        let attempt = Attempt {
            id: AttemptId::new(),
            task: claimed.task.id,
            number: claimed.task.attempts,
            started_at: claimed.lease_started,
            finished_at: now,
            outcome: AttemptOutcome::Lost,
            failure: Some(Failure::lost()),
            usage: Default::default(),
        };
        let then = self.then(&claimed, definition.as_deref(), &attempt, now);
        let output = match (&then, &definition, &attempt.failure) {
            // What handles the failure begins with the state that the step began with, and the failure.
            (Then::Next { .. }, Some(definition), Some(failure)) => {
                let input = self.state_for(&claimed.task, &claimed.run, &definition.workflow).await;
                let input = input.ok().flatten().unwrap_or_else(|| "{}".into());
                Some(with_error(&input, &claimed.task.step, failure).into())
            }
            _ => None,
        };
        let settlement = Settlement {
            owner: self.shared.owner.clone(),
            attempt,
            output,
            log: String::new(),
            keep_cursor: false,
            then,
            lease: None,
        };
        self.settle(&claimed, &settlement, hold).await;
    }

    /// Writes a result: an attempt that was made must not be made again for want of that.
    async fn settle(&self, claimed: &ClaimedTask, settlement: &Settlement, hold: &mut Hold) -> Settled {
        let settle = || self.shared.store.settle(settlement.clone());
        let settled = self.insist("cannot keep a result", settle).await.unwrap_or(Settled::LeaseLost);
        hold.let_go();
        self.told(claimed, settlement, settled);
        settled
    }

    /// Writes, however long the store is away. None: the engine stopped first, and the task will run again as one whose
    /// attempt was cut.
    async fn insist<T, W>(&self, trouble: &str, write: impl Fn() -> W) -> Option<T>
    where
        W: Future<Output = Result<T, StoreError>>,
    {
        let mut wait = Duration::from_millis(50);
        loop {
            match write().await {
                Ok(written) => return Some(written),
                Err(error) => self.shared.store_trouble(&error, trouble),
            }
            if self.shared.stopped.is_cancelled() {
                return None;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WRITE_WAIT);
        }
    }

    /// Tells of what was settled, and wakes who waits for it.
    fn told(&self, claimed: &ClaimedTask, settlement: &Settlement, settled: Settled) {
        if settled == Settled::LeaseLost {
            return;
        }
        let state = match &settlement.then {
            Then::Next { state, .. } => *state,
            Then::Retry { .. } => TaskState::Retrying,
            Then::Dead => TaskState::Dead,
            Then::Cancelled => TaskState::Cancelled,
        };
        self.attempt_ended(claimed, &settlement.attempt, state);
        let (task, step, attempt) = (claimed.task.id, claimed.task.step.clone(), settlement.attempt.id);
        self.tell(claimed, EventKind::TaskEnded { task, step, attempt, state });
        if let Settled::Finished(state) = settled {
            self.run_ended(&claimed.run, state);
            self.tell(claimed, EventKind::RunEnded { state });
            self.shared.timers.notify_one();
        }
        match &settlement.then {
            Then::Next { tasks, .. } if tasks.iter().any(|task| task.state == TaskState::Queued) => {
                self.shared.places.wake(None);
            }
            Then::Retry { run_at } => self.shared.places.wake(Some(*run_at)),
            Then::Next { .. } | Then::Dead | Then::Cancelled => {}
        }
    }

    fn tell(&self, claimed: &ClaimedTask, kind: EventKind) {
        if !self.shared.events.concerns(claimed.run.id, &kind) {
            return;
        }
        let (run, workflow) = (claimed.run.id, claimed.run.workflow.clone());
        self.shared.events.send(Event { time: self.now(), run, workflow, kind });
    }

    /// Takes the lines of an attempt: without secrets into its log, and to those who listen.
    fn sink(&self, log: &Log, claimed: &Arc<ClaimedTask>, secrets: Arc<Secrets>) -> LogSink {
        let (engine, log, claimed) = (self.clone(), log.clone(), claimed.clone());
        Box::new(move |line: LogLine| {
            // Where each operation begins and ends is for those who debug a job by hand.
            if line.source == "R/T" && line.level == "debug" {
                return;
            }
            let line = json!({
                "time": Timestamp::from(line.time),
                "source": line.source,
                "level": line.level,
                "message": secrets.hide(&line.message),
            });
            tracing::debug!(
                run = %claimed.run.id,
                task = %claimed.task.id,
                workflow = claimed.run.workflow,
                step = claimed.task.step,
                source = line["source"].as_str(),
                job_level = line["level"].as_str(),
                line = line["message"].as_str(),
                "a job logs"
            );
            log.add(&line);
            if engine.shared.events.heard() {
                let (task, step) = (claimed.task.id, claimed.task.step.clone());
                engine.tell(&claimed, EventKind::Log { task, step, line });
            }
        })
    }

    /// Gives back a task that was claimed and not begun: left to its lease, it would count as one that was cut.
    async fn hand_back(&self, claimed: &ClaimedTask, hold: &mut Hold) {
        let task = [claimed.task.id];
        self.insist("cannot hand back a task", || self.shared.store.release(&self.shared.owner, &task)).await;
        hold.let_go();
        if !self.is_stopping() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.shared.places.wake(None);
        }
    }
}

/// An attempt that was made.
struct Begun {
    definition: Option<Arc<Definition>>,
    started_at: Timestamp,
    input: Arc<str>,
    result: StepResult,
    log: Log,
}

impl Begun {
    fn without_definition(started_at: Timestamp, failure: Failure) -> Self {
        let result = StepResult::failed(failure);
        Self { definition: None, started_at, input: "{}".into(), result, log: Log::default() }
    }
}

/// The lines that an attempt logs, one JSON object each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn add(&self, line: &Value) {
        // Writing to memory cannot fail.
        let _ = writeln!(self.0.lock(), "{line}");
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap_or_default()
    }
}

/// A message as the state of the first step.
pub(super) fn message_state(message: &Message) -> String {
    let mut request = serde_json::to_string(&message.request).expect("a request is plain data");
    if let Some(body) = &message.body {
        request = with_member(&request, "body", &Value::from(String::from_utf8_lossy(body)).to_string());
    }
    format!(r#"{{"data":{},"request":{request}}}"#, message.data)
}

/// A state that is no object becomes the data of one: what follows expects one.
fn object(state: String) -> String {
    match state.trim_start().as_bytes().first() {
        Some(b'{') => state,
        Some(b'n') | None => "{}".to_owned(),
        Some(_) => format!(r#"{{"data":{state}}}"#),
    }
}

/// The state with the failure in its `errors`, unless the job's own error is there already.
fn with_error(state: &str, step: &str, failure: &Failure) -> String {
    let Ok(Value::Object(mut members)) = serde_json::from_str(state) else { return state.to_owned() };
    let errors = members.entry("errors").or_insert_with(|| json!({}));
    if let Value::Object(errors) = errors {
        errors.entry(step.to_owned()).or_insert_with(|| {
            json!({ "source": "runtime", "name": failure.class, "severity": failure.severity, "message": failure.message })
        });
    }
    Value::Object(members).to_string()
}

/// From 0 to 1.
fn random() -> f64 {
    let id = AttemptId::new();
    let [.., high, low] = *id.as_bytes();
    f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_added_to_the_state_unless_it_is_there() {
        let failure = Failure::new("TimeoutError", Severity::Kill, "too long");
        let added: Value = serde_json::from_str(&with_error(r#"{"data":1}"#, "a", &failure)).unwrap();
        assert_eq!(added["errors"]["a"]["name"], "TimeoutError");
        assert_eq!(added["data"], 1);
        let there = with_error(r#"{"errors":{"a":{"name":"JobError"}}}"#, "a", &failure);
        assert_eq!(there, r#"{"errors":{"a":{"name":"JobError"}}}"#);
    }

    #[test]
    fn every_state_becomes_an_object() {
        for (state, expected) in [("{}", "{}"), ("null", "{}"), ("[1]", r#"{"data":[1]}"#), ("3", r#"{"data":3}"#)] {
            assert_eq!(object(state.into()), expected);
        }
    }

    #[test]
    fn random_numbers_differ() {
        let numbers: std::collections::BTreeSet<u64> = (0..100).map(|_| random().to_bits()).collect();
        assert!(numbers.len() > 50);
    }
}
