//! How many tasks of one workflow may have their state in memory while they wait for an isolate: as many as can compute at
//! once.
//!
//! More may wait, but states can be large, and what waits is not held up by reading one more.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    share: usize,
    workflows: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Turns {
    pub fn new(slots: usize) -> Self {
        Self { share: slots.saturating_sub(1).max(1), workflows: Mutex::default() }
    }

    /// Waits until the workflow may have one more state read. It may until what is given back is dropped.
    pub async fn take(&self, workflow: &str) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut workflows = self.workflows.lock();
            // Workflows come and go with the project.
            if workflows.len() > 1000 {
                workflows.retain(|_, turns| turns.available_permits() < self.share);
            }
            let new = || Arc::new(Semaphore::new(self.share));
            workflows.entry(workflow.to_owned()).or_insert_with(new).clone()
        };
        turns.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_tasks_of_a_workflow_have_their_turns() {
        let turns = Turns::new(3);
        let (first, _second) = (turns.take("a").await, turns.take("a").await);
        let refused = tokio::time::timeout(std::time::Duration::from_millis(10), turns.take("a")).await;
        assert!(refused.is_err());
        assert!(turns.take("b").await.is_some());
        drop(first);
        assert!(turns.take("a").await.is_some());
        assert_eq!(Turns::new(1).share, 1);
    }
}
