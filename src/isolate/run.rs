//! One run: create the isolate, load the module graph, reduce the operations, read the outcome, drop the isolate.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

use deno_core::error::{CoreError, CoreErrorKind, JsError};
use deno_core::url::Url;
use deno_core::{PollEventLoopOptions, v8};
use deno_runtime::deno_io::{Stdio, StdioPipe};
use deno_runtime::deno_os::{ExitCode, WatcherExitHandle, WatcherExited};
use deno_runtime::deno_web::{BlobStore, InMemoryBroadcastChannel};
use deno_runtime::worker::{MainWorker, WorkerOptions, WorkerServiceOptions};
use deno_runtime::{BootstrapOptions, FeatureChecker, deno_core};

use super::authorities::Authorities;
use super::custody::{self, Custody, Lost};
use super::error::{Hide, JobSource, RunError, Severity, Thrown, classify};
use super::intercept::Request;
use super::limits::{BufferAccount, Limit, Limits, ThreadClock, Tripwire, Watch};
use super::loader::{JobLoader, JobModule};
use super::ops::{self, PackInUse};
use super::pack::{self, Pack};
use super::packages::{LocalAdaptor, Packages};
use super::permissions::{self, Network};
use crate::compile::{self, Compiled, Dialect};

/// Stack of an isolate's thread. V8 stops recursion itself at about 1 MB; the rest is for Rust frames below it.
const STACK_SIZE: usize = 8 << 20;

/// What a host needs to know once.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Directory that holds `node_modules`.
    pub store: PathBuf,
    /// Adaptors outside the store.
    pub local_adaptors: Vec<LocalAdaptor>,
    /// PEM file of further certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Load adaptors through the ordinary module graph instead of packs: slower, but nothing of ours between V8 and
    /// the package when a fault is searched.
    pub without_packs: bool,
}

/// Runs jobs against the adaptors of one store. Cheap to clone; shared by all isolates of the process.
#[derive(Clone)]
pub struct Host {
    packages: Arc<Packages>,
    authorities: Arc<Authorities>,
    /// Directory of packs on disk.
    pack_dir: Arc<PathBuf>,
    without_packs: bool,
    /// Sorted import specifiers → what is known of that set of adaptors.
    adaptors: Arc<Mutex<HashMap<Vec<String>, Arc<AdaptorSet>>>>,
}

/// Some adaptors that a job uses together.
pub struct AdaptorSet {
    /// Import specifier → exported names.
    pub exports: HashMap<String, Vec<String>>,
    /// Why these adaptors are loaded through the ordinary module graph, if they are.
    pub unpacked: Option<String>,
    pack: Option<Arc<Pack>>,
    file: PathBuf,
}

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
}

impl Job {
    /// What the run may connect to.
    fn reach(&self) -> &Network {
        const NOTHING: &Network = &Network::Only(Vec::new());
        if self.test { NOTHING } else { &self.network }
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
    /// Isolate created and bootstrapped.
    pub create: Duration,
    /// Module graph read, compiled and linked.
    pub load: Duration,
    /// Module graph evaluated: this is where adaptors cost.
    pub evaluate: Duration,
    /// Operations.
    pub run: Duration,
    /// Isolate dropped.
    pub teardown: Duration,
    /// CPU time of the run's thread, from its start until the isolate is gone.
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
}

/// Per-run values the ops reach through `OpState`.
pub(super) struct RunContext {
    pub limits: Limits,
    pub tripwire: Arc<Tripwire>,
    pub log_bytes: usize,
    /// What a package takes for the working directory.
    pub directory: String,
    sink: LogSink,
    operation_names: Vec<String>,
    operation_started: Instant,
}

impl RunContext {
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
        let name = self.operation_names.get(operation as usize - 1).map_or("", String::as_str);
        let message = if mark == "operation-start" {
            self.operation_started = Instant::now();
            format!("Starting operation {operation}: {name}")
        } else {
            format!("Operation {operation} complete in {}ms", self.operation_started.elapsed().as_millis())
        };
        (self.sink)(LogLine { time: SystemTime::now(), source: "R/T", level: "debug", message });
    }
}

