//! What can go wrong in a run: the classes and severities OpenFn users know, with positions in the user's own source.

use std::fmt;
use std::sync::Arc;

use deno_core::url::Url;
use serde::{Deserialize, Serialize};

use super::intercept;
use super::limits::{Limit, Limits, MIB, Stop};
use super::packages::LocalAdaptor;
use super::permissions::{self, Network};
use crate::compile::Compiled;

/// How bad an error is. `Fail` leaves a state that a following step may use; the rest end the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The job or the remote system said no.
    Fail,
    /// The job is broken.
    Crash,
    /// The host stopped the run.
    Kill,
    /// The host itself could not do its part.
    Exception,
}

/// Takes secrets out of a text.
pub type Hide = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Where an error sits in the user's source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// 1-based.
    pub line: u32,
    /// 1-based, in UTF-16 code units.
    pub column: u32,
    /// The source line.
    pub src: String,
}

/// An error of a run, as it is written to `state.errors`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunError {
    pub source: &'static str,
    /// Error class, e.g. `JobError`.
    pub name: &'static str,
    pub severity: Severity,
    pub message: String,
    /// The JavaScript class behind a `RuntimeError` or `RuntimeCrash`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pos: Option<Position>,
    /// 1-based source line of the operation that was running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_name: Option<String>,
    /// Own properties of the thrown value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
    /// Frames in the job and its adaptors, one a line, innermost first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// The limit behind a kill.
    #[serde(skip)]
    pub limit: Option<Limit>,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subtype {
            Some(subtype) => write!(f, "{subtype}: {}", self.message)?,
            None => write!(f, "{}: {}", self.name, self.message)?,
        }
        if let Some(stack) = &self.stack {
            for frame in stack.lines() {
                write!(f, "\n    {frame}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for RunError {}

impl RunError {
    /// An error of the host's own, without a position in the job.
    pub fn new(name: &'static str, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            source: "runtime",
            name,
            severity,
            message: message.into(),
            subtype: None,
            pos: None,
            line: None,
            operation_name: None,
            details: None,
            stack: None,
            limit: None,
        }
    }

    /// The error of a run that hit `limit`.
    pub fn limit(limit: Limit, limits: &Limits) -> Self {
        let (name, message) = match limit {
            Limit::Wall => ("TimeoutError", format!("Job took longer than {} ms to complete", limits.wall.as_millis())),
            Limit::Cpu => (
                "CpuTimeoutError",
                format!("Job used more than {} ms of CPU time", limits.cpu.map_or(0, |limit| limit.as_millis())),
            ),
            Limit::Heap => ("OOMError", format!("Job needs more memory than {} MB", limits.heap / MIB)),
            Limit::Buffers => (
                "BufferLimitError",
                format!("Job holds more than {} MB in ArrayBuffers and Buffers", limits.buffers / MIB),
            ),
            Limit::State => ("StateTooLargeError", format!("State exceeds the limit of {} MB", limits.state / MIB)),
            Limit::Log => {
                ("LogTooLargeError", format!("Log exceeds the limit of {} MB", limits.log as f64 / MIB as f64))
            }
        };
        Self { limit: Some(limit), ..Self::new(name, Severity::Kill, message) }
    }

    /// The error of a run that was stopped from outside.
    pub(super) fn stopped(stop: Stop, limits: &Limits) -> Self {
        match stop {
            Stop::Limit(limit) => Self::limit(limit, limits),
            Stop::Cancelled => Self::new("CancelledError", Severity::Kill, "Run was cancelled"),
        }
    }

    /// `process.exit` inside a run.
    pub fn exit(code: i32) -> Self {
        Self::new("ExitError", Severity::Crash, format!("Process exited with code: {code}"))
    }
}

/// What `describeError` in `js/host.js` tells of a thrown value.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Thrown {
    pub thrown: bool,
    pub name: Option<String>,
    pub class_name: Option<String>,
    pub code: Option<String>,
    pub severity: Option<String>,
    pub message: String,
    pub stack: String,
    pub details: Option<serde_json::Value>,
    pub operation: u32,
    pub too_large: bool,
}

/// Turns a thrown value into an error of the right class, with positions in the user's source.
pub(super) fn classify(thrown: Thrown, job: &JobSource<'_>) -> RunError {
    let frames = job.frames(&thrown.stack);
    let name = thrown.name.as_deref().unwrap_or("");
    let first_relevant = frames.iter().find(|frame| frame.relevant());
    // An error without a frame in the job comes from under an adaptor: a socket, a parser, a promise of a library.
    let in_adaptor = match first_relevant {
        Some(frame) => matches!(frame.place, Place::Adaptor(_)),
        None => !thrown.thrown && thrown.operation > 0,
    };
    let is_one_of = |names: &[&str]| {
        names.contains(&name) || thrown.class_name.as_deref().is_some_and(|class| names.contains(&class))
    };

    let (class, severity, subtype) = if is_one_of(&["ImportError"]) {
        ("ImportError", Severity::Crash, None)
    } else if is_one_of(&["InvalidExports", "InvalidOperationError"]) {
        ("ValidationError", Severity::Crash, Some(name.to_owned()))
    } else if is_one_of(&["EvalError"]) {
        ("SecurityError", Severity::Kill, None)
    } else if thrown.severity.as_deref() == Some("crash") {
        ("RuntimeCrash", Severity::Crash, Some(name.to_owned()))
    } else if in_adaptor {
        ("AdaptorError", Severity::Fail, None)
    } else if is_one_of(&["TypeError", "RangeError"]) {
        ("RuntimeError", Severity::Fail, Some(name.to_owned()))
    } else if is_one_of(&["ReferenceError", "SyntaxError"]) {
        ("RuntimeCrash", Severity::Crash, Some(name.to_owned()))
    } else {
        ("JobError", Severity::Fail, None)
    };

    let message = permissions::reword(&thrown.message, job.network);
    let message = if job.test { intercept::explained(message) } else { message };
    let mut error = RunError::new(class, severity, message);
    error.subtype = subtype.filter(|subtype| !subtype.is_empty());
    error.details = match thrown.details {
        Some(serde_json::Value::Object(mut details)) => {
            if class == "AdaptorError" && !name.is_empty() {
                details.entry("name").or_insert_with(|| name.into());
            }
            details.remove("message");
            (!details.is_empty()).then(|| details.into())
        }
        _ => None,
    };
    error.pos = frames.iter().find_map(|frame| match frame.place {
        Place::Job { line, column } => Some(job.position(line, column)),
        _ => None,
    });
    if let Some(operation) = (thrown.operation as usize).checked_sub(1).and_then(|i| job.compiled.operations.get(i)) {
        error.line = Some(operation.line);
        error.operation_name = Some(operation.name.clone());
    }
    // What happens inside a library is of interest only if nothing else is known.
    let is_shown = |frame: &&Frame| first_relevant.is_none() || frame.relevant();
    let shown: Vec<String> = frames.iter().filter(is_shown).filter_map(|frame| frame.display(job.name)).collect();
    error.stack = (!shown.is_empty()).then(|| shown.join("\n"));
    if let Some(hide) = job.hide {
        error.hide(hide.as_ref());
    }
    error
}

impl RunError {
    /// Takes secrets out of what adaptors put into errors: the address, the headers, the whole request.
    fn hide(&mut self, hide: &dyn Fn(&str) -> String) {
        self.message = hide(&self.message);
        if let Some(details) = &mut self.details {
            hide_strings(details, hide);
        }
    }
}

fn hide_strings(value: &mut serde_json::Value, hide: &dyn Fn(&str) -> String) {
    match value {
        serde_json::Value::String(text) => *text = hide(text),
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| hide_strings(value, hide)),
        serde_json::Value::Object(members) => members.values_mut().for_each(|value| hide_strings(value, hide)),
        _ => {}
    }
}

