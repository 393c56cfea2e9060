//! From a message to the end of its runs, durably.
//!
//! One way, no back and forth: [`Engine::receive`] keeps a message and the runs it starts in one transaction; the
//! scheduler claims due tasks; an attempt runs in an isolate; its result and what follows from it are kept in one
//! transaction again. What the engine holds in memory can be lost at any instant: the store has all that matters, and
//! leases show what was under way.
//!
//! Invariants. What was acknowledged is on disk. A task is run at least once, and a second time only if an attempt was
//! cut. Nothing waits in memory only. Every queue is bounded.

mod actions;
mod clock;
mod cron;
mod events;
mod execute;
mod ingest;
pub mod metrics;
mod observe;
mod places;
mod recent;
mod retention;
mod scheduler;
mod served;
mod trace;
mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use actions::{ActionError, RunRequest};
pub use clock::Clock;
pub use cron::{next_after, parse as parse_cron};
pub use events::{EndOf, Event, EventKind, Events};
pub use ingest::{Incoming, Receipt, Target};
pub use retention::RetentionPolicy;
pub use served::{Definition, Entrance, Served, Unready};

use self::places::{Place, Places};
use self::recent::Recent;
use self::turns::Turns;
use crate::isolate::Conditions;
use crate::model::{RunId, RunState, TaskId, Timestamp};
use crate::project::Project;
use crate::step::js::JsRunner;
use crate::store::{ClaimedTask, SecretKey, Store, StoreError};

/// How the engine is set.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a task stays taken without a sign of life.
    pub lease: Duration,
    /// Tasks of a workflow that may wait for an isolate, however long they take, so that isolates need not wait for the
    /// disk.
    pub ahead: usize,
    pub retention: RetentionPolicy,
}

impl Default for Options {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), ahead: 4, retention: RetentionPolicy::default() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the service is stopping")]
    Stopping,
    /// Whether a message is for a trigger cannot be said.
    #[error("the condition of the trigger `{trigger}` was not evaluated to its end: {reason}")]
    Undecided { trigger: String, reason: String },
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    runner: JsRunner,
    conditions: Conditions,
    clock: Clock,
    options: Options,
    events: Events,
    served: RwLock<Arc<Served>>,
    /// What was served last, as it was read.
    project: Mutex<Option<Project>>,
    /// Opens the credentials that the store keeps.
    secret_key: SecretKey,
    /// Versions that are not served any more, and still have runs.
    earlier: Mutex<HashMap<i64, Arc<Definition>>>,
    /// Who holds the leases: this engine, since it was started.
    owner: String,
    in_flight: Mutex<HashMap<Flight, InFlight>>,
    turns: Turns,
    /// How many tasks are taken at once.
    places: Arc<Places>,
    recent: Recent,
    /// Shared from a claim until what it gave counts as under way: in between, nobody could stop it.
    claiming: tokio::sync::RwLock<()>,
    /// What a clock is to do may have changed.
    timers: Notify,
    /// Nothing new is begun.
    shutdown: CancellationToken,
    /// What was under way has been waited for long enough.
    cut: CancellationToken,
    /// All is settled.
    stopped: CancellationToken,
    /// What begins attempts and runs; ends with the shutdown.
    loops: TaskTracker,
    /// Attempts.
    tasks: TaskTracker,
    /// One project at a time is got ready.
    serving: tokio::sync::Mutex<()>,
}

/// A task and the number of its attempt: the next attempt can begin before all of this one is put away.
type Flight = (TaskId, u32);

/// A task that is being worked on.
struct InFlight {
    run: RunId,
    cancel: CancellationToken,
}

/// An attempt that is under way: its lease is prolonged. Dropped, whatever became of the work, it is not any more: a
/// lease that is prolonged for ever leaves its task stuck.
struct Hold {
    shared: Arc<Shared>,
    flight: Flight,
    /// Stops the attempt.
    cancel: CancellationToken,
    place: Option<Place>,
}

impl Hold {
    /// Counts the attempt as ended.
    fn let_go(&mut self) {
        self.shared.in_flight.lock().remove(&self.flight);
        self.place = None;
    }

    /// The attempt has an isolate.
    fn began(&mut self) {
        self.place.iter_mut().for_each(Place::begin);
    }

