//! `fnhost install`: packages end up where Node's rules find them, or an error says why not and nothing is broken.

mod fake_registry;
mod hostile_packages;
mod interruptions;
mod registries;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use deno_semver::{Version, VersionReq};
use fake_registry::{FakeRegistry, Package, tarball};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A person's machine: a home, a cache and a project, all of them temporary.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["home", "cache", "project"] {
            std::fs::create_dir(machine.path(name)).unwrap();
        }
        machine
    }

    fn with_registry(registry: &FakeRegistry) -> Self {
        let machine = Self::new();
        machine.write("project/.npmrc", &format!("registry={}\n", registry.origin()));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// `fnhost install` in the project.
    fn command(&self, args: &[&str]) -> Command {
        self.fnhost("install", args)
    }

    /// The program in the project, with nothing of this machine's own settings.
    fn fnhost(&self, command: &str, args: &[&str]) -> Command {
        let mut fnhost = Command::new(env!("CARGO_BIN_EXE_fnhost"));
        fnhost.env_clear().env("HOME", self.path("home")).env("XDG_CACHE_HOME", self.path("cache"));
        fnhost.arg(command).args(["--repo-dir", "."]).args(args).current_dir(self.path("project"));
        fnhost
    }

    fn install(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args).output().unwrap())
    }

    fn modules(&self) -> PathBuf {
        self.path("project/node_modules")
    }

    fn lock(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("project/fnhost.lock")).unwrap()).unwrap()
    }

    /// The version of what a job in the project would import under this name.
    fn version(&self, specifier: &str) -> Option<String> {
        resolve(&self.path("project"), specifier).map(|package| manifest(&package)["version"].as_str().unwrap().into())
    }
}

#[derive(Debug)]
struct Outcome {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { success: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert!(self.success, "{}", self.stderr);
        self
    }

    #[track_caller]
    fn failed_with(self, parts: &[&str]) -> Self {
        assert!(!self.success, "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in: {}", self.stderr);
        }
        self
    }
}

fn manifest(package: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(package.join("package.json")).unwrap()).unwrap()
}

/// Node's rule for bare specifiers: `node_modules` of the directory and of every one above it; links are followed.
fn resolve(from: &Path, specifier: &str) -> Option<PathBuf> {
    let from = from.canonicalize().unwrap();
    from.ancestors()
        .filter(|directory| !directory.ends_with("node_modules"))
        .map(|directory| directory.join("node_modules").join(specifier))
        .find(|package| package.join("package.json").exists())
        .map(|package| package.canonicalize().unwrap())
}

/// Walks everything reachable from `package` and checks that each dependency resolves to a version that fits.
fn check_tree(package: &Path) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    let mut pending = vec![package.to_path_buf()];
    while let Some(package) = pending.pop() {
        if !seen.insert(package.clone()) {
            continue;
        }
        let manifest = manifest(&package);
        for (name, range) in manifest["dependencies"].as_object().into_iter().flatten() {
            let found = resolve(&package, name).unwrap_or_else(|| panic!("{} misses {name}", package.display()));
            let version = self::manifest(&found)["version"].as_str().unwrap().to_string();
            let range = VersionReq::parse_from_npm(range.as_str().unwrap()).unwrap();
            let version = Version::parse_from_npm(&version).unwrap();
            assert!(range.tag().is_some() || range.matches(&version), "{name}@{range} became {version}");
            pending.push(found);
        }
    }
    seen.len()
}

/// The files below a directory, links not followed.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in directory.read_dir().into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                pending.push(entry.path())
            } else if kind.is_file() {
                found.push(entry.path())
            }
        }
    }
    found
}

