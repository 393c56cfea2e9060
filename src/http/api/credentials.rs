//! Credentials: names can be read, secrets can only be written.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::List;
use super::request::{Body, unprocessable};
use crate::http::{App, Problem};

/// Characters of a name at most.
const LONGEST_NAME: usize = 200;

pub fn managing() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_credentials)).routes(routes!(put_credential, delete_credential))
}

/// A named secret; what is in it is never given away.
#[derive(Serialize, ToSchema)]
#[schema(as = Credential)]
struct CredentialView {
    name: String,
}

/// List the names of the credentials in the store
#[utoipa::path(
    get,
    path = "/credentials",
    tag = "credentials",
    responses((status = 200, body = List<CredentialView>))
)]
async fn list_credentials(State(app): State<App>) -> Result<Json<List<CredentialView>>, Problem> {
    let names = app.engine.store().credentials().await?;
    Ok(Json(List::whole(names.into_iter().map(|name| CredentialView { name }).collect())))
}

/// Set a credential
///
/// The body is what a job gets as `state.configuration`, from its next run on. It is sealed before it is kept.
#[utoipa::path(
    put,
    path = "/credentials/{name}",
    tag = "credentials",
    params(("name" = String, Path)),
    request_body(content = Object, example = json!({ "username": "ana", "password": "…" })),
    responses((status = 204, description = "It is kept."))
)]
async fn put_credential(
    State(app): State<App>,
    Path(name): Path<String>,
    Body(secret): Body<BTreeMap<String, Value>>,
) -> Result<StatusCode, Problem> {
    if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(unprocessable(format!("a name has at most {LONGEST_NAME} characters, none of them invisible")));
    }
    let text = serde_json::to_vec(&secret).map_err(|error| unprocessable(error.to_string()))?;
    let sealed = app.secret_key.seal(&name, &text);
    app.engine.store().put_credential(&name, sealed, app.engine.now()).await?;
    app.engine.refresh().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Delete a credential
#[utoipa::path(
    delete,
    path = "/credentials/{name}",
    tag = "credentials",
    params(("name" = String, Path)),
    responses((status = 204, description = "It is gone."))
)]
async fn delete_credential(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    match app.engine.store().delete_credential(&name).await? {
        true => {
            app.engine.refresh().await?;
            Ok(StatusCode::NO_CONTENT)
        }
        false => Err(Problem::not_found(format!("credential `{name}` in the store"))),
    }
}
