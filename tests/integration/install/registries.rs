//! Reaching registries: configuration, logins, certificates, stumbling servers, no network at all.

use serde_json::json;

use super::fake_registry::{FakeRegistry, Mishap, Package, metadata_path};
use super::{Machine, Outcome, check_tree, files, manifest, resolve};
use crate::server::Setup;

#[test]
fn a_private_scope_is_reached_with_its_token_and_nothing_else_sees_it() {
    let token = "s3cr3t-token-0123456789";
    let public = FakeRegistry::start();
    public.publish_simple("dep", "1.0.0", &[]);
    let private = FakeRegistry::start();
    private.require_authorization(&format!("Bearer {token}"));
    private.publish_simple("@acme/adaptor", "1.0.0", &[("dep", "1")]);
    // A tarball that the private registry keeps elsewhere does not get the token.
    private.mishap("/@acme/adaptor/-/adaptor-1.0.0.tgz", Mishap::Redirect(format!("{}/moved.tgz", public.origin())));

    let machine = Machine::with_registry(&public);
    let scope = format!("registry={}\n@acme:registry={}\n", public.origin(), private.origin());
    machine.write("project/.npmrc", &scope);
    machine.install(&["@acme/adaptor"]).failed_with(&[
        "refused the request (HTTP 401)",
        "_authToken",
        &private.npmrc_key(),
    ]);

    machine.write("home/.npmrc", &format!("{}:_authToken=${{ACME_TOKEN}}\n", private.npmrc_key()));
    let install = |token: &str| {
        let mut command = machine.command(&["@acme/adaptor", "--log", "debug", "--json"]);
        Outcome::of(command.env("ACME_TOKEN", token).output().unwrap())
    };
    let wrong = install("wr0ng-token").failed_with(&["HTTP 401"]);
    assert!(!wrong.stderr.contains("wr0ng-token"));
    let redirected = install(token).failed_with(&["there is no tarball of @acme/adaptor@1.0.0"]);
    let good = install(token).succeeded();
    assert_eq!(machine.version("@acme/adaptor").as_deref(), Some("1.0.0"));

    assert!(public.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", public.seen());
    assert_eq!(public.times_seen("/moved.tgz"), 1);
    for text in [&redirected.stderr, &good.stderr, &good.stdout] {
        assert!(!text.contains(token));
    }
    for file in files(&machine.path("project")).into_iter().chain(files(&machine.path("cache"))) {
        let contents = std::fs::read(&file).unwrap();
        let leaked = contents.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!leaked, "{}", file.display());
    }
}

#[test]
fn the_registry_of_the_flag_beats_the_environment_beats_npmrc() {
    let (a, b, c) = (FakeRegistry::start(), FakeRegistry::start(), FakeRegistry::start());
    for (registry, version) in [(&a, "1.0.0"), (&b, "2.0.0"), (&c, "3.0.0")] {
        registry.publish_simple("leftpad", version, &[]);
    }
    for (flag, environment, expected) in [(true, true, "3.0.0"), (false, true, "2.0.0"), (false, false, "1.0.0")] {
        let machine = Machine::with_registry(&a);
        let mut command = machine.command(&["npm:leftpad"]);
        if environment {
            command.env("npm_config_registry", b.origin());
        }
        if flag {
            command.args(["--registry", c.origin()]);
        }
        Outcome::of(command.output().unwrap()).succeeded();
        assert_eq!(machine.version("leftpad").as_deref(), Some(expected));
    }
}

#[test]
fn a_certificate_of_ones_own_is_trusted_when_npmrc_names_it() {
    let (registry, pem) = FakeRegistry::start_tls();
    registry.publish_simple("leftpad", "1.0.0", &[]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["npm:leftpad"]).failed_with(&["cannot reach", "cafile="]);
    machine.write("project/ca.pem", &pem);
    machine.write("project/.npmrc", &format!("registry={}\ncafile=ca.pem\n", registry.origin()));
    machine.install(&["npm:leftpad"]).succeeded();
    assert_eq!(machine.version("leftpad").as_deref(), Some("1.0.0"));
}