#[test]
fn real_adaptors_install_from_the_real_registry() {
    // Everything else here brings its own registry; this one is the proof. Set the variable where there is no network.
    if std::env::var_os("FNHOST_TEST_OFFLINE").is_some() {
        return;
    }
    let machine = Machine::new();
    let install = |args: &[&str], change: &dyn Fn(&mut Command)| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fnhost"));
        // This machine's way to the registry (.npmrc, proxies, certificates) stays; only its cache is not used.
        command.env("XDG_CACHE_HOME", machine.path("cache")).arg("install").args(args);
        command.args(["--repo-dir", "."]).current_dir(machine.path("project"));
        change(&mut command);
        Outcome::of(command.output().unwrap())
    };
    let adaptors = ["http", "common@2.1.1", "common@latest"];
    let first = install(&adaptors, &|_| {}).succeeded();
    assert_eq!(first.stderr.matches(" new\n").count(), 3, "{}", first.stderr);

    let http = resolve(&machine.path("project"), "@openfn/language-http").unwrap();
    assert!(http.join("dist/index.js").exists());
    assert!(check_tree(&http) > 10, "http has more dependencies than this");
    let old = resolve(&machine.path("project"), "@openfn/language-common_2.1.1").unwrap();
    assert_eq!(manifest(&old)["version"], "2.1.1");
    check_tree(&old);
    let default = machine.version("@openfn/language-common").unwrap();
    assert!(Version::parse_from_npm(&default).unwrap() > Version::parse_from_npm("2.1.1").unwrap());

    // With everything in place, no network is needed, so none may be tried.
    let unreachable = |command: &mut Command| {
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(proxy, "http://127.0.0.1:1");
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy");
    };
    let again = install(&adaptors, &unreachable).succeeded();
    assert_eq!(again.stderr.matches(" kept\n").count(), 3, "{}", again.stderr);

    // The lock and the cache give the same store again.
    std::fs::remove_dir_all(machine.modules()).unwrap();
    install(&["--frozen"], &unreachable).succeeded();
    check_tree(&resolve(&machine.path("project"), "@openfn/language-http").unwrap());

    install(&["dhis2"], &unreachable).failed_with(&["cannot reach", "HTTPS_PROXY"]);
}

#[test]
fn versions_stand_side_by_side_and_each_sees_its_own_dependencies() {
    let registry = FakeRegistry::start();
    registry.publish_simple("dep", "1.0.0", &[]);
    registry.publish_simple("dep", "2.0.0", &[]);
    registry.publish_simple("@openfn/language-http", "6.0.0", &[("dep", "^1")]);
    registry.publish_simple("@openfn/language-http", "7.0.0", &[("dep", "^2")]);
    let machine = Machine::with_registry(&registry);

    machine.install(&["http@6", "http"]).succeeded();
    assert_eq!(machine.version("@openfn/language-http").as_deref(), Some("7.0.0"));
    assert_eq!(machine.version("@openfn/language-http_6.0.0").as_deref(), Some("6.0.0"));
    assert_eq!(machine.version("@openfn/language-http_7.0.0").as_deref(), Some("7.0.0"));
    for (name, dependency) in [("@openfn/language-http_6.0.0", "1.0.0"), ("@openfn/language-http", "2.0.0")] {
        let package = resolve(&machine.path("project"), name).unwrap();
        assert_eq!(manifest(&resolve(&package, "dep").unwrap())["version"], dependency);
    }
    assert_eq!(machine.version("dep"), None, "a job does not see what it never asked for");

    // A package that never declared `dep` finds the highest one there is.
    let undeclared = machine.modules().join(".fnhost/undeclared@1.0.0/node_modules/undeclared");
    std::fs::create_dir_all(&undeclared).unwrap();
    assert_eq!(manifest(&resolve(&undeclared, "dep").unwrap())["version"], "2.0.0");
}

