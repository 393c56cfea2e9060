//! Jobs with `@openfn/language-http` against a real server: what the adaptor promises holds without Node.

use serde_json::{Value, json};

use crate::support::http_server::{BIG, Server, USER};
use crate::support::{Outcome, Run};

fn http(job: &str) -> Run {
    Run::new(job).adaptor("http")
}

/// A run whose credential says where the server is.
fn with_base(server: &Server, job: &str) -> Run {
    http(job).credential(&json!({ "baseUrl": server.origin() }))
}

#[track_caller]
fn assert_adaptor_error(outcome: &Outcome) -> Value {
    let error = outcome.error();
    assert_eq!(error["name"], "AdaptorError", "{error}");
    assert_eq!(error["severity"], "fail", "{error}");
    error
}

#[test]
fn get_reads_json_into_data() {
    let server = Server::start();
    let state = with_base(&server, "get('/patients');").state(&json!({ "data": { "before": 1 } })).finish().state();
    assert_eq!(state["data"], json!({ "patients": [{ "name": "Amina" }, { "name": "Kofi" }] }));
    assert_eq!(state["references"], json!([{ "before": 1 }]));
    assert_eq!(state.get("configuration"), None);
    assert_eq!(state.get("response"), None);
}

#[test]
fn a_full_url_needs_no_base() {
    let server = Server::start();
    let data = http(&format!("get('{}/patients')", server.origin())).finish().data();
    assert_eq!(data["patients"][1]["name"], "Kofi");
    let error = assert_adaptor_error(&http("get('/patients')").finish());
    assert_eq!(error["details"]["code"], "UNEXPECTED_RELATIVE_URL");
    assert_eq!(error["operationName"], "get");
}

#[test]
fn methods_send_their_bodies() {
    let server = Server::start();
    let job = "
        post('/echo/1', $.data);
        fn(state => ({ ...state, posted: state.data }));
        put('/echo/2', { name: 'Kofi', at: new Date(0) });
        fn(state => ({ ...state, put: state.data }));
        patch('/echo/3', state => [state.index ?? 'none']);
        fn(state => ({ ...state, patched: state.data }));
        del('/echo/4');
        fn(state => ({ ...state, deleted: state.data }));
        request('OPTIONS', '/echo/5', { body: 'plain', contentType: 'string' });
    ";
    let state = with_base(&server, job).state(&json!({ "data": { "name": "Amina", "größe": "1,70 m 🌍" } })).finish();
    let state = state.state();
    let sent = |reply: &Value| -> Value { serde_json::from_str(reply["body"].as_str().unwrap()).unwrap() };
    assert_eq!(state["posted"]["method"], "POST");
    assert_eq!(state["posted"]["headers"]["content-type"], "application/json");
    assert_eq!(sent(&state["posted"]), json!({ "name": "Amina", "größe": "1,70 m 🌍" }));
    assert_eq!(state["put"]["method"], "PUT");
    assert_eq!(sent(&state["put"])["name"], "Kofi");
    assert_eq!(state["patched"]["method"], "PATCH");
    assert_eq!(sent(&state["patched"]), json!(["none"]));
    assert_eq!(state["deleted"]["method"], "DELETE");
    assert_eq!(state["deleted"]["body"], "");
    assert_eq!(state["data"]["method"], "OPTIONS");
    assert_eq!(state["data"]["body"], "plain");
    assert_eq!(state["data"]["headers"]["content-type"], "text/plain");
}

#[test]
fn a_form_travels_as_multipart() {
    let server = Server::start();
    let job = "
        post('/echo', { name: 'Amina', nested: { a: 1 }, none: null, file: new File(['id;name'], 'list.csv') },
             { contentType: 'form' });
    ";
    let data = with_base(&server, job).finish().data();
    let content_type = data["headers"]["content-type"].as_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let body = data["body"].as_str().unwrap();
    assert_eq!(body.matches(boundary).count(), 4, "{body}");
    for part in [
        "form-data; name=\"name\"\r\n\r\nAmina\r\n",
        "form-data; name=\"nested\"\r\n\r\n{\"a\":1}\r\n",
        "form-data; name=\"file\"; filename=\"list.csv\"\r\n",
        "\r\n\r\nid;name\r\n",
    ] {
        assert!(body.contains(part), "{body}");
    }
}

