//! How many tasks are taken at once, and which of two goes first: one that just came, or one that waits in the store.
//!
//! A task has a *place* from the moment that it is taken until it is settled, and *waits* in it until it has an isolate.
//! A few of each workflow may wait, so that isolates need not wait for the disk; how many depends on how long its
//! attempts take, since what waits here cannot be overtaken by what is more urgent.
//!
//! A task that comes while there is a place, and while no other is known to be due before it, gets the place at once: it
//! is kept and claimed in one transaction. Otherwise the scheduler claims it in its turn. What is known of the store is
//! what the last claim left, and that something came after it ([`Places::wake`]). Whatever the scheduler wants and finds
//! no room for ends the short cut until it had its turn, so nothing that waits in the store starves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::Timestamp;
use crate::store::{Claimed, Left};

/// Tasks that wait for an isolate at most, of all workflows.
const MOST_WAITING: usize = 128;
/// So much work of a workflow may wait, by the time that its attempts took so far.
const WORK_AHEAD: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    /// Tasks of a workflow that may wait, however long they take.
    least_ahead: usize,
    /// Attempts that can make progress at once.
    cores: u32,
    state: Mutex<State>,
    /// There may be something to claim, and room for it.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    workflows: HashMap<Arc<str>, Load>,
    waiting: usize,
    /// What the last claim left in the store.
    left: Left,
    /// Something came into the store since the last claim began.
    again: bool,
    next_due: Option<Timestamp>,
    claiming: bool,
}

/// The places of one workflow.
#[derive(Debug, Default)]
struct Load {
    taken: usize,
    waiting: usize,
    /// What an attempt takes, later ones counting more.
    takes: Option<Duration>,
}

/// What a claim may take.
#[derive(Debug, PartialEq)]
pub(super) struct Room {
    pub limit: usize,
    /// Workflow → how many more of its tasks.
    pub allowance: HashMap<String, usize>,
    /// The same for those that are not listed.
    pub otherwise: usize,
    /// Workflow → how many of its tasks are taken.
    pub taken: HashMap<String, usize>,
}

/// Workflow → how many of its tasks may run at once, where the project says so.
pub(super) type Limits = HashMap<String, usize>;

