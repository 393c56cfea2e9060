//! Tokens: made, used and revoked, with and without a server that runs.

use std::process::Output;

use serde_json::{Value, json};

use super::server::{Server, Setup};

const PROJECT: &str = "
jobs:
  echo: { adaptor: common, trigger: all, expression: fn(state => state) }
triggers:
  all: { criteria: {} }
";

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn reads(server: &Server, header: &str, value: &str) -> u16 {
    server.request("GET", "/api/v1/runs").header(header, value).send().status
}

#[test]
fn a_token_made_before_the_server_starts_works_until_it_is_revoked() {
    let setup = Setup::new(PROJECT);
    let made = text(&setup.command(&["token", "create", "clinic", "--scope", "read"]).output().unwrap());
    let token = made.trim().to_owned();
    assert!(token.starts_with("fnh_") && token.len() == 47, "{token}");
    let admin = text(&setup.command(&["token", "create", "boss", "--scope", "admin"]).output().unwrap());
    let listed = text(&setup.command(&["token", "list", "--json"]).output().unwrap());
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert!(!listed.to_string().contains(&token));
    let clinic = listed.as_array().unwrap().iter().find(|token| token["name"] == "clinic").unwrap();
    assert_eq!(clinic["scopes"], json!(["read"]));
    let id = clinic["id"].as_str().unwrap().to_owned();

    let server = setup.start();
    assert_eq!(server.token, "", "there was a token already, so none is made");
    assert_eq!(reads(&server, "authorization", &format!("Bearer {token}")), 200);
    use base64::Engine as _;
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("anyone:{token}"));
    assert_eq!(reads(&server, "authorization", &format!("Basic {basic}")), 200);
    assert_eq!(reads(&server, "cookie", &format!("fnhost_session={token}")), 200);
    for value in ["Bearer fnh_unknown", "Bearer", &format!("Bearer {token}x"), &format!("Digest {token}")] {
        assert_eq!(reads(&server, "authorization", value), 401, "{value}");
    }

    // The store belongs to the server now.
    let local = server.command(&["token", "list"]).output().unwrap();
    assert!(!local.status.success() && String::from_utf8_lossy(&local.stderr).contains("--url"));
    let remote = |args: &[&str]| {
        let mut command = server.command(&["token", "--url", &server.url]);
        command.args(args).env("FNHOST_TOKEN", admin.trim()).output().unwrap()
    };
    assert!(text(&remote(&["list"])).contains("clinic"));
    let other = text(&remote(&["create", "other", "--scope", "read,write"]));
    assert_eq!(reads(&server, "authorization", &format!("Bearer {}", other.trim())), 200);
    text(&remote(&["revoke", &id]));
    assert_eq!(reads(&server, "authorization", &format!("Bearer {token}")), 401, "at once");
    assert!(!remote(&["revoke", &id]).status.success());
    let log = server.log();
    assert!(!log.contains(&token) && !log.contains(admin.trim()) && !log.contains(other.trim()));
}

#[test]
fn a_token_allows_what_its_scopes_say() {
    let server = Setup::new(PROJECT).start();
    let make = |scopes: &[&str]| {
        let body = json!({ "name": "x", "scopes": scopes });
        let made = server.request("POST", "/api/v1/tokens").authorized().json(&body).send().expect(201).json();
        format!("Bearer {}", made["secret"].as_str().unwrap())
    };
    let (reader, metrics) = (make(&["read"]), make(&["metrics"]));
    assert_eq!(reads(&server, "authorization", &reader), 200);
    assert_eq!(reads(&server, "authorization", &metrics), 403);
    let list = |token: &str| server.request("GET", "/api/v1/tokens").header("authorization", token).send().status;
    assert_eq!(list(&reader), 403);
    let status = |token: &str| server.request("GET", "/metrics").header("authorization", token).send().status;
    assert_eq!((status(&metrics), status(&reader), server.get("/metrics").status), (200, 403, 401));
}

#[test]
fn a_page_elsewhere_cannot_use_the_cookie_of_who_is_signed_in() {
    let server = Setup::new(PROJECT).start();
    let cookie = format!("fnhost_session={}", server.token);
    let asked = |name: &str, value: &str| {
        server.request("GET", "/api/v1/runs").header("cookie", &cookie).header(name, value).send().status
    };
    assert_eq!(asked("sec-fetch-site", "same-origin"), 200);
    assert_eq!(asked("sec-fetch-site", "cross-site"), 403);
    assert_eq!(asked("origin", "http://localhost:1"), 403);
}

#[test]
fn a_server_without_tokens_answers_programs_of_its_machine_only() {
    let server = Setup::new(PROJECT).args(&["--no-auth"]).start();
    server.get("/api/v1/runs").expect(200);
    let from = |name: &str, value: &str| server.request("GET", "/api/v1/runs").header(name, value).send().status;
    assert_eq!(from("sec-fetch-site", "cross-site"), 403);
    assert_eq!(from("origin", "https://evil.example"), 403);
    // A name of somebody else's that leads to this machine.
    use std::io::Write as _;
    let mut stream = server.connect();
    stream.write_all(b"GET /api/v1/runs HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(super::server::Answer::read(&mut stream).status, 403);
}

#[test]
fn a_server_without_tokens_listens_to_its_machine_only() {
    let setup = Setup::new(PROJECT);
    let refused =
        setup.command(&["serve", ".", "--no-install", "--port", "0", "--no-auth", "--host", "0.0.0.0"]).output();
    let refused = super::support::Ran::new(refused.unwrap()).expect(2);
    assert!(refused.stderr.contains("--no-auth goes with a loopback address only"), "{}", refused.stderr);
}
