//! Moves what was committed from the log into the database file, beside the writer.
//!
//! SQLite would do this within a commit, each time the log has reached a certain length, and whoever waits for that
//! commit would wait for two more syncs and some hundred pages. Here a thread does it while the writer goes on. It
//! seldom catches up with a writer that is busy, and the log can only begin anew when all of it was moved, so the writer
//! still does the rest when the log is long; little is left by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::store::{Result, StoreError};

/// How often it is done while there are commits.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Checkpointer {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    /// `commits` counts what the writer did.
    pub fn start(connection: Connection, commits: Arc<AtomicU64>) -> Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("store-checkpoint".into()).spawn(move || {
            let mut done = 0;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let commits = commits.load(Relaxed);
                if commits != done && move_pages(&connection) {
                    done = commits;
                }
            }
        });
        let thread = thread.map_err(|error| StoreError::Unavailable(format!("no thread for the store: {error}")))?;
        Ok(Self { stop, thread })
    }

    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the store's checkpoints panicked; the writer did them instead");
        }
    }
}

/// False: again later. It is no error that matters: the pages are safe where they are.
fn move_pages(connection: &Connection) -> bool {
    let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, bool>(0));
    match moved {
        Ok(busy) => !busy,
        Err(error) => {
            tracing::debug!(%error, "the store could not move pages from the log into the database");
            false
        }
    }
}
