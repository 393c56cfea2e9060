//! Snapshots that isolates start from: the runtime, bootstrapped, with the host's own JavaScript, the parts of the Node
//! layer that adaptors use as soon as they load, and what those adaptors evaluate when they load.
//!
//! The runtime brings a snapshot of its own, which is taken before its bootstrap and without the Node layer. Doing that
//! in each isolate costs more than a small job does, and so does evaluating lodash. So each set of adaptors gets a
//! snapshot that is made from that one, kept beside its pack. Nothing of a run is in it: every isolate that starts from it
//! has copies of its own.
//!
//! Not everything that adaptors evaluate may be done once for all runs: not what depends on the moment, such as the time
//! or a random number, and not what V8 or the runtime cannot write down. A *rehearsal* finds out (`js/modules.js`), and
//! leaves the rest to the runs.
//!
//! All snapshots of a process must share V8's read-only heap. They do, because V8 adds nothing to it when it starts from
//! a snapshot. They must also share the seed of its hashes (`hash_seed`).

mod sidecar;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use deno_core::{Extension, JsRuntimeForSnapshot, RuntimeOptions, v8};
use deno_resolver::npm::{DenoInNpmPackageChecker, NpmResolver};
use deno_runtime::deno_fs::RealFs;
use deno_runtime::deno_node::{self, ContextInitMode};
use deno_runtime::{FeatureChecker, deno_core, ops as runtime_ops};
use memmap2::Mmap;
use sys_traits::impls::RealSys;

use super::hash_seed;
use super::host::Host;
use super::loader::JobLoader;
use super::machine::WorkingDirectory;
use super::ops::{self, PackInUse};
use super::pack::{Pack, build_id};
use super::permissions::{self, Network};
use super::run::bootstrap_options;

/// A snapshot for V8, which reads it in place.
pub type Snapshot = &'static [u8];

/// What of the runtime is evaluated in every snapshot, with all that it needs in turn.
const PARTS: &[&str] = &["node:process", "node:module", "node:buffer", "node:timers"];

/// Making a snapshot takes a tenth of a second. When it takes this long it never ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stack of the thread that makes one, as that of isolates.
const STACK: usize = 8 << 20;

/// Bytes before the snapshot in its file: its name, then zeros. A page, because V8 wants it aligned.
const HEADER: usize = 4096;

/// What a snapshot must have been made by, with and of.
fn name(pack: &Pack) -> Vec<u8> {
    let mut name = format!("{} pack {:016x}", build_id(), pack.fingerprint()).into_bytes();
    name.resize(HEADER, 0);
    name
}

/// The snapshot at `path`. None if there is none, or it belongs to another build or pack.
pub fn load(path: &Path, pack: &Pack) -> Option<Snapshot> {
    let bytes = Box::leak(Box::new(mapped(path).ok()?));
    let (header, snapshot) = bytes.split_at_checked(HEADER)?;
    (header == name(pack)).then_some(snapshot)
}

/// Shared with all processes that use the file.
#[allow(unsafe_code)]
fn mapped(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: nobody writes to the file, which is only ever replaced by another.
    unsafe { Mmap::map(&file) }
}

/// Writes a snapshot to `path`, whole or not at all.
pub fn store(snapshot: Snapshot, path: &Path, pack: &Pack) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&name(pack))?;
    file.write_all(snapshot)?;
    // As packs: readable by whoever may read the packages beside it.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// Makes a snapshot in which the modules of the pack with these numbers are evaluated. Blocks while it does.
pub fn make(host: &Host, pack: &Arc<Pack>, modules: &[u32]) -> Result<Snapshot, String> {
    let (host, pack, modules) = (host.clone(), pack.clone(), modules.to_vec());
    let (sender, made) = mpsc::sync_channel(1);
    // Not joined: V8 may give up the thread, which is then parked (see `custody`).
    std::thread::Builder::new()
        .name("snapshot".into())
        .stack_size(STACK)
        .spawn(move || drop(sender.send(build(&host, pack, &modules))))
        .map_err(|error| error.to_string())?;
    let blob = made.recv_timeout(PATIENCE).map_err(|_| "V8 could not make it".to_owned())??;
    Ok(Box::leak(sidecar::complete(&blob).ok_or("the runtime's snapshots have another form than expected")?))
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

fn build(host: &Host, pack: Arc<Pack>, modules: &[u32]) -> Result<Box<[u8]>, String> {
    hash_seed::get();
    let event_loop =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let _entered = event_loop.enter();
    // Without it, no object of the runtime could be made that is also one of Rust's.
    let cpp_heap = v8::cppgc::Heap::create(v8::V8::get_current_platform(), v8::cppgc::HeapCreateParams::default());
    let mut runtime = JsRuntimeForSnapshot::try_new(RuntimeOptions {
        module_loader: Some(Rc::new(JobLoader::for_snapshot(host.packages.clone(), pack.clone()))),
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
        state.put(PackInUse { pack, packages: host.packages.clone(), compiled: Vec::new() });
    }
    call(&mut runtime, "bootstrap", "mainRuntime", |scope| vec![bootstrap_options().as_v8(scope)])?;
    call(&mut runtime, "__fnhost", "prepare", |_| vec![])?;
    call(&mut runtime, "__fnhost", "beginSnapshot", |_| vec![])?;
    for part in PARTS {
        call(&mut runtime, "__fnhost", "loadAhead", |scope| {
            let specifier = v8::String::new(scope, part).expect("a short string");
            vec![specifier.into(), v8::Boolean::new(scope, true).into()]
        })?;
    }
    call(&mut runtime, "__fnhost", "evaluateAhead", |scope| {
        let numbers: Vec<_> =
            modules.iter().map(|number| v8::Integer::new_from_unsigned(scope, *number).into()).collect();
        vec![v8::Array::new_with_elements(scope, &numbers).into()]
    })?;
    call(&mut runtime, "__fnhost", "endSnapshot", |_| vec![])?;
    // No handle may be left.
    runtime.op_state().borrow_mut().borrow_mut::<PackInUse>().compiled.clear();
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
