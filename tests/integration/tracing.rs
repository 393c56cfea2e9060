//! What the server tells of its work while it does it: lines in the log, and traces that go on in the systems that jobs
//! call. And what it does not tell: secrets.

use std::collections::HashSet;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message as _;
use serde_json::{Value, json};

use super::server::{Server, Setup};
use super::support::http_server::{self, Reply, Request};

/// The trace context that clients of these tests send.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Takes what a server exports.
struct Collector(http_server::Server);

impl Collector {
    fn start() -> Self {
        Self(http_server::Server::with(|_| Reply::empty(200)))
    }

    fn spans(&self) -> Vec<Span> {
        let exports = self.0.seen().into_iter().map(|request| {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/traces"));
            ExportTraceServiceRequest::decode(request.body).expect("an export")
        });
        let scopes = exports.flat_map(|export| export.resource_spans).flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The one span whose name begins so, as soon as it is there.
    fn span(&self, server: &Server, name: &str) -> Span {
        server.until(name, || self.spans().into_iter().find(|span| span.name.starts_with(name)))
    }
}

/// An attribute, as text.
fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Attribute::StringValue(text) => text,
        Attribute::IntValue(number) => number.to_string(),
        Attribute::BoolValue(truth) => truth.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Trace and span of a `traceparent`, which has to be that of a recorded trace.
#[track_caller]
fn parts(traceparent: &str) -> (String, String) {
    match traceparent.split('-').collect::<Vec<_>>()[..] {
        ["00", trace, span, "01"] => (trace.to_owned(), span.to_owned()),
        _ => panic!("{traceparent}"),
    }
}

fn traced(setup: Setup, collector: &Collector) -> Setup {
    setup.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.0.origin()).env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// A project with one job on the inbox, on an adaptor.
fn project(adaptor: &str, expression: &str) -> Setup {
    let project = json!({
        "jobs": { "work": {
            "adaptor": adaptor, "trigger": "all", "expression": "job.js", "retry": { "max_attempts": 1 },
            "credential": "peer",
        } },
        "triggers": { "all": { "criteria": {} } },
        "credentials": { "peer": "peer.json" },
    });
    Setup::new(&project.to_string())
        .file("job.js", expression)
        .file("peer.json", r#"{ "username": "nobody-in-particular" }"#)
}

fn peer() -> http_server::Server {
    http_server::Server::with(|_| Reply::json(200, &json!({})))
}

/// Posts a message that is part of a trace, and waits for its runs.
fn post(server: &Server) {
    post_in(server, TRACE);
}

fn post_in(server: &Server, trace: &str) {
    let traceparent = format!("00-{trace}-{CALLER}-01");
    let request = server.request("POST", "/inbox?wait=60s").header("traceparent", &traceparent);
    let answer = request.json(&json!({ "a": 1 })).send();
    assert!(matches!(answer.status, 201 | 206), "{} {}", answer.status, answer.text());
}

#[track_caller]
fn received(peer: &http_server::Server, path: &str) -> Request {
    let seen = peer.seen();
    seen.iter().find(|request| request.path == path).unwrap_or_else(|| panic!("{path} not among {seen:?}")).clone()
}

#[test]
fn a_trace_leads_from_the_request_through_the_run_to_what_the_job_calls() {
    let (collector, peer) = (Collector::start(), peer());
    let job = format!(
        "get('{origin}/adaptor?key=1');
         fn(async state => {{ await fetch('{origin}/fetch', {{ method: 'POST', body: 'x', headers: {{ a: 'b' }} }}); return state; }})",
        origin = peer.origin()
    );
    let server = traced(project("http", &job), &collector).start();
    post(&server);

    let run = collector.span(&server, "run work");
    let receive = collector.span(&server, "receive");
    let step = collector.span(&server, "step work");
    let get = collector.span(&server, "GET");
    let fetch = collector.span(&server, "POST");
    let all = [&receive, &run, &step, &get, &fetch];
    assert!(all.iter().all(|span| hex(&span.trace_id) == TRACE));
    assert_eq!(all.iter().map(|span| hex(&span.span_id)).collect::<HashSet<_>>().len(), all.len());

    assert_eq!(hex(&receive.parent_span_id), CALLER);
    assert_eq!(run.parent_span_id, receive.span_id);
    assert_eq!(step.parent_span_id, run.span_id);
    for (span, path) in [(&get, "/adaptor"), (&fetch, "/fetch")] {
        assert_eq!(span.parent_span_id, step.span_id);
        assert_eq!(attribute(span, "server.address").as_deref(), Some("localhost"));
        assert_eq!(attribute(span, "server.port"), Some(peer.port().to_string()));
        assert_eq!(attribute(span, "http.response.status_code").as_deref(), Some("200"));
        let sent = received(&peer, path);
        assert_eq!(parts(sent.header("traceparent").unwrap()), (TRACE.to_owned(), hex(&span.span_id)), "{path}");
    }
    let sent = received(&peer, "/fetch");
    assert_eq!((sent.header("a"), &sent.body[..]), (Some("b"), &b"x"[..]));
    assert_eq!(attribute(&step, "fnhost.outcome").as_deref(), Some("success"));
    assert_eq!(attribute(&run, "fnhost.run.state").as_deref(), Some("completed"));
    assert!(run.start_time_unix_nano <= step.start_time_unix_nano && step.end_time_unix_nano <= run.end_time_unix_nano);
}

#[test]
fn in_an_isolate_that_is_kept_each_run_has_its_own_trace() {
    let (collector, peer) = (Collector::start(), peer());
    let job = format!(
        "get('{origin}/adaptor'); fn(async state => {{ await fetch('{origin}/fetch'); return state; }})",
        origin = peer.origin()
    );
    let kept = "
jobs: {work: {adaptor: http, trigger: all, expression: job.js, isolation: workflow}}
triggers: {all: {criteria: {}}}
";
    let setup = project("http", &job).file("project.yaml", kept).args(&["--concurrency", "1"]);
    let server = traced(setup, &collector).start();
    let traces = [TRACE, "22222222222222222222222222222222", "33333333333333333333333333333333"];
    traces.iter().for_each(|trace| post_in(&server, trace));
    let metrics = server.read("/metrics").expect(200).text();
    assert!(metrics.contains("fnhost_isolate_runs_total{start=\"kept\"} 2"), "{metrics}");
    let seen = peer.seen();
    let headers = seen.iter().map(|request| request.headers.get_all("traceparent").iter().collect::<Vec<_>>());
    let sent: Vec<_> = headers
        .map(|headers| match headers[..] {
            [one] => parts(one.to_str().unwrap()).0,
            _ => panic!("{headers:?}"),
        })
        .collect();
    assert_eq!(sent, traces.map(|trace| [trace, trace]).concat());
    // A request has one span, however many runs there were before.
    server.until("6 spans", || (collector.spans().iter().filter(|span| span.name == "GET").count() == 6).then_some(()));
}

#[test]
fn requests_of_nodes_own_client_carry_the_trace_too() {
    let (collector, peer) = (Collector::start(), peer());
    let adaptor = "
        import http from 'node:http';
        const send = (url, headers) => new Promise((resolve, reject) => {
          http.get(url, { headers }, response => response.resume().on('end', resolve)).on('error', reject);
        });
        export const call = (url, headers) => async state => { await send(url, headers); return state; };";
    let manifest =
        r#"{ "name": "@openfn/language-node", "version": "1.0.0", "type": "module", "exports": "./index.js" }"#;
    let origin = peer.origin();
    let job = format!("call('{origin}/plain', {{ a: 'b' }}); call('{origin}/none');");
    let setup = project("node=./adaptors/node", &job)
        .file("adaptors/node/index.js", adaptor)
        .file("adaptors/node/package.json", manifest);
    let server = traced(setup, &collector).start();
    post(&server);
    assert_eq!(collector.span(&server, "run").status.unwrap_or_default().code(), StatusCode::Unset, "{}", server.log());
    for path in ["/plain", "/none"] {
        let (trace, span) = parts(received(&peer, path).header("traceparent").expect(path));
        assert_eq!(trace, TRACE);
        server.until(path, || collector.spans().into_iter().find(|one| hex(&one.span_id) == span));
    }
    assert_eq!(received(&peer, "/plain").header("a"), Some("b"));
}

#[test]
fn a_header_that_the_job_sets_stays_as_it_is() {
    let (collector, peer) = (Collector::start(), peer());
    let own = "00-11111111111111111111111111111111-2222222222222222-01";
    let job = format!(
        "get('{origin}/adaptor', {{ headers: {{ Traceparent: '{own}' }} }});
         fn(async state => {{ await fetch('{origin}/fetch', {{ headers: [['traceparent', '{own}']] }}); return state; }});
         fn(async state => {{ await fetch(new Request('{origin}/request', {{ headers: {{ traceparent: '{own}' }} }})); return state; }})",
        origin = peer.origin()
    );
    let server = traced(project("http", &job), &collector).start();
    post(&server);
    for path in ["/adaptor", "/fetch", "/request"] {
        let headers: Vec<_> = received(&peer, path).headers.get_all("traceparent").iter().cloned().collect();
        assert_eq!(headers, [own], "{path}");
    }
    collector.span(&server, "run");
    assert!(collector.spans().iter().all(|span| span.name != "GET"));
}

#[test]
fn fetch_does_the_same_with_and_without_a_trace() {
    let job = "fn(async state => {
        const origin = state.configuration.origin;
        const tried = async (...args) => {
          try { const response = await fetch(...args); return [response.status, await response.text()]; }
          catch (error) { return [error.name, String(error.message).replace(origin, '')]; }
        };
        const aborted = new AbortController();
        aborted.abort();
        const results = [
          await tried(`${origin}/echo`, { method: 'POST', body: JSON.stringify({ a: 1 }) }),
          await tried(new Request(`${origin}/echo`, { method: 'PUT', body: 'b' })),
          await tried(new URL(`${origin}/echo`)),
          await tried(`${origin}/echo`, new Request(`${origin}/other`, { method: 'DELETE' })),
          await tried(`${origin}/echo`, { signal: aborted.signal }),
          await tried(`${origin}/echo`, 'wrong'),
          await tried(`${origin}/echo`, { headers: { 'a b': 'c' } }),
          await tried('no url'),
          await tried(),
        ];
        await fetch(`${origin}/report`, { method: 'POST', body: JSON.stringify(results) });
        return state;
      })";
    let results = |collector: Option<&Collector>| {
        let peer = http_server::Server::with(|request: &Request| {
            let headers = ["content-length", "transfer-encoding", "content-type"].map(|name| request.header(name));
            Reply::json(200, &json!([request.method, String::from_utf8_lossy(&request.body), headers]))
        });
        let setup = project("common", job).file("peer.json", &json!({ "origin": peer.origin() }).to_string());
        let server = match collector {
            Some(collector) => traced(setup, collector).start(),
            None => setup.start(),
        };
        post(&server);
        let report = received(&peer, "/report");
        assert_eq!(report.header("traceparent").is_some(), collector.is_some());
        report.json()
    };
    let plain = results(None);
    assert_eq!(plain.as_array().map(Vec::len), Some(9), "{plain}");
    assert_eq!(results(Some(&Collector::start())), plain);
}

