//! An HTTP server in the test's own process: what adaptors meet on the network, friendly and otherwise.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

/// User and password that `/basic` asks for.
pub const USER: (&str, &str) = ("nurse", "cr3dential-of-the-nurse");
/// Bytes of what `/big` answers.
pub const BIG: usize = 20 << 20;

/// What proves who a server is.
pub struct Identity {
    pub certificate: Certificate,
    pub key: KeyPair,
    /// The certificate of the authority, which nobody knows, as PEM text.
    pub authority: String,
}

impl Identity {
    /// For `localhost` and `127.0.0.1`.
    pub fn of_localhost() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "Authority of the tests");
        let authority_key = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        Self { certificate, key, authority: pem }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// In order, decoded.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON, `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// One step in sending an answer's body.
#[derive(Clone, Debug)]
enum Step {
    Send(Bytes),
    /// Nothing more ever comes.
    Stall,
    /// The connection ends here.
    Cut {
        flushed: bool,
    },
}

/// What the server answers.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    steps: VecDeque<Step>,
    /// Whether the length is told beforehand; if not, the body is sent in chunks.
    sized: bool,
    delay: Duration,
}

impl Reply {
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut reply = Self::empty(status).header("content-type", content_type);
        reply.steps.push_back(Step::Send(body.into()));
        reply
    }

    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), steps: VecDeque::new(), sized: true, delay: Duration::ZERO }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn encoded(encoding: &'static str, body: Vec<u8>) -> Self {
        Self::new(200, "application/json", body).header("content-encoding", encoding)
    }

    /// Promises a body and sends only the beginning of it, then does `end`.
    fn broken(end: Step) -> Self {
        let mut reply = Self::new(200, "application/json", r#"{"patients": ["#).header("content-length", "4096");
        reply.steps.push_back(end);
        reply.sized = false;
        reply
    }

    fn length(&self) -> usize {
        let length = |step: &Step| if let Step::Send(bytes) = step { bytes.len() } else { 0 };
        self.steps.iter().map(length).sum()
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Send(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Step::Stall) => {
                self.steps.push_front(Step::Stall);
                Poll::Pending
            }
            // Waits once, so that what came before leaves first.
            Some(Step::Cut { flushed: false }) => {
                self.steps.push_front(Step::Cut { flushed: true });
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Cut { flushed: true }) => Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
        }
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A server on a free port of this machine's own network. It stops with the test's process.
pub struct Server {
    scheme: &'static str,
    port: u16,
    seen: Seen,
}

/// The requests that came last.
type Seen = Arc<Mutex<VecDeque<Request>>>;

/// How many requests are kept. Some tests run for hours, and look at memory.
const MAX_SEEN: usize = 1000;

impl Server {
    /// Serves the routes below.
    pub fn start() -> Self {
        Self::with(routes)
    }

    /// Serves whatever `handler` answers.
    pub fn with(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, Arc::new(handler))
    }

    /// Serves the routes below behind TLS, with a certificate for `localhost` and `127.0.0.1` from an authority that
    /// nobody knows. Returns the authority's certificate as PEM text too.
    pub fn start_tls() -> (Self, String) {
        let Identity { certificate, key, authority } = Identity::of_localhost();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        (Self::serve(Some(TlsAcceptor::from(Arc::new(config))), Arc::new(routes)), authority)
    }

    fn serve(tls: Option<TlsAcceptor>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Seen::default();
        let server = Self { scheme: if tls.is_some() { "https" } else { "http" }, port, seen: seen.clone() };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let (tls, handler, seen) = (tls.clone(), handler.clone(), seen.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => converse(TokioIo::new(stream), handler, seen).await,
                            // A client that refuses the certificate is what some tests are about.
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    converse(TokioIo::new(stream), handler, seen).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        server
    }

    /// `http://localhost:PORT`.
    pub fn origin(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.port)
    }

    /// The same server under the name that counts as another origin and another host.
    pub fn other_origin(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The requests so far, in order; of very many, the last ones.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().iter().cloned().collect()
    }
}

async fn converse<S>(stream: TokioIo<S>, handler: Handler, seen: Seen)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (handler, seen) = (handler.clone(), seen.clone());
        async move { Ok::<_, Infallible>(answer(request, &handler, &seen).await) }
    });
    // A connection that breaks is part of the tests.
    let _ = http1::Builder::new().serve_connection(stream, service).await;
}

async fn answer(
    request: hyper::Request<hyper::body::Incoming>,
    handler: &Handler,
    seen: &Mutex<VecDeque<Request>>,
) -> hyper::Response<Reply> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let query = url::form_urlencoded::parse(head.uri.query().unwrap_or("").as_bytes()).into_owned().collect();
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query,
        headers: head.headers,
        body,
    };
    let reply = handler(&request);
    {
        let mut seen = seen.lock().unwrap();
        if seen.len() == MAX_SEEN {
            seen.pop_front();
        }
        seen.push_back(request);
    }
    tokio::time::sleep(reply.delay).await;
    let mut response = hyper::Response::new(());
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap();
    for (name, value) in &reply.headers {
        response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    if reply.sized {
        response.headers_mut().insert("content-length", HeaderValue::from(reply.length()));
    }
    response.map(|()| reply)
}

