//! The jobs of a project file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::files::{FileError, Files};
use super::inline::Inline;
use super::problem::quoted;
use super::reader::{Fields, Reader};
use super::yaml::{Entry, Kind, Node};
use crate::adaptor::AdaptorSpec;
use crate::isolate::{MIB, MIN_HEAP, Network};
use crate::model::{Backoff, Dialect, Isolation, JsStep, RetryPolicy, Severity};
use crate::quantity::Megabytes;

/// A job, before it is known to which workflows it belongs.
pub(super) struct Job {
    pub name: String,
    pub span: Range<usize>,
    /// The names of what starts it.
    pub triggers: Vec<(String, Range<usize>)>,
    pub credential: Option<(String, Range<usize>)>,
    pub step: JsStep,
    pub retry: Option<RetryPolicy>,
    /// How many runs of the workflow that begins here may be at work at once.
    pub concurrency: Option<(u32, Range<usize>)>,
    /// How far the runs of that workflow are kept apart.
    pub isolation: Option<(Isolation, Range<usize>)>,
}

/// What `isolation` may be.
pub(super) const ISOLATIONS: [(&str, Isolation); 3] =
    [("run", Isolation::Run), ("module", Isolation::Module), ("workflow", Isolation::Workflow)];

const KEYS: [&str; 13] = [
    "adaptor",
    "trigger",
    "expression",
    "credential",
    "adaptors",
    "language_pack",
    "dialect",
    "retry",
    "timeout",
    "memory",
    "network",
    "concurrency",
    "isolation",
];

pub(super) fn read(
    node: &Node,
    reader: &mut Reader,
    files: &mut Files,
    inline: &mut BTreeMap<String, Inline>,
) -> Vec<Job> {
    let entries = reader.entries(node, "`jobs`", "a mapping of names and jobs");
    entries.iter().filter_map(|entry| job(entry, reader, files, inline)).collect()
}

fn job(entry: &Entry, reader: &mut Reader, files: &mut Files, inline: &mut BTreeMap<String, Inline>) -> Option<Job> {
    let Entry { key: name, key_span, value } = entry;
    check_name(name, key_span, reader);
    let fields = reader.fields(value, "a job", &KEYS)?;
    let adaptors = adaptors(&fields, name, key_span, reader);
    let triggers = triggers(&fields, name, key_span, reader);
    let credential = fields.get("credential").and_then(|node| {
        let name = reader.name(node, "`credential`")?;
        Some((name.to_owned(), node.span.clone()))
    });
    let (expression, file) = expression(&fields, name, key_span, reader, files, inline);
    let dialects = [("module", Dialect::Module), ("script", Dialect::Script)];
    let step = JsStep {
        expression,
        file,
        dialect: fields
            .get("dialect")
            .and_then(|node| reader.keyword(node, "`dialect`", &dialects))
            .unwrap_or_default(),
        adaptors,
        credential: credential.as_ref().map(|(name, _)| name.clone()),
        timeout: fields.get("timeout").and_then(|node| reader.duration(node, "`timeout`")),
        memory: fields.get("memory").and_then(|node| memory(node, reader)),
        network: fields.get("network").and_then(|node| network(node, reader)),
    };
    let concurrency = fields.get("concurrency").and_then(|node| {
        let number = reader.integer(node, "`concurrency`", 1..=10_000)?;
        Some((number as u32, node.span.clone()))
    });
    let isolation = fields.get("isolation").and_then(|node| {
        let isolation = reader.keyword(node, "`isolation`", &ISOLATIONS)?;
        Some((isolation, node.span.clone()))
    });
    let retry = fields.get("retry").and_then(|node| retry(node, reader));
    Some(Job { name: name.clone(), span: key_span.clone(), triggers, credential, step, retry, concurrency, isolation })
}

fn check_name(name: &str, span: &Range<usize>, reader: &mut Reader) {
    const LONGEST: usize = 255;
    if name.trim().is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
        reader.error_with_hint(span, "this cannot be the name of a job", "write a name of up to 255 bytes on one line");
    }
}

