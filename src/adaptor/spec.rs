//! What a person types to name an adaptor, and what it means.
//!
//! The same words appear on the command line (`http@7`), in a project file (`@openfn/language-http@latest`) and in the
//! lockfile, so they are read in one place. Reading needs no network: a word that is neither scoped nor in the
//! [`catalogue`] keeps both of its possible names, and whoever holds a registry or a store decides.
//!
//! Names end up as paths on disk, so a name that could climb out of a directory never becomes an [`AdaptorSpec`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use deno_semver::VersionReq;

use super::catalogue;

/// One adaptor as someone asked for it: a package with a version, or a directory of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptorSpec {
    name: Name,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// A full package name.
    Exact(String),
    /// A word that may be short for an adaptor, or a package of its own.
    Word(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Registry(VersionReq),
    Local(PathBuf),
}

/// Why a text names no adaptor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    #[error("an adaptor name is empty; write for example `http` or `@openfn/language-http@7.2.10`")]
    Empty,
    #[error("`{typed}` is not an adaptor: {why}; write for example `http`, `http@7` or `@openfn/language-http@latest`")]
    Name { typed: String, why: &'static str },
    #[error("`{typed}` has no usable version after the `@`; write for example `@7.2.10`, `@^7` or `@latest`")]
    Version { typed: String },
    #[error("`{typed}` has no path after the `=`; write for example `http=./adaptors/http`")]
    LocalPath { typed: String },
}

impl AdaptorSpec {
    /// Reads what a person typed: `http`, `http@7.2.10`, `@openfn/language-http@latest`, `lodash@4`, `npm:lodash` (the
    /// plain package, never an adaptor of that name) or `http=/path/to/adaptor`.
    pub fn parse(typed: &str) -> Result<Self, SpecError> {
        let typed = typed.trim();
        if typed.is_empty() {
            return Err(SpecError::Empty);
        }
        let plain = typed.strip_prefix("npm:");
        let text = plain.unwrap_or(typed);
        // A scope begins with `@`, so the version's `@` is searched behind the first character.
        let at = text.char_indices().skip(1).find(|(_, c)| *c == '@').map(|(at, _)| at);
        let equals = text.find('=').filter(|equals| at.is_none_or(|at| *equals < at));
        if let (Some(equals), None) = (equals, plain) {
            let path = text[equals + 1..].trim();
            if path.is_empty() {
                return Err(SpecError::LocalPath { typed: typed.into() });
            }
            return Ok(Self { name: Name::read(&text[..equals], typed)?, source: Source::Local(expand_home(path)) });
        }
        let (name, version) = match at {
            Some(at) => (&text[..at], Some(text[at + 1..].trim())),
            None => (text, None),
        };
        let requirement = match version {
            None => latest(),
            Some("") => {
                return Err(SpecError::Version { typed: typed.into() });
            }
            Some(text) => VersionReq::parse_from_npm(text).map_err(|_| SpecError::Version { typed: typed.into() })?,
        };
        let name = match (Name::read(name, typed)?, plain) {
            (_, Some(_)) => Name::Exact(name.trim().into()),
            (name, None) => name,
        };
        Ok(Self { name, source: Source::Registry(requirement) })
    }

    /// The package names this may mean, most likely first.
    pub fn names(&self) -> Vec<String> {
        match &self.name {
            Name::Exact(name) => vec![name.clone()],
            Name::Word(word) => vec![format!("{}{word}", catalogue::PREFIX), word.clone()],
        }
    }

    /// The version asked for; `None` for a local directory. Without a version it is the tag `latest`.
    pub fn version(&self) -> Option<&VersionReq> {
        match &self.source {
            Source::Registry(requirement) => Some(requirement),
            Source::Local(_) => None,
        }
    }

    /// The directory of a local adaptor (`http=/path`), as typed.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.source {
            Source::Registry(_) => None,
            Source::Local(path) => Some(path),
        }
    }

    /// Whether any version will do, so that the store's default version is meant.
    pub fn is_unversioned(&self) -> bool {
        self.version().is_some_and(|version| version.tag() == Some("latest"))
    }
}

