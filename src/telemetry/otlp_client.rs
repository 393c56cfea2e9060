//! How spans get to their collector: the one HTTP request that the exporter makes, over the HTTP and TLS that the
//! program has already.
//!
//! The exporter's thread has no event loop, so requests are made on that of the program, and given up after a while: an
//! exporter that waits for a collector for ever would fill its queue for ever.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use deno_runtime::deno_tls::create_default_root_cert_store;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::runtime::Handle;

/// A collector's answer says how many spans it refused, and why; it has no reason to say more than this.
const LARGEST_ANSWER: usize = 64 * 1024;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is wrong with the settings of the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read OTEL_EXPORTER_OTLP_CERTIFICATE, {path}: {reason}", path = path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

type HyperClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// See the module.
#[derive(Clone)]
pub struct OtlpClient {
    client: HyperClient,
    runtime: Handle,
    timeout: Duration,
}

impl fmt::Debug for OtlpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl OtlpClient {
    /// A client as the standard variables say. Must be called within a tokio runtime.
    pub fn from_environment() -> Result<Self, ClientError> {
        let of_traces = |signal: &str, all: &str| std::env::var(signal).or_else(|_| std::env::var(all)).ok();
        let timeout = of_traces("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
        let certificate = of_traces("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(certificate.map(PathBuf::from))?)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime: Handle::current(),
            timeout: timeout.and_then(|text| text.parse().ok()).map_or(DEFAULT_TIMEOUT, Duration::from_millis),
        })
    }
}

/// Trusts the authorities of the browsers, and those in the file.
fn tls(certificates: Option<PathBuf>) -> Result<rustls::ClientConfig, ClientError> {
    let mut roots = create_default_root_cert_store();
    if let Some(path) = certificates {
        let unreadable = |reason: String| ClientError::Certificate { path: path.clone(), reason };
        let read = CertificateDer::pem_file_iter(&path).map_err(|error| unreadable(error.to_string()))?;
        for certificate in read {
            let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[async_trait]
impl HttpClient for OtlpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        // Timers and sockets belong to the runtime that they are made in.
        let exchange = async move { tokio::time::timeout(timeout, exchange(&client, request)).await? };
        self.runtime.spawn(exchange).await?
    }
}

async fn exchange(client: &HyperClient, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}
