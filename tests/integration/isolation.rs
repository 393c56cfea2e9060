//! What a job cannot do, and what an adaptor cannot do: reach the environment, files, processes, the host or another run.

use serde_json::{Map, Value};

use crate::support::http_server::Server;
use crate::support::{COMMON, Ran, Run, job};

/// What became of attempts, by name: the text of the result, or `refused: <error>`.
struct Attempts(Map<String, Value>);

impl Attempts {
    #[track_caller]
    fn of(ran: Ran) -> Self {
        Self(ran.expect(0).state()["tried"].as_object().expect("attempts").clone())
    }

    #[track_caller]
    fn refused(&self, names: &[&str]) {
        for name in names {
            let text = self.0[*name].as_str().unwrap();
            assert!(text.starts_with("refused: "), "{name}: {text}");
        }
    }

    #[track_caller]
    fn gave(&self, name: &str, expected: &str) {
        assert_eq!(self.0[name], expected, "{name}");
    }
}

/// A job that makes several attempts, each an expression.
fn attempts_of_a_job(attempts: &[(&str, &str)]) -> String {
    let mut source = String::from(
        "fn(async state => {
  const tried = {};
  const attempt = async (name, get) => {
    try { tried[name] = String(await get()) } catch (error) { tried[name] = `refused: ${error.name}: ${error.message}` }
  };
",
    );
    for (name, expression) in attempts {
        source.push_str(&format!("  await attempt('{name}', () => {expression});\n"));
    }
    source.push_str("  return { tried };\n})");
    source
}

