//! A clock that does not go back.
//!
//! Leases and waiting times are compared with points in time that were written before, perhaps by an earlier process. If
//! the machine's clock is set back an hour, a clock that followed it would leave everything due within that hour
//! waiting. This one goes on from where it is, a little slower, until the machine's clock has caught up. It follows
//! jumps ahead at once.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::model::Timestamp;

/// See the module.
#[derive(Debug)]
pub struct Clock(Mutex<Reading>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    shown: Timestamp,
    at: Instant,
}

impl Clock {
    /// A clock that shows no time before `latest`, the latest point in time known from before.
    pub fn starting_after(latest: Option<Timestamp>) -> Self {
        let shown = latest.unwrap_or_default().max(SystemTime::now().into());
        Self(Mutex::new(Reading { shown, at: Instant::now() }))
    }

    pub fn now(&self) -> Timestamp {
        self.read(SystemTime::now().into(), Instant::now())
    }

    /// How far the machine's clock is behind.
    pub fn ahead(&self) -> Duration {
        self.now().since(SystemTime::now().into())
    }

    fn read(&self, wall: Timestamp, at: Instant) -> Timestamp {
        let mut reading = self.0.lock();
        let passed = at.saturating_duration_since(reading.at);
        let steady = reading.shown.saturating_add(passed);
        let shown = if wall >= steady { wall } else { wall.max(reading.shown.saturating_add(passed.mul_f64(0.9))) };
        *reading = Reading { shown, at };
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn it_never_goes_back_and_heals_slowly() {
        let wall = Timestamp::from(SystemTime::now());
        let at = Instant::now();
        let clock = Clock(Mutex::new(Reading { shown: wall, at }));
        let behind = wall.saturating_sub(HOUR);
        assert_eq!(clock.read(behind, at), wall);
        assert_eq!(clock.read(behind.saturating_add(HOUR), at + HOUR), wall.saturating_add(HOUR.mul_f64(0.9)));
        let late = at + HOUR * 11;
        assert_eq!(clock.read(behind.saturating_add(HOUR * 11), late), behind.saturating_add(HOUR * 11));
    }

    #[test]
    fn it_follows_jumps_ahead_and_goes_on_from_what_was_known() {
        let clock = Clock::starting_after(None);
        let now = clock.now();
        assert_eq!(clock.read(now.saturating_add(HOUR), Instant::now()), now.saturating_add(HOUR));
        let later = now.saturating_add(HOUR * 3);
        let clock = Clock::starting_after(Some(later));
        assert!(clock.now() >= later);
        assert!(clock.ahead() > HOUR * 2);
    }
}
