//! An error of a run tells where it happened in the user's own source, in `state.errors` and on stderr.

use serde_json::{Value, json};

use crate::support::{Run, job};

/// A job that throws, and what `state.errors` should hold of it.
struct Case {
    source: &'static str,
    error: Value,
}

/// The entry of `state.errors` without its `stack`, which is checked elsewhere.
#[track_caller]
fn failed(source: &str) -> Value {
    let ran = job(source).go().expect(1);
    let mut error = ran.state()["errors"]["job"].take();
    if let Value::Object(error) = &mut error {
        error.remove("stack");
    }
    error
}

#[test]
fn errors_of_a_job_have_their_place_in_it() {
    let cases = [
        Case {
            source: "fn((state) => state.x.y)",
            error: json!({
                "source": "runtime", "name": "RuntimeError", "severity": "fail", "subtype": "TypeError",
                "message": "Cannot read properties of undefined (reading 'y')",
                "pos": { "line": 1, "column": 23, "src": "fn((state) => state.x.y)" },
                "line": 1, "operationName": "fn",
            }),
        },
        Case {
            source: "// a helper\nfunction parse(text) {\n  throw new Error(`cannot parse ${text}`);\n}\n\nfn(s => s);\nfn(state => {\n  parse('x');\n  return state;\n});",
            error: json!({
                "source": "runtime", "name": "JobError", "severity": "fail", "message": "cannot parse x",
                "pos": { "line": 3, "column": 9, "src": "  throw new Error(`cannot parse ${text}`);" },
                "line": 7, "operationName": "fn",
            }),
        },
        Case {
            source: "fn(async state => {\n\tawait new Promise(done => setTimeout(done, 5));\n\treturn state.data.missing.length;\n})",
            error: json!({
                "source": "runtime", "name": "RuntimeError", "severity": "fail", "subtype": "TypeError",
                "message": "Cannot read properties of undefined (reading 'length')",
                "pos": { "line": 3, "column": 28, "src": "\treturn state.data.missing.length;" },
                "line": 1, "operationName": "fn",
            }),
        },
        Case {
            source: "fn(s => ({ ...s, list: [1, 2, 3] }));\neach('list[*]', fn(state => {\n  if (state.data === 2) throw new TypeError('two');\n  return state;\n}));",
            error: json!({
                "source": "runtime", "name": "RuntimeError", "severity": "fail", "subtype": "TypeError",
                "message": "two",
                "pos": { "line": 3, "column": 31, "src": "  if (state.data === 2) throw new TypeError('two');" },
                "line": 2, "operationName": "each",
            }),
        },
        Case {
            source: "fn(s => s); fn(() => new Array(-1))",
            error: json!({
                "source": "runtime", "name": "RuntimeError", "severity": "fail", "subtype": "RangeError",
                "message": "Invalid array length",
                "pos": { "line": 1, "column": 22, "src": "fn(s => s); fn(() => new Array(-1))" },
                "line": 1, "operationName": "fn",
            }),
        },
        Case {
            source: "class Refused extends Error {\n  name = 'Refused';\n  status = 418;\n}\nfn(() => { throw new Refused('no tea') })",
            error: json!({
                "source": "runtime", "name": "JobError", "severity": "fail", "message": "no tea",
                "pos": { "line": 5, "column": 18, "src": "fn(() => { throw new Refused('no tea') })" },
                "line": 5, "operationName": "fn", "details": { "name": "Refused", "status": 418 },
            }),
        },
        Case {
            source: "fn(() => { throw 'a plain text' })",
            error: json!({
                "source": "runtime", "name": "JobError", "severity": "fail", "message": "a plain text",
                "line": 1, "operationName": "fn",
            }),
        },
        Case {
            source: "\n\n  fn(() => Promise.reject({ code: 'E_NO', why: ['x'] }))",
            error: json!({
                "source": "runtime", "name": "JobError", "severity": "fail",
                "message": "{\"code\":\"E_NO\",\"why\":[\"x\"]}",
                "line": 3, "operationName": "fn", "details": { "code": "E_NO", "why": ["x"] },
            }),
        },
        Case {
            source: "fn(state => state);\nfn($.data.patients.length.toFixed().x.y);",
            error: json!({
                "source": "runtime", "name": "RuntimeError", "severity": "fail", "subtype": "TypeError",
                "message": "Cannot read properties of undefined (reading 'length')",
                "pos": { "line": 2, "column": 20, "src": "fn($.data.patients.length.toFixed().x.y);" },
                "line": 2, "operationName": "fn",
            }),
        },
        Case {
            source: "const größe = '日本😀'; fn(state => größe.x.y)",
            error: json!({
                "source": "runtime", "name": "RuntimeError", "severity": "fail", "subtype": "TypeError",
                "message": "Cannot read properties of undefined (reading 'y')",
                "pos": { "line": 1, "column": 43, "src": "const größe = '日本😀'; fn(state => größe.x.y)" },
                "line": 1, "operationName": "fn",
            }),
        },
        Case {
            source: "interface Patient { name: string }\nfn((state: { data: Patient[] }) => {\n  const first: Patient = state.data[0]!;\n  return first.name as unknown;\n})",
            error: json!({
                "source": "runtime", "name": "RuntimeError", "severity": "fail", "subtype": "TypeError",
                "message": "Cannot read properties of undefined (reading 'name')",
                "pos": { "line": 4, "column": 16, "src": "  return first.name as unknown;" },
                "line": 2, "operationName": "fn",
            }),
        },
    ];
    for case in cases {
        assert_eq!(failed(case.source), case.error, "{}", case.source);
    }
}

