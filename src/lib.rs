//! fnhost runs OpenFn jobs in V8 isolates inside one process.
//!
//! The flow, outermost first: [`cli`] parses a command; [`adaptor`] finds or installs the npm packages a job needs;
//! [`compile`] turns a job expression into an ES module; [`isolate`] runs that module in a fresh isolate.
//! Imports point down that list and never back up: `compile` knows no V8, `isolate` knows no command line.

pub mod adaptor;
pub mod cli;
pub mod compile;
pub mod config;
pub mod engine;
pub mod http;
pub mod isolate;
pub mod model;
pub mod project;
mod quantity;
mod secrets;
pub mod step;
pub mod store;
pub mod telemetry;
