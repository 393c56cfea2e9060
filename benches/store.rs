//! What the store in SQLite does in a second, beside what the disk does.
//!
//! `cargo bench --bench store` (`-- --dir DIR` for another disk than that of the temporary directory, `-- --only SECTION`
//! for one section). An answer comes after a sync of the disk, so the first figure is how often the disk syncs: a store
//! without group commit could never admit more messages than that. Then: messages admitted, tasks claimed and settled,
//! both together as the engine does it (`pipeline`), claims beside a long queue, and lists when a million runs are stored.

mod measure;
#[path = "measure/times.rs"]
mod times;

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use fnhost::model::{
    Attempt, AttemptId, AttemptOutcome, Failure, Message, MessageId, Priority, Request, Run, RunId, RunState, Severity,
    Task, TaskId, TaskInput, TaskState, Timestamp, Usage,
};
use fnhost::store::sqlite::{SqliteOptions, SqliteStore};
use fnhost::store::{
    Claim, ClaimedTask, Intake, Lease, MessageFilter, NewRun, PageRequest, RunFilter, Settlement, Store, Then,
};
use measure::{argument, machine};
use times::Times;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(5);
/// Bytes of each message.
const PAYLOAD: usize = 1000;
const MILLION: usize = 1_000_000;
/// Tasks claimed at once in the pipeline.
const AHEAD: usize = 64;
/// Pages read of each list.
const PAGES: usize = 300;

fn main() {
    let dir = argument("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let home = tempfile::tempdir_in(&dir).expect("a directory for the bench");
    println!("{}, {}\n", machine(), dir.display());
    let only = argument("--only");
    let wanted = |section: &str| only.as_ref().is_none_or(|only| only == section);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if wanted("disk") {
            disk(home.path());
        }
        if wanted("admissions") {
            admissions(home.path()).await;
        }
        if wanted("settlements") {
            settlements(home.path()).await;
        }
        if wanted("pipeline") {
            pipeline(home.path()).await;
        }
        if wanted("queue") {
            long_queue(home.path()).await;
        }
        if wanted("lists") {
            lists(home.path()).await;
        }
    });
}

/// The median, the 99th percentile and the slowest, in milliseconds.
fn percentiles(times: &Times) -> String {
    [0.5, 0.99, 1.0].map(|share| times.at(share)).join(" | ")
}

/// How often the disk syncs 4 KB at the end of a file.
fn disk(home: &Path) {
    let mut file = File::create(home.join("append")).expect("a file");
    let page = [7; 4096];
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < SPAN {
        let one = Instant::now();
        file.write_all(&page).and_then(|()| file.sync_data()).expect("a disk that writes");
        times.push(one.elapsed());
    }
    let times = Times::new(times);
    let rate = times.count() as f64 / started.elapsed().as_secs_f64();
    println!("| append 4 KB and fdatasync | a second | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|");
    println!("| | {rate:.0} | {} |\n", percentiles(&times));
}

fn open(home: &Path, name: &str) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(home.join(name), &SqliteOptions::default()).expect("a store"))
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn message() -> Message {
    Message {
        id: MessageId::new(),
        topic: "inbox".into(),
        data: format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD)),
        body: None,
        request: Request { method: "POST".into(), path: "/inbox".into(), ..Request::default() },
        received_at: now(),
        deliver_at: None,
        dedupe_key: None,
    }
}

fn new_run(workflow: &str, message: Option<MessageId>) -> NewRun {
    let created_at = now();
    let run = Run {
        id: RunId::new(),
        workflow: workflow.into(),
        version: 1,
        trigger: Some("inbox".into()),
        message,
        retry_of: None,
        state: RunState::Pending,
        priority: Priority::Normal,
        created_at,
        started_at: None,
        finished_at: None,
        failure: None,
        traceparent: None,
    };
    let task = Task {
        id: TaskId::new(),
        run: run.id,
        workflow: run.workflow.clone(),
        step: "job".into(),
        state: TaskState::Queued,
        run_at: created_at,
        priority: run.priority,
        attempts: 0,
        input: TaskInput::Message,
        created_at,
    };
    NewRun { run, tasks: vec![task] }
}

fn intake() -> Intake {
    let message = message();
    let runs = vec![new_run("workflow", Some(message.id))];
    Intake { message: Some(message), runs, ..Intake::default() }
}