    /// The attempt that began at this time is over.
    fn took(&self, since: Instant) {
        self.place.iter().for_each(|place| place.took(since));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Shared {
    /// Counts an attempt as under way until it is let go of, or what is given back is dropped.
    fn hold(self: &Arc<Self>, task: &ClaimedTask, place: Place) -> Hold {
        let flight = (task.task.id, task.task.attempts);
        let cancel = self.cut.child_token();
        self.in_flight.lock().insert(flight, InFlight { run: task.run.id, cancel: cancel.clone() });
        Hold { shared: self.clone(), flight, cancel, place: Some(place) }
    }

    /// Tells the attempts at a run's tasks to stop.
    async fn stop_attempts(&self, run: RunId) {
        let _none_is_between = self.claiming.write().await;
        let in_flight = self.in_flight.lock();
        in_flight.values().filter(|flight| flight.run == run).for_each(|flight| flight.cancel.cancel());
    }

    /// Whether attempts are being cut.
    fn stopping(&self) -> bool {
        self.cut.is_cancelled()
    }

    fn store_trouble(&self, error: &StoreError, what: &str) {
        metrics::store_error();
        tracing::warn!(%error, "{what}");
    }
}

impl Engine {
    /// Starts an engine that serves nothing yet. Must be called within a tokio runtime.
    pub async fn start(
        store: Arc<dyn Store>,
        secret_key: SecretKey,
        runner: JsRunner,
        options: Options,
    ) -> Result<Self, StoreError> {
        let clock = Clock::starting_after(store.latest().await?);
        if clock.ahead() > Duration::from_secs(1) {
            tracing::warn!(
                seconds = clock.ahead().as_secs(),
                "the machine's clock is behind what the store tells of; times are counted on from there"
            );
        }
        let slots = runner.pool.stats().slots;
        let places = Places::new(options.ahead);
        let shared = Shared {
            store,
            runner,
            conditions: Conditions::default(),
            clock,
            options,
            events: Events::default(),
            served: RwLock::default(),
            project: Mutex::default(),
            secret_key,
            earlier: Mutex::default(),
            owner: TaskId::new().to_string(),
            in_flight: Mutex::default(),
            turns: Turns::new(slots),
            places,
            recent: Recent::default(),
            claiming: tokio::sync::RwLock::default(),
            timers: Notify::new(),
            shutdown: CancellationToken::new(),
            cut: CancellationToken::new(),
            stopped: CancellationToken::new(),
            loops: TaskTracker::new(),
            tasks: TaskTracker::new(),
            serving: tokio::sync::Mutex::default(),
        };
        let engine = Self { shared: Arc::new(shared) };
        tokio::spawn(engine.clone().keep_leases());
        engine.shared.loops.spawn(engine.clone().run_tasks());
        engine.shared.loops.spawn(engine.clone().keep_time());
        engine.shared.loops.spawn(engine.clone().keep_house());
        Ok(engine)
    }

    /// Serves a project from now on. Runs that began with what was served before go on with that.
    pub async fn serve(&self, project: Project) -> Result<Vec<Unready>, StoreError> {
        let _one_at_a_time = self.shared.serving.lock().await;
        *self.shared.project.lock() = Some(project.clone());
        let now = self.now();
        let versions = self.shared.store.publish(&project.workflows, now).await?;
        let served = self.prepare(project, versions).await?;
        let unready = served.unready().collect();
        // A credential may have changed although no workflow did.
        self.shared.earlier.lock().clear();
        *self.shared.served.write() = Arc::new(served);
        self.shared.runner.pool.retire_kept();
        self.shared.timers.notify_one();
        self.shared.places.look_again();
        Ok(unready)
    }

    /// What would keep steps of a project from running, if it were served.
    pub async fn try_out(&self, project: Project) -> Result<Vec<Unready>, StoreError> {
        Ok(self.prepare(project, HashMap::new()).await?.unready().collect())
    }

    /// Gets a project ready to run.
    async fn prepare(&self, mut project: Project, versions: HashMap<String, i64>) -> Result<Served, StoreError> {
        project.credentials.extend(self.stored_credentials(&project.lacking).await?);
        let (runner, before, now) = (self.shared.runner.clone(), self.served(), self.now());
        // Loading adaptors takes time that the runtime's threads need for requests.
        let prepared = tokio::task::spawn_blocking(move || {
            let Project { dir, workflows, credentials, .. } = project;
            let definitions = workflows.into_iter().map(|workflow| {
                let version = versions.get(&workflow.name).copied().unwrap_or_default();
                let since = before.workflows.get(&workflow.name).map_or(now, |before| before.since);
                Arc::new(Definition::prepare(&runner, Arc::new(workflow), version, since, &credentials))
            });
            Served::new(dir, definitions.collect(), credentials)
        });
        match prepared.await {
            Ok(served) => Ok(served),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Serves what is served anew, as a credential in the store has changed.
    pub async fn refresh(&self) -> Result<Vec<Unready>, StoreError> {
        let project = self.shared.project.lock().clone();
        match project {
            Some(project) => self.serve(project).await,
            None => Ok(Vec::new()),
        }
    }

    /// Those of the credentials that the store has.
    async fn stored_credentials(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Value>, StoreError> {
        let mut found = BTreeMap::new();
        for name in names {
            let Some(sealed) = self.shared.store.credential(name).await? else { continue };
            let opened = self.shared.secret_key.open(name, &sealed).map_err(|error| error.to_string());
            match opened.and_then(|text| serde_json::from_slice(&text).map_err(|_| "it is not JSON".to_owned())) {
                Ok(value) => {
                    found.insert(name.clone(), value);
                }
                Err(reason) => tracing::error!(credential = name, "cannot use a credential of the store: {reason}"),
            }
        }
        Ok(found)
    }

    /// What is served now.
    pub fn served(&self) -> Arc<Served> {
        self.shared.served.read().clone()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    pub fn runner(&self) -> &JsRunner {
        &self.shared.runner
    }

    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// A version of a workflow, ready to run.
    async fn definition(&self, version: i64) -> Result<Option<Arc<Definition>>, StoreError> {
        let served = self.served();
        let known = served.version(version);
        if let Some(known) = known.or_else(|| self.shared.earlier.lock().get(&version).cloned()) {
            return Ok(Some(known));
        }
        let Some(workflow) = self.shared.store.workflow(version).await? else { return Ok(None) };
        let (runner, now) = (self.shared.runner.clone(), self.now());
        let credentials = served.clone();
        let prepare = move || Arc::new(Definition::prepare(&runner, workflow, version, now, &credentials.credentials));
        let definition = match tokio::task::spawn_blocking(prepare).await {
            Ok(definition) => definition,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        // One with the credentials of a project that is not served any more is not to be found later.
        let mut earlier = self.shared.earlier.lock();
        if Arc::ptr_eq(&served, &self.served()) {
            earlier.insert(version, definition.clone());
        }
        Ok(Some(definition))
    }

    /// Waits until a run has ended. None: it did not within the time given or before the engine stopped, or there is no such
    /// run.
    pub async fn end_of(&self, run: RunId, within: Duration) -> Result<Option<RunState>, StoreError> {
        let end = self.shared.events.end_of(run);
        // It may have ended before anybody listened.
        let Some(detail) = self.shared.store.run(run).await? else { return Ok(None) };
        if detail.run.state.is_final() {
            return Ok(Some(detail.run.state));
        }
        tokio::select! {
            biased;
            state = end.wait() => Ok(state),
            () = self.shared.stopped.cancelled() => Ok(None),
            () = tokio::time::sleep(within) => Ok(None),
        }
    }

    /// Begins nothing new and takes in nothing from now on. Waits for what is under way, at most so long; what is left is
    /// cut, and goes again at the next start.
    pub async fn drain(&self, within: Duration) {
        self.shared.shutdown.cancel();
        tracing::info!("stopping: what is under way may take up to {} s more", within.as_secs());
        self.shared.loops.close();
        self.shared.loops.wait().await;
        self.shared.tasks.close();
        if tokio::time::timeout(within, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.shared.tasks.len(), "attempts still under way are cut and will run again");
            self.shared.cut.cancel();
            // Long enough for V8 to give up and for the store to be told.
            let _ = tokio::time::timeout(Duration::from_secs(10), self.shared.tasks.wait()).await;
        }
        self.shared.stopped.cancel();
        self.shared.runner.pool.drain().await;
        self.shared.runner.pool.host().save_packs();
    }

    /// Whether it takes in messages.
    pub fn is_stopping(&self) -> bool {
        self.shared.shutdown.is_cancelled()
    }

    /// Waits until it takes in nothing more.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.shutdown.clone().cancelled_owned()
    }
}
