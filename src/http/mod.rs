//! The server: everything that speaks HTTP.
//!
//! It knows the engine and no V8. Ways in are the inbox and webhooks; programs use `/api/v1`, people use the pages, and
//! whoever watches the service uses health and metrics. Every answer that is an error is a problem document (RFC 9457),
//! but where an older system's contract says otherwise.

mod access;
mod api;
mod body;
mod connection;
mod delivery;
mod guard;
mod health;
mod inbox;
mod intake;
mod metrics;
mod pages;
mod problem;
mod request;
mod signature;
mod webhook;

use std::sync::Arc;

use axum::Router;

pub use access::{Access, Identity, NewToken, SESSION_COOKIE, Scope, session_cookie};
pub use api::openapi_document;
pub use connection::{Tls, serve};
pub use metrics::start_metrics;
pub use pages::docs::files as documentation_files;
pub use problem::Problem;

use crate::config::HttpConfig;
use crate::engine::Engine;
use crate::store::SecretKey;

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub engine: Engine,
    pub access: Arc<Access>,
    pub config: Arc<HttpConfig>,
    /// Seals credentials.
    pub secret_key: SecretKey,
}

/// All routes.
pub fn router(app: App) -> Router {
    let routes = Router::new()
        .merge(inbox::routes())
        .merge(webhook::routes())
        .merge(api::routes(&app))
        .merge(pages::routes(&app))
        .merge(health::routes())
        .merge(metrics::routes())
        .layer(axum::Extension(body::Bodies::default()))
        .with_state(app.clone());
    guard::guarded(routes, &app)
}
