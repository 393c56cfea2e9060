//! `fnhost check`: projects and what is said about them.
//!
//! Each directory of `tests/fixtures/project-errors` is a project that is broken; its `expected.txt` is what people read,
//! and the exit code. Run with `UPDATE_EXPECT=1` to write what the program says now, and read the difference before you
//! commit it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{self, Ran, fnhost, store};

/// Settings of this machine that describe a project of one job.
const VARIABLES: [&str; 6] =
    ["EXPRESSION_PATH", "CREDENTIAL_PATH", "ADAPTOR_PATH", "INITIAL_STATE_PATH", "FINAL_STATE_PATH", "FREQUENCY"];

fn check(dir: &Path, args: &[&str]) -> Command {
    let mut command = fnhost(&["check"]);
    command.args(args).current_dir(dir).env("FNHOST_REPO_DIR", store());
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
}

fn go(mut command: Command) -> Ran {
    Ran::new(command.output().unwrap())
}

/// A project in a directory of its own.
fn project(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// What programs are told about a project.
fn report(files: &[(&str, &str)]) -> Value {
    let dir = project(files);
    let ran = go(check(dir.path(), &["--json"]));
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr))
}

#[test]
fn broken_projects_are_refused_with_the_expected_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/project-errors");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let ran = go(check(&case, &[]));
        let actual = format!("{}exit code {:?}\n", ran.stderr, ran.code.unwrap_or(-1));
        assert!(ran.stdout.is_empty());
        assert!(!actual.contains("hunter"), "a secret shows: {actual}");
        let file = case.join("expected.txt");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&file, &actual).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if expected != actual {
            failures.push(format!("{}\n--- expected\n{expected}\n--- actual\n{actual}", case.display()));
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}

const WEBHOOK: &str = "
x-defaults: &defaults
  adaptor: common
  timeout: 30s
  memory: 256
  network: [example.org, '10.0.0.0/8']
