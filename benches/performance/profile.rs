//! Where the microseconds of a run go, from the message to its answer.
//!
//! The server tells it itself: its log at level debug has what each step took, and the runtime, asked with
//! `DENO_STARTUP_PHASES`, the parts of an isolate's making. One message at a time, each when an isolate is ready. What the
//! steps do not explain of the time that a client waits is a row of its own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::post;
use crate::goals::figure;
use crate::project::Bench;
use crate::remote::Remote;
use crate::samples::median;
use crate::server::Server;

/// Messages that are measured, and those before them.
const ROUNDS: usize = 60;
const WARM_UP: usize = 20;

/// A column: microseconds of each message.
struct Profile {
    name: String,
    /// What a client waited.
    whole: Vec<f64>,
    /// By the text of the line and the name of the field.
    fields: HashMap<(String, String), Vec<f64>>,
    /// Of the whole server, for each message.
    cpu: f64,
}

const KEPT: (&str, &str) = ("a message is kept", "kept_us");
const QUEUED: (&str, &str) = ("an attempt is over", "queued_us");
const TOOK: (&str, &str) = ("an attempt is over", "took_us");
const SETTLED: (&str, &str) = ("an attempt is over", "kept_us");
const MADE: &str = "an isolate is made";

const fn run(field: &str) -> (&str, &str) {
    ("a run in an isolate", field)
}

/// A row: what it is, the fields that make it up, and those that have rows of their own.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);

/// Together these are the whole.
const STEPS: &[Row] = &[
    ("the message is kept on disk", &[KEPT], &[]),
    ("its run is taken up", &[QUEUED], &[KEPT]),
    ("an isolate takes the job", &[run("waited_us")], &[]),
    ("job: compiled, from its code cache", &[run("load_us")], &[]),
    ("modules: compiled, from code caches", &[run("compile_us")], &[]),
    ("modules: Node's own, loaded", &[run("built_in_us")], &[]),
    ("modules: evaluated", &[run("modules_us")], &[run("compile_us"), run("built_in_us")]),
    ("state: into V8 and parsed", &[run("parse_us")], &[]),
    (
        "job: evaluated, its operations, the request",
        &[run("evaluate_us"), run("operations_us")],
        &[run("parse_us"), run("stringify_us"), run("modules_us")],
    ),
    ("state: stringified", &[run("stringify_us")], &[]),
    ("isolate: cleared up for the next run", &[run("clear_up_us")], &[]),
    ("isolate: dropped", &[run("teardown_us")], &[]),
    (
        "between threads, log, caches",
        &[TOOK],
        &[
            run("waited_us"),
            run("create_us"),
            run("load_us"),
            run("evaluate_us"),
            run("operations_us"),
            run("clear_up_us"),
            run("teardown_us"),
        ],
    ),
    ("the result is kept on disk", &[SETTLED], &[]),
];

const CPU: Row = ("", &[run("cpu_us")], &[]);

const MAKING: &[Row] = &[
    ("V8's isolate, from the snapshot", &[("startup", "create_isolate (v8 snapshot deser)")], &[]),
    ("its context, from the snapshot", &[("startup", "V8 Context::from_snapshot")], &[]),
    (
        "the rest of the runtime's core",
        &[("startup", "TOTAL JsRuntime::new_inner")],
        &[("startup", "create_isolate (v8 snapshot deser)"), ("startup", "V8 Context::from_snapshot")],
    ),
    ("the start of the Node layer", &[("startup", "MainWorker::bootstrap (99_main)")], &[]),
    (
        "extensions, permissions",
        &[(MADE, "runtime_us")],
        &[("startup", "TOTAL JsRuntime::new_inner"), ("startup", "MainWorker::bootstrap (99_main)")],
    ),
    ("the host's JavaScript", &[(MADE, "host_us")], &[]),
    ("ahead: Node's modules loaded, packages compiled", &[(MADE, "ahead_us")], &[]),
    ("whole", &[(MADE, "made_us")], &[]),
];

pub async fn measure(bench: &Bench) -> String {
    let remote = Remote::start();
    let mut profiles = Vec::new();
    for level in ["run", "workflow"] {
        let trivial = "fn(state => ({ ...state, data: { ok: true } }))".to_owned();
        let get = format!("get(\"{}\")", remote.url());
        for (adaptor, name, job) in [("common", "common", trivial), ("http", "http GET", get)] {
            eprintln!("profile: {name} at {level}");
            profiles.push(profile(bench, level, adaptor, name, &job).await);
        }
    }
    let mut table = format!(
        "## Where the time of a run goes\n\nFrom a message to the answer of its run (`?wait`): one at a time, {ROUNDS} of each, \
         when an isolate is ready; microseconds of wall time, medians. What is made once and shared by all runs is no part \
         of it: adaptors are read, parsed and packed when the server starts. The server tells it itself, with its log at \
         `debug`, which costs some of the time.\n\n"
    );
    table.push_str(&table_of(&profiles, STEPS, Some("the rest: HTTP, the client, wake-ups")));
    let spares = &profiles[..2];
    table.push_str(
        "\nAt `run`, while no message waits, the isolate for the next one is made. That is no part of the time above, but of \
         the processor time:\n\n",
    );
    table.push_str(&table_of(spares, MAKING, None));
    table.push('\n');
    table
}

