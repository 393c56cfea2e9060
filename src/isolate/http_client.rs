//! The HTTP client of runs: sends requests in HTTP/1.1 and hands responses out in pieces.
//!
//! `js/http_client.js` gives it the shape of undici's. What fails before a byte of a request was sent is not reported but
//! left to undici, which tries again and says in its own words why it cannot be.

#![allow(unsafe_code)] // the op macro writes unsafe glue

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as _;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem};

use bytes::{Buf as _, Bytes};
use deno_core::{CancelFuture as _, CancelHandle, JsBuffer, OpState, ToJsBuffer, op2};
use deno_runtime::deno_permissions::PermissionsContainer;
use futures_util::FutureExt as _;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::ext::ReasonPhrase;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connect, HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use tokio::time::sleep;

use super::authorities::Authorities;

/// How long a connection may wait for another request, as in undici.
const IDLE: Duration = Duration::from_secs(4);

/// How much earlier a connection is given up than the server says that it would close it.
const CAUTION: Duration = Duration::from_secs(1);

/// After how long of silence the system asks whether a connection is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Headers of a response. hyper's own limit is a hundred.
const MOST_HEADERS: usize = 1000;

/// Bytes of a body that come along with the headers, if they are there.
const AT_ONCE: usize = 16 << 10;

/// How often the connection gets a turn to bring them.
const TURNS: usize = 3;

/// The client of one isolate.
pub struct HttpClient {
    /// False: everything is left to undici.
    is_used: bool,
    authorities: Arc<Authorities>,
    plain: Option<Client<HttpConnector, Full<Bytes>>>,
    encrypted: Option<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>,
    /// Responses whose bodies were not read to the end.
    responses: HashMap<u32, Response>,
    last: u32,
    /// Until when servers promised to keep connections. Whoever sends on one that is about to be closed may lose a request.
    kept_until: Option<Instant>,
}

/// The rest of a response.
struct Response {
    /// None while it is being read.
    body: Option<Body>,
    trailers: Vec<String>,
    cancel: Rc<CancelHandle>,
}

struct Body {
    incoming: Incoming,
    /// What was received of it and not yet read.
    received: Bytes,
    /// Why nothing comes after that.
    broken: Option<hyper::Error>,
    trailers: Vec<String>,
}

/// What `js/http_client.js` gets of a response.
#[derive(Serialize)]
struct Answer {
    status: u16,
    reason: String,
    /// Names and values in turns.
    headers: Vec<String>,
    /// The body if all of it is there.
    body: Option<ToJsBuffer>,
    trailers: Vec<String>,
    /// By which the rest of it is to be had, if there is one.
    rest: u32,
}

/// Why there is no response, or no more of it; `js/http_client.js` knows the names.
#[derive(Serialize)]
struct Failure {
    failure: &'static str,
    message: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Sent {
    Answer(Answer),
    Failure(Failure),
    /// Nothing was sent.
    Not(()),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Read {
    /// Bytes that were read; 0 at the end.
    Bytes(usize),
    Failure(Failure),
}

impl HttpClient {
    pub fn new(is_used: bool, authorities: Arc<Authorities>) -> Self {
        Self {
            is_used,
            authorities,
            plain: None,
            encrypted: None,
            responses: HashMap::new(),
            last: 0,
            kept_until: None,
        }
    }

    /// Lets go of all responses, so that nobody reads what another run asked for.
    pub fn forget_responses(&mut self) {
        for (_, response) in self.responses.drain() {
            response.cancel.cancel();
        }
    }

    /// Closes the connections that wait for another request.
    pub fn close_idle(&mut self) {
        self.plain = None;
        self.encrypted = None;
        self.kept_until = None;
    }

    /// Takes note of what a server says of its connection.
    fn heed(&mut self, headers: &HeaderMap) {
        let hint = headers.get("keep-alive").and_then(|value| value.to_str().ok()).and_then(kept_for);
        if let Some(hint) = hint.filter(|hint| *hint < IDLE + CAUTION) {
            let end = Instant::now() + hint.saturating_sub(CAUTION);
            self.kept_until = Some(self.kept_until.map_or(end, |known| known.min(end)));
        }
    }

    fn send(&mut self, request: Request<Full<Bytes>>) -> Result<ResponseFuture, String> {
        if self.kept_until.is_some_and(|end| Instant::now() >= end) {
            self.close_idle();
        }
        if request.uri().scheme() != Some(&Scheme::HTTPS) {
            return Ok(self.plain.get_or_insert_with(|| client(connector())).request(request));
        }
        if self.encrypted.is_none() {
            let tls = self.authorities.client_config()?;
            let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
            self.encrypted = Some(client(builder.wrap_connector(connector())));
        }
        Ok(self.encrypted.as_ref().expect("it was just made").request(request))
    }

    fn keep(&mut self, body: Body) -> u32 {
        self.last += 1;
        let cancel = CancelHandle::new_rc();
        self.responses.insert(self.last, Response { body: Some(body), trailers: Vec::new(), cancel });
        self.last
    }
}

/// The time in a header as `timeout=5, max=100`.
fn kept_for(header: &str) -> Option<Duration> {
    let parameters = header.split(',').filter_map(|parameter| parameter.trim().split_once('='));
    let timeout = parameters.filter(|(name, _)| name.eq_ignore_ascii_case("timeout")).map(|(_, value)| value).next()?;
    timeout.parse().map(Duration::from_secs).ok()
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEP_ALIVE));
    connector
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .http1_max_headers(MOST_HEADERS)
        .http1_title_case_headers(true)
        .build(connector)
}

