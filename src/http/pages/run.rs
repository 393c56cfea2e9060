//! One run: its steps, what each attempt logged and left, and doing it again.

use std::collections::{BTreeMap, HashSet};

use axum::Extension;
use axum::extract::{Form, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Redirect};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{
    Page, Place, failure, may_act, outcome, run_state, short, size, span, task_state, time, time_or_dash,
};
use super::{json, runs};
use crate::http::access::Identity;
use crate::http::api::request::Id;
use crate::http::api::{self, LogEntry};
use crate::http::{App, Problem};
use crate::model::{
    Attempt, AttemptId, Condition, Run, RunId, Step, StepKind, Task, TaskId, TaskInput, TaskState, Timestamp, Workflow,
};
use crate::store::{Cancellation, RunDetail};

/// Tasks whose states and logs are shown at once; those of others are a link away.
const MOST_OPEN: usize = 20;
/// Lines of a log that are shown.
const MOST_LINES: usize = 500;

pub async fn show(
    State(app): State<App>,
    Extension(person): Extension<Identity>,
    Id(id): Id<RunId>,
) -> Result<Html<String>, Problem> {
    let store = app.engine.store();
    let detail = store.run(id).await?.ok_or_else(|| Problem::not_found(format!("run {id}")))?;
    let workflow = store.workflow(detail.run.version).await?;
    let mut tasks = Vec::new();
    for (index, (task, attempts)) in detail.tasks.iter().enumerate() {
        tasks.push(task_section(&app, task, attempts, index < MOST_OPEN).await?);
    }
    let run = &detail.run;
    let live = (!run.state.is_final()).then(|| format!("run={id}"));
    let title = format!("{} {}", run.workflow, short(id));
    let page = Page { title: &title, place: Place::Runs, person: &person, live };
    Ok(page.around(html! {
        p.trail { a href="/runs" { "Runs" } " / " a href={ "/runs?workflow=" (run.workflow) } { (run.workflow) } }
        div #head data-region {
            h1 { (run.workflow) " " code.muted { (short(id)) } " " (run_state(run.state)) }
            (facts(run, app.engine.now()))
            @if let Some(why) = &run.failure { (failure(why)) }
            @if may_act(&person) { (actions(&detail)) }
        }
        div #steps data-region {
            @if let Some(workflow) = &workflow { (flow(workflow, &detail.tasks)) }
            @for task in &tasks { (task) }
        }
    }))
}

fn facts(run: &Run, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            div { dt { "Trigger" } dd { (runs::trigger(run)) } }
            @if let Some(message) = run.message {
                div { dt { "Message" } dd { a href={ "/messages/" (message) } { code { (short(message)) } } } }
            }
            @if let Some(before) = run.retry_of {
                div { dt { "Repeats" } dd { a href={ "/runs/" (before) } { code { (short(before)) } } } }
            }
            div { dt { "Created" } dd { (time(run.created_at)) } }
            div { dt { "Started" } dd { (time_or_dash(run.started_at)) } }
            div { dt { "Ended" } dd { (time_or_dash(run.finished_at)) } }
            div { dt { "Duration" } dd { (runs::duration(run, now)) } }
            div { dt { "Version" } dd { (run.version) } }
            div.wide { dt { "Id" } dd { code { (run.id) } } }
        }
    }
}

/// What can be done with a run as it is.
fn actions(detail: &RunDetail) -> Markup {
    let run = &detail.run;
    let dead = detail.tasks.iter().filter(|(task, _)| task.state == TaskState::Dead).count();
    let mut seen = HashSet::new();
    let came_to: Vec<&str> =
        detail.tasks.iter().map(|(task, _)| task.step.as_str()).filter(|id| seen.insert(*id)).collect();
    html! {
        div.actions {
            @if !run.state.is_final() {
                form method="post" action={ "/runs/" (run.id) "/cancel" } { button.danger type="submit" { "Cancel" } }
            }
            @if dead > 0 {
                form method="post" action="/queue/redrive" {
                    input type="hidden" name="run" value=(run.id);
                    button.primary type="submit" title="The run goes on where it failed" { "Try the failed step again" }
                }
            }
            form method="post" action={ "/runs/" (run.id) "/retry" } {
                label { span { "New run" }
                    select name="from" {
                        option value="" { "from the start" }
                        @for step in &came_to {
                            option value=(step) { "from " (step) }
                        }
                    }
                }
                button type="submit" { "Run again" }
            }
        }
    }
}

