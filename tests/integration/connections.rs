//! Connections: TLS, limits on clients that take their time, headers on every answer, an orderly end.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::server::{Answer, Server, Setup};

const PROJECT: &str = "
jobs:
  echo: { adaptor: common, trigger: all, expression: fn(state => state) }
  pause:
    adaptor: common
    trigger: pausing
    expression: fn(state => new Promise(resolve => setTimeout(() => resolve(state), 3000)))
triggers:
  all: { criteria: {}, topic: all }
  pausing: { criteria: {}, topic: pausing }
";

fn start(args: &[&str]) -> Server {
    Setup::new(PROJECT).args(args).start()
}

#[test]
fn every_answer_has_an_id_and_is_safe_in_a_browser() {
    let server = start(&[]);
    for path in ["/healthz", "/nowhere", "/api/v1/runs", "/i/nowhere", "//inbox"] {
        let answer = server.get(path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(answer.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"), "{path}");
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 36), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let named = server.request("GET", "/healthz").header("x-request-id", "mine-1").send();
    assert_eq!(named.header("x-request-id"), Some("mine-1"));
    let missing = server.get("/nowhere").expect(404);
    assert_eq!(
        (missing.header("content-type"), &missing.json()["status"]),
        (Some("application/problem+json"), &json!(404))
    );
    assert_eq!(server.get("/inbox").expect(405).json()["status"], 405);
}

#[test]
fn pages_of_other_origins_may_only_ask_if_they_are_named() {
    let server = start(&["--cors", "https://app.example.org"]);
    let preflight = |origin: &str| {
        let request = server.request("OPTIONS", "/inbox").header("origin", origin);
        let answer = request.header("access-control-request-method", "POST").send();
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(preflight("https://app.example.org").as_deref(), Some("https://app.example.org"));
    assert_eq!(preflight("https://evil.example.org"), None);
}

#[test]
fn slow_clients_lose_their_connection() {
    let server = start(&["--read-timeout", "500ms", "--idle-timeout", "1s"]);
    let ends = |sent: &str| {
        let mut stream = server.connect();
        stream.write_all(sent.as_bytes()).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        rest
    };
    assert_eq!(ends(""), "", "nothing comes");
    assert_eq!(ends("GET /healthz HTTP/1.1\r\nhost: x\r\n"), "", "the head does not end");
    let idle = ends("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(idle.starts_with("HTTP/1.1 200"), "answered, and closed later: {idle}");
    let head = "POST /inbox/all HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for body in ["content-length: 10\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let slow = ends(&format!("{head}{body}"));
        assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    }
    server.post("/inbox/all", &json!({})).expect(202);
}

#[test]
fn bodies_are_limited_however_they_come() {
    let server = start(&["--body-limit", "1"]);
    let big = "x".repeat((1 << 20) + 1);
    assert_eq!(server.request("POST", "/inbox/all").body("text/plain", big.as_str()).send().status, 413);
    let fits = "x".repeat(1 << 20);
    server.request("POST", "/inbox/all").body("text/plain", fits).send().expect(202);

    let mut stream = server.connect();
    stream.write_all(b"POST /inbox/all HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    // The server stops reading before all is sent.
    let sent = (0..32).try_for_each(|_| stream.write_all(chunk.as_bytes()));
    match Answer::try_read(&mut stream) {
        Some(answer) => assert_eq!(answer.status, 413),
        None => assert!(sent.is_err(), "a refusal that was lost with the connection"),
    }

    let mut stream = server.connect();
    let head =
        format!("POST /inbox/all HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", big.len());
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut stream).status, 413, "before anything of the body is sent");
}

#[test]
fn more_connections_than_there_is_room_for_wait() {
    let server = start(&["--connections", "1", "--read-timeout", "1s"]);
    let first = server.connect();
    // Nobody is turned away: this one is served when the first, which says nothing, has lost its place.
    server.get("/healthz").expect(200);
    drop(first);
}

#[test]
fn each_caller_has_a_rate() {
    let server = start(&["--rate-limit", "5"]);
    let statuses: Vec<u16> = (0..100).map(|_| server.get("/i/nowhere").status).collect();
    assert!(statuses.contains(&429) && statuses.contains(&404), "{statuses:?}");
    let refused = server.until("a refusal", || Some(server.get("/i/nowhere")).filter(|answer| answer.status == 429));
    assert!(refused.header("retry-after").is_some());
    server.get("/healthz").expect(200);
}

/// Whether a job is under way: a run counts as running a little earlier, when it has a place.
fn job_waits(server: &Server) -> Option<()> {
    server.read("/metrics").text().contains(r#"fnhost_jobs_under_way{state="waiting"} 1"#).then_some(())
}

#[test]
fn a_request_under_way_is_answered_before_the_end() {
    let mut server = start(&[]);
    let mut stream = server.connect();
    let head = "POST /inbox/pausing?wait=30s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(head.as_bytes()).unwrap();
    server.until("the job waits", || job_waits(&server));
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut idle).status, 200);
    server.signal("TERM");
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "closed");
    assert_eq!(Answer::read(&mut stream).status, 201);
    assert!(server.wait().success());
}

