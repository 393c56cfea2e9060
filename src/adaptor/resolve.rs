//! Choosing versions: from what is asked for and what the lock holds to a complete lock.
//!
//! deno_npm does the choosing, peers included. Around it: metadata is believed for five minutes and then asked for
//! again with its etag (as npm does), the lock's choices stay as they are, and dependencies that are no registry
//! packages are left out where they are optional and named in an error where they are not.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use deno_core::futures::future;
use deno_error::JsErrorBox;
use deno_npm::registry::{
    NpmDependencyEntryErrorSource, NpmPackageInfo, NpmPackageVersionDistInfoIntegrity,
    NpmRegistryApi, NpmRegistryPackageInfoLoadError,
};
use deno_npm::resolution::{
    AddPkgReqsOptions, NewestDependencyDateOptions, NpmPackageVersionResolutionError,
    NpmResolutionError, NpmResolutionSnapshot, NpmVersionResolver, SerializedNpmResolutionSnapshot,
    SerializedNpmResolutionSnapshotPackage,
};
use deno_npm::{NpmPackageId, NpmResolutionPackage};
use deno_npm_cache::{
    NpmCache, NpmCacheSetting, NpmPackumentFormat, RegistryInfoProvider, get_package_url,
};
use deno_semver::package::{PackageNv, PackageReq};
use deno_semver::{StackString, Version};
use sys_traits::impls::RealSys;
use url::Url;

use super::cache::npm_cache;
use super::catalogue;
use super::lockfile::{LockedPackage, Lockfile};
use super::npmrc::NpmConfig;
use super::registry::{Purpose, RegistryClient, RegistryError};
use super::spec::{AdaptorSpec, check_package_name};

/// How long metadata is believed without asking again. The public registry allows as much in its headers.
const METADATA_FRESH_FOR: Duration = Duration::from_secs(300);
/// How many versions an error suggests.
const SUGGESTED_VERSIONS: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("there is no package `{name}` in {registry}{}", did_you_mean(.suggestion))]
    UnknownPackage {
        name: String,
        registry: String,
        suggestion: Option<&'static str>,
    },
    #[error("`{name}` has no version that fits `{wanted}`; the newest are {}", .newest.join(", "))]
    UnknownVersion {
        name: String,
        wanted: String,
        newest: Vec<String>,
    },
    #[error("cannot read the metadata of `{name}`")]
    Metadata { name: String, source: RegistryError },
    #[error("the metadata of `{name}` is unusable: {reason}")]
    BadMetadata { name: String, reason: String },
    #[error("the metadata of `{name}` is not in the cache, and there is no asking for it offline")]
    Offline { name: String },
    #[error(
        "{package} wants `{dependency}` from {from}, not from a registry: fnhost does not install such packages"
    )]
    NotFromRegistry {
        package: PackageNv,
        dependency: String,
        from: String,
    },
    #[error("{package} states a dependency that cannot be read: `{dependency}`: `{value}`")]
    BadDependency {
        package: PackageNv,
        dependency: String,
        value: String,
    },
    #[error("the lockfile contradicts itself: {reason}")]
    Lock { reason: String },
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// Chooses versions for `wanted` and everything they need, on top of what `lock` holds.
pub async fn resolve(
    lock: Lockfile,
    wanted: &[AdaptorSpec],
    metadata: &Metadata,
) -> Result<Lockfile, ResolveError> {
    let mut requests = lock.requests.clone();
    let mut asked = BTreeMap::new();
    let versioned = wanted
        .iter()
        .filter_map(|spec| Some((spec, spec.version()?)));
    let named = versioned.map(async |(spec, version)| {
        let name = metadata.name_of(spec).await?;
        Ok((
            spec.to_string(),
            PackageReq {
                name: name.as_str().into(),
                version_req: version.clone(),
            },
        ))
    });
    for (request, req) in future::try_join_all(named).await? {
        // What is asked for anew is chosen anew.
        requests.remove(&request);
        asked.insert(request, req);
    }
    let mut kept = Lockfile {
        requests,
        ..lock.clone()
    };
    kept.forget_unreachable();
    let base = snapshot_of(&kept)?;
    let resolver = metadata.version_resolver();
    let package_reqs: Vec<PackageReq> = asked.values().cloned().collect();

    let snapshot = loop {
        let options = AddPkgReqsOptions {
            package_reqs: &package_reqs,
            version_resolver: &resolver,
            // Merging equal dependencies may move versions, so only where nothing was chosen before.
            should_dedup: kept.requests.is_empty(),
        };
        match base
            .clone()
            .add_pkg_reqs(metadata, options, None)
            .await
            .into_result()
        {
            Ok(snapshot) => break snapshot,
            Err(error) => metadata.leave_out_or_explain(error).await?,
        }
    };

    let mut resolved = Lockfile {
        requests: kept.requests.clone(),
        ..Default::default()
    };
    for (request, req) in asked {
        let package =
            snapshot
                .resolve_pkg_from_pkg_req(&req)
                .map_err(|error| ResolveError::Lock {
                    reason: error.to_string(),
                })?;
        resolved
            .requests
            .insert(request, package.id.as_serialized().to_string());
    }
    for package in snapshot.all_packages_for_every_system() {
        let id = package.id.as_serialized().to_string();
        let locked = match kept.packages.get(&id) {
            Some(known) => LockedPackage {
                dependencies: dependencies(package),
                ..known.clone()
            },
            None => {
                let stated = metadata.locked(package)?;
                // A digest that was computed from the bytes once outlives a registry that states none.
                let known = lock.packages.get(&id).map(|known| known.integrity.clone());
                match known.filter(|_| !stated.integrity.starts_with("sha512-")) {
                    Some(integrity) => LockedPackage {
                        integrity,
                        ..stated
                    },
                    None => stated,
                }
            }
        };
        resolved.packages.insert(id, locked);
    }
    resolved.forget_unreachable();
    Ok(resolved)
}

