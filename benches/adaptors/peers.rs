//! Servers from Debian for packages to talk to: each with its data in a temporary directory, on a free port of the
//! loopback network, and gone with this program. `scripts/adaptors-report` installs them.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http_server::Server;
use crate::mariadb::MariaDb;

const START_WITHIN: Duration = Duration::from_secs(60);
/// A user and a group of every system that own nothing, `daemon` in Debian. Root lends the servers to it, since most
/// refuse to work for root. (Not to `nobody`: systemd's name service calls that account locked, and sshd then lets
/// nobody in.)
const LENT_TO: u32 = 1;
const USER: &str = "nurse";
const PASSWORD: &str = "cr3dential-of-the-nurse";

/// All of them, running.
pub struct Peers {
    http: Server,
    soap: Server,
    mariadb: MariaDb,
    postgresql: Process,
    redis: Process,
    sftp: Process,
}

impl Peers {
    pub fn start() -> Self {
        Self {
            http: Server::start(),
            soap: super::soap::serve(),
            mariadb: MariaDb::start(),
            postgresql: postgresql(),
            redis: redis(),
            sftp: sftp(),
        }
    }

    /// What a job finds in `state.configuration`.
    pub fn configuration(&self) -> Value {
        let user = json!({ "user": USER, "password": PASSWORD });
        json!({
            "http": self.http.origin(),
            "soap": self.soap.origin(),
            "mariadb": self.mariadb.credential(),
            "postgresql": merged(&user, json!({ "host": "127.0.0.1", "port": self.postgresql.port, "database": "postgres" })),
            "redis": { "port": self.redis.port, "password": PASSWORD },
            "sftp": {
                "host": "127.0.0.1",
                "port": self.sftp.port,
                "username": self.sftp.user,
                "privateKey": fs::read_to_string(self.sftp.path("client")).expect("the client's key"),
                "directory": self.sftp.path("files"),
            },
            "closed": closed_port(),
        })
    }
}

fn merged(a: &Value, b: Value) -> Value {
    let mut merged = a.clone();
    merged.as_object_mut().expect("an object").extend(b.as_object().expect("an object").clone());
    merged
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A server of its own process.
struct Process {
    server: Option<Child>,
    port: u16,
    /// The system's user that it runs as.
    user: String,
    directory: TempDir,
}

impl Process {
    /// A directory that the server owns, and a port.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        if runs_as_root() {
            std::os::unix::fs::chown(directory.path(), Some(LENT_TO), Some(LENT_TO)).expect("root may give away");
        }
        let mut id = Command::new("id");
        id.arg("-un");
        if runs_as_root() {
            id.arg(LENT_TO.to_string());
        }
        let output = id.output().expect("id is there");
        let user = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Self { server: None, port: closed_port(), user, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that only the server's user reads.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a temporary file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its permissions");
        if runs_as_root() {
            std::os::unix::fs::chown(&path, Some(LENT_TO), Some(LENT_TO)).expect("root may give away");
        }
        path
    }

    /// A program as the server's user, in the server's directory.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(find(program));
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env_clear()
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
        if runs_as_root() {
            command.uid(LENT_TO).gid(LENT_TO);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().expect("the program starts");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn start(mut self, program: &str, arguments: &[&str]) -> Self {
        let log = File::create(self.path("log")).expect("a log file");
        let child = self.command(program).args(arguments).stderr(log).spawn().expect("the server starts");
        let child = self.server.insert(child);
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = Instant::now() + START_WITHIN;
        while TcpStream::connect(address).is_err() {
            let ended = child.try_wait().expect("a child of this process");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{program} does not start: {}",
                fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// With TLS on offer and passwords checked by SCRAM, as hosted databases have it.
fn postgresql() -> Process {
    let peer = Process::new();
    peer.write("password", PASSWORD);
    peer.run(
        "initdb",
        &["--pgdata=data", "--auth=scram-sha-256", "--pwfile=password", "--username", USER, "--no-sync"],
    );
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    peer.write("data/server.key", &key.serialize_pem());
    peer.write("data/server.crt", &certificate.pem());
    let port = peer.port.to_string();
    peer.start("postgres", &["-D", "data", "-p", &port, "-h", "127.0.0.1", "-k", "", "-c", "ssl=on", "-c", "fsync=off"])
}

fn redis() -> Process {
    let peer = Process::new();
    let port = peer.port.to_string();
    peer.start("redis-server", &["--port", &port, "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD])
}

/// Lets its own user in with a key, and only to files.
fn sftp() -> Process {
    let peer = Process::new();
    peer.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "host"]);
    peer.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "client"]);
    peer.run("mkdir", &["files"]);
    let directory = peer.directory.path().display();
    let configuration = format!(
        "Port {}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/client.pub\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n\
         Subsystem sftp internal-sftp\nForceCommand internal-sftp\n",
        peer.port
    );
    let configuration = peer.write("sshd_config", &configuration);
    peer.start("sshd", &["-D", "-e", "-f", configuration.to_str().expect("a UTF-8 path")])
}

fn find(program: &str) -> PathBuf {
    let mut directories: Vec<PathBuf> =
        ["/usr/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from).into();
    // Debian keeps several versions of PostgreSQL side by side, and out of the search path.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    directories.extend(versions.map(|version| version.path().join("bin")));
    directories
        .iter()
        .map(|directory| directory.join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is not installed; scripts/adaptors-report installs it"))
}

fn runs_as_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(Path::new("/proc/self")).expect("Linux").uid() == 0
}
