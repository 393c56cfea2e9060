//! What holds for every request, whoever answers it.
//!
//! Each has an id, which is in the answer and in the log. Paths that mean one thing here and another to a proxy are
//! refused. A body is bounded in size, in the time between its parts and in its rate, and all bodies together in memory;
//! handlers read bodies as if nothing of this could happen, and [`guard`] gives the answer when it did. A handler that
//! panics answers 500. No answer may be stored, framed, or taken for another type than it says, unless its handler says
//! otherwise.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{Access, App, Problem, metrics, webhook};
use crate::config::HttpConfig;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Memory that all bodies may take while they come in, and how much of it is taken at once.
const MEMORY: usize = 256 << 20;
const BLOCK: usize = 4 << 10;
/// Bytes a second that a body must come with, once it has had its time to start.
const SLOWEST: u64 = 256;

/// Routes, guarded.
pub fn guarded(router: Router, app: &App) -> Router {
    let guard = Guard::new(&app.config, app.access.clone());
    router
        .fallback(async || Problem::new(StatusCode::NOT_FOUND).with_detail("there is nothing at this address"))
        .method_not_allowed_fallback(async || Problem::new(StatusCode::METHOD_NOT_ALLOWED))
        // The guard bounds bodies.
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(option_layer((!app.config.cors.is_empty()).then(|| cors(&app.config.cors))))
        .layer(from_fn_with_state(Arc::new(guard), guard_request))
}

struct Guard {
    bodies: Arc<BodyLimits>,
    rates: Option<Rates>,
    access: Arc<Access>,
}

impl Guard {
    fn new(config: &HttpConfig, access: Arc<Access>) -> Self {
        let size = config.body_limit.bytes();
        let memory = Arc::new(Semaphore::new(MEMORY.max(2 * size) / BLOCK));
        Self {
            bodies: Arc::new(BodyLimits { size, patience: config.read_timeout.0, memory }),
            rates: NonZeroU32::new(config.rate_limit).map(Rates::new),
            access,
        }
    }

    /// Why a request is not even looked at.
    fn refusal(&self, request: &Request) -> Option<Problem> {
        if !is_plain_path(request.uri().path()) {
            return Some(Problem::bad_request(
                "the path has empty segments, dots, or characters that are read differently by different programs",
            ));
        }
        let hosts = request.headers().get_all(header::HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
            return Some(Problem::bad_request("a request has one `Host`"));
        }
        let length = request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<usize>().ok()?;
        (length > self.bodies.size).then(|| Verdict::TooLarge.problem(self.bodies.size))
    }

    fn too_often(&self, request: &Request) -> Option<Problem> {
        let rates = self.rates.as_ref()?;
        if matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz") {
            return None;
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        rates.check(match self.access.recent(request.headers()) {
            Some(token) => Caller::Token(token),
            None => Caller::Address(peer.map(network)?),
        })
    }
}

async fn guard_request(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let is_webhook = request.uri().path().starts_with("/i/");
    let span = tracing::info_span!("request", id, %method, route);

    let verdict = Arc::new(OnceLock::new());
    let memory = Memory::default();
    request.extensions_mut().insert(memory.clone());
    let mut response = match guard.refusal(&request).or_else(|| guard.too_often(&request)) {
        Some(problem) if is_webhook => webhook::failed(problem),
        Some(problem) => problem.into_response(),
        None => {
            let request =
                request.map(|body| Body::new(GuardedBody::new(body, guard.bodies.clone(), verdict.clone(), memory)));
            next.run(request).instrument(span.clone()).await
        }
    };
    if let Some(verdict) = verdict.get() {
        let problem = verdict.problem(guard.bodies.size);
        response = if is_webhook { webhook::failed(problem) } else { problem.into_response() };
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    protect(response.headers_mut(), &id);
    let status = response.status();
    let took = started.elapsed();
    metrics::answered(route, &method, status, took);
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ms = took.as_millis() as u64, "answered"));
    response
}

