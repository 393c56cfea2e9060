//! Speaking HTTP with a registry: certificates, proxies, retries, time-outs and size limits.
//!
//! deno_npm_cache knows what to ask for and what to do with the answer; it leaves the asking to an
//! [`NpmCacheHttpClient`], which is this module. It also leaves open how much it will swallow: it reads a gzip stream
//! to its end. So tarballs are measured here, before it sees them.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use deno_error::JsErrorBox;
use deno_npm_cache::{DownloadError, NpmCacheHttpClient, NpmCacheHttpClientBytesResponse, NpmCacheHttpClientResponse};
use deno_npmrc::RegistryConfig;
use deno_runtime::deno_fetch::{self, Client, CreateHttpClientOptions, ReqBody, ResBody};
use deno_runtime::deno_tls::{self, rustls::RootCertStore};
use http_body_util::BodyExt;
use hyper::header::{ACCEPT, AUTHORIZATION, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use sha2::{Digest, Sha512};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use super::causes;
use super::npmrc::{NpmConfig, public_url};

/// Requests in flight at once, metadata and tarballs together.
pub const PARALLEL_REQUESTS: usize = 16;
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How long a registry may be silent: before its answer, and between two pieces of it.
const PATIENCE: Duration = Duration::from_secs(30);
const MOST_REDIRECTS: usize = 5;
const MOST_METADATA_BYTES: u64 = 256 << 20;
const MOST_TARBALL_BYTES: u64 = 256 << 20;
/// The most a package may unpack to.
pub const MOST_UNPACKED_BYTES: u64 = 512 << 20;
/// Deflate cannot do better than this, so a tarball this many times smaller than the limit needs no measuring.
const BEST_DEFLATE_RATIO: u64 = 1032;

/// What a client is for: the answers differ in size, in the headers that ask for them and in what is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The short form of a package's metadata.
    Metadata,
    /// Metadata with publication dates, which `min-release-age` needs.
    DatedMetadata,
    Tarball,
}

/// A request that failed for good. The address in it is fit for a message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot reach {url} ({reason}); tried {tries} times")]
    Unreachable { url: String, reason: String, tries: u32 },
    #[error("{url} refused the request (HTTP {status})")]
    Refused { url: String, status: u16 },
    #[error("{url} answered HTTP {status}")]
    Status { url: String, status: u16 },
    #[error("{url} sends more than {limit} bytes, the most fnhost accepts")]
    TooLarge { url: String, limit: u64 },
    #[error("{url} unpacks to more than {limit} bytes, the most fnhost accepts")]
    UnpacksTooLarge { url: String, limit: u64 },
    #[error("{url} redirects in circles")]
    Redirects { url: String },
    #[error("cannot set up HTTP: {reason}")]
    Setup { reason: String },
    #[error("cannot use the certificates in {path}: {reason}")]
    Certificates { path: PathBuf, reason: String },
}

/// The HTTP half of the npm cache. Cheap to clone: clones share connections, limits and counters.
#[derive(Debug)]
pub struct RegistryClient {
    client: Client,
    purpose: Purpose,
    shared: std::sync::Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    permits: Semaphore,
    /// Bytes of tarballs received so far.
    received: AtomicU64,
    /// deno_npm_cache turns errors into text; this keeps the originals, by address.
    failures: Mutex<HashMap<Url, RegistryError>>,
    /// The sha512 of each tarball received, by address.
    digests: Mutex<HashMap<Url, String>>,
}

