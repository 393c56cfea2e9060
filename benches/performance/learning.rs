//! What a server learns while it serves.

use std::fmt::Write as _;
use std::time::Duration;

use crate::load::backlog;
use crate::project::Bench;
use crate::remote::Remote;
use crate::server::Server;

/// Messages at once. A snapshot is taken up between two batches, or in the middle of one.
const MESSAGES: usize = 100;
const CLIENTS: usize = 8;
/// Batches that must do to see a snapshot taken up.
const PATIENCE: usize = 60;
/// Batches after that.
const LATER: usize = 5;

/// What the log says when a snapshot was taken up, after how long runs were held back for it.
const TAKEN_UP: &str = "isolates start from a snapshot";

pub async fn measure(bench: &Bench) -> String {
    let project = format!(
        "jobs:\n  fetch: {{ adaptor: http, trigger: some, expression: \"get('{}')\" }}\ntriggers:\n  some: {{ criteria: {{}} }}\n",
        Remote::start().url()
    );
    let dir = bench.project("learning", &project);
    // What runs of other jobs have shown.
    let _ = std::fs::remove_dir_all(bench.store.join("node_modules/.fnhost/packs"));
    let server = Server::start(&dir, &[]);
    let mut batches = Vec::new();
    while !server.log().contains(TAKEN_UP) {
        assert!(batches.len() < PATIENCE, "no snapshot is taken up: {}", server.log());
        batches.push(batch(&server).await);
    }
    // It was taken up in the last one.
    batches.pop();
    let log = server.log();
    let line = log.lines().find(|line| line.contains(TAKEN_UP)).unwrap_or_default();
    let held_back = line.rsplit("ms=").next().unwrap_or_default();
    let mut table = format!(
        "## What a server learns\n\nOne GET with language-http at `isolation: run`, {MESSAGES} messages at once again and again, \
         in a server of a store whose adaptors have never run. When the server had seen what runs load, it took up a snapshot \
         of it; runs were held back for {held_back} ms.\n\n| | runs | runs/s | CPU of the server per run, ms |\n|---|---|---|---|\n"
    );
    row(&mut table, "before", &batches);
    row(&mut table, "after", &later(&server).await);
    drop(server);
    row(&mut table, "the same server started again", &later(&Server::start(&dir, &[])).await);
    table.push('\n');
    table
}

/// How long a batch took, and the server's processors for it.
async fn batch(server: &Server) -> (Duration, Duration) {
    let cpu = server.cpu();
    let ended = backlog(server, CLIENTS, MESSAGES).await.ended;
    (ended, server.cpu() - cpu)
}

async fn later(server: &Server) -> Vec<(Duration, Duration)> {
    let mut batches = Vec::new();
    for _ in 0..LATER {
        batches.push(batch(server).await);
    }
    batches
}

fn row(table: &mut String, name: &str, batches: &[(Duration, Duration)]) {
    let runs = (batches.len() * MESSAGES) as f64;
    let ended: Duration = batches.iter().map(|(ended, _)| *ended).sum();
    let cpu: Duration = batches.iter().map(|(_, cpu)| *cpu).sum();
    let _ = writeln!(
        table,
        "| {name} | {runs} | {:.0} | {:.1} |",
        runs / ended.as_secs_f64(),
        cpu.as_secs_f64() * 1000.0 / runs
    );
}