/// The client's own id, if it can be one.
fn request_id(headers: &HeaderMap) -> String {
    const LONGEST: usize = 128;
    let is_fit = |id: &&str| {
        (1..=LONGEST).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_fit);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Whether every program reads a path in the same way.
fn is_plain_path(path: &str) -> bool {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else { return false };
        let byte = (high << 4 | low) as u8;
        if matches!(byte, b'/' | b'%') {
            return false;
        }
        decoded.push(byte);
    }
    let Ok(decoded) = String::from_utf8(decoded) else { return false };
    !decoded.contains("//")
        && !decoded.contains(|c: char| c.is_control() || c == '\\')
        && decoded.split('/').all(|segment| !matches!(segment, "." | ".."))
}

fn protect(headers: &mut HeaderMap, id: &str) {
    headers.extend(HeaderValue::from_str(id).map(|id| (REQUEST_ID, id)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in [
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let reason = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    tracing::error!(reason, "a request made a handler panic: this is a bug");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR).into_response()
}

/// Lets pages of these origins call the API. `*` is every origin.
fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<String> = origins.iter().map(|origin| origin.trim().trim_end_matches('/').to_owned()).collect();
    let is_allowed =
        move |origin: &HeaderValue, _: &_| origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin);
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("prefer"),
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("x-deliver-at"),
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER, REQUEST_ID])
}

/// How large a body may be, how long its client may pause, and the memory for all bodies.
struct BodyLimits {
    size: usize,
    patience: Duration,
    memory: Arc<Semaphore>,
}

/// What was wrong with the way in which a body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    TooLarge,
    TooSlow,
    /// Others' bodies take all the memory there is for them.
    NoMemory,
}

impl Verdict {
    fn problem(self, limit: usize) -> Problem {
        match self {
            Self::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
                .with_detail(format!("the body is larger than {limit} bytes, the limit of this server")),
            Self::TooSlow => Problem::new(StatusCode::REQUEST_TIMEOUT).with_detail("the body came too slowly"),
            Self::NoMemory => Problem::new(StatusCode::SERVICE_UNAVAILABLE)
                .with_detail("there are too many large requests at once; nothing was kept")
                .retry_after(Duration::from_secs(2)),
        }
    }
}

/// The memory that a body takes: until the request is dropped, since its bytes outlive the body they came in.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Memory {
    fn add(&self, permit: OwnedSemaphorePermit) {
        match &mut *self.0.lock() {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
    }
}

/// A body that ends in an error, and a verdict, when it is too much.
struct GuardedBody {
    body: Body,
    limits: Arc<BodyLimits>,
    verdict: Arc<OnceLock<Verdict>>,
    memory: Memory,
    received: usize,
    begun: Option<Instant>,
    /// Runs while nothing comes.
    patience: Option<Pin<Box<Sleep>>>,
}

impl GuardedBody {
    fn new(body: Body, limits: Arc<BodyLimits>, verdict: Arc<OnceLock<Verdict>>, memory: Memory) -> Self {
        Self { body, limits, verdict, memory, received: 0, begun: None, patience: None }
    }

    fn account(&mut self, length: usize) -> Result<(), Verdict> {
        let blocks = |bytes: usize| bytes.div_ceil(BLOCK);
        let more = blocks(self.received + length) - blocks(self.received);
        self.received += length;
        if self.received > self.limits.size {
            return Err(Verdict::TooLarge);
        }
        if more > 0 {
            let permit = self.limits.memory.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
            self.memory.add(permit.map_err(|_| Verdict::NoMemory)?);
        }
        let elapsed = self.begun.get_or_insert_with(Instant::now).elapsed();
        let is_slow = elapsed > 2 * self.limits.patience && (self.received as u64) < SLOWEST * elapsed.as_secs();
        if is_slow { Err(Verdict::TooSlow) } else { Ok(()) }
    }

    fn give_up(&mut self, verdict: Verdict) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let _ = self.verdict.set(verdict);
        Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other("the body was not read to its end")))))
    }
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.begun.get_or_insert_with(Instant::now);
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(polled) => {
                this.patience = None;
                if let Some(Ok(frame)) = &polled
                    && let Some(data) = frame.data_ref()
                    && let Err(verdict) = this.account(data.len())
                {
                    return this.give_up(verdict);
                }
                Poll::Ready(polled)
            }
            Poll::Pending => {
                let limit = this.limits.patience;
                let patience = this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                match patience.as_mut().poll(cx) {
                    Poll::Ready(()) => this.give_up(Verdict::TooSlow),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Caller {
    Token(String),
    Address(IpAddr),
}

/// The network that one client has: of IPv6 addresses each has billions.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        v4 => v4,
    }
}

