//! Runs that a clock starts.
//!
//! The store remembers when each trigger fired last, in the transaction that keeps the run. So a time fires once, also
//! if the process dies in between or several processes share the store.
//!
//! Times are those of the machine's clock, as people mean them. If that goes back a little, as clocks do that are kept
//! in step, nothing fires until it has caught up. If it goes back far, it was wrong before: what is remembered is turned
//! back with it, and from then on the times of the clock as it is now fire, each once.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds};

use super::ingest::Start;
use super::served::Entrance;
use super::{Engine, EngineError};
use crate::model::{Cron, Misfire, Priority, TaskInput, Timestamp, TriggerKind};
use crate::store::{Admitted, Intake, PageRequest, RunFilter, Tick};

/// The longest sleep: the machine's clock may jump ahead, or the machine may be suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How far the machine's clock may go back and be waited for.
const STEP_BACK: Duration = Duration::from_secs(300);
/// Passed times that are made up for at most.
const MOST_MISSED: usize = 100;

/// Reads a cron expression of five fields, or six with seconds first.
pub fn parse(expression: &str) -> Result<croner::Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).build();
    parser.parse(expression).map_err(|error| error.to_string())
}

/// The first time after `after` at which the trigger fires. None: never again.
pub fn next_after(cron: &Cron, after: Timestamp) -> Option<Timestamp> {
    let after: DateTime<Tz> = after.to_datetime()?.with_timezone(&cron.timezone);
    let next = parse(&cron.expression).ok()?.find_next_occurrence(&after, false).ok()?;
    Some(next.with_timezone(&Utc).into())
}

/// The last time up to `now` at which the trigger fires.
fn last_before(cron: &Cron, now: Timestamp) -> Option<Timestamp> {
    let now: DateTime<Tz> = now.to_datetime()?.with_timezone(&cron.timezone);
    let last = parse(&cron.expression).ok()?.find_previous_occurrence(&now, true).ok()?;
    Some(last.with_timezone(&Utc).into())
}

/// Which of the times since `last` are to be run at `now`. A time that passed no longer than `late` ago was not missed.
fn due(cron: &Cron, last: Timestamp, now: Timestamp, late: Duration) -> Vec<Timestamp> {
    let latest = last_before(cron, now).filter(|latest| *latest > last);
    match cron.misfire {
        Misfire::Skip => latest.filter(|latest| now.since(*latest) <= late).into_iter().collect(),
        Misfire::Once => latest.into_iter().collect(),
        Misfire::All => {
            let times = std::iter::successors(next_after(cron, last), |time| next_after(cron, *time));
            let mut passed: VecDeque<Timestamp> = VecDeque::new();
            for time in times.take_while(|time| *time <= now) {
                if passed.len() == MOST_MISSED {
                    passed.pop_front();
                }
                passed.push_back(time);
            }
            passed.into()
        }
    }
}

/// What the store files a trigger's last time under: several workflows may have a trigger of the same name.
fn tick_key(entrance: &Entrance) -> String {
    format!("{}/{}", entrance.definition.workflow.name, entrance.trigger().name)
}

impl Engine {
    /// Fires triggers as their times come, until the engine stops.
    pub(super) async fn keep_time(self) {
        let began: Timestamp = SystemTime::now().into();
        loop {
            let wait = self.fire_due(began).await;
            tokio::select! {
                () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {}
                () = self.shared.timers.notified() => {}
                () = self.shared.shutdown.cancelled() => return,
            }
        }
    }

    /// Fires what is due, and says how long to wait for what comes next.
    async fn fire_due(&self, began: Timestamp) -> Duration {
        let served = self.served();
        let mut wait = LONGEST_SLEEP;
        for entrance in served.clocked() {
            match self.fire_if_due(entrance, began).await {
                Ok(next) => wait = wait.min(next),
                Err(error) => {
                    tracing::warn!(trigger = entrance.trigger().name, %error, "cannot start a run on time; trying again");
                    wait = wait.min(Duration::from_secs(1));
                }
            }
        }
        wait
    }

    /// Fires one trigger, if its time has come; how long to wait for its next time.
    async fn fire_if_due(&self, entrance: &Entrance, began: Timestamp) -> Result<Duration, EngineError> {
        match &entrance.trigger().kind {
            TriggerKind::Cron(cron) => self.fire_on_time(entrance, cron, began).await,
            TriggerKind::Every { interval } => self.fire_again(entrance, *interval).await,
            TriggerKind::Message { .. } | TriggerKind::Webhook(_) => Ok(LONGEST_SLEEP),
        }
    }

