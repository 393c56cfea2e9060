//! What is SQLite's own: the file, its lock, what goes wrong with disks. What every store must do is in the suite.

use std::path::PathBuf;
use std::sync::mpsc::channel;

use tempfile::TempDir;

use super::*;
use crate::store::StoreError;
use crate::store::suite::every_behaviour;

fn open_empty() -> (Arc<dyn Store>, TempDir) {
    let home = TempDir::new().unwrap();
    (Arc::new(open(&home)), home)
}

every_behaviour!(open_empty);

fn path(home: &TempDir) -> PathBuf {
    home.path().join("fnhost.db")
}

fn open(home: &TempDir) -> SqliteStore {
    SqliteStore::open(path(home), &SqliteOptions::default()).unwrap()
}

fn refusal(home: &TempDir) -> StoreError {
    SqliteStore::open(path(home), &SqliteOptions::default()).unwrap_err()
}

/// Another program's connection to the same file.
fn intruder(home: &TempDir) -> Connection {
    let connection = Connection::open(path(home)).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

fn message(size: usize) -> Intake {
    let message = Message {
        id: MessageId::new(),
        topic: "inbox".into(),
        data: format!("\"{}\"", "x".repeat(size)),
        body: None,
        request: Default::default(),
        received_at: Timestamp::from_micros(1),
        deliver_at: None,
        dedupe_key: None,
    };
    Intake { message: Some(message), ..Intake::default() }
}

async fn admit(store: &SqliteStore, size: usize) -> Result<Admitted> {
    store.admit(message(size)).await
}

async fn kept(store: &SqliteStore) -> u64 {
    store.topics().await.unwrap().iter().map(|topic| topic.messages).sum()
}

#[tokio::test]
async fn what_was_written_is_there_after_closing_and_opening() {
    let home = TempDir::new().unwrap();
    for opened in 1..=3 {
        let store = open(&home);
        admit(&store, 10).await.unwrap();
        assert_eq!(kept(&store).await, opened);
        if opened != 2 {
            store.close().await;
            store.close().await;
            assert!(matches!(admit(&store, 10).await, Err(StoreError::Unavailable(_))));
            assert!(matches!(store.topics().await, Err(StoreError::Unavailable(_))));
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    for _ in 0..50 {
        admit(&store, 100).await.unwrap();
    }
    // The files as a process leaves them that is killed now.
    let after = TempDir::new().unwrap();
    for file in ["fnhost.db", "fnhost.db-wal"] {
        std::fs::copy(home.path().join(file), after.path().join(file)).unwrap();
    }
    let recovered = open(&after);
    assert_eq!(kept(&recovered).await, 50);
    admit(&recovered, 100).await.unwrap();
}

#[tokio::test]
async fn opening_ends_all_leases() {
    use crate::model::{Priority, RunState, TaskState};
    let now = Timestamp::from_micros(1_000_000);
    let run = Run {
        id: RunId::new(),
        workflow: "w".into(),
        version: 1,
        trigger: None,
        message: None,
        retry_of: None,
        state: RunState::Pending,
        priority: Priority::Normal,
        created_at: now,
        started_at: None,
        finished_at: None,
        failure: None,
        traceparent: None,
    };
    let task = Task {
        id: TaskId::new(),
        run: run.id,
        workflow: "w".into(),
        step: "a".into(),
        state: TaskState::Queued,
        run_at: now,
        priority: Priority::Normal,
        attempts: 0,
        input: TaskInput::Cursor,
        created_at: now,
    };
    let id = task.id;
    let claim = Claim {
        owner: "me".into(),
        now,
        lease_until: Timestamp::from_micros(i64::MAX),
        limit: 1,
        allowance: HashMap::new(),
        otherwise: usize::MAX,
        running: HashMap::new(),
    };
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let runs = vec![crate::store::NewRun { run, tasks: vec![task] }];
    store.admit(Intake { runs, ..Intake::default() }).await.unwrap();
    assert_eq!(store.claim(claim).await.unwrap().tasks.len(), 1);
    assert!(store.claim_lost("me", now, now, 10).await.unwrap().is_empty());
    drop(store);
    let store = open(&home);
    assert!(store.renew("me", &[id], now).await.unwrap().is_empty());
    let lost = store.claim_lost("me", now, now, 10).await.unwrap();
    assert_eq!((lost[0].task.id, lost[0].task.attempts), (id, 1));
}

#[tokio::test]
async fn a_second_store_is_refused_and_told_who_has_the_file() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let refused = refusal(&home).to_string();
    assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
    store.close().await;
    open(&home);
}

#[test]
fn only_a_database_of_this_program_and_a_version_it_knows_is_opened() {
    let newer = TempDir::new().unwrap();
    drop(open(&newer));
    intruder(&newer).pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(refusal(&newer), StoreError::Broken(text) if text.contains("newer version of fnhost (schema 99")));

    let foreign = TempDir::new().unwrap();
    intruder(&foreign).execute_batch("CREATE TABLE songs (title)").unwrap();
    assert!(matches!(refusal(&foreign), StoreError::Broken(text) if text.contains("another program's database")));

    let text = TempDir::new().unwrap();
    std::fs::write(path(&text), "Dear diary, ".repeat(1000)).unwrap();
    assert!(matches!(refusal(&text), StoreError::Broken(text) if text.contains("not a database")));

    let nowhere = SqliteStore::open(text.path().join("missing/fnhost.db"), &SqliteOptions::default()).unwrap_err();
    assert!(matches!(nowhere, StoreError::Unavailable(text) if text.contains("missing/fnhost.db")));
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = TempDir::new().unwrap();
    let _store = open(&home);
    for file in std::fs::read_dir(home.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_is_over_when_there_is_space() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let limit = |pages: u32| {
        store.write(move |connection| {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).map_err(Into::into)
        })
    };
    admit(&store, 10).await.unwrap();
    limit(1).await.unwrap();
    let (large, small) = tokio::join!(admit(&store, 1 << 20), store.last_tick("none"));
    assert!(matches!(&large, Err(StoreError::Unavailable(text)) if text.contains("disk is full")), "{large:?}");
    assert_eq!(small.unwrap(), None);
    assert_eq!(kept(&store).await, 1);
    limit(1_000_000).await.unwrap();
    admit(&store, 1 << 20).await.unwrap();
    assert_eq!(kept(&store).await, 2);
}

#[test]
fn errors_tell_what_to_do() {
    use rusqlite::ffi;
    for (code, advice) in [
        (ffi::SQLITE_BUSY, "not available: another program has locked"),
        (ffi::SQLITE_FULL, "not available: the disk is full"),
        (ffi::SQLITE_IOERR_WRITE, "not available: the disk does not read or write"),
        (ffi::SQLITE_READONLY, "not available: the database is read-only"),
        (ffi::SQLITE_CANTOPEN, "not available: the database cannot be opened"),
        (ffi::SQLITE_CORRUPT, "of another version: the file is damaged"),
        (ffi::SQLITE_NOTADB, "of another version: the file is not a database"),
        (ffi::SQLITE_CONSTRAINT, "of another version: the database refused"),
    ] {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let error = StoreError::from(error).to_string();
        assert!(error.contains(advice), "{error}");
    }
}

#[tokio::test]
async fn another_programs_lock_is_waited_out_or_reported() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let other = intruder(&home);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = admit(&store, 10).await;
    assert!(matches!(&locked, Err(StoreError::Unavailable(text)) if text.contains("locked")), "{locked:?}");
    assert_eq!(kept(&store).await, 0, "reading goes on");
    other.execute_batch("COMMIT").unwrap();
    admit(&store, 10).await.unwrap();
    assert_eq!(kept(&store).await, 1);
}