/// An adaptor that makes several attempts, with Node's modules at hand.
fn attempts_of_an_adaptor(attempts: &[(&str, &str)]) -> String {
    let mut source = String::from(
        "import { createRequire } from 'node:module';
import * as fs from 'node:fs';
import * as child from 'node:child_process';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import * as vm from 'node:vm';
import { Worker } from 'node:worker_threads';
const require = createRequire(import.meta.url);
const here = import.meta.dirname;
const event = (emitter, name) => new Promise((resolve, reject) => { emitter.on(name, resolve); emitter.on('error', reject) });
export const attempts = () => async state => {
  const tried = {};
  const attempt = async (name, get) => {
    try { tried[name] = String(await get()) } catch (error) { tried[name] = `refused: ${error.name}: ${error.message}` }
  };
",
    );
    for (name, expression) in attempts {
        source.push_str(&format!("  await attempt('{name}', async () => {expression});\n"));
    }
    source.push_str("  return { ...state, tried };\n};\n");
    source
}

fn adaptor_run(attempts: &[(&str, &str)]) -> Run {
    Run::of("job.js", "attempts()").local_adaptor("prober", &attempts_of_an_adaptor(attempts))
}

#[test]
fn a_job_sees_the_language_and_the_webs_names_only() {
    let source = attempts_of_a_job(&[
        ("names", "Object.getOwnPropertyNames(globalThis).sort().join()"),
        ("Deno", "typeof globalThis['Deno']"),
        ("process", "typeof globalThis['pro' + 'cess']"),
        ("require", "typeof globalThis['require']"),
        (
            "host",
            "Reflect.ownKeys(globalThis).filter(key => /deno|fnhost|node|core|bootstrap/i.test(String(key))).length",
        ),
        ("prototype", "Object.getPrototypeOf(globalThis)"),
        ("change", "{ globalThis.console = 1; return 'changed' }"),
        ("this", "(function () { return typeof this })()"),
        ("arguments", "(function () { return typeof arguments.callee })()"),
        ("fetch", "typeof fetch + typeof crypto + typeof URL + typeof Buffer + typeof structuredClone"),
    ]);
    let tried = Attempts::of(job(&source).go());
    let names = tried.0["names"].as_str().unwrap();
    for name in ["Deno", "process", "global", "require", "module", "WebAssembly", "Worker", "localStorage", "self"] {
        assert!(!names.split(',').any(|seen| seen == name), "{name} in {names}");
    }
    for name in ["Deno", "process", "require"] {
        tried.gave(name, "undefined");
    }
    tried.gave("host", "0");
    tried.gave("prototype", "null");
    tried.gave("this", "undefined");
    tried.gave("fetch", "functionobjectfunctionfunctionfunction");
    tried.refused(&["change", "arguments"]);
}

#[test]
fn names_of_the_host_are_refused_when_a_job_is_compiled() {
    for name in
        ["process", "require", "Deno", "module", "global", "window", "WebAssembly", "Function", "eval", "__dirname"]
    {
        let ran = job(&format!("fn(() => {name}('x'))")).go().expect(3);
        assert!(ran.stderr.contains(name), "{name}: {}", ran.stderr);
    }
}

#[test]
fn code_from_strings_is_refused() {
    for source in [
        "fn(() => (() => {}).constructor('return globalThis')())",
        "fn(() => (async () => {}).constructor('return globalThis')())",
        "fn(() => (function* () {}).constructor('return globalThis')())",
        "fn(() => (async function* () {}).constructor('return globalThis')())",
        "fn(() => Reflect.construct((() => {}).constructor, ['return globalThis']))",
        "fn(() => globalThis['ev' + 'al']('globalThis'))",
        "fn(() => ['return globalThis'].map((() => {}).constructor))",
        "fn(() => new Proxy((() => {}).constructor, {})('return globalThis'))",
        "fn(() => (() => {}).constructor.bind(null, 'return globalThis')())",
        "fn(() => Promise.resolve('return globalThis').then((() => {}).constructor))",
        "fn(() => console.log.constructor('return globalThis')())",
        "class Mine extends (() => {}).constructor {}\nfn(() => new Mine('return globalThis'))",
    ] {
        let ran = job(source).go_json().expect(26);
        assert_eq!(ran.error()[..2], ["SecurityError", "kill"], "{source}");
        assert_eq!(ran.stdout, "");
    }
    let ran = job("fn(() => { setTimeout('globalThis') })").go_json().expect(1);
    assert!(ran.error()[2].contains("must be of type function"), "{}", ran.error()[2]);
}

#[test]
fn code_that_an_adaptor_generates_for_a_job_has_an_adaptors_rights_only() {
    // Lodash, which the common adaptor hands to jobs, makes functions of templates.
    let template = |code: &str| format!("_.template({})()", serde_json::to_string(&format!("<% {code} %>")).unwrap());
    let print = |expression: &str| template(&format!("print({expression})"));
    let read = print("process.getBuiltinModule('node:fs').readFileSync('/etc/passwd')");
    let spawn = print("process.getBuiltinModule('node:child_process').execSync('id')");
    let source = attempts_of_a_job(&[
        ("reached", &print("typeof process")),
        ("namespace", &print("typeof Deno + typeof globalThis.Deno")),
        ("environment", &print("JSON.stringify(process.env)")),
        ("read", &read),
        ("spawn", &spawn),
        ("kill", &template("process.kill(process.pid)")),
        ("abort", &template("process.abort()")),
    ]);
    let tried = Attempts::of(job(&source).env("SECRET_OF_THE_HOST", "s3cr3t-value").go());
    tried.gave("reached", "object");
    tried.gave("namespace", "undefinedundefined");
    tried.gave("environment", "{}");
    tried.refused(&["read", "spawn", "kill", "abort"]);
}

#[test]
fn a_job_imports_its_adaptors_and_nothing_else() {
    for specifier in [
        "node:fs",
        "fs",
        "/etc/passwd",
        "file:///etc/passwd",
        "./state.json",
        "https://example.org/x.js",
        "data:text/javascript,export default 1",
        "npm:lodash",
        "lodash",
        "ext:core/mod.js",
        "ext:fnhost/host.js",
        "fnhost:adaptor/@openfn/language-common",
        "@openfn/language-http",
        "@openfn/language-common/../../x",
    ] {
        let dynamic = format!("fn(async () => {{ await import('{specifier}'); return {{ imported: true }} }})");
        let ran = job(&dynamic).file("state.json", "{}").go_json();
        assert!(ran.code == Some(1) || ran.code == Some(4), "{specifier}: {:?} {}", ran.code, ran.stdout);
        let computed = format!(
            "fn(async () => {{ const name = '{specifier}'; await import(name); return {{ imported: true }} }})"
        );
        let ran = job(&computed).file("state.json", "{}").go_json();
        assert!(ran.code == Some(1) || ran.code == Some(4), "{specifier}: {:?} {}", ran.code, ran.stdout);
        let fixed = format!("import * as x from '{specifier}';\nfn(() => ({{ x: typeof x }}))");
        let ran = job(&fixed).file("state.json", "{}").go_json();
        assert!(ran.code == Some(3) || ran.code == Some(4), "{specifier}: {:?} {}", ran.code, ran.stdout);
    }
    let allowed = "import { fn as operation } from '@openfn/language-common';\noperation(() => ({ x: 1 }))";
    assert_eq!(job(allowed).go().expect(0).state()["x"], 1);
}

#[test]
fn the_stack_of_an_error_gives_no_hold_on_the_host() {
    let source = "fn(() => {
  Error.prepareStackTrace = (error, sites) => sites;
  Error.stackTraceLimit = 100;
  const sites = new Error('x').stack;
  delete Error.prepareStackTrace;
  const reached = sites.map(site => [site.getThis?.(), site.getFunction?.()]).flat();
  return { frames: sites.length, reached: reached.map(value => typeof value) };
})";
    let state = job(source).go().expect(0).state();
    assert!(state["frames"].as_u64().unwrap() > 1);
    let reached = state["reached"].as_array().unwrap();
    assert!(reached.iter().all(|kind| kind == "undefined"), "{state}");

    let source = "fn(() => {
  let seen = [];
  const down = () => down();
  try { down() } catch (error) { seen = Reflect.ownKeys(error).map(String) }
  return { seen };
})";
    let state = job(source).go().expect(0).state();
    assert_eq!(state["seen"], serde_json::json!(["stack", "message"]));
}

