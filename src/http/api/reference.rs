//! `/api/v1/docs`: the OpenAPI document for people, without a script and without a network.

use std::sync::LazyLock;

use axum::response::Html;
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::document::openapi;
use crate::http::pages::layout::document;

const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

pub async fn page() -> Html<&'static str> {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let body = html! {
            a.skip href="#content" { "Skip to content" }
            header.bar {
                a.brand href="/runs" { "fnhost" }
                nav aria-label="Main" {
                    a href="/runs" { "Runs" }
                    a href="/docs" { "Documentation" }
                    a href="/api/v1/docs" aria-current="page" { "API" }
                }
                a.quiet href="/api/v1/openapi.json" { "openapi.json" }
            }
            (content())
        };
        let Html(page) = document("API", body);
        page
    });
    Html(&PAGE)
}

/// The reference, to be put into a page.
pub fn content() -> Markup {
    let openapi = serde_json::to_value(openapi()).expect("the document is plain data");
    reference(&Document(&openapi))
}

/// An OpenAPI document as JSON.
struct Document<'a>(&'a Value);

/// One thing that can be asked for.
struct Operation<'a> {
    path: &'a str,
    method: &'static str,
    value: &'a Value,
}

impl<'a> Document<'a> {
    fn operations(&self, tag: &str) -> Vec<Operation<'a>> {
        let paths = self.0["paths"].as_object().into_iter().flatten();
        let all = paths.flat_map(|(path, item)| {
            METHODS.iter().filter_map(move |method| Some(Operation { path, method, value: item.get(*method)? }))
        });
        all.filter(|operation| text(&operation.value["tags"][0]) == tag).collect()
    }

    fn schemas(&self) -> Option<&'a Map<String, Value>> {
        self.0["components"]["schemas"].as_object()
    }

    /// A value that fits a schema: what must be in it, and what has an example.
    fn example(&self, schema: &Value) -> Value {
        if let Some(example) = schema.get("example") {
            return example.clone();
        }
        if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            return self
                .schemas()
                .and_then(|schemas| schemas.get(name))
                .map_or(Value::Null, |found| self.example(found));
        }
        if let Some(choice) = schema["oneOf"].as_array().and_then(|choices| choices.last()) {
            return self.example(choice);
        }
        match text(&schema["type"]) {
            "object" => {
                let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().map(text).collect();
                let properties = schema["properties"].as_object().into_iter().flatten();
                let shown = properties
                    .filter(|(name, property)| required.contains(&name.as_str()) || property.get("example").is_some());
                shown.map(|(name, property)| (name.clone(), self.example(property))).collect()
            }
            "string" => "...".into(),
            _ => Value::Null,
        }
    }
}

impl Operation<'_> {
    fn id(&self) -> &str {
        text(&self.value["operationId"])
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn reference(openapi: &Document<'_>) -> Markup {
    let tags: Vec<&Value> = openapi.0["tags"].as_array().into_iter().flatten().collect();
    html! {
        main.reference #content {
            nav aria-label="Operations" {
                @for tag in &tags {
                    strong { (text(&tag["name"])) }
                    ul {
                        @for operation in openapi.operations(text(&tag["name"])) {
                            li { a href={ "#" (operation.id()) } { (text(&operation.value["summary"])) } }
                        }
                    }
                }
                @if openapi.schemas().is_some() { a href="#schemas" { strong { "schemas" } } }
            }
            div {
                h1 { "API" }
                (paragraphs(text(&openapi.0["info"]["description"])))
                @for tag in &tags {
                    h2 #(text(&tag["name"])) { (text(&tag["name"])) }
                    p.muted { (text(&tag["description"])) }
                    @for one in openapi.operations(text(&tag["name"])) { (operation(openapi, &one)) }
                }
                h2 #schemas { "Schemas" }
                @for (name, schema) in openapi.schemas().into_iter().flatten() { (named_schema(name, schema)) }
            }
        }
    }
}

