//! From a job expression to an ES module.
//!
//! A job is written as a list of calls, `get('/patients'); fn(state => state);`, against names it neither declares nor
//! imports. V8 runs modules. Between the two lie five steps, in the order in which their results depend on each other:
//!
//! 1. `operations`: which statements are operations (and what is a slip); `operation_makers` tells which functions of the job
//!    make them;
//! 2. `lazy_state`: `$.data` in the argument of an operation becomes a function of the state;
//! 3. `promises`: `.then` and `.catch` on an operation become a call of the runtime's `defer`;
//! 4. `imports` and `names`: every name that is used and not declared is imported from an adaptor, or refused;
//! 5. `operations` again: the module is laid out, the operations in its default export.
//!
//! Invariants: no I/O and no V8 here. The author's text is copied, never reprinted (`edit`), so the way back from a place in
//! the module to the place in the job ([`SourceMap`]) is exact. A job is either compiled or refused with all its problems; no
//! source makes the compiler panic.

mod diagnostic;
mod edit;
mod expression;
mod imports;
mod lazy_state;
mod lines;
mod names;
mod operation_makers;
mod operations;
mod parse;
mod promises;
#[cfg(test)]
mod robustness;
mod scope;
mod source_map;
mod stack;
mod trivia;
mod vocabulary;
mod walk;

pub use diagnostic::{CompileError, Diagnostic};
pub use expression::{check_expression, in_brackets};
pub use source_map::SourceMap;
pub use vocabulary::{HOST_GLOBALS, LANGUAGE_GLOBALS, RUNTIME, is_global};

use diagnostic::Problem;
use edit::Range;
use imports::Prelude;
use lines::Lines;
use operations::Plan;
use stack::NoRoom;
use vocabulary::Vocabulary;
use walk::Walk;

/// An adaptor that a job is written against.
#[derive(Debug, Clone, Copy)]
pub struct Adaptor<'a> {
    /// What imports name: `@openfn/language-http`, or whatever else the host's module loader understands.
    pub specifier: &'a str,
    /// The names it exports. If they are not known, every undeclared name that is not a global is imported from it, or from
    /// the first such adaptor.
    pub exports: Option<&'a [String]>,
}

/// Which JavaScript a job is written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// A module, as the current OpenFn platform compiles them.
    #[default]
    Module,
    /// A sloppy script, as `@openfn/core` ran them. The difference: assigning to an undeclared name declares it.
    ///
    /// Unlike in `@openfn/core`, a call in a declaration (`const x = helper()`) is not hoisted out of it as an operation, so
    /// helpers survive, and what only sloppy code may do (`with`, octal literals) is refused, for a module is strict.
    Script,
}

/// How to compile a job.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The name of the job in messages and in the source map. One that ends in `.ts` says that the job is TypeScript; other
    /// jobs are taken for TypeScript only if they are no JavaScript.
    pub file_name: &'a str,
    pub adaptors: &'a [Adaptor<'a>],
    pub dialect: Dialect,
    /// Names that the host defines for this job, besides [`HOST_GLOBALS`].
    pub extra_globals: &'a [&'a str],
}

/// A compiled job.
#[derive(Debug)]
pub struct Compiled {
    /// An ES module whose default export is the array of the operations.
    pub code: String,
    /// The way back from the module to the job.
    pub map: SourceMap,
    /// What the job does, in order.
    pub operations: Vec<Operation>,
}

/// An operation of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The function that makes it, such as `get` or `http.get`; `anonymous` if that has no name.
    pub name: String,
    /// Line in the source, from 1.
    pub line: u32,
    /// Column in the source, from 1, in UTF-16 code units.
    pub column: u32,
    /// Place in the default export, from 1.
    pub order: u32,
}

