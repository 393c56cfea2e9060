//! `fnhost check`: everything that is wrong with a project, before it is served.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::exit::{Exit, Failure};
use super::{output, prepare};
use crate::adaptor::{AdaptorSpec, Installed, Store};
use crate::compile::{self, Adaptor, Dialect};
use crate::isolate::Host;
use crate::model::{self, JsStep, StepKind, TriggerKind, Workflow};
use crate::project::{Broken, Excerpt, Inline, Loaded, Problem, Project};

/// Check a project: its file, its jobs, its adaptors
///
/// Reads project.yaml and everything it names, compiles each job against its adaptors, and prints all that is wrong,
/// each with its place and what to do about it. Nothing is run, nothing is installed and nothing is connected to.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The directory of the project
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Look for adaptors here instead of in the project or ~/.local/share/fnhost
    #[arg(long, value_name = "DIR", env = "FNHOST_REPO_DIR")]
    repo_dir: Option<PathBuf>,

    /// Print the result as JSON on stdout
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  fnhost check                 the project in this directory
  fnhost check project --json  for programs

Exit codes:
    0  the project can be served; there may be warnings
    2  the project has errors
    3  a job does not compile
    5  adaptors are installed and cannot be loaded

Adaptors that are not installed are only named. Their jobs are compiled as far as that goes without them.";

pub fn run(args: Args) -> ExitCode {
    let report = check(&args);
    if args.json {
        let json = serde_json::to_string_pretty(&report.for_programs()).unwrap_or_default();
        if output::print(format!("{json}\n").as_bytes()).is_err() {
            return Exit::Host.into();
        }
    } else {
        eprint!("{}", report.for_people());
    }
    report.exit.into()
}

/// What was found.
struct Report {
    dir: PathBuf,
    exit: Exit,
    workflows: Vec<Workflow>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    lacking: BTreeSet<String>,
    not_installed: Vec<String>,
}

fn check(args: &Args) -> Report {
    let environment = |name: &str| std::env::var(name).ok();
    match Project::load(&args.dir, &environment) {
        Ok(loaded) => check_jobs(args, loaded),
        Err(Broken { errors, warnings, .. }) => Report {
            dir: args.dir.clone(),
            exit: Exit::Usage,
            workflows: Vec::new(),
            errors,
            warnings,
            lacking: BTreeSet::new(),
            not_installed: Vec::new(),
        },
    }
}

/// Compiles each job once, however many workflows it is part of.
fn check_jobs(args: &Args, loaded: Loaded) -> Report {
    let Loaded { project, warnings, inline, .. } = loaded;
    let mut report = Report {
        dir: args.dir.clone(),
        exit: Exit::Completed,
        workflows: Vec::new(),
        errors: Vec::new(),
        warnings,
        lacking: project.lacking,
        not_installed: Vec::new(),
    };
    let steps = project.workflows.iter().flat_map(|workflow| &workflow.steps);
    let jobs: BTreeMap<&str, &JsStep> = steps
        .map(|step| match &step.kind {
            StepKind::Js(job) => (step.id.as_str(), job),
        })
        .collect();
    match Adaptors::find(args, jobs.values().copied()) {
        Ok(adaptors) => {
            report.not_installed = adaptors.missing();
            for (name, job) in jobs {
                match adaptors.exports(job) {
                    Ok(exports) => {
                        let problems = compile_job(args, name, job, &exports, inline.get(name));
                        report.add(Exit::NotCompiled, problems);
                    }
                    Err(failure) => report.add_failure(failure),
                }
            }
        }
        Err(failure) => report.add_failure(failure),
    }
    report.errors.sort_by_key(|problem| (problem.file.clone(), problem.line, problem.column));
    report.workflows = project.workflows;
    report
}

/// An adaptor's import specifier, and what it exports if that is known.
type Exports = Vec<(String, Option<Vec<String>>)>;

/// The adaptors of the project, as far as they are installed.
struct Adaptors {
    host: Host,
    /// As the project names them → what it is called, and what is there.
    found: BTreeMap<String, (AdaptorSpec, Option<Installed>)>,
}

