//! Where installed adaptors are, and finding one without asking anybody.
//!
//! A store is a directory with a `node_modules` and a `fnhost.lock`. A project has its own, so that it can be
//! committed, copied and frozen; jobs outside any project share the user's.

use std::path::{Path, PathBuf};

use deno_semver::Version;

use super::lockfile::{Lockfile, LockfileError, package_name_and_version};
use super::spec::AdaptorSpec;

/// Files that make a directory a project.
const PROJECT_MARKS: [&str; 4] = ["project.yaml", "project.json", "fnhost.lock", "openfn.yaml"];

/// A directory of installed adaptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
}

/// A package that is there to be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The package's own name, such as `@openfn/language-http`.
    pub name: String,
    pub version: String,
    /// The package's real directory, behind all links.
    pub dir: PathBuf,
    /// What a job in this store writes after `from`: the bare name for the default version, else `<name>_<version>`.
    /// A local adaptor (`http=/path`) is in no store: its specifier must be mapped to `dir`.
    pub specifier: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Lockfile(#[from] LockfileError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a package: {reason}")]
    NotAPackage { path: PathBuf, reason: String },
}

impl Store {
    /// The store for a job in `job_dir`: the one asked for, else that of the project around the job, else the user's
    /// (`$XDG_DATA_HOME/fnhost`, by default `~/.local/share/fnhost`).
    pub fn for_job(job_dir: &Path, explicit: Option<PathBuf>) -> Self {
        if let Some(root) = explicit {
            return Self::at(&root);
        }
        // The parent of a bare file name is the empty path.
        let job_dir = if job_dir.as_os_str().is_empty() { Path::new(".") } else { job_dir };
        // `..` and links would lead the search for the project astray.
        let job_dir =
            job_dir.canonicalize().or_else(|_| std::path::absolute(job_dir)).unwrap_or_else(|_| job_dir.into());
        let is_project = |dir: &&Path| PROJECT_MARKS.iter().any(|mark| dir.join(mark).exists());
        match job_dir.ancestors().find(is_project) {
            Some(project) => Self { root: project.into() },
            None => Self { root: users_root().unwrap_or(job_dir) },
        }
    }

