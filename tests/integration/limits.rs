//! Each limit of a run ends the run, by the name and exit code of that limit; nothing a job does ends the program.

use crate::support::{Ran, job};

#[track_caller]
fn assert_stopped(ran: Ran, code: i32, class: &str, message: &str) {
    let ran = ran.expect(code);
    assert_eq!(ran.error(), [class, "kill", message]);
    assert_eq!(ran.stdout, "", "a run that was stopped has no final state");
}

#[test]
fn wall_clock() {
    let message = "Job took longer than 300 ms to complete";
    for source in [
        "fn(() => { while (true) {} })",
        "fn(async () => { for (;;) await 0 })",
        "fn(async () => { for (;;) await new Promise(done => setTimeout(done)) })",
        "fn(() => new Promise(done => setTimeout(done, 600000)))",
        "fn(() => { for (;;) { try { for (;;) {} } finally { continue } } })",
        "while (true) {}",
        "fn(() => { const wait = new Int32Array(new SharedArrayBuffer(4)); Atomics.wait(wait, 0, 0) })",
        "fn(() => { /^(a+)+$/.test('a'.repeat(64) + 'b') })",
    ] {
        println!("{source}");
        assert_stopped(job(source).args(&["-t", "300"]).go_json(), 20, "TimeoutError", message);
    }
}

#[test]
fn cpu_time() {
    let ran = job("fn(() => { while (true) {} })").args(&["--cpu", "500", "-t", "1h"]).go_json();
    assert_stopped(ran, 21, "CpuTimeoutError", "Job used more than 500 ms of CPU time");
}

#[test]
fn heap() {
    let message = "Job needs more memory than 128 MB";
    for source in [
        // One GB of text: in pieces, doubled, and joined.
        "fn(() => { const all = []; for (let i = 0; i < 1024; i++) all.push(String(i).padEnd(1 << 20, i)); return { all } })",
        "fn(() => { let all = []; for (;;) all.push({ n: all.length, all: [all.length] }) })",
        "fn(() => { const all = new Map(); for (let i = 0; ; i++) all.set(i, [i]) })",
        "fn(() => { const all = []; for (;;) all.push(new Array(1000).fill(0)) })",
    ] {
        println!("{source}");
        assert_stopped(job(source).args(&["--memory", "128"]).go_json(), 22, "OOMError", message);
    }
}

#[test]
fn a_text_of_one_gigabyte() {
    let ran = job("fn(state => ({ ...state, data: 'x'.repeat(2 ** 30) }))").go_json().expect(1);
    assert_eq!(ran.error(), ["RuntimeError", "fail", "Invalid string length"]);
    assert_eq!(ran.state()["errors"]["job"]["subtype"], "RangeError");
}

