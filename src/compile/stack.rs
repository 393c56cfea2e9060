//! Room for the recursion of parser and walk.
//!
//! Both recurse as deep as the job nests, and a job can nest as deep as it is long: a file of opening brackets would run
//! over the stack and take the whole process down. How deep a job nests is not known before it is parsed, but it cannot nest
//! deeper than it has bytes that can nest. So these are counted, and a job that could need more stack than any thread is sure
//! to have gets a thread of its own, with a stack to match. Stacks are only reserved, not filled: for ordinary jobs with much
//! data in them the reservation costs nothing.

use std::thread;

/// Stack that every caller has to have left.
const IN_PLACE: usize = 384 * 1024;
/// Stack that even the deepest parts of the work need besides what the counting sees.
const BASE: usize = 128 * 1024;
/// The largest stack a job may ask for.
const LARGEST: usize = 512 * 1024 * 1024;

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    TooLarge,
    OutOfMemory,
}

/// Runs `work` on a stack that is deep enough to parse and walk `source`.
pub(super) fn with_room_for<T: Send>(source: &str, work: impl FnOnce() -> T + Send) -> Result<T, NoRoom> {
    let needed = needed(source);
    if needed <= IN_PLACE {
        return Ok(work());
    }
    if needed > LARGEST {
        return Err(NoRoom::TooLarge);
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("compile".to_owned())
            .stack_size(needed)
            .spawn_scoped(scope, work)
            .map_err(|_| NoRoom::OutOfMemory)?;
        match thread.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// An upper bound of the stack that a source takes, in bytes.
fn needed(source: &str) -> usize {
    source.bytes().map(cost).sum::<usize>() + BASE
}

/// What a byte can take of the stack at most: measured on the worst case, a file full of it, and doubled.
fn cost(byte: u8) -> usize {
    match byte {
        b'(' | b'[' | b'{' | b'`' => 8 * 1024,
        _ => 0,
    }
}
