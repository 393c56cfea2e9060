//! Isolates that start from a snapshot with their adaptors evaluated in it: a run cannot tell.
//!
//! The first run with some adaptors has the snapshot made when it ends, and the later ones start from it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{Server, Setup};
use crate::support::{Run, http_server};

/// What the last of several runs with one adaptor makes of its state, and each before it.
fn runs(adaptor: &str, job: &str, times: usize) -> Vec<Value> {
    let run = Run::of("job.js", job).local_adaptor("test", adaptor).env("FNHOST_REPO_DIR", "store");
    let states: Vec<_> = (0..times).map(|_| run.go().state()).collect();
    let packs = fs::read_dir(run.path("store/node_modules/.fnhost/packs")).unwrap().flatten();
    let snapshots = packs.filter(|file| file.path().extension().is_some_and(|extension| extension == "snapshot"));
    assert_eq!(snapshots.count(), 1, "a snapshot is there");
    states
}

/// A server with a job `look`, whose output is what this expression gives, and the manifest of its adaptor in `test`. The
/// adaptor has a name of its own: what is made of adaptors is kept by their names in the store that all tests share.
fn one_job(adaptor: &str, expression: &str) -> Setup {
    let setup = Setup::new(&format!(
        "
jobs:
  look: {{ adaptor: {adaptor}=./test, trigger: any, expression: 'fn(state => ({{ ...state, data: {expression} }}))' }}
triggers:
  any: {{ criteria: {{}} }}
"
    ));
    let manifest =
        json!({ "name": format!("@test/{adaptor}"), "version": "1.0.0", "type": "module", "main": "index.js" });
    fs::create_dir(setup.path("test")).unwrap();
    setup.file("test/package.json", &manifest.to_string())
}

/// What an adaptor computes when it is loaded, in three runs.
fn loaded(import: &str, value: &str) -> Vec<Value> {
    let operation = "export const look = () => (state) => ({ ...state, loaded });";
    let adaptor = format!("{import}; const loaded = {value}; {operation}");
    runs(&adaptor, "look()", 3).iter().map(|state| state["loaded"].clone()).collect()
}

#[test]
fn what_depends_on_the_moment_is_evaluated_in_each_run() {
    for (import, value) in [
        ("", "Date.now()"),
        ("", "new Date().getTime() + performance.now()"),
        ("", "performance.timeOrigin"),
        ("", "Math.random()"),
        ("", "crypto.randomUUID()"),
        ("import { performance } from 'node:perf_hooks'", "performance.timeOrigin"),
        ("import hooks from 'node:perf_hooks'", "hooks.performance.now()"),
        ("import { randomBytes } from 'node:crypto'", "randomBytes(8).toString('hex')"),
        ("", "process.hrtime().join()"),
        ("", "String(process.hrtime.bigint())"),
        ("const late = { moment: 0 }; Promise.resolve().then(() => { late.moment = Date.now(); })", "late"),
    ] {
        let values = loaded(import, value);
        assert_ne!(values[0], values[1], "{value}");
        assert_ne!(values[1], values[2], "{value}");
    }
}

#[test]
fn a_timer_that_is_set_while_loading_goes_off_in_each_run() {
    let adaptor = "
        let late;
        setTimeout(() => { late = Date.now(); }, 1);
        export const look = () => async (state) => {
            while (late === undefined) await new Promise((done) => setTimeout(done, 5));
            return { ...state, late };
        };
    ";
    let states = runs(adaptor, "look()", 3);
    assert!(states.windows(2).all(|pair| pair[0]["late"] != pair[1]["late"]), "{states:?}");
}

#[test]
fn what_stays_the_same_is_evaluated_once() {
    // lodash reads the clock while it loads, and may: what it does with the time depends on the moment of no run.
    let manifest = r#"{ "name": "lodash", "version": "4.0.0", "main": "index.js" }"#;
    let adaptor = "import lodash from 'lodash'; const { now } = lodash; export const look = () => (state) => ({ ...state, now });";
    let run = Run::of("job.js", "look()").local_adaptor("test", adaptor).env("FNHOST_REPO_DIR", "store");
    let run = run
        .file("adaptors/test/node_modules/lodash/package.json", manifest)
        .file("adaptors/test/node_modules/lodash/index.js", "exports.now = Date.now();");
    let now: Vec<_> = (0..3).map(|_| run.go().completed()["now"].clone()).collect();
    assert!(now[0] != now[1] && now[1] == now[2], "{now:?}");
}

