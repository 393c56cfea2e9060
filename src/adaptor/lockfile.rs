//! `fnhost.lock`: which versions were chosen, and what their bytes must be.
//!
//! The lock makes an install repeatable on another machine and another day, so it holds nothing that belongs to one
//! machine: packages for other systems stay in it (the layout skips them), and an address is written only where the
//! registry's usual pattern does not give it. Keys are sorted, so a change shows up as a small diff.
//!
//! Names in the file become paths, and the file may come from someone else's repository: reading checks them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use deno_npm::{NpmPackageId, NpmResolutionPackageSystemInfo, NpmSystemInfo};
use deno_semver::Version;
use deno_semver::package::PackageNv;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::atomic;
use super::spec::{AdaptorSpec, check_package_name};

const FORMAT: u32 = 1;

/// A package as the resolver identifies it: name, version and, where they matter, its peers.
pub type PackageId = String;

/// The chosen versions of everything that was asked for, and of everything that needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lockfile {
    pub(super) version: u32,
    /// What was asked for, in canonical spelling, and what it became.
    pub requests: BTreeMap<String, PackageId>,
    pub packages: BTreeMap<PackageId, LockedPackage>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedPackage {
    /// `sha512-…`, the digest of the tarball; empty until it was downloaded once, for registries that state none.
    pub integrity: String,
    /// Where the tarball is, if not at the registry's usual place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tarball: Option<String>,
    /// What the package calls its dependencies, and which packages they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, PackageId>,
    /// Those of `dependencies` it can do without.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub optional: BTreeSet<String>,
    /// Peers it can do without. The resolver wants to know when it adds to this lock.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub optional_peers: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub os: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum LockfileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a lockfile of fnhost: {reason}")]
    Invalid { path: PathBuf, reason: String },
}

impl Default for Lockfile {
    fn default() -> Self {
        Self { version: FORMAT, requests: BTreeMap::new(), packages: BTreeMap::new() }
    }
}

impl Lockfile {
    /// Reads and checks the lockfile; `None` if there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, LockfileError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(LockfileError::Read { path: path.into(), source });
            }
        };
        let invalid = |reason: String| LockfileError::Invalid { path: path.into(), reason };
        let lock: Self = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        lock.check().map_err(invalid)?;
        Ok(Some(lock))
    }

    /// Replaces the lockfile in one step, durably.
    pub fn save(&self, path: &Path) -> Result<(), LockfileError> {
        let text = self.to_text();
        atomic::replace_file(path, text.as_bytes()).map_err(|source| LockfileError::Write { path: path.into(), source })
    }

    /// The lockfile as it stands on disk.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a lockfile is plain data");
        text.push('\n');
        text
    }

    /// A short name for exactly this content.
    pub fn fingerprint(&self) -> String {
        format!("{:x}", Sha256::digest(self.to_text()))
    }

    /// The package the lock holds for `spec`: the one chosen for the same request or, for a range, the newest that
    /// another request chose and that fits.
    pub fn resolve(&self, spec: &AdaptorSpec) -> Option<&PackageId> {
        if let Some(id) = self.requests.get(&spec.to_string()) {
            return Some(id);
        }
        let range = spec.version().filter(|version| version.tag().is_none())?;
        spec.names().iter().find_map(|name| {
            self.requests
                .values()
                .filter_map(|id| Some((id, package_name_and_version(id)?)))
                .filter(|(_, nv)| nv.name.as_str() == name && range.matches(&nv.version))
                .max_by(|a, b| a.1.version.cmp(&b.1.version))
                .map(|(id, _)| id)
        })
    }

    /// What of the lock these specs need, and no more; None if it lacks one of them.
    pub fn part(&self, specs: &[AdaptorSpec]) -> Option<Self> {
        let request = |spec: &AdaptorSpec| Some((spec.to_string(), self.resolve(spec)?.clone()));
        let requests = specs.iter().map(request).collect::<Option<_>>()?;
        let mut part = Self { requests, ..self.clone() };
        part.forget_unreachable();
        Some(part)
    }

    /// Drops the packages that no request leads to any more.
    pub fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::new();
        let mut pending: Vec<&PackageId> = self.requests.values().collect();
        while let Some(id) = pending.pop() {
            if reachable.insert(id.clone()) {
                pending.extend(self.packages.get(id).into_iter().flat_map(|package| package.dependencies.values()));
            }
        }
        self.packages.retain(|id, _| reachable.contains(id));
    }

    fn check(&self) -> Result<(), String> {
        if self.version != FORMAT {
            return Err(format!("its version is {}, this fnhost reads {FORMAT}", self.version));
        }
        let known = |id: &PackageId| {
            if self.packages.contains_key(id) { Ok(()) } else { Err(format!("`{id}` is referred to but missing")) }
        };
        self.requests.values().try_for_each(known)?;
        for (id, package) in &self.packages {
            let parsed = NpmPackageId::from_serialized(id).map_err(|_| format!("`{id}` is not a package id"))?;
            let names = [parsed.nv.name.as_str()];
            for name in names.into_iter().chain(package.dependencies.keys().map(String::as_str)) {
                check_package_name(name).map_err(|why| format!("`{name}` is not a package name: {why}"))?;
            }
            package.dependencies.values().try_for_each(known)?;
        }
        Ok(())
    }
}

