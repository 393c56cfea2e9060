//! Packs: adaptors prepared for fast loading.
//!
//! A pack holds every package file that a set of adaptors can reach, with each specifier already resolved and each
//! file turned into a function ([`transform`]), plus V8 code caches that include what earlier runs compiled lazily.
//! An isolate then loads an adaptor without touching the file system, and evaluates only the modules it uses.
//! Evaluation itself happens anew in every isolate, so a pack shares code between runs and never state.
//!
//! A pack is an optimisation with one rule: where a module cannot be treated this way (it awaits at its top level, or
//! does not parse), the adaptor is loaded through the ordinary module graph instead.

mod build;
mod disk;
mod habits;
mod transform;

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use super::job_function::JobFunction;
use super::mapped;
pub use build::build;
pub use disk::{build_id, load, store, title, to_bytes};
pub use habits::Habits;
pub use transform::{MODULE_PARAMETERS, SCRIPT_PARAMETERS, module_imports};

/// What a file is; `js/modules.js` knows the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Esm = 0,
    Cjs = 1,
    Json = 2,
}

/// Where an import leads; `js/modules.js` knows the numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Number of a module of the pack.
    Module(u32),
    /// `node:` URL.
    Builtin(String),
    /// Code and message of the error that reading it throws.
    Missing { code: String, message: String },
}

/// The stamp of a module that is no file: the host wrote it.
const NO_FILE: (u64, u64) = (0, 0);

/// A file of a pack.
#[derive(Debug)]
pub struct Module {
    pub path: PathBuf,
    pub kind: Kind,
    /// Function body, or JSON text, in UTF-8. Lives as long as the process: V8 reads it in place.
    pub source: &'static [u8],
    /// Specifier as written and where it leads, in the order of import numbers.
    pub targets: Vec<(String, Target)>,
    /// Size and modification time of the file (nanoseconds since 1970), by which a stale pack is known.
    pub stamp: (u64, u64),
}

/// An adaptor of a pack.
#[derive(Clone, Debug)]
pub struct Entry {
    pub module: u32,
    pub exports: Vec<String>,
}

/// What a run loads: its adaptors' parts, and those of the runtime that these need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Specifiers of the runtime's own scripts, in the order in which they were loaded.
    pub scripts: Vec<String>,
    /// Modules of the pack, in the order in which their evaluation began.
    pub modules: Vec<Evaluated>,
}

/// A module that was evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    pub number: u32,
    /// The CommonJS module that required it.
    pub parent: Option<u32>,
    /// A job was the first to need it, or an adaptor that waits with what it imports.
    pub is_root: bool,
}

/// A code cache.
#[derive(Clone)]
pub enum Code {
    /// In the pack's file.
    Stored(&'static [u8]),
    /// Made by a run of this process.
    Made(Arc<[u8]>),
}

impl Deref for Code {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Made(bytes) => bytes,
        }
    }
}

impl From<Code> for Cow<'static, [u8]> {
    fn from(code: Code) -> Self {
        match code {
            Code::Stored(bytes) => Cow::Borrowed(bytes),
            Code::Made(bytes) => Cow::Owned(bytes.to_vec()),
        }
    }
}

/// The code caches of a pack for one kind of isolates. V8 accepts one only where the read-only heap is that of the isolate
/// which made it, and that comes with the snapshot.
#[derive(Clone)]
pub struct CodeCaches {
    pack: Arc<Pack>,
    from_own_snapshot: bool,
}

impl CodeCaches {
    /// For isolates that start from a snapshot of the pack, or from the runtime's own.
    pub fn new(pack: Arc<Pack>, from_own_snapshot: bool) -> Self {
        Self { pack, from_own_snapshot }
    }

    /// `key` is a module number, or the specifier of one of the runtime's own scripts.
    pub fn get(&self, key: &str) -> Option<Code> {
        self.pack.code.read().expect("code cache").get(&*self.place(key)).cloned()
    }

    /// Keeps a code cache for later isolates.
    pub fn put(&self, key: &str, code: Arc<[u8]>) {
        self.pack.code.write().expect("code cache").insert(self.place(key).into_owned(), Code::Made(code));
        self.pack.dirty.store(true, Ordering::Release);
    }

    fn place<'a>(&self, key: &'a str) -> Cow<'a, str> {
        if self.from_own_snapshot { Cow::Owned(format!("{key} from snapshot")) } else { Cow::Borrowed(key) }
    }
}

/// Jobs that a pack keeps as functions. More are made anew now and then.
const MOST_JOBS: usize = 1000;

