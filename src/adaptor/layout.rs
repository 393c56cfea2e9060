//! The `node_modules` directory: what the lock says, as files and links that Node's resolution rules understand.
//!
//! ```text
//! node_modules/
//!   @openfn/language-http          -> the default version (asked for without a version, else the newest)
//!   @openfn/language-http_7.2.10   -> this very version; the alias OpenFn's own tools use
//!   .fnhost/
//!     cheerio@1.0.0-rc.12/node_modules/
//!       cheerio/                      the files
//!       htmlparser2                -> ../../htmlparser2@8.0.2/node_modules/htmlparser2
//!     node_modules/                   every package once, for those that import what they never declared
//!     state.json                      which lock this directory shows
//! ```
//!
//! Each package sees exactly the versions it was resolved with, so any number of versions stand side by side. Links are
//! relative: the directory may be moved or copied into an image. Packages appear in one step and the links that jobs
//! enter by are switched last, so a killed install leaves at worst some unused directories for the next to sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use deno_npm::NpmSystemInfo;
use deno_semver::Version;
use deno_semver::package::PackageNv;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::atomic;
use super::cache::CachedPackage;
use super::lockfile::{Lockfile, PackageId, package_name_and_version};
use super::spec::AdaptorSpec;

/// Where the packages are, within `node_modules`.
const PACKAGES: &str = ".fnhost";
const STATE: &str = "state.json";
const LOCK: &str = "lock";
/// Beside a package's `node_modules`: the digest of what was unpacked there.
const INTEGRITY: &str = ".integrity";
const HOISTED: &str = "node_modules";
/// Longer directory names are cut and hashed; file systems stop at 255 bytes.
const LONGEST_NAME: usize = 120;

/// What a `node_modules` directory should hold on this system.
#[derive(Debug)]
pub struct Plan {
    fingerprint: String,
    system: NpmSystemInfo,
    packages: BTreeMap<PackageId, PlannedPackage>,
    /// Names at the top of `node_modules`, and the packages they stand for.
    entries: BTreeMap<String, PackageId>,
    /// Optional packages with machine code for this very system, with the package that wants them. Machine code does
    /// not load here, so they would be dead weight.
    pub left_out: Vec<(PackageId, PackageId)>,
}

#[derive(Debug)]
pub struct PlannedPackage {
    pub nv: PackageNv,
    pub integrity: String,
    pub tarball: Option<String>,
    directory: String,
    dependencies: BTreeMap<String, PackageId>,
}

/// A place on disk that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct LayoutError {
    pub path: PathBuf,
    pub source: io::Error,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Fingerprint of the lock.
    lock: String,
    os: String,
    cpu: String,
}

impl Plan {
    /// Works out what `lock` means on `system`.
    pub fn new(lock: &Lockfile, system: NpmSystemInfo) -> Self {
        let mut packages = BTreeMap::new();
        let mut left_out = Vec::new();
        let mut pending: Vec<&PackageId> = lock.requests.values().collect();
        while let Some(id) = pending.pop() {
            if packages.contains_key(id) {
                continue;
            }
            let Some((locked, nv)) = lock.packages.get(id).zip(package_name_and_version(id)) else {
                continue;
            };
            let mut dependencies = BTreeMap::new();
            for (alias, dependency) in &locked.dependencies {
                let target = &lock.packages[dependency];
                if locked.optional.contains(alias) && target.is_for_some_systems() {
                    if target.fits(&system) {
                        left_out.push((id.clone(), dependency.clone()));
                    }
                    continue;
                }
                pending.push(dependency);
                // A package that depends on its own name finds itself; a link would take its place.
                if *alias != *nv.name {
                    dependencies.insert(alias.clone(), dependency.clone());
                }
            }
            packages.insert(
                id.clone(),
                PlannedPackage {
                    integrity: locked.integrity.clone(),
                    tarball: locked.tarball.clone(),
                    directory: directory_name(id, &nv),
                    dependencies,
                    nv,
                },
            );
        }
        Self { fingerprint: lock.fingerprint(), system, packages, entries: entries(lock), left_out }
    }

    /// Whether `modules` shows this plan already. Reads a few links, no files of packages.
    pub fn is_laid_out(&self, modules: &Path) -> bool {
        let state = std::fs::read(modules.join(PACKAGES).join(STATE)).ok();
        let state: Option<State> = state.and_then(|text| serde_json::from_slice(&text).ok());
        state.is_some_and(|state| state == self.state())
            && self.entries.keys().all(|name| modules.join(name).join("package.json").exists())
    }

    /// The packages whose files are not in `modules` yet.
    pub fn missing(&self, modules: &Path) -> Vec<(&PackageId, &PlannedPackage)> {
        let is_there = |package: &PlannedPackage| {
            let marker = modules.join(PACKAGES).join(&package.directory).join(INTEGRITY);
            std::fs::read_to_string(marker).is_ok_and(|there| !there.is_empty() && there == package.integrity)
        };
        self.packages.iter().filter(|(_, package)| !is_there(package)).collect()
    }

