//! `fnhost run`: one job on one state, once.
//!
//! Everything that can be wrong before the job starts is found before the job starts, and says so with exit code 2. Of
//! a job that failed the final state is written all the same: it holds the errors.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::exit::{self, Exit, Failure};
use super::input::{self, InitialState, JobFile};
use super::log::{self, Logger, Source};
use super::output::{self, Layout};
use super::{prepare, report, snapshots};
use crate::adaptor::{AdaptorSpec, InstallOptions, Installed, Store};
use crate::compile::Dialect;
use crate::isolate::{Job, Limits, MIB, MIN_HEAP, Network, Outcome, RunStats};
use crate::quantity::{Megabytes, Span};
use crate::secrets::Secrets;

/// Keys that a final state never holds: the credential, and the raw answer of the last request.
const REMOVED_FROM_STATE: [&str; 2] = ["configuration", "response"];

/// Run a job on a state and print the final state
///
/// The job is a file of operations, such as `get('/patients'); each('$.data[*]', fn(…));`, written against one or more
/// adaptors. The state it starts with is a JSON object, by default an empty one. The final state goes to stdout, or to
/// a file with -o; everything else that is said goes to stderr.
#[derive(clap::Args, Debug)]
#[command(after_long_help = after_help())]
pub struct Args {
    /// The job to run; - reads it from stdin
    #[arg(value_name = "JOB")]
    job: PathBuf,

    /// An adaptor the job is written against: http, http@7.2.10, a package, or name=/path/to/it; may be repeated
    #[arg(short, long = "adaptor", visible_alias = "adaptors", value_name = "ADAPTOR", value_delimiter = ',')]
    adaptors: Vec<AdaptorSpec>,

    /// The initial state, a JSON file
    #[arg(short, long, value_name = "FILE", conflicts_with = "state_stdin")]
    state_path: Option<PathBuf>,

    /// Read the initial state from stdin
    #[arg(short = 'S', long)]
    state_stdin: bool,

    /// The credential, a JSON or YAML file: becomes state.configuration, on top of the state's own
    #[arg(short, long, value_name = "FILE")]
    credential: Option<PathBuf>,

    /// Write the final state to this file
    #[arg(short, long, value_name = "FILE")]
    output_path: Option<PathBuf>,

    /// Write the final state to stdout, also if -o is given
    #[arg(short = 'O', long)]
    output_stdout: bool,

    /// Write the final state on one line
    #[arg(long)]
    compact: bool,

    /// Send nothing: show each HTTP request and answer it with 200 and {}
    ///
    /// The job runs for real otherwise. Credentials in headers are masked. Connections that are not HTTP, such as a
    /// database's, cannot be shown: they fail.
    #[arg(long)]
    test: bool,

    #[command(flatten)]
    limits: LimitOptions,

    #[command(flatten)]
    network: NetworkOptions,

    #[command(flatten)]
    packages: PackageOptions,

    #[command(flatten)]
    log: log::Options,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitOptions {
    /// How long the job may take: milliseconds, or 30s, 2m
    #[arg(short, long, value_name = "TIME", default_value_t = Span(Limits::default().wall))]
    timeout: Span,

    /// How much CPU time the job may use; waiting for a server does not count [default: no limit]
    #[arg(long, value_name = "TIME")]
    cpu: Option<Span>,

    /// The heap of the job's isolate, in MB; at least 64
    #[arg(long, value_name = "MB", default_value_t = megabytes(Limits::default().heap), value_parser = heap_size)]
    memory: Megabytes,

    /// What the job may hold in Buffers and ArrayBuffers, which are outside the heap, in MB
    #[arg(long, value_name = "MB", default_value_t = megabytes(Limits::default().buffers))]
    buffers: Megabytes,

    /// The size of the final state, in MB
    #[arg(long, value_name = "MB", default_value_t = megabytes(Limits::default().state))]
    state_limit: Megabytes,

    /// How much the job may log, in MB
    #[arg(long, value_name = "MB", default_value_t = megabytes(Limits::default().log))]
    log_limit: Megabytes,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Network")]
struct NetworkOptions {
    /// Connect to these hosts only: example.org, example.org:443, an IP address or a range of them
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = host_name, conflicts_with = "deny_net")]
    allow_net: Option<Vec<String>>,

    /// Connect to no host at all
    #[arg(long)]
    deny_net: bool,

