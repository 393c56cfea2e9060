//! What of a project may be given to others: the files that it is made of, without its secrets.
//!
//! Files with credentials and `.env` stay behind; whoever serves the project provides them. A credential that is written
//! into the project file may name where others can reach what it is for (`baseUrl`, `username`), and take the rest from
//! variables. A secret that stands there as it is, is an error: it would be readable to everyone who gets the files. The
//! default of a variable is left out, as that may be a secret, too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use serde_json::Value;

use super::problem::{Problem, Problems, Source, quoted};
use super::yaml::{self, Kind, Node};
use super::{Broken, Environment, Inline, Loaded, PROJECT_FILES, Project, credentials};
use crate::config::SETTINGS_FILE;

/// A project, and what it is made of.
#[derive(Debug)]
pub struct Parts {
    pub project: Project,
    pub warnings: Vec<Problem>,
    /// As in [`Loaded`].
    pub inline: BTreeMap<String, Inline>,
    /// Path in the project → text.
    pub files: BTreeMap<PathBuf, String>,
    /// Files with credentials, which are not among them.
    pub secret_files: BTreeSet<PathBuf>,
    /// Variables that credentials take values from, and have no default for.
    pub variables: BTreeSet<String>,
    /// Those of them whose defaults were left out.
    pub defaults_left_out: BTreeSet<String>,
}

/// A value that nobody else may see, and where it is from.
pub struct Secret<'a> {
    pub credential: &'a str,
    pub key: &'a str,
    pub value: &'a str,
}

impl Project {
    /// The project in `dir`, for those who may not have its secrets. Variables and files with credentials need not be
    /// there.
    pub fn parts(dir: &Path, environment: Environment<'_>) -> Result<Parts, Broken> {
        let Loaded { project, warnings, inline, files: snapshot, parts: names, secret } =
            Self::load_with(dir, environment, true)?;
        let mut problems = Problems { errors: Vec::new(), warnings };
        let mut parts = Parts {
            project,
            warnings: Vec::new(),
            inline,
            files: BTreeMap::new(),
            secret_files: BTreeSet::new(),
            variables: BTreeSet::new(),
            defaults_left_out: BTreeSet::new(),
        };
        let settings = Path::new(SETTINGS_FILE);
        let names = names.into_iter().chain(dir.join(settings).exists().then(|| settings.to_owned()));
        for name in names {
            let Some(path) = inside(&name, dir, &mut problems) else { continue };
            match std::fs::read_to_string(dir.join(&name)) {
                Ok(text) => drop(parts.files.insert(path, text)),
                Err(error) => problems.error(Problem::of_file(dir.join(&name), format!("cannot be read: {error}"))),
            }
        }
        parts.secret_files = secret.iter().filter_map(|name| inside(name, dir, &mut problems)).collect();
        let project_file = PROJECT_FILES.iter().map(PathBuf::from).find(|name| parts.files.contains_key(name));
        if let Some(name) = project_file
            && let Some(text) = parts.files.remove(&name)
        {
            let text = without_secrets(&dir.join(&name), text, &mut parts, &mut problems);
            parts.files.insert(name, text);
        }
        let Problems { errors, warnings } = problems.sorted();
        parts.warnings = warnings.clone();
        if errors.is_empty() { Ok(parts) } else { Err(Broken { errors, warnings, files: snapshot }) }
    }

    /// The values of credentials that are not for everyone, as far as they are known here.
    pub fn secrets(&self) -> Vec<Secret<'_>> {
        let mut secrets = Vec::new();
        for (credential, value) in &self.credentials {
            collect(credential, "", value, &mut secrets);
        }
        secrets
    }
}

fn collect<'a>(credential: &'a str, key: &'a str, value: &'a Value, secrets: &mut Vec<Secret<'a>>) {
    match value {
        Value::String(value) if !is_public(key, value) => secrets.push(Secret { credential, key, value }),
        Value::Array(items) => items.iter().for_each(|item| collect(credential, key, item, secrets)),
        Value::Object(members) => members.iter().for_each(|(key, value)| collect(credential, key, value, secrets)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The path of a file wherever the project will be. One that leads there only from this directory does not.
fn inside(name: &Path, dir: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => {
                let message = format!("{} does not lead to the same file elsewhere", quoted(&name.to_string_lossy()));
                let hint = "name files by their paths from the project's directory, without `..`";
                problems.error(Problem::of_file(dir, message).hint(hint));
                return None;
            }
        }
    }
    Some(path)
}

