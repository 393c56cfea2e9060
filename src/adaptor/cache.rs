//! The user's cache of npm packages: each package once, verified, unpacked, shared by all stores.
//!
//! deno_npm_cache downloads, checks the digest and unpacks into a directory that appears in one step. What it does not
//! do is look again: a directory that exists is taken as good. Packages are hard-linked into stores, where somebody may
//! edit them, and a disk may lose the tail of a file, so each package gets an index beside its directory: the digest it
//! was verified against, and every file with its size. A package whose files do not agree with the index, or whose
//! index names another digest than the lock, is fetched anew.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deno_cache_dir::npm::NpmCacheDir;
use deno_npm::registry::NpmPackageVersionDistInfo;
use deno_npm_cache::{NpmCache, NpmCacheSetting, TarballCache};
use deno_semver::package::PackageNv;
use serde::{Deserialize, Serialize};
use sys_traits::impls::RealSys;
use url::Url;

use super::npmrc::{NpmConfig, public_url};
use super::registry::{RegistryClient, RegistryError};
use super::{atomic, causes};

/// The packages of one user, as directories of files.
#[derive(Debug)]
pub struct PackageCache {
    root: PathBuf,
    config: Arc<NpmConfig>,
    packages: Arc<NpmCache<RealSys>>,
    client: Arc<RegistryClient>,
    tarballs: Arc<TarballCache<RegistryClient, RealSys>>,
}

/// A package that lies unpacked and verified in the cache.
#[derive(Debug, Clone)]
pub struct CachedPackage {
    pub directory: PathBuf,
    pub contents: Contents,
}

/// What is known about a package since it was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The digest of the tarball, `sha512-…`.
    pub integrity: String,
    /// The digest the registry stated, if it is another one: old packages have a sha1 only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stated: String,
    /// Every file, relative to the package, with its size in bytes.
    pub files: BTreeMap<String, u64>,
    /// Lifecycle scripts that npm would run when installing.
    pub scripts: Vec<String>,
    /// Whether the package holds or builds machine code.
    pub native: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("cannot download {package}")]
    Download { package: PackageNv, source: RegistryError },
    #[error("there is no tarball of {package} at {url}")]
    Missing { package: PackageNv, url: String },
    #[error("the tarball of {package} is not what it should be: expected {expected}, got {got}")]
    Integrity { package: PackageNv, expected: String, got: String },
    #[error("the tarball of {package} cannot be unpacked: {reason}")]
    Unpack { package: PackageNv, reason: String },
    #[error("the cache {path} cannot be used")]
    Io { path: PathBuf, source: io::Error },
}

impl PackageCache {
    /// `$XDG_CACHE_HOME/fnhost/npm`, by default `~/.cache/fnhost/npm`.
    pub fn default_root() -> PathBuf {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        base.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
            .join("fnhost/npm")
    }

    /// Opens the cache at `root`, making it if need be. `client` fetches tarballs.
    pub fn open(root: &Path, config: Arc<NpmConfig>, client: RegistryClient) -> Result<Self, CacheError> {
        std::fs::create_dir_all(root).map_err(|source| CacheError::Io { path: root.into(), source })?;
        let packages = Arc::new(npm_cache(root, &config, NpmCacheSetting::Use));
        let client = Arc::new(client);
        let tarballs = TarballCache::new(packages.clone(), client.clone(), RealSys, config.registries.clone(), None);
        Ok(Self { root: root.into(), config, packages, client, tarballs: Arc::new(tarballs) })
    }

    pub fn config(&self) -> &NpmConfig {
        &self.config
    }

    /// Bytes of tarballs downloaded so far.
    pub fn received(&self) -> u64 {
        self.client.received()
    }

    /// Waits for the exclusive right to add to the cache.
    pub fn lock(&self, waiting: impl FnOnce()) -> Result<File, CacheError> {
        let path = self.root.join("lock");
        atomic::lock_exclusively(&path, waiting).map_err(|source| CacheError::Io { path, source })
    }

    /// The package, if it lies in the cache undamaged and its tarball had this digest.
    pub fn find(&self, package: &PackageNv, integrity: &str) -> Option<CachedPackage> {
        let directory = self.packages.package_folder_for_nv(package);
        let index = index_path(&directory);
        let contents: Contents = serde_json::from_slice(&std::fs::read(&index).ok()?).ok()?;
        let indexed_at = index.metadata().ok()?.modified().ok()?;
        let intact = || {
            contents.files.iter().all(|(file, size)| {
                let metadata = directory.join(file).symlink_metadata();
                metadata.is_ok_and(|metadata| {
                    metadata.is_file()
                        && metadata.len() == *size
                        && metadata.modified().is_ok_and(|changed| changed <= indexed_at)
                })
            })
        };
        let expected =
            integrity.is_empty() || [&contents.integrity, &contents.stated].contains(&&integrity.to_string());
        (expected && intact()).then_some(CachedPackage { directory, contents })
    }

