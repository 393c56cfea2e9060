//! Every setting of the server, with its default.
//!
//! A setting comes from the first that has it: a flag; the environment; the file `.env` in the project; the file
//! `fnhost.yaml` in the project; its default. Files use the names of the environment: `FNHOST_CONCURRENCY=4` in `.env`,
//! and in `fnhost.yaml` the same without its prefix, `concurrency: 4`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Command;
use serde_json::Value;

use crate::quantity::{Megabytes, Span};

/// How the microservice's inbox answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EndpointStyle {
    /// 202 as soon as the message is kept.
    #[default]
    Async,
    /// 201, 206 or 200 when the runs have ended.
    Sync,
}

/// Where the server listens: what those who ask it have to know, too.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct ListenConfig {
    /// Address to listen on; 0.0.0.0 is every interface
    #[arg(long, value_name = "ADDRESS", env = "FNHOST_HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// Port to listen on; 0 takes a free one and prints it
    #[arg(short, long, value_name = "PORT", env = "PORT", default_value_t = 4001)]
    pub port: u16,

    /// Certificate chain for TLS, a PEM file
    #[arg(long, value_name = "FILE", env = "FNHOST_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key for TLS, a PEM file
    #[arg(long, value_name = "FILE", env = "FNHOST_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl ListenConfig {
    /// The scheme under which the server answers.
    pub fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }
}

/// Where the server listens, and what it lets pass.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct HttpConfig {
    #[command(flatten)]
    pub listen: ListenConfig,

    /// The address under which others reach this server, for links in answers
    #[arg(long, value_name = "URL", env = "HOST_URL")]
    pub host_url: Option<String>,

    /// When POST /inbox is answered, unless the request says otherwise
    #[arg(long, value_name = "STYLE", env = "ENDPOINT_STYLE", value_enum, default_value_t)]
    pub endpoint_style: EndpointStyle,

    /// How long a request waits for its runs at most, whatever it asks for
    #[arg(long, value_name = "TIME", env = "FNHOST_WAIT_LIMIT", default_value = "60s")]
    pub wait_limit: Span,

    /// Topics that only a key may post to (scope `inbox` or `inbox:<topic>`); * is all
    #[arg(long, value_name = "TOPIC", env = "FNHOST_KEYED_TOPICS", value_delimiter = ',')]
    pub keyed_topics: Vec<String>,

    /// The largest body of a request
    #[arg(long, value_name = "MB", env = "FNHOST_BODY_LIMIT", default_value = "10")]
    pub body_limit: Megabytes,

    /// How long a client may take for the head of a request, and for each part of its body
    #[arg(long, value_name = "TIME", env = "FNHOST_READ_TIMEOUT", default_value = "15s")]
    pub read_timeout: Span,

    /// How long a connection may stay open with nothing to do
    #[arg(long, value_name = "TIME", env = "FNHOST_IDLE_TIMEOUT", default_value = "75s")]
    pub idle_timeout: Span,

    /// Connections at once
    #[arg(long, value_name = "N", env = "FNHOST_CONNECTIONS", default_value_t = 4096)]
    pub connections: usize,

    /// Requests a second that one key, or one address without a key, may make; 0 is no limit
    #[arg(long, value_name = "N", env = "FNHOST_RATE_LIMIT", default_value_t = 0)]
    pub rate_limit: u32,

    /// Origins whose pages may call the API; none by default
    #[arg(long, value_name = "ORIGIN", env = "FNHOST_CORS", value_delimiter = ',')]
    pub cors: Vec<String>,

    /// Ask for no token on the API and pages: only with a loopback address
    #[arg(long, env = "FNHOST_NO_AUTH")]
    pub no_auth: bool,

    /// Let Prometheus read /metrics without a token
    #[arg(long, env = "FNHOST_OPEN_METRICS")]
    pub open_metrics: bool,
}

/// How jobs are run.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Jobs")]
pub struct JobConfig {
    /// Jobs of one workflow that compute at once; there is room for one more, of other workflows. A job that waits for an
    /// answer does not count [default: the number of cores, at least 2]
    #[arg(long, value_name = "N", env = "FNHOST_CONCURRENCY")]
    pub concurrency: Option<usize>,

