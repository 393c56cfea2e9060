//! Which names a stretch of a job declares.
//!
//! JavaScript hoists: a name is known in the whole of its block or function, before the line that declares it. So the names
//! of a scope are gathered when the scope is entered, and a look-up is then exact in a single walk.

use std::collections::HashMap;

use deno_ast::swc::ast::*;
use deno_ast::swc::atoms::Atom;

use super::vocabulary::{Vocabulary, is_global};

/// The names one scope declares.
pub(super) type Names = HashMap<Atom, Binding>;

/// What is known about a declared name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Binding {
    Local,
    /// A function of the job that makes an operation: `const send = data => post('/x', data)`.
    Operation,
    /// A constant that holds an array, text, number or other plain value: calling its methods makes no operation.
    PlainValue,
    /// Imported from an adaptor.
    Adaptor(Imported),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Imported {
    /// `import { name }`, under the adaptor's own name for it.
    Name(Atom),
    /// `import * as` or `import default`.
    Module,
}

/// The names of a module: imports, `var` from everywhere in it, and its own declarations.
pub(super) fn module_names(items: &[ModuleItem], vocabulary: &Vocabulary) -> Names {
    let mut names = Names::new();
    for item in items {
        match item {
            ModuleItem::Stmt(statement) => {
                hoisted(statement, &mut names);
                lexical(statement, &mut names);
            }
            ModuleItem::ModuleDecl(ModuleDecl::Import(import)) => imported(import, vocabulary, &mut names),
            ModuleItem::ModuleDecl(ModuleDecl::ExportDecl(export)) => declaration(&export.decl, &mut names),
            ModuleItem::ModuleDecl(ModuleDecl::ExportDefaultDecl(export)) => {
                let ident = match &export.decl {
                    DefaultDecl::Class(class) => &class.ident,
                    DefaultDecl::Fn(function) => &function.ident,
                    DefaultDecl::TsInterfaceDecl(_) => &None,
                };
                names.extend(ident.iter().map(|ident| (ident.sym.clone(), Binding::Local)));
            }
            ModuleItem::ModuleDecl(_) => {}
        }
    }
    names
}

/// The names of a block: what `let`, `const`, `using`, `class` and `function` directly in it declare.
pub(super) fn block_names<'s>(statements: impl IntoIterator<Item = &'s Stmt>) -> Names {
    let mut names = Names::new();
    for statement in statements {
        lexical(statement, &mut names);
    }
    names
}

/// The names of a function's body: a block, plus every `var` in it.
pub(super) fn function_names(statements: &[Stmt]) -> Names {
    let mut names = block_names(statements);
    for statement in statements {
        hoisted(statement, &mut names);
    }
    names
}

/// The names of the head of a `for`.
pub(super) fn head_names(declaration: &VarDecl) -> Names {
    let mut names = Names::new();
    variables(&declaration.decls, &mut names);
    names
}

/// The names that parameters, or any other patterns, declare.
pub(super) fn pattern_names<'p>(patterns: impl IntoIterator<Item = &'p Pat>) -> Names {
    let mut names = Names::new();
    for pattern in patterns {
        bound(pattern, &mut names);
    }
    names
}

fn imported(import: &ImportDecl, vocabulary: &Vocabulary, names: &mut Names) {
    let from_adaptor = vocabulary.is_adaptor(&import.src.value.to_string_lossy());
    for specifier in &import.specifiers {
        let original = match specifier {
            ImportSpecifier::Named(named) => Imported::Name(match &named.imported {
                Some(name) => name.atom().into_owned(),
                None => named.local.sym.clone(),
            }),
            ImportSpecifier::Default(_) | ImportSpecifier::Namespace(_) => Imported::Module,
        };
        let binding = if from_adaptor { Binding::Adaptor(original) } else { Binding::Local };
        names.insert(specifier.local().sym.clone(), binding);
    }
}

fn lexical(statement: &Stmt, names: &mut Names) {
    match statement {
        // A `var` belongs to the function and is gathered there.
        Stmt::Decl(Decl::Var(variable)) if variable.kind == VarDeclKind::Var => {}
        Stmt::Decl(inner) => declaration(inner, names),
        Stmt::Labeled(labeled) => lexical(&labeled.body, names),
        _ => {}
    }
}

