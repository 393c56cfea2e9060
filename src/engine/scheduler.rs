//! The loop that takes due tasks from the store and has them run.
//!
//! A task is claimed when there is room for it: as many as can run, and a few more so that an isolate need not wait for
//! the disk between two runs. No workflow gets all isolates (`turns`): one whose jobs never end would keep out the others. Whoever holds a task prolongs its lease until it is settled. A lease that ran out belonged
//! to a process that is gone; its tasks are taken over and go again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::{Engine, Flight};
use crate::model::{TaskId, Timestamp};
use crate::store::{Claim, Claimed, ClaimedTask, StoreError};

/// The longest wait for something to do. New work wakes the scheduler; this is for work that others put into the store.
const LONGEST_IDLE: Duration = Duration::from_secs(5);
/// The wait after the store could not answer.
const STORE_AWAY: Duration = Duration::from_millis(500);

impl Engine {
    /// Runs tasks as they fall due, until the engine stops.
    pub(super) async fn run_tasks(self) {
        let mut permits: Vec<OwnedSemaphorePermit> = Vec::new();
        while !self.shared.shutdown.is_cancelled() {
            if permits.is_empty() {
                tokio::select! {
                    permit = self.shared.room.clone().acquire_owned() => permits.extend(permit),
                    () = self.shared.shutdown.cancelled() => return,
                }
            }
            while let Ok(permit) = self.shared.room.clone().try_acquire_owned() {
                permits.push(permit);
            }
            let claiming = self.shared.claiming.lock().await;
            let wait = match self.claim(permits.len()).await {
                Ok(claimed) => self.spawn(claimed, &mut permits),
                Err(error) => {
                    self.shared.store_trouble(&error, "cannot ask for tasks");
                    STORE_AWAY
                }
            };
            drop(claiming);
            if !permits.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.shared.due.notified() => {}
                    () = self.shared.shutdown.cancelled() => {}
                }
            }
        }
    }

    async fn claim(&self, limit: usize) -> Result<Claimed, StoreError> {
        let now = self.now();
        let running = self.running_by_workflow();
        let served = self.served();
        let names = served.workflows.keys().chain(running.keys());
        let allowance = names.map(|name| {
            let limit = served.workflows.get(name).and_then(|definition| definition.workflow.concurrency);
            let most = limit.map_or(self.shared.turns.share() + self.shared.options.ahead, |limit| limit as usize);
            (name.clone(), most.saturating_sub(running.get(name).copied().unwrap_or(0)))
        });
        let claim = Claim {
            owner: self.shared.owner.clone(),
            now,
            lease_until: now.saturating_add(self.shared.options.lease),
            limit,
            allowance: allowance.collect(),
            running: running.clone(),
        };
        self.shared.store.claim(claim).await
    }

    fn running_by_workflow(&self) -> HashMap<String, usize> {
        let mut running = HashMap::new();
        for flight in self.shared.in_flight.lock().values() {
            *running.entry(flight.workflow.clone()).or_insert(0) += 1;
        }
        running
    }

    /// Starts what was claimed; how long to wait before asking again.
    fn spawn(&self, claimed: Claimed, permits: &mut Vec<OwnedSemaphorePermit>) -> Duration {
        for task in claimed.tasks {
            let permit = permits.pop();
            let hold = self.shared.hold(&task);
            let engine = self.clone();
            self.shared.tasks.spawn(async move {
                engine.execute(task, &hold).await;
                drop(permit);
            });
        }
        let until_due = |due: Timestamp| due.since(self.now()).max(Duration::from_millis(1));
        claimed.next_due.map_or(LONGEST_IDLE, until_due).min(LONGEST_IDLE)
    }

    /// Prolongs the leases of what is being worked on, and takes over what others left, until everything is settled.
    pub(super) async fn keep_leases(self) {
        let beat = self.shared.options.lease / 3;
        loop {
            if let Err(error) = self.renew_leases().await {
                self.shared.store_trouble(&error, "cannot prolong leases");
            }
            if let Err(error) = self.take_over_lost().await {
                self.shared.store_trouble(&error, "cannot take over what was left");
            }
            tokio::select! {
                () = tokio::time::sleep(beat) => {}
                () = self.shared.stopped.cancelled() => return,
            }
        }
    }

    async fn renew_leases(&self) -> Result<(), StoreError> {
        let held: Vec<Flight> = self.shared.in_flight.lock().keys().copied().collect();
        if held.is_empty() {
            return Ok(());
        }
        let until = self.now().saturating_add(self.shared.options.lease);
        let tasks: Vec<TaskId> = held.iter().map(|(task, _)| *task).collect();
        let kept = self.shared.store.renew(&self.shared.owner, &tasks, until).await?;
        let in_flight = self.shared.in_flight.lock();
        for flight in held.iter().filter(|(task, _)| !kept.contains(task)) {
            // Settled in the meantime, cancelled, or taken over: in no case is there a reason to go on.
            if let Some(flight) = in_flight.get(flight) {
                flight.cancel.cancel();
            }
        }
        Ok(())
    }

    /// Settles attempts whose process is gone.
    async fn take_over_lost(&self) -> Result<(), StoreError> {
        const BATCH: usize = 100;
        loop {
            let now = self.now();
            let until = now.saturating_add(self.shared.options.lease);
            let lost: Vec<ClaimedTask> = self.shared.store.claim_lost(&self.shared.owner, now, until, BATCH).await?;
            let last = lost.len() < BATCH;
            for task in lost {
                let (engine, hold) = (self.clone(), self.shared.hold(&task));
                // Not here: leases are prolonged however long it takes.
                self.shared.tasks.spawn(async move { engine.settle_lost(Arc::new(task), &hold).await });
            }
            if last {
                return Ok(());
            }
        }
    }
}
