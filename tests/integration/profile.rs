//! What the log tells of a run's time at level debug.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Server, Setup};

#[test]
fn the_log_tells_where_the_time_of_a_run_went() {
    let server = Setup::new(
        "
jobs:
  slow:
    adaptor: common
    trigger: any
    expression: |
      fn(async state => { await new Promise(done => setTimeout(done, 100)); return state })
triggers:
  any: { criteria: {} }
",
    )
    .args(&["--log", "debug"])
    .start();
    let run = server.run_in(&server.send_one(&json!({})), "completed");
    let kept = line(&server, "a message is kept");
    assert_eq!(kept["id"], run["message"]);
    assert!(micros(&kept, "kept_us") > 0);
    let over = line(&server, "an attempt is over");
    assert_eq!(over["run"], run["id"]);
    let parts = line(&server, "a run in an isolate");
    assert_eq!(parts["spans"][0]["run"], run["id"], "{parts}");
    assert_eq!(parts["spans"][0]["step"], "slow");
    assert!(micros(&parts, "operations_us") >= 100_000, "the job waited: {parts}");
    assert!(micros(&parts, "parse_us") + micros(&parts, "stringify_us") <= micros(&parts, "operations_us"));
    let in_isolate = ["create_us", "load_us", "evaluate_us", "operations_us"].map(|part| micros(&parts, part));
    assert!(in_isolate.iter().sum::<u64>() <= micros(&over, "took_us"), "{parts} {over}");
    let made = line(&server, "an isolate is made");
    let of_it = ["runtime_us", "host_us", "ahead_us"].map(|part| micros(&made, part));
    assert!(of_it.iter().sum::<u64>() <= micros(&made, "made_us"), "{made}");
}

/// The first line with this text. What an attempt leaves is told after its run has ended.
fn line(server: &Server, text: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let log = server.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) = lines.find(|line| line["message"] == text) {
            return line;
        }
        assert!(Instant::now() < deadline, "no line says {text}:\n{log}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn micros(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("no {field} in {line}"))
}
