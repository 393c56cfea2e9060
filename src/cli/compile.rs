//! `fnhost compile`: print the module a job expression becomes.

use std::process::ExitCode;

/// Compile a job and print the module
#[derive(clap::Args, Debug)]
pub struct Args {}

pub fn run(_args: Args) -> ExitCode {
    ExitCode::SUCCESS
}
