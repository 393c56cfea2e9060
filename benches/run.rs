//! What a run costs, beside the peers a user would otherwise start: writes `docs/performance.md`.
//!
//! `scripts/bench` runs it; `cargo bench --bench run -- --only pool` prints one section. Two parts. First, whole
//! processes: from the start of the program to the finished job, the contenders taking turns in every round so that a
//! noisy moment hits all of them. Second, inside one process: the price of a fresh isolate with an adaptor in it, and
//! where it goes. Peers run on Node and are left out of the tables when `node` or `npm` is missing.

mod measure;
#[path = "measure/npm.rs"]
mod npm;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fnhost::compile::{self, Adaptor, Compiled, Dialect};
use fnhost::isolate::{
    Host, HostOptions, IdleIsolate, IsolatePool, Job, Limits, LocalAdaptor, Network, PoolOptions, RunStats, platform,
};
use measure::{argument, machine};
use tokio_util::sync::CancellationToken;

/// Rounds of the process comparison.
const ROUNDS: usize = 15;
/// Runs in one process, after warming up.
const RUNS: usize = 60;
/// Isolates alive at once when their memory is measured.
const ALIVE: usize = 16;

/// What adaptors stand on, each loaded by itself.
const PARTS: &[(&str, &str)] = &[
    ("lodash", "npm:lodash@4"),
    ("date-fns", "npm:date-fns@2"),
    ("undici", "npm:undici@7"),
    ("ajv", "npm:ajv@8"),
    ("csv-parse", "npm:csv-parse@5"),
    ("csvtojson", "npm:csvtojson@2"),
    ("jsonpath-plus", "npm:jsonpath-plus@10"),
    ("cheerio", "npm:cheerio@1.0.0-rc.12"),
];

fn main() {
    platform::init();
    // Made absolute now: the working directory changes on the way.
    let file = argument("--write").map(|file| std::path::absolute(file).expect("a working directory"));
    let work = std::env::temp_dir().join("fnhost-bench");
    std::fs::create_dir_all(&work).expect("a directory for the bench");
    let store = work.join("store");
    let fnhost = PathBuf::from(env!("CARGO_BIN_EXE_fnhost"));
    let mut install = vec!["install", "common@3.3.4", "http@7.2.10", "--repo-dir", path(&store)];
    install.extend(PARTS.iter().map(|(_, package)| *package));
    status(&fnhost, &install, &work);
    let server = Server::start();
    let mut report = String::from(HEAD);
    let _ = writeln!(report, "Machine: {}.\n", machine());

    let only = argument("--only");
    let wanted = |section: &str| only.as_ref().is_none_or(|only| only == section);
    if wanted("processes") {
        report.push_str(&processes(&fnhost, &store, &work, &server));
    }
    if ["isolates", "pool", "state"].into_iter().any(wanted) {
        let (host, _kept) = host(&fnhost, &store);
        if wanted("isolates") {
            report.push_str(&isolates(&host, &server));
        }
        if wanted("pool") {
            report.push_str(&warm_starts(&host, &server));
        }
        if wanted("state") {
            report.push_str(&large_state(&host, &work));
        }
    }
    if wanted("parts") {
        report.push_str(&parts(&store, &work));
    }
    print!("{report}");
    if let Some(file) = file {
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory).expect("a directory for the report");
        }
        std::fs::write(&file, report).expect("the report can be written");
        eprintln!("wrote {}", file.display());
    }
}

const HEAD: &str = "# Performance\n\nMade by `scripts/bench`; do not edit. Every table is one run on one machine, \
contenders taking turns.\n\n";

// -----------------------------------------------------------------------------------------------------------------
// Whole processes
// -----------------------------------------------------------------------------------------------------------------

struct Contender {
    name: &'static str,
    command: Vec<String>,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    wall: Duration,
    cpu: Duration,
    peak_kb: u64,
}

