//! An ES module as the body of a function.
//!
//! V8 evaluates a module graph whole and eagerly: an adaptor that imports lodash, date-fns, undici and ajv pays for
//! all of them although most jobs use none. As a function, a module can be compiled from a code cache by itself and
//! its imports can wait until one of their bindings is first read. Only text around imports, exports and references
//! to imported names is touched, and line breaks are kept, so stack traces still point into the package's own file.
//!
//! The function sees four names: `$i(n)` gives the n-th import, `$n(n)` its namespace object when it is CommonJS,
//! `$d(n)` the promise of a dynamic import, `$m` is `import.meta`; and `$e`, `$s` take exports.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;

use deno_ast::ParsedSource;
use deno_ast::swc::ast::*;
use deno_ast::swc::common::{Span, Spanned};
use deno_ast::swc::ecma_visit::{Visit, VisitWith};

/// What an import leads to, as far as the text of its references depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Has a namespace object: ES modules and Node's own.
    Namespace,
    /// Has a `module.exports` that is the default import: CommonJS and JSON.
    Value,
}

/// Specifiers in a module.
#[derive(Debug, Default)]
pub struct Imports {
    /// Of `import` and `export … from` declarations, in order, each once.
    pub fixed: Vec<String>,
    /// String literals in `import(…)`, or `require(…)` in CommonJS.
    pub dynamic: Vec<String>,
    /// The module awaits at its top level, which a function body cannot.
    pub top_level_await: bool,
}

/// Lists the specifiers of an ES module.
pub fn module_imports(parsed: &ParsedSource) -> Imports {
    let mut imports = Imports::default();
    let deno_ast::ProgramRef::Module(module) = parsed.program_ref() else {
        return imports;
    };
    for item in &module.body {
        let source = match item {
            ModuleItem::ModuleDecl(ModuleDecl::Import(import)) => Some(&import.src),
            ModuleItem::ModuleDecl(ModuleDecl::ExportNamed(export)) => export.src.as_ref(),
            ModuleItem::ModuleDecl(ModuleDecl::ExportAll(export)) => Some(&export.src),
            _ => None,
        };
        if let Some(source) = source {
            push_once(&mut imports.fixed, &source.value.to_string_lossy());
        }
    }
    let mut finder = DynamicFinder { imports: &mut imports, callee: Loader::Import, depth: 0 };
    module.visit_with(&mut finder);
    imports
}

/// Lists the string literals that a CommonJS module requires.
pub fn script_requires(parsed: &ParsedSource) -> Imports {
    let mut imports = Imports::default();
    let mut finder = DynamicFinder { imports: &mut imports, callee: Loader::Require, depth: 1 };
    match parsed.program_ref() {
        deno_ast::ProgramRef::Module(module) => module.visit_with(&mut finder),
        deno_ast::ProgramRef::Script(script) => script.visit_with(&mut finder),
    }
    imports
}

fn push_once(list: &mut Vec<String>, value: &str) {
    if !list.iter().any(|known| known == value) {
        list.push(value.to_owned());
    }
}

#[derive(PartialEq)]
enum Loader {
    Import,
    Require,
}

struct DynamicFinder<'a> {
    imports: &'a mut Imports,
    callee: Loader,
    /// Functions around the node; an `await` outside all of them is a top-level one.
    depth: u32,
}

impl Visit for DynamicFinder<'_> {
    fn visit_call_expr(&mut self, call: &CallExpr) {
        let matches = match &call.callee {
            Callee::Import(_) => true,
            Callee::Expr(callee) => {
                self.callee == Loader::Require
                    && matches!(&**callee, Expr::Ident(name) if name.sym == *"require")
            }
            Callee::Super(_) => false,
        };
        if matches && let Some(specifier) = literal_argument(call) {
            push_once(&mut self.imports.dynamic, &specifier);
        }
        call.visit_children_with(self);
    }

    fn visit_await_expr(&mut self, node: &AwaitExpr) {
        self.imports.top_level_await |= self.depth == 0;
        node.visit_children_with(self);
    }

    fn visit_for_of_stmt(&mut self, node: &ForOfStmt) {
        self.imports.top_level_await |= node.is_await && self.depth == 0;
        node.visit_children_with(self);
    }

    fn visit_function(&mut self, node: &Function) {
        self.depth += 1;
        node.visit_children_with(self);
        self.depth -= 1;
    }

    fn visit_arrow_expr(&mut self, node: &ArrowExpr) {
        self.depth += 1;
        node.visit_children_with(self);
        self.depth -= 1;
    }
}

