//! `/metrics` for Prometheus, and what is measured of requests.
//!
//! Requests are counted by the template of their route: paths are the client's choice, and there is no end to them.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::{counter, histogram};

use super::{App, Problem, Scope};
use crate::engine;
use crate::store::sqlite;
use crate::telemetry::metrics::{Kind, Metric, PROCESS, SHORT, install, render};

const REQUESTS: &str = "fnhost_http_requests_total";
const REQUEST_SECONDS: &str = "fnhost_http_request_duration_seconds";

/// What Prometheus calls the format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

const METRICS: &[Metric] = &[
    Metric {
        name: REQUESTS,
        kind: Kind::Counter,
        labels: &["route", "method", "status"],
        help: "HTTP requests, by template of the route, method and status; `none` is a path without a route",
    },
    Metric {
        name: REQUEST_SECONDS,
        kind: Kind::Histogram(SHORT),
        labels: &["route", "method"],
        help: "Until the head of the answer was there, in seconds",
    },
];

/// Starts to count, in all rooms of the server.
pub fn start_metrics() -> Result<(), String> {
    install(&[PROCESS, METRICS, engine::metrics::METRICS, sqlite::METRICS])
}

pub fn routes() -> Router<App> {
    Router::new().route("/metrics", get(page))
}

async fn page(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    if !app.config.open_metrics {
        app.access.authorize(&headers, Scope::Metrics).await?;
    }
    app.engine.read_gauges().await;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], render()).into_response())
}

/// Measures a request that was answered. `route`: the template of its path.
pub fn answered(route: String, method: &Method, status: StatusCode, took: Duration) {
    if let Some(reason) = refusal(&route, status) {
        engine::metrics::refused(reason);
    }
    let method = known(method);
    histogram!(REQUEST_SECONDS, "route" => route.clone(), "method" => method).record(took);
    counter!(REQUESTS, "route" => route, "method" => method, "status" => status.as_u16().to_string()).increment(1);
}

/// A client may invent methods.
fn known(method: &Method) -> &'static str {
    const METHODS: [&str; 9] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// Why a message was turned away before it reached the engine. What the engine turns away it counts itself.
fn refusal(route: &str, status: StatusCode) -> Option<&'static str> {
    if !(route.starts_with("/inbox") || route.starts_with("/i/")) {
        return None;
    }
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Some("malformed"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some("unauthorized"),
        StatusCode::NOT_FOUND | StatusCode::GONE => Some("unknown"),
        StatusCode::METHOD_NOT_ALLOWED => Some("method"),
        StatusCode::REQUEST_TIMEOUT => Some("too_slow"),
        StatusCode::PAYLOAD_TOO_LARGE => Some("too_large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Some("media_type"),
        StatusCode::TOO_MANY_REQUESTS => Some("rate_limited"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_are_refused_as_messages() {
        assert_eq!(refusal("/inbox", StatusCode::BAD_REQUEST), Some("malformed"));
        assert_eq!(refusal("/i/{*path}", StatusCode::UNAUTHORIZED), Some("unauthorized"));
        assert_eq!(refusal("/inbox", StatusCode::ACCEPTED), None);
        assert_eq!(refusal("/api/v1/runs", StatusCode::BAD_REQUEST), None);
    }

    #[test]
    fn invented_methods_are_one() {
        assert_eq!(known(&Method::PATCH), "PATCH");
        assert_eq!(known(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
