//! `/api/v1`: what programs can read and do.

use std::io::{BufRead as _, BufReader, Write as _};

use serde_json::{Value, json};

use super::server::{Answer, Server, Setup};
use super::support::gate::Gate;

const PROJECT: &str = "
jobs:
  double:
    adaptor: common
    trigger: number
    expression: |
      fn(state => { console.log('doubling', state.data.n); return { ...state, data: { n: state.data.n * 2 } }; })
  report:
    adaptor: common
    trigger: doubled
    expression: fn(state => { if (state.data.n > 100) throw new Error('too much'); return state; })
  wait:
    adaptor: common
    trigger: waiting
    expression: fn(state => new Promise(resolve => setTimeout(() => resolve(state), 120000)))
  yearly:
    adaptor: common
    trigger: new-year
    expression: fn(state => state)
triggers:
  number: { criteria: { form: number } }
  doubled: { success: double }
  waiting: { criteria: { form: waiting } }
  new-year: { cron: '0 0 1 1 *' }
";

fn start() -> Server {
    Setup::new(PROJECT).start()
}

/// A message with a number, and the id of its run when that has ended.
fn run(server: &Server, n: u32) -> String {
    let answer = server.post("/inbox?wait=60s", &json!({ "form": "number", "n": n })).json();
    answer["jobs"][0]["run_id"].as_str().unwrap_or_else(|| panic!("no run: {answer}")).to_owned()
}

fn act(server: &Server, path: &str, body: &Value) -> Answer {
    server.request("POST", path).authorized().json(body).send()
}

fn data(answer: &Value) -> Vec<Value> {
    answer["data"].as_array().unwrap_or_else(|| panic!("no list: {answer}")).clone()
}

fn strings(list: &[Value], key: &str) -> Vec<String> {
    list.iter().map(|item| item[key].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn problem(answer: Answer, status: u16, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().unwrap_or_default().contains(says), "`{says}` is not in {problem}");
}

#[test]
fn lists_come_a_page_at_a_time_and_can_be_narrowed() {
    let server = start();
    let mut ids: Vec<String> = (1..=5).map(|n| run(&server, n)).collect();
    ids.push(run(&server, 99));
    ids.reverse();

    let (mut seen, mut path) = (Vec::new(), "/api/v1/runs?limit=2".to_owned());
    loop {
        let page = server.read(&path).expect(200).json();
        assert!(data(&page).len() <= 2);
        seen.extend(strings(&data(&page), "id"));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/runs?limit=2&after={next}");
    }
    assert_eq!(seen, ids, "every run once, the newest first");

    let count = |path: &str| data(&server.read(path).expect(200).json()).len();
    assert_eq!(count("/api/v1/runs?state=failed"), 1);
    assert_eq!(count("/api/v1/runs?state=failed&state=completed"), 6);
    assert_eq!(count("/api/v1/runs?workflow=double&trigger=number"), 6);
    assert_eq!(count("/api/v1/runs?workflow=wait"), 0);
    assert_eq!(count("/api/v1/runs?q=too%20much"), 1);
    assert_eq!(count("/api/v1/runs?since=2020-01-01T00:00:00Z&until=2020-01-02T00:00:00Z"), 0);
    assert_eq!(count("/api/v1/messages?topic=inbox"), 6);
    assert_eq!(count("/api/v1/messages?q=%22n%22:99"), 1);
    assert_eq!(count("/api/v1/tasks?state=dead"), 1);
    assert_eq!(count(&format!("/api/v1/tasks?run={}", ids[0])), 2);
    let topics = server.read("/api/v1/topics").expect(200).json();
    assert_eq!((&topics["data"][0]["topic"], &topics["data"][0]["messages"]), (&json!("inbox"), &json!(6)));
}

#[test]
fn a_run_is_shown_with_all_that_belongs_to_it() {
    let server = start();
    let id = run(&server, 21);
    let run = server.read(&format!("/api/v1/runs/{id}")).expect(200).json();
    assert_eq!(
        (&run["state"], &run["workflow"], &run["trigger"]),
        (&json!("completed"), &json!("double"), &json!("number"))
    );
    let tasks = run["tasks"].as_array().unwrap();
    assert_eq!(strings(tasks, "step"), ["double", "report"]);

    let (task, attempt) = (tasks[0]["id"].as_str().unwrap(), tasks[0]["tries"][0]["id"].as_str().unwrap());
    assert_eq!(server.read(&format!("/api/v1/tasks/{task}")).expect(200).json()["state"], "completed");
    let input = server.read(&format!("/api/v1/tasks/{task}/input")).expect(200).json();
    assert_eq!((&input["data"]["n"], &input["request"]["method"]), (&json!(21), &json!("POST")));
    let shown = server.read(&format!("/api/v1/attempts/{attempt}")).expect(200).json();
    assert_eq!((&shown["number"], &shown["outcome"], &shown["failure"]), (&json!(1), &json!("success"), &Value::Null));
    let output = server.read(&format!("/api/v1/attempts/{attempt}/output")).expect(200).json();
    assert_eq!(output["data"]["n"], 42);
    let log = server.read(&format!("/api/v1/attempts/{attempt}/log")).expect(200);
    assert_eq!(log.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = log.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "doubling 21" && line["source"] == "JOB"), "{lines:?}");
    let text =
        server.request("GET", &format!("/api/v1/attempts/{attempt}/log")).authorized().header("accept", "text/plain");
    assert!(text.send().expect(200).text().contains(" JOB log   doubling 21\n"));

    let message = server.read(&format!("/api/v1/messages/{}", run["message"].as_str().unwrap())).expect(200).json();
    assert_eq!((&message["data"]["n"], &message["topic"]), (&json!(21), &json!("inbox")));
}