    /// Certificate authorities to trust besides the usual ones, a PEM file
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Adaptors")]
struct PackageOptions {
    /// Fail if an adaptor is not installed, instead of installing it
    #[arg(long)]
    no_install: bool,

    /// Where adaptors are installed: by default the project around the job, else ~/.local/share/fnhost
    #[arg(long, value_name = "DIR", env = "FNHOST_REPO_DIR")]
    repo_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  fnhost run job.js -a http -s state.json
  fnhost run job.js -a http@7.2.10 -a common -c credential.yaml -o out.json
  cat patients.json | fnhost run job.js -a common -S --compact | jq .data
  fnhost run job.js -a http --test                 show what would be sent, send nothing
  fnhost run job.js -a http --allow-net api.example.org --timeout 30s --memory 128
  fnhost run job.js -a http=./my-adaptor --log debug
";

fn after_help() -> String {
    format!("{EXAMPLES}\n{}", exit::help())
}

fn megabytes(bytes: usize) -> Megabytes {
    Megabytes((bytes / MIB) as f64)
}

fn heap_size(text: &str) -> Result<Megabytes, String> {
    let size: Megabytes = text.parse()?;
    if size.bytes() < MIN_HEAP {
        return Err(format!("V8 does not start with less than {} MB", MIN_HEAP / MIB));
    }
    Ok(size)
}

fn host_name(text: &str) -> Result<String, String> {
    let host = text.trim();
    if host.contains("://") {
        return Err("write a host, such as example.org or example.org:443, not a URL".into());
    }
    if host.contains(char::is_whitespace) {
        return Err("a host has no white space; separate several by commas".into());
    }
    Ok(host.to_owned())
}

impl LimitOptions {
    fn limits(&self) -> Limits {
        Limits {
            wall: self.timeout.0,
            cpu: self.cpu.map(|cpu| cpu.0),
            heap: self.memory.bytes(),
            buffers: self.buffers.bytes(),
            state: self.state_limit.bytes(),
            log: self.log_limit.bytes(),
        }
    }
}

impl NetworkOptions {
    fn network(&self) -> Network {
        match (&self.allow_net, self.deny_net) {
            (_, true) => Network::Only(Vec::new()),
            (Some(hosts), _) => Network::Only(hosts.iter().filter(|host| !host.is_empty()).cloned().collect()),
            (None, false) => Network::Open,
        }
    }
}

pub fn run(args: Args) -> ExitCode {
    let mut logger = Logger::new(&args.log);
    let exit = try_run(&args, &mut logger).unwrap_or_else(|failure| {
        let source = if failure.exit == Exit::NotCompiled { Source::Compiler } else { Source::Cli };
        logger.error(source, &failure.message);
        failure.exit
    });
    exit.into()
}

fn try_run(args: &Args, logger: &mut Logger) -> Result<Exit, Failure> {
    let start = Instant::now();
    if args.state_stdin && args.job.as_os_str() == "-" {
        return Err(Failure::usage("stdin cannot be both the job and the state"));
    }
    if let Some(path) = &args.output_path {
        output::check_writable(path).map_err(Failure::usage)?;
    }
    let network = args.network.network();
    network.check().map_err(|reason| Failure::usage(format!("--allow-net: {reason}")))?;
    let job = JobFile::read(&args.job)?;
    let state = initial_state(args, logger)?;
    let ca_file = prepare::ca_file(args.network.cafile.as_deref(), |warning| logger.warn(Source::Cli, warning))?;

    let store = Store::for_job(&job.directory, args.packages.repo_dir.clone());
    let install = InstallOptions {
        npmrc_dir: Some(job.directory.clone()),
        ca_file: args.network.cafile.clone(),
        ..Default::default()
    };
    let install = (!args.packages.no_install).then_some(&install);
    let adaptors = prepare::adaptors(&store, &args.adaptors, install, logger)?;
    let host = prepare::host(&store, &adaptors, ca_file, None);
    let limits = args.limits.limits();
    let specifiers: Vec<_> = adaptors.iter().map(|adaptor| adaptor.specifier.clone()).collect();
    if !args.test {
        host.start_early(&specifiers, limits.heap);
    }
    let compiled = prepare::compile(&host, &job, &adaptors, Dialect::Module, logger)?;
    logger.info(Source::Cli, &introduction(&job, &adaptors));
    for operation in &compiled.operations {
        let (order, name, line) = (operation.order, &operation.name, operation.line);
        logger.debug(Source::Compiler, &format!("Operation {order}: {name} on line {line}"));
    }

    let prepared = start.elapsed();
    let outcome = host.run(
        Job {
            name: job.name.clone(),
            step: job.step.clone(),
            source: job.source.clone(),
            compiled,
            adaptors: specifiers.clone(),
            limits,
            network,
            test: args.test,
            hide: Some(logger.hider()),
            remove_from_state: REMOVED_FROM_STATE.map(str::to_owned).to_vec(),
            traceparent: None,
            tenant: None,
        },
        state.text,
        {
            let logger = logger.clone();
            Box::new(move |line| logger.run_line(&line))
        },
    );
    logger.debug(Source::Runtime, &times(prepared, &outcome.stats));
    let exit = settle(args, logger, &job, &outcome, start.elapsed());
    host.save_packs();
    snapshots::make_after(&host, &specifiers);
    exit
}

/// The state as the job gets it. From here on the log hides what is in its configuration.
fn initial_state(args: &Args, logger: &mut Logger) -> Result<InitialState, Failure> {
    let state = match (&args.state_path, args.state_stdin) {
        (Some(path), _) => InitialState::read(path)?,
        (None, true) => InitialState::read("-".as_ref())?,
        (None, false) => InitialState::empty(),
    };
    let credential = args.credential.as_deref().map(input::read_credential).transpose()?;
    let secrets = Secrets::within([&state.configuration].into_iter().chain(&credential));
    *logger = logger.clone().with_secrets(secrets);
    Ok(state.assembled(credential.as_ref()))
}

fn introduction(job: &JobFile, adaptors: &[Installed]) -> String {
    match adaptors.is_empty() {
        true => format!("Running {} without an adaptor", job.name),
        false => format!("Running {} with {}", job.name, prepare::list(adaptors)),
    }
}

fn times(prepared: Duration, stats: &RunStats) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let mb = |bytes: usize| bytes as f64 / MIB as f64;
    format!(
        "Prepared in {:.1} ms, isolate {:.1} ms, loaded {:.1} ms, evaluated {:.1} ms, operations {:.1} ms; \
         CPU {:.1} ms, heap {:.1} MB, most in buffers {:.1} MB",
        ms(prepared),
        ms(stats.create),
        ms(stats.load),
        ms(stats.evaluate),
        ms(stats.run),
        ms(stats.cpu),
        mb(stats.heap),
        mb(stats.buffers),
    )
}

/// Writes the final state and says how it went.
fn settle(args: &Args, logger: &Logger, job: &JobFile, outcome: &Outcome, took: Duration) -> Result<Exit, Failure> {
    let exit = outcome.error.as_ref().map_or(Exit::Completed, Exit::of);
    let state = match (&outcome.state, exit) {
        (Some(state), _) => Some(state.as_str()),
        (None, Exit::Completed) => {
            logger.warn(Source::Runtime, "The last operation returned nothing, so there is no final state: null");
            Some("null")
        }
        (None, _) => None,
    };
    if let Some(error) = &outcome.error {
        let mut text = report::render(error, &job.step, &job.source);
        if outcome.state.is_some() {
            text.push_str(&format!("\nCheck state.errors.{} for details", job.step));
        }
        logger.run_error(&text, error);
    }
    if let Some(state) = state {
        write_state(args, logger, state)?;
    }
    if exit == Exit::Completed {
        logger.success(Source::Cli, &format!("{} finished in {} ms", job.name, took.as_millis()));
    }
    Ok(exit)
}

fn write_state(args: &Args, logger: &Logger, state: &str) -> Result<(), Failure> {
    let layout = if args.compact { Layout::Compact } else { Layout::Pretty };
    if let Some(path) = &args.output_path {
        output::write_to_file(state, layout, path)
            .map_err(|error| Failure::host(format!("cannot write the final state to {}: {error}", path.display())))?;
        logger.info(Source::Cli, &format!("Final state written to {}", path.display()));
    }
    if args.output_path.is_none() || args.output_stdout {
        output::write_to_stdout(state, layout)
            .map_err(|error| Failure::host(format!("cannot write the final state to stdout: {error}")))?;
    }
    Ok(())
}
