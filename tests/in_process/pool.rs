//! The pool of isolates that a server runs its jobs in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fnhost::isolate::{Host, IsolatePool, Job, Limit, Network, Outcome, PoolOptions, RunError, Severity};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::http_server::Server;
use crate::{COMMON, COUNTER, HOPELESS, HTTP, THREAD, completed, host, job, offenders};

const WAITING: &str = "fn(() => new Promise(resolve => setTimeout(resolve, 1e6)));";
const ENDLESS: &str = "fn(() => { for (;;) {} });";

/// Runs `test` with a pool of `size` slots and a spare for each of the two adaptor sets used last.
fn with_pool<F: Future<Output = ()>>(size: usize, test: impl FnOnce(IsolatePool) -> F) {
    let (host, _directory) = host();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = IsolatePool::new(
            host,
            PoolOptions { slots: size, runs: size, spares_per_set: 1, spares: 2, ..PoolOptions::default() },
        );
        test(pool.clone()).await;
        pool.drain().await;
    });
}

/// A job, compiled where it may block.
async fn prepared(host: &Host, source: &str, adaptors: &'static [&'static str]) -> Job {
    let (host, source) = (host.clone(), source.to_owned());
    tokio::task::spawn_blocking(move || job(&host, &source, adaptors)).await.unwrap()
}

fn start(pool: &IsolatePool, job: &Job, state: &Value) -> (CancellationToken, tokio::task::JoinHandle<Outcome>) {
    let cancel = CancellationToken::new();
    let run = pool.run(job.clone(), state.to_string(), Box::new(|_| {}), cancel.clone());
    (cancel, tokio::spawn(run))
}

async fn run(pool: &IsolatePool, job: &Job, state: &Value) -> Outcome {
    start(pool, job, state).1.await.unwrap()
}

/// A run in a spare, of a pool that has one at a time.
async fn run_in_spare(pool: &IsolatePool, job: &Job) -> Outcome {
    // A run that loads something for the first time has the next one explore, in an isolate made for it.
    for _ in 0..3 {
        until("a spare", || pool.stats().spares == 1).await;
        let outcome = run(pool, job, &json!({})).await;
        if outcome.stats.warm {
            return outcome;
        }
    }
    panic!("no run has had a spare");
}

/// Comes back once `condition` holds, which it does sooner or later.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let patience = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), patience).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[track_caller]
fn cancelled(outcome: Outcome) {
    let error = outcome.error.expect("a run that was cancelled has an error");
    assert_eq!((error.name, error.severity, error.limit), ("CancelledError", Severity::Kill, None), "{error}");
    assert_eq!(outcome.state, None);
}

pub fn a_pool_runs_as_many_jobs_at_once_as_it_has_slots() {
    with_pool(3, |pool| async move {
        let waiting = prepared(pool.host(), WAITING, &[COMMON]).await;
        let quick = prepared(pool.host(), "fn(state => ({ ...state, done: true }));", &[COMMON]).await;
        assert_eq!((pool.available(), pool.stats().slots), (3, 3));
        let runs: Vec<_> = (0..3).map(|_| start(&pool, &waiting, &json!({}))).collect();
        until("three runs at once", || pool.stats().running == 3).await;
        assert_eq!(pool.available(), 0);
        assert!(pool.try_slot(&None).is_none());

        let queued: Vec<_> = (0..2).map(|_| start(&pool, &quick, &json!({})).1).collect();
        until("two callers wait", || pool.stats().waiting == 2).await;
        assert_eq!(pool.stats().running, 3);
        runs[0].0.cancel();
        for run in queued {
            let outcome = run.await.unwrap();
            assert!(!outcome.stats.waited.is_zero());
            assert_eq!(completed(outcome), json!({ "done": true }));
        }
        for (cancel, run) in runs {
            cancel.cancel();
            cancelled(run.await.unwrap());
        }
        assert_eq!((pool.available(), pool.stats().waiting), (3, 0));

        // A slot in hand counts, and goes back unused.
        let slot = pool.slot(&None).await.unwrap();
        assert_eq!((pool.available(), pool.stats().running), (2, 0));
        drop(slot);
        assert_eq!(pool.available(), 3);
    });
}

