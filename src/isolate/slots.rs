//! Who computes, and how many runs are under way.
//!
//! Most jobs wait, for the answer of a remote system mostly. So there are two bounds: *slots*, of which a run has one only
//! while its isolate computes, and runs under way, each of which holds an isolate and its memory from its begin to its
//! end. When the isolate's event loop has nothing to do, its thread gives the slot back before it waits for an event
//! ([`Part::pause`]), and takes one again before JavaScript sees the event ([`Part::resume`]). A run whose answer has come
//! goes before one that has not begun, so that runs end before others begin.
//!
//! Slots go in turns over groups of runs, which are workflows: a thousand answers for one do not keep another waiting. No
//! group computes in all slots, as an isolate cannot be stopped before its job waits, ends or hits a limit, and one whose
//! jobs are endless loops would have them all. For the same reason no group has all the runs that may be under way.
//!
//! No run begins while the process has more memory than it may: what comes waits, and what is under way ends first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::capacity;
use super::limits::Tripwire;

/// How long what was read of the memory is taken to be true: reading it costs some microseconds.
const FRESH: Duration = Duration::from_millis(5);

/// Runs that belong together, such as those of a workflow. None: a run that shares its fate with no others.
pub type Group = Option<Arc<str>>;

/// How much there may be at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Runs that compute.
    pub slots: usize,
    /// Runs under way.
    pub runs: usize,
    /// Bytes that the process has, above which no run begins.
    pub memory: usize,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Slots that are taken, whoever has them.
    pub taken: usize,
    /// Runs under way.
    pub runs: usize,
    /// Of these, those that wait for a slot to go on.
    pub ready: usize,
    /// Those that wait for an event.
    pub idle: usize,
    /// Callers who wait to begin a run.
    pub asking: usize,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Slots(Arc<Shared>);

struct Shared {
    bounds: Bounds,
    state: Mutex<State>,
    /// No run is under way.
    all_over: Notify,
}

#[derive(Default)]
struct State {
    load: Load,
    groups: HashMap<Group, Members>,
    /// The groups in which somebody waits, that whose turn it is first.
    turns: VecDeque<Group>,
    /// What the process had, and when that was read.
    memory: Option<(Instant, usize)>,
    /// Whether a run could have begun but for the memory.
    lacks_memory: bool,
    /// Whether no run is to begin.
    is_held: bool,
}

/// What a group has, and who of it waits.
#[derive(Default)]
struct Members {
    computing: usize,
    runs: usize,
    ready: VecDeque<(Arc<Membership>, Thread)>,
    asking: VecDeque<oneshot::Sender<Turn>>,
}

impl Members {
    fn somebody_waits(&self) -> bool {
        !self.ready.is_empty() || !self.asking.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.computing == 0 && self.runs == 0 && !self.somebody_waits()
    }
}

/// A run, as the slots know it. The phase changes under the lock only.
struct Membership {
    group: Group,
    phase: AtomicU8,
}

/// What a run does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Computing,
    /// Waits for an event.
    Idle,
    /// Waits for a slot.
    Ready,
    /// Computes without a slot: it was stopped, and only unwinds.
    Stopped,
    Over,
}

impl Membership {
    fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::Acquire);
        [Phase::Computing, Phase::Idle, Phase::Ready, Phase::Stopped]
            .into_iter()
            .find(|known| *known as u8 == phase)
            .unwrap_or(Phase::Over)
    }

    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

impl Slots {
    pub fn new(bounds: Bounds) -> Self {
        let bounds = Bounds { slots: bounds.slots.max(1), runs: bounds.runs.max(1), ..bounds };
        Self(Arc::new(Shared { bounds, state: Mutex::default(), all_over: Notify::new() }))
    }

    pub fn bounds(&self) -> Bounds {
        self.0.bounds
    }

    pub fn load(&self) -> Load {
        self.0.state.lock().load
    }

