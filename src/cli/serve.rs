//! `fnhost serve`: a project, served until someone says stop.
//!
//! The order matters. The store is opened before anything listens, the port is taken before adaptors are loaded, so that
//! whoever watches sees a server that is alive and not ready; requests that come before the project is served wait for
//! the answer 503. At the end the same backwards: not ready, no new work, what is under way, the store.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::{demo, prepare, snapshots};
use crate::adaptor::progress::Silent;
use crate::adaptor::{AdaptorSpec, InstallOptions, Installed, Store as Adaptors, install};
use crate::config::{HttpConfig, JobConfig, StoreConfig, days};
use crate::engine::{Engine, Options, RetentionPolicy};
use crate::http::{self, Access, App};
use crate::isolate::{IsolatePool, Limits, PoolOptions, runs_within};
use crate::model::{StepKind, Workflow};
use crate::project::watch::{Snapshot, Watch};
use crate::project::{Loaded, Project};
use crate::step::js::{JsRunner, PrepareError};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{SecretKey, Store};
use crate::telemetry::{self, LogConfig};

/// How long requests may take to be answered once nothing is under way any more.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Serve a project: take messages in, keep them, and run its jobs on them
///
/// Messages come to POST /inbox and to webhooks under /i/. What is answered with 2xx is on disk, and runs, also if this
/// program or its machine stops in between. The project is read again when its files change, or on SIGHUP. SIGTERM ends
/// the server when what is under way has ended.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The directory of the project
    #[arg(value_name = "DIR", env = "PROJECT_DIR", default_value = ".")]
    pub dir: PathBuf,

    /// Serve an example, in a directory of its own, that needs no project
    #[arg(long)]
    pub demo: bool,

    /// Fail if an adaptor is not installed, instead of installing it
    #[arg(long)]
    no_install: bool,

    /// Read the project once, and not when its files change
    #[arg(long, env = "FNHOST_NO_RELOAD")]
    no_reload: bool,

    #[command(flatten)]
    http: HttpConfig,

    #[command(flatten)]
    jobs: JobConfig,

    #[command(flatten)]
    store: StoreConfig,

    #[command(flatten)]
    log: LogConfig,
}

const EXAMPLES: &str = "\
Examples:
  fnhost serve --demo                            an example to try, without a project
  fnhost serve ./project --port 8080
  curl -d '{\"form\":\"patient-list\"}' -H 'content-type: application/json' localhost:4001/inbox

Settings come from flags, then the environment, then .env and fnhost.yaml in the project, where the names of the
environment stand for the flags: FNHOST_CONCURRENCY=4 in .env, or concurrency: 4 in fnhost.yaml.";

pub fn run(args: Args) -> ExitCode {
    if let Err(message) = telemetry::init(&args.log).and_then(|()| http::start_metrics()) {
        eprintln!("error: {message}");
        return Exit::Usage.into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return Exit::Host.into();
        }
    };
    let exit = runtime.block_on(serve(args)).unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        failure.exit
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit.into()
}