/// Lets `workers` do `work` again and again until the time is over or there is no more: how often a second, and how long
/// each took.
async fn together<F, W>(workers: usize, span: Duration, work: W) -> (f64, Times)
where
    W: Fn() -> F,
    F: Future<Output = bool> + Send + 'static,
{
    let started = Instant::now();
    let mut times = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    let timed = |future: F| async move {
        let one = Instant::now();
        let more = future.await;
        (one.elapsed(), more)
    };
    for _ in 0..workers {
        running.spawn(timed(work()));
    }
    while let Some(done) = running.join_next().await {
        let (time, more) = done.expect("no panic");
        times.push(time);
        if more && started.elapsed() < span {
            running.spawn(timed(work()));
        }
    }
    (times.len() as f64 / started.elapsed().as_secs_f64(), Times::new(times))
}

/// A message with a run and its task, each acknowledged.
async fn admissions(home: &Path) {
    println!(
        "| admitted: message, run and task | a second | commits a second | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|---|"
    );
    for senders in [1, 16, 64, 256] {
        let store = open(home, &format!("admissions-{senders}"));
        let before = store.stats().commits;
        let (rate, times) = together(senders, SPAN, || {
            let store = store.clone();
            async move { store.admit(intake()).await.is_ok() }
        })
        .await;
        let commits = (store.stats().commits - before) as f64 / SPAN.as_secs_f64();
        println!("| {senders} at once | {rate:.0} | {commits:.0} | {} |", percentiles(&times));
        store.close().await;
    }
    println!();
}

fn wish(limit: usize) -> Claim {
    let now = now();
    Claim {
        owner: "bench".into(),
        now,
        lease_until: now.saturating_add(Duration::from_secs(60)),
        limit,
        allowance: HashMap::new(),
        otherwise: usize::MAX,
        running: HashMap::new(),
    }
}

fn settlement(claimed: &ClaimedTask) -> Settlement {
    let attempt = Attempt {
        id: AttemptId::new(),
        task: claimed.task.id,
        number: claimed.task.attempts,
        started_at: claimed.lease_started,
        finished_at: now(),
        outcome: AttemptOutcome::Success,
        failure: None,
        usage: Usage::default(),
    };
    Settlement {
        owner: "bench".into(),
        attempt,
        output: Some(format!("{{\"data\":\"{}\"}}", "y".repeat(PAYLOAD)).into()),
        log: "{\"level\":\"info\",\"message\":\"hello\"}\n".repeat(5),
        keep_cursor: false,
        then: Then::Next { state: TaskState::Completed, tasks: vec![] },
        lease: None,
    }
}

/// Fills the queue of a workflow.
async fn fill(store: &SqliteStore, workflow: &str, tasks: usize) {
    for from in (0..tasks).step_by(1000) {
        let runs = (from..tasks.min(from + 1000)).map(|_| new_run(workflow, None)).collect();
        store.admit(Intake { runs, ..Intake::default() }).await.expect("admitted");
    }
}

/// Workers that claim one task, do nothing, and settle it with an output and a log.
async fn settlements(home: &Path) {
    println!("| claimed and settled | a second | p50 of both ms | p99 ms | max ms |\n|---|---|---|---|---|");
    for workers in [1, 8, 64] {
        let store = open(home, &format!("settlements-{workers}"));
        fill(&store, "workflow", 100_000).await;
        let (rate, times) = together(workers, SPAN, || {
            let store = store.clone();
            async move {
                let claimed = store.claim(wish(1)).await.expect("a claim").tasks;
                for claimed in &claimed {
                    store.settle(settlement(claimed)).await.expect("settled");
                }
                !claimed.is_empty()
            }
        })
        .await;
        println!("| {workers} workers | {rate:.0} | {} |", percentiles(&times));
        store.close().await;
    }
    println!();
}

/// From a message to the end of its run, as the engine goes about it, with attempts that cost nothing: senders at work
/// while one scheduler claims what is due and each task is settled on its own. What it costs, and on which threads.
async fn pipeline(home: &Path) {
    println!(
        "| message to finished run | runs a second | commits a second | CPU a run | of it the writer |\n|---|---|---|---|---|"
    );
    for senders in [1, 16, 64] {
        let store = open(home, &format!("pipeline-{senders}"));
        let (before, cpu, started) = (store.stats().commits, ThreadTimes::now(), Instant::now());
        let runs = pipe(&store, senders, SPAN).await;
        let (span, cpu) = (started.elapsed().as_secs_f64(), ThreadTimes::now().since(&cpu));
        let each = |time: Duration| format!("{:.0} us", time.as_secs_f64() * 1e6 / runs as f64);
        println!(
            "| {senders} senders | {:.0} | {:.0} | {} | {} |",
            runs as f64 / span,
            (store.stats().commits - before) as f64 / span,
            each(cpu.all()),
            each(cpu.of("store-writer")),
        );
        store.close().await;
    }
    println!();
}

