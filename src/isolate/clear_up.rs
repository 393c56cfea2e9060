//! Between two runs of an isolate that is kept.
//!
//! A run may leave more behind than values: timers, sockets, operations that the system still works on. An isolate is
//! used again only if none of that is left. What can be ended for good is ended and waited for, a few milliseconds at
//! most; all the rest costs the isolate.

use std::future::poll_fn;
use std::time::Duration;

use deno_core::stats::{RuntimeActivity, RuntimeActivityStatsFilter};
use deno_core::{PollEventLoopOptions, v8};

use super::error::RunError;
use super::isolation::Isolation;
use super::run::Isolate;

/// How long an isolate may take to come to rest.
const REST: Duration = Duration::from_millis(20);

impl Isolate {
    /// Before the first run of an isolate that is to be kept.
    pub(super) fn prepare_to_stay(&mut self, isolation: Isolation) -> Result<(), String> {
        let argument = self.number(isolation as i32);
        self.entry.call(&mut self.worker.js_runtime, &self.entry.prepare_to_stay, &[argument])
    }

    fn number(&mut self, number: i32) -> v8::Global<v8::Value> {
        deno_core::scope!(scope, &mut self.worker.js_runtime);
        let number: v8::Local<v8::Value> = v8::Integer::new(scope, number).into();
        v8::Global::new(scope, number)
    }

    /// Makes the isolate ready for another run. Otherwise tells what is left of this one.
    pub(super) async fn clear_up(&mut self, isolation: Isolation, error: Option<&RunError>) -> Result<(), String> {
        if let Some(error) = error.filter(|error| !error.is_of_the_job()) {
            return Err(format!("the run ended with {}", error.name));
        }
        if isolation == Isolation::Module {
            self.entry.call(&mut self.worker.js_runtime, &self.entry.close_sockets, &[])?;
        }
        self.rest().await?;
        if isolation == Isolation::Module {
            self.nothing_is_open()?;
        }
        self.nothing_has_changed(isolation)
    }

    /// Lets what is under way come to its end.
    async fn rest(&mut self) -> Result<(), String> {
        let runtime = &mut self.worker.js_runtime;
        let rest = poll_fn(|context| runtime.poll_event_loop(context, PollEventLoopOptions::default()));
        tokio::select! {
            biased;
            stop = self.tripwire.wait() => Err(format!("{stop:?}")),
            result = rest => result.map_err(|error| format!("after its end the run failed: {error}")),
            () = tokio::time::sleep(REST) => Err("the run left something under way".into()),
        }
    }

    /// Whether there is nothing that could come back to the run later.
    fn nothing_is_open(&mut self) -> Result<(), String> {
        let stats = self.worker.js_runtime.runtime_activity_stats_factory();
        let stats = stats.capture(&RuntimeActivityStatsFilter::all()).dump();
        for activity in stats.active {
            match activity {
                RuntimeActivity::Resource(id, _, name) if id > 2 => return Err(format!("the run left a {name} open")),
                RuntimeActivity::Resource(..) => {}
                RuntimeActivity::Timer(..) | RuntimeActivity::Interval(..) => return Err("the run left a timer".into()),
                RuntimeActivity::AsyncOp(_, _, name) => return Err(format!("the run left {name} under way")),
            }
        }
        Ok(())
    }

    fn nothing_has_changed(&mut self, isolation: Isolation) -> Result<(), String> {
        deno_core::scope!(scope, &mut self.worker.js_runtime);
        let clear_up = v8::Local::new(scope, &self.entry.clear_up);
        let this = v8::undefined(scope).into();
        let isolation = v8::Integer::new(scope, isolation as i32).into();
        v8::tc_scope!(scope, scope);
        match clear_up.call(scope, this, &[isolation]) {
            Some(difference) if difference.is_undefined() => Ok(()),
            Some(difference) => Err(format!("the run changed {}", difference.to_rust_string_lossy(scope))),
            None => Err("it cannot be told what the run left".into()),
        }
    }

    /// Gives back memory that is not needed while there is no run.
    pub(super) fn trim(&mut self) {
        self.worker.js_runtime.v8_isolate().low_memory_notification();
    }
}
