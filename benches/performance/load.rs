//! Ways to send messages: as fast as they are answered, at a steady rate, one at a time, all at once.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::client::{Client, post};
use crate::server::{PATIENCE, Server};
use crate::times::Times;

/// Clients that send a message again and again: how many were acknowledged in a second, and how long each took.
pub async fn flood(server: &Server, clients: usize, message: &[u8], span: Duration) -> (f64, Times) {
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
pub async fn steadily(server: &Server, rate: u32, span: Duration, message: &[u8]) -> Times {
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

/// How long each of so many requests took, one after the other. The first ones, which warm caches, do not count.
pub async fn one_at_a_time(client: &mut Client, request: &[u8], warm_up: usize, count: usize) -> Times {
    let mut times = Vec::new();
    for round in 0..warm_up + count {
        let one = Instant::now();
        client.send(request).await.expect(201);
        if round >= warm_up {
            times.push(one.elapsed());
        }
    }
    Times::new(times)
}

/// Long enough for an isolate to be made.
const PAUSE: Duration = Duration::from_millis(50);

/// As [`one_at_a_time`], with a pause before each, in which the server does nothing.
pub async fn one_now_and_then(client: &mut Client, request: &[u8], count: usize) -> Times {
    let mut times = Vec::new();
    for _ in 0..count {
        tokio::time::sleep(PAUSE).await;
        let one = Instant::now();
        client.send(request).await.expect(201);
        times.push(one.elapsed());
    }
    Times::new(times)
}

/// A number of messages that were posted at once.
pub struct Backlog {
    pub posted: Duration,
    /// From the first message until the last run has ended.
    pub ended: Duration,
}

/// Posts so many messages that start a run each, and waits until all of these have ended.
pub async fn backlog(server: &Server, clients: usize, messages: usize) -> Backlog {
    backlog_of(server, clients, messages, &post("/inbox", "{}")).await
}

pub async fn backlog_of(server: &Server, clients: usize, messages: usize, message: &[u8]) -> Backlog {
    let mut client = server.client().await;
    let before = completed(&mut client).await;
    let mut connections = server.connect(clients).await;
    let left = Cell::new(messages);
    let started = Instant::now();
    let sent = connections.iter_mut().map(async |client| {
        while left.get() > 0 {
            left.set(left.get() - 1);
            client.send(message).await.expect(202);
        }
    });
    join_all(sent).await;
    let posted = started.elapsed();
    while completed(&mut client).await < before + messages as f64 {
        assert!(started.elapsed() < PATIENCE, "the runs do not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Backlog { posted, ended: started.elapsed() }
}

async fn completed(client: &mut Client) -> f64 {
    client.metric("fnhost_runs_total", "completed").await
}
