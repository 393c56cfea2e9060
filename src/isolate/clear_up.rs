//! Between two runs of an isolate that is kept.
//!
//! Values stay, but nothing of a run may go on into the next: timers that would fire in it, requests whose answers would
//! come to it, its log, its limits. An isolate whose run does not come to rest within a few milliseconds is not used
//! again, nor is one whose run was stopped, or that has grown.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use deno_core::PollEventLoopOptions;

use super::calls::Calls;
use super::http_client::HttpClient;
use super::job::{Job, RunContext};
use super::kept::Finds;
use super::run::Isolate;

/// How long an isolate may take to come to rest.
const REST: Duration = Duration::from_millis(5);

/// The share of its limits that an isolate may have in use when a run begins.
const MOST_IN_USE: f64 = 0.5;

impl Isolate {
    /// Makes the isolate, which holds `heap` bytes in V8's heap, ready for another run. Otherwise tells why there should be
    /// none.
    pub(super) async fn clear_up(&mut self, job: &Job, heap: usize) -> Result<(), String> {
        self.rest().await?;
        let is_like_new = job.finds() == Some(Finds::Code);
        if is_like_new {
            self.close().await?;
        }
        if self.stopped().is_some() {
            return Err("the run was stopped at its end".into());
        }
        self.entry.call(&mut self.worker.js_runtime, &self.entry.clear_up, &[])?;
        if is_like_new {
            self.put_back()?;
        }
        {
            let state = self.worker.js_runtime.op_state();
            let mut state = state.borrow_mut();
            state.try_take::<RunContext>();
            state.try_take::<Calls>();
            let client = state.borrow_mut::<HttpClient>();
            client.forget_responses();
            if is_like_new {
                client.close_idle();
            }
        }
        if is_like_new {
            // Those who look after its connections get a turn to end them.
            tokio::task::yield_now().await;
        }
        let is_large = |used: usize, limit: usize| used as f64 > limit as f64 * MOST_IN_USE;
        if is_large(heap, job.limits.heap) || is_large(self.buffers.live(), job.limits.buffers) {
            return Err("it has come to hold much of what a run may".into());
        }
        Ok(())
    }

    /// Lets what is under way come to its end. What does not keep an event loop alive may stay: idle connections of an HTTP
    /// client, and the timers that close them.
    pub(super) async fn rest(&mut self) -> Result<(), String> {
        let runtime = &mut self.worker.js_runtime;
        let rest = poll_fn(|context| runtime.poll_event_loop(context, PollEventLoopOptions::default()));
        tokio::select! {
            biased;
            stop = self.tripwire.wait() => Err(format!("the run was stopped at its end: {stop:?}")),
            result = rest => result.map_err(|_| "something failed that the run did not wait for".into()),
            () = tokio::time::sleep(REST) => Err("the run left something under way".into()),
        }
    }

    /// Before a run in an isolate that has waited for it: lets connections notice that they were closed, and timers fire
    /// that are due. What fails then is of no run.
    pub(super) async fn wake(&mut self) {
        for _ in 0..2 {
            let runtime = &mut self.worker.js_runtime;
            let turn = |context: &mut Context<'_>| {
                let _ = runtime.poll_event_loop(context, PollEventLoopOptions::default());
                Poll::Ready(())
            };
            poll_fn(turn).await;
            // While others have their turn, the system is asked what became of the connections.
            tokio::task::yield_now().await;
        }
    }

    /// Gives back memory that is not needed while there is no run.
    pub(super) fn trim(&mut self) {
        self.worker.js_runtime.v8_isolate().low_memory_notification();
    }
}
