//! The command line: one file per command, each with its `Args` and a `run`.
//!
//! stdout carries data (a state, a compiled module); everything a person reads goes to stderr.

pub mod compile;
pub mod install;
pub mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs OpenFn jobs in V8 isolates: one program, no Node.
#[derive(Parser, Debug)]
#[command(name = "fnhost", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Compile(compile::Args),
    Install(install::Args),
    Run(run::Args),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Compile(args) => compile::run(args),
        Command::Install(args) => install::run(args),
        Command::Run(args) => run::run(args),
    }
}