impl Host {
    pub fn new(options: HostOptions) -> Self {
        Self {
            packages: Arc::new(Packages::new(&options.store, &options.local_adaptors)),
            pack_dir: Arc::new(options.store.join("node_modules/.fnhost/packs")),
            without_packs: options.without_packs,
            authorities: Arc::new(Authorities::new(options.ca_file)),
            adaptors: Arc::default(),
        }
    }

    /// Gets a set of adaptors ready: from memory, from disk, or by loading them once in an isolate of their own to
    /// see what they export, and packing them.
    pub fn prepare(&self, specifiers: &[String]) -> Result<Arc<AdaptorSet>, RunError> {
        let mut key = specifiers.to_vec();
        key.sort();
        key.dedup();
        if let Some(set) = self.adaptors.lock().expect("adaptor sets").get(&key) {
            return Ok(set.clone());
        }
        Packages::refresh();
        let file = self.pack_dir.join(format!("{}.pack", file_name(&key)));
        let stored = if self.without_packs { None } else { pack::load(&file) };
        let set = match stored.filter(|pack| self.is_current(pack)) {
            Some(pack) => AdaptorSet {
                exports: pack.entries.iter().map(|(name, entry)| (name.clone(), entry.exports.clone())).collect(),
                unpacked: None,
                pack: Some(Arc::new(pack)),
                file,
            },
            None => {
                let entries = self.probe(&key)?;
                let built = if self.without_packs {
                    Err("packs are off".to_owned())
                } else {
                    pack::build(&self.packages, entries.clone()).map_err(|error| error.to_string())
                };
                let (pack, unpacked) = match built {
                    Ok(pack) => (Some(Arc::new(pack)), None),
                    Err(reason) => (None, Some(reason)),
                };
                AdaptorSet { exports: entries.into_iter().collect(), unpacked, pack, file }
            }
        };
        let set = Arc::new(set);
        self.adaptors.lock().expect("adaptor sets").insert(key, set.clone());
        Ok(set)
    }

    /// Whether the pack's adaptors are those that its specifiers lead to now: an install may have changed the default
    /// version, and a local adaptor may lie elsewhere.
    fn is_current(&self, pack: &Pack) -> bool {
        pack.entries.iter().all(|(specifier, entry)| {
            let now = self.packages.resolve_for_job(specifier).ok().and_then(|url| url.to_file_path().ok());
            now.is_some() && now.as_ref() == pack.modules.get(entry.module as usize).map(|module| &module.path)
        })
    }

    /// Gets adaptors ready before they are needed: packs them, and runs them once so that their code caches are on
    /// disk too.
    pub fn warm(&self, specifiers: &[String]) -> Result<(), RunError> {
        let set = self.prepare(specifiers)?;
        let outcome = self.run_with(listing(specifiers)?, set.pack.clone(), "{}".into(), Box::new(|_| {}));
        self.save_packs();
        outcome.error.map_or(Ok(()), Err)
    }

    /// Loads adaptors through the ordinary module graph and lists what they export.
    fn probe(&self, specifiers: &[String]) -> Result<Vec<(String, Vec<String>)>, RunError> {
        let outcome = self.run_with(listing(specifiers)?, None, "{}".into(), Box::new(|_| {}));
        if let Some(error) = outcome.error {
            return Err(error);
        }
        #[derive(serde::Deserialize)]
        struct Names {
            names: Vec<Vec<String>>,
        }
        let names: Names = serde_json::from_str(outcome.state.as_deref().unwrap_or("{}"))
            .map_err(|error| RunError::new("ExecutionError", Severity::Exception, error.to_string()))?;
        Ok(specifiers.iter().cloned().zip(names.names).collect())
    }

    /// Writes to disk what runs have added to the packs since the last call. A store that cannot be written is no
    /// error: packs only save time.
    pub fn save_packs(&self) {
        let sets: Vec<_> = self.adaptors.lock().expect("adaptor sets").values().cloned().collect();
        for set in sets {
            if let Some(pack) = set.pack.as_ref().filter(|pack| pack.take_dirty()) {
                let _ = pack::store(pack, &set.file);
            }
        }
    }

