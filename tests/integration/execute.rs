//! `fnhost execute` keeps the contract of `core execute`: what it prints, what it writes, how it ends.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Ran, fnhost, store};

fn directory(expression: &str, state: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("expression.js"), expression).unwrap();
    std::fs::write(directory.path().join("state.json"), state).unwrap();
    directory
}

fn execute(directory: &Path, args: &[&str]) -> Ran {
    let mut command = fnhost(&["execute", "-l", "common", "-e", "expression.js", "-s", "state.json"]);
    command.args(args).env("FNHOST_REPO_DIR", store()).current_dir(directory);
    Ran::new(command.output().unwrap())
}

#[test]
fn a_job_that_completes() {
    let expression = "alterState(state => {\n  console.log('working on', state.data);\n  console.error('careful');\n  return { ...state, seen: state.configuration.user };\n})";
    let directory = directory(expression, r#"{ "configuration": { "user": "jo" }, "data": { "a": [1] } }"#);
    let ran = execute(directory.path(), &["-o", "out.json"]).expect(0);

    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with('╭') && lines[3].starts_with('╰'), "{}", ran.stdout);
    assert!(lines[1].contains(concat!("fnhost v", env!("CARGO_PKG_VERSION"))), "{}", ran.stdout);
    assert!(lines[2].contains("@openfn/language-common@3.3.4"), "{}", ran.stdout);
    assert!(lines[4].starts_with("working on {"), "{}", ran.stdout);
    assert_eq!(lines.last(), Some(&"Finished."));
    assert_eq!(ran.stderr, "careful\n");

    let written = std::fs::read_to_string(directory.path().join("out.json")).unwrap();
    assert!(written.starts_with("{\n  \""), "two spaces: {written}");
    let state: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!([&state["seen"], &state["data"]], [&json!("jo"), &json!({ "a": [1] })]);
    assert!(state.get("configuration").is_none());
}

#[test]
fn the_state_is_written_nowhere_unless_asked() {
    let directory = directory("fn(s => ({ ...s, secretish: 1 }))", "{}");
    let ran = execute(directory.path(), &[]).expect(0);
    assert!(!ran.stdout.contains("secretish"), "{}", ran.stdout);
    assert_eq!(directory.path().read_dir().unwrap().count(), 2);
}

#[test]
fn a_job_that_fails() {
    let directory = directory("fn(s => s);\nfn(() => { throw new Error('no luck') })", "{}");
    let ran = execute(directory.path(), &["-o", "out.json"]).expect(1);
    assert!(ran.stderr.contains("JobError: no luck\n    at expression.js:2:18"), "{}", ran.stderr);
    assert!(!ran.stdout.contains("Finished."));
    assert!(!directory.path().join("out.json").exists(), "as with core");
}

#[test]
fn a_job_that_does_not_compile() {
    let directory = directory("fn(state => {\n  return state +;\n})", "{}");
    let ran = execute(directory.path(), &[]).expect(1);
    assert!(ran.stderr.contains("expression.js:2:"), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("Error: Compilation failed.\n"), "{}", ran.stderr);
}

#[test]
fn a_job_that_cannot_start() {
    let directory = directory("fn(s => s)", "{}");
    let go = |args: &[&str]| {
        let mut command = fnhost(&["execute"]);
        Ran::new(command.args(args).env("FNHOST_REPO_DIR", store()).current_dir(directory.path()).output().unwrap())
    };
    let ran = go(&["-l", "mailgun", "-e", "expression.js", "-s", "state.json"]).expect(10);
    assert_eq!(ran.stderr, "Cannot find module '@openfn/language-mailgun'.\nTo install it: fnhost install mailgun\n");
    go(&["-l", "common", "-e", "missing.js", "-s", "state.json"]).expect(10);
    go(&["-l", "common", "-e", "expression.js", "-s", "missing.json"]).expect(10);
    std::fs::write(directory.path().join("broken.json"), "{,}").unwrap();
    let ran = go(&["-l", "common", "-e", "expression.js", "-s", "broken.json"]).expect(10);
    assert!(ran.stderr.starts_with("broken.json:1:2: the state is not valid JSON"), "{}", ran.stderr);
    let ran = go(&["-l", "common", "-e", "expression.js", "-s", "state.json", "-o", "no/such/out.json"]).expect(10);
    assert!(ran.stderr.contains("there is no directory no/such"), "{}", ran.stderr);

    let ran = go(&["-l", "./node_modules/language-http.Adaptor", "-e", "expression.js", "-s", "state.json"]).expect(2);
    assert!(ran.stderr.contains("write -l http"), "{}", ran.stderr);
    go(&["-l", "common"]).expect(2);
}

#[test]
fn jobs_of_the_old_kind() {
    // Sloppy scripts: an assignment declares, `state` is a global, the old name of fn.
    let expression = "alterState(function (state) {\n  total = 0;\n  for (var i = 0; i < state.data.length; i++) total += state.data[i];\n  return Object.assign(state, { total: total });\n});\neach('$.data[*]', alterState(state => { state.count = (state.count || 0) + 1; return state }))";
    let directory = directory(expression, r#"{ "data": [1, 2, 3] }"#);
    execute(directory.path(), &["-o", "out.json"]).expect(0);
    let written = std::fs::read_to_string(directory.path().join("out.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!([&state["total"], &state["count"]], [&json!(6), &json!(3)]);
}

#[test]
fn the_console_can_be_disabled() {
    let directory = directory("fn(s => { console.log('secret'); console.warn('secret', s); return s })", "{}");
    for flag in ["--noConsole", "--nc"] {
        let ran = execute(directory.path(), &[flag]).expect(0);
        assert_eq!(ran.stdout.matches("🔒 console has been disabled for this run\n").count(), 2, "{}", ran.stdout);
        assert!(!ran.stdout.contains("secret") && ran.stderr.is_empty(), "{}", ran.stderr);
    }
}

#[test]
fn the_credential_is_masked() {
    let expression =
        "fn(s => { console.log('token', s.configuration.token); throw new Error('bad ' + s.configuration.token) })";
    let directory = directory(expression, r#"{ "configuration": { "token": "t0psecret" } }"#);
    let ran = execute(directory.path(), &[]).expect(1);
    assert!(ran.stdout.contains("token ***") && ran.stderr.contains("bad ***"), "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stdout.contains("t0psecret") && !ran.stderr.contains("t0psecret"));
}
