//! The credentials of a project: written in it, in files beside it, and with secrets taken from the environment.
//!
//! No value that passes through here is ever part of a message.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;

use super::dotenv;
use super::files::{FileError, Files};
use super::problem::{Problems, Source, did_you_mean, quoted};
use super::reader::Reader;
use super::yaml::{self, Kind, Node};

/// Where `${NAME}` comes from.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Default)]
pub(super) struct Credentials {
    pub values: BTreeMap<String, Value>,
    /// Named without a value: an export writes `******` for what it leaves out.
    placeholders: BTreeSet<String>,
    /// Used, and not in the project.
    pub lacking: BTreeSet<String>,
}

impl Credentials {
    /// Something in the project uses the credential `name`.
    pub fn use_from(&mut self, name: &str, span: &Range<usize>, reader: &mut Reader) {
        if self.values.contains_key(name) {
            return;
        }
        let is_first = self.lacking.insert(name.to_owned());
        if is_first && !self.placeholders.contains(name) && !reader.problems.warnings_are_many() {
            let known = self.values.keys().chain(&self.placeholders).map(String::as_str);
            let hint = did_you_mean(name, known)
                .unwrap_or_else(|| "add it to `credentials`, or put it into the service's store".into());
            reader.warning(span, format!("the credential {} is not in the project", quoted(name)), hint);
        }
    }

    pub fn read(node: &Node, reader: &mut Reader, files: &mut Files, variables: Variables) -> Self {
        let mut credentials = Self::default();
        for entry in reader.entries(node, "`credentials`", "a mapping of names and credentials") {
            let what = format!("the credential {}", quoted(&entry.key));
            match value(&entry.value, &what, reader, files, variables) {
                Some(value) => {
                    credentials.values.insert(entry.key.clone(), value);
                }
                None => {
                    credentials.placeholders.insert(entry.key.clone());
                }
            }
        }
        credentials
    }
}

const NOTATIONS: &str =
    "its names and values as a mapping, `file://` and a path, or ${NAME} for a variable that holds it";

/// What becomes `state.configuration`; None if it is not in the project.
fn value(node: &Node, what: &str, reader: &mut Reader, files: &mut Files, variables: Variables) -> Option<Value> {
    if let Some(text) = node.as_text() {
        if is_placeholder(text) {
            let hint = "write it into the project, or put it into the service's store";
            reader.warning(&node.span, format!("{what} is only a placeholder"), hint);
            return None;
        }
        if is_reference(text) {
            return Some(from_variable(node, what, reader, files, variables).unwrap_or_default());
        }
        let Some(path) = path(text, files) else {
            reader.wrong_type(node, what, NOTATIONS);
            return Some(Value::Null);
        };
        return Some(from_file(path, node, what, reader, files, variables).unwrap_or_default());
    }
    if node.is_null() {
        return None;
    }
    if !matches!(node.kind, Kind::Map(_)) {
        reader.wrong_type(node, what, NOTATIONS);
        return Some(Value::Null);
    }
    let value = expanded(node, what, reader, variables);
    if holds_placeholder(&value) {
        let hint = "write the value into the project, or the whole credential into the service's store";
        reader.warning(&node.span, format!("{what} holds a placeholder for a value"), hint);
        return None;
    }
    Some(value)
}

/// The path in a text that names a file. What only looks like one may be a secret, so it must be there.
fn path<'t>(text: &'t str, files: &mut Files) -> Option<&'t str> {
    let is_path = |text: &str| [".json", ".yaml", ".yml"].iter().any(|end| text.ends_with(end));
    text.strip_prefix("file://").or_else(|| (is_path(text) && files.exists(text)).then_some(text))
}

fn from_file(
    path: &str,
    node: &Node,
    what: &str,
    reader: &mut Reader,
    files: &mut Files,
    variables: Variables,
) -> Option<Value> {
    let mut source = match files.read_secret(path) {
        Ok(Some(source)) => source,
        Ok(None) => return None,
        Err(FileError::Named { message, hint }) => {
            reader.error_with_hint(&node.span, format!("{what}: {message}"), hint);
            return None;
        }
        Err(FileError::Itself(problem)) => {
            reader.problems.error(problem);
            return None;
        }
    };
    source.keep_secret(0..source.text.len());
    read_source(&source, what, reader.problems, variables)
}

/// Whether a text is one reference to a variable, and nothing else.
pub(super) fn is_reference(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(dotenv::is_name)
}

/// A credential that a variable holds as a whole, as JSON or YAML.
fn from_variable(node: &Node, what: &str, reader: &mut Reader, files: &Files, variables: Variables) -> Option<Value> {
    let Value::String(text) = expanded(node, what, reader, variables) else { return None };
    let document = yaml::parse(&text);
    match document.root.filter(|root| document.faults.is_empty() && matches!(root.kind, Kind::Map(_))) {
        Some(root) => Some(root.to_value()),
        None => {
            // An empty text means that the variable is not set, which was told.
            if !text.is_empty() && !files.without_secrets {
                let hint = "give the variable a JSON object, such as {\"username\": \"jo\"}";
                reader.error_with_hint(&node.span, format!("{what}: the variable holds no names and values"), hint);
            }
            None
        }
    }
}