jobs:
  receive:
    <<: *defaults
    trigger: [orders, on-order, hourly]
    credential: api
    concurrency: 4
    retry: {attempts: 3, backoff: exponential, delay: 2s, max_delay: 1m, jitter: 0.5, on: [fail, exception]}
    expression: fn(state => state)
  ship: {adaptors: [common, http], trigger: ok, expression: file://jobs/ship.js, retry: 5}
  tell: {language_pack: language-common, trigger: [ko, 'no'], expression: jobs/tell.ts, retry: {backoff: [1s, 5m]}}
triggers:
  orders:
    type: webhook
    webhook: orders
    reply: after_completion
    success_code: 200
    error_code: 500
    auth:
      - basic: api
      - signature: {scheme: github, credential: hook}
      - signature: {header: X-Hub, prefix: 'sha256=', encoding: base64, credential: hook}
  on-order: {type: message, criteria: '{\"type\":\"order\"}', condition: data.amount > 5, topic: orders}
  hourly: {cron: 0 * * * *, timezone: Africa/Nairobi, misfire: once, overlap: true}
  ok: {success: receive}
  ko: {failure: receive}
  no: {failure: ship}
credentials:
  api: {username: '${USER_NAME}', password: '${PASSWORD:-none}', literal: '$${x}'}
  hook: file://secrets/hook.yaml
";

#[test]
fn a_project_with_every_setting_is_fine() {
    let dir = project(&[
        ("project.yaml", WEBHOOK),
        ("jobs/ship.js", "get('/x');\nfn(state => state);\n"),
        ("jobs/tell.ts", "fn((state: any) => state);\n"),
        ("secrets/hook.yaml", "secret: [a, b]\n"),
        (".env", "USER_NAME=jo\n"),
    ]);
    let ran = go(check(dir.path(), &[])).expect(0);
    assert_eq!(
        ran.stderr,
        "receive: requests to /i/orders; messages on orders; the clock, 0 * * * * Africa/Nairobi, then ship, tell\n\
         .: 1 workflow, no problems\n"
    );
    assert!(ran.stdout.is_empty());
}

#[test]
fn programs_get_json() {
    let files: &[(&str, &str)] = &[
        ("project.yaml", WEBHOOK),
        ("jobs/ship.js", "get('/x')"),
        ("jobs/tell.ts", "fn(s => s)"),
        ("secrets/hook.yaml", "secret: a"),
    ];
    let broken = report(files);
    assert_eq!(
        broken["errors"],
        json!([{
            "file": "project.yaml", "line": 34, "column": 19,
            "message": "the credential `api`: the variable `USER_NAME` is not set",
            "hint": "set it in the environment or in .env, give a default as in ${NAME:-default}, or write $${ for ${",
        }])
    );
    assert_eq!(broken["ok"], false);
    let fine = report(&[files, &[(".env", "USER_NAME=jo")]].concat());
    assert_eq!(
        fine,
        json!({
            "ok": true, "errors": [], "warnings": [], "lacking_credentials": [], "adaptors_not_installed": [],
            "workflows": [{
                "name": "receive", "triggers": ["orders", "on-order", "hourly"], "steps": ["receive", "ship", "tell"],
            }],
        })
    );
}

#[test]
fn what_old_exports_hold_is_tolerated() {
    let text = "
jobs:
  a: {language_pack: language-common, trigger: m, credential: old, expression: fn(s => s)}
  b: {adaptor: '@openfn/language-common', trigger: m, credential: elsewhere, expression: fn(s => s)}
  c: {adaptor: common, trigger: m, credential: null, expression: fn(s => s)}
triggers:
  m: {type: message, criteria: '{\"a\": 1}'}
  unused: {type: cron, cron: '* * * * *'}
credentials:
  old: {username: u, password: '******'}
  older: '******'
";
    let report = report(&[("project.yaml", text)]);
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["lacking_credentials"], json!(["elsewhere", "old"]));
    let warnings: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().map(|warning| warning["message"].as_str().unwrap()).collect();
    assert_eq!(
        warnings,
        [
            "the credential `elsewhere` is not in the project",
            "no job names the trigger `unused`",
            "the credential `old` holds a placeholder for a value",
            "the credential `older` is only a placeholder",
        ]
    );
    assert_eq!(report["workflows"].as_array().unwrap().len(), 3);
}

#[test]
fn a_project_without_sections_has_no_workflows() {
    for text in ["", "# nothing\n", "jobs:\n", "{}", "triggers: {m: {criteria: {}}}", "jobs: {}"] {
        let report = report(&[("project.yaml", text)]);
        assert_eq!((&report["ok"], &report["workflows"]), (&json!(true), &json!([])), "{text}");
    }
}

#[test]
fn jobs_that_flow_from_two_workflows_are_part_of_both() {
    let text = "
jobs:
  a: {adaptor: common, trigger: m, expression: fn(s => s)}
  b: {adaptor: common, trigger: m, expression: fn(s => s)}
  c: {adaptor: common, trigger: [after-a, after-b], expression: fn(s => s)}
  d: {adaptor: common, trigger: after-c, expression: fn(s => s)}
triggers:
  m: {criteria: {}}
  after-a: {success: a}
  after-b: {failure: b}
  after-c: {success: c}
";
    let steps: Vec<Value> =
        report(&[("project.yaml", text)])["workflows"].as_array().unwrap().iter().map(|w| w["steps"].clone()).collect();
    assert_eq!(steps, [json!(["a", "c", "d"]), json!(["b", "c", "d"])]);
}

