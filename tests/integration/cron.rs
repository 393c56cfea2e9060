//! Runs that a clock starts, and the single job that variables describe, as the microservice's first versions had it.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::server::{Server, Setup, last_attempt};
use super::support::gate::Gate;
use super::support::http_server::{self, Reply};

/// Runs of a workflow that have ended, the first one first.
fn ended(server: &Server, workflow: &str) -> Vec<Value> {
    let mut runs = server.list(&format!("/api/v1/runs?limit=100&workflow={workflow}&state=completed&state=failed"));
    runs.reverse();
    runs
}

/// Waits for so many of them, and gives the counts that those which completed left: null where one failed.
fn counts(server: &Server, workflow: &str, at_least: usize) -> Vec<Value> {
    let runs = server.until("runs of the clock", || {
        let runs = ended(server, workflow);
        (runs.len() >= at_least).then_some(runs)
    });
    let count = |run: &Value| {
        let run = server.read(&format!("/api/v1/runs/{}", run["id"].as_str().unwrap())).expect(200).json();
        match run["state"] == "completed" {
            true => server.output(&run, workflow)["data"]["count"].clone(),
            false => Value::Null,
        }
    };
    runs.iter().map(count).collect()
}

#[test]
fn each_run_begins_with_what_the_last_successful_one_left() {
    let asked = AtomicUsize::new(0);
    let remote = http_server::Server::with(move |_| {
        let is_third = asked.fetch_add(1, Ordering::SeqCst) == 2;
        Reply::json(200, &json!({ "fail": is_third }))
    });
    let server = Setup::new(&format!(
        "
jobs:
  count:
    adaptor: common
    trigger: every-second
    expression: |
      fn(async state => {{
        const answer = await (await fetch('{}')).json();
        state.data.count = (state.data.count ?? 0) + 1;
        if (answer.fail) throw new Error('not this time');
        return state;
      }})
triggers:
  every-second: {{ cron: '* * * * * *' }}
",
        remote.origin()
    ))
    .start();
    let counts = counts(&server, "count", 5);
    assert_eq!(counts[..5], [json!(1), json!(2), Value::Null, json!(3), json!(4)]);
    let runs = ended(&server, "count");
    assert!(runs.iter().all(|run| run["trigger"] == "every-second" && run["message"] == Value::Null), "{runs:?}");

    let before = ended(&server, "count").len();
    let server = server.restart();
    let after = self::counts(&server, "count", before + 2);
    assert_eq!(after.last().unwrap().as_u64().unwrap() as usize, after.len() - 1, "it goes on after a restart");
}

#[test]
fn a_time_is_left_out_while_the_run_before_goes_on_unless_it_is_to_overlap() {
    let gate = Gate::new();
    let server = Setup::new(&format!(
        "
jobs:
  alone: {{ adaptor: common, trigger: often, expression: 'fn(async state => {{ await fetch(\"{gate}/alone\"); return state; }})' }}
  together: {{ adaptor: common, trigger: over, expression: 'fn(async state => {{ await fetch(\"{gate}/together\"); return state; }})' }}
triggers:
  often: {{ cron: '* * * * * *' }}
  over: {{ cron: '* * * * * *', overlap: true }}
",
        gate = gate.url()
    ))
    .args(&["--concurrency", "4"])
    .start();
    let mut held = Vec::new();
    while held.iter().filter(|held: &&super::support::gate::Held| held.path == "/together").count() < 3 {
        held.push(gate.held());
    }
    assert_eq!(held.iter().filter(|held| held.path == "/alone").count(), 1);
    assert_eq!(server.list("/api/v1/runs?workflow=alone").len(), 1);
    held.into_iter().for_each(|held| held.open());
    server.until("the next one begins", || {
        if let Some(held) = gate.look() {
            held.open();
        }
        (server.list("/api/v1/runs?workflow=alone").len() > 1).then_some(())
    });
}

/// A directory without a project file, and a job that variables describe.
fn single(job: &str) -> Setup {
    let setup = Setup::new("").file("job.js", job).file("state.json", r#"{"data":{"count":10}}"#);
    std::fs::remove_file(setup.path("project.yaml")).unwrap();
    setup
        .file("credential.json", r#"{"password":"known-to-few-5"}"#)
        .env("EXPRESSION_PATH", "job.js")
        .env("ADAPTOR_PATH", "./assets/node_modules/language-common.Adaptor")
        .env("CREDENTIAL_PATH", "credential.json")
        .env("INITIAL_STATE_PATH", "state.json")
        .env("FINAL_STATE_PATH", "out/final.json")
}

fn final_state(server: &Server) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(server.dir().join("out/final.json")).ok()?).ok()
}

#[test]
fn variables_make_a_repeater_that_goes_on_from_its_final_state() {
    let job = "fn(state => ({ ...state, data: { count: state.data.count + 1, secret: state.configuration.password.length } }))";
    let server = single(job).env("FREQUENCY", "150").start();
    let reached = |server: &Server, count: u64| {
        server.until("the final state", || {
            final_state(server).filter(|state| state["data"]["count"].as_u64() >= Some(count))
        })
    };
    let state = reached(&server, 13);
    assert_eq!(state["data"]["secret"], 14);
    assert!(!state.to_string().contains("known-to-few"), "{state}");
    assert_eq!(counts(&server, "job", 3)[..3], [json!(11), json!(12), json!(13)]);

    let server = server.restart();
    let last = ended(&server, "job").len() as u64;
    reached(&server, 10 + last + 2);
}

#[test]
fn a_repeater_goes_on_after_a_run_that_failed_or_was_cancelled() {
    let gate = Gate::new();
    let job = format!("fn(async state => {{ await fetch('{}'); state.data.count += 1; return state; }})", gate.url());
    let server = single(&job).env("FREQUENCY", "50").start();
    gate.held().open();
    drop(gate.held());
    let held = gate.held();
    let run = server.list("/api/v1/runs?state=running")[0]["id"].as_str().unwrap().to_owned();
    server.act(&format!("/api/v1/runs/{run}/cancel"), &json!({})).expect(200);
    held.open();
    let next = gate.held();
    next.open();
    let counts = counts(&server, "job", 3);
    assert_eq!(counts[..3], [json!(11), Value::Null, json!(12)]);
    assert_eq!(final_state(&server).map(|state| state["data"]["count"].clone()), Some(json!(12)));
}

#[test]
fn without_a_frequency_messages_start_the_job_that_variables_describe() {
    let server = single("fn(state => { return { ...state, seen: state.data }; })").start();
    let run = server.run_in(&server.send_one(&json!({ "n": 1 })), "completed");
    assert_eq!(server.output(&run, "job")["seen"], json!({ "n": 1 }));
    assert_eq!(last_attempt(&run, "job")["number"], 1);
    server.until("the final state", || final_state(&server).filter(|state| state["seen"]["n"] == 1));
}
