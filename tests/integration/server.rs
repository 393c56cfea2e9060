//! A server of the real program, on a project in a directory of its own, and a client to talk to it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::support::disk::Disk;
use super::support::{self, fnhost};

/// How long anything may take before a test gives up: long, since machines that test are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is about to be started.
pub struct Setup {
    dir: TempDir,
    args: Vec<String>,
    env: Vec<(String, String)>,
    disk: Option<Arc<Disk>>,
    starter: Option<Box<dyn Fn() -> Command + Send + Sync>>,
}

/// A server that runs. It is killed when it is dropped.
pub struct Server {
    pub url: String,
    /// Host and port.
    pub address: String,
    /// May do everything.
    pub token: String,
    setup: Setup,
    child: Child,
    log: Arc<Mutex<String>>,
}

/// Serves a project, which is the text of a `project.yaml`.
pub fn start(project: &str) -> Server {
    Setup::new(project).start()
}

impl Setup {
    /// A server of a project, which is the text of a `project.yaml`.
    pub fn new(project: &str) -> Self {
        let setup = Self::empty();
        // The adaptors of all tests, so that nothing is installed.
        symlink(support::store().join("node_modules"), setup.path("node_modules")).unwrap();
        std::fs::copy(support::store().join("fnhost.lock"), setup.path("fnhost.lock")).unwrap();
        setup.args(&["--no-install"]).file("project.yaml", project)
    }

    /// A server in an empty directory.
    pub fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), args: Vec::new(), env: Vec::new(), disk: None, starter: None }
    }

    /// Writes a file into the project.
    pub fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Keeps its data on this disk.
    pub fn data_on(mut self, disk: &Arc<Disk>) -> Self {
        self.disk = Some(disk.clone());
        let path = disk.path().display().to_string();
        self.args(&["--data-dir", &path])
    }

    /// Is started by this command, with the settings that it has: a port of 0, and a log as JSON.
    pub fn started_by(mut self, command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        self.starter = Some(Box::new(command));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Another command of the program, on this project.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = fnhost(args);
        command.current_dir(self.dir.path()).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The server's command, ready to be started.
    pub fn serve(&self) -> Command {
        if let Some(starter) = &self.starter {
            return starter();
        }
        let mut command = self.command(&["serve", ".", "--port", "0", "--log-json"]);
        command.args(&self.args);
        match &self.disk {
            Some(disk) => disk.command(&command),
            None => command,
        }
    }

    pub fn start(self) -> Server {
        let mut command = self.serve();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = follow(&mut child, log.clone());
        let mut token = String::new();
        let deadline = Instant::now() + PATIENCE;
        let url = loop {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let Ok(line) = line else {
                let _ = child.kill();
                panic!("the server did not start: {}", log.lock().unwrap());
            };
            if line.trim().starts_with("fnh_") {
                token = line.trim().to_owned();
            }
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(url) = line["url"].as_str() {
                break url.to_owned();
            }
        };
        let address = url.split_once("://").unwrap().1.to_owned();
        Server { url, address, token, setup: self, child, log }
    }
}

