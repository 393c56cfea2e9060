//! One isolate: create it, take on a job, load the module graph, reduce the operations, read the outcome.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deno_core::error::{CoreError, CoreErrorKind, JsError};
use deno_core::stats::RuntimeActivityStats;
use deno_core::url::Url;
use deno_core::{PollEventLoopOptions, v8};
use deno_runtime::deno_io::{Stdio, StdioPipe};
use deno_runtime::deno_os::{ExitCode, WatcherExitHandle, WatcherExited};
use deno_runtime::deno_web::{BlobStore, InMemoryBroadcastChannel};
use deno_runtime::worker::{MainWorker, WorkerOptions, WorkerServiceOptions};
use deno_runtime::{BootstrapOptions, FeatureChecker, deno_core};

use super::calls::Calls;
use super::entry_points::EntryPoints;
use super::error::{JobSource, RunError, Severity, Thrown, classify};
use super::hash_seed;
use super::host::Host;
use super::http_client::HttpClient;
use super::isolate_thread::{Plan, Purpose};
use super::job::{Job, LogSink, Outcome, RunContext, RunStats};
use super::job_function::{JOB_PARAMETERS, JobFunction};
use super::kept::Finds;
use super::limits::{BufferAccount, Limit, Stop, Tripwire, Watch};
use super::loader::{JobLoader, JobModule};
use super::machine::WorkingDirectory;
use super::ops::{self, PackInUse};
use super::pack::{CodeCaches, Evaluated, Footprint, Pack};
use super::packages::Packages;
use super::permissions;
use super::phases::{Loading, Making};
use super::snapshot::Stay;
use crate::compile::Compiled;

/// An isolate that can take one job.
pub(super) struct Isolate {
    pub(super) worker: MainWorker,
    pub(super) loader: Rc<JobLoader>,
    pub(super) tripwire: Arc<Tripwire>,
    pub(super) buffers: Arc<BufferAccount>,
    packages: Arc<Packages>,
    pack: Option<Arc<Pack>>,
    /// The job that was compiled, if it is a function.
    compiled: Option<CompiledJob>,
    pub(super) entry: EntryPoints,
    /// What was open before the first run, where each finds what the first one found.
    pub(super) opening: Option<RuntimeActivityStats>,
    /// What its first run is to tell.
    purpose: Purpose,
    /// It began with nothing loaded.
    is_bare: bool,
    /// Runs so far, with the one under way.
    runs: u32,
    /// When the last run ended.
    rested_since: Instant,
    /// Ends after all the others.
    stay: Stay,
}

/// Has a loader use a pack, and gives what the host's ops need of it.
fn pack_in_use(loader: &JobLoader, packages: Arc<Packages>, pack: &Arc<Pack>, stay: &Stay) -> PackInUse {
    let caches = CodeCaches::new(pack.clone(), stay.snapshot.is_some());
    loader.use_pack(pack.clone(), Some(caches.clone()));
    PackInUse::new(pack.clone(), packages, caches)
}

/// How long an isolate must have waited for a run to look at its connections first.
const LONG_WAIT: Duration = Duration::from_millis(50);

/// Runs of an isolate after which there is nothing new to learn for other isolates.
const LEARNING: u32 = 2;

/// A job as a function of its isolate.
struct CompiledJob {
    job: Arc<Compiled>,
    function: Arc<JobFunction>,
    compiled: v8::Global<v8::Function>,
}

/// The job that an isolate has taken.
struct Taken<'a> {
    job: &'a Job,
    url: Url,
    /// None: it is loaded through the module graph.
    function: Option<Arc<JobFunction>>,
    /// Columns that the host put before the first line of the compiled module.
    prelude: u32,
}

/// The end of a run.
struct Ended {
    state: Option<String>,
    error: Option<RunError>,
    /// Its operations have ended, well or badly: no part of the run goes on that they waited for.
    has_come_to_its_end: bool,
}

impl Ended {
    fn interrupted(error: RunError) -> Self {
        Self { state: None, error: Some(error), has_come_to_its_end: false }
    }

