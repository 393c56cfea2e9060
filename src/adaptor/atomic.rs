//! Changes on disk that happen whole or not at all.
//!
//! An install may be killed at any instant, and jobs may be reading the store meanwhile. Whatever others look at is
//! therefore made beside its place and renamed over it.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What names of unfinished things begin with. Leftovers of a killed process are swept away by this.
pub const UNFINISHED: &str = ".unfinished-";

/// Puts a file with these contents at `path`, replacing what is there.
pub fn replace_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Makes `path` a symbolic link to `target`, replacing another link or file. Returns whether anything changed.
pub fn replace_symlink(path: &Path, target: &Path) -> io::Result<bool> {
    if std::fs::read_link(path).is_ok_and(|current| current == target) {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    // A directory cannot be renamed over. It is not ours (npm made it), but its name is taken by what was asked for.
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        discard_directory(path)?;
    }
    let made = tempfile::Builder::new().prefix(UNFINISHED).make_in(directory, |link| symlink(target, link))?;
    made.into_temp_path().persist(path)?;
    Ok(true)
}

/// Removes a directory so that it is either there as before or gone from its place.
pub fn discard_directory(path: &Path) -> io::Result<()> {
    let aside = unfinished_beside(path)?;
    match std::fs::rename(path, aside.join("discarded")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let _ = std::fs::remove_dir(&aside);
            Err(error)
        }
        _ => std::fs::remove_dir_all(&aside),
    }
}

/// A fresh directory on the same file system as `path`, for building what will be renamed to `path`.
pub fn unfinished_beside(path: &Path) -> io::Result<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let made =
        tempfile::Builder::new().prefix(UNFINISHED).permissions(Permissions::from_mode(0o777)).tempdir_in(directory)?;
    Ok(made.keep())
}

/// Waits for the exclusive right to change what `path` guards; dropping the file gives it back. `waiting` is called
/// if another process holds it.
pub fn lock_exclusively(path: &Path, waiting: impl FnOnce()) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            waiting();
            file.lock()?;
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(error),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_replaces_links_files_and_directories() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        assert!(replace_symlink(&link, Path::new("a")).unwrap());
        assert!(!replace_symlink(&link, Path::new("a")).unwrap());
        assert!(replace_symlink(&link, Path::new("b")).unwrap());
        std::fs::remove_file(&link).unwrap();
        std::fs::create_dir_all(link.join("deep")).unwrap();
        assert!(replace_symlink(&link, Path::new("c")).unwrap());
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("c"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing unfinished stays behind");
    }
}
