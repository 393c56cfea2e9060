//! What all benches need: their arguments, and the machine that the figures depend on.

use std::process::Command;

/// What follows `name` on the command line.
pub fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// What the figures depend on: also who else was at work.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let node = Command::new("node").arg("--version").output().ok();
    let node =
        node.map_or("no Node".into(), |output| format!("Node {}", String::from_utf8_lossy(&output.stdout).trim()));
    format!(
        "{}, {cores} cores; load average of the minute before: {}; fnhost {}; {node}",
        model.trim_start_matches([' ', '\t', ':']),
        load.split(' ').next().unwrap_or("unknown"),
        env!("CARGO_PKG_VERSION")
    )
}
