//! Installing: from what is asked for to packages a job can import.
//!
//! Four stages, each of which may find that there is nothing to do: choose versions (`resolve`), bring packages into
//! the cache (`cache`), write the lock, place and connect files (`layout`). An install that finds everything in place
//! notices so from the lock and a few links, without network, locks or writing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deno_core::futures::{StreamExt, stream};
use deno_npm::NpmSystemInfo;
use deno_semver::package::PackageNv;
use serde::Serialize;
use url::Url;

use super::cache::{CacheError, CachedPackage, PackageCache};
use super::causes;
use super::layout::{LayoutError, Plan, PlannedPackage, lock_modules};
use super::lockfile::{Lockfile, LockfileError, PackageId, package_name_and_version};
use super::metadata::{Freshness, Metadata, usual_tarball};
use super::npmrc::{NpmConfig, NpmrcError};
use super::progress::{Event, Progress};
use super::registry::{PARALLEL_REQUESTS, Purpose, RegistryClient, RegistryError};
use super::resolve::{ResolveError, resolve};
use super::spec::{AdaptorSpec, SpecError};
use super::store::{Installed, Store, StoreError};

/// How an install may get what it needs.
#[derive(Debug, Clone, Default)]
pub struct InstallOptions {
    /// Choose versions anew, though the lock has them. Without specs: all of the lock's.
    pub update: bool,
    /// Take every version from the lock; an error if it does not have one.
    pub frozen: bool,
    /// Use no network: only what the cache has.
    pub offline: bool,
    /// The registry for packages whose scope has none of its own.
    pub registry: Option<Url>,
    /// The cache's directory; by default [`PackageCache::default_root`].
    pub cache: Option<PathBuf>,
    /// A directory whose `.npmrc` counts beside the one in the store.
    pub npmrc_dir: Option<PathBuf>,
    /// A PEM file with certificates to trust besides those that npm's configuration names.
    pub ca_file: Option<PathBuf>,
}

impl InstallOptions {
    fn freshness(&self) -> Freshness {
        match (self.offline, self.update) {
            (true, _) => Freshness::Cached,
            (false, true) => Freshness::Current,
            (false, false) => Freshness::Recent,
        }
    }
}

/// What an install did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct InstallReport {
    /// The store's directory.
    pub root: PathBuf,
    /// What was asked for, in that order; all of the lock if nothing was.
    pub adaptors: Vec<InstalledAdaptor>,
    /// Packages in the store, dependencies included.
    pub packages: usize,
    /// Packages that were not in the store before.
    pub placed: usize,
    /// Packages that came over the network, and their size as tarballs.
    pub downloaded: usize,
    pub downloaded_bytes: u64,
    pub lock_changed: bool,
    /// What a person should know: scripts that were not run, add-ons that will not load.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstalledAdaptor {
    /// What was asked for, in canonical spelling.
    pub request: String,
    pub name: String,
    pub version: String,
    /// What a job imports; see [`Installed::specifier`].
    pub specifier: String,
    pub dir: PathBuf,
    /// Whether this install brought it.
    pub new: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Npmrc(#[from] NpmrcError),
    #[error(transparent)]
    Http(#[from] RegistryError),
    #[error(transparent)]
    Lockfile(#[from] LockfileError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the lockfile does not have {}", .missing.join(", "))]
    Frozen { missing: Vec<String> },
    #[error("not in the cache, and there is no downloading offline: {}", .missing.join(", "))]
    Offline { missing: Vec<String> },
    #[error("{package} is locked at {url}, which is not a URL")]
    TarballUrl { package: PackageNv, url: String },
    #[error("cannot start the asynchronous runtime")]
    Runtime { source: std::io::Error },
}

impl InstallError {
    /// The error and its causes, in one line.
    pub fn explain(&self) -> String {
        causes::chain(self)
    }

    /// What may help, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Frozen { .. } => {
                Some("run `fnhost install` without --frozen and keep fnhost.lock under version control".into())
            }
            Self::Offline { .. } | Self::Resolve(ResolveError::Offline { .. }) => {
                Some("run the same install once without --offline".into())
            }
            Self::Resolve(ResolveError::Metadata { source, .. })
            | Self::Cache(CacheError::Download { source, .. })
            | Self::Http(source) => network_hint(source),
            Self::Cache(CacheError::Integrity { .. }) => Some(
                "the registry serves other bytes than were locked; \
                 if that is meant to be, install with --update"
                    .into(),
            ),
            Self::Lockfile(LockfileError::Invalid { .. }) => {
                Some("restore it from version control, or delete it to choose versions anew".into())
            }
            Self::Layout(LayoutError { source, .. })
            | Self::Cache(CacheError::Io { source, .. })
            | Self::Lockfile(LockfileError::Write { source, .. }) => disk_hint(source),
            Self::Resolve(ResolveError::UnknownPackage { name, .. }) => {
                let private = name.starts_with('@') && !name.starts_with("@openfn/");
                private.then(|| "a private scope needs `@scope:registry=…` in .npmrc".to_string())
            }
            _ => None,
        }
    }
}