/// Sends for as long as `span`, and runs all that was sent: how many runs. As long as there are places, what comes is taken
/// in the transaction that keeps it.
async fn pipe(store: &Arc<SqliteStore>, senders: usize, span: Duration) -> usize {
    let pipe =
        Arc::new(Pipe { store: store.clone(), places: Arc::new(Semaphore::new(AHEAD)), counts: Counts::default() });
    let sending = tokio::spawn({
        let pipe = pipe.clone();
        async move { together(senders, span, || pipe.clone().send()).await }
    });
    while !sending.is_finished() || pipe.counts.settled.load(Relaxed) < pipe.counts.sent.load(Relaxed) {
        let places = pipe.places.available_permits().max(1) as u32;
        let mut places = pipe.places.clone().acquire_many_owned(places).await.expect("places");
        let claimed = store.claim(wish(places.num_permits())).await.expect("a claim").tasks;
        if claimed.is_empty() {
            drop(places);
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        for claimed in claimed {
            tokio::spawn(pipe.clone().finish(claimed, places.split(1).expect("as many places as tasks")));
        }
    }
    pipe.counts.settled.load(Relaxed)
}

struct Pipe {
    store: Arc<SqliteStore>,
    places: Arc<Semaphore>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    sent: AtomicUsize,
    settled: AtomicUsize,
}

impl Pipe {
    async fn send(self: Arc<Self>) -> bool {
        let mut intake = intake();
        let mut ours = None;
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            let (now, NewRun { run, tasks }) = (now(), &mut intake.runs[0]);
            (run.state, run.started_at) = (RunState::Running, Some(now));
            (tasks[0].state, tasks[0].attempts) = (TaskState::Running, 1);
            let until = now.saturating_add(Duration::from_secs(60));
            intake.lease = Some(Lease { owner: "bench".into(), started: now, until });
            let (task, run) = (tasks[0].clone(), run.clone());
            ours = Some((ClaimedTask { task, run, forgiven: 0, lease_started: now }, place));
        }
        self.store.admit(intake).await.expect("admitted");
        self.counts.sent.fetch_add(1, Relaxed);
        if let Some((claimed, place)) = ours {
            tokio::spawn(self.finish(claimed, place));
        }
        true
    }

    async fn finish(self: Arc<Self>, claimed: ClaimedTask, place: OwnedSemaphorePermit) {
        self.store.settle(settlement(&claimed)).await.expect("settled");
        self.counts.settled.fetch_add(1, Relaxed);
        drop(place);
    }
}

/// The CPU time of each of this process's threads.
struct ThreadTimes(HashMap<String, (String, Duration)>);

impl ThreadTimes {
    fn now() -> Self {
        let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let time = |thread: std::fs::DirEntry| {
            let name = std::fs::read_to_string(thread.path().join("comm")).ok()?.trim().to_owned();
            let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let time = Duration::from_nanos(stat.split(' ').next()?.parse().ok()?);
            Some((thread.file_name().to_string_lossy().into_owned(), (name, time)))
        };
        Self(threads.filter_map(time).collect())
    }

    fn since(self, before: &Self) -> Self {
        let passed = |(id, (name, time)): (String, (String, Duration))| {
            let earlier = before.0.get(&id).map_or(Duration::ZERO, |(_, time)| *time);
            (id, (name, time.saturating_sub(earlier)))
        };
        Self(self.0.into_iter().map(passed).collect())
    }

    fn all(&self) -> Duration {
        self.0.values().map(|(_, time)| *time).sum()
    }

    fn of(&self, name: &str) -> Duration {
        self.0.values().filter(|(thread, _)| thread == name).map(|(_, time)| *time).sum()
    }
}