#[test]
fn well_known_symbols_lead_nowhere() {
    let source = attempts_of_a_job(&[
        ("internal", "typeof globalThis[Symbol.for('Deno.internal')]"),
        ("inspect", "{ let given = 'nothing';
            const spy = { [Symbol.for('nodejs.util.inspect.custom')](...args) { given = args.map(a => typeof a).join(); return 'x' },
                          [Symbol.for('Deno.customInspect')](...args) { given = args.map(a => typeof a).join(); return 'x' },
                          [Symbol.for('Deno.privateCustomInspect')](...args) { given = args.map(a => typeof a).join(); return 'x' },
                          n: 1n };
            console.log(spy, new Map([[spy, spy]]));
            return given }"),
        ("toJSON", "{ let seen; const spy = { toJSON(key) { seen = typeof this + typeof key; return 1 } }; console.log({ spy }); return seen }"),
        ("species", "{ class Spy extends Array { static get [Symbol.species]() { return Array } } return new Spy(3).map(x => x).length }"),
    ]);
    let tried = Attempts::of(job(&source).go());
    tried.gave("internal", "undefined");
    tried.gave("toJSON", "objectstring");
}

#[test]
fn changed_builtins_catch_nothing_of_the_host() {
    let source = "fn(async state => {
  const seen = new Set();
  const apply = Reflect.apply;
  const add = Set.prototype.add;
  const note = value => { if (value !== null && (typeof value === 'object' || typeof value === 'function')) apply(add, seen, [value]) };
  const spy = (owner, name) => {
    const original = owner[name];
    owner[name] = function (...args) { note(this); for (let i = 0; i < args.length; i++) note(args[i]); return apply(original, this, args) };
  };
  for (const name of ['at', 'concat', 'forEach', 'includes', 'indexOf', 'join', 'map', 'pop', 'push', 'slice', 'splice']) spy(Array.prototype, name);
  for (const name of ['call', 'apply', 'bind']) spy(Function.prototype, name);
  for (const name of ['keys', 'entries', 'assign', 'defineProperty', 'getOwnPropertyDescriptor', 'create']) spy(Object, name);
  for (const name of ['parse', 'stringify']) spy(JSON, name);
  for (const name of ['then', 'catch', 'finally']) spy(Promise.prototype, name);
  for (const name of ['get', 'has', 'delete']) { spy(Map.prototype, name); spy(WeakMap.prototype, name) }
  Object.defineProperty(Object.prototype, 'get', { configurable: true, set(value) { note(this); note(value) }, get() { note(this) } });
  console.log({ a: [1] }, new Map([[1, 2]]), 1n, new Error('x'));
  await new Promise(done => setTimeout(done, 1));
  new URL('https://example.org/?a=b').searchParams.get('a');
  await new Blob(['x']).text();
  await fetch('data:text/plain,x').then(answer => answer.text());
  structuredClone({ a: 1 });
  crypto.randomUUID();
  Buffer.from('x').toString('base64');
  const marks = ['ops', 'core', 'internal', 'readFileSync', 'env', 'exit', 'kill', 'mainModule', 'loadExtScript', 'op_fnhost_log'];
  const caught = [];
  for (const value of seen) {
    for (const mark of marks) {
      let descriptor;
      try { descriptor = Reflect.getOwnPropertyDescriptor(value, mark) } catch {}
      if (descriptor) caught[caught.length] = mark + ' of ' + Object.prototype.toString.call(value);
    }
  }
  delete Object.prototype.get;
  return { seen: seen.size, caught };
})";
    let state = job(source).go().expect(0).state();
    assert!(state["seen"].as_u64().unwrap() > 0, "the spies work");
    assert_eq!(state["caught"], serde_json::json!([]));
}

