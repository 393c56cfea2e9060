//! `--test`: every HTTP request is shown and answered, whichever way it was made, and nothing leaves the machine.

use std::net::TcpListener;

use serde_json::json;

use crate::support::{Ran, Run, fnhost, job, store};

const HTTP: &str = "http@7.2.10";

/// What an adaptor that uses Node's own modules begins with.
const IMPORTS: &str = "
import * as https from 'node:https';
import { request } from 'node:https';
import http from 'node:http';
import * as net from 'node:net';
import * as tls from 'node:tls';
import http2 from 'node:http2';
import dgram from 'node:dgram';
import dns from 'node:dns';
import { once } from 'node:events';
const text = async stream => { let text = ''; for await (const chunk of stream) text += chunk; return text };
const outcome = emitter => new Promise((_, reject) => emitter.on('error', reject));
";

/// A run of a job that waits for `expression`, which an adaptor evaluates, and keeps what becomes of it as `data`.
fn in_adaptor(expression: &str) -> Run {
    let adaptor =
        format!("{IMPORTS} export const probe = () => async state => ({{ ...state, data: await ({expression}) }});");
    Run::of("job.js", "probe()").local_adaptor("probe", &adaptor).args(&["--test"])
}

/// The requests that were shown.
fn requests(ran: &Ran) -> Vec<String> {
    let shown =
        |line: &serde_json::Value| (line["name"] == "TEST").then(|| line["message"][0].as_str().unwrap().to_owned());
    ran.log().iter().filter_map(shown).collect()
}

#[test]
fn requests_of_the_http_adaptor_are_shown_and_answered() {
    let ran = Run::of(
        "job.js",
        "get('/patients', { query: { page: 2 } });
         fn(state => { console.log(JSON.stringify(state.data), state.response.statusCode); return state });
         post('/patients', { name: 'Ada' }, { headers: { 'x-api-key': 'abcdef' } });",
    )
    .adaptor(HTTP)
    .credential("{ baseUrl: 'https://no-such-host.invalid', username: jo, password: p4ssw0rd }")
    .args(&["--test"])
    .go()
    .expect(0);

    assert_eq!(ran.state()["data"], json!({}));
    // The address is part of the credential, and masked with it.
    let said = ran.stderr.replace("https://no-such-host.invalid", "***");
    // The adaptor says how many milliseconds a request took.
    let lines = said.lines().filter(|line| !line.starts_with("[CLI]") && !line.ends_with("ms"));
    let expected = "\
[TEST] GET ***/patients?page=2
       content-type: application/json
       authorization: Basic ***
[JOB] {} 200
[TEST] POST ***/patients
       x-api-key: ***
       content-type: application/json
       authorization: Basic ***
       {\"name\":\"Ada\"}";
    assert_eq!(lines.collect::<Vec<_>>().join("\n"), expected);
}

#[test]
fn forms_are_shown() {
    let job = "post('http://a.invalid/', { user: 'a b' }, { contentType: 'form' })";
    let ran = Run::of("job.js", job).adaptor(HTTP).args(&["--test"]).go_json().expect(0);
    let [request] = &requests(&ran)[..] else { panic!("{}", ran.stderr) };
    assert!(request.contains("\ncontent-type: multipart/form-data; boundary="), "{request}");
    assert!(request.contains("name=\"user\"\n\na b\n"), "{request}");
}

#[test]
fn requests_of_the_common_adaptor_are_shown_and_answered() {
    let ran = job("http.post('https://no-such-host.invalid:8443/a', { a: 1 })")
        .args(&["--test"])
        .go_json()
        .expect(0);
    let [request] = &requests(&ran)[..] else { panic!("{}", ran.stderr) };
    assert!(request.starts_with("POST https://no-such-host.invalid:8443/a\n"), "{request}");
    assert!(request.ends_with("\n{\"a\":1}"), "{request}");
}

#[test]
fn fetch_is_shown_and_answered() {
    let ran = job("fn(async () => {
           const answer = await fetch('https://u:secret@no-such-host.invalid/a?b=c#d', {
             method: 'PUT', headers: { Cookie: 'sid=1' }, body: new Uint8Array([0x89, 0x50, 0x4e, 0x47]),
           });
           const type = answer.headers.get('content-type');
           return { answer: [answer.status, answer.ok, answer.url.slice(-4), type, await answer.text()] };
         });
         fn(async state => ({ ...state, local: await (await fetch('data:text/plain,here')).text() }));")
    .args(&["--test"])
    .go_json()
    .expect(0);
    assert_eq!(ran.state()["answer"], json!([200, true, "?b=c", "application/json", "{}"]));
    assert_eq!(ran.state()["local"], "here");
    assert_eq!(requests(&ran), ["PUT https://***@no-such-host.invalid/a?b=c\ncookie: ***\n<4 bytes>"]);
}

