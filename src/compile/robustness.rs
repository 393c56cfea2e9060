//! Whatever is thrown at it, the compiler answers: a module that parses, or problems with places in the job.
//!
//! The jobs of the fixtures are cut, doubled, spliced and sprinkled with tokens, always in the same way. (`scripts/fuzz
//! compile` does so for as long as one likes, each time in another way.)

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

#[path = "../../benches/fuzz/mutate.rs"]
mod mutate;

use mutate::{Dice, JAVASCRIPT, mutated};

fn jobs() -> Vec<String> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<PathBuf> = ["compile", "compile-errors"]
        .iter()
        .flat_map(|kind| fs::read_dir(fixtures.join(kind)).unwrap())
        .flat_map(|case| fs::read_dir(case.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|file| file.file_stem().is_some_and(|stem| stem == "job"))
        .collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// Compiles, and checks whatever comes out; answers whether a module did.
fn check(source: &str, options: &Options) -> bool {
    let without_mark = source.trim_start_matches('\u{feff}');
    let lines = Lines::new(without_mark);
    match compile(source, options) {
        Ok(compiled) => {
            if let Err(problems) = parse::module(&compiled.code, parse::javascript_syntax()) {
                panic!("not a module: {problems:?}\n--- job\n{source}\n--- module\n{}", compiled.code);
            }
            let code_lines = Lines::new(&compiled.code);
            for (at, _) in compiled.code.char_indices() {
                let (line, column) = code_lines.position(&compiled.code, at as u32);
                if let Some((line, column)) = compiled.map.original_position(line + 1, column + 1) {
                    let text = lines.line(without_mark, line - 1);
                    assert!(column <= lines::utf16_length(text) + 1, "{line}:{column} is not in the job\n{source}");
                }
            }
            serde_json::from_str::<serde_json::Value>(&compiled.map.to_json()).unwrap();
            true
        }
        Err(error) => {
            assert!(!error.diagnostics.is_empty());
            for diagnostic in &error.diagnostics {
                assert_eq!(diagnostic.source_line, lines.line(without_mark, diagnostic.line - 1));
                assert!(diagnostic.column <= lines::utf16_length(&diagnostic.source_line) + 1);
            }
            assert!(error.to_string().contains('^'));
            false
        }
    }
}

#[test]
fn mutilated_jobs_compile_or_are_refused() {
    let exports: Vec<String> = ["fn", "get", "post", "each", "http", "util", "fields"].map(str::to_owned).into();
    let known = [Adaptor { specifier: "@openfn/language-http", exports: Some(&exports) }];
    let unknown = [Adaptor { specifier: "@openfn/language-http", exports: None }];
    let jobs = jobs();
    assert!(jobs.len() > 60);
    let mut dice = Dice::new(1);
    let mut compiled = 0;
    for round in 0..60 {
        for (index, job) in jobs.iter().enumerate() {
            let source = mutated(&mut dice, job, &jobs[(index + round) % jobs.len()], JAVASCRIPT);
            let options = Options {
                file_name: if round % 5 == 4 { "job.ts" } else { "job.js" },
                adaptors: if round % 2 == 0 { &unknown } else { &known },
                dialect: if round % 3 == 2 { Dialect::Script } else { Dialect::Module },
                extra_globals: &[],
            };
            compiled += usize::from(check(&source, &options));
        }
    }
    // Mutations that only ever made nonsense would prove nothing about the modules.
    assert!(compiled > 500, "only {compiled} mutated jobs compiled");
}

#[test]
fn every_beginning_of_a_job_compiles_or_is_refused() {
    let adaptors = [Adaptor { specifier: "@openfn/language-http", exports: None }];
    let options = Options { file_name: "job.js", adaptors: &adaptors, dialect: Dialect::Module, extra_globals: &[] };
    for job in jobs().iter().filter(|job| job.len() < 600) {
        for (at, _) in job.char_indices() {
            check(&job[..at], &options);
        }
    }
}
