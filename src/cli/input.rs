//! What a command reads: the job, the initial state, a credential. Whatever is wrong with them is said before anything
//! runs, with the line and column where there is one.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::exit::Failure;

/// A job as it was found.
#[derive(Debug)]
pub struct JobFile {
    /// File name, as errors show it.
    pub name: String,
    /// Key in `state.errors`: the file name without its extension.
    pub step: String,
    /// Where the search for a project begins.
    pub directory: PathBuf,
    pub source: Arc<str>,
}

impl JobFile {
    /// Reads the job at `path`; `-` is stdin.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let source: Arc<str> = read_text(path, "the job")?.into();
        if path == Path::new("-") {
            return Ok(Self { name: "job.js".into(), step: "job".into(), directory: ".".into(), source });
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let step = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).into();
        Ok(Self { name, step, directory, source })
    }
}

/// The text at `path`, or on stdin for `-`, without a byte order mark.
fn read_text(path: &Path, what: &str) -> Result<String, Failure> {
    let (origin, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        ("stdin".to_owned(), std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (path.display().to_string(), std::fs::read(path))
    };
    let bytes =
        bytes.map_err(|error| Failure::usage(format!("cannot read {what} from {origin}: {}", plain(&error))))?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("cannot read {what} from {origin}: it is not UTF-8 text (byte {at})"))
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// An I/O error without the number of the operating system.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// A state to begin with, as JSON text, and the configuration in it.
#[derive(Debug)]
pub struct InitialState {
    pub text: String,
    pub configuration: Value,
    has_data: bool,
}

/// The two members the host looks at. The rest is checked and skipped: it goes to V8 as it is.
#[derive(Deserialize)]
struct Members {
    configuration: Option<Value>,
    data: Option<IgnoredAny>,
}

impl InitialState {
    /// The state of a run that was given none.
    pub fn empty() -> Self {
        Self { text: "{}".into(), configuration: Value::Null, has_data: false }
    }

    /// Reads a state from `path`; `-` is stdin.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = read_text(path, "the state")?;
        let origin = if path == Path::new("-") { "stdin".into() } else { path.display().to_string() };
        let members = members(&text, &origin)?;
        Ok(Self { text, configuration: members.configuration.unwrap_or_default(), has_data: members.data.is_some() })
    }

    /// The state as a step gets it: `data` and `configuration` are there, the credential's members win over the
    /// state's own.
    pub fn assembled(self, credential: Option<&Value>) -> Self {
        let configuration = match (self.configuration, credential) {
            (Value::Object(mut own), Some(Value::Object(credential))) => {
                own.extend(credential.iter().map(|(key, value)| (key.clone(), value.clone())));
                Value::Object(own)
            }
            (_, Some(credential)) => credential.clone(),
            (Value::Null, None) => Value::Object(Default::default()),
            (own, None) => own,
        };
        // Of a key that stands twice, JSON's last wins: so the rest of the state, which may be large and hold numbers
        // that only JavaScript should read, is put together as text.
        let given = self.text.trim();
        let given = given.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or("").trim();
        let mut text = String::with_capacity(given.len() + 64);
        text.push('{');
        text.push_str(given);
        if !given.is_empty() {
            text.push(',');
        }
        if !self.has_data {
            text.push_str(r#""data":{},"#);
        }
        text.push_str(r#""configuration":"#);
        text.push_str(&configuration.to_string());
        text.push('}');
        Self { text, configuration, has_data: true }
    }
}

fn members(text: &str, origin: &str) -> Result<Members, Failure> {
    let kind = match text.trim_start().bytes().next() {
        Some(b'{') => None,
        None => Some("it is empty"),
        Some(b'[') => Some("it is an array"),
        Some(b'"') => Some("it is a text"),
        Some(b'-' | b'0'..=b'9') => Some("it is a number"),
        Some(b't' | b'f' | b'n') => Some("it is a bare word"),
        Some(_) => Some("it does not begin with {"),
    };
    if let Some(kind) = kind {
        return Err(Failure::usage(format!("the state in {origin} must be a JSON object: {kind}")));
    }
    serde_json::from_str(text).map_err(|error| json_failure("the state", origin, &error))
}

fn json_failure(what: &str, origin: &str, error: &serde_json::Error) -> Failure {
    let (line, column) = (error.line(), error.column());
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or(&reason);
    Failure::usage(format!("{origin}:{line}:{column}: {what} is not valid JSON: {reason}"))
}

/// Reads a credential, JSON or YAML: the members of `state.configuration`. Messages never quote the file.
pub fn read_credential(path: &Path) -> Result<Value, Failure> {
    let text = read_text(path, "the credential")?;
    let origin = path.display();
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let value: Value = if is_json {
        serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Failure::usage(format!("{origin}:{line}:{column}: the credential is not valid JSON"))
        })?
    } else {
        serde_saphyr::from_str(&text).map_err(|error| {
            let place = error.location().map(|place| format!(":{}:{}", place.line(), place.column()));
            Failure::usage(format!("{origin}{}: the credential is not valid YAML", place.unwrap_or_default()))
        })?
    };
    if !value.is_object() {
        return Err(Failure::usage(format!(
            "the credential in {origin} must be a set of names and values, such as `username: jo`"
        )));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(text: &str) -> Result<InitialState, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        InitialState::read(file.path())
            .map_err(|failure| failure.to_string().replace(&file.path().display().to_string(), "state.json"))
    }

    fn assembled(text: &str, credential: Option<Value>) -> Value {
        let state = state(text).unwrap().assembled(credential.as_ref());
        serde_json::from_str(&state.text).unwrap_or_else(|error| panic!("{error}: {}", state.text))
    }

    #[test]
    fn data_and_configuration_are_always_there() {
        assert_eq!(assembled("{}", None), json!({ "data": {}, "configuration": {} }));
        assert_eq!(assembled(" { \"a\" : 1 } \n", None), json!({ "a": 1, "data": {}, "configuration": {} }));
        assert_eq!(assembled(r#"{"data":null}"#, None), json!({ "data": {}, "configuration": {} }));
        assert_eq!(assembled(r#"{"data":[1]}"#, None), json!({ "data": [1], "configuration": {} }));
    }

    #[test]
    fn the_credential_wins_over_the_states_own_configuration() {
        let own = r#"{"configuration":{"user":"a","url":"u"},"data":3}"#;
        let expected = json!({ "data": 3, "configuration": { "user": "b", "url": "u", "pass": "c" } });
        assert_eq!(assembled(own, Some(json!({ "user": "b", "pass": "c" }))), expected);
        let replaced = assembled(r#"{"configuration":"id"}"#, Some(json!({ "user": "b" })));
        assert_eq!(replaced["configuration"], json!({ "user": "b" }));
    }

    #[test]
    fn what_only_javascript_should_read_passes_unread() {
        let text = r#"{"a":12345678901234567890,"b":1e400,"c":{"c":1,"c":2}}"#;
        let state = state(text).unwrap().assembled(None);
        assert!(state.text.starts_with(&text[..text.len() - 1]), "{}", state.text);
    }

    #[test]
    fn a_state_that_is_no_object_is_refused_with_its_place() {
        for (text, expected) in [
            ("", "the state in state.json must be a JSON object: it is empty"),
            ("[1]", "the state in state.json must be a JSON object: it is an array"),
            ("\"x\"", "the state in state.json must be a JSON object: it is a text"),
            ("{\n  \"a\": 1,\n}", "state.json:3:1: the state is not valid JSON: trailing comma"),
            ("{\"a\" 1}", "state.json:1:6: the state is not valid JSON: expected `:`"),
            ("{} x", "state.json:1:4: the state is not valid JSON: trailing characters"),
        ] {
            assert_eq!(state(text).unwrap_err(), expected, "{text}");
        }
        assert!(state("\u{feff}{}").is_ok());
    }

    #[test]
    fn a_credential_may_be_json_or_yaml_and_is_never_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            read_credential(&path).map_err(|failure| failure.to_string())
        };
        assert_eq!(read("c.json", r#"{"a":"b"}"#), Ok(json!({ "a": "b" })));
        assert_eq!(read("c.yaml", "a: b\nn: 1\n"), Ok(json!({ "a": "b", "n": 1 })));
        assert_eq!(read("c", r#"{"a": "b"}"#), Ok(json!({ "a": "b" })));
        for (name, text, expected) in [
            ("c.json", "{\"a\": hunter2}", ":1:7: the credential is not valid JSON"),
            ("c.yaml", "a: [hunter2\nb: c", "the credential is not valid YAML"),
            ("c.yaml", "hunter2", "must be a set of names and values"),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }
}
