//! `isolation:` of workflows: what runs find of those before them, and what they never find.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Server, Setup, last_attempt};
use super::support::http_server;

/// An adaptor that leaves something wherever it can, and says what it finds there before.
const TRACKER: &str = "
import { EventEmitter } from 'node:events';
import { AsyncLocalStorage } from 'node:async_hooks';
const events = new EventEmitter();
const context = new AsyncLocalStorage();
let token, cursor = 0, timer;
export const track = () => state => {
  const found = {
    token, cursor, timer: timer !== undefined,
    listeners: events.listenerCount('run'),
    global: globalThis.leftBehind,
    property: [].leftBehind,
    builtin: Math.leftBehind,
    process: process.listenerCount('leftBehind'),
    context: context.getStore(),
    state: globalThis.state === state ? 'own' : globalThis.state,
  };
  token = state.configuration.token ?? 'none';
  cursor += 1;
  events.on('run', () => {});
  process.on('leftBehind', () => {});
  globalThis.leftBehind = Array.prototype.leftBehind = Math.leftBehind = 'left';
  context.enterWith('left');
  console.count('runs');
  return { ...state, found };
};
// Goes on when the run has ended.
export const tick = (milliseconds, times) => state => {
  timer = setInterval(() => {
    console.log(`tick of ${state.data.name}`);
    if (--times === 0) clearInterval(timer);
  }, milliseconds);
  return state;
};
export const exit = () => () => process.exit(7);
";
const MANIFEST: &str =
    r#"{ "name": "@openfn/language-tracker", "version": "1.0.0", "type": "module", "exports": "./index.js" }"#;

/// What a first run finds.
pub(super) fn nothing() -> Value {
    json!({ "cursor": 0, "timer": false, "listeners": 0, "process": 0, "state": "own" })
}

/// What a second run in the same isolate finds.
fn traces(token: &str) -> Value {
    json!({
        "token": token, "cursor": 1, "timer": false, "listeners": 1, "global": "left", "property": "left",
        "builtin": "left", "process": 1, "state": "own",
    })
}

/// A server of a project, beside which the tracker lies.
pub(super) fn serve(project: &str) -> Server {
    let setup = Setup::new(project).file("tracker/index.js", TRACKER).file("tracker/package.json", MANIFEST);
    // One run at a time has one isolate at a time.
    setup.args(&["--concurrency", "1"]).start()
}

/// A project of one job, with more settings for it.
pub(super) fn project(settings: &str, job: &str) -> String {
    format!(
        "
jobs:
  job:
    adaptors: [tracker=./tracker, common]
    trigger: all
    {settings}
    expression: |
      {job}
triggers:
  all: {{criteria: {{}}}}
"
    )
}

pub(super) const TRACK: &str = "import { track } from '@openfn/language-tracker'; export default [track()];";
const WORKFLOW: &str = "isolation: workflow";

/// Runs the only workflow: its run, ended.
#[track_caller]
pub(super) fn run(server: &Server, message: &Value, state: &str) -> Value {
    server.run_in(&server.send_one(message), state)
}

/// What a run found of those before it.
#[track_caller]
pub(super) fn found(server: &Server, message: &Value) -> Value {
    server.output(&run(server, message, "completed"), "job")["found"].clone()
}

/// The messages that the last attempt at the step `job` of a run logged.
#[track_caller]
pub(super) fn log(server: &Server, run: &Value) -> Vec<String> {
    let attempt = last_attempt(run, "job")["id"].as_str().unwrap();
    let text = server.read(&format!("/api/v1/attempts/{attempt}/log")).expect(200).text();
    let message = |line: &str| serde_json::from_str::<Value>(line).unwrap()["message"].as_str().unwrap().to_owned();
    text.lines().map(message).collect()
}

/// Runs in isolates that had a run before.
pub(super) fn runs_in_kept_isolates(server: &Server) -> String {
    let text = server.read("/metrics").expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix("fnhost_isolate_runs_total{start=\"kept\"} "));
    line.expect("the metric").to_owned()
}

#[test]
fn by_default_a_run_finds_nothing_of_the_runs_before() {
    for settings in ["timeout: 10s", "isolation: run"] {
        let server = serve(&project(settings, TRACK));
        for _ in 0..3 {
            assert_eq!(found(&server, &json!({})), nothing(), "{settings}");
        }
        assert_eq!(runs_in_kept_isolates(&server), "0");
    }
}

#[test]
fn at_workflow_a_run_finds_what_the_run_before_left_and_a_log_of_its_own() {
    let server = serve(&project(WORKFLOW, TRACK));
    assert_eq!(found(&server, &json!({})), nothing());
    let second = run(&server, &json!({}), "completed");
    assert_eq!(server.output(&second, "job")["found"], traces("none"));
    assert_eq!(log(&server, &second), ["runs: 1"], "the console counts anew");
    assert_eq!(found(&server, &json!({}))["cursor"], 2);
    assert_eq!(runs_in_kept_isolates(&server), "2");
}