#[test]
fn a_trace_that_is_not_recorded_is_passed_on_and_not_exported() {
    let (collector, peer) = (Collector::start(), peer());
    let job = format!("get('{}/adaptor')", peer.origin());
    let mut server = traced(project("http", &job), &collector).start();
    let request = server.request("POST", "/inbox?wait=60s").header("traceparent", &format!("00-{TRACE}-{CALLER}-00"));
    request.json(&json!({})).send().expect(201);
    let sent = received(&peer, "/adaptor");
    let sent = sent.header("traceparent").unwrap();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    server.signal("TERM");
    server.wait();
    assert!(collector.0.seen().is_empty());
}

#[test]
fn what_is_left_is_exported_when_the_server_stops() {
    let collector = Collector::start();
    // Without the end of the server, the first batch would come after an hour.
    let setup = project("common", "fn(state => state)").env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let mut server =
        setup.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{}/v1/traces", collector.0.origin())).start();
    server.post("/inbox?wait=60s", &json!({})).expect(201);
    assert!(collector.spans().is_empty());
    server.signal("TERM");
    assert!(server.wait().success());
    let names: HashSet<String> = collector.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names, HashSet::from(["receive".into(), "run work".into(), "step work".into()]));
}

#[test]
fn a_collector_behind_tls_is_trusted_if_its_authority_is_named() {
    let (collector, authority) = http_server::Server::start_tls();
    let setup = project("common", "fn(state => state)").file("authority.pem", &authority);
    let file = setup.path("authority.pem");
    let mut server = setup
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.origin())
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", file.to_str().unwrap())
        .start();
    server.post("/inbox?wait=60s", &json!({})).expect(201);
    server.signal("TERM");
    server.wait();
    assert!(collector.seen().iter().any(|request| request.path == "/v1/traces"), "{}", server.log());
}

