//! Many runs in one process: what the library promises a server, and what no sequence of programs could show.
//!
//! V8's platform has to be made on the main thread before any other thread exists, and libtest runs tests on threads of
//! its own; so this binary has a `main` and runs its cases one by one. It takes the filters that `cargo test` passes on
//! and reports as libtest does.
//!
//! `FNHOST_SOAK=10000 cargo test --release --test in_process soak -- --nocapture` runs that many isolates in one process
//! and shows how its memory goes.

#[allow(dead_code)] // the other test program uses all of it
#[path = "integration/support/http_server.rs"]
mod http_server;
#[path = "in_process/pool.rs"]
mod pool;
#[path = "integration/support/store.rs"]
mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fnhost::compile::{self, Adaptor, Dialect};
use fnhost::isolate::{
    Conditions, Host, HostOptions, IsolatePool, Job, Limit, Limits, LocalAdaptor, LogLine, MIB, Network, NoAnswer,
    Outcome, PoolOptions, platform,
};
use http_server::Server;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const COMMON: &str = "@openfn/language-common";
const OLD_COMMON: &str = "@openfn/language-common_2.1.1";
const HTTP: &str = "@openfn/language-http";
/// Counts its calls.
const COUNTER: &str = "@openfn/language-counter";
/// Uses what the runtime keeps per thread.
const THREAD: &str = "@openfn/language-thread";

const COUNTER_SOURCE: &str = "
    let calls = 0;
    export const count = () => state => ({ ...state, calls: ++calls, left: globalThis.left = (globalThis.left ?? 0) + 1 });
    export const fn = f => state => f(state);";

const THREAD_SOURCE: &str = r#"
    import { createSecretKey } from "node:crypto";
    import http2 from "node:http2";
    import net from "node:net";
    import vm from "node:vm";

    export const webKey = () => async state => {
        const key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt"]);
        return { ...state, key: [key.type, key.constructor.name, structuredClone(key).algorithm.name] };
    };
    // Makes a key without WebCrypto having been asked for.
    export const nodeKey = () => state => {
        const key = createSecretKey(Buffer.alloc(32, 1)).toCryptoKey("AES-GCM", true, ["encrypt"]);
        return { ...state, key: [key.type, key.constructor.name, structuredClone(key).algorithm.name] };
    };
    export const vmModules = () => async state => {
        const synthetic = new vm.SyntheticModule(["value"], function () { this.setExport("value", 7) });
        const main = new vm.SourceTextModule(
            "import { value } from 'synthetic'; export default [value, import.meta.mark]",
            { initializeImportMeta: meta => { meta.mark = "mine" } },
        );
        await main.link(() => synthetic);
        await main.evaluate();
        return { ...state, vm: main.namespace.default };
    };
    export const http2Settings = () => state => {
        const packed = http2.getPackedSettings({ headerTableSize: 1234, enablePush: false });
        return { ...state, packed: packed.toString("hex"), defaults: { ...http2.getDefaultSettings() } };
    };
    // A few answers from a server, read from a socket in many pieces.
    export const socket = port => async state => {
        const read = path => new Promise((resolve, reject) => {
            let length = 0;
            const socket = net.connect(port, "127.0.0.1");
            socket.on("data", chunk => { length += chunk.length });
            socket.on("error", reject);
            socket.on("end", () => resolve(length));
            socket.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
        });
        const lengths = await Promise.all(["/bytes", "/text", "/bytes"].map(read));
        return { ...state, read: lengths.map(length => length > 256) };
    };
    export const fn = f => state => f(state);"#;

/// V8 ends the process where a size is impossible; these are three such places.
const HOPELESS: [&str; 3] = [
    "fn(() => ({ n: 'x'.repeat(2 ** 29 - 24).split('').length }))",
    "fn(() => ({ n: 'x'.repeat(2 ** 29 - 24).match(/x/g).length }))",
    "fn(() => ({ n: JSON.parse('[' + '1,'.repeat(2 ** 27) + '1]').length }))",
];

