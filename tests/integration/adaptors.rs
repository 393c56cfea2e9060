//! Jobs with adaptors as npm has them: what they and the libraries under them do holds without Node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::http_server::{Reply, Request, Server};
use crate::support::mariadb::MariaDb;
use crate::support::{Run, job};

#[test]
fn common_formats_dates_and_lends_lodash() {
    let job = job("
        fn(state => ({
            ...state,
            date: dateFns.format(dateFns.parse('24/12/2026 17:05', 'dd/MM/yyyy HH:mm', new Date(0)), 'yyyy-MM-dd HH:mm EEEE'),
            camel: _.camelCase('date of birth'),
            grouped: _.groupBy(state.data, 'sex'),
            sum: _(state.data).filter({ sex: 'f' }).sumBy('age'),
        }));
    ");
    let people = json!([{ "name": "Amina", "sex": "f", "age": 31 }, { "name": "Kofi", "sex": "m", "age": 4 }, { "name": "Ama", "sex": "f", "age": 9 }]);
    let state = job.state(&json!({ "data": people }).to_string()).go().completed();
    assert_eq!(state["date"], "2026-12-24 17:05 Thursday");
    assert_eq!(state["camel"], "dateOfBirth");
    assert_eq!(state["grouped"], json!({ "f": [people[0], people[2]], "m": [people[1]] }));
    assert_eq!(state["sum"], 40);
}

#[test]
fn common_reads_paths_and_builds_objects() {
    let job = job("
        each('$.data.visits[*]', fn(state => ({ ...state, seen: [...(state.seen ?? []), [state.index, state.data.place]] })));
        fn(state => ({
            ...state,
            fields: fields(field('place', sourceValue('$.seen[0][1]')(state)), field('all', source('$.seen[*][1]')(state))),
            merged: merge('$.people[*]', fields(field('country', 'GH')))(state),
            value: jsonValue({ a: [{ b: 1 }, { b: 2 }] }, '$.a[?(@.b > 1)].b'),
        }));
        combine(fn(state => ({ ...state, first: 1 })), fn(async state => ({ ...state, second: state.first + 1 })));
        group($.people, 'clan', state => ({ ...state, clans: Object.keys(state.data) }));
        as('later', fn(state => ({ ...state, data: 'kept' })));
        map('$.people[*]', person => humanProper(person.name));
        fn(state => ({ ...state, chunks: chunk([1, 2, 3], 2), scrubbed: scrubEmojis('a 🌍'), joined: arrayToString([1, 2], '-') }));
    ");
    let state = json!({
        "data": { "visits": [{ "place": "Accra" }, { "place": "Kumasi" }] },
        "people": [{ "name": "AMINA_ali", "clan": "x" }, { "name": "kofi", "clan": "y" }],
    });
    let state = job.state(&state.to_string()).go().completed();
    assert_eq!(state["seen"], json!([[0, "Accra"], [1, "Kumasi"]]));
    assert_eq!(state["fields"], json!({ "place": "Accra", "all": ["Accra", "Kumasi"] }));
    assert_eq!(state["merged"][1], json!({ "name": "kofi", "clan": "y", "country": "GH" }));
    assert_eq!((&state["value"], &state["second"]), (&json!(2), &json!(2)));
    assert_eq!((&state["clans"], &state["later"]), (&json!(["x", "y"]), &json!("kept")));
    assert_eq!(state["data"], json!(["Amina Ali", "Kofi"]));
    assert_eq!((&state["chunks"], &state["joined"]), (&json!([[1, 2], [3]]), &json!("1-2")));
    assert_eq!(state["scrubbed"], "a \u{fffd}");
}

#[test]
fn common_parses_csv_from_text_and_from_streams() {
    let job = job(r#"
        parseCsv('\ufeffname;note\nAmina;"line one\nline ""two"""\n\nKofi; -\n', { delimiter: ';' });
        fn(state => ({ ...state, text: state.data, count: 0, data: null, references: [] }));
        parseCsv(
            () => new Blob(['n\n', ...Array.from({ length: 10_000 }, (_, i) => `${i}\n`)]).stream(),
            { chunkSize: 3000 },
            (state, rows) => ({ ...state, sizes: [...(state.sizes ?? []), rows.length], count: state.count + rows.length, last: rows.at(-1) }),
        );
    "#);
    let state = job.go().completed();
    let text = json!([{ "name": "Amina", "note": "line one\nline \"two\"" }, { "name": "Kofi", "note": "-" }]);
    assert_eq!(state["text"], text);
    assert_eq!(state["sizes"], json!([3000, 3000, 3000, 1000]));
    assert_eq!((&state["count"], &state["last"]), (&json!(10_000), &json!({ "n": "9999" })));

    let error = Run::of("job.js", "parseCsv('a,b\\n\"open', {})").adaptor("common").go().failure();
    assert_eq!((&error["name"], &error["details"]["code"]), (&json!("AdaptorError"), &json!("CSV_QUOTE_NOT_CLOSED")));
}

#[test]
fn common_validates_with_generated_code() {
    let schema = |draft: &str| {
        json!({
            "$schema": draft,
            "type": "object",
            "required": ["name"],
            "properties": { "name": { "type": "string", "pattern": "^[A-Z]" }, "age": { "type": "integer", "minimum": 0 } },
        })
    };
    let drafts = ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"];
    for draft in drafts {
        let job = job("
            each('$.people[*]', validate(state => state.schema));
            fn(state => ({ errors: state.validationErrors.map(({ data, errors }) => [data, errors.map(e => `${e.instancePath} ${e.message}`)]) }));
        ");
        let state = json!({ "schema": schema(draft), "people": [{ "name": "Amina", "age": 31 }, { "name": "kofi" }, { "age": -1 }] });
        let state = job.state(&state.to_string()).go().completed();
        let expected = json!([
            [{ "name": "kofi" }, ["/name must match pattern \"^[A-Z]\""]],
            [{ "age": -1 }, [" must have required property 'name'"]],
        ]);
        assert_eq!(state["errors"], expected);
    }
}

#[test]
fn common_keeps_a_cursor() {
    let job = job("
        cursor($.cursor, { defaultValue: 'today' });
        fn(state => ({ ...state, first: state.cursor }));
        cursor('2026-01-02');
        fn(state => ({ ...state, second: state.cursor }));
        cursor('3 hours ago', { key: 'since', format: date => date.getTime() });
        fn(state => ({ ...state, hours: (Date.now() - state.since) / 3_600_000 }));
    ");
    let state = job.state(r#"{ "cursor": "start" }"#).go().completed();
    assert!(state["first"].as_str().unwrap().ends_with('Z'), "{state}");
    assert_eq!(state["second"], "2026-01-02");
    assert_eq!(state["hours"].as_f64().unwrap().round(), 3.0);
}

#[test]
fn common_makes_requests_of_its_own() {
    let server = Server::start();
    let job = job("
        http.get(`${$.origin}/patients`);
        fn(state => ({ ...state, patients: state.data.patients.length }));
        http.post(state => `${state.origin}/echo`, { a: 1 }, http.options({ query: { q: 'x' } }).basic('jo', 'pass'));
        fn(state => ({ ...state, id: util.uuid(), encoded: util.encode('grüße'), decoded: util.decode('eyJhIjoxfQ==') }));
        http.get(`${$.origin}/status/500`, { errors: { 500: 'the server is down' } })
            .catch((error, state) => ({ ...state, caught: [error.message, error.statusCode] }));
    ");
    let state = job.state(&json!({ "origin": server.origin() }).to_string()).go().completed();
    assert_eq!(state["patients"], 2);
    assert_eq!(state["data"]["body"], "{\"a\":1}");
    assert_eq!(state["data"]["query"], json!({ "q": "x" }));
    assert_eq!(state["data"]["headers"]["authorization"], "Basic am86cGFzcw==");
    assert_eq!(state["id"].as_str().unwrap().len(), 36);
    assert_eq!((&state["encoded"], &state["decoded"]), (&json!("Z3LDvMOfZQ=="), &json!({ "a": 1 })));
    assert_eq!(state["caught"], json!(["the server is down", 500]));
}

/// As much of a FHIR server as the adaptor's operations touch.
fn fhir_server() -> Server {
    let stored: Mutex<BTreeMap<String, Value>> = Mutex::default();
    let reply = |status, body: Value| Reply::new(status, "application/fhir+json", body.to_string());
    Server::with(move |request| {
        if request.header("accept") != Some("application/fhir+json") {
            return reply(406, json!({ "resourceType": "OperationOutcome" }));
        }
        let mut stored = stored.lock().unwrap();
        let path = request.path.trim_start_matches("/r4").trim_matches('/').to_owned();
        let store = |resource: &Value, stored: &mut BTreeMap<String, Value>| {
            let mut resource = resource.clone();
            let kind = resource["resourceType"].as_str().unwrap().to_owned();
            let id = format!("{}", stored.len() + 1);
            resource["id"] = id.clone().into();
            stored.insert(format!("{kind}/{id}"), resource.clone());
            resource
        };
        match (request.method.as_str(), path.as_str()) {
            ("POST", "") => {
                let bundle = request.json();
                let entries: Vec<Value> = bundle["entry"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|entry| json!({ "resource": store(&entry["resource"], &mut stored), "response": { "status": "201" } }))
                    .collect();
                reply(200, json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": entries }))
            }
            ("POST", kind) if request.json()["resourceType"] == kind => reply(201, store(&request.json(), &mut stored)),
            ("GET", path) if path.contains('/') => match stored.get(path) {
                Some(resource) => reply(200, resource.clone()),
                None => reply(404, json!({ "resourceType": "OperationOutcome", "issue": [{ "code": "not-found" }] })),
            },
            ("GET", kind) => {
                let family = request.parameter("family").unwrap_or("");
                let found: Vec<&Value> = stored
                    .values()
                    .filter(|resource| resource["resourceType"] == kind && resource["name"][0]["family"] == family)
                    .collect();
                reply(
                    200,
                    json!({ "resourceType": "Bundle", "type": "searchset", "total": found.len(), "entry": found }),
                )
            }
            _ => reply(400, json!({ "resourceType": "OperationOutcome" })),
        }
    })
}

#[test]
fn fhir_creates_bundles_and_finds_resources() {
    let server = fhir_server();
    let source = "
        create('Patient', { name: [{ family: 'Ali', given: ['Amina'] }] });
        fn(state => ({ ...state, created: state.data }));
        get(`Patient/${$.created.id}`);
        fn(state => ({ ...state, read: state.data.name[0].given[0] }));
        createTransactionBundle([
            { resource: { resourceType: 'Patient', name: [{ family: $.created.name[0].family }] }, request: { method: 'POST', url: 'Patient' } },
            { resource: { resourceType: 'Claim', status: 'draft' }, request: { method: 'POST', url: 'Claim' } },
        ]);
        fn(state => ({ ...state, bundle: state.data.type }));
        get('Patient', { family: 'Ali' });
        fn(state => ({ ...state, total: state.data.total }));
        getClaim('3');
    ";
    let credential =
        json!({ "baseUrl": server.origin(), "apiPath": "r4", "access_token": "t0ken-of-fhir" }).to_string();
    let run = |source: &str| Run::of("job.js", source).adaptor("fhir").credential(&credential).go();
    let ran = run(source);
    assert!(!ran.stderr.contains("t0ken-of-fhir"), "{}", ran.stderr);
    let state = ran.completed();
    assert_eq!(state["created"]["id"], "1");
    assert_eq!((&state["read"], &state["bundle"]), (&json!("Amina"), &json!("transaction-response")));
    assert_eq!((&state["total"], &state["data"]["status"]), (&json!(2), &json!("draft")));
    for request in server.seen() {
        assert_eq!(request.header("authorization"), Some("Bearer t0ken-of-fhir"));
        assert_eq!(request.header("content-type"), Some("application/fhir+json"));
    }

    let error = run("get('Patient/99')").failure();
    assert_eq!((&error["name"], &error["details"]["statusCode"]), (&json!("AdaptorError"), &json!(404)));
    assert_eq!(run("get('http://elsewhere.org/Patient')").failure()["details"]["code"], "UNEXPECTED_ABSOLUTE_URL");
}

const TOKEN: &str = "t0ken-of-collections";

/// Collections as OpenFn's platform serves them: values are texts, lists come in pages, keys may hold one `*`.
fn collections_server() -> (Server, Arc<Mutex<BTreeMap<String, String>>>) {
    let items: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let kept = items.clone();
    let serve = move |request: &Request| {
        if request.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return Reply::json(401, &json!({ "error": "Unauthorized" }));
        }
        let mut parts = request.path.trim_start_matches("/collections/").splitn(2, '/');
        if parts.next() != Some("visits") {
            return Reply::json(404, &json!({ "error": "Not Found" }));
        }
        let key = parts.next().or(request.parameter("key"));
        let fits = |candidate: &str| match key.unwrap_or("*").split_once('*') {
            Some((start, end)) => candidate.starts_with(start) && candidate.ends_with(end),
            None => key == Some(candidate),
        };
        let mut items = items.lock().unwrap();
        match (request.method.as_str(), key) {
            ("GET", Some(key)) if !key.contains('*') => match items.get(key) {
                Some(value) => Reply::json(200, &json!({ "key": key, "value": value })),
                None => Reply::empty(204),
            },
            ("GET", _) => {
                let after = request.parameter("cursor").unwrap_or("");
                let limit: usize = request.parameter("limit").unwrap().parse().unwrap();
                let mut found = items.iter().filter(|(key, _)| fits(key) && key.as_str() > after);
                let page: Vec<Value> =
                    found.by_ref().take(limit).map(|(key, value)| json!({ "key": key, "value": value })).collect();
                let cursor = found.next().and(page.last()).map(|item| item["key"].clone());
                Reply::json(200, &json!({ "items": page, "cursor": cursor }))
            }
            ("POST", None) => {
                let body = request.json();
                let new = body["items"].as_array().unwrap();
                for item in new {
                    items.insert(item["key"].as_str().unwrap().into(), item["value"].as_str().unwrap().into());
                }
                Reply::json(200, &json!({ "upserted": new.len(), "errors": [] }))
            }
            ("DELETE", _) => {
                let keys: Vec<String> = items.keys().filter(|key| fits(key)).cloned().collect();
                items.retain(|key, _| !keys.contains(key));
                Reply::json(200, &json!({ "deleted": keys.len(), "keys": keys }))
            }
            _ => Reply::json(400, &json!({ "error": "Bad Request" })),
        }
    };
    (Server::with(serve), kept)
}

#[test]
fn collections_are_written_read_and_emptied() {
    let (server, kept) = collections_server();
    let run = |source: &str, token: &str| {
        let endpoint = format!("{}/collections", server.origin());
        let credential = json!({ "collections_endpoint": endpoint, "collections_token": token });
        let run =
            Run::of("job.js", source).adaptor("collections").adaptor("common").credential(&credential.to_string());
        run.state(
            r#"{ "data": [{ "id": "accra-1", "n": 1 }, { "id": "accra-2", "n": 2 }, { "id": "kumasi-1", "n": 3 }] }"#,
        )
        .go()
    };
    let ran = run(
        "
        collections.set('visits', visit => visit.id, $.data);
        collections.set('visits', 'all', state => ({ list: [1, 'zwei', { three: '∛27' }] }));
        collections.get('visits', 'all');
        fn(state => ({ ...state, all: state.data }));
        collections.get('visits', 'no-such-key');
        fn(state => ({ ...state, missing: state.data }));
        collections.get('visits', { key: 'accra-*' });
        fn(state => ({ ...state, found: state.data }));
        collections.each('visits', { key: '*', pageSize: 1 }, (state, value, key) => {
            state.visited = [...(state.visited ?? []), [key, value.n]];
        });
        collections.remove('visits', 'accra-*');
        collections.remove('visits', 'all');
    ",
        TOKEN,
    );
    assert!(!ran.stderr.contains(TOKEN), "{}", ran.stderr);
    let state = ran.completed();
    assert_eq!(state["all"], json!({ "list": [1, "zwei", { "three": "∛27" }] }));
    assert_eq!(state["missing"], json!({}));
    let item = |id: &str, n: u32| json!({ "key": id, "value": { "id": id, "n": n } });
    assert_eq!(state["found"], json!([item("accra-1", 1), item("accra-2", 2)]));
    assert_eq!(state["visited"], json!([["accra-1", 1], ["accra-2", 2], ["all", null], ["kumasi-1", 3]]));
    let pages = server.seen().iter().filter(|request| request.parameter("limit") == Some("1")).count();
    assert_eq!(pages, 4);
    assert_eq!(kept.lock().unwrap().keys().collect::<Vec<_>>(), ["kumasi-1"]);

    let error = run("collections.get('visits', '*')", "a-wrong-token").failure();
    assert_eq!((&error["name"], &error["details"]["code"]), (&json!("AdaptorError"), &json!(401)));
    let error = run("collections.get('births', '*')", TOKEN).failure();
    assert_eq!(error["details"]["code"], "COLLECTION_NOT_FOUND");
}

#[test]
fn mysql_talks_to_a_real_database() {
    let database = MariaDb::start();
    let run =
        |source: &str| Run::of("job.js", source).adaptor("mysql").credential(&database.credential().to_string()).go();
    let job = "
        sql('CREATE TABLE patients (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40) NOT NULL UNIQUE, born DATE, weight DECIMAL(5,2))');
        insert('patients', { name: 'Amina 🌍', born: '1995-03-01', weight: 61.5 });
        fn(state => ({ ...state, inserted: state.data.result.insertId }));
        insert('patients', state => ({ name: `O'Brien \"; DROP TABLE patients`, born: null, weight: null }));
        upsert('patients', { name: 'Amina 🌍', weight: 62 });
        upsertMany('patients', [{ name: 'Kofi', weight: 14 }, { name: 'Ama', weight: 9.25 }]);
        sql('SELECT name, weight FROM patients WHERE weight > ? ORDER BY weight', { values: [10] });
        fn(state => ({ ...state, heavy: state.data.result }));
        sql('SELECT name, CAST(born AS CHAR) AS born FROM patients ORDER BY id LIMIT 2');
        fn(({ inserted, heavy, data, references }) => ({ inserted, heavy, rows: data.result, columns: data.fields.map(f => f.name) }));
    ";
    let ran = run(job);
    assert!(!ran.stderr.contains("cr3dential"), "{}", ran.stderr);
    let state = ran.completed();
    assert_eq!(state["inserted"], 1);
    let heavy = json!([{ "name": "Kofi", "weight": "14.00" }, { "name": "Amina 🌍", "weight": "62.00" }]);
    assert_eq!(state["heavy"], heavy);
    let rows = json!([
        { "name": "Amina 🌍", "born": "1995-03-01" },
        { "name": "O'Brien \"; DROP TABLE patients", "born": null },
    ]);
    assert_eq!((&state["rows"], &state["columns"]), (&rows, &json!(["name", "born"])));

    let error = run("insert('patients', { name: 'Kofi' })").failure();
    assert_eq!((&error["name"], &error["details"]["code"]), (&json!("AdaptorError"), &json!("ER_DUP_ENTRY")));
    let error = run("sql('SELEC 1')").failure();
    assert_eq!(error["details"]["code"], "ER_PARSE_ERROR");
    assert_eq!((&error["operationName"], &error["line"]), (&json!("sql"), &json!(1)));
}

#[test]
fn mysql_says_when_there_is_no_database() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let credential =
        json!({ "host": "127.0.0.1", "port": closed.port(), "user": "nurse", "password": "cr3dential-of-the-nurse" });
    let ran = Run::of("job.js", "sql('SELECT 1')").adaptor("mysql").credential(&credential.to_string()).go();
    assert!(ran.stderr.contains("ECONNREFUSED"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("cr3dential"), "{}", ran.stderr);
    let error = ran.failure();
    assert_eq!((&error["name"], &error["message"]), (&json!("AdaptorError"), &json!("Unable to connect to database.")));
}
