//! What the host's JavaScript may ask of Rust.

#![allow(unsafe_code)] // the op macro writes unsafe glue

use deno_core::{OpState, op2, v8};

use super::limits::Limit;
use super::run::RunContext;

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
        return CALLER_ADAPTOR;
    };
    for index in 0..trace.get_frame_count() {
        let Some(name) = trace.get_frame(scope, index).and_then(|frame| frame.get_script_name(scope)) else {
            continue;
        };
        let name = name.to_rust_string_lossy(scope);
        if name.is_empty() || name.starts_with("ext:fnhost/") {
            continue;
        }
        return match name.split(':').next() {
            Some("job") => CALLER_JOB,
            Some("ext" | "node") => CALLER_HOST,
            _ => CALLER_ADAPTOR,
        };
    }
    CALLER_ADAPTOR
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

/// Marks the begin or end of an operation.
#[op2(fast)]
pub fn op_fnhost_mark(state: &mut OpState, #[string] mark: &str, operation: u32) {
    state.borrow_mut::<RunContext>().mark(mark, operation);
}

deno_core::extension!(
    fnhost,
    ops = [op_fnhost_caller, op_fnhost_log, op_fnhost_mark],
    esm_entry_point = "ext:fnhost/host.js",
    esm = [dir "js", "host.js"],
);