    fn too_large(job: &Job) -> Self {
        Self::interrupted(RunError::limit(Limit::State, &job.limits))
    }
}

/// Why a run ended before its operations did.
pub(super) enum Interrupted {
    Stopped(Stop),
    Exit(i32),
    Js(Box<JsError>),
    Thrown(Box<Thrown>),
    /// Thrown while the modules were evaluated: there are no operations, and so no state.
    Broken(Box<Thrown>),
    Host(String),
}

impl Isolate {
    /// Makes an isolate as `plan` says, with nothing in it of any job.
    pub fn create(host: &Host, plan: &Plan, tripwire: Arc<Tripwire>) -> Result<(Self, Making), String> {
        let start = Instant::now();
        hash_seed::get();
        let mut stay = Stay::begin(plan.snapshot);
        let loader = Rc::new(JobLoader::new(host.packages.clone()));
        let pack_in_use = plan.pack.as_ref().map(|pack| pack_in_use(&loader, host.packages.clone(), pack, &stay));
        let buffers = BufferAccount::new(tripwire.clone(), host.buffers.clone());
        let services = WorkerServiceOptions {
            blob_store: Arc::new(BlobStore::default()),
            broadcast_channel: InMemoryBroadcastChannel::default(),
            deno_rt_native_addon_loader: None,
            feature_checker: Arc::new(FeatureChecker::default()),
            fs: Arc::new(deno_runtime::deno_fs::RealFs),
            module_loader: loader.clone(),
            node_services: Some(host.packages.node_services()),
            npm_process_state_provider: None,
            permissions: permissions::container(host.packages.readable(), permissions::NOTHING)?,
            root_cert_store_provider: Some(host.authorities.clone()),
            fetch_dns_resolver: Default::default(),
            shared_array_buffer_store: None,
            compiled_wasm_module_store: None,
            v8_code_cache: None,
            bundle_provider: None,
        };
        let options = WorkerOptions {
            bootstrap: bootstrap_options(),
            extensions: vec![ops::fnhost::init()],
            // In a snapshot of the host's the ops have their functions already.
            startup_snapshot: stay.snapshot.or(deno_snapshots::CLI_SNAPSHOT),
            skip_op_registration: stay.snapshot.is_some(),
            residual_lazy_js_sources: deno_snapshots::RESIDUAL_LAZY_JS,
            residual_lazy_esm_sources: deno_snapshots::RESIDUAL_LAZY_ESM,
            stdio: no_stdio()?,
            create_params: Some(
                v8::CreateParams::default()
                    .heap_limits(0, plan.heap)
                    .array_buffer_allocator(buffers.allocator().make_shared()),
            ),
            ..Default::default()
        };
        let mut worker = MainWorker::bootstrap_from_options(&job_url("job.js")?, services, options);
        stay.made();
        let made_runtime = Instant::now();
        let runtime = &mut worker.js_runtime;
        let handle = runtime.v8_isolate().thread_safe_handle();
        {
            let state = runtime.op_state();
            let mut state = state.borrow_mut();
            state.put(WorkingDirectory(host.packages.directory().to_string_lossy().into_owned()));
            state.put(buffers.clone());
            state.put(HttpClient::new(!host.without_http_client, host.authorities.clone()));
            pack_in_use.into_iter().for_each(|pack| state.put(pack));
            state.put(WatcherExitHandle(handle));
        }
        let heap_tripwire = tripwire.clone();
        runtime.add_near_heap_limit_callback(move |current, _initial| {
            heap_tripwire.trip(Limit::Heap);
            // Room to unwind: V8 aborts the process if the heap cannot grow before the termination takes effect.
            current * 2
        });
        let entry = EntryPoints::pick_up(runtime);
        if stay.snapshot.is_none() {
            entry.call(runtime, &entry.prepare, &[])?;
        }
        entry.call(runtime, &entry.setup, &[])?;
        loader.forget_scripts();
        let mut isolate = Self {
            worker,
            loader,
            tripwire,
            buffers,
            packages: host.packages.clone(),
            pack: plan.pack.clone(),
            compiled: None,
            entry,
            opening: None,
            purpose: plan.purpose,
            is_bare: stay.snapshot.is_none(),
            runs: 0,
            rested_since: Instant::now(),
            stay,
        };
        let made_host = Instant::now();
        isolate.get_ready(&plan.footprint);
        let making =
            Making { runtime: made_runtime - start, host: made_host - made_runtime, ahead: made_host.elapsed() };
        if plan.purpose == Purpose::Rehearsal {
            isolate.rehearse()?;
        }
        Ok((isolate, making))
    }