/// The steps of a workflow from left to right, with how far each is.
fn flow(workflow: &Workflow, tasks: &[(Task, Vec<Attempt>)]) -> Markup {
    html! {
        ol.flow aria-label="Steps" {
            @for stage in stages(workflow) {
                li { ul {
                    @for step in stage { li { (chip(step, tasks)) } }
                } }
            }
        }
    }
}

fn chip(step: &Step, tasks: &[(Task, Vec<Attempt>)]) -> Markup {
    let task = tasks.iter().map(|(task, _)| task).rfind(|task| task.step == step.id);
    let StepKind::Js(js) = &step.kind;
    let inside = html! {
        span.name { (step.id) }
        @match task { Some(task) => (task_state(task.state)), None => span.state.off { "not reached" } }
        @if !js.adaptors.is_empty() { small.muted { (js.adaptors.join(", ")) } }
        @for edge in step.next.iter().filter(|edge| edge.condition != Condition::Always) {
            small.muted {
                @if edge.condition == Condition::OnFailure { "if it fails" } @else { "if it succeeds" }
                " → " (edge.to)
            }
        }
    };
    match task {
        Some(task) => html! { a.step href={ "#task-" (task.id) } { (inside) } },
        None => html! { div.step { (inside) } },
    }
}

/// Steps by how far they are from the start.
fn stages(workflow: &Workflow) -> Vec<Vec<&Step>> {
    let mut depth: BTreeMap<&str, usize> = BTreeMap::from([(workflow.start.as_str(), 0)]);
    // Steps form no circle, so as many rounds as there are steps reach the longest way.
    for _ in &workflow.steps {
        for step in &workflow.steps {
            let Some(from) = depth.get(step.id.as_str()).copied() else { continue };
            for edge in &step.next {
                let reached = depth.entry(edge.to.as_str()).or_default();
                *reached = (*reached).max(from + 1);
            }
        }
    }
    let mut stages: Vec<Vec<&Step>> = Vec::new();
    for step in &workflow.steps {
        let Some(depth) = depth.get(step.id.as_str()) else { continue };
        stages.resize_with(stages.len().max(depth + 1), Vec::new);
        stages[*depth].push(step);
    }
    stages
}

async fn task_section(app: &App, task: &Task, attempts: &[Attempt], open: bool) -> Result<Markup, Problem> {
    let last = attempts.last();
    let earlier = &attempts[..attempts.len().saturating_sub(1)];
    let bottom = match last {
        Some(attempt) if open => last_attempt(app, attempt).await?,
        Some(attempt) => attempt_head(attempt),
        None => html! {},
    };
    let input = if open { app.engine.task_input(task.id).await? } else { None };
    let input_path = format!("/tasks/{}/input", task.id);
    Ok(html! {
        section.task #{ "task-" (task.id) } {
            h2 { (task.step) " " (task_state(task.state)) }
            @if matches!(task.state, TaskState::Retrying | TaskState::Scheduled) {
                p { "Next attempt at " (time(task.run_at)) }
            }
            @for attempt in earlier { (earlier_attempt(attempt)) }
            @if task.state == TaskState::Running { (running(task)) }
            @else { (bottom) }
            @match &input {
                Some(state) => details #{ "input-" (task.id) } {
                    summary {
                        @if task.input == TaskInput::Cursor { "Input, as it would be now " } @else { "Input " }
                        span.muted { (size(state.len())) }
                    }
                    (json::shown(state, &input_path))
                },
                None => p { a href=(input_path) download { "Input" } },
            }
        }
    })
}

/// An attempt under way. Its log is not kept yet: the script adds lines as they come.
fn running(task: &Task) -> Markup {
    html! {
        div.attempt {
            p { "Attempt " (task.attempts) " is under way. " span.muted { "Its log, from now on:" } }
            ol.log data-log=(task.id) aria-label="Log" {}
        }
    }
}

