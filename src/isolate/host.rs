//! What all isolates of a process share: the packages on disk, what is known of each set of adaptors, and the threads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::time::{Duration, Instant};

use super::authorities::Authorities;
use super::custody::{self, Vigil};
use super::error::{RunError, Severity};
use super::hash_seed;
use super::isolate_thread::{IsolateThread, Order, Plan, Purpose, release_memory};
use super::job::{Job, LogSink, Outcome};
use super::limits::Limits;
use super::mapped;
use super::pack::{self, Evaluated, Footprint, Pack};
use super::packages::{LocalAdaptor, Packages};
use super::permissions::Network;
use super::snapshot::{self, Kept};
use super::threads::Threads;
use crate::compile::{self, Dialect};

/// What a host needs to know once.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Directory that holds `node_modules`.
    pub store: PathBuf,
    /// Adaptors outside the store.
    pub local_adaptors: Vec<LocalAdaptor>,
    /// PEM file of further certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Where to keep what is made of the adaptors if the store cannot be written.
    pub cache: Option<PathBuf>,
    /// Load adaptors through the ordinary module graph instead of packs: slower, but nothing of ours between V8 and
    /// the package when a fault is searched.
    pub without_packs: bool,
    /// Leave requests to undici, which adaptors send them with, instead of the program's own client.
    pub without_http_client: bool,
}

/// How long to wait for isolates that have nothing to do to end. One takes some milliseconds.
const LAST_ISOLATES: Duration = Duration::from_secs(1);

/// Runs jobs against the adaptors of one store. Cheap to clone; shared by all isolates of the process.
#[derive(Clone)]
pub struct Host {
    pub(super) packages: Arc<Packages>,
    pub(super) authorities: Arc<Authorities>,
    pub(super) threads: Threads,
    /// Bytes in ArrayBuffers of all isolates.
    pub(super) buffers: Arc<AtomicUsize>,
    /// Directory of packs in the store.
    pack_dir: Arc<PathBuf>,
    /// Where packs and snapshots are kept if not there.
    other_pack_dir: Option<Arc<PathBuf>>,
    without_packs: bool,
    pub(super) without_http_client: bool,
    options: Arc<HostOptions>,
    /// A set that others are part of, which they are loaded from.
    whole: Arc<RwLock<Option<Arc<AdaptorSet>>>>,
    adaptors: Arc<Mutex<HashMap<AdaptorKey, Preparation>>>,
    head_start: Arc<Mutex<Option<HeadStart>>>,
}

/// An isolate that is made while the pack of its adaptors is read. Dropped without having been used, it is waited for: with
/// it goes what all isolates of a process share, and the process must not end in the middle of its making.
struct HeadStart {
    isolate: Option<IsolateThread>,
    threads: Threads,
    key: AdaptorKey,
    /// Fingerprint of the pack that the snapshot belongs to.
    pack: u64,
    snapshot: Kept,
    heap: usize,
}

impl HeadStart {
    fn suits(&self, plan: &Plan) -> bool {
        let snapshot = plan.snapshot.map(<[u8]>::as_ptr);
        snapshot == Some(self.snapshot.snapshot.as_ptr()) && plan.heap == self.heap && plan.purpose == Purpose::Work
    }
}

impl Drop for HeadStart {
    fn drop(&mut self) {
        if self.isolate.take().is_some() {
            self.threads.end();
        }
    }
}

/// Sorted import specifiers.
pub(super) type AdaptorKey = Vec<String>;

/// The place of a set of adaptors, locked while somebody gets it ready, so that nobody does so twice.
type Preparation = Arc<Mutex<Option<Arc<AdaptorSet>>>>;

/// Some adaptors that a job uses together.
pub struct AdaptorSet {
    /// Import specifier → exported names.
    pub exports: HashMap<String, Vec<String>>,
    /// Why these adaptors are loaded through the ordinary module graph, if they are.
    pub unpacked: Option<String>,
    pub(super) pack: Option<Arc<Pack>>,
    /// What its isolates start from, if there is one.
    snapshot: Option<Kept>,
    /// That of the last run, by which a warm isolate guesses what the next one will need.
    footprint: Mutex<Arc<Footprint>>,
    /// A run explores.
    is_explored: AtomicBool,
    file: PathBuf,
}