impl RegistryClient {
    /// A client that trusts the built-in roots, the system's, `cafile` and `NODE_EXTRA_CA_CERTS`, and that honours
    /// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub fn new(config: &NpmConfig, purpose: Purpose) -> Result<Self, RegistryError> {
        // rustls wants one provider per process; whoever installed one first is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let options = CreateHttpClientOptions {
            root_cert_store: Some(root_certificates(&config.ca_files)?),
            proxy: config.proxy.clone().map(|mut url| {
                let login = deno_fetch::extract_authority(&mut url);
                deno_tls::Proxy::Http {
                    url: url.to_string(),
                    basic_auth: login.map(|(username, password)| deno_tls::BasicAuth {
                        username,
                        password: password.unwrap_or_default(),
                    }),
                }
            }),
            ..Default::default()
        };
        let client = deno_fetch::create_http_client(concat!("fnhost/", env!("CARGO_PKG_VERSION")), options)
            .map_err(|error| RegistryError::Setup { reason: error.to_string() })?;
        let shared = Shared {
            permits: Semaphore::new(PARALLEL_REQUESTS),
            received: AtomicU64::new(0),
            failures: Mutex::default(),
            digests: Mutex::default(),
        };
        Ok(Self { client, purpose, shared: shared.into() })
    }

    /// The same client for another purpose.
    pub fn for_purpose(&self, purpose: Purpose) -> Self {
        Self { client: self.client.clone(), purpose, shared: self.shared.clone() }
    }

    /// Bytes of tarballs received so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Why the last request for `url` failed, if it did.
    pub fn failure(&self, url: &Url) -> Option<RegistryError> {
        self.shared.failures.lock().unwrap().get(url).cloned()
    }

    /// The integrity (`sha512-…`) of the tarball that `url` answered.
    pub fn digest(&self, url: &Url) -> Option<String> {
        self.shared.digests.lock().unwrap().get(url).cloned()
    }

    async fn fetch(
        &self,
        url: &Url,
        auth: Option<String>,
        etag: Option<String>,
    ) -> Result<NpmCacheHttpClientResponse, RegistryError> {
        let _permit = self.shared.permits.acquire().await.expect("the semaphore is never closed");
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let failure = match self.try_once(url, auth.as_deref(), etag.as_deref()).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(failure)) => failure,
            };
            if attempt == TRIES {
                return Err(match failure.status {
                    Some(status) => RegistryError::Status { url: public_url(url), status: status.as_u16() },
                    None => RegistryError::Unreachable { url: public_url(url), reason: failure.reason, tries: TRIES },
                });
            }
            tokio::time::sleep(failure.retry_after.unwrap_or(pause).min(LONGEST_PAUSE)).await;
            pause *= 4;
        }
        unreachable!("the loop returns at the last try")
    }

    async fn try_once(
        &self,
        url: &Url,
        auth: Option<&str>,
        etag: Option<&str>,
    ) -> Result<NpmCacheHttpClientResponse, Failure> {
        let response = self.follow(url, auth, etag).await?;
        let status = response.status();
        match status {
            StatusCode::NOT_MODIFIED => return Ok(NpmCacheHttpClientResponse::NotModified),
            StatusCode::NOT_FOUND => return Ok(NpmCacheHttpClientResponse::NotFound),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Failure::Final(RegistryError::Refused { url: public_url(url), status: status.as_u16() }));
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::status(&response));
            }
            _ if status.is_server_error() => return Err(Failure::status(&response)),
            _ if !status.is_success() => {
                return Err(Failure::Final(RegistryError::Status { url: public_url(url), status: status.as_u16() }));
            }
            _ => {}
        }
        let etag = response.headers().get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_string);
        let bytes = self.body(url, response).await?;
        let bytes = match self.purpose {
            Purpose::Metadata | Purpose::DatedMetadata => bytes,
            Purpose::Tarball => self.inspect_tarball(url, bytes).await?,
        };
        Ok(NpmCacheHttpClientResponse::Bytes(NpmCacheHttpClientBytesResponse { bytes, etag }))
    }

    /// Sends the request and follows redirects, taking the login along only while the origin stays the same.
    async fn follow(&self, url: &Url, auth: Option<&str>, etag: Option<&str>) -> Result<Response<ResBody>, Failure> {
        let setup = |reason: String| Failure::Final(RegistryError::Setup { reason });
        let mut next = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut target = next.clone();
            let login = deno_fetch::extract_authority(&mut target)
                .map(|(user, password)| deno_fetch::basic_auth(&user, password.as_deref()));
            let mut request = Request::builder()
                .uri(target.as_str())
                .body(ReqBody::empty())
                .map_err(|error| setup(error.to_string()))?;
            let headers = request.headers_mut();
            if self.purpose == Purpose::Metadata {
                const ABBREVIATED: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";
                headers.insert(ACCEPT, HeaderValue::from_static(ABBREVIATED));
            }
            if let Some(auth) = auth.filter(|_| next.origin() == url.origin()) {
                let mut value = HeaderValue::from_str(auth)
                    .map_err(|_| setup("the login in .npmrc holds characters no HTTP header may have".into()))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            } else if let Some(login) = login {
                headers.insert(AUTHORIZATION, login);
            }
            if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
                headers.insert(IF_NONE_MATCH, etag);
            }
            let response = timeout(PATIENCE, self.client.clone().send(request))
                .await
                .map_err(|_| Failure::passing(format!("no answer within {} s", PATIENCE.as_secs())))?
                .map_err(|error| Failure::passing(causes::root(&error)))?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            next = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| next.join(location).ok())
                .ok_or_else(|| Failure::Final(RegistryError::Redirects { url: public_url(url) }))?;
        }
        Err(Failure::Final(RegistryError::Redirects { url: public_url(url) }))
    }

    async fn body(&self, url: &Url, response: Response<ResBody>) -> Result<Vec<u8>, Failure> {
        let (limit, counter) = match self.purpose {
            Purpose::Metadata | Purpose::DatedMetadata => (MOST_METADATA_BYTES, None),
            Purpose::Tarball => (MOST_TARBALL_BYTES, Some(&self.shared.received)),
        };
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        loop {
            let frame = timeout(PATIENCE, body.frame())
                .await
                .map_err(|_| Failure::passing(format!("the answer stopped for {} s", PATIENCE.as_secs())))?;
            let Some(frame) = frame else { return Ok(bytes) };
            let frame = frame.map_err(|error| Failure::passing(format!("the answer broke off: {error}")))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(Failure::Final(RegistryError::TooLarge { url: public_url(url), limit }));
            }
            if let Some(counter) = counter {
                counter.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            bytes.extend_from_slice(&data);
        }
    }

    /// Measures what the tarball would unpack to and remembers its digest.
    async fn inspect_tarball(&self, url: &Url, bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let (bytes, digest, fits) = tokio::task::spawn_blocking(move || {
            let digest = format!("sha512-{}", BASE64_STANDARD.encode(Sha512::digest(&bytes)));
            let fits = unpacks_within(&bytes, MOST_UNPACKED_BYTES);
            (bytes, digest, fits)
        })
        .await
        .map_err(|error| Failure::Final(RegistryError::Setup { reason: error.to_string() }))?;
        if !fits {
            let error = RegistryError::UnpacksTooLarge { url: public_url(url), limit: MOST_UNPACKED_BYTES };
            return Err(Failure::Final(error));
        }
        self.shared.digests.lock().unwrap().insert(url.clone(), digest);
        Ok(bytes)
    }
}

