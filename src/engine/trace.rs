//! The spans of a message's way: its intake, its runs, and the attempts at their steps.
//!
//! A span's parent must be known before the parent has ended, and perhaps in another process than the one that ends it.
//! So runs and attempts have spans whose ids follow from their own ids, and a run keeps the trace context of what
//! started it. A run that nothing traced started names its own span there: it is the root of its trace.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, SpanKind};

use super::{EngineError, Receipt};
use crate::model::{Attempt, Run, RunId, RunState, Task, TaskId, Timestamp};
use crate::store::ClaimedTask;
use crate::telemetry::trace::{Parent, Span, TraceContext, tracer};

/// A message that is being taken in.
pub(super) struct Ingest {
    context: TraceContext,
    parent: Option<TraceContext>,
    started: SystemTime,
}

impl Ingest {
    const NAME: &str = "receive";

    /// None: traces are not exported.
    pub fn begin(traceparent: Option<&str>) -> Option<Self> {
        let parent = traceparent.and_then(|text| text.parse().ok());
        let context = tracer()?.enter(parent, Self::NAME, &SpanKind::Server);
        Some(Self { context, parent, started: SystemTime::now() })
    }

    pub fn traceparent(&self) -> String {
        self.context.to_string()
    }

    pub fn end(self, topic: &str, result: &Result<Receipt, EngineError>) {
        let Some(tracer) = tracer() else { return };
        let mut attributes = vec![KeyValue::new("messaging.destination.name", topic.to_owned())];
        if let Ok(receipt) = result {
            attributes.push(KeyValue::new("messaging.message.id", receipt.message.to_string()));
            attributes.push(KeyValue::new("fnhost.duplicate", receipt.duplicate));
            attributes.push(KeyValue::new("fnhost.runs", receipt.runs.len() as i64));
        }
        tracer.record(Span {
            context: self.context,
            parent: self.parent.map(|parent| Parent { span: parent.span, is_remote: true }),
            kind: SpanKind::Server,
            name: Self::NAME.into(),
            start: self.started,
            end: SystemTime::now(),
            attributes,
            error: result.as_ref().err().map(ToString::to_string),
        });
    }
}

/// What a new run keeps as its trace context: that of what starts it, or one of its own.
pub(super) fn context_of_new(run: RunId, traceparent: Option<&str>) -> Option<String> {
    let Some(tracer) = tracer() else { return traceparent.map(str::to_owned) };
    let context = traceparent.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let root = tracer.enter(None, "run", &SpanKind::Internal);
        root.with_span(span_of_run(run))
    });
    Some(context.to_string())
}

/// The trace that a run belongs to, for the log.
pub(super) fn trace_id(run: &Run) -> Option<String> {
    kept_context(run).map(|context| context.trace.to_string())
}

/// What the requests of an attempt are part of. None: traces are not exported.
pub(super) fn context_of_attempt(run: &Run, task: &Task) -> Option<String> {
    tracer()?;
    let context = kept_context(run)?.with_span(span_of_attempt(task.id, task.attempts));
    Some(context.to_string())
}

pub(super) fn attempt_ended(claimed: &ClaimedTask, attempt: &Attempt) {
    let Some((tracer, kept)) = tracer().zip(kept_context(&claimed.run)) else { return };
    let ClaimedTask { task, run, .. } = claimed;
    let mut attributes = vec![
        KeyValue::new("fnhost.workflow", run.workflow.clone()),
        KeyValue::new("fnhost.run.id", run.id.to_string()),
        KeyValue::new("fnhost.task.id", task.id.to_string()),
        KeyValue::new("fnhost.step", task.step.clone()),
        KeyValue::new("fnhost.attempt", i64::from(attempt.number)),
        KeyValue::new("fnhost.outcome", attempt.outcome.name()),
    ];
    attributes.extend(attempt.failure.as_ref().map(|failure| KeyValue::new("error.type", failure.class.clone())));
    tracer.record(Span {
        context: kept.with_span(span_of_attempt(task.id, attempt.number)),
        parent: Some(Parent { span: span_of_run(run.id), is_remote: false }),
        kind: SpanKind::Internal,
        name: format!("step {}", task.step).into(),
        start: system_time(attempt.started_at),
        end: system_time(attempt.finished_at),
        attributes,
        error: attempt.failure.as_ref().map(|failure| failure.message.clone()),
    });
}

pub(super) fn run_ended(run: &Run, state: RunState, now: Timestamp) {
    let Some((tracer, kept)) = tracer().zip(kept_context(run)) else { return };
    let own = span_of_run(run.id);
    let mut attributes = vec![
        KeyValue::new("fnhost.workflow", run.workflow.clone()),
        KeyValue::new("fnhost.run.id", run.id.to_string()),
        KeyValue::new("fnhost.run.state", state.name()),
    ];
    attributes.extend(run.trigger.clone().map(|trigger| KeyValue::new("fnhost.trigger", trigger)));
    attributes.extend(run.message.map(|message| KeyValue::new("messaging.message.id", message.to_string())));
    tracer.record(Span {
        context: kept.with_span(own),
        parent: (kept.span != own).then_some(Parent { span: kept.span, is_remote: false }),
        kind: SpanKind::Internal,
        name: format!("run {}", run.workflow).into(),
        start: system_time(run.created_at),
        end: system_time(now),
        attributes,
        error: (state == RunState::Failed).then(|| "an attempt failed, and nothing handled it".to_owned()),
    });
}

fn kept_context(run: &Run) -> Option<TraceContext> {
    run.traceparent.as_deref()?.parse().ok()
}

fn span_of_run(run: RunId) -> SpanId {
    SpanId::from(random_half(run.as_bytes()))
}

/// Attempts at a task differ in the number.
fn span_of_attempt(task: TaskId, number: u32) -> SpanId {
    SpanId::from(random_half(task.as_bytes()) ^ u64::from(number))
}

/// The half of an id that is not the time.
fn random_half(id: &[u8; 16]) -> u64 {
    u128::from_be_bytes(*id) as u64
}

fn system_time(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(time.as_micros().max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_runs_have_spans_of_their_own() {
        let (run, task) = (RunId::new(), TaskId::new());
        let spans = [span_of_run(run), span_of_attempt(task, 1), span_of_attempt(task, 2)];
        let distinct: std::collections::HashSet<_> = spans.into_iter().collect();
        assert_eq!(distinct.len(), 3);
        assert_eq!(span_of_run(run), spans[0]);
        assert!(spans.iter().all(|span| *span != SpanId::INVALID));
    }

    #[test]
    fn without_a_tracer_a_run_keeps_the_context_it_came_with() {
        assert_eq!(context_of_new(RunId::new(), None), None);
        assert_eq!(context_of_new(RunId::new(), Some("whatever")).as_deref(), Some("whatever"));
    }
}
