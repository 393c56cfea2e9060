//! Workflows: what is served, and what each of them last did.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::List;
use super::runs::RunView;
use crate::engine::next_after;
use crate::http::{App, Problem};
use crate::model::{Condition, Isolation, Run, Step, StepKind, Timestamp, Trigger, TriggerKind};
use crate::store::{PageRequest, RunFilter, WorkflowSummary};

pub fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_workflows)).routes(routes!(show_workflow))
}

/// A workflow in its version that is served now, or was last.
#[derive(Serialize, ToSchema)]
#[schema(as = Workflow)]
struct WorkflowView {
    name: String,
    version: i64,
    published_at: Timestamp,
    /// In the project that is served now.
    current: bool,
    last_run: Option<RunView>,
}

/// A workflow with its definition.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkflowDetail)]
struct WorkflowDetailView {
    #[serde(flatten)]
    workflow: WorkflowView,
    triggers: Vec<TriggerView>,
    /// The step that a trigger starts.
    start: String,
    steps: Vec<StepView>,
    /// Tasks of this workflow that may run at once; `null`: as many as the service runs at all.
    concurrency: Option<u32>,
    isolation: IsolationView,
}

/// How far the runs of a workflow are kept apart.
#[derive(Serialize, ToSchema)]
#[schema(as = Isolation)]
#[serde(rename_all = "snake_case")]
enum IsolationView {
    /// Each has isolates of its own.
    Run,
    /// They have isolates one after the other, in which each evaluates its modules anew.
    Module,
    /// They have isolates one after the other, with all that is in them.
    Workflow,
}

/// What starts a workflow.
#[derive(Serialize, ToSchema)]
#[schema(as = Trigger)]
struct TriggerView {
    name: String,
    #[serde(flatten)]
    kind: TriggerKindView,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TriggerKind)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TriggerKindView {
    /// A message on a topic that contains the criteria, and for which the condition holds.
    Message {
        topic: String,
        #[schema(value_type = Object)]
        criteria: serde_json::Map<String, serde_json::Value>,
        condition: Option<String>,
    },
    /// A request to `/i/` and the path.
    Webhook { path: String, enabled: bool },
    /// The clock.
    Cron { expression: String, timezone: String, next: Option<Timestamp> },
    /// Again and again, with the same length of time in between.
    Every { seconds: u64 },
}

/// One thing to do.
#[derive(Serialize, ToSchema)]
#[schema(as = Step)]
struct StepView {
    id: String,
    adaptors: Vec<String>,
    /// The name of its credential.
    credential: Option<String>,
    /// What follows.
    next: Vec<EdgeView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Edge)]
struct EdgeView {
    to: String,
    /// `always`, `on_success` or `on_failure`.
    condition: &'static str,
}

impl TriggerView {
    fn of(trigger: &Trigger, now: Timestamp) -> Self {
        let kind = match &trigger.kind {
            TriggerKind::Message { topic, criteria, condition } => TriggerKindView::Message {
                topic: topic.clone(),
                criteria: criteria.0.clone(),
                condition: condition.clone(),
            },
            TriggerKind::Webhook(webhook) => {
                TriggerKindView::Webhook { path: webhook.path.clone(), enabled: webhook.enabled }
            }
            TriggerKind::Cron(cron) => TriggerKindView::Cron {
                expression: cron.expression.clone(),
                timezone: cron.timezone.to_string(),
                next: next_after(cron, now),
            },
            TriggerKind::Every { interval } => TriggerKindView::Every { seconds: interval.as_secs() },
        };
        Self { name: trigger.name.clone(), kind }
    }
}

impl From<&Step> for StepView {
    fn from(step: &Step) -> Self {
        let StepKind::Js(js) = &step.kind;
        let edge = |edge: &crate::model::Edge| EdgeView {
            to: edge.to.clone(),
            condition: match edge.condition {
                Condition::Always => "always",
                Condition::OnSuccess => "on_success",
                Condition::OnFailure => "on_failure",
            },
        };
        Self {
            id: step.id.clone(),
            adaptors: js.adaptors.clone(),
            credential: js.credential.clone(),
            next: step.next.iter().map(edge).collect(),
        }
    }
}

impl WorkflowView {
    async fn of(app: &App, summary: WorkflowSummary) -> Result<Self, Problem> {
        let last_run = last_run(app, &summary.name).await?.map(RunView::from);
        let WorkflowSummary { name, version, published_at, current } = summary;
        Ok(Self { name, version, published_at, current, last_run })
    }
}

/// The run of a workflow that was created last.
pub async fn last_run(app: &App, workflow: &str) -> Result<Option<Run>, Problem> {
    let filter = RunFilter { workflow: Some(workflow.to_owned()), ..RunFilter::default() };
    Ok(app.engine.store().runs(filter, PageRequest { after: None, limit: 1 }).await?.items.pop())
}

/// List workflows
///
/// Those that are served now, and those that the store has runs of.
#[utoipa::path(get, path = "/workflows", tag = "workflows", responses((status = 200, body = List<WorkflowView>)))]
async fn list_workflows(State(app): State<App>) -> Result<Json<List<WorkflowView>>, Problem> {
    let mut views = Vec::new();
    for summary in app.engine.store().workflows().await? {
        views.push(WorkflowView::of(&app, summary).await?);
    }
    Ok(Json(List::whole(views)))
}

/// Show a workflow with its triggers and steps
#[utoipa::path(
    get,
    path = "/workflows/{name}",
    tag = "workflows",
    params(("name" = String, Path)),
    responses((status = 200, body = WorkflowDetailView))
)]
async fn show_workflow(State(app): State<App>, Path(name): Path<String>) -> Result<Json<WorkflowDetailView>, Problem> {
    let store = app.engine.store();
    let missing = || Problem::not_found(format!("workflow `{name}`"));
    let summary = store.workflows().await?.into_iter().find(|summary| summary.name == name).ok_or_else(missing)?;
    let workflow = store.workflow(summary.version).await?.ok_or_else(missing)?;
    let now = app.engine.now();
    Ok(Json(WorkflowDetailView {
        workflow: WorkflowView::of(&app, summary).await?,
        triggers: workflow.triggers.iter().map(|trigger| TriggerView::of(trigger, now)).collect(),
        start: workflow.start.clone(),
        steps: workflow.steps.iter().map(StepView::from).collect(),
        concurrency: workflow.concurrency,
        isolation: match workflow.isolation {
            Isolation::Run => IsolationView::Run,
            Isolation::Module => IsolationView::Module,
            Isolation::Workflow => IsolationView::Workflow,
        },
    }))
}
