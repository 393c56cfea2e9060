//! What was acknowledged is kept and runs, whatever happens to the server.
//!
//! `FNHOST_KILLS=30 scripts/test durability::` kills the server more often than the few times of every test run.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::server::{Answer, Server, Setup, task};
use super::support::gate::Gate;

const CLIENTS: usize = 6;

/// A server of another system, to which jobs post the number of their message.
struct Peer {
    address: String,
    posts: Arc<Mutex<BTreeMap<usize, usize>>>,
}

impl Peer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let posts = Arc::<Mutex<BTreeMap<usize, usize>>>::default();
        let counted = posts.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = counted.clone();
                std::thread::spawn(move || answer(stream, &counted));
            }
        });
        Self { address, posts }
    }
}

/// Counts the requests of one connection.
fn answer(stream: TcpStream, posts: &Mutex<BTreeMap<usize, usize>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let number = request.split(['/', ' ']).nth(2).and_then(|number| number.parse().ok());
        if let Some(number) = number {
            *posts.lock().unwrap().entry(number).or_default() += 1;
        }
        // The rest of the head; there is no body.
        let _ = lines.by_ref().take_while(|line| !line.is_empty()).count();
        if writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").is_err() {
            return;
        }
    }
}

/// Clients that post numbered messages, each again until it is acknowledged.
struct Clients {
    address: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Vec<usize>>>,
}

impl Clients {
    fn start(server: &Server) -> Self {
        let address = Arc::new(Mutex::new(server.address.clone()));
        let stop = Arc::<AtomicBool>::default();
        let next = Arc::<AtomicUsize>::default();
        let client = |_| {
            let (address, stop, next) = (address.clone(), stop.clone(), next.clone());
            std::thread::spawn(move || {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Acquire) {
                    let number = next.fetch_add(1, Ordering::AcqRel);
                    while !post(&address, number) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    acknowledged.push(number);
                    // Faster than jobs run, so that there is always something to cut.
                    std::thread::sleep(Duration::from_millis(60));
                }
                acknowledged
            })
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { address, stop, threads }
    }

    /// The server is elsewhere now.
    fn follow(&self, server: &Server) {
        self.address.lock().unwrap().clone_from(&server.address);
    }

