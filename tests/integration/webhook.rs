//! Webhooks: an address of one workflow, with the answers that OpenFn's Lightning gives.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::server::{Server, Setup};

const PROJECT: &str = "
jobs:
  echo:
    adaptor: common
    trigger: open
    expression: fn(state => state)
  double:
    adaptor: common
    trigger: answering
    expression: |
      fn(state => ({ data: { n: state.data.n * 2 } }))
  fail:
    adaptor: common
    trigger: failing
    expression: fn(() => { throw new Error('no room') })
  say:
    adaptor: common
    trigger: own-answer
    expression: |
      fn(state => ({ ...state, webhookResponse: state.data }))
  wait:
    adaptor: common
    trigger: slow
    expression: fn(state => new Promise(resolve => setTimeout(() => resolve(state), 60000)))
  off: { adaptor: common, trigger: switched-off, expression: fn(state => state) }
  keyed: { adaptor: common, trigger: keyed, expression: fn(state => state) }
  signed: { adaptor: common, trigger: signed, expression: fn(state => state) }
triggers:
  open: { webhook: open }
  answering: { webhook: double, reply: after_completion, success_code: 200, error_code: 500 }
  failing: { webhook: fail, reply: after_completion, error_code: 500 }
  own-answer: { webhook: say, reply: after_completion }
  slow: { webhook: slow, reply: after_completion }
  switched-off: { webhook: off, enabled: false }
  keyed: { webhook: keyed, auth: [{ basic: login }, { api_key: keys }, { bearer: tokens }] }
  signed:
    webhook: signed
    auth:
      - signature: { scheme: github, credential: shared }
      - signature: { scheme: standard_webhooks, credential: standard }
