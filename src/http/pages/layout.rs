//! What all pages have in common: the frame around them, and how states and times look.

use std::time::Duration;

use axum::response::Html;
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON, LIVE, STYLE};
use crate::http::Problem;
use crate::http::access::{Identity, Scope};
use crate::model::{AttemptOutcome, Failure, RunState, TaskState, Timestamp};

/// The parts of the site.
#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    Runs,
    Messages,
    Workflows,
    Queue,
}

const PLACES: [(Place, &str, &str); 4] = [
    (Place::Runs, "/runs", "Runs"),
    (Place::Messages, "/messages", "Messages"),
    (Place::Workflows, "/workflows", "Workflows"),
    (Place::Queue, "/queue", "Queue"),
];

/// A page for someone who is signed in.
pub struct Page<'a> {
    pub title: &'a str,
    pub place: Place,
    pub person: &'a Identity,
    /// The events after which the script reads the page again; None: it stays as it is.
    pub live: Option<String>,
}

impl Page<'_> {
    pub fn around(&self, content: Markup) -> Html<String> {
        let live = self.live.as_deref();
        document(
            self.title,
            html! {
                a.skip href="#content" { "Skip to content" }
                header.bar {
                    a.brand href="/runs" { "fnhost" }
                    nav aria-label="Main" {
                        @for (place, path, name) in PLACES {
                            a href=(path) aria-current=[(place == self.place).then_some("page")] { (name) }
                        }
                    }
                    span.live #live role="status" {}
                    a.quiet href="/docs" { "Docs" }
                    a.quiet href="/api/v1/docs" { "API" }
                    @if !self.person.id.is_empty() {
                        form method="post" action="/sign-out" {
                            button.quiet type="submit" title={ "Signed in with the token " (self.person.name) } {
                                "Sign out"
                            }
                        }
                    }
                }
                main #content data-live=[live] { (content) }
                footer { "Times are UTC · " a href="/docs" { "Documentation" } }
            },
        )
    }
}

/// The addresses of what a page loads.
pub struct Loads {
    pub style: String,
    pub icon: String,
    pub script: String,
}

/// The frame of every page of a server.
pub fn document(title: &str, body: Markup) -> Html<String> {
    let loads = Loads { style: STYLE.path(), icon: ICON.path(), script: LIVE.path() };
    document_that_loads(&loads, title, body)
}

/// The frame of every page.
pub fn document_that_loads(loads: &Loads, title: &str, body: Markup) -> Html<String> {
    let whole = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) " · fnhost" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href=(loads.icon) type="image/svg+xml";
                link rel="stylesheet" href=(loads.style);
                script src=(loads.script) defer {}
            }
            body { (body) }
        }
    };
    Html(whole.into_string())
}

/// A problem, as a page.
pub fn problem(problem: &Problem) -> Html<String> {
    let title = problem.status().canonical_reason().unwrap_or("Error");
    document(
        title,
        html! {
            header.bar { a.brand href="/runs" { "fnhost" } a.quiet href="/docs" { "Docs" } }
            main #content {
                h1 { (title) }
                @if let Some(detail) = problem.detail() { p { (sentence(detail)) } }
                p { a href="/runs" { "To the runs" } }
            }
        },
    )
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

/// What a person may do decides what is offered.
pub fn may_act(person: &Identity) -> bool {
    person.may(&Scope::Write)
}

fn badge(name: &str, tone: &str) -> Markup {
    html! { span class={ "state " (tone) } { (name) } }
}

pub fn run_state(state: RunState) -> Markup {
    let tone = match state {
        RunState::Pending => "waits",
        RunState::Running => "goes",
        RunState::Completed => "good",
        RunState::Failed => "bad",
        RunState::Cancelled => "off",
    };
    badge(state.name(), tone)
}

pub fn task_state(state: TaskState) -> Markup {
    let tone = match state {
        TaskState::Scheduled | TaskState::Queued => "waits",
        TaskState::Retrying => "warn",
        TaskState::Running => "goes",
        TaskState::Completed => "good",
        TaskState::Failed => "warn",
        TaskState::Dead => "bad",
        TaskState::Cancelled => "off",
    };
    badge(state.name(), tone)
}

pub fn outcome(outcome: AttemptOutcome) -> Markup {
    let tone = match outcome {
        AttemptOutcome::Success => "good",
        AttemptOutcome::Failure => "bad",
        AttemptOutcome::Cancelled => "off",
        AttemptOutcome::Lost => "warn",
    };
    badge(outcome.name(), tone)
}

pub fn failure(failure: &Failure) -> Markup {
    html! {
        div.failure {
            strong { (failure.class) }
            " "
            span.muted { (failure.severity.name()) }
            pre { (failure.message) }
        }
    }
}

/// A point in time, to the second.
pub fn time(time: Timestamp) -> Markup {
    let shown = match time.to_datetime() {
        Some(time) => time.format("%Y-%m-%d %H:%M:%S").to_string(),
        None => time.to_string(),
    };
    html! { time datetime=(time) { (shown) } }
}

pub fn time_or_dash(moment: Option<Timestamp>) -> Markup {
    moment.map_or_else(|| html! { span.muted { "–" } }, time)
}

/// A length of time in the units that fit it.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 if span.as_millis() == 0 => format!("{} µs", span.as_micros()),
        0 => format!("{} ms", span.as_millis()),
        1..=59 => format!("{:.1} s", span.as_secs_f64()),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A number of bytes.
pub fn size(bytes: usize) -> String {
    match bytes {
        0..=1023 => format!("{bytes} B"),
        1024..=1_048_575 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// The end of an id: its beginning is the time, and looks the same in all that came together.
pub fn short(id: impl std::fmt::Display) -> String {
    let id = id.to_string();
    id[id.len().saturating_sub(8)..].to_owned()
}

/// The link to the next page of a list: the query as it is, from there on.
pub fn next_link(path: &str, query: Option<&str>, next: Option<impl std::fmt::Display>) -> Markup {
    let Some(next) = next else { return html! {} };
    let mut link = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name != "after" && !value.is_empty() {
            link.append_pair(&name, &value);
        }
    }
    let link = link.append_pair("after", &next.to_string()).finish();
    html! { p.next { a.button href={ (path) "?" (link) } rel="next" { "Older" } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_sizes_have_units_that_fit() {
        let spans = [0.000_05, 0.25, 12.34, 61.0, 3_700.0, 90_000.0].map(|s| span(Duration::from_secs_f64(s)));
        assert_eq!(spans, ["50 µs", "250 ms", "12.3 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
        assert_eq!([10, 2048, 3 << 20].map(size), ["10 B", "2.0 KiB", "3.0 MiB"]);
    }

    #[test]
    fn the_next_page_keeps_the_filters() {
        let link = next_link("/runs", Some("state=failed&state=running&q=&after=old"), Some("new")).into_string();
        assert!(link.contains("/runs?state=failed&amp;state=running&amp;after=new"), "{link}");
        assert_eq!(next_link("/runs", None, None::<String>).into_string(), "");
    }
}