    /// Numbers of the messages that were acknowledged.
    fn stop(self) -> Vec<usize> {
        self.stop.store(true, Ordering::Release);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// Whether the server says that it has kept the message.
fn post(address: &Mutex<String>, number: usize) -> bool {
    let address = address.lock().unwrap().clone();
    let Ok(mut stream) = TcpStream::connect(&address) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let body = format!(r#"{{"number":{number}}}"#);
    let head = format!(
        "POST /inbox HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         idempotency-key: {number}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    sent.is_ok() && Answer::try_read(&mut stream).is_some_and(|answer| answer.status == 202)
}

fn project(peer: &Peer) -> Setup {
    Setup::new(&format!(
        r#"
jobs:
  count:
    adaptor: '@openfn/language-common'
    trigger: any
    expression: |
      fn(async state => {{
        await fetch(`http://{}/${{state.data.number}}`, {{ method: 'POST' }});
        return state;
      }});
  after:
    adaptor: '@openfn/language-common'
    trigger: counted
    expression: fn(state => state)
triggers:
  any: {{ criteria: '{{}}' }}
  counted: {{ success: count }}
"#,
        peer.address
    ))
}

fn database(server: &Server) -> Connection {
    let path = server.dir().join(".fnhost/fnhost.db");
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn count(database: &Connection, sql: &str) -> usize {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Not very random, but different each time.
fn pause(longest: u64) -> Duration {
    Duration::from_millis(
        u64::from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()) / 1000 % longest,
    )
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let kills: usize = std::env::var("FNHOST_KILLS").map_or(4, |kills| kills.parse().expect("a number"));
    let peer = Peer::start();
    let mut server = project(&peer).start();
    let clients = Clients::start(&server);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(100) + pause(1400));
        server = server.restart();
        clients.follow(&server);
    }
    let acknowledged = clients.stop();
    let open = || count(&database(&server), "SELECT count(*) FROM runs WHERE state IN ('pending', 'running')");
    let mut left = open();
    while left > 0 {
        left = server.until("runs go on", || Some(open()).filter(|now| *now < left));
    }
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());

    let database = database(&server);
    let messages = count(&database, "SELECT count(*) FROM messages");
    assert!(messages >= acknowledged.len() && acknowledged.len() > 10 * kills, "{messages}");
    let same_key = "SELECT count(*) - count(DISTINCT dedupe_key) FROM messages";
    assert_eq!(count(&database, same_key), 0, "a message was kept twice");
    let runs_of_message = "SELECT count(*) FROM messages m
        WHERE (SELECT count(*) FROM runs r WHERE r.message = m.id AND r.state = 'completed') <> 1
           OR (SELECT count(*) FROM runs r WHERE r.message = m.id) <> 1";
    assert_eq!(count(&database, runs_of_message), 0, "a message without its one completed run");
    let tasks = "SELECT count(*) FROM tasks t WHERE t.state <> 'completed'
        OR (SELECT count(*) FROM attempts a WHERE a.task = t.id AND a.outcome = 'success') <> 1
        OR EXISTS (SELECT 1 FROM attempts a WHERE a.task = t.id AND a.outcome NOT IN ('success', 'lost'))";
    assert_eq!(count(&database, tasks), 0, "a task that did not succeed once, or was repeated without being cut");
    assert_eq!(count(&database, "SELECT count(*) FROM tasks"), 2 * messages);

    let mut statement = database
        .prepare(
            "SELECT json_extract(m.data, '$.number'), count(*) FROM messages m JOIN runs r ON r.message = m.id
             JOIN tasks t ON t.run = r.id AND t.step = 'count' JOIN attempts a ON a.task = t.id GROUP BY m.id",
        )
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let attempts: BTreeMap<usize, usize> = rows.map(Result::unwrap).collect();
    let posts = peer.posts.lock().unwrap();
    for number in &acknowledged {
        assert!(attempts.contains_key(number), "message {number} was acknowledged and is not there");
        let done = posts.get(number).copied().unwrap_or_default();
        assert!((1..=attempts[number]).contains(&done), "message {number} ran {done} times in {attempts:?} attempts");
    }
    let cut = count(&database, "SELECT count(*) FROM attempts WHERE outcome = 'lost'");
    println!("{kills} kills, {} acknowledged, {messages} kept, {cut} attempts cut", acknowledged.len());
}

#[test]
fn a_locked_database_is_waited_for_and_nothing_is_taken_in_meanwhile() {
    let peer = Peer::start();
    let server = project(&peer).start();
    let post = |number: usize| server.post("/inbox", &serde_json::json!({ "number": number }));
    let other = Connection::open(server.dir().join(".fnhost/fnhost.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = post(1).expect(503);
    assert!(refused.header("retry-after").is_some());
    server.until("readyz says so", || (server.get("/readyz").status == 503).then_some(()));
    server.get("/healthz").expect(200);
    other.execute_batch("ROLLBACK").unwrap();
    server.until("messages are taken in again", || (post(2).status == 202).then_some(()));
    server.until("it is ready", || (server.get("/readyz").status == 200).then_some(()));
    server.until("the run ends", || {
        let ended = "SELECT count(*) FROM runs WHERE state = 'completed'";
        (count(&database(&server), ended) >= 1).then_some(())
    });
    assert_eq!(peer.posts.lock().unwrap().get(&1), None, "what was refused does not run");
}

#[test]
fn a_task_that_was_not_begun_is_handed_back_even_if_the_database_is_locked_as_the_server_stops() {
    let gate = Gate::new();
    let job = format!("fn(async state => {{ await fetch('{}'); return state; }})", gate.url());
    let mut server = Setup::new("jobs: { wait: { adaptor: common, trigger: any, expression: file://wait.js } }\ntriggers: { any: { criteria: {} } }")
        .file("wait.js", &job)
        .args(&["--concurrency", "1", "--in-flight", "2", "--drain-timeout", "10m"])
        .start();
    let runs: Vec<String> = (0..3).map(|number| server.send_one(&serde_json::json!({ "number": number }))).collect();
    let under_way = gate.held();
    server.until("all are claimed", || (server.list("/api/v1/tasks?state=running").len() == 3).then_some(()));
    let other = Connection::open(server.dir().join(".fnhost/fnhost.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    server.signal("TERM");
    server.until("it is tried", || server.log().contains("cannot hand back a task").then_some(()));
    other.execute_batch("ROLLBACK").unwrap();
    under_way.open();
    assert!(server.wait().success(), "{}", server.log());

    let server = server.restart();
    (0..2).for_each(|_| gate.held().open());
    for run in runs {
        let run = server.run_in(&run, "completed");
        let tries = task(&run, "wait")["tries"].as_array().unwrap();
        assert_eq!(tries.len(), 1, "an attempt that was never begun counts: {run}");
        assert_eq!(tries[0]["number"], 1, "{run}");
    }
}
