//! Projects to serve, with their adaptors.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fnhost::isolate::{Host, HostOptions, IdleIsolate};

use crate::client::post;
use crate::jobs::job;
use crate::load::one_at_a_time;
use crate::server::Server;

/// The program.
pub const FNHOST: &str = env!("CARGO_BIN_EXE_fnhost");

/// What adaptors stand on, each loaded by itself.
pub const PARTS: &[(&str, &str)] = &[
    ("lodash", "npm:lodash@4"),
    ("date-fns", "npm:date-fns@2"),
    ("undici", "npm:undici@7"),
    ("ajv", "npm:ajv@8"),
    ("csv-parse", "npm:csv-parse@5"),
    ("csvtojson", "npm:csvtojson@2"),
    ("jsonpath-plus", "npm:jsonpath-plus@10"),
    ("cheerio", "npm:cheerio@1.0.0-rc.12"),
];

/// What all sections need.
pub struct Bench {
    /// Kept for the next time: adaptors and peers.
    pub home: PathBuf,
    /// Where adaptors are installed.
    pub store: PathBuf,
    /// Projects, databases, and files.
    pub dir: tempfile::TempDir,
}

/// Isolates in this process, from one snapshot.
pub struct Isolates {
    pub host: Host,
    /// Without it, the snapshot could be another one in the middle of a measurement.
    _idle: Option<IdleIsolate>,
}

/// A project of one job, with a setting for the job and the criteria of its trigger.
pub fn project(setting: &str, criteria: &str) -> String {
    format!(
        "jobs:
  trivial:
    adaptor: common
    trigger: some
    {setting}
    expression: 'fn(state => ({{ ...state, data: {{ ok: true }} }}))'
triggers:
  some: {{criteria: {criteria}}}
"
    )
}

impl Bench {
    pub fn new() -> Self {
        let home = std::env::temp_dir().join("fnhost-bench");
        let store = home.join("store");
        std::fs::create_dir_all(&store).expect("a directory for the bench");
        let mut install = Command::new(FNHOST);
        install.args(["install", "common@3.3.4", "http@7.2.10"]).args(PARTS.iter().map(|(_, package)| package));
        install.arg("--repo-dir").arg(&store);
        assert!(install.status().expect("fnhost starts").success(), "the adaptors cannot be installed");
        let dir = tempfile::tempdir_in(&home).expect("a directory for the projects");
        Self { home, store, dir }
    }

    /// Isolates on both adaptors, loaded together as a server has them once it has seen runs of this job.
    pub fn isolates_for(&self, adaptor: Option<&str>, source: &str) -> Isolates {
        // What runs of other jobs have shown.
        let _ = std::fs::remove_dir_all(self.store.join("node_modules/.fnhost/packs"));
        let Isolates { host, _idle } = self.isolates();
        let job = job(&host, adaptor, source);
        for _ in 0..3 {
            let outcome = host.run(job.clone(), "{}".into(), Box::new(|_| {}));
            assert!(outcome.error.is_none(), "{:?}", outcome.error);
        }
        host.save_packs();
        drop(_idle);
        self.isolates()
    }

    fn isolates(&self) -> Isolates {
        // As long as there is an isolate, no other snapshot can be used.
        std::thread::sleep(Duration::from_millis(300));
        let host = Host::new(HostOptions { store: self.store.clone(), ..Default::default() });
        let adaptors = ["@openfn/language-common", "@openfn/language-http"].map(str::to_owned);
        host.make_snapshot(Path::new(FNHOST), &adaptors);
        let _idle = host.load_together(&adaptors);
        Isolates { host, _idle }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.file(name);
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        file
    }

    /// A new directory of a project, without a database.
    pub fn project(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).expect("a directory for a project");
        std::fs::write(dir.join("project.yaml"), text).expect("a project");
        symlink(self.store.join("node_modules"), dir.join("node_modules")).expect("a link to the adaptors");
        std::fs::copy(self.store.join("fnhost.lock"), dir.join("fnhost.lock")).expect("a lock");
        dir
    }

    /// A server of a new project.
    pub fn serve(&self, name: &str, text: &str, args: &[&str]) -> Server {
        Server::start(&self.project(name, text), args)
    }

    /// Has a server's runs show what the snapshot of the next one on these adaptors is to hold.
    pub async fn show(&self, server: Server) {
        one_at_a_time(&mut server.client().await, &post("/inbox?wait=30s", "{}"), 0, 4).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    /// Resident memory of a server that may have so many spares, when it has as many as there are sets of adaptors.
    pub async fn idle(&self, text: &str, spares: usize, ready: usize) -> f64 {
        let server = self.serve("idle", text, &["--spares", &spares.to_string()]);
        server.isolates_ahead(ready).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.resident_mb()
    }
}
