//! Promise chains on operations: `get('/x').then(f)`.
//!
//! An operation is a function of the state, not a promise; there is nothing to call `then` on until it runs. The runtime's
//! `defer` bridges that: `_defer(get('/x'), p => p.then(f))` is an operation again, which runs `get('/x')` and hands its
//! promise to the chain. A `catch` right on the operation becomes the third argument, so that it also sees what the operation
//! throws before there is a promise.

use deno_ast::swc::ast::*;
use deno_ast::swc::common::Spanned;
use deno_ast::swc::ecma_visit::{Visit, VisitWith, noop_visit_type};

use super::edit::{Piece, Range};
use super::trivia;
use super::walk::{Frame, Root, StatementKind, Walk};

/// The names that rewritten chains use, chosen so that the job uses neither.
#[derive(Debug)]
pub(super) struct Names {
    /// The runtime's `defer`.
    pub(super) defer: String,
    /// The promise that a chain goes on.
    promise: String,
}

/// A chain of promise methods on a call.
struct Chain<'e> {
    /// The call that makes the operation, with the parentheses around it, if any.
    operation: &'e Expr,
    /// The calls of `then`, `catch` and `finally`, outermost first.
    links: Vec<&'e CallExpr>,
    /// Parentheses around inner parts of the chain.
    parentheses: Vec<Range>,
}

impl<'e> Chain<'e> {
    fn of(call: &'e CallExpr) -> Option<Self> {
        let mut chain = Chain { operation: link(call)?, links: vec![call], parentheses: Vec::new() };
        while let Expr::Call(call) = chain.operation.unwrap_parens()
            && let Some(inner) = link(call)
        {
            let mut around = chain.operation;
            while let Expr::Paren(paren) = around {
                chain.parentheses.push(paren.span.into());
                around = &paren.expr;
            }
            chain.links.push(call);
            chain.operation = inner;
        }
        match chain.operation.unwrap_parens() {
            Expr::Call(CallExpr { callee: Callee::Expr(_), .. }) => Some(chain),
            _ => None,
        }
    }
}

/// What a call of a promise method is called on.
pub(super) fn link(call: &CallExpr) -> Option<&Expr> {
    match &call.callee {
        Callee::Expr(callee) => match &**callee {
            Expr::Member(member) if is_promise_method(&member.prop) => Some(&member.obj),
            _ => None,
        },
        Callee::Super(_) | Callee::Import(_) => None,
    }
}

fn is_promise_method(property: &MemberProp) -> bool {
    matches!(property, MemberProp::Ident(name) if matches!(&*name.sym, "then" | "catch" | "finally"))
}

fn is_catch(call: &CallExpr) -> bool {
    matches!(&call.callee, Callee::Expr(callee) if matches!(&**callee, Expr::Member(member) if member.prop.is_ident_with("catch")))
}

/// Whether there is an `await` in the arguments of a link that is not in a function of its own.
fn awaits(link: &CallExpr) -> bool {
    struct Awaits(bool);
    impl Visit for Awaits {
        noop_visit_type!();
        fn visit_await_expr(&mut self, _: &AwaitExpr) {
            self.0 = true;
        }
        fn visit_function(&mut self, _: &Function) {}
        fn visit_arrow_expr(&mut self, _: &ArrowExpr) {}
    }
    let mut awaits = Awaits(false);
    link.args.visit_with(&mut awaits);
    awaits.0
}

impl Walk<'_> {
    /// Rewrites the chain that `call` ends, if it is one on an operation.
    pub(super) fn promise_chain(&mut self, call: &CallExpr) {
        // Inside functions and blocks, code runs when there is a state: operations have been called with it and their
        // promises are real.
        let whole = Range::from(call.span);
        if self.links.contains(&whole) || self.blocks > 0 || self.in_function() {
            return;
        }
        let Some(chain) = Chain::of(call) else { return };
        let is_operation = match self.root(chain.operation) {
            Root::Operation => true,
            // Outside of operation statements, a function of the job may well return a promise.
            Root::Local | Root::Other => {
                matches!(self.frames.first(), Some(Frame::Statement { kind: StatementKind::Operation, .. }))
            }
            Root::LocalValue | Root::Plain | Root::Lazy => false,
        };
        if !is_operation {
            return;
        }
        for link in &chain.links {
            self.links.insert(link.span.into());
        }
        for &Range { lo, hi } in &chain.parentheses {
            self.edits.replace(Range::new(lo, lo + 1), Vec::new());
            self.edits.replace(Range::new(hi - 1, hi), Vec::new());
        }
        self.defer_chain(whole, &chain);
    }

    fn defer_chain(&mut self, whole: Range, chain: &Chain) {
        let source = self.source;
        let Names { defer, promise } = self.deferred.get_or_insert_with(|| Names {
            defer: trivia::unused_name(source, "_defer"),
            promise: trivia::unused_name(source, "p"),
        });
        let call_defer = Piece::Text(format!("{defer}(").into(), Some(whole.lo));
        let operation = Range::from(chain.operation.span());

        // The innermost link is called on the operation itself.
        let adjacent = chain.links.last().copied().filter(|link| is_catch(link));
        let inside_arrow = &chain.links[..chain.links.len() - usize::from(adjacent.is_some())];
        let asynchronous = if inside_arrow.iter().any(|link| awaits(link)) { "async " } else { "" };
        let then_chain = vec![Piece::text(format!(", {asynchronous}{promise} => {promise}"))];

        let Some(catch) = adjacent else {
            self.edits.wrap(operation, vec![call_defer], then_chain);
            self.edits.wrap(whole, Vec::new(), vec![Piece::text(")")]);
            return;
        };
        let dot = trivia::skip(source, operation.hi);
        let end = Range::from(catch.span).hi;
        let open = trivia::skip(source, Range::from(catch.callee.span()).hi);
        let handler = Range::new(open + 1, end - 1);
        let handles = !catch.args.is_empty();
        if chain.links.len() > 1 {
            // Cut the `catch` out of the chain and put its handler behind it.
            let mut after = vec![Piece::text(")")];
            if handles {
                after = vec![Piece::text(", "), Piece::Source(handler), Piece::text(")")];
            }
            self.edits.wrap(operation, vec![call_defer], then_chain);
            // With the white space behind it, if only that comes before the next link.
            let next = trivia::skip(source, end);
            let blank = Range::new(end, next).text(source).trim().is_empty();
            self.edits.replace(Range::new(dot, if blank { next } else { end }), Vec::new());
            self.edits.wrap(whole, Vec::new(), after);
        } else if handles {
            // The handler and the closing parenthesis stay where they are.
            self.edits.wrap(operation, vec![call_defer], vec![Piece::text(", undefined")]);
            self.edits.replace(Range::new(dot, open + 1), vec![Piece::text(", ")]);
        } else {
            self.edits.wrap(operation, vec![call_defer], Vec::new());
            self.edits.replace(Range::new(dot, end), vec![Piece::text(")")]);
        }
    }
}
