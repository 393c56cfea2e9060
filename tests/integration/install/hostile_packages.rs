//! Packages that mean harm, or ask for what fnhost does not do.

use serde_json::{Value, json};

use super::fake_registry::{FakeRegistry, Package, entry, tarball_of};
use super::{Machine, files, resolve};

#[test]
fn a_package_that_changed_behind_its_lock_is_refused() {
    let registry = FakeRegistry::start();
    registry.publish("leftpad", "1.0.0", Package { integrity: Some(Value::Null), ..Default::default() });
    let machine = Machine::with_registry(&registry);
    machine.install(&["npm:leftpad"]).succeeded();
    let locked = machine.lock()["packages"]["leftpad@1.0.0"]["integrity"].as_str().unwrap().to_string();
    assert!(locked.starts_with("sha512-"), "the digest is noted even if the registry states none");

    let changed = Package { files: vec![("package/evil.js", "")], integrity: Some(Value::Null), ..Default::default() };
    registry.publish("leftpad", "1.0.0", changed);
    std::fs::remove_dir_all(machine.modules()).unwrap();
    std::fs::remove_dir_all(machine.path("cache")).unwrap();
    machine.install(&["npm:leftpad"]).failed_with(&["is not what it should be", &locked, "--update"]);
}

#[test]
fn a_tarball_cannot_write_outside_its_package() {
    let registry = FakeRegistry::start();
    let manifest = r#"{"name":"x","version":"1.0.0"}"#;
    let file = |path: &str, text: &'static str| (entry(path, tar::EntryType::Regular, text.len()), text.as_bytes());
    let machine = Machine::with_registry(&registry);
    let absolute = machine.path("planted");
    for (name, path) in [("climbs", "package/../../../../../../planted"), ("absolute", absolute.to_str().unwrap())] {
        let tarball = tarball_of([file("package/package.json", manifest), file(path, "planted")]);
        registry.publish(name, "1.0.0", Package { tarball: Some(tarball), ..Default::default() });
        machine.install(&[&format!("npm:{name}")]).failed_with(&["cannot be unpacked", "not in output directory"]);
        assert_eq!(machine.version(name), None);
    }
    assert!(files(machine.directory.path()).iter().all(|file| !file.ends_with("planted")));

    // Links do not appear at all, so nothing can be written or read through them.
    let link = |path: &str, kind| {
        let mut header = entry(path, kind, 0);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        (header, &b""[..])
    };
    let tarball = tarball_of([
        file("package/package.json", manifest),
        link("package/soft", tar::EntryType::Symlink),
        link("package/hard", tar::EntryType::Link),
    ]);
    registry.publish("links", "1.0.0", Package { tarball: Some(tarball), ..Default::default() });
    machine.install(&["npm:links"]).succeeded();
    let package = resolve(&machine.path("project"), "links").unwrap();
    assert_eq!(files(&package), [package.join("package.json")]);
}

#[test]
fn metadata_cannot_write_outside_the_store() {
    let registry = FakeRegistry::start();
    registry.publish_simple("dep", "1.0.0", &[]);
    registry.publish_simple("leftpad", "1.0.0", &[("../../planted", "npm:dep@1.0.0")]);
    registry.publish_simple("rightpad", "1.0.0", &[("../../planted", "1.0.0")]);
    let machine = Machine::with_registry(&registry);
    for name in ["npm:leftpad", "npm:rightpad"] {
        machine.install(&[name]).failed_with(&["../../planted"]);
    }
    assert!(!machine.path("project/fnhost.lock").exists());
    assert!(!machine.path("planted").is_symlink() && !machine.path("project/planted").is_symlink());
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let registry = FakeRegistry::start();
    let zeros = vec![0; 513 << 20];
    let tarball = tarball_of([(entry("package/zeros", tar::EntryType::Regular, zeros.len()), zeros.as_slice())]);
    registry.publish("bomb", "1.0.0", Package { tarball: Some(tarball), ..Default::default() });
    let machine = Machine::with_registry(&registry);
    machine.install(&["npm:bomb"]).failed_with(&["cannot download bomb@1.0.0", "unpacks to more than"]);
}