async fn serve(mut args: Args) -> Result<Exit, Failure> {
    let started = Instant::now();
    let mut signals = Signals::listen()?;
    telemetry::trace::start().map_err(Failure::usage)?;
    tokio::spawn(telemetry::metrics::keep_tidy());
    if args.demo {
        args.dir = demo::directory()?;
    }
    tracing::info!(http = ?args.http, jobs = ?args.jobs, store = ?args.store, log = ?args.log, "settings");
    let loaded = load(&args.dir)?;
    let (store, secret_key) = open_store(&args)?;
    let listener = listen(&args.http).await?;
    let address = listener.local_addr().map_err(|error| Failure::host(error.to_string()))?;

    let adaptors = Adaptors::at(&args.dir);
    let installed = install_missing(&args, &adaptors, &loaded.project.workflows).await?;
    let runner = runner(&args.jobs, adaptors, &installed, data_dir(&args).join("packs"))?;
    let adaptors: Vec<_> = installed.iter().map(|adaptor| adaptor.specifier.clone()).collect();
    load_together(&runner.pool, &adaptors).await;
    let options = Options { lease: args.jobs.lease.0, retention: retention(&args.store), ..Options::default() };
    let engine = Engine::start(store.clone(), secret_key.clone(), runner, options).await.map_err(store_failure)?;
    let access = Arc::new(Access::new(store.clone(), args.http.no_auth));
    let config = Arc::new(args.http.clone());
    let app = App { engine: engine.clone(), access: access.clone(), config, secret_key };
    let stop = CancellationToken::new();
    let tls = http::Tls::from_config(&args.http).map_err(|error| Failure::usage(error.to_string()))?;
    let server = tokio::spawn(http::serve(listener, tls, app, stop.clone()));

    serve_project(&engine, loaded.project).await?;
    first_token(&access, &args.http, &address).await?;
    warn_if_open(&args.http, &address);
    let url = url(&args.http, &address);
    tracing::info!(url, ms = started.elapsed().as_millis() as u64, "serving {}", args.dir.display());

    let args = Arc::new(args);
    let watching = tokio::spawn(reload_on_change(engine.clone(), args.clone(), loaded.files));
    let learning = tokio::spawn(snapshots::keep_current(engine.clone(), adaptors));
    signals.reload_until_stop(&engine, &args).await;
    watching.abort();
    learning.abort();
    let shut_down = async {
        // Whoever asks in the meantime is told that the service is stopping, rather than that there is none.
        engine.drain(args.jobs.drain_timeout.0).await;
        stop.cancel();
        // Requests that waited for their runs have their answers now.
        if tokio::time::timeout(LAST_ANSWERS, server).await.is_err() {
            tracing::warn!("connections that are still open are cut");
        }
        store.close().await;
        let _ = tokio::task::spawn_blocking(telemetry::trace::stop).await;
    };
    tokio::select! {
        () = shut_down => tracing::info!("stopped"),
        () = signals.stop() => tracing::warn!("stopped at once: what was under way runs again at the next start"),
    }
    Ok(Exit::Completed)
}

/// Reads the project; what is wrong with it goes to the log, in the form that `fnhost check` gives it.
fn load(dir: &Path) -> Result<Loaded, Failure> {
    match Project::load(dir, &|name| std::env::var(name).ok()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                tracing::warn!("{}", warning.render("warning"));
            }
            Ok(loaded)
        }
        Err(broken) => Err(Failure::usage(format!("the project cannot be served\n{broken}"))),
    }
}

fn data_dir(args: &Args) -> PathBuf {
    args.store.data_dir.clone().unwrap_or_else(|| args.dir.join(".fnhost"))
}

fn open_store(args: &Args) -> Result<(Arc<dyn Store>, SecretKey), Failure> {
    let dir = data_dir(args);
    std::fs::create_dir_all(&dir)
        .map_err(|error| Failure::host(format!("cannot make the data directory {}: {error}", dir.display())))?;
    tempfile::tempfile_in(&dir).map_err(|error| {
        Failure::host(format!(
            "cannot write in the data directory {}: {error}; make it writable for the user that runs fnhost, or name \
             another with --data-dir",
            dir.display()
        ))
    })?;
    let key = match std::env::var("FNHOST_SECRET_KEY") {
        Ok(key) => {
            SecretKey::from_base64(&key).map_err(|error| Failure::usage(format!("FNHOST_SECRET_KEY: {error}")))?
        }
        Err(_) => SecretKey::from_file(&dir.join("secret.key")).map_err(|error| Failure::host(error.to_string()))?,
    };
    let store = SqliteStore::open(dir.join("fnhost.db"), &SqliteOptions::default()).map_err(store_failure)?;
    Ok((Arc::new(store), key))
}

fn store_failure(error: impl std::fmt::Display) -> Failure {
    Failure::host(error.to_string())
}

async fn listen(config: &HttpConfig) -> Result<TcpListener, Failure> {
    if config.no_auth && !config.listen.host.is_loopback() {
        return Err(Failure::usage(format!(
            "--no-auth goes with a loopback address only: whoever reaches {} could do everything",
            config.listen.host
        )));
    }
    let address = SocketAddr::new(config.listen.host, config.listen.port);
    TcpListener::bind(address).await.map_err(|error| {
        Failure::host(format!("cannot listen on {address}: {error}; is another server running? Take another --port"))
    })
}

