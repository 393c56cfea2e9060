//! What the server tells about itself: its log on stderr, [metrics] for Prometheus, [traces](trace) for OpenTelemetry.
//!
//! All three tell of the same moments, and name things alike: a line of the log has the run, the task, the workflow and
//! the trace as fields, so that one leads to the others. Neither holds a payload or a secret.

pub mod metrics;
mod otlp_client;
pub mod trace;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::ChronoUtc;

/// How the server logs.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogConfig {
    /// What to log: error, warn, info, debug, or a filter such as info,fnhost::engine=debug
    #[arg(short, long, value_name = "LEVEL", env = "FNHOST_LOG", default_value = "info")]
    pub log: String,

    /// One JSON object a line
    #[arg(long, env = "FNHOST_LOG_JSON")]
    pub log_json: bool,
}

/// Begins to log. A filter that cannot be read is an error for the person who wrote it.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let filter = match config.log.as_str() {
        level @ ("error" | "warn" | "info" | "debug" | "trace") => format!("warn,fnhost={level}"),
        filter => filter.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|error| format!("--log {}: {error}", config.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = if config.log_json {
        log.json().flatten_event(true).with_current_span(false).with_timer(ChronoUtc::rfc_3339()).try_init()
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).with_timer(ChronoUtc::rfc_3339()).try_init()
    };
    started.map_err(|error| error.to_string())
}
