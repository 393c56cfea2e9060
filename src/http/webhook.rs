//! Webhooks: an address for one workflow, `/i/<path>`, with the answers that OpenFn's Lightning gives.
//!
//! | answer | when |
//! |---|---|
//! | 200 | the message is kept: `{"work_order_id": ...}` |
//! | as configured, or as the job says | the run has ended, if the webhook replies after completion |
//! | 401, 404 | no credentials, wrong credentials: who has none must not learn which paths there are |
//! | 403 | the webhook is switched off |
//! | 504 | the run goes on, and its sender has waited long enough |
//!
//! A job says what its webhook answers with `state.webhookResponse`, `{status, headers, body}`; the last step that sets
//! it wins.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::access::basic;
use super::body::{self, Bodies};
use super::intake::{self, Taken};
use super::signature::{self, Refusal};
use super::{App, Problem};
use crate::engine::{Receipt, Target};
use crate::model::{
    Attempt, AuthScheme, Reply, Run, RunState, Severity, Task, TaskInput, Timestamp, Webhook, WebhookAuth,
};
use crate::store::{RunDetail, StoreError};

const WORK_ORDER: HeaderName = HeaderName::from_static("x-meta-work-order-id");
const RUN: HeaderName = HeaderName::from_static("x-meta-run-id");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub fn routes() -> Router<App> {
    Router::new().route("/i/{path}", get(found).post(receive))
}

async fn found(State(app): State<App>, Path(path): Path<String>) -> Response {
    match app.engine.served().webhook(&path) {
        Some(_) => Json(json!({
            "message": "OpenFn webhook trigger found. Make a POST request to execute this workflow.",
        }))
        .into_response(),
        None => refused(StatusCode::NOT_FOUND, "Webhook not found"),
    }
}

async fn receive(
    State(app): State<App>,
    Extension(bodies): Extension<Bodies>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    answer(&app, &bodies, &path, request).await.unwrap_or_else(failed)
}

async fn answer(app: &App, bodies: &Bodies, path: &str, request: Request) -> Result<Response, Problem> {
    let served = app.engine.served();
    let Some((entrances, webhook)) = served.webhook(path) else {
        return Ok(match served.workflows.is_empty() {
            true => failed(
                Problem::new(StatusCode::SERVICE_UNAVAILABLE)
                    .with_detail("no workflow is being served yet")
                    .retry_after(Duration::from_secs(2)),
            ),
            false => refused(StatusCode::NOT_FOUND, "Webhook not found"),
        });
    };
    let (parts, body) = request.into_parts();
    let refusal = |body: &[u8]| refusal(app, webhook, &parts.headers, body);
    // Only a signature is a reason to read what somebody sends who may be nobody.
    let is_signed = webhook.auth.iter().any(|auth| matches!(auth.scheme, AuthScheme::Signature(_)));
    if !is_signed && let Some(refusal) = refusal(&[]) {
        return Ok(refusal);
    }
    let body = body::collect(body).await?;
    if is_signed && let Some(refusal) = refusal(&body) {
        return Ok(refusal);
    }
    let wait = match webhook.reply {
        Reply::BeforeStart => None,
        Reply::AfterCompletion { .. } => Some(app.config.wait_limit.0),
    };
    let taken = intake::take_in(app, bodies, Target::Webhook(entrances), (&parts, body), |_| wait).await?;
    // Whoever waits needs nothing of the request any more.
    drop(parts);
    let mut response = match (webhook.reply, taken.wait) {
        (Reply::AfterCompletion { success_code, error_code }, Some(wait)) => {
            completed(app, &taken, wait, (success_code, error_code)).await?
        }
        _ => Json(json!({ "work_order_id": taken.receipt.message })).into_response(),
    };
    name_ids(&mut response, &taken.receipt);
    Ok(response)
}

/// What failed, in Lightning's words.
pub fn failed(problem: Problem) -> Response {
    let error = problem.status().canonical_reason().unwrap_or("Error");
    let body = match problem.detail() {
        Some(detail) => json!({ "error": error, "message": detail }),
        None => json!({ "error": error }),
    };
    // The problem's own headers, such as when to try again, hold here, too.
    let (mut parts, _) = problem.into_response().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(parts, Body::from(body.to_string()))
}

fn refused(status: StatusCode, error: &str) -> Response {
    let mut response = (status, Json(json!({ "error": error }))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"webhook\""));
    }
    response
}

