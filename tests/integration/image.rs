//! `fnhost image`: what it makes is an image to the tools of others, runs as it says, holds no secret, and is the same
//! each time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{PATIENCE, Setup};

use crate::support::http_server::{Identity, Server};
use crate::support::unpacked::{Unpacked, output};
use crate::support::{Ran, fnhost, store};

/// The variable that the example needs.
const CLINIC_KEY: (&str, &str) = ("CLINIC_KEY", "the-key-of-a-clinic");

/// A project and a place for images.
struct Workshop {
    directory: TempDir,
}

impl Workshop {
    /// With the example, its adaptors installed.
    fn with_example() -> Self {
        let workshop = Self::new("");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("project");
        for name in ["project.yaml", "jobs/announce.js", "jobs/register-patients.js", "jobs/set-aside.js"] {
            workshop.write(name, &std::fs::read_to_string(example.join(name)).unwrap());
        }
        workshop
    }

    /// With a project of one file.
    fn new(project: &str) -> Self {
        let workshop = Self { directory: tempfile::tempdir().unwrap() };
        workshop.write("project.yaml", project);
        symlink(store().join("node_modules"), workshop.path("project/node_modules")).unwrap();
        std::fs::copy(store().join("fnhost.lock"), workshop.path("project/fnhost.lock")).unwrap();
        workshop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the project.
    fn write(&self, name: &str, text: &str) {
        let path = self.path("project").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("project").join(name)).unwrap();
        assert!(text.contains(from), "{text}");
        self.write(name, &text.replace(from, to));
    }

    /// `fnhost image`, beside the project.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = fnhost(&["image", "--no-install"]);
        command.args(args).current_dir(self.directory.path());
        for name in ["SOURCE_DATE_EPOCH", CLINIC_KEY.0, "FNHOST_REGISTRY_PASSWORD"] {
            command.env_remove(name);
        }
        // The layers of all tests; the logins of none.
        command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-cache"));
        command.env("DOCKER_CONFIG", self.directory.path());
        command
    }

    fn go(&self, args: &[&str]) -> Ran {
        Ran::new(self.command(args).output().unwrap())
    }

    /// An image of the project as a tar, compressed as quickly as it goes, and what was said of it.
    fn image(&self, file: &str, args: &[&str]) -> (Files, Value) {
        let ran = self.go(&[&["project", "-o", file, "--level", "1", "--json"], args].concat()).expect(0);
        (Files::of_tar(&std::fs::read(self.path(file)).unwrap()), ran.state())
    }
}

/// The files of a tar.
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn of_tar(bytes: &[u8]) -> Self {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        Self(files)
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.0[path]).unwrap()
    }

    fn text(&self, path: &str) -> &str {
        std::str::from_utf8(&self.0[path]).unwrap()
    }

    fn blob(&self, digest: &Value) -> &[u8] {
        &self.0[&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"))]
    }

    /// The files in a layer of an image.
    fn layer(&self, number: usize) -> Self {
        let manifest: Value =
            serde_json::from_slice(self.blob(&self.json("index.json")["manifests"][0]["digest"])).unwrap();
        let layer = self.blob(&manifest["layers"][number]["digest"]);
        Self::of_tar(&zstd::decode_all(layer).unwrap())
    }
}

const LIBRARIES: usize = 0;
const ADAPTORS: usize = 2;
const PROJECT: usize = 3;