fn literal_argument(call: &CallExpr) -> Option<String> {
    match call.args.first().map(|argument| &*argument.expr) {
        Some(Expr::Lit(Lit::Str(text))) => Some(text.value.to_string_lossy().into_owned()),
        Some(Expr::Tpl(template)) if template.exprs.is_empty() && template.quasis.len() == 1 => {
            Some(template.quasis[0].raw.to_string())
        }
        _ => None,
    }
}

/// Rewrites an ES module as a function body. `slots` maps each specifier to its import number and what it leads to. With `lazy`, imports
/// with bindings wait until a binding is read; without, they are evaluated in order before the body as the language
/// says.
pub fn module_body(parsed: &ParsedSource, slots: &HashMap<String, (usize, TargetKind)>, lazy: bool) -> String {
    let deno_ast::ProgramRef::Module(module) = parsed.program_ref() else {
        return parsed.text().to_string();
    };
    let mut rewrite = Rewrite {
        text: parsed.text(),
        slots,
        bindings: HashMap::new(),
        edits: Vec::new(),
        exports: Vec::new(),
        stars: String::new(),
        eager: String::new(),
    };
    for item in &module.body {
        if let ModuleItem::ModuleDecl(ModuleDecl::Import(import)) = item {
            rewrite.import(import, lazy);
        }
    }
    for item in &module.body {
        match item {
            ModuleItem::ModuleDecl(declaration) => rewrite.declaration(declaration, lazy),
            ModuleItem::Stmt(statement) => statement.visit_with(&mut rewrite),
        }
    }
    rewrite.finish()
}

struct Rewrite<'a> {
    text: &'a str,
    slots: &'a HashMap<String, (usize, TargetKind)>,
    /// Imported name → the expression that reads it.
    bindings: HashMap<Id, String>,
    edits: Vec<(Range<usize>, String)>,
    /// Exported name → the expression that reads it.
    exports: Vec<(String, String)>,
    stars: String,
    eager: String,
}

fn range(span: Span) -> Range<usize> {
    // swc counts bytes from 1.
    span.lo.0 as usize - 1..span.hi.0 as usize - 1
}

