//! Process-wide set-up of V8 and TLS.
//!
//! V8's platform must exist before any other thread does (memory protection keys belong to threads and are inherited
//! from the one that made the platform), so `main` calls [`init`] first.

use deno_runtime::deno_core::JsRuntime;

/// Prepares V8 and the TLS provider. Call once, from a synchronous `main`, before any thread or runtime starts.
pub fn init() {
    // The first process-wide provider wins; a second call is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    JsRuntime::init_platform(None);
}
