//! The host's own HTTP client, which stands before undici: whatever adaptors ask of it, they get what undici gives.
//!
//! Each case of `tests/fixtures/http-client` is asked twice, of undici alone (packages are loaded file by file then) and
//! through the client, with servers that also answer what no honest server would.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use serde_json::{Value, json};

use crate::support::{Run, store};

/// A server that speaks HTTP as it likes. It lives as long as the test's process.
fn server() -> String {
    static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || serve(&mut stream.unwrap(), number));
        }
    });
    origin
}

struct Asked {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The next request on `stream`.
fn read(stream: &mut TcpStream) -> Option<Asked> {
    let line = |stream: &mut TcpStream| {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).ok()?;
            line.push(byte[0]);
            if line == b"\x16" {
                // Encryption.
                return None;
            }
        }
        line.truncate(line.len() - 2);
        Some(line.iter().map(|&byte| char::from(byte)).collect::<String>())
    };
    let first = line(stream)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    while let Some(header) = line(stream).filter(|line| !line.is_empty()) {
        let (name, value) = header.split_once(": ").unwrap();
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let length = usize::from_str_radix(&line(stream)?, 16).unwrap();
            let start = body.len();
            body.resize(start + length, 0);
            stream.read_exact(&mut body[start..]).ok()?;
            line(stream)?;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = header("content-length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).ok()?;
    }
    Some(Asked { method, path, headers, body })
}