#[test]
fn mistakes_in_jobs_are_shown_where_they_are_written() {
    let dir = project(&[
        (
            "project.yaml",
            "jobs:\n  inline: {adaptor: common, trigger: m, expression: 'fn(s => s); fnn()'}\n  block:\n    \
             adaptor: common\n    trigger: m\n    expression: |\n      fn(s => s);\n\n      eval('1');\n  \
             folded: {adaptor: common, trigger: m, expression: \"\\u0066nn()\"}\n  \
             file: {adaptor: common, trigger: m, expression: jobs/file.js}\ntriggers: {m: {criteria: {}}}\n",
        ),
        ("jobs/file.js", "fn(s => s);\n\nfm(s => s);\n"),
    ]);
    let ran = go(check(dir.path(), &[])).expect(3);
    for expected in [
        "project.yaml:2:66: error: ",
        "project.yaml:9:7: error: ",
        "project.yaml:10: error: in line 1, column 1 of the job `folded`: ",
        "jobs/file.js:3:1: error: ",
        "\nhelp: did you mean \"fn\"?",
        "4 workflows, 4 errors\n",
    ] {
        assert!(ran.stderr.contains(expected), "{expected}\n{}", ran.stderr);
    }
    // The caret stands under what is meant.
    let lines: Vec<&str> = ran.stderr.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("9 |")).unwrap();
    assert_eq!(lines[at].find("eval"), lines[at + 1].find('^'), "{}", ran.stderr);
}

#[test]
fn adaptors_that_are_not_installed_are_named() {
    let text = "
jobs:
  a: {adaptor: 'http@1.0.0', trigger: m, expression: get('/x')}
  b: {adaptors: [common, no-such-thing], trigger: m, expression: fn(s => s)}
triggers: {m: {criteria: {}}}
";
    let dir = project(&[("p/project.yaml", text)]);
    let ran = go(check(dir.path(), &["p"])).expect(0);
    let expected = "not installed: http@1.0.0, no-such-thing, which are needed; run: fnhost install --dir p\n";
    assert!(ran.stderr.starts_with(expected), "{}", ran.stderr);
    assert_eq!(report(&[("project.yaml", text)])["adaptors_not_installed"], json!(["http@1.0.0", "no-such-thing"]));
}

#[test]
fn an_adaptor_that_does_not_load_is_an_error_of_the_host() {
    let manifest = r#"{"name":"@openfn/language-broken","version":"1.0.0","type":"module","exports":"./index.js"}"#;
    let text = "
jobs: {a: {adaptor: 'broken=./adaptors/broken', trigger: m, expression: fn(s => s)}}
triggers: {m: {criteria: {}}}
";
    let dir = project(&[
        ("project.yaml", text),
        ("adaptors/broken/package.json", manifest),
        ("adaptors/broken/index.js", "throw new Error('not today');"),
    ]);
    let ran = go(check(dir.path(), &[])).expect(5);
    assert!(ran.stderr.contains("error: cannot load @openfn/language-broken@1.0.0: not today"), "{}", ran.stderr);
}

#[test]
fn the_environment_can_describe_a_project_of_one_job() {
    let dir = project(&[
        ("job/expression.js", "total = 1;\nfn(state => state);\n"),
        ("job/state.json", "{\"data\": {\"n\": 1}}"),
        ("secret.json", "{\"password\": \"hunter2\"}"),
    ]);
    let with = |variables: &[(&str, &str)]| {
        let mut command = check(dir.path(), &[]);
        command.envs(variables.iter().copied());
        go(command)
    };
    let job = ("EXPRESSION_PATH", "./job/expression.js");
    let adaptor = ("ADAPTOR_PATH", "./assets/node_modules/language-common.Adaptor");
    let inputs = [
        ("CREDENTIAL_PATH", "secret.json"),
        ("INITIAL_STATE_PATH", "job/state.json"),
        ("FINAL_STATE_PATH", "out.json"),
    ];
    let message = with(&[job, adaptor]).expect(0);
    assert_eq!(message.stderr, "expression: messages on inbox\n.: 1 workflow, no problems\n");
    let repeated = with(&[&[job, adaptor, ("FREQUENCY", "500")][..], &inputs].concat()).expect(0);
    assert_eq!(repeated.stderr, "expression: every 500 ms\n.: 1 workflow, no problems\n");
    let nothing = with(&[]).expect(2);
    assert!(nothing.stderr.starts_with(".: error: there is no project here\n"), "{}", nothing.stderr);
}