#[test]
fn a_collector_that_is_away_holds_nothing_up() {
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let setup = project("common", "fn(state => state)")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "1")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2");
    let mut server = setup.start();
    for _ in 0..10 {
        server.post("/inbox?wait=60s", &json!({})).expect(201);
    }
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());
}

#[test]
fn the_log_tells_of_runs_and_failed_attempts() {
    let server = project("common", "fn(() => { throw new Error('no room') })").start();
    post(&server);
    let ended = log_line(&server, "a run ended");
    assert_eq!(
        (&ended["level"], &ended["workflow"], &ended["state"]),
        (&json!("INFO"), &json!("work"), &json!("failed"))
    );
    assert_eq!(ended["trace"], TRACE);
    let failed = log_line(&server, "an attempt failed");
    assert_eq!((&failed["level"], &failed["step"], &failed["then"]), (&json!("WARN"), &json!("work"), &json!("dead")));
    assert_eq!((&failed["run"], &failed["trace"], &failed["attempt"]), (&ended["run"], &json!(TRACE), &json!(1)));
    assert!(failed["task"].is_string());
    assert_eq!(failed["error"], "JobError");
    assert!(failed["message_of_error"].as_str().unwrap().contains("no room"), "{failed}");
    assert!(log_line(&server, "settings")["jobs"].as_str().unwrap().contains("timeout"));
    assert!(!server.log().contains("a job logs"));
}