pub fn a_spare_serves_one_run() {
    with_pool(2, |pool| async move {
        let dirty = prepared(
            pool.host(),
            "cursor('now', { key: 'elsewhere' });
             validate({ $id: 'one', type: 'string' }, 'text');
             fn(state => { _.mixin({ odd: () => 'odd' }); Array.prototype.odd = 1; return state; });
             count();",
            &[COMMON, COUNTER],
        )
        .await;
        let clean = prepared(
            pool.host(),
            "cursor('start');
             validate({ $id: 'one', type: 'number' }, 7);
             fn(state => ({ ...state, odd: [typeof _.odd, [].odd ?? null], late: Date.now() - Date.parse(state.cursor) }));
             count();",
            &[COUNTER, COMMON],
        )
        .await;
        let cold = run(&pool, &dirty, &json!({})).await;
        assert!(!cold.stats.warm && !cold.stats.create.is_zero());
        completed(cold);
        for round in 1..=20 {
            for job in [&clean, &dirty] {
                until("a spare", || pool.stats().spares == 1).await;
                let outcome = run(&pool, job, &json!({ "round": round })).await;
                assert!(outcome.stats.warm && outcome.stats.create.is_zero());
                let state = completed(outcome);
                assert_eq!((&state["calls"], &state["left"]), (&json!(1), &json!(1)), "{state}");
                assert_eq!(state["round"], round);
                if job.compiled.code == clean.compiled.code {
                    assert_eq!((&state["odd"], &state["validationErrors"]), (&json!(["undefined", null]), &json!([])));
                    assert!(state["late"].as_u64().unwrap() < 60_000, "{state}");
                }
            }
        }
        let stats = pool.stats();
        assert_eq!((stats.warm_runs, stats.cold_runs), (40, 1));
        assert!(stats.created >= 41, "{stats:?}");
    });
}

pub fn a_spare_becomes_what_its_job_says() {
    let server = Server::start();
    let origin = server.origin();
    with_pool(2, |pool| async move {
        let open = prepared(pool.host(), &format!("get('{origin}/echo');"), &[HTTP]).await;
        let open = Job { network: Network::Open, ..open };
        let closed = Job { network: Network::Only(Vec::new()), ..open.clone() };
        let test = Job { test: true, ..open.clone() };
        let mut small = open.clone();
        small.limits.buffers = 1;
        let mut renamed = prepared(pool.host(), "fn(() => { throw new Error('here') });", &[HTTP]).await;
        renamed.name = "other.js".into();
        run(&pool, &open, &json!({})).await;
        let warm = async |job: &Job| run_in_spare(&pool, job).await;
        assert_eq!(completed(warm(&open).await)["response"]["statusCode"], 200);
        let refused = warm(&closed).await.error.expect("no network, no answer");
        assert!(refused.message.contains("this run has no network"), "{refused}");
        let before = server.seen().len();
        assert!(completed(warm(&test).await)["data"].is_object());
        assert_eq!(server.seen().len(), before, "a test run sends nothing");
        assert_eq!(warm(&small).await.error.and_then(|error| error.limit), Some(Limit::Buffers));
        let thrown = warm(&renamed).await.error.unwrap();
        assert!(thrown.stack.as_ref().is_some_and(|stack| stack.contains("other.js:1:")), "{thrown}");
        assert_eq!(completed(warm(&open).await)["response"]["statusCode"], 200);

        // Another limit of the heap needs another isolate.
        let mut large = open.clone();
        large.limits.heap *= 2;
        until("a spare", || pool.stats().spares == 1).await;
        let outcome = run(&pool, &large, &json!({})).await;
        assert!(!outcome.stats.warm);
        completed(outcome);
    });
}

pub fn adaptors_can_be_warmed_before_the_first_run() {
    with_pool(2, |pool| async move {
        pool.warm(&[COMMON.to_owned()], fnhost::isolate::Limits::default().heap).await.unwrap();
        until("a spare", || pool.stats().spares == 1).await;
        let job = prepared(pool.host(), "fn(state => state);", &[COMMON]).await;
        run_in_spare(&pool, &job).await;
        let missing: Result<(), RunError> =
            pool.warm(&["@openfn/language-nowhere".to_owned()], fnhost::isolate::Limits::default().heap).await;
        assert_eq!(missing.unwrap_err().name, "ImportError");
    });
}

