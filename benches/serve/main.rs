//! What `fnhost serve` does, through HTTP: writes `docs/serve-performance.md`.
//!
//! `scripts/bench` runs it; `cargo bench --bench serve -- --only lists` prints one section. The program measured is the
//! real one, in a process of its own. Its clients are in this process, on the same processors: they are one thread, and
//! requests and answers are little more than bytes, so that most of the machine is the server's. What a figure is to be
//! held against is measured in the same run: the disk, and a process of `@openfn/core` for each message.

mod client;
mod hogs;
mod ingest;
mod isolation;
mod lists;
mod load;
#[path = "../measure/mod.rs"]
mod measure;
mod memory;
#[path = "../measure/npm.rs"]
mod npm;
mod peer;
mod project;
mod runs;
mod server;
mod starts;
#[path = "../measure/times.rs"]
mod times;

use std::fmt::Write as _;

use measure::{argument, machine};
use project::Bench;

const HEAD: &str = "# Performance of the server\n\nMade by `scripts/bench`; do not edit. All is one run on one machine, the \
clients on the same processors as the server, everything on the same disk.\n\n";

/// In the order of the page.
const SECTIONS: &[&str] = &["ingest", "runs", "isolation", "memory", "starts", "hogs", "lists"];

fn main() {
    let only = argument("--only");
    if let Some(only) = &only {
        assert!(SECTIONS.contains(&only.as_str()), "there is no section {only}; there are {SECTIONS:?}");
    }
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut report = String::from(HEAD);
    let _ = writeln!(report, "Machine: {}.\n", machine());
    for section in SECTIONS.iter().filter(|section| only.as_ref().is_none_or(|only| only == *section)) {
        report.push_str(&runtime.block_on(measured(section, &bench)));
    }
    let report = report.trim_end();
    println!("{report}");
    if let Some(file) = argument("--write") {
        std::fs::write(&file, format!("{report}\n")).unwrap_or_else(|error| panic!("cannot write {file}: {error}"));
        eprintln!("wrote {file}");
    }
}

async fn measured(section: &str, bench: &Bench) -> String {
    match section {
        "ingest" => ingest::measure(bench).await,
        "runs" => runs::measure(bench).await,
        "isolation" => isolation::measure(bench).await,
        "memory" => memory::measure(bench).await,
        "starts" => starts::measure(bench).await,
        "hogs" => hogs::measure(bench).await,
        "lists" => lists::measure(bench).await,
        _ => unreachable!("{section} is not in the list"),
    }
}