    /// Runs a job on a state (JSON text) in a fresh isolate on a fresh thread, and waits for its end.
    pub fn run(&self, job: Job, state: String, sink: LogSink) -> Outcome {
        match self.prepare(&job.adaptors) {
            Ok(set) => self.run_with(job, set.pack.clone(), state, sink),
            Err(error) => Outcome { state: None, error: Some(error), stats: RunStats::default() },
        }
    }

    fn run_with(&self, job: Job, pack: Option<Arc<Pack>>, state: String, sink: LogSink) -> Outcome {
        let host = self.clone();
        let limits = job.limits.clone();
        let tripwire = Arc::<Tripwire>::default();
        let (sender, outcome) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("isolate".into()).stack_size(STACK_SIZE).spawn({
            let tripwire = tripwire.clone();
            move || {
                let _custody = Custody::take(tripwire.clone());
                let _ = sender.send(host.run_here(&job, pack, state, sink, tripwire));
            }
        });
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => return Outcome::exception(format!("cannot start a thread for the isolate: {error}")),
        };
        match custody::wait(thread, &outcome, &tripwire, &limits) {
            Ok(outcome) => outcome,
            Err(Lost::Run(error)) => Outcome { state: None, error: Some(*error), stats: RunStats::default() },
            Err(Lost::Panicked) => Outcome::exception("the isolate's thread panicked: this is a bug in fnhost"),
        }
    }

    fn run_here(
        &self,
        job: &Job,
        pack: Option<Arc<Pack>>,
        state: String,
        sink: LogSink,
        tripwire: Arc<Tripwire>,
    ) -> Outcome {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Outcome::exception(format!("cannot start the isolate's event loop: {error}")),
        };
        runtime.block_on(async {
            let mut stats = RunStats::default();
            let clock = ThreadClock::current();
            let start = Instant::now();
            let mut isolate = match Isolate::create(self, job, pack, sink, tripwire) {
                Ok(isolate) => isolate,
                Err(error) => return Outcome::exception(error),
            };
            stats.create = start.elapsed();
            let watch = Watch::start(&job.limits, isolate.tripwire.clone());
            let (state, error) = isolate.execute(job, state, &mut stats).await;
            drop(watch);
            if isolate.tripwire.tripped().is_none() {
                isolate.harvest();
            }
            stats.buffers = isolate.buffers.peak();
            stats.heap = isolate.worker.js_runtime.v8_isolate().get_heap_statistics().used_heap_size();
            let start = Instant::now();
            drop(isolate);
            stats.teardown = start.elapsed();
            stats.cpu = clock.now();
            Outcome { state, error, stats }
        })
    }
}

impl Outcome {
    fn exception(message: impl Into<String>) -> Self {
        let error = RunError::new("ExecutionError", Severity::Exception, message);
        Self { state: None, error: Some(error), stats: RunStats::default() }
    }
}

struct Isolate {
    worker: MainWorker,
    tripwire: Arc<Tripwire>,
    buffers: Arc<BufferAccount>,
    packages: Arc<Packages>,
    job_url: Url,
    prelude: u32,
    run: v8::Global<v8::Function>,
}

/// Why a run ended before its operations did.
enum Interrupted {
    Limit(Limit),
    Exit(i32),
    Js(Box<JsError>),
    Thrown(Box<Thrown>),
    /// Thrown while the modules were evaluated: there are no operations, and so no state.
    Broken(Box<Thrown>),
    Host(String),
}