#[test]
fn the_certificates_of_a_run_are_those_of_its_install_too() {
    let (registry, pem) = FakeRegistry::start_tls();
    let files = vec![("package/index.js", "exports.hello = () => state => ({ ...state, data: 'hello' });")];
    registry.publish("@openfn/language-hello", "1.0.0", Package { files, ..Default::default() });
    let machine = Machine::with_registry(&registry);
    machine.write("project/ca.pem", &pem);
    machine.write("project/job.js", "hello();");
    let run = |more: &[&str]| {
        Outcome::of(machine.fnhost("run", &[&["job.js", "-a", "hello"], more].concat()).output().unwrap())
    };
    run(&[]).failed_with(&["cannot install hello@latest", "cannot reach"]);
    assert!(run(&["--cafile", "ca.pem"]).succeeded().stdout.contains("\"hello\""));
}

#[test]
fn the_certificates_of_a_server_are_those_of_its_installs_and_its_jobs() {
    let (registry, pem) = FakeRegistry::start_tls();
    let files = vec![(
        "package/index.js",
        "exports.hello = url => async state => ({ ...state, said: await (await fetch(url)).text() });",
    )];
    registry.publish("@openfn/language-hello", "1.0.0", Package { files, ..Default::default() });
    registry.answer("/word", b"hello");
    let project = format!(
        "
jobs:
  greet: {{ adaptor: hello, trigger: any, expression: 'hello(\"{}/word\")' }}
triggers:
  any: {{ criteria: {{}} }}
",
        registry.origin()
    );
    let setup = Setup::empty();
    let cache = setup.path("cache").display().to_string();
    let server = setup
        .env("XDG_CACHE_HOME", &cache)
        .file("project.yaml", &project)
        .file(".npmrc", &format!("registry={}\n", registry.origin()))
        .file("ca.pem", &pem)
        .args(&["--cafile", "ca.pem"])
        .start();
    let run = server.run_in(&server.send_one(&json!({})), "completed");
    assert_eq!(server.output(&run, "greet")["said"], "hello");
}

#[test]
fn a_registry_that_stumbles_is_asked_again() {
    let registry = FakeRegistry::start();
    registry.publish_simple("leftpad", "1.0.0", &[]);
    let tarball = "/leftpad/-/leftpad-1.0.0.tgz";
    registry.mishap("/leftpad", Mishap::Status(500));
    registry.mishap("/leftpad", Mishap::Status(503));
    registry.mishap(tarball, Mishap::Truncated);
    let machine = Machine::with_registry(&registry);
    machine.install(&["npm:leftpad"]).succeeded();
    assert_eq!((registry.times_seen("/leftpad"), registry.times_seen(tarball)), (3, 2));
}

#[test]
fn a_registry_that_keeps_failing_leaves_nothing_half_installed() {
    let registry = FakeRegistry::start();
    registry.publish_simple("dep", "1.0.0", &[]);
    registry.publish_simple("leftpad", "1.0.0", &[("dep", "1")]);
    let tarball = "/dep/-/dep-1.0.0.tgz";
    for _ in 0..3 {
        registry.mishap(tarball, Mishap::Truncated);
    }
    registry.mishap(tarball, Mishap::Status(404));
    registry.mishap(tarball, Mishap::Corrupted);
    let machine = Machine::with_registry(&registry);
    for expected in [
        &["cannot download dep@1.0.0", "broke off"][..],
        &["there is no tarball of dep@1.0.0"],
        &["the tarball of dep@1.0.0 is not what it should be", "expected sha512-"],
    ] {
        machine.install(&["npm:leftpad"]).failed_with(expected);
        assert_eq!(machine.version("leftpad"), None);
        assert!(!machine.path("project/fnhost.lock").exists());
    }
    machine.install(&["npm:leftpad"]).succeeded();
    assert_eq!(check_tree(&resolve(&machine.path("project"), "leftpad").unwrap()), 2);
}