/// Reads what a server logs, and passes it on line by line while somebody listens.
fn follow(child: &mut Child, log: Arc<Mutex<String>>) -> Receiver<String> {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
            drop(log);
            let _ = sender.send(line);
        }
    });
    receiver
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.setup.dir.path()
    }

    /// Another command of the program, on the same project.
    pub fn command(&self, args: &[&str]) -> Command {
        self.setup.command(args)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send()
    }

    /// GET with the token.
    pub fn read(&self, path: &str) -> Answer {
        self.request("GET", path).authorized().send()
    }

    /// POST of a JSON value, without a token.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path).json(body).send()
    }

    /// POST of a JSON value, with the token.
    pub fn act(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path).authorized().json(body).send()
    }

    /// Sends a message to the inbox: the runs that it started, by workflow.
    #[track_caller]
    pub fn send(&self, message: &Value) -> BTreeMap<String, String> {
        let answer = self.post("/inbox", message).expect(202).json();
        let texts = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
        texts(&answer["data"]).into_iter().zip(texts(&answer["meta"]["run_ids"])).collect()
    }

    /// Sends a message that is for one workflow: its run.
    #[track_caller]
    pub fn send_one(&self, message: &Value) -> String {
        let runs = self.send(message);
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.into_values().next().unwrap()
    }

    /// A run with its tasks, once it is in this state.
    #[track_caller]
    pub fn run_in(&self, id: &str, state: &str) -> Value {
        let path = format!("/api/v1/runs/{id}");
        self.until(state, || Some(self.read(&path).expect(200).json()).filter(|run| run["state"] == state))
    }

    /// The state that the last attempt at a step of a run left.
    #[track_caller]
    pub fn output(&self, run: &Value, step: &str) -> Value {
        let attempt = last_attempt(run, step)["id"].as_str().unwrap();
        self.read(&format!("/api/v1/attempts/{attempt}/output")).expect(200).json()
    }

    /// The items of a list of the API.
    #[track_caller]
    pub fn list(&self, path: &str) -> Vec<Value> {
        self.read(path).expect(200).json()["data"].as_array().expect("a list").clone()
    }

    /// The files of the server's data in which one of these texts can be read.
    pub fn data_files_with(&self, texts: &[&str]) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.dir().join(".fnhost")).into_iter().flatten();
        let holds = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            texts.iter().any(|text| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        };
        let files = files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path);
        files.filter(|path| holds(path)).collect()
    }

    pub fn request(&self, method: &str, path: &str) -> Request<'_> {
        Request { server: self, method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A connection on which nothing was sent yet.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again on the same data.
    pub fn restart(mut self) -> Server {
        self.kill();
        let setup = std::mem::replace(&mut self.setup, Setup::empty());
        let mut server = setup.start();
        server.token.clone_from(&self.token);
        server
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check() {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}; log: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Most memory that it has used so far, in MB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The task of a step, as a run shows it.
#[track_caller]
pub fn task<'a>(run: &'a Value, step: &str) -> &'a Value {
    let tasks = run["tasks"].as_array().unwrap();
    tasks.iter().find(|task| task["step"] == step).unwrap_or_else(|| panic!("no step {step}: {run}"))
}

/// The last attempt at a step, as a run shows it.
#[track_caller]
pub fn last_attempt<'a>(run: &'a Value, step: &str) -> &'a Value {
    task(run, step)["tries"].as_array().unwrap().last().unwrap_or_else(|| panic!("no attempt at {step}: {run}"))
}

/// A request that is about to be sent.
pub struct Request<'a> {
    server: &'a Server,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With the token that may do everything.
    pub fn authorized(self) -> Self {
        let value = format!("Bearer {}", self.server.token);
        self.header("authorization", &value)
    }

    pub fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        if kind.is_empty() { self } else { self.header("content-type", kind) }
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn send(self) -> Answer {
        let mut stream = self.server.connect();
        let mut head =
            format!("{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.method, self.path, self.server.address);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        // A server that refuses may not read to the end; its answer counts.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&self.body));
        Answer::read(&mut stream)
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads an answer from a connection.
    #[track_caller]
    pub fn read(stream: &mut TcpStream) -> Self {
        Self::try_read(stream).expect("an answer")
    }

    /// None: the connection ended without one.
    pub fn try_read(stream: &mut TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let status: u16 = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if status == 100 {
            return Self::try_read(reader.into_inner());
        }
        let mut answer = Self { status, headers, body: Vec::new() };
        match (answer.header("transfer-encoding"), answer.header("content-length")) {
            (Some("chunked"), _) => answer.body = chunks(&mut reader)?,
            (_, Some(length)) => {
                let mut body = vec![0; length.parse().ok()?];
                reader.read_exact(&mut body).ok()?;
                answer.body = body;
            }
            _ => {}
        }
        Some(answer)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// Fails unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

fn chunks(reader: &mut impl std::io::BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        let start = body.len();
        body.resize(start + length, 0);
        reader.read_exact(&mut body[start..]).ok()?;
        reader.read_line(&mut line).ok()?;
        if length == 0 {
            return Some(body);
        }
    }
}
