//! A MariaDB of the test's own: data in a temporary directory, a free port of the loopback network, and gone with the
//! test. `scripts/test` installs the programs from Debian.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const START_WITHIN: Duration = Duration::from_secs(60);
/// What Debian calls a user and a group without any rights.
const NOBODY: u32 = 65534;

const SET_UP: &str = "
    CREATE DATABASE clinic CHARACTER SET utf8mb4;
    CREATE USER nurse@'%' IDENTIFIED BY 'cr3dential-of-the-nurse';
    GRANT ALL ON clinic.* TO nurse@'%';
";

/// A running server.
pub struct MariaDb {
    server: Child,
    port: u16,
    directory: TempDir,
}

impl MariaDb {
    /// Makes a database `clinic` with a user of its own and waits until the server takes connections.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("set-up.sql"), SET_UP).unwrap();
        if runs_as_root() {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = format!("--datadir={}", directory.path().join("data").display());
        let installed = command("mariadb-install-db")
            .args(["--no-defaults", &data, "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--skip-name-resolve"])
            .output()
            .unwrap();
        assert!(installed.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&installed.stderr));

        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let server = command("mariadbd")
            .args(["--no-defaults", &data, "--bind-address=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--socket={}", directory.path().join("socket").display()))
            .arg(format!("--pid-file={}", directory.path().join("pid").display()))
            .arg(format!("--init-file={}", directory.path().join("set-up.sql").display()))
            .args(["--skip-name-resolve", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0"])
            .stderr(log)
            .spawn()
            .unwrap();
        let mut database = Self { server, port, directory };
        database.wait();
        database
    }

    /// A credential for it.
    pub fn credential(&self) -> Value {
        json!({
            "host": "127.0.0.1",
            "port": self.port,
            "user": "nurse",
            "password": "cr3dential-of-the-nurse",
            "database": "clinic",
        })
    }

    /// The server speaks first: a connection that is answered with a byte is one to a server that is ready.
    fn wait(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let greeted = TcpStream::connect(address).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.read_exact(&mut [0])
            });
            if greeted.is_ok() {
                return;
            }
            let ended = self.server.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "MariaDB does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// MariaDB's programs refuse to work for root, so root lends them to nobody.
fn command(program: &str) -> Command {
    let mut command = Command::new(find(program));
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_clear().env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
    if runs_as_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn find(program: &str) -> PathBuf {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is not installed; `scripts/test` installs it"))
}

fn runs_as_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}