fn network_hint(error: &RegistryError) -> Option<String> {
    match error {
        RegistryError::Refused { url, .. } => {
            let url = Url::parse(url).ok()?;
            let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
            Some(format!("a login for it goes into .npmrc: //{host}/:_authToken=${{NPM_TOKEN}}"))
        }
        RegistryError::Unreachable { reason, .. } => {
            let untrusted = reason.contains("certificate") || reason.contains("Issuer");
            let hint = if untrusted {
                "name the certificate of your proxy or registry with `cafile=` in .npmrc \
                 or NODE_EXTRA_CA_CERTS"
            } else {
                "check the network and, behind a proxy, HTTPS_PROXY and NO_PROXY; \
                 --offline installs from the cache"
            };
            Some(hint.into())
        }
        _ => None,
    }
}

fn disk_hint(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("the disk is full".into()),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            Some("choose a directory you may write with --repo-dir (or XDG_CACHE_HOME for the cache)".into())
        }
        _ => None,
    }
}

/// Installs `specs` into `store`; without specs, what the lock already has. Runs to its end on a runtime of its own, so
/// it is not for calling from within one.
pub fn install(
    store: &Store,
    specs: &[AdaptorSpec],
    options: &InstallOptions,
    progress: &dyn Progress,
) -> Result<InstallReport, InstallError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| InstallError::Runtime { source })?;
    runtime.block_on(install_async(store, specs, options, progress))
}

/// As [`install`], within a runtime. Blocks its thread while it waits for locks and works on files.
pub async fn install_async(
    store: &Store,
    specs: &[AdaptorSpec],
    options: &InstallOptions,
    progress: &dyn Progress,
) -> Result<InstallReport, InstallError> {
    let modules = store.node_modules();
    let request = Request::new(store, specs, options)?;

    let found = Lockfile::load(&store.lock_path())?;
    let lock = found.unwrap_or_default();
    if request.uncovered(&lock).is_empty() {
        let plan = Plan::new(&lock, NpmSystemInfo::default());
        if plan.is_empty() || plan.is_laid_out(&modules) {
            return Ok(request.report(&lock, &plan, &modules, &BTreeSet::new()));
        }
    }

    let _guard = lock_modules(&modules, || progress.event(Event::Waiting))?;
    // Another process may have changed everything while this one waited.
    let before = Lockfile::load(&store.lock_path())?;
    let mut lock = before.clone().unwrap_or_default();
    let uncovered = request.uncovered(&lock);
    if options.frozen && !uncovered.is_empty() {
        return Err(InstallError::Frozen { missing: uncovered.iter().map(ToString::to_string).collect() });
    }

    let npmrc_dirs = [options.npmrc_dir.as_deref(), Some(store.root())];
    let npmrc_dirs: Vec<&Path> = npmrc_dirs.into_iter().flatten().collect();
    let mut config = NpmConfig::load(&npmrc_dirs, options.registry.as_ref())?;
    config.ca_files.extend(options.ca_file.clone());
    let config = Arc::new(config);
    let client = RegistryClient::new(&config, Purpose::Tarball)?;
    let cache = options.cache.clone();
    let cache = cache.unwrap_or_else(PackageCache::default_root);
    if !uncovered.is_empty() {
        let adaptors = uncovered.len();
        progress.event(Event::Resolving { adaptors });
        let metadata = Metadata::new(config.clone(), &client, &cache, options.freshness());
        lock = resolve(lock, &uncovered, &metadata).await?;
    }

    let plan = Plan::new(&lock, NpmSystemInfo::default());
    let missing = plan.missing(&modules);
    let bring = Bring { cache: PackageCache::open(&cache, config, client)?, offline: options.offline, progress };
    let brought = bring.all(missing.iter().map(|(_, package)| *package)).await?;
    let missing: BTreeSet<PackageId> = missing.into_iter().map(|(id, _)| id.clone()).collect();

    note_digests(&mut lock, &brought);
    let lock_changed = before.as_ref() != Some(&lock) && !options.frozen;
    if lock_changed {
        lock.save(&store.lock_path())?;
    }
    let plan = Plan::new(&lock, NpmSystemInfo::default());
    place(&plan, &modules, &missing, &brought.packages, progress)?;
    plan.connect(&modules)?;
    progress.event(Event::Done);

    Ok(InstallReport {
        placed: missing.len(),
        downloaded: brought.downloaded,
        downloaded_bytes: brought.bytes,
        lock_changed,
        warnings: warnings(&plan, &missing, &brought.packages),
        ..request.report(&lock, &plan, &modules, &missing)
    })
}

