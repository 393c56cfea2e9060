//! Tasks: the queue, item by item; and sending dead ones on their way again.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::List;
use super::request::{Body, Id, Params, page, unprocessable};
use crate::http::{App, Problem};
use crate::model::{RunId, Task, TaskId, TaskState, Timestamp};
use crate::store::{Redrive, TaskFilter};

/// Tasks that are re-driven by one request, if it does not say.
const DEFAULT_REDRIVE: usize = 1_000;
/// Tasks that are re-driven by one request at most.
const LARGEST_REDRIVE: usize = 10_000;

pub fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_tasks)).routes(routes!(show_task)).routes(routes!(task_input))
}

pub fn acting() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(redrive_tasks)).routes(routes!(redrive_task))
}

/// One step of one run, in the queue or done.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub struct TaskView {
    id: TaskId,
    run: RunId,
    workflow: String,
    step: String,
    state: TaskState,
    /// Not to be started earlier.
    run_at: Timestamp,
    /// Attempts started so far.
    attempts: u32,
    created_at: Timestamp,
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        Self {
            id: task.id,
            run: task.run,
            workflow: task.workflow,
            step: task.step,
            state: task.state,
            run_at: task.run_at,
            attempts: task.attempts,
            created_at: task.created_at,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskQuery {
    /// Only tasks in these states; may be repeated.
    pub state: Vec<TaskState>,
    /// Only tasks of this workflow.
    pub workflow: Option<String>,
    /// Only tasks of this run.
    pub run: Option<RunId>,
    /// Only tasks of the step with this id.
    pub step: Option<String>,
    /// `next` of the page before.
    pub after: Option<TaskId>,
    /// Items on a page, from 1 to 500; 50 if absent.
    pub limit: Option<usize>,
}

impl TaskQuery {
    pub fn filter(&self) -> TaskFilter {
        TaskFilter {
            states: self.state.clone(),
            workflow: self.workflow.clone(),
            run: self.run,
            step: self.step.clone(),
        }
    }
}

/// List tasks
#[utoipa::path(
    get,
    path = "/tasks",
    tag = "tasks",
    params(TaskQuery),
    responses((status = 200, body = List<TaskView>))
)]
async fn list_tasks(State(app): State<App>, Params(query): Params<TaskQuery>) -> Result<Json<List<TaskView>>, Problem> {
    let page = app.engine.store().tasks(query.filter(), page(query.after, query.limit)?).await?;
    Ok(Json(List::of(page)))
}

/// Show a task
#[utoipa::path(
    get,
    path = "/tasks/{id}",
    tag = "tasks",
    params(("id" = TaskId, Path)),
    responses((status = 200, body = TaskView))
)]
async fn show_task(State(app): State<App>, Id(id): Id<TaskId>) -> Result<Json<TaskView>, Problem> {
    let task = app.engine.store().task(id).await?.ok_or_else(|| Problem::not_found(format!("task {id}")))?;
    Ok(Json(task.into()))
}

/// The state that a task starts with
///
/// Of a task that begins with what the last run left, it is what it would begin with now.
#[utoipa::path(
    get,
    path = "/tasks/{id}/input",
    tag = "tasks",
    params(("id" = TaskId, Path)),
    responses((status = 200, body = Object, description = "The state, without credential."))
)]
async fn task_input(State(app): State<App>, Id(id): Id<TaskId>) -> Result<impl IntoResponse, Problem> {
    let state = app.engine.task_input(id).await?.ok_or_else(|| Problem::not_found(format!("task {id}")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], state))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "workflow": "register-patients" }))]
struct RedriveRequest {
    /// Only this task.
    task: Option<TaskId>,
    /// Only tasks of this run.
    run: Option<RunId>,
    /// Only tasks of this workflow.
    workflow: Option<String>,
    /// Every dead task there is. Must be said, if nothing else is.
    all: bool,
    /// Tasks at most, up to 10,000; 1,000 if absent. Repeat the request until it answers 0.
    limit: Option<usize>,
}

/// How many tasks are on their way again.
#[derive(Serialize, ToSchema)]
struct Redriven {
    redriven: usize,
}

/// Send dead tasks on their way again
///
/// Each is tried anew as often as its step's retry policy says.
#[utoipa::path(
    post,
    path = "/tasks/redrive",
    tag = "tasks",
    request_body = RedriveRequest,
    responses((status = 200, body = Redriven))
)]
async fn redrive_tasks(State(app): State<App>, Body(request): Body<RedriveRequest>) -> Result<Json<Redriven>, Problem> {
    let RedriveRequest { task, run, workflow, all, limit } = request;
    if all != (task.is_none() && run.is_none() && workflow.is_none()) {
        return Err(unprocessable(
            "say which tasks: `task`, `run` or `workflow`; or `\"all\": true` and none of these",
        ));
    }
    let limit = match limit.unwrap_or(DEFAULT_REDRIVE) {
        limit @ 1..=LARGEST_REDRIVE => limit,
        _ => return Err(unprocessable(format!("`limit` must be from 1 to {LARGEST_REDRIVE}"))),
    };
    let redriven = app.engine.redrive(Redrive { task, run, workflow, limit }).await?;
    Ok(Json(Redriven { redriven }))
}

/// Send one dead task on its way again
#[utoipa::path(
    post,
    path = "/tasks/{id}/redrive",
    tag = "tasks",
    params(("id" = TaskId, Path)),
    responses((status = 200, body = TaskView))
)]
async fn redrive_task(State(app): State<App>, Id(id): Id<TaskId>) -> Result<Json<TaskView>, Problem> {
    redrive_one(&app, id).await.map(|task| Json(task.into()))
}

/// Re-drives one task, and gives it as it is then.
pub async fn redrive_one(app: &App, id: TaskId) -> Result<Task, Problem> {
    let redriven = app.engine.redrive(Redrive { task: Some(id), limit: 1, ..Redrive::default() }).await?;
    let task = app.engine.store().task(id).await?.ok_or_else(|| Problem::not_found(format!("task {id}")))?;
    if redriven == 0 {
        let reason = format!("the task is not dead: it is {}", task.state.name());
        return Err(Problem::new(StatusCode::CONFLICT).with_detail(reason));
    }
    Ok(task)
}
