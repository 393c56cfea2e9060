//! The documentation as pages: under `/docs`, for everyone, since there is nothing of the project in it; and as files that
//! a browser opens without a server (`fnhost docs --out`).
//!
//! Both are one site with other addresses. The files' are relative and theirs alone, so the directory can lie anywhere.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, PreEscaped, html};
use pulldown_cmark::HeadingLevel;
use serde_json::json;

use super::assets::{Asset, ICON, SEARCH, STYLE};
use super::layout::{Loads, document_that_loads};
use crate::docs::{Page, Target, page, pages};
use crate::http::api::{openapi_document, reference};
use crate::http::{App, Problem};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/docs", get(async || shown("")))
        .route("/docs/", get(async || Redirect::permanent("/docs")))
        .route("/docs/{name}", get(async |Path(name): Path<String>| shown(&name)))
}

/// What the search looks through, as a script: a page that was opened as a file may not read others.
pub static INDEX: LazyLock<Asset> = LazyLock::new(|| {
    let script = search_index(Form::Served);
    Asset::new("docs-index", "js", "text/javascript; charset=utf-8", script)
});

fn shown(name: &str) -> Response {
    static PAGES: LazyLock<BTreeMap<&str, String>> =
        LazyLock::new(|| pages().iter().map(|page| (page.name, Form::Served.page(page))).collect());
    match PAGES.get(name) {
        Some(page) => Html(page.as_str()).into_response(),
        // As the files are called, and as they link to each other.
        None => match name.strip_suffix(".md").and_then(page) {
            Some(page) => Redirect::permanent(&Form::Served.address(Target::Page(page.name))).into_response(),
            None => Problem::new(StatusCode::NOT_FOUND)
                .with_detail(format!("the documentation has no page `{name}`"))
                .into_response(),
        },
    }
}

/// The site as files: names and contents.
pub fn files() -> Vec<(String, Cow<'static, str>)> {
    let form = Form::Files;
    let mut files: Vec<_> =
        pages().iter().map(|page| (form.address(Target::Page(page.name)), form.page(page).into())).collect();
    let Loads { style, icon, script } = form.loads();
    files.extend([
        (form.address(Target::Reference), form.reference().into()),
        ("openapi.json".to_owned(), openapi_document().into()),
        (style, STYLE.text().into()),
        (icon, ICON.text().into()),
        (script, SEARCH.text().into()),
        (form.search_index(), search_index(form).into()),
    ]);
    files
}

/// Where the site is.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Served,
    Files,
}

impl Form {
    fn address(self, target: Target<'_>) -> String {
        match (self, target) {
            (Self::Served, Target::Page("")) => "/docs".to_owned(),
            (Self::Served, Target::Page(name)) => format!("/docs/{name}"),
            (Self::Served, Target::Reference) => "/api/v1/docs".to_owned(),
            (Self::Files, Target::Page("")) => "index.html".to_owned(),
            (Self::Files, Target::Page(name)) => format!("{name}.html"),
            (Self::Files, Target::Reference) => "api.html".to_owned(),
        }
    }

    fn loads(self) -> Loads {
        match self {
            Self::Served => Loads { style: STYLE.path(), icon: ICON.path(), script: SEARCH.path() },
            Self::Files => {
                Loads { style: "style.css".to_owned(), icon: "icon.svg".to_owned(), script: "search.js".to_owned() }
            }
        }
    }

    fn search_index(self) -> String {
        match self {
            Self::Served => INDEX.path(),
            Self::Files => "docs-index.js".to_owned(),
        }
    }

    fn page(self, page: &Page) -> String {
        let content = html! {
            main.documentation {
                article #content { (PreEscaped(page.html(&|target| self.address(target)))) (self.turning(page)) }
                (self.contents(page))
            }
        };
        self.framed(Target::Page(page.name), &page.title, content)
    }

    fn reference(self) -> String {
        self.framed(Target::Reference, "API", reference::content())
    }

    fn framed(self, here: Target<'_>, title: &str, content: Markup) -> String {
        let place = |target: Target<'_>, name: &str| {
            let is_here = (target == Target::Reference) == (here == Target::Reference);
            html! { a href=(self.address(target)) aria-current=[is_here.then_some("page")] { (name) } }
        };
        let body = html! {
            a.skip href="#content" { "Skip to content" }
            header.bar {
                @match self {
                    Self::Served => a.brand href="/runs" { "fnhost" },
                    Self::Files => span.brand { "fnhost" },
                }
                nav aria-label="Main" {
                    @if self == Self::Served { a href="/runs" { "Runs" } }
                    (place(Target::Page(""), "Documentation"))
                    (place(Target::Reference, "API"))
                }
                @match here {
                    Target::Page(_) => a.quiet.to-contents href="#contents" { "Contents" },
                    Target::Reference => a.quiet href="openapi.json" { "openapi.json" },
                }
            }
            (content)
            footer { "fnhost " (env!("CARGO_PKG_VERSION")) }
        };
        let Html(document) = document_that_loads(&self.loads(), title, body);
        document
    }

    /// Links to the pages before and after.
    fn turning(self, page: &Page) -> Markup {
        let at = pages().iter().position(|other| other.name == page.name).unwrap_or_default();
        let before = at.checked_sub(1).and_then(|at| pages().get(at));
        let after = pages().get(at + 1);
        html! {
            nav.turning aria-label="Pages before and after" {
                @if let Some(page) = before {
                    a rel="prev" href=(self.address(Target::Page(page.name))) { "← " (page.title) }
                }
                @if let Some(page) = after {
                    a rel="next" href=(self.address(Target::Page(page.name))) { (page.title) " →" }
                }
            }
        }
    }

    /// All pages, and the sections of this one.
    fn contents(self, here: &Page) -> Markup {
        let sections = || here.sections.iter().filter(|section| section.level == HeadingLevel::H2);
        html! {
            nav #contents aria-label="Contents" {
                // The script makes it a search.
                div #search data-index=(self.search_index()) {}
                ul {
                    @for page in pages() {
                        @let is_here = page.name == here.name;
                        li {
                            a href=(self.address(Target::Page(page.name))) aria-current=[is_here.then_some("page")] {
                                (page.title)
                            }
                            @if is_here && sections().next().is_some() {
                                ul { @for section in sections() { li { a href={ "#" (section.id) } { (section.title) } } } }
                            }
                        }
                    }
                    li { a href=(self.address(Target::Reference)) { "API reference" } }
                }
            }
        }
    }
}

fn search_index(form: Form) -> String {
    let entries = pages().iter().flat_map(|page| {
        let address = form.address(Target::Page(page.name));
        page.sections.iter().map(move |section| {
            let is_first = section.level == HeadingLevel::H1;
            let address = if is_first { address.clone() } else { format!("{address}#{}", section.id) };
            json!({ "page": page.title, "section": section.title, "address": address, "text": section.text })
        })
    });
    format!("globalThis.docsIndex = {};\n", serde_json::Value::from_iter(entries))
}