#[test]
fn one_that_was_cut_is_made_anew() {
    let adaptor = "export const look = () => (state) => ({ ...state, seen: true });";
    let run = Run::of("job.js", "look()").local_adaptor("test", adaptor).env("FNHOST_REPO_DIR", "store");
    run.go().completed();
    let packs = fs::read_dir(run.path("store/node_modules/.fnhost/packs")).unwrap().flatten();
    let is_snapshot = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "snapshot");
    let file = packs.map(|file| file.path()).find(is_snapshot).unwrap();
    let whole = fs::metadata(&file).unwrap().len();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(whole / 2).unwrap();
    assert_eq!(run.go().completed()["seen"], true);
    assert!(fs::metadata(&file).unwrap().len() > whole / 2);
}

#[test]
fn one_holds_what_runs_were_seen_to_load() {
    // The first run that needs more tells so, the next shows what it is, and those after it find it there.
    let heavy = "exports.load = () => 'the heavy part';";
    let adaptor = "
        import heavy from './heavy.cjs';
        const { load } = heavy;
        export const light = () => (state) => ({ ...state, data: 'light' });
        export const use = () => (state) => ({ ...state, data: load() });
    ";
    let run = Run::of("job.js", "").local_adaptor("test", adaptor).env("FNHOST_REPO_DIR", "store");
    let mut run = run.file("adaptors/test/heavy.cjs", heavy);
    for (job, data, is_held) in [
        ("light()", "light", false),
        ("use()", "the heavy part", false),
        ("use()", "the heavy part", true),
        ("light()", "light", true),
    ] {
        run = run.file("job.js", job);
        assert_eq!(run.go().completed()["data"], data);
        let packs = fs::read_dir(run.path("store/node_modules/.fnhost/packs")).unwrap().flatten();
        let is_snapshot = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "snapshot");
        let snapshot = fs::read(packs.map(|file| file.path()).find(is_snapshot).unwrap()).unwrap();
        assert_eq!(snapshot.windows(14).any(|text| text == b"the heavy part"), is_held, "{job}");
    }
}

#[test]
fn a_client_of_http_in_one_answers_waits_and_gives_up_as_ever() {
    // undici keeps a clock of its own, which must go on in each run.
    let server = http_server::Server::start();
    let run = |job: &str| {
        let credential = json!({ "baseUrl": server.origin() }).to_string();
        Run::of("job.js", job).adaptor("http").credential(&credential)
    };
    for _ in 0..2 {
        run("get('/echo')").go().completed();
    }
    let late = run("get('/slow/60000', { timeout: 1500 })").go().failure();
    assert_eq!(late["details"]["code"], "UND_ERR_HEADERS_TIMEOUT", "{late}");
    assert!(run("get('/slow/1200', { timeout: 20000 })").go().data().is_object());
}

#[test]
fn a_socket_is_opened_where_a_snapshot_holds_nothing_of_node() {
    let server = http_server::Server::start();
    let adaptor = "
        export const light = () => (state) => state;
        export const ask = (origin) => async (state) => {
            const { connect } = await import('node:net');
            const { hostname, port } = new URL(origin);
            const socket = connect(port, hostname, () => socket.write('GET /echo HTTP/1.0\\r\\n\\r\\n'));
            let data = '';
            for await (const chunk of socket) data += chunk;
            return { ...state, data: data.slice(0, 15) };
        };
    ";
    let run = Run::of("job.js", "light()").local_adaptor("test", adaptor).env("FNHOST_REPO_DIR", "store");
    for _ in 0..2 {
        run.go().completed();
    }
    let run = run.file("job.js", &format!("ask('{}')", server.origin()));
    for _ in 0..3 {
        assert_eq!(run.go().data(), "HTTP/1.0 200 OK");
    }
}

#[test]
fn a_run_changes_nothing_for_the_next() {
    let adaptor = "
        const seen = [];
        let count = 0;
        export const settings = { token: null };
        export const see = (value) => (state) => {
            seen.push(value);
            settings.token ??= state.data.token;
            return { ...state, seen: [...seen], count: ++count, token: settings.token };
        };
    ";
    for state in runs(adaptor, "see('a'); see('b');", 3) {
        assert_eq!(state["seen"], json!(["a", "b"]));
        assert_eq!(state["count"], 2);
    }
}

