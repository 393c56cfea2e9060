//! V8: one isolate's life, from a compiled job and a state to an outcome.
//!
//! Every run gets its own isolate on its own thread and so its own module graph: adaptors keep logins and cursors in
//! module variables, and nothing of one run may reach the next. This room knows neither the store of messages nor
//! HTTP nor the command line.

mod authorities;
mod blobs;
mod calls;
mod capacity;
mod clear_up;
mod conditions;
mod custody;
mod entry_points;
mod error;
mod evaluator;
pub mod hash_seed;
mod host;
mod http_client;
mod intercept;
mod isolate_thread;
mod job;
mod job_function;
mod kept;
mod limits;
mod loader;
mod machine;
mod mapped;
mod ops;
mod pack;
mod packages;
mod permissions;
mod phases;
pub mod platform;
mod pool;
mod real_paths;
mod renewal;
mod run;
mod slots;
mod snapshot;
mod spares;
mod threads;

pub use authorities::read_certificates;
pub use capacity::runs as runs_within;
pub use conditions::{Conditions, NoAnswer};
pub use error::{Hide, Position, RunError, Severity};
pub use host::{AdaptorSet, Host, HostOptions, IdleIsolate};
pub use job::{Job, LogLine, LogSink, Outcome, RunStats};
pub use kept::{Finds, KeptOptions, Tenant};
pub use limits::{Limit, Limits, MIB, MIN_HEAP};
pub use packages::LocalAdaptor;
pub use permissions::Network;
pub use pool::{IsolatePool, PoolOptions, PoolStats, Running, Slot};
pub use slots::Group;
pub use snapshot::work as make_snapshot;
