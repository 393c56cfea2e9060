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
#[path = "integration/support/store.rs"]
mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fnhost::compile::{self, Adaptor, Dialect};
use fnhost::isolate::{Host, HostOptions, Job, Limit, Limits, LocalAdaptor, LogLine, MIB, Network, Outcome, platform};
use http_server::Server;
use serde_json::{Value, json};

const COMMON: &str = "@openfn/language-common";
const OLD_COMMON: &str = "@openfn/language-common_2.1.1";
const HTTP: &str = "@openfn/language-http";
const COUNTER: &str = "@openfn/language-counter";

/// How much more memory a process may hold after four times as many runs. What V8 and malloc keep for later differs by
/// some megabytes from run to run; a leak of one isolate of these jobs would be 8 MB a run.
const TOLERANCE: usize = 30 * MIB;

const CASES: &[(&str, fn())] = &[
    ("a_run_finds_nothing_of_the_run_before", a_run_finds_nothing_of_the_run_before),
    ("versions_of_an_adaptor_live_side_by_side", versions_of_an_adaptor_live_side_by_side),
    ("memory_is_flat_over_two_hundred_runs", memory_is_flat_over_two_hundred_runs),
    ("a_run_that_hits_a_limit_leaves_its_neighbours_alone", a_run_that_hits_a_limit_leaves_its_neighbours_alone),
    ("soak", soak),
    // Last: what such a run holds stays in memory.
    ("a_run_that_v8_gives_up_leaves_its_neighbours_alone", a_run_that_v8_gives_up_leaves_its_neighbours_alone),
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

/// A host on the test store, with an adaptor that counts its own calls.
fn host() -> (Host, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "package.json",
        &format!(r#"{{ "name": "{COUNTER}", "version": "1.0.0", "type": "module", "main": "index.js" }}"#),
    );
    write(
        "index.js",
        "let calls = 0;
         export const count = () => state => ({ ...state, calls: ++calls, left: globalThis.left = (globalThis.left ?? 0) + 1 });
         export const fn = f => state => f(state);",
    );
    let local = LocalAdaptor { specifier: COUNTER.into(), dir: directory.path().into() };
    (with_adaptors(store::store(), vec![local]), directory)
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
fn everyday_jobs(host: &Host, server: &Server) -> [Job; 2] {
    let common = job(host, "each('$.items[*]', fn(state => state)); cursor('now'); count();", &[COMMON, COUNTER]);
    let origin = server.origin();
    let http = job(host, &format!("get('{origin}/gzip'); post('{origin}/echo', {{ a: 1 }});"), &[HTTP]);
    [common, Job { network: Network::Open, ..http }]
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

fn a_run_that_hits_a_limit_leaves_its_neighbours_alone() {
    let (host, _directory) = host();
    let limited = |source: &str, change: fn(&mut Limits)| {
        let mut job = job(&host, source, &[COMMON]);
        change(&mut job.limits);
        job
    };
    let offenders = [
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
    ];
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
    // V8 ends the process where a size is impossible; these are three such places.
    let hopeless = [
        "fn(() => ({ n: 'x'.repeat(2 ** 29 - 24).split('').length }))",
        "fn(() => ({ n: 'x'.repeat(2 ** 29 - 24).match(/x/g).length }))",
        "fn(() => ({ n: JSON.parse('[' + '1,'.repeat(2 ** 27) + '1]').length }))",
    ];
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
    for source in hopeless {
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

/// Off unless `FNHOST_SOAK` says how many runs: it takes minutes.
fn soak() {
    let Some(runs) = std::env::var("FNHOST_SOAK").ok().and_then(|runs| runs.parse::<usize>().ok()) else { return };
    let (host, _directory) = host();
    let server = Server::start();
    let jobs = everyday_jobs(&host, &server);
    let state = json!({ "items": vec!["x".repeat(1000); 100] });
    let start = Instant::now();
    let mut early = 0;
    for count in 1..=runs {
        completed(run(&host, &jobs[count % jobs.len()], &state));
        if count == runs / 10 {
            early = resident();
        }
        if count % (runs / 20).max(1) == 0 {
            let seconds = start.elapsed().as_secs_f64();
            println!("{count} runs in {seconds:.0} s, {} MB resident", resident() / MIB);
        }
    }
    assert!(resident() < early + TOLERANCE);
}