fn operation(openapi: &Document<'_>, operation: &Operation<'_>) -> Markup {
    let value = operation.value;
    let parameters: Vec<&Value> = value["parameters"].as_array().into_iter().flatten().collect();
    html! {
        section.operation #(operation.id()) {
            h3 { span.method { (operation.method) } " " code { (operation.path) } }
            p { (text(&value["summary"])) @if let Some(scope) = scope(value) { " " span.state { (scope) } } }
            (paragraphs(text(&value["description"])))
            @if !parameters.is_empty() {
                h4 { "Parameters" }
                table {
                    @for parameter in &parameters {
                        tr {
                            th scope="row" { code { (text(&parameter["name"])) } }
                            td { (kind(&parameter["schema"])) " " span.muted { "in " (text(&parameter["in"])) } }
                            td { (prose(text(&parameter["description"]))) }
                        }
                    }
                }
            }
            @if let Some(content) = value["requestBody"]["content"].as_object() {
                h4 { "Body" }
                @for (media, body) in content { p { (kind(&body["schema"])) " " span.muted { (media) } } }
            }
            h4 { "Answers" }
            table {
                @for (status, response) in value["responses"].as_object().into_iter().flatten() {
                    tr {
                        th scope="row" { (if status == "default" { "errors" } else { status }) }
                        td {
                            @for (media, body) in response["content"].as_object().into_iter().flatten() {
                                div { (kind(&body["schema"])) " " span.muted { (media) } }
                            }
                        }
                        td { (prose(text(&response["description"]))) }
                    }
                }
            }
            h4 { "Example" }
            pre.json tabindex="0" { (curl(openapi, operation)) }
        }
    }
}

fn scope(operation: &Value) -> Option<&str> {
    operation["security"][0].as_object()?.values().next()?[0].as_str()
}

/// A command that asks for it.
fn curl(openapi: &Document<'_>, operation: &Operation<'_>) -> String {
    let mut lines = vec![format!("curl -H \"authorization: Bearer $TOKEN\"")];
    if operation.method != "get" {
        lines.push(format!("  -X {}", operation.method.to_uppercase()));
    }
    if let Some(body) = operation.value["requestBody"]["content"].get("application/json") {
        let example = body.get("example").cloned().unwrap_or_else(|| openapi.example(&body["schema"]));
        lines.push(format!("  -H 'content-type: application/json' -d '{example}'"));
    }
    let path = operation.path.replace("{id}", "$ID").replace("{name}", "$NAME");
    lines.push(format!("  \"$HOST{path}\""));
    lines.join(" \\\n")
}

fn named_schema(name: &str, schema: &Value) -> Markup {
    html! {
        section.operation #{ "schema-" (name) } {
            h3 { (name) }
            (schema_body(schema))
        }
    }
}

fn schema_body(schema: &Value) -> Markup {
    html! {
        (paragraphs(text(&schema["description"])))
        @if let Some(parts) = schema["allOf"].as_array() {
            @for part in parts {
                @if part.get("$ref").is_some() { p { "All of " (kind(part)) ", and:" } } @else { (schema_body(part)) }
            }
        }
        @if let Some(choices) = schema["oneOf"].as_array() {
            @for (index, choice) in choices.iter().enumerate() {
                @if index > 0 { p.muted { "or" } }
                (schema_body(choice))
            }
        }
        @if let Some(names) = schema["enum"].as_array() {
            p { @for (index, name) in names.iter().enumerate() { @if index > 0 { ", " } code { (text(name)) } } }
        }
        @if let Some(properties) = schema["properties"].as_object() {
            table {
                @for (property, schema) in properties {
                    tr {
                        th scope="row" { code { (property) } }
                        td { (kind(schema)) }
                        td { (prose(text(&schema["description"]))) }
                    }
                }
            }
        }
    }
}

/// What kind of value a schema is for.
fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return html! { a href={ "#schema-" (name) } { (name) } };
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return html! { @for (index, choice) in choices.iter().enumerate() { @if index > 0 { " or " } (kind(choice)) } };
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::Array(names) => names.iter().map(text).collect(),
        one => vec![text(one)],
    };
    html! {
        @match names.as_slice() {
            ["array"] => { "list of " (kind(&schema["items"])) },
            [""] => "any JSON",
            names => {
                @if let Some(format) = schema["format"].as_str() { (format) @if names.contains(&"null") { " or null" } }
                @else if schema.get("const").is_some() || schema["enum"].as_array().is_some_and(|one| one.len() == 1) {
                    code { (text(&schema["enum"][0])) }
                }
                @else { (names.join(" or ")) }
            }
        }
    }
}

fn paragraphs(text: &str) -> Markup {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.is_empty());
    html! { @for paragraph in paragraphs { p { (prose(paragraph)) } } }
}

/// Text in which backquotes mark code.
fn prose(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
