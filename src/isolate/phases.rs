//! Where the time of an isolate and of a run goes, finer than [`RunStats`] has it in whole: for those who want to know why
//! a run is slow. The log tells it at level debug, in microseconds.

use std::time::{Duration, Instant};

use super::job::RunStats;

/// The making of an isolate.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    /// V8's isolate from its snapshot, and the runtime's start in it.
    pub runtime: Duration,
    /// The host's own JavaScript.
    pub host: Duration,
    /// What the last run of the same adaptors used, loaded and compiled ahead.
    pub ahead: Duration,
}

impl Making {
    pub fn tell(&self, made: Duration) {
        tracing::debug!(
            made_us = micros(made),
            runtime_us = micros(self.runtime),
            host_us = micros(self.host),
            ahead_us = micros(self.ahead),
            "an isolate is made"
        );
    }
}

/// What a run loads on demand: its JavaScript says when.
#[derive(Debug, Default)]
pub struct Loading {
    modules: Stopwatch,
    built_in: Stopwatch,
    /// Compiling modules of a pack, from code caches or source.
    pub compiled: Duration,
}

/// What takes time; `js/modules.js` knows the numbers.
const MODULES: u32 = 0;
const BUILT_IN: u32 = 1;

#[derive(Debug, Default)]
struct Stopwatch {
    since: Option<Instant>,
    total: Duration,
}

impl Loading {
    pub fn begins(&mut self, what: u32) {
        if let Some(watch) = self.watch(what) {
            watch.since = Some(Instant::now());
        }
    }

    pub fn ends(&mut self, what: u32) {
        if let Some(watch) = self.watch(what) {
            watch.total += watch.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
    }

    fn watch(&mut self, what: u32) -> Option<&mut Stopwatch> {
        match what {
            MODULES => Some(&mut self.modules),
            BUILT_IN => Some(&mut self.built_in),
            _ => None,
        }
    }

    pub fn modules(&self) -> Duration {
        self.modules.total
    }

    pub fn built_in(&self) -> Duration {
        self.built_in.total
    }
}

impl RunStats {
    pub(crate) fn tell(&self) {
        tracing::debug!(
            warm = self.warm,
            waited_us = micros(self.waited),
            create_us = micros(self.create),
            load_us = micros(self.load),
            evaluate_us = micros(self.evaluate),
            operations_us = micros(self.run),
            parse_us = micros(self.parse),
            stringify_us = micros(self.stringify),
            modules_us = micros(self.modules),
            built_in_us = micros(self.built_in),
            compile_us = micros(self.compile),
            clear_up_us = micros(self.clear_up),
            teardown_us = micros(self.teardown),
            cpu_us = micros(self.cpu),
            "a run in an isolate"
        );
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}