    /// How many packages the plan holds.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// Each package, and where its files are within `node_modules`.
    pub fn packages(&self) -> impl Iterator<Item = (&PackageId, PathBuf, &PlannedPackage)> {
        self.packages.iter().map(|(id, package)| (id, Path::new(PACKAGES).join(self.inside_store(id)), package))
    }

    /// Every link within `node_modules`, and where it leads from there.
    pub fn links(&self) -> BTreeMap<PathBuf, PathBuf> {
        let store = Path::new(PACKAGES);
        let siblings = self.packages.values().flat_map(|package| {
            let directory = store.join(&package.directory).join("node_modules");
            let link =
                move |(alias, id): (&String, &PackageId)| (directory.join(alias), self.link_from_sibling(alias, id));
            package.dependencies.iter().map(link)
        });
        let hoisted = self.hoisted().into_iter().map(|(name, target)| (store.join(HOISTED).join(name), target));
        let entries = self.entries.iter().map(|(name, id)| (PathBuf::from(name), self.link_from_top(name, id)));
        siblings.chain(hoisted).chain(entries).collect()
    }

    /// What a job imports to get this package, which stands at the top of `node_modules`.
    pub fn specifier(&self, id: &PackageId) -> Option<String> {
        let nv = package_name_and_version(id)?;
        let is_default = self.entries.get(nv.name.as_str()) == Some(id);
        Some(if is_default { nv.name.to_string() } else { versioned_name(&nv) })
    }

    /// Puts the files of one package in place, by hard links where the cache is on the same file system.
    pub fn place(&self, modules: &Path, id: &PackageId, cached: &CachedPackage) -> Result<(), LayoutError> {
        let package = &self.packages[id];
        let home = modules.join(PACKAGES).join(&package.directory);
        let place = || {
            let unfinished = atomic::unfinished_beside(&home)?;
            let files = unfinished.join("node_modules").join(package.nv.name.as_str());
            std::fs::create_dir_all(&files)?;
            let mut made = BTreeSet::new();
            for file in cached.contents.files.keys() {
                let to = files.join(file);
                let directory = to.parent().unwrap_or(&files).to_path_buf();
                if directory != files && !made.contains(&directory) {
                    std::fs::create_dir_all(&directory)?;
                    made.insert(directory);
                }
                link_or_copy(&cached.directory.join(file), &to)?;
            }
            for (alias, dependency) in &package.dependencies {
                let link = unfinished.join("node_modules").join(alias);
                atomic::replace_symlink(&link, &self.link_from_sibling(alias, dependency))?;
            }
            std::fs::write(unfinished.join(INTEGRITY), &cached.contents.integrity)?;
            if home.exists() {
                atomic::discard_directory(&home)?;
            }
            std::fs::rename(&unfinished, &home)
        };
        place().map_err(|source| LayoutError { path: home.clone(), source })
    }

    /// Connects the packages with links, switches the entries jobs come in by, and sweeps away what is left over.
    /// All packages are in place.
    pub fn connect(&self, modules: &Path) -> Result<(), LayoutError> {
        let store = modules.join(PACKAGES);
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| LayoutError { path, source }
        };
        for package in self.packages.values() {
            let siblings = store.join(&package.directory).join("node_modules");
            let wanted =
                package.dependencies.iter().map(|(alias, id)| (alias.clone(), self.link_from_sibling(alias, id)));
            connect_directory(&siblings, wanted.collect(), |_| true).map_err(failed(&siblings))?;
        }
        let hoisted = store.join(HOISTED);
        connect_directory(&hoisted, self.hoisted(), |_| true).map_err(failed(&hoisted))?;
        let entries = self.entries.iter().map(|(name, id)| (name.clone(), self.link_from_top(name, id))).collect();
        let ours = |target: &Path| target.components().any(|part| part.as_os_str() == PACKAGES);
        connect_directory(modules, entries, ours).map_err(failed(modules))?;

