//! The peers: a process of `@openfn/core` on Node for each message, and one of `@openfn/runtime` for many.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::npm;
use crate::project::Bench;
use crate::times::Times;

/// Processes, one after the other.
const ROUNDS: usize = 15;

/// How many processes of `@openfn/core` end in a second, and how long each takes by itself. None without Node.
pub fn processes(bench: &Bench) -> Option<(f64, Times)> {
    let dir = npm::peers(&bench.home)?;
    let work = bench.dir.path();
    std::fs::write(work.join("job.js"), "fn(state => ({ ...state, data: { ok: true } }));\n").ok()?;
    std::fs::write(work.join("state.json"), "{}\n").ok()?;
    let start = |number: usize| {
        let mut core = Command::new("node");
        core.args(["node_modules/@openfn/core/bin/core", "execute", "-l", "@openfn/language-common", "-e"]);
        core.arg(work.join("job.js")).arg("-s").arg(work.join("state.json"));
        core.arg("-o").arg(work.join(format!("output-{number}.json")));
        core.current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        core.spawn().expect("node starts")
    };
    let end = |mut child: Child| assert!(child.wait().expect("it can be waited for").success(), "the peer failed");
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        let one = Instant::now();
        end(start(0));
        // The first round warms the disk's cache.
        if round > 0 {
            times.push(one.elapsed());
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let started = Instant::now();
    for _ in 0..ROUNDS {
        (0..cores).map(start).collect::<Vec<_>>().into_iter().for_each(end);
    }
    Some(((ROUNDS * cores) as f64 / started.elapsed().as_secs_f64(), Times::new(times)))
}

/// What `@openfn/runtime` does in one process.
#[derive(serde::Deserialize)]
pub struct OneProcess {
    /// Runs a second.
    pub rate: f64,
    /// CPU time of a run in microseconds.
    pub cpu: f64,
}

/// Runs a compiled job again and again for so many seconds. None without Node.
pub fn one_process(bench: &Bench, seconds: u32) -> Option<OneProcess> {
    let peers = npm::peers(&bench.home)?;
    let code = "import { fn } from '@openfn/language-common';\n\
                export default [fn(state => ({ ...state, data: { ok: true } }))];\n";
    let mut node = npm::openfn_runtime(&peers, &bench.write("many.mjs", code), "@openfn/language-common");
    let output = node.arg(seconds.to_string()).stderr(Stdio::inherit()).output().expect("node starts");
    assert!(output.status.success(), "the peer failed");
    Some(serde_json::from_slice(&output.stdout).expect("the peer tells what it did"))
}
