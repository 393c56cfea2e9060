//! The HTTP requests that a run makes, as a part of the trace that the run belongs to.
//!
//! `js/trace.js` sees requests where they begin and end, whichever client made them, and sends the trace context along
//! that it gets from here. What is kept of a request is what its span says: method, host, status. Path and query are
//! the job's business, and may hold secrets.

#![allow(unsafe_code)] // the op macro writes unsafe glue

use std::collections::HashMap;
use std::time::SystemTime;

use deno_core::url::Url;
use deno_core::{OpState, op2};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use crate::telemetry::trace::{Parent, Span, TraceContext, new_span_id, tracer};

/// Spans for the requests of one run at most. A job that makes more is a loop, of which the first turns tell enough.
const MOST_SPANS: usize = 1000;

/// Methods by name; others are up to the job.
const METHODS: &[&str] = &["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// The requests of one run.
pub struct Calls {
    parent: TraceContext,
    /// By the trace context that was sent along.
    open: HashMap<String, Call>,
    begun: usize,
}

struct Call {
    context: TraceContext,
    method: &'static str,
    host: Option<String>,
    port: Option<u16>,
    started: SystemTime,
}

impl Calls {
    /// None: `traceparent` is no trace context.
    pub fn part_of(traceparent: &str) -> Option<Self> {
        Some(Self { parent: traceparent.parse().ok()?, open: HashMap::new(), begun: 0 })
    }

    /// The trace context to send along.
    fn begin(&mut self, method: &str, url: &str) -> String {
        let context = self.parent.with_span(new_span_id());
        let text = context.to_string();
        if !context.sampled || self.begun == MOST_SPANS {
            return self.parent.to_string();
        }
        self.begun += 1;
        let url = Url::parse(url).ok();
        let call = Call {
            context,
            method: METHODS.iter().find(|known| known.eq_ignore_ascii_case(method)).copied().unwrap_or("_OTHER"),
            host: url.as_ref().and_then(|url| url.host_str()).map(str::to_owned),
            port: url.as_ref().and_then(Url::port_or_known_default),
            started: SystemTime::now(),
        };
        self.open.insert(text.clone(), call);
        text
    }

    /// `status`: 0 if there was no answer.
    fn end(&mut self, traceparent: &str, status: u32) {
        if let Some(call) = self.open.remove(traceparent) {
            call.record(self.parent, status);
        }
    }
}

impl Drop for Calls {
    /// What was not answered when the run ended never will be.
    fn drop(&mut self) {
        for (_, call) in self.open.drain() {
            call.record(self.parent, 0);
        }
    }
}

impl Call {
    fn record(self, parent: TraceContext, status: u32) {
        let Some(tracer) = tracer() else { return };
        let mut attributes = vec![KeyValue::new("http.request.method", self.method)];
        attributes.extend(self.host.map(|host| KeyValue::new("server.address", host)));
        attributes.extend(self.port.map(|port| KeyValue::new("server.port", i64::from(port))));
        let error = match status {
            0 => Some("no answer".to_owned()),
            400.. => Some(status.to_string()),
            _ => None,
        };
        if status > 0 {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        tracer.record(Span {
            context: self.context,
            parent: Some(Parent { span: parent.span, is_remote: false }),
            kind: SpanKind::Client,
            name: self.method.into(),
            start: self.started,
            end: SystemTime::now(),
            attributes,
            error,
        });
    }
}

/// A request is about to be sent: the trace context to send along.
#[op2]
#[string]
pub fn op_fnhost_call_begin(state: &mut OpState, #[string] method: &str, #[string] url: &str) -> String {
    state.borrow_mut::<Calls>().begin(method, url)
}

/// A request was answered, or will not be (0).
#[op2(fast)]
pub fn op_fnhost_call_end(state: &mut OpState, #[string] traceparent: &str, status: u32) {
    state.borrow_mut::<Calls>().end(traceparent, status);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn each_request_has_a_span_of_its_own_until_there_are_too_many() {
        let mut calls = Calls::part_of(PARENT).unwrap();
        let first = calls.begin("get", "http://h/");
        let second = calls.begin("POST", "http://h/");
        assert!(first != second && first != PARENT && first.starts_with(&PARENT[..36]), "{first} {second}");
        calls.end(&first, 200);
        assert_eq!(calls.open.len(), 1);
        for _ in 2..MOST_SPANS {
            calls.begin("GET", "http://h/");
        }
        assert_eq!(calls.begin("GET", "http://h/"), PARENT);
    }

    #[test]
    fn of_a_request_only_method_and_host_are_kept() {
        let mut calls = Calls::part_of(PARENT).unwrap();
        let sent = calls.begin("SECRET", "https://user:secret@example.org/secret?key=secret#secret");
        let call = &calls.open[&sent];
        assert_eq!((call.method, call.host.as_deref(), call.port), ("_OTHER", Some("example.org"), Some(443)));
    }

    #[test]
    fn a_trace_that_is_not_recorded_is_passed_on() {
        let parent = PARENT.replace("-01", "-00");
        let mut calls = Calls::part_of(&parent).unwrap();
        assert_eq!(calls.begin("GET", "http://h/"), parent);
        assert!(calls.open.is_empty());
    }
}
