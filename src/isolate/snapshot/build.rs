//! Taking one snapshot.

use std::rc::Rc;
use std::sync::Arc;

use deno_core::uv_compat::AsyncId;
use deno_core::{
    Extension, ExtensionFileSource, FastStaticString, JsRuntimeForSnapshot, PollEventLoopOptions, RuntimeOptions, v8,
};
use deno_resolver::npm::{DenoInNpmPackageChecker, NpmResolver};
use deno_runtime::deno_fs::RealFs;
use deno_runtime::deno_node::{self, ContextInitMode};
use deno_runtime::{FeatureChecker, deno_core, ops as runtime_ops};
use sys_traits::impls::RealSys;

use super::{Stay, sidecar};
use crate::isolate::hash_seed;
use crate::isolate::host::Host;
use crate::isolate::loader::JobLoader;
use crate::isolate::machine::WorkingDirectory;
use crate::isolate::ops::{self, PackInUse};
use crate::isolate::pack::{CodeCaches, Evaluated, Pack};
use crate::isolate::permissions;
use crate::isolate::run::bootstrap_options;

/// What of the runtime is evaluated in a snapshot while nothing is known of the runs, with all that it needs in turn.
const USUAL_PARTS: &[&str] = &["node:process", "node:module", "node:buffer", "node:timers"];

/// What the runtime has around a script that is loaded late.
const WRAPPER: (&str, &str) = ("\"use strict\"; return (", ");");

/// Stack of the thread that takes one, as that of isolates.
const STACK: usize = 8 << 20;

/// Takes a snapshot in which these modules of the pack are evaluated, and the parts of the runtime that its runs need. V8
/// may end the process.
pub fn build(host: &Host, pack: &Arc<Pack>, modules: &[Evaluated]) -> Result<Box<[u8]>, String> {
    let blob = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("snapshot".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || take(host, pack, modules)).map_err(|error| error.to_string())?;
        thread.join().map_err(|_| "the runtime panicked".to_owned())?
    })?;
    sidecar::complete(&blob).ok_or_else(|| "the runtime's snapshots have another form than expected".into())
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
    extensions.push(with_sources(ops::fnhost::init()));
    extensions
}

/// The host's extension as if the scripts that the runtime's own snapshot leaves out were its own. Their text then stands
/// beside the snapshot, where all isolates read it, and not in it, from where each would copy it into its heap.
fn with_sources(extension: Extension) -> Extension {
    let files = |sources: &[(&'static str, &'static str)]| -> Vec<_> {
        let file = |&(specifier, text): &(&'static str, &'static str)| {
            // The runtime wraps it again.
            let text = text.strip_prefix(WRAPPER.0).and_then(|text| text.strip_suffix(WRAPPER.1)).unwrap_or(text);
            // Lives as long as the process, which makes one snapshot.
            let text = Box::leak(Box::new(v8::String::create_external_onebyte_const(text.as_bytes())));
            ExtensionFileSource::new(specifier, FastStaticString::new(text))
        };
        sources.iter().map(file).collect()
    };
    Extension {
        lazy_loaded_js_files: files(deno_snapshots::RESIDUAL_LAZY_JS).into(),
        lazy_loaded_esm_files: files(deno_snapshots::RESIDUAL_LAZY_ESM).into(),
        ..extension
    }
}

fn take(host: &Host, pack: &Arc<Pack>, modules: &[Evaluated]) -> Result<Box<[u8]>, String> {
    hash_seed::get();
    compile_eagerly(true);
    let _stay = Stay::begin(None);
    let event_loop =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let _entered = event_loop.enter();
    // Without it, no object of the runtime could be made that is also one of Rust's.
    let cpp_heap = v8::cppgc::Heap::create(v8::V8::get_current_platform(), v8::cppgc::HeapCreateParams::default());
    let loader = JobLoader::new(host.packages.clone());
    // V8 makes no code caches while a snapshot is taken, so the loader gets none.
    loader.use_pack(pack.clone(), None);
    let mut runtime = JsRuntimeForSnapshot::try_new(RuntimeOptions {
        module_loader: Some(Rc::new(loader)),
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
        state.put(permissions::container(host.packages.readable(), permissions::NOTHING)?);
        state.put(runtime_ops::TestingFeaturesEnabled(false));
        state.put(Arc::new(FeatureChecker::default()));
        state.put(bootstrap_options());
        state.put(AsyncId::default());
        state.put(PackInUse::new(pack.clone(), host.packages.clone(), CodeCaches::new(pack.clone(), false)));
    }
    compile_eagerly(false);
    call(&mut runtime, "bootstrap", "mainRuntime", |scope| vec![bootstrap_options().as_v8(scope)])?;
    call(&mut runtime, "__fnhost", "prepare", |_| vec![])?;
    call(&mut runtime, "__fnhost", "beginSnapshot", |_| vec![])?;
    let habits = pack.habits();
    let known = habits.are_known().then(|| habits.scripts().iter().map(String::as_str).collect());
    for part in known.unwrap_or_else(|| USUAL_PARTS.to_vec()) {
        call(&mut runtime, "__fnhost", "loadPartAhead", |scope| {
            vec![v8::String::new(scope, part).expect("a short string").into()]
        })?;
    }
    call(&mut runtime, "__fnhost", "evaluateAhead", |scope| {
        let pair = |module: &Evaluated| [module.number as i32, module.parent.map_or(-1, |parent| parent as i32)];
        let numbers: Vec<_> =
            modules.iter().flat_map(pair).map(|number| v8::Integer::new(scope, number).into()).collect();
        vec![v8::Array::new_with_elements(scope, &numbers).into()]
    })?;
    call(&mut runtime, "__fnhost", "warmUp", |_| vec![])?;
    event_loop.block_on(runtime.run_event_loop(PollEventLoopOptions::default())).map_err(|error| error.to_string())?;
    call(&mut runtime, "__fnhost", "endSnapshot", |_| vec![])?;
    // No handle may be left.
    drop(runtime.op_state().borrow_mut().try_take::<PackInUse>());
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

/// Whether V8 compiles functions with the script that they stand in. The host's own JavaScript is so compiled in the
/// snapshot that no run has to.
fn compile_eagerly(eagerly: bool) {
    v8::V8::set_flags_from_string(if eagerly { "--no-lazy" } else { "--lazy" });
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
