//! `fnhost run`: inputs in, final state out, everything else on stderr.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{COMMON, Ran, Run, fnhost, job, store};

#[test]
fn the_example_project_runs() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = fnhost(&["run", "project/jobs/register-patients.js", "-a", COMMON, "-s", "project/state.json"]);
    let ran = Ran::new(command.current_dir(root).env("FNHOST_REPO_DIR", store()).output().unwrap()).expect(0);
    let bundle = &ran.state()["data"];
    assert_eq!(bundle["resourceType"], "Bundle");
    assert_eq!(bundle["entry"].as_array().unwrap().len(), 3);
    let expected = json!({
        "resourceType": "Patient",
        "identifier": [{ "system": "urn:clinic:patient", "value": "BO-0017" }],
        "name": [{ "family": "Kamara", "given": ["Aminata"] }],
        "gender": "female",
        "birthDate": "1991-03-07",
        "telecom": [{ "system": "phone", "value": "076555017" }],
    });
    assert_eq!(bundle["entry"][0]["resource"], expected);
    assert!(ran.stderr.starts_with("[JOB] 3 of 4 patients are complete\n[CLI] ✔ register-patients.js finished in "));
}

#[test]
fn a_run_without_a_state_starts_with_an_empty_one() {
    let ran = job("fn(state => ({ given: state }))").go().expect(0);
    assert_eq!(ran.state()["given"], json!({ "data": {}, "configuration": {} }));
}