impl Adaptors {
    fn find<'a>(args: &Args, jobs: impl Iterator<Item = &'a JsStep>) -> Result<Self, Failure> {
        let store = Store::for_job(&args.dir, args.repo_dir.clone());
        let mut found = BTreeMap::new();
        for name in jobs.flat_map(|job| &job.adaptors) {
            if !found.contains_key(name) {
                let spec = AdaptorSpec::parse(name).map_err(|error| Failure::usage(error.to_string()))?;
                let installed = store.find(&spec).map_err(|error| Failure::host(error.to_string()))?;
                found.insert(name.clone(), (spec, installed));
            }
        }
        let installed: Vec<Installed> = found.values().filter_map(|(_, installed)| installed.clone()).collect();
        Ok(Self { host: prepare::host(&store, &installed, None, None), found })
    }

    /// Those that are not installed, as people would name them to install them.
    fn missing(&self) -> Vec<String> {
        let missing = self.found.values().filter(|(_, installed)| installed.is_none());
        missing.map(|(spec, _)| prepare::short(spec)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What the adaptors of a job export, if all of them are installed.
    fn exports(&self, job: &JsStep) -> Result<Exports, Failure> {
        let adaptors: Vec<&(AdaptorSpec, Option<Installed>)> =
            job.adaptors.iter().filter_map(|name| self.found.get(name)).collect();
        let installed: Option<Vec<Installed>> = adaptors.iter().map(|(_, installed)| installed.clone()).collect();
        let Some(installed) = installed else {
            let name = |(spec, installed): &&(AdaptorSpec, Option<Installed>)| match installed {
                Some(installed) => installed.specifier.clone(),
                None => spec.names().swap_remove(0),
            };
            return Ok(adaptors.iter().map(|adaptor| (name(adaptor), None)).collect());
        };
        let names: Vec<String> = installed.iter().map(|adaptor| adaptor.specifier.clone()).collect();
        let set = self
            .host
            .prepare(&names)
            .map_err(|error| Failure::host(format!("cannot load {}: {}", prepare::list(&installed), error.message)))?;
        Ok(names.into_iter().map(|name| (name.clone(), set.exports.get(&name).cloned())).collect())
    }
}

fn compile_job(args: &Args, name: &str, job: &JsStep, exports: &Exports, inline: Option<&Inline>) -> Vec<Problem> {
    let adaptors: Vec<Adaptor> =
        exports.iter().map(|(specifier, exports)| Adaptor { specifier, exports: exports.as_deref() }).collect();
    let file_name = job.file.clone().unwrap_or_else(|| format!("{name}.js"));
    let dialect = match job.dialect {
        model::Dialect::Module => Dialect::Module,
        model::Dialect::Script => Dialect::Script,
    };
    let options = compile::Options { file_name: &file_name, adaptors: &adaptors, dialect, extra_globals: &[] };
    let diagnostics = match compile::compile(&job.expression, &options) {
        Ok(_) => return Vec::new(),
        Err(error) => error.diagnostics,
    };
    diagnostics.into_iter().map(|diagnostic| problem(args, name, job, diagnostic, inline)).collect()
}

/// What the compiler says about a job, with the place in the project's files.
fn problem(args: &Args, name: &str, job: &JsStep, diagnostic: compile::Diagnostic, inline: Option<&Inline>) -> Problem {
    let compile::Diagnostic { mut message, line, column, length, source_line, help, .. } = diagnostic;
    let (file, line, columns) = match (&job.file, inline) {
        (Some(file), _) => (in_dir(&args.dir, file), line, 0),
        (None, Some(Inline { line: first, columns: Some(columns) })) => {
            (project_file(&args.dir), first + line - 1, *columns)
        }
        (None, inline) => {
            message = format!("in line {line}, column {column} of the job `{name}`: {message}");
            let problem = Problem::of_file(project_file(&args.dir), message);
            return Problem { line: inline.map(|inline| inline.line.into()), hint: help, ..problem };
        }
    };
    // What stands before the job on the line may be anything, a secret as well.
    let line_shown = format!("{}{source_line}", " ".repeat(columns as usize));
    Problem {
        file,
        line: Some(line.into()),
        column: Some((column + columns).into()),
        message,
        hint: help,
        excerpt: Some(Excerpt { line: line_shown, length: length.into() }),
    }
}

fn in_dir(dir: &Path, file: impl AsRef<Path>) -> PathBuf {
    if dir == Path::new(".") { file.as_ref().to_owned() } else { dir.join(file) }
}

fn project_file(dir: &Path) -> PathBuf {
    let names = crate::project::PROJECT_FILES;
    in_dir(dir, names.iter().find(|name| dir.join(name).exists()).unwrap_or(&names[0]))
}

/// What a program is told.
#[derive(Serialize)]
struct ReportForPrograms<'a> {
    ok: bool,
    errors: Vec<ProblemForPrograms<'a>>,
    warnings: Vec<ProblemForPrograms<'a>>,
    workflows: Vec<WorkflowForPrograms<'a>>,
    /// Credentials that the service's store must have.
    lacking_credentials: &'a BTreeSet<String>,
    adaptors_not_installed: &'a [String],
}