    /// Jobs under way at once, most of which wait for answers [default: what three quarters of the memory hold, at 16 MB
    /// each]
    #[arg(long, value_name = "N", env = "FNHOST_IN_FLIGHT")]
    pub in_flight: Option<usize>,

    /// Memory of the server above which no job begins until others have ended [default: three quarters of what the machine
    /// has, or the container may use]
    #[arg(long, value_name = "MB", env = "FNHOST_TOTAL_MEMORY")]
    pub total_memory: Option<Megabytes>,

    /// Isolates kept ready [default: twice as many as jobs run at once]
    #[arg(long, value_name = "N", env = "FNHOST_SPARES")]
    pub spares: Option<usize>,

    /// Isolates kept for a further run, of workflows with `isolation: module` or `workflow` [default: what half of
    /// --total-memory holds]
    #[arg(long, value_name = "N", env = "FNHOST_KEPT")]
    pub kept: Option<usize>,

    /// How long one attempt of a job may take
    #[arg(long, value_name = "TIME", env = "FNHOST_TIMEOUT", default_value = "5m")]
    pub timeout: Span,

    /// The heap of a job's isolate
    #[arg(long, value_name = "MB", env = "FNHOST_MEMORY", default_value = "256")]
    pub memory: Megabytes,

    /// The size of a final state
    #[arg(long, value_name = "MB", env = "FNHOST_STATE_LIMIT", default_value = "50")]
    pub state_limit: Megabytes,

    /// How much one attempt may log
    #[arg(long, value_name = "MB", env = "FNHOST_LOG_LIMIT", default_value = "1")]
    pub log_limit: Megabytes,

    /// Certificate authorities that jobs and installs trust besides the usual ones, a PEM file
    #[arg(long, value_name = "FILE", env = "FNHOST_CAFILE")]
    pub cafile: Option<PathBuf>,

    /// How long to wait for running jobs when the server is told to stop
    #[arg(long, value_name = "TIME", env = "FNHOST_DRAIN_TIMEOUT", default_value = "25s")]
    pub drain_timeout: Span,

    /// How long a task stays taken without a sign of life from the server that took it
    #[arg(long, value_name = "TIME", env = "FNHOST_LEASE", default_value = "30s")]
    pub lease: Span,
}

/// What is kept, where, and for how long.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Store")]
pub struct StoreConfig {
    /// Directory of the database [default: .fnhost in the project]
    #[arg(long, value_name = "DIR", env = "FNHOST_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Days that completed and cancelled runs are kept; 0 is for ever
    #[arg(long, value_name = "DAYS", env = "FNHOST_KEEP_RUNS", default_value_t = 30)]
    pub keep_runs: u32,

    /// Days that failed runs are kept; 0 is for ever
    #[arg(long, value_name = "DAYS", env = "FNHOST_KEEP_FAILED", default_value_t = 90)]
    pub keep_failed: u32,

    /// Days that logs are kept; 0 is for ever
    #[arg(long, value_name = "DAYS", env = "FNHOST_KEEP_LOGS", default_value_t = 30)]
    pub keep_logs: u32,

    /// Days that messages without runs are kept; 0 is for ever
    #[arg(long, value_name = "DAYS", env = "FNHOST_KEEP_MESSAGES", default_value_t = 30)]
    pub keep_messages: u32,
}

/// Days as a span; 0 is for ever.
pub fn days(days: u32) -> Option<Duration> {
    (days > 0).then(|| Duration::from_secs(u64::from(days) * 24 * 60 * 60))
}

/// The file of settings in a project.
pub const SETTINGS_FILE: &str = "fnhost.yaml";

/// A file of settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}{place}: {reason}")]
    Syntax { path: String, place: String, reason: String },
    #[error("{path}: there is no setting `{key}`{hint}")]
    Unknown { path: String, key: String, hint: String },
    #[error("{path}: `{key}` must be a text, a number, a truth value or a list of these")]
    Value { path: String, key: String },
}

/// Name in the environment → value, as a project sets them.
pub type ProjectSettings = BTreeMap<String, String>;

/// What the project in `dir` sets for the server, whose command this is.
pub fn project_settings(server: &Command, dir: &Path) -> Result<ProjectSettings, SettingsError> {
    let mut settings = shared_settings(server, dir)?;
    settings.extend(crate::project::dotenv(dir));
    Ok(settings)
}

