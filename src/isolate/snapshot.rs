//! The snapshot that isolates of jobs start from: the runtime, bootstrapped, with the parts of its Node layer that
//! adaptors use as soon as they load, and the host's own JavaScript.
//!
//! The runtime brings a snapshot of its own, which is taken before its bootstrap and without the Node layer. Doing that
//! in each isolate costs more than a small job does. So a snapshot is made from that one, once for each build, and kept
//! beside the packs. Nothing of an adaptor is in it: what adaptors evaluate is of one run.
//!
//! All snapshots of a process must share V8's read-only heap. They do, because V8 adds nothing to it when it starts from
//! a snapshot. They must also share the seed of its hashes. V8 can hash the runtime's snapshot anew and not this one, which
//! therefore fixes the seed: a process whose first isolate came from the runtime's snapshot has another seed, and a
//! snapshot from disk ends it. OPEN: use one from disk only if the first isolate of the process comes from it, and make
//! one in the process otherwise.

use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use deno_core::{Extension, JsRuntimeForSnapshot, RuntimeOptions, v8};
use deno_resolver::npm::{DenoInNpmPackageChecker, NpmResolver};
use deno_runtime::deno_fs::RealFs;
use deno_runtime::deno_node::{self, ContextInitMode};
use deno_runtime::{FeatureChecker, deno_core, ops as runtime_ops};
use sys_traits::impls::RealSys;

use super::host::Host;
use super::loader::JobLoader;
use super::machine::WorkingDirectory;
use super::ops;
use super::pack::build_id;
use super::permissions::{self, Network};
use super::run::bootstrap_options;

/// A snapshot for V8, which reads it in place.
pub type Snapshot = &'static [u8];

/// What is evaluated in the snapshot, with all that it needs in turn. Parts that keep something outside V8's heap, as
/// WebCrypto and sockets do, cannot be in it.
const PARTS: &[&str] = &["node:process", "node:module", "node:buffer", "node:timers"];

/// Making a snapshot takes a tenth of a second. When it takes this long it never ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stack of the thread that makes one, as that of isolates.
const STACK: usize = 8 << 20;

/// Reads the snapshot at `path`. None if there is none, or it belongs to another build.
pub fn load(path: &Path) -> Option<Snapshot> {
    let bytes = std::fs::read(path).ok()?;
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (build, snapshot) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    (build == build_id().as_bytes()).then(|| &*snapshot.to_vec().leak())
}

/// Writes a snapshot to `path`, whole or not at all.
pub fn store(snapshot: Snapshot, path: &Path) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    let build = build_id();
    file.write_all(&(build.len() as u64).to_le_bytes())?;
    file.write_all(build.as_bytes())?;
    file.write_all(snapshot)?;
    // As packs: readable by whoever may read the packages beside it.
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// Makes a snapshot. Blocks while it does.
pub fn make(host: &Host) -> Result<Snapshot, String> {
    let host = host.clone();
    let (sender, made) = mpsc::sync_channel(1);
    // Not joined: V8 may give up the thread, which is then parked (see `custody`).
    std::thread::Builder::new()
        .name("snapshot".into())
        .stack_size(STACK)
        .spawn(move || drop(sender.send(build(&host))))
        .map_err(|error| error.to_string())?;
    let blob = made.recv_timeout(PATIENCE).map_err(|_| "V8 could not make it".to_owned())??;
    Ok(Box::leak(complete(&blob).ok_or("the runtime's snapshots have another form than expected")?))
}

/// The extensions of the runtime as in its own snapshot, then the host's.
fn extensions(host: &Host) -> Vec<Extension> {
    let mut extensions = deno_runtime::snapshot_info::get_extensions_in_snapshot();
    for extension in &mut extensions {
        match extension.name {
            "deno_node" => {
                let services = Some(host.packages.node_services());
                *extension = deno_node::deno_node::init::<DenoInNpmPackageChecker, NpmResolver<RealSys>, RealSys>(
                    services,
                    Arc::new(RealFs),
                );
            }
            // As the runtime has it in isolates that are no web workers.
            "deno_web_worker" => *extension = runtime_ops::web_worker::deno_web_worker::init().disable(),
            _ => {}
        }
    }
    extensions.push(ops::fnhost::init());
    extensions
}