/// The user's source beside what became of it.
pub(super) struct JobSource<'a> {
    /// File name shown in frames.
    pub name: &'a str,
    pub url: &'a str,
    pub source: &'a str,
    pub compiled: &'a Compiled,
    /// Columns that the host put before the first line of the compiled module.
    pub prelude: u32,
    pub hide: Option<&'a Hide>,
    /// Whether it was a test run.
    pub test: bool,
    /// Adaptors outside the store: their frames count as an adaptor's.
    pub local: &'a [LocalAdaptor],
    /// What the run may connect to.
    pub network: &'a Network,
}

impl JobSource<'_> {
    fn position(&self, line: u32, column: u32) -> Position {
        let src = self.source.lines().nth(line as usize - 1).unwrap_or("").to_owned();
        Position { line, column, src }
    }

    fn frames(&self, stack: &str) -> Vec<Frame> {
        stack.lines().filter_map(|line| self.frame(line.trim_start().strip_prefix("at ")?)).collect()
    }

    fn frame(&self, text: &str) -> Option<Frame> {
        // `async fn (url:line:column)`, `fn (url:line:column)` or `url:line:column`.
        let (function, location) = match text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) {
            Some((function, location)) => (function.strip_prefix("async ").unwrap_or(function), location),
            None => ("", text.strip_prefix("async ").unwrap_or(text)),
        };
        let (rest, column) = location.rsplit_once(':')?;
        let (url, line) = rest.rsplit_once(':')?;
        let (line, column): (u32, u32) = (line.parse().ok()?, column.parse().ok()?);
        let place = if url == self.url {
            let column = if line == 1 { column.saturating_sub(self.prelude).max(1) } else { column };
            match self.compiled.map.original_position(line, column) {
                Some((line, column)) => Place::Job { line, column },
                None => Place::Host,
            }
        } else {
            let at = |path: String| format!("{path}:{line}:{column}");
            match package_path(url) {
                Some(path) if path.starts_with("@openfn/") => Place::Adaptor(at(path)),
                package => match self.local_path(url) {
                    Some(path) => Place::Adaptor(at(path)),
                    None => package.map_or(Place::Host, |path| Place::Library(at(path))),
                },
            }
        };
        Some(Frame { function: function.to_owned(), place })
    }

    /// `@openfn/language-x/index.js` out of the URL of a local adaptor's own file.
    fn local_path(&self, url: &str) -> Option<String> {
        let path = Url::parse(url).ok()?.to_file_path().ok()?;
        self.local.iter().find_map(|adaptor| {
            let file = path.strip_prefix(&adaptor.dir).ok()?;
            (!file.starts_with("node_modules")).then(|| format!("{}/{}", adaptor.specifier, file.display()))
        })
    }
}

