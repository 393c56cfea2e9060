//! Jobs that wait for an answer: many at once, whatever computes beside them, and ended like any others.

use serde_json::{Value, json};

use super::server::{Server, Setup, last_attempt};
use super::support::gate::{Gate, Held};

/// Jobs that wait at the gate, or never end if their message says so. One of each workflow computes at a time.
fn setup(gate: &Gate) -> Setup {
    let project = format!(
        "
jobs:
  wait:
    adaptor: common
    trigger: wait
    expression: |
      fn(async state => {{
        await fetch('{gate}');
        return state;
      }})
      fn(state => {{
        while (state.data.endless) {{}}
        return state;
      }})
  brief: {{ adaptor: common, trigger: brief, timeout: 2s, expression: 'fn(() => fetch(\"{gate}/brief\"))' }}
  other: {{ adaptor: common, trigger: other, expression: fn(state => state) }}
triggers:
  wait: {{ criteria: {{ form: wait }} }}
  brief: {{ criteria: {{ form: brief }} }}
  other: {{ criteria: {{ form: other }} }}
",
        gate = gate.url()
    );
    Setup::new(&project).args(&["--concurrency", "1", "--in-flight", "100"])
}

/// How many jobs under way are in this state.
fn under_way(server: &Server, state: &str) -> usize {
    let metrics = server.read("/metrics").expect(200).text();
    let name = format!("fnhost_jobs_under_way{{state=\"{state}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{metrics}"));
    value.parse().unwrap()
}

#[track_caller]
fn until_under_way(server: &Server, state: &str, count: usize) {
    server.until(&format!("{count} {state}"), || (under_way(server, state) == count).then_some(()));
}

/// Waiting runs and what they wait for.
fn waiting(server: &Server, gate: &Gate, count: usize, message: &Value) -> (Vec<String>, Vec<Held>) {
    let runs = (0..count).map(|_| server.send_one(message)).collect();
    (runs, (0..count).map(|_| gate.held()).collect())
}

#[test]
fn more_jobs_can_wait_than_can_compute() {
    let gate = Gate::new();
    let server = setup(&gate).start();
    let (runs, held) = waiting(&server, &gate, 40, &json!({ "form": "wait" }));
    until_under_way(&server, "waiting", 40);
    server.run_in(&server.send_one(&json!({ "form": "other" })), "completed");
    held.into_iter().for_each(Held::open);
    runs.iter().for_each(|id| drop(server.run_in(id, "completed")));
    assert_eq!(["computing", "waiting", "ready"].map(|state| under_way(&server, state)), [0; 3]);
}

#[test]
fn a_job_that_waits_can_be_cancelled_and_hits_its_limit_of_time() {
    let gate = Gate::new();
    let server = setup(&gate).start();
    let (runs, held) = waiting(&server, &gate, 3, &json!({ "form": "wait" }));
    server.act(&format!("/api/v1/runs/{}/cancel", runs[0]), &json!({})).expect(200);
    server.run_in(&runs[0], "cancelled");
    let (brief, _held) = waiting(&server, &gate, 1, &json!({ "form": "brief" }));
    let brief = server.run_in(&brief[0], "failed");
    assert_eq!(last_attempt(&brief, "brief")["failure"]["class"], "TimeoutError", "{brief}");
    held.into_iter().for_each(Held::open);
    runs[1..].iter().for_each(|id| drop(server.run_in(id, "completed")));
}

#[test]
fn a_job_that_waits_for_its_turn_to_compute_can_be_cancelled() {
    let gate = Gate::new();
    let server = setup(&gate).start();
    let (runs, held) = waiting(&server, &gate, 2, &json!({ "form": "wait" }));
    let (endless, hogs) = waiting(&server, &gate, 1, &json!({ "form": "wait", "endless": true }));
    hogs.into_iter().for_each(Held::open);
    until_under_way(&server, "computing", 1);
    held.into_iter().for_each(Held::open);
    until_under_way(&server, "ready", 2);
    // The other workflows have their turns.
    server.run_in(&server.send_one(&json!({ "form": "other" })), "completed");
    assert_eq!(under_way(&server, "ready"), 2);
    server.act(&format!("/api/v1/runs/{}/cancel", runs[0]), &json!({})).expect(200);
    server.run_in(&runs[0], "cancelled");
    until_under_way(&server, "ready", 1);
    server.act(&format!("/api/v1/runs/{}/cancel", endless[0]), &json!({})).expect(200);
    server.run_in(&endless[0], "cancelled");
    server.run_in(&runs[1], "completed");
}

#[test]
fn a_server_that_stops_lets_waiting_jobs_end() {
    let gate = Gate::new();
    let mut server = setup(&gate).start();
    let (runs, held) = waiting(&server, &gate, 20, &json!({ "form": "wait" }));
    server.signal("TERM");
    server.until("it stops", || server.log().contains("stopping").then_some(()));
    held.into_iter().for_each(Held::open);
    assert!(server.wait().success());
    let server = server.restart();
    for id in &runs {
        let run = server.run_in(id, "completed");
        assert_eq!(run["tasks"][0]["attempts"], 1, "{run}");
    }
}

const HOARDERS: &str = "
jobs:
  hoard:
    adaptor: common
    trigger: all
    expression: |
      fn(async state => {
        const hoard = Array.from({ length: 30 }, (_, n) => new Array(131072).fill(n + 0.5));
        await new Promise(resolve => setTimeout(resolve, 300));
        return { ...state, sum: hoard.reduce((sum, part) => sum + part[7], 0) };
      })
triggers:
  all: { criteria: {} }
";

#[test]
fn jobs_wait_in_the_queue_when_memory_is_short() {
    // Less than the server itself takes, and then enough for a few: forty at once would take 1.6 GB.
    for (bound, most) in [("1", 400), ("400", 800)] {
        let server = Setup::new(HOARDERS).args(&["--total-memory", bound, "--in-flight", "100"]).start();
        let runs: Vec<String> = (0..40).map(|_| server.send_one(&json!({}))).collect();
        for id in &runs {
            let run = server.run_in(id, "completed");
            assert_eq!(server.output(&run, "hoard")["sum"], 450, "{run}");
        }
        assert!(server.peak_memory() < most, "{} MB with a bound of {bound} MB", server.peak_memory());
    }
}
