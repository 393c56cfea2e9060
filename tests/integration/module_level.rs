//! `isolation: module`: runs of a workflow that share an isolate, and what they do not find in it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::levels::{TRACK, found, log, nothing, project, run, runs_in_kept_isolates, serve};
use super::server::{Server, Setup, last_attempt};
use crate::support::store;

const MODULE: &str = "isolation: module";

/// An adaptor that says how it finds what all runs share, and changes it.
const VANDAL: &str = "
import http from 'node:http';
import util from 'node:util';
import { EventEmitter } from 'node:events';
import dns from 'node:dns';
import { subscribe } from 'node:diagnostics_channel';
const original = { fetch, parse: JSON.parse, map: Array.prototype.map, agent: http.globalAgent, request: http.request };
export const look = () => state => ({
  ...state,
  found: {
    timeout: typeof setTimeout,
    limit: Error.stackTraceLimit,
    prepare: typeof Error.prepareStackTrace,
    listeners: [EventEmitter.defaultMaxListeners, new EventEmitter().getMaxListeners()],
    depth: util.inspect.defaultOptions.depth,
    agent: http.globalAgent.options.own,
    proto: [Object.keys({}).length, Reflect.ownKeys(Object.prototype).length, ''.own ?? 'none'],
    names: Object.keys(globalThis).length,
    match: RegExp.$1 + RegExp.lastMatch + RegExp.input,
    symbol: globalThis[Symbol.for('own')],
    dispatcher: typeof globalThis[Symbol.for('undici.globalDispatcher.1')],
    listening: process.eventNames().length,
    process: [process.exitCode, process.title],
    marks: performance.getEntriesByType('mark').length,
    works: [
      new FinalizationRegistry(() => {}).register({}), JSON.parse('[1]'), [1].map(n => n + 1),
      JSON.stringify({ a: 1 }), 'x'.trim(), Number('1'),
    ],
  },
});
export const smash = () => state => {
  globalThis.fetch = globalThis.undeclared = () => 'smashed';
  globalThis[Symbol.for('own')] = 'smashed';
  delete globalThis.setTimeout;
  JSON.parse = JSON.stringify = () => 'smashed';
  Array.prototype.map = String.prototype.trim = () => 'smashed';
  Object.defineProperty(Object.prototype, 'hidden', { value: 'smashed', configurable: true });
  Object.prototype.plain = 'smashed';
  Object.defineProperty(String.prototype, 'own', { get: () => 'smashed', configurable: true });
  Object.setPrototypeOf(Number, class {});
  process.on('unhandledRejection', () => {}).on('own', () => {});
  FinalizationRegistry.prototype.register = () => 'smashed';
  Error.stackTraceLimit = 1;
  Error.prepareStackTrace = () => 'smashed';
  EventEmitter.defaultMaxListeners = 1;
  util.inspect.defaultOptions.depth = 9;
  http.globalAgent.options.own = 'smashed';
  http.globalAgent = new http.Agent();
  http.request = () => 'smashed';
  process.exitCode = 3;
  process.title = 'smashed';
  performance.mark('own');
  /s(m)ashed/.exec('smashed');
  return state;
};
export const outlast = {
  nothing: state => state,
  global: state => (Object.defineProperty(globalThis, 'fixed', { value: 'left' }), state),
  order: state => (dns.setDefaultResultOrder('ipv6first'), state),
  channel: state => (subscribe('own', () => {}), state),
  timer: state => (AbortSignal.timeout(60_000), state),
  graph: async state => (await import(['.', 'own.js'].join('/')), state),
  listener: state => (process.on('unhandledRejection', () => {}), state),
  rejection: () => { Promise.reject(new Error('nobody waits')); return new Promise(() => {}); },
  part: async state => (await import('node:v8'), state),
};
export const seal = { method: () => { Map.prototype.own = 'left'; }, function: () => { Map.own = 'left'; } };
";
const MANIFEST: &str =
    r#"{ "name": "@openfn/language-vandal", "version": "1.0.0", "type": "module", "exports": "./index.js" }"#;

fn serve_vandal(settings: &str, job: &str) -> Server {
    let text = project(settings, job).replace("tracker=./tracker, common", "vandal=./vandal");
    let setup = Setup::new(&text).file("vandal/index.js", VANDAL).file("vandal/package.json", MANIFEST);
    let setup = setup.file("vandal/own.js", "export const own = {};");
    setup.args(&["--concurrency", "1", "--log", "info,fnhost::isolate=debug"]).start()
}

/// A server of a job of the adaptor `common` or `http`.
fn serve_job(adaptor: &str, job: &str) -> Server {
    let text = project(MODULE, job).replace("adaptors: [tracker=./tracker, common]", &format!("adaptor: {adaptor}"));
    Setup::new(&text).args(&["--concurrency", "1"]).start()
}

