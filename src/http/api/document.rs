//! The OpenAPI document, made from the handlers.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::events::EventType;
use super::{BASE, acting, managing, reading};
use crate::http::{App, Problem, Scope};

const TAGS: [(&str, &str); 9] = [
    ("runs", "Executions of workflows."),
    ("tasks", "The queue, item by item: each step of each run."),
    ("attempts", "Tries of tasks, with the states they left and what they logged."),
    ("messages", "What arrived, by topic."),
    ("workflows", "What is served."),
    ("events", "What happens, as it happens."),
    ("service", "The service itself."),
    ("tokens", "Who may use the service."),
    ("credentials", "Secrets of jobs and webhooks."),
];

const DESCRIPTION: &str = "\
Runs, messages and the queue of this service.

Send a token as `Authorization: Bearer`. Reading needs the scope `read`, acting `write`, and tokens and credentials \
`admin`; a token with `admin` may do everything.

Lists come a page at a time, the newest first: `next` of a page is `after` of the following one. Times are RFC 3339, \
ids are UUIDs. Errors are problem documents (RFC 9457).";

/// The name of the security scheme.
const TOKEN: &str = "token";

/// The document as JSON text.
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let text = serde_json::to_string_pretty(&openapi()).expect("the document is plain data");
        text + "\n"
    });
    &TEXT
}

pub async fn json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

pub fn openapi() -> OpenApi {
    let info = InfoBuilder::new().title("fnhost").version("1").description(Some(DESCRIPTION)).build();
    let tags = TAGS.map(|(name, description)| TagBuilder::new().name(name).description(Some(description)).build());
    let mut components = Components::new();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
    // What handlers refer to only in errors and in lists of parameters.
    components.schemas.insert(Problem::name().into(), Problem::schema());
    components.schemas.insert(EventType::name().into(), EventType::schema());
    let base = OpenApiBuilder::new().info(info).tags(Some(tags)).components(Some(components)).build();
    let operations =
        scoped(reading(), &Scope::Read).merge(scoped(acting(), &Scope::Write)).merge(scoped(managing(), &Scope::Admin));
    OpenApiRouter::with_openapi(base).nest(BASE, operations).into_openapi()
}

/// Says of each operation which scope it needs, and what its errors are.
fn scoped(mut router: OpenApiRouter<App>, scope: &Scope) -> OpenApiRouter<App> {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
    let error = ResponseBuilder::new().description("A problem.").content("application/problem+json", problem).build();
    for operation in router.get_openapi_mut().paths.paths.values_mut().flat_map(operations) {
        operation.security = Some(vec![SecurityRequirement::new(TOKEN, [scope.to_string()])]);
        operation.responses.responses.insert("default".into(), error.clone().into());
    }
    router
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}