#[test]
fn built_ins_work_as_if_they_were_loaded_in_the_run() {
    let adaptor = "
        import { EventEmitter } from 'node:events';
        import { webcrypto, createHash, randomBytes } from 'node:crypto';
        import { Buffer } from 'node:buffer';
        import { performance } from 'node:perf_hooks';
        const emitter = new EventEmitter();
        const started = performance.timeOrigin;
        const digest = (text) => webcrypto.subtle.digest('SHA-256', Buffer.from(text));
        export const work = () => async (state) => {
            let heard = 0;
            emitter.once('x', (value) => { heard = value; });
            emitter.emit('x', 7);
            const hash = Buffer.from(await digest('abc')).toString('hex');
            const key = await webcrypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign']);
            const other = await crypto.subtle.exportKey('raw', key);
            return {
                ...state,
                heard,
                hash: hash === createHash('sha256').update('abc').digest('hex'),
                key: other.byteLength,
                random: randomBytes(4).length,
                started: Date.now() - started < 60_000,
                wasm: typeof WebAssembly.compile,
                shared: typeof SharedArrayBuffer,
            };
        };
    ";
    let expected = json!({
        "heard": 7, "hash": true, "key": 64, "random": 4, "started": true, "wasm": "function", "shared": "function",
    });
    for state in runs(adaptor, "work()", 3) {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&state[name], value, "{name}");
        }
    }
}

#[test]
fn adaptors_that_v8_cannot_write_down_are_loaded_by_each_run() {
    // A hash is an object of Rust's.
    let adaptor = "
        import { createHash } from 'node:crypto';
        const hash = createHash('sha256');
        hash.update('abc');
        export const digest = () => (state) => ({ ...state, digest: hash.copy().digest('hex').slice(0, 8) });
    ";
    for state in runs(adaptor, "digest()", 3) {
        assert_eq!(state["digest"], "ba7816bf");
    }
}

#[test]
fn parts_that_are_loaded_in_a_snapshot_compile_the_rest_of_themselves_in_the_runs() {
    // The server's first snapshot is made before there was a run, so its runs call functions that none has called yet.
    let setup = one_job("parts", "look()");
    let adaptor = "
        import { createRequire, isBuiltin } from 'node:module';
        import timers from 'node:timers';
        const require = createRequire(import.meta.url);
        export const fn = (f) => (state) => f(state);
        export const look = () => {
          clearTimeout(timers.setTimeout(() => {}, 1000).refresh());
          const sources = [process.memoryUsage, process.emitWarning, Buffer.prototype.swap16, isBuiltin, timers.clearImmediate];
          return [
            process.platform, isBuiltin('fs'), Buffer.from('late').swap16().toString('latin1'), Buffer.from([1, 2]).readInt16BE(),
            require('node:querystring').stringify({ a: 1 }), require('node:util').format('%s', 1),
            sources.every((source) => /^(async )?(function|\\w+\\()[^]*\\}$/.test(source.toString())),
          ];
        };
    ";
    let server = setup.file("test/index.js", adaptor).start();
    for _ in 0..3 {
        let run = server.run_in(&server.send_one(&json!({})), "completed");
        let found = json!(["linux", true, "alet", 258, "a=1", "1", true]);
        assert_eq!(server.output(&run, "look")["data"], found);
    }
}

