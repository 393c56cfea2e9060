//! The body of a message: what a job gets as its data, whatever form it came in.
//!
//! | content type | data |
//! |---|---|
//! | JSON, `+json`, none at all | the JSON text as it came, to the digit |
//! | `application/x-www-form-urlencoded` | an object; a name that comes several times has an array |
//! | `multipart/form-data` | the same; a file is an object of `filename`, `contentType`, `size`, `encoding`, `content` |
//! | XML, `text/*` | a text |
//! | `application/cloudevents+json` | the event's data; its attributes become the headers of the binary mode, `ce-...` |
//!
//! What is not JSON is kept as it came, too. Everything else is refused with 415, and so are batches of events: one
//! answer could not say what became of each. An empty body is `{}`. A form that is a JSON object is taken as one, since
//! that is what `curl -d` sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Problem;

/// Fields of a form at most.
const MOST_FIELDS: usize = 10_000;
/// Memory, in KiB, that parsed bodies may take at once. JSON of many small objects takes fifty times its length.
const PARSED_KIB: u32 = 512 << 10;
/// Longer bodies are parsed where they hold up nobody else.
const LONG: usize = 256 << 10;

/// A body, read.
#[derive(Debug)]
pub struct Content {
    /// JSON text.
    pub data: String,
    /// The same as a value.
    pub value: Value,
    /// The body as it came, if `data` is not that.
    pub raw: Option<Vec<u8>>,
    pub event: Option<CloudEvent>,
    /// Its share of the memory for parsed bodies.
    _room: Option<OwnedSemaphorePermit>,
}

/// The attributes of a CloudEvent (<https://cloudevents.io>).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudEvent {
    pub id: String,
    pub source: String,
    /// Those that came in the body, under the names that they have as headers.
    pub headers: Vec<(String, String)>,
}

/// Reads bodies, and bounds the memory that this takes.
#[derive(Clone)]
pub struct Bodies {
    parsed: Arc<Semaphore>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { parsed: Arc::new(Semaphore::new(PARSED_KIB as usize)) }
    }
}

/// All of a body. How long and how large it may be is checked where requests come in.
pub async fn collect(body: Body) -> Result<Bytes, Problem> {
    let collected = body.collect().await.map_err(|_| Problem::bad_request("the body ended too early"))?;
    Ok(collected.to_bytes())
}

impl Bodies {
    /// Makes a message's data of a body.
    pub async fn content(&self, headers: &HeaderMap, bytes: Bytes) -> Result<Content, Problem> {
        check_encoding(headers)?;
        let room = self.room(&bytes).await?;
        let kind = MediaType::of(headers)?;
        let mut content = match &kind {
            Some(kind) if kind.essence == "multipart/form-data" && !bytes.is_empty() => {
                let fields = multipart(headers, bytes.clone()).await?;
                Content::of_value(fields, bytes)
            }
            _ if bytes.len() > LONG => {
                let read = move || read(kind.as_ref(), &bytes);
                let reading = tokio::task::spawn_blocking(read).await;
                reading.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?
            }
            _ => read(kind.as_ref(), &bytes)?,
        };
        if content.event.is_none() {
            content.event = binary_event(headers)?;
        }
        content._room = room;
        Ok(content)
    }

    /// Waits for the memory that a body may take when it is parsed. Whoever has it does not depend on a client any more.
    async fn room(&self, bytes: &[u8]) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        const OBJECT: usize = 350;
        const ITEM: usize = 40;
        const SMALL: usize = 16 << 10;
        if bytes.len() < SMALL {
            return Ok(None);
        }
        let count = |wanted: &[u8]| bytes.iter().filter(|byte| wanted.contains(byte)).count();
        let estimate = 2 * bytes.len() + OBJECT * count(b"{") + ITEM * count(b",[&");
        let permits = u32::try_from(estimate >> 10).unwrap_or(u32::MAX).clamp(1, PARSED_KIB);
        let acquired = self.parsed.clone().acquire_many_owned(permits).await;
        acquired.map(Some).map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE))
    }
}

