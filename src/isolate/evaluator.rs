//! An isolate that evaluates expressions, one after the other, so that none finds anything of the one before.
//!
//! Each evaluation gets a fresh context: JavaScript's own built-ins and the arguments, nothing of the host, no code from
//! strings. What is kept from one to the next is compiled code. Microtasks run before an evaluation ends, within its
//! time, so that none is left to the next.
//!
//! A bare isolate would do, but V8 lets all isolates of a process share one read-only heap, that of whichever comes
//! first: an isolate from V8's own snapshot and one from the runtime's cannot live side by side. So this one comes from
//! the runtime's snapshot, too. Of what that holds, only the empty context is used: the runtime's JavaScript is there,
//! and no evaluation can reach it. What the runtime wants to be told of in its own context is turned off.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use deno_core::v8::script_compiler::{self, CompileOptions, NoCacheReason, Source};
use deno_core::{JsRuntime, RuntimeOptions, v8};
use deno_runtime::snapshot_info::get_extensions_in_snapshot;

use super::conditions::{Answer, Conditions, NoAnswer, Question};
use super::hash_seed;
use super::limits::{BufferAccount, Limit, Limits, MIN_HEAP, Stop, Tripwire, Watch};
use super::snapshot::Stay;
use crate::compile::in_brackets;

/// How long the evaluation of an expression may take; reading the arguments does not count.
const WALL: Duration = Duration::from_millis(250);
/// Bytes in ArrayBuffers.
const BUFFERS: usize = MIN_HEAP;
/// Compiled expressions that are kept. A project has some dozens.
const KEPT: usize = 512;
/// Characters of a message, which may quote what was thrown.
const MESSAGE: usize = 300;
/// What V8 adds to a context that is no part of JavaScript.
const FOREIGN: [&str; 3] = ["WebAssembly", "console", "queueMicrotask"];

pub(super) const OUT_OF_TIME: &str = "the condition took longer than 250 ms";
pub(super) const OUT_OF_MEMORY: &str = "the condition needs more than 64 MB of memory";

/// See the module. After a limit was hit (`tripwire`), it is of no more use.
pub(super) struct Evaluator {
    /// By source: functions of the arguments. Gone before their isolate.
    compiled: HashMap<String, v8::Global<v8::UnboundScript>>,
    runtime: JsRuntime,
    limits: Limits,
    tripwire: Arc<Tripwire>,
    _stay: Stay,
}

impl Evaluator {
    /// Must be called, and dropped, within a tokio runtime of the current thread.
    pub fn new(tripwire: Arc<Tripwire>) -> Self {
        hash_seed::get();
        let mut stay = Stay::begin(None);
        let limits = Limits { wall: WALL, cpu: None, heap: MIN_HEAP, buffers: BUFFERS, ..Limits::default() };
        let buffers = BufferAccount::new(tripwire.clone(), Arc::default());
        let params = v8::CreateParams::default()
            .heap_limits(0, limits.heap)
            .array_buffer_allocator(buffers.allocator().make_shared())
            .allow_atomics_wait(false);
        let mut runtime = JsRuntime::new(RuntimeOptions {
            startup_snapshot: deno_snapshots::CLI_SNAPSHOT,
            extensions: get_extensions_in_snapshot(),
            create_params: Some(params),
            ..RuntimeOptions::default()
        });
        stay.made();
        buffers.set_limit(limits.buffers);
        let near = tripwire.clone();
        runtime.add_near_heap_limit_callback(move |current, _initial| {
            near.trip(Limit::Heap);
            // Room to unwind: V8 ends the process if the heap cannot grow before the termination takes effect.
            current * 2
        });
        let isolate = runtime.v8_isolate();
        isolate.set_microtasks_policy(v8::MicrotasksPolicy::Auto);
        isolate.set_promise_reject_callback(ignore_rejection);
        isolate.set_prepare_stack_trace_callback(no_stack_trace);
        let context = runtime.main_context();
        tripwire.arm(runtime.v8_isolate(), context);
        Self { compiled: HashMap::new(), runtime, limits, tripwire, _stay: stay }
    }

    /// Does what V8 has put off, such as parts of garbage collections.
    pub async fn tidy(&mut self) {
        let once = poll_fn(|context| {
            // In the runtime's own context nothing happens that could fail.
            let _ = self.runtime.poll_event_loop(context, Default::default());
            Poll::Ready(())
        });
        once.await;
    }

