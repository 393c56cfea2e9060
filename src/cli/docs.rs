//! `fnhost docs`: the documentation, without a server.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::exit::{Exit, Failure};
use super::output;
use crate::docs::{page, pages};
use crate::http;

/// Read the documentation, or write it as pages for a browser
///
/// Without arguments, it lists the pages. A server shows them at /docs, to everyone.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Print this page, which is Markdown
    #[arg(value_name = "PAGE")]
    page: Option<String>,

    /// Write all pages into this directory, as HTML that needs neither a server nor a network
    #[arg(short, long, value_name = "DIR", conflicts_with = "page")]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  fnhost docs                    what there is
  fnhost docs project            one page, here
  fnhost docs --out site         all of it; open site/index.html";

pub fn run(args: Args) -> ExitCode {
    let done = match (&args.out, &args.page) {
        (Some(directory), _) => write(directory),
        (None, Some(name)) => print_page(name),
        (None, None) => print(&list()),
    };
    match done {
        Ok(()) => Exit::Completed.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

fn write(directory: &Path) -> Result<(), Failure> {
    let write_all = || {
        std::fs::create_dir_all(directory)?;
        let mut files = http::documentation_files().into_iter();
        files.try_for_each(|(name, content)| std::fs::write(directory.join(name), content.as_bytes()))
    };
    write_all().map_err(|error: std::io::Error| {
        Failure::host(format!("cannot write the documentation to {}: {error}", directory.display()))
    })?;
    eprintln!("written; open {}", directory.join("index.html").display());
    Ok(())
}

fn print_page(name: &str) -> Result<(), Failure> {
    match page(name.trim_end_matches(".md")) {
        Some(page) => print(page.text),
        None => Err(Failure::usage(format!("there is no page `{name}`; `fnhost docs` lists what there is"))),
    }
}

fn list() -> String {
    let named = || pages().iter().filter(|page| !page.name.is_empty());
    let width = named().map(|page| page.name.len()).max().unwrap_or_default();
    let mut list = String::new();
    for page in named() {
        let about = if page.summary.is_empty() { &page.title } else { &page.summary };
        let _ = writeln!(list, "{:width$}  {about}", page.name);
    }
    list + "\nRead one:           fnhost docs PAGE\n\
            In a browser:       fnhost docs --out DIR, then open DIR/index.html\n\
            Of a server:        /docs, such as http://127.0.0.1:4001/docs\n"
}

fn print(text: &str) -> Result<(), Failure> {
    output::print(text.as_bytes()).map_err(|error| Failure::host(format!("cannot print: {error}")))
}
