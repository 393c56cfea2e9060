//! A project as files to pass on: the same jobs, and nothing of what its credentials hold.
//!
//! Every value of a credential counts as a secret, also an address or a default: whether it is one, no program can see.
//! So each gives way to a variable, and the values go nowhere. What a job itself contains is not looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::credentials::is_placeholder;
use super::dotenv::is_name;
use super::files::{FileError, Files};
use super::problem::{Problem, Problems};
use super::{Broken, Project, yaml};
use crate::model::{JsStep, StepKind, TriggerKind};

/// A project that anyone may see.
#[derive(Debug, Default)]
pub struct Portable {
    /// Path in the project → text.
    pub files: BTreeMap<String, String>,
    /// What its credentials take from the environment, in the order of the file.
    pub variables: Vec<Variable>,
    /// What somebody has to know or to do by hand.
    pub notes: Vec<String>,
    /// A message that starts a job, as JSON.
    pub example: String,
}

/// A variable in the place of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub name: String,
    /// The credential that it is for, and where in it: `warehouse.password`.
    pub place: String,
}

/// Files beside the project's own that hold no secrets and belong to it.
const COMPANIONS: [&str; 2] = ["fnhost.lock", "fnhost.yaml"];

impl Portable {
    /// The project in `dir`. `taken` are names that no new variable may have.
    pub fn of(dir: &Path, taken: BTreeSet<String>) -> Result<Self, Broken> {
        let mut files = Files::new(dir, true).map_err(Broken::from)?;
        let Some(file) = super::PROJECT_FILES.into_iter().find(|name| files.exists(name)) else {
            let hint = "name a directory with a project.yaml, a project.yml or a project.json";
            return Err(Broken::from(Problem::of_file(dir, "there is no project file here").hint(hint)));
        };
        // What its secrets are, and whether they are there, makes no difference to what is passed on.
        let loaded = Project::load_with(dir, &|_| None, true)?;
        let source = files.read(file).map_err(|error| broken(dir, error))?;
        let root = yaml::parse(&source.text).root.map_or(Value::Null, |root| root.to_value());
        let Value::Object(mut project) = root else {
            return Err(Broken::from(Problem::of_file(dir, "the project is empty").hint("name one that has jobs")));
        };
        // They may hold what credentials share.
        project.retain(|key, _| !key.starts_with("x-"));

        let mut portable = Self { example: example(&loaded.project), ..Self::default() };
        if let Some(Value::Object(jobs)) = project.get_mut("jobs") {
            portable.take_jobs(jobs, &steps(&loaded.project));
        }
        if let Some(Value::Object(credentials)) = project.get_mut("credentials") {
            let mut variables = Variables { taken, named: Vec::new() };
            credentials.values().for_each(|value| variables.reserve(value));
            for (name, value) in credentials {
                let note = variables.replace_credential(name, value, &mut files);
                portable.notes.extend(note);
            }
            portable.variables = variables.named;
        }
        portable.files.insert("project.yaml".into(), text(&Value::Object(project)));
        for name in COMPANIONS {
            if let Ok(source) = files.read(name) {
                portable.files.insert(name.into(), source.text);
            }
        }
        if files.exists(".npmrc") {
            portable.notes.push("`.npmrc` was not copied, as it may hold tokens".into());
        }
        Ok(portable)
    }

    /// Puts each job into a file of its own.
    fn take_jobs(&mut self, jobs: &mut Map<String, Value>, steps: &BTreeMap<&str, &JsStep>) {
        for (name, job) in jobs {
            let (Value::Object(job), Some(step)) = (job, steps.get(name.as_str())) else { continue };
            job.retain(|key, _| !key.starts_with("x-"));
            let extension = step.file.as_deref().and_then(|file| Path::new(file).extension()?.to_str()).unwrap_or("js");
            let path = self.free_path(&format!("jobs/{}", file_name(name)), extension);
            job.insert("expression".into(), format!("file://{path}").into());
            let mut source = step.expression.clone();
            if !source.ends_with('\n') {
                source.push('\n');
            }
            self.files.insert(path, source);
            for adaptor in step.adaptors.iter().filter(|adaptor| adaptor.contains('=')) {
                let path = adaptor.split_once('=').map_or("", |(_, path)| path);
                self.notes.push(format!("the adaptor of the job `{name}` is a directory, {path}: copy it yourself"));
            }
        }
    }

