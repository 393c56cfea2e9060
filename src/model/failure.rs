//! Why an attempt did not succeed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How bad a failure is, in OpenFn's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The job or the remote system said no. There is a state, with the error in it.
    Fail,
    /// The job is broken.
    Crash,
    /// The job exceeded a limit, or was not allowed what it tried.
    Kill,
    /// The service could not do its part, or stopped in the middle.
    Exception,
}

impl Severity {
    pub const ALL: [Self; 4] = [Self::Fail, Self::Crash, Self::Kill, Self::Exception];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Crash => "crash",
            Self::Kill => "kill",
            Self::Exception => "exception",
        }
    }
}

/// A failed attempt, as it is kept and shown. No secret is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The class, e.g. `JobError` or `TimeoutError`.
    pub class: String,
    pub severity: Severity,
    pub message: String,
    /// The remote system asked to be left alone for this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn new(class: impl Into<String>, severity: Severity, message: impl Into<String>) -> Self {
        Self { class: class.into(), severity, message: message.into(), retry_after: None }
    }

    /// The attempt was cut: the process that ran it stopped, or its lease ran out.
    pub fn lost() -> Self {
        Self::new("LostError", Severity::Exception, "the process that ran this attempt stopped before its end")
    }

    pub fn is_lost(&self) -> bool {
        self.class == "LostError"
    }
}