impl LockedPackage {
    /// Whether the package is made for some systems only, which in practice means that it holds machine code.
    pub fn is_for_some_systems(&self) -> bool {
        !self.os.is_empty() || !self.cpu.is_empty()
    }

    /// Whether the package is made for this system.
    pub fn fits(&self, system: &NpmSystemInfo) -> bool {
        self.system().matches_system(system)
    }

    pub(super) fn system(&self) -> NpmResolutionPackageSystemInfo {
        NpmResolutionPackageSystemInfo {
            os: self.os.iter().map(|os| os.as_str().into()).collect(),
            cpu: self.cpu.iter().map(|cpu| cpu.as_str().into()).collect(),
        }
    }
}

/// The name and version within a package id.
pub fn package_name_and_version(id: &str) -> Option<PackageNv> {
    // Cheaper than parsing all peers: a version holds no underscore.
    let at = id.char_indices().skip(1).find(|(_, c)| *c == '@')?.0;
    let (name, rest) = (&id[..at], &id[at + 1..]);
    let version = Version::parse_from_npm(rest.split('_').next()?).ok()?;
    Some(PackageNv { name: name.into(), version })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(requests: &[(&str, &str)], packages: &[(&str, &[(&str, &str)])]) -> Lockfile {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        Lockfile {
            requests: own(requests),
            packages: packages
                .iter()
                .map(|(id, dependencies)| {
                    (id.to_string(), LockedPackage { dependencies: own(dependencies), ..Default::default() })
                })
                .collect(),
            ..Default::default()
        }
    }

    fn resolved(lock: &Lockfile, spec: &str) -> Option<PackageId> {
        lock.resolve(&AdaptorSpec::parse(spec).unwrap()).cloned()
    }

    #[test]
    fn a_range_is_served_by_the_newest_locked_version_that_fits() {
        let lock = lock(
            &[("@openfn/language-http@7.0.0", "@openfn/language-http@7.0.0"), ("lodash@latest", "lodash@4.17.21")],
            &[("@openfn/language-http@7.0.0", &[]), ("lodash@4.17.21", &[])],
        );
        assert_eq!(resolved(&lock, "http@7.0.0").as_deref(), Some("@openfn/language-http@7.0.0"));
        assert_eq!(resolved(&lock, "http@^7").as_deref(), Some("@openfn/language-http@7.0.0"));
        assert_eq!(resolved(&lock, "lodash@4").as_deref(), Some("lodash@4.17.21"));
        assert_eq!(resolved(&lock, "http@8"), None);
        assert_eq!(resolved(&lock, "http"), None, "`latest` is not any version: somebody has to be asked");
    }

    #[test]
    fn what_no_request_leads_to_is_forgotten() {
        let mut lock =
            lock(&[("a@1", "a@1.0.0")], &[("a@1.0.0", &[("b", "b@1.0.0")]), ("b@1.0.0", &[]), ("c@1.0.0", &[])]);
        lock.forget_unreachable();
        assert_eq!(lock.packages.keys().collect::<Vec<_>>(), ["a@1.0.0", "b@1.0.0"]);
    }

    #[test]
    fn a_part_of_a_lock_is_what_was_asked_for_and_what_that_needs() {
        let lock = lock(
            &[("a@1", "a@1.0.0"), ("c@latest", "c@1.0.0")],
            &[("a@1.0.0", &[("b", "b@1.0.0")]), ("b@1.0.0", &[]), ("c@1.0.0", &[])],
        );
        let part = |spec: &str| lock.part(&[AdaptorSpec::parse(spec).unwrap()]);
        let found = part("a@^1").unwrap();
        assert_eq!(found.requests, BTreeMap::from([("a@^1".to_owned(), "a@1.0.0".to_owned())]));
        assert_eq!(found.packages.keys().collect::<Vec<_>>(), ["a@1.0.0", "b@1.0.0"]);
        assert_eq!(part("a@2"), None);
    }

    #[test]
    fn names_that_would_leave_the_store_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fnhost.lock");
        for bad in [
            lock(&[], &[("../../evil@1.0.0", &[])]),
            lock(&[], &[("a@1.0.0", &[("../../evil", "a@1.0.0")])]),
            lock(&[("a@1", "a@1.0.0")], &[]),
        ] {
            bad.save(&path).unwrap();
            assert!(matches!(Lockfile::load(&path), Err(LockfileError::Invalid { .. })));
        }
    }

    #[test]
    fn saving_and_loading_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fnhost.lock");
        assert_eq!(Lockfile::load(&path).unwrap(), None);
        let lock = lock(&[("a@1", "a@1.0.0_b@2.0.0")], &[("a@1.0.0_b@2.0.0", &[("b", "b@2.0.0")]), ("b@2.0.0", &[])]);
        lock.save(&path).unwrap();
        assert_eq!(Lockfile::load(&path).unwrap(), Some(lock));
    }

    #[test]
    fn ids_give_back_their_name_and_version() {
        let nv = package_name_and_version("@openfn/language-http@7.2.10_b@2.0.0__c@1.0.0").unwrap();
        assert_eq!((nv.name.as_str(), nv.version.to_string().as_str()), ("@openfn/language-http", "7.2.10"));
    }
}