        let state = serde_json::to_vec(&self.state()).expect("the state is plain data");
        let path = store.join(STATE);
        atomic::replace_file(&path, &state).map_err(failed(&path))?;
        self.sweep(&store).map_err(failed(&store))
    }

    fn state(&self) -> State {
        State { lock: self.fingerprint.clone(), os: self.system.os.to_string(), cpu: self.system.cpu.to_string() }
    }

    /// Every package by name, the highest version where there are several.
    fn hoisted(&self) -> BTreeMap<String, PathBuf> {
        let mut highest: BTreeMap<&str, (&Version, &PackageId)> = BTreeMap::new();
        for (id, package) in &self.packages {
            let candidate = (&package.nv.version, id);
            let best = highest.entry(package.nv.name.as_str()).or_insert(candidate);
            *best = candidate.max(*best);
        }
        let link = |name: &str, id: &PackageId| Path::new(up(name)).join("..").join(self.inside_store(id));
        highest.into_iter().map(|(name, (_, id))| (name.to_string(), link(name, id))).collect()
    }

    /// From beside a package (`.fnhost/x@1/node_modules/<alias>`) to another package.
    fn link_from_sibling(&self, alias: &str, id: &PackageId) -> PathBuf {
        Path::new(up(alias)).join("../..").join(self.inside_store(id))
    }

    /// From the top of `node_modules` to a package.
    fn link_from_top(&self, name: &str, id: &PackageId) -> PathBuf {
        Path::new(up(name)).join(PACKAGES).join(self.inside_store(id))
    }

    fn inside_store(&self, id: &PackageId) -> PathBuf {
        let package = &self.packages[id];
        Path::new(&package.directory).join("node_modules").join(package.nv.name.as_str())
    }

    fn sweep(&self, store: &Path) -> io::Result<()> {
        let wanted: BTreeSet<&str> = self.packages.values().map(|package| package.directory.as_str()).collect();
        for entry in store.read_dir()? {
            let entry = entry?;
            let name = entry.file_name();
            let keep =
                name.to_str().is_some_and(|name| wanted.contains(name) || [STATE, LOCK, HOISTED].contains(&name));
            if keep {
                continue;
            }
            if entry.file_type()?.is_dir() {
                atomic::discard_directory(&entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl PlannedPackage {
    /// The packages that it is linked with.
    pub fn dependencies(&self) -> impl Iterator<Item = &PackageId> {
        self.dependencies.values()
    }
}

/// Makes the directory for packages and waits for the exclusive right to change `modules`.
pub fn lock_modules(modules: &Path, waiting: impl FnOnce()) -> Result<std::fs::File, LayoutError> {
    let store = modules.join(PACKAGES);
    let lock = || {
        std::fs::create_dir_all(&store)?;
        atomic::lock_exclusively(&store.join(LOCK), waiting)
    };
    lock().map_err(|source| LayoutError { path: store.clone(), source })
}

/// The name under which one version of a package stands beside others, as OpenFn's tools spell it.
pub fn versioned_name(nv: &PackageNv) -> String {
    format!("{}_{}", nv.name, nv.version)
}

/// The names at the top: one for every version asked for, and the bare name for the default version.
fn entries(lock: &Lockfile) -> BTreeMap<String, PackageId> {
    let mut entries = BTreeMap::new();
    let mut defaults: BTreeMap<String, ((bool, Version), PackageId)> = BTreeMap::new();
    for (request, id) in &lock.requests {
        let Some(nv) = package_name_and_version(id) else {
            continue;
        };
        let unversioned = AdaptorSpec::parse(request).is_ok_and(|spec| spec.is_unversioned());
        entries.insert(versioned_name(&nv), id.clone());
        let rank = (unversioned, nv.version);
        if defaults.get(nv.name.as_str()).is_none_or(|(best, _)| *best < rank) {
            defaults.insert(nv.name.to_string(), (rank, id.clone()));
        }
    }
    entries.extend(defaults.into_iter().map(|(name, (_, id))| (name, id)));
    entries
}

fn directory_name(id: &PackageId, nv: &PackageNv) -> String {
    let name = id.replace('/', "+");
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let hash = format!("{:x}", Sha256::digest(id));
    let short: String = nv.to_string().replace('/', "+").chars().take(LONGEST_NAME - 17).collect();
    format!("{short}_{}", &hash[..16])
}

/// The step out of a scope's directory, for links named `@scope/name`.
fn up(link: &str) -> &'static str {
    if link.contains('/') { ".." } else { "" }
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StorageFull) => {
            std::fs::copy(from, to).map(|_| ())
        }
        done => done,
    }
}

/// Makes the links in `directory` be `wanted`. Other links are removed if `ours` says so of their targets; files and
/// directories stay.
fn connect_directory(
    directory: &Path,
    wanted: BTreeMap<String, PathBuf>,
    ours: impl Fn(&Path) -> bool + Copy,
) -> io::Result<()> {
    for (name, target) in &wanted {
        atomic::replace_symlink(&directory.join(name), target)?;
    }
    let remove_stale = |within: &Path, prefix: &str| -> io::Result<()> {
        for entry in within.read_dir()?.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let kind = entry.file_type()?;
            let unfinished = name.starts_with(atomic::UNFINISHED);
            let stale_link = kind.is_symlink()
                && !wanted.contains_key(&format!("{prefix}{name}"))
                && std::fs::read_link(entry.path()).is_ok_and(|target| ours(&target));
            if unfinished && kind.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else if unfinished || stale_link {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    if !directory.exists() {
        return Ok(());
    }
    remove_stale(directory, "")?;
    for entry in directory.read_dir()?.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('@') && entry.file_type()?.is_dir() {
            remove_stale(&entry.path(), &format!("{name}/"))?;
            // Fails, as it should, while anything is left in it.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    Ok(())
}
