//! What a run may touch outside its isolate: nothing, but reading its adaptors and the network as far as allowed.

use std::path::PathBuf;
use std::sync::Arc;

use deno_runtime::deno_permissions::{Permissions, PermissionsContainer, PermissionsOptions};

use super::real_paths::RealPaths;

/// Which hosts a run may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Any host.
    #[default]
    Open,
    /// These only, as `host`, `host:port`, an IP address or a CIDR range. An empty list allows none.
    Only(Vec<String>),
}

/// No network.
pub const NOTHING: &Network = &Network::Only(Vec::new());

impl Network {
    /// Why a host in the list cannot be understood, if one cannot.
    pub fn check(&self) -> Result<(), String> {
        container(&[], self).map(drop)
    }
}

/// Facts about the machine that drivers ask for while they load (mongodb, mysql2 and others send them in their
/// greetings). They tell nothing of the environment, the users or the files; [`super::machine`] makes up what would.
const HARMLESS_SYSTEM_FACTS: &[&str] = &["osRelease", "osUptime", "cpus", "systemMemoryInfo", "uid", "gid", "getegid"];

/// Permissions of one run. `readable` are the directories with installed adaptors.
pub fn container(readable: &[PathBuf], network: &Network) -> Result<PermissionsContainer, String> {
    let options = PermissionsOptions {
        // An empty list means "any" here, and None means "none".
        allow_net: match network {
            Network::Open => Some(Vec::new()),
            Network::Only(hosts) if hosts.is_empty() => None,
            Network::Only(hosts) => Some(hosts.clone()),
        },
        allow_read: Some(readable.iter().map(|dir| dir.to_string_lossy().into_owned()).collect()),
        allow_sys: Some(HARMLESS_SYSTEM_FACTS.iter().map(|fact| (*fact).to_owned()).collect()),
        // Variables read as unset instead of failing: many packages probe the environment while they load.
        ignore_env: Some(Vec::new()),
        prompt: false,
        ..Default::default()
    };
    let parser = Arc::new(RealPaths::default());
    let permissions = Permissions::from_options(parser.as_ref(), &options).map_err(|error| error.to_string())?;
    Ok(PermissionsContainer::new(parser, permissions))
}

/// `message` with each refusal by these permissions in this program's words. The runtime's own name flags that only
/// the `deno` program has, and Node's layer calls a refused look-up `getaddrinfo EPERM`.
pub fn reword(message: &str, network: &Network) -> String {
    let message = replace_each(message, "getaddrinfo EPERM ", |rest| {
        let end = rest.find(|c: char| c.is_whitespace() || "),;'\"".contains(c)).unwrap_or(rest.len());
        Some((unreachable(&rest[..end], network), &rest[end..]))
    });
    replace_each(&message, "Requires ", |rest| {
        let (access, rest) = rest.split_once(", run again with the --allow-")?;
        let (_, rest) = rest.split_once(" flag")?;
        let refusal = if let Some(host) = access.strip_prefix("net access to ") {
            unreachable(host.trim_matches('"'), network)
        } else if let Some(path) = access.strip_prefix("read access to ") {
            format!("not allowed to read {path}: a run reads its adaptors' own files only")
        } else {
            format!("Requires {access}, which a run does not get")
        };
        Some((refusal, rest))
    })
}

/// Replaces each `start` in `text` and what `replace` takes after it, if `replace` knows what to say instead.
fn replace_each<'a>(text: &'a str, start: &str, replace: impl Fn(&'a str) -> Option<(String, &'a str)>) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(start) {
        done.push_str(before);
        rest = after;
        match replace(after) {
            Some((replacement, after)) => {
                done.push_str(&replacement);
                rest = after;
            }
            None => done.push_str(start),
        }
    }
    done + rest
}

fn unreachable(host: &str, network: &Network) -> String {
    match network {
        Network::Open => format!("not allowed to connect to {host}"),
        Network::Only(hosts) if hosts.is_empty() => {
            format!("not allowed to connect to {host}: this run has no network")
        }
        Network::Only(hosts) => {
            format!("not allowed to connect to {host}: this run may connect to {} only", hosts.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_in_this_programs_words() {
        let only = Network::Only(vec!["a.org".into(), "b.org:443".into()]);
        let none = Network::Only(Vec::new());
        for (network, message, expected) in [
            (
                &only,
                "getaddrinfo EPERM c.org",
                "not allowed to connect to c.org: this run may connect to a.org, b.org:443 only",
            ),
            (
                &none,
                "request to http://c.org/ failed, reason: getaddrinfo EPERM c.org (twice)",
                "request to http://c.org/ failed, reason: not allowed to connect to c.org: this run has no network (twice)",
            ),
            (
                &none,
                "Requires net access to \"127.0.0.1:80\", run again with the --allow-net flag",
                "not allowed to connect to 127.0.0.1:80: this run has no network",
            ),
            (
                &only,
                "Requires read access to \"/etc/passwd\", run again with the --allow-read flag; and so on",
                "not allowed to read \"/etc/passwd\": a run reads its adaptors' own files only; and so on",
            ),
            (
                &only,
                "Requires write access to \"/tmp/a\", run again with the --allow-write flag",
                "Requires write access to \"/tmp/a\", which a run does not get",
            ),
            (
                &none,
                "Requires a name; getaddrinfo EPERM a.org; getaddrinfo EPERM b.org",
                "Requires a name; not allowed to connect to a.org: this run has no network; \
                 not allowed to connect to b.org: this run has no network",
            ),
        ] {
            assert_eq!(reword(message, network), expected);
        }
    }
}
