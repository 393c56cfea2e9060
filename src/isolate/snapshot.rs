//! Snapshots that already hold what a run would build anew: the bootstrapped runtime, the host's JavaScript and the
//! evaluated modules of a set of adaptors.

#![allow(unsafe_code)]

use std::rc::Rc;
use std::sync::Arc;

use deno_core::{Extension, JsRuntimeForSnapshot, RuntimeOptions, v8};
use deno_resolver::npm::{DenoInNpmPackageChecker, NpmResolver};
use deno_runtime::ops as runtime_ops;
use deno_runtime::{FeatureChecker, deno_core};
use sys_traits::impls::RealSys;

use super::host::Host;
use super::isolate_thread::Plan;
use super::loader::JobLoader;
use super::machine::WorkingDirectory;
use super::ops::{self, PackInUse};
use super::permissions::{self, Network};
use super::run::bootstrap_options;

/// The extensions of the runtime in the order of its own snapshot, then the host's.
fn extensions(host: &Host) -> Vec<Extension> {
    let mut extensions = deno_runtime::snapshot_info::get_extensions_in_snapshot();
    let node = extensions.iter().position(|extension| extension.name == "deno_node").expect("the Node layer");
    extensions[node] = deno_runtime::deno_node::deno_node::init::<DenoInNpmPackageChecker, NpmResolver<RealSys>, RealSys>(
        Some(host.packages.node_services()),
        Arc::new(deno_runtime::deno_fs::RealFs),
    );
    extensions.pop();
    extensions.push(runtime_ops::web_worker::deno_web_worker::init().disable());
    extensions.push(ops::fnhost::init());
    extensions
}

/// Makes a snapshot for `plan`.
pub fn build(host: &Host, plan: &Plan) -> Result<&'static [u8], String> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let _inside = tokio.enter();
    let loader = Rc::new(JobLoader::new(host.packages.clone(), plan.pack.clone()));
    let mut runtime = JsRuntimeForSnapshot::try_new(RuntimeOptions {
        module_loader: Some(loader.clone()),
        startup_snapshot: deno_snapshots::CLI_SNAPSHOT,
        residual_lazy_js_sources: deno_snapshots::RESIDUAL_LAZY_JS,
        residual_lazy_esm_sources: deno_snapshots::RESIDUAL_LAZY_ESM,
        extensions: extensions(host),
        is_main: true,
        create_params: Some(
            v8::CreateParams::default()
                .heap_limits(0, 1 << 30)
                .cpp_heap(v8::cppgc::Heap::create(v8::V8::get_current_platform(), v8::cppgc::HeapCreateParams::default())),
        ),
        ..Default::default()
    })
    .map_err(|error| error.to_string())?;
    eprintln!("created");
    {
        let state = runtime.op_state();
        let mut state = state.borrow_mut();
        state.put(WorkingDirectory(host.packages.directory().to_string_lossy().into_owned()));
        state.put(permissions::container(host.packages.readable(), &Network::Only(Vec::new()))?);
        state.put(runtime_ops::TestingFeaturesEnabled(false));
        state.put(Arc::new(FeatureChecker::default()));
        state.put(bootstrap_options());
        if let Some(pack) = plan.pack.clone() {
            state.put(PackInUse { pack, packages: host.packages.clone(), compiled: Vec::new() });
        }
    }
    call(&mut runtime, "bootstrap", "mainRuntime", |scope| vec![bootstrap_options().as_v8(scope)])?;
    eprintln!("bootstrapped");
    call(&mut runtime, "__fnhost", "prepare", |_| vec![])?;
    eprintln!("set up");
    let limit = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    for script in plan.footprint.scripts.iter().take(limit("FNHOST_S")) {
        if std::env::var_os("FNHOST_V").is_some() { eprintln!("script {script}"); }
        call(&mut runtime, "__fnhost", "loadAhead", |scope| {
            let specifier = v8::String::new(scope, script).expect("a short string");
            vec![specifier.into(), v8::Boolean::new(scope, super::run::is_module(script)).into()]
        })?;
    }
    for number in plan.footprint.modules.iter().take(limit("FNHOST_M")) {
        if std::env::var_os("FNHOST_V").is_some() { eprintln!("module {number}"); }
        call(&mut runtime, "__fnhost", "evaluateAhead", |scope| vec![v8::Integer::new_from_unsigned(scope, *number).into()])?;
    }
    call(&mut runtime, "__fnhost", "freeze", |_| vec![])?;
    {
        let isolate = runtime.v8_isolate();
        v8::scope!(scope, isolate);
        let template = deno_runtime::deno_node::init_global_template(scope, deno_runtime::deno_node::ContextInitMode::ForSnapshot);
        let context = deno_runtime::deno_node::create_v8_context(
            scope,
            template,
            deno_runtime::deno_node::ContextInitMode::ForSnapshot,
            std::ptr::null_mut(),
        );
        assert_eq!(scope.add_context(context), deno_runtime::deno_node::VM_CONTEXT_INDEX);
    }
    eprintln!("snapshotting");
    let blob = runtime.snapshot();
    eprintln!("snapshot of {} bytes", blob.len());
    Ok(Box::leak(in_order(blob)?))
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

/// V8 stores addresses of native functions and of sources as places in a list, which the runtime puts together from the
/// ops and sources that were in the snapshot before, and those that came later. When it starts from a snapshot that was
/// made from another, it must make the same distinction as when that was made, and must have the first one's sources.
fn in_order(blob: Box<[u8]>) -> Result<Box<[u8]>, String> {
    let first = deno_snapshots::CLI_SNAPSHOT.ok_or("there is no snapshot of the runtime")?;
    let first = Tail::read(first, "deno_web_worker").ok_or("the runtime's snapshot has another form")?;
    let second = Tail::read(&blob, "fnhost").ok_or("the snapshot has another form")?;
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
    Ok(whole.into())
}

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
    Err(format!("snapshot: {}", error.map(|error| error.to_string()).unwrap_or_default()))
}