impl Isolate {
    fn create(
        host: &Host,
        job: &Job,
        pack: Option<Arc<Pack>>,
        sink: LogSink,
        tripwire: Arc<Tripwire>,
    ) -> Result<Self, String> {
        let job_url = Url::parse(&format!("job:/{}", job.name.replace([' ', '?', '#', '%'], "_")))
            .map_err(|error| format!("{} is no usable job name: {error}", job.name))?;
        let mentions_global = job.compiled.code.contains("globalThis");
        let mut prelude = String::new();
        if mentions_global {
            prelude.push_str(r#"import { globalThis } from "fnhost:scope"; "#);
        }
        if job.compiled.code.contains("import(") {
            // What hands an adaptor of the pack over is gone when the job runs: it must have been evaluated by then.
            for adaptor in &job.adaptors {
                prelude.push_str(&format!("import {}; ", serde_json::Value::from(adaptor.as_str())));
            }
        }
        let loader = JobLoader {
            packages: host.packages.clone(),
            pack: pack.clone(),
            job: JobModule {
                url: job_url.clone(),
                source: format!("{prelude}{}", job.compiled.code).into(),
                adaptors: job.adaptors.clone(),
            },
        };
        let buffers = BufferAccount::new(job.limits.buffers, tripwire.clone());
        let context = RunContext {
            limits: job.limits.clone(),
            tripwire: tripwire.clone(),
            log_bytes: 0,
            directory: host.packages.directory().to_string_lossy().into_owned(),
            sink,
            operation_names: job.compiled.operations.iter().map(|operation| operation.name.clone()).collect(),
            operation_started: Instant::now(),
        };
        let services = WorkerServiceOptions {
            blob_store: Arc::new(BlobStore::default()),
            broadcast_channel: InMemoryBroadcastChannel::default(),
            deno_rt_native_addon_loader: None,
            feature_checker: Arc::new(FeatureChecker::default()),
            fs: Arc::new(deno_runtime::deno_fs::RealFs),
            module_loader: loader.into_rc(),
            node_services: Some(host.packages.node_services()),
            npm_process_state_provider: None,
            permissions: permissions::container(host.packages.readable(), job.reach())?,
            root_cert_store_provider: Some(host.authorities.clone()),
            fetch_dns_resolver: Default::default(),
            shared_array_buffer_store: None,
            compiled_wasm_module_store: None,
            v8_code_cache: None,
            bundle_provider: None,
        };
        let options = WorkerOptions {
            bootstrap: BootstrapOptions {
                user_agent: concat!("fnhost/", env!("CARGO_PKG_VERSION")).into(),
                has_node_modules_dir: true,
                mode: deno_runtime::WorkerExecutionMode::None,
                ..Default::default()
            },
            extensions: vec![ops::fnhost::init()],
            startup_snapshot: deno_snapshots::CLI_SNAPSHOT,
            residual_lazy_js_sources: deno_snapshots::RESIDUAL_LAZY_JS,
            residual_lazy_esm_sources: deno_snapshots::RESIDUAL_LAZY_ESM,
            stdio: no_stdio()?,
            create_params: Some(
                v8::CreateParams::default()
                    .heap_limits(0, job.limits.heap)
                    .array_buffer_allocator(buffers.allocator().make_shared()),
            ),
            ..Default::default()
        };
        let mut worker = MainWorker::bootstrap_from_options(&job_url, services, options);
        let runtime = &mut worker.js_runtime;
        let handle = runtime.v8_isolate().thread_safe_handle();
        tripwire.arm(handle.clone());
        {
            let state = runtime.op_state();
            let mut state = state.borrow_mut();
            state.put(context);
            state.put(buffers.clone());
            if let Some(pack) = pack {
                state.put(PackInUse { pack, packages: host.packages.clone(), compiled: Vec::new() });
            }
            state.put(WatcherExitHandle(handle));
        }
        let heap_tripwire = tripwire.clone();
        runtime.add_near_heap_limit_callback(move |current, _initial| {
            heap_tripwire.trip(Limit::Heap);
            // Room to unwind: V8 aborts the process if the heap cannot grow before the termination takes effect.
            current * 2
        });
        let [setup, run] = entry_points(runtime);
        {
            deno_core::scope!(scope, runtime);
            let setup = v8::Local::new(scope, setup);
            let this = v8::undefined(scope).into();
            let test = v8::Boolean::new(scope, job.test).into();
            v8::tc_scope!(scope, scope);
            if setup.call(scope, this, &[test]).is_none() {
                let message = scope.exception().map(|e| e.to_rust_string_lossy(scope)).unwrap_or_default();
                return Err(format!("the host's own JavaScript failed: {message}"));
            }
        }
        Ok(Self {
            worker,
            tripwire,
            buffers,
            packages: host.packages.clone(),
            job_url,
            prelude: prelude.len() as u32,
            run,
        })
    }

    fn harvest(&mut self) {
        let state = self.worker.js_runtime.op_state();
        deno_core::scope!(scope, &mut self.worker.js_runtime);
        if let Some(pack) = state.borrow_mut().try_borrow_mut::<PackInUse>() {
            pack.harvest(scope);
        }
    }

    async fn execute(&mut self, job: &Job, state: String, stats: &mut RunStats) -> (Option<String>, Option<RunError>) {
        let outcome = self.load_and_run(job, state, stats).await;
        let source = JobSource {
            name: &job.name,
            url: self.job_url.as_str(),
            source: &job.source,
            compiled: &job.compiled,
            prelude: self.prelude,
            hide: job.hide.as_ref(),
            test: job.test,
            local: self.packages.local(),
            network: job.reach(),
        };
        // A limit explains whatever else was observed after it.
        let outcome = match self.tripwire.tripped() {
            Some(limit) => Err(Interrupted::Limit(limit)),
            None => outcome,
        };
        match outcome {
            Ok((Some(text), _)) if text.len() > job.limits.state => {
                (None, Some(RunError::limit(Limit::State, &job.limits)))
            }
            Ok((text, None)) => (text, None),
            Ok((_, Some(thrown))) if thrown.too_large => (None, Some(RunError::limit(Limit::State, &job.limits))),
            Ok((text, Some(thrown))) => {
                let error = classify(thrown, &source);
                if error.severity == Severity::Fail {
                    let text = with_error(text.as_deref(), &job.step, &error);
                    (Some(text), Some(error))
                } else {
                    (None, Some(error))
                }
            }
            Err(Interrupted::Limit(limit)) => (None, Some(RunError::limit(limit, &job.limits))),
            Err(Interrupted::Exit(code)) => (None, Some(RunError::exit(code))),
            Err(Interrupted::Js(error)) => (None, Some(self.rejected(&error, &source))),
            Err(Interrupted::Thrown(thrown)) => (None, Some(classify(*thrown, &source))),
            Err(Interrupted::Broken(thrown)) => (None, Some(crashed(classify(*thrown, &source)))),
            Err(Interrupted::Host(message)) => {
                (None, Some(RunError::new("ExecutionError", Severity::Exception, message)))
            }
        }
    }

    /// An error that escaped through the event loop: nobody awaited the promise that it rejected.
    fn rejected(&self, error: &JsError, source: &JobSource<'_>) -> RunError {
        let thrown = thrown_from(error);
        let mut error = crashed(classify(thrown, source));
        error.message = format!("Unhandled promise rejection: {}", error.message);
        error
    }

    async fn load_and_run(
        &mut self,
        job: &Job,
        state: String,
        stats: &mut RunStats,
    ) -> Result<(Option<String>, Option<Thrown>), Interrupted> {
        let start = Instant::now();
        let url = self.job_url.clone();
        let id = match self.worker.js_runtime.load_main_es_module(&url).await {
            Ok(id) => id,
            Err(error) => return Err(self.load_error(error)),
        };
        stats.load = start.elapsed();

        let start = Instant::now();
        let evaluation = self.worker.js_runtime.mod_evaluate(id);
        let evaluated = self.drive(Box::pin(evaluation)).await;
        stats.evaluate = start.elapsed();
        delete_global(&mut self.worker.js_runtime, "__fnhostAdaptor");
        if let Err(error) = evaluated {
            return Err(match error {
                Interrupted::Js(error) => Interrupted::Broken(Box::new(thrown_from(&error))),
                other => other,
            });
        }

        let start = Instant::now();
        let call = {
            let runtime = &mut self.worker.js_runtime;
            let namespace = runtime.get_module_namespace(id).map_err(|error| match error.into_kind() {
                // What a module throws while it is evaluated is kept for those who ask for its exports.
                CoreErrorKind::Js(error) => Interrupted::Broken(Box::new(thrown_from(&error))),
                error => Interrupted::Host(error.to_string()),
            })?;
            let arguments = {
                deno_core::scope!(scope, runtime);
                let namespace: v8::Local<v8::Value> = v8::Local::new(scope, namespace).into();
                let text = v8::String::new(scope, &state)
                    .ok_or_else(|| Interrupted::Host("the initial state is too large for V8".into()))?;
                drop(state);
                let options = v8::Object::new(scope);
                let key = v8::String::new(scope, "remove").expect("a short string");
                let remove: Vec<v8::Local<v8::Value>> = job
                    .remove_from_state
                    .iter()
                    .filter_map(|name| v8::String::new(scope, name))
                    .map(Into::into)
                    .collect();
                let remove = v8::Array::new_with_elements(scope, &remove);
                options.set(scope, key.into(), remove.into());
                [namespace, text.into(), options.into()].map(|value| v8::Global::new(scope, value))
            };
            runtime.call_with_args(&self.run, &arguments)
        };
        let result = self.drive(Box::pin(call)).await;
        stats.run = start.elapsed();
        let result = result?;

        deno_core::scope!(scope, &mut self.worker.js_runtime);
        let result = v8::Local::new(scope, result);
        let result: v8::Local<v8::Array> =
            result.try_into().map_err(|_| Interrupted::Host("the run returned no result".into()))?;
        let text = |index| {
            let value = result.get_index(scope, index)?;
            value.is_string().then(|| value.to_rust_string_lossy(scope))
        };
        let state = text(0);
        let thrown = match text(1) {
            Some(thrown) => Some(
                serde_json::from_str(&thrown)
                    .map_err(|error| Interrupted::Host(format!("unreadable error from the run: {error}")))?,
            ),
            None => None,
        };
        Ok((state, thrown))
    }

    /// Polls the event loop until `future` resolves, a limit is hit, or something goes wrong.
    async fn drive<T, E>(&mut self, mut future: impl Future<Output = Result<T, E>> + Unpin) -> Result<T, Interrupted>
    where
        CoreError: From<E>,
    {
        let tripwire = self.tripwire.clone();
        let result = tokio::select! {
            biased;
            limit = tripwire.wait() => return Err(Interrupted::Limit(limit)),
            result = self.worker.js_runtime.with_event_loop_promise(&mut future, PollEventLoopOptions::default()) => result,
        };
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if let Some(limit) = self.tripwire.tripped() {
            return Err(Interrupted::Limit(limit));
        }
        {
            let state = self.worker.js_runtime.op_state();
            let state = state.borrow();
            if state.try_borrow::<WatcherExited>().is_some() {
                let code = state.try_borrow::<ExitCode>().map_or(0, ExitCode::get);
                return Err(Interrupted::Exit(code));
            }
        }
        Err(match error.into_kind() {
            CoreErrorKind::Js(error) => Interrupted::Js(error),
            CoreErrorKind::PendingPromiseResolution => Interrupted::Thrown(Box::new(Thrown {
                name: Some("Error".into()),
                message: "The job waits for a promise that nothing will ever settle".into(),
                ..Default::default()
            })),
            error => Interrupted::Host(error.to_string()),
        })
    }

    fn load_error(&self, error: CoreError) -> Interrupted {
        if let Some(limit) = self.tripwire.tripped() {
            return Interrupted::Limit(limit);
        }
        let mut thrown = match error.into_kind() {
            CoreErrorKind::Js(error) => thrown_from(&error),
            error => Thrown { message: error.to_string(), ..Default::default() },
        };
        // Whatever keeps the graph from loading is an import that does not work.
        thrown.name = Some("ImportError".into());
        Interrupted::Thrown(Box::new(thrown))
    }
}

/// The same error where no state is left that a following step could use.
fn crashed(mut error: RunError) -> RunError {
    if error.severity == Severity::Fail {
        error.subtype.get_or_insert_with(|| error.name.to_owned());
        error.name = "RuntimeCrash";
        error.severity = Severity::Crash;
    }
    error
}

/// Standard streams of a run: the process's own stay out of its reach.
fn no_stdio() -> Result<Stdio, String> {
    let null = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map(StdioPipe::file)
            .map_err(|error| format!("cannot open /dev/null: {error}"))
    };
    Ok(Stdio { stdin: null()?, stdout: null()?, stderr: null()? })
}

