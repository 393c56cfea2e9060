//! Lists of runs when there are a million.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use fnhost::model::{
    Message, MessageId, Priority, Request, Run, RunId, RunState, Task, TaskId, TaskInput, TaskState, Timestamp,
};
use fnhost::store::sqlite::{SqliteOptions, SqliteStore};
use fnhost::store::{Intake, NewRun, Store};
use serde_json::Value;

use crate::client::{Client, get};
use crate::goals::{Bound, Goals};
use crate::project::{Bench, project};
use crate::server::Server;
use crate::times::Times;

/// Pages read of each list.
const REQUESTS: usize = 300;
const MILLION: usize = 1_000_000;
/// Runs kept in one transaction's operation while a store is filled.
const TOGETHER: usize = 200;

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let dir = bench.project("lists", &project("retry: false", "{}"));
    eprintln!("lists: storing {MILLION} runs");
    let data = dir.join(".fnhost");
    std::fs::create_dir(&data).expect("a directory for the database");
    store_million(&data.join("fnhost.db")).await;
    let bytes = std::fs::metadata(data.join("fnhost.db")).map_or(0, |file| file.len());
    let server = Server::start(&dir, &[]);
    let mut client = server.client().await;
    let mut table = format!(
        "## Lists\n\n50 of {MILLION} runs of 20 workflows, {REQUESTS} times; the database has {} MB.\
         \n\n| `GET /api/v1/runs` | p50 ms | p99 ms |\n|---|---|---|\n",
        bytes >> 20
    );
    let page = "/api/v1/runs?limit=50";
    let mut slowest: f64 = 0.0;
    for (name, path, turn) in [
        ("the first page", page.to_owned(), false),
        ("page after page", page.to_owned(), true),
        ("of one workflow, page after page", format!("{page}&workflow=workflow%207"), true),
        ("failed, page after page", format!("{page}&state=failed"), true),
    ] {
        let times = pages(&mut client, &path, turn).await;
        let _ = writeln!(table, "| {name} | {} | {} |", times.at(0.5), times.at(0.99));
        slowest = slowest.max(times.ms(0.99));
    }
    goals.add("lists of a million runs, p99 ms", Bound::AtMost(20.0), slowest);
    table.push('\n');
    table
}

/// Reads a page again and again, or one page after the other.
async fn pages(client: &mut Client, path: &str, turn: bool) -> Times {
    let mut times = Vec::new();
    let mut request = get(path);
    for _ in 0..REQUESTS {
        let one = Instant::now();
        let body = client.send(&request).await.expect(200);
        times.push(one.elapsed());
        let list: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!(list["data"].as_array().map(Vec::len), Some(50), "{path}");
        if turn {
            request = get(&format!("{path}&after={}", list["next"].as_str().expect("another page")));
        }
    }
    Times::new(times)
}

async fn store_million(path: &Path) {
    let store = Arc::new(SqliteStore::open(path, &SqliteOptions::default()).expect("a store"));
    let mut running = tokio::task::JoinSet::new();
    for from in (0..MILLION).step_by(TOGETHER) {
        if running.len() >= 16 {
            running.join_next().await;
        }
        let (store, intake) = (store.clone(), ended_runs(from..from + TOGETHER));
        running.spawn(async move { store.admit(intake).await.expect("admitted") });
    }
    running.join_all().await;
    store.close().await;
}

/// A message with runs that have ended, one in twenty of them badly.
fn ended_runs(numbers: std::ops::Range<usize>) -> Intake {
    let now = Timestamp::from(SystemTime::now());
    let message = Message {
        id: MessageId::new(),
        topic: "inbox".into(),
        data: "{}".into(),
        body: None,
        request: Request { method: "POST".into(), path: "/inbox".into(), ..Request::default() },
        received_at: now,
        deliver_at: None,
        dedupe_key: None,
    };
    let new = |number: usize| {
        let failed = number.is_multiple_of(20);
        let run = Run {
            id: RunId::new(),
            workflow: format!("workflow {}", number / 20 % 20),
            version: 1,
            trigger: None,
            message: Some(message.id),
            retry_of: None,
            state: if failed { RunState::Failed } else { RunState::Completed },
            priority: Priority::Normal,
            created_at: now,
            started_at: Some(now),
            finished_at: Some(now),
            failure: None,
            traceparent: None,
        };
        let task = Task {
            id: TaskId::new(),
            run: run.id,
            workflow: run.workflow.clone(),
            step: "job".into(),
            state: if failed { TaskState::Dead } else { TaskState::Completed },
            run_at: now,
            priority: Priority::Normal,
            attempts: 1,
            input: TaskInput::Message,
            created_at: now,
        };
        NewRun { run, tasks: vec![task] }
    };
    let runs = numbers.map(new).collect();
    Intake { message: Some(message), runs, ..Intake::default() }
}