impl AdaptorSet {
    /// Some of these adaptors, if they are all among them.
    fn part(&self, key: &AdaptorKey) -> Option<Self> {
        let exports = key.iter().map(|name| Some((name.clone(), self.exports.get(name)?.clone())));
        Some(Self {
            exports: exports.collect::<Option<_>>()?,
            unpacked: None,
            pack: self.pack.clone(),
            snapshot: self.snapshot,
            footprint: Mutex::default(),
            is_explored: AtomicBool::default(),
            file: self.file.clone(),
        })
    }

    /// Whether the isolate of a run of this job can be kept. In a module graph a job is evaluated once for all.
    pub(super) fn lets_keep(&self, job: &Job) -> bool {
        self.pack.as_ref().is_some_and(|pack| pack.job(&job.compiled.code).is_some())
    }

    /// What the last run loaded.
    pub(super) fn footprint(&self) -> Arc<Footprint> {
        self.footprint.lock().expect("footprint").clone()
    }

    /// Remembers what a run loaded. Returns whether it should be on disk soon.
    pub(super) fn set_footprint(&self, footprint: Footprint) -> bool {
        self.is_explored.store(false, Ordering::Relaxed);
        *self.footprint.lock().expect("footprint") = Arc::new(footprint);
        self.pack.as_ref().is_some_and(|pack| pack.take_learned())
    }

    /// An isolate for these adaptors with this limit of V8's heap in bytes.
    fn plan(&self, heap: usize) -> Plan {
        let snapshot = self.snapshot.map(|kept| kept.snapshot);
        Plan { snapshot, pack: self.pack.clone(), ..Plan::plain(heap) }
    }

    /// An isolate for a run, likewise.
    pub(super) fn plan_for_work(&self, heap: usize) -> Plan {
        Plan { purpose: Purpose::Work, ..self.plan(heap) }
    }

    /// An isolate for a run that is to explore, if one is: nothing is loaded in it, so that the run shows what it needs.
    pub(super) fn plan_to_explore(&self, heap: usize) -> Option<Plan> {
        let is_wanted = self.pack.as_ref()?.wants_exploration();
        // Without a snapshot, every run does.
        let explores = self.snapshot.is_some() && is_wanted && !self.is_explored.swap(true, Ordering::Relaxed);
        explores.then(|| Plan { snapshot: None, ..self.plan_for_work(heap) })
    }

    /// No isolate starts from it any more.
    fn leave(&self) {
        self.pack.iter().for_each(|pack| pack.leave());
        self.snapshot.iter().for_each(|kept| mapped::leave(kept.snapshot));
    }

    /// Whether no better snapshot could be made now: it holds what runs are known to load, or a run is yet to explore.
    fn snapshot_is_current(&self) -> bool {
        let habits = self.pack.as_ref().map(|pack| pack.habits()).unwrap_or_default();
        self.snapshot.is_some_and(|kept| kept.habits == habits.fingerprint() || habits.want_exploration())
    }
}

/// Whether files can be put into a directory, which is made if need be.
fn is_writable(directory: &Path) -> bool {
    std::fs::create_dir_all(directory).and_then(|()| tempfile::tempfile_in(directory)).is_ok()
}

/// An isolate that is there and does nothing.
#[allow(dead_code)] // held, not read
pub struct IdleIsolate(IsolateThread);

/// The key under which a set of adaptors is known, whatever the order in which they are named.
pub(super) fn adaptor_key(specifiers: &[String]) -> AdaptorKey {
    let mut key = specifiers.to_vec();
    key.sort();
    key.dedup();
    key
}

