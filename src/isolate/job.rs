//! A run, from outside its isolate: the job, its log, its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::error::{Hide, RunError, Severity};
use super::intercept::Request;
use super::kept::{Finds, Tenant};
use super::limits::{Limits, Tripwire};
use super::pack::Footprint;
use super::permissions::{self, Network};
use crate::compile::Compiled;

/// A compiled job and what to run it with.
#[derive(Clone)]
pub struct Job {
    /// File name shown in errors, e.g. `job.js`.
    pub name: String,
    /// Key in `state.errors`.
    pub step: String,
    pub source: Arc<str>,
    pub compiled: Arc<Compiled>,
    /// Import specifiers of the adaptors the job may import.
    pub adaptors: Vec<String>,
    pub limits: Limits,
    pub network: Network,
    /// A test run: HTTP requests are shown in the log and answered with an empty JSON object, and nothing connects to
    /// anywhere, whatever `network` allows.
    pub test: bool,
    /// Takes the secrets of the configuration out of errors, which go into the state and to people.
    pub hide: Option<Hide>,
    /// Keys deleted from the final state.
    pub remove_from_state: Vec<String>,
    /// W3C trace context that the job's HTTP requests are part of, if traces are exported.
    pub traceparent: Option<String>,
    /// The runs that its isolate is kept for; None: it is not kept.
    pub tenant: Option<Tenant>,
}

impl Job {
    /// What it finds of the runs before; None: its isolate has none.
    pub(super) fn finds(&self) -> Option<Finds> {
        self.tenant.map(|tenant| tenant.finds)
    }

    /// What the run may connect to.
    pub(super) fn reach(&self) -> &Network {
        if self.test { permissions::NOTHING } else { &self.network }
    }
}

/// One line of a run's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    pub time: SystemTime,
    /// `JOB` for the console of the job and its adaptors, `ADA` for what packages print past it, `R/T` for the host,
    /// `TEST` for the requests of a test run.
    pub source: &'static str,
    /// `debug`, `info`, `log`, `success`, `warn` or `error`.
    pub level: &'static str,
    pub message: String,
}

/// Where log lines go. Called on the run's thread, in order.
pub type LogSink = Box<dyn FnMut(LogLine) + Send>;

/// Where the time of a run went.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunStats {
    /// Whether the isolate was made before the run asked for it.
    pub warm: bool,
    /// From the request for the run until an isolate took the job: for a slot of the pool, and for the isolate.
    pub waited: Duration,
    /// Isolate created and bootstrapped. Zero if it was warm.
    pub create: Duration,
    /// Module graph read, compiled and linked.
    pub load: Duration,
    /// Module graph evaluated: this is where adaptors cost.
    pub evaluate: Duration,
    /// Operations, with the state on its way in and out, and what they load.
    pub run: Duration,
    /// Of that: the state read.
    pub parse: Duration,
    /// Of that: the state written.
    pub stringify: Duration,
    /// Modules of packages compiled and evaluated, before and during the operations, with the built-in ones they use.
    pub modules: Duration,
    /// Node's modules loaded.
    pub built_in: Duration,
    /// Modules compiled, or read from code caches.
    pub compile: Duration,
    /// Isolate cleared up for the next run. Zero if it is dropped.
    pub clear_up: Duration,
    /// Isolate dropped.
    pub teardown: Duration,
    /// CPU time of the run's thread until the isolate is gone, without what was done before the run asked for it.
    pub cpu: Duration,
    /// Bytes of V8 heap in use at the end.
    pub heap: usize,
    /// Most bytes of ArrayBuffers alive at once.
    pub buffers: usize,
}

/// What a run ends with.
#[derive(Debug)]
pub struct Outcome {
    /// Final state as JSON text. None when the run was killed, or ended without a state.
    pub state: Option<String>,
    pub error: Option<RunError>,
    pub stats: RunStats,
    /// What the run loaded, if that is of interest.
    pub(super) footprint: Option<Footprint>,
    /// Whether its isolate waits for another run.
    pub(super) isolate_is_kept: bool,
}

/// Per-run values the ops reach through `OpState`.
pub(super) struct RunContext {
    pub limits: Limits,
    pub tripwire: Arc<Tripwire>,
    pub log_bytes: usize,
    sink: LogSink,
    compiled: Arc<Compiled>,
    operation_started: Instant,
    /// When the state was there for the first operation, and when the last one had left it.
    state_read: Option<Instant>,
    state_left: Option<Instant>,
}

impl RunContext {
    pub fn new(job: &Job, tripwire: Arc<Tripwire>, sink: LogSink) -> Self {
        Self {
            limits: job.limits.clone(),
            tripwire,
            log_bytes: 0,
            sink,
            compiled: job.compiled.clone(),
            operation_started: Instant::now(),
            state_read: None,
            state_left: None,
        }
    }

    /// How long it took to read the state and to write it, in operations that began and ended then.
    pub fn conversions(&self, start: Instant, end: Instant) -> (Duration, Duration) {
        let parse = self.state_read.map_or(Duration::ZERO, |read| read - start);
        (parse, self.state_left.map_or(Duration::ZERO, |left| end - left))
    }

    pub fn write_log(&mut self, level: &str, message: String) {
        let (source, level) = match level {
            "debug" => ("JOB", "debug"),
            "info" => ("JOB", "info"),
            "success" => ("JOB", "success"),
            "warn" => ("JOB", "warn"),
            "error" => ("JOB", "error"),
            "rte-warn" => ("R/T", "warn"),
            "ada-debug" => ("ADA", "debug"),
            _ => ("JOB", "log"),
        };
        (self.sink)(LogLine { time: SystemTime::now(), source, level, message });
    }

    pub fn show_request(&mut self, request: &Request<'_>) {
        let message = request.to_string();
        (self.sink)(LogLine { time: SystemTime::now(), source: "TEST", level: "info", message });
    }

    pub fn mark(&mut self, mark: &str, operation: u32) {
        match mark {
            "state-read" => return self.state_read = Some(Instant::now()),
            "state-left" => return self.state_left = Some(Instant::now()),
            _ => {}
        }
        let name = self.compiled.operations.get(operation as usize - 1).map_or("", |operation| &operation.name);
        let message = if mark == "operation-start" {
            self.operation_started = Instant::now();
            format!("Starting operation {operation}: {name}")
        } else {
            format!("Operation {operation} complete in {}ms", self.operation_started.elapsed().as_millis())
        };
        (self.sink)(LogLine { time: SystemTime::now(), source: "R/T", level: "debug", message });
    }
}

impl Outcome {
    /// The outcome of a run that did not come to its operations.
    pub(super) fn failed(error: RunError) -> Self {
        Self { state: None, error: Some(error), stats: RunStats::default(), footprint: None, isolate_is_kept: false }
    }

    pub(super) fn exception(message: impl Into<String>) -> Self {
        Self::failed(RunError::new("ExecutionError", Severity::Exception, message))
    }
}