    /// Gives it a pack, unless it has one.
    pub fn use_pack(&mut self, pack: &Arc<Pack>) {
        if self.pack.is_some() {
            return;
        }
        let in_use = pack_in_use(&self.loader, self.packages.clone(), pack, &self.stay);
        self.worker.js_runtime.op_state().borrow_mut().put(in_use);
        self.pack = Some(pack.clone());
    }

    /// Does ahead what a run with this footprint would do later. What cannot be done ahead shows when the run does it.
    fn get_ready(&mut self, footprint: &Footprint) {
        let runtime = &mut self.worker.js_runtime;
        for script in &footprint.scripts {
            let arguments = {
                deno_core::scope!(scope, runtime);
                let specifier = v8::String::new(scope, script).expect("a short string");
                let is_module = v8::Boolean::new(scope, is_module(script));
                [specifier.into(), is_module.into()].map(|value: v8::Local<v8::Value>| v8::Global::new(scope, value))
            };
            let _ = self.entry.call(runtime, &self.entry.load_ahead, &arguments);
        }
        for module in &footprint.modules {
            let argument = {
                deno_core::scope!(scope, runtime);
                let number: v8::Local<v8::Value> = v8::Integer::new_from_unsigned(scope, module.number).into();
                v8::Global::new(scope, number)
            };
            let _ = self.entry.call(runtime, &self.entry.compile_ahead, &[argument]);
        }
    }

    /// From now on tells modules that may be evaluated in a snapshot from others, beginning with those that runs need.
    fn rehearse(&mut self) -> Result<(), String> {
        let habits = self.pack.as_ref().map(|pack| pack.habits()).unwrap_or_default();
        let runtime = &mut self.worker.js_runtime;
        let numbers = {
            deno_core::scope!(scope, runtime);
            let numbers = habits.roots().iter().map(|&number| v8::Integer::new_from_unsigned(scope, number).into());
            let numbers: Vec<v8::Local<v8::Value>> = numbers.collect();
            let numbers: v8::Local<v8::Value> = v8::Array::new_with_elements(scope, &numbers).into();
            v8::Global::new(scope, numbers)
        };
        self.entry.call(runtime, &self.entry.rehearse, &[numbers])
    }

