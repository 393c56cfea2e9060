//! What the host's JavaScript may ask of Rust.

#![allow(unsafe_code)] // the op macro writes unsafe glue

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use deno_core::url::Url;
use deno_core::{ExtensionFileSource, OpState, ascii_str_include, op2, v8};
use deno_error::JsErrorBox;

use super::blobs::op_fnhost_blob_part;
use super::calls::{op_fnhost_call_begin, op_fnhost_call_end};
use super::http_client::{op_fnhost_http_close, op_fnhost_http_let_go, op_fnhost_http_read, op_fnhost_http_send};
use super::intercept::Request;
use super::job::RunContext;
use super::limits::Limit;
use super::machine;
use super::pack::{CodeCaches, Kind, MODULE_PARAMETERS, Pack, SCRIPT_PARAMETERS, Target};
use super::packages::Packages;
use super::phases::Loading;
use crate::compile::{HOST_GLOBALS, LANGUAGE_GLOBALS};

/// Kinds of script a call can come from; `js/host.js` knows the numbers.
const CALLER_HOST: u32 = 0;
const CALLER_ADAPTOR: u32 = 1;
const CALLER_JOB: u32 = 2;

/// How many frames up the caller is looked for. Built-ins such as `Array.prototype.map` add frames without a script.
const CALLER_DEPTH: usize = 12;

/// Which kind of script the nearest frame outside the host's own JavaScript belongs to.
#[op2(fast)]
pub fn op_fnhost_caller(scope: &mut v8::PinScope<'_, '_>) -> u32 {
    let Some(trace) = v8::StackTrace::current_stack_trace(scope, CALLER_DEPTH) else {
        return CALLER_JOB;
    };
    for index in 0..trace.get_frame_count() {
        let Some(name) = trace.get_frame(scope, index).and_then(|frame| frame.get_script_name(scope)) else {
            continue;
        };
        let name = name.to_rust_string_lossy(scope);
        if name.is_empty() || name.starts_with("ext:fnhost/") || name.starts_with("fnhost:") {
            continue;
        }
        return match name.split(':').next() {
            Some("job") => CALLER_JOB,
            Some("ext" | "node") => CALLER_HOST,
            _ => CALLER_ADAPTOR,
        };
    }
    // Nobody is on the stack when V8 itself calls, as in `promise.then(Function)`. Whoever arranged that is not trusted.
    CALLER_JOB
}

/// Takes one message of the job's console.
#[op2(fast)]
pub fn op_fnhost_log(state: &mut OpState, #[string] level: &str, #[string] message: String) {
    let context = state.borrow_mut::<RunContext>();
    context.log_bytes += message.len();
    if context.log_bytes > context.limits.log {
        context.tripwire.trip(Limit::Log);
        return;
    }
    context.write_log(level, message);
}

/// Stands in for the runtime's own print, which would write to the process's stdout. What still uses it are warnings
/// of the Node layer.
#[op2(fast)]
pub fn op_fnhost_print(state: &mut OpState, #[string] message: &str, _is_err: bool) {
    // Before it has a job, an isolate has nobody to tell.
    if let Some(context) = state.try_borrow_mut::<RunContext>() {
        context.write_log("ada-debug", message.trim_end().to_owned());
    }
}

/// Shows a request that a test run made. It does not count against the job's log: the job did not write it.
#[op2]
pub fn op_fnhost_intercepted(
    state: &mut OpState,
    #[string] method: &str,
    #[string] url: &str,
    #[serde] headers: Vec<String>,
    #[buffer] body: &[u8],
    #[number] length: usize,
) {
    let headers: Vec<_> = headers.chunks_exact(2).map(|header| (header[0].as_str(), header[1].as_str())).collect();
    let request = Request { method, url, headers: &headers, body, length };
    state.borrow_mut::<RunContext>().show_request(&request);
}

/// Marks the begin or end of an operation, or of all of them.
#[op2(fast)]
pub fn op_fnhost_mark(state: &mut OpState, #[string] mark: &str, operation: u32) {
    state.borrow_mut::<RunContext>().mark(mark, operation);
}

/// Tells when a run begins or ends to load something; see [`Loading`].
#[op2(fast)]
pub fn op_fnhost_loading(state: &mut OpState, what: u32, begins: bool) {
    // What is loaded before there is a job is of no run.
    if let Some(loading) = state.try_borrow_mut::<Loading>() {
        if begins { loading.begins(what) } else { loading.ends(what) }
    }
}

