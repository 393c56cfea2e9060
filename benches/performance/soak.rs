//! Memory of a server that goes on running.

use std::fmt::Write as _;

use crate::goals::{Bound, Goals};
use crate::load::backlog;
use crate::project::{Bench, project};

const STEPS: usize = 10;
/// By then what a server keeps for good is there, such as the pages that SQLite keeps in memory.
const FILLED: usize = 5;

/// Each with the runs of a step.
const LEVELS: [(&str, usize); 2] = [("run", 1000), ("workflow", 10_000)];

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let mut columns = Vec::new();
    for (level, runs) in LEVELS {
        let server = bench.serve("soak", &project(&format!("isolation: {level}"), "{}"), &[]);
        let mut memory = Vec::new();
        for step in 1..=STEPS {
            eprintln!("soak: {level}, {step} of {STEPS}");
            backlog(&server, 64, runs).await;
            memory.push((server.memory_mb("RssAnon"), server.resident_mb()));
        }
        let growth = memory[STEPS - 1].0 - memory[FILLED - 1].0;
        let what = format!("memory that {} further runs at `{level}` add, MB", runs * (STEPS - FILLED));
        goals.add(&what, Bound::AtMost(2.0), growth);
        columns.push(memory);
    }
    let [(_, few), (_, many)] = LEVELS;
    let mut table = String::from(
        "## Memory over many runs\n\nOf a server after so many of the small runs, posted by 64 clients; anonymous memory, and all \
         that is resident, which includes pages of files. In the first thousands of runs the page \
         caches of SQLite fill; then no more comes.\n\n\
         | runs at `run` | anonymous MB | resident MB | runs at `workflow` | anonymous MB | resident MB |\n\
         |---|---|---|---|---|---|\n",
    );
    for (step, (run, workflow)) in columns[0].iter().zip(&columns[1]).enumerate() {
        let done = step + 1;
        let _ = writeln!(
            table,
            "| {} | {:.1} | {:.1} | {} | {:.1} | {:.1} |",
            done * few,
            run.0,
            run.1,
            done * many,
            workflow.0,
            workflow.1
        );
    }
    table.push('\n');
    table
}
