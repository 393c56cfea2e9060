//! Runs: find, see, start, cancel, repeat.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::attempts::{AttemptView, FailureView};
use super::list::List;
use super::request::{Body, Id, Params, page, unprocessable};
use super::tasks::TaskView;
use crate::engine::RunRequest;
use crate::http::delivery::traceparent;
use crate::http::{App, Problem};
use crate::model::{MessageId, Run, RunId, RunState, Timestamp};
use crate::store::{Cancellation, RunDetail, RunFilter};

pub fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_runs)).routes(routes!(show_run))
}

pub fn acting() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(start_run)).routes(routes!(cancel_run)).routes(routes!(retry_run))
}

/// One execution of one workflow.
#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
pub struct RunView {
    id: RunId,
    workflow: String,
    /// Which version of the workflow's definition.
    version: i64,
    /// The trigger that started it; `null`: someone did by hand.
    trigger: Option<String>,
    message: Option<MessageId>,
    /// The run that this one repeats, in whole or from a step on.
    retry_of: Option<RunId>,
    state: RunState,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// The first failure that nothing handled.
    failure: Option<FailureView>,
    /// W3C trace context of what started it.
    traceparent: Option<String>,
}

impl From<Run> for RunView {
    fn from(run: Run) -> Self {
        Self {
            id: run.id,
            workflow: run.workflow,
            version: run.version,
            trigger: run.trigger,
            message: run.message,
            retry_of: run.retry_of,
            state: run.state,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            failure: run.failure.map(FailureView::from),
            traceparent: run.traceparent,
        }
    }
}

/// A run with its tasks and the attempts at them.
#[derive(Serialize, ToSchema)]
#[schema(as = RunDetail)]
pub struct RunDetailView {
    #[serde(flatten)]
    run: RunView,
    /// In the order in which they were made.
    tasks: Vec<TaskDetailView>,
}

/// A task with the attempts at it.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskDetail)]
pub struct TaskDetailView {
    #[serde(flatten)]
    task: TaskView,
    tries: Vec<AttemptView>,
}

impl From<RunDetail> for RunDetailView {
    fn from(detail: RunDetail) -> Self {
        let tasks = detail.tasks.into_iter().map(|(task, attempts)| TaskDetailView {
            task: task.into(),
            tries: attempts.into_iter().map(AttemptView::from).collect(),
        });
        Self { run: detail.run.into(), tasks: tasks.collect() }
    }
}

#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// Only runs in these states; may be repeated.
    pub state: Vec<RunState>,
    /// Only runs of this workflow.
    pub workflow: Option<String>,
    /// Only runs that this trigger started.
    pub trigger: Option<String>,
    /// Only runs that this message started.
    pub message: Option<MessageId>,
    /// Created at or after this time, RFC 3339.
    pub since: Option<Timestamp>,
    /// Created before this time, RFC 3339.
    pub until: Option<Timestamp>,
    /// Only runs with this text in the class or message of the failure, the id, or the data of the message.
    pub q: Option<String>,
    /// `next` of the page before.
    pub after: Option<RunId>,
    /// Items on a page, from 1 to 500; 50 if absent.
    pub limit: Option<usize>,
}

impl RunQuery {
    pub fn filter(&self) -> RunFilter {
        RunFilter {
            states: self.state.clone(),
            workflow: self.workflow.clone(),
            trigger: self.trigger.clone(),
            message: self.message,
            since: self.since,
            until: self.until,
            text: self.q.clone(),
        }
    }
}

/// List runs
#[utoipa::path(get, path = "/runs", tag = "runs", params(RunQuery), responses((status = 200, body = List<RunView>)))]
async fn list_runs(State(app): State<App>, Params(query): Params<RunQuery>) -> Result<Json<List<RunView>>, Problem> {
    let page = app.engine.store().runs(query.filter(), page(query.after, query.limit)?).await?;
    Ok(Json(List::of(page)))
}

/// Show a run, its tasks and the attempts at them
///
/// States and logs are read on their own: the input of a task, the output and the log of an attempt.
#[utoipa::path(
    get,
    path = "/runs/{id}",
    tag = "runs",
    params(("id" = RunId, Path)),
    responses((status = 200, body = RunDetailView))
)]
async fn show_run(State(app): State<App>, Id(id): Id<RunId>) -> Result<Json<RunDetailView>, Problem> {
    Ok(Json(find(&app, id).await?.into()))
}

async fn find(app: &App, id: RunId) -> Result<RunDetail, Problem> {
    app.engine.store().run(id).await?.ok_or_else(|| Problem::not_found(format!("run {id}")))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRun {
    workflow: String,
    /// The state to begin with, an object. If absent: what a clock would begin with, i.e. what the last successful run
    /// left, or the workflow's initial state.
    #[schema(value_type = Option<Object>, example = json!({ "data": { "id": 1 } }))]
    state: Option<Box<RawValue>>,
}

/// Start a workflow by hand
#[utoipa::path(
    post,
    path = "/runs",
    tag = "runs",
    request_body = NewRun,
    responses((status = 201, body = RunView, headers(("location" = String, description = "Where the run is."))))
)]
async fn start_run(
    State(app): State<App>,
    headers: HeaderMap,
    Body(new): Body<NewRun>,
) -> Result<impl IntoResponse, Problem> {
    let state = new.state.map(|state| state.get().to_owned());
    if state.as_ref().is_some_and(|state| !state.starts_with('{')) {
        return Err(unprocessable("`state` must be an object, such as {\"data\": {}}"));
    }
    let request = RunRequest { workflow: new.workflow, state, traceparent: traceparent(&headers) };
    let id = app.engine.start_run(request).await?;
    created(&app, id).await
}

async fn created(app: &App, id: RunId) -> Result<impl IntoResponse + use<>, Problem> {
    let run: RunView = find(app, id).await?.run.into();
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/api/v1/runs/{id}"))], Json(run)))
}

/// Cancel a run
///
/// What waits is not started, and what is under way is stopped. A run that has ended already is a conflict (409).
#[utoipa::path(
    post,
    path = "/runs/{id}/cancel",
    tag = "runs",
    params(("id" = RunId, Path)),
    responses((status = 200, body = RunView))
)]
async fn cancel_run(State(app): State<App>, Id(id): Id<RunId>) -> Result<Json<RunView>, Problem> {
    match app.engine.cancel(id).await? {
        Cancellation::NotFound => Err(Problem::not_found(format!("run {id}"))),
        Cancellation::AlreadyEnded(state) => Err(Problem::new(StatusCode::CONFLICT)
            .with_detail(format!("the run has ended already: it is {}", state.name()))),
        Cancellation::Cancelled { .. } => Ok(Json(find(&app, id).await?.run.into())),
    }
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Retry {
    /// The step to begin with, with the state that it began with before. If absent: all from the beginning.
    from: Option<String>,
}

/// Repeat a run
///
/// A new run, of the workflow as it is now. The old one stays as it is.
#[utoipa::path(
    post,
    path = "/runs/{id}/retry",
    tag = "runs",
    params(("id" = RunId, Path)),
    request_body = Option<Retry>,
    responses((status = 201, body = RunView, headers(("location" = String, description = "Where the new run is."))))
)]
async fn retry_run(
    State(app): State<App>,
    Id(id): Id<RunId>,
    body: Option<Body<Retry>>,
) -> Result<impl IntoResponse, Problem> {
    let Retry { from } = body.map(|Body(retry)| retry).unwrap_or_default();
    let new = app.engine.retry_run(id, from.as_deref()).await?;
    created(&app, new).await
}
