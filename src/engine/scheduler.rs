//! The loop that takes due tasks from the store and has them run.
//!
//! A task is claimed when there is a place for it (`places`). Whoever holds a task prolongs its lease until it is settled. A
//! lease that ran out belonged to a process that is gone; its tasks are taken over and go again.

use std::sync::Arc;
use std::time::Duration;

use super::places::{Place, Room};
use super::{Engine, Flight};
use crate::model::{TaskId, Timestamp};
use crate::store::{Claim, ClaimedTask, StoreError};

/// The longest wait for something to do. New work wakes the scheduler; this is for work that others put into the store.
const LONGEST_IDLE: Duration = Duration::from_secs(5);
/// The wait after the store could not answer.
const STORE_AWAY: Duration = Duration::from_millis(500);

impl Engine {
    /// Runs tasks as they fall due, until the engine stops.
    pub(super) async fn run_tasks(self) {
        let places = &self.shared.places;
        while !self.shared.shutdown.is_cancelled() {
            let wait = match places.begin_claim(self.served().limits(), self.now()) {
                Some(room) => match self.claim(room).await {
                    Ok(()) => continue,
                    Err(error) => {
                        self.shared.store_trouble(&error, "cannot ask for tasks");
                        STORE_AWAY
                    }
                },
                None => self.until_due(),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => if wait == LONGEST_IDLE { places.look_again() },
                () = places.changed() => {}
                () = self.shared.shutdown.cancelled() => {}
            }
        }
    }

    /// Takes what is due, as far as there is room, and has it run.
    async fn claim(&self, room: Room) -> Result<(), StoreError> {
        let now = self.now();
        let claim = Claim {
            owner: self.shared.owner.clone(),
            now,
            lease_until: now.saturating_add(self.shared.options.lease),
            limit: room.limit,
            allowance: room.allowance,
            otherwise: room.otherwise,
            running: room.taken,
        };
        let places = &self.shared.places;
        let _between = self.shared.claiming.read().await;
        let claimed = self.shared.store.claim(claim).await.inspect_err(|_| places.end_claim(None))?;
        // Before the claim has ended: whoever comes then finds these places taken.
        let taken: Vec<Place> = claimed.tasks.iter().map(|task| places.of_claimed(&task.task.workflow)).collect();
        places.end_claim(Some(&claimed));
        for (task, place) in claimed.tasks.into_iter().zip(taken) {
            self.attempt(task, place);
        }
        Ok(())
    }

    /// Has a task run that is ours.
    pub(super) fn attempt(&self, task: ClaimedTask, place: Place) {
        let mut hold = self.shared.hold(&task, place);
        let engine = self.clone();
        self.shared.tasks.spawn(async move { engine.execute(task, &mut hold).await });
    }

    fn until_due(&self) -> Duration {
        let until = |due: Timestamp| due.since(self.now()).max(Duration::from_millis(1));
        self.shared.places.next_due().map_or(LONGEST_IDLE, until).min(LONGEST_IDLE)
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
                let place = self.shared.places.of_claimed(&task.task.workflow);
                let (engine, mut hold) = (self.clone(), self.shared.hold(&task, place));
                // Not here: leases are prolonged however long it takes.
                self.shared.tasks.spawn(async move { engine.settle_lost(Arc::new(task), &mut hold).await });
            }
            if last {
                return Ok(());
            }
        }
    }
}
