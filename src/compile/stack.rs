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
    let bytes = source.as_bytes();
    let mut needed = BASE;
    let mut word = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte.is_ascii_alphabetic() {
            continue;
        }
        needed += nesting_cost(byte) + nesting_word_cost(&bytes[word..at]);
        word = at + 1;
    }
    needed
}

/// What a byte can take of the stack at most: the worst that files full of it were measured to take, and half as much again
/// or more. The costs of what nests in several bytes (`=>`, `${`) add up.
fn nesting_cost(byte: u8) -> usize {
    match byte {
        b'(' | b'[' | b'{' | b'`' | b'<' => 8 * 1024,
        b'>' => 4 * 1024,
        b':' => 2 * 1024 + 512,
        b'!' | b'~' | b'+' | b'-' | b'*' | b'=' | b'?' => 1024,
        b'.' | b'/' | b'%' | b'&' | b'|' | b'^' => 256,
        _ => 0,
    }
}

/// The same for the words that can come before a whole expression, statement or type.
fn nesting_word_cost(word: &[u8]) -> usize {
    match word {
        b"as" | b"await" | b"delete" | b"do" | b"else" | b"in" | b"infer" | b"instanceof" | b"keyof" | b"new"
        | b"of" | b"readonly" | b"satisfies" | b"typeof" | b"unique" | b"void" | b"yield" => 2 * 1024 + 512,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, compile};
    use super::*;

    fn compiles(source: &str, file_name: &str) -> bool {
        let options = Options { file_name, adaptors: &[], dialect: Default::default(), extra_globals: &[] };
        compile(source, &options).is_ok()
    }

    /// Nothing to compare with: a stack that is too small takes the process down.
    #[test]
    fn no_nesting_runs_over_the_stack() {
        let levels = 4000;
        let repeated = |open: &str, close: &str| format!("x = {}1{}", open.repeat(levels), close.repeat(levels));
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("[...", "]"),
            ("{a:", "}"),
            ("`${", "}`"),
            ("f(", ")"),
            ("a=>", ""),
            ("()=>{", "}"),
            ("async()=>", ""),
            ("(a=", ")=>1"),
            ("class{a=", "}"),
            ("class{static{", "}}"),
            ("{get a(){return ", "}}"),
            ("function(){", "}"),
            ("!", ""),
            ("- ", ""),
            ("typeof ", ""),
            ("await ", ""),
            ("new ", ""),
            ("a=", ""),
            ("a?b:", ""),
            ("a?", ":1"),
            ("1**", ""),
            ("1+", ""),
            ("", "()"),
            ("", ".a"),
            ("", "?.[0]"),
            ("", ".then(a)"),
            ("1;if(a)", ""),
            ("1;while(a)", ""),
            ("1;do ", ""),
            ("1;try{", "}finally{}"),
            ("1;switch(a){default:", "}"),
            ("1;var [", "]=1"),
        ] {
            compiles(&repeated(open, close), "job.js");
            compiles(&repeated(open, ""), "job.js");
            compiles(&repeated(open, close), "job.ts");
        }
        for (open, close) in
            [("A<", ">"), ("(", ")"), ("{a:", "}"), ("keyof ", ""), ("()=>", ""), ("`${", "}`"), ("a extends b?c:", "")]
        {
            compiles(&format!("type t = {}1{}", open.repeat(levels), close.repeat(levels)), "job.ts");
        }
        assert!(compiles(&repeated("[", "]").replace("x =", "const x ="), "job.js"));
    }

    #[test]
    fn a_job_that_could_need_too_much_is_refused() {
        assert_eq!(with_room_for(&"(".repeat(100_000), || ()), Err(NoRoom::TooLarge));
        assert!(!compiles(&"(".repeat(100_000), "job.js"));
    }

    #[test]
    fn ordinary_jobs_of_any_size_have_room() {
        let record = "  { \"name\": \"Ada Lovelace\", \"born\": 1815, \"tags\": [\"a\", \"b\"] },\n";
        let source = format!("const people = [\n{}];\n", record.repeat(1024 * 1024 / record.len()));
        assert!(compiles(&source, "job.js"));
    }
}
