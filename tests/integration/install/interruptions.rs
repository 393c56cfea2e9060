//! Killed, damaged, crowded: an install ends well or the next one does.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::fake_registry::{FakeRegistry, Mishap};
use super::{Machine, Outcome, check_tree, files, resolve};

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_damaged_cache_is_mended_by_fetching_once_more() {
    let registry = FakeRegistry::start();
    registry.publish_simple("leftpad", "1.0.0", &[]);
    let machine = Machine::with_registry(&registry);
    machine.install(&["npm:leftpad"]).succeeded();
    let path = "/leftpad/-/leftpad-1.0.0.tgz";

    let cached = files(&machine.path("cache")).into_iter().find(|file| file.ends_with("1.0.0/index.js")).unwrap();
    std::fs::remove_file(&cached).unwrap();
    std::fs::write(&cached, "export def").unwrap();
    std::fs::remove_dir_all(machine.modules()).unwrap();
    machine.install(&["npm:leftpad"]).succeeded();
    assert_eq!(registry.times_seen(path), 2);
    let package = resolve(&machine.path("project"), "leftpad").unwrap();
    assert_eq!(std::fs::read_to_string(package.join("index.js")).unwrap(), "export default 1;");

    std::fs::remove_dir_all(machine.modules()).unwrap();
    machine.install(&["npm:leftpad"]).succeeded();
    assert_eq!(registry.times_seen(path), 2, "an undamaged cache is used");
}

#[test]
fn an_install_killed_in_a_download_is_mended_by_the_next() {
    let registry = FakeRegistry::start();
    registry.publish_simple("dep", "1.0.0", &[]);
    registry.publish_simple("leftpad", "1.0.0", &[("dep", "1")]);
    registry.mishap("/dep/-/dep-1.0.0.tgz", Mishap::Stalled);
    let machine = Machine::with_registry(&registry);

    let mut killed = spawn(machine.command(&["npm:leftpad"]));
    registry.wait_for("/dep/-/dep-1.0.0.tgz");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(machine.version("leftpad"), None);

    registry.resume();
    machine.install(&["npm:leftpad"]).succeeded();
    assert_eq!(check_tree(&resolve(&machine.path("project"), "leftpad").unwrap()), 2);
}

#[test]
fn an_install_killed_at_any_instant_is_mended_by_the_next() {
    let registry = FakeRegistry::start();
    let names: Vec<String> = (0..20).map(|n| format!("dep-{n}")).collect();
    for name in &names {
        registry.publish_simple(name, "1.0.0", &[]);
    }
    let dependencies: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    registry.publish_simple("leftpad", "1.0.0", &dependencies);
    let machine = Machine::with_registry(&registry);
    for pause in 0..40 {
        let mut killed = spawn(machine.command(&["npm:leftpad"]));
        std::thread::sleep(std::time::Duration::from_millis(pause * 3));
        killed.kill().unwrap();
        killed.wait().unwrap();
        // Whatever is there for jobs to enter by is whole.
        if let Some(package) = resolve(&machine.path("project"), "leftpad") {
            assert_eq!(check_tree(&package), 21);
        }
        // Half of the time the cache is full already, so that placing files is what gets killed.
        if pause % 2 == 0 {
            let _ = std::fs::remove_dir_all(machine.modules());
        }
    }
    machine.install(&["npm:leftpad"]).succeeded();
    assert_eq!(check_tree(&resolve(&machine.path("project"), "leftpad").unwrap()), 21);
    let unfinished = |file: &PathBuf| file.to_string_lossy().contains(".unfinished-");
    assert_eq!(files(&machine.modules()).into_iter().filter(unfinished).count(), 0);
}

#[test]
fn several_installs_into_one_store_take_turns() {
    let registry = FakeRegistry::start();
    let adaptors = ["http", "common", "dhis2", "odk"];
    registry.publish_simple("dep", "1.0.0", &[]);
    for adaptor in adaptors {
        registry.publish_simple(&format!("@openfn/language-{adaptor}"), "1.0.0", &[("dep", "1")]);
    }
    let machine = Machine::with_registry(&registry);
    let running: Vec<Child> = adaptors.iter().map(|adaptor| spawn(machine.command(&[adaptor]))).collect();
    for child in running {
        Outcome::of(child.wait_with_output().unwrap()).succeeded();
    }
    for adaptor in adaptors {
        let package = resolve(&machine.path("project"), &format!("@openfn/language-{adaptor}")).unwrap();
        assert_eq!(check_tree(&package), 2);
    }
    assert_eq!(machine.lock()["requests"].as_object().unwrap().len(), adaptors.len());
    assert_eq!(registry.times_seen("/dep/-/dep-1.0.0.tgz"), 1, "what one has fetched the others find");
}

#[test]
fn a_store_that_cannot_be_written_is_an_error_with_advice() {
    let registry = FakeRegistry::start();
    registry.publish_simple("leftpad", "1.0.0", &[]);
    let machine = Machine::with_registry(&registry);
    machine.write("project/node_modules", "a file where the directory should be");
    machine.install(&["npm:leftpad"]).failed_with(&["cannot write", "node_modules"]);
}