#[test]
fn runs_are_started_repeated_and_cancelled() {
    let server = start();
    let ended = |id: &str, state: &str| {
        let path = format!("/api/v1/runs/{id}");
        server.until(state, || Some(server.read(&path).json()).filter(|run| run["state"] == state))
    };
    let state = json!({ "workflow": "double", "state": { "data": { "n": 60 } } });
    let created = act(&server, "/api/v1/runs", &state).expect(201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), Some(format!("/api/v1/runs/{id}").as_str()));
    let failed = ended(&id, "failed");
    assert_eq!((&failed["failure"]["severity"], &failed["trigger"]), (&json!("fail"), &Value::Null));
    assert!(failed["failure"]["message"].as_str().unwrap().contains("too much"));

    let from = act(&server, &format!("/api/v1/runs/{id}/retry"), &json!({ "from": "report" })).expect(201).json();
    let again = ended(from["id"].as_str().unwrap(), "failed");
    assert_eq!(
        (&again["retry_of"], strings(again["tasks"].as_array().unwrap(), "step")),
        (&json!(id), vec!["report".to_owned()])
    );
    let whole = server.request("POST", &format!("/api/v1/runs/{id}/retry")).authorized().send().expect(201).json();
    assert_eq!(ended(whole["id"].as_str().unwrap(), "failed")["tasks"].as_array().unwrap().len(), 2);
    problem(
        act(&server, &format!("/api/v1/runs/{id}/retry"), &json!({ "from": "nowhere" })),
        409,
        "did not come to the step `nowhere`",
    );

    let waits = act(&server, "/api/v1/runs", &json!({ "workflow": "wait" })).expect(201).json();
    let waits = waits["id"].as_str().unwrap();
    ended(waits, "running");
    assert_eq!(
        act(&server, &format!("/api/v1/runs/{waits}/cancel"), &json!({})).expect(200).json()["state"],
        "cancelled"
    );
    problem(act(&server, &format!("/api/v1/runs/{waits}/cancel"), &json!({})), 409, "cancelled");

    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = server.request("POST", "/api/v1/runs").authorized().header("traceparent", context).json(&state).send();
    assert_eq!(traced.expect(201).json()["traceparent"], context);

    problem(act(&server, "/api/v1/runs", &json!({ "workflow": "nothing" })), 404, "`nothing`");
    problem(act(&server, "/api/v1/runs", &json!({ "workflow": "double", "state": [1] })), 422, "`state`");
}

