//! Expressions that stand alone, as the condition of a trigger.
//!
//! Such a text is put into a function of the host's making, and must not be able to end that function and begin
//! something else. What counts is therefore that the text between two brackets is one expression with these very
//! brackets around it: `a; b` and `a) + (b` are not.

use deno_ast::swc::ast::{Expr, Import, Stmt};
use deno_ast::swc::ecma_visit::{Visit, VisitWith};

use super::diagnostic::{CompileError, Problem};
use super::edit::Range;
use super::lines::Lines;
use super::parse;
use super::stack::{self, NoRoom};

/// Checks that a text is one expression of strict JavaScript that neither waits nor imports. `name` is what messages call it.
///
/// # Errors
/// Its syntax errors.
pub fn check_expression(name: &str, source: &str) -> Result<(), CompileError> {
    let checked = stack::with_room_for(source, || check(source));
    let problems = match checked {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(problems)) => problems,
        Err(NoRoom::TooLarge) => vec![Problem::new(Range::new(0, 0), "the expression is too large")],
        Err(NoRoom::OutOfMemory) => vec![Problem::new(Range::new(0, 0), "there is not enough memory to parse this")],
    };
    Err(CompileError::new(name, source, &Lines::new(source), problems))
}

/// An expression as it is to be put into other code: a comment at its end does not swallow what follows.
pub fn in_brackets(expression: &str) -> String {
    format!("({expression}\n)")
}

/// Makes it strict.
const DIRECTIVE: &str = "'use strict';";

fn check(source: &str) -> Result<(), Vec<Problem>> {
    let text = format!("{DIRECTIVE}{}", in_brackets(source));
    let before = DIRECTIVE.len() as u32;
    let in_source = |problems: Vec<Problem>| {
        let place = |at: u32| at.saturating_sub(before + 1).min(source.len() as u32);
        let moved = |Problem { range, message, help }| Problem {
            range: Range::new(place(range.lo), place(range.hi)),
            message,
            help,
        };
        problems.into_iter().map(moved).collect::<Vec<_>>()
    };
    let script = parse::script(&text).map_err(in_source)?;
    let [Stmt::Expr(_), Stmt::Expr(statement)] = script.body.as_slice() else { return Err(several(source)) };
    match &*statement.expr {
        Expr::Paren(brackets) if Range::from(brackets.span) == Range::new(before, text.len() as u32) => {}
        _ => return Err(several(source)),
    }
    let mut imports = Imports::default();
    statement.visit_with(&mut imports);
    if imports.0.is_empty() { Ok(()) } else { Err(in_source(imports.0)) }
}

fn several(source: &str) -> Vec<Problem> {
    let all = Range::new(0, source.len() as u32);
    vec![Problem::new(all, "this is more than one expression").help("join conditions with && or ||")]
}

/// Finds `import()`.
#[derive(Default)]
struct Imports(Vec<Problem>);

impl Visit for Imports {
    fn visit_import(&mut self, import: &Import) {
        self.0.push(Problem::new(import.span, "an expression cannot import"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> String {
        let error = check_expression("condition", source).expect_err(source);
        let first = &error.diagnostics[0];
        format!("{}:{} {}", first.line, first.column, first.message)
    }

    #[test]
    fn one_expression_is_accepted_however_it_is_written() {
        for source in [
            "true",
            "data.age > 5 && request.headers['x-kind'] === 'a'",
            "(a) || (b)",
            "a, b",
            "a // because",
            "/* because */ a",
            "\n  a\n  && b\n",
            "{}.a",
            "function () { return 1; }",
            "data.items.some(item => { const { price } = item; return price > 5; })",
            "/[)}]/.test(data.name)",
            "`)${'}'}(`",
            "async () => await a",
        ] {
            assert!(check_expression("condition", source).is_ok(), "{source}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for source in [
            "",
            " ",
            "// only",
            "a; b",
            "a;",
            "}{",
            ")(",
            "a) + (b",
            "a) => (b",
            "a); (b",
            "a)\n(b",
            "a /*",
            "a `",
            "'a",
            "return 1",
            "if (a) b",
            "let a = 1",
            "await a",
            "with (a) b",
            "010",
            "a b",
            "...a",
            "a) //",
            "<!-- a",
            "import('a')",
            "import.meta",
            "a }); globalThis.x = (function () { return (1",
        ] {
            refused(source);
        }
    }

    #[test]
    fn problems_are_where_they_are_in_the_expression() {
        assert_eq!(refused("data.a > > 5"), "1:10 expression expected");
        assert_eq!(refused("a &&\n  b c"), "2:5 expected ',', got 'c'");
        assert_eq!(refused("a; b"), "1:2 expected ',', got ';'");
        assert_eq!(refused("a) + (b"), "1:1 this is more than one expression");
    }

    #[test]
    fn no_nesting_runs_over_the_stack() {
        refused(&"(".repeat(100_000));
        assert!(check_expression("condition", &format!("{}1{}", "[".repeat(4000), "]".repeat(4000))).is_ok());
    }
}