impl Host {
    pub fn new(options: HostOptions) -> Self {
        let pack_dir = options.store.join("node_modules/.fnhost/packs");
        hash_seed::adopt(&pack_dir);
        let other_pack_dir = options.cache.clone().filter(|_| !is_writable(&pack_dir));
        other_pack_dir.iter().for_each(|other| hash_seed::adopt(other));
        Self {
            packages: Arc::new(Packages::new(&options.store, &options.local_adaptors)),
            pack_dir: Arc::new(pack_dir),
            other_pack_dir: other_pack_dir.map(Arc::new),
            without_packs: options.without_packs,
            without_http_client: options.without_http_client,
            whole: Arc::default(),
            authorities: Arc::new(Authorities::new(options.ca_file.clone())),
            options: Arc::new(options),
            threads: Threads::default(),
            buffers: Arc::default(),
            adaptors: Arc::default(),
            head_start: Arc::default(),
        }
    }

    /// Begins with an isolate for a run with these adaptors and this limit of the heap in bytes, before they are ready. For
    /// a process with one run. Does nothing where it is not known yet what that run's isolate is to start from.
    pub fn start_early(&self, specifiers: &[String], heap: usize) {
        let key = adaptor_key(specifiers);
        if self.without_packs {
            return;
        }
        let Some(title) = self.places(&pack_name(&key)).find_map(|file| pack::title(&file)) else { return };
        let Some(snapshot) = snapshot::load(&self.snapshot_file(&key), title.fingerprint) else { return };
        if title.wants_exploration {
            return;
        }
        let plan = Plan {
            snapshot: Some(snapshot.snapshot),
            purpose: Purpose::Work,
            ends_with_process: true,
            ..Plan::plain(heap)
        };
        // A host of its own: the isolate must not keep what ends it.
        let host = Self { head_start: Arc::default(), ..self.clone() };
        let isolate = IsolateThread::start(&host, plan).ok();
        let (threads, pack) = (self.threads.clone(), title.fingerprint);
        *self.head_start() = Some(HeadStart { isolate, threads, key, pack, snapshot, heap });
    }

