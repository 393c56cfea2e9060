//! One process for one database.
//!
//! SQLite lets many processes share a file. The service does not: leases, turns and the group commit are those of one
//! process. So it holds an advisory lock on a file beside the database, which the system lifts however the process ends.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::schema;
use crate::store::{Result, StoreError};

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    /// Takes the lock of the database at `database`. The error names the process that has it.
    pub fn acquire(database: &Path) -> Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |error| StoreError::Unavailable(format!("cannot lock {}: {error}", path.display()));
        let mut file = schema::private_file(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                // For the message that a second process gives; the lock holds without it.
                let pid = std::process::id().to_string();
                file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(failed)?;
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
                "{} is in use by process {}; stop that one first, or give this one a database of its own",
                database.display(),
                holder(&mut file)
            ))),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut pid));
    if read.is_ok() && !pid.is_empty() { pid } else { "(unknown)".into() }
}
