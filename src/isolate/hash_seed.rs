//! The seed of V8's hashes.
//!
//! All isolates of a process share it. A snapshot of the host's fixes it, since V8 can hash the runtime's own anew and not
//! one that is made from it, and code caches are good for one seed only. So what a process keeps for later ones, beside
//! the packs, says which seed it belongs to, and they take over that seed.
//!
//! It is drawn at random for each store, not compiled in: who knows the seed can make objects that take V8 very long.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
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
    let kept = fs::read_to_string(directory.join(FILE)).ok().and_then(|text| text.trim().parse().ok());
    if let Some(seed) = kept {
        settle(|| seed);
    }
}

/// Leaves the seed in `directory` for later processes.
pub fn keep(directory: &Path) -> io::Result<()> {
    let path = directory.join(FILE);
    let seed = get().to_string();
    if fs::read_to_string(&path).is_ok_and(|kept| kept == seed) {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(seed.as_bytes())?;
    // As packs: readable by whoever may read the packages beside it.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

fn settle(seed: impl FnOnce() -> u64) -> u64 {
    *SEED.get_or_init(|| {
        // V8 takes 0 for none.
        let seed = seed().max(1);
        v8::V8::set_flags_from_string(&format!("--hash-seed={seed}"));
        seed
    })
}
