//! Isolates that start from a snapshot with their adaptors evaluated in it: a run cannot tell.
//!
//! The first run with some adaptors has the snapshot made when it ends, and the later ones start from it.

use std::fs;

use serde_json::{Value, json};

use crate::server::Setup;
use crate::support::Run;

/// What the last of several runs with one adaptor makes of its state, and each before it.
fn runs(adaptor: &str, job: &str, times: usize) -> Vec<Value> {
    let run = Run::of("job.js", job).local_adaptor("test", adaptor).env("FNHOST_REPO_DIR", "store");
    let states: Vec<_> = (0..times).map(|_| run.go().state()).collect();
    let packs = fs::read_dir(run.path("store/node_modules/.fnhost/packs")).unwrap().flatten();
    let snapshots = packs.filter(|file| file.path().extension().is_some_and(|extension| extension == "snapshot"));
    assert_eq!(snapshots.count(), 1, "a snapshot is there");
    states
}

#[test]
fn what_depends_on_the_moment_is_evaluated_in_each_run() {
    let adaptor = "
        import { randomUUID } from 'node:crypto';
        import { hostname } from 'node:os';
        const loaded = [Date.now(), new Date().getTime(), performance.now(), Math.random(), randomUUID(), process.hrtime()];
        export const moment = () => (state) => ({ ...state, loaded, host: hostname() });
    ";
    let [first, second, third] = &runs(adaptor, "moment()", 3)[..] else { panic!("three runs") };
    for index in 0..6 {
        assert_ne!(first["loaded"][index], second["loaded"][index], "{index}");
        assert_ne!(second["loaded"][index], third["loaded"][index], "{index}");
    }
}

#[test]
fn what_is_put_off_while_loading_happens_in_each_run() {
    let adaptor = "
        let late = 'nothing';
        Promise.resolve().then(() => { late = Date.now(); });
        let ticks = 0;
        setTimeout(() => { ticks += 1; }, 1);
        export const look = () => async (state) => {
            await new Promise((done) => setTimeout(done, 50));
            return { ...state, late, ticks };
        };
    ";
    let states = runs(adaptor, "look()", 3);
    assert!(states.windows(2).all(|pair| pair[0]["late"] != pair[1]["late"]), "{states:?}");
    assert!(states.iter().all(|state| state["ticks"] == 1 && state["late"].is_u64()), "{states:?}");
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
fn an_adaptor_of_a_server_changes_nothing_for_jobs_without_it() {
    let setup = Setup::new(
        "
jobs:
  plain: { adaptor: quiet=./quiet, trigger: any, expression: 'fn(state => ({ ...state, data: look() }))' }
  other: { adaptor: loud=./loud, trigger: any, expression: 'fn(state => ({ ...state, data: look() }))' }
triggers:
  any: { criteria: {} }
",
    );
    let look = "export const look = () => [[].patched, {}.patched, globalThis.patched, process.patched].map((x) => x ?? null);";
    let operations = "export const fn = (f) => (state) => f(state);";
    let patches = "
        Array.prototype.patched = 1; Object.prototype.patched = 2; globalThis.patched = 3; process.patched = 4;
    ";
    for (name, text) in [("quiet", format!("{operations}{look}")), ("loud", format!("{patches}{operations}{look}"))] {
        fs::create_dir(setup.path(name)).unwrap();
        let manifest =
            json!({ "name": format!("@test/{name}"), "version": "1.0.0", "type": "module", "main": "index.js" });
        fs::write(setup.path(&format!("{name}/package.json")), manifest.to_string()).unwrap();
        fs::write(setup.path(&format!("{name}/index.js")), text).unwrap();
    }
    let server = setup.start();
    for _ in 0..2 {
        let runs = server.send(&json!({}));
        let data = |step: &str| server.output(&server.run_in(&runs[step], "completed"), step)["data"].clone();
        assert_eq!((data("plain"), data("other")), (json!([null, null, null, null]), json!([1, 2, 3, 4])));
    }
}
