//! How far runs are kept apart, and which runs may have the same isolate one after the other.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::run::Job;

/// What a run finds of the runs before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Isolation {
    /// Nothing: its isolate is new.
    #[default]
    Run = 0,
    /// No value of theirs. Its isolate may have served them, but modules that can hold state are evaluated anew, and an
    /// isolate in which anything was left is not used again.
    Module = 1,
    /// Whatever they left in variables of modules, globals and built-ins.
    Workflow = 2,
}

/// That the isolate of a run may be kept for runs of the same kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    pub isolation: Isolation,
    kind: [u8; 32],
}

// What went into the digest is nobody's business: a credential did.
impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keep({:?})", self.isolation)
    }
}

impl Keep {
    /// For runs of `job` that belong to `owner`: texts that tell it from all others, its credential among them. All that
    /// a job could do with what another run left is part of the kind: its code, its adaptors, its limits, its reach.
    pub(super) fn new(isolation: Isolation, owner: &[&str], job: &Job) -> Option<Self> {
        if isolation == Isolation::Run {
            return None;
        }
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        owner.iter().for_each(|text| add(text));
        [job.name.as_str(), &job.step, &job.source, &job.compiled.code].into_iter().for_each(&mut add);
        add(&format!("{isolation:?} {:?} {:?} {:?}", job.adaptors, job.limits, job.network));
        Some(Self { isolation, kind: digest.finalize().into() })
    }

    pub(super) fn kind(&self) -> &[u8; 32] {
        &self.kind
    }
}
