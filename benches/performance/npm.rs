//! The peers on Node, from npm.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PEERS: &[&str] = &[
    "@openfn/core@1.5.1",
    "@openfn/runtime@1.9.5",
    "@openfn/language-common@3.3.4",
    "@openfn/language-http@7.2.10",
    "deno@2.9.6",
];

/// The directory in which all of them are installed, or None without npm. They are kept for the next time.
pub fn peers(home: &Path) -> Option<PathBuf> {
    let dir = home.join("peers");
    let manifest = dir.join("package.json");
    // npm keeps the description: another list of peers is installed anew.
    let text = serde_json::json!({ "private": true, "description": PEERS.join(" ") }).to_string();
    let installed = std::fs::read_to_string(&manifest).is_ok_and(|is| is.contains(&PEERS.join(" ")));
    if !installed {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).ok()?;
        std::fs::write(&manifest, text).ok()?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).args(PEERS);
        if !npm.current_dir(&dir).stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_file(&manifest);
            eprintln!("the peers cannot be installed with npm: their rows are left out");
            return None;
        }
    }
    Some(dir)
}

/// `@openfn/runtime` on a compiled job, as `openfn-runtime.mjs` says.
pub fn openfn_runtime(peers: &Path, job: &Path, adaptor: &str) -> Command {
    let script = peers.join("openfn-runtime.mjs");
    std::fs::write(&script, include_str!("openfn-runtime.mjs")).expect("the peers' directory can be written");
    let mut node = Command::new("node");
    node.args(["--experimental-vm-modules", "--no-warnings"]).arg(script).arg(job).arg(adaptor).current_dir(peers);
    node
}

/// Deno itself, which its package chooses among packages for each system. None where there is none.
pub fn deno(peers: &Path) -> Option<Command> {
    let packages = std::fs::read_dir(peers.join("node_modules/@deno")).ok()?;
    let program = packages.flatten().map(|package| package.path().join("deno")).find(|program| program.is_file())?;
    Some(Command::new(program))
}
