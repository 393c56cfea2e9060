//! Stops a build that cannot succeed: see `build/v8_archive.rs`.

#[path = "build/v8_archive.rs"]
mod v8_archive;

use std::path::Path;
use std::{env, fs};

fn main() {
    for file in ["build.rs", "build/v8_archive.rs", "Cargo.lock", "vendor/v8/VERSION"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for variable in ["RUSTY_V8_ARCHIVE", "RUSTY_V8_MIRROR", "V8_FROM_SOURCE"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Err(message) = check() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
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