    /// Clears the places of packages that are missing or damaged, leftovers of killed processes included. The caller
    /// holds the cache's lock and is not downloading yet.
    pub fn clear<'p>(&self, packages: impl IntoIterator<Item = &'p PackageNv>) -> Result<(), CacheError> {
        for package in packages {
            let path = self.packages.package_folder_for_nv(package);
            clear(&path).map_err(|source| CacheError::Io { path, source })?;
        }
        Ok(())
    }

    /// Downloads the package from `tarball`, verifies and unpacks it. The caller holds the cache's lock and has cleared
    /// the package's place.
    pub async fn fetch(
        &self,
        package: &PackageNv,
        tarball: &Url,
        integrity: &str,
    ) -> Result<CachedPackage, CacheError> {
        let directory = self.packages.package_folder_for_nv(package);
        let mut dist = serde_json::json!({ "tarball": tarball.as_str() });
        if !integrity.is_empty() {
            dist["integrity"] = integrity.into();
        }
        let dist: NpmPackageVersionDistInfo = serde_json::from_value(dist).expect("these are the fields of `dist`");
        let outcome = self.tarballs.ensure_package(package, &dist).await;

        let address = self.config.registries.replace_tarball_url(tarball.clone(), &package.name);
        let digest = self.client.digest(&address);
        if let Err(error) = outcome {
            let package = package.clone();
            if let Some(source) = self.client.failure(&address) {
                return Err(CacheError::Download { package, source });
            }
            return Err(match digest {
                None => CacheError::Missing { package, url: public_url(&address) },
                Some(got) if integrity.starts_with("sha512-") && got != integrity => {
                    CacheError::Integrity { package, expected: integrity.into(), got }
                }
                Some(_) => CacheError::Unpack { package, reason: self.config.redact(&causes::root(&error)) },
            });
        }
        let computed = digest.unwrap_or_else(|| integrity.to_string());
        let stated = if integrity == computed { String::new() } else { integrity.to_string() };
        let path = directory.clone();
        let indexed = tokio::task::spawn_blocking(move || {
            let contents = Contents { integrity: computed, stated, ..take_stock(&directory)? };
            let index = serde_json::to_vec(&contents).expect("an index is plain data");
            atomic::replace_file(&index_path(&directory), &index)?;
            Ok(CachedPackage { directory, contents })
        })
        .await;
        indexed.map_err(io::Error::other).flatten().map_err(|source| CacheError::Io { path, source })
    }
}

/// The part of deno_npm_cache that knows where things are; `setting` says whether it may be believed without asking.
pub fn npm_cache(root: &Path, config: &NpmConfig, setting: NpmCacheSetting) -> NpmCache<RealSys> {
    let registries = config.registries.get_all_known_registries_urls();
    let directory = NpmCacheDir::new(&RealSys, root.to_path_buf(), registries);
    NpmCache::new(Arc::new(directory), RealSys, setting, config.registries.clone())
}

fn index_path(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".index.json");
    name.into()
}

fn clear(directory: &Path) -> io::Result<()> {
    match std::fs::remove_file(index_path(directory)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if directory.exists() {
        atomic::discard_directory(directory)?;
    }
    let Ok(siblings) = directory.parent().unwrap_or(directory).read_dir() else {
        return Ok(());
    };
    for sibling in siblings.flatten() {
        let name = sibling.file_name();
        let name = name.to_string_lossy();
        // Metadata is written outside the lock, but as files; half-unpacked packages are directories.
        let unfinished = name.ends_with(".tmp") || name.starts_with(atomic::UNFINISHED);
        if unfinished && sibling.file_type().is_ok_and(|kind| kind.is_dir()) {
            std::fs::remove_dir_all(sibling.path())?;
        }
    }
    Ok(())
}

/// Lists the files of a fresh package, takes away the right to write them, and notes what will not work here.
fn take_stock(directory: &Path) -> io::Result<Contents> {
    let mut contents = Contents::default();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(current) = pending.pop() {
        for entry in current.read_dir()? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                pending.push(path);
                continue;
            }
            let metadata = entry.metadata()?;
            // The same file is linked into stores; a tarball may also carry odd modes, up to setuid.
            let executable = metadata.permissions().mode() & 0o100 != 0;
            std::fs::set_permissions(&path, Permissions::from_mode(if executable { 0o555 } else { 0o444 }))?;
            let relative = path.strip_prefix(directory).expect("the walk stays below the package");
            let relative = relative.to_str().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is not UTF-8", relative.display()))
            })?;
            contents.native |= relative == "binding.gyp" || relative.ends_with(".node");
            contents.files.insert(relative.to_string(), metadata.len());
        }
    }
    let manifest = std::fs::read(directory.join("package.json")).ok();
    let manifest: serde_json::Value = manifest.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    for script in ["preinstall", "install", "postinstall"] {
        if manifest["scripts"][script].is_string() {
            contents.scripts.push(script.into());
        }
    }
    contents.native |= manifest["gypfile"] == true;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_taking_lists_files_and_what_will_not_work() {
        let package = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = package.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("package.json", r#"{"scripts":{"install":"node-gyp rebuild","test":"true"}}"#);
        file("build/Release/addon.node", "");
        let contents = take_stock(package.path()).unwrap();
        assert_eq!(contents.files.keys().collect::<Vec<_>>(), ["build/Release/addon.node", "package.json"]);
        assert_eq!(contents.scripts, ["install"]);
        assert!(contents.native);
        let mode = package.path().join("package.json").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }
}