/// Picks up the host's JavaScript functions and removes the name they were left under.
fn entry_points(runtime: &mut deno_core::JsRuntime) -> [v8::Global<v8::Function>; 2] {
    let context = runtime.main_context();
    deno_core::scope!(scope, runtime);
    let global = v8::Local::new(scope, context).global(scope);
    let name = v8::String::new(scope, "__fnhost").expect("a short string").into();
    let host = global.get(scope, name).and_then(|host| host.to_object(scope)).expect("host.js has run");
    let functions = ["setup", "run"].map(|name| {
        let key = v8::String::new(scope, name).expect("a short string").into();
        let function = host.get(scope, key).expect("host.js exports it");
        let function: v8::Local<v8::Function> = function.try_into().expect("host.js exports functions");
        v8::Global::new(scope, function)
    });
    global.delete(scope, name);
    functions
}

/// A job that touches every export of some adaptors and leaves their names in `state.names`.
fn listing(specifiers: &[String]) -> Result<Job, RunError> {
    let mut source = String::new();
    let mut names = String::new();
    for (index, specifier) in specifiers.iter().enumerate() {
        let quoted = serde_json::Value::from(specifier.as_str());
        source.push_str(&format!("import * as $_{index} from {quoted};"));
        names.push_str(&format!("Object.keys($_{index}),"));
    }
    source.push_str(&format!("export default [() => ({{ names: [{names}] }})];"));
    let options =
        compile::Options { file_name: "adaptors.js", adaptors: &[], dialect: Dialect::Module, extra_globals: &[] };
    let compiled = compile::compile(&source, &options)
        .map_err(|error| RunError::new("ExecutionError", Severity::Exception, error.to_string()))?;
    Ok(Job {
        name: "adaptors.js".into(),
        step: "adaptors".into(),
        source: source.as_str().into(),
        compiled: Arc::new(compiled),
        adaptors: specifiers.to_vec(),
        limits: Limits::default(),
        network: Network::Only(Vec::new()),
        test: false,
        hide: None,
        remove_from_state: Vec::new(),
    })
}