#[test]
fn query_and_headers_arrive() {
    let server = Server::start();
    let job = "get('/echo?page=2', { query: { q: 'a b&c=ü', n: 3 }, headers: { 'X-Trace': 'abc', Accept: 'text/x' } });";
    let data = with_base(&server, job).finish().data();
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
            return { ...state, leaked: 'no' };
        });
        get('/echo');
        fn(state => { console.log(state.data.headers.authorization); return state; });
        get('/status/500');
    ";
    let credential = json!({ "baseUrl": server.origin(), "username": USER.0, "password": USER.1 });
    let outcome = http(job).credential(&credential).args(["--log", "debug"]).finish();
    assert_adaptor_error(&outcome);
    assert_eq!(server.seen()[0].header("authorization").unwrap(), server.seen()[2].header("authorization").unwrap());
    outcome.says(&["the user is ***", "Authorization", "500"][..1]);
    for secret in [USER.0, USER.1, "bnVyc2U6"] {
        assert!(!outcome.stderr.contains(secret), "{}", outcome.stderr);
    }
    let state: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(state["leaked"], "no");
    assert_eq!(state.get("configuration"), None);
    assert!(!outcome.stdout.contains(USER.1), "{}", outcome.stdout);
}

#[test]
fn a_wrong_password_is_an_error_with_the_answer_in_it() {
    let server = Server::start();
    let credential = json!({ "baseUrl": server.origin(), "username": USER.0, "password": "wrong-password" });
    let outcome = http("get('/basic')").credential(&credential).finish();
    let error = assert_adaptor_error(&outcome);
    assert!(error["message"].as_str().unwrap().ends_with("returned 401: Unauthorized"), "{error}");
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
    let state = with_base(&server, job).finish().state();
    assert_eq!(state["text"], "grüße 🌍");
    assert_eq!(state["unparsed"], r#"{"patients":[{"name":"Amina"},{"name":"Kofi"}]}"#);
    assert_eq!(state["json"], 2);
    assert_eq!(state["bytes"], 256);
    assert_eq!(state["first"], "AAEC");
    assert_eq!(state["streamed"], "name,age\nAmina,31\n\"Kofi, jr.\",4\n");
    assert_eq!(state["nothing"], true);
    assert_eq!(state["data"]["patients"][0]["name"], "Amina");

    let error = assert_adaptor_error(&with_base(&server, "get('/not-json')").finish());
    assert!(error["message"].as_str().unwrap().contains("Error parsing the response body"), "{error}");
}

#[test]
fn compressed_answers_are_unpacked() {
    let server = Server::start();
    let job = "each(['gzip', 'deflate', 'br'], get(state => `/${state.data}`));";
    let state = with_base(&server, job).finish().state();
    let patients = json!({ "patients": [{ "name": "Amina" }, { "name": "Kofi" }] });
    assert_eq!(state["data"], patients);
    assert_eq!(state["references"], json!(["gzip", "deflate", "br"]));
    let job = "each(['gzip', 'deflate', 'br'], get(state => `/${state.data}`).then(s => ({ ...s, all: [...(s.all ?? []), s.data] })));";
    let state = with_base(&server, job).finish().state();
    assert_eq!(state["all"], json!([patients, patients, patients]));
}

#[test]
fn redirects_are_followed_five_times() {
    let server = Server::start();
    let status = ".then(state => ({ ...state, status: state.response.statusCode }))";
    let run = |job: &str| with_base(&server, &format!("{job}{status}")).finish().state();

    let followed = run("get('/redirect', { query: { to: '/echo/here' } })");
    assert_eq!((&followed["status"], &followed["data"]["path"]), (&json!(200), &json!("/echo/here")));
    let chain = run("get('/redirect/5')");
    assert_eq!((&chain["status"], &chain["data"]["path"]), (&json!(200), &json!("/redirect/0")));
    assert_eq!(run("get('/redirect/6')")["status"], 302);
    assert_eq!(run("get('/redirect/loop')")["status"], 302);
    assert_eq!(run("get('/redirect/3', { maxRedirections: 2 })")["status"], 302);
    assert_eq!(run("get('/redirect/1', { followAllRedirects: false })")["status"], 302);

    let seen_before = server.seen().len();
    let kept = run("post('/redirect?status=307&to=/echo', { a: 1 })");
    assert_eq!((&kept["data"]["method"], &kept["data"]["body"]), (&json!("POST"), &json!("{\"a\":1}")));
    let changed = run("post('/redirect?status=303&to=/echo', { a: 1 })");
    assert_eq!((&changed["data"]["method"], &changed["data"]["body"]), (&json!("GET"), &json!("")));
    assert_eq!(server.seen().len(), seen_before + 4);
}

#[test]
fn a_redirect_to_another_origin_does_not_take_the_password_along() {
    let server = Server::start();
    let credential = json!({ "baseUrl": server.origin(), "username": USER.0, "password": USER.1 });
    let to = |origin: String| format!("get('/redirect', {{ query: {{ to: '{origin}/echo' }} }})");
    let same = http(&to(server.origin())).credential(&credential).finish().data();
    assert!(same["headers"].get("authorization").is_some(), "{same}");
    let other = http(&to(server.other_origin())).credential(&credential).finish().data();
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
    let state = with_base(&server, job).finish().state();
    assert_eq!(state["cookies"], json!(["session=one; Path=/; HttpOnly", "theme=dark"]));
    assert_eq!(state["data"]["headers"]["cookie"], "session=one; theme=dark");
}

#[test]
fn a_private_authority_is_trusted_if_the_job_or_the_user_says_so() {
    let (server, authority) = Server::start_tls();
    let by_option = http("get('/patients', { tls: { ca: $.ca } })")
        .state(&json!({ "ca": authority }))
        .credential(&json!({ "baseUrl": server.origin() }))
        .finish();
    assert_eq!(by_option.data()["patients"][0]["name"], "Amina");

    let by_credential = http("post(state => '/echo', { a: 1 })")
        .credential(&json!({ "baseUrl": server.other_origin(), "tls": { "ca": authority } }))
        .finish();
    assert_eq!(by_credential.data()["body"], "{\"a\":1}");

    let by_file = with_base(&server, "get('/patients')").args(["--cafile", "authority.pem"]);
    by_file.write("authority.pem", &authority);
    assert_eq!(by_file.finish().data()["patients"][0]["name"], "Amina");

    let unchecked = with_base(&server, "get('/patients', { tls: { rejectUnauthorized: false } })").finish();
    assert_eq!(unchecked.data()["patients"][0]["name"], "Amina");
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn an_unknown_authority_is_refused() {
    let (server, _) = Server::start_tls();
    let (_, another) = Server::start_tls();
    let run = with_base(&server, "get('/patients')");
    let error = assert_adaptor_error(&run.finish());
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("certificate") || message.contains("UnknownIssuer"), "{error}");

    let run = with_base(&server, "get('/patients')").args(["--cafile", "another.pem"]);
    run.write("another.pem", &another);
    assert_adaptor_error(&run.finish());
    assert!(server.seen().is_empty());
}

#[test]
fn a_certificate_file_that_holds_none_is_refused() {
    let (server, _) = Server::start_tls();
    let run = with_base(&server, "get('/patients')").args(["--cafile", "empty.pem"]);
    run.write("empty.pem", "nothing of use");
    let outcome = run.finish();
    assert_ne!(outcome.code, Some(0));
    outcome.says(&["empty.pem"]);
    assert!(server.seen().is_empty());
}

#[test]
fn a_slow_server_runs_into_the_timeout_of_the_request() {
    let server = Server::start();
    let patient = with_base(&server, "get('/slow/50', { timeout: 20000 })").finish().data();
    assert_eq!(patient["patients"][0]["name"], "Amina");

    let error = assert_adaptor_error(&with_base(&server, "get('/slow/60000', { timeout: 300 })").finish());
    assert_eq!(error["details"]["code"], "UND_ERR_HEADERS_TIMEOUT", "{error}");
    let error = assert_adaptor_error(&with_base(&server, "get('/stall', { timeout: 300 })").finish());
    assert!(error["message"].as_str().unwrap().contains("Error parsing the response body"), "{error}");
    assert!(error["details"]["error"].as_str().unwrap().contains("Timeout"), "{error}");
}

#[test]
fn a_silent_server_runs_into_the_timeout_of_the_job() {
    let server = Server::start();
    let outcome = with_base(&server, "get('/slow/60000')").args(["--timeout", "500ms"]).finish();
    assert_eq!(outcome.code, Some(20), "{}", outcome.stderr);
    outcome.says(&["TimeoutError: Job took longer than 500 ms to complete"]);
}

#[test]
fn what_goes_wrong_on_the_way_is_told_in_details() {
    let server = Server::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = http(&format!("get('http://{closed}/')")).finish();
    let error = assert_adaptor_error(&refused);
    assert_eq!(error["details"]["code"], "ECONNREFUSED", "{error}");
    assert!(error["message"].as_str().unwrap().contains(&closed.to_string()), "{error}");
    assert_eq!(error["operationName"], "get");
    assert_eq!(error["line"], 1);
    refused.says(&["ECONNREFUSED", "Check state.errors.job for details"]);

    let error = assert_adaptor_error(&with_base(&server, "get('/cut')").finish());
    assert!(error["message"].as_str().unwrap().contains("Error parsing the response body"), "{error}");
    assert_eq!(error["details"]["bodyLength"], 4096);

    let unknown = assert_adaptor_error(&http("get('http://no-such-host.invalid/')").finish());
    assert_eq!(unknown["details"]["code"], "ENOTFOUND", "{unknown}");
}

#[test]
fn statuses_are_errors_unless_the_job_maps_them() {
    let server = Server::start();
    let error = assert_adaptor_error(&with_base(&server, "get('/status/404')").finish());
    assert_eq!(error["message"], format!("GET to {}/status/404 returned 404: Not Found", server.origin()));
    assert_eq!(error["details"]["body"]["error"], "the server says 404");
    assert_eq!(error["details"]["method"], "GET");

    let data = with_base(&server, "get('/status/404', { errors: { 404: false } })").finish().data();
    assert_eq!(data["error"], "the server says 404");
    let data = with_base(&server, "get('/status/503', { errors: false })").finish().data();
    assert_eq!(data["error"], "the server says 503");
    let job = "get('/status/201', { errors: { 201: 'nothing must be created' } })";
    assert_eq!(assert_adaptor_error(&with_base(&server, job).finish())["message"], "nothing must be created");
    let job = "get('/status/404', { errors: { 404: r => `it was ${r.statusCode}` } })";
    let error = assert_adaptor_error(&with_base(&server, job).finish());
    assert_eq!(error["message"], "it was 404");
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
    let state = with_base(&server, job).finish().state();
    assert_eq!(state, json!({ "received": BIG - 4, "sent": BIG - 4 }));
}

#[test]
fn each_makes_its_requests_in_order() {
    let server = Server::start();
    let job = "
        get('/patients');
        each('$.data.patients[*]', post('/echo', state => ({ name: state.data.name, index: state.index })));
        fn(state => ({ references: state.references.length, data: state.data.body }));
    ";
    let state = with_base(&server, job).finish().state();
    assert_eq!(state, json!({ "references": 4, "data": "{\"name\":\"Kofi\",\"index\":1}" }));
    let bodies: Vec<Value> = server.seen().iter().map(|request| request.json()).collect();
    assert_eq!(bodies[1..], [json!({ "name": "Amina", "index": 0 }), json!({ "name": "Kofi", "index": 1 })]);
}

#[test]
fn operations_take_then_and_catch() {
    let server = Server::start();
    let job = "
        get('/patients').then(state => ({ ...state, count: state.data.patients.length }));
        get('/status/500').catch((error, state) => ({ ...state, caught: error.statusCode, count: state.count }));
        get('/status/404').then(state => ({ ...state, wrong: true })).catch((error, state) => ({ ...state, last: error.statusCode }));
        each([1, 2], get('/status/400').catch((error, state) => ({ ...state, each: [...(state.each ?? []), state.data] })));
    ";
    let state = with_base(&server, job).finish().state();
    assert_eq!((&state["count"], &state["caught"], &state["last"]), (&json!(2), &json!(500), &json!(404)));
    assert_eq!(state["each"], json!([1, 2]));
    assert_eq!(state.get("wrong"), None);
}

#[test]
fn documents_of_other_kinds_are_parsed() {
    let server = Server::start();
    let job = "
        get('/csv');
        parseCsv($.data);
        fn(state => ({ ...state, rows: state.data }));
        get('/csv', { parseAs: 'stream' });
        parseCsv($.data, { chunkSize: 1 }, (state, rows) => ({ ...state, chunks: [...(state.chunks ?? []), rows], data: null }));
        get('/xml');
        parseXML($.data, $ => JSON.stringify($('patient').map((i, e) => $(e).text()).get()));
        fn(state => ({ ...state, patients: state.data }));
        get('/table');
        parseXML($.data, $ => JSON.stringify($('table').parsetable(false, false, true)));
        fn(({ rows, chunks, patients, data }) => ({ rows, chunks, patients, data }));
    ";
    let rows = json!([{ "name": "Amina", "age": "31" }, { "name": "Kofi, jr.", "age": "4" }]);
    assert_eq!(
        with_base(&server, job).finish().state(),
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
    let narrowed = |job: &str| http(job).args(["--allow-net", &allowed]).finish();

    let data = narrowed(&format!("get('{}/patients')", server.origin())).data();
    assert_eq!(data["patients"][0]["name"], "Amina");

    let refused = |outcome: Outcome, host: &str| {
        let error = assert_adaptor_error(&outcome);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(host), "{error}");
        assert!(message.contains("--allow-net"), "{error}");
        assert!(!message.contains("Deno"), "{error}");
    };
    // Another port, another name of the same machine, and a redirect from an allowed host to one that is not.
    let other_port = format!("localhost:{}", elsewhere.port());
    refused(narrowed(&format!("get('{}/patients')", elsewhere.origin())), &other_port);
    refused(narrowed(&format!("get('{}/patients')", server.other_origin())), "127.0.0.1");
    let redirected = format!("get('{}/redirect', {{ query: {{ to: '{}/echo' }} }})", server.origin(), elsewhere.origin());
    refused(narrowed(&redirected), &other_port);
    assert!(elsewhere.seen().is_empty());
    assert_eq!(server.seen().len(), 2);

    let outcome = http(&format!("get('{}/patients')", server.origin())).args(["--deny-net"]).finish();
    refused(outcome, "localhost");
}

#[test]
fn fetch_in_a_job_obeys_the_same_rules() {
    let server = Server::start();
    let elsewhere = Server::start();
    let allowed = format!("localhost:{}", server.port());
    let fetch = |url: String| format!("fn(async state => ({{ data: await (await fetch('{url}')).json() }}))");
    let narrowed = |job: &str| http(job).args(["--allow-net", &allowed]).finish();
    assert_eq!(narrowed(&fetch(format!("{}/gzip", server.origin()))).data()["patients"][0]["name"], "Amina");
    for url in [
        format!("{}/patients", elsewhere.origin()),
        format!("{}/redirect?to={}/patients", server.origin(), elsewhere.origin()),
    ] {
        let outcome = narrowed(&fetch(url));
        let error = outcome.error();
        assert!(error["message"].as_str().unwrap().contains(&format!("localhost:{}", elsewhere.port())), "{error}");
    }
    assert!(elsewhere.seen().is_empty());
}