credentials:
  login: { username: jo, password: p4ssword }
  keys: { key: [old-key-1, new-key-2] }
  tokens: { token: t0ken-of-jo }
  shared: { secret: It's a Secret to Everybody }
  standard: { secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }
";

fn start() -> Server {
    Setup::new(PROJECT).args(&["--wait-limit", "20s"]).start()
}

#[test]
fn a_webhook_answers_when_the_message_is_kept() {
    let server = start();
    let found = server.get("/i/open").expect(200).json();
    assert_eq!(found["message"], "OpenFn webhook trigger found. Make a POST request to execute this workflow.");
    let answer = server.post("/i/open?a=1", &json!({ "n": 1 })).expect(200);
    let order = answer.json()["work_order_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("x-meta-work-order-id"), Some(order.as_str()));
    let run = answer.header("x-meta-run-id").unwrap();
    assert_eq!(server.read(&format!("/api/v1/runs/{run}")).expect(200).json()["workflow"], "echo");
    let message = server.read(&format!("/api/v1/messages/{order}")).expect(200).json();
    assert_eq!((&message["data"], &message["request"]["path"]), (&json!({ "n": 1 }), &json!("/i/open")));

    for (path, body, status, error) in [
        ("/i/nowhere", "{}", 404, "Webhook not found"),
        ("/i/off", "{}", 403, "trigger_disabled"),
        ("/i/open", "{", 400, "Bad Request"),
    ] {
        let answer = server.request("POST", path).body("application/json", body).send().expect(status);
        assert_eq!(answer.json()["error"], error, "{path}");
    }
    assert_eq!(server.get("/i/nowhere").status, 404);
    let unsupported = server.request("POST", "/i/open").body("image/png", "x").send().expect(415);
    assert_eq!(unsupported.json()["error"], "Unsupported Media Type");
}

#[test]
fn a_webhook_can_answer_with_what_its_run_left() {
    let server = start();
    let answer = server.post("/i/double", &json!({ "n": 21 })).expect(200);
    let body = answer.json();
    assert_eq!(body["data"], json!({ "data": { "n": 42 } }));
    let meta = body["meta"].as_object().unwrap();
    assert_eq!((&meta["state"], &meta["error_type"]), (&json!("success"), &Value::Null));
    assert_eq!(meta["run_id"], answer.header("x-meta-run-id").unwrap());
    assert_eq!(meta["work_order_id"], answer.header("x-meta-work-order-id").unwrap());
    for time in ["inserted_at", "started_at", "claimed_at", "finished_at"] {
        assert!(meta[time].is_string(), "{time}");
    }

    let failed = server.post("/i/fail", &json!({})).expect(500).json();
    assert_eq!((&failed["meta"]["state"], &failed["meta"]["error_type"]), (&json!("failed"), &json!("JobError")));
    assert!(!failed["data"]["message"].as_str().unwrap().contains("no room"), "{failed}");
}

#[test]
fn a_job_says_what_its_webhook_answers() {
    let server = start();
    let say = |response: Value| server.post("/i/say", &response);
    let object = say(json!({ "status": 202, "body": { "id": 7 } })).expect(202);
    assert_eq!((object.json(), object.header("content-type")), (json!({ "id": 7 }), Some("application/json")));

    let headers = json!({ "Content-Type": "text/xml", "X-Mine": "1", "Set-Cookie": "a=b", "Content-Length": "1" });
    let xml = say(json!({ "headers": headers, "body": "<a/>" })).expect(201);
    assert_eq!((xml.text().as_str(), xml.header("content-type")), ("<a/>", Some("text/xml")));
    assert_eq!((xml.header("x-mine"), xml.header("set-cookie")), (Some("1"), None));
    assert_eq!(xml.header("x-content-type-options"), Some("nosniff"));

    let empty = say(json!({ "status": 204, "body": { "id": 7 } })).expect(204);
    assert!(empty.body.is_empty());
    let status_only = say(json!({ "status": 299 })).expect(299).json();
    assert_eq!(status_only["meta"]["state"], "success");
    say(json!({ "status": 9999 })).expect(201);
    say(json!("nonsense")).expect(201);
}

#[test]
fn who_waits_too_long_is_told_where_to_look() {
    let server = Setup::new(PROJECT).args(&["--wait-limit", "1s"]).start();
    let late = server.post("/i/slow", &json!({})).expect(504);
    let body = late.json();
    assert_eq!(body["error"], "timeout");
    assert_eq!(body["work_order_id"], late.header("x-meta-work-order-id").unwrap());
    let run = late.header("x-meta-run-id").unwrap();
    let state = server.read(&format!("/api/v1/runs/{run}")).expect(200).json()["state"].clone();
    assert!(["pending", "running"].contains(&state.as_str().unwrap()), "{state}");
}

#[test]
fn any_of_its_credentials_opens_a_webhook() {
    let server = start();
    let status = |header: Option<(&str, &str)>| {
        let request = server.request("POST", "/i/keyed").json(&json!({}));
        match header {
            Some((name, value)) => request.header(name, value).send().status,
            None => request.send().status,
        }
    };
    assert_eq!(status(None), 401);
    let basic = |login: &str| format!("Basic {}", BASE64_STANDARD.encode(login));
    for (name, value) in [
        ("authorization", basic("jo:p4ssword")),
        ("x-api-key", "old-key-1".into()),
        ("x-api-key", "new-key-2".into()),
        ("authorization", "Bearer t0ken-of-jo".into()),
    ] {
        assert_eq!(status(Some((name, &value))), 200, "{name}: {value}");
    }
    for (name, value) in [
        ("authorization", basic("jo:wrong")),
        ("x-api-key", "t0ken-of-jo".into()),
        ("authorization", "Bearer new-key-2".into()),
        ("authorization", format!("Bearer {}", server.token)),
    ] {
        assert_eq!(status(Some((name, &value))), 404, "{name}: {value}");
    }
    let unauthorized = server.post("/i/keyed", &json!({})).expect(401);
    assert_eq!(unauthorized.json(), json!({ "error": "Unauthorized" }));
    assert!(unauthorized.header("www-authenticate").is_some());
}

#[test]
fn a_signature_opens_a_webhook_for_the_body_it_signs() {
    let server = start();
    let sign = |key: &[u8], text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    };
    let body = br#"{"n": 1}"#;
    let hex: String = sign(b"It's a Secret to Everybody", body).iter().map(|byte| format!("{byte:02x}")).collect();
    let github = |body: &[u8]| {
        let request = server.request("POST", "/i/signed").header("x-hub-signature-256", &format!("sha256={hex}"));
        request.body("application/json", body).send().status
    };
    assert_eq!(github(body), 200);
    assert_eq!(github(br#"{"n": 2}"#), 404);

    let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let standard = |id: &str, time: u64| {
        let signed = [id.as_bytes(), b".", time.to_string().as_bytes(), b".", body].concat();
        let signature = format!("v1,{}", BASE64_STANDARD.encode(sign(&key, &signed)));
        server
            .request("POST", "/i/signed")
            .header("webhook-id", id)
            .header("webhook-timestamp", &time.to_string())
            .header("webhook-signature", &signature)
            .body("application/json", body.as_slice())
            .send()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let first = standard("msg_1", now).expect(200);
    let again = standard("msg_1", now).expect(200);
    assert_eq!((first.json(), again.header("idempotency-replayed")), (again.json(), Some("true")));
    assert_eq!(standard("msg_2", now - 3600).status, 404, "it was signed an hour ago");
    assert_eq!(server.post("/i/signed", &json!({})).status, 401);
}
