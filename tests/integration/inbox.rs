//! The inbox: what it takes, and what it answers.

use serde_json::{Value, json};

use super::server::{Answer, Server, Setup};

/// Two workflows on the inbox, one that fails, and one on a topic of its own.
const PROJECT: &str = "
jobs:
  register:
    adaptor: common
    trigger: registration
    expression: |
      fn(state => { console.log('registering', state.data.name); return state; })
  count:
    adaptor: common
    trigger: registration
    expression: |
      fn(state => ({ ...state, data: { n: 1 } }))
  refuse:
    adaptor: common
    trigger: refusal
    expression: fn(() => { throw new Error('no room') })
  wait:
    adaptor: common
    trigger: waiting
    expression: fn(state => new Promise(resolve => setTimeout(() => resolve(state), 60000)))
  keep:
    adaptor: common
    trigger: any-lab
    expression: fn(state => state)
triggers:
  registration: { criteria: { form: registration } }
  refusal: { criteria: { form: refusal } }
  waiting: { criteria: { form: waiting } }
  any-lab: { criteria: {}, topic: lab }
";

fn start() -> Server {
    Setup::new(PROJECT).start()
}

/// The message that an answer names, as the API shows it.
fn message(server: &Server, answer: &Answer) -> Value {
    server.read(answer.header("location").expect("a location")).expect(200).json()
}

#[test]
fn the_answers_are_the_microservices() {
    let server = start();
    let form = |form: &str| json!({ "form": form, "name": "Ada" });

    for path in ["/inbox", "/inbox/"] {
        let answer = server.post(path, &form("registration")).expect(202);
        let body = answer.json();
        assert_eq!(body["meta"]["message"], "Data accepted and processing has begun.");
        assert_eq!((&body["data"], &body["errors"]), (&json!(["register", "count"]), &json!([])));
        assert_eq!(body["meta"]["run_ids"].as_array().unwrap().len(), 2);
        assert!(answer.header("location").unwrap().ends_with(body["meta"]["message_id"].as_str().unwrap()));
    }
    let nothing = server.post("/inbox", &json!({ "form": "unknown" })).expect(202).json();
    assert_eq!(nothing["data"], json!([]));

    let all = server.post("/inbox?wait=60s", &form("registration")).expect(201).json();
    assert_eq!((&all["success"], &all["match_count"]), (&json!(true), &json!(2)));
    let jobs = all["jobs"].as_array().unwrap();
    let register = jobs.iter().find(|job| job["workflow"] == "register").unwrap();
    assert_eq!(register["exit_code"], 0);
    assert!(register["log"].as_array().unwrap().contains(&json!("[JOB] registering Ada")), "{register}");

    let some = server.post("/inbox?wait=60s", &form("refusal")).expect(206).json();
    assert_eq!(
        (&some["success"], &some["match_count"], &some["jobs"][0]["exit_code"]),
        (&json!(false), &json!(1), &json!(1))
    );
    assert!(some["jobs"][0]["log"].to_string().contains("no room"), "{some}");

    let none = server.post("/inbox?wait=60s", &form("unknown")).expect(200).json();
    assert_eq!((&none["jobs"], &none["success"], &none["match_count"]), (&json!([]), &json!(true), &json!(0)));
}

#[test]
fn who_waits_can_be_set_and_overruled() {
    let server = Setup::new(PROJECT).env("ENDPOINT_STYLE", "sync").args(&["--wait-limit", "1s"]).start();
    let body = json!({ "form": "registration", "name": "Ada" });
    let slow = json!({ "form": "waiting" });
    server.post("/inbox?wait=60s", &body).expect(201);
    server.post("/inbox", &json!({ "form": "unknown" })).expect(200);
    server.request("POST", "/inbox").header("prefer", "respond-async").json(&body).send().expect(202);
    server.post("/inbox?async", &body).expect(202);
    for request in [
        server.request("POST", "/inbox"),
        server.request("POST", "/inbox?wait=500s"),
        server.request("POST", "/inbox").header("prefer", "wait=1"),
    ] {
        let late = request.json(&slow).send().expect(202);
        assert!(late.header("retry-after").is_some() && late.header("location").is_some());
        assert_eq!(late.json()["data"], json!(["wait"]));
    }
}

