//! Where the time of loading an adaptor goes: what adaptors stand on, each loaded by itself.

use std::fmt::Write as _;

use fnhost::isolate::{Host, HostOptions, LocalAdaptor};

use crate::jobs::job;
use crate::project::{Bench, PARTS};
use crate::samples::{median, ms};

const RUNS: usize = 30;

pub fn measure(bench: &Bench) -> String {
    let built_in = [
        ("node:process", "export const touched = process.version;"),
        ("node:stream", "import { Readable } from 'node:stream'; export const touched = new Readable();"),
        ("node:http", "import { request } from 'node:http'; export const touched = typeof request;"),
    ];
    let local_adaptors = built_in
        .iter()
        .map(|(name, source)| {
            let specifier = name.replace(':', "-");
            let dir = bench.file(&specifier);
            std::fs::create_dir_all(&dir).expect("a directory for a local adaptor");
            std::fs::write(
                dir.join("package.json"),
                format!(r#"{{"name":"{specifier}","type":"module","main":"index.js"}}"#),
            )
            .expect("a package");
            std::fs::write(dir.join("index.js"), source).expect("a package");
            LocalAdaptor { specifier, dir }
        })
        .collect();
    let host = Host::new(HostOptions { store: bench.store.clone(), local_adaptors, ..Default::default() });
    let mut table = String::from(
        "## Parts of an adaptor\n\nEach evaluated by itself in a fresh isolate, code caches warm; median. An adaptor pays only \
         for the parts that a job uses.\n\n| | evaluate ms | CPU ms, create to drop | heap MB |\n|---|---|---|---|\n",
    );
    let packages = PARTS.iter().map(|(name, _)| ((*name).to_owned(), *name));
    let built_in = built_in.iter().map(|(name, _)| (name.replace(':', "-"), *name));
    for (specifier, name) in built_in.chain(packages) {
        let source = format!("import * as part from '{specifier}'; export default [(state) => state];");
        let job = job(&host, Some(&specifier), &source);
        let stats: Vec<_> = (0..RUNS)
            .map(|_| {
                let outcome = host.run(job.clone(), "{}".into(), Box::new(|_| {}));
                assert!(outcome.error.is_none(), "{name}: {:?}", outcome.error);
                outcome.stats
            })
            .collect();
        let stats = &stats[3..];
        let _ = writeln!(
            table,
            "| {name} | {:.1} | {:.1} | {:.1} |",
            median(stats.iter().map(|stats| ms(stats.evaluate))),
            median(stats.iter().map(|stats| ms(stats.cpu))),
            median(stats.iter().map(|stats| stats.heap as f64 / 1048576.0)),
        );
    }
    table.push('\n');
    table
}