fn dependencies(package: &NpmResolutionPackage) -> BTreeMap<String, String> {
    package
        .dependencies
        .iter()
        .map(|(alias, id)| (alias.to_string(), id.as_serialized().to_string()))
        .collect()
}

fn snapshot_of(lock: &Lockfile) -> Result<NpmResolutionSnapshot, ResolveError> {
    let lock_error = |reason: String| ResolveError::Lock { reason };
    let id = |text: &str| {
        NpmPackageId::from_serialized(text).map_err(|error| lock_error(error.to_string()))
    };
    let mut snapshot = SerializedNpmResolutionSnapshot::default();
    for (request, target) in &lock.requests {
        let id = id(target)?;
        let spec = AdaptorSpec::parse(request).map_err(|error| lock_error(error.to_string()))?;
        let Some(version) = spec.version() else {
            continue;
        };
        let req = PackageReq {
            name: id.nv.name.clone(),
            version_req: version.clone(),
        };
        snapshot.root_packages.insert(req, id);
    }
    for (text, package) in &lock.packages {
        let dependencies = package
            .dependencies
            .iter()
            .map(|(alias, target)| Ok((alias.as_str().into(), id(target)?)));
        snapshot
            .packages
            .push(SerializedNpmResolutionSnapshotPackage {
                id: id(text)?,
                system: package.system(),
                dist: None,
                dependencies: dependencies.collect::<Result<_, _>>()?,
                optional_dependencies: package
                    .optional
                    .iter()
                    .map(|name| name.as_str().into())
                    .collect(),
                optional_peer_dependencies: package
                    .optional_peers
                    .iter()
                    .map(|name| name.as_str().into())
                    .collect(),
                extra: None,
                is_deprecated: false,
                has_bin: false,
                has_scripts: false,
            });
    }
    let snapshot = snapshot
        .into_valid()
        .map_err(|error| lock_error(error.to_string()))?;
    Ok(NpmResolutionSnapshot::new(snapshot))
}

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
    failure: RefCell<Option<ResolveError>>,
}

impl Metadata {
    /// Metadata as `config` says, cached below `cache_root`.
    pub fn new(
        config: Arc<NpmConfig>,
        client: &RegistryClient,
        cache_root: &Path,
        freshness: Freshness,
    ) -> Self {
        let (purpose, format) = match config.registries.min_release_age_days {
            Some(_) => (Purpose::DatedMetadata, NpmPackumentFormat::Full),
            None => (Purpose::Metadata, NpmPackumentFormat::Abbreviated),
        };
        let client = Arc::new(client.for_purpose(purpose));
        let setting = if freshness == Freshness::Cached {
            NpmCacheSetting::Only
        } else {
            NpmCacheSetting::Use
        };
        let cache = Arc::new(npm_cache(cache_root, &config, setting));
        let asking = Arc::new(npm_cache(cache_root, &config, NpmCacheSetting::ReloadAll));
        let provider = |cache: &Arc<NpmCache<RealSys>>| {
            RegistryInfoProvider::new(
                cache.clone(),
                client.clone(),
                config.registries.clone(),
                format,
            )
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
            failure: RefCell::default(),
        }
    }