#[test]
fn messages_are_replayed_and_dead_tasks_re_driven() {
    let server = start();
    let id = run(&server, 77);
    let detail = server.read(&format!("/api/v1/runs/{id}")).json();
    let message = detail["message"].as_str().unwrap();
    let replayed = act(&server, &format!("/api/v1/messages/{message}/replay"), &json!({})).expect(200).json();
    assert_eq!(strings(replayed["runs"].as_array().unwrap(), "workflow"), ["double"]);

    let dead = |count: usize| {
        server.until("dead tasks", || {
            let dead = data(&server.read("/api/v1/tasks?state=dead").json());
            (dead.len() == count).then_some(dead)
        })
    };
    let task = dead(2)[0]["id"].as_str().unwrap().to_owned();
    let attempts = |count: u32| {
        server.until("another attempt", || {
            let task = server.read(&format!("/api/v1/tasks/{task}")).json();
            (task["attempts"] == count && task["state"] == "dead").then_some(())
        });
    };
    act(&server, &format!("/api/v1/tasks/{task}/redrive"), &json!({})).expect(200);
    attempts(2);
    let redriven =
        act(&server, "/api/v1/tasks/redrive", &json!({ "workflow": "double", "limit": 10 })).expect(200).json();
    assert_eq!(redriven["redriven"], 2);
    attempts(3);
    dead(2);
    let queue = server.read("/api/v1/queue").expect(200).json();
    assert_eq!(data(&queue).iter().find(|depth| depth["workflow"] == "double").unwrap()["dead"], 2);

    let done = detail["tasks"][0]["id"].as_str().unwrap();
    problem(act(&server, &format!("/api/v1/tasks/{done}/redrive"), &json!({})), 409, "completed");
    problem(act(&server, "/api/v1/tasks/redrive", &json!({})), 422, "say which tasks");
}

#[test]
fn what_is_served_can_be_read() {
    let server = start();
    run(&server, 1);
    let workflows = server.read("/api/v1/workflows").expect(200).json();
    let double = data(&workflows).into_iter().find(|workflow| workflow["name"] == "double").unwrap();
    assert_eq!((&double["current"], &double["last_run"]["state"]), (&json!(true), &json!("completed")));
    let detail = server.read("/api/v1/workflows/double").expect(200).json();
    assert_eq!((&detail["start"], &detail["triggers"][0]["type"]), (&json!("double"), &json!("message")));
    assert_eq!(detail["steps"][0]["next"], json!([{ "to": "report", "condition": "on_success" }]));
    let clocked = server.read("/api/v1/workflows/yearly").expect(200).json();
    assert!(clocked["triggers"][0]["next"].as_str().unwrap().ends_with("-01-01T00:00:00.000000Z"), "{clocked}");
    let project = server.read("/api/v1/project").expect(200).json();
    assert_eq!(project["problems"], json!([]));
    assert!(project["workflows"].as_array().unwrap().contains(&json!("double")));
}

