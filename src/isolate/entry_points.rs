//! What Rust calls of the host's JavaScript.

use deno_core::v8;
use deno_runtime::deno_core;

/// The host's JavaScript functions; see the end of `js/host.js`.
pub struct EntryPoints {
    pub prepare: v8::Global<v8::Function>,
    pub setup: v8::Global<v8::Function>,
    pub load_ahead: v8::Global<v8::Function>,
    pub compile_ahead: v8::Global<v8::Function>,
    pub rehearse: v8::Global<v8::Function>,
    pub intercept: v8::Global<v8::Function>,
    pub trace: v8::Global<v8::Function>,
    pub evaluate_job: v8::Global<v8::Function>,
    pub run: v8::Global<v8::Function>,
    pub evaluated: v8::Global<v8::Function>,
    pub watch: v8::Global<v8::Function>,
    pub close: v8::Global<v8::Function>,
    pub put_back: v8::Global<v8::Function>,
    pub clear_up: v8::Global<v8::Function>,
}

impl EntryPoints {
    /// Takes the functions and removes the name they were left under.
    pub fn pick_up(runtime: &mut deno_core::JsRuntime) -> Self {
        let context = runtime.main_context();
        deno_core::scope!(scope, runtime);
        let global = v8::Local::new(scope, context).global(scope);
        let name = v8::String::new(scope, "__fnhost").expect("a short string").into();
        let host = global.get(scope, name).and_then(|host| host.to_object(scope)).expect("host.js has run");
        let function = |name| {
            let key = v8::String::new(scope, name).expect("a short string").into();
            let function = host.get(scope, key).expect("host.js exports it");
            let function: v8::Local<v8::Function> = function.try_into().expect("host.js exports functions");
            v8::Global::new(scope, function)
        };
        let functions = Self {
            prepare: function("prepare"),
            setup: function("setup"),
            load_ahead: function("loadAhead"),
            compile_ahead: function("compileAhead"),
            rehearse: function("rehearse"),
            intercept: function("intercept"),
            trace: function("trace"),
            evaluate_job: function("evaluateJob"),
            run: function("run"),
            evaluated: function("evaluated"),
            watch: function("watch"),
            close: function("close"),
            put_back: function("putBack"),
            clear_up: function("clearUp"),
        };
        global.delete(scope, name);
        functions
    }

    /// Calls a function that is done when it returns.
    pub fn call(
        &self,
        runtime: &mut deno_core::JsRuntime,
        function: &v8::Global<v8::Function>,
        arguments: &[v8::Global<v8::Value>],
    ) -> Result<(), String> {
        self.ask(runtime, function, arguments).map(drop)
    }

    /// The same. Returns the text that the function returns, if any.
    pub(super) fn ask(
        &self,
        runtime: &mut deno_core::JsRuntime,
        function: &v8::Global<v8::Function>,
        arguments: &[v8::Global<v8::Value>],
    ) -> Result<Option<String>, String> {
        deno_core::scope!(scope, runtime);
        let function = v8::Local::new(scope, function);
        let arguments: Vec<_> = arguments.iter().map(|argument| v8::Local::new(scope, argument)).collect();
        let this = v8::undefined(scope).into();
        v8::tc_scope!(scope, scope);
        if let Some(answer) = function.call(scope, this, &arguments) {
            return Ok(answer.is_string().then(|| answer.to_rust_string_lossy(scope)));
        }
        let message = scope.exception().map(|e| e.to_rust_string_lossy(scope)).unwrap_or_default();
        Err(format!("the host's own JavaScript failed: {message}"))
    }
}
