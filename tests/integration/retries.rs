//! Attempts that failed and are made again: when, how often, and what becomes of those that never succeed.

use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};

use super::server::{self, last_attempt, task};
use super::support::http_server::{Reply, Server};

/// A remote system that says no so many times, each time with this answer.
fn remote(refusals: usize, refusal: Reply) -> Server {
    let asked = AtomicUsize::new(0);
    Server::with(move |_| match asked.fetch_add(1, Ordering::SeqCst) < refusals {
        true => refusal.clone(),
        false => Reply::json(200, &json!({ "taken": true })),
    })
}

/// A project whose job `send` asks the remote system, with this policy.
fn project(remote: &Server, retry: &str) -> String {
    format!(
        "
jobs:
  send:
    adaptor: http
    trigger: any
    retry: {retry}
    expression: get('{}/')
triggers:
  any: {{ criteria: {{}} }}
",
        remote.origin()
    )
}

fn refusal() -> Reply {
    Reply::json(503, &json!({ "error": "closed" }))
}

/// The times between the end of each attempt at a step and the start of the next.
fn waits(run: &Value, step: &str) -> Vec<TimeDelta> {
    let time = |value: &Value| DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
    let attempts = task(run, step)["tries"].as_array().unwrap();
    attempts.windows(2).map(|pair| time(&pair[1]["started_at"]) - time(&pair[0]["finished_at"])).collect()
}

/// Fails unless each wait was at least so many milliseconds long.
#[track_caller]
fn at_least(waits: &[TimeDelta], milliseconds: &[i64]) {
    assert_eq!(waits.len(), milliseconds.len(), "{waits:?}");
    for (wait, least) in waits.iter().zip(milliseconds) {
        assert!(wait.num_milliseconds() >= *least, "{waits:?}, expected {milliseconds:?}");
    }
}

#[test]
fn a_job_that_succeeds_at_the_third_attempt_has_succeeded() {
    let remote = remote(2, refusal());
    let server = server::start(&project(&remote, "{ attempts: 5, backoff: fixed, delay: 300ms }"));
    let run = server.run_in(&server.send_one(&json!({})), "completed");
    let attempts = task(&run, "send")["tries"].as_array().unwrap().clone();
    let ends: Vec<(&Value, &Value)> =
        attempts.iter().map(|attempt| (&attempt["number"], &attempt["outcome"])).collect();
    assert_eq!(json!(ends), json!([[1, "failure"], [2, "failure"], [3, "success"]]));
    assert_eq!((&run["failure"], remote.seen().len()), (&Value::Null, 3));
    assert_eq!(server.output(&run, "send")["data"]["taken"], true);
    at_least(&waits(&run, "send"), &[300, 300]);
}

#[test]
fn the_waits_of_a_list_come_in_turn_and_the_last_repeats() {
    let remote = remote(3, refusal());
    let server = server::start(&project(&remote, "{ attempts: 4, backoff: [50ms, 700ms] }"));
    let run = server.run_in(&server.send_one(&json!({})), "completed");
    at_least(&waits(&run, "send"), &[50, 700, 700]);
}

#[test]
fn a_remote_system_is_left_alone_for_as_long_as_it_asks() {
    let remote = remote(1, Reply::json(429, &json!({ "error": "slowly" })).header("retry-after", "3"));
    let server = server::start(&project(&remote, "{ attempts: 3, backoff: fixed, delay: 10ms }"));
    let run = server.run_in(&server.send_one(&json!({})), "completed");
    at_least(&waits(&run, "send"), &[3000]);
}

#[test]
fn a_task_is_dead_after_its_last_attempt_and_says_why() {
    let remote = remote(usize::MAX, refusal());
    let server = server::start(&project(&remote, "{ attempts: 3, backoff: fixed, delay: 20ms }"));
    let run = server.run_in(&server.send_one(&json!({})), "failed");
    assert_eq!((&task(&run, "send")["state"], &task(&run, "send")["attempts"]), (&json!("dead"), &json!(3)));
    assert_eq!(run["failure"], last_attempt(&run, "send")["failure"]);
    assert!(run["failure"]["message"].as_str().unwrap().contains("503"), "{run}");
    assert_eq!(remote.seen().len(), 3);
    assert_eq!(server.list("/api/v1/tasks?state=dead").len(), 1);
}