#[test]
fn requests_through_nodes_modules_are_shown_and_answered() {
    let ran = in_adaptor(
        "(async () => {
           const asked = request('https://no-such-host.invalid/a', { method: 'POST', auth: 'jo:p4ss' }).end('bye');
           const [answer] = await once(asked, 'response');
           const [second] = await once(https.get('https://[::1]:444/b'), 'response');
           const [third] = await once(http.get({ host: '10.0.0.1', port: 81, path: '/c' }), 'response');
           const { statusCode, headers, socket } = answer;
           const encrypted = [socket.encrypted, socket.authorized];
           return [statusCode, headers, await text(answer), await text(second), await text(third), encrypted];
         })()",
    )
    .go_json()
    .expect(0);
    let headers = json!({ "content-type": "application/json", "content-length": "2", "connection": "keep-alive" });
    assert_eq!(ran.state()["data"], json!([200, headers, "{}", "{}", "{}", [true, true]]));
    let expected = [
        "POST https://no-such-host.invalid/a\nauthorization: Basic ***\nbye",
        "GET https://[::1]:444/b",
        "GET http://10.0.0.1:81/c",
    ];
    assert_eq!(requests(&ran), expected);
}

#[test]
fn requests_of_a_client_from_npm_are_shown_and_answered() {
    let source = "import axios from 'axios';
        fn(async state => {
          const { status, data } = await axios.post('https://no-such-host.invalid/a', { a: 1 });
          return { answer: [status, data] };
        });";
    let ran = Run::of("job.js", source).adaptor("axios@1").args(&["--test"]).go_json().expect(0);
    assert_eq!(ran.state()["answer"], json!([200, {}]));
    let [request] = &requests(&ran)[..] else { panic!("{}", ran.stderr) };
    assert!(
        request.starts_with("POST https://no-such-host.invalid/a\n") && request.ends_with("\n{\"a\":1}"),
        "{request}"
    );
}

#[test]
fn behind_a_proxy_the_request_is_shown_that_would_arrive() {
    let ran = in_adaptor(
        "(async () => {
           const tunnel = http.request({ host: 'proxy.invalid', port: 3128, method: 'CONNECT', path: 'behind.invalid:443' });
           const [, socket] = await once(tunnel.end(), 'connect');
           const secure = tls.connect({ socket, servername: 'behind.invalid' });
           await once(secure, 'secureConnect');
           const [first] = await once(http.get({ path: '/a', createConnection: () => secure }), 'response');
           const [second] = await once(http.get({ host: 'proxy.invalid', path: 'http://behind.invalid/b' }), 'response');
           return [await text(first), await text(second)];
         })()",
    )
    .go_json()
    .expect(0);
    assert_eq!(ran.state()["data"], json!(["{}", "{}"]));
    let requests = requests(&ran);
    assert!(requests[0].starts_with("GET https://behind.invalid/a"), "{requests:?}");
    assert!(requests[1].starts_with("GET http://behind.invalid/b"), "{requests:?}");
}

#[test]
fn of_a_long_body_the_beginning_is_shown() {
    let source =
        "fn(async () => { await fetch('http://a.invalid/', { method: 'POST', body: 'x,'.repeat(5000) }); return {} })";
    let ran = job(source).args(&["--test"]).go_json().expect(0);
    let [request] = &requests(&ran)[..] else { panic!("{}", ran.stderr) };
    assert!(request.ends_with(&format!("\n{}… (5904 bytes more)", "x,".repeat(2048))), "{request}");
}

/// Fails unless the job fails because of an error that says what a test run is.
#[track_caller]
fn refused(expression: &str, because: &str) {
    let ran = in_adaptor(expression).go_json();
    assert_ne!(ran.code, Some(0), "{}", ran.stderr);
    let [_, _, message] = ran.error();
    assert!(message.contains("test run (--test)") && message.contains(because), "{message}");
    assert_eq!(requests(&ran), [""; 0]);
}