fn processes(fnhost: &Path, store: &Path, work: &Path, server: &Server) -> String {
    let url = format!("http://127.0.0.1:{}/", server.port);
    let common = write(work, "common.js", "fn(state => ({ ...state, data: { ok: true } }));\n");
    let http = write(work, "http.js", &format!("get('{url}');\n"));
    let state = write(work, "state.json", "{}\n");
    let output = work.join("output.json");
    let ours = |job: &Path, adaptor: &str| {
        vec![
            path(fnhost).to_owned(),
            "run".into(),
            path(job).into(),
            "-a".into(),
            adaptor.into(),
            "--repo-dir".into(),
            path(store).into(),
            "-o".into(),
            path(&output).into(),
        ]
    };
    let mut contenders = vec![
        Contender::new("fnhost run, language-common", ours(&common, "common@3.3.4")),
        Contender::new("fnhost run, language-http GET", ours(&http, "http@7.2.10")),
        Contender::new("fnhost --version", vec![path(fnhost).into(), "--version".into()]),
    ];
    if let Some(peers) = npm::peers(work) {
        let core = |job: &Path, adaptor: &str| {
            vec![
                "node".into(),
                path(&peers.join("node_modules/@openfn/core/bin/core")).into(),
                "execute".into(),
                "-l".into(),
                adaptor.into(),
                "-e".into(),
                path(job).into(),
                "-s".into(),
                path(&state).into(),
                "-o".into(),
                path(&output).into(),
            ]
        };
        // The runtime takes compiled jobs; the peer's own compiler is not part of its figure.
        let runtime = |job: &Path, adaptor: &str, name: &str| {
            let script = write(&peers, "runtime.mjs", RUNTIME_SCRIPT);
            let source = std::fs::read_to_string(job).expect("just written");
            let job = write(&peers, &format!("{name}.mjs"), &compiled(&source, adaptor, &[name.to_owned()]).code);
            vec![
                "node".into(),
                "--experimental-vm-modules".into(),
                "--no-warnings".into(),
                path(&script).into(),
                path(&job).into(),
                adaptor.into(),
            ]
        };
        contenders.extend([
            Contender::new("node -e 0", vec!["node".into(), "-e".into(), "0".into()]),
            Contender::new("@openfn/core CLI, language-common", core(&common, "@openfn/language-common")),
            Contender::new("@openfn/core CLI, language-http GET", core(&http, "@openfn/language-http")),
            Contender::new(
                "@openfn/runtime on Node, language-common",
                runtime(&common, "@openfn/language-common", "fn"),
            ),
            Contender::new(
                "@openfn/runtime on Node, language-http GET",
                runtime(&http, "@openfn/language-http", "get"),
            ),
        ]);
        // The peers look for adaptors from their working directory.
        std::env::set_current_dir(&peers).expect("the peers' directory");
    }
    for round in 0..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for contender in &mut contenders {
            let sample = measure(&contender.command);
            // The first round warms the caches of disk, packs and V8.
            if round > 0 {
                contender.samples.push(sample);
            }
        }
    }
    let mut table = String::from(
        "## From the start of a process to a finished job\n\nThe adaptor is installed, caches are warm. Median (minimum to \
         maximum).\n\n| | wall ms | CPU ms | peak memory MB |\n|---|---|---|---|\n",
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

const RUNTIME_SCRIPT: &str = r#"
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import run from "@openfn/runtime";
const [, , job, adaptor] = process.argv;
const require = createRequire(import.meta.url);
const dir = require.resolve(`${adaptor}/package.json`).replace(/\/package.json$/, "");
const code = readFileSync(job, "utf8");
const quiet = { debug() {}, info() {}, log() {}, success() {}, warn() {}, error: console.error, always() {}, timer: () => "" };
const version = JSON.parse(readFileSync(`${dir}/package.json`)).version;
await run(
  { workflow: { steps: [{ id: "a", expression: code }] } },
  {},
  { logger: quiet, linker: { modules: { [adaptor]: { path: dir, version } } } },
);
"#;

impl Contender {
    fn new(name: &'static str, command: Vec<String>) -> Self {
        Self { name, command, samples: Vec::new() }
    }
}

// `wait4` reaps the child, which clippy cannot see.
#[allow(clippy::zombie_processes)]
fn measure(command: &[String]) -> Sample {
    let start = Instant::now();
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", command[0]));
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

// -----------------------------------------------------------------------------------------------------------------
// Isolates in one process
// -----------------------------------------------------------------------------------------------------------------

/// Jobs with the adaptor that each uses.
fn cases(server: &Server) -> [(&'static str, Option<&'static str>, String); 4] {
    let url = format!("http://127.0.0.1:{}/", server.port);
    [
        ("no adaptor", None, "export default [(state) => state];".to_owned()),
        ("language-common", Some("@openfn/language-common"), "fn(state => state);".to_owned()),
        ("language-http, nothing sent", Some("@openfn/language-http"), "fn(state => state);".to_owned()),
        ("language-http, one GET", Some("@openfn/language-http"), format!("get('{url}');")),
    ]
}

/// A host on both adaptors, loaded together as a server has them.
fn host(fnhost: &Path, store: &Path) -> (Host, Option<IdleIsolate>) {
    let host = Host::new(HostOptions { store: store.to_owned(), ..Default::default() });
    let adaptors = ["@openfn/language-common", "@openfn/language-http"].map(str::to_owned);
    host.make_snapshot(fnhost, &adaptors);
    let kept = host.load_together(&adaptors);
    (host, kept)
}

fn isolates(host: &Host, server: &Server) -> String {
    let mut table = String::from(
        "## A fresh isolate in one process\n\nCreated, used for one run, dropped; code caches warm. Median of milliseconds; \
         CPU is that of the isolate's own thread, from its start until the isolate is gone. Memory is what each of 16 \
         isolates adds to the process while they wait side by side.\n\n\
         | | create | load | evaluate adaptor | operations | drop | CPU | heap MB | memory MB |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, adaptor, source) in cases(server) {
        let job = job(host, adaptor, &source);
        let mut samples = Vec::new();
        for run in 0..RUNS + 5 {
            let outcome = host.run(job.clone(), "{}".into(), Box::new(|_| {}));
            assert!(outcome.error.is_none(), "{name}: {:?}", outcome.error);
            if run >= 5 {
                samples.push(outcome.stats);
            }
        }
        let column =
            |value: fn(&RunStats) -> Duration| format!("{:.1}", median(samples.iter().map(|stats| ms(value(stats)))));
        let heap = median(samples.iter().map(|stats| stats.heap as f64 / 1048576.0));
        let waiting = source.trim_end_matches(['\n', ';']).to_owned()
            + ";\nfn(async state => { await new Promise(done => setTimeout(done, 4000)); return state; });";
        let waiting = match adaptor {
            Some(_) => self::job(host, adaptor, &waiting),
            None => self::job(
                host,
                None,
                "export default [async (state) => { await new Promise(done => setTimeout(done, 4000)); return state; }];",
            ),
        };
        let memory = memory_of_waiting(host, &waiting);
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {} | {} | {} | {} | {heap:.1} | {memory:.1} |",
            column(|stats| stats.create),
            column(|stats| stats.load),
            column(|stats| stats.evaluate),
            column(|stats| stats.run),
            column(|stats| stats.teardown),
            column(|stats| stats.cpu),
        );
    }
    table.push('\n');
    table
}

/// What a spare saves a run of the pool.
fn warm_starts(host: &Host, server: &Server) -> String {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut table = String::from(
        "## A warm isolate\n\nRuns of a pool, one at a time, that find an isolate ready or have one made. Wall is from the \
         request to the outcome, CPU that of the run alone. Median of milliseconds. Memory is what each of 16 isolates \
         adds to the process while it waits for a run.\n\n\
         | | wall, cold | wall, warm | CPU, cold | CPU, warm | evaluate, cold | evaluate, warm | memory MB |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (name, adaptor, source) in cases(server) {
        let job = job(host, adaptor, &source);
        let samples = |spares| {
            let pool = IsolatePool::new(
                host.clone(),
                PoolOptions { size: 2, spares_per_set: spares, spares, ..PoolOptions::default() },
            );
            runtime.block_on(async {
                let mut samples = Vec::new();
                for run in 0..RUNS + 5 {
                    let sample = run_in_pool(&pool, &job, spares).await;
                    if run >= 5 {
                        samples.push(sample);
                    }
                }
                samples
            })
        };
        let [cold, warm] = [samples(0), samples(1)];
        let before = resident_mb();
        let waiting = PoolOptions { size: 2, spares_per_set: ALIVE, spares: ALIVE, ..PoolOptions::default() };
        let pool = IsolatePool::new(host.clone(), waiting);
        let memory = runtime.block_on(async {
            run_in_pool(&pool, &job, 0).await;
            spares(&pool, ALIVE).await;
            (resident_mb() - before) / ALIVE as f64
        });
        let column = |samples: &[(Duration, RunStats)], value: fn(&(Duration, RunStats)) -> Duration| {
            format!("{:.1}", median(samples.iter().map(|sample| ms(value(sample)))))
        };
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {} | {} | {} | {} | {memory:.1} |",
            column(&cold, |sample| sample.0),
            column(&warm, |sample| sample.0),
            column(&cold, |sample| sample.1.cpu),
            column(&warm, |sample| sample.1.cpu),
            column(&cold, |sample| sample.1.evaluate),
            column(&warm, |sample| sample.1.evaluate),
        );
    }
    table.push('\n');
    table
}

