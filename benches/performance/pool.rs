//! What a spare saves a run of the pool.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use fnhost::isolate::{IsolatePool, Job, PoolOptions, RunStats};
use tokio_util::sync::CancellationToken;

use crate::goals::{Bound, Goals};
use crate::jobs::{cases, job};
use crate::memory::resident_mb;
use crate::project::Bench;
use crate::remote::Remote;
use crate::samples::{median, ms};

/// Runs of each job, after warming up.
const RUNS: usize = 60;
/// Isolates that wait at once when their memory is measured.
const ALIVE: usize = 16;

pub fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let (host, remote) = (bench.host(), Remote::start());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut table = String::from(
        "## A warm isolate\n\nRuns of a pool, one at a time, that find an isolate ready or have one made. Wall is from the \
         request to the outcome, CPU that of the run alone. Median of milliseconds. Memory is what each of 16 isolates \
         adds to the process while it waits for a run.\n\n\
         | | wall, cold | wall, warm | CPU, cold | CPU, warm | evaluate, cold | evaluate, warm | memory MB |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mut most: f64 = 0.0;
    for (name, adaptor, source) in cases(&remote) {
        let job = job(host, adaptor, &source);
        let samples = |spares| {
            let pool = IsolatePool::new(
                host.clone(),
                PoolOptions { slots: 2, spares_per_set: spares, spares, ..PoolOptions::default() },
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
        let waiting = PoolOptions { slots: 2, spares_per_set: ALIVE, spares: ALIVE, ..PoolOptions::default() };
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
        most = most.max(memory);
    }
    goals.add("warm isolate, MB each", Bound::AtMost(12.0), most);
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