async fn profile(bench: &Bench, level: &str, adaptor: &str, name: &str, job: &str) -> Profile {
    let text = format!(
        "jobs:
  job:
    adaptor: {adaptor}
    trigger: some
    isolation: {level}
    expression: '{job}'
triggers:
  some: {{criteria: {{}}}}
"
    );
    let dir = bench.project("profile", &text);
    bench.show(Server::start(&dir, &[])).await;
    let server = Server::start_with(&dir, &["--log", "debug", "--log-json"], &[("DENO_STARTUP_PHASES", "1")]);
    let mut client = server.client().await;
    let message = post("/inbox?wait=30s", "{}");
    let mut whole = Vec::new();
    let mut cpu = Duration::ZERO;
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            cpu = server.cpu();
        }
        // With an isolate that is kept there may be no other.
        if level == "run" || round == 0 {
            server.isolates_ahead(1).await;
        }
        let one = Instant::now();
        client.send(&message).await.expect(201);
        whole.push(one.elapsed().as_secs_f64() * 1e6);
    }
    if level == "run" {
        server.isolates_ahead(1).await;
    }
    let cpu = (server.cpu() - cpu).as_secs_f64() * 1e6 / ROUNDS as f64;
    let mut fields = fields_of(&server.log());
    fields.values_mut().for_each(last_rounds);
    last_rounds(&mut whole);
    Profile { name: format!("{name}, `{level}`"), whole, fields, cpu }
}

fn last_rounds(values: &mut Vec<f64>) {
    values.drain(..values.len().saturating_sub(ROUNDS));
}

/// Numbers of the log in microseconds, in the order of its lines.
fn fields_of(log: &str) -> HashMap<(String, String), Vec<f64>> {
    let mut fields: HashMap<_, Vec<f64>> = HashMap::new();
    for line in log.lines() {
        if let Some((name, time)) = line.strip_prefix("[startup]").and_then(|line| line.trim().rsplit_once("  ")) {
            fields.entry(("startup".to_owned(), name.trim().to_owned())).or_default().push(micros(time));
        } else if let Ok(Value::Object(line)) = serde_json::from_str(line) {
            let text = line.get("message").and_then(Value::as_str).unwrap_or_default();
            for (name, value) in line.iter().filter(|(name, _)| name.ends_with("_us")) {
                let key = (text.to_owned(), name.clone());
                fields.entry(key).or_default().push(value.as_f64().unwrap_or_default());
            }
        }
    }
    fields
}

/// A duration as Rust prints it for people.
fn micros(time: &str) -> f64 {
    let digits = time.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &time[digits.len()..] {
        "ns" => 1e-3,
        "ms" => 1e3,
        "s" => 1e6,
        _ => 1.0,
    };
    digits.parse::<f64>().map_or(f64::NAN, |number| number * factor)
}

impl Profile {
    /// A row's microseconds, of each message.
    fn row(&self, (_, parts, others): &Row) -> Vec<f64> {
        let sum = |keys: &[(&str, &str)], round: usize| -> f64 {
            let field = |(line, name): &(&str, &str)| {
                let values = self.fields.get(&((*line).to_owned(), (*name).to_owned()));
                let values = values.unwrap_or_else(|| panic!("the log has no {name} of \"{line}\""));
                values.get(round).copied().unwrap_or_default()
            };
            keys.iter().map(field).sum()
        };
        (0..ROUNDS).map(|round| sum(parts, round) - sum(others, round)).collect()
    }
}

/// A row for each of these, and with `rest` one for what they leave of the whole, the whole, and the processor time.
fn table_of(profiles: &[Profile], rows: &[Row], rest: Option<&str>) -> String {
    let names: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
    let mut table = format!("| us | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let mut line = |name: &str, value: &dyn Fn(&Profile) -> f64| {
        let values: Vec<String> = profiles.iter().map(|profile| figure(value(profile).max(0.0))).collect();
        let _ = writeln!(table, "| {name} | {} |", values.join(" | "));
    };
    for row in rows {
        line(row.0, &|profile| median(profile.row(row).into_iter()));
    }
    if let Some(rest) = rest {
        line(rest, &|profile| {
            let known: Vec<Vec<f64>> = rows.iter().map(|row| profile.row(row)).collect();
            let left = |round: usize| profile.whole[round] - known.iter().map(|row| row[round]).sum::<f64>();
            median((0..ROUNDS).map(left))
        });
        line("**whole**, as the client sees it", &|profile| median(profile.whole.iter().copied()));
        line("CPU of the isolate's thread, from the job on", &|profile| median(profile.row(&CPU).into_iter()));
        line("CPU of the whole server, with the next isolate", &|profile| profile.cpu);
    }
    table
}