#[test]
fn a_client_that_waits_for_a_greeting_is_refused() {
    refused("outcome(net.connect(3306, 'db.invalid'))", "db.invalid:3306 is refused: the client waits for a greeting");
}

#[test]
fn a_client_that_speaks_something_else_is_refused() {
    let redis = "(() => { const socket = net.connect(6379, 'redis.invalid'); socket.write('*1\\r\\n$4\\r\\nPING\\r\\n'); return outcome(socket) })()";
    refused(redis, "redis.invalid:6379 is refused: it does not speak HTTP/1.1");
    refused("outcome(http2.connect('https://h2.invalid'))", "h2.invalid:443 is refused: the client speaks HTTP/2 only");
    refused("outcome(net.connect('/run/some.sock'))", "/run/some.sock is refused");
}

#[test]
fn what_is_no_connection_is_refused_with_an_explanation() {
    refused("dns.promises.lookup('example.org')", "not allowed to connect to example.org");
    refused("dgram.createSocket('udp4').send('x', 53, '127.0.0.1')", "not allowed to connect");
}

#[test]
fn a_client_that_computes_before_it_speaks_is_no_silent_one() {
    let ran = in_adaptor(
        "(async () => {
           const socket = net.connect(80, 'slow.invalid');
           await once(socket, 'connect');
           for (const end = Date.now() + 1500; Date.now() < end;);
           await new Promise(resolve => setTimeout(resolve, 20));
           socket.end('GET /slow HTTP/1.1\\r\\nHost: slow.invalid\\r\\nConnection: close\\r\\n\\r\\n');
           return await text(socket);
         })()",
    )
    .go_json()
    .expect(0);
    assert!(ran.state()["data"].as_str().unwrap().ends_with("\r\n\r\n{}"), "{}", ran.stdout);
    assert_eq!(requests(&ran), ["GET http://slow.invalid/slow"]);
}

#[test]
fn nothing_reaches_a_server_that_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let expression = format!(
        "(async () => {{
           await fetch('http://127.0.0.1:{port}/');
           for (const get of [http.get, https.get]) {{
             const scheme = get === http.get ? 'http' : 'https';
             await text((await once(get(scheme + '://localhost:{port}/'), 'response'))[0]);
           }}
           return await outcome(net.connect({port}, '127.0.0.1')).catch(error => error.code);
         }})()"
    );
    let ran = in_adaptor(&expression).args(&["--allow-net", &format!("127.0.0.1:{port}")]).go_json().expect(0);
    assert_eq!(ran.state()["data"], "ECONNREFUSED");
    assert_eq!(requests(&ran).len(), 3, "{}", ran.stderr);
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn secrets_are_masked_wherever_they_are() {
    let ran = job(
        "fn(async state => {
           const { token } = state.configuration;
           const body = new URLSearchParams({ client_secret: token });
           await fetch(`https://a.invalid/?key=${encodeURIComponent(token)}`, { method: 'POST', headers: { 'x-raw': token }, body });
           return {};
         })",
    )
    .credential("token: a1/b2 c3")
    .args(&["--test"])
    .go_json()
    .expect(0);
    let [request] = &requests(&ran)[..] else { panic!("{}", ran.stderr) };
    let expected = "POST https://a.invalid/?key=***\ncontent-type: application/x-www-form-urlencoded;charset=UTF-8\nx-raw: ***\nclient_secret=***";
    assert_eq!(request, expected);
}

#[test]
fn execute_has_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let expression = "alterState(state => fetch('https://no-such-host.invalid/a').then(() => state))";
    std::fs::write(directory.path().join("expression.js"), expression).unwrap();
    std::fs::write(directory.path().join("state.json"), "{}").unwrap();
    let mut command = fnhost(&["execute", "-l", "common", "-e", "expression.js", "-s", "state.json", "-t"]);
    let ran =
        Ran::new(command.env("FNHOST_REPO_DIR", store()).current_dir(directory.path()).output().unwrap()).expect(0);
    assert_eq!(ran.stderr, "[TEST] GET https://no-such-host.invalid/a\n");
}