/// Adaptors prepared for fast loading, with the code caches of their modules.
pub struct Pack {
    pub modules: Vec<Module>,
    /// Import specifier → adaptor.
    pub entries: HashMap<String, Entry>,
    /// Names the files of the pack, and their versions.
    pub fingerprint: u64,
    /// What it was read from; empty if it was built.
    file: &'static [u8],
    code: RwLock<HashMap<String, Code>>,
    habits: Mutex<Habits>,
    /// Something was learned since [`Self::take_learned`].
    learned: AtomicBool,
    /// Not all of it is on disk.
    dirty: AtomicBool,
    /// Held while it is written to disk.
    pub saving: Mutex<()>,
    /// Jobs that were made functions, by the code of their modules.
    jobs: Mutex<HashMap<String, Option<Arc<JobFunction>>>>,
}

impl Pack {
    fn new(
        modules: Vec<Module>,
        entries: HashMap<String, Entry>,
        code: HashMap<String, Code>,
        habits: Habits,
        dirty: bool,
    ) -> Self {
        Self {
            fingerprint: fingerprint(&modules),
            file: &[],
            modules,
            entries,
            code: RwLock::new(code),
            habits: Mutex::new(habits),
            learned: AtomicBool::default(),
            dirty: AtomicBool::new(dirty),
            saving: Mutex::default(),
            jobs: Mutex::default(),
        }
    }

    /// A compiled job as a function, if it can be one.
    pub fn job(&self, code: &str) -> Option<Arc<JobFunction>> {
        if let Some(known) = self.jobs.lock().expect("jobs").get(code) {
            return known.clone();
        }
        let function = JobFunction::new(code, self).map(Arc::new);
        let mut jobs = self.jobs.lock().expect("jobs");
        if jobs.len() >= MOST_JOBS {
            jobs.clear();
        }
        jobs.entry(code.to_owned()).or_insert(function).clone()
    }

    /// The pack as it would be if what lies in the directory `from` lay in `to`, as files of the time `modified`
    /// (nanoseconds since 1970). Code caches hold paths, so it has none.
    pub fn moved(self, from: &Path, to: &Path, modified: u64) -> Self {
        let (from_text, to_text) = (from.to_string_lossy(), to.to_string_lossy());
        let modules = self.modules.into_iter().map(|module| {
            let path = module.path.strip_prefix(from).map_or(module.path.clone(), |within| to.join(within));
            let target = |target| match target {
                Target::Missing { code, message } => {
                    Target::Missing { code, message: message.replace(&*from_text, &to_text) }
                }
                other => other,
            };
            let targets = module.targets.into_iter().map(|(specifier, led)| (specifier, target(led))).collect();
            let stamp = if module.stamp == NO_FILE { NO_FILE } else { (module.stamp.0, modified) };
            Module { path, targets, stamp, ..module }
        });
        Self::new(modules.collect(), self.entries, HashMap::new(), Habits::default(), true)
    }

    /// What runs are known to load.
    pub fn habits(&self) -> Habits {
        self.habits.lock().expect("habits").clone()
    }

    /// Whether the next run is to show what it loads. Asked for each run.
    pub fn wants_exploration(&self) -> bool {
        self.habits.lock().expect("habits").want_exploration()
    }

    /// Remembers what a run loaded. `whole` is set if it had an isolate in which nothing was loaded before.
    pub fn learn(&self, footprint: &Footprint, whole: bool) {
        if self.habits.lock().expect("habits").learn(footprint, whole) {
            self.learned.store(true, Ordering::Release);
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// True once after something was learned.
    pub fn take_learned(&self) -> bool {
        self.learned.swap(false, Ordering::AcqRel)
    }

    /// No isolate uses the pack any more. It stays as it is, but for memory that the system can give others.
    pub fn leave(&self) {
        mapped::leave(self.file);
    }

    /// Drops all code caches.
    pub fn forget_code(&self) {
        self.code.write().expect("code cache").clear();
    }

    /// True once after something was added.
    pub fn take_dirty(&self) -> bool {
        self.dirty.swap(false, Ordering::AcqRel)
    }
}

fn fingerprint(modules: &[Module]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for module in modules {
        (&module.path, module.kind as u8, module.stamp).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether a file is as it was when it had this stamp. It may have been in an archive since, such as a layer of an image:
/// these keep whole seconds only, the one before or the one after.
fn is_unchanged(path: &Path, (size, modified): (u64, u64)) -> bool {
    if (size, modified) == NO_FILE {
        return true;
    }
    const SECOND: u64 = 1_000_000_000;
    let is_archived = |now: u64| now.is_multiple_of(SECOND) && now.abs_diff(modified) < SECOND;
    stamp(path).is_some_and(|(found, now)| found == size && (now == modified || is_archived(now)))
}

/// Size and modification time, in nanoseconds, of a file.
fn stamp(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some((metadata.len(), modified.as_nanos() as u64))
}
