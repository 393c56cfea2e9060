//! Stops a build that cannot succeed (see `build/v8_archive.rs`), names what packs on disk depend on, and lists the pages
//! of the documentation.

#[path = "build/docs.rs"]
mod docs;
#[path = "build/v8_archive.rs"]
mod v8_archive;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::{env, fs};

/// What decides whether a pack or a snapshot that another build wrote fits this one: the crates, whose scripts and ops
/// are in them, the host's own, and what makes and reads them.
const PACK_SOURCES: &[&str] = &["Cargo.lock", "js", "src/isolate", "src/isolate/pack", "src/isolate/snapshot"];

fn main() {
    println!("cargo::rustc-env=FNHOST_PACK_ID={:016x}", hash_of(PACK_SOURCES));
    for source in PACK_SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    for file in ["build.rs", "build", "docs", "Cargo.lock", "vendor/v8/VERSION"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for variable in ["RUSTY_V8_ARCHIVE", "RUSTY_V8_MIRROR", "V8_FROM_SOURCE"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Err(message) = check().and_then(|()| list_docs()) {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

/// A hash of the files' contents. Files only: what is in a directory counts in the order of its names.
fn hash_of(paths: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        let mut files = vec![Path::new(path).to_owned()];
        if let Ok(directory) = fs::read_dir(path) {
            files = directory.flatten().map(|entry| entry.path()).collect();
            files.sort();
        }
        for file in files {
            fs::read(&file).unwrap_or_default().hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn list_docs() -> Result<(), String> {
    let path = |variable: &str, name: &str| Path::new(&env::var_os(variable).unwrap_or_default()).join(name);
    let docs = path("CARGO_MANIFEST_DIR", "docs");
    docs::write_list(&docs, &path("OUT_DIR", "docs.rs"))
        .map_err(|error| format!("cannot list the pages in {}: {error}", docs.display()))
}

fn check() -> Result<(), String> {
    if env::var_os("V8_FROM_SOURCE").is_some() {
        return Ok(());
    }
    let var = |name: &str| env::var(name).ok();
    let root = var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let read = |file: &str| {
        let path = Path::new(&root).join(file);
        fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    v8_archive::check(&v8_archive::Build {
        target: &var("TARGET").unwrap_or_default(),
        archive: var("RUSTY_V8_ARCHIVE").as_deref(),
        mirror: var("RUSTY_V8_MIRROR").as_deref(),
        archive_version: read("vendor/v8/VERSION")?.trim(),
        crate_version: v8_archive::locked_version(&read("Cargo.lock")?).unwrap_or_default(),
    })
}