/// How much more memory a process may hold after four times as many runs. What V8 and malloc keep for later differs by
/// some megabytes from run to run; a leak of one isolate of these jobs would be 8 MB a run.
const TOLERANCE: usize = 30 * MIB;

macro_rules! cases {
    ($($case:path),* $(,)?) => { &[$((stringify!($case), $case)),*] };
}

const CASES: &[(&str, fn())] = cases![
    a_run_finds_nothing_of_the_run_before,
    versions_of_an_adaptor_live_side_by_side,
    memory_is_flat_over_two_hundred_runs,
    runs_one_after_the_other_share_a_thread,
    a_run_that_hits_a_limit_leaves_its_neighbours_alone,
    pool::a_pool_runs_as_many_jobs_at_once_as_it_has_slots,
    pool::a_spare_serves_one_run,
    pool::a_spare_becomes_what_its_job_says,
    pool::adaptors_can_be_warmed_before_the_first_run,
    pool::a_better_snapshot_is_taken_up_between_runs,
    pool::a_cancelled_run_ends,
    pool::a_run_can_be_cancelled_at_any_moment,
    pool::runs_that_hit_limits_leave_the_others_in_the_pool_alone,
    pool::a_thread_serves_runs_that_use_what_the_runtime_keeps_per_thread,
    pool::a_drained_pool_has_neither_runs_nor_threads,
    conditions_are_javascript_truth,
    a_condition_finds_nothing_of_the_one_before,
    a_condition_sees_the_language_and_its_arguments,
    what_is_wrong_with_a_condition_is_said,
    a_condition_that_hits_a_limit_spoils_no_other,
    a_caller_who_goes_away_leaves_nothing_behind,
    conditions_and_runs_live_side_by_side,
    conditions_end_their_thread,
    soak,
    // Last: what such runs hold stays in memory.
    pool::a_lost_thread_does_not_cost_the_pool_a_slot,
    a_run_that_v8_gives_up_leaves_its_neighbours_alone,
];

