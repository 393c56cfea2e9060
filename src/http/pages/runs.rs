//! The list of runs.

use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use chrono::NaiveDateTime;
use maud::{Markup, html};
use serde::{Deserialize, Deserializer};

use super::layout::{Page, Place, next_link, run_state, short, span, time};
use crate::http::access::Identity;
use crate::http::api::request::{Params, page};
use crate::http::{App, Problem};
use crate::model::{Run, RunId, RunState, Timestamp};
use crate::store::RunFilter;

/// What the form asks for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    state: Vec<RunState>,
    workflow: Option<String>,
    trigger: Option<String>,
    since: Option<Moment>,
    until: Option<Moment>,
    q: Option<String>,
    after: Option<RunId>,
}

/// A time as a form field gives it, `2026-01-31T12:00`, in UTC.
#[derive(Clone, Copy)]
pub struct Moment(pub Timestamp);

impl Moment {
    fn parse(text: &str) -> Option<Self> {
        let naive =
            ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"].iter().find_map(|f| NaiveDateTime::parse_from_str(text, f).ok());
        let time = naive.map(|naive| naive.and_utc().into());
        time.or_else(|| chrono::DateTime::parse_from_rfc3339(text).ok().map(Timestamp::from)).map(Self)
    }

    fn field(self) -> String {
        self.0.to_datetime().map(|time| time.format("%Y-%m-%dT%H:%M").to_string()).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("write a time such as 2026-01-31T12:00"))
    }
}

/// A field for a time.
pub fn moment_field(name: &str, label: &str, value: Option<Moment>) -> Markup {
    html! {
        label { span { (label) } input type="datetime-local" name=(name) value=[value.map(Moment::field)]; }
    }
}

pub async fn list(
    State(app): State<App>,
    Extension(person): Extension<Identity>,
    uri: Uri,
    Params(filters): Params<Filters>,
) -> Result<Html<String>, Problem> {
    let filter = RunFilter {
        states: filters.state.clone(),
        workflow: filters.workflow.clone(),
        trigger: filters.trigger.clone(),
        message: None,
        since: filters.since.map(|since| since.0),
        until: filters.until.map(|until| until.0),
        text: filters.q.clone(),
    };
    let runs = app.engine.store().runs(filter, page(filters.after, None)?).await?;
    let workflows: Vec<String> = app.engine.store().workflows().await?.into_iter().map(|one| one.name).collect();
    let live = filters.after.is_none().then(|| "types=run_created&types=task_started&types=run_ended".to_owned());
    let page = Page { title: "Runs", place: Place::Runs, person: &person, live };
    Ok(page.around(html! {
        h1 { "Runs" }
        (form(&filters, &workflows))
        div #runs data-region {
            (table(&runs.items, app.engine.now()))
            (next_link("/runs", uri.query(), runs.next))
        }
    }))
}

fn form(filters: &Filters, workflows: &[String]) -> Markup {
    html! {
        form.filters method="get" action="/runs" {
            fieldset.states {
                legend { "State" }
                @for state in RunState::ALL {
                    label {
                        input type="checkbox" name="state" value=(state.name()) checked[filters.state.contains(state)];
                        (run_state(*state))
                    }
                }
            }
            label { span { "Workflow" }
                select name="workflow" {
                    option value="" { "all" }
                    @for name in workflows {
                        option value=(name) selected[filters.workflow.as_ref() == Some(name)] { (name) }
                    }
                }
            }
            label { span { "Trigger" } input name="trigger" value=[filters.trigger.as_ref()]; }
            (moment_field("since", "From", filters.since))
            (moment_field("until", "To", filters.until))
            label.grow { span { "Text" }
                input type="search" name="q" value=[filters.q.as_ref()] placeholder="in error, id or data";
            }
            div.buttons {
                button.primary type="submit" { "Filter" }
                a.quiet href="/runs" { "Clear" }
            }
        }
    }
}

/// Runs as a table.
pub fn table(runs: &[Run], now: Timestamp) -> Markup {
    if runs.is_empty() {
        return html! { p.empty { "No runs here." } };
    }
    html! {
        table.list {
            thead {
                tr {
                    th { "State" } th { "Workflow" } th { "Trigger" } th { "Started" }
                    th.number { "Duration" }
                    th { "Error" }
                }
            }
            tbody {
                @for run in runs {
                    tr {
                        td { (run_state(run.state)) }
                        td.main {
                            a href={ "/runs/" (run.id) } { (run.workflow) " " code.muted { (short(run.id)) } }
                        }
                        td data-label="Trigger" { (trigger(run)) }
                        td data-label="Started" { (time(run.started_at.unwrap_or(run.created_at))) }
                        td.number data-label="Duration" { (duration(run, now)) }
                        td.error {
                            @if let Some(failure) = &run.failure {
                                span title=(failure.message) {
                                    strong { (failure.class) } " " (first_line(&failure.message))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

pub fn trigger(run: &Run) -> Markup {
    match &run.trigger {
        Some(trigger) => html! { (trigger) },
        None => html! { span.muted { "by hand" } },
    }
}

/// How long a run took, or has taken so far.
pub fn duration(run: &Run, now: Timestamp) -> Markup {
    match (run.started_at, run.finished_at) {
        (Some(started), Some(finished)) => html! { (span(finished.since(started))) },
        (Some(started), None) => html! { span.muted { (span(now.since(started))) " …" } },
        (None, _) => html! { span.muted { "–" } },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_field_is_a_time_in_utc() {
        for text in ["2026-01-31T12:00", "2026-01-31T12:00:00", "2026-01-31T13:00:00+01:00"] {
            let moment = Moment::parse(text).unwrap();
            assert_eq!(moment.0.to_string(), "2026-01-31T12:00:00.000000Z");
            assert_eq!(moment.field(), "2026-01-31T12:00");
        }
        assert!(Moment::parse("yesterday").is_none());
    }
}