    /// The store in this directory.
    pub fn at(root: &Path) -> Self {
        Self { root: std::path::absolute(root).unwrap_or_else(|_| root.into()) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn node_modules(&self) -> PathBuf {
        self.root.join("node_modules")
    }

    pub fn lock_path(&self) -> PathBuf {
        self.root.join("fnhost.lock")
    }

    /// The installed package that satisfies `spec`, newest first. Without a version it is the store's default version;
    /// a tag other than `latest` is what the lock says it was. Never uses the network.
    pub fn find(&self, spec: &AdaptorSpec) -> Result<Option<Installed>, StoreError> {
        if let Some(path) = spec.local_path() {
            return local(spec, path).map(Some);
        }
        let Some(wanted) = spec.version() else {
            return Ok(None);
        };
        for name in spec.names() {
            let found = match wanted.tag() {
                None => self.newest(&name, |version| wanted.matches(version))?,
                Some("latest") => match self.read(&name, &name)? {
                    Some(default) => Some(default),
                    None => self.newest(&name, |_| true)?,
                },
                Some(_) => {
                    let lock = Lockfile::load(&self.lock_path())?;
                    let id = lock.as_ref().and_then(|lock| lock.requests.get(&spec.to_string()));
                    match id.and_then(|id| package_name_and_version(id)).filter(|nv| nv.name.as_str() == name) {
                        Some(nv) => self.newest(&name, |version| *version == nv.version)?,
                        None => None,
                    }
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The newest installed version of `name` that `fits`.
    fn newest(&self, name: &str, fits: impl Fn(&Version) -> bool) -> Result<Option<Installed>, StoreError> {
        let default = self.read(name, name)?;
        let default_version = default.as_ref().and_then(|package| Version::parse_from_npm(&package.version).ok());
        let directory = self.node_modules().join(name);
        let (Some(beside), Some(base)) = (directory.parent(), directory.file_name().and_then(|base| base.to_str()))
        else {
            return Ok(None);
        };
        let entries = match beside.read_dir() {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StoreError::Read { path: beside.into(), source });
            }
        };
        let aliased = entries.flatten().filter_map(|entry| {
            let entry = entry.file_name().into_string().ok()?;
            Version::parse_from_npm(entry.strip_prefix(base)?.strip_prefix('_')?).ok()
        });
        let best = aliased.chain(default_version.clone()).filter(|version| fits(version)).max();
        match best {
            Some(version) if Some(&version) == default_version.as_ref() => Ok(default),
            Some(version) => self.read(name, &format!("{name}_{version}")),
            None => Ok(None),
        }
    }

    fn read(&self, name: &str, specifier: &str) -> Result<Option<Installed>, StoreError> {
        let dir = self.node_modules().join(specifier);
        if !dir.join("package.json").exists() {
            return Ok(None);
        }
        let (_, version, dir) = manifest(&dir)?;
        Ok(Some(Installed { name: name.into(), version, dir, specifier: specifier.into() }))
    }
}

fn local(spec: &AdaptorSpec, path: &Path) -> Result<Installed, StoreError> {
    let (own_name, version, dir) = manifest(path)?;
    let name = own_name.or_else(|| spec.names().into_iter().next()).unwrap_or_default();
    Ok(Installed { specifier: name.clone(), name, version, dir })
}

/// The name, the version and the real directory of the package at `path`.
fn manifest(path: &Path) -> Result<(Option<String>, String, PathBuf), StoreError> {
    let not_a_package = |reason: String| StoreError::NotAPackage { path: path.into(), reason };
    let text = std::fs::read(path.join("package.json"))
        .map_err(|error| not_a_package(format!("its package.json cannot be read ({error})")))?;
    let manifest: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| not_a_package(format!("its package.json is not JSON ({error})")))?;
    let dir = path.canonicalize().map_err(|source| StoreError::Read { path: path.into(), source })?;
    let text_of = |key: &str| manifest[key].as_str().map(str::to_string);
    Ok((text_of("name"), text_of("version").unwrap_or_else(|| "0.0.0".into()), dir))
}

fn users_root() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(data.or_else(|| Some(std::env::home_dir()?.join(".local/share")))?.join("fnhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(at: &Path, name: &str, version: &str) {
        std::fs::create_dir_all(at).unwrap();
        std::fs::write(at.join("package.json"), format!(r#"{{"name":"{name}","version":"{version}"}}"#)).unwrap();
    }

    fn find(store: &Store, spec: &str) -> Option<(String, String)> {
        let found = store.find(&AdaptorSpec::parse(spec).unwrap()).unwrap();
        found.map(|package| (package.specifier, package.version))
    }

    fn pair(a: &str, b: &str) -> Option<(String, String)> {
        Some((a.into(), b.into()))
    }

    #[test]
    fn a_job_finds_the_newest_installed_version_that_fits() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::at(directory.path());
        assert_eq!(find(&store, "http"), None);

        let modules = store.node_modules();
        package(&modules.join("@openfn/language-http"), "@openfn/language-http", "7.2.0");
        package(&modules.join("@openfn/language-http_7.2.0"), "@openfn/language-http", "7.2.0");
        package(&modules.join("@openfn/language-http_7.10.0"), "@openfn/language-http", "7.10.0");
        package(&modules.join("@openfn/language-http_8.0.0"), "@openfn/language-http", "8.0.0");
        package(&modules.join("lodash"), "lodash", "4.17.21");

        assert_eq!(
            find(&store, "http"),
            pair("@openfn/language-http", "7.2.0"),
            "the default, though others are newer"
        );
        assert_eq!(find(&store, "http@7"), pair("@openfn/language-http_7.10.0", "7.10.0"));
        assert_eq!(find(&store, "http@7.2.0"), pair("@openfn/language-http", "7.2.0"));
        assert_eq!(find(&store, "http@>=8"), pair("@openfn/language-http_8.0.0", "8.0.0"));
        assert_eq!(find(&store, "http@9"), None);
        assert_eq!(find(&store, "http@next"), None);
        assert_eq!(find(&store, "lodash@4"), pair("lodash", "4.17.21"), "a word that is no adaptor is a package");
    }

    #[test]
    fn a_local_adaptor_is_where_it_says() {
        let directory = tempfile::tempdir().unwrap();
        package(directory.path(), "my-http", "0.1.0");
        let spec = AdaptorSpec::parse(&format!("http={}", directory.path().display())).unwrap();
        let found = Store::at(Path::new("/nowhere")).find(&spec).unwrap().unwrap();
        assert_eq!((found.name.as_str(), found.dir), ("my-http", directory.path().canonicalize().unwrap()));
        let missing = AdaptorSpec::parse("http=/does/not/exist").unwrap();
        assert!(matches!(Store::at(Path::new("/")).find(&missing), Err(StoreError::NotAPackage { .. })));
    }

    #[test]
    fn the_project_around_a_job_holds_its_store() {
        let directory = tempfile::tempdir().unwrap();
        let jobs = directory.path().join("jobs/deep");
        std::fs::create_dir_all(&jobs).unwrap();
        std::fs::write(directory.path().join("project.yaml"), "").unwrap();
        let project = directory.path().canonicalize().unwrap();
        assert_eq!(Store::for_job(&jobs, None).root(), project);
        assert_eq!(Store::for_job(&jobs.join(".."), None).root(), project);
        assert_eq!(Store::for_job(&jobs, Some("/srv/store".into())).root(), Path::new("/srv/store"));
    }
}
