//! Tokens: who may use the service, and for what.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::List;
use super::request::{Body, unprocessable};
use crate::http::{App, Problem, Scope};
use crate::model::Timestamp;
use crate::store::Token;

/// Characters of a name at most.
const LONGEST_NAME: usize = 200;

pub fn managing() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_tokens, create_token)).routes(routes!(revoke_token))
}

/// A token, without the token itself: only a hash of it is kept.
#[derive(Serialize, ToSchema)]
#[schema(as = Token)]
struct TokenView {
    id: String,
    name: String,
    scopes: Vec<String>,
    created_at: Timestamp,
    /// `null`: it is in force.
    revoked_at: Option<Timestamp>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        let Token { id, name, scopes, created_at, revoked_at, hash: _ } = token;
        Self { id, name, scopes, created_at, revoked_at }
    }
}

/// List tokens
#[utoipa::path(get, path = "/tokens", tag = "tokens", responses((status = 200, body = List<TokenView>)))]
async fn list_tokens(State(app): State<App>) -> Result<Json<List<TokenView>>, Problem> {
    let tokens = app.engine.store().tokens().await?;
    Ok(Json(List::whole(tokens.into_iter().map(TokenView::from).collect())))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// For people: whose it is.
    name: String,
    /// `read`, `write`, `admin`, `inbox`, `inbox:<topic>`, `metrics`.
    #[schema(example = json!(["read", "write"]))]
    scopes: Vec<String>,
}

/// A token that was just made.
#[derive(Serialize, ToSchema)]
struct CreatedToken {
    /// To be sent as `Authorization: Bearer`. It is shown this once.
    secret: String,
    #[serde(flatten)]
    token: TokenView,
}

/// Make a token
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "tokens",
    request_body = NewToken,
    responses((status = 201, body = CreatedToken))
)]
async fn create_token(
    State(app): State<App>,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    if new.name.trim().is_empty() || new.name.chars().count() > LONGEST_NAME {
        return Err(unprocessable(format!("`name` must have from 1 to {LONGEST_NAME} characters")));
    }
    let scopes: Vec<Scope> =
        new.scopes.iter().map(|scope| scope.parse()).collect::<Result<_, String>>().map_err(unprocessable)?;
    if scopes.is_empty() {
        return Err(unprocessable("`scopes` is empty: such a token would be good for nothing"));
    }
    let created = app.access.create(&new.name, &scopes).await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { secret: created.secret, token: created.token.into() })))
}

/// Revoke a token
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    tag = "tokens",
    params(("id" = String, Path)),
    responses((status = 204, description = "It lets nobody in any more."))
)]
async fn revoke_token(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    match app.access.revoke(&id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found(format!("token `{id}` in force"))),
    }
}