#[test]
fn offline_takes_the_cache_or_says_what_is_missing() {
    let registry = FakeRegistry::start();
    registry.publish_simple("dep", "1.0.0", &[]);
    registry.publish_simple("leftpad", "1.0.0", &[("dep", "1")]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["--offline", "npm:leftpad"]).failed_with(&["`leftpad` is not in the cache", "without --offline"]);
    machine.install(&["npm:leftpad"]).succeeded();

    let before = registry.seen().len();
    std::fs::remove_dir_all(machine.modules()).unwrap();
    std::fs::remove_file(machine.path("project/fnhost.lock")).unwrap();
    machine.install(&["--offline", "leftpad"]).succeeded();
    assert_eq!(machine.version("leftpad").as_deref(), Some("1.0.0"));

    std::fs::remove_dir_all(machine.modules()).unwrap();
    for directory in machine.path("cache/fnhost/npm").read_dir().unwrap().flatten() {
        let _ = std::fs::remove_dir_all(directory.path().join("dep"));
    }
    machine.install(&["--offline"]).failed_with(&["no downloading offline: dep@1.0.0"]);
    assert_eq!(registry.seen().len(), before);
}

#[test]
fn metadata_is_asked_for_again_when_it_is_too_old() {
    let registry = FakeRegistry::start();
    registry.publish_simple("dep", "1.0.0", &[]);
    registry.publish_simple("leftpad", "1.0.0", &[("dep", "^1")]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["npm:leftpad"]).succeeded();
    registry.publish_simple("dep", "1.1.0", &[]);
    let again = || {
        std::fs::remove_file(machine.path("project/fnhost.lock")).unwrap();
        machine.install(&["npm:leftpad"]).succeeded();
    };
    again();
    let dependency = |machine: &Machine| {
        let package = resolve(&machine.path("project"), "leftpad").unwrap();
        manifest(&resolve(&package, "dep").unwrap())["version"].clone()
    };
    assert_eq!(registry.times_seen(&metadata_path("leftpad")), 2, "what is asked for by name is always fresh");
    assert_eq!(dependency(&machine), "1.0.0", "dependencies are believed for a few minutes");

    let cached = files(&machine.path("cache")).into_iter().find(|file| file.ends_with("dep/registry.json")).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::options().append(true).open(cached).unwrap().set_modified(long_ago).unwrap();
    again();
    assert_eq!(dependency(&machine), "1.1.0");
}

#[test]
fn npmrc_may_name_a_proxy() {
    // A proxy is asked for whole addresses; this registry answers those as well.
    let proxy = FakeRegistry::start();
    proxy.publish_simple("leftpad", "1.0.0", &[]);
    let machine = Machine::with_registry(&proxy);
    let npmrc = format!("registry=http://registry.invalid/\nproxy={}\n", proxy.origin());
    machine.write("project/.npmrc", &npmrc);
    machine.install(&["npm:leftpad"]).succeeded();
    assert_eq!(proxy.times_seen("http://registry.invalid/leftpad"), 1);
}

#[test]
fn versions_younger_than_npmrc_allows_are_not_chosen() {
    let registry = FakeRegistry::start();
    registry.publish_simple("leftpad", "1.0.0", &[]);
    registry.publish_simple("leftpad", "1.1.0", &[]);
    registry
        .publication_dates("leftpad", &[("1.0.0", "2020-01-01T00:00:00.000Z"), ("1.1.0", "2999-01-01T00:00:00.000Z")]);
    let machine = Machine::with_registry(&registry);
    machine.write("project/.npmrc", &format!("registry={}\nmin-release-age=7\n", registry.origin()));
    machine.install(&["npm:leftpad@^1"]).succeeded();
    assert_eq!(machine.version("leftpad").as_deref(), Some("1.0.0"));
}

#[test]
fn an_answer_that_is_no_metadata_is_said_to_be_none() {
    let registry = FakeRegistry::start();
    registry.answer("/leftpad", b"<html>Log in to the guest network</html>");
    let machine = Machine::with_registry(&registry);
    machine.install(&["npm:leftpad"]).failed_with(&["the metadata of `leftpad` is unusable"]);
}
