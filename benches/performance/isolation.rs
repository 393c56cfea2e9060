//! What each level of isolation costs.

use std::fmt::Write as _;

use crate::client::post;
use crate::goals::{Bound, Goals, figure};
use crate::load::{backlog, one_at_a_time};
use crate::peer::{self, OneProcess};
use crate::project::{Bench, project};

/// Messages that a level gets before it is measured, so that what is made once is made.
const WARM_UP: usize = 1000;
/// Requests one after the other.
const REQUESTS: usize = 300;

/// How long the peer runs.
const PEER_SECONDS: u32 = 6;

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let mut table = String::from(
        "## Levels of isolation\n\nThe same job, a message at a time for the latency, and for the rate a number of messages \
         posted by 64 clients, until the last run has ended. A run is on disk before it begins, and its result before it counts \
         as ended. [Isolation](isolation.md) says what the levels keep apart. The peer is `@openfn/runtime` in one process of \
         Node that runs the compiled job again and again: modules of adaptors are shared by its runs, and nothing is kept on \
         disk.\n\n\
         | `isolation` | messages | runs a second | times the peer | p50 ms | p99 ms | CPU per run, us | MB |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let peer = peer::one_process(bench, PEER_SECONDS);
    for (level, messages) in [("run", 1000), ("workflow", 40_000)] {
        eprintln!("isolation: {level}");
        let server = bench.serve("isolation", &project(&format!("isolation: {level}"), "{}"), &[]);
        let latency =
            one_at_a_time(&mut server.client().await, &post("/inbox?wait=30s", "{}"), WARM_UP, REQUESTS).await;
        let cpu = server.cpu();
        let ended = backlog(&server, 64, messages).await.ended;
        let (rate, cpu) = (messages as f64 / ended.as_secs_f64(), server.cpu() - cpu);
        let times = peer.as_ref().map_or(String::new(), |peer| figure(rate / peer.rate));
        let _ = writeln!(
            table,
            "| `{level}` | {messages} | {rate:.0} | {times} | {} | {} | {:.0} | {:.0} |",
            latency.at(0.5),
            latency.at(0.99),
            cpu.as_secs_f64() * 1e6 / messages as f64,
            server.resident_mb(),
        );
        if let Some(goal) = goal(level) {
            goals.add(&format!("runs a second at `{level}`"), Bound::AtLeast(goal), rate);
        }
        if let (Some(peer), "module") = (&peer, level) {
            let name = format!("@openfn/runtime in one process: {}", figure(peer.rate));
            goals.add_beside("the same; 8 times the peer", &name, Bound::AtLeast(8.0 * peer.rate), rate);
        }
    }
    if let Some(OneProcess { rate, cpu }) = peer {
        let _ = writeln!(table, "| @openfn/runtime on Node | | {rate:.0} | 1 | | | {cpu:.0} | |");
    }
    table.push('\n');
    table
}

/// Runs a second.
fn goal(level: &str) -> Option<f64> {
    match level {
        "module" => Some(3000.0),
        "workflow" => Some(6000.0),
        // `runs` has it.
        _ => None,
    }
}