fn main() -> ExitCode {
    platform::init();
    let mut filters = Vec::new();
    let mut skipped = Vec::new();
    let mut list = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => list = true,
            "--skip" => skipped.extend(args.next()),
            "--test-threads" | "--format" | "--color" => drop(args.next()),
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    let wanted = |name: &str| {
        (filters.is_empty() || filters.iter().any(|filter| name.contains(filter)))
            && !skipped.iter().any(|filter| name.contains(filter))
    };
    let cases: Vec<_> = CASES.iter().filter(|(name, _)| wanted(name)).collect();
    if list {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }

    let start = Instant::now();
    println!("\nrunning {} tests", cases.len());
    let mut failed = 0;
    for (name, case) in &cases {
        let passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        cases.len() - failed,
        failed,
        CASES.len() - cases.len(),
        start.elapsed().as_secs_f64(),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A host on the test store, with adaptors of these tests beside it.
fn host() -> (Host, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let adaptor = |specifier: &str, source: &str| {
        let dir = directory.path().join(specifier);
        std::fs::create_dir_all(&dir).unwrap();
        let manifest =
            json!({ "name": specifier, "version": "1.0.0", "type": "module", "main": "index.js" }).to_string();
        std::fs::write(dir.join("package.json"), manifest).unwrap();
        std::fs::write(dir.join("index.js"), source).unwrap();
        LocalAdaptor { specifier: specifier.into(), dir }
    };
    let local = vec![adaptor(COUNTER, COUNTER_SOURCE), adaptor(THREAD, THREAD_SOURCE)];
    (with_adaptors(store::store(), local), directory)
}

fn with_adaptors(store: &Path, local_adaptors: Vec<LocalAdaptor>) -> Host {
    Host::new(HostOptions { store: store.into(), local_adaptors, ..Default::default() })
}

fn job(host: &Host, source: &str, adaptors: &[&str]) -> Job {
    let specifiers: Vec<String> = adaptors.iter().map(|name| (*name).to_owned()).collect();
    let set = host.prepare(&specifiers).unwrap();
    let adaptors: Vec<Adaptor> = specifiers
        .iter()
        .map(|specifier| Adaptor { specifier, exports: set.exports.get(specifier).map(Vec::as_slice) })
        .collect();
    let options =
        compile::Options { file_name: "job.js", adaptors: &adaptors, dialect: Dialect::Module, extra_globals: &[] };
    let compiled = compile::compile(source, &options).unwrap_or_else(|error| panic!("{error}"));
    Job {
        name: "job.js".into(),
        step: "job".into(),
        source: source.into(),
        compiled: Arc::new(compiled),
        adaptors: specifiers,
        limits: Limits { wall: Duration::from_secs(120), ..Limits::default() },
        network: Network::Only(Vec::new()),
        test: false,
        hide: None,
        remove_from_state: vec!["configuration".into()],
        traceparent: None,
        tenant: None,
    }
}

fn run(host: &Host, job: &Job, state: &Value) -> Outcome {
    host.run(job.clone(), state.to_string(), Box::new(|_| {}))
}

#[track_caller]
fn completed(outcome: Outcome) -> Value {
    if let Some(error) = outcome.error {
        panic!("{error}");
    }
    serde_json::from_str(&outcome.state.unwrap()).unwrap()
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Threads of this process by number: those that isolates live on are called `isolate`.
fn threads(name: &str) -> Vec<String> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap());
    let is_wanted = |found: String| found.trim() == name;
    threads
        // A thread may end while it is looked at.
        .filter(|thread| std::fs::read_to_string(thread.path().join("comm")).is_ok_and(is_wanted))
        .map(|thread| thread.file_name().into_string().unwrap())
        .collect()
}

fn runs_one_after_the_other_share_a_thread() {
    // Those of hosts before this one, which may be about to end.
    let others = threads("isolate");
    let (host, _directory) = host();
    let server = Server::start();
    let jobs = everyday_jobs(&host, &server);
    let ours = || threads("isolate").into_iter().filter(|thread| !others.contains(thread)).collect::<Vec<_>>();
    run(&host, &jobs[0], &json!({ "items": [] }));
    let threads = ours();
    assert_eq!(threads.len(), 1, "{threads:?}");
    for _ in 0..3 {
        for job in &jobs {
            completed(run(&host, job, &json!({ "items": [] })));
        }
    }
    assert_eq!(ours(), threads);
}

fn a_run_finds_nothing_of_the_run_before() {
    let (host, _directory) = host();
    // `cursor` keeps its key and the time of its first call in variables of its module, `validate` its schemas.
    let dirty = job(
        &host,
        "cursor('now', { key: 'elsewhere' });
         validate({ $id: 'one', type: 'string' }, 'text');
         fn(state => { _.mixin({ odd: () => 'odd' }); Array.prototype.odd = 1; return state; });
         count();",
        &[COMMON, COUNTER],
    );
    let clean = job(
        &host,
        "cursor('start');
         validate({ $id: 'one', type: 'number' }, 7);
         fn(state => ({ ...state, odd: [typeof _.odd, [].odd ?? null], late: Date.now() - Date.parse(state.cursor) }));
         count();",
        &[COMMON, COUNTER],
    );
    for _ in 0..100 {
        let state = completed(run(&host, &dirty, &json!({})));
        assert!(state["elsewhere"].is_string() && state["calls"] == 1 && state["left"] == 1, "{state}");
        let state = completed(run(&host, &clean, &json!({})));
        assert_eq!((&state["calls"], &state["left"]), (&json!(1), &json!(1)));
        assert_eq!((&state["odd"], &state["validationErrors"]), (&json!(["undefined", null]), &json!([])));
        assert_eq!(state.get("elsewhere"), None);
        assert!(state["late"].as_u64().unwrap() < 60_000, "{state}");
    }
}

fn versions_of_an_adaptor_live_side_by_side() {
    let (host, _directory) = host();
    let source = "cursor('2026-01-01'); fn(state => ({ ...state, assert: typeof assert }));";
    let old = job(&host, source, &[OLD_COMMON]);
    let current = job(&host, source, &[COMMON]);
    let both = job(
        &host,
        &format!(
            "import * as old from '{OLD_COMMON}';
             import * as current from '{COMMON}';
             old.cursor('2026-01-01');
             fn(state => ({{ ...state, assert: [typeof old.assert, typeof current.assert, old.fn === current.fn] }}));"
        ),
        &[OLD_COMMON, COMMON],
    );
    let expected =
        [(&old, json!("undefined")), (&current, json!("function")), (&both, json!(["undefined", "function", false]))];
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for (job, assert) in &expected {
                let host = &host;
                scope.spawn(move || {
                    let state = completed(run(host, job, &json!({})));
                    assert_eq!(state, json!({ "cursor": "2026-01-01", "assert": assert }));
                });
            }
        });
    }
}

