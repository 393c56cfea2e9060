//! From messages to the ends of their runs: which jobs they start, what follows from these, and what people can do about
//! a run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::server::{self, Server, Setup, last_attempt, task};
use super::support::gate::Gate;
use super::support::http_server::{self, Reply};

#[test]
fn a_message_starts_every_workflow_that_it_is_for() {
    let server = server::start(
        "
jobs:
  all: { adaptor: common, trigger: everything, expression: fn(state => state) }
  orders: { adaptor: common, trigger: order, expression: fn(state => state) }
  urgent: { adaptor: common, trigger: urgent, expression: fn(state => state) }
  large: { adaptor: common, trigger: large, expression: fn(state => state) }
  odd: { adaptor: common, trigger: odd, expression: fn(state => state) }
triggers:
  everything: { criteria: {}, condition: '!data.secretly' }
  order: { criteria: { form: order } }
  urgent: { criteria: '{\"patient\":{\"tags\":[{\"name\":\"urgent\"}]}}' }
  large: { criteria: { form: order }, condition: \"data.total > 1000 && request.headers['x-shop'] === 'north'\" }
  odd: { criteria: { form: odd }, condition: data.nothing.at.all }
",
    );
    let started = |message: Value| -> BTreeSet<String> {
        let answer = server.request("POST", "/inbox").header("x-shop", "north").json(&message).send().expect(202);
        serde_json::from_value(answer.json()["data"].clone()).unwrap()
    };
    for (message, expected) in [
        (json!({ "form": "order", "secretly": true }), &["orders"][..]),
        (json!({ "form": "other", "secretly": true }), &[]),
        (json!({ "form": "order", "total": 1001 }), &["all", "orders", "large"]),
        (json!({ "form": "order", "total": 1000 }), &["all", "orders"]),
        (
            json!({ "patient": { "id": 1, "tags": [{ "name": "new" }, { "name": "urgent", "by": "x" }] } }),
            &["all", "urgent"],
        ),
        (json!({ "patient": { "tags": ["urgent"] } }), &["all"]),
        (json!({ "form": "odd" }), &["all"]),
        (json!(["order"]), &[]),
    ] {
        assert_eq!(started(message.clone()), expected.iter().map(|name| (*name).to_owned()).collect(), "{message}");
    }
    let complaint = server.until("a condition that throws is told of", || {
        server.log().lines().find(|line| line.contains("condition")).map(str::to_owned)
    });
    assert!(complaint.contains("odd"), "{complaint}");
    assert_eq!(
        server.post("/inbox", &json!({ "form": "order", "total": 5000 })).json()["data"],
        json!(["all", "orders"])
    );
}

#[test]
fn a_condition_that_is_cut_short_refuses_the_message() {
    let server = server::start(
        "
jobs:
  slow: { adaptor: common, trigger: slow, expression: fn(state => state) }
  large: { adaptor: common, trigger: large, expression: fn(state => state) }
triggers:
  slow: { criteria: { form: slow }, condition: '(() => { while (data.endless); return true; })()' }
  large: { criteria: { form: large }, condition: '(() => { for (const all = []; ;) all.push([all.length]); })()' }
",
    );
    for message in [json!({ "form": "slow", "endless": true }), json!({ "form": "large" })] {
        let refused = server.post("/inbox", &message).expect(503);
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(server.list("/api/v1/messages").len(), 0, "what was refused is not kept");
    let log = server.log();
    assert!(log.contains("trigger `slow`") && log.contains("trigger `large`"), "{log}");
    assert_eq!(server.post("/inbox", &json!({ "form": "slow" })).expect(202).json()["data"], json!(["slow"]));
}

#[test]
fn a_run_that_is_cancelled_as_it_begins_gives_up_its_place() {
    let project = "
jobs:
  patient:
    adaptor: common
    trigger: any
    expression: fn(state => new Promise(resolve => setTimeout(() => resolve(state), state.data.minutes * 60000)))
triggers:
  any: { criteria: '{}' }
";
    // What is not told to stop at once would be told when its lease is prolonged.
    let server = Setup::new(project).args(&["--concurrency", "1", "--lease", "1h"]).start();
    let start = |minutes: u32| {
        let run = json!({ "workflow": "patient", "state": { "data": { "minutes": minutes } } });
        server.act("/api/v1/runs", &run).expect(201).json()["id"].as_str().unwrap().to_owned()
    };
    for _ in 0..200 {
        server.act(&format!("/api/v1/runs/{}/cancel", start(4)), &json!({})).expect(200);
    }
    server.run_in(&start(0), "completed");
}

/// `first` waits at the gate, and fails if it is told to; `good` and `bad` follow it.
fn chain(gate: &Gate) -> String {
    format!(
        "
jobs:
  first:
    adaptor: common
    trigger: number
    expression: |
      fn(async state => {{
        await fetch('{gate}/' + state.data.n);
        if (state.data.fails) throw new Error('no number ' + state.data.n);
        return {{ ...state, data: {{ ...state.data, first: 'saw ' + state.data.n }}, references: [state.data.n] }};
      }})
  good:
    adaptor: common
    trigger: ok
    expression: |
      fn(state => ({{ ...state, data: {{ ...state.data, good: state.data.first, request: state.request?.method }} }}))
  bad:
    adaptor: common
    trigger: ko
    expression: |
      fn(state => ({{ data: state.data, told: state.errors.first.message, name: state.errors.first.name }}))
triggers:
  number: {{ criteria: {{ form: number }} }}
  ok: {{ success: first }}
  ko: {{ failure: first }}
",
        gate = gate.url()
    )
}

#[test]
fn what_follows_a_job_begins_with_the_state_of_that_very_run() {
    let gate = Gate::new();
    let server = Setup::new(&chain(&gate)).args(&["--concurrency", "4"]).start();
    let runs: Vec<String> =
        (0..4).map(|n| server.send_one(&json!({ "form": "number", "n": n, "fails": n % 2 == 1 }))).collect();
    let mut held: Vec<_> = (0..4).map(|_| gate.held()).collect();
    held.sort_by(|one, other| other.path.cmp(&one.path));
    held.into_iter().for_each(|held| held.open());
    for (n, id) in runs.iter().enumerate() {
        let run = server.run_in(id, "completed");
        assert_eq!(run["tasks"].as_array().unwrap().len(), 2, "{run}");
        if n % 2 == 0 {
            let expected = json!({ "form": "number", "n": n, "fails": false, "first": format!("saw {n}"),
                "good": format!("saw {n}"), "request": "POST" });
            let state = server.output(&run, "good");
            assert_eq!((&state["data"], &state["references"]), (&expected, &json!([n])));
            assert_eq!(task(&run, "first")["state"], "completed");
        } else {
            let state = server.output(&run, "bad");
            assert_eq!(state["data"]["n"], n);
            assert_eq!((&state["name"], &state["told"]), (&json!("JobError"), &json!(format!("no number {n}"))));
            assert_eq!(task(&run, "first")["state"], "failed", "a failure that something follows is handled");
            assert_eq!(run["failure"], Value::Null);
        }
    }
}

#[test]
fn a_job_that_is_killed_has_a_failure_flow_too() {
    let server = server::start(
        "
jobs:
  endless: { adaptor: common, trigger: any, timeout: 500ms, expression: 'fn(() => { while (true) {} })' }
  report: { adaptor: common, trigger: ko, expression: fn(state => state) }
  celebrate: { adaptor: common, trigger: ok, expression: fn(state => state) }
triggers:
  any: { criteria: {} }
  ko: { failure: endless }
  ok: { success: endless }
",
    );
    let run = server.run_in(&server.send_one(&json!({ "n": 7 })), "completed");
    assert_eq!(last_attempt(&run, "endless")["failure"]["severity"], "kill");
    let state = server.output(&run, "report");
    assert_eq!((&state["data"]["n"], &state["errors"]["endless"]["name"]), (&json!(7), &json!("TimeoutError")));
    assert_eq!(state["errors"]["endless"]["severity"], "kill");
    assert_eq!(run["tasks"].as_array().unwrap().len(), 2);
}

#[test]
fn credentials_reach_the_job_and_nothing_else() {
    let secrets = ["written-in-the-project-77", "from the environment/88"];
    let server = Setup::new(
        "
jobs:
  use:
    adaptor: common
    trigger: any
    credential: bank
    expression: |
      fn(state => {
        const { password, nested } = state.configuration;
        console.log('signing in with', password, nested);
        console.log(encodeURIComponent(nested.token));
        return { ...state, data: { ...state.data, lengths: [password.length, nested.token.length] } };
      })
  fail:
    adaptor: common
    trigger: used
    credential: bank
    expression: |
      fn(state => { throw new Error('refused ' + state.configuration.nested.token) })
  report:
    adaptor: common
    trigger: refused
    expression: |
      fn(state => ({ ...state, had: Object.keys(state.configuration) }))
triggers:
  any: { criteria: {} }
  used: { success: use }
  refused: { failure: fail }
credentials:
  bank: { password: written-in-the-project-77, nested: { token: '${TOKEN}' } }
",
    )
    .env("TOKEN", secrets[1])
    .args(&["--log", "debug"])
    .start();
    let run = server.run_in(&server.send_one(&json!({})), "completed");
    let state = server.output(&run, "report");
    assert_eq!(state["data"]["lengths"], json!([secrets[0].len(), secrets[1].len()]), "the job had them");
    assert_eq!(state["had"], json!([]), "the next job has no credential, and not that of the job before");
    assert_eq!(state["errors"]["fail"]["message"], "refused ***");

    let mut shown = vec![server.log(), run.to_string(), state.to_string()];
    for step in ["use", "fail", "report"] {
        shown.push(server.output(&run, step).to_string());
        let attempt = last_attempt(&run, step)["id"].as_str().unwrap();
        shown.push(server.read(&format!("/api/v1/attempts/{attempt}/log")).expect(200).text());
        let task = task(&run, step)["id"].as_str().unwrap();
        shown.push(server.read(&format!("/api/v1/tasks/{task}/input")).expect(200).text());
    }
    assert!(shown.iter().any(|text| text.contains("signing in with ***")), "{shown:?}");
    let travelling = "from%20the%20environment%2F88";
    for secret in [secrets[0], secrets[1], travelling] {
        assert!(!shown.iter().any(|text| text.contains(secret)), "{secret}: {shown:?}");
    }
    assert_eq!(server.data_files_with(&[secrets[0], secrets[1], travelling]), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_message_for_later_waits_for_its_time() {
    let server = server::start(
        "
jobs:
  keep: { adaptor: common, trigger: any, expression: fn(state => state) }
triggers:
  any: { criteria: {} }
",
    );
    let answer = server.post("/inbox?delay=1500ms", &json!({})).expect(202);
    let id = answer.json()["meta"]["run_ids"][0].as_str().unwrap().to_owned();
    let waiting = server.read(&format!("/api/v1/runs/{id}")).json();
    assert_eq!((&waiting["state"], &waiting["tasks"][0]["state"]), (&json!("pending"), &json!("scheduled")));
    let message = server.read(answer.header("location").unwrap()).json();
    let run = server.run_in(&id, "completed");
    // Times of one form sort as texts.
    let time = |value: &Value| value.as_str().unwrap().to_owned();
    assert!(time(&message["deliver_at"]) > time(&message["received_at"]));
    assert!(time(&last_attempt(&run, "keep")["started_at"]) >= time(&message["deliver_at"]), "{run}");
}

#[test]
fn a_run_that_waits_or_is_under_way_can_be_cancelled() {
    let gate = Gate::new();
    let server = Setup::new(&chain(&gate)).args(&["--concurrency", "1", "--in-flight", "2"]).start();
    let number = |n: u32| server.send_one(&json!({ "form": "number", "n": n }));
    let cancel = |id: &str| server.act(&format!("/api/v1/runs/{id}/cancel"), &json!({})).expect(200).json();

    let under_way = number(1);
    let held = gate.held();
    let waits = number(2);
    assert_eq!(cancel(&waits)["state"], "cancelled");
    assert_eq!(cancel(&under_way)["state"], "cancelled");
    held.open();
    let last = number(3);
    let held = gate.held();
    assert_eq!(held.path, "/3", "what was cancelled does not begin");
    held.open();
    server.run_in(&last, "completed");

    let run = server.until("the attempt has ended", || {
        let run = server.run_in(&under_way, "cancelled");
        (!run["tasks"][0]["tries"].as_array().unwrap().is_empty()).then_some(run)
    });
    assert_eq!(run["tasks"].as_array().unwrap().len(), 1, "nothing follows: {run}");
    assert_eq!(last_attempt(&run, "first")["outcome"], "cancelled");
    let run = server.run_in(&waits, "cancelled");
    assert_eq!((&run["tasks"][0]["state"], &run["tasks"][0]["tries"]), (&json!("cancelled"), &json!([])));
}

#[test]
fn a_busy_loop_can_be_cancelled() {
    let server = Setup::new(
        "
jobs:
  endless: { adaptor: common, trigger: endless, expression: 'fn(() => { while (true) {} })' }
  good: { adaptor: common, trigger: good, expression: fn(state => state) }
triggers:
  endless: { criteria: { form: endless } }
  good: { criteria: { form: good } }
",
    )
    .args(&["--concurrency", "1"])
    .start();
    for _ in 0..2 {
        let id = server.send_one(&json!({ "form": "endless" }));
        server.run_in(&id, "running");
        server.act(&format!("/api/v1/runs/{id}/cancel"), &json!({})).expect(200);
    }
    let id = server.send_one(&json!({ "form": "good" }));
    server.run_in(&id, "completed");
}

/// A project whose job `send` asks `remote`, and fails if that says no; `note` follows it. And the way to tell the remote
/// system what to say.
fn remote() -> (http_server::Server, Arc<AtomicBool>, String) {
    let works = Arc::new(AtomicBool::new(false));
    let says = works.clone();
    let remote = http_server::Server::with(move |_| match says.load(Ordering::SeqCst) {
        true => Reply::json(200, &json!({ "taken": true })),
        false => Reply::json(503, &json!({ "error": "closed" })),
    });
    let project = format!(
        "
jobs:
  prepare: {{ adaptor: common, trigger: any, expression: 'fn(state => ({{ ...state, data: {{ n: state.data.n + 1 }} }}))' }}
  send:
    adaptor: http
    trigger: prepared
    expression: |
      post('{}/send', state => state.data)
  note: {{ adaptor: common, trigger: sent, expression: fn(state => state) }}
triggers:
  any: {{ criteria: {{}} }}
  prepared: {{ success: prepare }}
  sent: {{ success: send }}
",
        remote.origin()
    );
    (remote, works, project)
}

#[test]
fn a_run_is_repeated_from_a_step_with_the_state_of_then() {
    let (remote, works, project) = remote();
    let server = server::start(&project);
    let failed = server.send_one(&json!({ "n": 1 }));
    let run = server.run_in(&failed, "failed");
    assert_eq!(run["failure"]["severity"], "fail", "{run}");
    works.store(true, Ordering::SeqCst);

    let again = server.act(&format!("/api/v1/runs/{failed}/retry"), &json!({ "from": "send" })).expect(201).json();
    let again = server.run_in(again["id"].as_str().unwrap(), "completed");
    let steps: Vec<&Value> = again["tasks"].as_array().unwrap().iter().map(|task| &task["step"]).collect();
    assert_eq!(steps, ["send", "note"]);
    assert_eq!((&again["retry_of"], &again["message"]), (&json!(failed), &run["message"]));
    assert_eq!(server.output(&again, "note")["data"]["taken"], true);

    let whole = server.act(&format!("/api/v1/runs/{failed}/retry"), &json!({})).expect(201).json();
    let whole = server.run_in(whole["id"].as_str().unwrap(), "completed");
    assert_eq!(whole["tasks"].as_array().unwrap().len(), 3);
    let bodies: Vec<Value> = remote.seen().iter().map(http_server::Request::json).collect();
    assert_eq!(bodies, vec![json!({ "n": 2 }); 3]);
    assert_eq!(server.run_in(&failed, "failed"), run, "the first run stays as it was");
}

#[test]
fn a_message_is_replayed_as_it_came() {
    let (remote, works, project) = remote();
    works.store(true, Ordering::SeqCst);
    let server = server::start(&project);
    let answer = server.post("/inbox", &json!({ "n": 41 })).expect(202);
    let message = answer.json()["meta"]["message_id"].as_str().unwrap().to_owned();
    let replayed = server.act(&format!("/api/v1/messages/{message}/replay"), &json!({})).expect(200).json();
    let run = server.run_in(replayed["runs"][0]["id"].as_str().unwrap_or_else(|| panic!("{replayed}")), "completed");
    assert_eq!(run["message"], json!(message));
    server.until("both runs have ended", || {
        (server.list(&format!("/api/v1/runs?state=completed&message={message}")).len() == 2).then_some(())
    });
    assert_eq!(remote.seen().iter().map(http_server::Request::json).collect::<Vec<_>>(), vec![json!({ "n": 42 }); 2]);
    assert_eq!(server.list("/api/v1/messages").len(), 1, "the message is the same");
}

#[test]
fn dead_tasks_are_sent_on_their_way_one_by_one_or_all_at_once() {
    let (_remote, works, project) = remote();
    let server = server::start(&project);
    let runs: Vec<String> = (0..4).map(|n| server.send_one(&json!({ "n": n }))).collect();
    runs.iter().for_each(|id| drop(server.run_in(id, "failed")));
    let dead = || server.list("/api/v1/tasks?state=dead&workflow=prepare");
    assert_eq!(dead().len(), 4);
    let id_of_dead = |run: &str| task(&server.run_in(run, "failed"), "send")["id"].as_str().unwrap().to_owned();
    let first = id_of_dead(&runs[0]);
    works.store(true, Ordering::SeqCst);

    server.act(&format!("/api/v1/tasks/{first}/redrive"), &json!({})).expect(200);
    let run = server.run_in(&runs[0], "completed");
    assert_eq!((&run["failure"], task(&run, "send")["tries"].as_array().unwrap().len()), (&Value::Null, 2));
    assert_eq!(task(&run, "note")["state"], "completed", "what follows is done, too");
    assert_eq!(dead().len(), 3);

    let redrive = |body: &Value| server.act("/api/v1/tasks/redrive", body).expect(200).json()["redriven"].clone();
    assert_eq!(redrive(&json!({ "workflow": "nothing" })), 0);
    assert_eq!(redrive(&json!({ "run": runs[1] })), 1);
    assert_eq!(redrive(&json!({ "workflow": "prepare" })), 2);
    runs.iter().for_each(|id| drop(server.run_in(id, "completed")));
    assert_eq!(dead().len(), 0);
}

#[test]
fn a_workflow_runs_no_more_jobs_at_once_than_it_may() {
    let gate = Gate::new();
    let project = format!(
        "
jobs:
  one: {{ adaptor: common, trigger: one, concurrency: 1, expression: 'fn(async state => {{ await fetch(\"{}\"); return state; }})' }}
  other: {{ adaptor: common, trigger: other, expression: fn(state => state) }}
triggers:
  one: {{ criteria: {{ form: one }} }}
  other: {{ criteria: {{ form: other }} }}
",
        gate.url()
    );
    let server = Setup::new(&project).args(&["--concurrency", "4"]).start();
    let runs: Vec<String> = (0..3).map(|_| server.send_one(&json!({ "form": "one" }))).collect();
    for _ in &runs {
        let held = gate.held();
        // Others are run in the meantime: there is room.
        for _ in 0..3 {
            server.run_in(&server.send_one(&json!({ "form": "other" })), "completed");
        }
        assert!(gate.look().is_none(), "one at a time");
        assert_eq!(server.list("/api/v1/tasks?state=running&workflow=one").len(), 1);
        held.open();
    }
    runs.iter().for_each(|id| drop(server.run_in(id, "completed")));
}

#[test]
fn a_workflow_with_much_to_do_does_not_keep_others_waiting() {
    let gate = Gate::new();
    let project = format!(
        "
jobs:
  hold: {{ adaptor: common, trigger: hold, expression: 'fn(async state => {{ await fetch(\"{gate}\"); return state; }})' }}
  hold-too: {{ adaptor: common, trigger: hold, expression: 'fn(async state => {{ await fetch(\"{gate}\"); return state; }})' }}
  many: {{ adaptor: common, trigger: many, expression: fn(state => state) }}
  few: {{ adaptor: common, trigger: few, expression: fn(state => state) }}
triggers:
  hold: {{ criteria: {{ form: hold }} }}
  many: {{ criteria: {{ form: many }} }}
  few: {{ criteria: {{ form: few }} }}
",
        gate = gate.url()
    );
    // One job of a workflow may be under way, and one of others.
    let server = Setup::new(&project).args(&["--concurrency", "1", "--in-flight", "2"]).start();
    server.send(&json!({ "form": "hold" }));
    let held = [gate.held(), gate.held()];
    for _ in 0..200 {
        server.send(&json!({ "form": "many" }));
    }
    let few: Vec<String> = (0..3).map(|_| server.send_one(&json!({ "form": "few" }))).collect();
    held.into_iter().for_each(|held| held.open());
    let last = few.iter().map(|id| server.run_in(id, "completed")["finished_at"].as_str().unwrap().to_owned()).max();
    let done = server.until("all is done", || {
        let done = server.list("/api/v1/runs?workflow=many&state=completed&limit=500");
        (done.len() == 200).then_some(done)
    });
    let before = done.iter().filter(|run| run["finished_at"].as_str() < last.as_deref()).count();
    assert!(before < 20, "{before} of 200 went first");
}

#[test]
fn bad_jobs_do_not_keep_good_ones_from_their_work() {
    let server = Setup::new(
        "
jobs:
  endless: { adaptor: common, trigger: endless, timeout: 400ms, expression: 'fn(() => { while (true) {} })' }
  hog:
    adaptor: common
    trigger: hog
    memory: 64
    expression: |
      fn(() => { const all = []; while (true) all.push(new Array(100000).fill(all.length)); })
  buffers:
    adaptor: common
    trigger: hog
    timeout: 10s
    expression: |
      fn(() => { const all = []; while (true) all.push(new Uint8Array(10 << 20).fill(1)); })
  reject:
    adaptor: common
    trigger: hog
    expression: |
      fn(state => { Promise.reject(new Error('nobody')); return state; })
  good: { adaptor: common, trigger: good, expression: 'fn(state => ({ ...state, data: { n: state.data.n * 2 } }))' }
triggers:
  endless: { criteria: { form: endless } }
  hog: { criteria: { form: hog } }
  good: { criteria: { form: good } }
",
    )
    .args(&["--concurrency", "2"])
    .start();
    let mut good = Vec::new();
    for n in 0..20 {
        server.send(&json!({ "form": "endless" }));
        if n % 4 == 0 {
            server.send(&json!({ "form": "hog" }));
        }
        good.push(server.send_one(&json!({ "form": "good", "n": n })));
    }
    for (n, id) in good.iter().enumerate() {
        let run = server.run_in(id, "completed");
        assert_eq!(server.output(&run, "good")["data"]["n"], n * 2);
    }
    let count = |workflow: &str| server.list(&format!("/api/v1/runs?state=failed&limit=100&workflow={workflow}")).len();
    server.until("the bad ones have failed", || {
        (count("endless") == 20 && ["hog", "buffers", "reject"].iter().all(|name| count(name) == 5)).then_some(())
    });
    server.get("/readyz").expect(200);
    let id = server.send_one(&json!({ "form": "good", "n": 1 }));
    server.run_in(&id, "completed");
}

#[test]
fn a_run_that_is_cancelled_while_its_job_has_just_ended_stays_cancelled() {
    let gate = Gate::new();
    let server: Server = Setup::new(&chain(&gate)).start();
    for n in 0..10 {
        let id = server.send_one(&json!({ "form": "number", "n": n }));
        gate.held().open();
        let answer = server.act(&format!("/api/v1/runs/{id}/cancel"), &json!({}));
        let state = if answer.status == 200 { "cancelled" } else { "completed" };
        let run = server.run_in(&id, state);
        assert!(run["finished_at"].is_string(), "{run}");
        let open = ["scheduled", "queued", "running", "retrying"];
        let tasks = run["tasks"].as_array().unwrap();
        assert!(!tasks.iter().any(|task| open.iter().any(|state| task["state"] == *state)), "{run}");
    }
}

#[test]
fn a_workflow_that_does_not_end_leaves_room_for_others() {
    let gate = Gate::new();
    let project = format!(
        "
jobs:
  hold: {{ adaptor: common, trigger: hold, expression: 'fn(async state => {{ await fetch(\"{}\"); return state; }})' }}
  few: {{ adaptor: common, trigger: few, expression: fn(state => state) }}
triggers:
  hold: {{ criteria: {{ form: hold }} }}
  few: {{ criteria: {{ form: few }} }}
",
        gate.url()
    );
    let server = Setup::new(&project).args(&["--concurrency", "2", "--in-flight", "3"]).start();
    for _ in 0..20 {
        server.send(&json!({ "form": "hold" }));
    }
    let held = [gate.held(), gate.held()];
    server.run_in(&server.send_one(&json!({ "form": "few" })), "completed");
    assert!(gate.look().is_none(), "two at a time");
    held.into_iter().for_each(|held| held.open());
    for _ in 0..18 {
        gate.held().open();
    }
}