#[test]
fn a_body_of_each_kind_becomes_data() {
    let server = start();
    let multipart = "--X\r\ncontent-disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\
        content-type: text/plain\r\n\r\nhi\r\n--X--\r\n";
    for (kind, body, data) in [
        ("application/json", "{\"n\":1e2}", json!({ "n": 100.0 })),
        ("application/fhir+json; charset=utf-8", "[1]", json!([1])),
        ("", "{}", json!({})),
        ("application/x-www-form-urlencoded", "a=1&a=2&b=%C3%BC", json!({ "a": ["1", "2"], "b": "ü" })),
        ("application/xml", "<a/>", json!("<a/>")),
        ("text/csv", "a,b", json!("a,b")),
        (
            "multipart/form-data; boundary=X",
            multipart,
            json!({ "f": {
            "filename": "a.txt", "contentType": "text/plain", "size": 2, "encoding": "text", "content": "hi",
        } }),
        ),
        (
            "application/cloudevents+json",
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":1}}"#,
            json!({ "n": 1 }),
        ),
    ] {
        let answer = server.request("POST", "/inbox").body(kind, body).send().expect(202);
        assert_eq!(message(&server, &answer)["data"], data, "{kind}");
    }
    let event = server
        .request("POST", "/inbox")
        .header("ce-specversion", "1.0")
        .header("ce-id", "2")
        .header("ce-source", "/s")
        .header("ce-type", "t")
        .json(&json!({}))
        .send()
        .expect(202);
    assert_eq!(message(&server, &event)["request"]["headers"]["ce-id"], "2");
    assert_eq!(server.request("POST", "/inbox").body("", "a=b").send().status, 415);
    assert_eq!(server.request("POST", "/inbox").body("image/png", "x").send().status, 415);
}

#[test]
fn credentials_in_a_request_are_not_kept() {
    let server = start();
    let answer = server
        .request("POST", "/inbox?token=s3cret-one&page=2")
        .header("authorization", "Bearer s3cret-two")
        .header("cookie", "sid=s3cret-three")
        .header("x-api-key", "s3cret-four")
        .header("x-echo", "it was s3cret-two")
        .header("referer", "https://jo:s3cret-five@example.org/")
        .json(&json!({ "form": "unknown" }))
        .send()
        .expect(202);
    let message = message(&server, &answer);
    assert!(!message.to_string().contains("s3cret"), "{message}");
    let request = &message["request"];
    assert_eq!((request["method"].as_str(), request["path"].as_str()), (Some("POST"), Some("/inbox")));
    assert_eq!(request["query_params"], json!({ "token": "***", "page": "2" }));
    assert_eq!(request["headers"]["x-echo"], "it was ***");
    let database = std::fs::read(server.dir().join(".fnhost/fnhost.db")).unwrap();
    let journal = std::fs::read(server.dir().join(".fnhost/fnhost.db-wal")).unwrap_or_default();
    for bytes in [database, journal, server.log().into_bytes()] {
        assert!(!bytes.windows(6).any(|window| window == b"s3cret"));
    }
}

#[test]
fn a_message_that_comes_again_is_the_same_message() {
    let server = start();
    let send =
        |name: &str, value: &str, body: &Value| server.request("POST", "/inbox").header(name, value).json(body).send();
    let body = json!({ "form": "registration", "name": "Ada" });
    for name in ["idempotency-key", "webhook-id"] {
        let first = send(name, "k1", &body).expect(202);
        let second = send(name, "k1", &body).expect(202);
        assert_eq!(first.json(), second.json());
        assert_eq!((first.header("idempotency-replayed"), second.header("idempotency-replayed")), (None, Some("true")));
        let conflict = send(name, "k1", &json!({ "form": "other" })).expect(422);
        assert_eq!(conflict.header("content-type"), Some("application/problem+json"));
        assert_ne!(send(name, "k2", &body).expect(202).json(), first.json());
    }
    let event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": body });
    let send = || server.request("POST", "/inbox").body("application/cloudevents+json", event.to_string()).send();
    assert_eq!(send().expect(202).json(), send().expect(202).json());
    assert_eq!(server.request("POST", "/inbox").header("idempotency-key", "").json(&body).send().status, 400);
}