#[async_trait::async_trait(?Send)]
impl NpmCacheHttpClient for RegistryClient {
    async fn download_with_retries_on_any_tokio_runtime(
        &self,
        url: Url,
        auth: Option<String>,
        etag: Option<String>,
        _config: Option<&RegistryConfig>,
    ) -> Result<NpmCacheHttpClientResponse, DownloadError> {
        self.fetch(&url, auth, etag).await.map_err(|error| {
            let status_code = match &error {
                RegistryError::Refused { status, .. } | RegistryError::Status { status, .. } => Some(*status),
                _ => None,
            };
            let boxed = JsErrorBox::generic(error.to_string());
            self.shared.failures.lock().unwrap().insert(url, error);
            DownloadError { status_code, error: boxed }
        })
    }
}

/// One failed try: for good, or worth another.
enum Failure {
    Final(RegistryError),
    Passing(Passing),
}

struct Passing {
    reason: String,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
}

impl Failure {
    fn passing(reason: String) -> Self {
        Self::Passing(Passing { reason, status: None, retry_after: None })
    }

    fn status(response: &Response<ResBody>) -> Self {
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self::Passing(Passing {
            reason: String::new(),
            status: Some(response.status()),
            retry_after: seconds.map(Duration::from_secs),
        })
    }
}

/// Whether a gzip stream unpacks to at most `limit` bytes. The length in its trailer is only a claim, so a stream that
/// could exceed the limit is unpacked into nothing.
fn unpacks_within(gzip: &[u8], limit: u64) -> bool {
    if gzip.len() as u64 * BEST_DEFLATE_RATIO <= limit {
        return true;
    }
    let mut unpacked = flate2::read::GzDecoder::new(gzip).take(limit + 1);
    match std::io::copy(&mut unpacked, &mut std::io::sink()) {
        Ok(length) => length <= limit,
        // Broken data is for the extraction to report.
        Err(_) => true,
    }
}

fn root_certificates(ca_files: &[PathBuf]) -> Result<RootCertStore, RegistryError> {
    let mut roots = deno_tls::create_default_root_cert_store();
    // Honours SSL_CERT_FILE and SSL_CERT_DIR. Without a readable system store the built-in roots have to do.
    if let Ok(system) = deno_tls::deno_native_certs::load_native_certs() {
        roots.add_parsable_certificates(system.into_iter().map(|certificate| certificate.0.into()));
    }
    let from_node = std::env::var_os("NODE_EXTRA_CA_CERTS").map(PathBuf::from);
    for path in ca_files.iter().chain(&from_node) {
        let unusable = |reason: String| RegistryError::Certificates { path: path.clone(), reason };
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let certificates = deno_tls::load_certs(&mut pem.as_slice()).map_err(|error| unusable(error.to_string()))?;
        roots.add_parsable_certificates(certificates);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_bomb_is_measured_however_small_it_claims_to_be() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![0; 3 << 20]).unwrap();
        let mut bomb = gzip.finish().unwrap();
        assert!(unpacks_within(&bomb, 3 << 20));
        assert!(!unpacks_within(&bomb, 2 << 20));
        let trailer = bomb.len() - 4;
        bomb[trailer..].fill(0);
        assert!(!unpacks_within(&bomb, 2 << 20));
    }
}