/// `.name`, or `["na-me"]`.
fn member(name: &str) -> String {
    let plain = name.chars().enumerate().all(|(index, c)| {
        c == '_' || c == '$' || c.is_ascii_alphabetic() || (index > 0 && c.is_ascii_digit())
    });
    if plain && !name.is_empty() { format!(".{name}") } else { format!("[{}]", quoted(name)) }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

fn export_name(name: &ModuleExportName) -> String {
    match name {
        ModuleExportName::Ident(name) => name.sym.to_string(),
        ModuleExportName::Str(name) => name.value.to_string_lossy().into_owned(),
    }
}

impl Rewrite<'_> {
    fn slot(&self, source: &Str) -> (usize, TargetKind) {
        self.slots[&*source.value.to_string_lossy()]
    }

    /// The expression that reads `name` of an import.
    fn access(slot: (usize, TargetKind), name: &str) -> String {
        match slot {
            (index, TargetKind::Value) if name == "default" => format!("$i({index})"),
            (index, _) => format!("$i({index}){}", member(name)),
        }
    }

    fn namespace(slot: (usize, TargetKind)) -> String {
        match slot {
            (index, TargetKind::Value) => format!("$n({index})"),
            (index, TargetKind::Namespace) => format!("$i({index})"),
        }
    }

    fn import(&mut self, import: &ImportDecl, lazy: bool) {
        let slot = self.slot(&import.src);
        for specifier in &import.specifiers {
            let (local, expression) = match specifier {
                ImportSpecifier::Named(named) => {
                    let name = named.imported.as_ref().map_or_else(|| named.local.sym.to_string(), export_name);
                    (&named.local, Self::access(slot, &name))
                }
                ImportSpecifier::Default(default) => (&default.local, Self::access(slot, "default")),
                ImportSpecifier::Namespace(namespace) => (&namespace.local, Self::namespace(slot)),
            };
            self.bindings.insert(local.to_id(), expression);
        }
        if !lazy || import.specifiers.is_empty() {
            let _ = write!(self.eager, "$i({});", slot.0);
        }
    }

    /// Takes a stretch away but leaves its line breaks.
    fn blank(&mut self, span: Span) {
        let range = range(span);
        let breaks = self.text[range.clone()].matches('\n').count();
        self.edits.push((range, "\n".repeat(breaks)));
    }

    fn declaration(&mut self, declaration: &ModuleDecl, lazy: bool) {
        match declaration {
            ModuleDecl::Import(import) => self.blank(import.span),
            ModuleDecl::ExportDecl(export) => {
                self.edits.push((range(Span::new(export.span.lo, export.decl.span_lo())), String::new()));
                let mut names = Vec::new();
                match &export.decl {
                    Decl::Class(class) => names.push(class.ident.sym.to_string()),
                    Decl::Fn(function) => names.push(function.ident.sym.to_string()),
                    Decl::Var(variables) => {
                        let mut binder = Binder(&mut names);
                        for variable in &variables.decls {
                            variable.name.visit_with(&mut binder);
                        }
                    }
                    _ => {}
                }
                self.exports.extend(names.into_iter().map(|name| (name.clone(), name)));
                export.decl.visit_with(self);
            }
            ModuleDecl::ExportNamed(export) => {
                self.blank(export.span);
                let slot = export.src.as_ref().map(|source| self.slot(source));
                for specifier in &export.specifiers {
                    let entry = match (specifier, slot) {
                        (ExportSpecifier::Namespace(namespace), Some(slot)) => {
                            (export_name(&namespace.name), Self::namespace(slot))
                        }
                        (ExportSpecifier::Default(default), Some(slot)) => {
                            (default.exported.sym.to_string(), Self::access(slot, "default"))
                        }
                        (ExportSpecifier::Named(named), slot) => {
                            let exported = export_name(named.exported.as_ref().unwrap_or(&named.orig));
                            let expression = match (slot, &named.orig) {
                                (Some(slot), name) => Self::access(slot, &export_name(name)),
                                (None, ModuleExportName::Ident(local)) => {
                                    self.bindings.get(&local.to_id()).cloned().unwrap_or_else(|| local.sym.to_string())
                                }
                                (None, ModuleExportName::Str(_)) => continue,
                            };
                            (exported, expression)
                        }
                        (_, None) => continue,
                    };
                    self.exports.push(entry);
                }
                if let Some((index, _)) = slot
                    && (!lazy || export.specifiers.is_empty())
                {
                    let _ = write!(self.eager, "$i({index});");
                }
            }
            ModuleDecl::ExportAll(export) => {
                self.blank(export.span);
                let (index, _) = self.slot(&export.src);
                let _ = write!(self.stars, "$s({index});");
            }
            ModuleDecl::ExportDefaultDecl(export) => {
                let keyword = Span::new(export.span.lo, export.decl.span_lo());
                let name = match &export.decl {
                    DefaultDecl::Fn(function) => function.ident.as_ref(),
                    DefaultDecl::Class(class) => class.ident.as_ref(),
                    DefaultDecl::TsInterfaceDecl(_) => None,
                };
                match name {
                    Some(name) => {
                        self.edits.push((range(keyword), String::new()));
                        self.exports.push(("default".into(), name.sym.to_string()));
                    }
                    None => {
                        self.edits.push((range(keyword), "const $default = ".into()));
                        let end = range(export.span).end;
                        self.edits.push((end..end, ";".into()));
                        self.exports.push(("default".into(), "$default".into()));
                    }
                }
                export.decl.visit_with(self);
            }
            ModuleDecl::ExportDefaultExpr(export) => {
                // The expression's own span may leave out parentheses around it, so only the keywords are replaced.
                let start = range(export.span).start;
                let end = self.text[start..].find("default").map_or(start, |at| start + at + "default".len());
                self.edits.push((start..end, "const $default =".into()));
                self.exports.push(("default".into(), "$default".into()));
                export.expr.visit_with(self);
            }
            _ => {}
        }
    }

    fn finish(mut self) -> String {
        let mut head = String::from("\"use strict\";");
        if !self.exports.is_empty() {
            head.push_str("$e({");
            for (name, expression) in &self.exports {
                let _ = write!(head, "{}:()=>{expression},", quoted(name));
            }
            head.push_str("});");
        }
        head.push_str(&self.stars);
        head.push_str(&self.eager);
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut code = head;
        code.reserve(self.text.len() + 64 * self.edits.len());
        let mut cursor = 0;
        for (range, with) in &self.edits {
            code.push_str(&self.text[cursor..range.start]);
            code.push_str(with);
            cursor = range.end;
        }
        code.push_str(&self.text[cursor..]);
        code
    }

    fn read(&mut self, name: &Ident) -> Option<&String> {
        self.bindings.get(&name.to_id())
    }
}