    fn free_path(&self, stem: &str, extension: &str) -> String {
        let names = (2..).map(|number| format!("{stem}-{number}.{extension}"));
        std::iter::once(format!("{stem}.{extension}"))
            .chain(names)
            .find(|path| !self.files.contains_key(path))
            .unwrap_or_default()
    }
}

fn broken(dir: &Path, error: FileError) -> Broken {
    Broken::from(match error {
        FileError::Itself(problem) => problem,
        FileError::Named { message, hint } => Problem::of_file(dir, message).hint(hint),
    })
}

impl From<Problem> for Broken {
    fn from(problem: Problem) -> Self {
        let mut problems = Problems::default();
        problems.error(problem);
        Self { errors: problems.errors, warnings: Vec::new(), files: Default::default() }
    }
}

fn steps(project: &Project) -> BTreeMap<&str, &JsStep> {
    let steps = project.workflows.iter().flat_map(|workflow| &workflow.steps);
    steps
        .map(|step| match &step.kind {
            StepKind::Js(job) => (step.id.as_str(), job),
        })
        .collect()
}

/// A message that the first trigger of messages is for.
fn example(project: &Project) -> String {
    let triggers = project.workflows.iter().flat_map(|workflow| &workflow.triggers);
    let criteria = triggers.filter_map(|trigger| match &trigger.kind {
        TriggerKind::Message { criteria, .. } => Some(Value::Object(criteria.0.clone())),
        _ => None,
    });
    criteria.map(|criteria| criteria.to_string()).next().unwrap_or_else(|| "{}".into())
}

/// A value as YAML that a person can read.
fn text(value: &Value) -> String {
    // JSON is YAML, should there be a value that has no other notation.
    serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value:#}\n"))
}

/// The name of a job as the name of a file: `Send to DHIS2` is `send-to-dhis2`.
fn file_name(job: &str) -> String {
    let name = words(job, '-').to_ascii_lowercase();
    if name.is_empty() { "job".into() } else { name }
}

/// Letters and digits, with `joint` for what is between them: `pass word` with `_` is `pass_word`.
fn words(text: &str, joint: char) -> String {
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(&joint.to_string())
}

/// The variables that take the places of values.
struct Variables {
    /// Names that no new variable may have.
    taken: BTreeSet<String>,
    named: Vec<Variable>,
}

