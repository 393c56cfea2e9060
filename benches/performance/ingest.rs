//! Taking messages in, beside what the disk does.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::post;
use crate::goals::{Bound, Goals};
use crate::load::{flood, steadily};
use crate::project::{Bench, project};
use crate::times::Times;

/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(3);
/// How long a steady stream of messages lasts.
const STEADY: Duration = Duration::from_secs(5);
/// Where a message's run does not begin.
const LATER: &str = "/inbox?delay=1h";

pub async fn measure(bench: &Bench, goals: &mut Goals) -> String {
    let file = bench.dir.path().join("disk");
    let (grown, grown_times) = syncs(&file, false);
    let (in_place, in_place_times) = syncs(&file, true);
    let mut table = format!(
        "## Taking messages in\n\nMessages of 1 KB; an answer comes when the message is on disk. A steady \
         stream is counted from the moment that each message was due to be sent.\n\n\
         | the disk: 4 KB written, then fdatasync | a second | p50 ms | p99 ms |\n|---|---|---|---|\n\
         | at the end of a file, which grows | {grown:.0} | {} | {} |\n\
         | in place, where the file stays as long as it is | {in_place:.0} | {} | {} |\n\n\
         | kept with each message | clients | acknowledged a second | p50 ms | p99 ms |\n|---|---|---|---|---|\n",
        grown_times.at(0.5),
        grown_times.at(0.99),
        in_place_times.at(0.5),
        in_place_times.at(0.99),
    );
    let nothing_matches = project("concurrency: 1", "{kind: other}");
    let all_match = project("concurrency: 1", "{}");
    for (name, project, path) in [
        ("nothing: no trigger matches", &nothing_matches, "/inbox"),
        ("a run, for later", &all_match, LATER),
        ("a run, and one job at a time is running", &all_match, "/inbox"),
    ] {
        let server = bench.serve("ingest", project, &[]);
        let message = post(path, &format!("{{\"text\":\"{}\"}}", "x".repeat(1000)));
        let mut best: f64 = 0.0;
        for clients in [1, 16, 64, 256] {
            eprintln!("ingest: {name}, {clients} clients");
            let (rate, times) = flood(&server, clients, &message, SPAN).await;
            let _ = writeln!(table, "| {name} | {clients} | {rate:.0} | {} | {} |", times.at(0.5), times.at(0.99));
            best = best.max(rate);
        }
        let times = steadily(&server, 1000, STEADY, &message).await;
        let _ = writeln!(table, "| {name} | steady | 1000 | {} | {} |", times.at(0.5), times.at(0.99));
        if path == LATER {
            goals.add("messages with a run on disk, a second", Bound::AtLeast(5000.0), best);
            goals.add("messages, 1,000 a second, p99 ms", Bound::AtMost(25.0), times.ms(0.99));
        }
    }
    table.push('\n');
    table
}

/// How often the disk syncs 4 KB at the end of a file, or at the beginning of one that is there: a file that grows costs
/// the file system more.
fn syncs(path: &Path, in_place: bool) -> (f64, Times) {
    let mut file = File::options().create(true).append(!in_place).write(true).open(path).expect("a file");
    let page = [7; 4096];
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < SPAN {
        if in_place {
            file.rewind().expect("a file");
        }
        let one = Instant::now();
        file.write_all(&page).and_then(|()| file.sync_data()).expect("a disk that writes");
        times.push(one.elapsed());
    }
    (times.len() as f64 / started.elapsed().as_secs_f64(), Times::new(times))
}
