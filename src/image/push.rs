//! An image into a registry, without what the registry has already.

use std::str::FromStr as _;
use std::time::Duration;

use bytes::Bytes;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use rustls_pki_types::CertificateDer;

use super::Image;
use super::config::MANIFEST_TYPE;
use super::login::Login;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A registry may check a whole layer before it answers.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// Where an image goes, and how.
pub struct Destination {
    reference: Reference,
    client: Client,
    login: RegistryAuth,
}

/// What went over the wire, in bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Pushed {
    pub uploaded: u64,
    pub already_there: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("`{name}` is not the name of an image: {reason}; write registry.example.org/name:tag")]
    Name { name: String, reason: String },
    #[error("cannot reach {registry}: {reason}{hint}")]
    Unreachable { registry: String, reason: String, hint: &'static str },
    #[error("{registry} wants a login, or another one: use docker login, or --user and FNHOST_REGISTRY_PASSWORD")]
    Login { registry: String },
    #[error("{registry} does not take the image: {reason}")]
    Refused { registry: String, reason: String },
}

/// The name of an image, and the registry that it is in.
pub fn reference(name: &str) -> Result<Reference, PushError> {
    let named = Reference::from_str(name);
    let fail = |reason: String| PushError::Name { name: name.into(), reason };
    let reference = named.map_err(|error| fail(error.to_string()))?;
    if reference.digest().is_some() {
        return Err(fail("an image gets its digest from its content".into()));
    }
    Ok(reference)
}

impl Destination {
    /// `authorities` vouch for the registry, besides the usual ones.
    pub fn new(
        reference: Reference,
        login: Login,
        plain_http: bool,
        authorities: &[CertificateDer<'_>],
    ) -> Result<Self, PushError> {
        let registry = reference.resolve_registry().to_owned();
        let protocol = if plain_http { ClientProtocol::Http } else { ClientProtocol::Https };
        let certificate =
            |der: &CertificateDer<'_>| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() };
        let extra_root_certificates = authorities.iter().map(certificate).collect();
        let user_agent = concat!("fnhost/", env!("CARGO_PKG_VERSION"));
        let config = ClientConfig {
            protocol,
            extra_root_certificates,
            user_agent,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| failure(&registry, &error))?;
        let login = match login {
            Login::Anonymous => RegistryAuth::Anonymous,
            Login::Password { user, password } => RegistryAuth::Basic(user, password),
            Login::Token(token) => RegistryAuth::Bearer(token),
        };
        Ok(Self { reference, client, login })
    }

    pub fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// Uploads the blobs that are not there, and then the manifest, which makes them an image.
    pub async fn push(&self, image: &Image) -> Result<Pushed, PushError> {
        let registry = self.reference.resolve_registry();
        let failed = |error: OciDistributionError| failure(registry, &error);
        self.client.auth(&self.reference, &self.login, RegistryOperation::Push).await.map_err(failed)?;
        let mut pushed = Pushed::default();
        for layer in &image.layers {
            self.push_blob(&layer.blob.digest, &layer.blob.bytes, &mut pushed).await.map_err(failed)?;
        }
        self.push_blob(&image.config_digest, &image.config, &mut pushed).await.map_err(failed)?;
        let media_type = http::HeaderValue::from_static(MANIFEST_TYPE);
        let manifest = image.manifest.clone();
        self.client.push_manifest_raw(&self.reference, manifest, media_type).await.map_err(failed)?;
        pushed.uploaded += image.manifest.len() as u64;
        Ok(pushed)
    }

    async fn push_blob(&self, digest: &str, bytes: &Bytes, pushed: &mut Pushed) -> Result<(), OciDistributionError> {
        if self.client.blob_exists(&self.reference, digest).await? {
            pushed.already_there += bytes.len() as u64;
        } else {
            self.client.push_blob(&self.reference, bytes.clone(), digest).await?;
            pushed.uploaded += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Whether an image's registry is on this machine, where there is nobody to listen in.
pub fn is_local(reference: &Reference) -> bool {
    let host = url::Url::parse(&format!("http://{}", reference.resolve_registry())).ok();
    match host.as_ref().and_then(url::Url::host) {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn failure(registry: &str, error: &OciDistributionError) -> PushError {
    let registry = registry.to_owned();
    match error {
        OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
            PushError::Login { registry }
        }
        OciDistributionError::RequestError(error)
            if error.status().is_some_and(|status| status == 401 || status == 403) =>
        {
            PushError::Login { registry }
        }
        OciDistributionError::RequestError(error) if error.is_connect() || error.is_timeout() => {
            let reason = with_causes(error);
            let speaks_http = reason.contains("InvalidContentType") || reason.contains("corrupt message");
            let hint = if speaks_http { "; it may speak plain HTTP: --plain-http" } else { "" };
            PushError::Unreachable { registry, reason, hint }
        }
        error => PushError::Refused { registry, reason: with_causes(error) },
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_on_this_machine_are_known() {
        let is_local = |name: &str| is_local(&reference(name).unwrap());
        for local in ["localhost/a", "localhost:5000/a", "127.0.0.1:5000/a"] {
            assert!(is_local(local), "{local}");
        }
        for remote in ["localhost.example.org/a", "10.0.0.1:5000/a", "registry.example.org/a", "a"] {
            assert!(!is_local(remote), "{remote}");
        }
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let parts = |name: &str| {
            let reference = reference(name).unwrap();
            [reference.resolve_registry().to_owned(), reference.repository().into(), reference.tag().unwrap().into()]
        };
        assert_eq!(parts("localhost:5000/a/b:1"), ["localhost:5000", "a/b", "1"]);
        assert_eq!(parts("registry.example.org/a"), ["registry.example.org", "a", "latest"]);
        assert_eq!(parts("jo/a:2"), ["index.docker.io", "jo/a", "2"]);
        assert!(reference("Not a name").is_err());
    }
}
