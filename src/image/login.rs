//! Who pushes: the user name and password for a registry, as Docker's tools keep them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// What proves to a registry who is there.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Anonymous,
    Password {
        user: String,
        password: String,
    },
    /// One that the registry takes as it is.
    Token(String),
}

/// A login that cannot be found out. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("cannot read {path}: {reason}")]
    Config { path: PathBuf, reason: String },
    #[error("docker-credential-{helper}, which {path} names, does not give the login for {registry}: {reason}")]
    Helper { helper: String, path: PathBuf, registry: String, reason: String },
}

/// The name under which Docker keeps the login for its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The login that Docker's configuration has for `registry`: `$DOCKER_CONFIG/config.json`, by default in `~/.docker`.
pub fn find(registry: &str) -> Result<Login, LoginError> {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let Some(dir) = dir.or_else(|| Some(std::env::home_dir()?.join(".docker"))) else { return Ok(Login::Anonymous) };
    let path = dir.join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Login::Anonymous),
        Err(error) => return Err(LoginError::Config { path, reason: error.to_string() }),
    };
    let invalid = |_| LoginError::Config { path: path.clone(), reason: "it is not JSON".into() };
    let config: Value = serde_json::from_slice(&text).map_err(invalid)?;
    let names = names(registry);
    let helper = names.iter().find_map(|name| config["credHelpers"][name].as_str()).or(config["credsStore"].as_str());
    if let Some(helper) = helper {
        for name in &names {
            let failed = |reason: String| LoginError::Helper {
                helper: helper.into(),
                path: path.clone(),
                registry: registry.into(),
                reason,
            };
            if let Some(login) = ask(helper, name).map_err(failed)? {
                return Ok(login);
            }
        }
    }
    let written = names.iter().find_map(|name| config["auths"].get(name)).and_then(from_entry);
    Ok(written.unwrap_or(Login::Anonymous))
}

/// The names that a login for a registry may be kept under.
fn names(registry: &str) -> Vec<String> {
    let mut names = vec![registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")];
    if registry == "index.docker.io" || registry == "docker.io" {
        names.push(DOCKER_HUB.into());
    }
    names
}

/// What `auths` holds: user and password in Base64, or apart, or a token of the registry.
fn from_entry(entry: &Value) -> Option<Login> {
    let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Some(Login::Token(token.into()));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Some(Login::Password { user: user.into(), password: password.into() });
    }
    let pair = String::from_utf8(BASE64.decode(text("auth")?).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(Login::Password { user: user.into(), password: password.trim_end_matches('\0').into() })
}

/// Asks a credential helper; None if it has nothing for this name.
fn ask(helper: &str, name: &str) -> Result<Option<Login>, String> {
    let mut command = Command::new(format!("docker-credential-{helper}"));
    let command = command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says by its exit status what it thinks of it.
        let _ = stdin.write_all(name.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Ok(None);
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|_| "its answer is not JSON".to_owned())?;
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let (user, password) = (text("Username"), text("Secret"));
    if user == "<token>" {
        return Err("it gives an identity token, and only user names and passwords can be used: give --user".to_owned());
    }
    Ok(Some(Login::Password { user, password }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn password(user: &str, password: &str) -> Option<Login> {
        Some(Login::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn logins_are_read_as_docker_writes_them() {
        let auth = |text: &str| json!({ "auth": BASE64.encode(text) });
        assert!(from_entry(&auth("jo:p:ss")) == password("jo", "p:ss"));
        assert!(from_entry(&json!({ "username": "jo", "password": "pass" })) == password("jo", "pass"));
        assert!(
            from_entry(&json!({ "registrytoken": "t", "auth": BASE64.encode("jo:") }))
                == Some(Login::Token("t".into()))
        );
        assert!(from_entry(&auth("no colon")).is_none());
        assert!(from_entry(&json!({})).is_none());
        assert_eq!(names("docker.io").last().map(String::as_str), Some(DOCKER_HUB));
    }
}
