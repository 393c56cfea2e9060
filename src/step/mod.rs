//! Doing one step: one file per kind.
//!
//! A step gets a state and leaves one. It knows neither the queue nor the store: what becomes of its result is for the
//! engine to say.

pub mod js;

use crate::model::{Failure, Usage};

/// What an attempt at a step ended with.
#[derive(Clone, Debug, Default)]
pub struct StepResult {
    /// The state it left: JSON text.
    pub output: Option<String>,
    pub failure: Option<Failure>,
    pub usage: Usage,
}

impl StepResult {
    pub fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }
}