/// The pack of one isolate and what it compiled from source, which later isolates should find in the code cache.
pub struct PackInUse {
    pub pack: Arc<Pack>,
    pub packages: Arc<Packages>,
    pub caches: CodeCaches,
    /// What was compiled from source.
    pub compiled: Vec<(u32, v8::Global<v8::Function>)>,
}

impl PackInUse {
    pub fn new(pack: Arc<Pack>, packages: Arc<Packages>, caches: CodeCaches) -> Self {
        Self { pack, packages, caches, compiled: Vec::new() }
    }

    /// Creates code caches for what was compiled from source. After a run they include the functions it compiled
    /// lazily. Once per module: V8 leaks a little at every creation.
    pub fn harvest(&mut self, scope: &mut v8::PinScope<'_, '_>) {
        for (number, function) in self.compiled.drain(..) {
            if let Some(cache) = v8::Local::new(scope, function).create_code_cache() {
                self.caches.put(&number.to_string(), Arc::from(&cache[..]));
            }
        }
    }
}

/// What a module imports with a specifier that it made up at run time, as a URL.
#[op2]
#[string]
pub fn op_fnhost_resolve(state: &mut OpState, number: u32, #[string] specifier: &str) -> Result<String, JsErrorBox> {
    resolve(state.borrow::<PackInUse>(), number, specifier).map(Into::into)
}

/// The number of the module in the pack that such a specifier leads to, or -1.
#[op2(fast)]
pub fn op_fnhost_find(state: &mut OpState, number: u32, #[string] specifier: &str) -> i32 {
    let in_use = state.borrow::<PackInUse>();
    let found = resolve(in_use, number, specifier)
        .ok()
        .and_then(|url| url.to_file_path().ok())
        .and_then(|path| in_use.pack.modules.iter().position(|module| module.path == path));
    found.map_or(-1, |number| number as i32)
}

fn resolve(in_use: &PackInUse, number: u32, specifier: &str) -> Result<Url, JsErrorBox> {
    let module = in_use.pack.modules.get(number as usize).ok_or_else(|| JsErrorBox::generic("no such module"))?;
    let referrer = Url::from_file_path(&module.path).map_err(|()| JsErrorBox::generic("a module without a path"))?;
    in_use.packages.resolve(specifier, &referrer)
}

/// Compiles a module of the pack. Returns `[kind, function or JSON value, targets, url, filename, dirname]`.
#[op2]
pub fn op_fnhost_compile<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: Rc<std::cell::RefCell<OpState>>,
    number: u32,
) -> Result<v8::Local<'s, v8::Array>, JsErrorBox> {
    let (pack, caches) = {
        let state = state.borrow();
        let in_use = state.borrow::<PackInUse>();
        (in_use.pack.clone(), in_use.caches.clone())
    };
    let module = pack.modules.get(number as usize).ok_or_else(|| JsErrorBox::generic("no such module"))?;
    let text = |scope: &mut v8::PinScope<'s, '_>, text: &str| -> Result<v8::Local<'s, v8::Value>, JsErrorBox> {
        Ok(v8::String::new(scope, text).ok_or_else(|| JsErrorBox::generic("a string too large for V8"))?.into())
    };
    let source = if module.source.is_ascii() {
        v8::String::new_external_onebyte_static(scope, module.source)
    } else {
        v8::String::new_from_utf8(scope, module.source, v8::NewStringType::Normal)
    }
    .ok_or_else(|| JsErrorBox::generic("a module too large for V8"))?;
    let url = Url::from_file_path(&module.path).map_err(|()| JsErrorBox::generic("a module without a path"))?;
    let url_text = text(scope, url.as_str())?;
    let (compiled, from_source): (v8::Local<'s, v8::Value>, _) = if module.kind == Kind::Json {
        let value = v8::json::parse(scope, source)
            .ok_or_else(|| JsErrorBox::new("SyntaxError", format!("{url} is not valid JSON")))?;
        (value, None)
    } else {
        let names = if module.kind == Kind::Esm { &MODULE_PARAMETERS[..] } else { &SCRIPT_PARAMETERS[..] };
        let cache = caches.get(&number.to_string());
        let start = Instant::now();
        let (function, from_source) = compile_function(scope, cache.as_deref(), source, url_text, names)?;
        if let Some(loading) = state.borrow_mut().try_borrow_mut::<Loading>() {
            loading.compiled += start.elapsed();
        }
        (function.into(), from_source)
    };
    if let Some(function) = from_source {
        state.borrow_mut().borrow_mut::<PackInUse>().compiled.push((number, function));
    }
    let mut targets = Vec::with_capacity(module.targets.len());
    for (specifier, target) in &module.targets {
        let (kind, key, code) = match target {
            Target::Module(number) => (0, v8::Integer::new_from_unsigned(scope, *number).into(), None),
            Target::Builtin(name) => (1, text(scope, name)?, None),
            Target::Missing { code, message } => (2, text(scope, message)?, Some(text(scope, code)?)),
        };
        let kind = v8::Integer::new(scope, kind).into();
        let elements: Vec<_> = [kind, key, text(scope, specifier)?].into_iter().chain(code).collect();
        targets.push(v8::Array::new_with_elements(scope, &elements).into());
    }
    let targets = v8::Array::new_with_elements(scope, &targets).into();
    let filename = text(scope, &module.path.to_string_lossy())?;
    let dirname = text(scope, &module.path.parent().unwrap_or(&module.path).to_string_lossy())?;
    let kind = v8::Integer::new(scope, module.kind as i32).into();
    Ok(v8::Array::new_with_elements(scope, &[kind, compiled, targets, url_text, filename, dirname]))
}