    fn head_start(&self) -> MutexGuard<'_, Option<HeadStart>> {
        self.head_start.lock().expect("nothing panics while it holds the head start")
    }

    /// Gets a set of adaptors ready: from memory, from disk, or by loading them once in an isolate of their own to
    /// see what they export, and packing them. Blocks while it does.
    pub fn prepare(&self, specifiers: &[String]) -> Result<Arc<AdaptorSet>, RunError> {
        let key = adaptor_key(specifiers);
        let preparation = self.adaptors.lock().expect("adaptor sets").entry(key.clone()).or_default().clone();
        let mut prepared = preparation.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(set) = &*prepared {
            return Ok(set.clone());
        }
        let set = Arc::new(self.load_or_build(&key)?);
        *prepared = Some(set.clone());
        Ok(set)
    }

    /// A set of adaptors that is ready already.
    pub(super) fn prepared(&self, key: &AdaptorKey) -> Option<Arc<AdaptorSet>> {
        let preparation = self.adaptors.lock().expect("adaptor sets").get(key).cloned()?;
        // Locked: somebody is still at it.
        preparation.try_lock().ok()?.clone()
    }

    fn load_or_build(&self, key: &AdaptorKey) -> Result<AdaptorSet, RunError> {
        if let Some(part) = self.part(key) {
            return Ok(part);
        }
        if let Some(stored) = self.stored(key) {
            return Ok(stored);
        }
        let entries = self.probe(key)?;
        let built = if self.without_packs {
            Err("packs are off".to_owned())
        } else {
            pack::build(&self.packages, entries.clone()).map_err(|error| error.to_string())
        };
        let set = self.set(key, entries.into_iter().collect(), built);
        // Now, not at the end: a process that is killed need not have packed for nothing.
        set.pack.iter().for_each(|pack| save(pack, &set.file));
        Ok(set)
    }

    /// A set whose pack is on disk.
    fn stored(&self, key: &AdaptorKey) -> Option<AdaptorSet> {
        if self.without_packs {
            return None;
        }
        Packages::refresh();
        let pack =
            self.places(&pack_name(key)).find_map(|file| pack::load(&file).filter(|pack| self.is_current(pack)))?;
        let exports = pack.entries.iter().map(|(name, entry)| (name.clone(), entry.exports.clone())).collect();
        Some(self.set(key, exports, Ok(pack)))
    }

    fn set(&self, key: &AdaptorKey, exports: HashMap<String, Vec<String>>, pack: Result<Pack, String>) -> AdaptorSet {
        let (pack, unpacked) = match pack {
            Ok(pack) => (Some(Arc::new(pack)), None),
            Err(reason) => (None, Some(reason)),
        };
        let snapshot = pack.as_ref().and_then(|pack| self.snapshot(key, pack));
        let file = self.place(&pack_name(key));
        AdaptorSet {
            exports,
            unpacked,
            pack,
            snapshot,
            footprint: Mutex::default(),
            is_explored: AtomicBool::default(),
            file,
        }
    }

    /// The snapshot for a pack, if there is one. One that an isolate starts from already is not mapped again: a process can
    /// only use one.
    fn snapshot(&self, key: &AdaptorKey, pack: &Pack) -> Option<Kept> {
        let early = self.head_start();
        match &*early {
            Some(early) if early.key == *key && early.pack == pack.fingerprint => Some(early.snapshot),
            _ => snapshot::load(&self.snapshot_file(key), pack.fingerprint),
        }
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
        let job = listing(specifiers)?;
        let outcome = self.run_in(set.plan(job.limits.heap), job, "{}".into(), Box::new(|_| {}));
        self.save_packs();
        // Packing takes more than all that follows.
        release_memory();
        outcome.error.map_or(Ok(()), Err)
    }

    /// Tells which modules of these adaptors' pack are to be evaluated in a snapshot: of those that runs are known to need,
    /// or else of those that load with the adaptors, the ones that may be.
    pub(super) fn rehearse(&self, specifiers: &[String]) -> Result<(Arc<AdaptorSet>, Vec<Evaluated>), RunError> {
        let set = self.prepare(specifiers)?;
        let are_known = set.pack.as_ref().is_some_and(|pack| pack.habits().are_known());
        let job = listing(if are_known { &[] } else { specifiers })?;
        let plan = Plan { purpose: Purpose::Rehearsal, snapshot: None, ..set.plan(job.limits.heap) };
        let outcome = self.run_in(plan, job, "{}".into(), Box::new(|_| {}));
        outcome.error.map_or(Ok((set, outcome.footprint.unwrap_or_default().modules)), Err)
    }

    /// Has a snapshot made for these adaptors by `program`, this very one, if they have none that holds what their runs are
    /// known to load. A process that has isolates already cannot use it unless it takes it up. Tells whether there is one
    /// now; without, runs only take longer. Blocks while it is made, a quarter of a second.
    pub fn make_snapshot(&self, program: &Path, specifiers: &[String]) -> bool {
        let key = adaptor_key(specifiers);
        if self.without_packs {
            return false;
        }
        if let Some(set) = self.stored(&key).filter(AdaptorSet::snapshot_is_current) {
            // What is loaded together stays as it is until another is taken up.
            if self.part(&key).is_none() {
                let preparation = self.adaptors.lock().expect("adaptor sets").entry(key).or_default().clone();
                preparation.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| Arc::new(set));
            }
            return true;
        }
        let file = self.snapshot_file(&key);
        let directory = file.parent().unwrap_or(Path::new("."));
        // Where nothing can be kept, there would be nothing to gain. The other process takes over the seed of this one.
        if !is_writable(directory) || hash_seed::keep(directory).is_err() {
            return false;
        }
        let made = snapshot::commission(program, &self.options, &key);
        if let Err(reason) = &made {
            tracing::warn!(reason, "cannot make a snapshot: isolates take longer to start");
        }
        made.is_ok()
    }

    /// Whether runs with these adaptors could start from a snapshot, or from a better one, and do not: adaptors that are not
    /// among those which are loaded together could be.
    pub fn lacks_snapshot(&self, specifiers: &[String]) -> bool {
        let key = adaptor_key(specifiers);
        let lacks = |set: &AdaptorSet| set.pack.is_some() && !set.snapshot_is_current();
        match self.whole().as_ref() {
            Some(whole) => whole.part(&key).is_none_or(|part| lacks(&part)),
            None => self.prepared(&key).is_some_and(|set| lacks(&set)),
        }
    }

    /// From now on, all sets of these adaptors are loaded from one pack and one snapshot, which a process can have only one
    /// of. The isolate that comes back is to be kept for as long as there may be others.
    pub fn load_together(&self, specifiers: &[String]) -> Option<IdleIsolate> {
        let set = self.prepare(specifiers).ok()?;
        set.pack.as_ref()?;
        *self.whole_mut() = Some(set.clone());
        self.idle_isolate(&set)
    }

    /// These adaptors as they are on disk now, if there is a snapshot for them. Blocks while they are read.
    pub fn load_again(&self, specifiers: &[String]) -> Option<Arc<AdaptorSet>> {
        self.stored(&adaptor_key(specifiers)).filter(|set| set.snapshot.is_some()).map(Arc::new)
    }

    /// Loads all sets of these adaptors from `set`, as [`Self::load_together`], instead of what they were loaded from until
    /// now. That takes an end of all isolates, which is waited for a little. Tells whether it is done, and gives the
    /// isolate to be kept, which those before must have been dropped for.
    pub(super) fn take_up(&self, set: &Arc<AdaptorSet>) -> (bool, Option<IdleIsolate>) {
        // Whoever gets adaptors ready waits, so as not to load them alone.
        let mut whole = self.whole_mut();
        let isolate = if snapshot::is_free_within(LAST_ISOLATES) { self.idle_isolate(set) } else { None };
        if isolate.is_none() {
            return (false, whole.as_ref().and_then(|whole| self.idle_isolate(whole)));
        }
        let before = whole.replace(set.clone());
        for (key, preparation) in &*self.adaptors.lock().expect("adaptor sets") {
            // Locked: whoever gets these ready waits for the whole.
            if let (Ok(mut prepared), Some(part)) = (preparation.try_lock(), set.part(key)) {
                *prepared = Some(Arc::new(part));
            }
        }
        before.iter().for_each(|before| before.leave());
        (true, isolate)
    }

    /// An isolate that starts as those for runs with these adaptors do, and holds what they share. None if there is one
    /// already that shares something else.
    fn idle_isolate(&self, set: &AdaptorSet) -> Option<IdleIsolate> {
        let plan = set.plan(Limits::default().heap);
        let wanted = plan.snapshot;
        let (sender, made) = mpsc::sync_channel(1);
        let isolate = IsolateThread::start_and_tell(self, plan, move |made| {
            let _ = sender.send(made);
        });
        made.recv().ok()?;
        isolate.ok().filter(|_| snapshot::is_in_use(wanted)).map(IdleIsolate)
    }

    fn whole(&self) -> RwLockReadGuard<'_, Option<Arc<AdaptorSet>>> {
        self.whole.read().expect("nothing panics while it holds what all adaptors are loaded from")
    }

    fn whole_mut(&self) -> RwLockWriteGuard<'_, Option<Arc<AdaptorSet>>> {
        self.whole.write().expect("nothing panics while it holds what all adaptors are loaded from")
    }

    /// These adaptors as part of the whole, if they are.
    fn part(&self, key: &AdaptorKey) -> Option<AdaptorSet> {
        self.whole().as_ref()?.part(key)
    }

    pub(super) fn snapshot_file(&self, key: &AdaptorKey) -> PathBuf {
        self.place(&format!("{}.snapshot", file_name(key)))
    }

    /// Where something is to be kept that was made of adaptors.
    fn place(&self, name: &str) -> PathBuf {
        self.other_pack_dir.as_ref().unwrap_or(&self.pack_dir).join(name)
    }

    /// Where a pack may be: that of a store which cannot be written is good until runs have shown what they need.
    fn places(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let other = self.other_pack_dir.as_ref().map(|other| other.join(name));
        other.into_iter().chain([self.pack_dir.join(name)])
    }

    /// The pack of a set of adaptors for another place: as if the store were in the directory `root`, with files of the
    /// time `modified` (nanoseconds since 1970). The file's name in `node_modules/.fnhost/packs`, and its bytes, which
    /// depend on the packages, the build of this program and the two arguments alone. None if they cannot be packed.
    pub fn pack_for(
        &self,
        specifiers: &[String],
        root: &Path,
        modified: u64,
    ) -> Result<Option<(String, Vec<u8>)>, RunError> {
        let key = adaptor_key(specifiers);
        let entries = self.probe(&key)?;
        let Ok(pack) = pack::build(&self.packages, entries) else { return Ok(None) };
        let pack = Arc::new(pack.moved(self.packages.root(), root, modified));
        // With its code compiled, unless that needs files that are not at their new place yet.
        let job = listing(&key)?;
        let plan = Plan { pack: Some(pack.clone()), ..Plan::plain(job.limits.heap) };
        let outcome = self.run_in(plan, job, "{}".into(), Box::new(|_| {}));
        if outcome.error.is_some() {
            pack.forget_code();
        }
        let bytes = pack::to_bytes(&pack)
            .map_err(|error| RunError::new("ExecutionError", Severity::Exception, error.to_string()))?;
        Ok(Some((pack_name(&key), bytes)))
    }

    /// Loads adaptors through the ordinary module graph and lists what they export.
    fn probe(&self, specifiers: &[String]) -> Result<Vec<(String, Vec<String>)>, RunError> {
        let job = listing(specifiers)?;
        let plan = Plan::plain(job.limits.heap);
        let outcome = self.run_in(plan, job, "{}".into(), Box::new(|_| {}));
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

    /// Writes to disk what runs have added to the packs since the last call.
    pub fn save_packs(&self) {
        let keys: Vec<_> = self.adaptors.lock().expect("adaptor sets").keys().cloned().collect();
        for set in keys.iter().filter_map(|key| self.prepared(key)) {
            set.pack.iter().for_each(|pack| save(pack, &set.file));
        }
    }

    /// Runs a job on a state (JSON text) in a fresh isolate, and waits for its end.
    pub fn run(&self, job: Job, state: String, sink: LogSink) -> Outcome {
        match self.prepare(&job.adaptors) {
            Ok(set) => {
                let heap = job.limits.heap;
                let plan = if job.test {
                    // What is intercepted must be replaced before any adaptor is evaluated.
                    Plan { snapshot: None, ..set.plan_for_work(heap) }
                } else {
                    set.plan_to_explore(heap).unwrap_or_else(|| set.plan_for_work(heap))
                };
                self.run_in(plan, job, state, sink)
            }
            Err(error) => Outcome::failed(error),
        }
    }

    fn run_in(&self, plan: Plan, job: Job, state: String, sink: LogSink) -> Outcome {
        let asked = Instant::now();
        let limits = job.limits.clone();
        let pack = plan.pack.clone();
        let early =
            self.head_start().take().filter(|early| early.suits(&plan)).and_then(|mut early| early.isolate.take());
        let isolate = match early.map_or_else(|| IsolateThread::start(self, plan), Ok) {
            Ok(isolate) => isolate,
            Err(error) => return Outcome::failed(error),
        };
        let vigil = Vigil::new(isolate.tripwire.clone(), limits);
        let (sender, outcome) = mpsc::sync_channel(1);
        let report = Box::new(move |outcome| drop(sender.send(outcome)));
        isolate.give(Order { job, state, sink, asked, warm: false, part: None, pack, report });
        custody::wait(&outcome, &self.threads, vigil).unwrap_or_else(Outcome::failed)
    }
}

/// Writes to disk what is not there of a pack. A store that cannot be written is no error: packs only save time.
fn save(pack: &Pack, file: &Path) {
    // Who is told that nothing is to be done may end the process.
    let _one_at_a_time = pack.saving.lock().unwrap_or_else(PoisonError::into_inner);
    if pack.take_dirty() {
        let _ = pack::store(pack, file);
    }
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
        traceparent: None,
        tenant: None,
    })
}

fn pack_name(specifiers: &[String]) -> String {
    format!("{}.pack", file_name(specifiers))
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
