//! Who may do what: tokens and their scopes.

use std::sync::Arc;

use crate::store::Store;

/// What a token allows. One that is not listed allows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// See messages, runs, logs and states.
    Read,
    /// Start, cancel, repeat.
    Write,
    /// Manage tokens and credentials.
    Admin,
    /// Post to topics that ask for a key.
    Inbox,
    /// Read metrics.
    Metrics,
}

/// Checks tokens against the store.
pub struct Access {
    pub store: Arc<dyn Store>,
    /// Nobody is asked for a token.
    pub open: bool,
}

impl Access {
    pub fn new(store: Arc<dyn Store>, open: bool) -> Self {
        Self { store, open }
    }

    pub async fn create_first(&self) -> Result<Option<String>, crate::store::StoreError> {
        Ok(None)
    }
}
