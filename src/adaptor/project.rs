//! The adaptors a project names, whichever of OpenFn's formats it is written in.
//!
//! Installing needs no more of a project than its adaptors, so this reads no more: it looks wherever any of the formats
//! (portability v2, v3 and v4, `workflow.json`, the CLI's workspace) keeps jobs, and ignores the rest.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::spec::{AdaptorSpec, SpecError};

const PROJECT_FILES: [&str; 6] =
    ["project.yaml", "project.yml", "project.json", "workflow.json", "workflow.yaml", "workflow.yml"];
const WORKSPACE_FILES: [&str; 2] = ["openfn.yaml", "openfn.json"];

#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error("{dir} holds no project: none of project.yaml, project.json, workflow.json or openfn.yaml is there")]
    Missing { dir: PathBuf },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", place(.path, .line))]
    Syntax { path: PathBuf, line: Option<u64>, reason: String },
    #[error("{}: {source}", place(.path, .line))]
    Adaptor { path: PathBuf, line: Option<u64>, source: SpecError },
    #[error("{}: the adaptor of a job is a text such as `http@7`, not {found}", place(.path, .line))]
    NotText { path: PathBuf, line: Option<u64>, found: String },
}

fn place(path: &Path, line: &Option<u64>) -> String {
    match line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    }
}

/// The adaptors named by the project in `dir`, each once, in the order of the files.
pub fn project_adaptors(dir: &Path) -> Result<Vec<AdaptorSpec>, ProjectError> {
    let mut found = Vec::new();
    if let Some(path) = first_existing(dir, &PROJECT_FILES) {
        Document::read(&path)?.collect_adaptors(&mut found)?;
    } else if let Some(path) = first_existing(dir, &WORKSPACE_FILES) {
        let workspace = Document::read(&path)?;
        for path in workspace.workflow_files(dir) {
            Document::read(&path)?.collect_adaptors(&mut found)?;
        }
    } else {
        return Err(ProjectError::Missing { dir: dir.into() });
    }
    Ok(found)
}

fn first_existing(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| dir.join(name)).find(|path| path.exists())
}

struct Document {
    path: PathBuf,
    text: String,
    root: Value,
}

impl Document {
    fn read(path: &Path) -> Result<Self, ProjectError> {
        let path = path.to_path_buf();
        let text =
            std::fs::read_to_string(&path).map_err(|source| ProjectError::Read { path: path.clone(), source })?;
        // YAML contains JSON, so one reader serves both; JSON's own gives better messages for it.
        let root = if path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str(&text).map_err(|error| ProjectError::Syntax {
                path: path.clone(),
                line: Some(error.line() as u64),
                reason: error.to_string(),
            })?
        } else if text.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(&text).map_err(|error| ProjectError::Syntax {
                path: path.clone(),
                line: error.location().map(|location| location.line()),
                reason: error.without_snippet().to_string(),
            })?
        };
        Ok(Self { path, text, root })
    }

    fn collect_adaptors(&self, found: &mut Vec<AdaptorSpec>) -> Result<(), ProjectError> {
        let workflows = members(&self.root["workflows"]).chain([&self.root, &self.root["workflow"]]);
        for workflow in workflows {
            for job in members(&workflow["jobs"]).chain(members(&workflow["steps"])) {
                // `language_pack` is what drafts of portability v2 called the adaptor.
                for value in [&job["adaptor"], &job["language_pack"]] {
                    self.add(value, found)?;
                }
                match &job["adaptors"] {
                    Value::Array(several) => several.iter().try_for_each(|value| self.add(value, found))?,
                    one => self.add(one, found)?,
                }
            }
        }
        Ok(())
    }

    fn add(&self, value: &Value, found: &mut Vec<AdaptorSpec>) -> Result<(), ProjectError> {
        let text = match value {
            Value::Null => return Ok(()),
            Value::String(text) if text.trim().is_empty() => return Ok(()),
            Value::String(text) => text,
            other => {
                let (path, line, found) = (self.path.clone(), self.line_of(&other.to_string()), other.to_string());
                return Err(ProjectError::NotText { path, line, found });
            }
        };
        let spec = AdaptorSpec::parse(text).map_err(|source| ProjectError::Adaptor {
            path: self.path.clone(),
            line: self.line_of(text),
            source,
        })?;
        if !found.contains(&spec) {
            found.push(spec);
        }
        Ok(())
    }

    /// The first line that sets an adaptor to `text`: good enough to point at, as equal lines are equally wrong.
    fn line_of(&self, text: &str) -> Option<u64> {
        let line = self.text.lines().position(|line| {
            line.contains(text) && ["adaptor", "language_pack", "- "].iter().any(|key| line.contains(key))
        })?;
        Some(line as u64 + 1)
    }

    /// The workflow files of a CLI workspace, sorted by path.
    fn workflow_files(&self, dir: &Path) -> Vec<PathBuf> {
        let dirs = [&self.root["workspace"]["dirs"], &self.root["dirs"]];
        let name = dirs.iter().find_map(|dirs| dirs["workflows"].as_str()).unwrap_or("workflows");
        let children = |dir: &Path| -> Vec<PathBuf> {
            dir.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let is_document = |path: &PathBuf| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
        };
        let mut files: Vec<PathBuf> =
            children(&dir.join(name)).iter().flat_map(|workflow| children(workflow)).filter(is_document).collect();
        files.sort();
        files
    }
}

