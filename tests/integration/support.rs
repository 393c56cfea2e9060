//! What tests of whole runs share: adaptors from npm, a run of the program, and servers to talk to.

pub mod http_server;
pub mod mariadb;
mod store;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub use store::store;

/// One `fnhost run` in a directory of its own, with nothing of this machine's settings.
pub struct Run {
    directory: TempDir,
    args: Vec<String>,
}

impl Run {
    /// A run of this job.
    pub fn new(job: &str) -> Self {
        let run = Self { directory: tempfile::tempdir().unwrap(), args: Vec::new() };
        run.write("job.js", job);
        run
    }

    /// With one more adaptor: of the test store, or `name=/path`.
    pub fn adaptor(self, adaptor: &str) -> Self {
        self.args(["-a", adaptor])
    }

    /// On this state.
    pub fn state(self, state: &Value) -> Self {
        self.write("state.json", &state.to_string());
        self.args(["-s", "state.json"])
    }

    /// With this credential.
    pub fn credential(self, credential: &Value) -> Self {
        self.write("credential.json", &credential.to_string());
        self.args(["-c", "credential.json"])
    }

    /// With further arguments.
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    /// The directory that the run happens in.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a file where the run happens.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Runs to the end.
    pub fn finish(self) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_fnhost"))
            .args(["run", "job.js", "--no-install", "--repo-dir"])
            .arg(store())
            .args(&self.args)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    /// None if a signal ended the program.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The final state of a run that completed.
    #[track_caller]
    pub fn state(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// `state.data` of a run that completed.
    #[track_caller]
    pub fn data(&self) -> Value {
        self.state()["data"].take()
    }

    /// The one entry of `state.errors` of a run that failed.
    #[track_caller]
    pub fn error(&self) -> Value {
        assert_eq!(self.code, Some(1), "{}\n{}", self.stdout, self.stderr);
        let state: Value = serde_json::from_str(&self.stdout).unwrap();
        state["errors"]["job"].clone()
    }

    /// Asserts that each of `parts` is in what was said on stderr.
    #[track_caller]
    pub fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in: {}", self.stderr);
        }
    }
}

/// A file of `tests/fixtures`.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}
