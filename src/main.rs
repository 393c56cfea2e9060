//! The `fnhost` program: V8's platform first, while there is one thread, then the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fnhost::isolate::platform::init();
    fnhost::cli::main()
}
