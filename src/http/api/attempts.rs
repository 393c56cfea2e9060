//! Attempts: how each try ended, the state it left, and what it logged.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::Id;
use crate::http::{App, Problem};
use crate::model::{Attempt, AttemptId, AttemptOutcome, Failure, Severity, TaskId, Timestamp};

pub fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show_attempt)).routes(routes!(attempt_output)).routes(routes!(attempt_log))
}

/// One try of a task.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptView {
    id: AttemptId,
    task: TaskId,
    /// From 1.
    number: u32,
    started_at: Timestamp,
    finished_at: Timestamp,
    outcome: AttemptOutcome,
    failure: Option<FailureView>,
    usage: UsageView,
}

/// Why an attempt did not succeed.
#[derive(Serialize, ToSchema)]
#[schema(as = Failure)]
pub struct FailureView {
    /// The class, such as `JobError` or `TimeoutError`.
    class: String,
    severity: Severity,
    message: String,
}

/// What an attempt took.
#[derive(Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageView {
    /// CPU time in microseconds.
    cpu_us: u64,
    /// Bytes of V8 heap at the end.
    heap: u64,
    /// Most bytes of ArrayBuffers alive at once.
    buffers: u64,
}

impl From<Failure> for FailureView {
    fn from(failure: Failure) -> Self {
        Self { class: failure.class, severity: failure.severity, message: failure.message }
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        let usage = attempt.usage;
        Self {
            id: attempt.id,
            task: attempt.task,
            number: attempt.number,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            outcome: attempt.outcome,
            failure: attempt.failure.map(FailureView::from),
            usage: UsageView { cpu_us: usage.cpu_us, heap: usage.heap, buffers: usage.buffers },
        }
    }
}

/// Show an attempt
#[utoipa::path(
    get,
    path = "/attempts/{id}",
    tag = "attempts",
    params(("id" = AttemptId, Path)),
    responses((status = 200, body = AttemptView))
)]
async fn show_attempt(State(app): State<App>, Id(id): Id<AttemptId>) -> Result<Json<AttemptView>, Problem> {
    Ok(Json(find(&app, id).await?.into()))
}

async fn find(app: &App, id: AttemptId) -> Result<Attempt, Problem> {
    app.engine.store().attempt(id).await?.ok_or_else(|| Problem::not_found(format!("attempt {id}")))
}

/// The state that an attempt left
///
/// After a failure it has the error in `errors`, under the id of the step.
#[utoipa::path(
    get,
    path = "/attempts/{id}/output",
    tag = "attempts",
    params(("id" = AttemptId, Path)),
    responses((status = 200, body = Object, description = "The state."))
)]
async fn attempt_output(State(app): State<App>, Id(id): Id<AttemptId>) -> Result<impl IntoResponse, Problem> {
    let state = output(&app, id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], state))
}

/// The state that an attempt left: JSON text.
pub async fn output(app: &App, id: AttemptId) -> Result<String, Problem> {
    find(app, id).await?;
    let output = app.engine.store().output(id).await?;
    output.ok_or_else(|| Problem::not_found(format!("state that attempt {id} left")))
}

/// What an attempt logged
///
/// One JSON object a line (`time`, `source`, `level`, `message`), or, with `accept: text/plain`, as text. Logs are
/// forgotten earlier than their attempts; what is gone is empty.
#[utoipa::path(
    get,
    path = "/attempts/{id}/log",
    tag = "attempts",
    params(("id" = AttemptId, Path)),
    responses((status = 200, content((String = "application/x-ndjson"), (String = "text/plain"))))
)]
async fn attempt_log(
    State(app): State<App>,
    Id(id): Id<AttemptId>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let log = log(&app, id).await?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    Ok(match accept.contains("text/plain") {
        true => (
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            LogEntry::read(&log).map(|e| e.to_string()).collect(),
        ),
        false => ([(header::CONTENT_TYPE, "application/x-ndjson")], log),
    })
}

/// The log of an attempt: one JSON object a line.
pub async fn log(app: &App, id: AttemptId) -> Result<String, Problem> {
    find(app, id).await?;
    Ok(app.engine.store().log(id).await?.unwrap_or_default())
}

/// A line of a log.
#[derive(serde::Deserialize)]
pub struct LogEntry {
    pub time: Timestamp,
    pub source: String,
    pub level: String,
    pub message: String,
}

impl LogEntry {
    /// The lines of a log as it is stored.
    pub fn read(log: &str) -> impl Iterator<Item = Self> {
        log.lines().filter_map(|line| serde_json::from_str(line).ok())
    }
}

impl std::fmt::Display for LogEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} {} {:<5} {}", self.time, self.source, self.level, self.message)
    }
}
