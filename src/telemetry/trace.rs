//! Traces: what caused what, across this service, those that call it, and those that its jobs call.
//!
//! A run outlives whoever began it: its steps may wait for days, be retried, and go on in another process. A span that
//! lives in memory from its begin to its end cannot tell of that. So nothing of a trace is kept here: what a span is
//! called follows from ids in the store, each span is made whole when it has ended, and all that a run carries is the
//! trace context of what started it. Whether a trace is recorded is decided once, where it enters, and is part of that
//! context.
//!
//! Ended spans wait in a bounded queue for a thread that sends them in batches. If the collector is slow or away, spans
//! are dropped; nothing waits for it. Without an endpoint there is no tracer, and nothing here is done.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Config, IdGenerator as _, RandomIdGenerator, SamplingDecision, ShouldSample, SpanData,
    SpanProcessor as _,
};

use super::otlp_client::OtlpClient;

/// The longest that the end of the program waits for the last spans to be sent.
const FLUSH: Duration = Duration::from_secs(3);

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// The tracer, if traces are exported.
pub fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

/// Makes the tracer if the environment names an endpoint. Must be called within a tokio runtime.
pub fn start() -> Result<(), String> {
    let Some(endpoint) = endpoint(&|name| std::env::var(name).ok()) else { return Ok(()) };
    let tracer = Tracer::connect().map_err(|error| format!("cannot export traces: {error}"))?;
    tracing::info!(endpoint, "traces are exported");
    // Only the first of one process is used: its spans could not go two ways.
    let _ = TRACER.set(tracer);
    Ok(())
}

/// Sends what is left, for as long as that may take at most. Blocks.
pub fn stop() {
    if let Some(tracer) = tracer()
        && let Err(error) = tracer.processor.shutdown_with_timeout(FLUSH)
    {
        tracing::warn!(%error, "the last spans could not be exported");
    }
}

/// Where spans go, as a person may read it: an address can hold a password, or a key in its query.
fn endpoint(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none")
    {
        return None;
    }
    let endpoint = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"))?;
    let origin = url::Url::parse(&endpoint).map(|url| url.origin().ascii_serialization());
    Some(origin.unwrap_or_else(|_| "unreadable".into()))
}

/// Which span of which trace: W3C trace context, written as its header `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    pub span: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// The context of another span of the same trace.
    #[must_use]
    pub fn with_span(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    fn flags(self) -> TraceFlags {
        TraceFlags::default().with_sampled(self.sampled)
    }

    fn to_otel(self, is_remote: bool) -> SpanContext {
        SpanContext::new(self.trace, self.span, self.flags(), is_remote, TraceState::NONE)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags())
    }
}

/// A text that is no trace context. Whoever sent it is treated as if it had sent none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTraceContext;

impl FromStr for TraceContext {
    type Err = NoTraceContext;

    fn from_str(text: &str) -> Result<Self, NoTraceContext> {
        let mut parts = text.split('-');
        let mut part = |length: usize| {
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            parts.next().filter(|part| part.len() == length && part.bytes().all(is_hex)).ok_or(NoTraceContext)
        };
        let version = part(2)?;
        let trace = TraceId::from_hex(part(32)?).map_err(|_| NoTraceContext)?;
        let span = SpanId::from_hex(part(16)?).map_err(|_| NoTraceContext)?;
        let flags = u8::from_str_radix(part(2)?, 16).map_err(|_| NoTraceContext)?;
        // Later versions may say more; the first four parts stay what they are.
        let well_formed = version != "ff" && (version != "00" || parts.next().is_none());
        if !well_formed || trace == TraceId::INVALID || span == SpanId::INVALID {
            return Err(NoTraceContext);
        }
        Ok(Self { trace, span, sampled: TraceFlags::new(flags).is_sampled() })
    }
}

/// Something that took place.
#[derive(Debug)]
pub struct Span {
    pub context: TraceContext,
    pub parent: Option<Parent>,
    pub kind: SpanKind,
    pub name: Cow<'static, str>,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<KeyValue>,
    /// What went wrong, without secrets.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub struct Parent {
    pub span: SpanId,
    /// It belongs to another service.
    pub is_remote: bool,
}

/// Takes spans that have ended, and sends them.
pub struct Tracer {
    processor: BatchSpanProcessor,
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
}

impl Tracer {
    fn connect() -> Result<Self, TracerError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(OtlpClient::from_environment()?)
            .with_protocol(Protocol::HttpBinary)
            .build()?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource());
        let scope = InstrumentationScope::builder("fnhost").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { processor, sampler: Config::default().sampler, scope })
    }

    /// The context of a span that begins here: in the trace of its parent, or in a trace of its own.
    pub fn enter(&self, parent: Option<TraceContext>, name: &str, kind: &SpanKind) -> TraceContext {
        let trace = parent.map_or_else(|| RandomIdGenerator::default().new_trace_id(), |parent| parent.trace);
        let context = parent.map(|parent| Context::new().with_remote_span_context(parent.to_otel(true)));
        let sampled = self.sampler.should_sample(context.as_ref(), trace, name, kind, &[], &[]);
        TraceContext { trace, span: new_span_id(), sampled: sampled.decision == SamplingDecision::RecordAndSample }
    }

    /// Has a span sent, if its trace is recorded. Never blocks.
    pub fn record(&self, span: Span) {
        if !span.context.sampled {
            return;
        }
        self.processor.on_end(SpanData {
            span_context: span.context.to_otel(false),
            parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| parent.span),
            parent_span_is_remote: span.parent.is_some_and(|parent| parent.is_remote),
            span_kind: span.kind,
            name: span.name,
            start_time: span.start,
            end_time: span.end.max(span.start),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        });
    }
}

pub fn new_span_id() -> SpanId {
    RandomIdGenerator::default().new_span_id()
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say it, otherwise it is fnhost.
fn resource() -> Resource {
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.build(),
        _ if std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|set| set.contains("service.name=")) => {
            resource.build()
        }
        _ => resource.with_service_name("fnhost").build(),
    }
}

#[derive(Debug, thiserror::Error)]
enum TracerError {
    #[error(transparent)]
    Client(#[from] super::otlp_client::ClientError),
    #[error("{0}")]
    Exporter(#[from] ExporterBuildError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_read_and_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceContext = text.parse().unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), text);
        let later: TraceContext = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02-more".parse().unwrap();
        assert_eq!(later.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    }

    #[test]
    fn what_is_no_trace_context_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(NoTraceContext), "{text}");
        }
    }

    #[test]
    fn traces_are_exported_only_where_the_environment_says() {
        let with = |variables: &[(&str, &str)]| {
            endpoint(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        let set = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:secret@collector.example/otlp?key=secret");
        assert_eq!(with(&[set]).as_deref(), Some("https://collector.example"));
        assert_eq!(with(&[set, ("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(with(&[set, ("OTEL_TRACES_EXPORTER", "none")]), None);
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/v1/traces");
        assert_eq!(with(&[set, own]).as_deref(), Some("http://localhost:4318"));
    }
}
