//! What a large state costs, beside Node's own reading and writing of the same text.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use crate::goals::{Bound, Goals};
use crate::jobs::job;
use crate::project::Bench;
use crate::samples::{median, ms};

const RUNS: usize = 15;

pub fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let host = bench.host();
    let records: Vec<_> = (0..36_000)
        .map(|n| {
            serde_json::json!({
                "resourceType": "Patient", "id": format!("BO-{n:06}"), "active": n % 3 == 0, "weight": n as f64 / 7.0,
                "name": [{ "family": "Koroma", "given": ["Fatmata", "Isha"] }], "birthDate": "2019-06-30",
                "address": { "city": "Bo", "district": "Bo", "text": "12 Hospital Road, behind the market\nBo" },
            })
        })
        .collect();
    let state = serde_json::json!({ "data": { "patients": records } }).to_string();
    bench.write("large.json", &state);
    let script = "const text = require('fs').readFileSync('large.json', 'utf8'); const times = [];
        for (let i = 0; i < 15; i++) {
            const start = process.hrtime.bigint();
            if (JSON.stringify(JSON.parse(text)).length === 0) throw new Error();
            times.push(Number(process.hrtime.bigint() - start) / 1e6);
        }
        console.log(times.sort((a, b) => a - b)[7]);";
    let node = Command::new("node").args(["-e", script]).current_dir(bench.dir.path()).output().ok();
    let node = node.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse::<f64>().ok());
    let job = job(host, Some("@openfn/language-common"), "fn(state => state);");
    let samples: Vec<_> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let outcome = host.run(job.clone(), state.clone(), Box::new(|_| {}));
            assert!(outcome.error.is_none(), "{:?}", outcome.error);
            (ms(start.elapsed()), ms(outcome.stats.cpu))
        })
        .collect();
    let (wall, cpu) = (median(samples.iter().map(|sample| sample.0)), median(samples.iter().map(|sample| sample.1)));
    let mut table = format!(
        "## A large state\n\n{:.1} MB of JSON through `fn(state => state)` in a fresh isolate, from creation to drop, and \
         `JSON.stringify(JSON.parse(text))` in a Node process that runs already. Median of milliseconds.\
         \n\n| | wall | CPU |\n|---|---|---|\n| fnhost | {wall:.0} | {cpu:.0} |\n",
        state.len() as f64 / 1e6,
    );
    if let Some(node) = node {
        let _ = writeln!(table, "| Node | {node:.0} | |\n| times | {:.2} | |", wall / node);
        let peer = format!("Node: {node:.0}");
        goals.add_beside("state of 10 MB, wall ms; 1.3 times the peer", &peer, Bound::AtMost(1.3 * node), wall);
    }
    table.push('\n');
    table
}
