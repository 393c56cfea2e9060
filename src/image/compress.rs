//! From a tree to a blob: the compressed tar, and the digests that name it.
//!
//! The program's layer is most of the work and seldom changes, so blobs are kept in a cache, under the digest of the tar
//! and the way it was compressed. Both ways give the same bytes for the same tar on any machine: zstd's result does not
//! depend on the number of its threads, only on whether there are any.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use bytes::Bytes;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::layer::Tree;

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    pub method: Method,
    pub level: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// Small and fast; read by containerd 1.5, Docker 23, Podman, CRI-O and newer
    Zstd,
    /// Larger and slower; read by everything
    Gzip,
}

impl Method {
    /// What is worth its time.
    pub fn usual_level(self) -> u32 {
        match self {
            Self::Zstd => 9,
            Self::Gzip => 6,
        }
    }

    pub fn highest_level(self) -> u32 {
        match self {
            Self::Zstd => 22,
            Self::Gzip => 9,
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }
}

/// A compressed tar.
#[derive(Clone, Debug)]
pub struct Blob {
    pub bytes: Bytes,
    /// Of the bytes, as all digests here: `sha256:` and hexadecimal digits.
    pub digest: String,
    /// Of the tar.
    pub diff_id: String,
    /// Of the tar, in bytes.
    pub unpacked: u64,
    /// Whether it was there already.
    pub cached: bool,
}

/// The name that registries know some bytes by.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// Compresses a tree, or takes what was kept of it.
pub fn compress(tree: &Tree, compression: Compression, cache: Option<&Cache>) -> io::Result<Blob> {
    let mut tar = Counted { to: io::sink(), hash: Sha256::new(), bytes: 0 };
    tree.write(&mut tar)?;
    let kept = cache.and_then(|cache| cache.get(&tar.digest(), compression));
    if let Some(bytes) = kept {
        let digest = digest(&bytes);
        return Ok(Blob { bytes, digest, diff_id: tar.digest(), unpacked: tar.bytes, cached: true });
    }
    let (bytes, diff_id, unpacked) = match compression.method {
        Method::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), compression.level as i32)?;
            let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            encoder.multithread(threads as u32)?;
            encoder.include_checksum(true)?;
            through(tree, encoder, zstd::Encoder::finish)?
        }
        Method::Gzip => {
            let encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(compression.level));
            through(tree, encoder, GzEncoder::finish)?
        }
    };
    let blob = Blob { digest: digest(&bytes), bytes: bytes.into(), diff_id, unpacked, cached: false };
    if let Some(cache) = cache {
        // The cache only saves time.
        let _ = cache.put(&blob, compression);
    }
    Ok(blob)
}

/// The tree's tar as the encoder leaves it, and the digest and length of the tar that went in.
fn through<E: Write>(
    tree: &Tree,
    encoder: E,
    finish: impl FnOnce(E) -> io::Result<Vec<u8>>,
) -> io::Result<(Vec<u8>, String, u64)> {
    let mut tar = Counted { to: encoder, hash: Sha256::new(), bytes: 0 };
    tree.write(&mut tar)?;
    let (diff_id, unpacked) = (tar.digest(), tar.bytes);
    Ok((finish(tar.to)?, diff_id, unpacked))
}

/// Hashes and counts what passes through.
struct Counted<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Counted<W> {
    fn digest(&self) -> String {
        format!("sha256:{:x}", self.hash.clone().finalize())
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Blobs that were compressed before, and other bytes that take time to make.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Entries that are kept: the last used, enough for a handful of builds of the program.
    const MOST: usize = 32;

    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The user's: `$XDG_CACHE_HOME/fnhost/images`, by default in `~/.cache`.
    pub fn of_user() -> Option<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
        Some(Self::at(cache.join("fnhost/images")))
    }

    fn get(&self, diff_id: &str, compression: Compression) -> Option<Bytes> {
        self.read(&key(diff_id, compression))
    }

    fn put(&self, blob: &Blob, compression: Compression) -> io::Result<()> {
        self.write(&key(&blob.diff_id, compression), &blob.bytes)
    }

    /// What was kept under this key, if it is whole.
    pub fn read(&self, key: &str) -> Option<Bytes> {
        let path = self.dir.join(key);
        let mut bytes = fs::read(&path).ok()?;
        let sum = bytes.split_off(bytes.len().checked_sub(32)?);
        if Sha256::digest(&bytes)[..] != sum {
            return None;
        }
        // Those used last are kept longest.
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Some(bytes.into())
    }

    /// Keeps bytes, followed by their digest, so that a damaged entry is known.
    pub fn write(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(bytes)?;
        file.write_all(&Sha256::digest(bytes))?;
        file.persist(self.dir.join(key))?;
        self.sweep()
    }

    fn sweep(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in self.dir.read_dir()?.flatten() {
            entries.push((entry.metadata()?.modified()?, entry.path()));
        }
        entries.sort();
        for (_, path) in entries.iter().rev().skip(Self::MOST) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn key(diff_id: &str, compression: Compression) -> String {
    let digits = diff_id.strip_prefix("sha256:").unwrap_or(diff_id);
    match compression.method {
        Method::Zstd => format!("{digits}.{}.zst{}", compression.level, zstd::zstd_safe::version_number()),
        Method::Gzip => format!("{digits}.{}.gz", compression.level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.file("/a", vec![7; 3 << 20]);
        tree
    }

    #[test]
    fn both_ways_give_back_the_tar_that_they_name() {
        let mut tar = Vec::new();
        tree().write(&mut tar).unwrap();
        for method in [Method::Zstd, Method::Gzip] {
            let compression = Compression { method, level: method.usual_level() };
            let blob = compress(&tree(), compression, None).unwrap();
            let mut back = Vec::new();
            match method {
                Method::Zstd => zstd::stream::copy_decode(&blob.bytes[..], &mut back).unwrap(),
                Method::Gzip => drop(io::copy(&mut flate2::read::GzDecoder::new(&blob.bytes[..]), &mut back).unwrap()),
            }
            assert!(back == tar);
            assert_eq!((blob.diff_id, blob.unpacked), (digest(&tar), tar.len() as u64));
            assert_eq!(blob.digest, digest(&blob.bytes));
        }
    }

    #[test]
    fn a_blob_is_compressed_once_and_a_damaged_one_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("images"));
        let compression = Compression { method: Method::Zstd, level: 3 };
        let make = || compress(&tree(), compression, Some(&cache)).unwrap();
        let first = make();
        assert!(!first.cached);
        let second = make();
        assert!(second.cached);
        assert_eq!((second.digest, second.diff_id), (first.digest.clone(), first.diff_id));
        let entry = dir.path().join("images").read_dir().unwrap().next().unwrap().unwrap().path();
        let mut bytes = fs::read(&entry).unwrap();
        bytes[40] ^= 1;
        fs::write(&entry, bytes).unwrap();
        let third = make();
        assert!(!third.cached);
        assert_eq!(third.digest, first.digest);
    }
}
