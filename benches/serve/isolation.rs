//! What each level of isolation costs.

use std::fmt::Write as _;

use crate::client::post;
use crate::load::{backlog, one_at_a_time};
use crate::project::{Bench, project};

/// Messages that a level gets before it is measured, so that what is made once is made.
const WARM_UP: usize = 1000;
/// Requests one after the other.
const REQUESTS: usize = 300;

pub async fn measure(bench: &Bench) -> String {
    let mut table = String::from(
        "## Levels of isolation\n\nThe same job, a message at a time for the latency, and for the rate a number of messages \
         posted by 64 clients, until the last run has ended. A run is on disk before it begins, and its result before it counts \
         as ended. `docs/isolation.md` says what the levels keep apart. Goals: 3,000 runs a second at `module`, 6,000 at `workflow`.\n\n\
         | `isolation` | messages | runs a second | p50 ms | p99 ms | CPU of the server per run, us | MB |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (level, messages) in [("run", 1000), ("module", 20_000), ("workflow", 40_000)] {
        eprintln!("isolation: {level}");
        let server = bench.serve("isolation", &project(&format!("isolation: {level}"), "{}"), &[]);
        let latency =
            one_at_a_time(&mut server.client().await, &post("/inbox?wait=30s", "{}"), WARM_UP, REQUESTS).await;
        let cpu = server.cpu();
        let ended = backlog(&server, 64, messages).await.ended;
        let (rate, cpu) = (messages as f64 / ended.as_secs_f64(), server.cpu() - cpu);
        let _ = writeln!(
            table,
            "| `{level}` | {messages} | {rate:.0} | {} | {} | {:.0} | {:.0} |",
            latency.at(0.5),
            latency.at(0.99),
            cpu.as_secs_f64() * 1e6 / messages as f64,
            server.resident_mb(),
        );
    }
    table.push('\n');
    table
}
