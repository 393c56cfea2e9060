//! `fnhost man`: the manual, made of the same definition as the command line, so that the two cannot disagree.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;

use super::exit::Exit;
use super::output;

/// Print the manual page, or write one for every command
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Write fnhost.1, fnhost-run.1 and so on into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  fnhost man | man -l -
  fnhost man --out /usr/local/share/man/man1";

pub fn run(args: Args) -> ExitCode {
    let written = match &args.out {
        Some(directory) => std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(super::Cli::command(), directory))
            .map_err(|error| format!("cannot write manual pages to {}: {error}", directory.display())),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(super::Cli::command())
                .render(&mut page)
                .and_then(|()| output::print(&page))
                .map_err(|error| format!("cannot print the manual page: {error}"))
        }
    };
    match written {
        Ok(()) => Exit::Completed.into(),
        Err(message) => {
            eprintln!("error: {message}");
            Exit::Host.into()
        }
    }
}