/// Holds the writer until something is sent to the channel, so that what follows shares a batch.
async fn hold(store: &Arc<SqliteStore>) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinHandle<Result<()>>) {
    let (go_on, wait) = channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    let (store, mut started) = (store.clone(), Some(started));
    let held = tokio::spawn(async move {
        store
            .write(move |_| {
                // Done once more with the batch, if another operation in it fails.
                let Some(started) = started.take() else { return Ok(()) };
                let _ = started.send(());
                wait.recv().map_err(|error| StoreError::Broken(error.to_string()))
            })
            .await
    });
    running.await.unwrap();
    (go_on, held)
}

async fn queued(store: &SqliteStore, count: usize) {
    while store.stats().queued < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_operation_that_fails_or_panics_takes_back_only_itself() {
    let home = TempDir::new().unwrap();
    let store = Arc::new(open(&home));
    let (go_on, held) = hold(&store).await;
    let count = |connection: &Connection| {
        Ok(connection.execute("INSERT INTO topics VALUES (?1, 1, 0)", [MessageId::new().to_string()])?)
    };
    let failing = store.write(move |connection| {
        count(connection)?;
        Err::<(), _>(StoreError::Broken("on purpose".into()))
    });
    let panicking = store.write(move |connection| -> Result<()> {
        count(connection)?;
        panic!("on purpose")
    });
    let release = async {
        queued(&store, 4).await;
        go_on.send(()).unwrap();
    };
    let (before, failed, panicked, after, ()) =
        tokio::join!(store.write(count), failing, panicking, store.write(count), release);
    held.await.unwrap().unwrap();
    assert_eq!((before.unwrap(), after.unwrap()), (1, 1));
    assert!(matches!(failed, Err(StoreError::Broken(text)) if text == "on purpose"));
    assert!(matches!(panicked, Err(StoreError::Broken(text)) if text.contains("panicked")));
    assert_eq!(kept(&store).await, 2);
}

#[tokio::test]
async fn what_waits_shares_a_commit() {
    let home = TempDir::new().unwrap();
    let store = Arc::new(open(&home));
    let (go_on, held) = hold(&store).await;
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { admit(&store, 10).await })
        })
        .collect();
    queued(&store, 100).await;
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
    for admitted in waiting {
        assert_eq!(admitted.await.unwrap().unwrap(), Admitted::New);
    }
    let stats = store.stats();
    assert_eq!(stats.operations, 101);
    assert!(stats.commits < 50, "{} commits", stats.commits);
}

