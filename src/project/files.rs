//! Reads the files of a project: those in its directory, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::problem::{Problem, Source, quoted};
use super::watch::Snapshot;

/// The directory of a project, and which of its files were asked for.
pub(super) struct Files {
    dir: PathBuf,
    /// Without links, to see what lies within.
    root: PathBuf,
    /// Every path that was looked at, there or not: a change of any of them is a change of the project.
    pub looked_at: Snapshot,
    /// The files that were read as parts of the project, and those that hold credentials, as the project names them.
    pub parts: BTreeSet<PathBuf>,
    pub secret: BTreeSet<PathBuf>,
    /// Whether the project is read where its secrets need not be.
    pub without_secrets: bool,
}

/// Why a file was not read: a message about the place that names it, or about the file itself.
pub(super) enum FileError {
    Named { message: String, hint: String },
    Itself(Problem),
}

impl Files {
    /// No project and no job that people write comes near.
    const LARGEST: u64 = 64 << 20;

    pub fn new(dir: &Path, without_secrets: bool) -> Result<Self, Problem> {
        let root = dir.canonicalize().ok().filter(|root| root.is_dir());
        let Some(root) = root else {
            return Err(
                Problem::of_file(dir, "there is no such directory").hint("name the directory that holds project.yaml")
            );
        };
        let looked_at = Snapshot::default();
        Ok(Self {
            dir: dir.to_owned(),
            root,
            looked_at,
            parts: BTreeSet::new(),
            secret: BTreeSet::new(),
            without_secrets,
        })
    }

    /// A path as messages show it.
    pub fn shown(&self, path: &Path) -> PathBuf {
        if self.dir == Path::new(".") { path.to_owned() } else { self.dir.join(path) }
    }

    pub fn exists(&mut self, path: impl AsRef<Path>) -> bool {
        let path = self.dir.join(path);
        let exists = path.is_file();
        self.looked_at.add(path);
        exists
    }

    /// Reads a text file that is a part of the project: one in its directory, links resolved.
    pub fn read(&mut self, path: &str) -> Result<Source, FileError> {
        self.parts.insert(path.into());
        self.read_within(path)
    }

    /// Reads a file with a credential; None if there is none, and need not be.
    pub fn read_secret(&mut self, path: &str) -> Result<Option<Source>, FileError> {
        self.secret.insert(path.into());
        if self.without_secrets && !self.exists(path) {
            return Ok(None);
        }
        self.read_within(path).map(Some)
    }

    fn read_within(&mut self, path: &str) -> Result<Source, FileError> {
        let full = self.dir.join(path);
        self.looked_at.add(full.clone());
        match full.canonicalize() {
            Ok(real) if real.starts_with(&self.root) => self.read_anywhere(Path::new(path)),
            Ok(_) => Err(FileError::Named {
                message: format!("the file {} lies outside of the project", quoted(path)),
                hint: "copy it into the project's directory: nothing else is read".into(),
            }),
            Err(error) => Err(cannot_read(path, &error)),
        }
    }

    /// Reads a text file that somebody who may name any file has named.
    pub fn read_anywhere(&mut self, path: &Path) -> Result<Source, FileError> {
        let full = self.dir.join(path);
        let within = full.strip_prefix(&self.dir).unwrap_or(&full);
        let (name, shown) = (within.to_string_lossy(), self.shown(within));
        self.looked_at.add(full.clone());
        let metadata = fs::metadata(&full).map_err(|error| cannot_read(&name, &error))?;
        let refused = if !metadata.is_file() {
            Some("is no file")
        } else if metadata.len() > Self::LARGEST {
            Some("is larger than 64 MB")
        } else {
            None
        };
        if let Some(reason) = refused {
            let message = format!("{} {reason}", quoted(&name));
            return Err(FileError::Named { message, hint: "name a text file".into() });
        }
        let bytes = fs::read(&full).map_err(|error| cannot_read(&name, &error))?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source::new(&shown, text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))),
            Err(error) => {
                let end = error.utf8_error().valid_up_to();
                let valid = String::from_utf8_lossy(&error.as_bytes()[..end]).into_owned();
                let problem = Source::new(&shown, valid).problem(&(end..end), "the text is not UTF-8 from here on");
                let problem = Problem { excerpt: None, ..problem };
                Err(FileError::Itself(problem.hint("save the file as UTF-8")))
            }
        }
    }
}

fn cannot_read(path: &str, error: &std::io::Error) -> FileError {
    let (message, hint) = match error.kind() {
        ErrorKind::NotFound => {
            (format!("there is no file {}", quoted(path)), "paths begin at the project's directory".to_owned())
        }
        ErrorKind::PermissionDenied => {
            (format!("the file {} cannot be read", quoted(path)), "let the user that runs fnhost read it".to_owned())
        }
        kind => (format!("the file {} cannot be read: {kind}", quoted(path)), "check the path".to_owned()),
    };
    FileError::Named { message, hint }
}
