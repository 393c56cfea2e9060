//! How long each of many took.

use std::time::Duration;

/// Durations in order.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds within which this share of all ended; not a number if there are none.
    pub fn ms(&self, share: f64) -> f64 {
        let index = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    pub fn at(&self, share: f64) -> String {
        let ms = self.ms(share);
        if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.1}") }
    }
}
