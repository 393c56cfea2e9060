//! The `fnhost` program: V8 platform first, then the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fnhost::cli::main()
}
