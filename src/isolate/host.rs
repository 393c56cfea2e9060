//! What all isolates of a process share: the packages on disk, what is known of each set of adaptors, and the threads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use super::authorities::Authorities;
use super::custody::{self, Vigil};
use super::error::{RunError, Severity};
use super::isolate_thread::{IsolateThread, Order, Plan, release_memory};
use super::limits::Limits;
use super::pack::{self, Pack};
use super::packages::{LocalAdaptor, Packages};
use super::permissions::Network;
use super::run::{Job, LogSink, Outcome};
use super::snapshot::{self, Snapshot};
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
    /// Load adaptors through the ordinary module graph instead of packs: slower, but nothing of ours between V8 and
    /// the package when a fault is searched.
    pub without_packs: bool,
}

/// Runs jobs against the adaptors of one store. Cheap to clone; shared by all isolates of the process.
#[derive(Clone)]
pub struct Host {
    pub(super) packages: Arc<Packages>,
    pub(super) authorities: Arc<Authorities>,
    pub(super) threads: Threads,
    /// Bytes in ArrayBuffers of all isolates.
    pub(super) buffers: Arc<AtomicUsize>,
    /// Directory of packs on disk.
    pack_dir: Arc<PathBuf>,
    without_packs: bool,
    adaptors: Arc<Mutex<HashMap<AdaptorKey, Preparation>>>,
    /// What isolates start from, once somebody looked for it; None: the runtime's own.
    snapshot: Arc<Mutex<Option<Option<Snapshot>>>>,
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
    file: PathBuf,
}

impl AdaptorSet {
    /// Whether the isolate of a run of this job can be kept. In a module graph a job is evaluated once for all.
    pub(super) fn lets_keep(&self, job: &Job) -> bool {
        self.pack.as_ref().is_some_and(|pack| pack.job(&job.compiled.code).is_some())
    }
}

/// The key under which a set of adaptors is known, whatever the order in which they are named.
pub(super) fn adaptor_key(specifiers: &[String]) -> AdaptorKey {
    let mut key = specifiers.to_vec();
    key.sort();
    key.dedup();
    key
}

impl Host {
    pub fn new(options: HostOptions) -> Self {
        Self {
            packages: Arc::new(Packages::new(&options.store, &options.local_adaptors)),
            pack_dir: Arc::new(options.store.join("node_modules/.fnhost/packs")),
            without_packs: options.without_packs,
            authorities: Arc::new(Authorities::new(options.ca_file)),
            threads: Threads::default(),
            buffers: Arc::default(),
            adaptors: Arc::default(),
            snapshot: Arc::default(),
        }
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
        Packages::refresh();
        let file = self.pack_dir.join(format!("{}.pack", file_name(key)));
        let stored = if self.without_packs { None } else { pack::load(&file) };
        if let Some(pack) = stored.filter(|pack| self.is_current(pack)) {
            return Ok(AdaptorSet {
                exports: pack.entries.iter().map(|(name, entry)| (name.clone(), entry.exports.clone())).collect(),
                unpacked: None,
                pack: Some(Arc::new(pack)),
                file,
            });
        }
        let entries = self.probe(key)?;
        let built = if self.without_packs {
            Err("packs are off".to_owned())
        } else {
            pack::build(&self.packages, entries.clone()).map_err(|error| error.to_string())
        };
        let (pack, unpacked) = match built {
            Ok(pack) => (Some(Arc::new(pack)), None),
            Err(reason) => (None, Some(reason)),
        };
        // Now, not at the end: a process that is killed need not have packed for nothing.
        pack.iter().for_each(|pack| save(pack, &file));
        self.make_snapshot();
        Ok(AdaptorSet { exports: entries.into_iter().collect(), unpacked, pack, file })
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
        self.make_snapshot();
        let outcome = self.run_with(listing(specifiers)?, set.pack.clone(), "{}".into(), Box::new(|_| {}));
        self.save_packs();
        // Packing takes more than all that follows.
        release_memory();
        outcome.error.map_or(Ok(()), Err)
    }

    /// What isolates with a pack start from: made by this process or one before. None: the runtime's own snapshot.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        let mut known = self.snapshot.lock().expect("nothing panics while it looks for the snapshot");
        *known.get_or_insert_with(|| if self.without_packs { None } else { snapshot::load(&self.snapshot_file()) })
    }

    /// Makes the snapshot if there is none. What keeps it from being made costs time, and nothing else.
    fn make_snapshot(&self) {
        if self.without_packs || self.snapshot().is_some() {
            return;
        }
        match snapshot::make(self) {
            Ok(made) => {
                *self.snapshot.lock().expect("nothing panics while it looks for the snapshot") = Some(Some(made));
                // As with packs: a store that cannot be written is no error.
                let _ = snapshot::store(made, &self.snapshot_file());
            }
            Err(error) => tracing::warn!(error, "cannot make a snapshot: isolates take longer to start"),
        }
    }

    fn snapshot_file(&self) -> PathBuf {
        self.pack_dir.join("runtime.snapshot")
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
            Ok(set) => self.run_with(job, set.pack.clone(), state, sink),
            Err(error) => Outcome::failed(error),
        }
    }

    fn run_with(&self, job: Job, pack: Option<Arc<Pack>>, state: String, sink: LogSink) -> Outcome {
        let asked = Instant::now();
        let limits = job.limits.clone();
        let snapshot = pack.as_ref().and_then(|_| self.snapshot());
        let plan = Plan { snapshot, pack, heap: limits.heap, footprint: Arc::default() };
        let isolate = match IsolateThread::start(self, plan) {
            Ok(isolate) => isolate,
            Err(error) => return Outcome::failed(error),
        };
        let vigil = Vigil::new(isolate.tripwire.clone(), limits);
        let (sender, outcome) = mpsc::sync_channel(1);
        let report = Box::new(move |outcome| drop(sender.send(outcome)));
        isolate.give(Order { job, state, sink, asked, warm: false, report });
        custody::wait(&outcome, &self.threads, vigil).unwrap_or_else(Outcome::failed)
    }
}

/// Writes to disk what is not there of a pack. A store that cannot be written is no error: packs only save time.
fn save(pack: &Pack, file: &Path) {
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
