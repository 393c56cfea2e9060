//! Which certificate authorities a run trusts: those of the browsers, and those of a file that the user names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use deno_error::JsErrorBox;
use deno_runtime::deno_tls::rustls::RootCertStore;
use deno_runtime::deno_tls::rustls::pki_types::{CertificateDer, pem::PemObject};
use deno_runtime::deno_tls::{RootCertStoreProvider, create_default_root_cert_store};

/// The authorities of one host, read on the first connection that needs them.
pub(super) struct Authorities {
    file: Option<PathBuf>,
    store: OnceLock<Result<RootCertStore, String>>,
}

impl Authorities {
    /// The usual authorities, and those in `file`.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, store: OnceLock::new() }
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