impl Places {
    pub fn new(least_ahead: usize) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from) as u32;
        // What is in the store is not known yet.
        let state = State {
            workflows: HashMap::new(),
            waiting: 0,
            left: Left::Any,
            again: false,
            next_due: None,
            claiming: false,
        };
        Arc::new(Self { least_ahead, cores, state: Mutex::new(state), changed: Notify::new() })
    }

    /// A place for a task that comes now, if none that is due goes before it.
    pub fn at_once(self: &Arc<Self>, workflow: &str, limits: &Limits, now: Timestamp) -> Option<Place> {
        let mut state = self.state.lock();
        let is_first = match &state.left {
            Left::Any => false,
            Left::Only(workflows) => !workflows.contains(workflow),
        };
        let settled = !limits.contains_key(workflow) || !(state.claiming || state.again);
        let nothing_due = state.next_due.is_none_or(|due| due > now);
        let has_room = state.waiting < MOST_WAITING && self.room(&state, workflow, limits) > 0;
        (is_first && settled && nothing_due && has_room).then(|| self.place(&mut state, workflow))
    }

    /// The place of a task that was claimed.
    pub fn of_claimed(self: &Arc<Self>, workflow: &str) -> Place {
        self.place(&mut self.state.lock(), workflow)
    }

    fn place(self: &Arc<Self>, state: &mut State, workflow: &str) -> Place {
        let name = match state.workflows.get_key_value(workflow) {
            Some((name, _)) => name.clone(),
            None => workflow.into(),
        };
        let load = state.workflows.entry(name.clone()).or_default();
        load.taken += 1;
        load.waiting += 1;
        state.waiting += 1;
        Place { places: self.clone(), workflow: name, waits: true }
    }

    /// How many more tasks of a workflow may be taken.
    fn room(&self, state: &State, workflow: &str, limits: &Limits) -> usize {
        let load = state.workflows.get(workflow);
        let (taken, waiting) = load.map_or((0, 0), |load| (load.taken, load.waiting));
        match limits.get(workflow) {
            Some(limit) => limit.saturating_sub(taken),
            None => self.ahead(load).saturating_sub(waiting),
        }
    }

    /// How many tasks of a workflow may wait.
    fn ahead(&self, load: Option<&Load>) -> usize {
        let takes = load.and_then(|load| load.takes).map_or(WORK_AHEAD, |takes| takes.max(Duration::from_micros(1)));
        let short = (WORK_AHEAD * self.cores).as_micros() / takes.as_micros().max(1);
        (short as usize).clamp(self.least_ahead, MOST_WAITING.max(self.least_ahead))
    }

    /// Begins a claim, if something may be due for which there is room. [`Self::end_claim`] ends it.
    pub fn begin_claim(&self, limits: &Limits, now: Timestamp) -> Option<Room> {
        let mut state = self.state.lock();
        let is_due = state.again
            || state.next_due.is_some_and(|due| due <= now)
            || match &state.left {
                Left::Any => true,
                Left::Only(workflows) => workflows.iter().any(|workflow| self.room(&state, workflow, limits) > 0),
            };
        if !is_due {
            return None;
        }
        let limit = MOST_WAITING.saturating_sub(state.waiting);
        if limit == 0 {
            state.left = Left::Any;
            return None;
        }
        (state.claiming, state.again) = (true, false);
        let loaded = state.workflows.keys().map(|name| &**name);
        let limited = limits.keys().map(String::as_str).filter(|name| !state.workflows.contains_key(*name));
        Some(Room {
            limit,
            allowance: loaded.chain(limited).map(|name| (name.to_owned(), self.room(&state, name, limits))).collect(),
            otherwise: self.ahead(None),
            taken: state.workflows.iter().map(|(name, load)| (name.to_string(), load.taken)).collect(),
        })
    }

    /// Ends a claim; None: the store did not answer.
    pub fn end_claim(&self, claimed: Option<&Claimed>) {
        let mut state = self.state.lock();
        state.claiming = false;
        match claimed {
            Some(claimed) => {
                state.left = claimed.left.clone();
                state.next_due = claimed.next_due;
            }
            None => state.left = Left::Any,
        }
    }

    /// Something came into the store that is due, or falls due at this time.
    pub fn wake(&self, due: Option<Timestamp>) {
        let mut state = self.state.lock();
        match due {
            // A claim that is under way may not see it.
            Some(due) if !state.claiming => {
                if state.next_due.is_some_and(|next| next <= due) {
                    return;
                }
                state.next_due = Some(due);
            }
            _ => state.again = true,
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Others may have put something into the store, or more may be taken than before.
    pub fn look_again(&self) {
        self.state.lock().left = Left::Any;
        self.changed.notify_one();
    }

    /// When the next task falls due, as far as is known.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.state.lock().next_due
    }

    /// Waits until there may be something to claim, and room for it.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Room has become free: whether somebody waits for it.
    fn freed(&self, state: &State, workflow: &str) {
        let is_wanted = match &state.left {
            Left::Any => true,
            Left::Only(workflows) => workflows.contains(workflow),
        };
        if is_wanted || state.again {
            self.changed.notify_one();
        }
    }
}

impl State {
    fn stop_waiting(&mut self, workflow: &str) {
        self.waiting -= 1;
        if let Some(load) = self.workflows.get_mut(workflow) {
            load.waiting -= 1;
        }
    }
}

/// The place of one task. Goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    workflow: Arc<str>,
    waits: bool,
}

impl Place {
    /// The task has an isolate, and begins.
    pub fn begin(&mut self) {
        let mut state = self.places.state.lock();
        if std::mem::take(&mut self.waits) {
            state.stop_waiting(&self.workflow);
        }
        self.places.freed(&state, &self.workflow);
    }

