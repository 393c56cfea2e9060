//! Jobs that wait for an answer of a remote system.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::goals::{Bound, Goals};
use crate::load::backlog;
use crate::project::Bench;

/// How long the remote system takes for an answer.
const DELAY: Duration = Duration::from_secs(1);
const MESSAGES: usize = 1000;
const CLIENTS: usize = 16;

/// As many isolates as 3 GB hold.
const WITHIN_GOAL: &[&str] = &["--in-flight", "300"];

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let mut table = format!(
        "## Jobs that wait\n\n{MESSAGES} messages at once, each for a job that GETs (language-http) from a server on this machine \
         that answers after {} s. From the first message until the last run has ended; the second batch finds what the first has \
         left: threads, compiled code, kept isolates. A job that waits holds its isolate and no slot: what a run takes of the \
         processors decides how many wait at once. Goals: 5 s, and 3 GB.\n\n\
         | `isolation` | batch | s | requests open at once, at most | CPU of the server per run, ms | peak MB so far |\n\
         |---|---|---|---|---|---|\n",
        DELAY.as_secs()
    );
    for (level, settings) in [("run", &[][..]), ("module", WITHIN_GOAL), ("workflow", &[]), ("workflow", WITHIN_GOAL)] {
        eprintln!("waiting: {level} {}", settings.join(" "));
        LocalSet::new().run_until(batches(bench, level, settings, &mut table, goals)).await;
    }
    table.push('\n');
    table
}

async fn batches(bench: &Bench, level: &str, settings: &[&str], table: &mut String, goals: &mut Goals) {
    let remote = Remote::start().await;
    let project = format!(
        "jobs:
  wait:
    adaptor: http
    trigger: some
    isolation: {level}
    expression: get('http://{}/')
triggers:
  some: {{criteria: {{}}}}
",
        remote.address
    );
    bench.show(bench.serve("waiting", &project, &[])).await;
    let server = bench.serve("waiting", &project, settings);
    server.isolates_ahead(1).await;
    let name = if settings.is_empty() { format!("`{level}`") } else { format!("`{level}`, `{}`", settings.join(" ")) };
    for batch in ["first", "second"] {
        remote.most.set(0);
        let cpu = server.cpu();
        let ended = backlog(&server, CLIENTS, MESSAGES).await.ended;
        let _ = writeln!(
            table,
            "| {name} | {batch} | {:.1} | {} | {:.1} | {:.0} |",
            ended.as_secs_f64(),
            remote.most.get(),
            (server.cpu() - cpu).as_secs_f64() * 1000.0 / MESSAGES as f64,
            server.peak_mb(),
        );
        if batch == "second" {
            let what = format!("{MESSAGES} runs that wait 1 s for an answer at {name}");
            goals.add(&format!("{what}, s until the last has ended"), Bound::AtMost(5.0), ended.as_secs_f64());
            goals.add(&format!("{what}, MB at most"), Bound::AtMost(3000.0), server.peak_mb());
        }
    }
}

/// A remote system that takes its time.
struct Remote {
    address: SocketAddr,
    /// Requests that were open at once.
    most: Rc<Cell<usize>>,
}

impl Remote {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (open, most) = (Rc::<Cell<usize>>::default(), Rc::<Cell<usize>>::default());
        tokio::task::spawn_local({
            let most = most.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    tokio::task::spawn_local(answer(stream, open.clone(), most.clone()));
                }
            }
        });
        Self { address, most }
    }
}

/// Answers the requests of a connection, which have no bodies, until the client closes it.
async fn answer(mut stream: TcpStream, open: Rc<Cell<usize>>, most: Rc<Cell<usize>>) {
    let mut received = Vec::new();
    loop {
        while !received.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut received).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
        received.clear();
        open.set(open.get() + 1);
        most.set(most.get().max(open.get()));
        tokio::time::sleep(DELAY).await;
        open.set(open.get() - 1);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}