#[test]
fn whatever_is_wrong_is_a_problem_that_says_what() {
    let server = start();
    let nobody = "01890a5d-ac96-774b-bcce-b302099a8057";
    problem(server.read("/api/v1/nothing"), 404, "/api/v1/nothing");
    problem(server.read("/api"), 404, "/api");
    problem(server.read(&format!("/api/v1/runs/{nobody}")), 404, nobody);
    problem(server.read("/api/v1/runs/17"), 400, "`17` is not an id");
    problem(server.read("/api/v1/runs?stat=failed"), 400, "no query parameter `stat`; there are: state");
    problem(server.read("/api/v1/runs?state=bad"), 400, "query parameter `state`: `bad` is none of: pending");
    problem(server.read("/api/v1/runs?limit=0"), 400, "`limit`");
    problem(server.read("/api/v1/runs?since=today"), 400, "query parameter `since`");
    let post = |kind: &str, body: &str| server.request("POST", "/api/v1/runs").authorized().body(kind, body).send();
    problem(post("application/json", "{"), 400, "JSON");
    problem(post("application/json", "{}"), 422, "workflow");
    problem(post("application/json", r#"{"workflow":"double","stat":{}}"#), 422, "stat");
    problem(post("text/plain", "{}"), 415, "application/json");
    let wrong = server.request("DELETE", "/api/v1/runs").authorized().send();
    let allowed: Vec<&str> = wrong.header("allow").unwrap().split(',').map(str::trim).collect();
    assert!(allowed.contains(&"GET") && allowed.contains(&"POST"), "{allowed:?}");
    problem(wrong, 405, "DELETE");
}

#[test]
fn a_token_does_what_its_scopes_say_until_it_is_revoked() {
    let server = start();
    let create = |scopes: Value| act(&server, "/api/v1/tokens", &json!({ "name": "a program", "scopes": scopes }));
    let token = |scope: &str| {
        let created = create(json!([scope])).expect(201).json();
        (created["id"].as_str().unwrap().to_owned(), created["secret"].as_str().unwrap().to_owned())
    };
    let with = |method: &str, path: &str, token: &str| {
        let request = server.request(method, path).header("authorization", &format!("Bearer {token}"));
        request.json(&json!({ "workflow": "double", "state": { "data": { "n": 1 } } })).send().status
    };
    let (reader, writer) = (token("read"), token("write"));
    assert_eq!(with("GET", "/api/v1/runs", &reader.1), 200);
    assert_eq!(with("POST", "/api/v1/runs", &reader.1), 403);
    assert_eq!(with("GET", "/api/v1/tokens", &reader.1), 403);
    assert_eq!(with("POST", "/api/v1/runs", &writer.1), 201);
    assert_eq!(with("GET", "/api/v1/runs", &writer.1), 403);
    assert_eq!(with("GET", "/api/v1/credentials", &writer.1), 403);
    problem(server.get("/api/v1/runs"), 401, "token");
    problem(server.get("/api/v1/tokens"), 401, "token");

    let list = server.read("/api/v1/tokens").expect(200);
    assert!(!list.text().contains(&reader.1), "a token is shown once");
    assert_eq!(data(&list.json()).len(), 3);
    let revoke = || server.request("DELETE", &format!("/api/v1/tokens/{}", reader.0)).authorized().send();
    revoke().expect(204);
    assert_eq!(with("GET", "/api/v1/runs", &reader.1), 401);
    problem(revoke(), 404, &reader.0);
    problem(create(json!(["root"])), 422, "root");
    problem(create(json!([])), 422, "empty");
}

#[test]
fn credentials_can_be_written_and_not_read() {
    let server = start();
    let secret = "open sesame, says nobody else";
    let put = |name: &str, body: &Value| {
        server.request("PUT", &format!("/api/v1/credentials/{name}")).authorized().json(body).send()
    };
    put("bank", &json!({ "password": secret })).expect(204);
    put("bank", &json!({ "password": secret, "user": "ana" })).expect(204);
    let list = server.read("/api/v1/credentials").expect(200);
    assert_eq!(list.json()["data"], json!([{ "name": "bank" }]));
    assert!(matches!(server.read("/api/v1/credentials/bank").status, 404 | 405));
    problem(put("bank", &json!("text")), 422, "");
    for entry in
        walkdir::WalkDir::new(server.dir().join(".fnhost")).into_iter().flatten().filter(|e| e.file_type().is_file())
    {
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "in the clear: {:?}", entry.path());
    }
    let delete = || server.request("DELETE", "/api/v1/credentials/bank").authorized().send();
    delete().expect(204);
    problem(delete(), 404, "`bank`");
}

/// A stream of events, name and data.
struct Stream(std::io::Lines<BufReader<std::net::TcpStream>>);

impl Stream {
    fn open(server: &Server, path: &str) -> Self {
        let mut stream = server.connect();
        let (address, token) = (&server.address, &server.token);
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert!(lines.next().unwrap().unwrap().contains(" 200 "), "{path}");
        assert!(
            lines
                .by_ref()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .any(|line| line.contains("text/event-stream"))
        );
        Self(lines)
    }
}

impl Iterator for Stream {
    type Item = (String, Value);

    fn next(&mut self) -> Option<Self::Item> {
        let mut name = String::new();
        for line in self.0.by_ref().map_while(Result::ok) {
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).unwrap()));
            } else if line == "0" {
                break;
            }
        }
        None
    }
}

