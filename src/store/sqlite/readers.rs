//! Connections that read, a bounded number of them, away from the async threads.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::schema;
use crate::store::{Result, StoreError};

/// How long a reader waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
    count: u32,
}

impl Readers {
    pub fn open(path: &Path, count: u32) -> Result<Self> {
        let count = count.max(1);
        let connections = (0..count).map(|_| schema::open_reader(path)).collect::<Result<Vec<_>>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(connections)), free: Arc::new(Semaphore::new(count as usize)), count })
    }

    /// Reads from one state of the database, on a thread that may block.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let permit = tokio::time::timeout(PATIENCE, self.free.clone().acquire_owned());
        let permit = permit.await.map_err(|_| StoreError::Overloaded)?.map_err(|_| closed())?;
        let idle = self.idle.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = take(&idle).ok_or_else(closed)?;
            let lent = Lent { connection: Some(connection), idle };
            lent.read(work)
        });
        task.await.unwrap_or_else(|error| Err(StoreError::Broken(format!("a reader panicked: {error}"))))
    }

    /// Waits for those that read, and closes the connections.
    pub async fn close(&self) {
        let _all = self.free.acquire_many(self.count).await;
        self.free.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

fn take(idle: &Mutex<Vec<Connection>>) -> Option<Connection> {
    idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// A connection that goes back whatever happens to its user.
struct Lent {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Lent {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let connection = self.connection.as_ref().ok_or_else(closed)?;
        // Several statements of one reading see the same state.
        let snapshot = connection.unchecked_transaction()?;
        work(&snapshot)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let connection = self.connection.take();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(connection);
    }
}