/// Runs a job when so many spares are ready. The first run of a pool finds none.
async fn run_in_pool(pool: &IsolatePool, job: &Job, ready: usize) -> (Duration, RunStats) {
    if pool.stats().created > 0 {
        spares(pool, ready).await;
    }
    let start = Instant::now();
    let outcome = pool.run(job.clone(), "{}".into(), Box::new(|_| {}), CancellationToken::new()).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    (start.elapsed(), outcome.stats)
}

async fn spares(pool: &IsolatePool, count: usize) {
    while pool.stats().spares < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a large state costs, beside Node's own reading and writing of the same text.
fn large_state(host: &Host, work: &Path) -> String {
    let records: Vec<_> = (0..36_000)
        .map(|n| {
            serde_json::json!({
                "resourceType": "Patient", "id": format!("BO-{n:06}"), "active": n % 3 == 0, "weight": n as f64 / 7.0,
                "name": [{ "family": "Koroma", "given": ["Fatmata", "Isha"] }], "birthDate": "2019-06-30",
                "address": { "city": "Bo", "district": "Bo", "text": "12 Hospital Road, behind the market\nBo" },
            })
        })
        .collect();
    let state = serde_json::json!({ "data": { "patients": records } }).to_string();
    write(work, "state.json", &state);
    let script = "const text = require('fs').readFileSync('state.json', 'utf8'); const times = [];
        for (let i = 0; i < 15; i++) {
            const start = process.hrtime.bigint();
            if (JSON.stringify(JSON.parse(text)).length === 0) throw new Error();
            times.push(Number(process.hrtime.bigint() - start) / 1e6);
        }
        console.log(times.sort((a, b) => a - b)[7]);";
    let node = Command::new("node").args(["-e", script]).current_dir(work).output().ok();
    let node = node.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse::<f64>().ok());
    let job = job(host, Some("@openfn/language-common"), "fn(state => state);");
    let samples: Vec<_> = (0..RUNS / 4)
        .map(|_| {
            let start = Instant::now();
            let outcome = host.run(job.clone(), state.clone(), Box::new(|_| {}));
            assert!(outcome.error.is_none(), "{:?}", outcome.error);
            (ms(start.elapsed()), ms(outcome.stats.cpu))
        })
        .collect();
    let (wall, cpu) = (median(samples.iter().map(|sample| sample.0)), median(samples.iter().map(|sample| sample.1)));
    let mut table = format!(
        "## A large state\n\n{:.1} MB of JSON through `fn(state => state)` in a fresh isolate, from creation to drop, and \
         `JSON.stringify(JSON.parse(text))` in a Node process that runs already. Median of milliseconds. Goal: 1.3 times \
         Node.\n\n| | wall | CPU |\n|---|---|---|\n| fnhost | {wall:.0} | {cpu:.0} |\n",
        state.len() as f64 / 1e6,
    );
    if let Some(node) = node {
        let _ = writeln!(table, "| Node | {node:.0} | |\n| times | {:.2} | |", wall / node);
    }
    table.push('\n');
    table
}

