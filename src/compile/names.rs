//! Names that mean nothing, found before the job runs.
//!
//! A misspelled operation would otherwise fail in the middle of a run, after others have already sent their data.

use deno_ast::swc::atoms::Atom;

use super::diagnostic::Problem;
use super::edit::Range;
use super::vocabulary::{self, Vocabulary};

/// A name that is declared nowhere and means nothing.
pub(super) fn undeclared(name: &str, range: Range, vocabulary: &Vocabulary, declared: &[Atom]) -> Problem {
    let problem = Problem::new(range, format!("\"{name}\" is not defined"));
    if let Some(adaptor) = vocabulary::well_known_adaptor(name) {
        return problem.help(format!("is it from @openfn/language-{adaptor}? pass -a {adaptor}"));
    }
    match nearest(name, vocabulary, declared) {
        Some(meant) => problem.help(format!("did you mean \"{meant}\"?")),
        None => problem,
    }
}

/// An assignment to a name that is declared nowhere. Modules are strict: it would fail when it runs.
pub(super) fn undeclared_assignment(name: &str, range: Range) -> Problem {
    Problem::new(range, format!("\"{name}\" is not defined")).help(format!("declare it: let {name} = …"))
}

pub(super) fn assigned_import(name: &str, range: Range, specifier: &str) -> Problem {
    Problem::new(range, format!("\"{name}\" is imported from {specifier} and cannot be assigned"))
        .help(format!("to use the name for something else, declare it: let {name} = …"))
}

/// `arguments` outside of a function, or a word that is none in a module.
pub(super) fn reserved(name: &str, range: Range) -> Problem {
    Problem::new(range, format!("\"{name}\" cannot be used here"))
}

pub(super) fn unavailable(name: &str, range: Range, instead: &str) -> Problem {
    Problem::new(range, format!("\"{name}\" is not available in a job")).help(instead)
}

/// The known name that looks most like `name`, if one looks like it at all. The job's own names come first.
fn nearest(name: &str, vocabulary: &Vocabulary, declared: &[Atom]) -> Option<String> {
    let wanted = name.to_lowercase();
    let length = wanted.chars().count();
    if length < 2 {
        return None;
    }
    let allowed = (length / 3).max(1);
    declared
        .iter()
        .map(|name| &**name)
        .chain(vocabulary.known_names())
        .map(|known| (strsim::damerau_levenshtein(&wanted, &known.to_lowercase()), known))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, known)| known.to_owned())
}
