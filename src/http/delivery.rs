//! What a request says about its message beside the message itself: that it may come twice, that it is for later, that
//! its sender waits.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use chrono::DateTime;

use super::Problem;
use super::body::CloudEvent;
use crate::model::Timestamp;
use crate::quantity::Span;

/// The longest name of a message.
const LONGEST_KEY: usize = 255;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivery {
    /// From `Idempotency-Key`, `webhook-id`, or source and id of a CloudEvent.
    pub dedupe_key: Option<String>,
    /// From `X-Deliver-At`, `?deliver_at=` (RFC 3339) or `?delay=` (such as 10m).
    pub deliver_at: Option<Timestamp>,
    /// W3C trace context, from `traceparent`.
    pub traceparent: Option<String>,
    /// From `Prefer: respond-async`, `Prefer: wait=30`, `?async` and `?wait=30s`.
    pub wait: Wait,
}

/// Whether the sender waits for the runs to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    #[default]
    AsConfigured,
    No,
    /// As long as the service lets anybody wait.
    Yes,
    AtMost(Duration),
}

impl Delivery {
    pub fn of(parts: &Parts, event: Option<&CloudEvent>, now: Timestamp) -> Result<Self, Problem> {
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let parameter = |wanted: &str| query.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.trim());
        Ok(Self {
            dedupe_key: dedupe_key(header("idempotency-key"), header("webhook-id"), event)?,
            deliver_at: deliver_at(
                header("x-deliver-at").or_else(|| parameter("deliver_at")),
                parameter("delay"),
                now,
            )?,
            traceparent: traceparent(&parts.headers),
            wait: wait(parameter("async"), parameter("wait"), header("prefer"))?,
        })
    }
}

fn dedupe_key(
    idempotency_key: Option<&str>,
    webhook_id: Option<&str>,
    event: Option<&CloudEvent>,
) -> Result<Option<String>, Problem> {
    let key = match (idempotency_key, webhook_id, event) {
        (Some(key), _, _) => format!("key:{key}"),
        (None, Some(id), _) => format!("webhook:{id}"),
        (None, None, Some(event)) => format!("event:{} {}", event.source, event.id),
        (None, None, None) => return Ok(None),
    };
    let (_, given) = key.split_once(':').unwrap_or_default();
    match given.is_empty() || given.len() > LONGEST_KEY {
        true => Err(Problem::bad_request(format!("an idempotency key has 1 to {LONGEST_KEY} characters of ASCII"))),
        false => Ok(Some(key)),
    }
}

fn deliver_at(at: Option<&str>, delay: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    match (at, delay) {
        (Some(at), _) => {
            // In a query, `+` is a space.
            let time = DateTime::parse_from_rfc3339(&at.replace(' ', "+"));
            let time = time.map_err(|_| {
                Problem::bad_request("write the time of delivery as RFC 3339, such as 2030-01-31T08:00:00Z")
            })?;
            Ok(Some(time.into()))
        }
        (None, Some(delay)) => Ok(Some(now.saturating_add(span(delay, "delay")?))),
        (None, None) => Ok(None),
    }
}

fn wait(no: Option<&str>, at_most: Option<&str>, prefer: Option<&str>) -> Result<Wait, Problem> {
    if no.is_some_and(|value| matches!(value, "" | "true" | "1")) {
        return Ok(Wait::No);
    }
    match at_most {
        Some("false" | "0") => return Ok(Wait::No),
        Some("" | "true") => return Ok(Wait::Yes),
        Some(value) => return span(value, "wait").map(Wait::AtMost),
        None => {}
    }
    // A preference that cannot be understood is none (RFC 7240).
    for preference in prefer.unwrap_or_default().split([',', ';']).map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            return Ok(Wait::No);
        }
        if let Some((name, value)) = preference.split_once('=')
            && name.trim().eq_ignore_ascii_case("wait")
            && let Ok(seconds) = value.trim().trim_matches('"').parse()
        {
            return Ok(Wait::AtMost(Duration::from_secs(seconds)));
        }
    }
    Ok(Wait::AsConfigured)
}

