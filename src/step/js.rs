//! Steps that are job expressions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::StepResult;
use crate::adaptor::{AdaptorSpec, Installed, Store};
use crate::compile::{self, Adaptor, CompileError, Compiled};
use crate::isolate::{Hide, IsolatePool, Job, Limits, LogSink, Network, Outcome, RunError, Slot, Tenant};
use crate::model::{Dialect, Failure, Isolation, JsStep, Severity, Usage};
use crate::secrets::Secrets;

/// Keys that a final state never holds: the credential, and the raw answer of the last request.
pub const REMOVED_FROM_STATE: [&str; 2] = ["configuration", "response"];

/// What steps need: the adaptors, the isolates, and the limits where a step sets none.
#[derive(Clone)]
pub struct JsRunner {
    pub store: Store,
    pub pool: IsolatePool,
    pub limits: Limits,
}

/// A step that can be run many times.
#[derive(Clone)]
pub struct Prepared {
    /// The job of a run, but for what belongs to the run.
    job: Job,
    /// The credential as JSON text, and its secrets.
    configuration: Arc<str>,
    secrets: Arc<Secrets>,
}

/// Why a step cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("the adaptor `{0}` is not installed; run: fnhost install {0}")]
    NotInstalled(String),
    #[error("`{adaptor}` is no adaptor: {reason}")]
    Adaptor { adaptor: String, reason: String },
    #[error("cannot load {adaptors}: {error}")]
    Load { adaptors: String, error: Box<RunError> },
    #[error("{0}")]
    Compile(Box<CompileError>),
    #[error("there is no credential `{0}`; add it to the project, or to the store: PUT /api/v1/credentials/{0}")]
    NoCredential(String),
}

impl JsRunner {
    /// Finds the adaptors and compiles the expression. Takes a while the first time, as adaptors are loaded. `owner` tells
    /// the workflow and its version from all others.
    pub fn prepare(
        &self,
        owner: &str,
        isolation: Isolation,
        id: &str,
        step: &JsStep,
        credentials: &BTreeMap<String, Value>,
    ) -> Result<Prepared, PrepareError> {
        let adaptors = self.find(&step.adaptors)?;
        let compiled = self.compile(id, step, &adaptors)?;
        let configuration = match &step.credential {
            Some(name) => credentials.get(name).ok_or_else(|| PrepareError::NoCredential(name.clone()))?.clone(),
            None => Value::Object(Default::default()),
        };
        let mut limits = self.limits.clone();
        limits.wall = step.timeout.unwrap_or(limits.wall);
        limits.heap = step.memory.unwrap_or(limits.heap);
        let secrets = Arc::new(Secrets::within([&configuration]));
        let configuration = configuration.to_string();
        let hide: Hide = {
            let secrets = secrets.clone();
            Arc::new(move |text| secrets.hide(text).into_owned())
        };
        let mut job = Job {
            name: file_name(id, step),
            step: id.to_owned(),
            source: step.expression.as_str().into(),
            compiled,
            adaptors: adaptors.into_iter().map(|adaptor| adaptor.specifier).collect(),
            limits,
            network: step.network.clone().map_or(Network::Open, Network::Only),
            test: false,
            hide: Some(hide),
            remove_from_state: REMOVED_FROM_STATE.map(str::to_owned).to_vec(),
            traceparent: None,
            tenant: None,
        };
        if isolation == Isolation::Workflow {
            job.tenant = Some(Tenant::new(&job, &[owner, &configuration]));
        }
        Ok(Prepared { job, secrets, configuration: configuration.into() })
    }

    fn find(&self, names: &[String]) -> Result<Vec<Installed>, PrepareError> {
        let find = |name: &String| {
            let no_adaptor = |reason: String| PrepareError::Adaptor { adaptor: name.clone(), reason };
            let spec = AdaptorSpec::parse(name).map_err(|error| no_adaptor(error.to_string()))?;
            let found = self.store.find(&spec).map_err(|error| no_adaptor(error.to_string()))?;
            found.ok_or_else(|| PrepareError::NotInstalled(name.clone()))
        };
        names.iter().map(find).collect()
    }

    fn compile(&self, id: &str, step: &JsStep, adaptors: &[Installed]) -> Result<Arc<Compiled>, PrepareError> {
        let specifiers: Vec<String> = adaptors.iter().map(|adaptor| adaptor.specifier.clone()).collect();
        let set = self
            .pool
            .host()
            .prepare(&specifiers)
            .map_err(|error| PrepareError::Load { adaptors: step.adaptors.join(", "), error: Box::new(error) })?;
        let adaptors: Vec<Adaptor> = specifiers
            .iter()
            .map(|specifier| Adaptor { specifier, exports: set.exports.get(specifier).map(Vec::as_slice) })
            .collect();
        let dialect = match step.dialect {
            Dialect::Module => compile::Dialect::Module,
            Dialect::Script => compile::Dialect::Script,
        };
        let options =
            compile::Options { file_name: &file_name(id, step), adaptors: &adaptors, dialect, extra_globals: &[] };
        let compiled = compile::compile(&step.expression, &options);
        compiled.map(Arc::new).map_err(|error| PrepareError::Compile(Box::new(error)))
    }
}

