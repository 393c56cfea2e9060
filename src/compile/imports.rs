//! The imports that a job need not write.
//!
//! Only names that the job uses and does not declare are imported, so that a declaration or an import of the author's own
//! always wins, and so that a module says what it depends on.

use deno_ast::swc::atoms::Atom;
use serde_json::Value;

use super::Dialect;
use super::edit::Range;
use super::names;
use super::vocabulary::{self, Meaning, RUNTIME};
use super::walk::{FreeName, Walk};

/// What goes before the job in its module.
#[derive(Debug)]
pub(super) struct Prelude {
    /// Names to import, by adaptor.
    from_adaptors: Vec<Vec<Atom>>,
    from_runtime: Vec<Atom>,
    /// Variables that a sloppy script makes by assigning to them.
    variables: Vec<Atom>,
}

impl Prelude {
    /// Finds a place for every name the job does not declare; what has none is a problem.
    pub(super) fn new(walk: &mut Walk, dialect: Dialect) -> Self {
        let vocabulary = walk.vocabulary;
        let adaptors = vocabulary.adaptors();
        let mut prelude =
            Self { from_adaptors: vec![Vec::new(); adaptors.len()], from_runtime: Vec::new(), variables: Vec::new() };
        let mut problems = Vec::new();
        let mut undeclared = Vec::new();
        for FreeName { name, needed, assigned } in &walk.free {
            if vocabulary::is_reserved(name) {
                problems.extend(needed.or(*assigned).map(|range| names::reserved(name, range)));
                continue;
            }
            let meaning = vocabulary.meaning(name);
            match (meaning, *assigned, *needed) {
                (Meaning::Global | Meaning::Extra, ..) => {}
                (Meaning::Adaptor(index), Some(range), _) if adaptors[index].exports.is_some() => {
                    problems.push(names::assigned_import(name, range, adaptors[index].specifier));
                }
                (Meaning::Runtime, Some(range), _) => problems.push(names::assigned_import(name, range, RUNTIME)),
                (Meaning::Adaptor(_) | Meaning::Nothing, Some(range), _) => match dialect {
                    Dialect::Script => prelude.variables.push(name.clone()),
                    Dialect::Module => problems.push(names::undeclared_assignment(name, range)),
                },
                (Meaning::Adaptor(index), None, needed) => {
                    // Asking an adaptor of unknown exports for a name that is only under a `typeof` could fail for nothing.
                    if needed.is_some() || adaptors[index].exports.is_some() {
                        prelude.from_adaptors[index].push(name.clone());
                    }
                }
                (Meaning::Runtime, None, _) => prelude.from_runtime.push(name.clone()),
                (Meaning::Unavailable(instead), assigned, needed) => {
                    if let Some(range) = needed.or(assigned) {
                        problems.push(names::unavailable(name, range, instead));
                    }
                }
                (Meaning::Nothing, None, Some(range)) => undeclared.push((name.clone(), range)),
                (Meaning::Nothing, None, None) => {}
            }
        }
        if !undeclared.is_empty() {
            let declared = declared_names(walk);
            problems.extend(
                undeclared
                    .iter()
                    .map(|(name, range): &(Atom, Range)| names::undeclared(name, *range, vocabulary, &declared)),
            );
        }
        walk.problems.extend(problems);
        prelude
    }

    /// The prelude as code, on one line.
    pub(super) fn code(&self, walk: &Walk) -> String {
        let adaptors = walk.vocabulary.adaptors();
        let mut parts = Vec::new();
        for (adaptor, names) in adaptors.iter().zip(&self.from_adaptors) {
            if !names.is_empty() {
                parts.push(format!("import {{ {} }} from {};", listed(names), quoted(adaptor.specifier)));
            }
        }
        // The adaptor's `execute` reaches the runtime this way. Names that two `export *` have in common belong to neither,
        // so with several adaptors, which all export `execute`, only the first one's exports are passed on.
        if let Some(adaptor) = adaptors.first() {
            parts.push(format!("export * from {};", quoted(adaptor.specifier)));
        }
        let defer = walk.deferred.iter().map(|names| format!("defer as {}", names.defer));
        let lent: Vec<String> = self.from_runtime.iter().map(Atom::to_string).chain(defer).collect();
        if !lent.is_empty() {
            parts.push(format!("import {{ {} }} from {};", lent.join(", "), quoted(RUNTIME)));
        }
        if !self.variables.is_empty() {
            parts.push(format!("let {};", listed(&self.variables)));
        }
        parts.join(" ")
    }
}

/// The names of the job's top level, sorted: the order of a hash map must not show in messages.
fn declared_names(walk: &Walk) -> Vec<Atom> {
    let mut names: Vec<Atom> = walk.scopes.iter().flat_map(|scope| scope.keys().cloned()).collect();
    names.sort();
    names
}

fn listed(names: &[Atom]) -> String {
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    names.join(", ")
}

fn quoted(specifier: &str) -> Value {
    // A JSON string is a JavaScript string.
    Value::from(specifier)
}