#[test]
fn a_project_sets_the_level_of_the_workflows_that_say_nothing_themselves() {
    let two = "
isolation: workflow
jobs:
  job: {adaptors: [tracker=./tracker, common], trigger: kept, expression: file://job.js}
  own: {adaptors: [tracker=./tracker, common], trigger: new, isolation: run, expression: file://job.js}
triggers:
  kept: {criteria: {kind: kept}}
  new: {criteria: {kind: new}}
";
    let files = [("tracker/index.js", TRACKER), ("tracker/package.json", MANIFEST), ("job.js", TRACK)];
    let setup = files.into_iter().fold(Setup::new(two), |setup, (name, text)| setup.file(name, text));
    let server = setup.args(&["--concurrency", "1"]).start();
    for (kind, step, cursor) in [("kept", "job", 1), ("new", "own", 0)] {
        run(&server, &json!({ "kind": kind }), "completed");
        let second = run(&server, &json!({ "kind": kind }), "completed");
        assert_eq!(server.output(&second, step)["found"]["cursor"], cursor, "{kind}");
    }
    let level = |name: &str| server.read(&format!("/api/v1/workflows/{name}")).expect(200).json()["isolation"].clone();
    assert_eq!((level("job"), level("own")), (json!("workflow"), json!("run")));
}

#[test]
fn workflows_and_credentials_share_no_isolate() {
    let settings = "isolation: workflow, expression: file://job.js";
    let two = format!(
        "
jobs:
  job: {{adaptors: [tracker=./tracker, common], trigger: first, credential: one, {settings}}}
  other: {{adaptors: [tracker=./tracker, common], trigger: second, credential: two, {settings}}}
  same: {{adaptors: [tracker=./tracker, common], trigger: third, credential: one, {settings}}}
triggers:
  first: {{criteria: {{to: job}}}}
  second: {{criteria: {{to: other}}}}
  third: {{criteria: {{to: same}}}}
credentials:
  one: {{token: secret-of-one}}
  two: {{token: secret-of-two}}
"
    );
    let files = [("tracker/index.js", TRACKER), ("tracker/package.json", MANIFEST), ("job.js", TRACK)];
    let setup = files.into_iter().fold(Setup::new(&two), |setup, (name, text)| setup.file(name, text));
    let server = setup.args(&["--concurrency", "1"]).start();
    let found = |name: &str| {
        let ended = run(&server, &json!({ "to": name }), "completed");
        server.output(&ended, name)["found"].clone()
    };
    for name in ["job", "other", "same"] {
        assert_eq!(found(name), nothing(), "{name}");
    }
    for (name, token) in [("other", "secret-of-two"), ("job", "secret-of-one"), ("same", "secret-of-one")] {
        assert_eq!(found(name), traces(token), "{name}");
    }
    // A credential that changes is another one.
    let changed = two.replace("secret-of-one", "changed-secret");
    let new = server.dir().join("project.yaml.new");
    std::fs::write(&new, changed).unwrap();
    std::fs::rename(new, server.dir().join("project.yaml")).unwrap();
    server.until("the project was read again", || server.log().contains("the project was read again").then_some(()));
    for name in ["job", "other", "same"] {
        assert_eq!(found(name), nothing(), "{name}, after the project was read again");
    }
}

#[test]
fn a_run_that_is_stopped_takes_its_isolate_along() {
    let job = "import { track, exit } from '@openfn/language-tracker';
      const act = state => {
        if (state.data.act === 'loop') for (;;);
        if (state.data.act === 'exit') return exit()(state);
        if (state.data.act === 'reject') { Promise.reject(new Error('nobody waits')); return new Promise(() => {}); }
        if (state.data.act === 'wait') return new Promise(() => {});
        if (state.data.act === 'fill') { const all = []; for (;;) all.push(new Array(1000).fill(0)); }
        if (state.data.act === 'talk') for (;;) console.log('x'.repeat(1000));
        return state;
      };
      export default [track(), act];";
    let server = serve(&project("isolation: workflow\n    retry: false\n    timeout: 2s\n    memory: 128", job));
    for (act, error) in [
        ("loop", "TimeoutError"),
        ("exit", "ExitError"),
        ("reject", "RuntimeCrash"),
        ("wait", "JobError"),
        ("fill", "OOMError"),
        ("talk", "LogTooLargeError"),
    ] {
        // The limits are those of the second run in its isolate.
        assert_eq!(found(&server, &json!({}))["cursor"], 0, "before {act}");
        assert_eq!(found(&server, &json!({}))["cursor"], 1, "before {act}");
        let stopped = run(&server, &json!({ "act": act }), "failed");
        assert_eq!(last_attempt(&stopped, "job")["failure"]["class"], error, "{act}: {stopped}");
    }
    assert_eq!(found(&server, &json!({}))["cursor"], 0);
}

#[test]
fn a_job_that_fails_by_itself_keeps_its_isolate() {
    let job = "import { track } from '@openfn/language-tracker';
      export default [track(), state => { if (state.data.fail) throw new Error(`not ${state.data.fail}`); return state; }];";
    let server = serve(&project("isolation: workflow\n    retry: false", job));
    for fail in ["this", "that"] {
        let failed = run(&server, &json!({ "fail": fail }), "failed");
        assert_eq!(last_attempt(&failed, "job")["failure"]["message"], format!("not {fail}"));
    }
    assert_eq!(found(&server, &json!({}))["cursor"], 2);
}

#[test]
fn limits_are_counted_for_each_run() {
    let job = "fn(state => {
        for (let line = 0; line < 600; line++) console.log('x'.repeat(1000));
        const end = Date.now() + 1500;
        while (Date.now() < end);
        return { kept: Buffer.alloc(100 << 20).length };
      })";
    let settings = "adaptor: common\n    isolation: workflow\n    timeout: 4s";
    let text = project(settings, job).replace("    adaptors: [tracker=./tracker, common]\n", "");
    let server = Setup::new(&text).args(&["--concurrency", "1", "--log-limit", "1"]).start();
    for _ in 0..3 {
        run(&server, &json!({}), "completed");
    }
    assert_eq!(runs_in_kept_isolates(&server), "2");
}

