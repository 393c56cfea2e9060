//! Jobs for the compiler. It must answer each with a module that parses, or with problems that have places in the job.

use std::fs;
use std::path::{Path, PathBuf};

use deno_ast::{MediaType, ModuleSpecifier, ParseParams};
use fnhost::compile::{Adaptor, Dialect, Options, compile};

use super::Target;
use super::mutate::{Dice, JAVASCRIPT, mutated};

pub struct Jobs {
    jobs: Vec<String>,
}

impl Jobs {
    pub fn new() -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let mut files: Vec<PathBuf> = ["compile", "compile-errors"]
            .iter()
            .flat_map(|kind| fs::read_dir(fixtures.join(kind)).expect("fixtures"))
            .flat_map(|case| fs::read_dir(case.expect("a case").path()).expect("a case"))
            .map(|file| file.expect("a file").path())
            .filter(|file| file.file_stem().is_some_and(|stem| stem == "job"))
            .collect();
        files.sort();
        Self { jobs: files.iter().map(|file| fs::read_to_string(file).expect("a job")).collect() }
    }
}

impl Target for Jobs {
    /// The first byte says how to compile the rest.
    fn case(&mut self, dice: &mut Dice) -> Vec<u8> {
        let job = &self.jobs[dice.roll(self.jobs.len())];
        let other = &self.jobs[dice.roll(self.jobs.len())];
        let how = b"01234567"[dice.roll(8)];
        [&[how], mutated(dice, job, other, JAVASCRIPT).as_bytes()].concat()
    }

    fn try_case(&mut self, case: &[u8]) {
        let (how, source) = case.split_first().expect("a case");
        let how = how.wrapping_sub(b'0');
        let source = std::str::from_utf8(source).expect("UTF-8");
        let exports: Vec<String> = ["fn", "get", "post", "each", "http", "util", "fields"].map(str::to_owned).into();
        let exports = (how & 1 == 0).then_some(exports.as_slice());
        let options = Options {
            file_name: if how & 2 == 0 { "job.js" } else { "job.ts" },
            adaptors: &[Adaptor { specifier: "@openfn/language-http", exports }],
            dialect: if how & 4 == 0 { Dialect::Module } else { Dialect::Script },
            extra_globals: &[],
        };
        match compile(source, &options) {
            Ok(compiled) => {
                check_module(&compiled.code);
                serde_json::from_str::<serde_json::Value>(&compiled.map.to_json()).expect("a source map");
            }
            Err(error) => {
                assert!(!error.diagnostics.is_empty());
                for diagnostic in &error.diagnostics {
                    let length: usize = diagnostic.source_line.chars().map(char::len_utf16).sum();
                    assert!(diagnostic.column as usize <= length + 1, "{diagnostic}");
                    assert!(source.contains(&diagnostic.source_line), "{diagnostic}");
                }
            }
        }
    }
}

fn check_module(code: &str) {
    let parsed = deno_ast::parse_module(ParseParams {
        specifier: ModuleSpecifier::parse("file:///module.mjs").expect("an address"),
        text: code.into(),
        media_type: MediaType::Mjs,
        capture_tokens: false,
        scope_analysis: false,
        maybe_syntax: None,
    });
    assert!(parsed.is_ok_and(|parsed| parsed.diagnostics().is_empty()), "not a module:\n{code}");
}