/// A credential that is a file of its own.
pub(super) fn read_source(source: &Source, what: &str, problems: &mut Problems, variables: Variables) -> Option<Value> {
    let document = yaml::parse(&source.text);
    let mut reader = Reader { source, problems };
    reader.faults(document.faults);
    let root = document.root?;
    if !matches!(root.kind, Kind::Map(_)) {
        reader.wrong_type(&root, what, "names and values, such as `username: jo`");
        return None;
    }
    Some(expanded(&root, what, &mut reader, variables))
}

/// The value with its variables filled in; those that are not set are errors.
fn expanded(node: &Node, what: &str, reader: &mut Reader, variables: Variables) -> Value {
    let mut unset: Vec<(Range<usize>, String)> = Vec::new();
    let value = node.to_value_with(&mut |node, text| {
        expand(text, variables, &mut |complaint| unset.push((node.span.clone(), complaint)))
    });
    for (span, complaint) in unset {
        let hint = "set it in the environment or in .env, give a default as in ${NAME:-default}, or write $${ for ${";
        reader.error_with_hint(&span, format!("{what}: {complaint}"), hint);
    }
    value
}

/// Fills in `${NAME}` and `${NAME:-default}`; `$${` stands for `${`.
fn expand(text: &str, variables: Variables, complain: &mut dyn FnMut(String)) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, inside) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = inside;
            continue;
        }
        expanded.push_str(before);
        let Some((reference, after)) = inside.split_once('}') else {
            complain("a `${` has no `}`".into());
            return expanded;
        };
        rest = after;
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        // What is no name may be a part of a secret.
        if !dotenv::is_name(name) {
            complain("what stands in a `${…}` is not the name of a variable".into());
            continue;
        }
        match (variables(name), default) {
            (Some(value), None) => expanded.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => expanded.push_str(&value),
            (_, Some(default)) => expanded.push_str(default),
            (None, None) => complain(format!("the variable {} is not set", quoted(name))),
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The variables that a text refers to, each with its default.
pub(super) fn references(text: &str) -> Vec<(&str, Option<&str>)> {
    let reference = |inside: Range<usize>| match text[inside.clone()].split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (&text[inside], None),
    };
    insides(text).into_iter().map(reference).filter(|(name, _)| dotenv::is_name(name)).collect()
}

/// Where in a text the defaults of its references stand, each with the `:-` before it.
pub(super) fn defaults(text: &str) -> Vec<Range<usize>> {
    let default = |inside: Range<usize>| {
        let at = inside.start + text[inside.clone()].find(":-")?;
        Some(at..inside.end)
    };
    insides(text).into_iter().filter_map(default).collect()
}

/// What stands in each `${…}` of a text; `$${` begins none.
fn insides(text: &str) -> Vec<Range<usize>> {
    let mut insides = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found + 2;
        if text[..start - 2].ends_with('$') {
            at = start;
            continue;
        }
        let Some(length) = text[start..].find('}') else { break };
        insides.push(start..start + length);
        at = start + length + 1;
    }
    insides
}

/// What OpenFn's platform writes in place of a secret that it does not export.
pub(super) fn is_placeholder(text: &str) -> bool {
    text.len() >= 6 && text.bytes().all(|byte| byte == b'*')
}

fn holds_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => is_placeholder(text),
        Value::Array(items) => items.iter().any(holds_placeholder),
        Value::Object(members) => members.values().any(holds_placeholder),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> (String, Vec<String>) {
        let variables = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "ODD" => Some("${A}".to_owned()),
            _ => None,
        };
        let mut complaints = Vec::new();
        let text = expand(text, &variables, &mut |complaint| complaints.push(complaint));
        (text, complaints)
    }

    #[test]
    fn variables_are_filled_in_once() {
        for (text, expected) in [
            ("", ""),
            ("$A {A} $", "$A {A} $"),
            ("<${A}${A}>", "<oneone>"),
            ("${EMPTY}.", "."),
            ("${EMPTY:-two}", "two"),
            ("${NONE:-two words: }.", "two words: ."),
            ("${NONE:-}", ""),
            ("$${A} $$${A}", "${A} $${A}"),
            ("${ODD}", "${A}"),
        ] {
            assert_eq!(expanded(text), (expected.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_no_name_is_not() {
        assert_eq!(expanded("${NONE}${NULL}").1, ["the variable `NONE` is not set", "the variable `NULL` is not set"]);
        for secret in ["pa${hunter2 x}ss", "pa${hun-ter2", "${}"] {
            let complaints = expanded(secret).1;
            assert_eq!(complaints.len(), 1);
            assert!(!complaints[0].contains("hun"), "{complaints:?}");
        }
    }
}