    /// Makes the isolate that of `job`, for the first time or again.
    fn take_on<'a>(&mut self, job: &'a Job, sink: LogSink) -> Result<Taken<'a>, String> {
        self.runs += 1;
        let url = job_url(&job.name)?;
        let context = RunContext::new(job, self.tripwire.clone(), sink);
        let calls = job.traceparent.as_deref().and_then(Calls::part_of);
        {
            let state = self.worker.js_runtime.op_state();
            let mut state = state.borrow_mut();
            state.put(context);
            state.put(Loading::default());
            if let Some(calls) = calls {
                state.put(calls);
            }
        }
        if self.runs == 1 {
            self.become_that_of(job, &url)?;
        }
        let function = match &self.compiled {
            Some(known) if Arc::ptr_eq(&known.job, &job.compiled) => Some(known.function.clone()),
            _ => self.pack.as_ref().and_then(|pack| pack.job(&job.compiled.code)),
        };
        let prelude = match &function {
            Some(function) => function.front,
            None => self.take_module(job, &url),
        };
        Ok(Taken { job, url, function, prelude })
    }

    /// Sets what is the same for all runs that the isolate may have.
    fn become_that_of(&mut self, job: &Job, url: &Url) -> Result<(), String> {
        self.buffers.set_limit(job.limits.buffers);
        let permissions = permissions::container(self.packages.readable(), job.reach())?;
        let runtime = &mut self.worker.js_runtime;
        {
            let state = runtime.op_state();
            let mut state = state.borrow_mut();
            state.put(permissions);
            // What the runtime takes for the main module.
            state.put(url.clone());
        }
        if job.test {
            self.entry.call(runtime, &self.entry.intercept, &[])?;
        }
        if job.traceparent.is_some() {
            self.entry.call(runtime, &self.entry.trace, &[])?;
        }
        if job.finds() == Some(Finds::Code) {
            self.watch()?;
            // What it takes to watch is no need of the job: runs at other levels would have it in their isolates.
            self.loader.forget_scripts();
        }
        Ok(())
    }

    /// Names a job that stays a module to the loader. Returns how many columns its first line is moved by.
    fn take_module(&self, job: &Job, url: &Url) -> u32 {
        let mut prelude = String::new();
        if job.compiled.code.contains("globalThis") {
            prelude.push_str(r#"import { globalThis } from "fnhost:scope"; "#);
        }
        if job.compiled.code.contains("import(") {
            // What hands an adaptor of the pack over is gone when the job runs: it must have been evaluated by then.
            for adaptor in &job.adaptors {
                prelude.push_str(&format!("import {}; ", serde_json::Value::from(adaptor.as_str())));
            }
        }
        self.loader.set_job(JobModule {
            url: url.clone(),
            source: format!("{prelude}{}", job.compiled.code).into(),
            adaptors: job.adaptors.clone(),
        });
        prelude.len() as u32
    }

    /// Runs the job. The outcome still lacks what can only be told when the isolate is gone.
    pub async fn run(&mut self, job: &Job, state: String, sink: LogSink, mut stats: RunStats) -> Outcome {
        let taken = match self.take_on(job, sink) {
            Ok(taken) => taken,
            Err(message) => return Outcome::exception(message),
        };
        let watch = Watch::start(&job.limits, self.tripwire.clone());
        if self.runs > 1 && self.rested_since.elapsed() > LONG_WAIT {
            self.wake().await;
        }
        let Ended { state, error, has_come_to_its_end } = self.execute(&taken, state, &mut stats).await;
        stats.heap = self.worker.js_runtime.v8_isolate().get_heap_statistics().used_heap_size();
        // Clearing up may make the isolate forget it.
        let loaded = self.has_something_to_teach().then(|| self.footprint());
        self.add_phases(&mut stats);
        let start = Instant::now();
        let isolate_is_kept = job.tenant.is_some() && has_come_to_its_end && self.is_cleared_up(job, stats.heap).await;
        if isolate_is_kept {
            stats.clear_up = start.elapsed();
        }
        drop(watch);
        let footprint = loaded.filter(|_| self.has_something_to_teach());
        if let Some(loaded) = &footprint {
            self.harvest();
            if self.purpose == Purpose::Work && !job.test {
                self.pack.iter().for_each(|pack| pack.learn(loaded, self.is_bare));
            }
        }
        stats.buffers = self.buffers.take_peak();
        self.rested_since = Instant::now();
        Outcome { state, error, stats, footprint, isolate_is_kept }
    }

    /// Whether other isolates can learn from the run.
    fn has_something_to_teach(&self) -> bool {
        self.runs <= LEARNING && self.tripwire.tripped().is_none()
    }

    /// What only the isolate's own state tells.
    fn add_phases(&mut self, stats: &mut RunStats) {
        let state = self.worker.js_runtime.op_state();
        let state = state.borrow();
        let loading = state.borrow::<Loading>();
        stats.modules = loading.modules();
        stats.built_in = loading.built_in();
        stats.compile = loading.compiled;
    }

    /// Whether the isolate is ready for another run.
    async fn is_cleared_up(&mut self, job: &Job, heap: usize) -> bool {
        match self.clear_up(job, heap).await {
            Ok(()) => true,
            Err(reason) => {
                tracing::debug!(job = job.name, step = job.step, reason, "an isolate is not used again");
                false
            }
        }
    }

    /// What the run has loaded.
    fn footprint(&mut self) -> Footprint {
        let runtime = &mut self.worker.js_runtime;
        deno_core::scope!(scope, runtime);
        let function = v8::Local::new(scope, &self.entry.evaluated);
        let this = v8::undefined(scope).into();
        let numbers = function.call(scope, this, &[]).and_then(|numbers| numbers.try_cast::<v8::Array>().ok());
        let modules = numbers.map_or_else(Vec::new, |numbers| {
            let number = |index| numbers.get_index(scope, index)?.integer_value(scope);
            let module = |index| {
                Some(Evaluated {
                    number: number(index)? as u32,
                    parent: number(index + 1)?.try_into().ok(),
                    is_root: number(index + 2)? == 1,
                })
            };
            (0..numbers.length()).step_by(3).filter_map(module).collect()
        });
        Footprint { scripts: self.loader.scripts(), modules }
    }

    fn harvest(&mut self) {
        let state = self.worker.js_runtime.op_state();
        deno_core::scope!(scope, &mut self.worker.js_runtime);
        if let Some(pack) = state.borrow_mut().try_borrow_mut::<PackInUse>() {
            pack.harvest(scope);
        }
        if let Some(CompiledJob { function, compiled, .. }) = &self.compiled {
            let compiled = v8::Local::new(scope, compiled);
            function.harvest(compiled);
        }
    }

    async fn execute(&mut self, taken: &Taken<'_>, state: String, stats: &mut RunStats) -> Ended {
        let outcome = self.load_and_run(taken, state, stats).await;
        let job = taken.job;
        // A limit explains whatever else was observed after it.
        let outcome = match self.tripwire.tripped() {
            Some(stop) => Err(Interrupted::Stopped(stop)),
            None => outcome,
        };
        let interruption = match outcome {
            Ok((Some(text), _)) if text.len() > job.limits.state => return Ended::too_large(job),
            Ok((state, None)) => return Ended { state, error: None, has_come_to_its_end: true },
            Ok((_, Some(thrown))) if thrown.too_large => return Ended::too_large(job),
            Ok((text, Some(thrown))) => {
                let error = classify(thrown, &self.source_of(taken));
                let state = (error.severity == Severity::Fail).then(|| with_error(text.as_deref(), &job.step, &error));
                return Ended { state, error: Some(error), has_come_to_its_end: true };
            }
            Err(interruption) => interruption,
        };
        Ended::interrupted(match interruption {
            Interrupted::Stopped(stop) => RunError::stopped(stop, &job.limits),
            Interrupted::Exit(code) => RunError::exit(code),
            Interrupted::Js(error) => self.rejected(&error, &self.source_of(taken)),
            Interrupted::Thrown(thrown) => classify(*thrown, &self.source_of(taken)),
            Interrupted::Broken(thrown) => crashed(classify(*thrown, &self.source_of(taken))),
            Interrupted::Host(message) => RunError::new("ExecutionError", Severity::Exception, message),
        })
    }

    /// What is to be known of a job's source to classify an error.
    fn source_of<'a>(&'a self, taken: &'a Taken<'_>) -> JobSource<'a> {
        let job = taken.job;
        JobSource {
            name: &job.name,
            url: taken.url.as_str(),
            source: &job.source,
            compiled: &job.compiled,
            prelude: taken.prelude,
            hide: job.hide.as_ref(),
            test: job.test,
            local: self.packages.local(),
            network: job.reach(),
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
        taken: &Taken<'_>,
        state: String,
        stats: &mut RunStats,
    ) -> Result<(Option<String>, Option<Thrown>), Interrupted> {
        // Nothing of the run's has been evaluated yet, so there was nothing to stop.
        let context = self.worker.js_runtime.main_context();
        let namespace = match &taken.function {
            Some(function) => {
                let start = Instant::now();
                let compiled = self.compile_job(taken.job, function, &taken.url).map_err(Interrupted::Host)?;
                stats.load = start.elapsed();
                self.tripwire.arm(self.worker.js_runtime.v8_isolate(), context);
                let start = Instant::now();
                let namespace = self.evaluate_job(function, &compiled);
                stats.evaluate = start.elapsed();
                namespace?
            }
            None => self.evaluate_module(taken, context, stats).await?,
        };
        let start = Instant::now();
        let call = {
            let runtime = &mut self.worker.js_runtime;
            let arguments = {
                deno_core::scope!(scope, runtime);
                let namespace = v8::Local::new(scope, namespace);
                let text = v8::String::new(scope, &state)
                    .ok_or_else(|| Interrupted::Host("the initial state is too large for V8".into()))?;
                drop(state);
                let options = v8::Object::new(scope);
                let key = v8::String::new(scope, "remove").expect("a short string");
                let remove: Vec<v8::Local<v8::Value>> = taken
                    .job
                    .remove_from_state
                    .iter()
                    .filter_map(|name| v8::String::new(scope, name))
                    .map(Into::into)
                    .collect();
                let remove = v8::Array::new_with_elements(scope, &remove);
                options.set(scope, key.into(), remove.into());
                [namespace, text.into(), options.into()].map(|value| v8::Global::new(scope, value))
            };
            runtime.call_with_args(&self.entry.run, &arguments)
        };
        let result = self.drive(Box::pin(call)).await;
        let end = Instant::now();
        stats.run = end - start;
        {
            let state = self.worker.js_runtime.op_state();
            let state = state.borrow();
            (stats.parse, stats.stringify) = state.borrow::<RunContext>().conversions(start, end);
        }
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

    /// Loads and evaluates a job that stays a module, with all that it imports.
    async fn evaluate_module(
        &mut self,
        taken: &Taken<'_>,
        context: v8::Global<v8::Context>,
        stats: &mut RunStats,
    ) -> Result<v8::Global<v8::Value>, Interrupted> {
        let start = Instant::now();
        let id = match self.worker.js_runtime.load_main_es_module(&taken.url).await {
            Ok(id) => id,
            Err(error) => return Err(self.load_error(error)),
        };
        stats.load = start.elapsed();
        self.tripwire.arm(self.worker.js_runtime.v8_isolate(), context);
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
        let runtime = &mut self.worker.js_runtime;
        let namespace = runtime.get_module_namespace(id).map_err(|error| match error.into_kind() {
            // What a module throws while it is evaluated is kept for those who ask for its exports.
            CoreErrorKind::Js(error) => Interrupted::Broken(Box::new(thrown_from(&error))),
            error => Interrupted::Host(error.to_string()),
        })?;
        deno_core::scope!(scope, runtime);
        let namespace: v8::Local<v8::Value> = v8::Local::new(scope, namespace).into();
        Ok(v8::Global::new(scope, namespace))
    }

    /// Compiles a job that is a function, unless it is compiled already.
    fn compile_job(
        &mut self,
        job: &Job,
        function: &Arc<JobFunction>,
        url: &Url,
    ) -> Result<v8::Global<v8::Function>, String> {
        if let Some(known) = self.compiled.as_ref().filter(|known| Arc::ptr_eq(&known.function, function)) {
            return Ok(known.compiled.clone());
        }
        delete_global(&mut self.worker.js_runtime, "__fnhostAdaptor");
        deno_core::scope!(scope, &mut self.worker.js_runtime);
        let text = |scope: &mut v8::PinScope<'_, '_>, text: &str| {
            v8::String::new(scope, text).map(|text| v8::Global::new(scope, text))
        };
        let (Some(source), Some(url)) = (text(scope, &function.source), text(scope, url.as_str())) else {
            return Err("the job is too large for V8".into());
        };
        let (source, url) = (v8::Local::new(scope, source), v8::Local::new(scope, url));
        let cache = function.code.get().map(|cache| &**cache);
        let (compiled, _) = ops::compile_function(scope, cache, source, url.into(), &JOB_PARAMETERS)
            .map_err(|error| format!("the compiled job does not parse: {error}"))?;
        let compiled = v8::Global::new(scope, compiled);
        let job = job.compiled.clone();
        self.compiled = Some(CompiledJob { job, function: function.clone(), compiled: compiled.clone() });
        Ok(compiled)
    }

    /// Calls a job that is a function. Returns what a module's namespace would be.
    fn evaluate_job(
        &mut self,
        function: &JobFunction,
        compiled: &v8::Global<v8::Function>,
    ) -> Result<v8::Global<v8::Value>, Interrupted> {
        let thrown = {
            deno_core::scope!(scope, &mut self.worker.js_runtime);
            let imports: Vec<v8::Local<v8::Value>> =
                function.imports.iter().map(|import| v8::Integer::new(scope, import.number()).into()).collect();
            let imports = v8::Array::new_with_elements(scope, &imports);
            let compiled = v8::Local::new(scope, compiled);
            let evaluate = v8::Local::new(scope, &self.entry.evaluate_job);
            let this = v8::undefined(scope).into();
            v8::tc_scope!(scope, scope);
            match evaluate.call(scope, this, &[compiled.into(), imports.into()]) {
                Some(namespace) => return Ok(v8::Global::new(scope, namespace)),
                None => scope.exception().map(|exception| JsError::from_v8_exception(scope, exception)),
            }
        };
        Err(match (self.stopped(), thrown) {
            (Some(stopped), _) => stopped,
            (None, Some(error)) => Interrupted::Broken(Box::new(thrown_from(&error))),
            (None, None) => Interrupted::Host("the job was stopped while it was loaded".into()),
        })
    }

    /// Why JavaScript was stopped, if it was.
    pub(super) fn stopped(&mut self) -> Option<Interrupted> {
        if let Some(stop) = self.tripwire.tripped() {
            return Some(Interrupted::Stopped(stop));
        }
        let state = self.worker.js_runtime.op_state();
        let state = state.borrow();
        state.try_borrow::<WatcherExited>()?;
        Some(Interrupted::Exit(state.try_borrow::<ExitCode>().map_or(0, ExitCode::get)))
    }

    /// Polls the event loop until `future` resolves, a limit is hit, or something goes wrong.
    async fn drive<T, E>(&mut self, mut future: impl Future<Output = Result<T, E>> + Unpin) -> Result<T, Interrupted>
    where
        CoreError: From<E>,
    {
        let tripwire = self.tripwire.clone();
        let result = tokio::select! {
            biased;
            stop = tripwire.wait() => return Err(Interrupted::Stopped(stop)),
            result = self.worker.js_runtime.with_event_loop_promise(&mut future, PollEventLoopOptions::default()) => result,
        };
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if let Some(stopped) = self.stopped() {
            return Err(stopped);
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
        if let Some(stop) = self.tripwire.tripped() {
            return Interrupted::Stopped(stop);
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

/// What the runtime is told of the program around it.
pub(super) fn bootstrap_options() -> BootstrapOptions {
    BootstrapOptions {
        user_agent: concat!("fnhost/", env!("CARGO_PKG_VERSION")).into(),
        has_node_modules_dir: true,
        mode: deno_runtime::WorkerExecutionMode::None,
        ..Default::default()
    }
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

/// The address of a job, by which its stack frames are known.
fn job_url(name: &str) -> Result<Url, String> {
    Url::parse(&format!("job:/{}", name.replace([' ', '?', '#', '%'], "_")))
        .map_err(|error| format!("{name} is no usable job name: {error}"))
}

/// Whether one of the runtime's own scripts is an ES module.
fn is_module(specifier: &str) -> bool {
    deno_snapshots::RESIDUAL_LAZY_JS.binary_search_by_key(&specifier, |(known, _)| known).is_err()
}

pub(super) fn delete_global(runtime: &mut deno_core::JsRuntime, name: &str) {
    let context = runtime.main_context();
    deno_core::scope!(scope, runtime);
    let global = v8::Local::new(scope, context).global(scope);
    let name = v8::String::new(scope, name).expect("a short string").into();
    global.delete(scope, name);
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
