//! What SQLite's errors mean to whoever waits for an answer, and what to do about them.

use rusqlite::ErrorCode;

use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let advice = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                "another program has locked the database; end it"
            }
            Some(ErrorCode::DiskFull) => "the disk is full; free some space",
            Some(ErrorCode::SystemIoFailure) => {
                "the disk does not read or write; look at its free space, its quota and the system's log"
            }
            Some(ErrorCode::ReadOnly) => "the database is read-only; make it and its directory writable",
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                "the database cannot be opened; look at the rights of the file and its directory"
            }
            Some(ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted | ErrorCode::OperationAborted) => {
                "the database could not finish"
            }
            Some(ErrorCode::DatabaseCorrupt) => return broken("the file is damaged; restore a backup", &error),
            Some(ErrorCode::NotADatabase) => return broken("the file is not a database", &error),
            _ => return broken("the database refused a statement", &error),
        };
        Self::Unavailable(format!("{advice} ({error})"))
    }
}

fn broken(what: &str, error: &rusqlite::Error) -> StoreError {
    StoreError::Broken(format!("{what} ({error})"))
}