#[test]
fn an_error_of_an_adaptor_names_the_operation() {
    let error = failed("fn(s => s);\n\nassert(false, 'no patients');");
    assert_eq!(error["name"], "AdaptorError");
    assert_eq!(error["severity"], "fail");
    assert_eq!(error["message"], "no patients");
    assert_eq!([&error["line"], &error["operationName"]], [&json!(3), &json!("assert")]);

    let source =
        "export const get = path => async () => { throw Object.assign(new Error('404'), { statusCode: 404, path }) };";
    let ran = Run::of("fetch.js", "get('/patients');").local_adaptor("api", source).go().expect(1);
    let error = &ran.state()["errors"]["fetch"];
    assert_eq!(error["name"], "AdaptorError");
    assert_eq!(error["details"], json!({ "statusCode": 404, "path": "/patients", "name": "Error" }));
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines[0], "[R/T] ✘ AdaptorError: 404");
    assert!(lines[1].starts_with("            at @openfn/language-api/index.js:1:"), "{}", lines[1]);
    assert_eq!(lines[2], "        Error occurred at: fetch, in get() on line 1");
    assert_eq!(lines[3], "        1: get('/patients');");
    assert_eq!(lines[4], "        Check state.errors.fetch for details");
}

#[test]
fn the_error_is_shown_in_the_source() {
    let ran = Run::of("ref.js", "fn((state) => state.x.y)").adaptor(crate::support::COMMON).go().expect(1);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines[0], "[R/T] ✘ TypeError: Cannot read properties of undefined (reading 'y')");
    assert_eq!(lines[1], "            at ref.js:1:23");
    assert!(lines[2].starts_with("            at @openfn/language-common@3.3.4/dist/index.js:"), "{}", lines[2]);
    let expected = [
        "        Error occurred at: ref",
        "        1: fn((state) => state.x.y)",
        "                                 ^",
        "        Check state.errors.ref for details",
    ];
    assert_eq!(lines[3..7], expected);
}

#[test]
fn the_stack_holds_the_users_frames_and_the_adaptors() {
    let source = "const inner = () => { throw new Error('deep') };\nconst outer = () => inner();\nfn(() => outer());";
    let state = job(source).go().expect(1).state();
    let stack = state["errors"]["job"]["stack"].as_str().unwrap();
    let frames: Vec<&str> = stack.lines().collect();
    assert_eq!(frames[..3], ["at inner (job.js:1:29)", "at outer (job.js:2:21)", "at job.js:3:10"]);
    assert!(frames[3].starts_with("at @openfn/language-common@3.3.4/"), "{stack}");
    assert!(!stack.contains("ext:") && !stack.contains("file:"), "the host's own frames are not shown: {stack}");
}