/// Writes into the lock the digests that the registry did not state: they are known once the bytes were seen.
fn note_digests(lock: &mut Lockfile, brought: &Brought) {
    for (id, locked) in &mut lock.packages {
        let nv = package_name_and_version(id);
        if let Some(package) = nv.and_then(|nv| brought.packages.get(&nv)) {
            locked.integrity.clone_from(&package.contents.integrity);
        }
    }
}

/// What was asked for, split into packages and directories.
struct Request<'a> {
    store: &'a Store,
    specs: Vec<AdaptorSpec>,
    local: Vec<(AdaptorSpec, Installed)>,
    update: bool,
}

impl<'a> Request<'a> {
    fn new(store: &'a Store, specs: &[AdaptorSpec], options: &InstallOptions) -> Result<Self, InstallError> {
        let mut request = Self { store, specs: Vec::new(), local: Vec::new(), update: options.update };
        for spec in specs {
            if spec.local_path().is_none() {
                request.specs.push(spec.clone());
            } else if let Some(installed) = store.find(spec)? {
                request.local.push((spec.clone(), installed));
            }
        }
        Ok(request)
    }

    /// What has to be chosen because the lock does not have it, or because it should be chosen anew.
    fn uncovered(&self, lock: &Lockfile) -> Vec<AdaptorSpec> {
        if self.update && self.specs.is_empty() && self.local.is_empty() {
            return lock.requests.keys().filter_map(|request| AdaptorSpec::parse(request).ok()).collect();
        }
        self.specs.iter().filter(|spec| self.update || lock.resolve(spec).is_none()).cloned().collect()
    }

    fn report(&self, lock: &Lockfile, plan: &Plan, modules: &Path, new: &BTreeSet<PackageId>) -> InstallReport {
        let everything = self.specs.is_empty() && self.local.is_empty();
        let requested: Vec<(String, &PackageId)> = if everything {
            lock.requests.iter().map(|(request, id)| (request.clone(), id)).collect()
        } else {
            self.specs.iter().filter_map(|spec| Some((spec.to_string(), lock.resolve(spec)?))).collect()
        };
        let locked = requested.into_iter().filter_map(|(request, id)| {
            let nv = package_name_and_version(id)?;
            let specifier = plan.specifier(id)?;
            let link = modules.join(&specifier);
            Some(InstalledAdaptor {
                request,
                name: nv.name.to_string(),
                version: nv.version.to_string(),
                dir: link.canonicalize().unwrap_or(link),
                specifier,
                new: new.contains(id),
            })
        });
        let local = self.local.iter().map(|(spec, installed)| InstalledAdaptor {
            request: spec.to_string(),
            name: installed.name.clone(),
            version: installed.version.clone(),
            specifier: installed.specifier.clone(),
            dir: installed.dir.clone(),
            new: false,
        });
        InstallReport {
            root: self.store.root().into(),
            adaptors: locked.chain(local).collect(),
            packages: plan.len(),
            ..Default::default()
        }
    }
}

/// Brings packages into the cache.
struct Bring<'a> {
    cache: PackageCache,
    offline: bool,
    progress: &'a dyn Progress,
}

#[derive(Default)]
struct Brought {
    packages: HashMap<PackageNv, CachedPackage>,
    downloaded: usize,
    bytes: u64,
}

