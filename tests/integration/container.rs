//! Both Dockerfiles, this repository's and the one that `fnhost init` writes, are built, and what comes of them serves: as
//! a user without rights, on a read-only root, as the first process of its container.
//!
//! There is no registry here, so the stage that compiles is left out. In its place is a directory with what it would leave:
//! what scripts/image-root lays out.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;

use crate::server::{Server, Setup};
use crate::support::container::{Image, Images, first_process, output};
use crate::support::http_server::Server as Registry;
use crate::support::{PROGRAM, Ran, fnhost};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const PROJECT: &str = r#"
jobs:
  ask:
    adaptor: '@openfn/language-http'
    trigger: question
    credential: registry
    expression: file://jobs/ask.js
  tick:
    adaptor: '@openfn/language-common'
    trigger: every-second
    expression: fn(state => state)
triggers:
  question: {criteria: '{"form":"question"}'}
  every-second: {cron: '* * * * * *'}
credentials:
  registry: {baseUrl: 'https://hunter2.example.org'}
"#;

const JOB: &str = "post('/echo', $.data);";

/// The image of a project, by its own Dockerfile, on that of fnhost alone, by this repository's.
fn build() -> Image {
    let (images, work) = (Images::new(), tempfile::tempdir().unwrap());
    build_program(&images, work.path());
    build_project(&images, work.path());
    images.unpack("localhost/project")
}

fn build_program(images: &Images, work: &Path) {
    let (laid_out, empty) = (work.join("program"), work.join("empty"));
    output(Command::new(Path::new(ROOT).join("scripts/image-root")).arg(PROGRAM).arg(&laid_out));
    std::fs::create_dir(&empty).unwrap();
    let program = format!("program={}", laid_out.display());
    let dockerfile = format!("{ROOT}/Dockerfile");
    let options = ["--build-context", &program, "--file", &dockerfile];
    images.build("localhost/fnhost", &empty, &options);
}

fn build_project(images: &Images, work: &Path) {
    let (source, project) = (work.join("source"), work.join("project"));
    std::fs::create_dir_all(source.join("jobs")).unwrap();
    std::fs::write(source.join("project.yaml"), PROJECT).unwrap();
    std::fs::write(source.join("jobs/ask.js"), JOB).unwrap();
    let lock = Path::new(ROOT).join("tests/fixtures/adaptors/fnhost.lock");
    std::fs::copy(lock, source.join("fnhost.lock")).unwrap();
    Ran::new(fnhost(&["init", "--from"]).arg(source).arg(&project).output().unwrap()).expect(0);
    std::fs::write(project.join(".env"), "REGISTRY_BASE_URL=https://hunter2.example.org\n").unwrap();
    images.build("localhost/project", &project, &["--build-arg", "FNHOST=localhost/fnhost"]);
}

/// Nothing in it that is not asked for, and nothing that its user could change but the project and the data.
#[track_caller]
fn expect_little(image: &Image) {
    let is_needed = |path: &str| {
        matches!(path, "etc/passwd" | "etc/group" | "etc/nsswitch.conf" | "usr/bin/fnhost")
            || path.starts_with("lib") && path.contains(".so.")
    };
    for entry in &image.entries {
        let (top, below) = entry.path.split_once('/').unwrap_or((&entry.path, ""));
        match (top, below) {
            ("project", _) => assert_eq!(entry.owner, "65532/65532", "{entry:?}"),
            ("data", "") => assert_eq!((entry.owner.as_str(), entry.mode.as_str()), ("65532/65532", "drwx------")),
            ("tmp", "") => assert_eq!((entry.owner.as_str(), entry.mode.as_str()), ("0/0", "drwxrwxrwt")),
            _ => {
                assert!(entry.mode.starts_with('d') || is_needed(&entry.path), "{entry:?}");
                assert_eq!((entry.owner.as_str(), &entry.mode[8..9]), ("0/0", "-"), "{entry:?}");
            }
        }
        assert!(!entry.mode.contains('s'), "{entry:?}");
    }
    let has = |path: &str| image.entries.iter().any(|entry| entry.path == path);
    assert!(has("usr/bin/fnhost") && has("data") && has("project/fnhost.lock"));
    assert!(!has("project/.env") && !has("project/Dockerfile"));
    assert!(!image.read("project/project.yaml").contains("hunter2"));
}

/// Posts a question, and gives its run, once the registry has it.
#[track_caller]
fn ask(server: &Server, registry: &Registry, number: u32) -> String {
    let question = json!({ "form": "question", "number": number });
    let run = server.send_one(&question);
    server.run_in(&run, "completed");
    assert_eq!(registry.seen().last().unwrap().json(), question);
    run
}

#[test]
fn the_image_of_a_project_serves_it_on_a_read_only_root() {
    let image = Arc::new(build());
    expect_little(&image);

    let (registry, authority) = Registry::start_tls();
    let setup = Setup::empty().file("data/authority.pem", &authority);
    let data = setup.path("data");
    let environment = [
        ("PORT", "0".to_owned()),
        ("FNHOST_LOG_JSON", "true".to_owned()),
        ("FNHOST_CAFILE", "/data/authority.pem".to_owned()),
        ("REGISTRY_BASE_URL", registry.origin()),
    ];
    let mut server = setup
        .started_by({
            let (image, data) = (image.clone(), data.clone());
            move || image.run(&data, &environment, None)
        })
        .start();
    let first = ask(&server, &registry, 1);
    let ticks = |server: &Server| server.list("/api/v1/runs?workflow=tick&state=completed").len();
    server.until("a run of cron", || (ticks(&server) > 0).then_some(()));

    let port = server.url.rsplit_once(':').unwrap().1.to_owned();
    let health = || Ran::new(image.run(&data, &[("PORT", port.clone())], Some(&image.healthcheck)).output().unwrap());
    assert_eq!(health().expect(0).stdout, format!("http://127.0.0.1:{port}/readyz: ready\n"));

    // What a runtime sends when a container is to stop goes to its first process.
    let first_process = first_process(server.pid()).to_string();
    assert!(Command::new("kill").args(["-TERM", &first_process]).status().unwrap().success());
    assert!(server.wait().success(), "{}", server.log());
    assert!(server.log().contains("stopped"));
    health().expect(1);

    let server = server.restart();
    server.run_in(&first, "completed");
    ask(&server, &registry, 2);
}