/// Compiles from the code cache if it can. The second value is set when it could not.
pub fn compile_function<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    cache: Option<&[u8]>,
    source: v8::Local<'s, v8::String>,
    url: v8::Local<'s, v8::Value>,
    names: &[&str],
) -> Result<(v8::Local<'s, v8::Function>, Option<v8::Global<v8::Function>>), JsErrorBox> {
    use v8::script_compiler::{CompileOptions, NoCacheReason, Source};
    let parameters: Vec<_> = names.iter().map(|name| v8::String::new(scope, name).expect("a short string")).collect();
    let origin = v8::ScriptOrigin::new(scope, url, 0, 0, false, -1, None, false, false, false, None);
    let (mut source, options) = match cache {
        Some(cache) => (
            Source::new_with_cached_data(source, Some(&origin), v8::CachedData::new(cache)),
            CompileOptions::ConsumeCodeCache,
        ),
        None => (Source::new(source, Some(&origin)), CompileOptions::NoCompileOptions),
    };
    let (function, failure) = {
        v8::tc_scope!(tc, scope);
        let function =
            v8::script_compiler::compile_function(tc, &mut source, &parameters, &[], options, NoCacheReason::NoReason);
        let failure = tc.message().map(|message| {
            let line = message.get_line_number(tc).unwrap_or(0);
            format!("{} ({}:{line})", message.get(tc).to_rust_string_lossy(tc), url.to_rust_string_lossy(tc))
        });
        (function.map(|function| v8::Global::new(tc, function)), failure)
    };
    let function = function.ok_or_else(|| JsErrorBox::new("SyntaxError", failure.unwrap_or_default()))?;
    let accepted = cache.is_some() && source.get_cached_data().is_some_and(|data| !data.rejected());
    let from_source = (!accepted).then(|| function.clone());
    Ok((v8::Local::new(scope, function), from_source))
}

/// The names that `globalThis` of a job offers.
#[op2]
#[serde]
pub fn op_fnhost_scope_names() -> Vec<&'static str> {
    LANGUAGE_GLOBALS.iter().chain(HOST_GLOBALS).copied().collect()
}

/// Timers that have not ended, if anybody asks for them: also those that keep no event loop alive.
#[derive(Default)]
pub struct Timers(BTreeSet<i32>);

/// Stands in for the runtime's own book-keeping, which does not tell of timers that the runtime made for itself.
#[op2(fast)]
pub fn op_fnhost_timer_begins(state: &mut OpState, #[smi] number: i32, _repeats: bool, _is_own: bool) {
    if let Some(Timers(numbers)) = state.try_borrow_mut() {
        numbers.insert(number);
    }
}

#[op2(fast)]
pub fn op_fnhost_timer_ends(state: &mut OpState, #[smi] number: i32) {
    if let Some(Timers(numbers)) = state.try_borrow_mut() {
        numbers.remove(&number);
    }
}

/// The numbers of the timers that have not ended.
#[op2]
#[serde]
pub fn op_fnhost_timers(state: &mut OpState) -> Vec<i32> {
    state.try_borrow().map_or_else(Vec::new, |Timers(numbers)| numbers.iter().copied().collect())
}

