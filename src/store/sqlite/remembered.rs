//! Answers that hold for a while, so that asking often costs no more than asking seldom.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The last answer, and until when it holds.
#[derive(Debug)]
pub struct Remembered<T>(Mutex<Option<(T, Instant)>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Remembered<T> {
    /// The last answer, or that of `ask`. `holds` says for how long, given what it took. Those who come meanwhile wait
    /// for the same answer.
    pub async fn get(&self, ask: impl Future<Output = T>, holds: impl FnOnce(Duration) -> Duration) -> T {
        let mut last = self.0.lock().await;
        if let Some((answer, until)) = &*last
            && Instant::now() < *until
        {
            return answer.clone();
        }
        let started = Instant::now();
        let answer = ask.await;
        *last = Some((answer.clone(), Instant::now() + holds(started.elapsed())));
        answer
    }
}