#[test]
fn secrets_are_nowhere() {
    let (collector, peer) = (Collector::start(), peer());
    let secrets =
        ["pass-Wj3kQz81", "key-Wj3kQz82", "head-Wj3kQz83", "query-Wj3kQz84", "body-Wj3kQz85", "coll-Wj3kQz86"];
    let [password, key, header, query, body, collectors] = secrets;
    let job = "
        get(state => `${state.configuration.origin}/a/${state.configuration.key}?key=${state.configuration.key}`, {
          headers: { 'x-key': 'head-Wj3kQz83', authorization: `Bearer ${$.configuration.password}` },
        });
        fn(state => {
          console.log('I know', state.configuration.password);
          throw new Error('refused: ' + state.configuration.password);
        })";
    let credential = json!({ "origin": peer.origin(), "username": "nurse", "password": password, "key": key });
    let setup = traced(project("http", job), &collector)
        .file("peer.json", &credential.to_string())
        .env("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization={collectors}"))
        .args(&["--log", "debug"]);
    let server = setup.start();
    let request = server.request("POST", &format!("/inbox?wait=60s&key={query}"));
    let request = request.header("x-key", header).header("cookie", header);
    request.json(&json!({ "a": body })).send().expect(206);
    collector.span(&server, "run");
    let logged = log_line(&server, "a job logs");
    assert!(logged["run"].is_string(), "{logged}");

    // They were on their way, so that what follows means something.
    let sent = received(&peer, &format!("/a/{key}"));
    assert_eq!(sent.header("authorization").unwrap(), format!("Bearer {password}"));
    assert_eq!(sent.header("x-key"), Some(header));
    let exports = collector.0.seen();
    assert!(exports.iter().all(|export| export.header("authorization") == Some(collectors)));
    let exported: Vec<u8> = exports.iter().flat_map(|export| export.body.to_vec()).collect();
    let told = [
        ("log", server.log()),
        ("metrics", server.read("/metrics").expect(200).text()),
        ("traces", String::from_utf8_lossy(&exported).into_owned()),
    ];
    for (place, text) in &told {
        for secret in secrets.iter().chain([&server.token.as_str()]) {
            // The first start prints the token, once.
            let most = usize::from(*place == "log" && *secret == server.token);
            assert!(text.matches(*secret).count() <= most, "{secret} in the {place}: {text}");
        }
    }
}

/// The first line of a JSON log with this message, as soon as it is there.
fn log_line(server: &Server, message: &str) -> Value {
    let parse = |line: &str| serde_json::from_str::<Value>(line).ok();
    server.until(message, || server.log().lines().filter_map(parse).find(|line| line["message"] == message))
}