#[test]
fn a_job_that_breaks_the_builtins_breaks_only_itself() {
    for source in [
        "fn(() => { JSON.stringify = JSON.parse = null; return { a: 1 } })",
        "fn(() => { Array.prototype.map = Array.prototype.join = Object.keys = null; return { a: 1 } })",
        "fn(() => { Object.freeze(Object.prototype); Object.freeze(Array.prototype); return { a: 1 } })",
        "fn(() => { Object.prototype.state = Object.prototype.error = 'x'; console.log('hello'); return { a: 1 } })",
        "fn(() => { Error = TypeError = String = Symbol = null; return { a: 1 } })",
    ] {
        let ran = job(source).go();
        if ran.code == Some(3) {
            continue; // assigning to a global is refused by the compiler
        }
        assert_eq!(ran.expect(0).state()["a"], 1, "{source}");
    }
}

#[test]
fn an_adaptor_cannot_read_the_environment() {
    let run = adaptor_run(&[
        ("all", "JSON.stringify(process.env)"),
        ("keys", "Object.keys(process.env).length + Reflect.ownKeys(process.env).length"),
        ("one", "process.env.SECRET_OF_THE_HOST"),
        ("has", "'SECRET_OF_THE_HOST' in process.env"),
        ("set", "{ process.env.MINE = '1'; return process.env.MINE }"),
        ("file", "fs.readFileSync('/proc/self/environ', 'utf8')"),
        ("arguments", "process.argv.join(' ') + process.execArgv.join(' ')"),
    ]);
    let tried = Attempts::of(run.env("SECRET_OF_THE_HOST", "s3cr3t-value").go());
    tried.gave("all", "{}");
    tried.gave("keys", "0");
    tried.gave("one", "undefined");
    tried.gave("has", "false");
    tried.gave("set", "undefined");
    tried.refused(&["file"]);
    assert!(!tried.0["arguments"].as_str().unwrap().contains("job.js"), "{}", tried.0["arguments"]);
}

