//! From a message to the runs it starts: match, then keep both in one transaction.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use super::execute::message_state;
use super::places::{Limits, Place};
use super::served::{Definition, Entrance};
use super::{Engine, EngineError, Event, EventKind, metrics, trace};
use crate::isolate::NoAnswer;
use crate::model::{
    Message, MessageId, Priority, Request, Run, RunId, RunState, Task, TaskId, TaskInput, TaskState, Timestamp,
    Trigger, TriggerKind,
};
use crate::store::{Admitted, ClaimedTask, Intake, Lease, NewRun};

/// A message on its way in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// JSON text, and the same as a value, for matching.
    pub data: String,
    pub value: Value,
    /// See [`Message::body`].
    pub body: Option<Vec<u8>>,
    pub request: Request,
    pub dedupe_key: Option<String>,
    pub deliver_at: Option<Timestamp>,
    /// Immediate if someone waits for the runs to end.
    pub priority: Priority,
    pub traceparent: Option<String>,
}

/// What an incoming message is held against.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// All triggers of a topic.
    Topic(&'a str),
    /// The triggers of a webhook, whatever is in the message.
    Webhook(&'a [Entrance]),
}

/// A message that is kept, and the runs it started.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub message: MessageId,
    /// Run and workflow.
    pub runs: Vec<(RunId, String)>,
    /// The message had come before.
    pub duplicate: bool,
}

impl Engine {
    /// Takes a message in. When this returns `Ok`, the message and its runs are on disk.
    pub async fn receive(&self, target: Target<'_>, mut incoming: Incoming) -> Result<Receipt, EngineError> {
        let (topic, known) = match target {
            Target::Topic(topic) => (topic.to_owned(), !self.served().topic(topic).is_empty()),
            Target::Webhook(entrances) => (webhook_topic(entrances), true),
        };
        let started = Instant::now();
        let span = trace::Ingest::begin(incoming.traceparent.as_deref());
        if let Some(span) = &span {
            incoming.traceparent = Some(span.traceparent());
        }
        let received = self.keep(target, incoming).await;
        match &received {
            Ok(receipt) => {
                let took = started.elapsed();
                tracing::debug!(id = %receipt.message, kept_us = took.as_micros() as u64, "a message is kept");
                metrics::received(&topic, known, receipt.duplicate, took);
            }
            Err(EngineError::Store(error)) => metrics::refused_by_store(error),
            Err(EngineError::Stopping) => metrics::refused("stopping"),
            Err(EngineError::Undecided { .. }) => metrics::refused("condition"),
        }
        if let Some(span) = span {
            span.end(&topic, &received);
        }
        received
    }

    async fn keep(&self, target: Target<'_>, incoming: Incoming) -> Result<Receipt, EngineError> {
        if self.shared.shutdown.is_cancelled() {
            return Err(EngineError::Stopping);
        }
        let (topic, entrances) = match target {
            Target::Topic(topic) => {
                let Incoming { value, data, request, .. } = &incoming;
                (topic.to_owned(), self.matching(topic, value, data, request).await?)
            }
            Target::Webhook(entrances) => (webhook_topic(entrances), entrances.to_vec()),
        };
        let now = self.now();
        let message = Message {
            id: MessageId::new(),
            topic,
            data: incoming.data,
            body: incoming.body,
            request: incoming.request,
            received_at: now,
            deliver_at: incoming.deliver_at,
            dedupe_key: incoming.dedupe_key,
        };
        let start = Start {
            now,
            run_at: message.deliver_at.unwrap_or(now).max(now),
            message: Some(message.id),
            priority: incoming.priority,
            traceparent: incoming.traceparent,
            retry_of: None,
        };
        let runs = start.runs(&entrances);
        let receipt = Receipt { message: message.id, runs: names(&runs), duplicate: false };
        if !runs.is_empty() && start.run_at <= now {
            let tasks = runs.iter().map(|new| new.tasks.len()).sum();
            self.shared.recent.put(message.id.as_bytes(), message_state(&message).into(), tasks);
        }
        match self.admit(Intake { message: Some(message), runs, ..Intake::default() }).await? {
            Admitted::Duplicate { message, runs } => {
                self.shared.recent.forget(receipt.message.as_bytes());
                Ok(Receipt { message, runs, duplicate: true })
            }
            Admitted::New | Admitted::Stale | Admitted::Overlap => Ok(receipt),
        }
    }

