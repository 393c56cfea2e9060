//! A disk that is full, or does not let itself be written: messages are refused while it is, and what was acknowledged
//! is kept and runs.

use std::sync::Arc;

use serde_json::{Value, json};

use super::server::{Answer, Server, Setup};
use super::support::disk::Disk;

fn project() -> Setup {
    Setup::new(
        "
jobs:
  seen: { adaptor: common, trigger: any, expression: 'fn(state => ({ seen: state.data.number }))' }
triggers:
  any: { criteria: '{}' }
",
    )
}

/// A client that posts numbered messages.
#[derive(Default)]
struct Client {
    posted: usize,
    /// Numbers and runs of those that were acknowledged.
    acknowledged: Vec<(usize, String)>,
}

impl Client {
    fn post(&mut self, server: &Server) -> Answer {
        self.posted += 1;
        let answer = server.post("/inbox", &json!({ "number": self.posted, "padding": "x".repeat(10_000) }));
        if answer.status == 202 {
            let run = answer.json()["meta"]["run_ids"][0].as_str().unwrap().to_owned();
            self.acknowledged.push((self.posted, run));
        }
        answer
    }

    /// Posts until there is an answer of this status.
    #[track_caller]
    fn post_until(&mut self, server: &Server, status: u16) -> Answer {
        server.until("an answer to a message", || Some(self.post(server)).filter(|answer| answer.status == status))
    }

    /// That all which were acknowledged have run, each with its own data.
    #[track_caller]
    fn expect_runs(&self, server: &Server) {
        for (number, run) in &self.acknowledged {
            let run = server.run_in(run, "completed");
            assert_eq!(server.output(&run, "seen"), json!({ "seen": number }));
        }
    }
}

#[track_caller]
fn ready(server: &Server, status: u16) -> Value {
    let asked = || Some(server.get("/readyz")).filter(|answer| answer.status == status);
    server.until("an answer of /readyz", asked).json()
}

/// That messages are refused in a way that their senders understand, and the service says why.
#[track_caller]
fn expect_refusal(client: &mut Client, server: &Server) {
    let refused = client.post_until(server, 503);
    assert!(refused.header("retry-after").is_some());
    let report = ready(server, 503);
    assert_eq!(report["checks"]["store"], "the store cannot be written", "{report}");
    server.get("/healthz").expect(200);
}

/// That all is well again, and was kept on the disk rather than in memory.
#[track_caller]
fn expect_recovery(mut client: Client, server: Server) {
    client.post_until(&server, 202);
    ready(&server, 200);
    let server = server.restart();
    client.expect_runs(&server);
    let kept = &server.list("/api/v1/topics")[0]["messages"];
    assert_eq!(*kept, client.acknowledged.len(), "what was refused is not kept");
}

#[test]
fn while_the_disk_is_full_messages_are_refused() {
    let disk = Arc::new(Disk::new(16));
    let server = project().data_on(&disk).start();
    let mut client = Client::default();
    client.post(&server).expect(202);
    disk.fill();
    // There may be room for some in the files that the database has.
    expect_refusal(&mut client, &server);
    disk.clear();
    expect_recovery(client, server);
}

#[test]
fn while_the_disk_cannot_be_written_messages_are_refused() {
    let disk = Arc::new(Disk::new(16));
    let server = project().data_on(&disk).start();
    let mut client = Client::default();
    client.post(&server).expect(202);
    let failing = disk.fail(server.pid(), &["fnhost.db", "fnhost.db-wal"].map(|file| disk.path().join(file)));
    expect_refusal(&mut client, &server);
    drop(failing);
    expect_recovery(client, server);
}

#[test]
fn a_read_only_data_directory_is_refused_at_the_start() {
    let disk = Arc::new(Disk::new(1));
    disk.make_read_only();
    let output = project().data_on(&disk).serve().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains(&format!("cannot write in the data directory {}", disk.path().display())), "{said}");
    assert!(said.contains("make it writable") && said.contains("--data-dir"), "{said}");
}
