//! From a message to the end of its run, beside a process of `@openfn/core` for each message.

use std::fmt::Write as _;

use crate::client::post;
use crate::goals::{Bound, Goals};
use crate::load::{backlog, one_at_a_time, one_now_and_then};
use crate::peer;
use crate::project::{Bench, project};

/// Messages of a backlog.
const BACKLOG: usize = 2000;
/// Requests one after the other, and those that come before them.
const REQUESTS: usize = 300;
const WARM_UP: usize = 20;

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let server = bench.serve("runs", &project("retry: false", "{}"), &[]);
    let latency = one_at_a_time(&mut server.client().await, &post("/inbox?wait=30s", "{}"), WARM_UP, REQUESTS).await;
    let idle = one_now_and_then(&mut server.client().await, &post("/inbox?wait=30s", "{}"), REQUESTS).await;
    eprintln!("runs: a backlog of {BACKLOG}");
    let done = backlog(&server, 50, BACKLOG).await;
    let (posted, rate) = (done.posted, BACKLOG as f64 / done.ended.as_secs_f64());
    let resident = server.resident_mb();
    drop(server);

    let mut table = format!(
        "## From a message to the end of its run\n\nA job of language-common that changes the state. Latency: one message \
         after the other, from its sending until the answer of its run is there (`?wait`); in the second row after a pause in \
         which the server does nothing. Rate: {BACKLOG} messages, posted within \
         {posted:.1?}, until the last run has ended; for the peer, as many processes at a time as there are cores. The peer \
         starts for each message and keeps nothing on disk but the result.\n\n\
         | | runs a second | p50 ms | p99 ms |\n|---|---|---|---|\n\
         | fnhost serve | {rate:.1} | {} | {} |\n| the same, idle before each | | {} | {} |\n",
        latency.at(0.5),
        latency.at(0.99),
        idle.at(0.5),
        idle.at(0.99),
    );
    goals.add("a message to the output of its run on an idle server, p50 ms", Bound::AtMost(5.0), idle.ms(0.5));
    goals.add("the same, p99 ms", Bound::AtMost(15.0), idle.ms(0.99));
    goals.add("runs a second at `run`", Bound::AtLeast(250.0), rate);
    if let Some((peer_rate, peer_latency)) = peer::processes(bench) {
        let _ = writeln!(
            table,
            "| @openfn/core CLI per message | {peer_rate:.1} | {} | {} |\n| times | {:.0} | {:.0} | |",
            peer_latency.at(0.5),
            peer_latency.at(1.0),
            rate / peer_rate,
            peer_latency.ms(0.5) / latency.ms(0.5),
        );
        let peer = format!("@openfn/core CLI: {peer_rate:.1}");
        goals.add_beside("the same; 40 times the peer", &peer, Bound::AtLeast(40.0 * peer_rate), rate);
    }
    let _ = writeln!(table, "\nAfter these runs the server holds {resident:.0} MB.\n");
    table
}
