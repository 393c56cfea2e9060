//! What is served: triggers, adaptors, the last run, and what keeps a step from running.

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::response::{Html, Redirect};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Page, Place, may_act, run_state, span, time};
use crate::engine::{Definition, RunRequest, Unready, next_after};
use crate::http::access::Identity;
use crate::http::api::request::unprocessable;
use crate::http::api::workflows::last_run;
use crate::http::{App, Problem};
use crate::model::{Isolation, Run, StepKind, Timestamp, Trigger, TriggerKind};

pub async fn list(State(app): State<App>, Extension(person): Extension<Identity>) -> Result<Html<String>, Problem> {
    let served = app.engine.served();
    let mut rows = Vec::new();
    for definition in served.workflows.values() {
        rows.push((definition.clone(), last_run(&app, &definition.workflow.name).await?));
    }
    let live = Some("types=run_created&types=run_ended".to_owned());
    let page = Page { title: "Workflows", place: Place::Workflows, person: &person, live };
    let now = app.engine.now();
    Ok(page.around(html! {
        h1 { "Workflows" }
        div #workflows data-region {
            @if rows.is_empty() { p.empty { "The project has no workflows." } }
            @for (definition, last) in &rows { (workflow(definition, last.as_ref(), now, may_act(&person))) }
        }
    }))
}

fn workflow(definition: &Definition, last: Option<&Run>, now: Timestamp, may_act: bool) -> Markup {
    let workflow = &definition.workflow;
    let unready: Vec<Unready> = definition.unready().collect();
    html! {
        section.card {
            h2 {
                a href={ "/runs?workflow=" (workflow.name) } { (workflow.name) }
                " " small.muted { "version " (definition.version) }
            }
            dl.facts {
                @for trigger in &workflow.triggers {
                    div { dt { (trigger.name) } dd { (starts(trigger, now)) } }
                }
                @if workflow.triggers.is_empty() { div { dt { "Trigger" } dd.muted { "by hand" } } }
                @if workflow.isolation != Isolation::Run { div { dt { "Isolation" } dd { (workflow.isolation.name()) } } }
                div { dt { "Last run" } dd {
                    @match last {
                        Some(run) => {
                            (run_state(run.state)) " " a href={ "/runs/" (run.id) } { (time(run.created_at)) }
                        },
                        None => span.muted { "none" },
                    }
                } }
                div.wide { dt { "Steps" } dd {
                    @for (index, step) in workflow.steps.iter().enumerate() {
                        @let StepKind::Js(js) = &step.kind;
                        @if index > 0 { ", " }
                        (step.id)
                        @if !js.adaptors.is_empty() { " " span.muted { (js.adaptors.join(", ")) } }
                    }
                } }
            }
            @for problem in &unready {
                div.failure { strong { (problem.step) " cannot be run" } pre { (problem.error) } }
            }
            @if may_act {
                details #{ "start-" (workflow.name) } {
                    summary { "Run by hand" }
                    form method="post" action={ "/workflows/" (path_segment(&workflow.name)) "/run" } {
                        label { span { "State, a JSON object; empty: as a clock would start it" }
                            textarea name="state" rows="4" spellcheck="false" placeholder="{ \"data\": {} }" {}
                        }
                        button.primary type="submit" { "Run" }
                    }
                }
            }
        }
    }
}

fn starts(trigger: &Trigger, now: Timestamp) -> Markup {
    match &trigger.kind {
        TriggerKind::Message { topic, condition, .. } => html! {
            "messages on " a href={ "/messages?topic=" (topic) } { (topic) }
            @if let Some(condition) = condition { " if " code { (condition) } }
        },
        TriggerKind::Webhook(webhook) => html! {
            code { "/i/" (webhook.path) } @if !webhook.enabled { " " span.state.off { "off" } }
        },
        TriggerKind::Cron(cron) => html! {
            code { (cron.expression) } " " span.muted { (cron.timezone) }
            @if let Some(next) = next_after(cron, now) { ", next " (time(next)) }
        },
        TriggerKind::Every { interval } => html! { "every " (span(*interval)) },
    }
}

/// A name as a part of a path.
fn path_segment(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    name.bytes().map(encode).collect()
}

#[derive(Deserialize)]
pub struct Start {
    #[serde(default)]
    state: String,
}

pub async fn start(
    State(app): State<App>,
    Path(name): Path<String>,
    Form(form): Form<Start>,
) -> Result<Redirect, Problem> {
    let state = Some(form.state.trim().to_owned()).filter(|state| !state.is_empty());
    if let Some(state) = &state {
        let read = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(state);
        read.map_err(|error| unprocessable(format!("the state is no JSON object: {error}")))?;
    }
    let run = app.engine.start_run(RunRequest { workflow: name, state, traceparent: None }).await?;
    Ok(Redirect::to(&format!("/runs/{run}")))
}