fn adaptors(fields: &Fields, job: &str, job_span: &Range<usize>, reader: &mut Reader) -> Vec<String> {
    let given = fields.among(&["adaptor", "adaptors", "language_pack"]);
    if let [_, second, ..] = given[..] {
        let message = format!("`{}` and `{}` say the same", given[0].key, second.key);
        reader.error_with_hint(&second.key_span, message, "name all adaptors of the job in `adaptors`, as a list");
    }
    let mut names = Vec::new();
    for entry in &given {
        for item in reader.items(&entry.value).iter().filter(|item| !item.is_null()) {
            let Some(text) = reader.text(item, &format!("`{}`", entry.key)) else { continue };
            match AdaptorSpec::parse(text) {
                Ok(_) => names.push(text.trim().to_owned()),
                Err(error) => reader.error(&item.span, error.to_string()),
            }
        }
    }
    if given
        .iter()
        .all(|entry| entry.value.is_null() || matches!(&entry.value.kind, Kind::List(items) if items.is_empty()))
    {
        let hint = "add for example `adaptor: common`";
        reader.error_with_hint(job_span, format!("the job {} names no adaptor", quoted(job)), hint);
    }
    names
}

fn triggers(fields: &Fields, job: &str, job_span: &Range<usize>, reader: &mut Reader) -> Vec<(String, Range<usize>)> {
    let mut names: Vec<(String, Range<usize>)> = Vec::new();
    let Some(node) = fields.get("trigger") else {
        let hint = "add `trigger:` with the name of a trigger";
        reader.error_with_hint(job_span, format!("nothing starts the job {}", quoted(job)), hint);
        return names;
    };
    for item in reader.items(node) {
        let Some(name) = reader.name(item, "`trigger`") else { continue };
        if names.iter().any(|(known, _)| known == name) {
            reader.error_with_hint(&item.span, format!("the trigger {} is named twice", quoted(name)), "take one out");
        } else {
            names.push((name.to_owned(), item.span.clone()));
        }
    }
    names
}

/// The source of a job, and the file that it came from.
fn expression(
    fields: &Fields,
    job: &str,
    job_span: &Range<usize>,
    reader: &mut Reader,
    files: &mut Files,
    inline: &mut BTreeMap<String, Inline>,
) -> (String, Option<String>) {
    let Some(node) = fields.get("expression") else {
        let hint = "add `expression:` with the job itself, or with `file://` and the path of its file";
        reader.error_with_hint(job_span, format!("the job {} has no expression", quoted(job)), hint);
        return Default::default();
    };
    let Some(text) = reader.text(node, "`expression`") else { return Default::default() };
    let Some(path) = path(text) else {
        if text.trim().is_empty() {
            let hint = "write operations, such as fn(state => state)";
            reader.warning(&node.span, format!("the job {} does nothing", quoted(job)), hint);
        }
        inline.insert(job.to_owned(), Inline::of(node, reader.source));
        return (text.to_owned(), None);
    };
    match files.read(path) {
        Ok(source) => (source.text, Some(path.strip_prefix("./").unwrap_or(path).to_owned())),
        Err(FileError::Named { message, hint }) => {
            reader.error_with_hint(&node.span, message, hint);
            Default::default()
        }
        Err(FileError::Itself(problem)) => {
            reader.problems.error(problem);
            Default::default()
        }
    }
}

/// The path in a text that names a file: one line that ends as files with jobs do, and has nothing else of a program.
fn path(text: &str) -> Option<&str> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix("file://") {
        return Some(path);
    }
    let is_path = [".js", ".mjs", ".cjs", ".ts", ".ojs"].iter().any(|end| text.ends_with(end))
        && !text.contains(['\n', '(', ')', ';', '=', '`', '\'', '"']);
    is_path.then_some(text)
}

fn memory(node: &Node, reader: &mut Reader) -> Option<usize> {
    let parsed = match &node.kind {
        Kind::Scalar(scalar) => scalar.text.parse::<Megabytes>(),
        _ => Err("write a number of megabytes, such as 500".into()),
    };
    let least = MIN_HEAP / MIB;
    match parsed.map(Megabytes::bytes) {
        Ok(bytes) if bytes >= MIN_HEAP => return Some(bytes),
        Ok(_) => {
            let hint = format!("write {least} or more");
            reader.error_with_hint(&node.span, format!("JavaScript does not start with less than {least} MB"), hint);
        }
        Err(hint) => reader.error_with_hint(&node.span, "`memory` is no size", hint),
    }
    None
}