fn whole(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn json_of(body: &Value) -> Vec<u8> {
    whole("200 OK", "content-type: application/json\r\n", body.to_string().as_bytes())
}

/// What the server saw. Names of headers are the same whatever their case.
fn echo(asked: &Asked) -> Value {
    let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &asked.headers {
        headers.entry(name).or_default().push(value);
    }
    json!({ "method": asked.method, "path": asked.path, "headers": headers, "body": String::from_utf8_lossy(&asked.body) })
}

const TEXT: &[u8] = "Grüße aus der Ferne, immer wieder: Grüße aus der Ferne".as_bytes();

/// The same, as these tools encode it.
const BROTLI: &str =
    "1b3900f89d07b6cda78ce227cb2de8697d5496360ca476a43b0f28e3861facab3e79db288cec4e8c153490f489ff91815d17cd18e7b10d";
const ZSTD: &str = "28b52ffd04686d010054024772c3bcc39f652061757320646572204665726e652c20696d6d6572207769656465723a200100459f7a0277fffd48";

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn encoded(name: &str, text: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    match name.trim() {
        "gzip" | "x-gzip" => {
            flate2::read::GzEncoder::new(text, Compression::fast()).read_to_end(&mut encoded).unwrap();
        }
        "deflate" => {
            flate2::read::ZlibEncoder::new(text, Compression::fast()).read_to_end(&mut encoded).unwrap();
        }
        "br" if text == TEXT => encoded = bytes(BROTLI),
        "zstd" if text == TEXT => encoded = bytes(ZSTD),
        _ => encoded = text.to_vec(),
    }
    encoded
}

fn unescaped(text: &str) -> String {
    url::form_urlencoded::parse(format!("a={}", text.replace('+', "%2B")).as_bytes()).next().unwrap().1.into_owned()
}

/// The value of `name` in the query of `path`.
fn parameter(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    url::form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// Bytes of a body that does not come in one piece.
const LARGE: usize = 3_000_000;

fn large() -> Vec<u8> {
    (0..LARGE).map(|at| (at * 7 % 251) as u8).collect()
}

/// Answers one request after the other; ends by closing the connection.
fn serve(stream: &mut TcpStream, number: u32) {
    while let Some(asked) = read(stream) {
        let path = asked.path.split('?').next().unwrap_or_default();
        let is_long = path.ends_with("-long");
        let (answer, goes_on): (Vec<u8>, bool) = match path.trim_end_matches("-long") {
            "/json" => (json_of(&json!({ "ok": true })), true),
            "/latin" => (whole("200 OK", "content-type: text/plain; charset=latin1\r\n", b"gr\xfc\xdfe"), true),
            "/headers" => {
                let headers =
                    "Set-Cookie: a=1\r\nset-cookie: b=2\r\nX-Latin: gr\u{fc}n\r\nX-Empty:\r\nset-cookie: c=3\r\n";
                let answer = String::from_utf8(whole("200 OK", headers, b"")).unwrap();
                (answer.chars().map(|c| u8::try_from(c).unwrap()).collect(), true)
            }
            "/proto" => (whole("200 OK", "__proto__: 1\r\nconstructor: 2\r\n", b""), true),
            "/reason" => (whole("200 Very Well", "", b""), true),
            "/no-reason" => (whole("200 ", "", b""), true),
            "/chunked" => {
                let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                    3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n";
                (text.into(), true)
            }
            "/until-close" => (b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end".to_vec(), false),
            "/hints" => {
                let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec();
                ([hints, json_of(&json!(1))].concat(), true)
            }
            "/204" => (b"HTTP/1.1 204 No Content\r\nx: 1\r\n\r\n".to_vec(), true),
            "/304" => (b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n".to_vec(), true),
            "/bom" => (whole("200 OK", "", "\u{feff}marked".as_bytes()), true),
            "/broken-utf8" => (whole("200 OK", "", b"a\xff\xfeb\xe2\x82"), true),
            "/500" => (whole("500 Internal Server Error", "content-type: text/plain\r\n", b"oh no"), true),
            "/encoded-error" => (whole("404 Not Found", "content-encoding: gzip\r\n", &encoded("gzip", TEXT)), true),
            "/encoded-badly" => (whole("200 OK", "content-encoding: gzip\r\n", b"this is no gzip at all"), true),
            "/circle" => (whole("302 Found", "location: /circle\r\n", b""), true),
            "/closed" => (Vec::new(), false),
            "/closed-in-head" => (b"HTTP/1.1 200 OK\r\ncontent-".to_vec(), false),
            "/not-http" => (b"220 mail.example.org ESMTP\r\n".to_vec(), false),
            "/short" => (whole("200 OK", "", &large())[..1_000_000].to_vec(), false),
            "/short-and-small" => (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort".to_vec(), false),
            "/bad-chunk" => {
                (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nno\r\n".to_vec(), false)
            }
            "/never" => {
                thread::sleep(Duration::from_secs(5));
                (Vec::new(), false)
            }
            "/half" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf");
                thread::sleep(Duration::from_secs(5));
                (Vec::new(), false)
            }
            "/large" => (whole("200 OK", "", &large()), true),
            "/large-chunked" => {
                let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
                for chunk in large().chunks(10_007) {
                    answer.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                    answer.extend(chunk);
                    answer.extend(b"\r\n");
                }
                answer.extend(b"0\r\n\r\n");
                (answer, true)
            }
            "/connection" => (json_of(&json!({ "number": number })), true),
            "/kept-for-a-second" => {
                let headers = "keep-alive: timeout=1\r\ncontent-type: application/json\r\n";
                (whole("200 OK", headers, json!({ "number": number }).to_string().as_bytes()), true)
            }
            "/endless" => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
                let chunk = [b"10000\r\n", &[b'a'; 0x10000][..], b"\r\n"].concat();
                let mut sent = stream.write_all(head.as_bytes());
                while sent.is_ok() {
                    sent = stream.write_all(&chunk);
                }
                return;
            }
            path => match path.split('/').collect::<Vec<_>>()[..] {
                ["", "to", status] => {
                    let location = parameter(&asked.path, "to").map(|to| format!("location: {to}\r\n"));
                    let body = match status {
                        "304" => Vec::new(),
                        _ if is_long => large(),
                        _ => b"elsewhere".to_vec(),
                    };
                    (whole(&format!("{status} Somewhere"), &location.unwrap_or_default(), &body), true)
                }
                ["", "again", times] => {
                    let next = times.parse::<u32>().unwrap() + 1;
                    (whole("302 Found", &format!("location: {next}\r\n"), b""), true)
                }
                ["", "encoded", name] => {
                    let name = unescaped(name);
                    let body = name.split(',').fold(TEXT.to_vec(), |text, name| encoded(&name.to_lowercase(), &text));
                    (whole("200 OK", &format!("content-encoding: {name}\r\n"), &body), true)
                }
                _ => (json_of(&echo(&asked)), true),
            },
        };
        let answer = match answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            Some(end) if asked.method == "HEAD" => &answer[..end + 4],
            _ => &answer[..],
        };
        if stream.write_all(answer).is_err() || !goes_on {
            return;
        }
    }
}

/// A run on the adaptor of the fixture, which has undici beside it.
fn run(job: &str) -> Run {
    let run = Run::of("job.js", job);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/http-client/index.js");
    let manifest = json!({ "name": "@test/adaptor", "version": "1.0.0", "type": "module", "main": "index.js" });
    let run = run.file("adaptor/package.json", &manifest.to_string());
    fs::copy(fixture, run.path("adaptor/index.js")).unwrap();
    copy(&undici(), &run.path("adaptor/node_modules/undici"));
    run.adaptor("@test/adaptor=adaptor").env("FNHOST_REPO_DIR", "store")
}

/// Where the tests' adaptors have theirs.
fn undici() -> PathBuf {
    let packages = fs::read_dir(store().join("node_modules/.fnhost")).unwrap().map(|entry| entry.unwrap().path());
    let mut known = packages.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("undici@7."));
    known.next().expect("undici 7").join("node_modules/undici")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn job(wanted: &str) -> String {
    let (origin, other) = (server(), server());
    format!(
        "import {{ ask, names }} from '@test/adaptor';\n\
         export default [ask('{origin}', '{other}', {wanted})];"
    )
}

/// Tells of the innermost values that are not the same.
fn compare(what: &str, expected: &Value, found: &Value, differences: &mut String) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) if expected.keys().eq(found.keys()) => {
            expected.iter().for_each(|(key, value)| compare(&format!("{what}.{key}"), value, &found[key], differences));
        }
        _ if expected == found => {}
        _ => *differences += &format!("\n{what}:\n  undici: {expected}\n  client: {found}"),
    }
}