fn delete_global(runtime: &mut deno_core::JsRuntime, name: &str) {
    let context = runtime.main_context();
    deno_core::scope!(scope, runtime);
    let global = v8::Local::new(scope, context).global(scope);
    let name = v8::String::new(scope, name).expect("a short string").into();
    global.delete(scope, name);
}

/// A file name for a set of adaptors: readable where it is short, and distinct.
fn file_name(specifiers: &[String]) -> String {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(specifiers.join("\n"));
    let readable: String = specifiers
        .iter()
        .map(|name| name.rsplit('/').next().unwrap_or(name))
        .collect::<Vec<_>>()
        .join("+")
        .chars()
        .take(60)
        .collect();
    let hash = u64::from_be_bytes(hash[..8].try_into().expect("a digest has 32 bytes"));
    format!("{readable}-{hash:016x}")
}

fn thrown_from(error: &JsError) -> Thrown {
    let mut stack = error.stack.clone().unwrap_or_default();
    // A file that does not parse has a place but no stack.
    if !stack.contains("\n    at ")
        && let Some(frame) = error.frames.first()
        && let (Some(file), Some(line), Some(column)) = (&frame.file_name, frame.line_number, frame.column_number)
    {
        stack.push_str(&format!("\n    at {file}:{line}:{column}"));
    }
    Thrown {
        thrown: error.name.is_none(),
        name: error.name.clone(),
        message: error.message.clone().unwrap_or_else(|| {
            error.exception_message.strip_prefix("Uncaught ").unwrap_or(&error.exception_message).to_owned()
        }),
        stack,
        ..Default::default()
    }
}

/// The state as JSON text with `errors.<step>` set.
fn with_error(state: Option<&str>, step: &str, error: &RunError) -> String {
    let mut state: serde_json::Value =
        state.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| serde_json::json!({}));
    if !state.is_object() {
        state = serde_json::json!({ "data": state });
    }
    let entry = serde_json::to_value(error).expect("an error is plain data");
    match &mut state["errors"] {
        serde_json::Value::Object(errors) => {
            errors.insert(step.to_owned(), entry);
        }
        other => *other = serde_json::json!({ step: entry }),
    }
    state.to_string()
}