#[test]
fn a_message_can_be_for_later_and_on_any_topic() {
    let server = start();
    let later = server
        .request("POST", "/inbox?wait=60s")
        .header("x-deliver-at", "2999-01-01T00:00:00Z")
        .json(&json!({ "form": "registration" }))
        .send()
        .expect(202);
    let run = later.json()["meta"]["run_ids"][0].as_str().unwrap().to_owned();
    assert_eq!(server.read(&format!("/api/v1/runs/{run}")).expect(200).json()["state"], "pending");
    server.post("/inbox?delay=soon", &json!({})).expect(400);

    assert_eq!(server.post("/inbox/lab?wait=60s", &json!({})).expect(201).json()["match_count"], 1);
    assert_eq!(server.post("/inbox/nobody", &json!({})).expect(202).json()["data"], json!([]));
    server.post("/inbox/a%20b", &json!({})).expect(400);
}

#[test]
fn what_was_answered_is_there_after_a_power_cut() {
    let server = start();
    let body = json!({ "form": "registration", "name": "Ada" });
    let send = |server: &Server| server.request("POST", "/inbox").header("idempotency-key", "k1").json(&body).send();
    let first = send(&server).expect(202);
    let server = server.restart();
    assert_eq!(message(&server, &first)["data"], body);
    let again = send(&server).expect(202);
    assert_eq!((again.json(), again.header("idempotency-replayed")), (first.json(), Some("true")));
    for run in first.json()["meta"]["run_ids"].as_array().unwrap() {
        let path = format!("/api/v1/runs/{}", run.as_str().unwrap());
        server.until("the run completes", || (server.read(&path).json()["state"] == "completed").then_some(()));
    }
}

#[test]
fn a_topic_can_ask_for_a_key() {
    let server = Setup::new(PROJECT).args(&["--keyed-topics", "lab"]).start();
    let body = json!({});
    server.post("/inbox", &body).expect(202);
    let refused = server.post("/inbox/lab", &body).expect(401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
    server.request("POST", "/inbox/lab").authorized().json(&body).send().expect(202);
    let token = |scope: &str| {
        let made = json!({ "name": scope, "scopes": [scope] });
        let made = server.request("POST", "/api/v1/tokens").authorized().json(&made).send().expect(201).json();
        format!("Bearer {}", made["secret"].as_str().unwrap())
    };
    for (scope, status) in [("inbox:lab", 202), ("inbox", 202), ("inbox:other", 403), ("read", 403)] {
        let request = server.request("POST", "/inbox/lab").header("authorization", &token(scope));
        assert_eq!(request.json(&body).send().status, status, "{scope}");
    }
}

#[test]
fn health_says_whether_to_send_work() {
    let server = start();
    for path in ["/healthz", "/livez"] {
        assert_eq!(server.get(path).expect(200).json(), json!({ "status": "ok" }));
    }
    let ready = server.get("/readyz").expect(200).json();
    assert_eq!(ready["checks"], json!({ "accepting": "ok", "serving": "ok", "store": "ok" }));

    let empty = Setup::new("jobs: {}").start();
    empty.get("/healthz").expect(200);
    let waiting = empty.get("/readyz").expect(503).json();
    assert_eq!((&waiting["status"], &waiting["checks"]["store"]), (&json!("not ready"), &json!("ok")));
    let refused = empty.post("/inbox", &json!({})).expect(503);
    assert!(refused.header("retry-after").is_some(), "and nothing is kept that nobody could have matched");
}
