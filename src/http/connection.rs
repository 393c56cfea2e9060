//! Connections: accepting, TLS, and limits on what a client may take its time for.
//!
//! A client costs a connection for as long as it makes progress and no longer. The head of the first request has to come
//! within the read timeout; a connection without a request is closed after the idle timeout, and so is one whose client
//! does not take its answer. When all connections are taken, new ones wait in the system's queue, where they cost
//! nothing. At the end, requests under way are finished and idle connections closed.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::{Mutex, RwLock};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::App;
use crate::config::HttpConfig;

/// Headers of one request, and bytes of its head.
const MOST_HEADERS: usize = 100;
const LONGEST_HEAD: usize = 64 << 10;
/// Requests at once on one connection.
const MOST_STREAMS: u32 = 200;

/// Serves until `stop`, and then until the requests under way are answered.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, app: App, stop: CancellationToken) {
    let patience = Patience { read: app.config.read_timeout.0, idle: app.config.idle_timeout.0 };
    let room = Arc::new(Semaphore::new(app.config.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let tls = tls.map(Arc::new);
    let router = super::router(app);
    let connections = TaskTracker::new();
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().reload_on_hangup(stop.clone()));
    }
    loop {
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = stop.cancelled() => break,
        };
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, peer, tls, router, patience, stop).await {
                // Clients go away all the time.
                tracing::debug!(%peer, error, "a connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Most likely there are no more file descriptors: others have to be closed first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    read: Duration,
    idle: Duration,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
    patience: Patience,
    stop: CancellationToken,
) -> Result<(), String> {
    // Answers are written whole: waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    let stream = Progress::new(stream, patience.idle);
    let served = match tls {
        None => http(TokioIo::new(stream), peer, router, patience, stop).await,
        Some(tls) => {
            let handshake = tokio::time::timeout(patience.read, tls.acceptor().accept(stream)).await;
            let stream =
                handshake.map_err(|_| "the TLS handshake took too long")?.map_err(|error| error.to_string())?;
            http(TokioIo::new(stream), peer, router, patience, stop).await
        }
    };
    served.map_err(|error| error.to_string())
}

async fn http<I>(
    io: TokioIo<I>,
    peer: SocketAddr,
    router: Router,
    patience: Patience,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let service = hyper::service::service_fn({
        let activity = activity.clone();
        move |request: Request<Incoming>| {
            let under_way = activity.begin();
            let router = router.clone();
            async move {
                let mut request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                let response = router.oneshot(request).await;
                response.map(|response| response.map(|body| Counted { body, _under_way: under_way }))
            }
        }
    });
    let builder = builder(patience);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    tokio::select! {
        served = connection.as_mut() => return served,
        () = stop.cancelled() => {}
        () = activity.idle(patience) => {}
    }
    if activity.is_unused() {
        return Ok(());
    }
    connection.as_mut().graceful_shutdown();
    // The head of a further request may have begun, and need never end.
    let linger = Patience { read: patience.read, idle: patience.read };
    tokio::select! {
        served = connection => served,
        () = activity.idle(linger) => Ok(()),
    }
}

fn builder(patience: Patience) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Runs while nothing comes, too.
        .header_read_timeout(patience.idle)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LONGEST_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(patience.idle)
        .keep_alive_timeout(patience.read)
        .max_header_list_size(LONGEST_HEAD as u32)
        .max_concurrent_streams(MOST_STREAMS);
    builder
}

/// What happens on a connection.
#[derive(Debug, Default)]
struct Activity {
    /// Requests so far, and those that are not answered.
    begun: AtomicUsize,
    open: Mutex<usize>,
    changed: Notify,
}

/// A request that is not answered to its end.
struct UnderWay(Arc<Activity>);

impl Activity {
    fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, Ordering::Relaxed);
        *self.open.lock() += 1;
        self.changed.notify_one();
        UnderWay(self.clone())
    }

    /// Whether there has not been any request.
    fn is_unused(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == 0
    }

    /// Waits until nothing has happened for too long.
    async fn idle(&self, patience: Patience) {
        loop {
            let changed = self.changed.notified();
            if *self.open.lock() > 0 {
                changed.await;
                continue;
            }
            let wait = if self.is_unused() { patience.read } else { patience.idle };
            if tokio::time::timeout(wait, changed).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.open.lock() -= 1;
        self.0.changed.notify_one();
    }
}

/// A body of an answer. Once it is sent, or given up, its request is not under way any more.
struct Counted {
    body: axum::body::Body,
    _under_way: UnderWay,
}

impl HttpBody for Counted {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose other side has to take what is written to it.
struct Progress<S> {
    stream: S,
    patience: Duration,
    /// Runs while something is written that the other side does not take.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Progress<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stalled: None }
    }

    fn check<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let deadline = Instant::now() + self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Progress<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progress<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.check(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.check(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.check(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.check(cx, polled)
    }
}

/// Certificate and key of this server. They are read again on SIGHUP.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<rustls::ServerConfig>>,
}

struct TlsFiles {
    certificates: PathBuf,
    key: PathBuf,
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}; is it a PEM file?", path.display())]
    Unreadable { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("there is no certificate in {}", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} and {} do not work together: {source}", certificates.display(), key.display())]
    Unusable { certificates: PathBuf, key: PathBuf, source: rustls::Error },
}

impl Tls {
    /// None: the settings name no certificate.
    pub fn from_config(config: &HttpConfig) -> Result<Option<Self>, TlsError> {
        let (Some(certificates), Some(key)) = (&config.listen.tls_cert, &config.listen.tls_key) else {
            return Ok(None);
        };
        let files = TlsFiles { certificates: certificates.clone(), key: key.clone() };
        let current = RwLock::new(files.load()?);
        Ok(Some(Self { files, current }))
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.current.read().clone().into()
    }

    async fn reload_on_hangup(self: Arc<Self>, stop: CancellationToken) {
        let Ok(mut hangup) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) else { return };
        loop {
            tokio::select! {
                _ = hangup.recv() => {}
                () = stop.cancelled() => return,
            }
            match self.files.load() {
                Ok(config) => {
                    *self.current.write() = config;
                    tracing::info!("the TLS certificate was read again");
                }
                Err(error) => tracing::error!(%error, "the TLS certificate stays as it was"),
            }
        }
    }
}

impl TlsFiles {
    fn load(&self) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Unreadable { path, source }
        };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificates)
            .and_then(Iterator::collect)
            .map_err(unreadable(&self.certificates))?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate(self.certificates.clone()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(unreadable(&self.key))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key));
        let mut config = config.map_err(|source| TlsError::Unusable {
            certificates: self.certificates.clone(),
            key: self.key.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