#[test]
fn who_waits_for_a_run_that_does_not_begin_any_more_is_answered() {
    let mut server = start(&["--concurrency", "1", "--in-flight", "1"]);
    server.post("/inbox/pausing", &json!({})).expect(202);
    server.until("the job waits", || job_waits(&server));
    let mut stream = server.connect();
    let head = "POST /inbox/pausing?wait=30s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(head.as_bytes()).unwrap();
    let both = || (server.read("/api/v1/runs").text().matches(r#""pause""#).count() == 2).then_some(());
    server.until("the second message is kept", both);
    server.signal("TERM");
    assert_eq!(Answer::read(&mut stream).status, 202);
    assert!(server.wait().success());
}

#[test]
fn a_server_stops_without_waiting_for_what_is_its_own() {
    let mut server = start(&[]);
    server.post("/inbox/all?wait=30s", &json!({})).expect(201);
    server.signal("TERM");
    assert!(server.wait().success());
    let log = server.log();
    assert!(log.contains("stopped") && !log.contains(r#""level":"WARN""#), "{log}");
}

#[test]
fn tls_is_offered_with_a_certificate_and_its_key() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let setup =
        Setup::new(PROJECT).file("cert.pem", &made.cert.pem()).file("key.pem", &made.signing_key.serialize_pem());
    let mut server = setup.args(&["--tls-cert", "cert.pem", "--tls-key", "key.pem"]).start();
    assert!(server.url.starts_with("https://"));

    let get = |certificate: &str, protocol: Option<&[u8]>| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = server.connect();
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let agreed = connection.alpn_protocol().map(<[u8]>::to_vec);
        Some((answer, agreed))
    };
    let (answer, _) = get(&made.cert.pem(), None).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(get(&made.cert.pem(), Some(b"h2")).unwrap().1.as_deref(), Some(b"h2".as_slice()));

    let renewed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(server.dir().join("cert.pem"), renewed.cert.pem()).unwrap();
    std::fs::write(server.dir().join("key.pem"), renewed.signing_key.serialize_pem()).unwrap();
    server.signal("HUP");
    server.until("the new certificate", || get(&renewed.cert.pem(), None));
    std::fs::write(server.dir().join("key.pem"), "no key").unwrap();
    server.signal("HUP");
    server.until("a complaint", || server.log().contains("the TLS certificate stays as it was").then_some(()));
    assert!(get(&renewed.cert.pem(), None).is_some());
    server.kill();
}

#[test]
fn certificates_that_cannot_be_used_are_explained_at_the_start() {
    let setup = Setup::new(PROJECT).file("cert.pem", "no certificate");
    let mut command = setup.command(&["serve", ".", "--port", "0", "--no-install"]);
    let output = command.args(["--tls-cert", "cert.pem", "--tls-key", "missing.pem"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("cert.pem"), "{message}");
}
