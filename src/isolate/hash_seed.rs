//! The seed of V8's hashes.
//!
//! All isolates of a process share it. A snapshot of the host's fixes it, since V8 can hash the runtime's own anew and not
//! one that is made from it, and code caches are good for one seed only. So what a process keeps for later ones, beside
//! the packs, says which seed it belongs to, and they take over that seed.
//!
//! It is drawn at random for each store, not compiled in: who knows the seed can make objects that take V8 very long.

use std::fs;
use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::OnceLock;

use deno_core::v8;

const FILE: &str = "hash-seed";

static SEED: OnceLock<u64> = OnceLock::new();

/// That of this process. Whoever makes an isolate calls it before.
pub fn get() -> u64 {
    // V8 reads no number of 64 bits.
    settle(|| RandomState::new().build_hasher().finish() >> 1)
}

/// Takes over the seed that belongs to what is kept in `directory`, unless the process has one already.
pub fn adopt(directory: &Path) {
    if let Some(seed) = kept_in(directory) {
        settle(|| seed);
    }
}

fn kept_in(directory: &Path) -> Option<u64> {
    fs::read_to_string(directory.join(FILE)).ok()?.trim().parse().ok()
}

/// Has the seed derived from `text`: for files that shall be the same each time they are made. Has no effect on a process
/// that has one.
pub fn derive(text: &str) {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    settle(|| hasher.finish() >> 1);
}

/// Name and text of the file in which later processes find the seed.
pub fn file() -> (&'static str, String) {
    (FILE, get().to_string())
}

/// Leaves the seed in `directory` for later processes. An error if another is there: one that began at the same time came
/// first, and what belongs to this seed would be of no use there.
pub fn keep(directory: &Path) -> io::Result<()> {
    let (name, seed) = file();
    let path = directory.join(name);
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(seed.as_bytes())?;
    // As packs: readable by whoever may read the packages beside it.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    let Err(taken) = file.persist_noclobber(&path) else { return Ok(()) };
    match kept_in(directory) {
        Some(kept) if kept == get() => Ok(()),
        Some(_) => Err(taken.error),
        // It was damaged.
        None => Ok(taken.file.persist(&path).map(drop)?),
    }
}

fn settle(seed: impl FnOnce() -> u64) -> u64 {
    *SEED.get_or_init(|| {
        // V8 takes 0 for none.
        let seed = seed().max(1);
        v8::V8::set_flags_from_string(&format!("--hash-seed={seed}"));
        seed
    })
}
