//! What people write: project files of every format in, one [`Project`] out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::Workflow;

/// A project that can be served.
#[derive(Clone)]
pub struct Project {
    pub dir: PathBuf,
    pub workflows: Vec<Workflow>,
    /// Name → what becomes `state.configuration`, or holds the secrets of a webhook.
    pub credentials: BTreeMap<String, serde_json::Value>,
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Project")
            .field("dir", &self.dir)
            .field("workflows", &self.workflows)
            .field("credentials", &self.credentials.keys())
            .finish()
    }
}

/// Something in a project file that has to be, or should be, mended.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1.
    pub line: Option<u64>,
    /// From 1.
    pub column: Option<u64>,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A project, and what should be mended in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub project: Project,
    pub warnings: Vec<Problem>,
}

/// Where `${NAME}` in a project file comes from.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Project {
    /// Reads the project in `dir`. All that is wrong with it is found in one go.
    pub fn load(_dir: &Path, _environment: Environment<'_>) -> Result<Loaded, Vec<Problem>> {
        Err(vec![])
    }
}