fn declaration(declaration: &Decl, names: &mut Names) {
    match declaration {
        Decl::Class(class) => {
            names.insert(class.ident.sym.clone(), Binding::Local);
        }
        Decl::Fn(function) => {
            names.insert(function.ident.sym.clone(), Binding::Local);
        }
        Decl::Var(variable) => variables(&variable.decls, names),
        Decl::Using(using) => variables(&using.decls, names),
        Decl::TsInterface(_) | Decl::TsTypeAlias(_) | Decl::TsEnum(_) | Decl::TsModule(_) => {}
    }
}

fn variables(declarators: &[VarDeclarator], names: &mut Names) {
    for declarator in declarators {
        match (&declarator.name, &declarator.init) {
            (Pat::Ident(ident), Some(value)) if is_plain_value(value) => {
                names.insert(ident.sym.clone(), Binding::PlainValue);
            }
            (pattern, _) => bound(pattern, names),
        }
    }
}

fn is_plain_value(value: &Expr) -> bool {
    match value.unwrap_parens() {
        Expr::Array(_) | Expr::Lit(_) | Expr::Tpl(_) => true,
        // a Map, a Set, a Date
        Expr::New(new) => matches!(&*new.callee, Expr::Ident(class) if is_global(&class.sym)),
        _ => false,
    }
}

fn bound(pattern: &Pat, names: &mut Names) {
    match pattern {
        Pat::Ident(ident) => {
            names.insert(ident.sym.clone(), Binding::Local);
        }
        Pat::Array(array) => array.elems.iter().flatten().for_each(|element| bound(element, names)),
        Pat::Rest(rest) => bound(&rest.arg, names),
        Pat::Object(object) => {
            for property in &object.props {
                match property {
                    ObjectPatProp::KeyValue(pair) => bound(&pair.value, names),
                    ObjectPatProp::Assign(shorthand) => {
                        names.insert(shorthand.key.sym.clone(), Binding::Local);
                    }
                    ObjectPatProp::Rest(rest) => bound(&rest.arg, names),
                }
            }
        }
        Pat::Assign(default) => bound(&default.left, names),
        Pat::Invalid(_) | Pat::Expr(_) => {}
    }
}

/// Gathers the `var` declarations in a statement, at any depth, but not those of functions inside it.
fn hoisted(statement: &Stmt, names: &mut Names) {
    let head = |head: &ForHead, names: &mut Names| {
        if let ForHead::VarDecl(declaration) = head {
            var(declaration, names);
        }
    };
    match statement {
        Stmt::Decl(Decl::Var(declaration)) => var(declaration, names),
        Stmt::Block(block) => all_hoisted(&block.stmts, names),
        Stmt::With(with) => hoisted(&with.body, names),
        Stmt::Labeled(labeled) => hoisted(&labeled.body, names),
        Stmt::If(branch) => {
            hoisted(&branch.cons, names);
            if let Some(otherwise) = &branch.alt {
                hoisted(otherwise, names);
            }
        }
        Stmt::Switch(switch) => switch.cases.iter().for_each(|case| all_hoisted(&case.cons, names)),
        Stmt::Try(attempt) => {
            all_hoisted(&attempt.block.stmts, names);
            if let Some(handler) = &attempt.handler {
                all_hoisted(&handler.body.stmts, names);
            }
            if let Some(finalizer) = &attempt.finalizer {
                all_hoisted(&finalizer.stmts, names);
            }
        }
        Stmt::While(each) => hoisted(&each.body, names),
        Stmt::DoWhile(each) => hoisted(&each.body, names),
        Stmt::For(each) => {
            if let Some(VarDeclOrExpr::VarDecl(declaration)) = &each.init {
                var(declaration, names);
            }
            hoisted(&each.body, names);
        }
        Stmt::ForIn(each) => {
            head(&each.left, names);
            hoisted(&each.body, names);
        }
        Stmt::ForOf(each) => {
            head(&each.left, names);
            hoisted(&each.body, names);
        }
        _ => {}
    }
}

fn all_hoisted(statements: &[Stmt], names: &mut Names) {
    statements.iter().for_each(|statement| hoisted(statement, names));
}

fn var(declaration: &VarDecl, names: &mut Names) {
    if declaration.kind == VarDeclKind::Var {
        variables(&declaration.decls, names);
    }
}