#[test]
fn many_versions_of_one_package_arrive_together() {
    // They share a directory of the cache, and they are unpacked at the same time.
    let registry = FakeRegistry::start();
    let files: Vec<(String, String)> = (0..200).map(|n| (format!("package/lib/{n}.js"), format!("{n}"))).collect();
    let manifest = |version: &str| format!(r#"{{"name":"dep","version":"{version}"}}"#);
    let versions: Vec<String> = (0..10).map(|patch| format!("1.0.{patch}")).collect();
    for version in &versions {
        let manifest = manifest(version);
        let mut all = vec![("package/package.json", manifest.as_str())];
        all.extend(files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
        let package = Package { tarball: Some(tarball(&all)), ..Default::default() };
        registry.publish("dep", version, package);
    }
    let requests: Vec<String> = versions.iter().map(|version| format!("npm:dep@{version}")).collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    let machine = Machine::with_registry(&registry);
    machine.install(&requests).succeeded();
    for version in &versions {
        assert_eq!(machine.version(&format!("dep_{version}")).as_ref(), Some(version));
    }
}

#[test]
fn the_store_can_be_moved() {
    let registry = FakeRegistry::start();
    registry.publish_simple("@acme/dep", "1.0.0", &[]);
    registry.publish_simple("@openfn/language-http", "7.0.0", &[("@acme/dep", "1")]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["http"]).succeeded();
    std::fs::rename(machine.path("project"), machine.path("elsewhere")).unwrap();
    let package = resolve(&machine.path("elsewhere"), "@openfn/language-http").unwrap();
    assert_eq!(check_tree(&package), 2);
}

#[test]
fn the_lock_decides_until_it_is_updated() {
    let registry = FakeRegistry::start();
    registry.publish_simple("dep", "1.0.0", &[]);
    registry.publish_simple("@openfn/language-http", "7.0.0", &[("dep", "^1")]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["http"]).succeeded();
    let lock = machine.lock();
    assert_eq!(lock["requests"]["@openfn/language-http@latest"], "@openfn/language-http@7.0.0");
    assert_eq!(lock["packages"]["@openfn/language-http@7.0.0"]["dependencies"]["dep"], "dep@1.0.0");
    assert!(lock["packages"]["dep@1.0.0"]["integrity"].as_str().unwrap().starts_with("sha512-"));
    assert!(lock["packages"]["dep@1.0.0"].get("tarball").is_none(), "the usual place is not written down");

    registry.publish_simple("dep", "1.1.0", &[]);
    registry.publish_simple("@openfn/language-http", "7.1.0", &[("dep", "^1")]);
    let before = registry.seen().len();
    std::fs::remove_dir_all(machine.modules()).unwrap();
    machine.install(&["http", "http@^7"]).succeeded();
    assert_eq!(machine.version("@openfn/language-http").as_deref(), Some("7.0.0"));
    assert_eq!(registry.seen().len(), before, "the lock and the cache have everything");
    assert_eq!(machine.lock(), lock);

    let failed = machine.install(&["--frozen", "http", "common"]);
    failed.failed_with(&["the lockfile does not have @openfn/language-common@latest", "without --frozen"]);
    assert_eq!(machine.lock(), lock);

    machine.install(&["--update"]).succeeded();
    assert_eq!(machine.version("@openfn/language-http").as_deref(), Some("7.1.0"));
    let package = resolve(&machine.path("project"), "@openfn/language-http").unwrap();
    assert_eq!(manifest(&resolve(&package, "dep").unwrap())["version"], "1.1.0");
    assert!(!machine.modules().join(".fnhost/dep@1.0.0").exists(), "what nobody needs is swept away");
    assert!(!machine.modules().join("@openfn/language-http_7.0.0").is_symlink());
}

#[test]
fn a_broken_lock_is_not_replaced_behind_peoples_backs() {
    let registry = FakeRegistry::start();
    registry.publish_simple("@openfn/language-http", "7.0.0", &[]);
    let machine = Machine::with_registry(&registry);
    machine.write("project/fnhost.lock", "<<<<<<< HEAD\n{}\n");
    machine.install(&["http"]).failed_with(&["fnhost.lock is not a lockfile", "version control"]);
    machine.write("project/fnhost.lock", r#"{"version":2,"requests":{},"packages":{}}"#);
    machine.install(&["http"]).failed_with(&["its version is 2"]);
    assert!(!machine.modules().join("@openfn").exists());
}

#[test]
fn adding_an_adaptor_leaves_the_others_as_they_are() {
    let registry = FakeRegistry::start();
    registry.publish_simple("dep", "1.0.0", &[]);
    registry.publish_simple("@openfn/language-http", "7.0.0", &[("dep", "^1")]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["http"]).succeeded();
    registry.publish_simple("dep", "1.1.0", &[]);
    registry.publish_simple("@openfn/language-http", "7.1.0", &[("dep", "^1")]);
    registry.publish_simple("@openfn/language-common", "3.0.0", &[("dep", "^1")]);
    let added = machine.install(&["http", "common"]).succeeded();
    assert!(added.stderr.contains("@openfn/language-http    7.0.0  kept"), "{}", added.stderr);
    assert!(added.stderr.contains("@openfn/language-common  3.0.0  new"), "{}", added.stderr);
    let common = resolve(&machine.path("project"), "@openfn/language-common").unwrap();
    assert_eq!(manifest(&resolve(&common, "dep").unwrap())["version"], "1.0.0", "shared with http");
}

#[test]
fn peers_come_from_whoever_brings_them() {
    let registry = FakeRegistry::start();
    registry.publish_simple("host", "1.0.0", &[]);
    registry.publish_simple("host", "2.0.0", &[]);
    let plugin = json!({
        "peerDependencies": { "host": "*", "absent": "*" },
        "peerDependenciesMeta": { "absent": { "optional": true } },
    });
    registry.publish("plugin", "1.0.0", Package { manifest: plugin, ..Default::default() });
    registry.publish_simple("@openfn/language-http", "1.0.0", &[("plugin", "1"), ("host", "1")]);
    registry.publish_simple("@openfn/language-common", "1.0.0", &[("plugin", "1"), ("host", "2")]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["http", "common"]).succeeded();
    for (adaptor, host) in [("@openfn/language-http", "1.0.0"), ("@openfn/language-common", "2.0.0")] {
        let plugin = resolve(&resolve(&machine.path("project"), adaptor).unwrap(), "plugin").unwrap();
        assert_eq!(manifest(&resolve(&plugin, "host").unwrap())["version"], host, "{adaptor}");
    }

    // That nobody has `absent` is known offline, too.
    std::fs::remove_file(machine.path("project/fnhost.lock")).unwrap();
    machine.install(&["--offline", "http"]).succeeded();
}

#[test]
fn any_npm_package_will_do_and_npm_prefix_means_the_package() {
    let registry = FakeRegistry::start();
    registry.publish_simple("leftpad", "1.0.0", &[]);
    registry.publish_simple("http", "0.0.1", &[]);
    registry.publish_simple("@openfn/language-brandnew", "1.0.0", &[]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["leftpad", "npm:http", "brandnew"]).succeeded();
    assert_eq!(machine.version("leftpad").as_deref(), Some("1.0.0"));
    assert_eq!(machine.version("http").as_deref(), Some("0.0.1"));
    assert_eq!(machine.version("@openfn/language-brandnew").as_deref(), Some("1.0.0"));
    // The lock remembers which of the two names it was, so no registry is asked again.
    let before = registry.seen().len();
    machine.install(&["leftpad", "npm:http", "brandnew"]).succeeded();
    assert_eq!(registry.seen().len(), before);
}

#[test]
fn names_and_versions_that_do_not_exist_are_explained() {
    let registry = FakeRegistry::start();
    registry.publish_simple("@openfn/language-http", "6.0.0", &[]);
    registry.publish_simple("@openfn/language-http", "7.0.0", &[]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["htpt"]).failed_with(&["there is no package `htpt`", "did you mean `http`?"]);
    machine.install(&["http@9"]).failed_with(&["no version that fits `9`", "7.0.0, 6.0.0"]);
    machine.install(&["http@nightly"]).failed_with(&["no version that fits `nightly`", "7.0.0, 6.0.0"]);
    machine.install(&["../evil"]).failed_with(&["`../evil` is not an adaptor"]);
    assert!(!machine.path("project/fnhost.lock").exists());
}

#[test]
fn without_names_the_project_says_what_to_install() {
    let registry = FakeRegistry::start();
    registry.publish_simple("@openfn/language-http", "7.0.0", &[]);
    registry.publish_simple("@openfn/language-common", "2.5.1", &[]);
    let machine = Machine::with_registry(&registry);
    machine.install(&[]).failed_with(&["no project here", "fnhost install http"]);

    machine.write(
        "project/project.yaml",
        "jobs:\n  a:\n    adaptor: '@openfn/language-http'\n  b:\n    adaptor: '@openfn/language-common@2.5.1'\n",
    );
    let report = machine.install(&["--json", "--log", "none"]).succeeded();
    assert_eq!(report.stderr, "");
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let adaptors: Vec<_> = report["adaptors"].as_array().unwrap().iter().map(|adaptor| &adaptor["specifier"]).collect();
    assert_eq!(adaptors, ["@openfn/language-http", "@openfn/language-common"]);
    assert_eq!(
        (&report["packages"], &report["downloaded"], &report["lock_changed"]),
        (&json!(2), &json!(2), &json!(true))
    );

    machine.write("project/project.yaml", "jobs:\n  a:\n    adaptor: http@@\n");
    machine.install(&[]).failed_with(&["project.yaml:3:", "no usable version"]);
}

#[test]
fn an_odd_archive_is_still_a_package() {
    // Not every tool calls the top directory `package`, and modes may be anything.
    let registry = FakeRegistry::start();
    let manifest = r#"{"name":"odd","version":"1.0.0"}"#;
    registry.publish(
        "odd",
        "1.0.0",
        Package { tarball: Some(tarball(&[("odd-1.0.0/package.json", manifest)])), ..Default::default() },
    );
    let machine = Machine::with_registry(&registry);
    machine.install(&["npm:odd"]).succeeded();
    assert_eq!(machine.version("odd").as_deref(), Some("1.0.0"));
}

#[test]
fn the_store_is_the_projects_or_else_the_users() {
    let registry = FakeRegistry::start();
    registry.publish_simple("@openfn/language-http", "7.0.0", &[]);
    let machine = Machine::with_registry(&registry);
    machine.write("home/.npmrc", &format!("registry={}\n", registry.origin()));
    let install_in = |directory: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fnhost"));
        command.env_clear().env("HOME", machine.path("home"));
        command.env("XDG_CACHE_HOME", machine.path("cache"));
        command.arg("install").args(args).arg("--json");
        let outcome = Outcome::of(command.current_dir(machine.path(directory)).output().unwrap());
        let report: Value = serde_json::from_str(&outcome.succeeded().stdout).unwrap();
        PathBuf::from(report["root"].as_str().unwrap())
    };
    std::fs::create_dir(machine.path("elsewhere")).unwrap();
    let users = machine.path("home/.local/share/fnhost");
    assert_eq!(install_in("elsewhere", &["http"]), users);
    assert!(resolve(&users, "@openfn/language-http").is_some());

    let project = machine.path("project").canonicalize().unwrap();
    machine.write("project/project.yaml", "jobs:\n  a: {adaptor: http}\n");
    std::fs::create_dir(machine.path("project/jobs")).unwrap();
    assert_eq!(install_in("project/jobs", &[]), project);
    assert_eq!(machine.version("@openfn/language-http").as_deref(), Some("7.0.0"));
}

#[test]
fn a_local_adaptor_is_used_where_it_is() {
    let registry = FakeRegistry::start();
    let machine = Machine::with_registry(&registry);
    machine.install(&["http=./mine"]).failed_with(&["./mine is not a package"]);
    std::fs::create_dir(machine.path("project/mine")).unwrap();
    let manifest = r#"{"name":"@openfn/language-http","version":"0.0.1"}"#;
    machine.write("project/mine/package.json", manifest);
    let outcome = machine.install(&["http=./mine"]).succeeded();
    assert!(outcome.stderr.contains("@openfn/language-http  0.0.1  kept"), "{}", outcome.stderr);
    assert!(!machine.modules().exists() && registry.seen().is_empty());
}
