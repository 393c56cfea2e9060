//! Which functions of a job make operations.
//!
//! Jobs wrap operations in functions of their own, `const send = data => post('/x', data)`, and compute values with others,
//! `const clean = name => name.trim()`. A lazy `$` in an argument of the first kind is a function of the state, as with any
//! operation; in an argument of the second kind it must be a value. What a function returns tells them apart.

use std::collections::HashMap;

use deno_ast::swc::ast::*;
use deno_ast::swc::atoms::Atom;

use super::scope::{self, Binding, Names};
use super::walk::Walk;

/// Marks the functions of the module's top level that return an operation: a function of one parameter, the state, or what
/// a call that makes an operation returns. `walk` is at the top of the module.
pub(super) fn find(walk: &mut Walk, module: &Module) {
    let mut makers = Vec::new();
    // By the name of a function of the job, those that return what it returns.
    let mut followers: HashMap<Atom, Vec<Atom>> = HashMap::new();
    for (name, function) in module.body.iter().flat_map(Function::declared_by) {
        let Returns { values, names } = function.returns();
        walk.scopes.push(names);
        for value in values {
            match value {
                Expr::Arrow(arrow) if arrow.params.len() == 1 => makers.push(name.clone()),
                Expr::Fn(inner) if inner.function.params.len() == 1 => makers.push(name.clone()),
                Expr::Call(CallExpr { callee: Callee::Expr(callee), .. }) => match callee.unwrap_parens() {
                    callee if walk.makes_operation(callee) => makers.push(name.clone()),
                    Expr::Ident(callee) if !walk.scopes[1].contains_key(&callee.sym) => {
                        followers.entry(callee.sym.clone()).or_default().push(name.clone());
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        walk.scopes.pop();
    }
    while let Some(maker) = makers.pop() {
        makers.extend(followers.remove(&maker).unwrap_or_default());
        walk.scopes[0].insert(maker, Binding::Operation);
    }
}

/// A function of the job, however it is written.
enum Function<'m> {
    Arrow(&'m ArrowExpr),
    Function(&'m deno_ast::swc::ast::Function),
}

impl<'m> Function<'m> {
    /// The functions a statement declares, by name. Asynchronous ones return promises and generators iterators, so neither
    /// makes operations.
    fn declared_by(item: &'m ModuleItem) -> Vec<(Atom, Self)> {
        let declaration = match item {
            ModuleItem::Stmt(Stmt::Decl(declaration)) => declaration,
            ModuleItem::ModuleDecl(ModuleDecl::ExportDecl(export)) => &export.decl,
            _ => return Vec::new(),
        };
        let plain = |function: &deno_ast::swc::ast::Function| !function.is_async && !function.is_generator;
        match declaration {
            Decl::Fn(declared) if plain(&declared.function) => {
                vec![(declared.ident.sym.clone(), Self::Function(&declared.function))]
            }
            Decl::Var(variables) => variables
                .decls
                .iter()
                .filter_map(|variable| {
                    let Pat::Ident(name) = &variable.name else {
                        return None;
                    };
                    let function = match variable.init.as_deref()?.unwrap_parens() {
                        Expr::Arrow(arrow) if !arrow.is_async => Self::Arrow(arrow),
                        Expr::Fn(expression) if plain(&expression.function) => Self::Function(&expression.function),
                        _ => return None,
                    };
                    Some((name.sym.clone(), function))
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn returns(&self) -> Returns<'m> {
        let mut returns = Returns {
            values: Vec::new(),
            names: match self {
                Self::Arrow(arrow) => scope::pattern_names(&arrow.params),
                Self::Function(function) => scope::pattern_names(function.params.iter().map(|param| &param.pat)),
            },
        };
        match self {
            Self::Arrow(arrow) => match &*arrow.body {
                BlockStmtOrExpr::Expr(value) => returns.value(value),
                BlockStmtOrExpr::BlockStmt(body) => returns.body(body),
            },
            Self::Function(function) => {
                if let Some(body) = &function.body {
                    returns.body(body);
                }
            }
        }
        returns
    }
}

/// What a function can return.
struct Returns<'m> {
    values: Vec<&'m Expr>,
    /// All names declared anywhere on the way there: they are not the module's.
    names: Names,
}

impl<'m> Returns<'m> {
    fn body(&mut self, body: &'m BlockStmt) {
        self.names.extend(scope::function_names(&body.stmts));
        self.block(&body.stmts);
    }

    fn block(&mut self, statements: &'m [Stmt]) {
        self.names.extend(scope::block_names(statements));
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &'m Stmt) {
        match statement {
            Stmt::Block(block) => self.block(&block.stmts),
            Stmt::Switch(switch) => switch.cases.iter().for_each(|case| self.block(&case.cons)),
            Stmt::Try(attempt) => {
                self.block(&attempt.block.stmts);
                if let Some(handler) = &attempt.handler {
                    self.block(&handler.body.stmts);
                }
            }
            Stmt::If(branch) => {
                self.statement(&branch.cons);
                if let Some(otherwise) = &branch.alt {
                    self.statement(otherwise);
                }
            }
            Stmt::Return(ReturnStmt { arg: Some(value), .. }) => self.value(value),
            _ => {}
        }
    }

    fn value(&mut self, value: &'m Expr) {
        match value.unwrap_parens() {
            Expr::Cond(choice) => {
                self.value(&choice.cons);
                self.value(&choice.alt);
            }
            value => self.values.push(value),
        }
    }
}
