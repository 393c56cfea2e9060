//! Snapshots of adaptors, which a process of its own makes (see `isolate`).

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::isolate::{self, Host};

/// How often a server looks whether its runs have loaded other things than its snapshot holds.
const LOOK: Duration = Duration::from_secs(5);
/// Each time that they have, it waits twice as long before it does anything about it again, up to this: what runs load
/// settles, and a pool that never rests must not be held up often.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Has one made for these adaptors if there is none. Tells whether there is one then.
pub fn make(host: &Host, adaptors: &[String]) -> bool {
    std::env::current_exe().is_ok_and(|program| host.make_snapshot(&program, adaptors))
}

/// After a run: has one made if its adaptors have none, so that the next run starts sooner.
pub fn make_after(host: &Host, adaptors: &[String]) {
    if host.lacks_snapshot(adaptors) {
        make(host, adaptors);
    }
}

/// Has the isolates of a server start from what its runs are seen to load of these adaptors, and of those that its project
/// comes to use, as long as that can be made a snapshot of.
pub async fn keep_current(engine: Engine, mut adaptors: Vec<String>) {
    let pool = &engine.runner().pool;
    let (mut pause, mut due) = (LOOK, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let served = engine.served();
        let used = served.workflows.values().flat_map(|definition| definition.adaptor_sets()).flatten();
        for adaptor in used {
            if !adaptors.contains(adaptor) {
                adaptors.push(adaptor.clone());
                (pause, due) = (LOOK, Instant::now());
            }
        }
        if Instant::now() < due || !pool.host().lacks_snapshot(&adaptors) {
            continue;
        }
        pause = LONGEST_PAUSE.min(2 * pause);
        due = Instant::now() + pause;
        let (host, specifiers) = (pool.host().clone(), adaptors.clone());
        let made = tokio::task::spawn_blocking(move || {
            host.save_packs();
            make(&host, &specifiers).then(|| host.load_again(&specifiers))
        });
        let Ok(Some(set)) = made.await else { return };
        let Some(set) = set else { continue };
        if let Some(held_back) = pool.take_up(set).await {
            let ms = held_back.as_millis() as u64;
            tracing::info!(ms, "isolates start from a snapshot of what runs were seen to load");
        }
    }
}

/// The process that makes one.
pub fn work() -> ExitCode {
    match isolate::make_snapshot() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("{reason}");
            ExitCode::FAILURE
        }
    }
}