fn name_ids(response: &mut Response, receipt: &Receipt) {
    let headers = response.headers_mut();
    headers.extend(receipt.message.to_string().parse().map(|id| (WORK_ORDER, id)));
    if let Some((run, _)) = receipt.runs.first() {
        headers.extend(run.to_string().parse().map(|id| (RUN, id)));
    }
    if receipt.duplicate {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
}

/// Whether a request may start the workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Permit {
    NoCredentials,
    WrongCredentials,
    Granted,
}

/// The answer to who may not start the workflow.
fn refusal(app: &App, webhook: &Webhook, headers: &HeaderMap, body: &[u8]) -> Option<Response> {
    match permitted(app, webhook, headers, body) {
        Permit::NoCredentials => Some(refused(StatusCode::UNAUTHORIZED, "Unauthorized")),
        Permit::WrongCredentials => Some(refused(StatusCode::NOT_FOUND, "Webhook not found")),
        Permit::Granted if !webhook.enabled => {
            let error = json!({ "error": "trigger_disabled", "message": "This webhook is switched off." });
            Some((StatusCode::FORBIDDEN, Json(error)).into_response())
        }
        Permit::Granted => None,
    }
}

fn permitted(app: &App, webhook: &Webhook, headers: &HeaderMap, body: &[u8]) -> Permit {
    let served = app.engine.served();
    let now = app.engine.now().as_micros() as u64 / 1_000_000;
    let check = |auth: &WebhookAuth| match served.credentials.get(&auth.credential) {
        Some(credential) => check(&auth.scheme, credential, headers, body, now),
        None => {
            tracing::warn!(credential = auth.credential, "a webhook asks for a credential that is not there");
            Permit::NoCredentials
        }
    };
    match webhook.auth.is_empty() {
        true => Permit::Granted,
        false => webhook.auth.iter().map(check).max().unwrap_or(Permit::NoCredentials),
    }
}

fn check(scheme: &AuthScheme, credential: &Value, headers: &HeaderMap, body: &[u8], now: u64) -> Permit {
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = |wanted: &str| {
        let (scheme, rest) = header(header::AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case(wanted).then(|| rest.trim())
    };
    let matches = match scheme {
        AuthScheme::Basic => authorization("basic").map(|encoded| {
            basic(encoded).is_some_and(|(user, password)| {
                is_one_of(&user, &texts(credential, "username")) & is_one_of(&password, &texts(credential, "password"))
            })
        }),
        AuthScheme::ApiKey => {
            header(HeaderName::from_static("x-api-key")).map(|key| is_one_of(key, &texts(credential, "key")))
        }
        AuthScheme::Bearer => authorization("bearer").map(|token| is_one_of(token, &texts(credential, "token"))),
        AuthScheme::Signature(scheme) => {
            match signature::verify(scheme, &texts(credential, "secret"), headers, body, now) {
                Ok(()) => Some(true),
                Err(Refusal::Missing) => None,
                Err(Refusal::Wrong | Refusal::Stale) => Some(false),
            }
        }
    };
    match matches {
        None => Permit::NoCredentials,
        Some(false) => Permit::WrongCredentials,
        Some(true) => Permit::Granted,
    }
}

/// The secrets of a credential under a name: one text, or a list while one replaces another.
fn texts<'a>(credential: &'a Value, name: &str) -> Vec<&'a str> {
    let values = match credential.get(name) {
        Some(Value::Array(items)) => items.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    };
    values.iter().filter_map(Value::as_str).filter(|secret| !secret.is_empty()).collect()
}

/// Takes the same time wherever the texts differ, and however long they are.
fn is_one_of(given: &str, secrets: &[&str]) -> bool {
    let given = Sha256::digest(given);
    let equal = |secret: &&str| Sha256::digest(secret).ct_eq(&given);
    secrets.iter().map(equal).fold(subtle::Choice::from(0), |any, one| any | one).into()
}

/// The answer after the runs.
async fn completed(app: &App, taken: &Taken, wait: Duration, codes: (u16, u16)) -> Result<Response, Problem> {
    let Some(runs) = intake::ends(app, &taken.receipt.runs, wait).await? else {
        let error = json!({ "error": "timeout", "work_order_id": taken.receipt.message });
        return Ok((StatusCode::GATEWAY_TIMEOUT, Json(error)).into_response());
    };
    let Some(detail) = runs.first() else {
        return Ok(Json(json!({ "work_order_id": taken.receipt.message })).into_response());
    };
    let own = webhook_response(app, detail).await?;
    let succeeded = detail.run.state == RunState::Completed;
    let code = if succeeded { codes.0 } else { codes.1 };
    let status = own.as_ref().and_then(|own| own.status()).or_else(|| StatusCode::from_u16(code).ok());
    let status = status.unwrap_or(StatusCode::CREATED);
    let mut headers = own.as_ref().map(WebhookResponse::headers).unwrap_or_default();
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        headers.remove(header::CONTENT_TYPE);
        return Ok((status, headers).into_response());
    }
    let (kind, body) = match own.and_then(|own| own.body(&headers)) {
        Some(body) => body,
        None => ("application/json", envelope(app, detail, taken).await?),
    };
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    Ok((status, headers, body).into_response())
}

