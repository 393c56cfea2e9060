//! The service itself: what it serves, and how much waits.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::List;
use crate::engine::Unready;
use crate::http::{App, Problem};
use crate::model::Timestamp;
use crate::store::QueueDepth;

pub fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show_queue)).routes(routes!(show_project))
}

/// The queue of one workflow.
#[derive(Serialize, ToSchema)]
#[schema(as = QueueDepth)]
struct DepthView {
    workflow: String,
    /// Tasks that could start now.
    due: u64,
    /// Tasks whose time lies ahead.
    later: u64,
    running: u64,
    /// Tasks that failed for good, and that someone has to look at.
    dead: u64,
    /// Since when the first of those due is waiting.
    oldest_due: Option<Timestamp>,
}

impl From<QueueDepth> for DepthView {
    fn from(depth: QueueDepth) -> Self {
        let QueueDepth { workflow, due, later, running, dead, oldest_due } = depth;
        Self { workflow, due, later, running, dead, oldest_due }
    }
}

/// How much waits, runs and is dead, by workflow
#[utoipa::path(get, path = "/queue", tag = "service", responses((status = 200, body = List<DepthView>)))]
async fn show_queue(State(app): State<App>) -> Result<Json<List<DepthView>>, Problem> {
    let depths = app.engine.store().queue(app.engine.now()).await?;
    Ok(Json(List::whole(depths.into_iter().map(DepthView::from).collect())))
}

/// The project as it is served now.
#[derive(Serialize, ToSchema)]
#[schema(as = Project)]
struct ProjectView {
    /// The version of the program.
    program: &'static str,
    workflows: Vec<String>,
    /// Names of credentials in the project; those in the store are under `/credentials`.
    credentials: Vec<String>,
    /// Steps that cannot be run. All others are served.
    problems: Vec<ProblemView>,
}

/// A step that cannot be run.
#[derive(Serialize, ToSchema)]
#[schema(as = ProjectProblem)]
struct ProblemView {
    workflow: String,
    step: String,
    message: String,
}

impl From<Unready> for ProblemView {
    fn from(unready: Unready) -> Self {
        Self { workflow: unready.workflow, step: unready.step, message: unready.error.to_string() }
    }
}

/// What is served, and what keeps steps from running
#[utoipa::path(get, path = "/project", tag = "service", responses((status = 200, body = ProjectView)))]
async fn show_project(State(app): State<App>) -> Json<ProjectView> {
    let served = app.engine.served();
    Json(ProjectView {
        program: env!("CARGO_PKG_VERSION"),
        workflows: served.workflows.keys().cloned().collect(),
        credentials: served.credentials.keys().cloned().collect(),
        problems: served.unready().map(ProblemView::from).collect(),
    })
}
