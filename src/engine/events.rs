//! What happens, as it happens: for pages that show runs live, for callers that wait for a run, for metrics.
//!
//! Events tell of what is in the store already, so nobody depends on seeing one: who fell behind, or came late, reads
//! the store.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{broadcast, oneshot};

use crate::model::{AttemptId, MessageId, RunId, RunState, TaskId, TaskState, Timestamp};

/// Events kept for those who read slowly.
const BACKLOG: usize = 4096;

/// Something that happened to a run.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    pub time: Timestamp,
    pub run: RunId,
    pub workflow: String,
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    RunCreated {
        message: Option<MessageId>,
    },
    TaskStarted {
        task: TaskId,
        step: String,
        attempt: u32,
    },
    /// One line of a log; a JSON object.
    Log {
        task: TaskId,
        step: String,
        line: serde_json::Value,
    },
    TaskEnded {
        task: TaskId,
        step: String,
        attempt: AttemptId,
        state: TaskState,
    },
    RunEnded {
        state: RunState,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Events {
    all: broadcast::Sender<Event>,
    waiting: Mutex<HashMap<RunId, Vec<oneshot::Sender<RunState>>>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { all: broadcast::channel(BACKLOG).0, waiting: Mutex::default() }
    }
}

impl Events {
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.all.subscribe()
    }

    /// Whether anybody listens: log lines are not worth copying otherwise.
    pub fn heard(&self) -> bool {
        self.all.receiver_count() > 0
    }

    /// Whether it matters to anybody that this happened to a run: what does not is not worth copying.
    pub fn concerns(&self, run: RunId, kind: &EventKind) -> bool {
        self.heard() || (matches!(kind, EventKind::RunEnded { .. }) && self.waiting.lock().contains_key(&run))
    }

    pub fn send(&self, event: Event) {
        if let EventKind::RunEnded { state } = event.kind {
            for waiting in self.waiting.lock().remove(&event.run).unwrap_or_default() {
                // Whoever waited may have left.
                let _ = waiting.send(state);
            }
        }
        if self.heard() {
            let _ = self.all.send(event);
        }
    }

    /// Waits for the end of a run that has not ended before this call.
    pub fn end_of(&self, run: RunId) -> EndOf<'_> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().entry(run).or_default().push(sender);
        EndOf { events: self, run, receiver }
    }
}

/// See [`Events::end_of`]. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct EndOf<'a> {
    events: &'a Events,
    run: RunId,
    receiver: oneshot::Receiver<RunState>,
}

impl EndOf<'_> {
    /// None: nobody is left who would tell.
    pub async fn wait(mut self) -> Option<RunState> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        let mut waiting = self.events.waiting.lock();
        if let Some(senders) = waiting.get_mut(&self.run) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&self.run);
            }
        }
    }
}
