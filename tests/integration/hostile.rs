//! A thousand requests of somebody who means harm: each gets the answer it deserves, and the server stays well.

use std::io::Write as _;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::server::{Answer, Server, Setup};

const PROJECT: &str = "
jobs:
  echo: { adaptor: common, trigger: all, expression: fn(state => state) }
  hook: { adaptor: common, trigger: hook, expression: fn(state => state) }
triggers:
  all: { criteria: { form: never } }
  hook: { webhook: hook, auth: [{ api_key: keys }] }
credentials:
  keys: { key: the-key-of-the-hook }
";

/// More than this, in MB, is a leak or a way to take the machine down. An idle server takes about 200.
const MOST_MEMORY: u64 = 1200;

/// What is sent, byte by byte, and the answers that are right. 0: the connection ends without one.
struct Attack {
    name: String,
    bytes: Vec<u8>,
    right: Vec<u16>,
}

fn attack(name: impl Into<String>, right: &[u16], bytes: impl Into<Vec<u8>>) -> Attack {
    Attack { name: name.into(), bytes: bytes.into(), right: right.to_vec() }
}

/// A POST of a body to a path.
fn post(path: &str, kind: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

const JSON: &str = "application/json";

/// Numbers that look random and are the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

fn malformed_bodies(random: &mut Random) -> Vec<Attack> {
    let whole = br#"{"a":[1,2.5e3,{"b":"\u00e9\n"}],"c":null,"d":true}"#;
    let mut attacks = Vec::new();
    for length in 1..whole.len() {
        attacks.push(attack(format!("cut after {length}"), &[400], post("/inbox", JSON, &whole[..length])));
    }
    for _ in 0..150 {
        let mut body = whole.to_vec();
        let at = random.next(body.len());
        body[at] = random.next(256) as u8;
        // Some are JSON still.
        let right = if serde_json::from_slice::<serde_json::Value>(&body).is_ok() { 202 } else { 400 };
        attacks.push(attack(format!("{:?}", String::from_utf8_lossy(&body)), &[right], post("/inbox", JSON, &body)));
    }
    for (index, bad) in
        [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\xaf"].iter().enumerate()
    {
        let text = [b"{\"a\":\"", *bad, b"\"}"].concat();
        for kind in [JSON, "text/plain", "application/xml", "application/cloudevents+json"] {
            attacks.push(attack(format!("bad UTF-8 {index} as {kind}"), &[400], post("/inbox", kind, &text)));
        }
    }
    for text in [
        "NaN",
        "Infinity",
        "{'a':1}",
        "{a:1}",
        "[1,]",
        "01",
        "\"\\ud800\"",
        "\"\u{1}\"",
        "1e999999",
        "undefined",
        "{}{}",
    ] {
        attacks.push(attack(text, &[400], post("/inbox", JSON, text)));
    }
    attacks
}

fn strange_shapes() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for depth in [128, 1_000, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            let closed = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let right = [400];
            attacks.push(attack(format!("{depth} deep {open}"), &right, post("/inbox", JSON, closed)));
            attacks.push(attack(format!("{depth} open {open}"), &right, post("/inbox", JSON, open.repeat(depth))));
            let event = format!(
                r#"{{"specversion":"1.0","id":"{depth}","source":"s","type":"t","data":{}1{}}}"#,
                open.repeat(depth),
                close.repeat(depth)
            );
            attacks.push(attack("a deep event", &right, post("/inbox", "application/cloudevents+json", event)));
        }
    }
    for count in [2, 1_000, 50_000] {
        let same = format!("{{{}\"z\":1}}", "\"a\":1,".repeat(count));
        attacks.push(attack(format!("{count} times one key"), &[202], post("/inbox", JSON, same)));
        let form = "a=1&".repeat(count);
        let right = if count > 10_000 { 400 } else { 202 };
        attacks.push(attack("a form of one name", &[right], post("/inbox", "application/x-www-form-urlencoded", form)));
    }
    for key in ["__proto__", "constructor", "toString", "", "\\u0000"] {
        let body = format!("{{\"{key}\":{{\"form\":\"never\"}},\"{key}\":1}}");
        attacks.push(attack(key, &[202], post("/inbox", JSON, body)));
    }
    for many in [r#"[{"":0}]"#, "[[]]", "[0]", "[\"\"]"] {
        // A megabyte of small values, which take many times that in memory.
        let item = &many[1..many.len() - 1];
        let body = format!("[{item}{}]", format!(",{item}").repeat((1 << 20) / (item.len() + 1) - 2));
        attacks.push(attack(format!("many of {item}"), &[202], post("/inbox", JSON, body)));
    }
    attacks
}

