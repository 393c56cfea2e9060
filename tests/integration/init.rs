//! `fnhost init`: what it writes can be checked, served and passed on.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::server::Setup;
use crate::support::{Ran, fnhost};

/// A project as people have them: a credential with values in it, one in a file, jobs within the project file.
const PROJECT: &str = "
jobs:
  receive order:
    adaptor: '@openfn/language-common'
    trigger: new-order
    credential: warehouse
    expression: |
      fn(state => {
        const { baseUrl, tls } = state.configuration;
        return { ...state, url: `${baseUrl}/orders/${state.data.id}`, tls };
      });
  tell:
    adaptor: '@openfn/language-common'
    trigger: received
    expression: file://old/tell.js
triggers:
  new-order: {criteria: {type: order}}
  received: {success: receive order}
credentials:
  warehouse: {baseUrl: 'https://hunter2.example.org', token: '${TOKEN:-hunter2}', tls: true}
  registry: file://secret.yaml
";

fn init(args: &[&str]) -> Ran {
    Ran::new(fnhost(&["init"]).args(args).output().unwrap())
}

/// Every file below `dir`, as one text.
fn all_text(dir: &Path) -> String {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    files.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect()
}

#[test]
fn a_new_project_is_right_and_answers_its_own_example() {
    let setup = Setup::new("");
    std::fs::remove_file(setup.path("project.yaml")).unwrap();
    Ran::new(setup.command(&["init"]).output().unwrap()).expect(0);
    Ran::new(setup.command(&["check"]).output().unwrap()).expect(0);
    let server = setup.start();
    let run = server.send_one(&json!({ "type": "greeting", "name": "Ada" }));
    let run = server.run_in(&run, "completed");
    assert_eq!(server.output(&run, "greet")["greeting"], "Hello, Ada!");
}

#[test]
fn a_project_is_passed_on_without_its_secrets() {
    let source = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(source.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(source.path().join(name), text).unwrap();
    };
    write("project.yaml", PROJECT);
    write("old/tell.js", "fn(state => ({ ...state, told: state.url }));\n");
    write("secret.yaml", "password: hunter2\n");
    write(".env", "TOKEN=hunter2\n");

    let setup = Setup::new("");
    let from = source.path().to_str().unwrap();
    let again = Ran::new(setup.command(&["init", "--from", from]).output().unwrap()).expect(2);
    assert!(again.stderr.contains("project.yaml") && again.stderr.contains("--force"), "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(setup.path("project.yaml")).unwrap(), "");
    let done = Ran::new(setup.command(&["init", "--from", from, "--force"]).output().unwrap()).expect(0);
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);

    let made = setup.path("project.yaml").parent().unwrap().to_owned();
    let example = std::fs::read_to_string(made.join(".env.example")).unwrap();
    let names: Vec<&str> = example.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(names, ["WAREHOUSE_BASE_URL=", "TOKEN=", "REGISTRY_PASSWORD="]);
    for name in
        ["README.md", "Dockerfile", "docker-compose.yaml", ".gitignore", ".dockerignore", "project.yaml", "jobs"]
    {
        assert!(made.join(name).exists(), "{name}");
    }
    for ignored in [".gitignore", ".dockerignore"] {
        assert!(std::fs::read_to_string(made.join(ignored)).unwrap().lines().any(|line| line == ".env"), "{ignored}");
    }
    std::fs::remove_file(made.join("node_modules")).unwrap();
    assert!(!all_text(&made).contains("hunter2"));
    let readme = std::fs::read_to_string(made.join("README.md")).unwrap();
    assert!(readme.contains(r#"curl --json '{"type":"order"}'"#), "{readme}");
    std::os::unix::fs::symlink(crate::support::store().join("node_modules"), made.join("node_modules")).unwrap();

    let unset = Ran::new(setup.command(&["check"]).env_remove("TOKEN").output().unwrap()).expect(2);
    assert!(unset.stderr.contains("WAREHOUSE_BASE_URL"), "{}", unset.stderr);
    let setup = setup.file(".env", "WAREHOUSE_BASE_URL=https://w.example.org\nTOKEN=t\nREGISTRY_PASSWORD=p\n");
    Ran::new(setup.command(&["check"]).output().unwrap()).expect(0);
    let server = setup.start();
    let run = server.send_one(&json!({ "type": "order", "id": 7 }));
    let run = server.run_in(&run, "completed");
    let told = server.output(&run, "tell");
    assert_eq!((&told["told"], &told["tls"]), (&json!("https://w.example.org/orders/7"), &json!(true)));
}

#[test]
fn what_is_no_project_of_a_known_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (to, from) = (dir.path().join("to"), dir.path().join("from"));
    std::fs::create_dir(&from).unwrap();
    let go = |from: &Path| init(&[to.to_str().unwrap(), "--from", from.to_str().unwrap()]).expect(2).stderr;
    assert!(go(&from).contains("name a directory with a project.yaml"));
    assert!(go(&from.join("export.zip")).contains("unpack an archive first"));
    let newer = "name: a\nworkflows:\n  w: {jobs: {}}\n";
    std::fs::write(from.join("project.yaml"), newer).unwrap();
    let refused = go(&from.join("project.yaml"));
    assert!(refused.contains("portability version 2"), "{refused}");
    assert!(!to.exists());
}

#[test]
fn the_compose_file_is_one_that_docker_compose_reads() {
    let dir = tempfile::tempdir().unwrap();
    init(&[dir.path().to_str().unwrap()]).expect(0);
    std::fs::copy(dir.path().join(".env.example"), dir.path().join(".env")).unwrap();
    let config = Command::new("docker-compose").args(["config"]).current_dir(dir.path()).output().unwrap();
    assert!(config.status.success(), "{}", String::from_utf8_lossy(&config.stderr));
}
