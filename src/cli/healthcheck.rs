//! `fnhost healthcheck`: is the server of this project ready? For containers, whose images have no other program to ask
//! with.
//!
//! It finds the server by the settings that `fnhost serve` has, so a check needs no address of its own. It goes past
//! proxies, runs no JavaScript, and shows no setting but the address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use axum::http::{Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;

use crate::config::ListenConfig;
use crate::quantity::Span;

/// More than a server's report on itself ever is.
const LARGEST_REPORT: usize = 64 * 1024;

/// Ask the server of a project whether it is ready
///
/// For the health checks of containers and for scripts: it ends with 0 if the server says that it takes messages and
/// serves the project, and with 1 otherwise. The address comes from the settings that `fnhost serve` would use.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The directory of the project
    #[arg(value_name = "DIR", env = "PROJECT_DIR", default_value = ".")]
    pub dir: PathBuf,

    /// Ask only whether the server is alive, which it is already while it starts
    #[arg(long)]
    live: bool,

    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "3s")]
    timeout: Span,

    #[command(flatten)]
    listen: ListenConfig,
}

const EXAMPLES: &str = "\
Examples:
  fnhost healthcheck ./project
  fnhost healthcheck --port 8080 --live
  HEALTHCHECK CMD [\"/fnhost\", \"healthcheck\"]      in a Dockerfile";

pub fn run(args: &Args) -> ExitCode {
    match check(args) {
        Ok(address) => {
            println!("{address}: {}", if args.live { "alive" } else { "ready" });
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn check(args: &Args) -> Result<Uri, String> {
    let address = address(&args.listen, if args.live { "/livez" } else { "/readyz" })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let answer = runtime.block_on(async { tokio::time::timeout(args.timeout.0, ask(&address)).await });
    let (status, report) = answer
        .map_err(|_| format!("{address} does not answer within {} ms", args.timeout))?
        .map_err(|reason| format!("{address} does not answer: {reason}"))?;
    match status {
        StatusCode::OK => Ok(address),
        _ => Err(format!("{address} answers {}: {}", status.as_u16(), complaints(&report))),
    }
}

/// Where a server with these settings is reached from its own machine.
fn address(listen: &ListenConfig, path: &str) -> Result<Uri, String> {
    if listen.port == 0 {
        return Err("with port 0 nobody knows where the server listens: set a port, or name it with --port".into());
    }
    let host = match listen.host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    let text = format!("{}://{}{path}", listen.scheme(), SocketAddr::new(host, listen.port));
    text.parse().map_err(|error| format!("{text} is no address: {error}"))
}

async fn ask(address: &Uri) -> Result<(StatusCode, Bytes), String> {
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls().map_err(text)?).https_or_http().enable_http1().build();
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(address).body(Empty::new()).map_err(text)?;
    let answer = client.request(request).await.map_err(|error| innermost(&error))?;
    let status = answer.status();
    let report = Limited::new(answer.into_body(), LARGEST_REPORT).collect().await.map_err(text)?;
    Ok((status, report.to_bytes()))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What is at the bottom of an error, since the layers above only say that there is something.
fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map(text).unwrap_or_default()
}

/// The checks that did not pass, in the server's words.
fn complaints(report: &[u8]) -> String {
    let report: Value = serde_json::from_slice(report).unwrap_or_default();
    let checks = report["checks"].as_object().into_iter().flatten();
    let failed: Vec<&str> = checks.filter_map(|(_, result)| result.as_str()).filter(|result| *result != "ok").collect();
    if failed.is_empty() { "is it a server of fnhost that listens there?".into() } else { failed.join("; ") }
}

fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate(provider.clone()));
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Takes every certificate. It names the host that clients know, not the address that is asked here; and the question
/// holds nothing that an impostor could use.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(host: &str, port: u16, tls: bool) -> Result<String, String> {
        let file = tls.then(|| PathBuf::from("a.pem"));
        let listen = ListenConfig { host: host.parse().unwrap(), port, tls_cert: file.clone(), tls_key: file };
        address(&listen, "/readyz").map(|address| address.to_string())
    }

    #[test]
    fn a_server_on_every_interface_is_asked_on_loopback() {
        assert_eq!(reached("0.0.0.0", 80, false).unwrap(), "http://127.0.0.1:80/readyz");
        assert_eq!(reached("::", 4001, true).unwrap(), "https://[::1]:4001/readyz");
        assert_eq!(reached("192.0.2.7", 4001, false).unwrap(), "http://192.0.2.7:4001/readyz");
        assert!(reached("127.0.0.1", 0, false).unwrap_err().contains("--port"));
    }
}
