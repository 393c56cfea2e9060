//! How long the server takes to be ready.

use std::time::Duration;

use crate::goals::{Bound, Goals};
use crate::project::{Bench, project};
use crate::server::Server;
use crate::times::Times;

/// Starts of the server.
const STARTS: usize = 10;

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let text = project("retry: false", "{}");
    let dir = bench.project("starts", &text);
    let _ = std::fs::remove_dir_all(bench.store.join("node_modules/.fnhost/packs"));
    let server = Server::start(&dir, &[]);
    let first = server.ready;
    // The pack is on disk when isolates are made ahead.
    server.isolates_ahead(1).await;
    drop(server);
    let times: Vec<Duration> = (0..STARTS).map(|_| Server::start(&dir, &[]).ready).collect();
    let times = Times::new(times);
    goals.add("start of the server until it is ready, ms", Bound::AtMost(150.0), times.ms(0.5));
    format!(
        "## Start\n\nFrom the start of the process until `/readyz` says 200, {STARTS} times; the adaptor is installed. The very \
         first start also reads the adaptor's files and packs them.\n\n\
         | | p50 ms | min ms | max ms |\n|---|---|---|---|\n| first | {:.0} | | |\n| later | {} | {} | {} |\n\n",
        first.as_secs_f64() * 1000.0,
        times.at(0.5),
        times.at(0.0),
        times.at(1.0),
    )
}