/// `@openfn/language-x@1.2.3/dist/index.js` out of the URL of a package's file, whichever way it is laid out.
fn package_path(url: &str) -> Option<String> {
    let path = url.strip_prefix("file://")?;
    let (before, inside) = path.rsplit_once("/node_modules/")?;
    let folder = before.rsplit('/').next().unwrap_or("");
    let name_ends = if inside.starts_with('@') { 1 } else { 0 };
    let slash = inside.match_indices('/').nth(name_ends).map_or(inside.len(), |(at, _)| at);
    let (name, file) = inside.split_at(slash);
    let version = folder
        .strip_prefix(&format!("{}@", name.replace('/', "+")))
        .map(|rest| format!("@{}", rest.split('_').next().unwrap_or(rest)))
        .unwrap_or_default();
    Some(format!("{name}{version}{file}"))
}

struct Frame {
    function: String,
    place: Place,
}

enum Place {
    Job { line: u32, column: u32 },
    Adaptor(String),
    Library(String),
    Host,
}

impl Frame {
    /// Frames that tell whose fault an error is. A library under an adaptor throws on the adaptor's behalf.
    fn relevant(&self) -> bool {
        matches!(self.place, Place::Job { .. } | Place::Adaptor(_))
    }

    fn display(&self, job_name: &str) -> Option<String> {
        let place = match &self.place {
            Place::Job { line, column } => format!("{job_name}:{line}:{column}"),
            Place::Adaptor(path) | Place::Library(path) => path.clone(),
            Place::Host => return None,
        };
        Some(match self.function.as_str() {
            "" => format!("at {place}"),
            function => format!("at {function} ({place})"),
        })
    }
}