#[test]
fn an_adaptor_reads_its_own_files_only() {
    let run = adaptor_run(&[
        ("own", "fs.readFileSync(path.join(here, 'package.json'), 'utf8').length > 10"),
        ("require own", "require('./package.json').version"),
        ("passwd", "fs.readFileSync('/etc/passwd', 'utf8')"),
        ("passwd later", "fs.promises.readFile('/etc/passwd', 'utf8')"),
        ("stream", "event(fs.createReadStream('/etc/passwd'), 'data')"),
        ("climb", "fs.readFileSync(path.join(here, '../../state.json'), 'utf8')"),
        ("climb by text", "fs.readFileSync(here + '/../../state.json', 'utf8')"),
        ("list", "fs.readdirSync('/')"),
        ("list here", "fs.readdirSync(path.join(here, '..'))"),
        ("stat", "fs.statSync('/etc/passwd').size"),
        ("real path", "fs.realpathSync('/etc/passwd')"),
        ("link", "fs.readlinkSync('/proc/self/exe')"),
        ("open", "fs.openSync('/etc/passwd')"),
        ("copy", "fs.copyFileSync('/etc/passwd', here + '/x')"),
        ("require", "require('/etc/passwd')"),
        ("require json", "require('../../state.json')"),
        ("import", "import('file:///etc/passwd')"),
        ("import json", "import('../../state.json', { with: { type: 'json' } })"),
        ("fetch", "fetch('file:///etc/passwd')"),
        ("env file", "process.loadEnvFile('/etc/environment')"),
        ("sqlite", "new (require('node:sqlite').DatabaseSync)('/tmp/x.db')"),
        ("socket", "event(net.connect('/var/run/docker.sock'), 'connect')"),
        (
            "stdin",
            "{ const bytes = Buffer.alloc(64); return fs.readSync(0, bytes) + bytes.toString().replaceAll('\\0', '') }",
        ),
        (
            "descriptors",
            "[3, 4, 5, 6, 7, 8, 9, 10].filter(fd => { try { fs.fstatSync(fd); return true } catch { return false } }).length",
        ),
    ]);
    let tried = Attempts::of(run.file("state.json", r#"{ "mine": 1 }"#).stdin("typed by somebody").go());
    tried.gave("own", "true");
    tried.gave("require own", "1.0.0");
    tried.refused(&[
        "passwd",
        "passwd later",
        "stream",
        "climb",
        "climb by text",
        "list",
        "list here",
        "stat",
        "real path",
        "link",
        "open",
        "copy",
        "require",
        "require json",
        "import",
        "import json",
        "fetch",
        "env file",
        "sqlite",
        "socket",
    ]);
    tried.gave("stdin", "0");
    tried.gave("descriptors", "0");
}

#[test]
fn a_link_leads_an_adaptor_to_its_own_files_only() {
    let run = adaptor_run(&[
        ("own", "JSON.parse(fs.readFileSync(path.join(here, 'manifest'), 'utf8')).version"),
        ("own size", "fs.statSync(path.join(here, 'manifest')).size > 10"),
        ("file", "fs.readFileSync(path.join(here, 'passwd'), 'utf8')"),
        ("later", "fs.promises.readFile(path.join(here, 'passwd'), 'utf8')"),
        ("stat", "fs.statSync(path.join(here, 'passwd')).size"),
        ("target", "fs.readlinkSync(path.join(here, 'passwd'))"),
        ("in directory", "fs.readFileSync(path.join(here, 'etc/passwd'), 'utf8')"),
        ("list", "fs.readdirSync(path.join(here, 'etc'))"),
        ("require", "require('./state.json')"),
        ("import", "import('./state.json', { with: { type: 'json' } })"),
    ]);
    let run = run.file("state.json", "{}");
    for (link, target) in
        [("manifest", "package.json"), ("passwd", "/etc/passwd"), ("etc", "/etc"), ("state.json", "../../state.json")]
    {
        std::os::unix::fs::symlink(target, run.path(&format!("adaptors/prober/{link}"))).unwrap();
    }
    let tried = Attempts::of(run.go());
    tried.gave("own", "1.0.0");
    tried.gave("own size", "true");
    tried.refused(&["file", "later", "stat", "target", "in directory", "list", "require", "import"]);
}

#[test]
fn an_adaptor_writes_nothing() {
    let run = adaptor_run(&[
        ("write", "fs.writeFileSync('/tmp/fnhost-should-not-exist', 'x')"),
        ("write own", "fs.writeFileSync(path.join(here, 'index.js'), 'x')"),
        ("append own", "fs.appendFileSync(path.join(here, 'index.js'), 'x')"),
        ("remove own", "fs.rmSync(path.join(here, 'package.json'))"),
        ("rename own", "fs.renameSync(path.join(here, 'package.json'), path.join(here, 'x'))"),
        ("directory", "fs.mkdirSync(path.join(here, 'new'))"),
        ("temporary", "fs.mkdtempSync(os.tmpdir() + '/x')"),
        ("link", "fs.symlinkSync('/etc/passwd', path.join(here, 'x'))"),
        ("hard link", "fs.linkSync('/etc/passwd', path.join(here, 'x'))"),
        ("mode", "fs.chmodSync(path.join(here, 'package.json'), 0o777)"),
        ("open", "fs.openSync(path.join(here, 'index.js'), 'r+')"),
        ("snapshot", "require('node:v8').writeHeapSnapshot(path.join(here, 'x'))"),
        ("report", "process.report.writeReport(path.join(here, 'x'))"),
    ]);
    let before = std::fs::read_dir(run.path("adaptors/prober")).unwrap().count();
    let tried = Attempts::of(run.go());
    let all: Vec<&str> = tried.0.keys().map(String::as_str).filter(|name| *name != "report").collect();
    tried.refused(&all);
    assert_eq!(std::fs::read_dir(run.path("adaptors/prober")).unwrap().count(), before);
}

#[test]
fn an_adaptor_starts_nothing_and_leaves_the_process_alone() {
    let run = adaptor_run(&[
        ("spawn", "event(child.spawn('/bin/true'), 'exit')"),
        ("exec", "child.execSync('/bin/true')"),
        ("fork", "event(child.fork('/x.js'), 'exit')"),
        ("worker", "event(new Worker('0', { eval: true }), 'exit')"),
        ("add-on", "process.dlopen({ exports: {} }, '/x.node')"),
        ("kill itself", "process.kill(process.pid, 'SIGKILL')"),
        ("kill its parent", "process.kill(process.ppid, 'SIGTERM')"),
        ("abort", "process.abort()"),
        ("directory", "process.chdir(here)"),
        ("umask", "process.umask(0)"),
        ("user", "process.setuid(1000)"),
        ("priority", "os.setPriority(19)"),
        ("inspector", "require('node:inspector').open(0)"),
        (
            "flags",
            "{ require('node:v8').setFlagsFromString('--stack-size=1'); const f = n => n ? f(n - 1) + 1 : 0; return f(1000) }",
        ),
        ("title", "{ process.title = 'x'; return 'set' }"),
        (
            "namespace",
            "typeof globalThis.Deno + typeof vm.runInThisContext('typeof Deno') + typeof globalThis['De' + 'no']",
        ),
        ("new context", "vm.runInNewContext('typeof Deno + typeof process')"),
    ]);
    let tried = Attempts::of(run.go());
    tried.refused(&[
        "spawn",
        "exec",
        "fork",
        "worker",
        "add-on",
        "kill itself",
        "kill its parent",
        "abort",
        "directory",
        "umask",
        "user",
        "priority",
        "inspector",
    ]);
    tried.gave("flags", "1000");
    tried.gave("title", "set");
    tried.gave("namespace", "undefinedstringundefined");
    tried.gave("new context", "undefinedundefined");
}

#[test]
fn an_adaptor_may_generate_code() {
    let run = adaptor_run(&[
        ("function", "new Function('a', 'return a + 1')(1)"),
        ("context", "vm.runInNewContext('a + 1', { a: 2 })"),
        ("wasm", "WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))"),
    ]);
    let tried = Attempts::of(run.go());
    tried.gave("function", "2");
    tried.gave("context", "3");
    tried.gave("wasm", "true");
}

#[test]
fn the_network_can_be_closed_and_narrowed() {
    let attempts = [
        ("fetch", "(await fetch(`http://127.0.0.1:${PORT}/`)).text()"),
        (
            "tcp",
            "{ const socket = net.connect(PORT, '127.0.0.1'); await event(socket, 'connect'); socket.destroy(); return 'connected' }",
        ),
        ("name", "require('node:dns').promises.lookup('localhost')"),
        (
            "listen",
            "{ const server = net.createServer().listen(0); await event(server, 'listening'); server.close(); return 'listening' }",
        ),
    ];
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for connection in server.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                if connection.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
                    let _ =
                        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
                }
            });
        }
    });
    let source = attempts_of_an_adaptor(&attempts).replace("PORT", &port.to_string());
    let go =
        |args: &[&str]| Attempts::of(Run::of("job.js", "attempts()").local_adaptor("prober", &source).args(args).go());

    let open = go(&[]);
    open.gave("fetch", "hi");
    open.gave("tcp", "connected");
    for args in
        [&["--deny-net"][..], &["--allow-net="], &["--allow-net", "example.org"], &["--allow-net", "127.0.0.1:1"]]
    {
        let closed = go(args);
        closed.refused(&["fetch", "tcp", "name", "listen"]);
    }
    let host = format!("example.org,127.0.0.1:{port}");
    let narrowed = go(&["--allow-net", &host]);
    narrowed.gave("fetch", "hi");
    narrowed.gave("tcp", "connected");
    narrowed.refused(&["listen"]);
}

