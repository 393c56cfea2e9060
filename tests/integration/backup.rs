//! A backup as docs/operations.md tells to make one: while the server runs, with SQLite's own program, restored elsewhere.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::server::{Setup, start};
use crate::support::container::output;
use crate::support::gate::Gate;

const PROJECT: &str = "
jobs:
  seen: { adaptor: common, trigger: seen, expression: 'fn(state => ({ seen: state.data.number }))' }
  held: { adaptor: common, trigger: held, expression: 'fn(async state => { await fetch(state.data.gate); return state; })' }
  keyed: { adaptor: common, trigger: keyed, credential: registry, expression: 'fn(state => ({ user: state.configuration.user }))' }
triggers:
  keyed: { criteria: '{\"kind\":\"keyed\"}' }
  seen: { criteria: '{\"kind\":\"seen\"}' }
  held: { criteria: '{\"kind\":\"held\"}' }
";

/// A copy of the data in one directory, in another.
fn back_up(data: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    let copy = format!("VACUUM INTO '{}'", to.join("fnhost.db").display());
    output(Command::new("sqlite3").arg(data.join("fnhost.db")).arg(copy));
    std::fs::copy(data.join("secret.key"), to.join("secret.key")).unwrap();
}

#[test]
fn a_backup_of_a_running_server_is_a_server_elsewhere() {
    let gate = Gate::new();
    let server = start(PROJECT);
    let seen: Vec<String> =
        (0..20).map(|number| server.send_one(&json!({ "kind": "seen", "number": number }))).collect();
    for run in &seen {
        server.run_in(run, "completed");
    }
    let held = server.send_one(&json!({ "kind": "held", "gate": gate.url() }));
    let under_way = gate.held();
    let credential = json!({ "user": "nurse" });
    server.request("PUT", "/api/v1/credentials/registry").authorized().json(&credential).send().expect(204);

    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    std::thread::scope(|scope| {
        // More messages come while the copy is made; each is in it or not.
        scope.spawn(|| (20..60).for_each(|number| drop(server.send_one(&json!({ "kind": "seen", "number": number })))));
        back_up(&server.dir().join(".fnhost"), &copy);
    });
    let token = server.token.clone();
    under_way.open();
    server.run_in(&held, "completed");
    drop(server);

    let mut restored = Setup::new(PROJECT).args(&["--data-dir", copy.to_str().unwrap()]).start();
    restored.token = token;
    for (number, run) in seen.iter().enumerate() {
        let run = restored.run_in(run, "completed");
        assert_eq!(restored.output(&run, "seen"), json!({ "seen": number }));
    }
    // It was under way in the copy, and so goes again.
    gate.held().open();
    restored.run_in(&held, "completed");
    let keyed = restored.send_one(&json!({ "kind": "keyed" }));
    let keyed = restored.run_in(&keyed, "completed");
    assert_eq!(restored.output(&keyed, "keyed"), json!({ "user": "nurse" }));
    let check = output(Command::new("sqlite3").arg(copy.join("fnhost.db")).arg("PRAGMA integrity_check"));
    assert_eq!(String::from_utf8_lossy(&check), "ok\n");
}