#[test]
fn the_state_of_a_job_that_failed_is_what_it_was_before() {
    let source = "fn(state => ({ ...state, data: 1 }));\nfn(state => { state.touched = true; throw new Error('x') });\nfn(state => ({ ...state, data: 3 }))";
    let state = job(source).state(r#"{ "kept": true }"#).go().expect(1).state();
    assert_eq!([&state["data"], &state["kept"], &state["touched"]], [&json!(1), &json!(true), &json!(true)]);
    assert_eq!(state["errors"]["job"]["line"], 2);
}

#[test]
fn earlier_errors_are_kept() {
    let run = Run::of("second.js", "fn(() => { throw 1 })").adaptor(crate::support::COMMON);
    let ran = run.state(r#"{ "errors": { "first": { "message": "earlier" } } }"#).go().expect(1);
    // The job's own state has no errors, for it returned none: the state is the one that went in.
    let errors = &ran.state()["errors"];
    assert_eq!([&errors["first"]["message"], &errors["second"]["message"]], ["earlier", "1"]);
}

#[test]
fn an_error_that_is_handled_is_none() {
    let source = "fn(() => { throw new Error('x') }).catch((error, state) => ({ ...state, caught: error.message }))";
    assert_eq!(job(source).go().expect(0).state()["caught"], "x");
}

#[test]
fn what_is_wrong_with_the_job_itself_is_a_crash() {
    for (source, class, message) in [
        (
            "fn(() => { use(); let later = 1; function use() { return later } })",
            "RuntimeCrash",
            "Cannot access 'later' before initialization",
        ),
        (
            "fn(() => JSON.parse('{'))",
            "RuntimeCrash",
            "Expected property name or '}' in JSON at position 1 (line 1 column 2)",
        ),
        ("const broken = null.x;\nfn(s => s)", "RuntimeCrash", "Cannot read properties of null (reading 'x')"),
        (
            "fn(s => s);\ndateFns.parse('2020-01-01', 'yyyy-MM-dd', new Date());",
            "ValidationError",
            "Invalid operation at statement 2: it is an object, not a function that takes state",
        ),
        ("import { x } from '@openfn/language-unknown';\nfn(s => x)", "ImportError", ""),
    ] {
        let ran = job(source).go_json();
        let [name, severity, said] = ran.error();
        if message.is_empty() {
            assert_eq!(name, class, "{source}: {said}");
        } else {
            assert_eq!([name.as_str(), said.as_str()], [class, message], "{source}");
            assert_eq!(severity, "crash", "{source}");
            let ran = ran.expect(4);
            assert_eq!(ran.stdout, "", "a crash leaves no state");
        }
    }
}

#[test]
fn a_rejection_nobody_awaits_is_a_crash() {
    for source in [
        "fn(state => { Promise.reject(new Error('nobody')); return state })",
        "fn(state => { Promise.reject(new Error('nobody')); return new Promise(done => setTimeout(done, 50, state)) })",
        "fn(state => { setTimeout(() => { throw new Error('nobody') }); return new Promise(done => setTimeout(done, 50, state)) })",
    ] {
        let ran = job(source).go_json().expect(4);
        assert_eq!(ran.error()[..2], ["RuntimeCrash", "crash"], "{source}");
        assert!(ran.error()[2].ends_with(": nobody"), "{source}: {}", ran.error()[2]);
    }
}

#[test]
fn a_promise_that_nothing_settles_is_an_error() {
    let ran = job("fn(() => new Promise(() => {}))").go_json().expect(1);
    assert_eq!(ran.error()[2], "The job waits for a promise that nothing will ever settle");
}

#[test]
fn mistakes_are_found_before_the_job_runs() {
    let source = "console.log('running');\nfn(state => {\n  return pasreInt(state.data);\n});\neech('$.data', s => s);";
    let ran = job(source).go().expect(3);
    assert!(ran.stderr.starts_with("[CMP] ✘ job.js:"), "{}", ran.stderr);
    for expected in ["job.js:3:10: ", "parseInt", "job.js:5:1: ", "each"] {
        assert!(ran.stderr.contains(expected), "{expected} in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("running") && ran.stdout.is_empty());
}