fn build(host: &Host) -> Result<Box<[u8]>, String> {
    let event_loop =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let _entered = event_loop.enter();
    // Without it, no object of the runtime could be made that is also one of Rust's.
    let cpp_heap = v8::cppgc::Heap::create(v8::V8::get_current_platform(), v8::cppgc::HeapCreateParams::default());
    let mut runtime = JsRuntimeForSnapshot::try_new(RuntimeOptions {
        module_loader: Some(Rc::new(JobLoader::new(host.packages.clone(), None))),
        startup_snapshot: deno_snapshots::CLI_SNAPSHOT,
        residual_lazy_js_sources: deno_snapshots::RESIDUAL_LAZY_JS,
        residual_lazy_esm_sources: deno_snapshots::RESIDUAL_LAZY_ESM,
        extensions: extensions(host),
        is_main: true,
        create_params: Some(v8::CreateParams::default().cpp_heap(cpp_heap)),
        ..Default::default()
    })
    .map_err(|error| error.to_string())?;
    {
        let state = runtime.op_state();
        let mut state = state.borrow_mut();
        state.put(WorkingDirectory(host.packages.directory().to_string_lossy().into_owned()));
        state.put(permissions::container(host.packages.readable(), &Network::Only(Vec::new()))?);
        state.put(runtime_ops::TestingFeaturesEnabled(false));
        state.put(Arc::new(FeatureChecker::default()));
        state.put(bootstrap_options());
    }
    call(&mut runtime, "bootstrap", "mainRuntime", |scope| vec![bootstrap_options().as_v8(scope)])?;
    call(&mut runtime, "__fnhost", "prepare", |_| vec![])?;
    for part in PARTS {
        call(&mut runtime, "__fnhost", "loadAhead", |scope| {
            let specifier = v8::String::new(scope, part).expect("a short string");
            vec![specifier.into(), v8::Boolean::new(scope, true).into()]
        })?;
    }
    call(&mut runtime, "__fnhost", "freeze", |_| vec![])?;
    {
        // The one that `node:vm` makes contexts from stands before that of the job.
        let isolate = runtime.v8_isolate();
        v8::scope!(scope, isolate);
        let template = deno_node::init_global_template(scope, ContextInitMode::ForSnapshot);
        let context = deno_node::create_v8_context(scope, template, ContextInitMode::ForSnapshot, std::ptr::null_mut());
        assert_eq!(scope.add_context(context), deno_node::VM_CONTEXT_INDEX);
    }
    Ok(runtime.snapshot())
}

/// The end of a snapshot as `deno_core` writes it: what stands behind the names of the extensions.
struct Tail<'a> {
    /// Where it begins in the snapshot.
    at: usize,
    ops: u64,
    sources: u64,
    /// Between the counts and the sources.
    middle: &'a [u8],
    source_texts: Vec<&'a [u8]>,
}

impl<'a> Tail<'a> {
    /// `last` is the name of the last extension in the snapshot.
    fn read(blob: &'a [u8], last: &str) -> Option<Self> {
        let end = blob.len().checked_sub(8)?;
        let start = u64::from_le_bytes(blob[end..].try_into().ok()?) as usize;
        let sidecar = blob.get(start..end)?;
        let mut name = (last.len() as u32).to_le_bytes().to_vec();
        name.extend_from_slice(last.as_bytes());
        let mut places = sidecar.windows(name.len()).enumerate().filter(|(_, window)| *window == name);
        let (place, _) = places.next()?;
        if places.next().is_some() {
            return None;
        }
        let at = place + name.len();
        let mut rest = Reader(&sidecar[at..]);
        let (ops, sources) = (rest.u64()?, rest.u64()?);
        let middle = rest.0;
        rest.u64()?;
        for _ in 0..rest.u32()? {
            rest.text()?;
            rest.bytes()?;
        }
        let middle = &middle[..middle.len() - rest.0.len()];
        let source_texts = (0..rest.u32()?).map(|_| rest.bytes()).collect::<Option<Vec<_>>>()?;
        rest.0.is_empty().then_some(Self { at: start + at, ops, sources, middle, source_texts })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// The highest bit of the length says whether the text is ASCII.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? & !(1 << 31);
        self.take(length as usize)
    }
}

/// What `deno_core` leaves out of a snapshot that is made from another. V8 stores addresses of native functions and of sources as places in a list, which the runtime puts together from the
/// ops and sources that were in the snapshot before, and those that came later. When it starts from a snapshot that was
/// made from another, it must make the same distinction as when that was made, and must have the first one's sources.
fn complete(blob: &[u8]) -> Option<Box<[u8]>> {
    let first = Tail::read(deno_snapshots::CLI_SNAPSHOT?, "deno_web_worker")?;
    let second = Tail::read(blob, "fnhost")?;
    let mut whole = blob[..second.at].to_vec();
    whole.extend_from_slice(&first.ops.to_le_bytes());
    whole.extend_from_slice(&first.sources.to_le_bytes());
    whole.extend_from_slice(second.middle);
    let texts: Vec<_> = first.source_texts.iter().chain(&second.source_texts).collect();
    whole.extend_from_slice(&(texts.len() as u32).to_le_bytes());
    for text in texts {
        whole.extend_from_slice(&(text.len() as u32).to_le_bytes());
        whole.extend_from_slice(text);
    }
    whole.extend_from_slice(&blob[blob.len() - 8..]);
    Some(whole.into())
}

/// Calls `globalThis.<object>.<function>`.
fn call(
    runtime: &mut JsRuntimeForSnapshot,
    object: &str,
    function: &str,
    arguments: impl for<'s> Fn(&mut v8::PinScope<'s, '_>) -> Vec<v8::Local<'s, v8::Value>>,
) -> Result<(), String> {
    let context = runtime.main_context();
    deno_core::scope!(scope, runtime);
    let global = v8::Local::new(scope, context).global(scope);
    let key = v8::String::new(scope, object).expect("a short string").into();
    let holder = global.get(scope, key).and_then(|value| value.to_object(scope)).ok_or(format!("no {object}"))?;
    let key = v8::String::new(scope, function).expect("a short string").into();
    let function: v8::Local<v8::Function> =
        holder.get(scope, key).and_then(|value| value.try_into().ok()).ok_or(format!("no {function}"))?;
    let arguments = arguments(scope);
    v8::tc_scope!(scope, scope);
    if function.call(scope, holder.into(), &arguments).is_some() {
        return Ok(());
    }
    let error = scope.exception().map(|error| deno_core::error::JsError::from_v8_exception(scope, error));
    Err(error.map(|error| error.to_string()).unwrap_or_default())
}