/// A bare number is seconds, as in `Prefer: wait=30`.
fn span(text: &str, what: &str) -> Result<Duration, Problem> {
    let with_unit = if text.bytes().all(|byte| byte.is_ascii_digit()) { format!("{text}s") } else { text.to_owned() };
    let span = with_unit.parse::<Span>();
    span.map(|span| span.0)
        .map_err(|_| Problem::bad_request(format!("`{what}` is a length of time, such as 30s or 10m")))
}

/// The W3C trace context that a request belongs to.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    is_traceparent(text).then(|| text.to_owned())
}

fn is_traceparent(text: &str) -> bool {
    let fields: Vec<&str> = text.split('-').collect();
    let is_hex = |field: &str, length: usize| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_set = |field: &str| field.bytes().any(|byte| byte != b'0');
    match fields[..] {
        ["00", trace, span, flags] => {
            is_hex(trace, 32) && is_set(trace) && is_hex(span, 16) && is_set(span) && is_hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(uri: &str, headers: &[(&str, &str)]) -> Result<Delivery, String> {
        let mut request = http::Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let delivery = Delivery::of(&parts, None, Timestamp::from_micros(1_000_000));
        delivery.map_err(|problem| problem.detail().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_message_is_named_by_the_first_that_names_it() {
        let key = |headers: &[(&str, &str)]| delivery("/inbox", headers).map(|delivery| delivery.dedupe_key);
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[("webhook-id", "w"), ("idempotency-key", "k")]), Ok(Some("key:k".into())));
        assert_eq!(key(&[("webhook-id", "w")]), Ok(Some("webhook:w".into())));
        assert!(key(&[("idempotency-key", "")]).is_err());
        assert!(key(&[("idempotency-key", &"k".repeat(256))]).is_err());
        let (parts, ()) = http::Request::post("/inbox").body(()).unwrap().into_parts();
        let event = CloudEvent { id: "1".into(), source: "/s".into(), headers: vec![] };
        let delivery = Delivery::of(&parts, Some(&event), Timestamp::default()).unwrap();
        assert_eq!(delivery.dedupe_key.as_deref(), Some("event:/s 1"));
    }

    #[test]
    fn a_message_can_be_for_later() {
        let at = |uri: &str, headers: &[(&str, &str)]| delivery(uri, headers).map(|delivery| delivery.deliver_at);
        let time = Some(Timestamp::from_micros(1_893_456_000_000_000));
        assert_eq!(at("/inbox", &[("x-deliver-at", "2030-01-01T00:00:00Z")]), Ok(time));
        assert_eq!(at("/inbox?deliver_at=2030-01-01T01:00:00+01:00", &[]), Ok(time));
        assert_eq!(at("/inbox?delay=10m", &[]), Ok(Some(Timestamp::from_micros(601_000_000))));
        for uri in ["/inbox?deliver_at=tomorrow", "/inbox?delay=soon", "/inbox?delay="] {
            assert!(at(uri, &[]).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_sender_can_wait_or_not() {
        let wait = |uri: &str, prefer: &str| delivery(uri, &[("prefer", prefer)]).map(|delivery| delivery.wait);
        for (uri, prefer, expected) in [
            ("/inbox", "", Wait::AsConfigured),
            ("/inbox", "respond-async, wait=10", Wait::No),
            ("/inbox", "handling=lenient, Wait=30", Wait::AtMost(Duration::from_secs(30))),
            ("/inbox", "wait=soon", Wait::AsConfigured),
            ("/inbox?async", "wait=30", Wait::No),
            ("/inbox?wait", "respond-async", Wait::Yes),
            ("/inbox?wait=30s", "", Wait::AtMost(Duration::from_secs(30))),
            ("/inbox?wait=2", "", Wait::AtMost(Duration::from_secs(2))),
            ("/inbox?wait=false", "", Wait::No),
        ] {
            assert_eq!(wait(uri, prefer), Ok(expected), "{uri} {prefer}");
        }
        assert!(wait("/inbox?wait=long", "").is_err());
    }

    #[test]
    fn only_a_sound_trace_context_is_taken_over() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