#[test]
fn the_environment_wins_over_the_env_file() {
    let files: &[(&str, &str)] = &[
        (
            "project.yaml",
            "jobs: {a: {adaptor: common, trigger: m, expression: fn(s => s), credential: c}}\n\
          triggers: {m: {webhook: w, auth: [{basic: c}]}}\ncredentials: {c: {username: a, '${KEY}': b, password: '${KEY}'}}\n",
        ),
        (".env", "KEY='from the file"),
    ];
    let dir = project(files);
    // A file that is broken is reported even if nothing of it is needed.
    let mut command = check(dir.path(), &[]);
    command.env("KEY", "from the environment");
    let ran = go(command).expect(2);
    assert!(ran.stderr.starts_with(".env:1:1: error: the quote that begins the value has no end"), "{}", ran.stderr);
    fs::write(dir.path().join(".env"), "").unwrap();
    let mut command = check(dir.path(), &[]);
    command.env("KEY", "from the environment");
    go(command).expect(0);
    go(check(dir.path(), &[])).expect(2);
}

#[test]
fn a_large_project_is_read_in_a_moment() {
    let mut text = "jobs:\n".to_owned();
    for job in 0..20_000 {
        let trigger = if job == 0 { "m".to_owned() } else { format!("t{}", (job - 1) / 30) };
        text += &format!("  job-{job}: {{adaptor: common, trigger: {trigger}, expression: \"fn(state => state)\"}}\n");
    }
    text += "triggers:\n  m: {criteria: {}}\n";
    for trigger in 0..700 {
        text += &format!("  t{trigger}: {{success: job-{trigger}}}\n");
    }
    let dir = project(&[("project.yaml", &text)]);
    let ran = go(check(dir.path(), &[])).expect(2);
    assert!(ran.stderr.contains("error: more than 1000 jobs follow `job-0`"), "{}", &ran.stderr[..2000]);
}

#[test]
fn of_thousands_of_problems_the_first_are_told() {
    let mut text = "jobs:\n".to_owned();
    for job in 0..50_000 {
        text +=
            &format!("  job-{job}: {{adapter: common, trigger: t{job}, credential: c{job}, expression: fn(s => s)}}\n");
    }
    let dir = project(&[("project.yaml", &text)]);
    let ran = go(check(dir.path(), &[])).expect(2);
    assert!(ran.stderr.ends_with(".: 100 errors and 100 warnings\n"), "{}", &ran.stderr[ran.stderr.len() - 200..]);
    // All on one line, which is then too long to be shown.
    fs::write(dir.path().join("project.yaml"), text.replace("jobs:\n", "jobs: {").replace("}\n", "},") + "}").unwrap();
    let ran = go(check(dir.path(), &[])).expect(2);
    assert!(ran.stderr.starts_with("project.yaml:1:10: error: "), "{}", &ran.stderr[..200]);
}

#[test]
fn the_example_is_fine_and_its_jobs_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ran = go(check(root, &["project"])).expect(0);
    assert_eq!(
        ran.stderr,
        "register-patients: messages on inbox; requests to /i/patients, then announce, set-aside\n\
         daily-summary: the clock, 0 6 * * mon-sat Africa/Freetown\n\
         project: 2 workflows, no problems\n"
    );
    let run = |job: &str, state: &Value| {
        let source = fs::read_to_string(root.join("project/jobs").join(job)).unwrap();
        support::job(&source).state(&state.to_string()).go().data()
    };
    let list = fs::read_to_string(root.join("project/state.json")).unwrap();
    let bundle = run("register-patients.js", &serde_json::from_str(&list).unwrap());
    let announced = run("announce.js", &json!({ "data": bundle }));
    assert_eq!(announced, json!({ "text": "Registered 3: Kamara, Koroma, Sesay" }));
    let failed = json!({ "data": { "form": "x" }, "errors": { "register-patients": { "message": "no patients" } } });
    assert_eq!(run("set-aside.js", &failed), json!({ "list": { "form": "x" }, "reasons": ["no patients"] }));
}