#[test]
fn an_isolate_that_was_begun_for_an_adaptor_as_it_was_has_no_run() {
    let adaptor = |version: u32| format!("export const look = () => (state) => ({{ ...state, version: {version} }});");
    let mut run = Run::of("job.js", "look()").local_adaptor("test", &adaptor(1)).env("FNHOST_REPO_DIR", "store");
    for version in [1, 2] {
        run = run.file("adaptors/test/index.js", &adaptor(version));
        for _ in 0..3 {
            assert_eq!(run.go().completed()["version"], version);
        }
    }
    // It is waited for: V8 must not be at work when its process ends.
    run = run.file("job.js", "look(");
    for _ in 0..5 {
        let ran = run.go().expect(3);
        assert!(ran.stderr.contains("expression expected") && !ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
}

#[test]
fn an_adaptor_of_a_server_changes_nothing_for_jobs_without_it() {
    let project = "
jobs:
  plain: { adaptor: quiet=./quiet, trigger: any, expression: 'fn(state => ({ ...state, data: look() }))' }
  other: { adaptor: loud=./loud, trigger: any, expression: 'fn(state => ({ ...state, data: look() }))' }
triggers:
  any: { criteria: {} }
";
    for place in ["Array.prototype", "globalThis", "process"] {
        let look = format!(
            "export const fn = (f) => (state) => f(state); export const look = () => ({place}.patched ?? null);"
        );
        let patch = format!("Object.defineProperty({place}, 'patched', {{ value: 1 }});");
        let manifest = |name: &str| {
            json!({ "name": format!("@test/{name}"), "version": "1.0.0", "type": "module", "main": "index.js" })
                .to_string()
        };
        let setup = Setup::new(project);
        for name in ["quiet", "loud"] {
            fs::create_dir(setup.path(name)).unwrap();
        }
        let server = setup
            .file("quiet/package.json", &manifest("quiet"))
            .file("quiet/index.js", &look)
            .file("loud/package.json", &manifest("loud"))
            .file("loud/index.js", &format!("{patch}{look}"))
            .start();
        for _ in 0..2 {
            let runs = server.send(&json!({}));
            let data = |step: &str| server.output(&server.run_in(&runs[step], "completed"), step)["data"].clone();
            assert_eq!((data("plain"), data("other")), (json!(null), json!(1)), "{place}");
        }
    }
}

/// A server with a job whose output is when its adaptor's code was evaluated: a snapshot may hold a package of this name,
/// although it reads the clock.
fn dated(adaptor: &str) -> Setup {
    let setup = one_job(adaptor, "now");
    let code = "
        import lodash from 'lodash';
        export const { now } = lodash;
        export const fn = (f) => (state) => f(state);
    ";
    fs::create_dir_all(setup.path("test/node_modules/lodash")).unwrap();
    setup
        .file("test/index.js", code)
        .file(
            "test/node_modules/lodash/package.json",
            r#"{ "name": "lodash", "version": "4.0.0", "main": "index.js" }"#,
        )
        .file("test/node_modules/lodash/index.js", "exports.now = Date.now();")
}

/// The output of one more run of that job.
fn date(server: &Server) -> Value {
    server.output(&server.run_in(&server.send_one(&json!({})), "completed"), "look")["data"].clone()
}

#[test]
fn a_server_takes_up_what_its_runs_have_shown() {
    let server = dated("taken-up").start();
    let mut dates = vec![date(&server)];
    while dates.len() < 2 || dates[dates.len() - 2] != dates[dates.len() - 1] {
        assert!(dates.len() < 300, "no snapshot was taken up: {dates:?}");
        std::thread::sleep(Duration::from_millis(100));
        dates.push(date(&server));
    }
    assert!(dates.iter().all(Value::is_u64) && dates[0] != dates[dates.len() - 1], "{dates:?}");
    assert_eq!(date(&server), dates[dates.len() - 1]);
}

#[test]
fn adaptors_that_a_project_comes_to_use_are_in_the_next_snapshot() {
    let server = dated("joined").args(&["--log", "debug"]).start();
    let project = fs::read_to_string(server.dir().join("project.yaml")).unwrap();
    let sum = "sum: { adaptor: common, trigger: any, expression: 'fn(() => ({ data: _.sum([1, 2]) }))' }";
    fs::write(server.dir().join("project.yaml"), project.replace("jobs:", &format!("jobs:\n  {sum}"))).unwrap();
    server.until("the project is read again", || server.log().contains("the project was read again").then_some(()));
    server.until("a run need not evaluate what it loads", || {
        let run = server.run_in(&server.send(&json!({}))["sum"], "completed");
        assert_eq!(server.output(&run, "sum")["data"], 3);
        let log = server.log();
        let mut runs =
            log.lines().filter(|line| line.contains(r#""step":"sum""#) && line.contains("a run in an isolate"));
        runs.next_back()?.contains(r#""modules_us":0,"#).then_some(())
    });
}

#[test]
fn a_server_starts_from_the_snapshot_that_it_has_had_made() {
    let mut server = dated("restarted").start();
    // The first run shows what runs load; the server that starts next knows it.
    server.run_in(&server.send_one(&json!({})), "completed");
    server.signal("TERM");
    server.wait();
    let server = server.restart();
    let seen = [(); 3].map(|()| date(&server));
    assert!(seen.iter().all(|now| now.is_u64() && *now == seen[0]), "{seen:?}");
}
