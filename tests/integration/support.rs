//! What the tests of runs share: a store with adaptors from npm, servers to talk to, jobs in directories of their own, and what came out.

pub mod container;
pub mod disk;
pub mod gate;
pub mod http_server;
pub mod mariadb;
mod store;
pub mod unpacked;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub use store::store;

/// The version that the tests run against: positions in its files are part of what they check.
pub const COMMON: &str = "common@3.3.4";

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_fnhost");

/// A command line of the program, with nothing of this machine's settings that could change what it prints.
pub fn fnhost(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args);
    for name in ["FNHOST_REPO_DIR", "OPENFN_LOG_JSON", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
        command.env_remove(name);
    }
    command
}

/// `fnhost run`, about to be run in a directory of its own.
pub struct Run {
    directory: TempDir,
    job: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<String>,
}

/// A run of `job.js`, which holds `source`, on the common adaptor.
pub fn job(source: &str) -> Run {
    Run::of("job.js", source).adaptor(COMMON)
}

impl Run {
    /// A run of a job in the file `name`, without an adaptor.
    pub fn of(name: &str, source: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(name), source).unwrap();
        Self { directory, job: name.into(), args: Vec::new(), env: Vec::new(), stdin: None }
    }

    pub fn adaptor(self, spec: &str) -> Self {
        self.args(&["-a", spec])
    }

    /// An adaptor of one file, in this run's directory.
    pub fn local_adaptor(self, name: &str, source: &str) -> Self {
        let package = format!("adaptors/{name}/package.json");
        let manifest = format!(
            r#"{{"name":"@openfn/language-{name}","version":"1.0.0","type":"module","exports":{{".":"./index.js"}}}}"#
        );
        let run = self.file(&package, &manifest).file(&format!("adaptors/{name}/index.js"), source);
        let spec = format!("{name}={}", run.path(&format!("adaptors/{name}")).display());
        run.adaptor(&spec)
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Writes a file into the run's directory.
    pub fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub fn state(self, text: &str) -> Self {
        self.file("state.json", text).args(&["-s", "state.json"])
    }

    pub fn credential(self, text: &str) -> Self {
        self.file("credential.yaml", text).args(&["-c", "credential.yaml"])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The command, ready to be started.
    pub fn command(&self) -> Command {
        let mut command = fnhost(&["run", &self.job]);
        command.env("FNHOST_REPO_DIR", store());
        command.args(&self.args).current_dir(self.directory.path()).envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    pub fn go(&self) -> Ran {
        let mut command = self.command();
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
        let writer = self.stdin.clone().map(|text| {
            let mut stdin = child.stdin.take().unwrap();
            std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())))
        });
        let output = child.wait_with_output().unwrap();
        if let Some(writer) = writer {
            writer.join().unwrap();
        }
        Ran::new(output)
    }

    /// Runs with JSON logs, so that the error of the run can be read.
    pub fn go_json(self) -> Ran {
        self.args(&["--log-json"]).go()
    }
}

/// How a run ended.
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }

    /// Fails unless the run ended with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let (out, err) =
            (self.stdout.get(..2000).unwrap_or(&self.stdout), self.stderr.get(..4000).unwrap_or(&self.stderr));
        assert_eq!((self.code, self.signal), (Some(code), None), "stdout: {out}\nstderr: {err}");
        self
    }

    /// The final state on stdout.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// The final state of a run that completed.
    #[track_caller]
    pub fn completed(self) -> Value {
        self.expect(0).state()
    }

    /// `state.data` of a run that completed.
    #[track_caller]
    pub fn data(self) -> Value {
        self.completed()["data"].take()
    }

    /// What a run of `job.js` that failed wrote to `state.errors`.
    #[track_caller]
    pub fn failure(self) -> Value {
        self.expect(1).state()["errors"]["job"].take()
    }

    /// The lines of a JSON log.
    #[track_caller]
    pub fn log(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stderr.lines().map(parse).collect()
    }

    /// Class, severity and message of the error in a JSON log.
    #[track_caller]
    pub fn error(&self) -> [String; 3] {
        let log = self.log();
        let line = log.iter().find(|line| line.get("error").is_some());
        let error = &line.unwrap_or_else(|| panic!("no error in {}", self.stderr))["error"];
        ["name", "severity", "message"].map(|key| error[key].as_str().unwrap_or("").to_owned())
    }
}