/// Jobs that between them load the common and the http adaptor, compile WebAssembly and talk over sockets.
fn everyday_jobs(host: &Host, server: &Server) -> [Job; 4] {
    let common = job(host, "each('$.items[*]', fn(state => state)); cursor('now'); count();", &[COMMON, COUNTER]);
    let origin = server.origin();
    let http = job(host, &format!("get('{origin}/gzip'); post('{origin}/echo', {{ a: 1 }});"), &[HTTP]);
    let socket = job(host, &format!("socket({});", server.port()), &[THREAD]);
    let modules = job(host, "vmModules(); http2Settings(); webKey();", &[THREAD]);
    [common, http, socket, modules].map(|job| Job { network: Network::Open, ..job })
}

fn memory_is_flat_over_two_hundred_runs() {
    let (host, _directory) = host();
    let server = Server::start();
    let jobs = everyday_jobs(&host, &server);
    let state = json!({ "items": vec!["x".repeat(1000); 500] });
    let mut after_50 = 0;
    for count in 1..=200 {
        completed(run(&host, &jobs[count % jobs.len()], &state));
        if count == 50 {
            after_50 = resident();
        }
    }
    let after_200 = resident();
    println!("resident after 50 runs {} MB, after 200 runs {} MB", after_50 / MIB, after_200 / MIB);
    assert!(after_200 < after_50 + TOLERANCE);
}

/// A job for each limit, which hits it.
fn offenders(host: &Host) -> [(Limit, Job); 6] {
    let limited = |source: &str, change: fn(&mut Limits)| {
        let mut job = job(host, source, &[COMMON]);
        change(&mut job.limits);
        job
    };
    [
        (
            Limit::Wall,
            limited("fn(() => new Promise(() => setTimeout(() => {}, 1e6)))", |l| l.wall = Duration::from_secs(1)),
        ),
        (Limit::Cpu, limited("fn(() => { for (;;) {} })", |l| l.cpu = Some(Duration::from_millis(500)))),
        (
            Limit::Heap,
            limited("fn(() => { const a = []; for (;;) a.push(new Array(1000).fill(a.length)) })", |l| {
                l.heap = 80 * MIB
            }),
        ),
        (
            Limit::Buffers,
            limited("fn(() => { const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1)) })", |l| l.buffers = 32 * MIB),
        ),
        (Limit::State, limited("fn(() => ({ data: 'x'.repeat(5 << 20) }))", |l| l.state = 4 * MIB)),
        (Limit::Log, limited("fn(() => { for (;;) console.log('x'.repeat(1000)) })", |l| l.log = MIB)),
    ]
}