    /// The triggers of a topic that a message is for.
    async fn matching(
        &self,
        topic: &str,
        value: &Value,
        data: &str,
        request: &Request,
    ) -> Result<Vec<Entrance>, EngineError> {
        let served = self.served();
        let mut found = Vec::new();
        for entrance in served.topic(topic) {
            let TriggerKind::Message { criteria, condition, .. } = &entrance.trigger().kind else { continue };
            if !criteria.matches(value) {
                continue;
            }
            let holds = match condition {
                Some(condition) => self.holds(entrance.trigger(), condition, data, request).await?,
                None => true,
            };
            if holds {
                found.push(entrance.clone());
            }
        }
        Ok(found)
    }

    /// Whether a trigger's condition holds. One that throws does not hold, and its author can read why. One that was cut
    /// short might: the message is not taken in for nobody.
    async fn holds(
        &self,
        trigger: &Trigger,
        condition: &str,
        data: &str,
        request: &Request,
    ) -> Result<bool, EngineError> {
        let request = serde_json::to_string(request).unwrap_or_default();
        match self.shared.conditions.holds(condition, &[("data", data), ("request", &request)]).await {
            Ok(holds) => Ok(holds),
            Err(NoAnswer::Faulty(reason)) => {
                tracing::warn!(trigger = trigger.name, reason, "the trigger's condition cannot be evaluated");
                Ok(false)
            }
            Err(NoAnswer::CutShort(reason)) => Err(EngineError::Undecided { trigger: trigger.name.clone(), reason }),
        }
    }

    /// The triggers that a message kept before is for now.
    pub(super) async fn entrances_for(&self, message: &Message) -> Result<Vec<Entrance>, EngineError> {
        if let Some(path) = message.topic.strip_prefix("i/") {
            return Ok(self.served().webhook(path).map_or_else(Vec::new, |(entrances, _)| entrances.to_vec()));
        }
        let value = serde_json::from_str(&message.data).unwrap_or_default();
        self.matching(&message.topic, &value, &message.data, &message.request).await
    }

    /// Keeps an intake, tells of the runs, and has them started.
    pub(super) async fn admit(&self, mut intake: Intake) -> Result<Admitted, EngineError> {
        let created = self.shared.events.heard().then(|| created(&intake.runs));
        let _between = self.shared.claiming.read().await;
        let (ours, waiting) = self.take_at_once(&mut intake);
        let admitted = self.shared.store.admit(intake).await?;
        if admitted == Admitted::New {
            created.into_iter().flatten().for_each(|event| self.shared.events.send(event));
            ours.into_iter().for_each(|(task, place)| self.attempt(task, place));
            waiting.into_iter().for_each(|due| self.shared.places.wake(due));
        }
        Ok(admitted)
    }

    /// Takes those of the new tasks that can begin and that no other goes before: they are kept as claimed. The second
    /// value says of the others when they fall due; None: now.
    fn take_at_once(&self, intake: &mut Intake) -> (Vec<(ClaimedTask, Place)>, BTreeSet<Option<Timestamp>>) {
        let (now, served) = (self.now(), self.served());
        let (mut ours, mut waiting) = (Vec::new(), BTreeSet::new());
        for NewRun { run, tasks } in &mut intake.runs {
            for task in tasks {
                let is_due = task.run_at <= now;
                let place = is_due.then(|| self.place_at_once(task, served.limits(), now)).flatten();
                let Some(place) = place else {
                    waiting.insert((!is_due).then_some(task.run_at));
                    continue;
                };
                (run.state, run.started_at) = (RunState::Running, Some(now));
                let claimed = ClaimedTask { task: task.clone(), run: run.clone(), forgiven: 0, lease_started: now };
                ours.push((claimed, place));
            }
        }
        intake.lease = self.lease(&ours, now);
        (ours, waiting)
    }

