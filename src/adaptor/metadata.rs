//! What the registry knows about packages: which exist, in which versions, needing what.
//!
//! Metadata is cached and believed for five minutes, then asked for again with its etag, as npm does. Packages asked
//! for by name are always asked for again: whoever types `http` wants today's. What deno_npm cannot digest is taken out
//! or explained here: dependencies that come from no registry, and names that could climb out of a directory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use deno_error::JsErrorBox;
use deno_npm::NpmResolutionPackage;
use deno_npm::registry::{
    NpmDependencyEntryErrorSource, NpmPackageInfo, NpmPackageVersionDistInfoIntegrity, NpmRegistryApi,
    NpmRegistryPackageInfoLoadError,
};
use deno_npm::resolution::{
    NewestDependencyDateOptions, NpmPackageVersionResolutionError, NpmResolutionError, NpmVersionResolver,
};
use deno_npm_cache::{NpmCache, NpmCacheSetting, NpmPackumentFormat, RegistryInfoProvider, get_package_url};
use deno_semver::package::PackageNv;
use deno_semver::{StackString, Version};
use sys_traits::impls::RealSys;
use url::Url;

use super::cache::npm_cache;
use super::catalogue;
use super::causes::chain;
use super::lockfile::LockedPackage;
use super::npmrc::NpmConfig;
use super::registry::{Purpose, RegistryClient};
use super::resolve::ResolveError;
use super::spec::{AdaptorSpec, check_package_name};

/// How long metadata is believed without asking again. The public registry allows as much in its headers.
const METADATA_FRESH_FOR: Duration = Duration::from_secs(300);
/// How many versions an error suggests.
const SUGGESTED_VERSIONS: usize = 5;

/// How old metadata may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever the cache has: offline.
    Cached,
    /// A few minutes old, but current for the packages asked for by name.
    Recent,
    /// As the registry has it now.
    Current,
}

/// Metadata of packages, from the cache or the registry.
#[derive(Debug)]
pub struct Metadata {
    config: Arc<NpmConfig>,
    client: Arc<RegistryClient>,
    cache: Arc<NpmCache<RealSys>>,
    believing: RegistryInfoProvider<RegistryClient, RealSys>,
    asking: RegistryInfoProvider<RegistryClient, RealSys>,
    freshness: Cell<Freshness>,
    /// Packages whose metadata has to come from the registry: those asked for by name.
    direct: RefCell<HashSet<String>>,
    /// Optional dependencies that no registry has, by package, as (version, name).
    left_out: RefCell<HashMap<String, BTreeSet<(Version, String)>>>,
    /// What no registry has of that which was wanted.
    missing: RefCell<HashSet<Missing>>,
    failure: RefCell<Option<ResolveError>>,
}

