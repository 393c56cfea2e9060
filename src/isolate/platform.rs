//! Process-wide set-up of V8 and TLS.
//!
//! V8's platform must exist before any other thread does (memory protection keys belong to threads and are inherited
//! from the one that made the platform), so `main` calls [`init`] first.

use deno_core::{JsRuntime, v8};

use super::custody;

/// Prepares V8 and the TLS provider. Call once, from a synchronous `main`, before any thread or runtime starts.
pub fn init() {
    // The first process-wide provider wins; a second call is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // V8 15.0 drops the interrupt check of an endless loop around a short loop it unrolls, as in
    // `for (;;) a.push(new Array(1000).fill(0))`: no limit could end such a run.
    v8::V8::set_flags_from_string("--no-turboshaft-loop-unrolling");
    // The seed of hashes is set later (`hash_seed`).
    v8::V8::set_flags_from_string("--no-freeze-flags-after-init");
    custody::park_on_traps();
    custody::park_on_aborts();
    JsRuntime::init_platform(None);
}
