//! What `fnhost serve` does, through HTTP: writes `docs/serve-performance.md`.
//!
//! `scripts/bench` runs it; `cargo bench --bench serve -- --only lists` prints one section. The program measured is the
//! real one, in a process of its own. Its clients are in this process, on the same processors: they are one thread, and
//! requests and answers are little more than bytes, so that most of the machine is the server's. What a figure is to be
//! held against is measured in the same run: the disk, and a process of `@openfn/core` for each message.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fnhost::model::{
    Message, MessageId, Priority, Request, Run, RunId, RunState, Task, TaskId, TaskInput, TaskState, Timestamp,
};
use fnhost::store::sqlite::{SqliteOptions, SqliteStore};
use fnhost::store::{Intake, NewRun, Store};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(3);
/// How long a steady stream of messages lasts.
const STEADY: Duration = Duration::from_secs(5);
/// Messages of a backlog.
const BACKLOG: usize = 2000;
/// Requests one after the other.
const REQUESTS: usize = 300;
/// Processes of the peer, one after the other.
const ROUNDS: usize = 15;
/// Starts of the server.
const STARTS: usize = 10;
/// How long good jobs are sent beside bad ones, and how many a second.
const BESIDE: Duration = Duration::from_secs(12);
const GOOD_RATE: u32 = 10;
/// Jobs that never end or eat memory.
const HOGS: usize = 400;
const MILLION: usize = 1_000_000;
/// Runs kept in one transaction's operation while a store is filled.
const TOGETHER: usize = 200;
/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

const PEERS: &[&str] = &["@openfn/core@1.5.1", "@openfn/language-common@3.3.4"];
const HEAD: &str = "# Performance of the server\n\nMade by `scripts/bench`; do not edit. All is one run on one machine, the \
clients on the same processors as the server, everything on the same disk.\n\n";

fn main() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut report = String::from(HEAD);
    let _ = writeln!(report, "Machine: {}.\n", machine());
    let only = argument("--only");
    let wanted = |section: &str| only.as_ref().is_none_or(|only| only == section);
    runtime.block_on(async {
        if wanted("ingest") {
            report.push_str(&ingest(&bench).await);
        }
        if wanted("runs") {
            report.push_str(&runs(&bench).await);
        }
        if wanted("isolation") {
            report.push_str(&isolation(&bench).await);
        }
        if wanted("memory") {
            report.push_str(&memory(&bench).await);
        }
        if wanted("starts") {
            report.push_str(&starts(&bench).await);
        }
        if wanted("hogs") {
            report.push_str(&hogs(&bench).await);
        }
        if wanted("lists") {
            report.push_str(&lists(&bench).await);
        }
    });
    let report = report.trim_end();
    println!("{report}");
    if let Some(file) = argument("--write") {
        std::fs::write(&file, format!("{report}\n")).unwrap_or_else(|error| panic!("cannot write {file}: {error}"));
        eprintln!("wrote {file}");
    }
}

/// What follows `name` on the command line.
fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

// -----------------------------------------------------------------------------------------------------------------
// Taking messages in
// -----------------------------------------------------------------------------------------------------------------

async fn ingest(bench: &Bench) -> String {
    let file = bench.dir.path().join("disk");
    let (grown, grown_times) = syncs(&file, false);
    let (in_place, in_place_times) = syncs(&file, true);
    let mut table = format!(
        "## Taking messages in\n\nMessages of 1 KB; an answer comes when the message is on disk. Goals: 5,000 a second, and a \
         p99 below 25 ms at 1,000 a second, counted from the moment that each message was due to be sent.\n\n\
         | the disk: 4 KB written, then fdatasync | a second | p50 ms | p99 ms |\n|---|---|---|---|\n\
         | at the end of a file, which grows | {grown:.0} | {} | {} |\n\
         | in place, where the file stays as long as it is | {in_place:.0} | {} | {} |\n\n\
         | kept with each message | clients | acknowledged a second | p50 ms | p99 ms |\n|---|---|---|---|---|\n",
        grown_times.at(0.5),
        grown_times.at(0.99),
        in_place_times.at(0.5),
        in_place_times.at(0.99),
    );
    let nothing_matches = project("concurrency: 1", "{kind: other}");
    let all_match = project("concurrency: 1", "{}");
    for (name, project, path) in [
        ("nothing: no trigger matches", &nothing_matches, "/inbox"),
        ("a run, for later", &all_match, "/inbox?delay=1h"),
        ("a run, and one job at a time is running", &all_match, "/inbox"),
    ] {
        let server = bench.serve("ingest", project, &[]);
        let message = post(path, &format!("{{\"text\":\"{}\"}}", "x".repeat(1000)));
        for clients in [1, 16, 64, 256] {
            eprintln!("ingest: {name}, {clients} clients");
            let (rate, times) = flood(&server, clients, &message, SPAN).await;
            let _ = writeln!(table, "| {name} | {clients} | {rate:.0} | {} | {} |", times.at(0.5), times.at(0.99));
        }
        let times = steadily(&server, 1000, STEADY, &message).await;
        let _ = writeln!(table, "| {name} | steady | 1000 | {} | {} |", times.at(0.5), times.at(0.99));
    }
    table.push('\n');
    table
}

