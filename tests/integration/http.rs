//! Jobs with `@openfn/language-http` against a real server: what the adaptor promises holds without Node.

use serde_json::{Value, json};

use crate::support::http_server::{BIG, Server, USER};
use crate::support::{Ran, Run};

fn http(job: &str) -> Run {
    Run::of("job.js", job).adaptor("http")
}

/// A run whose credential says where the server is.
fn with_base(server: &Server, job: &str) -> Run {
    http(job).credential(&json!({ "baseUrl": server.origin() }).to_string())
}

/// A run whose credential also says who asks.
fn with_user(server: &Server, job: &str, password: &str) -> Run {
    let credential = json!({ "baseUrl": server.origin(), "username": USER.0, "password": password });
    http(job).credential(&credential.to_string())
}

#[track_caller]
fn adaptor_error(ran: Ran) -> Value {
    let error = ran.failure();
    assert_eq!((&error["name"], &error["severity"]), (&json!("AdaptorError"), &json!("fail")), "{error}");
    error
}

#[track_caller]
fn message(error: &Value) -> &str {
    error["message"].as_str().unwrap()
}

fn patients() -> Value {
    json!({ "patients": [{ "name": "Amina" }, { "name": "Kofi" }] })
}

#[test]
fn get_reads_json_into_data() {
    let server = Server::start();
    let state = with_base(&server, "get('/patients');").state(r#"{ "data": { "before": 1 } }"#).go().completed();
    assert_eq!(state, json!({ "data": patients(), "references": [{ "before": 1 }] }));
}

#[test]
fn a_full_url_needs_no_base() {
    let server = Server::start();
    assert_eq!(http(&format!("get('{}/patients')", server.origin())).go().data(), patients());
    let error = adaptor_error(http("get('/patients')").go());
    assert_eq!(error["details"]["code"], "UNEXPECTED_RELATIVE_URL");
    assert_eq!(error["operationName"], "get");
}

#[test]
fn methods_send_their_bodies() {
    let server = Server::start();
    let job = "
        post('/echo/1', $.data);
        fn(state => ({ ...state, posted: state.data }));
        put('/echo/2', { name: 'Kofi', nested: [1, { deep: true }] });
        fn(state => ({ ...state, put: state.data }));
        patch('/echo/3', state => ({ references: state.references.length }));
        fn(state => ({ ...state, patched: state.data }));
        del('/echo/4');
        fn(state => ({ ...state, deleted: state.data }));
        request('OPTIONS', '/echo/5', { body: 'plain', contentType: 'string' });
    ";
    let state = r#"{ "data": { "name": "Amina", "größe": "1,70 m 🌍" } }"#;
    let state = with_base(&server, job).state(state).go().completed();
    let sent = |reply: &Value| -> Value { serde_json::from_str(reply["body"].as_str().unwrap()).unwrap() };
    let methods = ["posted", "put", "patched", "deleted", "data"].map(|key| state[key]["method"].clone());
    assert_eq!(methods, ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
    assert_eq!(state["posted"]["headers"]["content-type"], "application/json");
    assert_eq!(sent(&state["posted"]), json!({ "name": "Amina", "größe": "1,70 m 🌍" }));
    assert_eq!(sent(&state["put"]), json!({ "name": "Kofi", "nested": [1, { "deep": true }] }));
    assert_eq!(sent(&state["patched"]), json!({ "references": 2 }));
    assert_eq!(state["deleted"]["body"], "");
    assert_eq!(state["data"]["body"], "plain");
    assert_eq!(state["data"]["headers"]["content-type"], "text/plain");
}

#[test]
fn a_form_travels_as_multipart() {
    let server = Server::start();
    let job = "post('/echo', { name: 'Amina', nested: { a: 1 }, none: null }, { contentType: 'form' });";
    let data = with_base(&server, job).go().data();
    let content_type = data["headers"]["content-type"].as_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let body = data["body"].as_str().unwrap();
    assert_eq!(body.matches(boundary).count(), 3, "{body}");
    assert!(body.contains("form-data; name=\"name\"\r\n\r\nAmina\r\n"), "{body}");
    assert!(body.contains("form-data; name=\"nested\"\r\n\r\n{\"a\":1}\r\n"), "{body}");
}

#[test]
fn query_and_headers_arrive() {
    let server = Server::start();
    let job =
        "get('/echo?page=2', { query: { q: 'a b&c=ü', n: 3 }, headers: { 'X-Trace': 'abc', Accept: 'text/x' } });";
    let data = with_base(&server, job).go().data();
    assert_eq!(data["query"], json!({ "page": "2", "q": "a b&c=ü", "n": "3" }));
    assert_eq!(data["headers"]["x-trace"], "abc");
    assert_eq!(data["headers"]["accept"], "text/x");
}

#[test]
fn the_credential_authenticates_and_is_never_shown() {
    let server = Server::start();
    let job = "
        get('/basic');
        fn(state => {
            console.log(state);
            console.log(state.configuration.password, JSON.stringify(state.configuration));
            console.error(`the user is ${state.configuration.username}`);
            return { ...state, known: state.data.user === state.configuration.username };
        });
        get('/echo', { parseAs: 'text' });
        fn(state => { console.log(state.data); return { ...state, data: null, references: [] } });
        get('/status/500');
    ";
    let ran = with_user(&server, job, USER.1).args(&["--log", "debug"]).go();
    let (stdout, stderr) = (ran.stdout.clone(), ran.stderr.clone());
    assert_eq!(adaptor_error(ran)["details"]["statusCode"], 500);
    assert!(stdout.contains(r#""known": true"#), "{stdout}");
    assert!(stderr.contains("the user is ***"), "{stderr}");
    let authorization = server.seen()[1].header("authorization").unwrap().to_owned();
    let encoded = authorization.strip_prefix("Basic ").unwrap();
    for secret in [USER.0, USER.1, encoded] {
        assert!(!stderr.contains(secret), "{secret} is in {stderr}");
    }
    for secret in [USER.0, USER.1, encoded] {
        assert!(!stdout.contains(secret), "{secret} is in {stdout}");
    }
}

#[test]
fn a_wrong_password_is_an_error_with_the_answer_in_it() {
    let server = Server::start();
    let error = adaptor_error(with_user(&server, "get('/basic')", "wrong-password").go());
    assert!(message(&error).ends_with("returned 401: Unauthorized"), "{error}");
    assert_eq!(error["details"]["statusCode"], 401);
    assert_eq!(error["details"]["body"]["error"], "who are you?");
    assert_eq!(error["details"]["headers"]["www-authenticate"], "Basic realm=\"tests\"");
}

#[test]
fn answers_are_parsed_as_asked() {
    let server = Server::start();
    let job = "
        get('/text');
        fn(state => ({ ...state, text: state.data }));
        get('/patients', { parseAs: 'text' });
        fn(state => ({ ...state, unparsed: state.data }));
        get('/patients', { parseAs: 'json' });
        fn(state => ({ ...state, json: state.data.patients.length }));
        get('/bytes', { parseAs: 'base64' });
        fn(state => ({ ...state, bytes: Buffer.from(state.data, 'base64').length, first: state.data.slice(0, 4) }));
        get('/csv', { parseAs: 'stream' });
        fn(async state => {
            let read = '';
            for await (const part of state.data) read += part;
            return { ...state, data: null, streamed: read };
        });
        get('/nothing');
        fn(state => ({ ...state, nothing: state.data === undefined }));
        get('/chunked');
    ";
    let state = with_base(&server, job).go().completed();
    assert_eq!(state["text"], "grüße 🌍");
    assert_eq!(state["unparsed"], patients().to_string());
    assert_eq!(state["json"], 2);
    assert_eq!((&state["bytes"], &state["first"]), (&json!(256), &json!("AAEC")));
    assert_eq!(state["streamed"], "name,age\nAmina,31\n\"Kofi, jr.\",4\n");
    assert_eq!(state["nothing"], true);
    assert_eq!(state["data"], patients());

    let error = adaptor_error(with_base(&server, "get('/not-json')").go());
    assert!(message(&error).contains("Error parsing the response body"), "{error}");
}

#[test]
fn compressed_answers_are_unpacked() {
    let server = Server::start();
    let job = "
        each(
            ['gzip', 'deflate', 'br'],
            get(state => `/${state.data}`).then(state => ({ ...state, all: [...(state.all ?? []), state.data] })),
        );
    ";
    let state = with_base(&server, job).go().completed();
    assert_eq!(state["all"], json!([patients(), patients(), patients()]));
    assert!(server.seen().iter().all(|request| request.path.len() > 1));
}

#[test]
fn redirects_are_followed_five_times() {
    let server = Server::start();
    let status = ".then(state => ({ ...state, status: state.response.statusCode }))";
    let run = |job: &str| with_base(&server, &format!("{job}{status}")).go().completed();

    let followed = run("get('/redirect', { query: { to: '/echo/here' } })");
    assert_eq!((&followed["status"], &followed["data"]["path"]), (&json!(200), &json!("/echo/here")));
    let chain = run("get('/redirect/5')");
    assert_eq!((&chain["status"], &chain["data"]["path"]), (&json!(200), &json!("/redirect/0")));
    assert_eq!(run("get('/redirect/6')")["status"], 302);
    assert_eq!(run("get('/redirect/3', { maxRedirections: 2 })")["status"], 302);
    assert_eq!(run("get('/redirect/1', { followAllRedirects: false })")["status"], 302);

    let before = server.seen().len();
    let kept = run("post('/redirect?status=307&to=/echo', { a: 1 })");
    assert_eq!((&kept["data"]["method"], &kept["data"]["body"]), (&json!("POST"), &json!("{\"a\":1}")));
    let changed = run("post('/redirect?status=303&to=/echo', { a: 1 })");
    assert_eq!((&changed["data"]["method"], &changed["data"]["body"]), (&json!("GET"), &json!("")));
    assert_eq!(server.seen().len(), before + 4);

    let error = adaptor_error(with_base(&server, "get('/redirect/loop')").go());
    assert!(message(&error).starts_with("Redirect loop detected"), "{error}");
}

#[test]
fn a_redirect_to_another_origin_does_not_take_the_password_along() {
    let server = Server::start();
    let to = |origin: String| {
        let job = format!("get('/redirect', {{ query: {{ to: '{origin}/echo' }} }})");
        with_user(&server, &job, USER.1).go().data()
    };
    let same = to(server.origin());
    assert!(same["headers"].get("authorization").is_some(), "{same}");
    let other = to(server.other_origin());
    assert_eq!(other["headers"].get("authorization"), None, "{other}");
    assert_eq!(other["headers"]["host"], format!("127.0.0.1:{}", server.port()));
}

#[test]
fn cookies_and_several_headers_of_a_name_reach_the_job() {
    let server = Server::start();
    let job = "
        get('/cookies');
        fn(state => ({ ...state, cookies: state.response.headers['set-cookie'] }));
        get('/echo', { headers: { Cookie: $.cookies.map(cookie => cookie.split(';')[0]).join('; ') } });
    ";
    let state = with_base(&server, job).go().completed();
    assert_eq!(state["cookies"], json!(["session=one; Path=/; HttpOnly", "theme=dark"]));
    assert_eq!(state["data"]["headers"]["cookie"], "session=one; theme=dark");
}

#[test]
fn a_private_authority_is_trusted_if_the_job_or_the_user_says_so() {
    let (server, authority) = Server::start_tls();
    let by_option =
        with_base(&server, "get('/patients', { tls: { ca: $.ca } })").state(&json!({ "ca": authority }).to_string());
    assert_eq!(by_option.go().data(), patients());

    let credential = json!({ "baseUrl": server.other_origin(), "tls": { "ca": authority } });
    let by_credential = http("post('/echo', { a: 1 })").credential(&credential.to_string());
    assert_eq!(by_credential.go().data()["body"], "{\"a\":1}");

    let by_file = with_base(&server, "get('/patients')").args(&["--cafile", "authority.pem"]);
    assert_eq!(by_file.file("authority.pem", &authority).go().data(), patients());

    let by_environment = with_base(&server, "get('/patients')").env("NODE_EXTRA_CA_CERTS", "authority.pem");
    assert_eq!(by_environment.file("authority.pem", &authority).go().data(), patients());

    let unchecked = with_base(&server, "get('/patients', { tls: { rejectUnauthorized: false } })");
    assert_eq!(unchecked.go().data(), patients());
    assert_eq!(server.seen().len(), 5);
}

#[test]
fn an_unknown_authority_is_refused() {
    let (server, _) = Server::start_tls();
    let (_, another) = Server::start_tls();
    let error = adaptor_error(with_base(&server, "get('/patients')").go());
    assert_eq!(message(&error), "unable to verify the first certificate");
    assert_eq!(error["details"]["code"], "UNABLE_TO_VERIFY_LEAF_SIGNATURE");
    let run = with_base(&server, "get('/patients')").args(&["--cafile", "another.pem"]);
    adaptor_error(run.file("another.pem", &another).go());
    assert!(server.seen().is_empty());
}

#[test]
fn a_certificate_file_that_holds_none_is_refused() {
    let run = http("get('https://localhost:1/')").args(&["--cafile", "empty.pem"]);
    let ran = run.file("empty.pem", "nothing of use").go().expect(2);
    let expected = "cannot use the certificates in empty.pem: there is no certificate in PEM format in it";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    let ran = http("get('https://localhost:1/')").args(&["--cafile", "missing.pem"]).go().expect(2);
    assert!(ran.stderr.contains("cannot use the certificates in missing.pem: "), "{}", ran.stderr);
}

#[test]
fn a_slow_server_runs_into_the_timeout_of_the_request() {
    let server = Server::start();
    assert_eq!(with_base(&server, "get('/slow/50', { timeout: 20000 })").go().data(), patients());

    let error = adaptor_error(with_base(&server, "get('/slow/60000', { timeout: 300 })").go());
    assert_eq!(error["details"]["code"], "UND_ERR_HEADERS_TIMEOUT", "{error}");
    let error = adaptor_error(with_base(&server, "get('/stall', { timeout: 300 })").go());
    assert!(message(&error).contains("Error parsing the response body"), "{error}");
    assert!(error["details"]["error"].as_str().unwrap().contains("Timeout"), "{error}");
}

#[test]
fn a_silent_server_runs_into_the_timeout_of_the_job() {
    let server = Server::start();
    let ran = with_base(&server, "get('/slow/60000')").args(&["--timeout", "500"]).go_json().expect(20);
    assert_eq!(ran.error(), ["TimeoutError", "kill", "Job took longer than 500 ms to complete"]);
}

#[test]
fn what_goes_wrong_on_the_way_is_told_in_details() {
    let server = Server::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = http(&format!("get('http://{closed}/')")).go();
    assert!(refused.stderr.contains("Check state.errors.job for details"), "{}", refused.stderr);
    let error = adaptor_error(refused);
    assert_eq!(message(&error), format!("connect ECONNREFUSED {closed}"));
    assert_eq!(error["details"]["code"], "ECONNREFUSED");
    assert_eq!((&error["operationName"], &error["line"]), (&json!("get"), &json!(1)));

    let error = adaptor_error(with_base(&server, "get('/cut')").go());
    assert!(message(&error).contains("Error parsing the response body"), "{error}");
    assert_eq!(error["details"]["bodyLength"], 4096);

    let error = adaptor_error(http("get('http://no-such-host.invalid/')").go());
    assert_eq!(error["details"]["hostname"], "no-such-host.invalid", "{error}");
}

#[test]
fn statuses_are_errors_unless_the_job_maps_them() {
    let server = Server::start();
    let error = adaptor_error(with_base(&server, "get('/status/404')").go());
    assert_eq!(error["message"], format!("GET to {}/status/404 returned 404: Not Found", server.origin()));
    assert_eq!(error["details"]["body"]["error"], "the server says 404");
    assert_eq!(error["details"]["method"], "GET");

    let data = with_base(&server, "get('/status/404', { errors: { 404: false } })").go().data();
    assert_eq!(data["error"], "the server says 404");
    let data = with_base(&server, "get('/status/503', { errors: false })").go().data();
    assert_eq!(data["error"], "the server says 503");
    let job = "get('/status/201', { errors: { 201: 'nothing must be created' } })";
    assert_eq!(message(&adaptor_error(with_base(&server, job).go())), "nothing must be created");
}

#[test]
fn large_bodies_travel_both_ways() {
    let server = Server::start();
    let job = "
        get('/big');
        fn(state => ({ ...state, received: state.data[0].length }));
        post('/echo', $.data[0], { contentType: 'string' });
        fn(state => ({ received: state.received, sent: state.data.length }));
    ";
    assert_eq!(with_base(&server, job).go().completed(), json!({ "received": BIG - 4, "sent": BIG - 4 }));
}

#[test]
fn each_makes_its_requests_in_order() {
    let server = Server::start();
    let job = "
        get('/patients');
        each('$.data.patients[*]', post('/echo', state => ({ name: state.data.name, index: state.index })));
        fn(state => ({ references: state.references.length, data: state.data.body }));
    ";
    let state = with_base(&server, job).go().completed();
    assert_eq!(state, json!({ "references": 3, "data": "{\"name\":\"Kofi\",\"index\":1}" }));
    let bodies: Vec<Value> = server.seen().iter().map(|request| request.json()).collect();
    assert_eq!(bodies[1..], [json!({ "name": "Amina", "index": 0 }), json!({ "name": "Kofi", "index": 1 })]);
}

#[test]
fn operations_take_then_and_catch() {
    let server = Server::start();
    let job = "
        get('/patients').then(state => ({ ...state, count: state.data.patients.length }));
        get('/status/500').catch((error, state) => ({ ...state, caught: error.statusCode, kept: state.count }));
        each([1, 2], get('/status/400').catch((error, state) => ({ ...state, each: [...(state.each ?? []), state.data] })));
        get('/status/404').then(state => ({ wrong: true })).catch(error => ({ ...state, last: error.statusCode }));
    ";
    let state = with_base(&server, job).go().completed();
    assert_eq!((&state["count"], &state["caught"], &state["kept"]), (&json!(2), &json!(500), &json!(2)));
    assert_eq!((&state["each"], &state["last"]), (&json!([1, 2]), &json!(404)));
    assert_eq!(state.get("wrong"), None);
}

#[test]
fn documents_of_other_kinds_are_parsed() {
    let server = Server::start();
    let job = "
        const row = (state, rows) => ({ ...state, chunks: [...(state.chunks ?? []), rows] });
        get('/csv');
        parseCsv($.data);
        fn(state => ({ ...state, rows: state.data }));
        get('/csv', { parseAs: 'stream' });
        parseCsv($.data, { chunkSize: 1 }, row);
        fn(state => ({ ...state, data: null }));
        get('/xml');
        util.xmlParser($.data, $ => JSON.stringify($('patient').map((i, e) => $(e).text()).get()));
        fn(state => ({ ...state, patients: state.data }));
        get('/table');
        util.xmlParser($.data, $ => JSON.stringify($('table').parsetable(false, false, true)));
        fn(({ rows, chunks, patients, data }) => ({ rows, chunks, patients, data }));
    ";
    let rows = json!([{ "name": "Amina", "age": "31" }, { "name": "Kofi, jr.", "age": "4" }]);
    assert_eq!(
        with_base(&server, job).go().completed(),
        json!({
            "rows": rows,
            "chunks": [[rows[0]], [rows[1]]],
            "patients": ["Amina", "Kofi"],
            "data": [["name", "Amina"], ["age", "31"]],
        })
    );
}

#[test]
fn the_network_can_be_narrowed() {
    let server = Server::start();
    let elsewhere = Server::start();
    let allowed = format!("localhost:{}", server.port());
    let narrowed = |job: &str| http(job).args(&["--allow-net", &allowed]).go();
    assert_eq!(narrowed(&format!("get('{}/patients')", server.origin())).data(), patients());

    // Another port, another name of the same machine, and a redirect from an allowed host to one that is not.
    let only = format!("this run may connect to {allowed} only");
    let error = adaptor_error(narrowed(&format!("get('{}/patients')", elsewhere.origin())));
    assert_eq!(message(&error), format!("not allowed to connect to localhost: {only}"));
    let error = adaptor_error(narrowed(&format!("get('{}/patients')", server.other_origin())));
    assert_eq!(message(&error), format!("not allowed to connect to 127.0.0.1:{}: {only}", server.port()));
    let redirected =
        format!("get('{}/redirect', {{ query: {{ to: '{}/echo' }} }})", server.origin(), elsewhere.origin());
    assert_eq!(message(&adaptor_error(narrowed(&redirected))), format!("not allowed to connect to localhost: {only}"));
    assert!(elsewhere.seen().is_empty());
    assert_eq!(server.seen().len(), 2);

    let closed = http(&format!("get('{}/patients')", server.origin())).args(&["--deny-net"]).go();
    assert_eq!(message(&adaptor_error(closed)), "not allowed to connect to localhost: this run has no network");
}

#[test]
fn fetch_in_a_job_obeys_the_same_rules() {
    let server = Server::start();
    let elsewhere = Server::start();
    let allowed = format!("localhost:{}", server.port());
    let fetch = |url: String| {
        let job = format!("fn(async state => ({{ data: await (await fetch('{url}')).json() }}))");
        http(&job).args(&["--allow-net", &allowed]).go()
    };
    assert_eq!(fetch(format!("{}/gzip", server.origin())).data(), patients());
    for url in [
        format!("{}/patients", elsewhere.origin()),
        format!("{}/redirect?to={}/patients", server.origin(), elsewhere.origin()),
    ] {
        let error = fetch(url).failure();
        let expected = format!("not allowed to connect to localhost:{}: this run may", elsewhere.port());
        assert!(message(&error).contains(&expected), "{error}");
    }
    assert!(elsewhere.seen().is_empty());
}