#[test]
fn what_goes_on_after_a_run_does_not_come_into_the_next() {
    let job = "import { track, tick } from '@openfn/language-tracker';
      export default [track(), state => tick(...state.data.timer)(state)];";
    let server = serve(&project(WORKFLOW, job));
    // One that ends at once is waited for, and speaks in the log of its own run.
    let short = run(&server, &json!({ "name": "short", "timer": [1, 1] }), "completed");
    assert_eq!(log(&server, &short), ["runs: 1", "tick of short"]);
    let long = run(&server, &json!({ "name": "long", "timer": [50, 1000] }), "completed");
    let after = run(&server, &json!({ "name": "after", "timer": [1, 1] }), "completed");
    assert_eq!(server.output(&long, "job")["found"]["cursor"], 1, "the first left nothing under way");
    assert_eq!(server.output(&after, "job")["found"], nothing());
    assert_eq!(log(&server, &after), ["runs: 1", "tick of after"]);
}

#[test]
fn connections_may_be_used_again_and_may_be_gone() {
    let remote = http_server::Server::start();
    let job =
        format!("get('{}/echo'); fn(async state => {{ await fetch('{0}/echo'); return state; }})", remote.origin());
    let text = project(WORKFLOW, &job).replace("adaptors: [tracker=./tracker, common]", "adaptor: http");
    let server = Setup::new(&text).args(&["--concurrency", "1"]).start();
    for _ in 0..3 {
        run(&server, &json!({}), "completed");
    }
    assert_eq!(runs_in_kept_isolates(&server), "2");
    // Longer than undici keeps an idle connection.
    std::thread::sleep(Duration::from_secs(5));
    run(&server, &json!({}), "completed");
    assert_eq!(runs_in_kept_isolates(&server), "3");
    assert_eq!(remote.seen().len(), 8);
}

/// A server that promises to keep connections, and closes each soon after its first answer. Its port.
fn fickle() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = |stream: TcpStream| {
        let mut lines = BufReader::new(&stream).lines();
        while !lines.next().unwrap().unwrap().is_empty() {}
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        (&stream).write_all(answer.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}

#[test]
fn a_connection_that_was_closed_in_the_meantime_is_not_used() {
    let port = fickle();
    let text = project("isolation: workflow\n    retry: false", &format!("get('http://127.0.0.1:{port}/')"));
    let text = text.replace("adaptors: [tracker=./tracker, common]", "adaptor: http");
    let server = Setup::new(&text).args(&["--concurrency", "1"]).start();
    for _ in 0..3 {
        run(&server, &json!({}), "completed");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(runs_in_kept_isolates(&server), "2");
}

#[test]
fn secrets_are_masked_in_every_run() {
    let job = "fn(state => { console.log('with ' + state.configuration.password); return state })";
    let text = project("isolation: workflow\n    credential: one", job);
    let text = text.replace("adaptors: [tracker=./tracker, common]", "adaptor: common");
    let server = Setup::new(&format!("{text}credentials:\n  one: {{password: planted-secret-of-one}}\n")).start();
    for _ in 0..3 {
        let ended = run(&server, &json!({}), "completed");
        let lines = log(&server, &ended);
        assert!(lines.len() == 1 && !lines[0].contains("planted"), "{lines:?}");
        assert!(!server.output(&ended, "job").to_string().contains("planted"));
    }
    assert_eq!(server.data_files_with(&["planted-secret-of-one"]), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_job_that_has_to_stay_a_module_runs_in_isolates_of_its_own() {
    let job = "import { track } from '@openfn/language-tracker';
      const { name } = await Promise.resolve({ name: 'awaited' });
      export default [track(), state => ({ ...state, name })];";
    let server = serve(&project(WORKFLOW, job));
    for _ in 0..2 {
        let ended = run(&server, &json!({}), "completed");
        let output = server.output(&ended, "job");
        assert_eq!((&output["found"], &output["name"]), (&nothing(), &json!("awaited")));
    }
}
