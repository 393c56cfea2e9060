//! What a run may touch outside its isolate: nothing, but reading its adaptors and the network as far as allowed.

use std::path::PathBuf;
use std::sync::Arc;

use deno_runtime::deno_permissions::{
    Permissions, PermissionsContainer, PermissionsOptions, RuntimePermissionDescriptorParser,
};
use sys_traits::impls::RealSys;

/// Which hosts a run may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Any host.
    #[default]
    Open,
    /// These only, as `host`, `host:port`, an IP address or a CIDR range. An empty list allows none.
    Only(Vec<String>),
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
    let parser = Arc::new(RuntimePermissionDescriptorParser::new(RealSys));
    let permissions = Permissions::from_options(parser.as_ref(), &options).map_err(|error| error.to_string())?;
    Ok(PermissionsContainer::new(parser, permissions))
}
