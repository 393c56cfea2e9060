//! Temporary.
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};

use super::{App, Problem};
use crate::engine::{Incoming, Target};

pub fn routes() -> Router<App> {
    Router::new().route("/inbox", post(receive))
}

async fn receive(State(app): State<App>, body: String) -> Result<Json<serde_json::Value>, Problem> {
    let value: serde_json::Value = serde_json::from_str(&body).map_err(|e| Problem::bad_request(e.to_string()))?;
    let receipt = app
        .engine
        .receive(
            Target::Topic("inbox"),
            Incoming {
                data: body,
                value,
                body: None,
                request: Default::default(),
                dedupe_key: None,
                deliver_at: None,
                priority: Default::default(),
                traceparent: None,
            },
        )
        .await?;
    Ok(Json(serde_json::json!({ "message": receipt.message, "runs": receipt.runs })))
}