    /// A place for a new task that begins in the transaction that keeps it.
    pub(super) fn place_at_once(&self, task: &mut Task, limits: &Limits, now: Timestamp) -> Option<Place> {
        let place = self.shared.places.at_once(&task.workflow, limits, now).filter(|_| !self.is_stopping())?;
        (task.state, task.attempts) = (TaskState::Running, 1);
        Some(place)
    }

    /// The right to tasks that are ours from now on, if there are any.
    pub(super) fn lease(&self, ours: &[(ClaimedTask, Place)], now: Timestamp) -> Option<Lease> {
        let until = now.saturating_add(self.shared.options.lease);
        (!ours.is_empty()).then(|| Lease { owner: self.shared.owner.clone(), started: now, until })
    }
}

fn created(runs: &[NewRun]) -> Vec<Event> {
    let event = |NewRun { run, .. }: &NewRun| Event {
        time: run.created_at,
        run: run.id,
        workflow: run.workflow.clone(),
        kind: EventKind::RunCreated { message: run.message },
    };
    runs.iter().map(event).collect()
}

/// The topic that messages of a webhook are filed under.
fn webhook_topic(entrances: &[Entrance]) -> String {
    match entrances.first().map(|entrance| &entrance.trigger().kind) {
        Some(TriggerKind::Webhook(webhook)) => format!("i/{}", webhook.path),
        _ => "i".to_owned(),
    }
}

pub(super) fn names(runs: &[NewRun]) -> Vec<(RunId, String)> {
    runs.iter().map(|new| (new.run.id, new.run.workflow.clone())).collect()
}

/// What runs that start together have in common.
pub(super) struct Start {
    pub now: Timestamp,
    pub run_at: Timestamp,
    pub message: Option<MessageId>,
    pub priority: Priority,
    pub traceparent: Option<String>,
    pub retry_of: Option<RunId>,
}

impl Start {
    /// The runs that a message starts: one for each of these triggers.
    pub fn runs(&self, entrances: &[Entrance]) -> Vec<NewRun> {
        let run = |entrance: &Entrance| {
            let definition = &entrance.definition;
            let first = (definition.workflow.start.as_str(), TaskInput::Message);
            self.run(definition, Some(&entrance.trigger().name), first)
        };
        entrances.iter().map(run).collect()
    }

    /// A run that begins with one step.
    pub fn run(&self, definition: &Definition, trigger: Option<&str>, (step, input): (&str, TaskInput)) -> NewRun {
        let id = RunId::new();
        let run = Run {
            id,
            workflow: definition.workflow.name.clone(),
            version: definition.version,
            trigger: trigger.map(str::to_owned),
            message: self.message,
            retry_of: self.retry_of,
            state: RunState::Pending,
            priority: self.priority,
            created_at: self.now,
            started_at: None,
            finished_at: None,
            failure: None,
            traceparent: trace::context_of_new(id, self.traceparent.as_deref()),
        };
        let task = new_task(&run, step, input, self.run_at, self.now);
        NewRun { run, tasks: vec![task] }
    }
}

/// A task of a run, waiting for `run_at`.
pub(super) fn new_task(run: &Run, step: &str, input: TaskInput, run_at: Timestamp, now: Timestamp) -> Task {
    Task {
        id: TaskId::new(),
        run: run.id,
        workflow: run.workflow.clone(),
        step: step.to_owned(),
        state: if run_at > now { TaskState::Scheduled } else { TaskState::Queued },
        run_at,
        priority: run.priority,
        attempts: 0,
        input,
        created_at: now,
    }
}
