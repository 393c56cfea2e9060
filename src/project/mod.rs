//! What people write: project files in, one [`Project`] out.
//!
//! A project is a directory with a `project.yaml` in OpenFn's portability format, version 2, with more settings that are
//! this program's own (`docs/project.md`), or a directory without one and variables that describe a single job.
//!
//! A file is read into a tree that knows its places (`yaml`), values are taken out of the tree (`reader`) as
//! `credentials`, `triggers` and `jobs`, and these are put together to `workflows`. No step stops at a problem, so all of
//! them are found in one go. Nothing of a credential is ever part of a problem.

mod credentials;
mod dotenv;
mod files;
mod inline;
mod jobs;
mod parts;
mod portable;
mod problem;
mod reader;
mod single_job;
mod triggers;
pub mod watch;
mod workflows;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::credentials::{Credentials, Variables};
use self::files::{FileError, Files};
pub use self::inline::Inline;
pub use self::parts::{Parts, Secret};
pub use self::portable::{Portable, Variable};
pub use self::problem::{Excerpt, Problem};
use self::problem::{Problems, Source};
use self::reader::Reader;
use self::watch::Snapshot;
use crate::model::Workflow;

/// A project that can be served.
#[derive(Clone)]
pub struct Project {
    pub dir: PathBuf,
    pub name: Option<String>,
    pub workflows: Vec<Workflow>,
    /// Name → what becomes `state.configuration`, or holds the secrets of a webhook.
    pub credentials: BTreeMap<String, Value>,
    /// Credentials that are used and not written down here: the store must have them.
    pub lacking: BTreeSet<String>,
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Project")
            .field("dir", &self.dir)
            .field("name", &self.name)
            .field("workflows", &self.workflows)
            .field("credentials", &self.credentials.keys())
            .field("lacking", &self.lacking)
            .finish()
    }
}

/// A project, and what should be mended in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub project: Project,
    pub warnings: Vec<Problem>,
    /// The files it is made of, and those that would be part of it if they were there, as they were before they were read.
    pub files: Snapshot,
    /// Job → where its expression stands in the project file, for those that are written there.
    pub inline: BTreeMap<String, Inline>,
    /// The files that were read, as the project names them: its parts, and those that hold credentials.
    parts: BTreeSet<PathBuf>,
    secret: BTreeSet<PathBuf>,
}

/// A project that cannot be used.
#[derive(Clone, Debug)]
pub struct Broken {
    /// At least one.
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// As in [`Loaded`]: it may be mended when one of them changes.
    pub files: Snapshot,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<String> = self.errors.iter().map(Problem::to_string).collect();
        f.write_str(&errors.join("\n\n"))
    }
}

impl std::error::Error for Broken {}

/// Where `${NAME}` in a project file comes from.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The file that makes a directory a project.
pub const PROJECT_FILES: [&str; 3] = ["project.yaml", "project.yml", "project.json"];
const ENV_FILE: &str = ".env";

impl Project {
    /// Reads the project in `dir`. All that is wrong with it is found in one go.
    pub fn load(dir: &Path, environment: Environment<'_>) -> Result<Loaded, Broken> {
        Self::load_with(dir, environment, false)
    }

    /// As [`Project::load`]; `without_secrets` where variables and files with credentials need not be.
    fn load_with(dir: &Path, environment: Environment<'_>, without_secrets: bool) -> Result<Loaded, Broken> {
        let mut problems = Problems::default();
        let mut inline = BTreeMap::new();
        let mut project = Self {
            dir: dir.to_owned(),
            name: None,
            workflows: Vec::new(),
            credentials: BTreeMap::new(),
            lacking: BTreeSet::new(),
        };
        let (mut parts, mut secret) = (BTreeSet::new(), BTreeSet::new());
        let files = match Files::new(dir, without_secrets) {
            Ok(mut files) => {
                let dotenv = read_dotenv(&mut files, &mut problems);
                let known = |name: &str| environment(name).or_else(|| dotenv.get(name).cloned());
                let variables = |name: &str| known(name).or_else(|| without_secrets.then(String::new));
                project.read(&mut files, &variables, &mut problems, &mut inline);
                (parts, secret) = (files.parts, files.secret);
                files.looked_at
            }
            Err(problem) => {
                problems.error(problem);
                Snapshot::default()
            }
        };
        let Problems { errors, warnings } = problems.sorted();
        if errors.is_empty() {
            Ok(Loaded { project, warnings, files, inline, parts, secret })
        } else {
            Err(Broken { errors, warnings, files })
        }
    }

    fn read(
        &mut self,
        files: &mut Files,
        variables: Variables,
        problems: &mut Problems,
        inline: &mut BTreeMap<String, Inline>,
    ) {
        let found: Vec<&str> = PROJECT_FILES.into_iter().filter(|name| files.exists(name)).collect();
        let Some((file, others)) = found.split_first() else {
            match single_job::read(files, variables, problems) {
                Some((workflow, credentials)) => {
                    self.workflows.push(workflow);
                    self.credentials = credentials;
                }
                None => {
                    let hint = "write a project.yaml, or set EXPRESSION_PATH to the path of a job";
                    problems.error(Problem::of_file(&self.dir, "there is no project here").hint(hint));
                }
            }
            return;
        };
        for other in others {
            let message = format!("{other} is not read, for {file} is there");
            problems.warning(Problem::of_file(files.shown(Path::new(other)), message).hint("take one of them out"));
        }
        match files.read(file) {
            Ok(source) => self.read_file(source, files, variables, problems, inline),
            Err(FileError::Itself(problem)) => problems.error(problem),
            Err(FileError::Named { message, hint }) => {
                problems.error(Problem::of_file(files.shown(Path::new(file)), message).hint(hint));
            }
        }
    }