#[test]
fn the_failure_flow_begins_after_the_last_attempt() {
    let remote = remote(usize::MAX, refusal());
    let flow =
        "  ko: { failure: send }\njobs:\n  tell: { adaptor: common, trigger: ko, expression: fn(state => state) }\n";
    let project = project(&remote, "{ attempts: 3, backoff: fixed, delay: 20ms }");
    let (jobs, triggers) = project.split_once("triggers:").unwrap();
    let (flow, job) = flow.split_once("jobs:\n").unwrap();
    let server = server::start(&format!("{jobs}{job}triggers:{triggers}{flow}"));
    let run = server.run_in(&server.send_one(&json!({ "n": 5 })), "completed");
    let [send, tell] = ["send", "tell"].map(|step| task(&run, step));
    assert_eq!((&send["state"], &send["attempts"], &tell["attempts"]), (&json!("failed"), &json!(3), &json!(1)));
    assert_eq!(run["tasks"].as_array().unwrap().len(), 2, "once, not after each attempt");
    assert!(tell["created_at"].as_str() >= last_attempt(&run, "send")["finished_at"].as_str());
    let state = server.output(&run, "tell");
    assert!(state["errors"]["send"]["message"].as_str().unwrap().contains("503"), "{state}");
    assert_eq!(state["data"]["n"], 5, "with the state that the last attempt left");
}

#[test]
fn only_failures_of_the_severities_named_are_tried_again() {
    let server = server::start(
        "
jobs:
  by-default: { adaptor: common, trigger: any, expression: 'fn(() => { throw new Error(\"no\") })' }
  kill-by-default: { adaptor: common, trigger: any, timeout: 300ms, expression: 'fn(() => { while (true) {} })' }
  fail-on-fail: { adaptor: common, trigger: any, retry: &on-fail { attempts: 2, delay: 10ms, on: fail }, expression: 'fn(() => { throw new Error(\"no\") })' }
  kill-on-fail: { adaptor: common, trigger: any, retry: *on-fail, timeout: 300ms, expression: 'fn(() => { while (true) {} })' }
  kill-on-kill: { adaptor: common, trigger: any, retry: { attempts: 2, delay: 10ms, on: [kill] }, timeout: 300ms, expression: 'fn(() => { while (true) {} })' }
  crash-on-all-others: { adaptor: common, trigger: any, retry: { attempts: 2, delay: 10ms }, expression: &crash 'fn(state => { Promise.reject(new Error(\"nobody\")); return state })' }
  crash-on-crash: { adaptor: common, trigger: any, retry: { attempts: 2, delay: 10ms, on: crash }, expression: *crash }
  never-compiled: { adaptor: common, trigger: any, expression: fn(() => process.exit(3)) }
  never: { adaptor: common, trigger: any, retry: false, expression: 'fn(() => { throw new Error(\"no\") })' }
triggers:
  any: { criteria: {} }
",
    );
    let runs = server.send(&json!({}));
    for (workflow, severity, attempts) in [
        ("by-default", "fail", 1),
        ("kill-by-default", "kill", 1),
        ("fail-on-fail", "fail", 2),
        ("kill-on-fail", "kill", 1),
        ("kill-on-kill", "kill", 2),
        ("crash-on-all-others", "crash", 1),
        ("crash-on-crash", "crash", 2),
        ("never-compiled", "crash", 1),
        ("never", "fail", 1),
    ] {
        let run = server.run_in(&runs[workflow], "failed");
        assert_eq!(run["failure"]["severity"], severity, "{workflow}: {run}");
        assert_eq!(task(&run, workflow)["attempts"], attempts, "{workflow}");
    }
}

#[test]
fn a_task_sent_on_its_way_again_has_all_its_attempts_again() {
    let remote = remote(3, refusal());
    let server = server::start(&project(&remote, "{ attempts: 2, backoff: fixed, delay: 10ms }"));
    let id = server.send_one(&json!({}));
    let run = server.run_in(&id, "failed");
    let dead = task(&run, "send")["id"].as_str().unwrap();
    server.act(&format!("/api/v1/tasks/{dead}/redrive"), &json!({})).expect(200);
    let run = server.run_in(&id, "completed");
    assert_eq!(task(&run, "send")["attempts"], 4);
}