impl Bring<'_> {
    async fn all(&self, wanted: impl Iterator<Item = &PlannedPackage>) -> Result<Brought, InstallError> {
        // Packages that differ only in their peers have the same files.
        let wanted: BTreeMap<&PackageNv, &PlannedPackage> = wanted.map(|package| (&package.nv, package)).collect();
        let mut brought = Brought::default();
        let mut absent = self.look(wanted.into_values().collect(), &mut brought);
        if absent.is_empty() {
            return Ok(brought);
        }
        if self.offline {
            let missing = absent.iter().map(|package| package.nv.to_string()).collect();
            return Err(InstallError::Offline { missing });
        }
        let _guard = self.cache.lock(|| self.progress.event(Event::Waiting))?;
        // Whoever held the lock may have brought the very same packages.
        absent = self.look(absent, &mut brought);
        self.cache.clear(absent.iter().map(|package| &package.nv))?;

        let total = absent.len();
        let mut downloads = stream::iter(absent).map(|package| self.one(package)).buffer_unordered(PARALLEL_REQUESTS);
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        while brought.downloaded < total {
            tokio::select! {
                Some(result) = downloads.next() => {
                    let (nv, package) = result?;
                    brought.packages.insert(nv, package);
                    brought.downloaded += 1;
                }
                _ = ticks.tick() => {}
            }
            let (done, bytes) = (brought.downloaded, self.cache.received());
            self.progress.event(Event::Downloading { done, total, bytes });
        }
        drop(downloads);
        brought.bytes = self.cache.received();
        Ok(brought)
    }

    /// Moves what the cache has into `brought` and returns the rest.
    fn look<'p>(&self, wanted: Vec<&'p PlannedPackage>, brought: &mut Brought) -> Vec<&'p PlannedPackage> {
        wanted
            .into_iter()
            .filter(|package| match self.cache.find(&package.nv, &package.integrity) {
                Some(cached) => {
                    brought.packages.insert(package.nv.clone(), cached);
                    false
                }
                None => true,
            })
            .collect()
    }

    async fn one(&self, package: &PlannedPackage) -> Result<(PackageNv, CachedPackage), InstallError> {
        let tarball = match &package.tarball {
            None => usual_tarball(self.cache.config(), &package.nv),
            Some(url) => Url::parse(url)
                .map_err(|_| InstallError::TarballUrl { package: package.nv.clone(), url: url.clone() })?,
        };
        let cached = self.cache.fetch(&package.nv, &tarball, &package.integrity).await?;
        Ok((package.nv.clone(), cached))
    }
}

/// Puts the missing packages into `modules`, several at a time: the work is mostly waiting for the file system.
fn place(
    plan: &Plan,
    modules: &Path,
    missing: &BTreeSet<PackageId>,
    packages: &HashMap<PackageNv, CachedPackage>,
    progress: &dyn Progress,
) -> Result<(), InstallError> {
    let work: Vec<(&PackageId, &CachedPackage)> =
        missing.iter().filter_map(|id| Some((id, packages.get(&package_name_and_version(id)?)?))).collect();
    let (next, done, total) = (AtomicUsize::new(0), AtomicUsize::new(0), work.len());
    let worker = || -> Result<(), LayoutError> {
        while let Some((id, cached)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            plan.place(modules, id, cached)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress.event(Event::Linking { done, total });
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("placing files does not panic"))
    })?;
    Ok(())
}

/// What people should know about the packages this install brought.
fn warnings(plan: &Plan, new: &BTreeSet<PackageId>, packages: &HashMap<PackageNv, CachedPackage>) -> Vec<String> {
    let brought: BTreeMap<PackageNv, &CachedPackage> =
        packages.iter().map(|(nv, package)| (nv.clone(), package)).collect();
    let mut warnings = Vec::new();
    for (nv, package) in brought {
        let contents = &package.contents;
        if contents.native {
            warnings.push(format!("{nv} has a native add-on: it will not load"));
        }
        if !contents.scripts.is_empty() {
            warnings.push(format!(
                "{nv} wants to run scripts when installed ({}): they were not run",
                contents.scripts.join(", ")
            ));
        }
    }
    for (package, optional) in plan.left_out.iter().filter(|(package, _)| new.contains(package)) {
        warnings.push(format!("{optional}, a native part of {package}, was left out: it would not load"));
    }
    warnings
}
