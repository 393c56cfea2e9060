//! Which V8 a build is about to link, and whether that can work.
//!
//! `vendor/v8` holds V8 for one target and one version of the `v8` crate. With another target or version the linker
//! would fail at the very end of a long build, in words about symbols. This check fails in words about what to do.
//! It is part of the build script and, so that it can be tested, of the integration tests.

use std::path::Path;

/// The target of the archive in `vendor/v8`.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The archive in `vendor/v8`. Copies of it keep this name.
pub const FILE: &str = "librusty_v8_simdutf_release_x86_64-unknown-linux-gnu.a.gz";

/// Where the makers of the `v8` crate publish an archive for every target.
const OFFICIAL: &str = "https://github.com/denoland/rusty_v8/releases/download";

/// What decides which V8 is linked.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    pub target: &'a str,
    /// `RUSTY_V8_ARCHIVE`: a path or an address. `.cargo/config.toml` sets it to the file in `vendor/v8`, for every
    /// target, unless the environment has it.
    pub archive: Option<&'a str>,
    /// `RUSTY_V8_MIRROR`. The `v8` crate looks at it only if there is no archive.
    pub mirror: Option<&'a str>,
    /// The version of the `v8` crate that the archive in `vendor/v8` is for.
    pub archive_version: &'a str,
    /// The version of the `v8` crate that this build compiles.
    pub crate_version: &'a str,
}

/// Whether the V8 that is about to be linked fits. The error is for a person, in several lines.
///
/// An archive that someone chose themselves is taken on trust: only the one in `vendor/v8` and copies of it are known.
pub fn check(build: &Build<'_>) -> Result<(), String> {
    let Build { target, archive_version, crate_version, .. } = *build;
    if !build.archive.is_some_and(is_vendored) {
        return Ok(());
    }
    if target != TARGET {
        return Err(format!(
            "vendor/v8 holds V8 for {TARGET} only, and this build is for {target}.\n\
             Set RUSTY_V8_ARCHIVE to the official archive, as an address or the path of a copy:\n    \
             export RUSTY_V8_ARCHIVE={}\n\
             RUSTY_V8_MIRROR alone is not enough: .cargo/config.toml sets RUSTY_V8_ARCHIVE to the file in vendor/v8,\n\
             and only a RUSTY_V8_ARCHIVE in the environment wins over that.",
            official_archive(build.mirror.unwrap_or(OFFICIAL), crate_version, target)
        ));
    }
    if archive_version != crate_version {
        return Err(format!(
            "vendor/v8 holds V8 for version {archive_version} of the v8 crate, and Cargo.lock has version {crate_version}.\n\
             The two move together: either take Cargo.lock back to {archive_version}, or put the archive for \
             {crate_version} in vendor/v8\n\
             and its version and checksum in vendor/v8/VERSION and SHA256SUMS (vendor/v8/README.md tells how).\n\
             To go on without: export RUSTY_V8_ARCHIVE={}",
            official_archive(build.mirror.unwrap_or(OFFICIAL), crate_version, target)
        ));
    }
    Ok(())
}

/// The version of the `v8` crate in the text of a `Cargo.lock`.
pub fn locked_version(cargo_lock: &str) -> Option<&str> {
    let (_, after) = cargo_lock.split_once("name = \"v8\"\nversion = \"")?;
    after.split('"').next()
}

fn is_vendored(archive: &str) -> bool {
    !archive.starts_with("http") && Path::new(archive).file_name().is_some_and(|name| name == FILE)
}

fn official_archive(base: &str, version: &str, target: &str) -> String {
    let base = base.trim_end_matches('/');
    let (prefix, suffix) = if target.contains("windows") { ("", "lib") } else { ("lib", "a") };
    format!("{base}/v{version}/{prefix}rusty_v8_simdutf_release_{target}.{suffix}.gz")
}
