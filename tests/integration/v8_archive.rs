//! A build that would link the wrong V8 says so in words that help.

#[path = "../../build/v8_archive.rs"]
mod check;

use check::{Build, FILE, TARGET};

/// The build of a fresh clone, from `.cargo/config.toml`.
fn build() -> Build<'static> {
    Build {
        target: TARGET,
        archive: Some("/home/me/fnhost/vendor/v8/librusty_v8_simdutf_release_x86_64-unknown-linux-gnu.a.gz"),
        mirror: None,
        archive_version: "150.4.0",
        crate_version: "150.4.0",
    }
}

#[test]
fn the_archive_in_the_repository_fits_the_lockfile() {
    let lock = include_str!("../../Cargo.lock");
    assert_eq!(check::locked_version(lock), Some(include_str!("../../vendor/v8/VERSION").trim()));
    let sums = include_str!("../../vendor/v8/SHA256SUMS");
    assert!(sums.trim_end().ends_with(FILE), "SHA256SUMS names another file than the check: {sums}");
}

#[test]
fn a_fresh_clone_on_the_right_target_builds() {
    assert_eq!(check::check(&build()), Ok(()));
}

#[test]
fn another_target_is_told_the_archive_to_set() {
    let message = check::check(&Build { target: "aarch64-unknown-linux-gnu", ..build() }).unwrap_err();
    assert!(message.starts_with(
        "vendor/v8 holds V8 for x86_64-unknown-linux-gnu only, and this build is for aarch64-unknown-linux-gnu.\n"
    ));
    assert!(message.contains(
        "\n    export RUSTY_V8_ARCHIVE=https://github.com/denoland/rusty_v8/releases/download/v150.4.0/\
         librusty_v8_simdutf_release_aarch64-unknown-linux-gnu.a.gz\n"
    ));
}

#[test]
fn a_windows_archive_has_its_own_name() {
    let message = check::check(&Build { target: "x86_64-pc-windows-msvc", ..build() }).unwrap_err();
    assert!(message.contains("/v150.4.0/rusty_v8_simdutf_release_x86_64-pc-windows-msvc.lib.gz\n"), "{message}");
}

#[test]
fn a_mirror_does_not_replace_the_archive_but_shows_where_it_is() {
    let mirror = Some("https://mirror.example/v8/");
    let message = check::check(&Build { target: "x86_64-unknown-linux-musl", mirror, ..build() }).unwrap_err();
    assert!(message.contains(
        "RUSTY_V8_ARCHIVE=https://mirror.example/v8/v150.4.0/librusty_v8_simdutf_release_x86_64-unknown-linux-musl.a.gz"
    ));
    assert!(message.contains("RUSTY_V8_MIRROR alone is not enough"));
}

#[test]
fn a_copy_of_the_archive_is_still_for_one_target() {
    let archive = "/home/me/.cache/fnhost/v8/librusty_v8_simdutf_release_x86_64-unknown-linux-gnu.a.gz";
    let copied = Build { archive: Some(archive), ..build() };
    assert_eq!(check::check(&copied), Ok(()));
    assert!(check::check(&Build { target: "aarch64-unknown-linux-gnu", ..copied }).is_err());
}

#[test]
fn another_version_of_the_crate_is_told_both_ways_out() {
    let message = check::check(&Build { crate_version: "151.0.0", ..build() }).unwrap_err();
    assert!(
        message.starts_with(
            "vendor/v8 holds V8 for version 150.4.0 of the v8 crate, and Cargo.lock has version 151.0.0.\n"
        )
    );
    assert!(message.contains("take Cargo.lock back to 150.4.0"));
    assert!(message.contains("vendor/v8/VERSION and SHA256SUMS"));
    assert!(message.contains("/v151.0.0/librusty_v8_simdutf_release_x86_64-unknown-linux-gnu.a.gz"));
}

#[test]
fn an_archive_of_ones_own_is_taken_on_trust() {
    let own = [
        None, // the v8 crate fetches the official one
        Some("/opt/v8/librusty_v8.a"),
        Some("https://mirror.example/v151.0.0/librusty_v8_simdutf_release_x86_64-unknown-linux-gnu.a.gz"),
    ];
    for archive in own {
        for target in [TARGET, "aarch64-apple-darwin"] {
            let build = Build { archive, target, crate_version: "151.0.0", ..build() };
            assert_eq!(check::check(&build), Ok(()), "{build:?}");
        }
    }
}

#[test]
fn a_lockfile_is_read_for_the_crate_of_that_very_name() {
    let lock = "[[package]]\nname = \"serde_v8\"\nversion = \"1.0.0\"\n\n\
                [[package]]\nname = \"v8\"\nversion = \"150.4.0\"\nsource = \"…\"\n";
    assert_eq!(check::locked_version(lock), Some("150.4.0"));
    assert_eq!(check::locked_version("[[package]]\nname = \"v8x\"\nversion = \"1.0.0\"\n"), None);
}