/// Isolates that were not used again.
fn retired(server: &Server) -> String {
    let text = server.read("/metrics").expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix("fnhost_isolates_retired_total "));
    line.expect("the metric").to_owned()
}

#[test]
fn a_run_finds_nothing_in_the_isolate_that_it_shares() {
    let server = serve(&project(MODULE, TRACK));
    for _ in 0..4 {
        let ended = run(&server, &json!({}), "completed");
        assert_eq!(server.output(&ended, "job")["found"], nothing());
        assert_eq!(log(&server, &ended), ["runs: 1"]);
    }
    assert_eq!((runs_in_kept_isolates(&server).as_str(), retired(&server).as_str()), ("3", "0"));
    let level = server.read("/api/v1/workflows/job").expect(200).json()["isolation"].clone();
    assert_eq!(level, "module");
}

#[test]
fn what_all_runs_share_is_put_back() {
    let job = "import { look, smash } from '@openfn/language-vandal'; export default [look(), smash()];";
    let server = serve_vandal(MODULE, job);
    let first = found(&server, &json!({}));
    assert_eq!(first["works"], json!([null, [1], [2], "{\"a\":1}", "x", 1]), "{first}");
    for _ in 0..3 {
        assert_eq!(found(&server, &json!({})), first);
    }
    assert_eq!(runs_in_kept_isolates(&server), "3", "{}", server.log());
}

#[test]
fn what_cannot_be_put_back_costs_the_isolate() {
    let job = "import { look, outlast } from '@openfn/language-vandal';
      export default [look(), state => outlast[state.data.what](state)];";
    let server = serve_vandal(MODULE, job);
    let first = found(&server, &json!({ "what": "nothing" }));
    for (count, (what, reason)) in [
        ("global", "the run added fixed to what all share"),
        ("order", "the run used setDefaultResultOrder of node:dns"),
        ("channel", "the run used subscribe of node:diagnostics_channel"),
        ("timer", "the run left a timer of the runtime's own"),
        ("graph", "the run imported a module that V8 keeps"),
        ("part", "the run loaded node:v8"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(found(&server, &json!({ "what": what })), first, "{what}");
        assert_eq!(found(&server, &json!({ "what": "nothing" })), first, "after {what}");
        assert_eq!(retired(&server), (count + 1).to_string(), "{what}");
        assert!(server.log().contains(reason), "{what}: {}", server.log());
    }
}

#[test]
fn nobody_listens_for_the_errors_of_a_later_run() {
    let job =
        "import { outlast } from '@openfn/language-vandal'; export default [state => outlast[state.data.what](state)];";
    let server = serve_vandal("isolation: module\n    retry: false", job);
    run(&server, &json!({ "what": "listener" }), "completed");
    let failed = run(&server, &json!({ "what": "rejection" }), "failed");
    assert_eq!(last_attempt(&failed, "job")["failure"]["class"], "RuntimeCrash", "{failed}");
    assert_eq!(runs_in_kept_isolates(&server), "1");
}

#[test]
fn nothing_can_be_added_to_what_is_sealed() {
    let job = "import { seal } from '@openfn/language-vandal'; export default [state => seal[state.data.what]()];";
    let server = serve_vandal("isolation: module\n    retry: false", job);
    for what in ["method", "function"] {
        let failed = run(&server, &json!({ "what": what }), "failed");
        let failure = &last_attempt(&failed, "job")["failure"];
        assert_eq!(failure["message"], "Cannot add property own, object is not extensible", "{failed}");
    }
    assert_eq!(retired(&server), "0");
}

#[test]
fn timers_of_a_run_end_with_it() {
    let job = "import { track, tick } from '@openfn/language-tracker';
      export default [track(), state => {
        tick(...state.data.timer)(state);
        if (state.data.unref) for (const delay of [1, 20, 60_000]) setTimeout(console.log, delay, 'late').unref();
        return state;
      }];";
    let server = serve(&project(MODULE, job));
    // One that ends at once is waited for, and speaks in the log of its own run.
    let short = run(&server, &json!({ "name": "short", "timer": [1, 1], "unref": true }), "completed");
    assert_eq!(log(&server, &short)[..2], ["runs: 1", "tick of short"]);
    std::thread::sleep(Duration::from_millis(100));
    let after = run(&server, &json!({ "name": "after", "timer": [1, 1] }), "completed");
    assert_eq!(log(&server, &after), ["runs: 1", "tick of after"]);
    assert_eq!(runs_in_kept_isolates(&server), "1");
    run(&server, &json!({ "name": "long", "timer": [50, 1000] }), "completed");
    let last = run(&server, &json!({ "name": "last", "timer": [1, 1] }), "completed");
    assert_eq!(log(&server, &last), ["runs: 1", "tick of last"]);
    assert_eq!((runs_in_kept_isolates(&server).as_str(), retired(&server).as_str()), ("2", "1"));
}

#[test]
fn a_timer_that_starts_itself_again_ends_with_its_run() {
    let job = "import { track } from '@openfn/language-tracker';
      export default [track(), state => new Promise(resolve => {
        const timer = setTimeout(() => {
          console.log(`again of ${state.data.name}`);
          timer.refresh();
        }, 10).unref();
        setTimeout(resolve, 35, state);
      })];";
    let server = serve(&project(MODULE, job));
    for name in ["first", "second", "third"] {
        let lines = log(&server, &run(&server, &json!({ "name": name }), "completed"));
        assert!(lines.len() >= 3 && lines[1..].iter().all(|line| *line == format!("again of {name}")), "{lines:?}");
    }
    assert_eq!((runs_in_kept_isolates(&server).as_str(), retired(&server).as_str()), ("2", "0"), "{}", server.log());
}

/// A server that keeps its connections open, and counts them. Its port.
fn patient(connections: &Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = |stream: TcpStream, open: &AtomicUsize| {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        while lines.by_ref().find(String::is_empty).is_some() {
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
        open.fetch_sub(1, Ordering::SeqCst);
    };
    let open = connections.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            open.fetch_add(1, Ordering::SeqCst);
            let open = open.clone();
            std::thread::spawn(move || answer(stream, &open));
        }
    });
    port
}

