//! The adaptors that tests run, installed from npm once and kept beside the build.
//!
//! Their versions are those of `tests/fixtures/adaptors/fnhost.lock`, so a test means the same today and next year.
//! That lock holds language-mysql 4.1.3 with language-common 3.3.4 where it states 3.3.5, a release that is not
//! everywhere to be had; nothing else in it was written by hand.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Everything in the lock.
const ADAPTORS: &[&str] = &["collections", "common", "common@2.1.1", "fhir", "http", "mysql"];

/// The store's directory, with all adaptors installed: by the first test that asks, for all tests of all processes.
pub fn store() -> &'static Path {
    static STORE: OnceLock<PathBuf> = OnceLock::new();
    STORE.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adaptors");
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adaptors/fnhost.lock");
        std::fs::create_dir_all(&directory).unwrap();
        let guard = File::create(directory.join("tests.lock")).unwrap();
        guard.lock().unwrap();
        std::fs::copy(lock, directory.join("fnhost.lock")).unwrap();
        let program = env!("CARGO_BIN_EXE_fnhost");
        let output = Command::new(program)
            .args(["install", "--frozen", "--repo-dir"])
            .arg(&directory)
            .args(ADAPTORS)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "cannot install the adaptors of the tests: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        remove_older(&directory.join("node_modules/.fnhost/packs"), modified(Path::new(program)));
        directory
    })
}

fn modified(path: &Path) -> SystemTime {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Removes packs that were written before the program was built: they would hide what this build does differently.
fn remove_older(directory: &Path, than: SystemTime) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if modified(&entry.path()) < than {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
