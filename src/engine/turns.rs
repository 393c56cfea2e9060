//! How many isolates one workflow may have at once: all but one.
//!
//! An isolate cannot be taken back before its job has ended or hit a limit, so a workflow of endless loops that has them all
//! keeps every other workflow waiting for as long as a job may take. One is always left for the others.

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
    pub fn new(isolates: usize) -> Self {
        Self { share: isolates.saturating_sub(1).max(1), workflows: Mutex::default() }
    }

    /// Waits until the workflow may have one more isolate. It has it until what is given back is dropped.
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
    async fn a_workflow_leaves_one_isolate_to_the_others() {
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
