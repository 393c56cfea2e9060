//! `/api/v1`: the service for programs.
//!
//! One file per resource. Each says which of its operations read, act or manage, and that decides the scope a token
//! needs: an operation without a scope cannot be written. The OpenAPI document is made from the handlers.

// What utoipa's macros write is qualified.
#![allow(unused_qualifications)]

pub mod attempts;
mod credentials;
mod document;
mod events;
mod list;
mod messages;
pub mod reference;
pub mod request;
mod runs;
mod schema;
mod service;
mod tasks;
mod tokens;
pub mod workflows;

use axum::Router;
use axum::extract::{OriginalUri, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get};
use utoipa_axum::router::OpenApiRouter;

use super::pages::dress;
use super::{App, Problem, Scope};

pub use attempts::LogEntry;
pub use document::document as openapi_document;

/// Where everything here lies.
const BASE: &str = "/api/v1";

fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(runs::reading())
        .merge(tasks::reading())
        .merge(attempts::reading())
        .merge(messages::reading())
        .merge(workflows::reading())
        .merge(service::reading())
        .merge(events::reading())
}

fn acting() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(runs::acting()).merge(tasks::acting()).merge(messages::acting())
}

fn managing() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(tokens::managing()).merge(credentials::managing())
}

pub fn routes(app: &App) -> Router<App> {
    let guarded = |router: OpenApiRouter<App>, scope: Scope| {
        let (router, _) = router.split_for_parts();
        router.route_layer(from_fn_with_state((app.clone(), scope), allow))
    };
    let operations = Router::new()
        .merge(guarded(reading(), Scope::Read))
        .merge(guarded(acting(), Scope::Write))
        .merge(guarded(managing(), Scope::Admin));
    let documents = Router::new()
        .route("/openapi.json", get(document::json))
        .route("/docs", get(reference::page).layer(from_fn(dress)));
    Router::new()
        .nest(BASE, operations.merge(documents))
        .route("/api", any(unknown))
        .route("/api/{*path}", any(unknown))
        .method_not_allowed_fallback(wrong_method)
}

/// Lets only those through who may do what is behind it.
async fn allow(State((app, scope)): State<(App, Scope)>, request: Request, next: Next) -> Result<Response, Problem> {
    app.access.authorize(request.headers(), scope).await?;
    Ok(next.run(request).await)
}

async fn unknown(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND)
        .with_detail(format!("there is nothing at {}; what there is: {BASE}/docs", uri.path()))
}

async fn wrong_method(method: Method) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED)
        .with_detail(format!("{method} cannot be done here; the header Allow says what can"))
}
