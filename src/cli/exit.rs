//! What the program's exit code tells the script that called it.
//!
//! The numbers are a contract: a scheduler that restarts on 5 and alerts on 4 must be able to rely on them. They are
//! written down once, here; `fnhost run --help` prints the same table.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::isolate::{Limit, RunError, Severity};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Completed = 0,
    Failed = 1,
    Usage = 2,
    NotCompiled = 3,
    Crashed = 4,
    Host = 5,
    WallClock = 20,
    Cpu = 21,
    Heap = 22,
    Buffers = 23,
    State = 24,
    Log = 25,
    Security = 26,
    Interrupted = 130,
    Terminated = 143,
}

/// Every code a run can end with, as `--help` and the manual tell it.
pub const MEANINGS: &[(Exit, &str)] = &[
    (Exit::Completed, "the job completed"),
    (Exit::Failed, "the job failed; the final state, with `errors`, is still written"),
    (Exit::Usage, "bad usage, or an input that cannot be read"),
    (Exit::NotCompiled, "the job does not compile"),
    (Exit::Crashed, "the job crashed: a bad import, process.exit, a broken job"),
    (Exit::Host, "fnhost could not do its part, such as installing an adaptor"),
    (Exit::WallClock, "stopped: ran longer than --timeout"),
    (Exit::Cpu, "stopped: used more CPU time than --cpu"),
    (Exit::Heap, "stopped: needed more heap than --memory"),
    (Exit::Buffers, "stopped: held more in Buffers than --buffers"),
    (Exit::State, "stopped: left a state larger than --state-limit"),
    (Exit::Log, "stopped: logged more than --log-limit"),
    (Exit::Security, "stopped: tried what a job must not, such as eval"),
    (Exit::Interrupted, "interrupted (Ctrl-C); 143 when terminated"),
];

/// The table of codes, as a section of a help text.
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in MEANINGS {
        let _ = writeln!(text, "  {:>3}  {meaning}", *exit as u8);
    }
    text
}

impl Exit {
    /// The code for a run that ended with this error.
    pub fn of(error: &RunError) -> Self {
        match (error.limit, error.severity) {
            (Some(Limit::Wall), _) => Self::WallClock,
            (Some(Limit::Cpu), _) => Self::Cpu,
            (Some(Limit::Heap), _) => Self::Heap,
            (Some(Limit::Buffers), _) => Self::Buffers,
            (Some(Limit::State), _) => Self::State,
            (Some(Limit::Log), _) => Self::Log,
            (None, Severity::Fail) => Self::Failed,
            (None, Severity::Crash) => Self::Crashed,
            (None, Severity::Kill) => Self::Security,
            (None, Severity::Exception) => Self::Host,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended before there was a run to report on.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    /// For a person; may have several lines.
    pub message: String,
}

impl Failure {
    /// The caller asked for something impossible, or named something unreadable.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// fnhost could not do its part.
    pub fn host(message: impl Into<String>) -> Self {
        Self { exit: Exit::Host, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolate::Limits;

    #[test]
    fn every_limit_has_a_code_of_its_own() {
        let limits = Limits::default();
        let all = [Limit::Wall, Limit::Cpu, Limit::Heap, Limit::Buffers, Limit::State, Limit::Log];
        let codes = all.map(|limit| Exit::of(&RunError::limit(limit, &limits)) as u8);
        assert_eq!(codes, [20, 21, 22, 23, 24, 25]);
    }

    #[test]
    fn severities_that_hit_no_limit_are_told_apart() {
        let all = [Severity::Fail, Severity::Crash, Severity::Exception, Severity::Kill];
        let codes = all.map(|severity| Exit::of(&RunError::new("AnyError", severity, "")) as u8);
        assert_eq!(codes, [1, 4, 5, 26]);
    }
}
