//! A fresh isolate in one process: what it costs, and where that goes.

use std::fmt::Write as _;
use std::time::Duration;

use fnhost::isolate::{Host, Job, RunStats};

use crate::goals::{Bound, Goals};
use crate::jobs::{cases, job};
use crate::memory::resident_mb;
use crate::project::Bench;
use crate::remote::Remote;
use crate::samples::{median, ms};

/// Runs of each job, after warming up.
const RUNS: usize = 60;
/// Isolates alive at once when their memory is measured.
const ALIVE: usize = 16;

pub fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let remote = Remote::start();
    let mut table = String::from(
        "## A fresh isolate in one process\n\nCreated, used for one run, dropped; code caches warm, and the snapshot holds \
         what runs of this job were seen to load, as that of a server does once it has seen them. Median of milliseconds; \
         CPU is that of the isolate's own thread, from its start until the isolate is gone. Memory is what each of 16 \
         isolates adds to the process while they wait side by side.\n\n\
         | | create | load | evaluate adaptor | operations | drop | CPU | heap MB | memory MB |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, adaptor, source) in cases(&remote) {
        eprintln!("isolates: {name}");
        let isolates = bench.isolates_for(adaptor, &source);
        let host = &isolates.host;
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
        let cpu = median(samples.iter().map(|stats| ms(stats.cpu)));
        match name {
            "language-common" => {
                goals.add("fresh isolate, language-common, CPU ms, create to drop", Bound::AtMost(6.0), cpu)
            }
            "language-http, nothing sent" => {
                goals.add("fresh isolate, language-http, CPU ms, create to drop", Bound::AtMost(8.0), cpu);
            }
            _ => {}
        }
    }
    table.push('\n');
    table
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
