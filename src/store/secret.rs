//! Secrets at rest: AES-256-GCM under a key that is not in the database.

use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;

use aes_gcm::aead::rand_core::RngCore as _;
use aes_gcm::aead::{Aead as _, OsRng, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit as _, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A sealed secret: the nonce, then the ciphertext with its tag.
#[derive(Clone, PartialEq)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// The key that seals credentials.
#[derive(Clone)]
pub struct SecretKey(Key<Aes256Gcm>);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the key must be 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64")]
    Malformed,
    #[error("this secret was sealed with another key, for another name, or is damaged")]
    Unsealable,
    #[error("cannot read or write the key file {path}")]
    File { path: String, source: io::Error },
}

const NONCE_BYTES: usize = 12;

impl SecretKey {
    /// From base64 text of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, SecretError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| SecretError::Malformed)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| SecretError::Malformed)?;
        Ok(Self(bytes.into()))
    }

    /// From a file; a new key goes into it, readable by its owner only, if there is none yet.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::File { path: path.display().to_string(), source };
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_base64(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; 32];
                OsRng.fill_bytes(&mut bytes);
                create_private(path, &STANDARD.encode(bytes)).map_err(failed)?;
                Ok(Self(bytes.into()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Seals `secret`. It can be opened under the same name only.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Sealed {
        let mut nonce = [0; NONCE_BYTES];
        OsRng.fill_bytes(&mut nonce);
        let payload = Payload { msg: secret, aad: name.as_bytes() };
        let sealed = Aes256Gcm::new(&self.0)
            .encrypt(Nonce::from_slice(&nonce), payload)
            .expect("a secret in memory is far below the cipher's limit of 64 GB");
        Sealed([nonce.as_slice(), &sealed].concat())
    }

    pub fn open(&self, name: &str, sealed: &Sealed) -> Result<Vec<u8>, SecretError> {
        let (nonce, sealed) = sealed.0.split_at_checked(NONCE_BYTES).ok_or(SecretError::Unsealable)?;
        let payload = Payload { msg: sealed, aad: name.as_bytes() };
        Aes256Gcm::new(&self.0).decrypt(Nonce::from_slice(nonce), payload).map_err(|_| SecretError::Unsealable)
    }
}

fn create_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_name_only() {
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::from_file(&dir.path().join("key")).unwrap();
        let again = SecretKey::from_file(&dir.path().join("key")).unwrap();
        let other = SecretKey::from_file(&dir.path().join("other")).unwrap();
        let sealed = key.seal("api", b"s3cret");
        assert_eq!(again.open("api", &sealed).unwrap(), b"s3cret");
        assert!(again.open("other", &sealed).is_err());
        assert!(other.open("api", &sealed).is_err());
        assert!(key.open("api", &Sealed(vec![1, 2, 3])).is_err());
        assert!(!sealed.0.windows(6).any(|bytes| bytes == b"s3cret"));
        assert_ne!(key.seal("api", b"s3cret"), sealed, "a nonce is used once");
    }

    #[test]
    fn a_key_is_32_bytes() {
        assert!(SecretKey::from_base64("c2hvcnQ=").is_err());
        assert!(SecretKey::from_base64("!").is_err());
    }
}