/// What [`Server::start`] serves.
fn routes(request: &Request) -> Reply {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let patients = json!({ "patients": [{ "name": "Amina" }, { "name": "Kofi" }] });
    let packed = patients.to_string().into_bytes();
    match parts[..] {
        ["echo", ..] => Reply::json(200, &echo(request)),
        ["patients"] => Reply::json(200, &patients),
        ["text"] => Reply::new(200, "text/plain; charset=utf-8", "grüße 🌍"),
        ["bytes"] => Reply::new(200, "application/octet-stream", (0..=255).collect::<Vec<u8>>()),
        ["csv"] => Reply::new(200, "text/csv", "name,age\nAmina,31\n\"Kofi, jr.\",4\n"),
        ["xml"] => Reply::new(
            200,
            "application/xml",
            r#"<?xml version="1.0"?><list><patient id="1">Amina</patient><patient id="2">Kofi</patient></list>"#,
        ),
        ["table"] => Reply::new(
            200,
            "text/html",
            "<table><tr><td>name</td><td>age</td></tr><tr><td>Amina</td><td>31</td></tr></table>",
        ),
        ["status", code] => {
            let code = code.parse().unwrap();
            Reply::json(code, &json!({ "error": format!("the server says {code}") }))
        }
        ["nothing"] => Reply::empty(204),
        ["not-json"] => Reply::new(200, "application/json", "<html>"),
        // Redirects: anywhere, down a chain that ends at /echo, and in a circle.
        ["redirect"] => {
            let status = request.parameter("status").map_or(302, |status| status.parse().unwrap());
            Reply::empty(status).header("location", request.parameter("to").unwrap_or("/echo"))
        }
        ["redirect", "loop"] => Reply::empty(302).header("location", "/redirect/loop"),
        ["redirect", "0"] => Reply::json(200, &echo(request)),
        ["redirect", left] => {
            let left: u32 = left.parse().unwrap();
            Reply::empty(302).header("location", format!("/redirect/{}", left - 1))
        }
        ["gzip"] => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&packed).unwrap();
            Reply::encoded("gzip", encoder.finish().unwrap())
        }
        // HTTP's `deflate` is the zlib format.
        ["deflate"] => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&packed).unwrap();
            Reply::encoded("deflate", encoder.finish().unwrap())
        }
        ["br"] => Reply::encoded("br", brotli(&packed)),
        ["chunked"] => {
            let mut reply = Reply::empty(200).header("content-type", "application/json");
            reply.steps = packed.chunks(7).map(|part| Step::Send(Bytes::copy_from_slice(part))).collect();
            reply.sized = false;
            reply
        }
        ["slow", milliseconds] => {
            Reply { delay: Duration::from_millis(milliseconds.parse().unwrap()), ..Reply::json(200, &patients) }
        }
        ["stall"] => Reply::broken(Step::Stall),
        ["cut"] => Reply::broken(Step::Cut { flushed: false }),
        ["big"] => Reply::new(200, "application/json", format!("[\"{}\"]", "x".repeat(BIG - 4))),
        ["basic"] => {
            let wanted = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", USER.0, USER.1)));
            if request.header("authorization") == Some(&wanted) {
                return Reply::json(200, &json!({ "user": USER.0 }));
            }
            Reply::json(401, &json!({ "error": "who are you?" })).header("www-authenticate", "Basic realm=\"tests\"")
        }
        ["cookies"] => Reply::json(200, &echo(request))
            .header("set-cookie", "session=one; Path=/; HttpOnly")
            .header("set-cookie", "theme=dark"),
        _ => Reply::json(404, &json!({ "error": "no such thing" })),
    }
}

/// A request as JSON.
pub fn echo(request: &Request) -> Value {
    let headers: serde_json::Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let query: serde_json::Map<String, Value> =
        request.query.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    json!({
        "method": request.method,
        "path": request.path,
        "query": query,
        "headers": headers,
        "body": String::from_utf8_lossy(&request.body),
        "length": request.body.len(),
    })
}

/// `data` as a brotli stream that compresses nothing: one block of plain bytes and an empty last one (RFC 7932, 9.2).
fn brotli(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() - 1).unwrap();
    assert!(length < 1 << 16);
    // From the lowest bit: a window of 16 bits (0), not the last block (0), a length of 4 nibbles (00), the length
    // less one in 16 bits, and plain bytes follow (1).
    let header = length << 4 | 1 << 20;
    let mut stream = header.to_le_bytes()[..3].to_vec();
    stream.extend_from_slice(data);
    stream.push(0b11);
    stream
}
