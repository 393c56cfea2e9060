//! `fnhost completions`: the command line, told to a shell.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::exit::Exit;
use super::output;

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The shell to complete in
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  fnhost completions bash > ~/.local/share/bash-completion/completions/fnhost
  fnhost completions zsh > ~/.zfunc/_fnhost
  fnhost completions fish > ~/.config/fish/completions/fnhost.fish";

pub fn run(args: Args) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "fnhost", &mut script);
    match output::print(&script) {
        Ok(()) => Exit::Completed.into(),
        Err(error) => {
            eprintln!("error: cannot print the script: {error}");
            Exit::Host.into()
        }
    }
}
