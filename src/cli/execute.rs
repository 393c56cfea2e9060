//! `fnhost execute`: the command line of `@openfn/core`, for scripts and services that call it.
//!
//! Callers parse its output and branch on its exit code, so both are kept: 0 when the job completed, 1 when it did not
//! compile or failed, 10 when it could not even start; a banner of four lines and the job's console on stdout, the
//! final state in a file only. One difference is deliberate: the credential is removed from the final state.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::exit::{Exit, Failure};
use super::input::{InitialState, JobFile};
use super::log::{self, Logger, Source};
use super::output::{self, Layout};
use super::{prepare, report, snapshots};
use crate::adaptor::{AdaptorSpec, Installed, Store};
use crate::compile::Dialect;
use crate::isolate::{Job, Limits, LogLine, Network};
use crate::secrets::Secrets;

/// Run a job as @openfn/core did
///
/// For callers of the old `core execute`: the same options, output and exit codes. The adaptor must be installed. New
/// work is better served by `fnhost run`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The adaptor: a name such as http or @openfn/language-http, with or without a version
    #[arg(short, long, value_name = "ADAPTOR", value_parser = adaptor)]
    language: AdaptorSpec,

    /// The job's file
    #[arg(short, long, value_name = "FILE")]
    expression: PathBuf,

    /// The initial state, a JSON file
    #[arg(short, long, value_name = "FILE")]
    state: PathBuf,

    /// Write the final state to this file; without it, nowhere
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Send nothing: show each HTTP request and answer it with 200 and {}
    #[arg(short, long)]
    test: bool,

    /// Print a notice instead of what the job logs
    #[arg(long = "noConsole", visible_alias = "nc")]
    no_console: bool,

    /// Where adaptors are installed: by default the project around the job, else ~/.local/share/fnhost
    #[arg(long, value_name = "DIR", env = "FNHOST_REPO_DIR")]
    repo_dir: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  fnhost install http
  fnhost execute -l http -e job.js -s state.json -o out.json

Differences from @openfn/core: `configuration` (the credential) is removed from the final state and masked in what is
printed; helpers and constants at the top of a job survive; classes and current syntax are allowed.

Exit codes:
    0  the job completed
    1  the job does not compile, failed, or was stopped
    2  bad usage
   10  the job could not start: a file cannot be read, or the adaptor is not installed
";

const NO_CONSOLE: &str = "🔒 console has been disabled for this run";

/// Exit code for what went wrong before the job started.
const NOT_STARTED: u8 = 10;

/// Reads an adaptor's name. Scripts written for `@openfn/core` often hold a path into `node_modules`.
fn adaptor(text: &str) -> Result<AdaptorSpec, String> {
    let is_path = text.starts_with(['.', '/']) || text.contains("node_modules");
    if is_path || text.ends_with(".Adaptor") {
        let file = text.trim_end_matches('/').rsplit('/').next().unwrap_or(text);
        let name = file.trim_end_matches(".Adaptor").trim_start_matches("language-");
        let name = if name.is_empty() { "http" } else { name };
        return Err(format!("adaptors are named, not found by path: write -l {name}, or -l {name}=/path/to/it"));
    }
    AdaptorSpec::parse(text).map_err(|error| error.to_string())
}