    fn read_file(
        &mut self,
        mut source: Source,
        files: &mut Files,
        variables: Variables,
        problems: &mut Problems,
        inline: &mut BTreeMap<String, Inline>,
    ) {
        let yaml::Document { root, faults } = yaml::parse(&source.text);
        match &root {
            Some(root) if faults.is_empty() => keep_credentials_secret(root, &mut source),
            // What the text means is not certain, so neither is where its credentials end.
            _ => {
                let from = source.text.find("credentials").unwrap_or(source.text.len());
                source.keep_secret(from..source.text.len());
            }
        }
        let mut reader = Reader { source: &source, problems };
        reader.faults(faults);
        let Some(root) = root else { return };
        if root.is_null() {
            warn_of_no_jobs(&mut reader);
            return;
        }
        if let yaml::Kind::Map(entries) = &root.kind
            && let Some(entry) =
                entries.iter().find(|entry| ["workflows", "steps", "workflow"].contains(&entry.key.as_str()))
        {
            let message = "this project is in a format that is not read yet: portability version 2 is";
            let hint = "write `jobs`, `triggers` and `credentials`, as docs/project.md tells";
            reader.error_with_hint(&entry.key_span, message, hint);
            return;
        }
        const KEYS: [&str; 8] =
            ["jobs", "triggers", "credentials", "isolation", "name", "description", "version", "id"];
        let Some(fields) = reader.fields(&root, "a project", &KEYS) else { return };
        self.name = fields.get("name").and_then(|node| node.as_text()).map(str::to_owned);
        let mut credentials = fields
            .get("credentials")
            .map(|node| Credentials::read(node, &mut reader, files, variables))
            .unwrap_or_default();
        let triggers = fields.get("triggers").map(|node| triggers::read(node, &mut reader, &mut credentials));
        let jobs = fields.get("jobs").map(|node| jobs::read(node, &mut reader, files, inline)).unwrap_or_default();
        for (name, span) in jobs.iter().filter_map(|job| job.credential.as_ref()) {
            credentials.use_from(name, span, &mut reader);
        }
        if fields.get("jobs").is_none() {
            warn_of_no_jobs(&mut reader);
        }
        let isolation = fields.get("isolation");
        let isolation = isolation.and_then(|node| reader.keyword(node, "`isolation`", &jobs::ISOLATIONS));
        let triggers = triggers.unwrap_or_default();
        self.workflows = workflows::assemble(&jobs, &triggers, isolation.unwrap_or_default(), &mut reader);
        self.credentials = credentials.values;
        self.lacking = credentials.lacking;
    }
}

fn warn_of_no_jobs(reader: &mut Reader) {
    let problem = Problem::of_file(&reader.source.file, "the project has no jobs");
    reader.problems.warning(problem.hint("add a job under `jobs:`"));
}

/// The section itself, and what its aliases lead to.
fn keep_credentials_secret(root: &yaml::Node, source: &mut Source) {
    let yaml::Kind::Map(entries) = &root.kind else { return };
    for entry in entries.iter().filter(|entry| entry.key == "credentials") {
        let section = entry.key_span.start..entry.value.span.end;
        source.keep_secret(section.clone());
        keep_secret(&entry.value, &section, source);
    }
}

fn keep_secret(node: &yaml::Node, section: &Range<usize>, source: &mut Source) {
    if node.span.start < section.start || node.span.end > section.end {
        source.keep_secret(node.span.clone());
    }
    match &node.kind {
        yaml::Kind::Scalar(_) => {}
        yaml::Kind::List(items) => items.iter().for_each(|item| keep_secret(item, section, source)),
        yaml::Kind::Map(entries) => entries.iter().for_each(|entry| keep_secret(&entry.value, section, source)),
    }
}

/// The variables that the project's `.env` sets. What is wrong with the file is told when the project is read.
pub fn dotenv(dir: &Path) -> BTreeMap<String, String> {
    Files::new(dir, true)
        .map_or_else(|_| BTreeMap::new(), |mut files| read_dotenv(&mut files, &mut Problems::default()))
}

fn read_dotenv(files: &mut Files, problems: &mut Problems) -> BTreeMap<String, String> {
    if !files.exists(ENV_FILE) {
        return BTreeMap::new();
    }
    match files.read_anywhere(Path::new(ENV_FILE)) {
        Ok(source) => dotenv::read(source, problems),
        Err(FileError::Itself(problem)) => {
            problems.error(problem);
            BTreeMap::new()
        }
        Err(FileError::Named { message, hint }) => {
            problems.error(Problem::of_file(files.shown(Path::new(ENV_FILE)), message).hint(hint));
            BTreeMap::new()
        }
    }
}