/// Where the time of loading an adaptor goes: its dependencies one by one.
fn parts(store: &Path, work: &Path) -> String {
    let built_in = [
        ("node:process", "export const touched = process.version;"),
        ("node:stream", "import { Readable } from 'node:stream'; export const touched = new Readable();"),
        ("node:http", "import { request } from 'node:http'; export const touched = typeof request;"),
    ];
    let local_adaptors = built_in
        .iter()
        .map(|(name, source)| {
            let specifier = name.replace(':', "-");
            let dir = work.join(&specifier);
            std::fs::create_dir_all(&dir).expect("a directory for a local adaptor");
            write(&dir, "package.json", &format!(r#"{{"name":"{specifier}","type":"module","main":"index.js"}}"#));
            write(&dir, "index.js", source);
            LocalAdaptor { specifier, dir }
        })
        .collect();
    let host = Host::new(HostOptions { store: store.to_owned(), local_adaptors, ..Default::default() });
    let mut table = String::from(
        "## Parts of an adaptor\n\nEach evaluated by itself in a fresh isolate, code caches warm; median. An adaptor pays only \
         for the parts that a job uses.\n\n| | evaluate ms | CPU ms, create to drop | heap MB |\n|---|---|---|---|\n",
    );
    let packages = PARTS.iter().map(|(name, _)| ((*name).to_owned(), *name));
    let built_in = built_in.iter().map(|(name, _)| (name.replace(':', "-"), *name));
    for (specifier, name) in built_in.chain(packages) {
        let source = format!("import * as part from '{specifier}'; export default [(state) => state];");
        let job = job(&host, Some(&specifier), &source);
        let stats: Vec<_> = (0..RUNS / 2)
            .map(|_| {
                let outcome = host.run(job.clone(), "{}".into(), Box::new(|_| {}));
                assert!(outcome.error.is_none(), "{name}: {:?}", outcome.error);
                outcome.stats
            })
            .collect();
        let stats = &stats[3..];
        let _ = writeln!(
            table,
            "| {name} | {:.1} | {:.1} | {:.1} |",
            median(stats.iter().map(|stats| ms(stats.evaluate))),
            median(stats.iter().map(|stats| ms(stats.cpu))),
            median(stats.iter().map(|stats| stats.heap as f64 / 1048576.0)),
        );
    }
    table.push('\n');
    table
}

fn job(host: &Host, adaptor: Option<&str>, source: &str) -> Job {
    let specifiers: Vec<String> = adaptor.map(str::to_owned).into_iter().collect();
    let set = host.prepare(&specifiers).unwrap_or_else(|error| panic!("{adaptor:?}: {error}"));
    let compiled = match adaptor {
        Some(adaptor) => compiled(source, adaptor, &set.exports[adaptor]),
        None => compile_with(source, &[]),
    };
    Job {
        name: "job.js".into(),
        step: "job".into(),
        source: source.into(),
        compiled: Arc::new(compiled),
        adaptors: specifiers,
        limits: Limits::default(),
        network: Network::Open,
        test: false,
        hide: None,
        remove_from_state: vec!["configuration".into(), "response".into()],
        traceparent: None,
        tenant: None,
    }
}

fn compiled(source: &str, adaptor: &str, exports: &[String]) -> Compiled {
    compile_with(source, &[Adaptor { specifier: adaptor, exports: Some(exports) }])
}

fn compile_with(source: &str, adaptors: &[Adaptor]) -> Compiled {
    let options = compile::Options { file_name: "job.js", adaptors, dialect: Dialect::Module, extra_globals: &[] };
    compile::compile(source, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Resident memory that one waiting isolate adds, in MB.
fn memory_of_waiting(host: &Host, job: &Job) -> f64 {
    let before = resident_mb();
    let threads: Vec<_> = (0..ALIVE)
        .map(|_| {
            let (host, job) = (host.clone(), job.clone());
            std::thread::spawn(move || host.run(job, "{}".into(), Box::new(|_| {})))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(3000));
    let during = resident_mb();
    for thread in threads {
        let outcome = thread.join().expect("a run does not panic");
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
    }
    (during - before) / ALIVE as f64
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("a number of kB") / 1024.0
}

// -----------------------------------------------------------------------------------------------------------------
// Around it
// -----------------------------------------------------------------------------------------------------------------

/// Answers every request with the same small JSON document.
struct Server {
    port: u16,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { port }
    }
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut buffer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        buffer.extend_from_slice(&chunk[..read]);
        while let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            buffer.drain(..end + 4);
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}",
                )
                .ok()?;
        }
    }
}

fn status(program: &Path, arguments: &[&str], dir: &Path) {
    let status = Command::new(program).args(arguments).current_dir(dir).status().expect("fnhost starts");
    assert!(status.success(), "fnhost {arguments:?} failed");
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    file
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values = sorted(values);
    values[values.len() / 2]
}

fn spread(values: impl Iterator<Item = f64>) -> String {
    let values = sorted(values);
    format!("{:.0} ({:.0} to {:.0})", values[values.len() / 2], values[0], values[values.len() - 1])
}
