//! Which certificate authorities a run trusts: those of the browsers, and those of a file that the user names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use deno_error::JsErrorBox;
use deno_runtime::deno_tls::rustls::client::Resumption;
use deno_runtime::deno_tls::rustls::pki_types::{CertificateDer, pem::PemObject};
use deno_runtime::deno_tls::rustls::{ClientConfig, RootCertStore};
use deno_runtime::deno_tls::{RootCertStoreProvider, TlsClientConfigOptions};
use deno_runtime::deno_tls::{create_client_config, create_default_root_cert_store};

/// The authorities of one host, read on the first connection that needs them.
pub(super) struct Authorities {
    file: Option<PathBuf>,
    store: OnceLock<Result<RootCertStore, String>>,
    client: OnceLock<Result<ClientConfig, String>>,
}

/// Sessions that the connections of one isolate may resume.
const SESSIONS: usize = 8;

impl Authorities {
    /// The usual authorities, and those in `file`.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, store: OnceLock::new(), client: OnceLock::new() }
    }

    fn read(&self) -> Result<RootCertStore, String> {
        let mut store = create_default_root_cert_store();
        if let Some(path) = &self.file {
            for certificate in read_certificates(path)? {
                store.add(certificate).map_err(|error| unusable(path, &error))?;
            }
        }
        Ok(store)
    }

    /// What a client of one isolate needs for encryption.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let make = || {
            let root_cert_store = Some(self.get_or_try_init().map_err(|error| error.to_string())?.clone());
            let options = TlsClientConfigOptions { root_cert_store, ..Default::default() };
            create_client_config(options).map_err(|error| error.to_string())
        };
        let mut config = self.client.get_or_init(make).clone()?;
        // No run resumes what another one began.
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }
}

impl RootCertStoreProvider for Authorities {
    fn get_or_try_init(&self) -> Result<&RootCertStore, JsErrorBox> {
        self.store.get_or_init(|| self.read()).as_ref().map_err(|error| JsErrorBox::generic(error.clone()))
    }
}

/// The certificates in a PEM file. A file without any is an error: whoever names one expects it to matter.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| unusable(path, &error))?;
    if certificates.is_empty() {
        return Err(unusable(path, &"there is no certificate in PEM format in it"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> String {
    format!("cannot use the certificates in {}: {reason}", path.display())
}