impl Content {
    fn of_json(text: &str) -> Result<Self, Problem> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Ok(Self::empty());
        }
        let value = serde_json::from_str(text)
            .map_err(|error| Problem::bad_request(format!("the body is not JSON that can be read: {error}")))?;
        Ok(Self { data: text.to_owned(), value, raw: None, event: None, _room: None })
    }

    fn of_value(value: Value, raw: Bytes) -> Self {
        Self { data: value.to_string(), value, raw: Some(raw.into()), event: None, _room: None }
    }

    fn empty() -> Self {
        Self { data: "{}".into(), value: json!({}), raw: None, event: None, _room: None }
    }
}

/// What a header says about a body.
#[derive(Clone, Debug, PartialEq)]
struct MediaType {
    /// Type and subtype, in lower case.
    essence: String,
    charset: Option<String>,
}

impl MediaType {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
        let text = value.to_str().map_err(|_| unsupported("the content type is not ASCII"))?;
        Ok(Some(Self::parse(text)))
    }

    fn parse(text: &str) -> Self {
        let mut parts = text.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let charset = parts.find_map(|part| {
            let (name, value) = part.trim().split_once('=')?;
            name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"').to_ascii_lowercase())
        });
        Self { essence, charset }
    }

    fn is(&self, essences: &[&str], suffix: &str) -> bool {
        essences.contains(&self.essence.as_str()) || self.essence.ends_with(suffix)
    }
}

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).with_detail(detail)
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim()) {
        None | Some("" | "identity") => Ok(()),
        Some(_) => Err(unsupported("send the body as it is: compressed bodies are not taken")),
    }
}

/// Bodies of all types but multipart, which axum reads piece by piece.
fn read(kind: Option<&MediaType>, bytes: &Bytes) -> Result<Content, Problem> {
    const WANTED: &str = "send JSON, a form, XML or text";
    let Some(kind) = kind.filter(|_| !bytes.is_empty()) else {
        return match bytes.is_empty() {
            true => Ok(Content::empty()),
            false => Content::of_json(utf8(bytes)?)
                .map_err(|_| unsupported(format!("there is no content type, and it is not JSON: {WANTED}"))),
        };
    };
    if kind.essence == "application/cloudevents+json" {
        structured_event(utf8(bytes)?)
    } else if kind.is(&["application/cloudevents-batch+json"], "-batch+json") {
        Err(unsupported("send one event at a time: batches are not taken"))
    } else if kind.is(&["application/json", "text/json"], "+json") {
        Content::of_json(utf8(bytes)?)
    } else if kind.essence == "application/x-www-form-urlencoded" {
        form(bytes)
    } else if kind.essence.starts_with("text/") || kind.is(&["application/xml"], "+xml") {
        Ok(Content::of_value(text(kind, bytes)?.into(), bytes.clone()))
    } else {
        Err(unsupported(format!("`{}` is not taken: {WANTED}", kind.essence)))
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        Problem::bad_request(format!("the body is not UTF-8: byte {} belongs to no character", error.valid_up_to() + 1))
    })
}

fn text(kind: &MediaType, bytes: &[u8]) -> Result<String, Problem> {
    match kind.charset.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii") => utf8(bytes).map(str::to_owned),
        Some("iso-8859-1" | "latin1") => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Some(_) => Err(unsupported("send the text in UTF-8: this charset is not taken")),
    }
}

fn form(bytes: &Bytes) -> Result<Content, Problem> {
    let text = utf8(bytes)?;
    if text.trim_start().starts_with('{')
        && let Ok(content) = Content::of_json(text)
    {
        return Ok(content);
    }
    let mut fields = Map::new();
    for (count, (name, value)) in url::form_urlencoded::parse(bytes).enumerate() {
        check_count(count)?;
        add(&mut fields, &name, value.into());
    }
    Ok(Content::of_value(fields.into(), bytes.clone()))
}

