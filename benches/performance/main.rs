//! What fnhost costs and does, beside the peers that a user would start otherwise: writes `docs/performance.md`.
//!
//! `scripts/bench` runs it; `cargo bench --bench performance -- --only lists` prints one section. First whole processes,
//! and isolates in this one. Then the server, through HTTP: the real program, in a process of its own. Its clients are in
//! this process, on the same processors: they are one thread, and requests and answers are little more than bytes, so that
//! most of the machine is the server's. What a figure is to be held against is measured in the same run: the disk, Node,
//! Deno, and OpenFn's own tools. Peers on Node are left out of the tables when `node` or `npm` is missing.

mod client;
mod goals;
mod hogs;
mod idle;
mod ingest;
mod isolates;
mod isolation;
mod jobs;
mod learning;
mod lists;
mod load;
#[path = "../measure/mod.rs"]
mod measure;
mod memory;
mod npm;
mod parts;
mod peer;
mod pool;
mod processes;
mod profile;
mod project;
mod remote;
mod runs;
mod samples;
mod scale;
mod server;
mod soak;
mod starts;
mod state;
#[path = "../measure/times.rs"]
mod times;
mod waiting;

use fnhost::isolate::platform;
use goals::Goals;
use measure::{argument, machine};
use project::Bench;
use tokio::runtime::Runtime;

/// In the order of the page.
const SECTIONS: &[&str] = &[
    "processes",
    "isolates",
    "pool",
    "state",
    "parts",
    "ingest",
    "runs",
    "profile",
    "isolation",
    "scale",
    "soak",
    "idle",
    "starts",
    "learning",
    "waiting",
    "hogs",
    "lists",
];

fn main() {
    platform::init();
    let only = argument("--only");
    if let Some(only) = &only {
        assert!(SECTIONS.contains(&only.as_str()), "there is no section {only}; there are {SECTIONS:?}");
    }
    let machine = machine();
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut goals = Goals::default();
    let sections = SECTIONS.iter().filter(|section| only.as_ref().is_none_or(|only| only == *section));
    let sections: String = sections.map(|section| measured(section, &bench, &runtime, &mut goals)).collect();
    let report = format!(
        "# Performance\n\nMade by `scripts/bench`; do not edit. All is one run on one machine, the clients of the server on the \
         same processors as the server, everything on the same disk.\n\nMachine: {machine}.\n\n{}{}\n",
        goals.table(),
        sections.trim_end(),
    );
    print!("{report}");
    if let Some(file) = argument("--write") {
        std::fs::write(&file, report).unwrap_or_else(|error| panic!("cannot write {file}: {error}"));
        eprintln!("wrote {file}");
    }
}

fn measured(section: &str, bench: &Bench, runtime: &Runtime, goals: &mut Goals) -> String {
    match section {
        "processes" => processes::measure(bench, goals),
        "isolates" => isolates::measure(bench, goals),
        "pool" => pool::measure(bench, goals),
        "state" => state::measure(bench, goals),
        "parts" => parts::measure(bench),
        "ingest" => runtime.block_on(ingest::measure(bench, goals)),
        "runs" => runtime.block_on(runs::measure(bench, goals)),
        "profile" => runtime.block_on(profile::measure(bench)),
        "isolation" => runtime.block_on(isolation::measure(bench, goals)),
        "soak" => runtime.block_on(soak::measure(bench, goals)),
        "scale" => runtime.block_on(scale::measure(bench)),
        "idle" => runtime.block_on(idle::measure(bench, goals)),
        "starts" => runtime.block_on(starts::measure(bench, goals)),
        "learning" => runtime.block_on(learning::measure(bench)),
        "waiting" => runtime.block_on(waiting::measure(bench, goals)),
        "hogs" => runtime.block_on(hogs::measure(bench, goals)),
        "lists" => runtime.block_on(lists::measure(bench, goals)),
        _ => unreachable!("{section} is not in the list"),
    }
}
