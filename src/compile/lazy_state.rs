//! The lazy `$`: `get($.data.url)` means `get(state => state.data.url)`.
//!
//! An operation is made before the state exists that it will run on. `$` lets an author write an argument as if the state
//! were there: the compiler turns the whole argument of the operation into a function of the state.
//!
//! Which call is the operation is the whole question. Wrapping the argument of the *nearest* call breaks
//! `fn(Object.values($.items).length)` and `log($.name.toUpperCase())`: the state would arrive at a function that wants a
//! value. So calls that make no operation (methods, built-ins, value helpers of adaptors and of the job) are passed, and the
//! argument of the innermost call that does make one is wrapped.

use deno_ast::swc::ast::*;
use deno_ast::swc::common::Spanned;

use super::diagnostic::Problem;
use super::edit::{Piece, Range};
use super::walk::{Argument, Frame, StatementKind, Walk};

/// What an argument is, as far as it matters to a `$` in it.
#[derive(Debug, PartialEq)]
pub(super) enum Shape {
    Expression,
    Function(Parameters),
}

/// The parameters of an argument that is a function itself.
#[derive(Debug, PartialEq)]
pub(super) enum Parameters {
    /// Exactly one, called `state`: nothing is left to do but to rename the `$`.
    State,
    /// One, called something else.
    Other(Range),
    /// None, or several.
    WrongArity,
}

impl Shape {
    pub(super) fn of(argument: &Expr) -> Self {
        let parameters = match argument.unwrap_parens() {
            Expr::Arrow(arrow) => match arrow.params.as_slice() {
                [parameter] => Parameters::of(parameter),
                _ => Parameters::WrongArity,
            },
            Expr::Fn(function) => match function.function.params.as_slice() {
                [parameter] => Parameters::of(&parameter.pat),
                _ => Parameters::WrongArity,
            },
            _ => return Self::Expression,
        };
        Self::Function(parameters)
    }
}

impl Parameters {
    fn of(parameter: &Pat) -> Self {
        let pattern = match parameter {
            Pat::Assign(default) => &default.left,
            pattern => pattern,
        };
        match pattern {
            Pat::Ident(name) if &*name.sym == "state" => Self::State,
            _ => Self::Other(pattern.span().into()),
        }
    }
}

impl Walk<'_> {
    /// A lazy `$` at `range`, the root of the member chain `chain`.
    pub(super) fn lazy_state(&mut self, range: Range, chain: Range, shorthand: bool) {
        // `{ $ }` names a property as well.
        let name = if shorthand { "$: state" } else { "state" };
        let renamed = Piece::Text(name.into(), Some(range.lo));
        self.edits.replace(range, vec![renamed]);

        let statement = match self.frames.first() {
            Some(Frame::Statement { kind, .. }) => *kind,
            _ => StatementKind::Other,
        };
        if statement == StatementKind::Effect {
            // The whole statement becomes the body of a function of the state.
            return;
        }
        // The innermost scope around the `$` that declares a `state`; the module's own does not count, for it is not the
        // state of a run.
        let state = self.scopes.iter().rposition(|names| names.contains_key(&self.state)).filter(|&scope| scope > 0);
        let problem = match self.enclosing_argument(statement) {
            None if state.is_some() => return,
            None => Problem::new(chain, "lazy state `$`: Must be inside an operation")
                .help("`$` stands for the state when an operation runs; use it in an operation's argument: fn($.data)"),
            Some(argument) => {
                // A function argument's parameters are the first scope in it; a `state` declared further in is nearer to `$`.
                let parameters = argument.scopes;
                match &argument.shape {
                    Shape::Function(_) if state.is_some_and(|scope| scope > parameters) => return,
                    Shape::Expression if state.is_some_and(|scope| scope >= parameters) => return,
                    Shape::Function(Parameters::State) => return,
                    Shape::Function(Parameters::Other(other)) => {
                        let other = *other;
                        let name = other.text(self.source);
                        let message = format!("lazy state `$`: parameter \"{name}\" should be called \"state\"");
                        Problem::new(other, message).help("`$` becomes `state`, so the function around it must take it by that name")
                    }
                    Shape::Function(Parameters::WrongArity) => {
                        Problem::new(chain, "lazy state `$`: parent has wrong arity")
                            .help("the function around `$` must take exactly one parameter, called state")
                    }
                    Shape::Expression if argument.spread => {
                        Problem::new(chain, "lazy state `$`: cannot be spread into the arguments of an operation")
                            .help("the arguments are counted before there is a state; make the operation inside of one: fn(state => op(...state.items)(state))")
                    }
                    Shape::Expression => {
                        argument.lazy = true;
                        return;
                    }
                }
            }
        };
        self.problems.push(problem);
    }

    /// The argument that becomes a function of the state for a `$` at the current place: that of the innermost call that
    /// makes an operation. A statement that is an operation without such a call (a function of the job) lends its outermost.
    fn enclosing_argument(&mut self, statement: StatementKind) -> Option<&mut Argument> {
        let argument = |frame: &Frame| matches!(frame, Frame::Argument(_));
        let of_operation = |frame: &Frame| matches!(frame, Frame::Argument(argument) if argument.of_operation);
        let index = self.frames.iter().rposition(of_operation).or_else(|| {
            (statement == StatementKind::Operation).then(|| self.frames.iter().position(argument)).flatten()
        })?;
        match &mut self.frames[index] {
            Frame::Argument(argument) => Some(argument),
            Frame::Statement { .. } | Frame::Function => None,
        }
    }

    /// The walk comes out of an argument: if there was a lazy `$` in it, it becomes a function of the state.
    pub(super) fn leave_argument(&mut self, argument: Argument) {
        let Argument { range, lazy, awaits, .. } = argument;
        if !lazy {
            if awaits {
                self.awaits_here();
            }
            return;
        }
        let arrow = if awaits { "async state => " } else { "state => " };
        // After an arrow, a brace would open a body.
        let in_parentheses = range.text(self.source).starts_with('{');
        let (before, after) = if in_parentheses {
            (format!("{arrow}(").into(), vec![Piece::text(")")])
        } else {
            (arrow.into(), Vec::new())
        };
        self.edits.wrap(range, vec![Piece::Text(before, Some(range.lo))], after);
    }
}