/// What the project in `dir` sets wherever it is served: without `.env`, which is of one place.
pub fn shared_settings(server: &Command, dir: &Path) -> Result<ProjectSettings, SettingsError> {
    let names: Vec<String> =
        server.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned())).collect();
    settings_file(&dir.join(SETTINGS_FILE), &names)
}

/// Gives the arguments of `command` that have a name in the environment the defaults that a project has for them.
pub fn with_defaults(command: Command, settings: &ProjectSettings) -> Command {
    command.mut_args(|argument| {
        let setting = argument.get_env().and_then(|name| settings.get(name.to_str()?)).cloned();
        match setting {
            // A flag without a value is set by a value that says so.
            Some(value) if !argument.get_action().takes_values() => {
                let on = !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "off");
                if on { argument.default_value("true") } else { argument }
            }
            Some(value) => argument.default_value(value),
            None => argument,
        }
    })
}

fn settings_file(path: &Path, names: &[String]) -> Result<ProjectSettings, SettingsError> {
    let shown = || path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(SettingsError::Read { path: shown(), source }),
    };
    let file: BTreeMap<String, Value> = serde_saphyr::from_str(&text).map_err(|error| SettingsError::Syntax {
        path: shown(),
        place: error.location().map_or_else(String::new, |place| format!(":{}:{}", place.line(), place.column())),
        reason: error.without_snippet().to_string(),
    })?;
    let mut settings = BTreeMap::new();
    for (key, value) in file {
        let upper = key.to_ascii_uppercase().replace('-', "_");
        let name = names.iter().find(|name| **name == upper || name.strip_prefix("FNHOST_") == Some(&upper));
        let name =
            name.ok_or_else(|| SettingsError::Unknown { path: shown(), hint: hint(&upper, names), key: key.clone() })?;
        let text = plain(&value).ok_or_else(|| SettingsError::Value { path: shown(), key })?;
        settings.insert(name.clone(), text);
    }
    Ok(settings)
}

/// The name that was meant, perhaps.
fn hint(upper: &str, names: &[String]) -> String {
    let short = names.iter().map(|name| name.strip_prefix("FNHOST_").unwrap_or(name));
    let near = short.map(|name| (strsim::damerau_levenshtein(name, upper), name)).min();
    match near {
        Some((distance, name)) if distance <= 3 => format!("; did you mean `{}`?", name.to_ascii_lowercase()),
        _ => "; see fnhost serve --help".to_owned(),
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Array(items) => items.iter().map(plain).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn http(files: &[(&str, &str)], arguments: &[&str]) -> Result<HttpConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let command = HttpConfig::augment_args(Command::new("serve").mut_args(|argument| argument));
        let settings = project_settings(&command, dir.path())
            .map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))?;
        let command = with_defaults(command, &settings);
        let arguments = std::iter::once("serve").chain(arguments.iter().copied());
        let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        HttpConfig::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_win_over_env_files_and_these_over_settings_files() {
        let settings = ("fnhost.yaml", "port: 1\nbody_limit: 2.5\nopen-metrics: true\ncors: [http://a, http://b]\n");
        let dotenv = (".env", "PORT=2\nOTHER=x\n");
        let config = http(&[settings, dotenv], &["--read-timeout", "3s"]).unwrap();
        assert_eq!((config.listen.port, config.body_limit.bytes()), (2, 5 << 19));
        assert!(config.open_metrics && !config.no_auth);
        assert_eq!(config.cors, ["http://a", "http://b"]);
        assert_eq!(http(&[settings, dotenv], &["--port", "3"]).unwrap().listen.port, 3);
        assert_eq!(http(&[settings], &[]).unwrap().listen.port, 1);
    }

    #[test]
    fn mistakes_in_a_settings_file_are_told() {
        let error = |text| http(&[("fnhost.yaml", text)], &[]).unwrap_err();
        assert_eq!(error("prot: 1\n"), "fnhost.yaml: there is no setting `prot`; did you mean `port`?");
        assert_eq!(
            error("port: {a: 1}\n"),
            "fnhost.yaml: `port` must be a text, a number, a truth value or a list of these"
        );
        assert!(error("port: [\n").starts_with("fnhost.yaml:"));
        assert!(error("port: many\n").contains("many"));
    }
}
