//! Whether the formulas of `docs/scale.md` hold: constants are measured one run at a time, and what follows from them for
//! many runs is held against what the server does.

use std::fmt::Write as _;
use std::time::Duration;

use crate::client::post;
use crate::goals::figure;
use crate::load::backlog_of;
use crate::project::Bench;
use crate::server::Server;

/// Runs one after the other, for a constant.
const ROUNDS: usize = 60;
const WARM_UP: usize = 20;
const KB: usize = 1000;
const MB: usize = 1_000_000;
/// Bytes of the message that gives what each megabyte costs, and of the one that is predicted.
const LARGE: usize = 4 * MB;
/// Runs of a computing job for the rate.
const COMPUTING: usize = 300;
/// Seconds that jobs wait, and how many of them do at once: for what each needs, and for what is predicted.
const WAIT: f64 = 2.0;
const FEW: usize = 50;
const MANY: usize = 200;

struct Point {
    what: String,
    predicted: f64,
    measured: f64,
}

pub async fn measure(bench: &Bench) -> String {
    let mut points = Vec::new();
    sizes(bench, &mut points).await;
    computing(bench, &mut points).await;
    waiting(bench, &mut points).await;
    let mut table = String::from(
        "## Scale, predicted and measured\n\nWhat the formulas of [Scale](scale.md) say, from constants that were measured one run \
         at a time, and what the server does.\n\n| at `run` | predicted | measured | measured / predicted |\n|---|---|---|---|\n",
    );
    for Point { what, predicted, measured } in points {
        let share = figure(measured / predicted);
        let _ = writeln!(table, "| {what} | {} | {} | {share} |", figure(predicted), figure(measured));
    }
    table.push('\n');
    table
}

/// What a message's size costs.
async fn sizes(bench: &Bench, points: &mut Vec<Point>) {
    eprintln!("scale: sizes");
    let server = serve(bench, "fn(state => state)");
    let mut cpu = Vec::new();
    for bytes in [KB, LARGE, MB] {
        cpu.push(cpu_of_one(&server, &message("/inbox?wait=30s", bytes)).await);
    }
    let [small, large, middle] = cpu[..] else { unreachable!("three sizes") };
    let each = (large - small) / (LARGE - KB) as f64;
    let predicted = small + each * (MB - KB) as f64;
    let what = format!(
        "CPU of a run whose message has 1 MB, ms; {} with 1 kB, and {} for each MB more",
        figure(small * 1e3),
        figure(each * MB as f64 * 1e3)
    );
    points.push(Point { what, predicted: predicted * 1e3, measured: middle * 1e3 });
}

/// What the machine's processors allow.
async fn computing(bench: &Bench, points: &mut Vec<Point>) {
    eprintln!("scale: a job that computes");
    let loops = "fn(state => { let sum = 0; for (let i = 0; i < 2e7; i++) sum += i % 7; return { ...state, sum } })";
    let server = serve(bench, loops);
    let cpu = cpu_of_one(&server, &message("/inbox?wait=30s", KB)).await;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let message = message("/inbox", KB);
    let ended = backlog_of(&server, 16, COMPUTING, &message).await.ended;
    let what = format!("runs a second of a job that computes, {} ms of CPU each", figure(cpu * 1e3));
    points.push(Point { what, predicted: cores / cpu, measured: COMPUTING as f64 / ended.as_secs_f64() });
}

/// What runs that wait for a remote system take.
async fn waiting(bench: &Bench, points: &mut Vec<Point>) {
    eprintln!("scale: jobs that wait");
    let waits = format!(
        "fn(state => new Promise(resolve => setTimeout(resolve, state.data.short ? 1 : {}, state)))",
        WAIT * 1000.0
    );
    let server = serve(bench, &waits);
    let cpu = cpu_of_one(&server, &post("/inbox?wait=30s", r#"{"short":true}"#)).await;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let idle = server.memory_mb("RssAnon");
    let message = post("/inbox", "{}");
    backlog_of(&server, 16, FEW, &message).await;
    let few = server.peak_mb() - server.memory_mb("RssFile");
    let ended = backlog_of(&server, 16, MANY, &message).await.ended;
    let many = server.peak_mb() - server.memory_mb("RssFile");
    let what = format!("{MANY} runs at once that wait {WAIT} s each: s until the last has ended");
    points.push(Point { what, predicted: WAIT + MANY as f64 * cpu / cores, measured: ended.as_secs_f64() });
    let each = (few - idle) / FEW as f64;
    let what = format!("memory of these, MB; {} each", figure(each));
    points.push(Point { what, predicted: idle + each * MANY as f64, measured: many });
}

fn serve(bench: &Bench, job: &str) -> Server {
    let text = format!(
        "jobs:
  job:
    adaptor: common
    trigger: some
    expression: '{job}'
triggers:
  some: {{criteria: {{}}}}
"
    );
    bench.serve("scale", &text, &[])
}

/// A JSON object of so many bytes: many small values, as records have them.
fn message(path: &str, bytes: usize) -> Vec<u8> {
    let record = r#"{"id":"BO-000001","name":"Koroma","weight":3.25,"active":true},"#;
    let mut body = String::from("{\"records\":[");
    while body.len() + record.len() < bytes {
        body.push_str(record);
    }
    body.push_str("0]}");
    post(path, &body)
}

/// Seconds of processor time that the server takes for a run, when there is one at a time.
async fn cpu_of_one(server: &Server, message: &[u8]) -> f64 {
    let mut client = server.client().await;
    let mut before = Duration::ZERO;
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            before = server.cpu();
        }
        client.send(message).await.expect(201);
    }
    server.isolates_ahead(1).await;
    (server.cpu() - before).as_secs_f64() / ROUNDS as f64
}