/// The adaptors of the project. What is missing is installed now: never while a request waits.
async fn install_missing(args: &Args, adaptors: &Adaptors, workflows: &[Workflow]) -> Result<Vec<Installed>, Failure> {
    let specs = specs_of(workflows)?;
    let find = |spec: &AdaptorSpec| adaptors.find(spec).map_err(|error| Failure::host(error.to_string()));
    let mut missing = Vec::new();
    for spec in &specs {
        if find(spec)?.is_none() {
            missing.push(spec.clone());
        }
    }
    if !missing.is_empty() {
        let names = missing.iter().map(ToString::to_string).collect::<Vec<_>>();
        if args.no_install {
            return Err(Failure::host(format!("not installed: {}; run: fnhost install", names.join(", "))));
        }
        tracing::info!("installing {}", names.join(", "));
        let options = InstallOptions {
            npmrc_dir: Some(args.dir.clone()),
            ca_file: args.jobs.cafile.clone(),
            ..Default::default()
        };
        let store = adaptors.clone();
        let installed = tokio::task::spawn_blocking(move || install(&store, &missing, &options, &Silent)).await;
        installed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(|error| {
            let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            Failure::host(format!("cannot install {}: {}{hint}", names.join(", "), error.explain()))
        })?;
    }
    let mut found = Vec::new();
    for spec in &specs {
        found.extend(find(spec)?);
    }
    Ok(found)
}

fn specs_of(workflows: &[Workflow]) -> Result<Vec<AdaptorSpec>, Failure> {
    let mut specs = Vec::new();
    for step in workflows.iter().flat_map(|workflow| &workflow.steps) {
        let StepKind::Js(js) = &step.kind;
        for name in &js.adaptors {
            let spec = AdaptorSpec::parse(name).map_err(|error| Failure::usage(error.to_string()))?;
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        }
    }
    Ok(specs)
}

/// Has the isolates of this process start from a snapshot of all its adaptors.
async fn load_together(pool: &IsolatePool, adaptors: &[String]) {
    let (host, specifiers) = (pool.host().clone(), adaptors.to_vec());
    // Jobs run without it, too.
    let _ = tokio::task::spawn_blocking(move || snapshots::make(&host, &specifiers)).await;
    pool.load_together(adaptors).await;
}

fn runner(jobs: &JobConfig, adaptors: Adaptors, installed: &[Installed], cache: PathBuf) -> Result<JsRunner, Failure> {
    let ca_file = prepare::ca_file(jobs.cafile.as_deref(), |warning| tracing::warn!("{warning}"))?;
    let host = prepare::host(&adaptors, installed, ca_file, Some(cache));
    let mut options = PoolOptions::default();
    // One more than a workflow may have: the others' turn always comes.
    options.slots = jobs.concurrency.unwrap_or(options.slots).max(1) + 1;
    options.memory = jobs.total_memory.map_or(options.memory, |memory| memory.bytes());
    options.runs = jobs.in_flight.unwrap_or_else(|| runs_within(options.memory)).max(options.slots);
    options.spares = jobs.spares.unwrap_or(2 * options.slots);
    options.kept.most = jobs.kept.unwrap_or(options.kept.most);
    // What waits must leave room for what runs; when memory is short, it goes first anyway.
    options.kept.memory = options.memory / 2;
    let limits = Limits {
        wall: jobs.timeout.0,
        heap: jobs.memory.bytes(),
        state: jobs.state_limit.bytes(),
        log: jobs.log_limit.bytes(),
        ..Limits::default()
    };
    Ok(JsRunner { store: adaptors, pool: IsolatePool::new(host, options), limits })
}

fn retention(config: &StoreConfig) -> RetentionPolicy {
    RetentionPolicy {
        runs: days(config.keep_runs),
        failed_runs: days(config.keep_failed),
        logs: days(config.keep_logs),
        messages: days(config.keep_messages),
    }
}

