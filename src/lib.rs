//! fnhost runs OpenFn jobs in V8 isolates inside one process: one job from the command line, or a project behind a durable
//! queue.
//!
//! A run, outermost first: [`cli`] parses a command; [`adaptor`] finds or installs the npm packages a job needs;
//! [`compile`] turns a job expression into an ES module; [`isolate`] runs that module in a fresh isolate.
//!
//! The server: [`project`] reads what people wrote; [`http`] takes messages in; [`engine`] keeps them in the [`store`] with
//! the runs they start, and has each [`step`] of a run done; [`model`] says what all of these are.
//!
//! And [`image`] makes all of it a container image, with a project and its adaptors.
//!
//! Which room may import which is in `ARCHITECTURE.md`.

pub mod adaptor;
pub mod cli;
pub mod compile;
pub mod config;
pub mod docs;
pub mod engine;
pub mod http;
pub mod image;
pub mod isolate;
pub mod model;
pub mod project;
mod quantity;
mod secrets;
pub mod step;
pub mod store;
pub mod telemetry;
