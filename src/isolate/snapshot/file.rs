//! Snapshots on disk: a page that says what the snapshot belongs to, then V8's form of it.

use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Snapshot;
use crate::isolate::mapped::mapped;
use crate::isolate::pack::{Pack, build_id};

/// Bytes before the snapshot, which V8 wants aligned.
const PAGE: usize = 4096;

/// Where in the page the fingerprint of the runs' habits stands.
const HABITS: Range<usize> = PAGE - 8..PAGE;

/// A snapshot that was kept.
#[derive(Clone, Copy)]
pub struct Kept {
    pub snapshot: Snapshot,
    /// Fingerprint of the habits of runs that it was made for.
    pub habits: u64,
}

/// The snapshot at `path`. None if there is none, it belongs to another build or pack than the one with this fingerprint,
/// or was cut.
pub fn load(path: &Path, pack: u64) -> Option<Kept> {
    let (page, snapshot) = mapped(path).ok()?.split_at_checked(PAGE)?;
    let habits = u64::from_le_bytes(page[HABITS].try_into().ok()?);
    (page == page_of(snapshot, pack, habits)).then_some(Kept { snapshot, habits })
}

/// Writes a snapshot to `path`, whole or not at all.
pub fn store(snapshot: &[u8], path: &Path, pack: &Pack) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(&page_of(snapshot, pack.fingerprint, pack.habits().fingerprint()))?;
    file.write_all(snapshot)?;
    // A file that is there after the power failed must be whole: V8 ends where it reads a damaged one.
    file.as_file().sync_all()?;
    // As packs: readable by whoever may read the packages beside it.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// What a snapshot was made by, of and for, and its bytes, by which one that was cut is known.
fn page_of(snapshot: &[u8], pack: u64, habits: u64) -> Vec<u8> {
    let mut page = format!("{} pack {pack:016x} bytes {}", build_id(), snapshot.len()).into_bytes();
    page.resize(PAGE, 0);
    page[HABITS].copy_from_slice(&habits.to_le_bytes());
    page
}
