//! Forgetting what is old, a little at a time.

use std::time::Duration;

use super::Engine;
use crate::model::Timestamp;
use crate::store::{Retention, StoreError};

/// How often old things are looked for.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Things forgotten in one transaction: few, so that no writer waits long.
const BATCH: usize = 200;
/// The pause between two transactions.
const BREATH: Duration = Duration::from_millis(20);

/// How long things are kept. None: for ever.
#[derive(Clone, Copy, Debug)]
pub struct RetentionPolicy {
    pub runs: Option<Duration>,
    pub failed_runs: Option<Duration>,
    pub logs: Option<Duration>,
    pub messages: Option<Duration>,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let (month, quarter) = (Some(DAY * 30), Some(DAY * 90));
        Self { runs: month, failed_runs: quarter, logs: month, messages: month }
    }
}

impl RetentionPolicy {
    fn before(&self, now: Timestamp) -> Retention {
        let ago = |age: Option<Duration>| age.map(|age| now.saturating_sub(age));
        Retention {
            runs: ago(self.runs),
            failed_runs: ago(self.failed_runs),
            logs: ago(self.logs),
            messages: ago(self.messages),
        }
    }
}

impl Engine {
    /// Forgets what is old, now and again, until the engine stops.
    pub(super) async fn keep_house(self) {
        loop {
            if let Err(error) = self.forget().await {
                self.shared.store_trouble(&error, "cannot forget what is old");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.shared.shutdown.cancelled() => return,
            }
        }
    }

    async fn forget(&self) -> Result<(), StoreError> {
        let retention = self.shared.options.retention.before(self.now());
        while self.shared.store.prune(retention, BATCH).await? > 0 && !self.shared.shutdown.is_cancelled() {
            tokio::time::sleep(BREATH).await;
        }
        Ok(())
    }
}
