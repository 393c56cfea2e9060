//! A door that jobs stop at until the test lets them on: so a test knows that a job is under way, and for how long.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long a job may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job stops at it with `await fetch(url)`.
pub struct Gate(TcpListener);

/// A job that waits. It fails if this is dropped.
pub struct Held {
    stream: TcpStream,
    /// What the job asked for, such as `/first`.
    pub path: String,
}

impl Gate {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next job that has come, if one has.
    pub fn look(&self) -> Option<Held> {
        let stream = match self.0.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("{error}"),
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reader = BufReader::new(&stream);
        let mut lines = std::iter::from_fn(|| {
            let mut line = String::new();
            reader.read_line(&mut line).ok().map(|_| line)
        });
        let first = lines.next().unwrap();
        lines.find(|line| line.trim().is_empty());
        let path = first.split(' ').nth(1).unwrap_or_else(|| panic!("no request: {first}")).to_owned();
        Some(Held { stream, path })
    }

    /// Waits for the next job.
    #[track_caller]
    pub fn held(&self) -> Held {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(held) = self.look() {
                return held;
            }
            assert!(Instant::now() < deadline, "no job has come");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Held {
    /// Lets the job go on.
    pub fn open(mut self) {
        // The job may have been stopped in the meantime.
        let _ = self.stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    }
}