impl Metadata {
    /// Metadata as `config` says, cached below `cache_root`.
    pub fn new(config: Arc<NpmConfig>, client: &RegistryClient, cache_root: &Path, freshness: Freshness) -> Self {
        let (purpose, format) = match config.registries.min_release_age_days {
            Some(_) => (Purpose::DatedMetadata, NpmPackumentFormat::Full),
            None => (Purpose::Metadata, NpmPackumentFormat::Abbreviated),
        };
        let client = Arc::new(client.for_purpose(purpose));
        let setting = if freshness == Freshness::Cached { NpmCacheSetting::Only } else { NpmCacheSetting::Use };
        let cache = Arc::new(npm_cache(cache_root, &config, setting));
        let asking = Arc::new(npm_cache(cache_root, &config, NpmCacheSetting::ReloadAll));
        let provider = |cache: &Arc<NpmCache<RealSys>>| {
            RegistryInfoProvider::new(cache.clone(), client.clone(), config.registries.clone(), format)
        };
        Self {
            believing: provider(&cache),
            asking: provider(&asking),
            config,
            client,
            cache,
            freshness: Cell::new(freshness),
            direct: RefCell::default(),
            left_out: RefCell::default(),
            missing: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// Which of the packages that `spec` may name exists.
    pub(super) async fn name_of(&self, spec: &AdaptorSpec) -> Result<String, ResolveError> {
        let names = spec.names();
        self.direct.borrow_mut().extend(names.iter().cloned());
        let mut unknown = None;
        for name in &names {
            match self.info(name).await {
                Ok(_) => return Ok(name.clone()),
                // Offline, the plain package may be cached though the adaptor of that name was never asked for.
                Err(error @ (ResolveError::UnknownPackage { .. } | ResolveError::Offline { .. })) => {
                    unknown = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let typed = names.last().cloned().unwrap_or_default();
        Err(match unknown {
            Some(ResolveError::UnknownPackage { registry, .. }) => {
                ResolveError::UnknownPackage { suggestion: catalogue::closest(&typed), name: typed, registry }
            }
            _ => ResolveError::Offline { name: typed },
        })
    }

    async fn info(&self, name: &str) -> Result<Arc<NpmPackageInfo>, ResolveError> {
        check_package_name(name)
            .map_err(|why| ResolveError::BadMetadata { name: name.into(), reason: format!("its name: {why}") })?;
        let file = self.cache.package_name_folder(name).join("registry.json");
        let cached_at = file.metadata().and_then(|metadata| metadata.modified()).ok();
        let offline = self.freshness.get() == Freshness::Cached;
        if offline && cached_at.is_none() {
            return Err(ResolveError::Offline { name: name.into() });
        }
        let believed = match self.freshness.get() {
            Freshness::Cached => true,
            Freshness::Recent => {
                let age = cached_at.and_then(|at| SystemTime::now().duration_since(at).ok());
                let recent = age.is_some_and(|age| age < METADATA_FRESH_FOR);
                recent && !self.direct.borrow().contains(name)
            }
            Freshness::Current => false,
        };
        if believed {
            match self.believing.maybe_package_info(name).await {
                Ok(Some(info)) => return Ok(self.without_left_out(name, info)),
                // A cache that cannot be read is no reason to fail while there is a registry to ask.
                Ok(None) | Err(_) if !offline => {}
                Ok(None) => return Err(ResolveError::Offline { name: name.into() }),
                Err(error) => {
                    return Err(ResolveError::BadMetadata { name: name.into(), reason: error.to_string() });
                }
            }
        }
        match self.asking.maybe_package_info(name).await {
            Ok(Some(info)) => {
                // The registry may have said "not modified": the copy is as good as new.
                if let Ok(file) = std::fs::File::options().append(true).open(&file) {
                    let _ = file.set_modified(SystemTime::now());
                }
                Ok(self.without_left_out(name, info))
            }
            Ok(None) => Err(ResolveError::UnknownPackage {
                name: name.into(),
                registry: self.config.registry_of(name),
                suggestion: None,
            }),
            Err(error) => Err(match self.client.failure(&get_package_url(&self.config.registries, name)) {
                Some(source) => ResolveError::Metadata { name: name.into(), source },
                None => ResolveError::BadMetadata { name: name.into(), reason: self.config.redact(&chain(&error)) },
            }),
        }
    }

    pub(super) fn version_resolver(&self) -> NpmVersionResolver {
        let newest_dependency_date_options = match self.config.registries.min_release_age_days {
            Some(days) => {
                let age = Duration::from_secs(days.saturating_mul(24 * 60 * 60));
                let date = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
                NewestDependencyDateOptions::from_date(date.into())
            }
            None => NewestDependencyDateOptions::default(),
        };
        NpmVersionResolver { newest_dependency_date_options, ..Default::default() }
    }

    /// The metadata without the optional dependencies that cannot be had.
    fn without_left_out(&self, name: &str, info: Arc<NpmPackageInfo>) -> Arc<NpmPackageInfo> {
        let (left_out, missing) = (self.left_out.borrow(), self.missing.borrow());
        let left_out = left_out.get(name);
        if left_out.is_none() && missing.is_empty() {
            return info;
        }
        let mut info = (*info).clone();
        let numbers: Vec<Version> = info.versions.keys().cloned().collect();
        for number in numbers {
            let Some(version) = info.versions.get_mut(&number) else { continue };
            let cannot_be_had = |alias: &str, wanted: &str| {
                missing.iter().any(|missing| missing.is_wanted_by(alias, wanted))
                    || left_out.is_some_and(|left_out| left_out.contains(&(number.clone(), alias.to_owned())))
            };
            let lacking: Vec<_> =
                version.optional_dependencies.extract_if(|alias, wanted| cannot_be_had(alias, wanted)).collect();
            for (alias, _) in lacking {
                version.dependencies.remove(&alias);
            }
        }
        Arc::new(info)
    }

    /// Sees to it that the next try goes without what could not be had, as long as only optional dependencies want it,
    /// or says what is wrong.
    pub(super) async fn leave_out_or_explain(&self, error: NpmResolutionError) -> Result<(), ResolveError> {
        if let Some(failure) = self.failure.borrow_mut().take() {
            return Err(failure);
        }
        match error {
            NpmResolutionError::Registry(NpmRegistryPackageInfoLoadError::PackageNotExists { package_name }) => {
                if self.missing.borrow_mut().insert(Missing::Package(package_name.clone())) {
                    return Ok(());
                }
                Err(ResolveError::UnknownPackage {
                    registry: self.config.registry_of(&package_name),
                    suggestion: None,
                    name: package_name,
                })
            }
            NpmResolutionError::Registry(NpmRegistryPackageInfoLoadError::LoadError(error)) => {
                Err(ResolveError::BadMetadata { name: String::new(), reason: self.config.redact(&error.to_string()) })
            }
            NpmResolutionError::Resolution(error) => {
                let (name, wanted) = not_matched(&error);
                if self.missing.borrow_mut().insert(Missing::Version { name: name.clone(), wanted: wanted.clone() }) {
                    return Ok(());
                }
                Err(self.unknown_version(name, wanted).await)
            }
            NpmResolutionError::DependencyEntry(error) => {
                let (package, dependency) = (error.parent_nv.clone(), error.key.clone());
                let NpmDependencyEntryErrorSource::RemoteDependency { specifier } = &error.source else {
                    return Err(ResolveError::BadDependency { package, dependency, value: error.value.clone() });
                };
                let info = self.info(&package.name).await?;
                let optional = info
                    .versions
                    .get(&package.version)
                    .is_some_and(|version| version.optional_dependencies.contains_key(dependency.as_str()));
                if !optional {
                    let from =
                        Url::parse(specifier).map_or_else(|_| specifier.clone(), |url| super::npmrc::public_url(&url));
                    return Err(ResolveError::NotFromRegistry { package, dependency, from });
                }
                let mut left_out = self.left_out.borrow_mut();
                left_out.entry(package.name.to_string()).or_default().insert((package.version, dependency));
                Ok(())
            }
        }
    }

    async fn unknown_version(&self, name: String, wanted: String) -> ResolveError {
        let info = match self.info(&name).await {
            Ok(info) => info,
            Err(error) => return error,
        };
        let mut newest: Vec<&Version> = info.versions.keys().collect();
        // Releases first: a list of nightly builds helps nobody.
        newest.sort_by(|a, b| (b.pre.is_empty(), b).cmp(&(a.pre.is_empty(), a)));
        let newest = newest.into_iter().take(SUGGESTED_VERSIONS).map(ToString::to_string).collect();
        ResolveError::UnknownVersion { name, wanted, newest }
    }

    pub(super) fn locked(&self, package: &NpmResolutionPackage) -> Result<LockedPackage, ResolveError> {
        let nv = &package.id.nv;
        let dist = package.dist.as_ref().filter(|dist| !dist.tarball.is_empty());
        let dist = dist.ok_or_else(|| ResolveError::BadMetadata {
            name: nv.name.to_string(),
            reason: format!("version {} has no tarball", nv.version),
        })?;
        for alias in package.dependencies.keys() {
            check_package_name(alias).map_err(|why| ResolveError::BadMetadata {
                name: nv.name.to_string(),
                reason: format!("it calls a dependency `{alias}`: {why}"),
            })?;
        }
        let tarball = Url::parse(&dist.tarball).map_err(|_| ResolveError::BadMetadata {
            name: nv.name.to_string(),
            reason: format!("the address of version {} is no URL", nv.version),
        })?;
        let mut tarball = self.config.registries.replace_tarball_url(tarball, &nv.name);
        // The lock is shared; a login that a registry put into its addresses is not.
        let _ = tarball.set_username("");
        let _ = tarball.set_password(None);
        let usual = usual_tarball(&self.config, nv);
        Ok(LockedPackage {
            integrity: integrity(&dist.integrity()),
            tarball: (tarball != usual).then(|| tarball.to_string()),
            dependencies: dependencies(package),
            optional: names(&package.optional_dependencies, |name| package.dependencies.contains_key(name)),
            optional_peers: names(&package.optional_peer_dependencies, |_| true),
            os: package.system.os.iter().map(ToString::to_string).collect(),
            cpu: package.system.cpu.iter().map(ToString::to_string).collect(),
        })
    }
}

/// A package that no registry has, or has in no version that was wanted. As long as nobody but optional dependencies
/// wants it, all goes on without it: many such dependencies are parts for other systems, and published apart.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Missing {
    Package(String),
    Version { name: String, wanted: String },
}

impl Missing {
    /// Whether a dependency called `alias` that states `wanted` is this one.
    fn is_wanted_by(&self, alias: &str, wanted: &str) -> bool {
        let (name, version) = wanted
            .strip_prefix("npm:")
            .map_or((alias, wanted), |target| target.rsplit_once('@').unwrap_or((target, "")));
        match self {
            Self::Package(missing) => missing == name,
            Self::Version { name: missing, wanted } => missing == name && wanted == version,
        }
    }
}

/// Name and wanted version of what was not found.
fn not_matched(error: &NpmPackageVersionResolutionError) -> (String, String) {
    match error {
        NpmPackageVersionResolutionError::DistTagNotFound { dist_tag, package_name }
        | NpmPackageVersionResolutionError::DistTagVersionNotFound { dist_tag, package_name, .. }
        | NpmPackageVersionResolutionError::DistTagVersionTooNew { dist_tag, package_name, .. } => {
            (package_name.to_string(), dist_tag.clone())
        }
        NpmPackageVersionResolutionError::VersionNotFound(missing) => {
            (missing.0.name.to_string(), missing.0.version.to_string())
        }
        NpmPackageVersionResolutionError::VersionReqNotMatched { package_name, version_req, .. } => {
            (package_name.to_string(), version_req.version_text().to_string())
        }
        NpmPackageVersionResolutionError::TrustPolicyDowngrade { package_name, version, .. } => {
            (package_name.to_string(), version.to_string())
        }
    }
}

/// What a package calls its dependencies, and which packages they became.
pub(super) fn dependencies(package: &NpmResolutionPackage) -> BTreeMap<String, String> {
    package.dependencies.iter().map(|(alias, id)| (alias.to_string(), id.as_serialized().to_string())).collect()
}

fn names(all: &HashSet<StackString>, keep: impl Fn(&str) -> bool) -> BTreeSet<String> {
    all.iter().filter(|name| keep(name)).map(ToString::to_string).collect()
}

/// Where a registry keeps a tarball unless it says otherwise.
pub fn usual_tarball(config: &NpmConfig, nv: &PackageNv) -> Url {
    let base = nv.name.rsplit('/').next().unwrap_or(&nv.name);
    let path = format!("{}/-/{base}-{}.tgz", nv.name, nv.version);
    let mut url = config.registries.get_registry_url(&nv.name).clone();
    let joined = format!("{}{path}", url.path());
    url.set_path(&joined);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// The strongest digest a registry states, in the one form the lock uses; empty if it states none.
fn integrity(stated: &NpmPackageVersionDistInfoIntegrity) -> String {
    match stated {
        NpmPackageVersionDistInfoIntegrity::Integrity { algorithm, base64_hash } => {
            // The field may hold several digests, separated by spaces, each with options after a question mark.
            let all = format!("{algorithm}-{base64_hash}");
            let digests = all.split_whitespace().filter_map(|digest| digest.split('?').next());
            let strongest =
                digests.max_by_key(|digest| ["sha1-", "sha512-"].iter().position(|kind| digest.starts_with(kind)));
            strongest.unwrap_or_default().to_string()
        }
        NpmPackageVersionDistInfoIntegrity::LegacySha1Hex(hex) => match decode_hex(hex) {
            Some(bytes) => format!("sha1-{}", BASE64_STANDARD.encode(bytes)),
            None => String::new(),
        },
        NpmPackageVersionDistInfoIntegrity::UnknownIntegrity(text) => text.to_string(),
        NpmPackageVersionDistInfoIntegrity::None => String::new(),
    }
}

fn decode_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    digits
        .filter(|digits| digits.len() % 2 == 0)
        .map(|digits| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[async_trait::async_trait(?Send)]
impl NpmRegistryApi for Metadata {
    async fn package_info(&self, name: &str) -> Result<Arc<NpmPackageInfo>, NpmRegistryPackageInfoLoadError> {
        self.info(name).await.map_err(|error| match error {
            // An optional peer may not exist: deno_npm goes on without it.
            ResolveError::UnknownPackage { name, .. } | ResolveError::Offline { name } => {
                NpmRegistryPackageInfoLoadError::PackageNotExists { package_name: name }
            }
            error => {
                let text = JsErrorBox::generic(error.to_string());
                self.failure.borrow_mut().get_or_insert(error);
                NpmRegistryPackageInfoLoadError::LoadError(Arc::new(text))
            }
        })
    }

    /// deno_npm calls this when it finds something missing that may have been published meanwhile.
    fn mark_force_reload(&self) -> bool {
        let worth_it = self.freshness.get() == Freshness::Recent;
        if worth_it {
            self.freshness.set(Freshness::Current);
        }
        worth_it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_digest_is_locked() {
        use NpmPackageVersionDistInfoIntegrity as Stated;
        let several = Stated::Integrity { algorithm: "sha1", base64_hash: "aaa= sha512-bbb==?opt" };
        assert_eq!(integrity(&several), "sha512-bbb==");
        assert_eq!(integrity(&Stated::LegacySha1Hex("00ff")), "sha1-AP8=");
        assert_eq!(integrity(&Stated::None), "");
    }
}
