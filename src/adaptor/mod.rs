//! Adaptors: npm packages, without Node and without npm.
//!
//! A job says `http@7`; this room turns that into a directory of files that V8 can load. It reads what people type
//! ([`AdaptorSpec`]) and what their projects name ([`project_adaptors`]), chooses versions with the lock in hand,
//! downloads and verifies packages into a cache, and lays them out as Node's resolution rules expect. Running needs
//! only the first and last step: [`Store::find`] asks nobody and nothing but the disk.
//!
//! Three things are deliberately absent. No lifecycle script ever runs. No machine code is installed for its own sake,
//! because none can load. And nothing here knows V8: the room ends at files.

mod atomic;
pub mod cache;
pub mod catalogue;
mod causes;
pub mod install;
pub mod layout;
pub mod lockfile;
pub mod metadata;
pub mod npmrc;
pub mod progress;
pub mod project;
pub mod registry;
pub mod resolve;
pub mod spec;
pub mod store;

pub use install::{InstallError, InstallOptions, InstallReport, InstalledAdaptor, install, install_async};
pub use progress::{Event, Progress};
pub use project::{ProjectError, project_adaptors};
pub use spec::{AdaptorSpec, SpecError};
pub use store::{Installed, Store, StoreError};