#[test]
fn a_run_is_told_from_what_it_is_so_far_to_its_end() {
    let server = start();
    let all = Stream::open(&server, "/api/v1/events?workflow=double&types=run_created&types=run_ended");
    let id = run(&server, 3);
    let told: Vec<(String, Value)> = all.take(2).collect();
    assert_eq!((told[0].0.as_str(), told[1].0.as_str()), ("run_created", "run_ended"));
    assert_eq!((&told[0].1["run"], &told[1].1["state"]), (&json!(id), &json!("completed")));

    let past: Vec<(String, Value)> = Stream::open(&server, &format!("/api/v1/runs/{id}/events")).collect();
    assert_eq!(past.len(), 2, "the stream of a run that has ended ends: {past:?}");
    assert_eq!((past[0].0.as_str(), &past[0].1["tasks"][1]["step"]), ("run", &json!("report")));
    assert_eq!((past[1].0.as_str(), &past[1].1["state"]), ("run_ended", &json!("completed")));

    let waits = act(&server, "/api/v1/runs", &json!({ "workflow": "wait" })).expect(201).json();
    let waits = waits["id"].as_str().unwrap();
    let mut live = Stream::open(&server, &format!("/api/v1/runs/{waits}/events"));
    assert_eq!(live.next().unwrap().0, "run");
    act(&server, &format!("/api/v1/runs/{waits}/cancel"), &json!({})).expect(200);
    let rest: Vec<(String, Value)> = live.collect();
    assert_eq!(rest.last().unwrap().1["state"], "cancelled");
    problem(server.read("/api/v1/events?types=nothing"), 400, "`types`");
}

#[test]
fn a_client_that_reads_too_slowly_learns_that_it_missed_something() {
    let gate = Gate::new();
    let server = Setup::new(&format!(
        "
jobs:
  chatty:
    adaptor: common
    trigger: any
    expression: |
      fn(async state => {{
        await fetch('{}');
        for (let line = 0; line < 30000; line++) console.log('-'.repeat(1000));
        return state;
      }})
triggers:
  any: {{ criteria: '{{}}' }}
",
        gate.url()
    ))
    .args(&["--log-limit", "100"])
    .start();
    let id = server.send_one(&json!({}));
    let held = gate.held();
    let mut all = Stream::open(&server, "/api/v1/events");
    let one = Stream::open(&server, &format!("/api/v1/runs/{id}/events"));
    held.open();
    server.run_in(&id, "completed");

    let (_, lagged) = all.find(|(name, _)| name == "lagged").unwrap();
    assert!(lagged["missed"].as_u64() > Some(0), "{lagged}");
    let told: Vec<(String, Value)> = one.filter(|(name, _)| name != "log").collect();
    let after: Vec<_> = told.iter().skip_while(|(name, _)| name != "lagged").collect();
    // The run as it is now stands for what was missed.
    assert!(after.iter().any(|(name, _)| name == "run"));
    assert_eq!(after.last().map(|(name, _)| name.as_str()), Some("run_ended"));
}

#[test]
fn streams_end_when_the_service_stops() {
    let mut server = start();
    let mut stream = Stream::open(&server, "/api/v1/events");
    server.signal("TERM");
    assert!(stream.next().is_none());
    assert!(server.wait().success());
}

#[test]
fn the_openapi_document_is_the_one_in_the_repository() {
    let server = start();
    let served = server.get("/api/v1/openapi.json").expect(200);
    let printed = server.command(&["openapi"]).output().unwrap();
    assert_eq!(served.text(), String::from_utf8(printed.stdout).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == served.text(), "the API has changed; if that was meant: fnhost openapi > docs/openapi.json");

    let document = served.json();
    let page = server.get("/api/v1/docs").expect(200).text();
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let mut ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    for id in &ids {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id} is not on the page");
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "every operation has an id of its own");
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document["components"]["schemas"].get(reference).is_some(), "there is no schema {reference}");
    }
}
