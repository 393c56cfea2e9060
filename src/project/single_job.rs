//! One job that variables of the environment describe, as OpenFn's microservice had it before there were project files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::credentials::{self, Variables};
use super::files::{FileError, Files};
use super::problem::{Problem, Problems, Source};
use super::triggers::INBOX;
use crate::adaptor::AdaptorSpec;
use crate::model::{Criteria, Dialect, JsStep, Step, StepKind, Trigger, TriggerKind, Workflow};

const EXPRESSION: &str = "EXPRESSION_PATH";
const CREDENTIAL: &str = "CREDENTIAL_PATH";
const ADAPTOR: &str = "ADAPTOR_PATH";
const INITIAL_STATE: &str = "INITIAL_STATE_PATH";
const FINAL_STATE: &str = "FINAL_STATE_PATH";
const FREQUENCY: &str = "FREQUENCY";

/// The name of the credential that `CREDENTIAL_PATH` leads to.
const CREDENTIAL_NAME: &str = "credential";

/// The workflow, and its credential; None if the environment describes no job.
pub(super) fn read(
    files: &mut Files,
    variables: Variables,
    problems: &mut Problems,
) -> Option<(Workflow, BTreeMap<String, Value>)> {
    let set = |name: &str| variables(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let path = set(EXPRESSION)?;
    let expression = file(EXPRESSION, &path, files, problems).map(|source| source.text).unwrap_or_default();
    let name = Path::new(&path).file_stem().unwrap_or_default().to_string_lossy().into_owned();

    let mut credentials = BTreeMap::new();
    if let Some(path) = set(CREDENTIAL)
        && let Some(mut source) = file(CREDENTIAL, &path, files, problems)
    {
        source.keep_secret(0..source.text.len());
        let value = credentials::read_source(&source, "the credential", problems, variables);
        credentials.insert(CREDENTIAL_NAME.to_owned(), value.unwrap_or_default());
    }
    let adaptors = set(ADAPTOR).and_then(|path| adaptor(&path, problems));
    let initial_state = set(INITIAL_STATE).and_then(|path| initial_state(&path, files, problems));
    let kind = match set(FREQUENCY).and_then(|text| frequency(&text, problems)) {
        Some(interval) => TriggerKind::Every { interval },
        None => TriggerKind::Message { topic: INBOX.into(), criteria: Criteria::default(), condition: None },
    };
    let trigger_name = if matches!(kind, TriggerKind::Every { .. }) { "frequency" } else { INBOX };
    let step = JsStep {
        expression,
        file: Some(path),
        // Jobs of that time were compiled as scripts.
        dialect: Dialect::Script,
        adaptors: adaptors.into_iter().collect(),
        credential: credentials.keys().next().cloned(),
        timeout: None,
        memory: None,
        network: None,
    };
    let workflow = Workflow {
        name: name.clone(),
        triggers: vec![Trigger { name: trigger_name.into(), kind }],
        start: name.clone(),
        steps: vec![Step { id: name, kind: StepKind::Js(step), retry: None, next: Vec::new() }],
        retry: Default::default(),
        concurrency: None,
        initial_state,
        isolation: Default::default(),
        final_state_path: set(FINAL_STATE).map(PathBuf::from),
    };
    Some((workflow, credentials))
}

/// Whoever sets the environment may name any file.
fn file(variable: &str, path: &str, files: &mut Files, problems: &mut Problems) -> Option<Source> {
    match files.read_anywhere(Path::new(path)) {
        Ok(source) => return Some(source),
        Err(FileError::Named { message, hint }) => problems.error(Problem::of_file(variable, message).hint(hint)),
        Err(FileError::Itself(problem)) => problems.error(problem),
    }
    None
}

/// The adaptor in a path such as `./assets/node_modules/language-http.Adaptor`: `language-http`.
fn adaptor(path: &str, problems: &mut Problems) -> Option<String> {
    let path = path.strip_suffix(".Adaptor").unwrap_or(path).trim_end_matches('/');
    let mut parts = path.rsplit('/');
    let package = parts.next().unwrap_or_default();
    let name = match parts.next().filter(|scope| scope.starts_with('@')) {
        Some(scope) => format!("{scope}/{package}"),
        None => package.to_owned(),
    };
    match AdaptorSpec::parse(&name) {
        Ok(_) => Some(name),
        Err(error) => {
            problems.error(Problem::of_file(ADAPTOR, error.to_string()));
            None
        }
    }
}

fn initial_state(path: &str, files: &mut Files, problems: &mut Problems) -> Option<String> {
    let source = file(INITIAL_STATE, path, files, problems)?;
    let problem = match serde_json::from_str::<serde_json::Map<String, Value>>(&source.text) {
        Ok(_) => return Some(source.text),
        Err(error) => {
            let start = source.line(error.line().saturating_sub(1)).start + error.column().saturating_sub(1);
            let start = start.min(source.text.len());
            source.problem(&(start..start + 1), "the initial state is not a JSON object")
        }
    };
    problems.error(Problem { excerpt: None, ..problem }.hint("write an object, such as {\"data\": {}}"));
    None
}

/// Milliseconds.
fn frequency(text: &str, problems: &mut Problems) -> Option<Duration> {
    const LONGEST: u64 = 366 * 86_400_000;
    match text.parse::<u64>() {
        Ok(milliseconds @ 1..=LONGEST) => Some(Duration::from_millis(milliseconds)),
        _ => {
            let problem = Problem::of_file(FREQUENCY, "the frequency is no number of milliseconds");
            problems.error(problem.hint("write for example 60000 for a run every minute"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adaptor_is_found_in_its_path() {
        for (path, expected) in [
            ("./assets/node_modules/language-http.Adaptor", "language-http"),
            ("node_modules/@openfn/language-http", "@openfn/language-http"),
            ("language-common", "language-common"),
            ("/a/language-dhis2@3.0.0/", "language-dhis2@3.0.0"),
        ] {
            let mut problems = Problems::default();
            assert_eq!(adaptor(path, &mut problems).as_deref(), Some(expected), "{path}");
        }
        let mut problems = Problems::default();
        assert_eq!(adaptor("./..", &mut problems), None);
        assert_eq!(problems.errors[0].file, Path::new(ADAPTOR));
    }
}
