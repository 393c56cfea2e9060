//! When a failed attempt is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Failure, Severity};

/// When, and how often, a step is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; at least 1.
    pub max_attempts: u32,
    pub backoff: Backoff,
    /// Failures of these severities are tried again; others are final at once.
    pub on: Vec<Severity>,
}

/// How long to wait before the next attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Always the same.
    Fixed(Duration),
    /// Twice as long every time, from `first` to at most `max`, each shortened by a random part of up to `jitter` (0 to
    /// 1) of itself, so that tasks that failed together do not come back together.
    Exponential { first: Duration, max: Duration, jitter: f64 },
    /// One after the other; the last one repeats.
    List(Vec<Duration>),
}

impl Default for RetryPolicy {
    /// Tries again what was the service's own fault. A job that failed is not repeated unless its author says so: it may
    /// have written half of what it had to write.
    fn default() -> Self {
        Self { max_attempts: 5, backoff: Backoff::default(), on: vec![Severity::Exception] }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::Exponential { first: Duration::from_secs(1), max: Duration::from_secs(15 * 60), jitter: 0.2 }
    }
}

impl RetryPolicy {
    /// The longest wait that a remote system can ask for.
    pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

    /// How long to wait after attempt number `attempt` (from 1) ended in `failure`; None if it was the last one.
    /// `random` is from 0 to 1.
    pub fn next(&self, attempt: u32, failure: &Failure, random: f64) -> Option<Duration> {
        if attempt >= self.max_attempts || !self.on.contains(&failure.severity) {
            return None;
        }
        let wait = self.backoff.wait(attempt, random);
        let asked = failure.retry_after.map(|asked| asked.min(Self::LONGEST_RETRY_AFTER));
        Some(asked.map_or(wait, |asked| asked.max(wait)))
    }
}

impl Backoff {
    fn wait(&self, attempt: u32, random: f64) -> Duration {
        match self {
            Self::Fixed(wait) => *wait,
            Self::Exponential { first, max, jitter } => {
                let doubled = first.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
                doubled.min(*max).mul_f64(1.0 - jitter.clamp(0.0, 1.0) * random.clamp(0.0, 1.0))
            }
            Self::List(waits) => {
                let index = (attempt.max(1) as usize - 1).min(waits.len().saturating_sub(1));
                waits.get(index).copied().unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(policy: &RetryPolicy, failure: &Failure) -> Vec<Option<u64>> {
        (1..=5).map(|attempt| policy.next(attempt, failure, 0.0).map(|wait| wait.as_secs())).collect()
    }

    fn policy(backoff: Backoff) -> RetryPolicy {
        RetryPolicy { max_attempts: 5, backoff, on: vec![Severity::Fail] }
    }

    fn failure() -> Failure {
        Failure::new("AdaptorError", Severity::Fail, "503")
    }

    #[test]
    fn each_backoff_waits_as_it_says() {
        let seconds = Duration::from_secs;
        let fixed = Backoff::Fixed(seconds(7));
        let exponential = Backoff::Exponential { first: seconds(2), max: seconds(10), jitter: 0.5 };
        let list = Backoff::List(vec![seconds(1), seconds(60)]);
        assert_eq!(waits(&policy(fixed), &failure()), [Some(7), Some(7), Some(7), Some(7), None]);
        assert_eq!(waits(&policy(exponential.clone()), &failure()), [Some(2), Some(4), Some(8), Some(10), None]);
        assert_eq!(waits(&policy(list), &failure()), [Some(1), Some(60), Some(60), Some(60), None]);
        assert_eq!(policy(exponential).next(3, &failure(), 1.0), Some(seconds(4)));
    }

    #[test]
    fn only_the_severities_named_are_tried_again() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.next(1, &failure(), 0.0), None);
        assert!(policy.next(1, &Failure::lost(), 0.0).is_some());
    }

    #[test]
    fn a_remote_system_can_ask_for_more_but_not_for_ever() {
        let asked = |seconds| Failure { retry_after: Some(Duration::from_secs(seconds)), ..failure() };
        let policy = policy(Backoff::Fixed(Duration::from_secs(60)));
        assert_eq!(policy.next(1, &asked(120), 0.0), Some(Duration::from_secs(120)));
        assert_eq!(policy.next(1, &asked(5), 0.0), Some(Duration::from_secs(60)));
        assert_eq!(policy.next(1, &asked(u64::MAX), 0.0), Some(RetryPolicy::LONGEST_RETRY_AFTER));
    }

    #[test]
    fn many_attempts_do_not_overflow() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(u32::MAX, 0.0), Duration::from_secs(15 * 60));
        assert_eq!(Backoff::List(vec![]).wait(3, 0.0), Duration::ZERO);
    }
}