    /// Whether the expression is true, or why it gives no answer.
    pub fn evaluate(&mut self, question: &Question) -> Answer {
        let answer = self.answer(question);
        let reason = match self.tripwire.tripped() {
            None => return answer.map_err(NoAnswer::Faulty),
            Some(Stop::Limit(Limit::Wall)) => OUT_OF_TIME,
            Some(Stop::Limit(_)) => OUT_OF_MEMORY,
            Some(Stop::Cancelled) => "the evaluation was cancelled",
        };
        Err(NoAnswer::CutShort(reason.into()))
    }

    fn answer(&mut self, question: &Question) -> Result<bool, String> {
        let Self { compiled, runtime, limits, tripwire, .. } = self;
        v8::scope!(let scope, runtime.v8_isolate());
        let context = v8::Context::new(scope, v8::ContextOptions::default());
        context.set_allow_generation_from_strings(false);
        let scope = &mut v8::ContextScope::new(scope, context);
        remove_foreign(scope, context);
        let arguments = question.arguments.iter().map(|(name, value)| parse(scope, name, value));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let script = script(scope, compiled, question)?;

        let _watch = Watch::start(limits, tripwire.clone());
        v8::tc_scope!(let scope, scope);
        let this = v8::undefined(scope).into();
        let function = script.bind_to_current_context(scope).run(scope).map(v8::Local::<v8::Function>::try_from);
        let value = match function {
            Some(Ok(function)) => function.call(scope, this, &arguments),
            _ => None,
        };
        match value {
            Some(value) if value.is_promise() => Err("the condition gives a promise; it cannot wait".into()),
            Some(value) => Ok(value.boolean_value(scope)),
            None => {
                let message = scope.message().map(|message| message.get(scope).to_rust_string_lossy(scope));
                Err(shortened(message.unwrap_or_default().trim_start_matches("Uncaught ")))
            }
        }
    }
}

fn remove_foreign(scope: &mut v8::PinScope<'_, '_>, context: v8::Local<v8::Context>) {
    let global = context.global(scope);
    for name in FOREIGN {
        let name = v8::String::new(scope, name).expect("a short string").into();
        global.delete(scope, name);
    }
}

fn parse<'s>(scope: &mut v8::PinScope<'s, '_>, name: &str, json: &str) -> Result<v8::Local<'s, v8::Value>, String> {
    let text = v8::String::new(scope, json).ok_or_else(|| format!("`{name}` is too large for a condition"))?;
    v8::tc_scope!(let scope, scope);
    v8::json::parse(scope, text).ok_or_else(|| format!("`{name}` is no JSON"))
}

/// The expression as a script whose value is a function of the arguments.
fn script<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    compiled: &mut HashMap<String, v8::Global<v8::UnboundScript>>,
    question: &Question,
) -> Result<v8::Local<'s, v8::UnboundScript>, String> {
    let source = function_of(question);
    if let Some(script) = compiled.get(&source) {
        return Ok(v8::Local::new(scope, script));
    }
    Conditions::check(&question.expression).map_err(|problem| format!("SyntaxError: {problem}"))?;
    let script = compile(scope, &source)?;
    if compiled.len() == KEPT {
        compiled.clear();
    }
    compiled.insert(source, v8::Global::new(scope, script));
    Ok(script)
}

fn function_of(question: &Question) -> String {
    let names: Vec<&str> = question.arguments.iter().map(|(name, _)| name.as_str()).collect();
    format!("(function ({}) {{ 'use strict'; return {}; }})", names.join(", "), in_brackets(&question.expression))
}

fn compile<'s>(scope: &mut v8::PinScope<'s, '_>, source: &str) -> Result<v8::Local<'s, v8::UnboundScript>, String> {
    let source = v8::String::new(scope, source).ok_or("the condition is too long")?;
    let mut source = Source::new(source, None);
    v8::tc_scope!(let scope, scope);
    let options = CompileOptions::NoCompileOptions;
    script_compiler::compile_unbound_script(scope, &mut source, options, NoCacheReason::NoReason).ok_or_else(|| {
        let message = scope.message().map(|message| message.get(scope).to_rust_string_lossy(scope));
        shortened(message.unwrap_or_default().trim_start_matches("Uncaught "))
    })
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_owned(),
    }
}

extern "C" fn ignore_rejection(_message: v8::PromiseRejectMessage) {}

/// The `stack` of an error: conditions have no use for it.
fn no_stack_trace<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    _error: v8::Local<'s, v8::Value>,
    _sites: v8::Local<'s, v8::Array>,
) -> v8::Local<'s, v8::Value> {
    v8::undefined(scope).into()
}
