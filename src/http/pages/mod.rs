//! Pages for people who look after the service: what runs, what failed and why, and a way to do it again.
//!
//! They are written on the server and work without JavaScript; the one script only reads a page again when something
//! happened, and adds log lines as they come. Forms are answered by a redirect, so that reloading a page does nothing
//! twice. Whatever comes from a state or a log is text, never markup.

mod assets;
pub mod docs;
mod json;
pub mod layout;
mod messages;
mod queue;
mod run;
mod runs;
mod session;
mod workflows;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::{App, Problem, Scope};

/// Nothing but the program's own files, no inline script or style, no frame around a page, and forms that stay here.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub fn routes(app: &App) -> Router<App> {
    let guarded = |router: Router<App>, scope| router.route_layer(from_fn_with_state((app.clone(), scope), allow));
    let reading = Router::new()
        .route("/", get(async || Redirect::to("/runs")))
        .route("/runs", get(runs::list))
        .route("/runs/{id}", get(run::show))
        .route("/tasks/{id}/input", get(run::input))
        .route("/attempts/{id}/output", get(run::output))
        .route("/attempts/{id}/log", get(run::log))
        .route("/workflows", get(workflows::list))
        .route("/messages", get(messages::list))
        .route("/messages/{id}", get(messages::show))
        .route("/messages/{id}/data", get(messages::data))
        .route("/queue", get(queue::show));
    let acting = Router::new()
        .route("/runs/{id}/retry", post(run::retry))
        .route("/runs/{id}/cancel", post(run::cancel))
        .route("/workflows/{name}/run", post(workflows::start))
        .route("/messages/{id}/replay", post(messages::replay))
        .route("/queue/redrive", post(queue::redrive));
    Router::new()
        .merge(guarded(reading, Scope::Read))
        .merge(guarded(acting, Scope::Write))
        .route("/sign-in", get(session::form).post(session::sign_in))
        .route("/sign-out", post(session::sign_out))
        .merge(docs::routes())
        .layer(from_fn(dress))
        .route("/assets/{name}", get(assets::serve))
}

/// Lets those through who are signed in and may do what is behind it, and shows others where to sign in.
async fn allow(
    State((app, scope)): State<(App, Scope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    match app.access.authorize(request.headers(), scope).await {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            Ok(next.run(request).await)
        }
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => Ok(sign_in_first(&request).into_response()),
        Err(problem) => Err(problem),
    }
}

fn sign_in_first(request: &Request) -> Redirect {
    let target = request.uri().path_and_query().map_or("/runs", |target| target.as_str());
    match *request.method() {
        Method::GET => {
            let next = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", target).finish();
            Redirect::to(&format!("/sign-in?{next}"))
        }
        _ => Redirect::to("/sign-in"),
    }
}

/// Shows problems as pages, and tells browsers what a page may do.
pub async fn dress(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let page = layout::problem(&problem).into_response();
        let (mut parts, _) = response.into_parts();
        let (page, body) = page.into_parts();
        parts.headers.extend(page.headers);
        response = Response::from_parts(parts, body);
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        // Browsers say where a form comes from only if they may.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
