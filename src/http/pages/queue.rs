//! How much waits, and the tasks that someone has to look at.

use axum::Extension;
use axum::extract::{Form, State};
use axum::http::Uri;
use axum::response::{Html, Redirect};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Page, Place, may_act, next_link, short, span, time};
use crate::http::access::Identity;
use crate::http::api::request::{Params, page, unprocessable};
use crate::http::{App, Problem};
use crate::model::{RunId, Task, TaskId, TaskState, Timestamp};
use crate::store::{QueueDepth, Redrive, TaskFilter};

/// Tasks that one press of a button re-drives at most.
const MOST_AT_ONCE: usize = 10_000;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    workflow: Option<String>,
    after: Option<TaskId>,
}

pub async fn show(
    State(app): State<App>,
    Extension(person): Extension<Identity>,
    uri: Uri,
    Params(filters): Params<Filters>,
) -> Result<Html<String>, Problem> {
    let store = app.engine.store();
    let now = app.engine.now();
    let depths = store.queue(now).await?;
    let filter =
        TaskFilter { states: vec![TaskState::Dead], workflow: filters.workflow.clone(), ..TaskFilter::default() };
    let dead = store.tasks(filter, page(filters.after, None)?).await?;
    let live = Some("types=run_created&types=task_started&types=task_ended".to_owned());
    let page = Page { title: "Queue", place: Place::Queue, person: &person, live };
    Ok(page.around(html! {
        h1 { "Queue" }
        div #depths data-region { (depth_table(&depths, now)) }
        div #dead data-region {
            h2 {
                "Dead tasks"
                @if let Some(workflow) = &filters.workflow {
                    " of " (workflow) " " a.quiet href="/queue" { "show all" }
                }
            }
            p.muted {
                "They failed for good, and no step handles it. Mend the cause, then send them on their way again."
            }
            @if may_act(&person) && !dead.items.is_empty() { (redrive_all(filters.workflow.as_deref())) }
            (dead_table(&dead.items, may_act(&person)))
            (next_link("/queue", uri.query(), dead.next))
        }
    }))
}

fn depth_table(depths: &[QueueDepth], now: Timestamp) -> Markup {
    if depths.is_empty() {
        return html! { p.empty { "Nothing waits, nothing runs." } };
    }
    html! {
        table.list {
            thead {
                tr {
                    th { "Workflow" }
                    @for count in ["Due", "Later", "Running", "Dead", "Longest wait"] { th.number { (count) } }
                }
            }
            tbody {
                @for depth in depths {
                    tr {
                        td.main { a href={ "/runs?workflow=" (depth.workflow) } { (depth.workflow) } }
                        td.number data-label="Due" { (depth.due) }
                        td.number data-label="Later" { (depth.later) }
                        td.number data-label="Running" { (depth.running) }
                        td.number data-label="Dead" {
                            @match depth.dead {
                                0 => "0",
                                dead => a href={ "/queue?workflow=" (depth.workflow) } { (dead) },
                            }
                        }
                        td.number data-label="Longest wait" {
                            @match depth.oldest_due {
                                Some(since) => (span(now.since(since))),
                                None => span.muted { "–" },
                            }
                        }
                    }
                }
            }
        }
    }
}

fn redrive_all(workflow: Option<&str>) -> Markup {
    html! {
        div.actions {
            form method="post" action="/queue/redrive" {
                @match workflow {
                    Some(workflow) => {
                        input type="hidden" name="workflow" value=(workflow);
                        button type="submit" { "Re-drive all of " (workflow) }
                    },
                    None => {
                        input type="hidden" name="all" value="true";
                        button type="submit" { "Re-drive all" }
                    },
                }
            }
        }
    }
}

fn dead_table(tasks: &[Task], may_act: bool) -> Markup {
    if tasks.is_empty() {
        return html! { p.empty { "No dead tasks." } };
    }
    html! {
        table.list {
            thead {
                tr { th { "Step" } th { "Workflow" } th { "Run" } th { "Created" } th.number { "Attempts" } th {} }
            }
            tbody {
                @for task in tasks {
                    tr {
                        td.main { a href={ "/runs/" (task.run) "#task-" (task.id) } { (task.step) } }
                        td data-label="Workflow" { (task.workflow) }
                        td data-label="Run" { a href={ "/runs/" (task.run) } { code { (short(task.run)) } } }
                        td data-label="Created" { (time(task.created_at)) }
                        td.number data-label="Attempts" { (task.attempts) }
                        td.act {
                            @if may_act {
                                form method="post" action="/queue/redrive" {
                                    input type="hidden" name="task" value=(task.id);
                                    button type="submit" { "Re-drive" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is to be re-driven: one of these.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    task: Option<TaskId>,
    run: Option<RunId>,
    workflow: Option<String>,
    all: bool,
}

pub async fn redrive(State(app): State<App>, Form(wanted): Form<Wanted>) -> Result<Redirect, Problem> {
    let Wanted { task, run, workflow, all } = wanted;
    if !all && task.is_none() && run.is_none() && workflow.is_none() {
        return Err(unprocessable("the form does not say which tasks"));
    }
    let back = run.map_or_else(|| "/queue".to_owned(), |run| format!("/runs/{run}"));
    app.engine.redrive(Redrive { task, run, workflow, limit: MOST_AT_ONCE }).await?;
    Ok(Redirect::to(&back))
}