/// The final state, and what became of the run.
async fn envelope(app: &App, detail: &RunDetail, taken: &Taken) -> Result<String, StoreError> {
    let run = &detail.run;
    let data = match run.state {
        RunState::Completed => final_state(app, detail).await?,
        state => {
            let message = format!("The run ended as {}. Its state is not part of this answer.", word(run, state));
            json!({ "message": message }).to_string()
        }
    };
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let meta = json!({
        "work_order_id": taken.receipt.message,
        "run_id": run.id,
        "state": word(run, run.state),
        "error_type": run.failure.as_ref().map(|failure| &failure.class),
        "inserted_at": time(Some(run.created_at)),
        "started_at": time(run.started_at),
        "claimed_at": time(run.started_at),
        "finished_at": time(run.finished_at),
    });
    Ok(format!(r#"{{"data":{data},"meta":{meta}}}"#))
}

/// Lightning's word for how a run ended.
fn word(run: &Run, state: RunState) -> &'static str {
    match (state, &run.failure) {
        (RunState::Completed, _) => "success",
        (RunState::Cancelled, _) => "cancelled",
        (_, Some(failure)) if failure.is_lost() => "lost",
        (_, Some(failure)) => match failure.severity {
            Severity::Fail => "failed",
            Severity::Crash => "crashed",
            Severity::Kill => "killed",
            Severity::Exception => "exception",
        },
        (_, None) => "failed",
    }
}

/// The last attempt at each task, those that ended first in front.
fn last_attempts(detail: &RunDetail) -> Vec<(&Task, &Attempt)> {
    let mut last: Vec<_> = detail.tasks.iter().filter_map(|(task, attempts)| Some((task, attempts.last()?))).collect();
    last.sort_by_key(|(_, attempt)| attempt.finished_at);
    last
}

/// What the run left: the state of the step that nothing follows; of several, each under the step's name.
async fn final_state(app: &App, detail: &RunDetail) -> Result<String, StoreError> {
    let is_followed = |attempt: &Attempt| {
        detail.tasks.iter().any(|(task, _)| matches!(task.input, TaskInput::Output(from) if from == attempt.id))
    };
    let mut leaves = Vec::new();
    for (task, attempt) in last_attempts(detail).into_iter().filter(|(_, attempt)| !is_followed(attempt)) {
        let state = app.engine.store().output(attempt.id).await?.unwrap_or_else(|| "{}".into());
        leaves.push((task.step.as_str(), state));
    }
    if let [(_, state)] = &mut leaves[..] {
        return Ok(std::mem::take(state));
    }
    let members: Vec<String> = leaves.iter().map(|(step, state)| format!("{}:{state}", json!(step))).collect();
    Ok(format!("{{{}}}", members.join(",")))
}

/// What a job says that its webhook answers.
#[derive(Deserialize)]
struct WebhookResponse {
    #[serde(default)]
    status: Value,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    body: Option<Box<RawValue>>,
}

async fn webhook_response(app: &App, detail: &RunDetail) -> Result<Option<WebhookResponse>, StoreError> {
    #[derive(Deserialize)]
    struct Output {
        #[serde(rename = "webhookResponse")]
        webhook_response: Option<Box<RawValue>>,
    }
    for (task, attempt) in last_attempts(detail).into_iter().rev() {
        let Some(output) = app.engine.store().output(attempt.id).await? else { continue };
        let said = serde_json::from_str::<Output>(&output).ok().and_then(|output| output.webhook_response);
        let Some(said) = said.filter(|said| said.get() != "null") else { continue };
        match serde_json::from_str(said.get()) {
            Ok(response) => return Ok(Some(response)),
            Err(error) => {
                tracing::warn!(run = %detail.run.id, step = task.step, %error, "state.webhookResponse cannot be read");
                return Ok(None);
            }
        }
    }
    Ok(None)
}

impl WebhookResponse {
    fn status(&self) -> Option<StatusCode> {
        let status = u16::try_from(self.status.as_u64()?).ok().filter(|status| (200..600).contains(status))?;
        StatusCode::from_u16(status).ok()
    }

    /// The headers that are the job's to set.
    fn headers(&self) -> HeaderMap {
        let pairs = self.headers.iter().filter_map(|(name, value)| {
            let name: HeaderName = name.parse().ok().filter(is_the_jobs)?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => return None,
            };
            Some((name, HeaderValue::from_str(&text).ok()?))
        });
        pairs.collect()
    }

    /// Its content type, unless `headers` say another, and the body. A text is sent as it is.
    fn body(&self, headers: &HeaderMap) -> Option<(&'static str, String)> {
        let body = self.body.as_ref()?.get();
        let says_json = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.contains("json"));
        match serde_json::from_str::<String>(body) {
            Ok(text) if !says_json => Some(("text/plain; charset=utf-8", text)),
            _ => Some(("application/json", body.to_owned())),
        }
    }
}