/// Serves a project from now on, with its adaptors loaded and isolates made ahead.
async fn serve_project(engine: &Engine, project: Project) -> Result<(), Failure> {
    let unready = engine.serve(project).await.map_err(store_failure)?;
    for unready in unready {
        tracing::error!("{unready}");
    }
    let served = engine.served();
    let sets: BTreeSet<Vec<String>> =
        served.workflows.values().flat_map(|definition| definition.adaptor_sets()).map(<[String]>::to_vec).collect();
    let (pool, heap) = (engine.runner().pool.clone(), engine.runner().limits.heap);
    // Jobs run without this too, only later.
    tokio::spawn(async move {
        for set in sets {
            if let Err(error) = pool.warm(&set, heap).await {
                tracing::warn!(adaptors = set.join(", "), %error, "cannot make isolates ahead");
            }
        }
    });
    Ok(())
}

/// Prints the token that the first start makes: it is kept nowhere in the clear.
async fn first_token(access: &Access, config: &HttpConfig, address: &SocketAddr) -> Result<(), Failure> {
    if config.no_auth {
        return Ok(());
    }
    if let Some(token) = access.create_first().await.map_err(store_failure)? {
        eprintln!(
            "\nA token for the pages and the API, shown this once. More: fnhost token --help\n\n    {token}\n\nSign in at {}\n",
            url(config, address)
        );
    }
    Ok(())
}

fn warn_if_open(config: &HttpConfig, address: &SocketAddr) {
    if address.ip().is_loopback() {
        return;
    }
    if config.keyed_topics.is_empty() {
        tracing::warn!(
            "everyone who reaches {address} can post to the inbox: set --keyed-topics inbox to ask for a key"
        );
    }
    if config.listen.tls_cert.is_none() {
        tracing::warn!("{address} is served without TLS: put a proxy in front, or set --tls-cert and --tls-key");
    }
}

fn url(config: &HttpConfig, address: &SocketAddr) -> String {
    match &config.host_url {
        Some(url) if url.contains("://") => url.clone(),
        _ => format!("{}://{address}", config.listen.scheme()),
    }
}

/// Reads the project again whenever its files change.
async fn reload_on_change(engine: Engine, args: Arc<Args>, mut files: Snapshot) {
    if args.no_reload {
        return;
    }
    loop {
        Watch::new(&args.dir, files).next().await;
        files = reload(&engine, &args).await;
    }
}

/// Reads the project again. A broken one changes nothing but the log. Gives the files to watch from now on.
async fn reload(engine: &Engine, args: &Args) -> Snapshot {
    let dir = args.dir.clone();
    let loaded = tokio::task::spawn_blocking(move || Project::load(&dir, &|name| std::env::var(name).ok())).await;
    match loaded {
        Ok(Ok(loaded)) => {
            match serve_instead(engine, args, loaded.project).await {
                Ok(()) => tracing::info!("the project was read again"),
                Err(failure) => tracing::error!(
                    "the project has changed and cannot be served; the one before is served still\n{failure}"
                ),
            }
            loaded.files
        }
        Ok(Err(broken)) => {
            tracing::error!("the project has changed and is broken; the one before is served still\n{broken}");
            broken.files
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Serves a project instead of the one before, unless one of its jobs cannot be compiled.
async fn serve_instead(engine: &Engine, args: &Args, project: Project) -> Result<(), Failure> {
    install_missing(args, &engine.runner().store, &project.workflows).await?;
    let unready = engine.try_out(project.clone()).await.map_err(store_failure)?;
    let broken: Vec<String> = unready
        .iter()
        .filter(|unready| matches!(*unready.error, PrepareError::Compile(_)))
        .map(ToString::to_string)
        .collect();
    match broken.is_empty() {
        true => serve_project(engine, project).await,
        false => Err(Failure::host(broken.join("\n\n"))),
    }
}

/// What the system tells the server.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::host(format!("cannot listen to signals: {error}")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn reload_until_stop(&mut self, engine: &Engine, args: &Args) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => drop(reload(engine, args).await),
            }
        }
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
