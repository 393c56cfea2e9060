//! A machine whose clock is set back while the server runs: nothing stands still until the clock has caught up.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::server::{Server, Setup};

/// A clock for a server, set by a file (libfaketime).
struct Clock(TempDir);

impl Clock {
    fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set_back(Duration::ZERO);
        clock
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("clock")
    }

    /// Sets it so long behind the machine's.
    fn set_back(&self, by: Duration) {
        let written = self.0.path().join("written");
        std::fs::write(&written, format!("-{}", by.as_secs())).unwrap();
        // In one step, as the server may look at any time.
        std::fs::rename(written, self.file()).unwrap();
    }

    fn of(&self, setup: Setup) -> Setup {
        let libraries = Path::new("/usr/lib").read_dir().unwrap().flatten();
        let mut libraries = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|path| path.exists()).expect("libfaketime, which scripts/test installs");
        setup
            .env("LD_PRELOAD", &library.display().to_string())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file().display().to_string())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// So many of the clock's runs there are.
fn ticks(server: &Server) -> usize {
    server.list("/api/v1/runs?limit=500&workflow=tick").len()
}

#[track_caller]
fn until_more_ticks(server: &Server, than: usize) {
    server.until("the clock fires", || (ticks(server) > than).then_some(()));
}

#[track_caller]
fn expect_a_message_to_run(server: &Server) {
    let run = server.run_in(&server.send_one(&json!({})), "completed");
    assert_eq!(run["workflow"], "message");
}

#[test]
fn a_clock_that_is_set_back_keeps_neither_messages_nor_cron_waiting() {
    let clock = Clock::new();
    let setup = Setup::new(
        "
jobs:
  message: { adaptor: common, trigger: any, expression: fn(state => state) }
  tick: { adaptor: common, trigger: every-second, expression: fn(state => state) }
triggers:
  any: { criteria: '{}' }
  every-second: { cron: '* * * * * *', overlap: true }
",
    );
    let server = clock.of(setup).start();
    expect_a_message_to_run(&server);
    until_more_ticks(&server, 1);

    clock.set_back(HOUR);
    let set_back = Instant::now();
    let before = ticks(&server);
    expect_a_message_to_run(&server);
    until_more_ticks(&server, before + 2);

    let step = Duration::from_secs(5);
    clock.set_back(HOUR + step);
    until_more_ticks(&server, ticks(&server) + 1);
    // One that fires as the clock is set may still count to the time before, and both ends may.
    let seconds = (set_back.elapsed() - step).as_secs() as usize + 3;
    let fired = ticks(&server) - before;
    assert!(fired <= seconds, "{fired} times in {seconds} seconds of the clock");

    let server = server.restart();
    expect_a_message_to_run(&server);
    until_more_ticks(&server, ticks(&server) + 1);
}