/// Claims of one task, from a short queue and beside a hundred thousand tasks of other workflows.
async fn long_queue(home: &Path) {
    println!("| a claim of one task and its settlement | p50 ms | p99 ms | max ms |\n|---|---|---|---|");
    let store = open(home, "queue");
    for (others, name) in [(0, "alone"), (100_000, "beside 100,000 of 3 other workflows")] {
        for workflow in ["a", "b", "c"] {
            fill(&store, workflow, others / 3).await;
        }
        // The others have no place, so each claim passes them by.
        let full = HashMap::from(["a", "b", "c"].map(|workflow| (workflow.to_owned(), 0)));
        let mut times = Vec::new();
        for _ in 0..PAGES {
            fill(&store, "d", 1).await;
            let one = Instant::now();
            let claimed = store.claim(Claim { allowance: full.clone(), ..wish(1) }).await.expect("a claim").tasks;
            store.settle(settlement(&claimed[0])).await.expect("settled");
            times.push(one.elapsed());
        }
        println!("| {name} | {} |", percentiles(&Times::new(times)));
    }
    store.close().await;
    println!();
}

/// A run that ended long ago, as most have.
fn ended(mut new: NewRun, index: usize) -> NewRun {
    let failed = index.is_multiple_of(20);
    let task = &mut new.tasks[0];
    (new.run.state, task.state) =
        if failed { (RunState::Failed, TaskState::Dead) } else { (RunState::Completed, TaskState::Completed) };
    new.run.failure = failed.then(|| Failure::new("AdaptorError", Severity::Fail, "the server answered 503"));
    new.run.started_at = Some(new.run.created_at);
    new.run.finished_at = Some(now());
    new
}

/// A million runs of 20 workflows, ten for each message.
async fn million(store: &Arc<SqliteStore>) {
    let mut running = tokio::task::JoinSet::new();
    for from in (0..MILLION).step_by(10) {
        if running.len() >= 256 {
            running.join_next().await;
        }
        let message = Message { data: format!("{{\"number\":{from}}}"), ..message() };
        let new = |index| ended(new_run(&format!("workflow {}", index % 20), Some(message.id)), index);
        let runs = (from..from + 10).map(new).collect();
        let intake = Intake { message: Some(message), runs, ..Intake::default() };
        let store = store.clone();
        running.spawn(async move { store.admit(intake).await.expect("admitted") });
    }
    while running.join_next().await.is_some() {}
}

async fn lists(home: &Path) {
    let store = open(home, "lists");
    let started = Instant::now();
    million(&store).await;
    println!("{MILLION} runs stored in {:.0} s", started.elapsed().as_secs_f64());
    let bytes = std::fs::metadata(home.join("lists")).map_or(0, |file| file.len());
    println!("the file has {} MB\n", bytes >> 20);
    println!("| 50 of {MILLION} runs | p50 ms | p99 ms | max ms |\n|---|---|---|---|");
    list_table(&store, "").await;
    let sending = tokio::spawn({
        let store = store.clone();
        async move {
            together(16, Duration::from_secs(600), || {
                let store = store.clone();
                async move { store.admit(intake()).await.is_ok() }
            })
            .await
        }
    });
    list_table(&store, ", 16 senders at work").await;
    sending.abort();
}

async fn list_table(store: &Arc<SqliteStore>, beside: &str) {
    let middle = RunFilter { until: Some(now()), ..RunFilter::default() };
    let any = RunFilter::default;
    let failed = vec![RunState::Failed];
    for (name, filter) in [
        ("all", any()),
        ("until now", middle),
        ("failed", RunFilter { states: failed.clone(), ..any() }),
        ("of one workflow", RunFilter { workflow: Some("workflow 7".into()), ..any() }),
        ("failed, of one workflow", RunFilter { workflow: Some("workflow 0".into()), states: failed, ..any() }),
        ("a text that is frequent", RunFilter { text: Some("503".into()), ..any() }),
        ("a text that is nowhere (a page stops early)", RunFilter { text: Some("nowhere".into()), ..any() }),
    ] {
        let mut after = None;
        let mut times = Vec::new();
        for _ in 0..PAGES {
            let one = Instant::now();
            let page = store.runs(filter.clone(), PageRequest { after, limit: 50 }).await.expect("a page");
            times.push(one.elapsed());
            after = page.next;
        }
        println!("| {name}{beside} | {} |", percentiles(&Times::new(times)));
    }
    let mut times = HashMap::<&str, Vec<Duration>>::new();
    for _ in 0..PAGES {
        let one = Instant::now();
        store.messages(MessageFilter::default(), PageRequest { after: None, limit: 50 }).await.expect("messages");
        times.entry("messages, the first 50").or_default().push(one.elapsed());
        let one = Instant::now();
        store.queue(now()).await.expect("a queue");
        times.entry("the depth of all queues").or_default().push(one.elapsed());
    }
    for (name, times) in times {
        println!("| {name}{beside} | {} |", percentiles(&Times::new(times)));
    }
}