fn digests(report: &Value) -> Vec<&str> {
    report["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap()).collect()
}

#[test]
fn an_image_serves_the_example_without_rights_on_a_root_that_cannot_be_written() {
    let (upstream, authority) = Server::start_tls();
    let workshop = Workshop::with_example();
    workshop.edit("project.yaml", "0 6 * * mon-sat", "'* * * * * *'");
    workshop.edit("project.yaml", "jobs:\n  register", "jobs:\n  call:\n    adaptor: http\n    trigger: call\n    credential: upstream\n    expression: get('/echo')\n  register");
    workshop.edit("project.yaml", "triggers:\n", "triggers:\n  call: {criteria: {form: call}}\n");
    workshop.edit("project.yaml", "credentials:\n", "credentials:\n  upstream: ${UPSTREAM}\n");
    std::fs::write(workshop.path("ca.pem"), authority).unwrap();
    workshop
        .go(&["project", "-o", "layout", "--format", "directory", "--tag", "clinic:1", "--cafile", "ca.pem"]
            .into_iter()
            .chain(["--compression", "gzip", "--level", "1"])
            .collect::<Vec<_>>())
        .expect(0);
    let image = Arc::new(Unpacked::image(&workshop.path("layout"), "1"));
    assert_eq!(image.entrypoint(), ["/usr/bin/fnhost", "serve", "/project"]);

    let credential = json!({ "baseUrl": upstream.origin() }).to_string();
    let variables = [CLINIC_KEY, ("UPSTREAM", &credential), ("PORT", "0"), ("FNHOST_LOG_JSON", "true")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let container = image.clone();
    let mut server = Setup::empty().started_by(move || container.command(&container.entrypoint(), &variables)).start();
    let users = std::fs::read_to_string(format!("/proc/{}/uid_map", inner(server.pid()))).unwrap();
    assert_eq!(users.split_whitespace().next(), Some("65532"), "the only user that there is");

    let patients = json!({ "form": "patient-list", "patients": [{ "id": "1", "given": "a", "family": "b", "born": "07/03/1991" }] });
    let registered = server.send_one(&patients);
    let registered = server.run_in(&registered, "completed");
    assert_eq!(server.output(&registered, "announce")["data"]["text"], "Registered 1: B");
    let called = server.send_one(&json!({ "form": "call" }));
    server.run_in(&called, "completed");
    assert_eq!(upstream.seen().last().unwrap().path, "/echo");
    server.until("a tick of the clock", || {
        server.list("/api/v1/runs?workflow=daily-summary").iter().any(|run| run["state"] == "completed").then_some(())
    });

    let port = server.address.rsplit_once(':').unwrap().1.to_owned();
    let health = |port: &str| {
        let mut command = image.command(&image.health_check(), &[("PORT".into(), port.into())]);
        command.output().unwrap().status.code()
    };
    assert_eq!(health(&port), Some(0));

    let stopped = Command::new("kill").args(["-TERM", &inner(server.pid()).to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert_eq!(health(&port), Some(1));

    let server = server.restart();
    assert_eq!(
        server.read(&format!("/api/v1/runs/{}", registered["id"].as_str().unwrap())).expect(200).json()["state"],
        "completed"
    );
    server.send_one(&patients);
    let data =
        walkdir::WalkDir::new(image.root()).into_iter().flatten().filter(|entry| entry.file_name() == "fnhost.db");
    assert_eq!(data.count(), 0, "nothing is written into the image");
}

#[test]
fn an_image_has_what_makes_adaptors_load_fast() {
    let workshop = Workshop::new(
        "
jobs:
  old: {adaptor: common@2.1.1, trigger: any, expression: 'fn(state => state)'}
  both: {adaptors: [http, common@2.1.1], trigger: any, expression: \"get('/')\"}
triggers:
  any: {criteria: {}}
",
    );
    let args =
        ["project", "-o", "layout", "--format", "directory", "--tag", "a:1", "--compression", "gzip", "--level", "1"];
    workshop.go(&args).expect(0);
    let image = Arc::new(Unpacked::image(&workshop.path("layout"), "1"));
    let container = image.clone();
    let variables = [("PORT".to_owned(), "0".to_owned()), ("FNHOST_LOG_JSON".to_owned(), "true".to_owned())];
    let server = Setup::empty().started_by(move || container.command(&container.entrypoint(), &variables)).start();
    // What does not fit is made anew, and kept beside the data if not in the image. After a run that may be more.
    let kept: BTreeSet<_> = image.data().join("packs").read_dir().unwrap().flatten().map(|file| file.path()).collect();
    let has = |extension: &str| kept.iter().any(|file| file.extension().is_some_and(|found| found == extension));
    assert!(!has("pack") && has("snapshot"), "{kept:?}");
    let run = &server.send(&json!({}))["old"];
    server.run_in(run, "completed");
}

/// The program that bubblewrap has started.
fn inner(bwrap: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{bwrap}/task/{bwrap}/children")).unwrap();
    children.split_whitespace().next().expect("a child").parse().unwrap()
}

#[test]
fn the_same_input_gives_the_same_bytes_and_an_edit_changes_the_last_layer() {
    let (first, second) = (Workshop::with_example(), Workshop::with_example());
    // Installed apart, at another place, at another time.
    std::fs::remove_file(second.path("project/node_modules")).unwrap();
    let install = fnhost(&["install", "--frozen", "common", "--dir", "project"]).current_dir(second.path("")).output();
    Ran::new(install.unwrap()).expect(0);
    let (_, report) = first.image("image.tar", &[]);
    let (_, again) = second.image("image.tar", &["--no-cache"]);
    assert_eq!(report["digest"], again["digest"], "{report:#} {again:#}");
    assert!(std::fs::read(first.path("image.tar")).unwrap() == std::fs::read(second.path("image.tar")).unwrap());

    first.edit("jobs/announce.js", "Registered", "Welcome");
    let (files, edited) = first.image("image.tar", &["--created", "1700000000", "--label", "a=b"]);
    let (before, after) = (digests(&report), digests(&edited));
    assert_eq!(before[..PROJECT], after[..PROJECT]);
    assert_ne!(before[PROJECT], after[PROJECT]);
    assert!(edited["layers"][PROJECT]["size"].as_u64().unwrap() < 10_000, "{edited:#}");
    assert!(files.layer(PROJECT).text("project/jobs/announce.js").contains("Welcome"));
}

#[test]
fn the_tools_of_others_read_both_formats_of_one_archive() {
    let workshop = Workshop::with_example();
    let args = ["--tag", "registry.example.org/clinics/a:1.4", "--label", "team=blue", "--created", "86400"];
    let (files, report) = workshop.image("image.tar", &args);
    let tar = workshop.path("image.tar").display().to_string();
    let inspect = |args: &[&str]| -> Value {
        serde_json::from_str(&output(Command::new("skopeo").arg("inspect").args(args))).unwrap()
    };
    let oci = inspect(&[&format!("oci-archive:{tar}")]);
    assert_eq!(oci["Digest"], report["digest"]);
    assert_eq!(oci["Layers"], json!(digests(&report)));
    assert_eq!(oci["Labels"]["team"], "blue");
    assert_eq!(oci["Created"], "1970-01-02T00:00:00Z");
    let docker = output(Command::new("skopeo").args(["list-tags", &format!("docker-archive:{tar}")]));
    assert!(docker.contains("registry.example.org/clinics/a:1.4"), "{docker}");
    // Copying reads every layer and compares its digest.
    for from in ["oci-archive", "docker-archive"] {
        let to = format!("dir:{}", workshop.path(from).display());
        output(Command::new("skopeo").args(["copy", "--insecure-policy", &format!("{from}:{tar}"), &to]));
    }
    let config = inspect(&["--raw", "--config", &format!("oci-archive:{tar}")]);
    assert_eq!(config["config"]["Healthcheck"]["Test"], json!(["CMD", "/usr/bin/fnhost", "healthcheck"]));
    assert_eq!(config["config"]["User"], "65532:65532");

    let base: Vec<String> = files.layer(LIBRARIES).0.into_keys().filter(|path| !path.contains("lib")).collect();
    assert_eq!(
        base,
        [
            "data/",
            "dev/",
            "etc/",
            "etc/group",
            "etc/hosts",
            "etc/nsswitch.conf",
            "etc/passwd",
            "etc/resolv.conf",
            "proc/",
            "sys/",
            "tmp/"
        ]
    );
    let sbom = files.layer(ADAPTORS).json("usr/share/fnhost/sbom.cdx.json");
    let components = sbom["components"].as_array().unwrap();
    let has = |purl: &str| {
        components.iter().any(|component| component["purl"].as_str().is_some_and(|it| it.starts_with(purl)))
    };
    for purl in [
        "pkg:cargo/deno_core@",
        "pkg:npm/%40openfn/language-common@3.3.4",
        "pkg:npm/lodash@",
        "pkg:github/denoland/rusty_v8@",
    ] {
        assert!(has(purl), "{purl}");
    }
    // The store of the tests has it, the example does not use it.
    assert!(!has("pkg:npm/%40openfn/language-mysql"));
    assert!(!files.layer(ADAPTORS).0.keys().any(|path| path.contains("mysql")));
}

/// A project with a secret in every place where one may be.
const SECRETS: &str = "
name: Keeps secrets!
jobs:
  a: {adaptor: common, trigger: t, credential: in-file, expression: 'file://a.js'}
  b: {adaptor: common, trigger: t, credential: in-variables, expression: 'fn(s => s)'}
triggers:
  t: {criteria: {}}
credentials:
  in-file: file://secrets/a.yaml
  in-variables: {password: '${PASSWORD}', token: '${TOKEN:-hunter2-default}', baseUrl: 'https://example.org'}
";

#[test]
fn no_secret_is_in_an_image() {
    let workshop = Workshop::new(SECRETS);
    workshop.write("a.js", "fn(state => state)");
    workshop.write("secrets/a.yaml", "password: hunter2-in-file\n");
    workshop.write(".env", "PASSWORD=hunter2-in-dotenv\n");
    workshop.write(".npmrc", "//registry.example.org/:_authToken=hunter2-of-npm\n");
    workshop.write("notes.txt", "hunter2-in-a-file-that-is-no-part");
    let (files, report) = workshop.image("image.tar", &[]);
    assert_eq!(report["name"], "keeps-secrets:latest");
    assert_eq!(
        (&report["variables"], &report["secret_files"]),
        (&json!(["PASSWORD", "TOKEN"]), &json!(["secrets/a.yaml"]))
    );
    let layers = [LIBRARIES, ADAPTORS, PROJECT].map(|number| files.layer(number));
    let all = layers.iter().chain([&files]).flat_map(|files| &files.0);
    for (path, content) in all {
        assert!(!content.windows(7).any(|part| part == b"hunter2"), "{path}");
    }
    let project: Vec<&String> = layers[2].0.keys().collect();
    assert_eq!(project, ["project/", "project/a.js", "project/project.yaml"]);
    assert!(layers[2].text("project/project.yaml").contains("token: '${TOKEN}', baseUrl: 'https://example.org'"));
}

#[test]
fn a_secret_that_would_be_in_an_image_is_refused_and_not_shown() {
    let refused = |workshop: &Workshop, args: &[&str]| {
        let ran = workshop.go(&[&["project", "-o", "image.tar"], args].concat()).expect(2);
        assert!(!ran.stderr.contains("hunter2") && !workshop.path("image.tar").exists(), "{}", ran.stderr);
        ran.stderr
    };
    let workshop = Workshop::new(SECRETS);
    workshop.write("a.js", "fn(state => ({ ...state, password: 'hunter2-in-file' }))");
    workshop.write("secrets/a.yaml", "password: hunter2-in-file\n");
    let error = refused(&workshop, &[]);
    assert!(error.contains("a.js has the value of `password` of the credential `in-file` in it"), "{error}");
    workshop.write("a.js", "fn(state => state)");
    let error = refused(&workshop, &["--env", "PASSWORD=hunter2"]);
    assert!(error.contains("where everyone who has it can read it"), "{error}");
    workshop.edit("project.yaml", "${PASSWORD}", "hunter2-as-it-is");
    let error = refused(&workshop, &[]);
    assert!(error.contains("project.yaml:") && error.contains("`password` is written into the project"), "{error}");
    assert!(error.contains("write ${MY_PASSWORD} and set that variable"), "{error}");
}

#[test]
fn a_job_alone_becomes_a_project() {
    let workshop = Workshop::new("");
    std::fs::write(workshop.path("greet people.js"), "fn(state => ({ ...state, by: state.configuration.name }));\n")
        .unwrap();
    let args = [
        "--job",
        "greet people.js",
        "--adaptor",
        "common",
        "--credential-env",
        "CRED",
        "-o",
        "image.tar",
        "--level",
        "1",
    ];
    let ran = workshop.command(&args).env("FNHOST_REPO_DIR", store()).env("CRED", "no object").arg("--json").output();
    let report = Ran::new(ran.unwrap()).expect(0).state();
    assert_eq!((&report["name"], &report["variables"]), (&json!("greet-people:latest"), &json!(["CRED"])));

    let files = Files::of_tar(&std::fs::read(workshop.path("image.tar")).unwrap()).layer(PROJECT);
    let setup = Setup::new("").env("CRED", r#"{"name":"Ada"}"#);
    std::fs::remove_file(setup.path("project.yaml")).unwrap();
    let setup = ["project.json", "greet people.js"]
        .into_iter()
        .fold(setup, |setup, name| setup.file(name, files.text(&format!("project/{name}"))));
    let server = setup.start();
    let run = server.send_one(&json!({ "x": 1 }));
    let run = server.run_in(&run, "completed");
    assert_eq!(server.output(&run, "greet people")["by"], "Ada");
}

/// A registry, with what it holds in a directory of its own.
struct Registry {
    process: Child,
    directory: TempDir,
    address: String,
}

const REGISTRY_USER: (&str, &str) = ("jo", "s3cret-of-the-registry");
/// That password, as bcrypt hashes it.
const REGISTRY_HASH: &str = "$2b$04$MNHvKHfYaOH8BUdkDgBLeOVOZ.OvYGBYC9cWeNjSPsH5FGkltdn4a";

impl Registry {
    fn start() -> Self {
        Self::with(|_| json!({}))
    }

    /// One that asks for a login.
    fn with_login() -> Self {
        Self::with(|directory| {
            let passwords = directory.join("htpasswd");
            std::fs::write(&passwords, format!("{}:{REGISTRY_HASH}\n", REGISTRY_USER.0)).unwrap();
            json!({ "auth": { "htpasswd": { "realm": "tests", "path": passwords } } })
        })
    }

    /// One with a certificate, and that of the authority behind it.
    fn with_tls() -> (Self, String) {
        let Identity { certificate, key, authority } = Identity::of_localhost();
        let registry = Self::with(|directory| {
            let (certificate_file, key_file) = (directory.join("certificate.pem"), directory.join("key.pem"));
            std::fs::write(&certificate_file, certificate.pem()).unwrap();
            std::fs::write(&key_file, key.serialize_pem()).unwrap();
            json!({ "http": { "tls": { "certificate": certificate_file, "key": key_file } } })
        });
        (registry, authority)
    }

    fn with(settings: impl FnOnce(&Path) -> Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": directory.path().join("blobs") } },
            "http": { "addr": address, "secret": "of no use to anybody" },
        });
        let settings = settings(directory.path());
        config["auth"] = settings["auth"].clone();
        config["http"]["tls"] = settings["http"]["tls"].clone();
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let process =
            Command::new("docker-registry").arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut registry =
            Self { process: process.expect("docker-registry: scripts/test installs it"), directory, address };
        registry.wait();
        registry
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&self.address).is_err() {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The name that an image has there.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address on which nobody listens.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn an_image_is_pushed_without_what_the_registry_has() {
    let registry = Registry::start();
    let workshop = Workshop::with_example();
    let name = registry.name("clinics/example:1");
    let push = || workshop.go(&["project", "--push", &name, "--level", "1", "--json"]).expect(0).state();
    let first = push();
    assert_eq!(first["pushed"]["already_there"], 0);
    let there = output(Command::new("skopeo").args(["inspect", "--tls-verify=false", &format!("docker://{name}")]));
    let there: Value = serde_json::from_str(&there).unwrap();
    assert_eq!((&there["Digest"], &there["Layers"]), (&first["digest"], &json!(digests(&first))));

    workshop.edit("jobs/announce.js", "Registered", "Welcome");
    let second = push();
    assert_ne!(first["digest"], second["digest"]);
    assert!(second["pushed"]["uploaded"].as_u64().unwrap() < 20_000, "{second:#}");
    assert!(registry.directory.path().join("blobs").exists());
}

#[test]
fn a_registry_with_a_certificate_of_its_own_is_trusted_if_one_says_so() {
    let (registry, authority) = Registry::with_tls();
    let workshop = Workshop::with_example();
    let other = Identity::of_localhost().authority;
    let push = |authorities: &str| {
        std::fs::write(workshop.path("ca.pem"), authorities).unwrap();
        workshop.go(&["project", "--push", &registry.name("example"), "--level", "1", "--cafile", "ca.pem"])
    };
    push(&format!("{other}{authority}")).expect(0);
    let refused = push(&other).expect(5).stderr;
    assert!(refused.contains("cannot reach") && refused.contains("certificate"), "{refused}");
    let none = push("no certificate").expect(2).stderr;
    assert!(none.contains("there is no certificate in PEM format"), "{none}");
}

#[test]
fn a_registry_that_refuses_or_is_not_there_is_told() {
    let registry = Registry::with_login();
    let workshop = Workshop::with_example();
    let name = registry.name("example");
    let push = |name: &str, args: &[&str], password: &str| {
        let mut command = workshop.command(&["project", "--push", name, "--level", "1"]);
        Ran::new(command.args(args).env("FNHOST_REGISTRY_PASSWORD", password).output().unwrap())
    };
    let refused = push(&name, &[], "").expect(5).stderr;
    assert!(refused.contains("wants a login, or another one: use docker login, or --user"), "{refused}");
    let wrong = push(&name, &["--user", REGISTRY_USER.0], "wr0ng-password").expect(5).stderr;
    assert!(wrong.contains("wants a login") && !wrong.contains("wr0ng"), "{wrong}");
    push(&name, &["--user", REGISTRY_USER.0], REGISTRY_USER.1).expect(0);

    // As `docker login` keeps it.
    let auth =
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{}:{}", REGISTRY_USER.0, REGISTRY_USER.1));
    let logins = json!({ "auths": { &registry.address: { "auth": auth } } });
    std::fs::write(workshop.path("config.json"), logins.to_string()).unwrap();
    push(&name, &[], "").expect(0);

    let nobody = free_address();
    let unreachable = push(&format!("{nobody}/example"), &[], "").expect(5).stderr;
    assert!(
        unreachable.contains(&format!("cannot reach {nobody}")) && unreachable.contains("refused"),
        "{unreachable}"
    );
}

#[test]
fn what_is_wrong_is_said_before_anything_is_made() {
    let workshop = Workshop::new(
        "jobs: {a: {adaptor: common, trigger: t, expression: 'fn(s => )'}}\ntriggers: {t: {criteria: {}}}\n",
    );
    let fails = |args: &[&str], code: i32, message: &str| {
        let ran = workshop.go(args).expect(code);
        assert!(ran.stderr.contains(message), "{args:?}: {}", ran.stderr);
    };
    fails(&["project"], 2, "--output");
    fails(&["elsewhere", "-o", "image.tar"], 2, "there is no project in elsewhere");
    fails(&["project", "-o", "no/image.tar"], 2, "there is no directory no");
    fails(&["project", "-o", "project", "--format", "directory"], 2, "something else is there");
    fails(&["project", "-o", "-", "--json"], 2, "not both");
    fails(&["project", "-o", "image.tar", "--compression", "gzip", "--level", "12"], 2, "the highest --level");
    fails(&["project", "--push", "Not A Name"], 2, "is not the name of an image");
    fails(&["project", "-o", "image.tar"], 3, "project/project.yaml");
    fails(&["--job", "job.js", "-o", "image.tar"], 2, "cannot read the job");
    workshop.write(
        "project.yaml",
        "jobs: {a: {adaptor: http=/opt/http, trigger: t, expression: 'fn(s => s)'}}\ntriggers: {t: {criteria: {}}}\n",
    );
    fails(&["project", "-o", "image.tar"], 2, "an adaptor that lies in a directory");
    workshop.write(
        "project.yaml",
        "jobs: {a: {adaptor: dhis2, trigger: t, expression: 'fn(s => s)'}}\ntriggers: {t: {criteria: {}}}\n",
    );
    fails(&["project", "-o", "image.tar"], 5, "run: fnhost install dhis2");
    workshop.write("project.yaml", "jobs: {a: {adaptor: common}}\ntrigers: {}\n");
    fails(&["project", "-o", "image.tar"], 2, "project/project.yaml:");
    assert!(!workshop.path("image.tar").exists());
}