fn a_run_that_hits_a_limit_leaves_its_neighbours_alone() {
    let (host, _directory) = host();
    let offenders = offenders(&host);
    let neighbour = job(
        &host,
        "each('$.items[*]', fn(async state => {
             await new Promise(resolve => setTimeout(resolve, 1));
             console.log(`item ${state.data}`);
             return { ...state, sum: (state.sum ?? 0) + state.data, buffer: Buffer.alloc(1 << 20, 7).length };
         }));",
        &[COMMON],
    );
    let state = json!({ "items": (0..50).collect::<Vec<_>>() });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbours: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut runs = 0;
                    while runs == 0 || !done.load(Ordering::Relaxed) {
                        let lines: Arc<Mutex<Vec<LogLine>>> = Arc::default();
                        let sink = lines.clone();
                        let outcome = host.run(
                            neighbour.clone(),
                            state.to_string(),
                            Box::new(move |line| sink.lock().unwrap().push(line)),
                        );
                        let state = completed(outcome);
                        assert_eq!((&state["sum"], &state["buffer"]), (&json!(1225), &json!(1 << 20)));
                        let lines = lines.lock().unwrap();
                        let lines: Vec<_> = lines.iter().filter(|line| line.source == "JOB").collect();
                        assert_eq!(lines.len(), 50);
                        assert_eq!(lines[49].message, "item 49");
                        runs += 1;
                    }
                    runs
                })
            })
            .collect();
        let ended: Vec<_> = offenders
            .iter()
            .map(|(limit, job)| (limit, scope.spawn(|| run(&host, job, &json!({})))))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(limit, run)| (limit, run.join().unwrap()))
            .collect();
        done.store(true, Ordering::Relaxed);
        for neighbour in neighbours {
            assert!(neighbour.join().unwrap() > 0);
        }
        for (limit, outcome) in ended {
            let error = outcome.error.unwrap_or_else(|| panic!("{limit:?} let a run complete"));
            assert_eq!(error.limit, Some(*limit), "{error}");
        }
    });
    // And the process goes on.
    assert_eq!(completed(run(&host, &neighbour, &json!({ "items": [1] })))["sum"], 1);
}

fn a_run_that_v8_gives_up_leaves_its_neighbours_alone() {
    let (host, _directory) = host();
    let neighbour = job(
        &host,
        "each('$.items[*]', fn(async state => {
             const kept = Array.from({ length: 1e4 }, (_, i) => ({ i }));
             await new Promise(resolve => setTimeout(resolve, 1));
             return { ...state, sum: (state.sum ?? 0) + state.data, kept: kept.length };
         }));",
        &[COMMON],
    );
    let state = json!({ "items": (0..50).collect::<Vec<_>>() });
    for source in HOPELESS {
        let offender = job(&host, source, &[COMMON]);
        std::thread::scope(|scope| {
            let offence = scope.spawn(|| run(&host, &offender, &json!({})));
            let mut runs = 0;
            while runs == 0 || !offence.is_finished() {
                assert_eq!(completed(run(&host, &neighbour, &state))["sum"], 1225);
                runs += 1;
            }
            let error = offence.join().unwrap().error.unwrap_or_else(|| panic!("V8 holds it after all: {source}"));
            assert_eq!((error.name, error.limit), ("OOMError", Some(Limit::Heap)), "{error}");
        });
    }
    // The watchdog and the garbage collector's threads still serve the rest.
    for _ in 0..20 {
        assert_eq!(completed(run(&host, &neighbour, &state))["sum"], 1225);
    }
    let mut endless = job(&host, "fn(() => { for (;;) {} })", &[COMMON]);
    endless.limits.wall = Duration::from_millis(300);
    assert_eq!(run(&host, &endless, &json!({})).error.and_then(|error| error.limit), Some(Limit::Wall));
}

/// Off unless `FNHOST_SOAK` says how many runs: it takes minutes. Every other run is one of a pool.
fn soak() {
    let Some(runs) = std::env::var("FNHOST_SOAK").ok().and_then(|runs| runs.parse::<usize>().ok()) else { return };
    let (host, _directory) = host();
    let server = Server::start();
    let jobs = everyday_jobs(&host, &server);
    let state = json!({ "items": vec!["x".repeat(1000); 100] });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pool = IsolatePool::new(host.clone(), PoolOptions::default());
    let run = |count: usize| {
        let job = &jobs[std::env::var("SOAK_JOB").map_or(count / 2, |n| n.parse().unwrap()) % jobs.len()];
        if count.is_multiple_of(2) {
            return run(&host, job, &state);
        }
        runtime.block_on(pool.run(job.clone(), state.to_string(), Box::new(|_| {}), CancellationToken::new()))
    };
    let start = Instant::now();
    let mut early = 0;
    for count in 1..=runs {
        completed(run(count));
        if count == runs / 10 {
            early = resident();
        }
        if count % (runs / 20).max(1) == 0 {
            let seconds = start.elapsed().as_secs_f64();
            println!("{count} runs in {seconds:.0} s, {} MB resident, {:?}", resident() / MIB, pool.stats());
        }
    }
    assert!(resident() < early + TOLERANCE);
}