#[test]
fn a_state_from_a_file_or_from_stdin() {
    let source = "fn(state => ({ ...state, doubled: state.data.n * 2 }))";
    let expected = json!({ "data": { "n": 21 }, "doubled": 42 });
    assert_eq!(job(source).state(r#"{ "data": { "n": 21 } }"#).go().expect(0).state(), expected);
    assert_eq!(job(source).args(&["-S"]).stdin(r#"{ "data": { "n": 21 } }"#).go().expect(0).state(), expected);
    let ran = job(source).args(&["-S"]).stdin("{\n 'data': 1 }").go().expect(2);
    assert_eq!(ran.stderr, "[CLI] ✘ stdin:2:2: the state is not valid JSON: key must be a string\n");
}

#[test]
fn a_job_from_stdin() {
    let mut command = fnhost(&["run", "-", "-a", COMMON]);
    command.env("FNHOST_REPO_DIR", store()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"fn(() => { throw new Error('x') })").unwrap();
    let ran = Ran::new(child.wait_with_output().unwrap()).expect(1);
    assert_eq!(ran.state()["errors"]["job"]["pos"]["column"], 18);
    let both = Ran::new(fnhost(&["run", "-", "-S"]).output().unwrap()).expect(2);
    assert!(both.stderr.contains("stdin cannot be both"), "{}", both.stderr);
}

#[test]
fn the_final_state_goes_where_it_is_asked_for() {
    let run = job("fn(() => ({ a: [1, { b: {} }], c: 'é' }))");
    let pretty = "{\n  \"a\": [\n    1,\n    {\n      \"b\": {}\n    }\n  ],\n  \"c\": \"é\"\n}\n";
    let compact = "{\"a\":[1,{\"b\":{}}],\"c\":\"é\"}\n";
    assert_eq!(run.go().expect(0).stdout, pretty);

    let run = run.args(&["-o", "out.json"]);
    assert_eq!(run.go().expect(0).stdout, "");
    assert_eq!(run.read("out.json"), pretty);

    let run = run.args(&["--compact", "-O"]);
    assert_eq!(run.go().expect(0).stdout, compact);
    assert_eq!(run.read("out.json"), compact);
}

#[test]
fn a_job_that_fails_still_writes_its_state() {
    let run = job("fn(() => { throw new Error('x') })").args(&["-o", "out.json"]);
    run.go().expect(1);
    let state: Value = serde_json::from_str(&run.read("out.json")).unwrap();
    assert_eq!(state["errors"]["job"]["message"], "x");
}

#[test]
fn a_job_that_is_stopped_leaves_the_old_file() {
    let run = job("fn(() => { for (;;) {} })").file("out.json", "old").args(&["-o", "out.json", "-t", "200"]);
    run.go().expect(20);
    assert_eq!(run.read("out.json"), "old");
}

#[test]
fn keys_keep_their_order_and_numbers_their_digits() {
    let source = "fn(() => ({ z: 1e21, a: 0.1, m: 123456789012345680000, '2': 'b', '1': 'a', e: 5e-324 }))";
    let ran = job(source).args(&["--compact"]).go().expect(0);
    assert_eq!(
        ran.stdout,
        "{\"1\":\"a\",\"2\":\"b\",\"z\":1e+21,\"a\":0.1,\"m\":123456789012345680000,\"e\":5e-324}\n"
    );
}

#[test]
fn a_job_that_returns_nothing_has_no_final_state() {
    let ran = job("fn(() => {})").go().expect(0);
    assert_eq!(ran.stdout, "null\n");
    assert!(ran.stderr.contains("[R/T] ⚠ The last operation returned nothing"), "{}", ran.stderr);
    let ran = job("fn(() => {}); fn(state => ({ keys: Object.keys(state) }))").go().expect(0);
    assert_eq!(ran.state(), json!({ "keys": [] }));
    assert!(ran.stderr.contains("No state was passed into operation 2"), "{}", ran.stderr);
}

#[test]
fn a_credential_becomes_the_configuration_and_stays_out_of_the_state() {
    let source = "fn(state => ({ ...state, response: { body: 'raw' }, seen: { ...state.configuration } }))";
    let run = job(source)
        .state(r#"{ "configuration": { "url": "https://example.org", "user": "of the state" } }"#)
        .credential("user: of the credential\npassword: 'p4ssword'\nport: 8080\n");
    let state = run.go().expect(0).state();
    let seen = json!({
        "url": "https://example.org", "user": "of the credential", "password": "p4ssword", "port": 8080,
    });
    assert_eq!(state, json!({ "data": {}, "seen": seen }));

    let json_file = job("fn(state => ({ user: state.configuration.user }))")
        .file("credential.json", r#"{ "user": "jo" }"#)
        .args(&["-c", "credential.json"]);
    assert_eq!(json_file.go().expect(0).state(), json!({ "user": "jo" }));
}

#[test]
fn a_state_that_refers_to_itself_does_not_carry_the_configuration_along() {
    let source = "fn(state => { state.self = state; state.list = [state]; return state })";
    let ran = job(source).credential("password: p4ssword").go().expect(0);
    assert!(ran.stdout.contains("[Circular]"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("configuration") && !ran.stdout.contains("p4ssword"), "{}", ran.stdout);
    let frozen = job("fn(state => Object.freeze({ ...state, a: 1 }))").credential("password: p4ssword").go().expect(0);
    assert_eq!(frozen.state(), json!({ "data": {}, "a": 1 }));
}

#[test]
fn secrets_are_masked_in_logs_and_errors() {
    let source = "fn(state => {
  const { token, key, user, password } = state.configuration;
  console.log('token:', token, 'twice', token);
  console.info(state.configuration.nested.deep[0], { key });
  console.warn(`Basic ${btoa(user + ':' + password)}`);
  console.error(JSON.stringify(state.configuration));
  console.log(state);
  throw new Error(`401 for https://example.org?token=${token}`);
})";
    let credential = "token: t0k3n-t0k3n\nkey: |\n  -----BEGIN KEY-----\n  MIIEvQIBADAN\nuser: jonathan\npassword: hunter22\nnested: { deep: [b0ttom] }\n";
    let run = job(source).state(r#"{ "configuration": { "own": "0wn-secret" } }"#).credential(credential);
    for args in [&[][..], &["--log-json"], &["-l", "debug"]] {
        let ran = run_with(&run, args).expect(1);
        for secret in
            ["t0k3n", "MIIEvQIBADAN", "jonathan", "hunter22", "b0ttom", "0wn-secret", "am9uYXRoYW46aHVudGVyMjI="]
        {
            assert!(!ran.stderr.contains(secret), "{secret} in {}", ran.stderr);
        }
        assert!(ran.stderr.contains("401 for https://example.org?token=***"), "{}", ran.stderr);
    }
}

#[test]
fn an_error_does_not_carry_the_credential_into_the_state() {
    // As HTTP clients do: the whole request hangs on the error.
    let adaptor = "export const fail = () => state => {
  const { url, password } = state.configuration;
  throw Object.assign(new Error(`POST ${url}?key=${password}`), { request: { headers: [`Bearer ${password}`] } });
};";
    let run = Run::of("job.js", "fail()").local_adaptor("failing", adaptor);
    let ran = run.credential("url: https://example.org\npassword: hunter22\n").go().expect(1);
    assert!(!ran.stdout.contains("hunter22") && !ran.stderr.contains("hunter22"), "{}{}", ran.stdout, ran.stderr);
    let error = &ran.state()["errors"]["job"];
    assert_eq!(error["details"]["request"]["headers"], json!(["Bearer ***"]), "{error}");
}

fn run_with(run: &Run, args: &[&str]) -> Ran {
    Ran::new(run.command().args(args).output().unwrap())
}

#[test]
fn a_broken_credential_is_not_quoted() {
    for (name, text) in [("c.json", "{ \"password\": hunter22 }"), ("c.yaml", "password: [hunter22\nuser: x")] {
        let ran = job("fn(s => s)").file(name, text).args(&["-c", name]).go().expect(2);
        assert!(ran.stderr.contains(name) && !ran.stderr.contains("hunter22"), "{}", ran.stderr);
    }
}

#[test]
fn several_adaptors() {
    let local = "export const shout = text => state => ({ ...state, text: text.toUpperCase() });";
    let run = Run::of("job.js", "shout('hello'); fn(state => ({ ...state, done: true }))");
    let state = run.local_adaptor("shouter", local).adaptor(COMMON).go().expect(0).state();
    assert_eq!([&state["text"], &state["done"]], [&json!("HELLO"), &json!(true)]);

    // One that the job imports only while it runs, after another whose names it uses.
    let source = "shout('a'); fn(async s => ({ ...s, n: typeof (await import('@openfn/language-common')).each }))";
    let run = Run::of("job.js", source).local_adaptor("shouter", local).adaptor(COMMON);
    assert_eq!(run.go().expect(0).state()["n"], "function");

    let run = Run::of("job.js", "fn(s => s)").args(&["--adaptors", &format!("{COMMON},common"), "-l", "info"]);
    let ran = run.go().expect(0);
    assert_eq!(
        ran.stderr.matches("@openfn/language-common@3.3.4").count(),
        1,
        "given twice, used once: {}",
        ran.stderr
    );
}

#[test]
fn a_job_without_an_adaptor() {
    let ran = Run::of("job.js", "fn(state => ({ ...state, a: 1 }))").go().expect(0);
    assert_eq!(ran.state(), json!({ "data": {}, "a": 1 }));
    let ran = Run::of("job.js", "get('/patients')").go().expect(3);
    assert!(ran.stderr.contains("job.js:1:1: ") && ran.stderr.contains("get"), "{}", ran.stderr);
}

#[test]
fn a_local_adaptor_is_read_anew_when_it_changes() {
    let run =
        Run::of("job.js", "answer()").local_adaptor("oracle", "export const answer = () => () => ({ answer: 41 });");
    assert_eq!(run.go().expect(0).state()["answer"], 41);
    assert_eq!(run.go().expect(0).state()["answer"], 41);
    std::fs::write(run.path("adaptors/oracle/index.js"), "export const answer = () => () => ({ answer: 41 + 1 });")
        .unwrap();
    assert_eq!(run.go().expect(0).state()["answer"], 42);
    std::fs::write(run.path("adaptors/oracle/index.js"), "export const other = () => () => ({});").unwrap();
    run.go().expect(3);
}

#[test]
fn local_adaptors_of_one_name_are_told_apart() {
    for answer in [1, 2] {
        let source = format!("export const answer = () => () => ({{ answer: {answer} }});");
        let run = Run::of("job.js", "answer()").local_adaptor("twin", &source);
        assert_eq!(run.go().expect(0).state()["answer"], answer);
    }
}

#[test]
fn a_local_adaptor_wins_over_the_installed_one() {
    let source = "export const fn = () => () => ({ local: true });";
    let run = Run::of("job.js", "fn()").local_adaptor("common", source);
    assert_eq!(run.go().expect(0).state(), json!({ "local": true }));
}

#[test]
fn an_adaptor_that_does_not_load_is_a_crash() {
    for source in ["export const = 1;", "import 'node:nothing';\nexport const x = 1;", "throw new Error('at load');"] {
        let ran = Run::of("job.js", "fn(s => s)").local_adaptor("broken", source).go().expect(4);
        assert!(ran.stderr.contains("@openfn/language-broken"), "{source}: {}", ran.stderr);
    }
}

#[test]
fn a_missing_adaptor_is_installed_unless_told_not_to() {
    let run = job("fn(() => ({ installed: true }))").args(&["--repo-dir", "store"]);
    let ran = run_with(&run, &["--no-install"]).expect(5);
    let expected = "[CLI] ✘ common@3.3.4 is not installed; run: fnhost install common@3.3.4\n";
    assert_eq!(ran.stderr, expected);

    let ran = run.go().expect(0);
    assert_eq!(ran.state()["installed"], true);
    assert!(ran.stderr.contains("[CLI] ✔ Installed @openfn/language-common@3.3.4\n"), "{}", ran.stderr);
    assert!(!run.go().expect(0).stderr.contains("Installed"), "only once");
}

#[test]
fn an_install_that_fails_is_the_hosts_fault() {
    let run = job("fn(s => s)").args(&["--repo-dir", "store"]).file("store/.npmrc", "registry=http://127.0.0.1:9/\n");
    let run = run.env("XDG_CACHE_HOME", "/nonexistent/cache").env("npm_config_registry", "http://127.0.0.1:9/");
    let ran = run.go().expect(5);
    assert!(ran.stderr.contains("[CLI] ✘ cannot install @openfn/language-common@3.3.4: "), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn log_lines_tell_who_speaks() {
    let source = "fn(state => {\n  console.log('one\\n  two');\n  console.debug('d'); console.info('i'); console.warn('w'); console.error('e'); console.success('s');\n  return state;\n})";
    let run = job(source);
    let lines = |args: &[&str]| -> Vec<String> {
        let ran = run_with(&run, args).expect(0);
        let lines = ran.stderr.lines().filter(|line| !line.contains(" ms")).map(str::to_owned);
        lines.collect()
    };
    let of_job = ["[JOB] one", "        two", "[JOB] d", "[JOB] i", "[JOB] ⚠ w", "[JOB] ✘ e", "[JOB] ✔ s"];
    assert_eq!(lines(&[]), of_job);
    assert_eq!(lines(&["-l", "none"]), ["[JOB] ✘ e"], "errors are always heard");
    assert_eq!(lines(&["-l", "job=default"]), ["[JOB] ⚠ w", "[JOB] ✘ e", "[JOB] ✔ s"]);
    let all = lines(&["-l", "debug"]).join("\n");
    for expected in [
        "[CLI] Running job.js with @openfn/language-common@3.3.4",
        "[CMP] Operation 1: fn on line 1",
        "[R/T] Starting operation 1: fn",
    ] {
        assert!(all.contains(expected), "{expected} in {all}");
    }
    assert!(!lines(&["-l", "debug,r/t=none"]).join("\n").contains("[R/T]"));
}

#[test]
fn a_log_of_json_lines() {
    let ran = job("fn(state => { console.log('a \"quoted\"\\nline'); throw new TypeError('x') })").go_json().expect(1);
    let log = ran.log();
    assert_eq!([&log[0]["level"], &log[0]["name"]], ["log", "JOB"]);
    assert_eq!(log[0]["message"], json!(["a \"quoted\"\nline"]));
    let time: u64 = log[0]["time"].as_str().unwrap().parse().unwrap();
    assert!(time > 1_600_000_000_000_000_000, "nanoseconds since 1970: {time}");
    assert_eq!([&log[1]["level"], &log[1]["name"]], ["error", "R/T"]);
    assert_eq!(log[1]["error"]["subtype"], "TypeError");
    assert!(log[1]["message"][0].as_str().unwrap().contains("Error occurred at: job\n1: fn(state"));

    let by_variable = job("fn(s => s)").env("OPENFN_LOG_JSON", "true").go().expect(0);
    assert_eq!(by_variable.log()[0]["level"], "success");
}

#[test]
fn no_colours_outside_a_terminal() {
    let ran = job("fn(state => { console.warn('w'); throw 1 })").args(&["-l", "debug"]).go().expect(1);
    assert!(!ran.stderr.contains('\x1b'));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let run = job("fn(() => ({ data: Array.from({ length: 1e5 }, (_, i) => `line ${i}`) }))");
    let mut child = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let ran = Ran::new(child.wait_with_output().unwrap()).expect(0);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);

    // Nor one of the log.
    let run = job("fn(state => { for (let i = 0; i < 1e4; i++) console.log('line', i); return state })");
    let mut child = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(Ran::new(child.wait_with_output().unwrap()).expect(0).state(), json!({ "data": {} }));
}

#[test]
fn interrupted_and_terminated() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = job("fn(() => { console.log('running'); for (;;) {} })").args(&["-o", "out.json"]);
        let mut child = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert_eq!(line, "[JOB] running\n");
        let killed = std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let ran = Ran::new(child.wait_with_output().unwrap()).expect(code);
        assert_eq!(ran.stdout, "");
        assert!(!run.path("out.json").exists());
    }
}

#[test]
fn certificates_named_wrongly_in_the_environment_are_only_a_warning() {
    let ran = job("fn(s => s)").env("NODE_EXTRA_CA_CERTS", "/does/not/exist.pem").go().expect(0);
    assert!(ran.stderr.contains("[CLI] ⚠ NODE_EXTRA_CA_CERTS is ignored"), "{}", ran.stderr);
}

#[test]
fn a_large_state_goes_through() {
    let state = format!(r#"{{"data":["{}"]}}"#, "x".repeat(30 << 20));
    let ran = job("fn(state => ({ ...state, length: state.data[0].length }))").state(&state).go().expect(0);
    assert_eq!(ran.state()["length"], 30 << 20);
}