fn wrong_types() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for kind in [
        "image/png",
        "application/octet-stream",
        "application/pdf",
        "application/cloudevents-batch+json",
        "x",
        "/",
        "*/*",
        "application/jsonn",
        "json",
        "multipart/mixed; boundary=x",
        "\u{e9}",
    ] {
        attacks.push(attack(kind, &[400, 415], post("/inbox", kind, "{}x")));
    }
    for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x"] {
        for body in ["x", "--x", "--x\r\n", "--x\r\n\r\n", "--x\r\ncontent-disposition: form-data\r\n\r\n"] {
            attacks.push(attack(format!("{kind} {body:?}"), &[400], post("/inbox", kind, body)));
        }
    }
    for encoding in ["gzip", "br", "deflate", "gzip, gzip", "nonsense"] {
        let request = String::from_utf8(post("/inbox", JSON, "{}")).unwrap();
        let request = request.replace("\r\n\r\n", &format!("\r\ncontent-encoding: {encoding}\r\n\r\n"));
        attacks.push(attack(encoding, &[415], request));
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "NONSENSE"] {
        attacks.push(attack(method, &[405], get("/inbox").replace("GET", method)));
    }
    for body in [r#"{"id":"1"}"#, "[]", "1", "null", r#"{"specversion":"9","id":"1","source":"s","type":"t"}"#] {
        attacks.push(attack(body, &[400], post("/inbox", "application/cloudevents+json", body)));
    }
    for header in ["idempotency-key: ", "x-deliver-at: soon", "x-deliver-at: 99999-01-01T00:00:00Z"] {
        let request = String::from_utf8(post("/inbox", JSON, "{}")).unwrap();
        attacks.push(attack(header, &[400], request.replacen("\r\n", &format!("\r\n{header}\r\n"), 1)));
    }
    for query in ["wait=-1", "wait=x", "delay=x", "delay=-5m", "deliver_at=x", "wait=99999999999999999999"] {
        attacks.push(attack(query, &[400], post(&format!("/inbox?{query}"), JSON, "{}")));
    }
    attacks
}

fn paths() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for path in [
        "/i/../api/v1/tokens",
        "/i/%2e%2e/api/v1/tokens",
        "/i/.%2e/api",
        "/i/%2E./api",
        "/./inbox",
        "//inbox",
        "/inbox//",
        "/inbox/..",
        "/inbox/%2e",
        "/inbox/.",
        "/i/a%2fb",
        "/i/a%2Fb",
        "/i/%5c..%5capi",
        "/i/a%00b",
        "/i/%0d%0aset-cookie:x",
        "/i/%",
        "/i/%4",
        "/i/%zz",
        "/i/%ff",
        "/i/%c0%ae%c0%ae/",
        "/i/%252e%252e/",
        "/inbox/%20",
        "/inbox/a%3Bb",
        "/inbox/...",
    ] {
        attacks.push(attack(path, &[400, 404], post(path, JSON, "{}")));
        attacks.push(attack(path, &[400, 404, 405], get(path)));
    }
    for path in
        ["/nowhere", "/i/", "/i/hook/more", "/INBOX", "/I/hook", "/.env", "/.git/config", "/wp-login.php", "/cgi-bin/x"]
    {
        attacks.push(attack(path, &[404, 405], get(path)));
        attacks.push(attack(path, &[404, 405], post(path, JSON, "{}")));
    }
    for path in ["/api/v1/tokens", "/api/v1/runs", "/api/v1/messages", "/metrics"] {
        attacks.push(attack(path, &[401], get(path)));
        for token in ["Bearer x", "Bearer fnh_", "Basic eDp4", "Basic =", "Bearer ' OR 1=1 --", "\u{1}"] {
            let request = get(path).replace("host: x", &format!("host: x\r\nauthorization: {token}"));
            attacks.push(attack(token, &[400, 401], request));
        }
    }
    for length in [1_000, 8_000, 60_000, 100_000] {
        let path = format!("/inbox/{}", "a".repeat(length));
        attacks.push(attack(format!("{length} bytes of path"), &[400, 414, 431], post(&path, JSON, "{}")));
        let path = format!("/i/hook?{}", "a=b&".repeat(length / 4));
        attacks.push(attack(format!("{length} bytes of query"), &[401, 414, 431], post(&path, JSON, "{}")));
    }
    attacks
}