#[derive(Serialize)]
struct ProblemForPrograms<'a> {
    file: &'a Path,
    line: Option<u64>,
    column: Option<u64>,
    message: &'a str,
    hint: Option<&'a str>,
}

#[derive(Serialize)]
struct WorkflowForPrograms<'a> {
    name: &'a str,
    triggers: Vec<&'a str>,
    steps: Vec<&'a str>,
}

impl<'a> From<&'a Problem> for ProblemForPrograms<'a> {
    fn from(Problem { file, line, column, message, hint, .. }: &'a Problem) -> Self {
        Self { file, line: *line, column: *column, message, hint: hint.as_deref() }
    }
}

impl Report {
    /// The first kind of problem decides how the program ends.
    fn add(&mut self, exit: Exit, problems: Vec<Problem>) {
        if !problems.is_empty() && self.exit == Exit::Completed {
            self.exit = exit;
        }
        self.errors.extend(problems);
    }

    fn add_failure(&mut self, failure: Failure) {
        let problem = Problem::of_file(&self.dir, failure.message);
        if !self.errors.contains(&problem) {
            self.add(failure.exit, vec![problem]);
        }
    }

    fn for_programs(&self) -> ReportForPrograms<'_> {
        ReportForPrograms {
            ok: self.exit == Exit::Completed,
            errors: self.errors.iter().map(ProblemForPrograms::from).collect(),
            warnings: self.warnings.iter().map(ProblemForPrograms::from).collect(),
            workflows: self
                .workflows
                .iter()
                .map(|workflow| WorkflowForPrograms {
                    name: &workflow.name,
                    triggers: workflow.triggers.iter().map(|trigger| trigger.name.as_str()).collect(),
                    steps: workflow.steps.iter().map(|step| step.id.as_str()).collect(),
                })
                .collect(),
            lacking_credentials: &self.lacking,
            adaptors_not_installed: &self.not_installed,
        }
    }

    fn for_people(&self) -> String {
        let mut text = String::new();
        for (kind, problems) in [("error", &self.errors), ("warning", &self.warnings)] {
            for problem in problems {
                text += &format!("{}\n\n", problem.render(kind));
            }
        }
        if !self.not_installed.is_empty() {
            let verb = if self.not_installed.len() == 1 { "is" } else { "are" };
            let dir = if self.dir == Path::new(".") { String::new() } else { format!(" --dir {}", self.dir.display()) };
            text += &format!("not installed: {}, which {verb} needed", self.not_installed.join(", "));
            text += &format!("; run: fnhost install{dir}\n\n");
        }
        for workflow in &self.workflows {
            text += &format!("{}\n", described(workflow));
        }
        let counts = [(self.errors.len(), "error"), (self.warnings.len(), "warning")];
        let counts: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, noun)| counted(*count, noun)).collect();
        let counts = if counts.is_empty() { "no problems".to_owned() } else { counts.join(" and ") };
        let workflows = match self.workflows.len() {
            0 if !self.errors.is_empty() => String::new(),
            number => format!("{}, ", counted(number, "workflow")),
        };
        text += &format!("{}: {workflows}{counts}\n", self.dir.display());
        text
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A workflow in one line: its name, what starts it, and what follows.
fn described(workflow: &Workflow) -> String {
    let starts: Vec<String> = workflow.triggers.iter().map(|trigger| started_by(&trigger.kind)).collect();
    let then: Vec<&str> = workflow.steps.iter().skip(1).map(|step| step.id.as_str()).collect();
    let then = if then.is_empty() { String::new() } else { format!(", then {}", then.join(", ")) };
    format!("{}: {}{then}", workflow.name, starts.join("; "))
}

fn started_by(kind: &TriggerKind) -> String {
    match kind {
        TriggerKind::Message { topic, .. } => format!("messages on {topic}"),
        TriggerKind::Webhook(webhook) => format!("requests to /i/{}", webhook.path),
        TriggerKind::Cron(cron) => format!("the clock, {} {}", cron.expression, cron.timezone),
        TriggerKind::Every { interval } => format!("every {} ms", interval.as_millis()),
    }
}