#[tokio::test]
async fn what_finds_no_place_in_the_queue_is_refused() {
    let home = TempDir::new().unwrap();
    let options = SqliteOptions { queue: 2, ..SqliteOptions::default() };
    let store = Arc::new(SqliteStore::open(path(&home), &options).unwrap());
    let (go_on, held) = hold(&store).await;
    let release = async {
        queued(&store, 1).await;
        let overloaded = admit(&store, 10).await;
        go_on.send(()).unwrap();
        overloaded
    };
    let (waiting, overloaded) = tokio::join!(admit(&store, 10), release);
    held.await.unwrap().unwrap();
    assert!(matches!(overloaded, Err(StoreError::Overloaded)));
    assert_eq!(waiting.unwrap(), Admitted::New);
    // Larger than the whole queue: it takes all of it.
    admit(&store, 1 << 20).await.unwrap();
    assert_eq!(kept(&store).await, 2);
}

#[tokio::test]
async fn probes_share_a_write() {
    let home = TempDir::new().unwrap();
    let store = Arc::new(open(&home));
    let checks: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.check().await })
        })
        .collect();
    for check in checks {
        check.await.unwrap().unwrap();
    }
    assert!(store.stats().operations < 50);
    assert!(store.stats().operations >= 1);
}

#[tokio::test]
async fn an_answer_that_holds_is_given_again() {
    let remembered = Remembered::default();
    let (long, short) = (|_| Duration::from_secs(3600), |_| Duration::ZERO);
    assert_eq!(remembered.get(async { 1 }, short).await, 1);
    assert_eq!(remembered.get(async { 2 }, long).await, 2);
    assert_eq!(remembered.get(async { 3 }, long).await, 2);
}

#[tokio::test]
async fn the_log_begins_anew_when_it_was_moved_into_the_database() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let log = || std::fs::metadata(home.path().join("fnhost.db-wal")).unwrap().len();
    // Far more than the log may hold, a little at a time.
    for _ in 0..400 {
        admit(&store, 200_000).await.unwrap();
    }
    assert!(log() < 64 << 20, "{} bytes", log());
}

#[tokio::test]
async fn space_that_was_freed_goes_back_to_the_disk() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    for _ in 0..20 {
        admit(&store, 200_000).await.unwrap();
    }
    let pages =
        || store.read(|connection| Ok(connection.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0))?));
    let full = pages().await.unwrap();
    let retention = Retention { messages: Some(Timestamp::from_micros(i64::MAX)), ..Retention::default() };
    assert_eq!(store.prune(retention, 100).await.unwrap(), 20);
    while pages().await.unwrap() > full / 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn lists_walk_along_indexes() {
    use crate::model::{RunState, TaskState};
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let by_state = RunFilter { states: vec![RunState::Failed, RunState::Running], ..RunFilter::default() };
    let runs = [
        RunFilter::default(),
        RunFilter { workflow: Some("w".into()), ..by_state.clone() },
        RunFilter { workflow: Some("w".into()), ..RunFilter::default() },
        RunFilter { message: Some(MessageId::new()), ..RunFilter::default() },
        by_state,
    ];
    let dead = TaskFilter { states: vec![TaskState::Dead], ..TaskFilter::default() };
    let tasks = [
        TaskFilter::default(),
        TaskFilter { workflow: Some("w".into()), ..dead.clone() },
        TaskFilter { run: Some(RunId::new()), ..TaskFilter::default() },
        TaskFilter { states: vec![TaskState::Completed], ..TaskFilter::default() },
        TaskFilter { states: vec![TaskState::Queued, TaskState::Dead], ..TaskFilter::default() },
        dead,
    ];
    let messages = [MessageFilter::default(), MessageFilter { topic: Some("a".into()), ..MessageFilter::default() }];
    let statements: Vec<String> = (runs.iter().map(lists::run_source))
        .chain(tasks.iter().map(lists::task_source))
        .chain(messages.iter().map(lists::message_source))
        .map(|source| source.statement())
        .collect();
    for sql in statements {
        let plan = store.read({
            let sql = format!("EXPLAIN QUERY PLAN {sql}");
            move |connection| {
                let mut plan = connection.prepare(&sql)?;
                let parameters = vec![None::<i64>; plan.parameter_count()];
                let steps = plan.query_map(rusqlite::params_from_iter(parameters), |row| row.get("detail"))?;
                Ok(steps.collect::<rusqlite::Result<Vec<String>>>()?)
            }
        });
        let plan = plan.await.unwrap();
        assert!(!plan.iter().any(|step| step.starts_with("SCAN") || step.contains("TEMP B-TREE")), "{sql}\n{plan:#?}");
    }
}