/// Asks several conditions at once, in this order.
fn asked<'a>(conditions: &Conditions, expressions: impl IntoIterator<Item = &'a str>) -> Vec<Result<bool, NoAnswer>> {
    let data = r#"{ "age": 7, "name": "Ada", "empty": "", "tags": ["a", "b"], "__proto__": { "odd": 1 } }"#;
    let arguments = [("data", data), ("request", r#"{ "headers": { "x-kind": "a" } }"#)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = expressions.into_iter().map(|expression| conditions.holds(expression, &arguments));
    runtime.block_on(futures_util::future::join_all(all))
}

fn conditions_are_javascript_truth() {
    let cases = [
        ("data.age > 5 && request.headers['x-kind'] === 'a'", true),
        ("data.age > 7", false),
        ("data.name", true),
        ("data.empty", false),
        ("data.missing", false),
        ("data.tags.some(tag => { const wanted = 'b'; return tag === wanted; })", true),
        ("[]", true),
        ("NaN", false),
        ("0n", false),
        ("false, 1", true),
        ("true // since ever", true),
        ("  data.age\n  === 7\n", true),
        ("/^[A-Z)]/u.test(data.name)", true),
        ("new Intl.NumberFormat('en').format(1234) === '1,234'", true),
        ("Object.hasOwn(data, '__proto__') && data.odd === undefined", true),
        ("!data.errors", true),
    ];
    let conditions = Conditions::default();
    let answers = asked(&conditions, cases.map(|(expression, _)| expression));
    for ((expression, expected), answer) in cases.iter().zip(answers) {
        assert_eq!(answer, Ok(*expected), "{expression}");
        assert_eq!(Conditions::check(expression), Ok(()), "{expression}");
    }
}

fn a_condition_finds_nothing_of_the_one_before() {
    let conditions = Conditions::default();
    let traces = "typeof left === 'undefined' && [].left === undefined && JSON.left === undefined && data.age === 7
        && Math.max(1, 2) === 2";
    let litter = "globalThis.left = Array.prototype.left = JSON.left = data.age = (Math.max = () => 0, 1)";
    let promise = "(Promise.resolve().then(() => { globalThis.left = 1; }), true)";
    let answers = asked(&conditions, [litter, traces, promise, traces].repeat(100));
    assert!(answers.iter().all(|answer| *answer == Ok(true)), "{answers:?}");
}

fn a_condition_sees_the_language_and_its_arguments() {
    let names: Vec<String> = compile::LANGUAGE_GLOBALS.iter().map(|name| format!("'{name}'")).collect();
    let foreign = format!(
        "(() => {{
            const known = [{}];
            const foreign = Object.getOwnPropertyNames(globalThis).filter(name => !known.includes(name));
            if (foreign.length) throw new Error(foreign.join());
            return this === undefined && arguments.length === 2;
        }})()",
        names.join(",")
    );
    assert_eq!(asked(&Conditions::default(), [foreign.as_str()]), [Ok(true)]);
}

