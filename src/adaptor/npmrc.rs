//! Where packages come from and with which key: `.npmrc` files and npm's environment variables.
//!
//! People behind a company registry have already told npm about it; fnhost reads the same files in the same order
//! (flag, environment, project, user), so nothing has to be said twice. What is read here includes secrets. They leave
//! this module only as HTTP headers, and [`NpmConfig::redact`] is the last net under every message about a download.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deno_npmrc::{NPM_DEFAULT_REGISTRY, NpmRc, NpmRegistryUrl, ResolvedNpmRc};
use sys_traits::impls::RealSys;
use url::Url;

/// npm's configuration, as far as installing needs it.
#[derive(Debug)]
pub struct NpmConfig {
    /// Registries by scope, and how to authenticate to each.
    pub registries: Arc<ResolvedNpmRc>,
    /// PEM files with certificates to trust besides the system's: `cafile`, and what was asked for.
    pub ca_files: Vec<PathBuf>,
    /// A proxy for all requests (`https-proxy` or `proxy`); the usual environment variables work without it.
    pub proxy: Option<Url>,
    secrets: Vec<String>,
}

/// Why npm's configuration cannot be used. Never quotes the file: it holds secrets.
#[derive(Debug, thiserror::Error)]
pub enum NpmrcError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a valid .npmrc file")]
    Syntax { path: PathBuf },
    #[error("{what} is not a URL with http or https")]
    Url { what: String },
}

impl NpmConfig {
    /// Reads the `.npmrc` of each directory in `projects` (the first wins), the user's, and the environment.
    /// `registry` is the one asked for on the command line; it replaces the default registry, never a scope's.
    pub fn load(projects: &[&Path], registry: Option<&Url>) -> Result<Self, NpmrcError> {
        let mut files: Vec<PathBuf> = projects.iter().map(|dir| dir.join(".npmrc")).collect();
        let user = npm_env("userconfig").map(PathBuf::from);
        files.extend(user.or_else(|| std::env::home_dir().map(|home| home.join(".npmrc"))));
        files.extend(npm_env("globalconfig").map(PathBuf::from));
        files.dedup();

        let mut merged = NpmRc::default();
        let mut ca_file = npm_env("cafile").map(PathBuf::from);
        let mut proxy = npm_env("https_proxy").or_else(|| npm_env("proxy"));
        for path in files {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(NpmrcError::Read { path, source }),
            };
            let parsed = NpmRc::parse(&RealSys, &text).map_err(|_| NpmrcError::Syntax { path: path.clone() })?;
            add_missing(&mut merged, parsed);
            if ca_file.is_none() {
                let base = path.parent().unwrap_or(Path::new("."));
                ca_file = plain_value(&text, "cafile").map(|file| base.join(file));
            }
            if proxy.is_none() {
                proxy = plain_value(&text, "https-proxy").or_else(|| plain_value(&text, "proxy"));
            }
        }

        let default = default_registry(registry)?;
        let registries = merged
            .as_resolved(&default)
            .map_err(|_| NpmrcError::Url { what: "a `registry` setting in .npmrc".into() })?;
        let proxy = proxy.map(|text| http_url(&text, "the proxy in .npmrc")).transpose()?;
        let secrets = secrets(&registries, proxy.as_ref());
        Ok(Self { registries: Arc::new(registries), ca_files: ca_file.into_iter().collect(), proxy, secrets })
    }

    /// The registry that serves `package`, without anything secret in it.
    pub fn registry_of(&self, package: &str) -> String {
        public_url(self.registries.get_registry_url(package))
    }

    /// `text` with every known token and password replaced.
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_string(), |text, secret| text.replace(secret, "***"))
    }
}