pub fn run(args: Args) -> ExitCode {
    match try_run(&args) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

fn try_run(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(path) = &args.output {
        output::check_writable(path).map_err(Failure::usage)?;
    }
    let state = InitialState::read(&args.state)?;
    let job = JobFile::read(&args.expression)?;
    let store = Store::for_job(&job.directory, args.repo_dir.clone());
    let adaptor = find(&store, &args.language)?;
    // This log carries the secrets and prints only the requests of a test run: the job's own lines go to stdout.
    let quiet = log::Options { log: "none,job=debug".parse().unwrap_or_default(), log_json: false };
    let logger = Logger::new(&quiet).with_secrets(Secrets::within([&state.configuration]));
    let ca_file = prepare::ca_file(None, |warning| logger.warn(Source::Cli, warning))?;
    let adaptors = [adaptor];
    let host = prepare::host(&store, &adaptors, ca_file, None);

    let limits = Limits::default();
    let specifiers = [adaptors[0].specifier.clone()];
    if !args.test {
        host.start_early(&specifiers, limits.heap);
    }
    print(&banner(&adaptors[0]));
    let compiled = match prepare::compile(&host, &job, &adaptors, Dialect::Script, &logger) {
        Ok(compiled) => compiled,
        Err(failure) if failure.exit == Exit::NotCompiled => {
            eprintln!("{failure}\nError: Compilation failed.");
            return Ok(Exit::Failed.into());
        }
        Err(failure) => return Err(failure),
    };
    let outcome = host.run(
        Job {
            name: job.name.clone(),
            step: job.step.clone(),
            source: job.source.clone(),
            compiled,
            adaptors: specifiers.to_vec(),
            limits,
            network: Network::Open,
            test: args.test,
            hide: Some(logger.hider()),
            remove_from_state: vec!["configuration".into()],
            traceparent: None,
            tenant: None,
        },
        state.text,
        {
            let (logger, no_console) = (logger.clone(), args.no_console);
            Box::new(move |line| print_line(&line, no_console, &logger))
        },
    );
    host.save_packs();
    snapshots::make_after(&host, &specifiers);
    if let Some(error) = &outcome.error {
        eprintln!("{}", logger.hide(&report::render(error, &job.step, &job.source)));
        return Ok(Exit::Failed.into());
    }
    if let Some(path) = &args.output {
        let state = outcome.state.as_deref().unwrap_or("null");
        if let Err(error) = output::write_to_file(state, Layout::Pretty, path) {
            eprintln!("cannot write the final state to {}: {error}", path.display());
            return Ok(Exit::Failed.into());
        }
    }
    print("Finished.\n");
    Ok(Exit::Completed.into())
}

fn find(store: &Store, spec: &AdaptorSpec) -> Result<Installed, Failure> {
    let missing = || {
        let name = spec.names().into_iter().next().unwrap_or_default();
        Failure::host(format!("Cannot find module '{name}'.\nTo install it: fnhost install {}", prepare::short(spec)))
    };
    store.find(spec).map_err(|error| Failure::host(error.to_string()))?.ok_or_else(missing)
}

/// The four lines above everything else.
fn banner(adaptor: &Installed) -> String {
    let program = format!("◲ ◱  fnhost v{}", env!("CARGO_PKG_VERSION"));
    let adaptor = format!("◳ ◰  {}@{}", adaptor.name, adaptor.version);
    let width = program.chars().count().max(adaptor.chars().count());
    let rule = "─".repeat(width + 2);
    format!("╭{rule}╮\n│ {program:width$} │\n│ {adaptor:width$} │\n╰{rule}╯\n")
}

/// The job's console goes where Node's would.
fn print_line(line: &LogLine, no_console: bool, logger: &Logger) {
    match line.source {
        "JOB" => {}
        "TEST" => return logger.run_line(line),
        _ => return,
    }
    let text = if no_console { NO_CONSOLE.into() } else { logger.hide(&line.message) };
    if !no_console && matches!(line.level, "warn" | "error") {
        let _ = writeln!(io::stderr().lock(), "{text}");
    } else {
        print(&format!("{text}\n"));
    }
}

/// Prints on stdout. A job whose output nobody reads to the end still completes.
fn print(text: &str) {
    let _ = output::print(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_has_four_lines_of_one_width() {
        let adaptor = Installed {
            name: "@openfn/language-common".into(),
            version: "3.3.4".into(),
            dir: PathBuf::new(),
            specifier: "@openfn/language-common".into(),
        };
        let banner = banner(&adaptor);
        let widths: Vec<usize> = banner.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [widths[0]; 4], "{banner}");
        assert!(banner.contains("@openfn/language-common@3.3.4 │"), "{banner}");
    }

    #[test]
    fn paths_of_old_scripts_are_refused_with_the_name_to_write() {
        for text in ["./node_modules/language-http.Adaptor", "/opt/node_modules/language-http", "language-http.Adaptor"]
        {
            let message = adaptor(text).unwrap_err();
            assert!(message.contains("write -l http,"), "{text}: {message}");
        }
        assert_eq!(adaptor("language-http").unwrap().names(), ["@openfn/language-http"]);
        assert!(adaptor("http=/path/to/it").unwrap().local_path().is_some());
    }
}