impl Variables {
    /// Keeps the names of the variables that a value refers to.
    fn reserve(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.taken.extend(reference(text).map(str::to_owned)),
            Value::Array(items) => items.iter().for_each(|item| self.reserve(item)),
            Value::Object(members) => members.values().for_each(|member| self.reserve(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Replaces what is in a credential; gives what somebody has to do about it.
    fn replace_credential(&mut self, name: &str, value: &mut Value, files: &mut Files) -> Option<String> {
        if let Value::String(text) = &*value {
            if is_placeholder(text) {
                return Some(format!("the credential `{name}` is a placeholder: put it into the service's store"));
            }
            if reference(text).is_none() {
                *value = match read_credential(text, files) {
                    Some(inline) => inline,
                    None => return Some(format!("the file of the credential `{name}` cannot be read: write it anew")),
                };
                self.reserve(value);
            }
        }
        self.replace(name, value);
        None
    }

    /// Replaces every value below `place`. Truth values stay: they can be no secret, and no text could stand for them.
    fn replace(&mut self, place: &str, value: &mut Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Array(items) => {
                for (number, item) in (1..).zip(items) {
                    self.replace(&format!("{place}.{number}"), item);
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    self.replace(&format!("{place}.{key}"), member);
                }
            }
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => {
                let name = reference(text).map_or_else(|| self.new_name(place), str::to_owned);
                *value = self.refer(name, place);
            }
            Value::Number(_) => {
                let name = self.new_name(place);
                *value = self.refer(name, place);
            }
        }
    }

    fn refer(&mut self, name: String, place: &str) -> Value {
        let reference = format!("${{{name}}}");
        self.named.push(Variable { name, place: place.to_owned() });
        reference.into()
    }

    /// `warehouse.baseUrl` is `WAREHOUSE_BASE_URL`.
    fn new_name(&mut self, place: &str) -> String {
        let mut spaced = String::new();
        let mut before = ' ';
        for c in place.chars() {
            if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
                spaced.push('_');
            }
            spaced.push(c);
            before = c;
        }
        let stem = words(&spaced, '_').to_ascii_uppercase();
        let stem = if is_name(&stem) { stem } else { format!("CREDENTIAL_{stem}") };
        let numbered = (2..).map(|number| format!("{stem}_{number}"));
        let mut names = std::iter::once(stem.clone()).chain(numbered);
        let name = names.find(|name| !self.taken.contains(name)).unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }
}

/// The name in a text that is one reference to a variable and nothing else. A default in it counts as a value.
fn reference(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("${")?.strip_suffix('}')?;
    let name = inside.split_once(":-").map_or(inside, |(name, _)| name);
    is_name(name).then_some(name)
}

fn read_credential(path: &str, files: &mut Files) -> Option<Value> {
    let source = files.read(path.strip_prefix("file://").unwrap_or(path)).ok()?;
    Some(yaml::parse(&source.text).root?.to_value())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn portable(files: &[(&str, &str)]) -> Portable {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Portable::of(dir.path(), BTreeSet::from(["HOST_URL".to_owned()])).unwrap_or_else(|broken| panic!("{broken}"))
    }

    fn project(portable: &Portable) -> Value {
        yaml::parse(&portable.files["project.yaml"]).root.unwrap().to_value()
    }

    const JOBS: &str = "
jobs:
  Send it!: {language_pack: language-common, trigger: any, credential: api, expression: 'fn(state => state)', x-a: hunter2}
  send it: {adaptor: common, trigger: any, expression: file://old/send.ts}
triggers:
  any: {criteria: '{\"code\": \"0070\"}'}
";

    #[test]
    fn jobs_become_files() {
        let portable = portable(&[("project.yaml", JOBS), ("old/send.ts", "fn(state => state)\n"), (".npmrc", "a=b")]);
        assert_eq!(portable.files["jobs/send-it.js"], "fn(state => state)\n");
        assert_eq!(portable.files["jobs/send-it.ts"], "fn(state => state)\n");
        let project = project(&portable);
        assert_eq!(project["jobs"]["send it"]["expression"], "file://jobs/send-it.ts");
        assert_eq!(project["triggers"]["any"]["criteria"], "{\"code\": \"0070\"}");
        assert!(project["jobs"]["Send it!"].get("x-a").is_none());
        assert_eq!(portable.notes, ["`.npmrc` was not copied, as it may hold tokens"]);
    }

    #[test]
    fn no_value_of_a_credential_is_passed_on() {
        let credentials = "
x-shared: &shared {user: hunter2}
credentials:
  api:
    <<: *shared
    baseUrl: https://hunter2
    password: ${API_PASSWORD}
    token: ${TOKEN:-hunter2}
    mixed: hunter2-${TOKEN}
    pin: 7243
    tls: {allow: true, keys: [hunter2, '']}
  api_base: {url: hunter2}
  host: {url: hunter2}
  kept: file://secrets/kept.json
  gone: '******'
";
        let text = format!("{JOBS}{credentials}");
        let secret = r#"{"api": {"key": "hunter2"}}"#;
        let portable =
            portable(&[("project.yaml", &text), ("old/send.ts", "fn(s => s)"), ("secrets/kept.json", secret)]);
        let all = format!("{portable:?}");
        assert!(!all.contains("hunter2") && !all.contains("7243"), "{all}");
        assert_eq!(
            project(&portable)["credentials"],
            json!({
                "api": {
                    "baseUrl": "${API_BASE_URL}", "password": "${API_PASSWORD}", "token": "${TOKEN}",
                    "mixed": "${API_MIXED}", "pin": "${API_PIN}",
                    "tls": { "allow": true, "keys": ["${API_TLS_KEYS_1}", ""] }, "user": "${API_USER}",
                },
                "api_base": { "url": "${API_BASE_URL_2}" },
                "host": { "url": "${HOST_URL_2}" },
                "kept": { "api": { "key": "${KEPT_API_KEY}" } },
                "gone": "******",
            })
        );
        let last = Variable { name: "KEPT_API_KEY".into(), place: "kept.api.key".into() };
        assert_eq!(portable.variables.last(), Some(&last));
    }

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let value = json!({
            "texts": ["0070", "5", "true", "null", "~", "", " a ", "a: b", "# c", "@x", "- x", "'", "\"", "a\nb\n", "a\n\n b",
                "\t", "é😀", "y", "0 2 * * *", "*", "&a", "!t", "{a}", "[", "%", "2026-11-21", "1e3", "0x1F", "<<", "x".repeat(300)],
            "others": [5, -1.5, true, null, [], {}],
            "odd: key": { "": 1, "5": 2, "true": 3 },
        });
        assert_eq!(yaml::parse(&text(&value)).root.unwrap().to_value(), value);
    }
}