/// Requests a second of each caller.
struct Rates {
    limiter: DefaultKeyedRateLimiter<Caller>,
    clock: DefaultClock,
    swept: Mutex<Instant>,
}

impl Rates {
    fn new(per_second: NonZeroU32) -> Self {
        let limiter = DefaultKeyedRateLimiter::keyed(Quota::per_second(per_second));
        Self { limiter, clock: DefaultClock::default(), swept: Mutex::new(Instant::now()) }
    }

    fn check(&self, caller: Caller) -> Option<Problem> {
        self.sweep();
        let until = self.limiter.check_key(&caller).err()?;
        Some(
            Problem::new(StatusCode::TOO_MANY_REQUESTS)
                .with_detail("more requests than this server takes from one caller")
                .retry_after(until.wait_time_from(self.clock.now())),
        )
    }

    /// Forgets callers who were quiet for a second: they begin anew anyway.
    fn sweep(&self) {
        const EVERY: Duration = Duration::from_secs(1);
        if let Some(mut swept) = self.swept.try_lock().filter(|swept| swept.elapsed() > EVERY) {
            *swept = Instant::now();
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn paths_that_can_be_read_in_two_ways_are_refused() {
        for path in ["/", "/inbox", "/inbox/", "/i/a-b_c", "/inbox/a.b", "/inbox/donn%C3%A9es", "/a..b", "/..."] {
            assert!(is_plain_path(path), "{path}");
        }
        for path in [
            "//inbox",
            "/i//x",
            "/i/../api",
            "/i/%2e%2e/api",
            "/i/.%2E/api",
            "/./inbox",
            "/inbox/..",
            "/i/a%2fb",
            "/i/a%5Cb",
            "/i/a\\b",
            "/i/%00",
            "/i/%0d%0a",
            "/i/%",
            "/i/%4",
            "/i/%zz",
            "/i/%ff",
            "/i/%252e",
        ] {
            assert!(!is_plain_path(path), "{path}");
        }
    }

    #[test]
    fn a_request_keeps_its_clients_id_if_it_can_be_one() {
        let id = |text: &str| request_id(&[(REQUEST_ID, HeaderValue::from_str(text).unwrap())].into_iter().collect());
        assert_eq!(id("a-b_c.1"), "a-b_c.1");
        for text in ["", "a b", "<x>", &"x".repeat(129)] {
            assert_ne!(id(text), text);
        }
    }

    #[tokio::test]
    async fn bodies_share_the_memory_there_is_until_their_requests_are_dropped() {
        let patience = Duration::from_secs(60);
        let memory = Arc::new(Semaphore::new(3));
        let limits = Arc::new(BodyLimits { size: 2 * BLOCK, patience, memory });
        let read = async |bytes: usize, memory: Memory| {
            let verdict = Arc::new(OnceLock::new());
            let body = GuardedBody::new(Body::from(vec![0; bytes]), limits.clone(), verdict.clone(), memory);
            let read = body.collect().await;
            (read.is_ok(), verdict.get().copied())
        };
        let first = Memory::default();
        assert_eq!(read(2 * BLOCK, first.clone()).await, (true, None));
        assert_eq!(read(2 * BLOCK, Memory::default()).await, (false, Some(Verdict::NoMemory)));
        assert_eq!(read(2 * BLOCK + 1, Memory::default()).await, (false, Some(Verdict::TooLarge)));
        drop(first);
        assert_eq!(read(2 * BLOCK, Memory::default()).await, (true, None));
    }

    #[test]
    fn each_caller_has_a_rate_of_its_own() {
        let rates = Rates::new(NonZeroU32::new(2).unwrap());
        let caller = |name: &str| Caller::Token(name.into());
        assert!(rates.check(caller("a")).is_none() && rates.check(caller("a")).is_none());
        let problem = rates.check(caller("a")).unwrap();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(problem.into_response().headers().contains_key(header::RETRY_AFTER));
        assert!(rates.check(caller("b")).is_none());
        assert_eq!(network("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
