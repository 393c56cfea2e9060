//! A layer: a tree of files, written as a tar that depends on nothing but the tree.
//!
//! Entries are sorted, times are one and the same, owners are numbers, and modes are chosen here. What the disk says of
//! a file (who owns it, when it was copied) is not part of an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tar::{EntryType, Header};

/// The user that the image runs as: the number that distroless images have for `nonroot`.
pub const USER: u64 = 65532;
const ROOT: u64 = 0;

/// When all files were last changed, in seconds since 1970: an image may say when it was made, its layers may not, or a
/// registry would get all of them anew with each.
pub const MODIFIED: u64 = 0;

/// Paths in the image, without the `/` that they begin with, and what is there.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Debug)]
struct Node {
    kind: Kind,
    mode: u32,
    owner: u64,
}

#[derive(Debug)]
enum Kind {
    Directory,
    File(Content),
    Link(PathBuf),
}

/// The bytes of a file.
#[derive(Debug)]
pub enum Content {
    Bytes(Bytes),
    /// A file on this machine, and its size.
    File(PathBuf, u64),
}

impl Tree {
    /// A directory that everybody may read.
    pub fn directory(&mut self, path: impl AsRef<Path>) {
        self.add(path.as_ref(), Kind::Directory, 0o755, ROOT);
    }

    /// A directory with another mode, of the image's user or of root.
    pub fn directory_for(&mut self, path: impl AsRef<Path>, mode: u32, owner: u64) {
        self.add(path.as_ref(), Kind::Directory, mode, owner);
    }

    /// A file that everybody may read.
    pub fn file(&mut self, path: impl AsRef<Path>, content: impl Into<Bytes>) {
        self.add(path.as_ref(), Kind::File(Content::Bytes(content.into())), 0o644, ROOT);
    }

    /// A file that everybody may run.
    pub fn program(&mut self, path: impl AsRef<Path>, content: impl Into<Bytes>) {
        self.add(path.as_ref(), Kind::File(Content::Bytes(content.into())), 0o755, ROOT);
    }

    /// A copy of a file on this machine, which everybody may read.
    pub fn copy(&mut self, path: impl AsRef<Path>, from: PathBuf, size: u64) {
        self.add(path.as_ref(), Kind::File(Content::File(from, size)), 0o644, ROOT);
    }

    pub fn link(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) {
        self.add(path.as_ref(), Kind::Link(target.into()), 0o777, ROOT);
    }

    /// Adds it, and the directories above it that are not there yet.
    fn add(&mut self, path: &Path, kind: Kind, mode: u32, owner: u64) {
        let path = path.strip_prefix("/").unwrap_or(path);
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            let directory = || Node { kind: Kind::Directory, mode: 0o755, owner: ROOT };
            self.0.entry(above.to_owned()).or_insert_with(directory);
        }
        self.0.insert(path.to_owned(), Node { kind, mode, owner });
    }

    /// How many files it holds.
    pub fn files(&self) -> usize {
        self.0.values().filter(|node| matches!(node.kind, Kind::File(_))).count()
    }

    /// Writes the tree as a tar.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(to);
        for (path, node) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_mtime(MODIFIED);
            header.set_mode(node.mode);
            header.set_uid(node.owner);
            header.set_gid(node.owner);
            header.set_size(0);
            match &node.kind {
                Kind::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    // Tools tell directories by the slash as well.
                    tar.append_data(&mut header, path.join(""), io::empty())?;
                }
                Kind::File(content) => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(content.size());
                    tar.append_data(&mut header, path, content.open()?)?;
                }
                Kind::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    tar.append_link(&mut header, path, target)?;
                }
            }
        }
        tar.into_inner()?.flush()
    }
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::Bytes(bytes) => Ok(Box::new(&bytes[..])),
            Self::File(path, size) => {
                let file = File::open(path).map_err(|error| naming(path, &error))?;
                // A tar with another length than its header says is damaged from there on.
                if file.metadata()?.len() != *size {
                    let changed = io::Error::other("it changed while the image was made; try again");
                    return Err(naming(path, &changed));
                }
                Ok(Box::new(file))
            }
        }
    }
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_is_sorted_complete_and_without_names_of_users() {
        let mut tree = Tree::default();
        tree.link("/usr/bin/b", "a");
        tree.program("/usr/bin/a", "program");
        tree.directory_for("/data", 0o700, USER);
        let deep = format!("/opt/{}/file", "long-name/".repeat(20));
        tree.file(&deep, "deep");
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries: Vec<(String, u32, u64, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.username_bytes(), header.groupname_bytes()), (Some(&b""[..]), Some(&b""[..])));
                let path = entry.path().unwrap().display().to_string();
                (path, header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap())
            })
            .collect();
        let paths: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(paths[..2], ["data/", "opt/"]);
        assert_eq!(paths[paths.len() - 4..], ["usr/", "usr/bin/", "usr/bin/a", "usr/bin/b"]);
        assert!(paths.contains(&&deep[1..]));
        assert_eq!(entries[0], ("data/".into(), 0o700, USER, MODIFIED));
        assert!(entries.iter().skip(1).all(|entry| entry.2 == 0 && entry.3 == MODIFIED));
    }
}