/// What errors call the step's source.
fn file_name(id: &str, step: &JsStep) -> String {
    step.file.clone().unwrap_or_else(|| format!("{id}.js"))
}

impl Prepared {
    /// Adaptors, as a job imports them.
    pub fn adaptors(&self) -> &[String] {
        &self.job.adaptors
    }

    /// What is never to be written down: the credential's secrets.
    pub fn secrets(&self) -> Arc<Secrets> {
        self.secrets.clone()
    }

    /// The longest that an attempt can take.
    pub fn timeout(&self) -> Duration {
        self.job.limits.wall
    }

    /// Runs the step on a state: JSON text, an object without `configuration`. `traceparent`: see [`Job::traceparent`].
    pub async fn run(
        &self,
        slot: Slot,
        state: &str,
        traceparent: Option<String>,
        sink: LogSink,
        cancel: CancellationToken,
    ) -> StepResult {
        let job = Job { traceparent, ..self.job.clone() };
        let outcome = slot.run(job, with_member(state, "configuration", &self.configuration), sink, cancel).await;
        outcome.stats.tell();
        result(outcome)
    }
}

/// `object`, JSON text, with one more member. What only JavaScript should read, such as large numbers, passes as text.
pub fn with_member(object: &str, key: &str, value: &str) -> String {
    let inside = object.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or("").trim();
    let comma = if inside.is_empty() { "" } else { "," };
    format!(r#"{{{inside}{comma}"{key}":{value}}}"#)
}

fn result(outcome: Outcome) -> StepResult {
    let usage = Usage {
        cpu_us: outcome.stats.cpu.as_micros() as u64,
        heap: outcome.stats.heap as u64,
        buffers: outcome.stats.buffers as u64,
    };
    StepResult { output: outcome.state, failure: outcome.error.as_ref().map(failure), usage }
}

fn failure(error: &RunError) -> Failure {
    let severity = match error.severity {
        crate::isolate::Severity::Fail => Severity::Fail,
        crate::isolate::Severity::Crash => Severity::Crash,
        crate::isolate::Severity::Kill => Severity::Kill,
        crate::isolate::Severity::Exception => Severity::Exception,
    };
    let message = match &error.subtype {
        Some(subtype) => format!("{subtype}: {}", error.message),
        None => error.message.clone(),
    };
    let retry_after = error.details.as_ref().and_then(retry_after);
    Failure { retry_after, ..Failure::new(error.name, severity, message) }
}

/// What the remote system's answer said about trying again: adaptors put its headers into their errors.
fn retry_after(details: &Value) -> Option<Duration> {
    let holders = [details, &details["response"], &details["cause"]];
    let header = holders.iter().find_map(|holder| {
        let headers = holder.get("headers")?.as_object()?;
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after")).map(|(_, value)| value)
    })?;
    let text = match header {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let from_now =
        |time: chrono::DateTime<chrono::FixedOffset>| (time.to_utc() - chrono::Utc::now()).to_std().unwrap_or_default();
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => chrono::DateTime::parse_from_rfc2822(&text).ok().map(from_now),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_is_added_without_reading_the_rest() {
        assert_eq!(with_member("{}", "a", "1"), r#"{"a":1}"#);
        assert_eq!(with_member(" { \"n\": 1e400 } ", "a", "[]"), r#"{"n": 1e400,"a":[]}"#);
    }

    #[test]
    fn the_remote_systems_wish_is_found_in_an_adaptors_error() {
        let soon = chrono::Utc::now() + chrono::Duration::seconds(100);
        for (details, seconds) in [
            (json!({ "headers": { "Retry-After": "120" } }), Some(120)),
            (json!({ "response": { "headers": { "retry-after": 7 } } }), Some(7)),
            (json!({ "headers": { "retry-after": soon.to_rfc2822() } }), Some(100)),
            (json!({ "headers": { "retry-after": "-5" } }), None),
            (json!({ "headers": { "retry-after": "soon" } }), None),
            (json!({ "statusCode": 503 }), None),
        ] {
            let found = retry_after(&details).map(|found| found.as_secs_f64().round() as u64);
            assert!(found == seconds || found == seconds.map(|s| s - 1), "{details}: {found:?}");
        }
    }
}
