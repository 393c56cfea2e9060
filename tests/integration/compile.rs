//! `fnhost compile`: jobs and the modules they become, and jobs that are refused and what is said about them.
//!
//! Each directory of `tests/fixtures/compile` holds a `job.js` (or `job.ts`), the `expected.js` it becomes and perhaps
//! `options.json`; each of `tests/fixtures/compile-errors` holds the `expected.txt` that people read instead. Run with
//! `UPDATE_EXPECT=1` to write what the program says now, and read the difference before you commit it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use deno_ast::swc::lexer::token::{IdentLike, Token, Word};
use deno_ast::{MediaType, ModuleSpecifier, ParseParams, ParsedSource, SourceRangedForSpanned};
use serde_json::Value;

/// What a job may use when its case names no adaptors.
const HTTP_EXPORTS: &str =
    "alterState,chunk,combine,dateFns,each,execute,field,fields,fn,fnIf,get,log,post,put,request,util,_";

struct Case {
    directory: PathBuf,
    job: String,
    arguments: Vec<String>,
}

impl Case {
    fn all(kind: &str) -> Vec<Case> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind);
        let mut directories: Vec<PathBuf> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
        directories.sort();
        directories.into_iter().map(Case::read).collect()
    }

    fn read(directory: PathBuf) -> Case {
        let job = if directory.join("job.ts").exists() { "job.ts" } else { "job.js" };
        let options: Value = match fs::read(directory.join("options.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => Value::Null,
        };
        let mut arguments = vec!["compile".to_owned(), job.to_owned()];
        let mut argument = |flag: &str, value: &str| arguments.extend([flag.to_owned(), value.to_owned()]);
        match options["adaptors"].as_array() {
            None => {
                argument("-a", "http");
                argument("--exports", HTTP_EXPORTS);
            }
            Some(adaptors) => {
                for adaptor in adaptors {
                    argument("-a", adaptor["specifier"].as_str().unwrap());
                    let exports = adaptor["exports"].as_array().map(|names| {
                        let names: Vec<&str> = names.iter().map(|name| name.as_str().unwrap()).collect();
                        names.join(",")
                    });
                    argument("--exports", exports.as_deref().unwrap_or("*"));
                }
            }
        }
        if let Some(dialect) = options["dialect"].as_str() {
            argument("--dialect", dialect);
        }
        Case { directory, job: job.to_owned(), arguments }
    }

    fn name(&self) -> String {
        self.directory.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn source(&self) -> String {
        fs::read_to_string(self.directory.join(&self.job)).unwrap()
    }

    fn compile(&self, more: &[&str]) -> Output {
        fnhost().current_dir(&self.directory).args(&self.arguments).args(more).output().unwrap()
    }

    /// Compares with the expected file; answers what is different.
    fn check(&self, expected_file: &str, actual: &str) -> Option<String> {
        let path = self.directory.join(expected_file);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, actual).unwrap();
            return None;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        (expected != actual).then(|| format!("{}\n{}", self.name(), difference(&expected, actual)))
    }
}

fn fnhost() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fnhost"))
}

/// The lines that differ, with `-` for the expected and `+` for the actual ones, between the lines that both begin and end with.
fn difference(expected: &str, actual: &str) -> String {
    let expected: Vec<&str> = expected.split('\n').collect();
    let actual: Vec<&str> = actual.split('\n').collect();
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = expected.iter().zip(&actual).take_while(same).count();
    let tail = expected[head..].iter().rev().zip(actual[head..].iter().rev()).take_while(same).count();
    let removed = expected[head..expected.len() - tail].iter().map(|line| format!("  - {line:?}"));
    let added = actual[head..actual.len() - tail].iter().map(|line| format!("  + {line:?}"));
    let lines: Vec<String> = removed.chain(added).collect();
    format!("  from line {}:\n{}", head + 1, lines.join("\n"))
}