    async fn fire_on_time(&self, entrance: &Entrance, cron: &Cron, began: Timestamp) -> Result<Duration, EngineError> {
        let now: Timestamp = SystemTime::now().into();
        let key = tick_key(entrance);
        // A trigger that has never fired has missed nothing.
        let fired = self.shared.store.last_tick(&key).await?;
        let mut last = fired.unwrap_or_else(|| began.max(entrance.definition.since));
        let ahead = last.since(now);
        if ahead > STEP_BACK {
            let (trigger, seconds) = (&entrance.trigger().name, ahead.as_secs());
            tracing::warn!(trigger, seconds, "the machine's clock went back; the trigger goes on from its time now");
            self.shared.store.set_last_tick(&key, now).await?;
            last = now;
        }
        for scheduled_at in due(cron, last, now, LONGEST_SLEEP * 2) {
            self.fire(entrance, scheduled_at, !cron.overlap).await?;
        }
        Ok(next_after(cron, now).map_or(LONGEST_SLEEP, |next| next.since(now)))
    }

    /// Fires when `interval` has passed since the end of the run before. The end of a run wakes the clock.
    async fn fire_again(&self, entrance: &Entrance, interval: Duration) -> Result<Duration, EngineError> {
        let workflow = Some(entrance.definition.workflow.name.clone());
        let last = PageRequest { after: None, limit: 1 };
        let runs = self.shared.store.runs(RunFilter { workflow, ..RunFilter::default() }, last).await?;
        let since = match runs.items.first() {
            Some(run) => match run.finished_at {
                Some(finished_at) => finished_at,
                None => return Ok(LONGEST_SLEEP),
            },
            None => entrance.definition.since,
        };
        let next = since.saturating_add(interval);
        let now = self.now();
        if next > now {
            return Ok(next.since(now));
        }
        self.fire(entrance, next, true).await?;
        Ok(LONGEST_SLEEP)
    }

    async fn fire(&self, entrance: &Entrance, scheduled_at: Timestamp, alone: bool) -> Result<(), EngineError> {
        let (definition, trigger) = (&entrance.definition, entrance.trigger());
        let now = self.now();
        let start =
            Start { now, run_at: now, message: None, priority: Priority::Normal, traceparent: None, retry_of: None };
        let run = start.run(definition, Some(&trigger.name), (definition.workflow.start.as_str(), TaskInput::Cursor));
        let tick = Tick { trigger: tick_key(entrance), scheduled_at, alone };
        let intake = Intake { tick: Some(tick), runs: vec![run], ..Intake::default() };
        if self.admit(intake).await? == Admitted::Overlap {
            tracing::info!(
                trigger = trigger.name,
                workflow = definition.workflow.name,
                %scheduled_at,
                "not started: the run before has not ended"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        DateTime::parse_from_rfc3339(text).unwrap().into()
    }

    fn cron(expression: &str, timezone: Tz, misfire: Misfire) -> Cron {
        Cron { expression: expression.into(), timezone, misfire, overlap: false }
    }

    #[test]
    fn times_are_those_of_the_time_zone() {
        let nightly = cron("30 2 * * *", chrono_tz::Europe::Berlin, Misfire::Skip);
        assert_eq!(next_after(&nightly, time("2026-01-10T12:00:00Z")), Some(time("2026-01-11T01:30:00Z")));
        assert_eq!(next_after(&nightly, time("2026-07-10T12:00:00Z")), Some(time("2026-07-11T00:30:00Z")));
        let every_ten_seconds = cron("*/10 * * * * *", Tz::UTC, Misfire::Skip);
        assert_eq!(next_after(&every_ten_seconds, time("2026-01-10T12:00:01Z")), Some(time("2026-01-10T12:00:10Z")));
    }

    #[test]
    fn missed_times_are_made_up_for_as_the_policy_says() {
        let count = |misfire, last, now| {
            due(&cron("0 * * * *", Tz::UTC, misfire), time(last), time(now), Duration::from_secs(60)).len()
        };
        let (last, now) = ("2026-01-10T00:00:00Z", "2026-01-10T05:30:00Z");
        assert_eq!(count(Misfire::Skip, last, now), 0);
        assert_eq!(count(Misfire::Once, last, now), 1);
        assert_eq!(count(Misfire::All, last, now), 5);
        assert_eq!(count(Misfire::All, last, "2026-03-10T05:30:00Z"), MOST_MISSED);
        assert_eq!(count(Misfire::Skip, last, "2026-01-10T01:00:30Z"), 1);
        assert_eq!(count(Misfire::All, now, last), 0, "the clock went back");
    }

    #[test]
    fn an_expression_has_five_or_six_fields() {
        for good in ["* * * * *", "0 2 * * 1-5", "*/10 * * * * *"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "* * *", "61 * * * *", "every day"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
