//! What is in an image, for scanners: a CycloneDX document of the crates in the program, the system's libraries beside
//! it, and the npm packages of the project.
//!
//! It holds no serial number and no time of its own, so that the same image has the same document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::base::Library;
use crate::adaptor::layout::{Plan, PlannedPackage};

/// Every version and checksum.
const LOCK: &str = include_str!("../../Cargo.lock");
/// Name, version and licence of what is linked, which is less: `scripts/notices` writes it.
const CRATES: &str = include_str!("crates.tsv");
const V8_CRATE: &str = include_str!("../../vendor/v8/VERSION");

/// The document, as JSON text. `modules` is the directory that shows `plan`.
pub fn document(name: &str, libraries: &[Library], plan: &Plan, modules: &Path) -> String {
    let mut components = crates();
    components.push(v8());
    components.extend(libraries.iter().map(library));
    components.extend(packages(plan, modules));
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": "fnhost", "version": env!("CARGO_PKG_VERSION") }] },
            "component": { "type": "container", "bom-ref": "image", "name": name },
        },
        "components": components,
        "dependencies": dependencies(plan),
    });
    let mut text = serde_json::to_string_pretty(&document).expect("plain data");
    text.push('\n');
    text
}

fn crates() -> Vec<Value> {
    let checksums = checksums(LOCK);
    let component = |line: &str| {
        let mut columns = line.split('\t');
        let (name, version, licence) = (columns.next()?, columns.next()?, columns.next()?);
        let purl = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
        let mut component = json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        });
        if !licence.is_empty() {
            component["licenses"] = licences(&licence.replace('/', " OR "));
        }
        if let Some(checksum) = checksums.get(&(name, version)) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        Some(component)
    };
    CRATES.lines().filter_map(component).collect()
}

/// Name and version → checksum, from the text of a Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let mut checksums = BTreeMap::new();
    for block in lock.split("[[package]]") {
        let field = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
            line.strip_suffix('"')
        };
        if let (Some(name), Some(version), Some(checksum)) = (field("name"), field("version"), field("checksum")) {
            checksums.insert((name, version), checksum);
        }
    }
    checksums
}

/// V8 is in no registry; the crate that it comes with names it.
fn v8() -> Value {
    let version = V8_CRATE.trim();
    let purl = format!("pkg:github/denoland/rusty_v8@v{version}");
    json!({
        "type": "library", "bom-ref": purl, "name": "v8", "version": version, "purl": purl,
        "licenses": licences("BSD-3-Clause"),
        "description": "V8 and its ICU, as the crate of this version pins them",
    })
}

/// A library of the system, which is known by its bytes.
fn library(library: &Library) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": format!("file:{}", library.path.display()),
        "name": library.name,
        "hashes": [{ "alg": "SHA-256", "content": format!("{:x}", Sha256::digest(&library.bytes)) }],
        "evidence": { "occurrences": [{ "location": library.path }] },
    });
    if let Some(version) = glibc_version(&library.bytes) {
        component["version"] = version.into();
    }
    component
}

/// What glibc says of itself: `Debian GLIBC 2.36-9+deb12u14`.
fn glibc_version(bytes: &[u8]) -> Option<&str> {
    const BEFORE: &[u8] = b"GNU C Library (";
    let at = bytes.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    let rest = &bytes[at..bytes.len().min(at + 100)];
    let end = rest.iter().position(|byte| *byte == b')')?;
    std::str::from_utf8(&rest[..end]).ok()
}

fn packages(plan: &Plan, modules: &Path) -> Vec<Value> {
    let component = |(id, dir, package): (&String, PathBuf, &PlannedPackage)| {
        let (name, version) = (package.nv.name.as_str(), package.nv.version.to_string());
        let (group, base) = match name.split_once('/') {
            Some((group, base)) => (Some(group), base),
            None => (None, name),
        };
        let purl = format!("pkg:npm/{}@{version}", name.replace('@', "%40"));
        let mut component = json!({
            "type": "library", "bom-ref": reference(id), "name": base, "version": version, "purl": purl,
        });
        if let Some(group) = group {
            component["group"] = group.into();
        }
        if let Some(licence) = declared_licence(&modules.join(dir).join("package.json")) {
            component["licenses"] = licences(&licence);
        }
        if let Some(hash) = package.integrity.strip_prefix("sha512-").and_then(|hash| BASE64.decode(hash).ok()) {
            let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            component["hashes"] = json!([{ "alg": "SHA-512", "content": digits }]);
        }
        component
    };
    plan.packages().map(component).collect()
}

/// One version of a package may be there several times, with other peers.
fn reference(id: &str) -> String {
    format!("npm:{id}")
}

fn dependencies(plan: &Plan) -> Vec<Value> {
    let depends = |(id, _, package): (&String, _, &PlannedPackage)| {
        let on: BTreeSet<String> = package.dependencies().map(|id| reference(id)).collect();
        json!({ "ref": reference(id), "dependsOn": on })
    };
    plan.packages().map(depends).collect()
}

/// Packages of old have an object, or a list of them.
fn declared_licence(manifest: &Path) -> Option<String> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).ok()?).ok()?;
    let text = |value: &Value| value.as_str().or_else(|| value["type"].as_str()).map(str::to_owned);
    text(&manifest["license"]).or_else(|| text(&manifest["licenses"][0]))
}

/// An expression if it may be one, else only a name: `SEE LICENSE IN file` is none.
fn licences(text: &str) -> Value {
    let word = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-.+()".contains(c));
    let operators = ["AND", "OR", "WITH"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_expression = words.iter().all(|part| word(part))
        && words.iter().enumerate().all(|(index, part)| operators.contains(part) == (index % 2 == 1));
    if is_expression { json!([{ "expression": text }]) } else { json!([{ "license": { "name": text } }]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_as_linked_is_what_cargo_locked() {
        let checksums = checksums(LOCK);
        for line in CRATES.lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let [name, version, _] = columns[..] else { panic!("{line}") };
            assert!(checksums.contains_key(&(name, version)), "{line} is not in Cargo.lock: run scripts/notices");
        }
        // The direct dependencies, of which none may be missing.
        for name in ["deno_core", "rusqlite", "tokio", "zstd"] {
            assert!(CRATES.lines().any(|line| line.starts_with(&format!("{name}\t"))), "{name}: run scripts/notices");
        }
    }

    #[test]
    fn licences_are_expressions_where_they_can_be() {
        for text in
            ["MIT", "MIT OR Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]
        {
            assert_eq!(licences(text), json!([{ "expression": text }]));
        }
        for text in ["SEE LICENSE IN LICENSE.md", "MIT Apache-2.0", "UNLICENSED, really"] {
            assert_eq!(licences(text), json!([{ "license": { "name": text } }]));
        }
    }
}