/// The project file without the defaults of secrets. Secrets that stand in it are errors.
fn without_secrets(file: &Path, text: String, parts: &mut Parts, problems: &mut Problems) -> String {
    let mut defaults = BTreeSet::new();
    for (key, node) in values_of_credentials(&text) {
        let Some(value) = node.as_text() else { continue };
        for (name, default) in credentials::references(value) {
            if default.is_none() || !is_public(&key, value) {
                parts.variables.insert(name.to_owned());
            }
            if default.is_some() && !is_public(&key, value) {
                parts.defaults_left_out.insert(name.to_owned());
                defaults.insert((node.span.start, node.span.end));
            }
        }
    }
    let mut shipped = text;
    for (start, end) in defaults.into_iter().rev() {
        let stripped = without_defaults(&shipped[start..end]);
        shipped.replace_range(start..end, &stripped);
    }
    let source = Source::new(file, shipped);
    for (key, node) in values_of_credentials(&source.text) {
        if let Some(message) = complaint(&key, &node) {
            let problem = Problem { excerpt: None, ..source.problem(&node.span, message) };
            let variable = variable_for(&key);
            problems.error(problem.hint(format!(
                "write ${{{variable}}} and set that variable where the project is served, or put the credential into a \
                 file (file://secrets/NAME.yaml) that is there"
            )));
        }
    }
    source.text
}

/// Why a value of a credential may not be given to others. The message does not quote it.
fn complaint(key: &str, node: &Node) -> Option<String> {
    let Kind::Scalar(scalar) = &node.kind else { return None };
    let is_secret = match scalar.value() {
        Value::String(text) => {
            let references = credentials::references(&text);
            let kept_default = references.iter().any(|(_, default)| default.is_some_and(|default| !default.is_empty()));
            let is_reference = !references.is_empty() && !kept_default;
            !(text.is_empty() || is_reference || credentials::is_placeholder(&text) || is_public(key, &text))
        }
        Value::Number(_) => !is_public(key, ""),
        _ => false,
    };
    is_secret
        .then(|| format!("{} is written into the project, so everyone who gets its files could read it", quoted(key)))
}

/// The scalars in the credentials of a project file, each with the key that it stands at. What names a file is none.
fn values_of_credentials(text: &str) -> Vec<(String, Rc<Node>)> {
    let mut values = Vec::new();
    let root = yaml::parse(text).root;
    let Some(Kind::Map(entries)) = root.as_ref().map(|root| &root.kind) else { return values };
    for section in entries.iter().filter(|entry| entry.key == "credentials") {
        let Kind::Map(credentials) = &section.value.kind else { continue };
        for credential in credentials {
            let names_file = credential.value.as_text().is_some_and(|text| !text.contains("${"));
            if !names_file {
                add_values(&credential.key, &credential.value, &mut values);
            }
        }
    }
    values
}

fn add_values(key: &str, node: &Rc<Node>, values: &mut Vec<(String, Rc<Node>)>) {
    match &node.kind {
        Kind::Scalar(_) => values.push((key.to_owned(), node.clone())),
        Kind::List(items) => items.iter().for_each(|item| add_values(key, item, values)),
        Kind::Map(entries) => entries.iter().for_each(|entry| add_values(&entry.key, &entry.value, values)),
    }
}

/// The text of a scalar as it stands in the file, with `${NAME}` for `${NAME:-default}`.
fn without_defaults(text: &str) -> String {
    let mut stripped = String::with_capacity(text.len());
    let mut rest = 0..0;
    for Range { start, end } in credentials::defaults(text) {
        stripped.push_str(&text[rest.end..start]);
        rest = start..end;
    }
    stripped.push_str(&text[rest.end..]);
    stripped
}

/// Whether a value may be seen by all: by its key it is a name or an address, and the address holds no secret.
fn is_public(key: &str, value: &str) -> bool {
    const SECRET: [&str; 7] = ["pass", "secret", "token", "key", "hook", "private", "auth"];
    const PUBLIC: [&str; 25] = [
        "url",
        "uri",
        "host",
        "hostname",
        "server",
        "domain",
        "endpoint",
        "port",
        "user",
        "username",
        "email",
        "database",
        "dbname",
        "schema",
        "region",
        "bucket",
        "version",
        "tenant",
        "project",
        "projectid",
        "clientid",
        "environment",
        "protocol",
        "scope",
        "ssl",
    ];
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let by_name = !SECRET.iter().any(|part| key.contains(part)) && PUBLIC.iter().any(|part| key.ends_with(part));
    by_name && !holds_login(value)
}

/// Whether an address has a password or parameters in it, which are where tokens are.
fn holds_login(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@') || rest.contains('?')
}