fn heads() -> Vec<Attack> {
    let head = |extra: &str| format!("POST /inbox HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{extra}\r\n\r\n{{}}");
    let mut attacks = Vec::new();
    for count in [101, 500, 5_000] {
        let headers: String = (0..count).map(|index| format!("x-{index}: y\r\n")).collect();
        attacks.push(attack(format!("{count} headers"), &[431], head(&format!("{headers}content-length: 2"))));
    }
    for length in [70_000, 500_000] {
        let header = format!("x-long: {}\r\ncontent-length: 2", "a".repeat(length));
        attacks.push(attack(format!("a header of {length}"), &[431], head(&header)));
    }
    for (name, extra) in [
        ("two lengths", "content-length: 2\r\ncontent-length: 3"),
        ("a negative length", "content-length: -1"),
        ("a length that is none", "content-length: 2x"),
        ("a length beyond all", "content-length: 99999999999999999999999"),
        ("chunked and more", "transfer-encoding: chunked, gzip"),
        ("not chunked", "transfer-encoding: gzip"),
        ("a header without a name", ": x\r\ncontent-length: 2"),
        ("a name with a space", "content-length : 2"),
        ("a folded header", "x-a: b\r\n c\r\ncontent-length: 2"),
        ("a header with NUL", "x-a: \0\r\ncontent-length: 2"),
        ("two hosts", "host: y\r\ncontent-length: 2\r\ncontent-type: application/json"),
    ] {
        attacks.push(attack(name, &[400], head(extra)));
    }
    // Length and chunks at once: the chunks count, and the connection ends, so that nothing can hide behind.
    let smuggled = "POST /inbox HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\
        transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /api/v1/tokens HTTP/1.1\r\nhost: x\r\n\r\n";
    attacks.push(attack("length and chunks", &[202], smuggled));
    for (name, bytes) in [
        ("a chunk size that is none", "zz\r\n{}\r\n0\r\n\r\n"),
        ("a chunk size beyond all", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("a chunk longer than it says", "1\r\n{}\r\n0\r\n\r\n"),
    ] {
        let bytes = format!("POST /inbox HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{bytes}");
        attacks.push(attack(name, &[400], bytes));
    }
    for (name, right, bytes) in [
        ("no host", &[400][..], "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"),
        ("another protocol", &[400], "GET /healthz HTTP/9.9\r\n\r\n"),
        ("no protocol", &[400], "GET /healthz\r\n\r\n"),
        ("TLS without TLS", &[400], "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n"),
        ("no request at all", &[400], "hello there, how are you?\r\n\r\n"),
        (
            "a tunnel",
            &[400, 404, 405],
            "CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\nconnection: close\r\n\r\n",
        ),
        (
            "a foreign address",
            &[401],
            "GET http://example.org/api/v1/tokens HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        ),
        ("HTTP/2 that breaks off", &[0], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame at all"),
    ] {
        attacks.push(attack(name, right, bytes));
    }
    attacks
}

fn sizes() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for megabytes in [2, 20] {
        let body = "x".repeat(megabytes << 20);
        for path in ["/inbox", "/i/hook"] {
            attacks.push(attack(format!("{megabytes} MB for {path}"), &[413], post(path, "text/plain", &body)));
        }
        let chunks = format!("{:x}\r\n{body}\r\n", body.len());
        let chunked = format!("POST /inbox HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        attacks.push(attack(format!("{megabytes} MB in a chunk"), &[413], chunked));
    }
    for announced in ["2000000", "1000000000000", "18446744073709551614"] {
        let head = format!("POST /inbox HTTP/1.1\r\nhost: x\r\ncontent-length: {announced}\r\n\r\n");
        attacks.push(attack(format!("{announced} bytes announced"), &[413, 431], head));
    }
    attacks
}

fn slow() -> Vec<Attack> {
    let head = "POST /inbox HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    (0..20)
        .flat_map(|_| {
            [
                attack("a body that stops", &[408], format!("{head}content-length: 100\r\n\r\n{{")),
                attack("chunks that stop", &[408], format!("{head}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n")),
                attack("a head that stops", &[0], head),
            ]
        })
        .collect()
}

/// Sends an attack, and gives the answer.
fn launch(server: &Server, attack: &Attack) -> u16 {
    let mut stream = server.connect();
    // The server may well stop reading before the end.
    let _ = stream.write_all(&attack.bytes);
    Answer::try_read(&mut stream).map_or(0, |answer| answer.status)
}

fn all() -> Vec<Attack> {
    let mut random = Random(4);
    let mut attacks =
        [malformed_bodies(&mut random), strange_shapes(), wrong_types(), paths(), heads(), sizes(), slow()];
    let mut all: Vec<Attack> = attacks.iter_mut().flat_map(std::mem::take).collect();
    // What is left of a thousand: noise in the place of a request, a credential and a body.
    while all.len() < 1000 {
        let noise: Vec<u8> = (0..random.next(200) + 1).map(|_| random.next(256) as u8).collect();
        all.push(match all.len() % 3 {
            0 => {
                // Lines that end, so that the server need not wait for more.
                let lines = [b"\x00".as_slice(), &noise, b"\r\n\r\n"].concat();
                attack("noise", &[400], lines)
            }
            1 => {
                let text: String = noise.iter().map(|byte| char::from(b'!' + byte % 90)).collect();
                let request = String::from_utf8(post("/i/hook", JSON, "{}")).unwrap();
                attack("a key", &[404], request.replacen("\r\n", &format!("\r\nx-api-key: {text}\r\n"), 1))
            }
            _ => attack("a body of noise", &[400], post("/inbox", JSON, [b"\xfe".as_slice(), &noise].concat())),
        });
    }
    all
}

#[test]
fn a_thousand_hostile_requests_get_the_right_answers_and_do_no_harm() {
    let server = Setup::new(PROJECT).args(&["--body-limit", "1.5", "--read-timeout", "2s"]).start();
    let attacks = all();
    let next = AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                while let Some(attack) = attacks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let status = launch(&server, attack);
                    // A refusal can be lost with the connection that the server closes on what is still being sent.
                    let is_lost = status == 0 && attack.bytes.len() > 60_000;
                    if !attack.right.contains(&status) && !is_lost {
                        wrong.lock().unwrap().push(format!("{}: {status}, not {:?}", attack.name, attack.right));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), attacks.len(), wrong.join("\n"));
    assert!(attacks.len() >= 1000);
    let log = server.log();
    assert!(!log.contains("panic"), "{log}");
    assert!(!log.contains("the-key-of-the-hook"));
    let memory = server.peak_memory();
    assert!(memory < MOST_MEMORY, "{memory} MB");
    server.get("/readyz").expect(200);
    server.post("/inbox", &json!({ "form": "fine" })).expect(202);
    let keyed = server.request("POST", "/i/hook").header("x-api-key", "the-key-of-the-hook").json(&json!({})).send();
    assert_eq!(keyed.status, 200);
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let server = Setup::new(PROJECT).args(&["--connections", "50"]).start();
    for _ in 0..200 {
        let mut stream = server.connect();
        let _ = stream.write_all(b"POST /inbox?wait=60s HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{");
        let _ = stream.shutdown(Shutdown::Both);
    }
    server.post("/inbox", &json!({})).expect(202);
    assert!(!server.log().contains("panic"));
}
