//! `fnhost install`: fetch adaptors from npm without npm.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use url::Url;

use super::snapshots;
use crate::adaptor::progress::{self, Progress, Silent};
use crate::adaptor::{AdaptorSpec, InstallOptions, InstallReport, ProjectError, Store, install, project_adaptors};
use crate::isolate::{Host, HostOptions};

/// Install adaptors from npm
///
/// Fetches adaptors and everything they need, verifies each package, and records the chosen versions in fnhost.lock,
/// so that the next install gives the same files. Needs neither Node nor npm; scripts of packages are never run.
///
/// An adaptor is a short name (http), a package (@openfn/language-http) or any npm package (lodash), each with a
/// version, a range or a tag behind an @ if you care which. Several versions of one adaptor live side by side. Without
/// names, the adaptors of the project in this directory are installed, or else those in its fnhost.lock.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What to install: http, http@7, @openfn/language-http@7.2.10, lodash@4, npm:lodash
    #[arg(value_name = "ADAPTOR")]
    adaptors: Vec<String>,

    /// Put packages here instead of into the project or ~/.local/share/fnhost
    #[arg(long, value_name = "DIR", env = "FNHOST_REPO_DIR")]
    repo_dir: Option<PathBuf>,

    /// The project's directory
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Choose the newest versions again, although fnhost.lock has some
    #[arg(long, conflicts_with = "frozen")]
    update: bool,

    /// Change nothing in fnhost.lock; fail if it lacks something (for CI and images)
    #[arg(long)]
    frozen: bool,

    /// Use no network, only packages that were downloaded before
    #[arg(long)]
    offline: bool,

    /// The registry to use where .npmrc names none for the package's scope
    #[arg(long, value_name = "URL", value_parser = registry_url)]
    registry: Option<Url>,

    /// Print a report as JSON on stdout
    #[arg(long)]
    json: bool,

    /// How much to tell
    #[arg(short, long, value_name = "LEVEL", default_value = "default")]
    log: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    /// Errors only
    None,
    /// Progress, what was installed, and warnings
    Default,
    /// Everything the default tells, and where packages lie
    #[value(alias = "debug")]
    Info,
}

const EXAMPLES: &str = "\
Examples:
  fnhost install http                  the newest @openfn/language-http
  fnhost install http@7.2.10 http@6    two versions side by side
  fnhost install                       what project.yaml needs, or else fnhost.lock
  fnhost install --frozen              exactly fnhost.lock, or fail
  fnhost install --update              newer versions of everything
  fnhost install lodash@4 npm:http     any npm package; npm: means the package, never an adaptor

Private registries work as with npm: .npmrc in the project or at home (registry=, @scope:registry=, \
_authToken, cafile), npm_config_registry, HTTPS_PROXY, NO_PROXY and NODE_EXTRA_CA_CERTS.

Exit status: 0 if everything asked for is installed, 1 otherwise.";

fn registry_url(text: &str) -> Result<Url, String> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| "write a URL such as https://registry.npmjs.org/".into())
}

pub fn run(args: Args) -> ExitCode {
    match try_run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("error: {}", complaint.message);
            if let Some(hint) = complaint.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

struct Complaint {
    message: String,
    hint: Option<String>,
}

impl Complaint {
    fn new(message: impl ToString) -> Self {
        Self { message: message.to_string(), hint: None }
    }
}

fn try_run(args: &Args) -> Result<(), Complaint> {
    let store = Store::for_job(&args.dir, args.repo_dir.clone());
    let specs = specs(args, &store)?;
    let progress: Box<dyn Progress> = if args.log == LogLevel::None { Box::new(Silent) } else { progress::on_stderr() };
    let options = InstallOptions {
        update: args.update,
        frozen: args.frozen,
        offline: args.offline,
        registry: args.registry.clone(),
        npmrc_dir: Some(args.dir.clone()),
        ..Default::default()
    };
    let report = install(&store, &specs, &options, progress.as_ref());
    // Clears the bar before anything else is written.
    drop(progress);
    let report = report.map_err(|error| Complaint { message: error.explain(), hint: error.hint() })?;
    if args.log != LogLevel::None {
        eprint!("{}", table(&report, args.log));
    }
    prepare(&store, &report, args.adaptors.is_empty(), args.log);
    if args.json {
        let json = serde_json::to_string_pretty(&report).map_err(Complaint::new)?;
        println!("{json}");
    }
    Ok(())
}

/// Loads what is new once, so that the first run need not: an adaptor is packed and its compiled code kept. Packages
/// that do not load are no failure of the install; a job that uses them will say why.
fn prepare(store: &Store, report: &InstallReport, of_project: bool, log: LogLevel) {
    let new: Vec<_> = report.adaptors.iter().filter(|adaptor| adaptor.new).collect();
    if new.is_empty() {
        return;
    }
    let host = Host::new(HostOptions { store: store.root().to_owned(), ..Default::default() });
    for adaptor in &new {
        let result = host.warm(std::slice::from_ref(&adaptor.specifier));
        if let Err(error) = result
            && log != LogLevel::None
        {
            eprintln!("warning: {}@{} does not load: {}", adaptor.name, adaptor.version, error.message);
        }
    }
    for adaptor in &new {
        snapshots::make(&host, std::slice::from_ref(&adaptor.specifier));
    }
    // A server loads all adaptors of its project together.
    if of_project {
        let all: Vec<_> = report.adaptors.iter().map(|adaptor| adaptor.specifier.clone()).collect();
        snapshots::make(&host, &all);
    }
}

/// What is named on the command line, else in the project, else in the lock (which [`install`] takes by itself).
fn specs(args: &Args, store: &Store) -> Result<Vec<AdaptorSpec>, Complaint> {
    if !args.adaptors.is_empty() {
        return args.adaptors.iter().map(|typed| AdaptorSpec::parse(typed).map_err(Complaint::new)).collect();
    }
    // From within a project's directories, the store knows where the project begins.
    let project = match project_adaptors(&args.dir) {
        Err(ProjectError::Missing { .. }) => project_adaptors(store.root()),
        found => found,
    };
    match project {
        Ok(adaptors) => Ok(adaptors),
        Err(ProjectError::Missing { .. }) if store.lock_path().exists() => Ok(Vec::new()),
        Err(ProjectError::Missing { .. }) => Err(Complaint {
            message: "there is no project here that names adaptors".into(),
            hint: Some("name what to install, for example `fnhost install http`".into()),
        }),
        Err(error) => Err(Complaint::new(error)),
    }
}

fn table(report: &InstallReport, level: LogLevel) -> String {
    let name_width = report.adaptors.iter().map(|adaptor| adaptor.name.len()).max().unwrap_or(0);
    let version_width = report.adaptors.iter().map(|adaptor| adaptor.version.len()).max().unwrap_or(0);
    let mut text = String::new();
    for adaptor in &report.adaptors {
        let state = if adaptor.new { "new" } else { "kept" };
        text += &format!("{:name_width$}  {:version_width$}  {state}\n", adaptor.name, adaptor.version);
        if level != LogLevel::Default {
            text += &format!("  {}\n", adaptor.dir.display());
        }
    }
    let packages = match report.packages {
        1 => "1 package".to_string(),
        several => format!("{several} packages"),
    };
    text += &format!("{packages} in {}\n", report.root.display());
    for warning in &report.warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}
