//! `fnhost serve` in a process of its own.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::client::Client;
use crate::memory;
use crate::project::FNHOST;

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `fnhost serve`. It is killed when it is dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
    /// From the start of the process until it was ready.
    pub ready: Duration,
}

impl Server {
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_with(dir, args, &[])
    }

    /// With variables in its environment.
    pub fn start_with(dir: &Path, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        // Not in the project's directory, which is watched for changes.
        let log = dir.with_extension("log");
        let mut command = Command::new(FNHOST);
        command.arg("serve").arg(dir).args(["--port", &address.port().to_string()]);
        command.envs(environment.iter().copied());
        command.args(["--no-install", "--no-auth", "--open-metrics"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).expect("a log"));
        let started = Instant::now();
        let child = command.spawn().expect("fnhost starts");
        let mut server = Self { child, log, address, ready: Duration::ZERO };
        while !is_ready(address) {
            let gone = server.child.try_wait().expect("its state").is_some();
            assert!(!gone && started.elapsed() < PATIENCE, "the server does not start:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        server.ready = started.elapsed();
        server
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub async fn connect(&self, clients: usize) -> Vec<Client> {
        join_all((0..clients).map(|_| self.client())).await
    }

    /// Waits until so many isolates are ready for a run.
    pub async fn isolates_ahead(&self, count: usize) {
        let mut client = self.client().await;
        let started = Instant::now();
        while client.metric("fnhost_isolates", "spare").await < count as f64 {
            assert!(started.elapsed() < PATIENCE, "{count} isolates are not made ahead");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Processor time that it has used.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("procfs");
        let (_, fields) = stat.rsplit_once(')').expect("the name of the program");
        let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
        // The kernel shows ticks of 10 ms, whatever it counts in.
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    pub fn memory_mb(&self, kind: &str) -> f64 {
        memory::of_process(&self.child.id().to_string(), kind)
    }

    /// The most that was resident since it started.
    pub fn peak_mb(&self) -> f64 {
        self.memory_mb("VmHWM")
    }

    pub fn resident_mb(&self) -> f64 {
        self.memory_mb("VmRSS")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let read = stream.write_all(request).and_then(|()| std::io::Read::read_to_string(&mut stream, &mut answer));
    read.is_ok() && answer.starts_with("HTTP/1.1 200")
}