fn attempt_head(attempt: &Attempt) -> Markup {
    html! {
        p.attempt-head {
            "Attempt " (attempt.number) " " (outcome(attempt.outcome)) " "
            span.muted {
                (time(attempt.started_at)) ", " (span(attempt.finished_at.since(attempt.started_at)))
                @if attempt.usage.cpu_us > 0 {
                    ", " (span(std::time::Duration::from_micros(attempt.usage.cpu_us))) " CPU, "
                    (size(attempt.usage.heap as usize)) " heap"
                }
            }
        }
        @if let Some(why) = &attempt.failure { (failure(why)) }
    }
}

fn earlier_attempt(attempt: &Attempt) -> Markup {
    html! {
        div.attempt.earlier {
            (attempt_head(attempt))
            p.muted {
                a href={ "/attempts/" (attempt.id) "/log" } { "Log" } " · "
                a href={ "/attempts/" (attempt.id) "/output" } download { "Output" }
            }
        }
    }
}

async fn last_attempt(app: &App, attempt: &Attempt) -> Result<Markup, Problem> {
    let store = app.engine.store();
    let (log, output) = (store.log(attempt.id).await?.unwrap_or_default(), store.output(attempt.id).await?);
    Ok(html! {
        div.attempt {
            (attempt_head(attempt))
            (log_lines(&log, attempt.id))
            @if let Some(state) = output {
                details #{ "output-" (attempt.id) } {
                    summary { "Output " span.muted { (size(state.len())) } }
                    (json::shown(&state, &format!("/attempts/{}/output", attempt.id)))
                }
            }
        }
    })
}

fn log_lines(log: &str, attempt: AttemptId) -> Markup {
    let count = log.lines().count();
    html! {
        @if count == 0 {
            p.muted { "Nothing was logged." }
        } @else {
            ol.log aria-label="Log" tabindex="0" {
                @for line in LogEntry::read(log).take(MOST_LINES) {
                    li class={ "level-" (line.level) } {
                        time datetime=(line.time) { (clock(line.time)) }
                        span.source { (line.source) }
                        span.text { (line.message) }
                    }
                }
            }
            @if count > MOST_LINES {
                p.muted {
                    (MOST_LINES) " of " (count) " lines. "
                    a href={ "/attempts/" (attempt) "/log" } { "The whole log" }
                }
            }
        }
    }
}

/// The time of day, to the millisecond.
fn clock(time: Timestamp) -> String {
    time.to_datetime().map(|time| time.format("%H:%M:%S%.3f").to_string()).unwrap_or_default()
}

pub async fn input(State(app): State<App>, Id(id): Id<TaskId>) -> Result<impl IntoResponse, Problem> {
    let state = app.engine.task_input(id).await?.ok_or_else(|| Problem::not_found(format!("task {id}")))?;
    Ok(download(&format!("input-{}", short(id)), state))
}

pub async fn output(State(app): State<App>, Id(id): Id<AttemptId>) -> Result<impl IntoResponse, Problem> {
    Ok(download(&format!("output-{}", short(id)), api::attempts::output(&app, id).await?))
}

/// A state as a file: shown in the browser it could be mistaken for a page.
pub fn download(name: &str, json: String) -> impl IntoResponse + use<> {
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.json\"")),
    ];
    (headers, json)
}

pub async fn log(State(app): State<App>, Id(id): Id<AttemptId>) -> Result<impl IntoResponse, Problem> {
    let log = api::attempts::log(&app, id).await?;
    let text: String = LogEntry::read(&log).map(|line| line.to_string()).collect();
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text))
}

#[derive(Deserialize)]
pub struct Again {
    /// A step; empty: the start.
    #[serde(default)]
    from: String,
}

pub async fn retry(State(app): State<App>, Id(id): Id<RunId>, Form(again): Form<Again>) -> Result<Redirect, Problem> {
    let from = Some(again.from.as_str()).filter(|from| !from.is_empty());
    let new = app.engine.retry_run(id, from).await?;
    Ok(Redirect::to(&format!("/runs/{new}")))
}

pub async fn cancel(State(app): State<App>, Id(id): Id<RunId>) -> Result<Redirect, Problem> {
    match app.engine.cancel(id).await? {
        Cancellation::NotFound => Err(Problem::not_found(format!("run {id}"))),
        // It ended by itself while the page was looked at.
        Cancellation::AlreadyEnded(_) | Cancellation::Cancelled { .. } => Ok(Redirect::to(&format!("/runs/{id}"))),
    }
}
