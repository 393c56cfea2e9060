//! `fnhost install`: fetch adaptors from npm without npm.

use std::process::ExitCode;

/// Install adaptors from npm
#[derive(clap::Args, Debug)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::SUCCESS
}