    /// The attempt that began at this time is over.
    pub fn took(&self, since: Instant) {
        let took = since.elapsed();
        let mut state = self.places.state.lock();
        if let Some(load) = state.workflows.get_mut(&self.workflow) {
            load.takes = Some(load.takes.map_or(took, |before| (before * 7 + took) / 8));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state.lock();
        if self.waits {
            state.stop_waiting(&self.workflow);
        }
        if let Some(load) = state.workflows.get_mut(&self.workflow) {
            load.taken -= 1;
        }
        // Workflows come and go with the project.
        if state.workflows.len() > 1000 {
            state.workflows.retain(|_, load| load.taken > 0);
        }
        self.places.freed(&state, &self.workflow);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn nothing_left() -> Claimed {
        Claimed::default()
    }

    fn left(workflow: &str) -> Claimed {
        Claimed { left: Left::Only(HashSet::from([workflow.to_owned()])), ..Claimed::default() }
    }

    /// Places of an engine that has asked the store once, and got this.
    fn after(claimed: &Claimed) -> Arc<Places> {
        let places = Places::new(4);
        places.begin_claim(&Limits::new(), NOW).expect("what is in the store is not known");
        places.end_claim(Some(claimed));
        places
    }

    #[test]
    fn what_comes_has_a_place_at_once_only_if_nothing_is_due_before_it() {
        let none = Limits::new();
        assert!(Places::new(4).at_once("a", &none, NOW).is_none());
        assert!(after(&nothing_left()).at_once("a", &none, NOW).is_some());
        let places = after(&left("a"));
        assert!(places.at_once("a", &none, NOW).is_none());
        assert!(places.at_once("b", &none, NOW).is_some());
        let places = after(&Claimed { next_due: Some(NOW), ..Claimed::default() });
        assert!(places.at_once("a", &none, NOW).is_none());
        assert!(places.at_once("a", &none, NOW.saturating_sub(Duration::from_secs(1))).is_some());
    }

    #[test]
    fn a_limit_holds_while_others_may_be_due() {
        let limits = Limits::from([("a".to_owned(), 1)]);
        let places = after(&nothing_left());
        let place = places.at_once("a", &limits, NOW);
        assert!(place.is_some() && places.at_once("a", &limits, NOW).is_none());
        drop(place);
        places.wake(None);
        assert!(places.at_once("a", &limits, NOW).is_none());
        assert!(places.at_once("b", &limits, NOW).is_some());
    }

    #[test]
    fn a_few_wait_for_isolates_and_more_if_they_are_short() {
        let (none, places) = (Limits::new(), after(&nothing_left()));
        let mut taken: Vec<Place> = (0..4).map_while(|_| places.at_once("a", &none, NOW)).collect();
        assert_eq!(taken.len(), 4);
        assert!(places.at_once("a", &none, NOW).is_none());
        taken[0].begin();
        taken[0].took(Instant::now());
        let more: Vec<Place> = (0..1000).map_while(|_| places.at_once("a", &none, NOW)).collect();
        assert!(more.len() > 50 && more.len() + 3 <= MOST_WAITING, "{}", more.len());
    }

    #[test]
    fn what_finds_no_room_goes_before_what_comes() {
        let (none, places) = (Limits::new(), after(&nothing_left()));
        let mut taken = Vec::new();
        for workflow in 0..MOST_WAITING {
            taken.extend(places.at_once(&workflow.to_string(), &none, NOW));
        }
        assert_eq!(taken.len(), MOST_WAITING);
        places.wake(None);
        assert!(places.begin_claim(&none, NOW).is_none());
        taken.truncate(10);
        assert!(places.at_once("a", &none, NOW).is_none());
        let room = places.begin_claim(&none, NOW).unwrap();
        assert_eq!((room.limit, room.otherwise), (MOST_WAITING - 10, 4));
        places.end_claim(Some(&nothing_left()));
        assert!(places.begin_claim(&none, NOW).is_none());
        assert!(places.at_once("a", &none, NOW).is_some());
    }
}