/// Collects the names a pattern binds.
struct Binder<'a>(&'a mut Vec<String>);

impl Visit for Binder<'_> {
    fn visit_binding_ident(&mut self, name: &BindingIdent) {
        self.0.push(name.id.sym.to_string());
    }

    fn visit_assign_pat_prop(&mut self, property: &AssignPatProp) {
        self.0.push(property.key.sym.to_string());
    }

    fn visit_expr(&mut self, _: &Expr) {}
}

impl Visit for Rewrite<'_> {
    fn visit_expr(&mut self, expression: &Expr) {
        if let Expr::Ident(name) = expression {
            if let Some(read) = self.read(name).cloned() {
                self.edits.push((range(name.span), read));
            }
            return;
        }
        expression.visit_children_with(self);
    }

    fn visit_new_expr(&mut self, new: &NewExpr) {
        // `new $i(0).X()` would call `$i` as the constructor.
        let mut root = &*new.callee;
        while let Expr::Member(member) = root {
            root = &member.obj;
        }
        if let Expr::Ident(name) = root
            && let Some(read) = self.read(name).cloned()
        {
            self.edits.push((range(name.span), format!("({read})")));
            if let Expr::Member(_) = &*new.callee {
                let mut inner = &*new.callee;
                while let Expr::Member(member) = inner {
                    member.prop.visit_with(self);
                    inner = &member.obj;
                }
            }
            new.args.visit_with(self);
            return;
        }
        new.visit_children_with(self);
    }

    fn visit_prop(&mut self, property: &Prop) {
        if let Prop::Shorthand(name) = property {
            if let Some(read) = self.read(name).cloned() {
                self.edits.push((range(name.span), format!("{}: {read}", name.sym)));
            }
            return;
        }
        property.visit_children_with(self);
    }

    fn visit_call_expr(&mut self, call: &CallExpr) {
        if let Callee::Import(import) = &call.callee
            && let Some(specifier) = literal_argument(call)
            && let Some((index, _)) = self.slots.get(&specifier)
        {
            // `import` is replaced by a function that closes over the number: the argument is left as it is.
            self.edits.push((range(import.span), format!("$d({index}, ")));
            let open = range(import.span).end;
            let paren = self.text[open..].find('(').map_or(open, |at| open + at);
            self.edits.push((paren..paren + 1, String::new()));
            return;
        }
        call.visit_children_with(self);
    }

    fn visit_meta_prop_expr(&mut self, meta: &MetaPropExpr) {
        if meta.kind == MetaPropKind::ImportMeta {
            self.edits.push((range(meta.span), "$m".into()));
        }
    }
}
