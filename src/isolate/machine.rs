//! What a run learns of the machine it runs on: a made-up one.
//!
//! Node's `os` functions and the properties of `process` never refuse, so packages use them unguarded, some while they
//! load: an identifier generator in `superagent` mixes in the host name, `mongodb` looks for a package in the working
//! directory. Refusing would break them, and answering would tell a job where it runs.

#![allow(unsafe_code)] // the op macro writes unsafe glue

use deno_core::{OpState, op2};
use serde::Serialize;

const ROOT: &str = "/";

#[derive(Serialize)]
struct User {
    username: &'static str,
    homedir: &'static str,
    shell: Option<&'static str>,
}

/// What a package takes for the working directory.
pub struct WorkingDirectory(pub String);

/// The one directory that a run may read for certain.
#[op2]
#[string]
pub fn op_fnhost_cwd(state: &mut OpState) -> String {
    // The runtime's own bootstrap comes first.
    state.try_borrow::<WorkingDirectory>().map_or_else(|| ROOT.to_owned(), |directory| directory.0.clone())
}

/// Variables that the Node layer reads behind the back of the permissions. One of them, `NODE_TLS_REJECT_UNAUTHORIZED`,
/// would switch off the verification of certificates; another makes `https` read a file that it may not.
#[op2]
#[string]
pub fn op_fnhost_environment(#[string] _name: &str) -> Option<String> {
    None
}

#[op2]
#[string]
pub fn op_fnhost_hostname() -> &'static str {
    "localhost"
}

#[op2]
#[string]
pub fn op_fnhost_homedir() -> &'static str {
    ROOT
}

#[op2]
#[serde]
pub fn op_fnhost_user_info(#[smi] _uid: u32) -> User {
    User { username: "fnhost", homedir: ROOT, shell: None }
}

/// None.
#[op2]
#[serde]
pub fn op_fnhost_network_interfaces() -> Vec<String> {
    Vec::new()
}

/// `process.execPath` and the first of `process.argv`: there is nothing to start there.
#[op2]
#[string]
pub fn op_fnhost_exec_path() -> &'static str {
    "/fnhost"
}

/// What the only process of a container has.
#[op2(fast)]
#[smi]
pub fn op_fnhost_pid() -> u32 {
    1
}

/// None.
#[op2(fast)]
#[number]
pub fn op_fnhost_ppid() -> i64 {
    0
}

#[op2]
pub fn op_fnhost_loadavg() -> (f64, f64, f64) {
    (0.0, 0.0, 0.0)
}
