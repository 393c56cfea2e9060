//! `fnhost init`: a directory that somebody else can take over and run: the project, and what it needs to be shipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;

use super::exit::{Exit, Failure};
use crate::image::image_name;
use crate::project::{PROJECT_FILES, Portable, Variable};

/// Make a project: a new one, or one to pass on, made from another
///
/// Writes a project with all that is needed to run it elsewhere: a Dockerfile, a docker-compose.yaml, a README, and
/// .env.example, which names each variable that the credentials need. With --from, the project is one that is there:
/// each job becomes a file, and each value of a credential a variable. The values themselves are not copied anywhere.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The directory to write; it is made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// A project to start from: its directory, or its project.yaml
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,

    /// Overwrite files that are there
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  fnhost init orders                             a project to begin with
  fnhost init orders --from ./microservice       one to pass on, from a project of OpenFn/microservice
  fnhost check orders && fnhost serve orders

A project to start from is in OpenFn's portability format, version 2: project.yaml, project.yml or project.json with jobs,
triggers and credentials, and the files that it names.";

pub fn run(args: &Args) -> ExitCode {
    match init(args) {
        Ok(report) => {
            eprint!("{report}");
            Exit::Completed.into()
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

fn init(args: &Args) -> Result<String, Failure> {
    let mut portable = match &args.from {
        Some(from) => of_project(from)?,
        None => starter(),
    };
    let files = &mut portable.files;
    files.insert(".env.example".into(), env_example(&portable.variables));
    let name = name(&args.dir);
    let filled = |template: &str| {
        template
            .replace("{{name}}", &name)
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{message}}", &portable.example)
    };
    for (path, template) in [
        ("Dockerfile", include_str!("init/Dockerfile")),
        ("docker-compose.yaml", include_str!("init/docker-compose.yaml")),
        (".gitignore", include_str!("init/gitignore")),
        (".dockerignore", include_str!("init/dockerignore")),
        ("README.md", include_str!("init/README.md")),
    ] {
        files.insert(path.into(), filled(template));
    }
    write(&args.dir, files, args.force)?;
    Ok(report(args, &portable))
}

/// A project that says hello.
fn starter() -> Portable {
    Portable {
        files: BTreeMap::from([
            ("project.yaml".into(), include_str!("init/starter/project.yaml").into()),
            ("jobs/greet.js".into(), include_str!("init/starter/greet.js").into()),
        ]),
        example: r#"{"type":"greeting","name":"Ada"}"#.into(),
        ..Portable::default()
    }
}

fn of_project(from: &Path) -> Result<Portable, Failure> {
    let is_project_file =
        |path: &Path| path.file_name().is_some_and(|name| PROJECT_FILES.iter().any(|file| name == *file));
    let dir = match from.is_dir() {
        true => from,
        false if is_project_file(from) => from.parent().filter(|dir| *dir != "").unwrap_or(Path::new(".")),
        false => {
            return Err(Failure::usage(format!(
                "{} is no project. Name a directory with a project.yaml in it, or that file; unpack an archive first",
                from.display()
            )));
        }
    };
    Portable::of(dir, reserved_names())
        .map_err(|broken| Failure::usage(format!("the project in {} cannot be read\n{broken}", dir.display())))
}

/// Variables that have a meaning already, to the server or to the system.
fn reserved_names() -> BTreeSet<String> {
    let program = super::Cli::command();
    let settings = program.get_subcommands().flat_map(|command| command.get_arguments());
    let settings = settings.filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()));
    let system = ["PATH", "HOME", "USER", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"];
    settings.chain(system.map(str::to_owned)).collect()
}

/// The directory's name, as the name of an image.
fn name(dir: &Path) -> String {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    image_name(&dir.file_name().unwrap_or_default().to_string_lossy())
}

fn env_example(variables: &[Variable]) -> String {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for variable in variables {
        places.entry(&variable.name).or_default().push(&variable.place);
    }
    let mut text = String::from(
        "# Copy this file to .env, fill it in, and show that one to nobody. A value in quotes may hold anything.\n",
    );
    if variables.is_empty() {
        text.push_str("# The project has no credentials, so nothing has to be filled in.\n");
    }
    let mut written = BTreeSet::new();
    for Variable { name, .. } in variables {
        if written.insert(name) {
            let _ = write!(text, "\n# {}\n{name}=\n", places[name.as_str()].join(", "));
        }
    }
    text
}

fn write(dir: &Path, files: &BTreeMap<String, String>, force: bool) -> Result<(), Failure> {
    let there: Vec<&str> =
        files.keys().filter(|path| dir.join(path).symlink_metadata().is_ok()).map(String::as_str).collect();
    if !force && !there.is_empty() {
        return Err(Failure::usage(format!(
            "there are files already in {}: {}. Nothing was written; take another directory, or --force to overwrite them",
            dir.display(),
            there.join(", ")
        )));
    }
    for (path, text) in files {
        let path = dir.join(path);
        let parent = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| Failure::host(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}

fn report(args: &Args, portable: &Portable) -> String {
    let mut report = String::new();
    let dir = args.dir.display();
    for path in portable.files.keys() {
        let _ = writeln!(report, "wrote {}", args.dir.join(path).display());
    }
    if args.from.is_some() {
        let _ = writeln!(
            report,
            "note: no value of a credential was copied: {dir}/.env.example names the variables that need them\n\
             note: jobs were copied as they are: see that none has a secret written into it"
        );
    }
    for note in &portable.notes {
        let _ = writeln!(report, "note: {note}");
    }
    let _ = writeln!(report, "next: fnhost check {dir}, then fnhost serve {dir}; {dir}/README.md has the rest");
    report
}