impl Name {
    fn read(text: &str, typed: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        check_package_name(text).map_err(|why| SpecError::Name { typed: typed.into(), why })?;
        if text.starts_with('@') {
            return Ok(Self::Exact(text.into()));
        }
        let short = text.strip_prefix("language-").unwrap_or(text);
        if catalogue::is_adaptor(short) {
            return Ok(Self::Exact(format!("{}{short}", catalogue::PREFIX)));
        }
        Ok(Self::Word(text.into()))
    }
}

impl FromStr for AdaptorSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse(text)
    }
}

/// The canonical spelling, which is also the key in the lockfile: `@openfn/language-http@^7`.
impl fmt::Display for AdaptorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.name {
            Name::Exact(name) | Name::Word(name) => name,
        };
        // An exact unscoped name comes from `npm:`; without the prefix it would read back as a word.
        let prefix = if matches!(&self.name, Name::Exact(name) if !name.starts_with('@')) { "npm:" } else { "" };
        match &self.source {
            Source::Registry(version) => write!(f, "{prefix}{name}@{}", version.version_text()),
            Source::Local(path) => write!(f, "{prefix}{name}={}", path.display()),
        }
    }
}

/// Checks that `name` is a package name and that it is safe as a relative path of one component, or two when scoped.
/// Stricter rules of npm (length, lower case) are left to the registry: old packages break them.
pub(super) fn check_package_name(name: &str) -> Result<(), &'static str> {
    let (scope, base) = match name.strip_prefix('@') {
        Some(rest) => match rest.split_once('/') {
            Some((scope, base)) => (Some(scope), base),
            None => return Err("a scoped name has the form `@scope/name`"),
        },
        None => (None, name),
    };
    for part in scope.into_iter().chain([base]) {
        if part.is_empty() {
            return Err("the name is empty");
        }
        if part.starts_with('.') {
            return Err("a name does not start with a dot");
        }
        if part.contains(['/', '\\', ':', '%', '#', '?', '=', '@', '+']) {
            return Err("the name holds a character that no package name has");
        }
        if part.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("the name holds white space");
        }
        if part == "node_modules" {
            return Err("`node_modules` is a directory, not a package");
        }
    }
    Ok(())
}

fn latest() -> VersionReq {
    VersionReq::parse_from_npm("latest").expect("`latest` is a valid dist-tag")
}

fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> AdaptorSpec {
        AdaptorSpec::parse(text).unwrap()
    }

    #[test]
    fn every_spelling_of_an_adaptor_is_the_same_adaptor() {
        for text in ["http", "language-http", "@openfn/language-http", "http@latest", " @openfn/language-http@latest "]
        {
            assert_eq!(spec(text).to_string(), "@openfn/language-http@latest", "{text}");
            assert!(spec(text).is_unversioned(), "{text}");
        }
        assert_eq!(spec("http@^7").to_string(), "@openfn/language-http@^7");
        assert!(!spec("http@^7").is_unversioned());
    }

    #[test]
    fn an_unknown_word_may_be_an_adaptor_or_a_package() {
        assert_eq!(spec("lodash@4").names(), ["@openfn/language-lodash", "lodash"]);
        assert_eq!(spec("npm:lodash@4").names(), ["lodash"]);
        assert_eq!(spec("npm:http").names(), ["http"]);
    }

    #[test]
    fn the_canonical_spelling_reads_back_as_itself() {
        for text in ["http", "lodash@>=4", "npm:lodash@4", "npm:http@1", "@a/b@>=1 <3", "http=/opt/http@1"] {
            assert_eq!(spec(&spec(text).to_string()), spec(text), "{text}");
        }
    }

    #[test]
    fn a_directory_stands_in_for_a_package() {
        let spec = spec("http=../my-http");
        assert_eq!(spec.names(), ["@openfn/language-http"]);
        assert_eq!(spec.local_path(), Some(Path::new("../my-http")));
        assert_eq!(spec.version(), None);
    }

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for text in ["", "../x", "@openfn/../x", "@openfn", "a/b", ".hidden", "a b", "a\\b", "http@", "http=", "@/x"] {
            assert!(AdaptorSpec::parse(text).is_err(), "{text}");
        }
    }
}