#[test]
fn connections_of_a_run_are_closed() {
    let open = Arc::new(AtomicUsize::new(0));
    let address = format!("http://127.0.0.1:{}", patient(&open));
    // By undici, by the global `fetch`, and by Node with an agent that keeps connections.
    let job = format!(
        "get('{address}/'); fn(async state => {{ await fetch('{address}').then(r => r.text()); return state; }})"
    );
    let server = serve_job("http", &job);
    for _ in 0..3 {
        run(&server, &json!({}), "completed");
        server.until("the connections are closed", || (open.load(Ordering::SeqCst) == 0).then_some(()));
    }
    assert_eq!((runs_in_kept_isolates(&server).as_str(), retired(&server).as_str()), ("2", "0"));
}

#[test]
fn a_library_that_runs_share_counts_anew() {
    let job = "fn(state => {
        const found = [_.uniqueId(), _.own, _.templateSettings.own, _.VERSION];
        _.templateSettings.own = _.VERSION = 'left';
        return { found };
      })";
    let server = serve_job("common", job);
    let first = found(&server, &json!({}));
    assert_eq!(first[0], "1");
    for _ in 0..2 {
        assert_eq!(found(&server, &json!({})), first);
    }
    assert_eq!(runs_in_kept_isolates(&server), "2");
}

#[test]
fn a_run_that_is_stopped_or_breaks_off_takes_its_isolate_along() {
    let job = "import { track, exit } from '@openfn/language-tracker';
      const act = state => {
        if (state.data.act === 'loop') for (;;);
        if (state.data.act === 'exit') return exit()(state);
        if (state.data.act === 'reject') { Promise.reject(new Error('nobody waits')); return new Promise(() => {}); }
        return state;
      };
      export default [track(), act];";
    let server = serve(&project("isolation: module\n    retry: false\n    timeout: 2s", job));
    for (count, act) in ["loop", "exit", "reject"].into_iter().enumerate() {
        assert_eq!(found(&server, &json!({})), nothing(), "before {act}");
        run(&server, &json!({ "act": act }), "failed");
        assert_eq!(retired(&server), (count + 1).to_string(), "{act}");
    }
    assert_eq!(found(&server, &json!({})), nothing());
}

#[test]
fn what_it_takes_to_share_is_not_for_runs_that_do_not() {
    let text = project(MODULE, "say()").replace("tracker=./tracker, common", "modest=./modest");
    let source =
        "import path from 'node:path';\nexport const say = () => state => ({ ...state, at: path.join('a', 'b') });";
    let manifest = MANIFEST.replace("vandal", "modest");
    let setup = Setup::new(&text).file("modest/index.js", source).file("modest/package.json", &manifest);
    let server = setup.args(&["--concurrency", "1"]).start();
    let packs = store().join("node_modules/.fnhost/packs");
    let habits = || {
        let is_its_own = |file: &std::fs::DirEntry| {
            let name = file.file_name().into_string().unwrap();
            name.starts_with("language-modest-") && name.ends_with(".pack")
        };
        let file = std::fs::read_dir(&packs).unwrap().flatten().find(is_its_own)?;
        let bytes = std::fs::read(file.path()).unwrap();
        // The header stands behind its length, the third number.
        let length = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[24..24 + length]).unwrap();
        (header["habits"]["known"] == true).then(|| header["habits"]["scripts"].clone())
    };
    run(&server, &json!({}), "completed");
    run(&server, &json!({}), "completed");
    let scripts = server.until("what its runs need is known", habits).to_string();
    assert!(!scripts.contains("node:http2") && !scripts.contains("node:tls"), "{scripts}");
}