/// How often the disk syncs 4 KB at the end of a file, or at the beginning of one that is there: a file that grows costs
/// the file system more.
fn syncs(path: &Path, in_place: bool) -> (f64, Times) {
    let mut file = File::options().create(true).append(!in_place).write(true).open(path).expect("a file");
    let page = [7; 4096];
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < SPAN {
        if in_place {
            file.rewind().expect("a file");
        }
        let one = Instant::now();
        file.write_all(&page).and_then(|()| file.sync_data()).expect("a disk that writes");
        times.push(one.elapsed());
    }
    (times.len() as f64 / started.elapsed().as_secs_f64(), Times::new(times))
}

/// Clients that send a message again and again: how many were acknowledged in a second, and how long each took.
async fn flood(server: &Server, clients: usize, message: &[u8], span: Duration) -> (f64, Times) {
    let mut connections = server.connect(clients).await;
    let started = Instant::now();
    let sent = connections.iter_mut().map(async |client| {
        let mut times = Vec::new();
        while started.elapsed() < span {
            let one = Instant::now();
            client.send(message).await.expect(202);
            times.push(one.elapsed());
        }
        times
    });
    let times: Vec<Duration> = join_all(sent).await.into_iter().flatten().collect();
    (times.len() as f64 / started.elapsed().as_secs_f64(), Times::new(times))
}

/// Sends so many messages a second, whether those before are answered or not, as long as there is one of 64 connections
/// to send it on. Times begin when a message was due: one that had to wait for a connection has waited.
async fn steadily(server: &Server, rate: u32, span: Duration, message: &[u8]) -> Times {
    let mut connections = server.connect(64).await;
    let next = Cell::new(0);
    let times = RefCell::new(Vec::new());
    let started = Instant::now();
    let sent = connections.iter_mut().map(async |client| {
        loop {
            let due = Duration::from_secs(1) * next.replace(next.get() + 1) / rate;
            if due >= span {
                return;
            }
            tokio::time::sleep_until((started + due).into()).await;
            client.send(message).await.expect(202);
            times.borrow_mut().push(started.elapsed() - due);
        }
    });
    join_all(sent).await;
    Times::new(times.into_inner())
}

// -----------------------------------------------------------------------------------------------------------------
// From a message to the end of its run
// -----------------------------------------------------------------------------------------------------------------

