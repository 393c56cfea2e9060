//! An isolate made like new after a run, but for compiled code: the level `module`.
//!
//! Modules of packages are forgotten and evaluated anew by the next run. What no run can do without and so all share, the
//! global scope, built-ins and Node's modules, is JavaScript's to put back (`js/surface.js`). Here is what the system
//! knows better: resources and operations that a run left open, and the clients of `fetch` with their connections.

use deno_core::stats::{RuntimeActivity, RuntimeActivityStats, RuntimeActivityStatsFilter};
use deno_runtime::{deno_core, deno_fetch};

use super::ops::Timers;
use super::run::{Isolate, delete_global};

/// How often what a run left is closed: what is closed may open something in turn.
const ROUNDS: usize = 3;

impl Isolate {
    /// Before the first run: takes note of how everything is.
    pub(super) fn watch(&mut self) -> Result<(), String> {
        let runtime = &mut self.worker.js_runtime;
        runtime.op_state().borrow_mut().put(Timers::default());
        // Left for modules, of which no job is one here.
        delete_global(runtime, "__fnhostAdaptor");
        self.entry.call(runtime, &self.entry.watch, &[])?;
        self.opening = Some(self.activity());
        Ok(())
    }

    /// After a run that has come to rest: closes what it left open, such as idle connections.
    pub(super) async fn close(&mut self) -> Result<(), String> {
        let mut left = None;
        for _ in 0..ROUNDS {
            left = self.entry.ask(&mut self.worker.js_runtime, &self.entry.close, &[])?;
            if left.is_none() {
                self.drop_client().await;
                return self.close_resources();
            }
            self.rest().await?;
        }
        Err(format!("the run left {} that come again when they are closed", left.unwrap_or_default()))
    }

    /// The client of `fetch`, if the run used it, and its connections.
    async fn drop_client(&mut self) {
        let client = self.worker.js_runtime.op_state().borrow_mut().try_take::<deno_fetch::Client>();
        if client.is_some() {
            drop(client);
            // Tasks that look after the connections see that nobody needs them, and close them.
            for _ in 0..ROUNDS {
                tokio::task::yield_now().await;
            }
        }
    }

    /// What the event loop is not waiting for.
    fn close_resources(&mut self) -> Result<(), String> {
        let state = self.worker.js_runtime.op_state();
        let Some(opening) = &self.opening else { return Ok(()) };
        for open in RuntimeActivityStats::diff(opening, &self.activity()).appeared {
            match open {
                RuntimeActivity::Resource(number, ..) => {
                    let resource = state.borrow_mut().resource_table.take_any(number);
                    if let Ok(resource) = resource {
                        resource.close();
                    }
                }
                RuntimeActivity::AsyncOp(_, _, name) => return Err(format!("the run left {name} under way")),
                RuntimeActivity::Timer(..) | RuntimeActivity::Interval(..) => {}
            }
        }
        Ok(())
    }

    /// Makes what runs share as it was before the first one.
    pub(super) fn put_back(&mut self) -> Result<(), String> {
        if self.loader.has_loaded_package() {
            return Err("the run imported a module that V8 keeps".into());
        }
        let trace = self.entry.ask(&mut self.worker.js_runtime, &self.entry.put_back, &[])?;
        trace.map_or(Ok(()), Err)
    }

    fn activity(&self) -> RuntimeActivityStats {
        let filter = RuntimeActivityStatsFilter::default().with_ops().with_resources();
        self.worker.js_runtime.runtime_activity_stats_factory().capture(&filter)
    }
}