#[test]
fn whatever_is_asked_undici_would_answer_the_same() {
    let job = job("names");
    let expected = run(&job).env("FNHOST_PACKS", "off").go().completed();
    let expected = expected["results"].as_object().unwrap();
    assert!(expected.len() > 80, "{}", expected.len());
    let packed = run(&job);
    let mut differences = String::new();
    for (way, ran) in [("packed", packed.go()), ("packed on disk", packed.go())] {
        let state = ran.completed();
        for (name, expected) in expected {
            compare(&format!("{name} ({way})"), expected, &state["results"][name], &mut differences);
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn undici_is_evaluated_only_for_what_it_alone_can() {
    let asked = |cases: &Value| run(&job(&cases.to_string()));
    let is_without = |cases: &Value| asked(cases).go().completed()["isWithoutUndici"].clone();
    let ordinary = json!([
        "JSON",
        "a body by events",
        "a large body",
        "a query",
        "bodies",
        "closed before the answer",
        "encodings",
        "headers",
        "many at once",
        "no answer in time",
        "redirects",
    ]);
    assert_eq!(is_without(&ordinary), true);
    let switched_off = asked(&ordinary).env("FNHOST_HTTP_CLIENT", "undici").go().completed();
    assert_eq!(switched_off["isWithoutUndici"], false);
    for alone in ["a form", "an abort", "nobody there", "a mock", "a host of its own"] {
        assert_eq!(is_without(&json!([alone])), false, "{alone}");
    }
}

#[test]
fn a_redirect_leads_nowhere_that_the_run_may_not_go() {
    let (allowed, other) = (server(), server());
    let go = |to: &str| {
        let job = format!("get('{allowed}/to/302', {{ query: {{ to: '{to}' }} }});");
        let host = allowed.strip_prefix("http://").unwrap();
        Run::of("job.js", &job).adaptor("http").args(&["--allow-net", host]).go()
    };
    assert_eq!(go("/json").data(), json!({ "ok": true }));
    let error = go(&format!("{other}/json")).failure();
    let host = other.strip_prefix("http://").unwrap();
    assert!(error["message"].as_str().unwrap().starts_with("not allowed to connect to 127.0.0.1"), "{host}: {error}");
}

#[test]
fn a_body_without_end_ends_at_the_limit() {
    let origin = server();
    for parse_as in ["text", "json", "base64"] {
        let job = format!("get('{origin}/endless', {{ parseAs: '{parse_as}' }});");
        let ran = Run::of("job.js", &job).adaptor("http").args(&["--buffers", "64", "--log-json"]).go().expect(23);
        assert_eq!(ran.error()[0], "BufferLimitError", "{parse_as}");
    }
}

#[test]
fn a_connection_that_is_about_to_be_closed_is_not_used() {
    let origin = server();
    let job = format!(
        "const note = state => ({{ ...state, numbers: [...(state.numbers ?? []), state.data.number] }});
         get('{origin}/connection').then(note);
         get('{origin}/kept-for-a-second').then(note);
         get('{origin}/connection').then(note);"
    );
    let numbers = Run::of("job.js", &job).adaptor("http").go().completed()["numbers"].clone();
    assert!(numbers[0] == numbers[1] && numbers[1] != numbers[2], "{numbers}");
}

#[test]
fn a_server_that_does_not_say_a_word_is_waited_for_ten_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let job = format!("get('https://{}/');", silent.local_addr().unwrap());
    let go = |client: &'static str| {
        let run = Run::of("job.js", &job).adaptor("http").env("FNHOST_HTTP_CLIENT", client);
        thread::spawn(move || run.go().failure())
    };
    let [undicis, own] = [go("undici"), go("")].map(|run| run.join().unwrap());
    assert_eq!(own["details"]["code"], "UND_ERR_CONNECT_TIMEOUT", "{own}");
    assert_eq!((&own["message"], &own["details"]), (&undicis["message"], &undicis["details"]));
}
