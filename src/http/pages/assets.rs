//! The style sheet, the script and the icon, from within the program. Their addresses hold a hash of what they are, so
//! that browsers keep them for as long as they do not change.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::docs;

/// A file that pages refer to.
pub struct Asset {
    name: String,
    kind: &'static str,
    text: Cow<'static, str>,
}

impl Asset {
    pub fn new(stem: &str, extension: &str, kind: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        let hash: String = Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { name: format!("{stem}-{hash}.{extension}"), kind, text }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it is served.
    pub fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

pub static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("style.css")));
pub static LIVE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("live", "js", "text/javascript; charset=utf-8", include_str!("live.js")));
pub static SEARCH: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("search", "js", "text/javascript; charset=utf-8", include_str!("search.js")));
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("icon.svg")));

pub async fn serve(Path(name): Path<String>) -> Response {
    match [&*STYLE, &*LIVE, &*SEARCH, &*docs::INDEX, &*ICON].into_iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let headers =
                [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
            (headers, asset.text()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