fn check_count(before: usize) -> Result<(), Problem> {
    match before < MOST_FIELDS {
        true => Ok(()),
        false => Err(Problem::bad_request(format!("the form has more than {MOST_FIELDS} fields"))),
    }
}

/// Adds a value to those of a name. The second makes them an array.
pub(super) fn add(fields: &mut Map<String, Value>, name: &str, value: Value) {
    match fields.get_mut(name) {
        None => drop(fields.insert(name.to_owned(), value)),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
}

async fn multipart(headers: &HeaderMap, bytes: Bytes) -> Result<Value, Problem> {
    let malformed =
        |error: &dyn std::fmt::Display| Problem::bad_request(format!("the body is no multipart form: {error}"));
    let mut request = Request::new(Body::from(bytes));
    request.headers_mut().extend(headers.get(header::CONTENT_TYPE).map(|value| (header::CONTENT_TYPE, value.clone())));
    // The size is bounded already.
    request.extensions_mut().insert(());
    let mut parts = Multipart::from_request(request, &()).await.map_err(|error| malformed(&error.body_text()))?;
    let mut fields = Map::new();
    let mut count = 0;
    while let Some(part) = parts.next_field().await.map_err(|error| malformed(&error.body_text()))? {
        check_count(count)?;
        count += 1;
        let name = part.name().unwrap_or_default().to_owned();
        let filename = part.file_name().map(str::to_owned);
        let kind = part.content_type().map(str::to_owned);
        let content = part.bytes().await.map_err(|error| malformed(&error.body_text()))?;
        let value = match filename {
            None => utf8(&content)?.into(),
            Some(filename) => file(&filename, kind, &content),
        };
        add(&mut fields, &name, value);
    }
    Ok(fields.into())
}

/// A file: what can be read as text is text, everything else base64.
fn file(filename: &str, kind: Option<String>, content: &[u8]) -> Value {
    let kind = kind.unwrap_or_else(|| "application/octet-stream".into());
    let media = MediaType::parse(&kind);
    let is_text = media.essence.starts_with("text/")
        || media.is(&["application/json"], "+json")
        || media.is(&["application/xml"], "+xml");
    let (encoding, text) = match std::str::from_utf8(content).ok().filter(|_| is_text) {
        Some(text) => ("text", text.to_owned()),
        None => ("base64", STANDARD.encode(content)),
    };
    json!({
        "filename": filename, "contentType": kind, "size": content.len(), "encoding": encoding, "content": text,
    })
}

/// An event that came as one JSON object.
fn structured_event(text: &str) -> Result<Content, Problem> {
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(text)
        .map_err(|error| Problem::bad_request(format!("the body is no CloudEvent: {error}")))?;
    let (data, base64) = (members.remove("data"), members.remove("data_base64"));
    let mut attributes = BTreeMap::new();
    for (name, value) in members {
        let value: Value = serde_json::from_str(value.get())
            .map_err(|error| Problem::bad_request(format!("the attribute `{name}` cannot be read: {error}")))?;
        match value {
            Value::Null => {}
            Value::String(text) => drop(attributes.insert(name, text)),
            other => drop(attributes.insert(name, other.to_string())),
        }
    }
    let event = event(&mut |name| attributes.get(name).cloned())?;
    let kind = attributes.get("datacontenttype").map(|kind| MediaType::parse(kind));
    let mut content = match (data, base64) {
        (Some(data), _) => Content::of_json(data.get())?,
        (None, Some(base64)) => {
            let bytes = serde_json::from_str::<String>(base64.get()).ok().and_then(|text| STANDARD.decode(text).ok());
            let bytes = bytes.ok_or_else(|| Problem::bad_request("`data_base64` of the event is not base64"))?;
            read(kind.as_ref(), &bytes.into())?
        }
        (None, None) => Content::empty(),
    };
    let headers = attributes.into_iter().map(|(name, value)| (format!("ce-{name}"), value)).collect();
    content.event = Some(CloudEvent { headers, ..event });
    Ok(content)
}

/// An event whose attributes came as headers.
fn binary_event(headers: &HeaderMap) -> Result<Option<CloudEvent>, Problem> {
    if !headers.contains_key("ce-specversion") {
        return Ok(None);
    }
    let header = |name: &str| Some(headers.get(format!("ce-{name}"))?.to_str().ok()?.to_owned());
    event(&mut { header }).map(Some)
}

fn event(attribute: &mut dyn FnMut(&str) -> Option<String>) -> Result<CloudEvent, Problem> {
    let mut required = |name: &str| {
        attribute(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Problem::bad_request(format!("the CloudEvent has no attribute `{name}`")))
    };
    let version = required("specversion")?;
    if version != "1.0" {
        return Err(Problem::bad_request("only CloudEvents of specversion 1.0 are taken"));
    }
    required("type")?;
    Ok(CloudEvent { id: required("id")?, source: required("source")?, headers: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn content_with(pairs: &[(&str, &str)], body: &[u8]) -> Result<Content, (u16, String)> {
        let parse =
            |(name, value): &(&str, &str)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
        let headers = pairs.iter().map(parse).collect();
        let content = Bodies::default().content(&headers, Bytes::copy_from_slice(body)).await;
        content.map_err(|problem| (problem.status().as_u16(), problem.detail().unwrap_or_default().to_owned()))
    }

    async fn content(kind: &str, body: impl AsRef<[u8]>) -> Result<Content, (u16, String)> {
        content_with(&[("content-type", kind)], body.as_ref()).await
    }

    #[tokio::test]
    async fn json_stays_as_it_came() {
        let text = "{ \"n\": 12345678901234567890.10, \"a\": 1, \"a\": 2 }\n";
        for kind in ["application/json", "application/json; charset=utf-8", "application/fhir+json", "text/json"] {
            let content = content(kind, text).await.unwrap();
            assert_eq!(content.data, text);
            assert_eq!(content.value["a"], 2, "as JavaScript reads it");
            assert_eq!(content.raw, None);
        }
        assert_eq!(content_with(&[], b"[1]").await.unwrap().data, "[1]");
        assert_eq!(content("application/json", b"\xef\xbb\xbf{}").await.unwrap().data, "{}");
        for kind in ["application/json", "text/plain", "multipart/form-data; boundary=x"] {
            assert_eq!(content(kind, "").await.unwrap().data, "{}");
        }
        assert_eq!(content_with(&[], b"").await.unwrap().data, "{}");
    }

    #[tokio::test]
    async fn what_is_not_json_says_where() {
        let (status, detail) = content("application/json", "{\"a\":\n  x}").await.unwrap_err();
        assert_eq!((status, detail.contains("line 2 column 3")), (400, true), "{detail}");
        let (status, detail) = content("application/json", b"{\"a\":\"\xff\"}").await.unwrap_err();
        assert_eq!((status, detail.contains("byte 7")), (400, true), "{detail}");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(content("application/json", &deep).await.unwrap_err().0, 400);
        let fits = format!("{}{}", "[".repeat(127), "]".repeat(127));
        assert!(content("application/json", &fits).await.is_ok());
        assert_eq!(content_with(&[], b"a=b").await.unwrap_err().0, 415);
    }

    #[tokio::test]
    async fn forms_become_objects() {
        let read = content("application/x-www-form-urlencoded", "a=1&b=x+y&a=2&a=%C3%BC&c").await.unwrap();
        assert_eq!(read.value, json!({ "a": ["1", "2", "ü"], "b": "x y", "c": "" }));
        assert_eq!(read.raw.as_deref(), Some(b"a=1&b=x+y&a=2&a=%C3%BC&c".as_slice()));
        let curl = content("application/x-www-form-urlencoded", r#"{"a": 1}"#).await.unwrap();
        assert_eq!((curl.data.as_str(), curl.raw), (r#"{"a": 1}"#, None));
        let many = "a&".repeat(MOST_FIELDS + 1);
        assert_eq!(content("application/x-www-form-urlencoded", many).await.unwrap_err().0, 400);
    }

    #[tokio::test]
    async fn files_come_with_their_name_type_and_size() {
        let body = "--X\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
            --X\r\ncontent-disposition: form-data; name=\"f\"; filename=\"n.csv\"\r\ncontent-type: text/csv\r\n\r\na,b\r\n\
            --X\r\ncontent-disposition: form-data; name=\"f\"; filename=\"n.bin\"\r\n\r\n\u{0}\u{1}\r\n--X--\r\n";
        let read = content("multipart/form-data; boundary=X", body).await.unwrap();
        let csv =
            json!({ "filename": "n.csv", "contentType": "text/csv", "size": 3, "encoding": "text", "content": "a,b" });
        let bin = json!({
            "filename": "n.bin", "contentType": "application/octet-stream", "size": 2, "encoding": "base64", "content": "AAE=",
        });
        assert_eq!(read.value, json!({ "a": "1", "f": [csv, bin] }));
        for (kind, body) in [("multipart/form-data", "x"), ("multipart/form-data; boundary=X", "no form")] {
            assert_eq!(content(kind, body).await.unwrap_err().0, 400);
        }
    }

    #[tokio::test]
    async fn xml_and_text_become_a_text() {
        for kind in ["application/xml", "text/xml", "application/atom+xml", "text/plain", "text/csv"] {
            let read = content(kind, "<a b=\"ü\"/>").await.unwrap();
            assert_eq!((read.data.as_str(), read.raw.is_some()), (r#""<a b=\"ü\"/>""#, true));
        }
        assert_eq!(content("text/plain; charset=ISO-8859-1", b"\xfc").await.unwrap().value, "ü");
        assert_eq!(content("text/plain; charset=utf-16", b"\xfc").await.unwrap_err().0, 415);
        assert_eq!(content("text/plain", b"\xfc").await.unwrap_err().0, 400);
    }

    #[tokio::test]
    async fn everything_else_is_refused() {
        for kind in ["application/octet-stream", "image/png", "application/cloudevents-batch+json", "nonsense"] {
            assert_eq!(content(kind, "[]").await.unwrap_err().0, 415, "{kind}");
        }
        let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
        assert_eq!(content_with(&gzip, b"{}").await.unwrap_err().0, 415);
    }

    #[tokio::test]
    async fn events_come_in_both_modes() {
        let binary = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
        ];
        let read = content_with(&binary, b"{\"n\":1e2}").await.unwrap();
        assert_eq!(read.data, "{\"n\":1e2}");
        assert_eq!(read.event.map(|event| (event.id, event.source)), Some(("1".into(), "/s".into())));
        let (status, detail) = content_with(&binary[..4], b"{}").await.unwrap_err();
        assert_eq!((status, detail.contains("`type`")), (400, true));

        let kind = "application/cloudevents+json; charset=utf-8";
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","n":7,"data":{"n":1e2}}"#;
        let read = content(kind, event).await.unwrap();
        assert_eq!(read.data, "{\"n\":1e2}");
        let headers = read.event.unwrap().headers;
        assert!(headers.contains(&("ce-type".into(), "t".into())) && headers.contains(&("ce-n".into(), "7".into())));
        let base64 = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data_base64":"aGk="}"#;
        assert_eq!(content(kind, base64).await.unwrap().value, "hi");
        for bad in [r#"{"id":"1"}"#, "[]", r#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#] {
            assert_eq!(content(kind, bad).await.unwrap_err().0, 400, "{bad}");
        }
    }
}
