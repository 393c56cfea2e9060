//! `fnhost compile`: print the module a job expression becomes.
//!
//! The module goes to stdout, so that it can be piped; what is wrong with a job goes to stderr, all of it at once.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::compile::{Adaptor, Dialect, Options, compile};

/// Compile a job and print the module
///
/// A job is a list of operations that uses names of its adaptors without importing them. The module is what fnhost runs: the
/// same text, with the imports added and the operations in the default export. Nothing is run and nothing is installed.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The job: a JavaScript or TypeScript file, or - to read it from stdin
    #[arg(value_name = "JOB")]
    job: PathBuf,

    /// An adaptor the job uses: http, http@7.2.0 or @openfn/language-http. Repeat it for several
    #[arg(short, long = "adaptor", value_name = "ADAPTOR")]
    adaptors: Vec<String>,

    /// The names an adaptor exports, separated by commas, or * if they are not known; one for each -a, in the same order
    #[arg(long = "exports", value_name = "NAMES", hide = true)]
    exports: Vec<String>,

    /// How the job is written: as a module, or as the sloppy script of @openfn/core
    #[arg(long, value_enum, default_value_t = DialectArg::Module)]
    dialect: DialectArg,

    /// Write the module to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Make a source map: --source-map=FILE writes it to a file, --source-map puts it inside the module
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    source_map: Option<Option<PathBuf>>,
}

const EXAMPLES: &str = "\
Examples:
  See what a job becomes:
    fnhost compile job.js -a http

  Compile an old job from stdin, with its source map beside it:
    fnhost compile - --dialect script -a salesforce@4.0.0 -o out.mjs --source-map=out.mjs.map < job.js

Exit code: 0 when the job compiles, 1 when it does not; then every problem is on stderr.";

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum DialectArg {
    Module,
    Script,
}

impl From<DialectArg> for Dialect {
    fn from(dialect: DialectArg) -> Self {
        match dialect {
            DialectArg::Module => Self::Module,
            DialectArg::Script => Self::Script,
        }
    }
}

/// Compiles by the names the job itself shows: no adaptor has to be installed.
pub fn run(args: Args) -> ExitCode {
    run_with(args, |_| None)
}

/// Compiles with what `exports` knows of an adaptor, given as on the command line: the names it exports, if they are known.
pub fn run_with(args: Args, exports: impl Fn(&str) -> Option<Vec<String>>) -> ExitCode {
    match compile_job(&args, exports) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read the job {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Compile(#[from] crate::compile::CompileError),
}

fn compile_job(args: &Args, exports: impl Fn(&str) -> Option<Vec<String>>) -> Result<(), Error> {
    let source = read(&args.job)?;
    let file_name = if args.job == Path::new("-") { "stdin.js".into() } else { args.job.to_string_lossy() };
    let given = args.exports.iter().map(|names| listed(names));
    let adaptors: Vec<(String, Option<Vec<String>>)> = args
        .adaptors
        .iter()
        .zip(given.map(Some).chain(std::iter::repeat(None)))
        .map(|(adaptor, given)| (specifier(adaptor), given.unwrap_or_else(|| exports(adaptor))))
        .collect();
    let adaptors: Vec<Adaptor> =
        adaptors.iter().map(|(specifier, exports)| Adaptor { specifier, exports: exports.as_deref() }).collect();
    let options =
        Options { file_name: &file_name, adaptors: &adaptors, dialect: args.dialect.into(), extra_globals: &[] };
    let compiled = compile(&source, &options)?;

    let mut code = compiled.code;
    if let Some(target) = &args.source_map {
        let map = compiled.map.to_json();
        let url = match target {
            Some(path) => {
                write(path, &map)?;
                path.to_string_lossy().into_owned()
            }
            None => format!("data:application/json;base64,{}", BASE64_STANDARD.encode(map)),
        };
        if !code.ends_with('\n') {
            code.push('\n');
        }
        code.push_str("//# sourceMappingURL=");
        code.push_str(&url);
    }
    if !code.ends_with('\n') {
        code.push('\n');
    }
    match &args.output {
        Some(path) => write(path, &code),
        None => {
            io::stdout().write_all(code.as_bytes()).map_err(|source| Error::Write { path: "stdout".into(), source })
        }
    }
}

fn read(job: &Path) -> Result<String, Error> {
    let text = if job == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(job)
    };
    text.map_err(|source| Error::Read { path: job.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// `get, post`, or `*` for "not known".
fn listed(names: &str) -> Option<Vec<String>> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    (names != ["*"]).then_some(names)
}

/// The package a job imports: without the version, which the lock file decides, and without the path of `name=path`.
fn specifier(adaptor: &str) -> String {
    let name = adaptor.split_once('=').map_or(adaptor, |(name, _)| name);
    // The first character may be the @ of a scope.
    let name = match name.char_indices().skip(1).find(|&(_, c)| c == '@') {
        Some((version, _)) => &name[..version],
        None => name,
    };
    if name.starts_with('@') {
        name.to_owned()
    } else if name.starts_with("language-") {
        format!("@openfn/{name}")
    } else {
        format!("@openfn/language-{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptors_have_short_names() {
        for short in ["http", "http@7.2.0", "language-http", "@openfn/language-http@latest", "http=/some/path@x"] {
            assert_eq!(specifier(short), "@openfn/language-http");
        }
        assert_eq!(specifier("@other/adaptor"), "@other/adaptor");
    }
}
