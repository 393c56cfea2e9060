//! The inbox: messages for whichever workflows they match.
//!
//! `POST /inbox` is OpenFn's microservice's: same address, same answers, plus the ids of what came of the message. Other
//! topics are under `/inbox/<topic>`. A message is kept on every topic whose name is sound, whether or not anybody
//! listens: who listens can change, and messages can be replayed.
//!
//! | answer | when |
//! |---|---|
//! | 202 | the message is kept; nobody waits, or its runs take longer than its sender waits |
//! | 200, 201, 206 | its sender waited: nothing matched, all runs completed, some did not |
//! | 422 | the idempotency key came before, with another body |
//!
//! Whether the sender waits is a setting (`ENDPOINT_STYLE`) that each request can overrule: see [`super::delivery`].

use axum::Json;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::access::Scope;
use super::body::{self, Bodies};
use super::delivery::Wait;
use super::intake::{self, Taken};
use super::{App, Problem};
use crate::config::{EndpointStyle, HttpConfig};
use crate::engine::{Receipt, Target};
use crate::model::{RunState, TaskState};
use crate::store::{RunDetail, StoreError};

/// The topic of messages that name none.
const INBOX: &str = "inbox";
/// What the microservice says to everyone.
const ACCEPTED: &str = "Data accepted and processing has begun.";

pub fn routes() -> Router<App> {
    Router::new().route("/inbox", post(inbox)).route("/inbox/", post(inbox)).route("/inbox/{topic}", post(topic))
}

async fn inbox(state: State<App>, bodies: Extension<Bodies>, request: Request) -> Result<Response, Problem> {
    receive(state, bodies, INBOX, request).await
}

async fn topic(
    state: State<App>,
    bodies: Extension<Bodies>,
    topic: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(Path(topic)) = topic.ok().filter(|topic| is_topic(topic)) else {
        return Err(Problem::bad_request(
            "this cannot be the name of a topic: write letters, digits, `.`, `_` and `-`, 255 bytes at most",
        ));
    };
    receive(state, bodies, &topic, request).await
}

fn is_topic(name: &str) -> bool {
    let is_fit = |c: char| c.is_alphanumeric() || "._-".contains(c);
    (1..=255).contains(&name.len()) && name.chars().all(is_fit) && name.chars().any(|c| c != '.')
}

async fn receive(
    State(app): State<App>,
    Extension(bodies): Extension<Bodies>,
    topic: &str,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if app.config.keyed_topics.iter().any(|keyed| keyed == "*" || keyed == topic) {
        app.access.authorize(&parts.headers, Scope::InboxTopic(topic.to_owned())).await?;
    }
    let body = body::collect(body).await?;
    let wait = |asked| wait(&app.config, asked);
    let Taken { receipt, wait } = intake::take_in(&app, &bodies, Target::Topic(topic), (&parts, body), wait).await?;
    // Whoever waits needs nothing of the request any more.
    drop(parts);
    let mut response = answer(&app, &receipt, wait).await?;
    let location = format!("/api/v1/messages/{}", receipt.message);
    let headers = response.headers_mut();
    headers.extend(location.parse().map(|location| (header::LOCATION, location)));
    if receipt.duplicate {
        headers.insert(HeaderName::from_static("idempotency-replayed"), "true".parse().expect("a header value"));
    }
    Ok(response)
}

fn wait(config: &HttpConfig, asked: Wait) -> Option<std::time::Duration> {
    match (asked, config.endpoint_style) {
        (Wait::No, _) | (Wait::AsConfigured, EndpointStyle::Async) => None,
        (Wait::AtMost(most), _) => Some(most),
        (Wait::Yes, _) | (Wait::AsConfigured, EndpointStyle::Sync) => Some(config.wait_limit.0),
    }
}

async fn answer(app: &App, receipt: &Receipt, wait: Option<std::time::Duration>) -> Result<Response, Problem> {
    let Some(wait) = wait else { return Ok(accepted(receipt)) };
    match intake::ends(app, &receipt.runs, wait).await? {
        Some(runs) => Ok(ended(app, receipt, &runs).await?),
        None => {
            let mut response = accepted(receipt);
            response.headers_mut().insert(header::RETRY_AFTER, 5.into());
            Ok(response)
        }
    }
}

/// The message is kept, and its runs will be done.
fn accepted(receipt: &Receipt) -> Response {
    let workflows: Vec<&str> = receipt.runs.iter().map(|(_, workflow)| workflow.as_str()).collect();
    let runs: Vec<_> = receipt.runs.iter().map(|(run, _)| run).collect();
    let meta = json!({ "message": ACCEPTED, "message_id": receipt.message, "run_ids": runs });
    (StatusCode::ACCEPTED, Json(json!({ "meta": meta, "data": workflows, "errors": [] }))).into_response()
}

/// All runs have ended.
async fn ended(app: &App, receipt: &Receipt, runs: &[RunDetail]) -> Result<Response, StoreError> {
    let mut jobs = Vec::with_capacity(runs.len());
    let mut success = true;
    for detail in runs {
        let exit_code = exit_code(detail);
        success &= exit_code == 0 && detail.run.state == RunState::Completed;
        jobs.push(json!({
            "log": log(app, detail).await?,
            "exit_code": exit_code,
            "workflow": detail.run.workflow,
            "run_id": detail.run.id,
        }));
    }
    let status = match (runs.is_empty(), success) {
        (true, _) => StatusCode::OK,
        (false, true) => StatusCode::CREATED,
        (false, false) => StatusCode::PARTIAL_CONTENT,
    };
    let meta = json!({ "message_id": receipt.message });
    let body = json!({ "jobs": jobs, "success": success, "match_count": runs.len(), "meta": meta });
    Ok((status, Json(body)).into_response())
}

/// How the job that the message was for ended, whatever followed it: as `core`, which the microservice ran jobs with, would
/// have. 10 if it could not be started.
fn exit_code(detail: &RunDetail) -> u8 {
    let Some((task, attempts)) = detail.tasks.first() else { return 1 };
    let failure = attempts.last().and_then(|attempt| attempt.failure.as_ref());
    match (task.state, failure) {
        (TaskState::Completed, _) => 0,
        (_, Some(failure)) if failure.class == "PrepareError" => 10,
        _ => 1,
    }
}

/// What all attempts of a run logged, one line each, as `fnhost run` prints them; then why it failed.
async fn log(app: &App, detail: &RunDetail) -> Result<Vec<String>, StoreError> {
    let mut lines = Vec::new();
    for attempt in detail.tasks.iter().flat_map(|(_, attempts)| attempts) {
        let log = app.engine.store().log(attempt.id).await?.unwrap_or_default();
        lines.extend(log.lines().filter_map(printed));
    }
    if let Some(failure) = &detail.run.failure {
        lines.push(format!("[R/T] ✘ {}: {}", failure.class, failure.message));
    }
    Ok(lines)
}

fn printed(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some(format!("[{}] {}", line["source"].as_str()?, line["message"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_names_that_are_safe_everywhere() {
        for name in ["inbox", "a.b-c_D9", "données", "...x"] {
            assert!(is_topic(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "a\0", "a%", &"a".repeat(256)] {
            assert!(!is_topic(name), "{name:?}");
        }
    }
}
