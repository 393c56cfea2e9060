//! How the file is opened: whose it is, which version it has, and how carefully SQLite writes it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::store::{Result, StoreError};

/// Marks the file as this program's: "fnhs".
const APPLICATION_ID: i32 = 0x666e_6873;

/// What makes each version of the schema out of the one before; `user_version` counts those that were applied. One that
/// was released never changes.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001.sql")];

/// How long a statement waits for another program that has locked the file.
const BUSY: Duration = Duration::from_secs(2);

/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS: usize = 128;

/// Pages in the log at which the writer sees to it that it begins anew: 16 MiB.
const LONG_LOG: u32 = 4096;

/// Page cache of each connection, in KiB. What it does not hold comes from the system's, which costs the writer nothing
/// that can be measured: new rows have the latest keys, and so are beside each other.
const PAGE_CACHE: i32 = 4 * 1024;

/// A file that its owner alone may read, made if there is none.
pub fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The connection that writes. It makes the database, or brings it up to date.
pub fn open_writer(path: &Path) -> Result<Connection> {
    private_file(path)
        .map_err(|error| StoreError::Unavailable(format!("cannot write the database {}: {error}", path.display())))?;
    let mut connection = open(path)?;
    identify(&connection, path)?;
    // auto_vacuum comes first, as it must be said before anything is written: what retention frees goes back to the disk
    // bit by bit. Whoever got an answer must find it again after a power failure, so the log is synced with every commit;
    // fullfsync is what this takes on macOS, and nothing elsewhere.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON;
         PRAGMA foreign_keys = ON;",
    )?;
    connection.pragma_update(None, "wal_autocheckpoint", LONG_LOG)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// The connection for checkpoints. They sync as carefully as the writer does.
pub fn open_checkpointer(path: &Path) -> Result<Connection> {
    let connection = open(path)?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA checkpoint_fullfsync = ON;")?;
    Ok(connection)
}

/// A connection that only reads.
pub fn open_reader(path: &Path) -> Result<Connection> {
    let connection = open(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open(path: &Path) -> Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "cache_size", -PAGE_CACHE)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

/// That the file is ours, or empty.
fn identify(connection: &Connection, path: &Path) -> Result<()> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = schema_version(connection)?;
    let objects: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let path = path.display();
    match application {
        APPLICATION_ID if version > MIGRATIONS.len() => Err(StoreError::Broken(format!(
            "{path} was written by a newer version of fnhost (schema {version}, this one knows {}); use that one, or \
             restore the backup from before the update",
            MIGRATIONS.len()
        ))),
        APPLICATION_ID => Ok(()),
        0 if objects == 0 => Ok(()),
        _ => Err(StoreError::Broken(format!("{path} is another program's database; name another file"))),
    }
}

fn schema_version(connection: &Connection) -> Result<usize> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version as usize)
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let applied = schema_version(connection)?;
    for (version, migration) in (1u32..).zip(MIGRATIONS).skip(applied) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