#[test]
fn sizes_that_v8_ends_the_process_for() {
    for source in [
        "fn(() => ({ n: 'x'.repeat(2 ** 29 - 24).split('').length }))",
        "fn(() => ({ n: 'x'.repeat(2 ** 29 - 24).match(/x/g).length }))",
        "fn(() => ({ n: JSON.parse('[' + '1,'.repeat(2 ** 27) + '1]').length }))",
    ] {
        println!("{source}");
        let ran = job(source).go().expect(22);
        assert!(ran.stderr.contains("[R/T] ✘ OOMError: "), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn built_ins_that_heed_no_limit() {
    for source in [
        "fn(() => ({ n: 'x'.repeat(2 ** 29 - 24).replaceAll('x', 'yy').length }))",
        "fn(() => { const all = []; all.length = 2 ** 27; all.fill(0); return {} })",
    ] {
        println!("{source}");
        let ran = job(source).args(&["-t", "2s"]).go();
        assert!([Some(20), Some(22)].contains(&ran.code), "{:?} {:?} {}", ran.code, ran.signal, ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn buffers() {
    let message = "Job holds more than 64 MB in ArrayBuffers and Buffers";
    for source in [
        "fn(() => ({ data: Buffer.alloc(2 ** 30).length }))",
        "fn(() => { const all = []; for (let i = 0; i < 1024; i++) all.push(Buffer.alloc(1 << 20)); return {} })",
        "fn(() => { const all = []; for (let i = 0; i < 1024; i++) all.push(new Float64Array(1 << 17)); return {} })",
        "fn(() => { const all = []; for (let i = 0; i < 64; i++) all.push(new SharedArrayBuffer(1 << 24)); return {} })",
        "fn(() => { const piece = 'x'.repeat(1 << 20); const all = []; for (let i = 0; i < 1024; i++) all.push(new Blob([piece])); return {} })",
        "fn(() => { let all = new Blob(['x'.repeat(1 << 20)]); for (;;) all = new Blob([all, 'y'.repeat(1 << 20)]) })",
    ] {
        println!("{source}");
        assert_stopped(job(source).args(&["--buffers", "64"]).go_json(), 23, "BufferLimitError", message);
    }
}

#[test]
fn buffers_that_are_let_go_do_not_count() {
    let source = "fn(async () => {
        let total = 0;
        for (let i = 0; i < 64; i++) {
            total += Buffer.alloc(8 << 20).length + new Blob([new Uint8Array(8 << 20)]).size;
            await new Promise(done => setTimeout(done));
        }
        return { total };
    })";
    let ran = job(source).args(&["--buffers", "256"]).go().expect(0);
    assert_eq!(ran.state()["total"], 1 << 30);
}

#[test]
fn there_are_no_resizable_buffers() {
    for name in ["ArrayBuffer", "SharedArrayBuffer"] {
        let source = format!("fn(() => new {name}(8, {{ maxByteLength: 2 ** 33 }}))");
        let ran = job(&source).go_json().expect(1);
        assert_eq!(ran.error()[2], format!("A resizable {name} is not available"));
        let by_constructor = format!("fn(() => new (new {name}(1).constructor)(8, {{ maxByteLength: 2 ** 33 }}))");
        job(&by_constructor).go().expect(1);
    }
}

#[test]
fn ordinary_buffers_are_what_they_were() {
    let source = "fn(() => {
        class Mine extends ArrayBuffer {}
        const mine = new Mine(8);
        return {
            length: mine.byteLength,
            kinds: [mine instanceof Mine, mine instanceof ArrayBuffer, new ArrayBuffer(1).constructor === ArrayBuffer],
            view: ArrayBuffer.isView(new Uint8Array(1)),
            slice: new ArrayBuffer(8).slice(2).byteLength,
            base64: Buffer.from('hello').toString('base64'),
        };
    })";
    let expected = serde_json::json!({
        "length": 8, "kinds": [true, true, true], "view": true, "slice": 6, "base64": "aGVsbG8=",
    });
    assert_eq!(job(source).go().expect(0).state(), expected);
}

#[test]
fn final_state() {
    let source = "fn(() => ({ data: Array.from({ length: 200 }, (_, i) => String(i).padEnd(1 << 20, 'ab')) }))";
    assert_stopped(job(source).go_json(), 24, "StateTooLargeError", "State exceeds the limit of 125 MB");
    let small = job("fn(() => ({ data: 'x'.repeat(2 << 20) }))").args(&["--state-limit", "1"]).go_json();
    assert_stopped(small, 24, "StateTooLargeError", "State exceeds the limit of 1 MB");
}

#[test]
fn log() {
    // Ten gigabytes.
    let source = "fn(() => { const line = 'x'.repeat(1 << 20); for (let i = 0; i < 10240; i++) console.log(line) })";
    let ran = job(source).go_json();
    assert!(ran.stderr.len() < 12 << 20, "{} bytes", ran.stderr.len());
    assert_stopped(ran, 25, "LogTooLargeError", "Log exceeds the limit of 10 MB");
    let many = job("fn(() => { for (;;) console.log('x') })").args(&["--log-limit", "0.5"]).go_json();
    assert_stopped(many, 25, "LogTooLargeError", "Log exceeds the limit of 0.5 MB");
}

#[test]
fn a_limit_cannot_be_caught() {
    let source = "fn(() => { try { for (;;) {} } catch { return {} } }).catch(() => ({ survived: true }))";
    let ran = job(source).args(&["-t", "300"]).go_json();
    assert_stopped(ran, 20, "TimeoutError", "Job took longer than 300 ms to complete");
}

#[test]
fn deep_recursion_is_an_error_like_any_other() {
    let ran = job("function down(n) { return down(n + 1) + 1; }\nfn(() => down(0))").go_json().expect(1);
    assert_eq!(ran.error(), ["RuntimeError", "fail", "Maximum call stack size exceeded"]);
    let deep = "fn(() => { let data = {}; for (let i = 0; i < 1e6; i++) data = { data }; return { data } })";
    let ran = job(deep).go().expect(0);
    assert!(ran.stdout.len() < 20 << 20, "a state nested a million levels deep is {} bytes long", ran.stdout.len());
}

#[test]
fn values_json_cannot_hold() {
    let ran =
        job("fn(state => { state.self = state; state.data = { list: [state.data] }; return state })").go().expect(0);
    assert!(ran.stdout.contains("[Circular]"), "{}", ran.stdout);

    let ran = job("fn(state => { state.data = { counts: [{ n: 10n }] }; return state })").go_json().expect(1);
    let [class, severity, message] = ran.error();
    assert_eq!([class.as_str(), severity.as_str()], ["RuntimeError", "fail"]);
    assert!(message.starts_with("state.data.counts.0.n is a BigInt, which JSON cannot hold"), "{message}");

    let source =
        "fn(() => ({ date: new Date(0), none: undefined, f() {}, map: new Map([[1, 2]]), n: NaN, s: Symbol('x') }))";
    let expected = serde_json::json!({ "date": "1970-01-01T00:00:00.000Z", "map": {}, "n": null });
    assert_eq!(job(source).go().expect(0).state(), expected);
}

#[test]
fn process_exit_in_an_adaptor_ends_the_run_only() {
    for call in ["process.exit(3)", "process.reallyExit(3)", "setTimeout(() => process.exit(3))"] {
        let adaptor = format!("export const leave = () => async () => {{ {call}; await new Promise(() => {{}}) }};");
        let ran = crate::support::Run::of("job.js", "leave()").local_adaptor("leaver", &adaptor).go_json().expect(4);
        assert_eq!(ran.error(), ["ExitError", "crash", "Process exited with code: 3"], "{call}");
    }
}