impl Body {
    /// What comes next of it. None: that was all.
    async fn next(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        if !self.received.is_empty() {
            return Ok(Some(mem::take(&mut self.received)));
        }
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        while let Some(frame) = self.incoming.frame().await.transpose()? {
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => self.trailers = frame.into_trailers().map_or_else(|_| Vec::new(), |map| texts(&map)),
            }
        }
        Ok(None)
    }

    /// All of it, if it is small and there, or nearly so.
    async fn at_once(&mut self) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        'turns: for _ in 0..TURNS {
            while let Some(next) = self.next().now_or_never() {
                match next {
                    Ok(Some(bytes)) => whole.extend(bytes),
                    Ok(None) => return Some(whole),
                    Err(error) => {
                        self.broken = Some(error);
                        break 'turns;
                    }
                }
                if whole.len() > AT_ONCE {
                    break 'turns;
                }
            }
            if self.incoming.size_hint().lower() > AT_ONCE as u64 {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.received = whole.into();
        None
    }
}

/// Names and values in turns. A value is a text of bytes, as in Latin-1.
fn texts(headers: &HeaderMap) -> Vec<String> {
    headers.iter().flat_map(|(name, value)| [name.as_str().to_owned(), latin1(value.as_bytes())]).collect()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn request(method: &str, url: &str, headers: &[String], body: Option<JsBuffer>) -> Option<Request<Full<Bytes>>> {
    // In place: a copy would count towards no limit.
    let mut request = Request::new(Full::new(body.map(Bytes::from_owner).unwrap_or_default()));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = url.parse().ok()?;
    for header in headers.chunks_exact(2) {
        let value = header[1].chars().map(|c| u8::try_from(c).ok()).collect::<Option<Vec<u8>>>()?;
        request.headers_mut().append(HeaderName::try_from(&header[0]).ok()?, HeaderValue::try_from(value).ok()?);
    }
    Some(request)
}

/// Whether the run may connect to where `uri` is.
fn is_allowed(state: &mut OpState, uri: &Uri) -> bool {
    let Some(host) = uri.host() else { return false };
    let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
    state.borrow_mut::<PermissionsContainer>().check_net(&(host, Some(port)), "an HTTP request").is_ok()
}

/// Sends a request. `connect_patience`: milliseconds until there must be a connection, with its encryption. `patience`: those
/// until there must be a response, or 0.
#[op2]
#[serde]
pub async fn op_fnhost_http_send(
    state: Rc<RefCell<OpState>>,
    #[string] method: String,
    #[string] url: String,
    #[serde] headers: Vec<String>,
    #[buffer] body: Option<JsBuffer>,
    connect_patience: f64,
    patience: f64,
) -> Sent {
    let Some(mut request) = request(&method, &url, &headers, body) else { return Sent::Not(()) };
    let mut connection = capture_connection(&mut request);
    let sending = {
        let mut state = state.borrow_mut();
        if !state.borrow::<HttpClient>().is_used || !is_allowed(&mut state, request.uri()) {
            return Sent::Not(());
        }
        state.borrow_mut::<HttpClient>().send(request)
    };
    let Ok(mut sending) = sending else { return Sent::Not(()) };
    let late = async {
        tokio::select! {
            _ = connection.wait_for_connection_metadata() => {}
            () = elapsed(connect_patience) => return "connect timeout",
        }
        elapsed(patience).await;
        "headers timeout"
    };
    let response = tokio::select! {
        biased;
        response = &mut sending => response,
        failure = late => return Sent::Failure(Failure { failure, message: String::new() }),
    };
    let response = match response {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Sent::Not(()),
        Err(error) => return Sent::Failure(Failure::of(error.source().and_then(|source| source.downcast_ref()))),
    };
    let (head, incoming) = response.into_parts();
    state.borrow_mut().borrow_mut::<HttpClient>().heed(&head.headers);
    let mut body = Body { incoming, received: Bytes::new(), broken: None, trailers: Vec::new() };
    let whole = body.at_once().await;
    let reason = head.extensions.get::<ReasonPhrase>();
    let trailers = mem::take(&mut body.trailers);
    Sent::Answer(Answer {
        status: head.status.as_u16(),
        reason: match reason {
            Some(reason) => latin1(reason.as_bytes()),
            None => head.status.canonical_reason().unwrap_or_default().to_owned(),
        },
        headers: texts(&head.headers),
        rest: if whole.is_some() { 0 } else { state.borrow_mut().borrow_mut::<HttpClient>().keep(body) },
        body: whole.map(ToJsBuffer::from),
        trailers,
    })
}

async fn elapsed(patience: f64) {
    if patience > 0.0 {
        sleep(Duration::from_secs_f64((patience / 1e3).min(1e9))).await;
    } else {
        pending().await
    }
}

impl Failure {
    fn of(error: Option<&hyper::Error>) -> Self {
        let io = error.and_then(|error| error.source()).and_then(|source| source.downcast_ref::<io::Error>());
        let failure = match (error, io.map(io::Error::kind)) {
            (Some(error), _) if error.is_parse_too_large() => "headers overflow",
            (Some(error), _) if error.is_parse() => "protocol",
            // What is no chunk.
            (_, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) => "protocol",
            (_, Some(io::ErrorKind::ConnectionReset)) => "reset",
            _ => "closed",
        };
        Self { failure, message: error.map(ToString::to_string).unwrap_or_default() }
    }
}

/// Reads what comes next of a response into `buffer`. `patience`: milliseconds until something must come, or 0.
#[op2]
#[serde]
pub async fn op_fnhost_http_read(
    state: Rc<RefCell<OpState>>,
    rest: u32,
    #[buffer] mut buffer: JsBuffer,
    patience: f64,
) -> Read {
    let taken = {
        let mut state = state.borrow_mut();
        let response = state.borrow_mut::<HttpClient>().responses.get_mut(&rest);
        response.and_then(|response| Some((response.body.take()?, response.cancel.clone())))
    };
    // It was let go of.
    let Some((mut body, cancel)) = taken else { return Read::Bytes(0) };
    let mut read = 0;
    let result = tokio::select! {
        biased;
        result = fill(&mut body, &mut buffer, &mut read).or_cancel(cancel) => result.unwrap_or(Ok(())),
        () = elapsed(patience) => {
            state.borrow_mut().borrow_mut::<HttpClient>().responses.remove(&rest);
            return Read::Failure(Failure { failure: "body timeout", message: String::new() });
        }
    };
    let mut state = state.borrow_mut();
    let responses = &mut state.borrow_mut::<HttpClient>().responses;
    if let Err(error) = result {
        responses.remove(&rest);
        return Read::Failure(Failure::of(Some(&error)));
    }
    if let Some(response) = responses.get_mut(&rest) {
        response.trailers = mem::take(&mut body.trailers);
        response.body = Some(body);
    }
    Read::Bytes(read)
}

/// Reads as much as there is, and at least something, unless it is at its end.
async fn fill(body: &mut Body, buffer: &mut [u8], read: &mut usize) -> Result<(), hyper::Error> {
    while *read < buffer.len() {
        let next = if *read == 0 { Some(body.next().await) } else { body.next().now_or_never() };
        let mut bytes = match next {
            Some(Ok(Some(bytes))) => bytes,
            Some(Err(error)) if *read == 0 => return Err(error),
            Some(Err(error)) => {
                body.broken = Some(error);
                return Ok(());
            }
            Some(Ok(None)) | None => return Ok(()),
        };
        let length = bytes.len().min(buffer.len() - *read);
        bytes.copy_to_slice(&mut buffer[*read..*read + length]);
        *read += length;
        body.received = bytes;
    }
    Ok(())
}

/// Lets go of a response that is read to its end, or that nobody wants to read. Returns its trailers.
#[op2]
#[serde]
pub fn op_fnhost_http_let_go(state: &mut OpState, rest: u32) -> Vec<String> {
    let Some(response) = state.borrow_mut::<HttpClient>().responses.remove(&rest) else { return Vec::new() };
    response.cancel.cancel();
    response.trailers
}

/// Closes all connections that wait for another request.
#[op2(fast)]
pub fn op_fnhost_http_close(state: &mut OpState) {
    state.borrow_mut::<HttpClient>().close_idle();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_it_keeps_a_connection() {
        assert_eq!(kept_for("timeout=5, max=100"), Some(Duration::from_secs(5)));
        assert_eq!(kept_for("max=100,Timeout=2"), Some(Duration::from_secs(2)));
        assert_eq!(kept_for("max=100"), None);
        assert_eq!(kept_for("timeout=soon"), None);
    }
}
