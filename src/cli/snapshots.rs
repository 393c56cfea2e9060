//! Snapshots of adaptors, which a process of its own makes (see `isolate`).

use std::process::ExitCode;

use crate::isolate::{self, Host};

/// Has one made for these adaptors if there is none.
pub fn make(host: &Host, adaptors: &[String]) {
    if let Ok(program) = std::env::current_exe() {
        host.make_snapshot(&program, adaptors);
    }
}

/// After a run: has one made if its adaptors have none, so that the next run starts sooner.
pub fn make_after(host: &Host, adaptors: &[String]) {
    if host.lacks_snapshot(adaptors) {
        make(host, adaptors);
    }
}

/// The process that makes one.
pub fn work() -> ExitCode {
    match isolate::make_snapshot() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("{reason}");
            ExitCode::FAILURE
        }
    }
}
