//! Errors as clients see them: problem documents (RFC 9457). What went wrong inside stays inside.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::{ActionError, EngineError};
use crate::store::StoreError;

/// A problem document.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// What kind of problem it is, for programs; never changes.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "about:blank")]
    kind: String,
    #[schema(value_type = String)]
    title: Cow<'static, str>,
    #[serde(serialize_with = "status_code")]
    #[schema(value_type = u16)]
    status: StatusCode,
    /// What is wrong with this request, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

fn status_code<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem that its status explains.
    pub fn new(status: StatusCode) -> Self {
        Self {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status,
            detail: None,
            retry_after: None,
        }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST).with_detail(detail)
    }

    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND).with_detail(format!("there is no {what}"))
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Tells the client when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Bearer realm=\"fnhost\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        // For those who show it in another form.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a request failed at the store");
        match error {
            StoreError::Overloaded => Self::new(StatusCode::SERVICE_UNAVAILABLE)
                .with_detail("there is more to keep than the store can keep up with; try again soon")
                .retry_after(Duration::from_secs(1)),
            StoreError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE)
                .with_detail("the store is not available; nothing was kept")
                .retry_after(Duration::from_secs(5)),
            StoreError::Broken(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE)
                .with_detail("the service is stopping")
                .retry_after(Duration::from_secs(5)),
            EngineError::Undecided { .. } => {
                tracing::warn!(%error, "a message was refused");
                Self::new(StatusCode::SERVICE_UNAVAILABLE)
                    .with_detail("whether the message is for a trigger could not be found out; nothing was kept")
                    .retry_after(Duration::from_secs(5))
            }
        }
    }
}

impl From<ActionError> for Problem {
    fn from(error: ActionError) -> Self {
        match error {
            ActionError::Engine(error) => error.into(),
            ActionError::NotFound(what) => Self::not_found(what),
            ActionError::Conflict(reason) => Self::new(StatusCode::CONFLICT).with_detail(reason),
        }
    }
}