/// `url` without user, password, query and fragment: fit for a message.
pub(super) fn public_url(url: &Url) -> String {
    let mut url = url.clone();
    // These fail only for URLs that cannot have a user at all.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Adds to `merged` what it does not have yet, setting by setting: a project may name the registry while the user's
/// file holds the token for it.
fn add_missing(merged: &mut NpmRc, lower: NpmRc) {
    fn fill<K: std::hash::Hash + Eq, V>(into: &mut HashMap<K, V>, from: HashMap<K, V>) {
        for (key, value) in from {
            into.entry(key).or_insert(value);
        }
    }
    merged.registry = merged.registry.take().or(lower.registry);
    fill(&mut merged.scope_registries, lower.scope_registries);
    for (host, config) in lower.registry_configs {
        match merged.registry_configs.entry(host) {
            Entry::Vacant(slot) => {
                slot.insert(config);
            }
            Entry::Occupied(mut slot) => {
                // A login is one unit: a token from one file never mixes with a password from another.
                if !slot.get().has_auth() {
                    slot.insert(config);
                }
            }
        }
    }
    merged.replace_registry_host = merged.replace_registry_host.take().or(lower.replace_registry_host);
    merged.min_release_age_days = merged.min_release_age_days.or(lower.min_release_age_days);
}

fn default_registry(flag: Option<&Url>) -> Result<NpmRegistryUrl, NpmrcError> {
    let asked = match flag {
        Some(url) => Some(url.to_string()),
        None => npm_env("registry"),
    };
    let (text, from_env) = match asked {
        Some(text) => (text, true),
        None => (NPM_DEFAULT_REGISTRY.to_string(), false),
    };
    let mut url = http_url(&text, "the registry")?;
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(NpmRegistryUrl { url, from_env })
}

fn http_url(text: &str, what: &str) -> Result<Url, NpmrcError> {
    Url::parse(text.trim())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| NpmrcError::Url { what: what.into() })
}

/// npm takes each of its settings from the environment too, in either case.
fn npm_env(setting: &str) -> Option<String> {
    [format!("npm_config_{setting}"), format!("NPM_CONFIG_{}", setting.to_uppercase())]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|value| !value.is_empty())
}

/// A top-level setting that the npmrc library does not know, with `${VARIABLES}` replaced.
fn plain_value(text: &str, key: &str) -> Option<String> {
    let (_, value) = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with([';', '#']))
        .filter_map(|line| line.split_once('='))
        .rfind(|(name, _)| name.trim() == key)?;
    let mut value = value.trim().trim_matches(['"', '\'']).to_string();
    while let Some((before, rest)) = value.split_once("${") {
        let (name, after) = rest.split_once('}')?;
        value = format!("{before}{}{after}", std::env::var(name).ok()?);
    }
    (!value.is_empty()).then_some(value)
}

fn secrets(registries: &ResolvedNpmRc, proxy: Option<&Url>) -> Vec<String> {
    let configs = registries.registry_configs.values();
    let from_configs =
        configs.flat_map(|config| [&config.auth_token, &config.auth, &config.password]).flatten().cloned();
    let urls = registries.get_all_known_registries_urls();
    let from_urls = urls.iter().chain(proxy).filter_map(|url| url.password()).map(str::to_string);
    // A shorter "secret" would only garble messages.
    from_configs.chain(from_urls).filter(|secret| secret.len() >= 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_may_name_the_registry_and_the_user_hold_the_token() {
        let parse = |text: &str| NpmRc::parse(&RealSys, text).unwrap();
        let mut merged = parse("@acme:registry=https://npm.acme.test/\n//npm.acme.test/:email=me@acme.test");
        add_missing(&mut merged, parse("registry=https://mirror.test/\n//npm.acme.test/:_authToken=s3cret"));
        assert_eq!(merged.registry.as_deref(), Some("https://mirror.test/"));
        assert_eq!(merged.scope_registries["acme"], "https://npm.acme.test/");
        assert_eq!(merged.registry_configs["npm.acme.test/"].auth_token.as_deref(), Some("s3cret"));
    }

    #[test]
    fn a_login_of_a_higher_file_is_taken_whole() {
        let parse = |text: &str| NpmRc::parse(&RealSys, text).unwrap();
        let mut merged = parse("//a.test/:_authToken=mine");
        add_missing(&mut merged, parse("//a.test/:username=other\n//a.test/:_password=b3RoZXI="));
        let config = &merged.registry_configs["a.test/"];
        assert_eq!((config.auth_token.as_deref(), config.username.as_deref()), (Some("mine"), None));
    }

    #[test]
    fn plain_settings_are_found_between_comments() {
        let text = "; cafile=/no\n# cafile=/no\n cafile = \"/etc/ca.pem\" \n//host/:cafile=/no";
        assert_eq!(plain_value(text, "cafile").as_deref(), Some("/etc/ca.pem"));
        assert_eq!(plain_value(text, "proxy"), None);
    }

    #[test]
    fn a_url_in_a_message_holds_no_password() {
        let url = Url::parse("https://me:hunter2@npm.test/pkg?token=1#x").unwrap();
        assert_eq!(public_url(&url), "https://npm.test/pkg");
    }
}