    /// Which of the packages that `spec` may name exists.
    async fn name_of(&self, spec: &AdaptorSpec) -> Result<String, ResolveError> {
        let names = spec.names();
        self.direct.borrow_mut().extend(names.iter().cloned());
        let mut unknown = None;
        for name in &names {
            match self.info(name).await {
                Ok(_) => return Ok(name.clone()),
                // Offline, the plain package may be cached though the adaptor of that name was never asked for.
                Err(
                    error @ (ResolveError::UnknownPackage { .. } | ResolveError::Offline { .. }),
                ) => {
                    unknown = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let typed = names.last().cloned().unwrap_or_default();
        Err(match unknown {
            Some(ResolveError::UnknownPackage { registry, .. }) => ResolveError::UnknownPackage {
                suggestion: catalogue::closest(&typed),
                name: typed,
                registry,
            },
            _ => ResolveError::Offline { name: typed },
        })
    }

    async fn info(&self, name: &str) -> Result<Arc<NpmPackageInfo>, ResolveError> {
        check_package_name(name).map_err(|why| ResolveError::BadMetadata {
            name: name.into(),
            reason: format!("its name: {why}"),
        })?;
        let file = self.cache.package_name_folder(name).join("registry.json");
        let cached_at = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok();
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
                    return Err(ResolveError::BadMetadata {
                        name: name.into(),
                        reason: error.to_string(),
                    });
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
            Err(error) => Err(
                match self
                    .client
                    .failure(&get_package_url(&self.config.registries, name))
                {
                    Some(source) => ResolveError::Metadata {
                        name: name.into(),
                        source,
                    },
                    None => ResolveError::BadMetadata {
                        name: name.into(),
                        reason: self.config.redact(&chain(&error)),
                    },
                },
            ),
        }
    }

    fn version_resolver(&self) -> NpmVersionResolver {
        let newest_dependency_date_options = match self.config.registries.min_release_age_days {
            Some(days) => {
                let age = Duration::from_secs(days.saturating_mul(24 * 60 * 60));
                let date = SystemTime::now()
                    .checked_sub(age)
                    .unwrap_or(SystemTime::UNIX_EPOCH);
                NewestDependencyDateOptions::from_date(date.into())
            }
            None => NewestDependencyDateOptions::default(),
        };
        NpmVersionResolver {
            newest_dependency_date_options,
            ..Default::default()
        }
    }

    /// The metadata without the optional dependencies that turned out not to be registry packages.
    fn without_left_out(&self, name: &str, info: Arc<NpmPackageInfo>) -> Arc<NpmPackageInfo> {
        let left_out = self.left_out.borrow();
        let Some(left_out) = left_out.get(name) else {
            return info;
        };
        let mut info = (*info).clone();
        for (version, dependency) in left_out {
            if let Some(version) = info.versions.get_mut(version) {
                version.dependencies.remove(dependency.as_str());
                version.optional_dependencies.remove(dependency.as_str());
            }
        }
        Arc::new(info)
    }

    /// Leaves out an optional dependency that is no registry package, or says what is wrong.
    async fn leave_out_or_explain(&self, error: NpmResolutionError) -> Result<(), ResolveError> {
        if let Some(failure) = self.failure.borrow_mut().take() {
            return Err(failure);
        }
        match error {
            NpmResolutionError::Registry(NpmRegistryPackageInfoLoadError::PackageNotExists {
                package_name,
            }) => Err(ResolveError::UnknownPackage {
                registry: self.config.registry_of(&package_name),
                suggestion: None,
                name: package_name,
            }),
            NpmResolutionError::Registry(NpmRegistryPackageInfoLoadError::LoadError(error)) => {
                Err(ResolveError::BadMetadata {
                    name: String::new(),
                    reason: self.config.redact(&error.to_string()),
                })
            }
            NpmResolutionError::Resolution(error) => Err(self.unknown_version(error).await),
            NpmResolutionError::DependencyEntry(error) => {
                let (package, dependency) = (error.parent_nv.clone(), error.key.clone());
                let NpmDependencyEntryErrorSource::RemoteDependency { specifier } = &error.source
                else {
                    return Err(ResolveError::BadDependency {
                        package,
                        dependency,
                        value: error.value.clone(),
                    });
                };
                let info = self.info(&package.name).await?;
                let optional = info.versions.get(&package.version).is_some_and(|version| {
                    version
                        .optional_dependencies
                        .contains_key(dependency.as_str())
                });
                if !optional {
                    let from = Url::parse(specifier)
                        .map_or_else(|_| specifier.clone(), |url| super::npmrc::public_url(&url));
                    return Err(ResolveError::NotFromRegistry {
                        package,
                        dependency,
                        from,
                    });
                }
                let mut left_out = self.left_out.borrow_mut();
                left_out
                    .entry(package.name.to_string())
                    .or_default()
                    .insert((package.version, dependency));
                Ok(())
            }
        }
    }

    async fn unknown_version(&self, error: NpmPackageVersionResolutionError) -> ResolveError {
        let (name, wanted) = match &error {
            NpmPackageVersionResolutionError::DistTagNotFound {
                dist_tag,
                package_name,
            }
            | NpmPackageVersionResolutionError::DistTagVersionNotFound {
                dist_tag,
                package_name,
                ..
            }
            | NpmPackageVersionResolutionError::DistTagVersionTooNew {
                dist_tag,
                package_name,
                ..
            } => (package_name.to_string(), dist_tag.clone()),
            NpmPackageVersionResolutionError::VersionNotFound(missing) => {
                (missing.0.name.to_string(), missing.0.version.to_string())
            }
            NpmPackageVersionResolutionError::VersionReqNotMatched {
                package_name,
                version_req,
                ..
            } => (
                package_name.to_string(),
                version_req.version_text().to_string(),
            ),
            NpmPackageVersionResolutionError::TrustPolicyDowngrade {
                package_name,
                version,
                ..
            } => (package_name.to_string(), version.to_string()),
        };
        let info = match self.info(&name).await {
            Ok(info) => info,
            Err(error) => return error,
        };
        let mut newest: Vec<&Version> = info.versions.keys().collect();
        // Releases first: a list of nightly builds helps nobody.
        newest.sort_by(|a, b| (b.pre.is_empty(), b).cmp(&(a.pre.is_empty(), a)));
        let newest = newest
            .into_iter()
            .take(SUGGESTED_VERSIONS)
            .map(ToString::to_string)
            .collect();
        ResolveError::UnknownVersion {
            name,
            wanted,
            newest,
        }
    }

    fn locked(&self, package: &NpmResolutionPackage) -> Result<LockedPackage, ResolveError> {
        let nv = &package.id.nv;
        let dist = package
            .dist
            .as_ref()
            .filter(|dist| !dist.tarball.is_empty());
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
        let mut tarball = self
            .config
            .registries
            .replace_tarball_url(tarball, &nv.name);
        // The lock is shared; a login that a registry put into its addresses is not.
        let _ = tarball.set_username("");
        let _ = tarball.set_password(None);
        let usual = usual_tarball(&self.config, nv);
        Ok(LockedPackage {
            integrity: integrity(&dist.integrity()),
            tarball: (tarball != usual).then(|| tarball.to_string()),
            dependencies: dependencies(package),
            optional: names(&package.optional_dependencies, |name| {
                package.dependencies.contains_key(name)
            }),
            optional_peers: names(&package.optional_peer_dependencies, |_| true),
            os: package.system.os.iter().map(ToString::to_string).collect(),
            cpu: package.system.cpu.iter().map(ToString::to_string).collect(),
        })
    }
}

fn names(all: &HashSet<StackString>, keep: impl Fn(&str) -> bool) -> BTreeSet<String> {
    all.iter()
        .filter(|name| keep(name))
        .map(ToString::to_string)
        .collect()
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
        NpmPackageVersionDistInfoIntegrity::Integrity {
            algorithm,
            base64_hash,
        } => {
            // The field may hold several digests, separated by spaces, each with options after a question mark.
            let all = format!("{algorithm}-{base64_hash}");
            let digests = all
                .split_whitespace()
                .filter_map(|digest| digest.split('?').next());
            let strongest = digests.max_by_key(|digest| {
                ["sha1-", "sha512-"]
                    .iter()
                    .position(|kind| digest.starts_with(kind))
            });
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
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    digits.filter(|digits| digits.len() % 2 == 0).map(|digits| {
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    })
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error;
    while let Some(source) = cause.source() {
        text = format!("{text}: {source}");
        cause = source;
    }
    text
}

#[async_trait::async_trait(?Send)]
impl NpmRegistryApi for Metadata {
    async fn package_info(
        &self,
        name: &str,
    ) -> Result<Arc<NpmPackageInfo>, NpmRegistryPackageInfoLoadError> {
        self.info(name).await.map_err(|error| match error {
            // An optional peer may not exist: deno_npm goes on without it.
            ResolveError::UnknownPackage { name, .. } => {
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
        let several = Stated::Integrity {
            algorithm: "sha1",
            base64_hash: "aaa= sha512-bbb==?opt",
        };
        assert_eq!(integrity(&several), "sha512-bbb==");
        assert_eq!(integrity(&Stated::LegacySha1Hex("00ff")), "sha1-AP8=");
        assert_eq!(integrity(&Stated::None), "");
    }
}