/// Compiles a job to an ES module.
///
/// # Errors
/// All the problems of the job: its syntax errors, or, if it has none, everything else that is wrong with it.
pub fn compile(source: &str, options: &Options) -> Result<Compiled, CompileError> {
    // Editors do not count a byte order mark, so neither do messages and maps.
    let source = source.trim_start_matches('\u{feff}');
    stack::with_room_for(source, || compile_with_room(source, options)).unwrap_or_else(|no_room| {
        let problem = match no_room {
            NoRoom::TooLarge => Problem::new(Range::new(0, 0), "the job is too large to compile")
                .help("move the data in it to the state, or to a collection"),
            NoRoom::OutOfMemory => Problem::new(Range::new(0, 0), "there is not enough memory to compile the job"),
        };
        Err(CompileError::new(options.file_name, source, &Lines::new(source), vec![problem]))
    })
}

fn compile_with_room(source: &str, options: &Options) -> Result<Compiled, CompileError> {
    let lines = Lines::new(source);
    let refuse = |problems| CompileError::new(options.file_name, source, &lines, problems);
    let parsed = parse::parse(source, options).map_err(refuse)?;
    let vocabulary = Vocabulary::new(options.adaptors, options.extra_globals);

    let mut walk = Walk::new(&parsed.text, &vocabulary, &parsed.module);
    operation_makers::find(&mut walk, &parsed.module);
    let plan = Plan::new(&mut walk, &parsed.module);
    plan.walk(&mut walk);
    let prelude = Prelude::new(&mut walk, options.dialect);
    if !walk.problems.is_empty() {
        return Err(refuse(walk.problems));
    }
    let imports = prelude.code(&walk);
    let layout = plan.lay_out(&mut walk, imports);
    let rendered = walk.edits.render(&parsed.text, &layout);
    let operations = plan.operations(source, &lines);
    Ok(Compiled {
        map: SourceMap::new(options.file_name, source, &lines, &rendered, &operations),
        code: rendered.code,
        operations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(source: &str) -> Compiled {
        let exports = ["fn", "get"].map(str::to_owned);
        let options = Options {
            file_name: "job.js",
            adaptors: &[Adaptor { specifier: "http", exports: Some(&exports) }],
            dialect: Dialect::Module,
            extra_globals: &["prepare", "limit"],
        };
        compile(source, &options).unwrap()
    }

    /// The place of some text, from 1.
    fn place(text: &str, needle: &str) -> (u32, u32) {
        let (line, column) = Lines::new(text).position(text, text.find(needle).unwrap() as u32);
        (line + 1, column + 1)
    }

    #[test]
    fn names_of_the_workflow_are_neither_imported_nor_taken_for_effects() {
        let code = compiled("prepare(limit);\nget(prepare($.x));\n").code;
        assert!(code.starts_with("import { get } from \"http\";"));
        assert!(code.contains("[prepare(limit),\nget(state => prepare(state.x))];"));
    }

    #[test]
    fn every_place_of_the_module_leads_back() {
        let source = "get('/é', $.a.b); const x = 1;\n  fn(() => x).then(f => f);\n";
        let Compiled { code, map, operations } = compiled(source);
        for word in ["'/é'", "a.b", "x = 1", "fn(()", "=> x", ".then(f", "f => f"] {
            let (line, column) = place(&code, word);
            assert_eq!(map.original_position(line, column), Some(place(source, word)), "{word}");
            assert_eq!(
                map.original_position(line, column + 1),
                Some(place(source, word)).map(|(line, column)| (line, column + 1)),
                "inside {word}"
            );
        }
        // What stands for something of the source leads to it, from everywhere inside.
        let (line, column) = place(&code, "state.a");
        assert_eq!(map.original_position(line, column + 3), Some(place(source, "$")));
        let (line, column) = place(&code, "_defer(fn");
        assert_eq!(map.original_position(line, column), Some(place(source, "fn(()")));
        // What stands for nothing leads nowhere.
        assert_eq!(map.original_position(1, 1), None);
        assert_eq!(map.original_position(99, 1), None);
        assert_eq!(map.original_position(0, 0), None);

        let expected = [("get", 1, 1, 1), ("fn", 2, 3, 2)].map(|(name, line, column, order)| Operation {
            name: name.to_owned(),
            line,
            column,
            order,
        });
        assert_eq!(operations, expected);
    }
}