/// A name for the variable that a value could be in.
fn variable_for(key: &str) -> String {
    let mut name = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() && name.ends_with(|last: char| last.is_ascii_lowercase()) {
            name.push('_');
        }
        name.push(if c.is_ascii_alphanumeric() { c } else { '_' });
    }
    let name = name.to_ascii_uppercase();
    // A name of one letter or a digit in front says nothing.
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() > 1 {
        format!("MY_{name}")
    } else {
        "MY_SECRET".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a project with this file, where the environment sets SET.
    fn parts(project: &str, files: &[(&str, &str)]) -> Result<Parts, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("project.yaml", project), ("a.js", "fn(s => s)")].iter().chain(files) {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let environment = |name: &str| (name == "SET").then(|| "set-value".to_owned());
        Project::parts(dir.path(), &environment).map_err(|broken| broken.to_string())
    }

    const JOB: &str = "jobs: {a: {adaptor: common, trigger: t, expression: 'file://a.js', credential: c}}\n\
                       triggers: {t: {criteria: {}}}\n";

    fn with_credential(text: &str) -> Result<Parts, String> {
        parts(&format!("{JOB}credentials:\n  c: {text}\n"), &[])
    }

    #[test]
    fn the_parts_are_what_is_used_and_no_secret() {
        let project = format!("{JOB}credentials: {{c: 'file://secrets/c.yaml', d: '${{WHOLE}}'}}\n");
        let files = [
            ("secrets/c.yaml", "password: hunter2222"),
            (".env", "A=hunter3333"),
            ("unused.js", ""),
            ("fnhost.yaml", "port: 1"),
        ];
        let parts = parts(&project, &files).unwrap();
        let names: Vec<&str> = parts.files.keys().filter_map(|path| path.to_str()).collect();
        assert_eq!(names, ["a.js", "fnhost.yaml", "project.yaml"]);
        assert_eq!(parts.secret_files, BTreeSet::from(["secrets/c.yaml".into()]));
        assert_eq!(parts.variables, BTreeSet::from(["WHOLE".into()]));
        let secrets = parts.project.secrets();
        let known: Vec<_> = secrets.iter().map(|secret| (secret.credential, secret.key, secret.value)).collect();
        assert_eq!(known, [("c", "password", "hunter2222")]);
    }

    #[test]
    fn secrets_that_are_not_there_are_no_error() {
        let parts = with_credential("{password: '${UNSET}', baseUrl: 'https://${HOST:-example.org}/x', key: '${SET}'}");
        let parts = parts.unwrap();
        assert_eq!(parts.variables, BTreeSet::from(["SET".into(), "UNSET".into()]));
        assert!(parts.files[Path::new("project.yaml")].contains("${HOST:-example.org}"));
        assert!(with_credential("file://not/there.yaml").is_ok());
    }

    #[test]
    fn a_secret_in_the_project_file_is_an_error_that_does_not_quote_it() {
        for text in [
            "{password: hunter2222}",
            "{pin: 12345678}",
            "{list: [hunter2222]}",
            "{deep: {apiKey: hunter2222}}",
            "{baseUrl: 'https://jo:hunter2222@example.org'}",
            "{baseUrl: 'https://example.org/?token=hunter2222'}",
            "{webhookUrl: 'https://hooks.example.org/hunter2222'}",
            "{password: '$${hunter2222}'}",
        ] {
            let error = with_credential(text).unwrap_err();
            assert!(error.contains("everyone who gets its files"), "{text}: {error}");
            assert!(!error.contains("hunter2222") && !error.contains("12345678"), "{error}");
        }
        for text in ["{username: jo, ssl: true, port: 5432, password: '******'}", "{token: 'Bearer ${A}'}", "{x: null}"]
        {
            assert!(with_credential(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn defaults_of_secrets_are_left_out() {
        let parts = with_credential("{key: \"${A:-hunter2222}-${B}-${C:-x}\", other: '${D:-hunter2222}'}").unwrap();
        let text = &parts.files[Path::new("project.yaml")];
        assert!(text.contains("{key: \"${A}-${B}-${C}\", other: '${D}'}"), "{text}");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(parts.defaults_left_out, names(&["A", "C", "D"]));
        assert_eq!(parts.variables, names(&["A", "B", "C", "D"]));
        // Written so that it cannot be found in the text as it stands.
        let error = with_credential("{key: \"${A:\\x2dhunter2222}\"}").unwrap_err();
        assert!(error.contains("everyone who gets its files"), "{error}");
    }

    #[test]
    fn files_are_named_from_the_project() {
        let project = JOB.replace("file://a.js", "file://b/../a.js");
        let error = parts(&project, &[("b/c", "")]).unwrap_err();
        assert!(error.contains("does not lead to the same file elsewhere"), "{error}");
    }

    #[test]
    fn a_variable_is_named_after_its_key() {
        assert_eq!(variable_for("apiKey"), "MY_API_KEY");
        assert_eq!(variable_for("pass-word"), "MY_PASS_WORD");
        assert_eq!(variable_for("ü"), "MY_SECRET");
    }
}