#[test]
fn scripts_do_not_run_and_native_parts_are_reported() {
    let registry = FakeRegistry::start();
    let scripts = json!({ "scripts": { "postinstall": "touch ran", "install": "touch ran", "test": "true" } });
    registry.publish("scripted", "1.0.0", Package { manifest: scripts, ..Default::default() });
    let addon = vec![("package/build/Release/addon.node", "\x7fELF")];
    registry.publish("native", "1.0.0", Package { files: addon, ..Default::default() });
    let part = json!({ "os": [std::env::consts::OS.replace("macos", "darwin")], "cpu": ["x64", "arm64"] });
    registry.publish("part-here", "1.0.0", Package { manifest: part, ..Default::default() });
    let part = json!({ "os": ["aix"] });
    registry.publish("part-elsewhere", "1.0.0", Package { manifest: part, ..Default::default() });
    let manifest = json!({
        "dependencies": { "scripted": "1", "native": "1" },
        "optionalDependencies": { "part-here": "1", "part-elsewhere": "1", "from-url": "https://cdn.test/x.tgz" },
    });
    registry.publish("@openfn/language-http", "7.0.0", Package { manifest, ..Default::default() });

    let machine = Machine::with_registry(&registry);
    let outcome = machine.install(&["http"]).succeeded();
    let warnings: Vec<&str> = outcome.stderr.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    assert_eq!(
        warnings,
        [
            "native@1.0.0 has a native add-on: it will not load",
            "scripted@1.0.0 wants to run scripts when installed (install, postinstall): they were not run",
            "part-here@1.0.0, a native part of @openfn/language-http@7.0.0, was left out: it would not load",
        ]
    );
    assert!(files(machine.directory.path()).iter().all(|file| !file.ends_with("ran")));
    assert_eq!(registry.times_seen("/part-here/-/part-here-1.0.0.tgz"), 0);
    // Other systems read the same lock.
    assert_eq!(machine.lock()["packages"]["part-elsewhere@1.0.0"]["os"], json!(["aix"]));
}

#[test]
fn optional_parts_that_no_registry_has_are_left_out() {
    let registry = FakeRegistry::start();
    registry.publish_simple("part-for-aix", "1.0.0", &[]);
    let optional = json!({
        "part-for-aix": "2.0.0",
        "part-for-sunos": "2.0.0",
        "another-name": "npm:part-for-aix@^3",
    });
    let manifest = json!({ "optionalDependencies": optional });
    registry.publish("driver", "2.0.0", Package { manifest, ..Default::default() });
    registry.publish_simple("@openfn/language-http", "7.0.0", &[("driver", "2")]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["http"]).succeeded();
    assert_eq!(machine.lock()["packages"]["driver@2.0.0"].get("optional"), None);

    registry.publish_simple("@openfn/language-sftp", "3.0.0", &[("driver", "2"), ("part-for-aix", "2.0.0")]);
    machine.install(&["sftp"]).failed_with(&["`part-for-aix` has no version that fits `2.0.0`; the newest are 1.0.0"]);
    registry.publish_simple("@openfn/language-redis", "1.0.0", &[("driver", "2"), ("part-for-sunos", "2.0.0")]);
    machine.install(&["redis"]).failed_with(&["there is no package `part-for-sunos`"]);
}

#[test]
fn a_dependency_from_a_url_names_who_wants_it() {
    let registry = FakeRegistry::start();
    registry.publish_simple("@openfn/language-msgraph", "1.0.0", &[("xlsx", "https://cdn.test/xlsx.tgz")]);
    let machine = Machine::with_registry(&registry);
    machine
        .install(&["msgraph"])
        .failed_with(&["@openfn/language-msgraph@1.0.0 wants `xlsx` from https://cdn.test/xlsx.tgz"]);
}