async fn runs(bench: &Bench) -> String {
    let server = bench.serve("runs", &project("retry: false", "{}"), &[]);
    let mut client = server.client().await;
    let waiting = post("/inbox?wait=30s", "{}");
    let mut times = Vec::new();
    for round in 0..REQUESTS + 20 {
        let one = Instant::now();
        client.send(&waiting).await.expect(201);
        // The first ones warm the caches of the adaptor's code.
        if round >= 20 {
            times.push(one.elapsed());
        }
    }
    let latency = Times::new(times);
    let ended = client.metric("fnhost_runs_total", "completed").await;
    eprintln!("runs: a backlog of {BACKLOG}");
    let started = Instant::now();
    let message = post("/inbox", "{}");
    let mut connections = server.connect(50).await;
    let sent = connections.iter_mut().map(async |client| {
        for _ in 0..BACKLOG / 50 {
            client.send(&message).await.expect(202);
        }
    });
    join_all(sent).await;
    let posted = started.elapsed();
    while client.metric("fnhost_runs_total", "completed").await < ended + BACKLOG as f64 {
        assert!(started.elapsed() < PATIENCE, "the backlog does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rate = BACKLOG as f64 / started.elapsed().as_secs_f64();
    let resident = server.resident_mb();
    drop(server);

    let mut table = format!(
        "## From a message to the end of its run\n\nA job of language-common that changes the state. Latency: one message at a \
         time, from its sending until the answer of its run is there (`?wait`). Rate: {BACKLOG} messages, posted within \
         {posted:.1?}, until the last run has ended; for the peer, as many processes at a time as there are cores. The peer \
         starts for each message and keeps nothing on disk but the result. Goal: 10 times the peer.\n\n\
         | | runs a second | p50 ms | p99 ms |\n|---|---|---|---|\n\
         | fnhost serve | {rate:.1} | {} | {} |\n",
        latency.at(0.5),
        latency.at(0.99),
    );
    if let Some((peer_rate, peer_latency)) = bench.peer() {
        let _ = writeln!(
            table,
            "| @openfn/core CLI per message | {peer_rate:.1} | {} | {} |\n| times | {:.0} | {:.0} | |",
            peer_latency.at(0.5),
            peer_latency.at(1.0),
            rate / peer_rate,
            peer_latency.ms(0.5) / latency.ms(0.5),
        );
    }
    let _ = writeln!(table, "\nAfter these runs the server holds {resident:.0} MB.\n");
    table
}

// -----------------------------------------------------------------------------------------------------------------
// Levels of isolation
// -----------------------------------------------------------------------------------------------------------------

/// Messages that a level gets before it is measured, so that what is made once is made.
const WARM_UP: usize = 1000;

async fn isolation(bench: &Bench) -> String {
    let mut table = String::from(
        "## Levels of isolation\n\nThe same job, a message at a time for the latency, and for the rate a number of messages \
         posted by 64 clients, until the last run has ended. A run is on disk before it begins, and its result before it counts \
         as ended. `docs/isolation.md` says what the levels keep apart. Goals: 6,000 runs a second at `workflow`.\n\n\
         | `isolation` | messages | runs a second | p50 ms | p99 ms | CPU of the server per run, us | MB |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (level, messages) in [("run", 1000), ("workflow", 40_000)] {
        eprintln!("isolation: {level}");
        let server = bench.serve("isolation", &project(&format!("isolation: {level}"), "{}"), &[]);
        let mut client = server.client().await;
        let waiting = post("/inbox?wait=30s", "{}");
        for _ in 0..WARM_UP {
            client.send(&waiting).await.expect(201);
        }
        let mut times = Vec::new();
        for _ in 0..REQUESTS {
            let one = Instant::now();
            client.send(&waiting).await.expect(201);
            times.push(one.elapsed());
        }
        let latency = Times::new(times);
        let (ended, cpu) = (client.metric("fnhost_runs_total", "completed").await, server.cpu());
        let started = Instant::now();
        let message = post("/inbox", "{}");
        let mut connections = server.connect(64).await;
        let left = Cell::new(messages);
        let sent = connections.iter_mut().map(async |client| {
            while left.get() > 0 {
                left.set(left.get() - 1);
                client.send(&message).await.expect(202);
            }
        });
        join_all(sent).await;
        while client.metric("fnhost_runs_total", "completed").await < ended + f64::from(messages) {
            assert!(started.elapsed() < PATIENCE, "the runs do not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (rate, cpu) = (f64::from(messages) / started.elapsed().as_secs_f64(), server.cpu() - cpu);
        let _ = writeln!(
            table,
            "| `{level}` | {messages} | {rate:.0} | {} | {} | {:.0} | {:.0} |",
            latency.at(0.5),
            latency.at(0.99),
            cpu.as_secs_f64() * 1e6 / f64::from(messages),
            server.resident_mb(),
        );
    }
    table.push('\n');
    table
}

// -----------------------------------------------------------------------------------------------------------------
// Memory and start
// -----------------------------------------------------------------------------------------------------------------

async fn memory(bench: &Bench) -> String {
    let one_set = project("retry: false", "{}");
    let three_sets = "jobs:
  a: {adaptor: common, trigger: all, expression: fn(state => state)}
  b: {adaptor: http, trigger: all, expression: fn(state => state)}
  c: {adaptors: [common, http], trigger: all, expression: 'export default [state => state]'}
triggers:
  all: {criteria: {}}
";
    let idle = bench.idle(&one_set, 4, 1).await;
    // Packs are made once: that memory is not the isolates'.
    bench.idle(three_sets, 3, 3).await;
    let (bare, full) = (bench.idle(three_sets, 0, 0).await, bench.idle(three_sets, 3, 3).await);
    let mut table = String::from(
        "## Memory\n\nResident memory of a server that has started and has nothing to do. The spares of the last row are of \
         three sets of adaptors: language-common, language-http, and both. Goal: 80 MB idle.\n\n\
         | | MB |\n|---|---|\n",
    );
    let _ = writeln!(
        table,
        "| language-common, as set by default: one isolate ready | {idle:.0} |\n\
         | language-common and language-http, no isolate ready | {bare:.0} |\n\
         | the same, 3 isolates ready | {full:.0} |\n\
         | each isolate | {:.1} |\n",
        (full - bare) / 3.0,
    );
    table
}

async fn starts(bench: &Bench) -> String {
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
    format!(
        "## Start\n\nFrom the start of the process until `/readyz` says 200, {STARTS} times; the adaptor is installed. The very \
         first start also reads the adaptor's files and packs them. Goal: 150 ms.\n\n\
         | | p50 ms | min ms | max ms |\n|---|---|---|---|\n| first | {:.0} | | |\n| later | {} | {} | {} |\n\n",
        first.as_secs_f64() * 1000.0,
        times.at(0.5),
        times.at(0.0),
        times.at(1.0),
    )
}

// -----------------------------------------------------------------------------------------------------------------
// Neighbours
// -----------------------------------------------------------------------------------------------------------------

async fn hogs(bench: &Bench) -> String {
    let mut table = format!(
        "## Beside bad jobs\n\nA good job of language-common, {GOOD_RATE} times a second for {} s, alone and while another \
         workflow has {HOGS} tasks in the queue: endless loops (ended after 2 s) and jobs that fill their memory (64 MB), by \
         turns. From the creation of a run to its end. The server runs as many jobs at once as there are cores. Goal: a p99 \
         within 2 times of that alone.\n\n\
         | | good runs that ended | p50 ms | p99 ms | p99, times alone |\n|---|---|---|---|---|\n",
        BESIDE.as_secs()
    );
    let mut alone = None;
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
            times.0.len(),
            times.at(0.5),
            times.at(0.99),
            p99 / alone
        );
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
    let sent = steadily(&server, GOOD_RATE, BESIDE, &post("/inbox", r#"{"kind":"good"}"#)).await.0.len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let path = format!("/api/v1/runs?workflow=good&state=completed&since={since}&limit=500");
    let list: Value = serde_json::from_slice(client.send(&get(&path)).await.expect(200)).expect("JSON");
    let time = |run: &Value, field: &str| -> Timestamp { serde_json::from_value(run[field].clone()).expect("a time") };
    let runs = list["data"].as_array().expect("a list");
    let times = runs.iter().map(|run| time(run, "finished_at").since(time(run, "created_at"))).collect();
    (sent, Times::new(times))
}

// -----------------------------------------------------------------------------------------------------------------
// Lists
// -----------------------------------------------------------------------------------------------------------------

async fn lists(bench: &Bench) -> String {
    let dir = bench.project("lists", &project("retry: false", "{}"));
    eprintln!("lists: storing {MILLION} runs");
    let data = dir.join(".fnhost");
    std::fs::create_dir(&data).expect("a directory for the database");
    store_million(&data.join("fnhost.db")).await;
    let bytes = std::fs::metadata(data.join("fnhost.db")).map_or(0, |file| file.len());
    let server = Server::start(&dir, &[]);
    let mut client = server.client().await;
    let mut table = format!(
        "## Lists\n\n50 of {MILLION} runs of 20 workflows, {REQUESTS} times; the database has {} MB. Goal: a p99 below 20 ms.\
         \n\n| `GET /api/v1/runs` | p50 ms | p99 ms |\n|---|---|---|\n",
        bytes >> 20
    );
    let page = "/api/v1/runs?limit=50";
    for (name, path, turn) in [
        ("the first page", page.to_owned(), false),
        ("page after page", page.to_owned(), true),
        ("of one workflow, page after page", format!("{page}&workflow=workflow%207"), true),
        ("failed, page after page", format!("{page}&state=failed"), true),
    ] {
        let times = pages(&mut client, &path, turn).await;
        let _ = writeln!(table, "| {name} | {} | {} |", times.at(0.5), times.at(0.99));
    }
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

// -----------------------------------------------------------------------------------------------------------------
// The server, its clients, its peer
// -----------------------------------------------------------------------------------------------------------------

/// What all sections need.
struct Bench {
    /// Kept for the next time: adaptors and peers.
    home: PathBuf,
    /// Where adaptors are installed.
    store: PathBuf,
    /// Projects and databases.
    dir: tempfile::TempDir,
}

/// A project of one job, with a setting for the job and the criteria of its trigger.
fn project(setting: &str, criteria: &str) -> String {
    format!(
        "jobs:
  trivial:
    adaptor: common
    trigger: some
    {setting}
    expression: 'fn(state => ({{ ...state, data: {{ ok: true }} }}))'
triggers:
  some: {{criteria: {criteria}}}
"
    )
}

impl Bench {
    fn new() -> Self {
        let home = std::env::temp_dir().join("fnhost-bench");
        let store = home.join("serve-store");
        std::fs::create_dir_all(&store).expect("a directory for the bench");
        let mut install = Command::new(env!("CARGO_BIN_EXE_fnhost"));
        install.args(["install", "common@3.3.4", "http@7.2.10", "--repo-dir"]).arg(&store);
        assert!(install.status().expect("fnhost starts").success(), "the adaptors cannot be installed");
        let dir = tempfile::tempdir_in(&home).expect("a directory for the projects");
        Self { home, store, dir }
    }

    /// A new directory of a project, without a database.
    fn project(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).expect("a directory for a project");
        std::fs::write(dir.join("project.yaml"), text).expect("a project");
        symlink(self.store.join("node_modules"), dir.join("node_modules")).expect("a link to the adaptors");
        std::fs::copy(self.store.join("fnhost.lock"), dir.join("fnhost.lock")).expect("a lock");
        dir
    }

    /// A server of a new project.
    fn serve(&self, name: &str, text: &str, args: &[&str]) -> Server {
        Server::start(&self.project(name, text), args)
    }

    /// Resident memory of a server that may have so many spares, when it has as many as there are sets of adaptors.
    async fn idle(&self, text: &str, spares: usize, ready: usize) -> f64 {
        let server = self.serve("idle", text, &["--spares", &spares.to_string()]);
        server.isolates_ahead(ready).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.resident_mb()
    }

    /// How many processes of `@openfn/core` end in a second, and how long each takes by itself. None without Node.
    fn peer(&self) -> Option<(f64, Times)> {
        let dir = self.home.join("peers");
        if !dir.join("node_modules/@openfn/core/bin/core").exists() {
            std::fs::create_dir_all(&dir).ok()?;
            std::fs::write(dir.join("package.json"), "{\"private\": true}\n").ok()?;
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).args(PEERS);
            let installed = npm.current_dir(&dir).stdout(Stdio::null()).status();
            if !installed.is_ok_and(|status| status.success()) {
                eprintln!("the peer cannot be installed with npm: its rows are left out");
                return None;
            }
        }
        let work = self.dir.path();
        std::fs::write(work.join("job.js"), "fn(state => ({ ...state, data: { ok: true } }));\n").ok()?;
        std::fs::write(work.join("state.json"), "{}\n").ok()?;
        let start = |number: usize| {
            let mut core = Command::new("node");
            core.args(["node_modules/@openfn/core/bin/core", "execute", "-l", "@openfn/language-common", "-e"]);
            core.arg(work.join("job.js")).arg("-s").arg(work.join("state.json"));
            core.arg("-o").arg(work.join(format!("output-{number}.json")));
            core.current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            core.spawn().expect("node starts")
        };
        let end = |mut child: Child| assert!(child.wait().expect("it can be waited for").success(), "the peer failed");
        let mut times = Vec::new();
        for round in 0..=ROUNDS {
            let one = Instant::now();
            end(start(0));
            // The first round warms the disk's cache.
            if round > 0 {
                times.push(one.elapsed());
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let started = Instant::now();
        for _ in 0..ROUNDS {
            (0..cores).map(start).collect::<Vec<_>>().into_iter().for_each(end);
        }
        Some(((ROUNDS * cores) as f64 / started.elapsed().as_secs_f64(), Times::new(times)))
    }
}

/// `fnhost serve`. It is killed when it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    /// From the start of the process until it was ready.
    ready: Duration,
}

impl Server {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        // Not in the project's directory, which is watched for changes.
        let log = dir.with_extension("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_fnhost"));
        command.arg("serve").arg(dir).args(["--port", &address.port().to_string()]);
        command.args(["--no-install", "--no-auth", "--open-metrics"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).expect("a log"));
        let started = Instant::now();
        let child = command.spawn().expect("fnhost starts");
        let mut server = Self { child, address, ready: Duration::ZERO };
        while !is_ready(address) {
            let gone = server.child.try_wait().expect("its state").is_some();
            assert!(
                !gone && started.elapsed() < PATIENCE,
                "the server does not start:\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        server.ready = started.elapsed();
        server
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.set_nodelay(true).expect("a connection");
        Client { stream, received: Vec::with_capacity(4096) }
    }

    async fn connect(&self, clients: usize) -> Vec<Client> {
        join_all((0..clients).map(|_| self.client())).await
    }

    /// Waits until so many isolates are ready for a run.
    async fn isolates_ahead(&self, count: usize) {
        let mut client = self.client().await;
        let started = Instant::now();
        while client.metric("fnhost_isolates", "spare").await < count as f64 {
            assert!(started.elapsed() < PATIENCE, "{count} isolates are not made ahead");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Processor time that it has used.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("procfs");
        let (_, fields) = stat.rsplit_once(')').expect("the name of the program");
        let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
        // The kernel shows ticks of 10 ms, whatever it counts in.
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    fn resident_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("procfs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("a number of kB") / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let read = stream.write_all(request).and_then(|()| std::io::Read::read_to_string(&mut stream, &mut answer));
    read.is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// A connection that is kept, and costs little: it knows no more of HTTP than the server's answers need.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

struct Answer<'a> {
    head: &'a str,
    body: &'a [u8],
}

impl Client {
    async fn send(&mut self, request: &[u8]) -> Answer<'_> {
        self.stream.write_all(request).await.expect("the server reads");
        self.received.clear();
        let head = loop {
            self.receive().await;
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.received[..head]).expect("a head of ASCII");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("an answer with a length");
        while self.received.len() < head + length {
            self.receive().await;
        }
        let (head, body) = self.received.split_at(head);
        Answer { head: std::str::from_utf8(head).expect("checked above"), body }
    }

    async fn receive(&mut self) {
        let read = self.stream.read_buf(&mut self.received).await.expect("the server answers");
        assert!(read > 0, "the server closed the connection");
    }

    /// The sum of a metric's values, of those with this label.
    async fn metric(&mut self, name: &str, label: &str) -> f64 {
        let text = self.send(&get("/metrics")).await.expect(200);
        let lines = std::str::from_utf8(text).expect("UTF-8").lines();
        let wanted =
            lines.filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(&format!("\"{label}\"")));
        wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl<'a> Answer<'a> {
    /// The body of the answer that was hoped for.
    fn expect(self, status: u16) -> &'a [u8] {
        let expected = format!("HTTP/1.1 {status}");
        assert!(self.head.starts_with(&expected), "{}{}", self.head, String::from_utf8_lossy(self.body));
        self.body
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ");
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Durations in order.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Milliseconds within which this share of all ended; not a number if there are none.
    fn ms(&self, share: f64) -> f64 {
        let index = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    fn at(&self, share: f64) -> String {
        format!("{:.1}", self.ms(share))
    }
}

/// What the figures depend on: also who else was at work.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let node = Command::new("node").arg("--version").output().ok();
    let node =
        node.map_or("no Node".into(), |output| format!("Node {}", String::from_utf8_lossy(&output.stdout).trim()));
    format!(
        "{}, {cores} cores; load average of the minute before: {}; fnhost {}; {node}",
        model.trim_start_matches([' ', '\t', ':']),
        load.split(' ').next().unwrap_or("unknown"),
        env!("CARGO_PKG_VERSION")
    )
}
