//! A project that changes while it is served, and a server that is told to stop while it works.

use serde_json::{Value, json};

use super::server::{Server, Setup, task};
use super::support::gate::Gate;

/// `first` waits at the gate, then `second` says which edition of the project it is from. `gone` waits, too.
fn edition(gate: &Gate, edition: u32) -> String {
    let gate = gate.url();
    format!(
        "
jobs:
  first: {{ adaptor: common, trigger: any, expression: 'fn(async state => {{ await fetch(\"{gate}/first\"); return state; }})' }}
  second:
    adaptor: common
    trigger: ok
    expression: |
      fn(state => ({{ ...state, data: {{ edition: {edition} }} }}))
triggers:
  any: {{ criteria: {{ form: first }} }}
  ok: {{ success: first }}
"
    )
}

/// Waits until the server has read its project so many times again.
fn read_again(server: &Server, times: usize) {
    server.until("the project was read again", || {
        (server.log().matches("the project was read again").count() >= times).then_some(())
    });
}

fn change(server: &Server, name: &str, text: &str) {
    // As editors do it.
    let new = server.dir().join(format!("{name}.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, server.dir().join(name)).unwrap();
}

fn first(server: &Server) -> String {
    server.send_one(&json!({ "form": "first" }))
}

#[test]
fn a_changed_project_is_served_and_runs_under_way_go_on_as_they_began() {
    let gate = Gate::new();
    let gone = format!(
        "
jobs:
  gone: {{ adaptor: common, trigger: any, expression: 'fn(async state => {{ await fetch(\"{}/gone\"); return state; }})' }}
  after: {{ adaptor: common, trigger: ok, expression: fn(state => state) }}
triggers:
  any: {{ criteria: {{ form: gone }} }}
  ok: {{ success: gone }}
",
        gate.url()
    );
    let server = Setup::new(&gone).args(&["--concurrency", "3"]).start();
    let removed = server.send_one(&json!({ "form": "gone" }));
    let held_of_removed = gate.held();
    change(&server, "project.yaml", &edition(&gate, 1));
    read_again(&server, 1);
    assert_eq!(server.post("/inbox", &json!({ "form": "gone" })).json()["data"], json!([]));

    let old = first(&server);
    let held = gate.held();
    change(&server, "project.yaml", &edition(&gate, 2));
    read_again(&server, 2);
    let new = first(&server);
    held.open();
    gate.held().open();
    held_of_removed.open();

    let edition = |id: &str| server.output(&server.run_in(id, "completed"), "second")["data"]["edition"].clone();
    assert_eq!((edition(&old), edition(&new)), (json!(1), json!(2)));
    let run = server.run_in(&removed, "completed");
    assert_eq!(task(&run, "after")["state"], "completed", "a workflow that was taken out ends its runs");
    let again = server.act(&format!("/api/v1/runs/{removed}/retry"), &json!({})).expect(409);
    assert!(again.text().contains("not in the project any more"), "{}", again.text());
}

#[test]
fn a_change_to_any_file_of_the_project_counts() {
    let server = Setup::new(
        "
jobs:
  tell: { adaptor: common, trigger: any, credential: words, expression: jobs/tell.js }
triggers:
  any: { criteria: {} }
credentials:
  words: { said: '${WORD}' }
",
    )
    .file("jobs/tell.js", "fn(state => ({ data: { one: state.configuration.said.length } }))")
    .file(".env", "WORD=four\n")
    .start();
    let told = || server.output(&server.run_in(&server.send_one(&json!({})), "completed"), "tell")["data"].clone();
    assert_eq!(told(), json!({ "one": 4 }));
    change(&server, "jobs/tell.js", "fn(state => ({ data: { two: state.configuration.said.length } }))");
    read_again(&server, 1);
    assert_eq!(told(), json!({ "two": 4 }));
    change(&server, ".env", "WORD=sixsix\n");
    read_again(&server, 2);
    assert_eq!(told(), json!({ "two": 6 }));
}

#[test]
fn a_broken_change_is_told_of_and_changes_nothing() {
    let gate = Gate::new();
    let server = Setup::new(&edition(&gate, 1)).start();
    let works = || {
        let id = first(&server);
        gate.held().open();
        server.output(&server.run_in(&id, "completed"), "second")["data"]["edition"].clone()
    };
    let broken = |times: usize, says: &str| {
        server.until("the log says what is broken", || {
            let log = server.log();
            let told: Vec<&str> = log.lines().filter(|line| line.contains("is served still")).collect();
            (told.len() >= times && told[times - 1].contains(says)).then_some(())
        });
        assert_eq!(works(), 1);
    };
    change(&server, "project.yaml", &edition(&gate, 2).replace("trigger: ok", "trigger: nowhere"));
    broken(1, "project.yaml:6");
    change(&server, "project.yaml", "jobs: [\n");
    broken(2, "project.yaml:");
    // A job that cannot be compiled.
    change(&server, "project.yaml", &edition(&gate, 2).replace("fn(state => ({ ...", "fn(state => (( ..."));
    broken(3, "second.js:1");
    change(&server, "project.yaml", &edition(&gate, 3));
    read_again(&server, 1);
    assert_eq!(works(), 3);
}

#[test]
fn the_project_is_read_again_on_request() {
    let gate = Gate::new();
    let server = Setup::new(&edition(&gate, 1)).args(&["--no-reload"]).start();
    change(&server, "project.yaml", &edition(&gate, 2));
    server.signal("HUP");
    read_again(&server, 1);
    let id = first(&server);
    gate.held().open();
    assert_eq!(server.output(&server.run_in(&id, "completed"), "second")["data"]["edition"], 2);
}

#[test]
fn what_was_kept_before_its_workflow_was_there_can_be_replayed() {
    let gate = Gate::new();
    let server = Setup::new(&edition(&gate, 1)).start();
    let early = server.post("/inbox", &json!({ "form": "late" })).expect(202).json();
    assert_eq!(early["data"], json!([]));
    change(&server, "project.yaml", &edition(&gate, 1).replace("form: first", "form: late"));
    read_again(&server, 1);
    let message = early["meta"]["message_id"].as_str().unwrap();
    let replayed = server.act(&format!("/api/v1/messages/{message}/replay"), &json!({})).expect(200).json();
    gate.held().open();
    server.run_in(replayed["runs"][0]["id"].as_str().unwrap(), "completed");
}

/// The outcomes of the attempts at `first`.
fn outcomes(run: &Value) -> Vec<&str> {
    let attempts = task(run, "first")["tries"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect()
}

fn stops(server: &Server) {
    server.signal("TERM");
    server.until("the server stops", || server.log().contains("stopping:").then_some(()));
}

#[test]
fn a_server_that_is_told_to_stop_ends_what_is_under_way_and_begins_nothing() {
    let gate = Gate::new();
    let mut server = Setup::new(&edition(&gate, 1)).args(&["--concurrency", "1", "--in-flight", "2"]).start();
    let under_way = first(&server);
    let held = gate.held();
    let waits = first(&server);
    stops(&server);
    assert_eq!(server.get("/readyz").expect(503).json()["checks"]["accepting"], "the service is stopping");
    server.get("/livez").expect(200);
    let refused = server.post("/inbox", &json!({ "form": "first" })).expect(503);
    assert!(refused.header("retry-after").is_some());
    held.open();
    assert!(server.wait().success());
    assert!(gate.look().is_none(), "what waited does not begin");

    let server = server.restart();
    gate.held().open();
    for id in [&under_way, &waits] {
        let run = server.run_in(id, "completed");
        assert_eq!(outcomes(&run), ["success"], "{run}");
        assert_eq!(task(&run, "first")["attempts"], 1);
    }
    assert_eq!(server.list("/api/v1/runs").len(), 2);
}

#[test]
fn a_job_that_takes_too_long_to_end_runs_again_at_the_next_start() {
    let gate = Gate::new();
    let mut server = Setup::new(&edition(&gate, 1)).args(&["--drain-timeout", "300ms"]).start();
    let id = first(&server);
    let held = gate.held();
    stops(&server);
    assert!(server.wait().success());
    drop(held);
    let server = server.restart();
    gate.held().open();
    let run = server.run_in(&id, "completed");
    assert_eq!(outcomes(&run), ["lost", "success"], "{run}");
    assert_eq!(server.output(&run, "second")["data"]["edition"], 1);
}

#[test]
fn a_second_signal_stops_the_server_at_once() {
    let gate = Gate::new();
    let mut server = Setup::new(&edition(&gate, 1)).args(&["--drain-timeout", "10m"]).start();
    let id = first(&server);
    let held = gate.held();
    stops(&server);
    server.signal("INT");
    assert!(server.wait().success());
    assert!(server.log().contains("stopped at once"), "{}", server.log());
    drop(held);
    let server = server.restart();
    gate.held().open();
    assert_eq!(outcomes(&server.run_in(&id, "completed")), ["lost", "success"]);
}