/// Stands in for what would change the whole process and is asked for in passing, such as the process's title.
#[op2(fast)]
pub fn op_fnhost_ignore(#[string] _text: &str) {}

/// The host's own JavaScript, in ASCII, which V8 reads in place. Listed with the macro's `esm`, it would be read at run
/// time from where it was compiled.
const JAVASCRIPT: [ExtensionFileSource; 5] = [
    ExtensionFileSource::new("ext:fnhost/runtime.js", ascii_str_include!("../../js/runtime.js")),
    ExtensionFileSource::new("ext:fnhost/http_client.js", ascii_str_include!("../../js/http_client.js")),
    ExtensionFileSource::new("ext:fnhost/modules.js", ascii_str_include!("../../js/modules.js")),
    ExtensionFileSource::new("ext:fnhost/snapshot.js", ascii_str_include!("../../js/snapshot.js")),
    ExtensionFileSource::new("ext:fnhost/host.js", ascii_str_include!("../../js/host.js")),
];

/// Evaluated on demand only.
const LAZY_JAVASCRIPT: [ExtensionFileSource; 3] = [
    ExtensionFileSource::new("ext:fnhost/intercept.js", ascii_str_include!("../../js/intercept.js")),
    ExtensionFileSource::new("ext:fnhost/surface.js", ascii_str_include!("../../js/surface.js")),
    ExtensionFileSource::new("ext:fnhost/trace.js", ascii_str_include!("../../js/trace.js")),
];

deno_core::extension!(
    fnhost,
    ops = [
        op_fnhost_blob_part,
        op_fnhost_call_begin,
        op_fnhost_call_end,
        op_fnhost_caller,
        op_fnhost_compile,
        op_fnhost_find,
        op_fnhost_http_close,
        op_fnhost_http_let_go,
        op_fnhost_http_read,
        op_fnhost_http_send,
        op_fnhost_ignore,
        op_fnhost_intercepted,
        op_fnhost_log,
        op_fnhost_loading,
        op_fnhost_mark,
        op_fnhost_print,
        op_fnhost_resolve,
        op_fnhost_scope_names,
        op_fnhost_timers,
        machine::op_fnhost_cwd,
        machine::op_fnhost_environment,
        machine::op_fnhost_exec_path,
        machine::op_fnhost_homedir,
        machine::op_fnhost_hostname,
        machine::op_fnhost_loadavg,
        machine::op_fnhost_network_interfaces,
        machine::op_fnhost_pid,
        machine::op_fnhost_ppid,
        machine::op_fnhost_user_info,
    ],
    esm_entry_point = "ext:fnhost/host.js",
    middleware = |op| match op.name {
        "op_blob_create_part" => op.with_implementation_from(&op_fnhost_blob_part()),
        "op_print" => op.with_implementation_from(&op_fnhost_print()),
        "op_bootstrap_pid" => op.with_implementation_from(&machine::op_fnhost_pid()),
        "op_exec_path" => op.with_implementation_from(&machine::op_fnhost_exec_path()),
        "op_ppid" => op.with_implementation_from(&machine::op_fnhost_ppid()),
        "op_fs_cwd" => op.with_implementation_from(&machine::op_fnhost_cwd()),
        "op_homedir" => op.with_implementation_from(&machine::op_fnhost_homedir()),
        "op_hostname" => op.with_implementation_from(&machine::op_fnhost_hostname()),
        "op_loadavg" => op.with_implementation_from(&machine::op_fnhost_loadavg()),
        "op_network_interfaces" => op.with_implementation_from(&machine::op_fnhost_network_interfaces()),
        "op_get_env_no_permission_check" => op.with_implementation_from(&machine::op_fnhost_environment()),
        "op_node_os_user_info" => op.with_implementation_from(&machine::op_fnhost_user_info()),
        "op_timer_track" => op.with_implementation_from(&op_fnhost_timer_begins()),
        "op_timer_untrack" => op.with_implementation_from(&op_fnhost_timer_ends()),
        // Permissions refuse these already; a run has no business with them at all.
        "op_create_worker" | "op_ffi_load" | "op_napi_open" | "op_spawn_child" | "op_spawn_sync" | "op_run" =>
            op.disable(),
        // The process is not the run's: no permission guards these, as far as they concern the process itself.
        "op_kill" | "op_node_process_kill" | "op_process_abort" | "op_fs_chdir" => op.disable(),
        "op_v8_set_heap_snapshot_near_heap_limit" => op.disable(),
        "op_node_process_set_title" | "op_v8_set_flags_from_string" => {
            op.with_implementation_from(&op_fnhost_ignore())
        }
        _ => op,
    },
    customizer = |extension: &mut deno_core::Extension| {
        extension.esm_files = JAVASCRIPT.to_vec().into();
        extension.lazy_loaded_esm_files = LAZY_JAVASCRIPT.to_vec().into();
    },
);
