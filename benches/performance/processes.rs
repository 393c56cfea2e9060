//! From the start of a process to a finished job, beside the processes that a user would start otherwise.
//!
//! The contenders take turns in every round, so that a noisy moment hits all of them.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::goals::{Bound, Goals};
use crate::jobs::compiled;
use crate::npm;
use crate::project::{Bench, FNHOST};
use crate::remote::Remote;
use crate::samples::{median, ms, spread};

const ROUNDS: usize = 15;

const RUN: &str = "fnhost run, language-common";
const NODE: &str = "node -e 0";
const DENO: &str = "deno run, an empty file";
const CLI: &str = "@openfn/core CLI, language-common";

struct Contender {
    name: &'static str,
    command: Command,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    wall: Duration,
    cpu: Duration,
    peak_kb: u64,
}

pub fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let remote = Remote::start();
    let common = bench.write("common.js", "fn(state => ({ ...state, data: { ok: true } }));\n");
    let http = bench.write("http.js", &format!("get('{}');\n", remote.url()));
    let ours = |job: &Path, adaptor: &str| {
        let mut fnhost = Command::new(FNHOST);
        fnhost.arg("run").arg(job).args(["-a", adaptor, "--repo-dir"]).arg(&bench.store);
        fnhost.arg("-o").arg(bench.file("output.json"));
        fnhost
    };
    let mut version = Command::new(FNHOST);
    version.arg("--version");
    let mut contenders = vec![
        Contender::new(RUN, ours(&common, "common@3.3.4")),
        Contender::new("fnhost run, language-http GET", ours(&http, "http@7.2.10")),
        Contender::new("fnhost --version", version),
    ];
    if let Some(peers) = npm::peers(&bench.home) {
        contenders.extend(peer_contenders(bench, &peers, &common, &http));
    }
    for round in 0..=ROUNDS {
        eprintln!("processes: round {round} of {ROUNDS}");
        for contender in &mut contenders {
            let sample = run(&mut contender.command);
            // The first round warms the caches of disk, packs and V8.
            if round > 0 {
                contender.samples.push(sample);
            }
        }
    }
    set_goals(&contenders, goals);
    let mut table = String::from(
        "## From the start of a process to a finished job\n\nThe adaptor is installed, caches are warm; the contenders take \
         turns. Median (minimum to maximum).\n\n| | wall ms | CPU ms | peak memory MB |\n|---|---|---|---|\n",
    );
    for contender in &contenders {
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} |",
            contender.name,
            spread(contender.samples.iter().map(|sample| ms(sample.wall))),
            spread(contender.samples.iter().map(|sample| ms(sample.cpu))),
            spread(contender.samples.iter().map(|sample| sample.peak_kb as f64 / 1024.0)),
        );
    }
    table.push('\n');
    table
}

fn peer_contenders(bench: &Bench, peers: &Path, common: &Path, http: &Path) -> Vec<Contender> {
    let state = bench.write("state.json", "{}\n");
    let core = |job: &Path, adaptor: &str| {
        let mut core = Command::new("node");
        core.args(["node_modules/@openfn/core/bin/core", "execute", "-l", adaptor, "-e"]).arg(job);
        core.arg("-s").arg(&state).arg("-o").arg(bench.file("output.json"));
        // It looks for adaptors from its working directory.
        core.current_dir(peers);
        core
    };
    // The runtime takes compiled jobs: compiling is no part of its figure.
    let runtime = |job: &Path, adaptor: &str, export: &str| {
        let source = std::fs::read_to_string(job).expect("just written");
        let code = compiled(&source, adaptor, &[export.to_owned()]).code;
        npm::openfn_runtime(peers, &bench.write(&format!("{export}.mjs"), &code), adaptor)
    };
    let mut node = Command::new("node");
    node.args(["-e", "0"]);
    let mut contenders = vec![Contender::new(NODE, node)];
    if let Some(mut deno) = npm::deno(peers) {
        deno.arg("run").arg(bench.write("empty.js", ""));
        deno.env("DENO_DIR", bench.file("deno")).env("DENO_NO_UPDATE_CHECK", "1");
        contenders.push(Contender::new(DENO, deno));
    }
    contenders.extend([
        Contender::new(CLI, core(common, "@openfn/language-common")),
        Contender::new("@openfn/core CLI, language-http GET", core(http, "@openfn/language-http")),
        Contender::new("@openfn/runtime on Node, language-common", runtime(common, "@openfn/language-common", "fn")),
        Contender::new("@openfn/runtime on Node, language-http GET", runtime(http, "@openfn/language-http", "get")),
    ]);
    contenders
}

fn set_goals(contenders: &[Contender], goals: &mut Goals) {
    let wall = |name: &str| {
        let contender = contenders.iter().find(|contender| contender.name == name)?;
        Some(median(contender.samples.iter().map(|sample| ms(sample.wall))))
    };
    let Some(ours) = wall(RUN) else { return };
    for (name, share) in [(NODE, 0.3), (DENO, 1.0)] {
        if let Some(peer) = wall(name) {
            let goal = Bound::AtMost(share * peer);
            goals.add_beside(
                &format!("{RUN}, wall ms; {share} of the peer"),
                &format!("{name}: {peer:.1}"),
                goal,
                ours,
            );
        }
    }
}

impl Contender {
    fn new(name: &'static str, command: Command) -> Self {
        Self { name, command, samples: Vec::new() }
    }
}

// `wait4` reaps the child, which clippy cannot see.
#[allow(clippy::zombie_processes)]
fn run(command: &mut Command) -> Sample {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut stderr = String::new();
    let _ = child.stderr.take().expect("piped").read_to_string(&mut stderr);
    let (status, usage) = wait(child.id());
    let wall = start.elapsed();
    assert!(status == 0, "{command:?} failed ({status}):\n{stderr}");
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Sample { wall, cpu: time(usage.ru_utime) + time(usage.ru_stime), peak_kb: usage.ru_maxrss as u64 }
}

/// Reaps a child together with what it used, which the standard library does not tell.
#[allow(unsafe_code)]
fn wait(pid: u32) -> (i32, libc::rusage) {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value to be overwritten.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers outlive the call, and nobody else waits for this child.
    unsafe { libc::wait4(pid as i32, &mut status, 0, &mut usage) };
    (status, usage)
}