fn network(node: &std::rc::Rc<Node>, reader: &mut Reader) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for item in reader.items(node) {
        let Some(host) = reader.text(item, "`network`") else { continue };
        if host.is_empty() || Network::Only(vec![host.to_owned()]).check().is_err() {
            let hint = "write hosts such as api.example.org, example.org:8443 or 10.0.0.0/8; [] is for none";
            reader.error_with_hint(&item.span, format!("{} is no host", quoted(host)), hint);
        } else {
            hosts.push(host.to_owned());
        }
    }
    Some(hosts)
}

/// How a job is tried again. Whoever asks for it wants it after failures, too; after a crash, only if they say so, for
/// a broken job is as broken the next time.
fn retry(node: &Node, reader: &mut Reader) -> Option<RetryPolicy> {
    const ON: [Severity; 3] = [Severity::Fail, Severity::Kill, Severity::Exception];
    if matches!(&node.kind, Kind::Scalar(_)) {
        let max_attempts = match node.to_value().as_bool() {
            Some(false) => 1,
            _ => reader.integer(node, "`retry`", ATTEMPTS)? as u32,
        };
        return Some(RetryPolicy { max_attempts, backoff: Backoff::default(), on: ON.into() });
    }
    let keys = ["attempts", "max_attempts", "backoff", "delay", "max_delay", "jitter", "on"];
    let fields = reader.fields(node, "`retry`", &keys)?;
    let given = fields.among(&["attempts", "max_attempts"]);
    if let [_, second, ..] = given[..] {
        reader.error_with_hint(&second.key_span, "`attempts` and `max_attempts` say the same", "take one out");
    }
    let attempts = given.first().and_then(|entry| reader.integer(&entry.value, &format!("`{}`", entry.key), ATTEMPTS));
    let backoff = backoff(&fields, reader);
    let severities = Severity::ALL.map(|severity| (severity.name(), severity));
    let on = fields
        .get("on")
        .map(|node| reader.items(node).iter().filter_map(|item| reader.keyword(item, "`on`", &severities)).collect());
    Some(RetryPolicy {
        max_attempts: attempts.map_or(RetryPolicy::default().max_attempts, |attempts| attempts as u32),
        backoff,
        on: on.unwrap_or_else(|| ON.into()),
    })
}

const ATTEMPTS: std::ops::RangeInclusive<u64> = 1..=1000;

fn backoff(fields: &Fields, reader: &mut Reader) -> Backoff {
    let Backoff::Exponential { first, max, jitter } = Backoff::default() else { return Backoff::default() };
    #[derive(Clone, Copy)]
    enum Shape {
        Fixed,
        Exponential,
    }
    let node = fields.get("backoff");
    if let Some(Node { kind: Kind::List(items), span, .. }) = node.map(|node| &**node) {
        useless(fields, &["delay", "max_delay", "jitter"], "the list says how long to wait", reader);
        if items.is_empty() {
            reader.error_with_hint(span, "the list is empty", "write lengths of time, such as [1s, 1m, 1h]");
        }
        let waits: Vec<Duration> = items.iter().filter_map(|item| reader.duration(item, "`backoff`")).collect();
        return Backoff::List(waits);
    }
    let shapes = [("fixed", Shape::Fixed), ("exponential", Shape::Exponential)];
    let shape = node.and_then(|node| reader.keyword(node, "`backoff`", &shapes)).unwrap_or(Shape::Exponential);
    let delay = fields.get("delay").and_then(|node| reader.duration(node, "`delay`")).unwrap_or(first);
    if let Shape::Fixed = shape {
        useless(fields, &["max_delay", "jitter"], "it goes with `backoff: exponential`", reader);
        return Backoff::Fixed(delay);
    }
    let max_delay = fields.get("max_delay").and_then(|node| {
        let max = reader.duration(node, "`max_delay`")?;
        if max < delay {
            let hint = "write one that is at least as long";
            reader.error_with_hint(&node.span, "`max_delay` is shorter than `delay`", hint);
        }
        Some(max)
    });
    let jitter_given = fields.get("jitter").and_then(|node| reader.number(node, "`jitter`", 0.0..=1.0));
    Backoff::Exponential {
        first: delay,
        max: max_delay.unwrap_or(max).max(delay),
        jitter: jitter_given.unwrap_or(jitter),
    }
}

fn useless(fields: &Fields, keys: &[&str], why: &str, reader: &mut Reader) {
    for entry in fields.among(keys) {
        reader.error_with_hint(&entry.key_span, format!("`{}` has no meaning here", entry.key), why);
    }
}
