//! What arrived, and sending it through the triggers once more.

use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{Html, IntoResponse, Redirect};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Page, Place, may_act, next_link, short, size, time};
use super::runs::{Moment, moment_field};
use super::{json, run, runs};
use crate::http::access::Identity;
use crate::http::api::request::{Id, Params, page};
use crate::http::{App, Problem};
use crate::model::{Message, MessageId};
use crate::store::{MessageFilter, PageRequest, RunFilter, TopicSummary};

/// Runs that are shown with their message.
const MOST_RUNS: usize = 50;

/// What the form asks for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    topic: Option<String>,
    since: Option<Moment>,
    until: Option<Moment>,
    q: Option<String>,
    after: Option<MessageId>,
}

pub async fn list(
    State(app): State<App>,
    Extension(person): Extension<Identity>,
    uri: Uri,
    Params(filters): Params<Filters>,
) -> Result<Html<String>, Problem> {
    let filter = MessageFilter {
        topic: filters.topic.clone(),
        since: filters.since.map(|since| since.0),
        until: filters.until.map(|until| until.0),
        text: filters.q.clone(),
    };
    let messages = app.engine.store().messages(filter, page(filters.after, None)?).await?;
    let topics = app.engine.store().topics().await?;
    let live = filters.after.is_none().then(|| "types=run_created".to_owned());
    let page = Page { title: "Messages", place: Place::Messages, person: &person, live };
    Ok(page.around(html! {
        h1 { "Messages" }
        (form(&filters, &topics))
        div #messages data-region {
            (table(&messages.items))
            (next_link("/messages", uri.query(), messages.next))
        }
    }))
}

fn form(filters: &Filters, topics: &[TopicSummary]) -> Markup {
    html! {
        form.filters method="get" action="/messages" {
            label { span { "Topic" }
                select name="topic" {
                    option value="" { "all" }
                    @for topic in topics {
                        option value=(topic.topic) selected[filters.topic.as_ref() == Some(&topic.topic)] {
                            (topic.topic) " (" (topic.messages) ")"
                        }
                    }
                }
            }
            (moment_field("since", "From", filters.since))
            (moment_field("until", "To", filters.until))
            label.grow { span { "Text" }
                input type="search" name="q" value=[filters.q.as_ref()] placeholder="in data, id or key";
            }
            div.buttons {
                button.primary type="submit" { "Filter" }
                a.quiet href="/messages" { "Clear" }
            }
        }
    }
}

fn table(messages: &[Message]) -> Markup {
    if messages.is_empty() {
        return html! { p.empty { "No messages here." } };
    }
    html! {
        table.list {
            thead { tr { th { "Received" } th { "Message" } th { "Topic" } th.number { "Size" } th { "Key" } } }
            tbody {
                @for message in messages {
                    tr {
                        td data-label="Received" { (time(message.received_at)) }
                        td.main { a href={ "/messages/" (message.id) } { code { (short(message.id)) } } }
                        td data-label="Topic" { (message.topic) }
                        td.number data-label="Size" { (size(message.data.len())) }
                        td.error { @if let Some(key) = &message.dedupe_key { code { (key) } } }
                    }
                }
            }
        }
    }
}

pub async fn show(
    State(app): State<App>,
    Extension(person): Extension<Identity>,
    Id(id): Id<MessageId>,
) -> Result<Html<String>, Problem> {
    let store = app.engine.store();
    let message = store.message(id).await?.ok_or_else(|| Problem::not_found(format!("message {id}")))?;
    let filter = RunFilter { message: Some(id), ..RunFilter::default() };
    let started = store.runs(filter, PageRequest { after: None, limit: MOST_RUNS }).await?;
    let title = format!("Message {}", short(id));
    let page = Page {
        title: &title,
        place: Place::Messages,
        person: &person,
        live: Some("types=run_created&types=run_ended".into()),
    };
    let request = serde_json::to_string(&message.request).unwrap_or_default();
    Ok(page.around(html! {
        p.trail {
            a href="/messages" { "Messages" } " / "
            a href={ "/messages?topic=" (message.topic) } { (message.topic) }
        }
        h1 { "Message " code.muted { (short(id)) } }
        dl.facts {
            div { dt { "Topic" } dd { (message.topic) } }
            div { dt { "Received" } dd { (time(message.received_at)) } }
            @if let Some(deliver_at) = message.deliver_at { div { dt { "Deliver at" } dd { (time(deliver_at)) } } }
            @if let Some(key) = &message.dedupe_key { div { dt { "Key" } dd { code { (key) } } } }
            div.wide { dt { "Id" } dd { code { (id) } } }
        }
        @if may_act(&person) {
            div.actions {
                form method="post" action={ "/messages/" (id) "/replay" } {
                    button type="submit" title="Hold it against the triggers as they are now" { "Replay" }
                }
            }
        }
        div #runs data-region {
            h2 { "Runs" }
            (runs::table(&started.items, app.engine.now()))
        }
        h2 { "Data " small.muted { (size(message.data.len())) } }
        (json::shown(&message.data, &format!("/messages/{id}/data")))
        details #request {
            summary { "Request " span.muted { (message.request.method) " " (message.request.path) } }
            (json::shown(&request, &format!("/api/v1/messages/{id}")))
        }
    }))
}

pub async fn data(State(app): State<App>, Id(id): Id<MessageId>) -> Result<impl IntoResponse, Problem> {
    let message = app.engine.store().message(id).await?.ok_or_else(|| Problem::not_found(format!("message {id}")))?;
    Ok(run::download(&format!("message-{}", short(id)), message.data))
}

pub async fn replay(State(app): State<App>, Id(id): Id<MessageId>) -> Result<Redirect, Problem> {
    app.engine.replay(id).await?;
    Ok(Redirect::to(&format!("/messages/{id}")))
}
