//! For whoever watches the service: is it alive, and may it be sent work?

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::App;

/// How long an answer of the store is believed: many may ask, and each would have it write.
const MEMORY: Duration = Duration::from_millis(100);

pub fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .layer(Extension(LastCheck::default()))
}

/// When the store was asked last, and whether it works.
type LastCheck = Arc<Mutex<Option<(Instant, bool)>>>;

async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn ready(State(app): State<App>, Extension(last): Extension<LastCheck>) -> (StatusCode, Json<Value>) {
    let checks = [
        ("accepting", !app.engine.is_stopping(), "the service is stopping"),
        ("serving", !app.engine.served().workflows.is_empty(), "no workflow is being served yet"),
        ("store", store_works(&app, &last).await, "the store cannot be written"),
    ];
    let report: Value = checks
        .iter()
        .map(|(name, passes, reason)| ((*name).to_owned(), json!(if *passes { "ok" } else { reason })))
        .collect::<serde_json::Map<_, _>>()
        .into();
    match checks.iter().all(|(_, passes, _)| *passes) {
        true => (StatusCode::OK, Json(json!({ "status": "ready", "checks": report }))),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "checks": report }))),
    }
}

async fn store_works(app: &App, last: &LastCheck) -> bool {
    let mut last = last.lock().await;
    match *last {
        Some((at, works)) if at.elapsed() < MEMORY => works,
        _ => {
            let works = app.engine.store().check().await.is_ok();
            *last = Some((Instant::now(), works));
            works
        }
    }
}