#[test]
fn what_an_adaptor_prints_by_itself_is_kept_off_stdout() {
    let source = "import * as fs from 'node:fs';
export const print = () => state => {
  process.stdout.write('STDOUT');
  process.stderr.write('STDERR');
  try { fs.writeSync(1, 'DESCRIPTOR') } catch {}
  return state;
};";
    let ran = Run::of("job.js", "print()").local_adaptor("printer", source).args(&["-l", "none"]).go().expect(0);
    assert_eq!(ran.state(), serde_json::json!({ "data": {} }));
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_run_finds_nothing_of_the_run_before() {
    let source = "let calls = 0;\nexport const count = () => state => { globalThis.left ??= 0; return { calls: ++calls, left: globalThis.left++ } };";
    let run = Run::of("job.js", "count()").local_adaptor("counter", source).adaptor(COMMON);
    for _ in 0..3 {
        assert_eq!(run.go().expect(0).state(), serde_json::json!({ "calls": 1, "left": 0 }));
    }
}

#[test]
fn settings_of_the_machines_node_are_not_those_of_a_run() {
    let ran = adaptor_run(&[
        ("authorities", "(await import('node:https')).Agent.prototype.createConnection({ host: '127.0.0.1', port: 1 }).on('error', () => {}).authorized"),
    ])
    .env("NODE_EXTRA_CA_CERTS", "/dev/null")
    .go();
    let attempts = Attempts::of(ran);
    attempts.gave("authorities", "false");
}

#[test]
fn a_variable_of_the_machine_does_not_switch_off_the_checking_of_certificates() {
    let (server, _) = Server::start_tls();
    let client = "
        import https from 'node:https';
        export const byNode = url => state => new Promise((resolve, reject) =>
            https.get(url, response => resolve({ ...state, status: response.statusCode })).on('error', reject));
        export const byFetch = url => async state => ({ ...state, status: (await fetch(url)).status });";
    for (operation, reason) in [
        ("byNode", "unable to verify the first certificate"),
        ("byFetch", "UnknownIssuer"),
        ("http.get", "unable to verify the first certificate"),
    ] {
        let job = format!("{operation}('{}/patients')", server.origin());
        let run = Run::of("job.js", &job).local_adaptor("client", client).adaptor(COMMON);
        let error = run.env("NODE_TLS_REJECT_UNAUTHORIZED", "0").go().failure();
        assert!(error.to_string().contains(reason), "{operation}: {error}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_refused_read_says_what_a_run_may_read() {
    let adaptor = "import fs from 'node:fs';\nexport const read = file => () => fs.readFileSync(file);";
    let error = Run::of("job.js", "read('/etc/passwd')").local_adaptor("reader", adaptor).go().failure();
    assert_eq!(error["message"], "not allowed to read \"/etc/passwd\": a run reads its adaptors' own files only");
}

#[test]
fn an_adaptor_can_require_an_es_module_whose_name_it_computes() {
    let source = "import { createRequire } from 'node:module';
        const require = createRequire(import.meta.url);
        export const probe = () => state => ({ ...state, data: require(`./${'other'}.mjs`).answer });";
    let ran = Run::of("job.js", "probe()")
        .local_adaptor("probe", source)
        .file("adaptors/probe/other.mjs", "export const answer = 42;")
        .go()
        .expect(0);
    assert_eq!(ran.state()["data"], 42);
}
