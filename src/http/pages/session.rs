//! Signing in: a token for a cookie that scripts cannot read and other sites cannot use.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;

use super::layout::document;
use crate::http::access::{is_from_elsewhere, session_cookie};
use crate::http::api::request::Params;
use crate::http::{App, Problem, Scope};

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Next {
    /// Where to go then.
    next: Option<String>,
}

#[derive(Deserialize)]
pub struct SignIn {
    token: String,
    next: Option<String>,
}

pub async fn form(State(app): State<App>, Params(query): Params<Next>) -> Response {
    let next = local(query.next.as_deref());
    match app.access.is_open() {
        true => Redirect::to(next).into_response(),
        false => page(next, None).into_response(),
    }
}

pub async fn sign_in(
    State(app): State<App>,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Result<Response, Problem> {
    same_origin(&headers)?;
    let next = local(form.next.as_deref());
    let token = form.token.trim();
    let refuse = |reason| Ok((StatusCode::FORBIDDEN, page(next, Some(reason))).into_response());
    match app.access.identify(token).await? {
        None => refuse("This token is not known, or was revoked."),
        Some(identity) if !identity.may(&Scope::Read) => {
            refuse("This token is in force, but may not read: it needs the scope read.")
        }
        Some(_) => Ok(with_cookie(&app, Some(token), next)),
    }
}

pub async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    same_origin(&headers)?;
    Ok(with_cookie(&app, None, "/sign-in"))
}

fn with_cookie(app: &App, token: Option<&str>, next: &str) -> Response {
    let secure = app.config.listen.tls_cert.is_some()
        || app.config.host_url.as_ref().is_some_and(|url| url.starts_with("https:"));
    ([(header::SET_COOKIE, session_cookie(token, secure))], Redirect::to(next)).into_response()
}

/// A page elsewhere could sign a person in under a token of its own.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    match is_from_elsewhere(headers) {
        true => Err(Problem::forbidden("a page of another origin sent this form")),
        false => Ok(()),
    }
}

/// A path of this site: a link to the sign-in page must not lead elsewhere.
fn local(next: Option<&str>) -> &str {
    let stays = |path: &&str| {
        path.starts_with('/') && !path[1..].starts_with(['/', '\\']) && !path.chars().any(char::is_control)
    };
    next.filter(stays).unwrap_or("/runs")
}

fn page(next: &str, refusal: Option<&str>) -> Html<String> {
    document(
        "Sign in",
        html! {
            main.sign-in #content {
                h1 { "fnhost" }
                form method="post" action="/sign-in" {
                    input type="hidden" name="next" value=(next);
                    label for="token" { "Token" }
                    input #token type="password" name="token" required autofocus autocomplete="current-password"
                        placeholder="fnh_…" aria-describedby="hint";
                    @if let Some(refusal) = refusal { p.failure role="alert" { (refusal) } }
                    button.primary type="submit" { "Sign in" }
                }
                p.muted #hint {
                    "The server printed a first token when it was started for the first time. More are made with "
                    code { "fnhost token create" } ". " a href="/docs" { "Documentation" }
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_never_leads_elsewhere() {
        assert_eq!(local(Some("/runs?state=failed")), "/runs?state=failed");
        for elsewhere in ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "", "/\r\nx: y"] {
            assert_eq!(local(Some(elsewhere)), "/runs", "{elsewhere:?}");
        }
    }
}