/// The values of a mapping or the items of a sequence: formats differ in which of the two they use.
fn members(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Object(map) => Box::new(map.values()),
        Value::Array(list) => Box::new(list.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptors(file: &str, text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        if file.starts_with("workflows/") {
            std::fs::write(dir.path().join("openfn.yaml"), "project: {name: p}").unwrap();
        }
        let relative = |error: ProjectError| error.to_string().replace(&format!("{}/", dir.path().display()), "");
        project_adaptors(dir.path()).map(|specs| specs.iter().map(ToString::to_string).collect()).map_err(relative)
    }

    #[test]
    fn every_format_gives_its_adaptors() {
        let http = "@openfn/language-http@latest";
        let common = "@openfn/language-common@2.5.1";
        let v2 = "
jobs:
  a: {adaptor: '@openfn/language-http', trigger: t}
  b: {language_pack: language-common@2.5.1}
triggers: {t: {cron: '* * * * *'}}";
        let v3 = "
name: p
workflows:
  w:
    jobs:
      a: {adaptor: '@openfn/language-http@latest', body: 'fn(s => s)'}
      b: {adaptor: '@openfn/language-common@2.5.1'}
    triggers: {webhook: {type: webhook}}";
        let v4 = "
schema_version: '4.0'
workflows:
  - id: w
    steps:
      - {id: webhook, type: webhook}
      - {id: a, adaptor: http}
      - {id: b, adaptors: ['common@2.5.1', 'http']}";
        let plan = r#"{"workflow":{"steps":[
            {"adaptor":"http"},{"adaptors":["@openfn/language-common@2.5.1"]}]}}"#;
        let old_plan = r#"{"start":"a","jobs":[{"adaptor":"http"},{"adaptor":"common@2.5.1"}]}"#;
        let workspace = "
id: w
steps:
  - {id: a, adaptor: http}
  - {id: b, adaptor: common@2.5.1}";
        for (file, text) in [
            ("project.yaml", v2),
            ("project.yaml", v3),
            ("project.yaml", v4),
            ("workflow.json", plan),
            ("workflow.json", old_plan),
            ("workflows/w/w.yaml", workspace),
        ] {
            assert_eq!(adaptors(file, text), Ok(vec![http.to_string(), common.to_string()]), "{text}");
        }
    }

    #[test]
    fn a_project_without_jobs_needs_no_adaptors() {
        assert_eq!(adaptors("project.yaml", ""), Ok(vec![]));
        assert_eq!(adaptors("project.yaml", "name: empty\nworkflows: {}\n"), Ok(vec![]));
    }

    #[test]
    fn mistakes_are_shown_with_their_line() {
        let error = adaptors("project.yaml", "jobs:\n  a:\n    adaptor: http@@\n").unwrap_err();
        assert!(error.starts_with("project.yaml:3: `http@@` has no usable version"), "{error}");
        let error = adaptors("project.yaml", "jobs:\n  a:\n    adaptor: 42\n").unwrap_err();
        assert!(error.starts_with("project.yaml:3: ") && error.ends_with("not 42"), "{error}");
        let error = adaptors("project.yaml", "jobs:\n  a: [\n").unwrap_err();
        assert!(error.starts_with("project.yaml:"), "{error}");
        let error = adaptors("workflow.json", "{\n\"steps\": [,]}").unwrap_err();
        assert!(error.starts_with("workflow.json:2: "), "{error}");
        assert!(adaptors("other.txt", "").unwrap_err().contains("holds no project"));
    }
}