fn what_is_wrong_with_a_condition_is_said() {
    let cases = [
        ("data.missing.x", "TypeError: Cannot read properties of undefined (reading 'x')"),
        ("age > 5", "ReferenceError: age is not defined"),
        ("age = 5", "ReferenceError: age is not defined"),
        ("(() => { throw 'words' })()", "words"),
        ("(() => { throw { toString() { for (;;); } } })()", "[object Object]"),
        ("(function down() { return down(); })()", "RangeError: Maximum call stack size exceeded"),
        ("Promise.resolve(true)", "the condition gives a promise; it cannot wait"),
        ("(async () => true)()", "the condition gives a promise; it cannot wait"),
        ("import('node:fs')", "SyntaxError: 1:1: an expression cannot import"),
        ("Promise.reject(new Error('no'))", "the condition gives a promise; it cannot wait"),
        ("(() => { throw new Error(String(new Error('in').stack)) })()", "Error: undefined"),
        ("eval('1')", "EvalError: Code generation from strings disallowed for this context"),
        ("Function('return 1')()", "EvalError: Code generation from strings disallowed for this context"),
        (
            "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
            "TypeError: Atomics.wait cannot be called in this context",
        ),
        ("data.age >", "SyntaxError: 1:11: expression expected"),
        ("a; b", "SyntaxError: 1:2: expected ',', got ';'"),
        ("}{", "SyntaxError: 1:1: expression expected"),
        ("a) + (b", "SyntaxError: 1:1: this is more than one expression"),
        ("a }); (function () { return (1", "SyntaxError: 1:3: expected ',', got '}'"),
    ];
    let conditions = Conditions::default();
    let answers = asked(&conditions, cases.map(|(expression, _)| expression));
    for ((expression, expected), answer) in cases.iter().zip(answers) {
        assert_eq!(answer, Err(NoAnswer::Faulty((*expected).to_owned())), "{expression}");
        let checked = Conditions::check(expression);
        assert_eq!(checked.err(), expected.strip_prefix("SyntaxError: ").map(str::to_owned), "{expression}");
    }
    let [Err(NoAnswer::Faulty(long))] = &asked(&conditions, ["(() => { throw 'x'.repeat(1e6) })()"])[..] else {
        panic!("it throws")
    };
    assert!(long.starts_with("xxx") && long.len() < 1000);
}

fn a_condition_that_hits_a_limit_spoils_no_other() {
    let slow = "the condition took longer than 250 ms";
    let large = "the condition needs more than 64 MB of memory";
    let cases = [
        ("(() => { for (;;); })()", slow),
        ("(() => { for (;;) try { for (;;); } catch {} finally { continue; } })()", slow),
        ("(Promise.resolve().then(function again() { return Promise.resolve().then(again); }), true)", slow),
        ("/^(a+)+$/.test('a'.repeat(40) + 'b')", slow),
        ("(() => { const a = []; for (;;) a.push(new Array(1000).fill(a.length)) })()", large),
        ("(() => { const a = []; for (;;) a.push(new Uint8Array(2 ** 20)) })()", large),
        ("'x'.repeat(2 ** 29 - 24).split('')", large),
    ];
    let conditions = Conditions::default();
    for (expression, expected) in cases {
        let answers = asked(&conditions, [expression, "data.age === 7", expression, "data.age === 8"]);
        let refused = || Err(NoAnswer::CutShort(expected.to_owned()));
        assert_eq!(answers, [refused(), Ok(true), refused(), Ok(false)], "{expression}");
    }
}

fn a_caller_who_goes_away_leaves_nothing_behind() {
    let conditions = Conditions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..5 {
            let endless = conditions.holds("(() => { for (;;); })()", &[]);
            assert!(tokio::time::timeout(Duration::from_millis(20), endless).await.is_err());
            assert_eq!(conditions.holds("data", &[("data", "1")]).await, Ok(true));
        }
    });
}

/// All isolates of a process share a part of their heaps, which is made with the first of them.
fn conditions_and_runs_live_side_by_side() {
    let (host, _directory) = host();
    let job = job(&host, "fn(state => ({ ...state, sum: _.sum([1, 2]) }));", &[COMMON]);
    for _ in 0..5 {
        let conditions = Conditions::default();
        assert_eq!(asked(&conditions, ["data.tags.length === 2"]), [Ok(true)]);
        assert_eq!(completed(run(&host, &job, &json!({})))["sum"], 3);
        assert_eq!(asked(&conditions, ["data.tags.length === 2"]), [Ok(true)]);
    }
}

fn conditions_end_their_thread() {
    // Those of conditions before these, which may be about to end.
    let others = threads("conditions");
    let ours = || threads("conditions").into_iter().filter(|thread| !others.contains(thread)).count();
    let conditions = Conditions::default();
    assert_eq!(ours(), 0, "the thread starts with the first question");
    assert_eq!(asked(&conditions, ["true"]), [Ok(true)]);
    assert_eq!(ours(), 1);
    drop(conditions);
    let gone = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        ours() == 0
    });
    assert!(gone);
}