/// Not those that are the connection's, that set cookies for the pages of this server, or that weaken how a browser
/// treats them.
fn is_the_jobs(name: &HeaderName) -> bool {
    const OURS: [&str; 20] = [
        "alt-svc",
        "clear-site-data",
        "connection",
        "content-encoding",
        "content-length",
        "content-security-policy",
        "date",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "server",
        "service-worker-allowed",
        "set-cookie",
        "strict-transport-security",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-content-type-options",
        "x-request-id",
    ];
    let name = name.as_str();
    !OURS.contains(&name) && !name.starts_with("access-control-") && !name.starts_with("x-meta-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(scheme: AuthScheme, credential: Value, header: Option<(&str, &str)>) -> Permit {
        let headers = header.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        check(&scheme, &credential, &headers, b"", 0)
    }

    #[test]
    fn any_of_several_secrets_is_accepted() {
        use Permit::*;
        let keys = json!({ "key": ["old", "new"] });
        for (given, expected) in [("old", Granted), ("new", Granted), ("ne", WrongCredentials), ("", WrongCredentials)]
        {
            assert_eq!(permit(AuthScheme::ApiKey, keys.clone(), Some(("x-api-key", given))), expected, "{given}");
        }
        assert_eq!(permit(AuthScheme::ApiKey, keys.clone(), None), NoCredentials);
        assert_eq!(permit(AuthScheme::ApiKey, keys, Some(("authorization", "Bearer old"))), NoCredentials);
        assert_eq!(permit(AuthScheme::ApiKey, json!({ "key": "" }), Some(("x-api-key", ""))), WrongCredentials);
    }

    #[test]
    fn basic_authentication_needs_user_and_password() {
        let credential = json!({ "username": "jo", "password": "p4ssword" });
        let basic = |header| permit(AuthScheme::Basic, credential.clone(), Some(("authorization", header)));
        assert_eq!(basic("Basic am86cDRzc3dvcmQ="), Permit::Granted);
        assert_eq!(basic("basic am86cDRzc3dvcmQ="), Permit::Granted);
        // "jo:wrong", "al:p4ssword", and what cannot be decoded
        for header in ["Basic am86d3Jvbmc=", "Basic YWw6cDRzc3dvcmQ=", "Basic %"] {
            assert_eq!(basic(header), Permit::WrongCredentials, "{header}");
        }
    }

    fn response(value: Value) -> WebhookResponse {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn a_job_sets_status_headers_and_body_within_bounds() {
        let said = response(json!({
            "status": 202,
            "headers": { "Content-Type": "text/xml", "X-Mine": 7, "Set-Cookie": "a=b", "Connection": "close", "x y": "" },
            "body": "<a/>",
        }));
        assert_eq!(said.status(), Some(StatusCode::ACCEPTED));
        let headers = said.headers();
        assert_eq!(
            (headers.len(), headers["content-type"].as_bytes(), headers["x-mine"].as_bytes()),
            (2, b"text/xml".as_slice(), b"7".as_slice())
        );
        assert_eq!(said.body(&headers).unwrap().1, "<a/>");
        for status in [json!(100), json!(600), json!("201"), json!(-1), json!(null)] {
            assert_eq!(response(json!({ "status": status })).status(), None);
        }
        assert!(response(json!({})).body(&HeaderMap::new()).is_none());
        let object = response(json!({ "body": { "n": 1.5 } }));
        assert_eq!(object.body(&HeaderMap::new()), Some(("application/json", "{\"n\":1.5}".into())));
    }
}