    /// The right to begin a run, with a slot. Comes in its turn; whoever drops the receiver gives up the place.
    pub fn ask(&self, group: &Group) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        self.0.change(|_, state| {
            let asking = &mut state.members(group).asking;
            let before = asking.len();
            asking.retain(|other| !other.is_closed());
            asking.push_back(sender);
            let after = asking.len();
            state.load.asking = state.load.asking + after - before;
            state.waits(group);
        });
        receiver
    }

    /// As [`Self::ask`], if it can be now.
    pub fn try_begin(&self, group: &Group) -> Option<Turn> {
        let mut turn = None;
        self.0.change(|shared, state| {
            if shared.has_slot(state, group) && shared.may_begin(state, group) {
                turn = Some(shared.begin(state, group));
            }
        });
        turn
    }

    /// Whether there is time and memory for work ahead: a slot that nobody waits for who could have it.
    pub fn have_time(&self) -> bool {
        let mut state = self.0.state.lock();
        !state.is_held && state.load.taken < self.0.bounds.slots && self.0.has_memory(&mut state)
    }

    /// Lets no run begin until what comes back is dropped. Those under way go on, and who asks waits.
    pub fn hold(&self) -> Hold {
        self.0.change(|_, state| state.is_held = true);
        Hold(self.0.clone())
    }

    /// Whether there was no memory for a run when somebody last looked.
    pub fn lack_memory(&self) -> bool {
        self.0.state.lock().lacks_memory
    }

    /// Waits until no run is under way.
    pub async fn all_over(&self) {
        loop {
            let over = self.0.all_over.notified();
            if self.load().runs == 0 {
                return;
            }
            over.await;
        }
    }

    /// There may be more memory than before.
    pub fn look_again(&self) {
        self.0.change(|_, _| {});
    }
}

impl Shared {
    /// Changes the state, and gives out what can be given out after that.
    fn change(self: &Arc<Self>, change: impl FnOnce(&Arc<Self>, &mut State)) {
        let unclaimed = {
            let mut state = self.state.lock();
            change(self, &mut state);
            self.give_out(&mut state)
        };
        // Not while the state is locked: they go back as any others do.
        drop(unclaimed);
    }

    /// Gives slots to those who wait, in their turns. Returns what nobody took.
    #[must_use = "dropped under the lock, a turn would wait for it for ever"]
    fn give_out(self: &Arc<Self>, state: &mut State) -> Vec<Turn> {
        let mut unclaimed = Vec::new();
        while state.load.taken < self.bounds.slots {
            let next = (0..state.turns.len()).find(|at| {
                let group = state.turns[*at].clone();
                self.has_slot(state, &group)
                    && (!state.members(&group).ready.is_empty() || self.may_begin(state, &group))
            });
            let Some(group) = next.and_then(|at| state.turns.remove(at)) else { break };
            let members = state.members(&group);
            if let Some((member, thread)) = members.ready.pop_front() {
                members.computing += 1;
                state.load.ready -= 1;
                state.load.taken += 1;
                member.set(Phase::Computing);
                thread.unpark();
            } else if let Some(sender) = members.asking.pop_front() {
                state.load.asking -= 1;
                if !sender.is_closed() {
                    let turn = self.begin(state, &group);
                    unclaimed.extend(sender.send(turn).err());
                }
            }
            state.waits(&group);
        }
        unclaimed
    }

    /// Whether a slot is free for the group.
    fn has_slot(&self, state: &State, group: &Group) -> bool {
        let share = self.bounds.slots.saturating_sub(1).max(1);
        let computing = state.groups.get(group).map_or(0, |members| members.computing);
        (group.is_none() || computing < share) && state.load.taken < self.bounds.slots
    }

    /// Whether one more run of the group may be under way.
    fn may_begin(&self, state: &mut State, group: &Group) -> bool {
        let most = self.bounds.runs;
        let share = (most - most.div_ceil(10)).max(1);
        let runs = state.groups.get(group).map_or(0, |members| members.runs);
        !state.is_held && (group.is_none() || runs < share) && state.load.runs < most && self.has_memory(state)
    }

    /// Whether there is memory for one more run. There always is for one alone.
    fn has_memory(&self, state: &mut State) -> bool {
        state.lacks_memory = state.load.runs > 0 && state.memory_in_use() > self.bounds.memory;
        !state.lacks_memory
    }

    fn begin(self: &Arc<Self>, state: &mut State, group: &Group) -> Turn {
        state.load.taken += 1;
        state.load.runs += 1;
        let members = state.members(group);
        members.computing += 1;
        members.runs += 1;
        let membership = Membership { group: group.clone(), phase: AtomicU8::new(Phase::Computing as u8) };
        Turn(Part { shared: self.clone(), member: Arc::new(membership) })
    }
}

impl State {
    fn memory_in_use(&mut self) -> usize {
        match self.memory {
            Some((read, memory)) if read.elapsed() < FRESH => memory,
            _ => {
                let memory = capacity::memory_in_use();
                self.memory = Some((Instant::now(), memory));
                memory
            }
        }
    }