fn fail_on(failures: Vec<String>) {
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn parse(text: &str, media_type: MediaType) -> Result<ParsedSource, String> {
    let parsed = deno_ast::parse_module(ParseParams {
        specifier: ModuleSpecifier::parse("file:///module.mjs").unwrap(),
        text: text.into(),
        media_type,
        capture_tokens: true,
        scope_analysis: false,
        maybe_syntax: None,
    })
    .map_err(|error| error.to_string())?;
    match parsed.diagnostics().first() {
        None => Ok(parsed),
        Some(diagnostic) => Err(diagnostic.to_string()),
    }
}

#[test]
fn jobs_become_the_expected_modules() {
    let cases = Case::all("compile");
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let output = case.compile(&[]);
        let (code, complaint) = (text(&output.stdout), text(&output.stderr));
        if output.status.code() != Some(0) || !complaint.is_empty() {
            failures.push(format!("{}: {}\n{complaint}", case.name(), output.status));
            continue;
        }
        failures.extend(case.check("expected.js", &code));
        if let Err(error) = parse(&code, MediaType::Mjs) {
            failures.push(format!("{}: the module does not parse: {error}", case.name()));
        }
    }
    fail_on(failures);
}

#[test]
fn jobs_are_refused_with_the_expected_words() {
    let cases = Case::all("compile-errors");
    assert!(cases.len() >= 20, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let output = case.compile(&[]);
        if output.status.code() != Some(1) || !output.stdout.is_empty() {
            failures.push(format!("{}: {}\n{}", case.name(), output.status, text(&output.stdout)));
            continue;
        }
        failures.extend(case.check("expected.txt", &text(&output.stderr)));
    }
    fail_on(failures);
}

#[test]
fn every_word_of_a_job_is_found_again_through_the_source_map() {
    let mut failures = Vec::new();
    let directory = tempfile::tempdir().unwrap();
    let map_file = directory.path().join("job.map");
    let flag = format!("--source-map={}", map_file.display());
    for case in Case::all("compile") {
        let code = text(&case.compile(&[&flag]).stdout);
        let map: Value = serde_json::from_slice(&fs::read(&map_file).unwrap()).unwrap();
        let source = case.source();
        let source = source.trim_start_matches('\u{feff}');
        assert_eq!(map["version"], 3);
        assert_eq!(map["sources"], serde_json::json!([case.job]));
        assert_eq!(map["sourcesContent"], serde_json::json!([source]));
        failures.extend(lost_words(&case, source, &code, map["mappings"].as_str().unwrap()));
    }
    fail_on(failures);
}

/// Checks every word of the module that the map leads back, and that every word of the job was met exactly once.
fn lost_words(case: &Case, source: &str, code: &str, mappings: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let mappings = decode(mappings);
    let is_typescript = parse(source, MediaType::Mjs).is_err();
    let media_type = if is_typescript { MediaType::TypeScript } else { MediaType::Mjs };
    let mut in_source = words(source, media_type);
    for (place, word) in words(code, MediaType::Mjs) {
        let Some(Some(original)) = mappings.get(&place) else {
            continue;
        };
        match in_source.remove(original) {
            Some(original_word) if original_word == word => {}
            Some(original_word) if original_word == "$" && word == "state" => {}
            other => {
                // What the compiler writes before a stretch of the job leads to where that stretch begins, which is met later.
                if let Some(other) = other {
                    in_source.insert(*original, other);
                }
                if !["_defer", "_defer2", "state", "async"].contains(&word.as_str()) {
                    failures.push(format!("{}: {word:?} at {place:?} leads to {original:?}", case.name()));
                }
            }
        }
    }
    for (place, word) in in_source {
        // The `catch` right on an operation becomes an argument; types are gone.
        if word != "catch" && !is_typescript {
            failures.push(format!("{}: {word:?} at {place:?} of the job is not in the map", case.name()));
        }
    }
    failures
}

/// A line and a column, from 0, the column in UTF-16 code units.
type Place = (usize, usize);