pub fn a_better_snapshot_is_taken_up_between_runs() {
    with_pool(2, |pool| async move {
        let host = pool.host().clone();
        let adaptors = [COUNTER.to_owned()];
        let made = async || {
            let (host, adaptors) = (host.clone(), adaptors.clone());
            let make = move || {
                host.save_packs();
                assert!(host.make_snapshot(Path::new(env!("CARGO_BIN_EXE_fnhost")), &adaptors));
                host.load_again(&adaptors).unwrap()
            };
            tokio::task::spawn_blocking(make).await.unwrap()
        };
        made().await;
        pool.load_together(&adaptors).await;
        assert!(!host.lacks_snapshot(&adaptors));
        let count = prepared(&host, "count();", &[COUNTER]).await;
        let waiting = prepared(&host, WAITING, &[COUNTER]).await;
        let state = json!({});
        let counted = |outcome| assert_eq!(completed(outcome), json!({ "calls": 1, "left": 1 }));
        counted(run(&pool, &count, &state).await);
        assert!(host.lacks_snapshot(&adaptors), "the run has shown what it loads");
        let better = made().await;

        // Not while a run waits, which does not keep others from running.
        let (cancel, outcome) = start(&pool, &waiting, &state);
        until("the run is under way", || pool.stats().running == 1).await;
        assert!(pool.take_up(better.clone()).await.is_none() && host.lacks_snapshot(&adaptors));
        counted(run(&pool, &count, &state).await);
        cancel.cancel();
        cancelled(outcome.await.unwrap());

        // Runs that come meanwhile only wait.
        let (taken_up, one, other) =
            tokio::join!(pool.take_up(better), run(&pool, &count, &state), run(&pool, &count, &state));
        assert!(taken_up.is_some() && !host.lacks_snapshot(&adaptors));
        counted(one);
        counted(other);
        counted(run_in_spare(&pool, &count).await);
    });
}

pub fn a_cancelled_run_ends() {
    with_pool(2, |pool| async move {
        let waiting = prepared(pool.host(), WAITING, &[COMMON]).await;
        let endless = prepared(pool.host(), ENDLESS, &[COMMON]).await;
        let quick = prepared(pool.host(), "fn(state => ({ ...state, done: true }));", &[COMMON]).await;
        for job in [&waiting, &endless] {
            let (cancel, outcome) = start(&pool, job, &json!({}));
            until("the run is under way", || pool.stats().running == 1).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.cancel();
            cancelled(outcome.await.unwrap());

            // Whoever drops the future takes the run with it; the slot is free when the isolate is gone.
            let slot = pool.slot(&None).await.unwrap();
            let run = slot.run(job.clone(), "{}".into(), Box::new(|_| {}), CancellationToken::new());
            let running = tokio::spawn(run);
            until("the run is under way", || pool.stats().running == 1).await;
            running.abort();
            until("the slot is free again", || pool.available() == 2).await;
        }
        let cancel = CancellationToken::new();
        cancel.cancel();
        cancelled(pool.run(quick.clone(), "{}".into(), Box::new(|_| {}), cancel).await);
        assert_eq!(completed(run(&pool, &quick, &json!({})).await), json!({ "done": true }));
        assert_eq!(pool.stats().lost, 0);
    });
}

pub fn a_run_can_be_cancelled_at_any_moment() {
    let server = Server::start();
    let origin = server.origin();
    with_pool(2, |pool| async move {
        let common = prepared(pool.host(), "fn(state => ({ ...state, sum: _.sum([1, 2]) }));", &[COMMON]).await;
        let http = prepared(pool.host(), &format!("get('{origin}/echo'); get('{origin}/gzip');"), &[HTTP]).await;
        let http = Job { network: Network::Open, ..http };
        // While the isolate is made, while the runtime loads its own scripts, while the job runs, and after.
        for step in 0..80 {
            let (cancel, outcome) = start(&pool, if step % 2 == 0 { &common } else { &http }, &json!({}));
            tokio::time::sleep(Duration::from_micros(700 * step)).await;
            cancel.cancel();
            let outcome = outcome.await.unwrap();
            if outcome.error.is_some() {
                cancelled(outcome);
            }
        }
        assert_eq!((pool.stats().lost, pool.available()), (0, 2));
        completed(run(&pool, &http, &json!({})).await);
    });
}

