//! `fnhost healthcheck`: the answer of a server, as an exit code and a line.

use std::net::TcpListener;
use std::time::Duration;

use crate::server::{Setup, start};
use crate::support::{Ran, fnhost};

const PROJECT: &str = "
jobs:
  first: {adaptor: common, trigger: any, expression: 'fn(state => state)'}
triggers:
  any: {criteria: {}}
";

fn healthcheck(args: &[&str]) -> Ran {
    let mut command = fnhost(&["healthcheck"]);
    Ran::new(command.args(args).env("HTTP_PROXY", "http://127.0.0.1:1").output().unwrap())
}

fn port(url: &str) -> String {
    url.rsplit_once(':').unwrap().1.to_owned()
}

/// A port on which nobody listens.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[test]
fn a_server_that_serves_is_ready_and_one_that_ended_is_not() {
    let mut server = start(PROJECT);
    let port = port(&server.url);
    let ready = healthcheck(&["--port", &port]).expect(0);
    assert_eq!(ready.stdout, format!("{}/readyz: ready\n", server.url));
    assert_eq!(ready.stderr, "");
    assert_eq!(healthcheck(&["--port", &port, "--live"]).expect(0).stdout, format!("{}/livez: alive\n", server.url));

    server.kill();
    let gone = healthcheck(&["--port", &port]).expect(1);
    assert!(gone.stderr.starts_with(&format!("error: {}/readyz does not answer: ", server.url)), "{}", gone.stderr);
    assert!(gone.stderr.contains("refused"), "{}", gone.stderr);
}

#[test]
fn a_server_that_is_alive_and_not_ready_says_why() {
    let server = start("jobs: {}");
    let port = port(&server.url);
    let unready = healthcheck(&["--port", &port]).expect(1);
    assert_eq!(unready.stderr, format!("error: {}/readyz answers 503: no workflow is being served yet\n", server.url));
    healthcheck(&["--port", &port, "--live"]).expect(0);
}

#[test]
fn the_address_comes_from_the_settings_of_the_server() {
    let setup = Setup::new(PROJECT).file(".env", "SECRET=hunter2\n");
    let port = free_port();
    std::fs::write(setup.path("fnhost.yaml"), format!("port: {port}\nconcurrency: 2\nhost: 0.0.0.0\n")).unwrap();
    let check = Ran::new(setup.command(&["healthcheck"]).output().unwrap()).expect(1);
    assert!(check.stderr.contains(&format!("http://127.0.0.1:{port}/readyz does not answer")), "{}", check.stderr);
    assert!(!check.stderr.contains("hunter2"));

    let other = free_port();
    std::fs::write(setup.path(".env"), format!("PORT={other}\n")).unwrap();
    let check = Ran::new(setup.command(&["healthcheck"]).output().unwrap()).expect(1);
    assert!(check.stderr.contains(&format!(":{other}/")), "{}", check.stderr);

    std::fs::write(setup.path("fnhost.yaml"), "prot: 1\n").unwrap();
    let check = Ran::new(setup.command(&["healthcheck"]).output().unwrap()).expect(2);
    assert!(check.stderr.contains("did you mean `port`?"), "{}", check.stderr);
}

#[test]
fn tls_is_asked_by_tls_whatever_name_the_certificate_has() {
    let made = rcgen::generate_simple_self_signed(["fnhost.example.org".to_owned()]).unwrap();
    let setup =
        Setup::new(PROJECT).file("cert.pem", &made.cert.pem()).file("key.pem", &made.signing_key.serialize_pem());
    let server = setup.args(&["--tls-cert", "cert.pem", "--tls-key", "key.pem"]).start();
    let port = port(&server.url);
    let ready = healthcheck(&["--port", &port, "--tls-cert", "cert.pem", "--tls-key", "key.pem"]).expect(0);
    assert_eq!(ready.stdout, format!("{}/readyz: ready\n", server.url));
    assert!(server.url.starts_with("https:"));
    healthcheck(&["--port", &port]).expect(1);
}

#[test]
fn a_server_that_hangs_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let hangs = healthcheck(&["--port", &port, "--timeout", "200ms"]).expect(1);
    assert_eq!(hangs.stderr, format!("error: http://127.0.0.1:{port}/readyz does not answer within 200 ms\n"));

    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (_, mut stream) = (listener.accept().unwrap(), listener.accept().unwrap().0);
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nhi").unwrap();
    });
    let other = healthcheck(&["--port", &port]).expect(1);
    assert!(other.stderr.contains("answers 404: is it a server of fnhost"), "{}", other.stderr);
    answering.join().unwrap();
}