/// All identifiers and keywords of a module.
fn words(text: &str, media_type: MediaType) -> BTreeMap<Place, String> {
    let parsed = parse(text, media_type).unwrap();
    let place = |offset: usize| {
        let before = &text[..offset];
        let ends = |c: char| matches!(c, '\n' | '\u{2028}' | '\u{2029}');
        let line_start = before.rfind(ends).map_or(0, |at| at + before[at..].chars().next().unwrap().len_utf8());
        (before.matches(ends).count(), before[line_start..].encode_utf16().count())
    };
    let start = parsed.range().start;
    let is_word = |token: &Token| {
        matches!(token, Token::Word(Word::Ident(IdentLike::Other(_)) | Word::Ident(_) | Word::Keyword(_)))
    };
    let tokens = parsed.tokens().iter().filter(|token| is_word(&token.token));
    tokens
        .map(|token| {
            let (lo, hi) = (token.start() - start, token.end() - start);
            (place(lo), text[lo..hi].to_owned())
        })
        .collect()
}

/// The `mappings` of a source map: places in the module, and what they come from, if anything.
fn decode(mappings: &str) -> BTreeMap<Place, Option<Place>> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut decoded = BTreeMap::new();
    let (mut source_line, mut source_column) = (0, 0);
    for (line, segments) in mappings.split(';').enumerate() {
        let mut column = 0;
        for segment in segments.split(',').filter(|segment| !segment.is_empty()) {
            let mut numbers = Vec::new();
            let (mut value, mut shift) = (0_i64, 0);
            for digit in segment.chars() {
                let digit = DIGITS.find(digit).unwrap() as i64;
                value |= (digit & 31) << shift;
                shift += 5;
                if digit & 32 == 0 {
                    numbers.push(if value & 1 == 1 { -(value >> 1) } else { value >> 1 });
                    (value, shift) = (0, 0);
                }
            }
            column += numbers[0];
            let original = (numbers.len() > 1).then(|| {
                assert_eq!((numbers.len(), numbers[1]), (4, 0), "one source, no names");
                source_line += numbers[2];
                source_column += numbers[3];
                (source_line as usize, source_column as usize)
            });
            decoded.insert((line, column as usize), original);
        }
    }
    decoded
}

#[test]
fn the_source_map_names_the_operations() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("job.js"),
        "get('/a');\n\nconst x = 1;\n  http.post($.b).then(s => s);\nconsole.log(x);\n",
    )
    .unwrap();
    let output = fnhost()
        .current_dir(directory.path())
        .args(["compile", "job.js", "-a", "common", "--source-map", "-o", "out.mjs"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    let module = fs::read_to_string(directory.path().join("out.mjs")).unwrap();
    let (_, encoded) =
        module.split_once("\n//# sourceMappingURL=data:application/json;base64,").expect("an inline map at the end");
    let map: Value = serde_json::from_slice(&BASE64_STANDARD.decode(encoded.trim_end()).unwrap()).unwrap();
    assert_eq!(
        map["operations"],
        serde_json::json!([
            { "name": "get", "line": 1, "order": 1 },
            { "name": "http.post", "line": 4, "order": 2 },
            { "name": "console.log", "line": 5, "order": 3 },
        ])
    );
}

#[test]
fn a_job_may_come_from_stdin_and_its_map_go_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = fnhost()
        .current_dir(directory.path())
        .args(["compile", "-", "-a", "http@7.2.0", "--source-map=job.map"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"get('/a')").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        text(&output.stdout),
        "import { get } from \"@openfn/language-http\"; export * from \"@openfn/language-http\"; export default [get('/a')];\n\
         //# sourceMappingURL=job.map\n"
    );
    assert!(directory.path().join("job.map").exists());
}

#[test]
fn a_job_that_cannot_be_read_is_named() {
    let output = fnhost().args(["compile", "no/such/job.js"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("cannot read the job no/such/job.js: "));
}

#[test]
fn help_teaches_by_example() {
    let output = fnhost().args(["compile", "--help"]).output().unwrap();
    let help = text(&output.stdout);
    assert!(help.contains("fnhost compile job.js -a http"));
    assert!(help.contains("--source-map"));
    assert!(!help.contains("--exports"), "meant for tests only");
}