pub fn runs_that_hit_limits_leave_the_others_in_the_pool_alone() {
    with_pool(8, |pool| async move {
        let host = pool.host().clone();
        let offenders = tokio::task::spawn_blocking(move || offenders(&host)).await.unwrap();
        let neighbour = prepared(
            pool.host(),
            "each('$.items[*]', fn(async state => {
                 await new Promise(resolve => setTimeout(resolve, 1));
                 return { ...state, sum: (state.sum ?? 0) + state.data, buffer: Buffer.alloc(1 << 20, 7).length };
             }));",
            &[COMMON],
        )
        .await;
        let state = Arc::new(json!({ "items": (0..50).collect::<Vec<_>>() }));
        for _ in 0..2 {
            let bad: Vec<_> = offenders.iter().map(|(limit, job)| (*limit, start(&pool, job, &json!({})).1)).collect();
            let good: Vec<_> = (0..6).map(|_| start(&pool, &neighbour, &state).1).collect();
            for run in good {
                let state = completed(run.await.unwrap());
                assert_eq!((&state["sum"], &state["buffer"]), (&json!(1225), &json!(1 << 20)));
            }
            for (limit, run) in bad {
                let error = run.await.unwrap().error.unwrap_or_else(|| panic!("{limit:?} let a run complete"));
                assert_eq!(error.limit, Some(limit), "{error}");
            }
        }
        assert_eq!((pool.available(), pool.stats().lost), (8, 0));
        until("only spares hold buffers", || pool.stats().buffers < 1 << 20).await;
    });
}

pub fn a_thread_serves_runs_that_use_what_the_runtime_keeps_per_thread() {
    with_pool(1, |pool| async move {
        let server = Server::start();
        let port = server.port();
        let sources = [
            "webKey();".to_owned(),
            "nodeKey();".to_owned(),
            "vmModules();".to_owned(),
            "http2Settings();".to_owned(),
            format!("socket({port});"),
        ];
        let mut jobs = Vec::new();
        for source in &sources {
            let job = prepared(pool.host(), source, &[THREAD]).await;
            jobs.push(Job { network: Network::Open, ..job });
        }
        let mut first = Vec::new();
        for job in &jobs {
            first.push(completed(run(&pool, job, &json!({})).await));
        }
        // Each after each other one, on the one thread and the spare's.
        for before in &jobs {
            for (job, expected) in jobs.iter().zip(&first) {
                completed(run(&pool, before, &json!({})).await);
                assert_eq!(completed(run(&pool, job, &json!({})).await), *expected);
            }
        }
        assert_eq!(pool.stats().lost, 0);
    });
}

pub fn a_drained_pool_has_neither_runs_nor_threads() {
    with_pool(2, |pool| async move {
        let quick = prepared(pool.host(), "fn(state => ({ ...state, done: true }));", &[COMMON]).await;
        let waiting = prepared(pool.host(), WAITING, &[COMMON]).await;
        completed(run(&pool, &quick, &json!({})).await);
        let (cancel, last) = start(&pool, &waiting, &json!({}));
        until("the run is under way", || pool.stats().running == 1).await;
        let drained = tokio::spawn({
            let pool = pool.clone();
            async move { pool.drain().await }
        });
        until("no slot is given out", || pool.available() == 0).await;
        assert!(pool.slot(&None).await.is_none() && pool.try_slot(&None).is_none());
        assert!(!drained.is_finished(), "a run is under way");
        cancel.cancel();
        cancelled(last.await.unwrap());
        drained.await.unwrap();
        assert_eq!((pool.stats().spares, pool.stats().running), (0, 0));
        until("no thread is left", || crate::threads("isolate").is_empty()).await;
        assert_eq!(run(&pool, &quick, &json!({})).await.error.map(|error| error.severity), Some(Severity::Exception));
    });
}

pub fn a_lost_thread_does_not_cost_the_pool_a_slot() {
    with_pool(2, |pool| async move {
        let hopeless = prepared(pool.host(), HOPELESS[0], &[COMMON]).await;
        let quick = prepared(pool.host(), "fn(state => ({ ...state, done: true }));", &[COMMON]).await;
        let (_, offence) = start(&pool, &hopeless, &json!({}));
        until("the run is under way", || pool.stats().running == 1).await;
        completed(run(&pool, &quick, &json!({})).await);
        let error = offence.await.unwrap().error.expect("V8 cannot hold it");
        assert_eq!((error.name, error.limit), ("OOMError", Some(Limit::Heap)), "{error}");
        assert_eq!((pool.available(), pool.stats().lost), (2, 1));
        let both: Vec<_> = (0..2).map(|_| start(&pool, &quick, &json!({})).1).collect();
        for run in both {
            assert_eq!(completed(run.await.unwrap()), json!({ "done": true }));
        }
        assert_eq!(pool.available(), 2);
    });
}
