//! What bad jobs of one workflow do to good ones of another.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use fnhost::model::Timestamp;
use serde_json::Value;

use crate::client::{get, post};
use crate::goals::{Bound, Goals};
use crate::load::steadily;
use crate::project::Bench;
use crate::times::Times;

/// How long good jobs are sent beside bad ones, and how many a second.
const BESIDE: Duration = Duration::from_secs(12);
const GOOD_RATE: u32 = 10;
/// Jobs that never end or eat memory.
const HOGS: usize = 400;

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let mut table = format!(
        "## Beside bad jobs\n\nA good job of language-common, {GOOD_RATE} times a second for {} s, alone and while another \
         workflow has {HOGS} tasks in the queue: endless loops (ended after 2 s) and jobs that fill their memory (64 MB), by \
         turns. From the creation of a run to its end. The server runs as many jobs at once as there are cores.\n\n\
         | | good runs that ended | p50 ms | p99 ms | p99, times alone |\n|---|---|---|---|---|\n",
        BESIDE.as_secs()
    );
    let mut alone: Option<f64> = None;
    for (name, limit, hogs) in [
        ("alone", "", 0),
        ("beside hogs, with `concurrency: 1` for their workflow", "concurrency: 1", HOGS),
        ("beside hogs, without a limit for their workflow", "", HOGS),
    ] {
        eprintln!("hogs: {name}");
        let (sent, times) = good_runs(bench, limit, hogs).await;
        let p99 = times.ms(0.99);
        let alone = *alone.get_or_insert(p99);
        let _ = writeln!(
            table,
            "| {name} | {} of {sent} | {} | {} | {:.1} |",
            times.count(),
            times.at(0.5),
            times.at(0.99),
            p99 / alone
        );
        if !limit.is_empty() {
            let peer = format!("alone: {alone:.1}");
            let what = "good runs beside bad jobs, p99 ms; twice that alone";
            goals.add_beside(what, &peer, Bound::AtMost(2.0 * alone), p99);
        }
    }
    table.push('\n');
    table
}

/// How many good runs were started, and how long those took that had ended some seconds later.
async fn good_runs(bench: &Bench, limit: &str, hogs: usize) -> (usize, Times) {
    let text = format!(
        "jobs:
  good: {{adaptor: common, trigger: good, expression: fn(state => state)}}
  hog:
    adaptor: common
    trigger: bad
    timeout: 2s
    memory: 64
    {limit}
    expression: |
      fn(state => {{
        const kept = [];
        for (;;) if (state.data.memory) kept.push(new Array(10000).fill(0.5));
      }})
triggers:
  good: {{criteria: {{kind: good}}}}
  bad: {{criteria: {{kind: bad}}}}
"
    );
    let server = bench.serve("hogs", &text, &[]);
    let mut client = server.client().await;
    let warm_up = post("/inbox?wait=30s", r#"{"kind":"good"}"#);
    for _ in 0..20 {
        client.send(&warm_up).await.expect(201);
    }
    for hog in 0..hogs {
        let message = format!(r#"{{"kind":"bad","memory":{}}}"#, hog % 2 == 1);
        client.send(&post("/inbox", &message)).await.expect(202);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let since = Timestamp::from(SystemTime::now());
    let sent = steadily(&server, GOOD_RATE, BESIDE, &post("/inbox", r#"{"kind":"good"}"#)).await.count();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let path = format!("/api/v1/runs?workflow=good&state=completed&since={since}&limit=500");
    let list: Value = serde_json::from_slice(client.send(&get(&path)).await.expect(200)).expect("JSON");
    let time = |run: &Value, field: &str| -> Timestamp { serde_json::from_value(run[field].clone()).expect("a time") };
    let runs = list["data"].as_array().expect("a list");
    let times = runs.iter().map(|run| time(run, "finished_at").since(time(run, "created_at"))).collect();
    (sent, Times::new(times))
}
