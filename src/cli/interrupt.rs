//! Ctrl-C and `kill`: end at once, with the exit code a shell expects, also as process 1 of a container, where the
//! system's default would be to ignore them.

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;

/// Ends the process when it is interrupted or terminated, from now on.
///
/// Nothing needs tidying up: output files appear all at once, and an install is resumed by the next one. If the thread
/// cannot be had, the system's default stays.
pub fn end_on_signals() {
    let thread = std::thread::Builder::new().name("signals".into());
    let _ = thread.spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let exit = tokio::select! {
                _ = interrupt.recv() => Exit::Interrupted,
                _ = terminate.recv() => Exit::Terminated,
            };
            std::process::exit(exit as i32);
        });
    });
}