    fn members(&mut self, group: &Group) -> &mut Members {
        self.groups.entry(group.clone()).or_default()
    }

    /// Sees to it that the group has a turn if somebody in it waits, and is forgotten if there is nobody.
    fn waits(&mut self, group: &Group) {
        let members = self.members(group);
        if members.somebody_waits() {
            if !self.turns.contains(group) {
                self.turns.push_back(group.clone());
            }
        } else {
            if members.is_empty() {
                self.groups.remove(group);
            }
            self.turns.retain(|waiting| waiting != group);
        }
    }

    /// Takes a run out of the phase that it is in.
    fn leave(&mut self, member: &Arc<Membership>) {
        let members = self.groups.entry(member.group.clone()).or_default();
        match member.phase() {
            Phase::Computing => {
                members.computing -= 1;
                self.load.taken -= 1;
            }
            Phase::Ready => {
                members.ready.retain(|(waiting, _)| !Arc::ptr_eq(waiting, member));
                self.load.ready -= 1;
            }
            Phase::Idle => self.load.idle -= 1,
            Phase::Stopped | Phase::Over => {}
        }
    }
}

/// As long as it is there, no run begins. There is one at a time.
pub struct Hold(Arc<Shared>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.change(|_, state| state.is_held = false);
    }
}

/// The right to one run. Goes back when it is dropped, whatever the run's thread does.
pub struct Turn(Part);

impl Turn {
    /// For the thread of the run.
    pub fn part(&self) -> Part {
        self.0.clone()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Part { shared, member } = &self.0;
        shared.change(|shared, state| {
            state.leave(member);
            member.set(Phase::Over);
            state.load.runs -= 1;
            state.members(&member.group).runs -= 1;
            state.waits(&member.group);
            if state.load.runs == 0 {
                shared.all_over.notify_waiters();
            }
        });
    }
}

/// What the thread of a run does with its slot. Once the run is over, nothing.
#[derive(Clone)]
pub struct Part {
    shared: Arc<Shared>,
    member: Arc<Membership>,
}

impl Part {
    /// The isolate has nothing to do.
    pub fn pause(&self) {
        self.shared.change(|_, state| {
            if self.member.phase() != Phase::Over {
                state.leave(&self.member);
                self.member.set(Phase::Idle);
                state.load.idle += 1;
            }
        });
    }

    /// The isolate has something to do again: waits for a slot, unless the run is to be stopped. `tripwire` must know this
    /// thread.
    pub fn resume(&self, tripwire: &Tripwire) {
        self.shared.change(|_, state| {
            if self.member.phase() == Phase::Idle {
                state.leave(&self.member);
                self.member.set(Phase::Ready);
                state.load.ready += 1;
                state.members(&self.member.group).ready.push_back((self.member.clone(), thread::current()));
                state.waits(&self.member.group);
            }
        });
        while self.member.phase() == Phase::Ready {
            if tripwire.tripped().is_some() {
                self.go_without();
                return;
            }
            thread::park();
        }
    }

