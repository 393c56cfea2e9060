//! The command line: one file per command, each with its `Args` and a `run`.
//!
//! stdout carries data (a state, a compiled module); everything a person reads goes to stderr. What is declared here
//! once gives the parser, `--help`, the manual (`fnhost man`) and the completions of shells.

pub mod check;
pub mod compile;
pub mod completions;
mod demo;
pub mod docs;
pub mod execute;
pub mod exit;
pub mod healthcheck;
pub mod init;
mod input;
pub mod install;
mod interrupt;
pub mod log;
pub mod man;
pub mod openapi;
mod output;
mod prepare;
mod report;
pub mod run;
pub mod serve;
mod snapshots;
pub mod token;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config;

/// Runs OpenFn jobs in V8 isolates: one program, no Node
///
/// A job is a short JavaScript file of operations, written against one or more adaptors, which are npm packages. fnhost
/// installs the adaptors, compiles the job, and runs it in an isolate of its own, within limits: it sees its state, its
/// adaptors and the network, and nothing of this machine.
#[derive(Parser, Debug)]
#[command(name = "fnhost", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = AFTER_HELP, after_long_help = AFTER_LONG_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::Args),
    Serve(serve::Args),
    Healthcheck(healthcheck::Args),
    Token(token::Args),
    Install(install::Args),
    Check(check::Args),
    Init(init::Args),
    Docs(docs::Args),
    Openapi(openapi::Args),
    Compile(compile::Args),
    Execute(execute::Args),
    Completions(completions::Args),
    Man(man::Args),
    /// For the program itself: makes the snapshot that standard input asks for.
    #[command(hide = true)]
    MakeSnapshot,
}

const AFTER_HELP: &str = "\
Examples:
  fnhost run job.js -a http -s state.json        run a job, print its final state
  fnhost run job.js -a http -c credential.yaml -o out.json
  fnhost install http@7 common                   install adaptors beforehand

More: fnhost --help, fnhost run --help, the documentation with fnhost docs.";

const AFTER_LONG_HELP: &str = "\
Examples:
  Run a job against the http adaptor, which is installed on first use; the final state goes to stdout:
    fnhost run job.js -a http -s state.json

  The same with a credential, which never shows up in the state or the log:
    fnhost run job.js -a http -s state.json -c credential.yaml -o out.json

  See what a job becomes:
    fnhost compile job.js -a http

Where to read on:
  fnhost run --help        options, limits and exit codes of a run
  fnhost install --help    versions, the lockfile, private registries
  fnhost execute --help    for scripts that call the `core` command of @openfn/core
  fnhost docs              the documentation: how to begin, project files, operations, security
  fnhost man --out DIR     all of this help as manual pages

Environment:
  FNHOST_REPO_DIR                      where adaptors are installed, as --repo-dir
  NODE_EXTRA_CA_CERTS, SSL_CERT_FILE   certificate authorities to trust besides the usual ones (PEM)
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY    proxies for installing adaptors
  OPENFN_LOG_JSON                      print logs as JSON, as --log-json
  NO_COLOR                             no colours
  XDG_DATA_HOME, XDG_CACHE_HOME        where adaptors and downloads go outside a project
A job sees none of these, nor any other variable.";

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let command = match with_project_settings(Cli::parse().command) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    // The server ends what is under way first.
    if !matches!(command, Command::Serve(_)) {
        interrupt::end_on_signals();
    }
    match command {
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Check(args) => check::run(args),
        Command::Init(args) => init::run(&args),
        Command::Docs(args) => docs::run(args),
        Command::Openapi(args) => openapi::run(args),
        Command::Token(args) => token::run(args),
        Command::Install(args) => install::run(args),
        Command::Compile(args) => compile::run(args),
        Command::Execute(args) => execute::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::MakeSnapshot => snapshots::work(),
    }
}

/// The command line again, with what the project sets in place of the defaults: only the command line says which project
/// that is.
fn with_project_settings(command: Command) -> Result<Command, clap::Error> {
    let (name, dir) = match &command {
        Command::Serve(args) if !args.demo => ("serve", &args.dir),
        Command::Healthcheck(args) => ("healthcheck", &args.dir),
        _ => return Ok(command),
    };
    let mut program = Cli::command();
    let server = program.find_subcommand("serve").cloned().unwrap_or_default();
    let settings = config::project_settings(&server, dir)
        .map_err(|error| program.error(clap::error::ErrorKind::ValueValidation, error))?;
    let matches =
        program.mut_subcommand(name, |command| config::with_defaults(command, &settings)).try_get_matches()?;
    Ok(Cli::from_arg_matches(&matches)?.command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
