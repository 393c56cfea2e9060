//! Choosing versions: from what is asked for and what the lock holds to a complete lock.
//!
//! deno_npm does the choosing, peers included, with what [`Metadata`] tells it. What the lock holds already is given to
//! it as settled, so that adding one adaptor moves nothing of the others.

use std::collections::BTreeMap;

use deno_core::futures::future;
use deno_npm::NpmPackageId;
use deno_npm::resolution::{
    AddPkgReqsOptions, NpmResolutionSnapshot, SerializedNpmResolutionSnapshot, SerializedNpmResolutionSnapshotPackage,
};
use deno_semver::package::{PackageNv, PackageReq};

use super::lockfile::{LockedPackage, Lockfile};
use super::metadata::{Metadata, dependencies};
use super::registry::RegistryError;
use super::spec::AdaptorSpec;

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("there is no package `{name}` in {registry}{}", did_you_mean(.suggestion))]
    UnknownPackage { name: String, registry: String, suggestion: Option<&'static str> },
    #[error("`{name}` has no version that fits `{wanted}`{}", newest_are(.newest))]
    UnknownVersion { name: String, wanted: String, newest: Vec<String> },
    #[error("cannot read the metadata of `{name}`")]
    Metadata { name: String, source: RegistryError },
    #[error("the metadata of `{name}` is unusable: {reason}")]
    BadMetadata { name: String, reason: String },
    #[error("the metadata of `{name}` is not in the cache, and there is no asking for it offline")]
    Offline { name: String },
    #[error("{package} wants `{dependency}` from {from}, not from a registry: fnhost does not install such packages")]
    NotFromRegistry { package: PackageNv, dependency: String, from: String },
    #[error("{package} states a dependency that cannot be read: `{dependency}`: `{value}`")]
    BadDependency { package: PackageNv, dependency: String, value: String },
    #[error("the lockfile contradicts itself: {reason}")]
    Lock { reason: String },
}

fn newest_are(versions: &[String]) -> String {
    if versions.is_empty() {
        return " (nor any other)".into();
    }
    format!("; the newest are {}", versions.join(", "))
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Chooses versions for `wanted` and everything they need, on top of what `lock` holds.
pub async fn resolve(lock: Lockfile, wanted: &[AdaptorSpec], metadata: &Metadata) -> Result<Lockfile, ResolveError> {
    let versioned = wanted.iter().filter_map(|spec| Some((spec, spec.version()?)));
    let named = versioned.map(async |(spec, version)| {
        let name = metadata.name_of(spec).await?;
        Ok((spec.to_string(), PackageReq { name: name.as_str().into(), version_req: version.clone() }))
    });
    let asked: BTreeMap<String, PackageReq> = future::try_join_all(named).await?.into_iter().collect();

    // What is asked for anew is chosen anew; the rest of the lock is settled.
    let mut kept = lock.clone();
    kept.requests.retain(|request, _| !asked.contains_key(request));
    kept.forget_unreachable();
    let settled = requirements(&kept)?;
    let base = snapshot_of(&kept, &settled)?;
    let resolver = metadata.version_resolver();
    let package_reqs: Vec<PackageReq> = asked.values().cloned().collect();

    let snapshot = loop {
        let options = AddPkgReqsOptions {
            package_reqs: &package_reqs,
            version_resolver: &resolver,
            // Merging equal dependencies may move versions, so only where nothing was chosen before.
            should_dedup: kept.requests.is_empty(),
        };
        match base.clone().add_pkg_reqs(metadata, options, None).await.into_result() {
            Ok(snapshot) => break snapshot,
            Err(error) => metadata.leave_out_or_explain(error).await?,
        }
    };

    let mut resolved = Lockfile::default();
    for (request, requirement) in settled.into_iter().chain(asked) {
        let package = snapshot
            .resolve_pkg_from_pkg_req(&requirement)
            .map_err(|error| ResolveError::Lock { reason: error.to_string() })?;
        let id = package.id.as_serialized().to_string();
        resolved.requests.insert(request, id);
    }
    for package in snapshot.all_packages_for_every_system() {
        let id = package.id.as_serialized().to_string();
        let locked = match kept.packages.get(&id) {
            Some(known) => LockedPackage { dependencies: dependencies(package), ..known.clone() },
            None => {
                let stated = metadata.locked(package)?;
                // A digest that was computed from the bytes once outlives a registry that states none.
                let known = lock.packages.get(&id).map(|known| known.integrity.clone());
                match known.filter(|_| !stated.integrity.starts_with("sha512-")) {
                    Some(integrity) => LockedPackage { integrity, ..stated },
                    None => stated,
                }
            }
        };
        resolved.packages.insert(id, locked);
    }
    resolved.forget_unreachable();
    Ok(resolved)
}

/// What the requests of `lock` asked deno_npm for.
fn requirements(lock: &Lockfile) -> Result<BTreeMap<String, PackageReq>, ResolveError> {
    let mut requirements = BTreeMap::new();
    for (request, id) in &lock.requests {
        let spec = AdaptorSpec::parse(request).map_err(|error| ResolveError::Lock { reason: error.to_string() })?;
        let Some(version) = spec.version() else {
            continue;
        };
        // The id says which of its possible names a request became.
        let requirement = PackageReq { name: package_id(id)?.nv.name, version_req: version.clone() };
        requirements.insert(request.clone(), requirement);
    }
    Ok(requirements)
}

fn package_id(text: &str) -> Result<NpmPackageId, ResolveError> {
    NpmPackageId::from_serialized(text).map_err(|error| ResolveError::Lock { reason: error.to_string() })
}

/// The lock in deno_npm's form.
fn snapshot_of(
    lock: &Lockfile,
    requirements: &BTreeMap<String, PackageReq>,
) -> Result<NpmResolutionSnapshot, ResolveError> {
    let mut snapshot = SerializedNpmResolutionSnapshot::default();
    for (request, requirement) in requirements {
        let id = package_id(&lock.requests[request])?;
        snapshot.root_packages.insert(requirement.clone(), id);
    }
    for (text, package) in &lock.packages {
        let dependencies =
            package.dependencies.iter().map(|(alias, target)| Ok((alias.as_str().into(), package_id(target)?)));
        snapshot.packages.push(SerializedNpmResolutionSnapshotPackage {
            id: package_id(text)?,
            system: package.system(),
            dist: None,
            dependencies: dependencies.collect::<Result<_, _>>()?,
            optional_dependencies: package.optional.iter().map(|name| name.as_str().into()).collect(),
            optional_peer_dependencies: package.optional_peers.iter().map(|name| name.as_str().into()).collect(),
            extra: None,
            is_deprecated: false,
            has_bin: false,
            has_scripts: false,
        });
    }
    let snapshot = snapshot.into_valid().map_err(|error| ResolveError::Lock { reason: error.to_string() })?;
    Ok(NpmResolutionSnapshot::new(snapshot))
}