    /// Goes on at once: whoever stops a run waits for its end.
    fn go_without(&self) {
        self.shared.change(|_, state| {
            if self.member.phase() == Phase::Ready {
                state.leave(&self.member);
                self.member.set(Phase::Stopped);
                state.waits(&self.member.group);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(slots: usize, runs: usize) -> Slots {
        Slots::new(Bounds { slots, runs, memory: usize::MAX })
    }

    fn group(name: &str) -> Group {
        Some(name.into())
    }

    fn granted(asked: &mut oneshot::Receiver<Turn>) -> Option<Turn> {
        asked.try_recv().ok()
    }

    #[test]
    fn a_run_that_waits_has_no_slot() {
        let slots = slots(2, 4);
        let turns: Vec<Turn> = (0..2).filter_map(|_| slots.try_begin(&None)).collect();
        assert_eq!(turns.len(), 2);
        assert!(slots.try_begin(&None).is_none());
        let mut asked = slots.ask(&None);
        assert!(granted(&mut asked).is_none());
        turns[0].part().pause();
        let third = granted(&mut asked).expect("a slot is free");
        assert_eq!(slots.load(), Load { taken: 2, runs: 3, ready: 0, idle: 1, asking: 0 });
        drop(turns);
        drop(third);
        assert_eq!(slots.load(), Load::default());
    }

    #[test]
    fn no_more_runs_are_under_way_than_may_be() {
        let slots = slots(1, 3);
        let begin = || {
            let turn = slots.try_begin(&None).expect("there is room");
            turn.part().pause();
            turn
        };
        let turns = [begin(), begin(), begin()];
        let mut asked = slots.ask(&None);
        assert!(granted(&mut asked).is_none());
        drop(turns);
        assert!(granted(&mut asked).is_some());
    }

    #[test]
    fn runs_go_on_before_others_begin_and_groups_take_turns() {
        let slots = slots(1, 100);
        let (first, second) = (slots.try_begin(&None).unwrap(), Arc::<Tripwire>::default());
        first.part().pause();
        let holder = slots.try_begin(&None).unwrap();
        let mut asked = slots.ask(&None);
        let mut other = slots.ask(&group("other"));
        let ready = {
            let part = first.part();
            thread::spawn(move || part.resume(&second))
        };
        while slots.load().ready == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        drop(holder);
        ready.join().unwrap();
        assert!(granted(&mut asked).is_none() && granted(&mut other).is_none());
        drop(first);
        let other = granted(&mut other).expect("it is the other group's turn");
        assert!(granted(&mut asked).is_none());
        drop(other);
        assert!(granted(&mut asked).is_some());
    }

    #[test]
    fn while_slots_are_held_runs_end_and_none_begins() {
        let slots = slots(2, 10);
        let under_way = slots.try_begin(&None).unwrap();
        under_way.part().pause();
        let hold = slots.hold();
        assert!(slots.try_begin(&None).is_none() && !slots.have_time());
        let mut asked = slots.ask(&None);
        // It has its slot again at once.
        under_way.part().resume(&Tripwire::default());
        assert_eq!(slots.load(), Load { taken: 1, runs: 1, ready: 0, idle: 0, asking: 1 });
        drop(under_way);
        assert!(granted(&mut asked).is_none());
        drop(hold);
        assert!(granted(&mut asked).is_some());
    }

    #[test]
    fn no_group_has_all_slots_or_all_runs() {
        let computing = slots(3, 100);
        let turns: Vec<Turn> = std::iter::from_fn(|| computing.try_begin(&group("a"))).collect();
        assert_eq!(turns.len(), 2);
        assert!(computing.try_begin(&group("b")).is_some());
        let waiting = slots(2, 10);
        let turns: Vec<Turn> =
            std::iter::from_fn(|| waiting.try_begin(&group("a")).inspect(|turn| turn.part().pause())).collect();
        assert_eq!(turns.len(), 9);
        assert!(waiting.try_begin(&group("b")).is_some());
    }

    #[test]
    fn whoever_is_gone_gets_nothing() {
        let slots = slots(1, 10);
        let holder = slots.try_begin(&None).unwrap();
        drop(slots.ask(&None));
        drop(slots.ask(&None));
        let mut asked = slots.ask(&None);
        assert_eq!(slots.load().asking, 1);
        drop(holder);
        assert!(granted(&mut asked).is_some());
        assert_eq!(slots.load(), Load::default());
    }

    #[test]
    fn a_run_that_is_stopped_does_not_wait_for_a_slot() {
        let slots = slots(1, 10);
        let stopped = slots.try_begin(&None).unwrap();
        stopped.part().pause();
        let holder = slots.try_begin(&None).unwrap();
        let tripwire = Arc::<Tripwire>::default();
        let waiter = {
            let (part, tripwire) = (stopped.part(), tripwire.clone());
            thread::spawn(move || {
                tripwire.runs_here();
                part.resume(&tripwire);
            })
        };
        while slots.load().ready == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        tripwire.cancel();
        waiter.join().unwrap();
        assert_eq!(slots.load(), Load { taken: 1, runs: 2, ready: 0, idle: 0, asking: 0 });
        drop((stopped, holder));
        assert_eq!(slots.load(), Load::default());
    }

    #[test]
    fn without_memory_one_run_goes_at_a_time_and_nothing_is_made_ahead() {
        let slots = Slots::new(Bounds { slots: 4, runs: 4, memory: 0 });
        let alone = slots.try_begin(&None).expect("one always may");
        assert!(slots.try_begin(&None).is_none() && slots.lack_memory());
        assert!(!slots.have_time());
        let mut asked = slots.ask(&None);
        drop(alone);
        assert!(granted(&mut asked).is_some());
    }
}
