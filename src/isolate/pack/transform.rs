//! An ES module as the body of a function.
//!
//! V8 evaluates a module graph whole and eagerly: an adaptor that imports lodash, date-fns, undici and ajv pays for
//! all of them although most jobs use none. As a function, a module can be compiled from a code cache by itself and
//! its imports can wait until one of their bindings is first read. Only comments and text around imports, exports and
//! references to imported names are touched, and line breaks are kept, so stack traces still point into the package's own
//! file.
//!
//! What stands in for the syntax are parameters of the function ([`MODULE_PARAMETERS`]), under names that minifiers
//! do not make up.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;

use deno_ast::ParsedSource;
use deno_ast::swc::ast::*;
use deno_ast::swc::common::{BytePos, Span, Spanned};
use deno_ast::swc::ecma_visit::{Visit, VisitWith};

/// Parameters of an ES module's function, which `js/modules.js` passes:
/// `import(n)` gives what the n-th import reads from,
/// `namespace(n)` its namespace object, where that is something else (CommonJS),
/// `dynamic(n, …)` the promise of a dynamic import, or `dynamic(native, …)` where the specifier is not known yet,
/// `meta` is `import.meta`,
/// `export({…})` takes getters of the exports, and a nameless default function, whose name is to be `default`,
/// `star(n)` exports what the n-th import exports,
/// `method(f)` gives `f` back, so that it is called without an object.
pub const MODULE_PARAMETERS: [&str; 7] = [
    "fnhost$import",
    "fnhost$namespace",
    "fnhost$dynamic",
    "fnhost$meta",
    "fnhost$export",
    "fnhost$star",
    "fnhost$method",
];

/// Parameters of a CommonJS module's function: Node's, and the same as above.
pub const SCRIPT_PARAMETERS: [&str; 6] = ["exports", "require", "module", "__filename", "__dirname", "fnhost$dynamic"];

/// What an import leads to, as far as the text of its references depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Has a namespace object: ES modules and Node's own.
    Namespace,
    /// Has a `module.exports` that is the default import: CommonJS and JSON.
    Value,
}

/// Specifiers in a module.
#[derive(Clone, Debug, Default)]
pub struct Imports {
    /// Of `import` and `export … from` declarations in an ES module, of `require` in CommonJS; in order, each once.
    pub fixed: Vec<String>,
    /// String literals in `import(…)`.
    pub dynamic: Vec<String>,
    /// There is an `import(…)` of something else.
    pub computed: bool,
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
    let mut finder = Finder { imports: &mut imports, in_script: false, depth: 0 };
    module.visit_with(&mut finder);
    imports
}

/// Lists the string literals that a CommonJS module requires.
pub fn script_requires(parsed: &ParsedSource) -> Imports {
    let mut imports = Imports::default();
    let mut finder = Finder { imports: &mut imports, in_script: true, depth: 1 };
    visit_program(parsed, &mut finder);
    imports
}

fn visit_program(parsed: &ParsedSource, visitor: &mut impl Visit) {
    match parsed.program_ref() {
        deno_ast::ProgramRef::Module(module) => module.visit_with(visitor),
        deno_ast::ProgramRef::Script(script) => script.visit_with(visitor),
    }
}

fn push_once(list: &mut Vec<String>, value: &str) {
    if !list.iter().any(|known| known == value) {
        list.push(value.to_owned());
    }
}

struct Finder<'a> {
    imports: &'a mut Imports,
    in_script: bool,
    /// Functions around the node; an `await` outside all of them is a top-level one.
    depth: u32,
}

impl Visit for Finder<'_> {
    fn visit_call_expr(&mut self, call: &CallExpr) {
        let specifier = literal_argument(call);
        match (&call.callee, specifier) {
            (Callee::Import(_), Some(specifier)) => push_once(&mut self.imports.dynamic, &specifier),
            (Callee::Import(_), None) => self.imports.computed = true,
            (Callee::Expr(callee), Some(specifier))
                if self.in_script && matches!(&**callee, Expr::Ident(name) if name.sym == *"require") =>
            {
                push_once(&mut self.imports.fixed, &specifier);
            }
            _ => {}
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

    fn visit_using_decl(&mut self, node: &UsingDecl) {
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

/// Where an import declaration or `import(…)` leads: its number, and what is there.
pub type Slots = HashMap<String, (usize, TargetKind)>;

/// Rewrites an ES module as a function body. With `lazy`, imports with bindings wait until a binding is read, or a constant
/// that is part of one, as in `const { get } = lodash`; without, they are evaluated in order before the body as the language
/// says.
pub fn module_body(parsed: &ParsedSource, slots: &Slots, lazy: bool) -> String {
    let deno_ast::ProgramRef::Module(module) = parsed.program_ref() else {
        return parsed.text().to_string();
    };
    let mut rewrite = Rewrite::new(parsed, slots);
    for item in &module.body {
        if let ModuleItem::ModuleDecl(ModuleDecl::Import(import)) = item {
            rewrite.bind(import);
        }
    }
    let constants = if lazy { Constants::of(module) } else { Constants::default() };
    let (parts, rest): (Vec<_>, Vec<_>) = module.body.iter().partition(|item| rewrite.bind_parts(item, &constants));
    for part in parts {
        rewrite.blank(part.span());
    }
    for item in rest {
        match item {
            ModuleItem::ModuleDecl(declaration) => rewrite.declaration(declaration, lazy),
            ModuleItem::Stmt(statement) => statement.visit_with(&mut rewrite),
        }
    }
    // A comment from here on: the line is no longer the first.
    if rewrite.text.starts_with("#!") {
        rewrite.edits.push((0..2, "//".into()));
    }
    let head = rewrite.head();
    rewrite.edited(parsed, head)
}

/// A CommonJS module as a function body: besides comments only `import(…)` is touched, which leads to ES modules of the pack.
pub fn script_body(parsed: &ParsedSource, slots: &Slots) -> String {
    let mut rewrite = Rewrite::new(parsed, slots);
    visit_program(parsed, &mut rewrite);
    rewrite.edited(parsed, String::new())
}

struct Rewrite<'a> {
    text: &'a str,
    slots: &'a Slots,
    /// Imported name → how it is read.
    bindings: HashMap<Id, Read>,
    edits: Vec<(Range<usize>, String)>,
    /// Exported name → the expression that reads it.
    exports: Vec<(String, String)>,
    /// Modules that are evaluated before the body, in order.
    requests: String,
    /// The default export is a nameless function.
    nameless_default: bool,
    /// Where the innermost expression statement begins.
    statement: Option<BytePos>,
}

/// How an imported name is read.
#[derive(Clone)]
struct Read {
    expression: String,
    /// It is a property, so that a call of it would pass the object as `this`.
    property: bool,
    /// It is what a CommonJS module exports.
    exports: bool,
}

/// Names that are bound once and never assigned to.
#[derive(Default)]
struct Constants(HashMap<Id, u32>);

impl Constants {
    fn of(module: &Module) -> Self {
        let mut constants = Self::default();
        module.visit_with(&mut constants);
        constants
    }

    fn has(&self, name: &Ident) -> bool {
        self.0.get(&name.to_id()) == Some(&1)
    }

    fn count(&mut self, name: &Ident) {
        *self.0.entry(name.to_id()).or_default() += 1;
    }
}

impl Visit for Constants {
    // In declarations and in what is assigned to.
    fn visit_binding_ident(&mut self, name: &BindingIdent) {
        self.count(&name.id);
    }

    fn visit_fn_decl(&mut self, function: &FnDecl) {
        self.count(&function.ident);
        function.visit_children_with(self);
    }

    fn visit_class_decl(&mut self, class: &ClassDecl) {
        self.count(&class.ident);
        class.visit_children_with(self);
    }

    fn visit_update_expr(&mut self, update: &UpdateExpr) {
        if let Expr::Ident(name) = &*update.arg {
            self.count(name);
        }
        update.visit_children_with(self);
    }
}

fn range(span: Span) -> Range<usize> {
    // swc counts bytes from 1.
    span.lo.0 as usize - 1..span.hi.0 as usize - 1
}

/// `.name`, or `["na-me"]`.
fn member(name: &str) -> String {
    let plain = name
        .chars()
        .enumerate()
        .all(|(index, c)| c == '_' || c == '$' || c.is_ascii_alphabetic() || (index > 0 && c.is_ascii_digit()));
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

impl<'a> Rewrite<'a> {
    fn new(parsed: &'a ParsedSource, slots: &'a Slots) -> Self {
        Self {
            text: parsed.text(),
            slots,
            bindings: HashMap::new(),
            edits: Vec::new(),
            exports: Vec::new(),
            requests: String::new(),
            nameless_default: false,
            statement: None,
        }
    }

    fn slot(&self, source: &Str) -> (usize, TargetKind) {
        self.slots[&*source.value.to_string_lossy()]
    }

    /// How `name` of an import is read.
    fn access((slot, kind): (usize, TargetKind), name: &str) -> Read {
        match kind {
            TargetKind::Value if matches!(name, "default" | "module.exports") => {
                Read { expression: format!("fnhost$import({slot})"), property: false, exports: true }
            }
            _ => Read { expression: format!("fnhost$import({slot}){}", member(name)), property: true, exports: false },
        }
    }

    fn namespace((slot, kind): (usize, TargetKind)) -> Read {
        let expression = match kind {
            TargetKind::Value => format!("fnhost$namespace({slot})"),
            TargetKind::Namespace => format!("fnhost$import({slot})"),
        };
        Read { expression, property: false, exports: false }
    }

    fn bind(&mut self, import: &ImportDecl) {
        let slot = self.slot(&import.src);
        for specifier in &import.specifiers {
            let (local, read) = match specifier {
                ImportSpecifier::Named(named) => {
                    let name = named.imported.as_ref().map_or_else(|| named.local.sym.to_string(), export_name);
                    (&named.local, Self::access(slot, &name))
                }
                ImportSpecifier::Default(default) => (&default.local, Self::access(slot, "default")),
                ImportSpecifier::Namespace(namespace) => (&namespace.local, Self::namespace(slot)),
            };
            self.bindings.insert(local.to_id(), read);
        }
    }

    /// Reads the constants of `const { name, other: local } = imported` from the import each time that they are read.
    /// False if the item is something else.
    fn bind_parts(&mut self, item: &ModuleItem, constants: &Constants) -> bool {
        let ModuleItem::Stmt(Stmt::Decl(Decl::Var(declaration))) = item else { return false };
        let [VarDeclarator { name: Pat::Object(pattern), init: Some(init), .. }] = &declaration.decls[..] else {
            return false;
        };
        let Expr::Ident(imported) = &**init else { return false };
        let Some(Read { expression, exports: true, .. }) = self.read(imported) else { return false };
        let part = |property: &ObjectPatProp| {
            let (name, local) = match property {
                ObjectPatProp::Assign(AssignPatProp { key, value: None, .. }) => (key.sym.to_string(), &key.id),
                ObjectPatProp::KeyValue(KeyValuePatProp { key: PropName::Ident(key), value }) => match &**value {
                    Pat::Ident(local) => (key.sym.to_string(), &local.id),
                    _ => return None,
                },
                _ => return None,
            };
            let read = Read { expression: format!("{expression}{}", member(&name)), property: true, exports: false };
            constants.has(local).then(|| (local.to_id(), read))
        };
        let Some(parts) = pattern.props.iter().map(part).collect::<Option<Vec<_>>>() else { return false };
        self.bindings.extend(parts);
        true
    }

    /// Evaluates an import before the body.
    fn request(&mut self, (slot, _): (usize, TargetKind)) {
        let _ = write!(self.requests, "fnhost$import({slot});");
    }

    /// Takes a declaration away but leaves its line breaks, and a semicolon: what stands before may rely on the
    /// declaration to end it.
    fn blank(&mut self, span: Span) {
        let range = range(span);
        let breaks = self.text[range.clone()].matches('\n').count();
        self.edits.push((range, format!(";{}", "\n".repeat(breaks))));
    }

    fn insert(&mut self, at: usize, text: &str) {
        self.edits.push((at..at, text.into()));
    }

    fn declaration(&mut self, declaration: &ModuleDecl, lazy: bool) {
        match declaration {
            ModuleDecl::Import(import) => {
                self.blank(import.span);
                if !lazy || import.specifiers.is_empty() {
                    self.request(self.slot(&import.src));
                }
            }
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
                            (export_name(&namespace.name), Self::namespace(slot).expression)
                        }
                        (ExportSpecifier::Default(default), Some(slot)) => {
                            (default.exported.sym.to_string(), Self::access(slot, "default").expression)
                        }
                        (ExportSpecifier::Named(named), slot) => {
                            let exported = export_name(named.exported.as_ref().unwrap_or(&named.orig));
                            let expression = match (slot, &named.orig) {
                                (Some(slot), name) => Self::access(slot, &export_name(name)).expression,
                                (None, ModuleExportName::Ident(local)) => match self.read(local) {
                                    Some(read) => read.expression,
                                    None => local.sym.to_string(),
                                },
                                (None, ModuleExportName::Str(_)) => continue,
                            };
                            (exported, expression)
                        }
                        (_, None) => continue,
                    };
                    self.exports.push(entry);
                }
                if let Some(slot) = slot
                    && (!lazy || export.specifiers.is_empty())
                {
                    self.request(slot);
                }
            }
            ModuleDecl::ExportAll(export) => {
                self.blank(export.span);
                let (slot, _) = self.slot(&export.src);
                let _ = write!(self.requests, "fnhost$star({slot});");
            }
            ModuleDecl::ExportDefaultDecl(export) => self.default_declaration(export),
            ModuleDecl::ExportDefaultExpr(export) => {
                // The expression's own span may leave out parentheses around it.
                let whole = range(export.span);
                let start = whole.start + after_words(&self.text[whole.start..], &["export", "default"]);
                let end = if self.text[whole.clone()].ends_with(';') { whole.end - 1 } else { whole.end };
                self.name_default(whole.start..start, end);
                export.expr.visit_with(self);
            }
            _ => {}
        }
    }

    fn default_declaration(&mut self, export: &ExportDefaultDecl) {
        let whole = range(export.span);
        let start = range(Span::new(export.span.lo, export.decl.span_lo())).end;
        let name = match &export.decl {
            DefaultDecl::Fn(function) => function.ident.as_ref(),
            DefaultDecl::Class(class) => class.ident.as_ref(),
            DefaultDecl::TsInterfaceDecl(_) => None,
        };
        if let Some(name) = name {
            self.edits.push((whole.start..start, String::new()));
            self.exports.push(("default".into(), name.sym.to_string()));
        } else if let DefaultDecl::Fn(_) = &export.decl {
            // Stays a declaration, because a module of a cycle may call it before this one has run.
            let parameters = start + after_words(&self.text[start..], &["async", "function", "*"]);
            self.edits.push((whole.start..start, String::new()));
            self.insert(parameters, " fnhost$default");
            self.exports.push(("default".into(), "fnhost$default".into()));
            self.nameless_default = true;
        } else {
            self.name_default(whole.start..start, whole.end);
        }
        export.decl.visit_with(self);
    }

    /// Makes a default export a constant. The pattern is there for the name that a nameless function or class gets.
    fn name_default(&mut self, keywords: Range<usize>, end: usize) {
        self.edits.push((keywords, "const {default: fnhost$default} = {default: ".into()));
        self.insert(end, "};");
        self.exports.push(("default".into(), "fnhost$default".into()));
    }

    fn head(&self) -> String {
        let mut head = String::from("\"use strict\";");
        if !self.exports.is_empty() {
            head.push_str("fnhost$export({");
            for (name, expression) in &self.exports {
                let _ = write!(head, "{}:()=>{expression},", quoted(name));
            }
            head.push_str(if self.nameless_default { "},fnhost$default);" } else { "});" });
        }
        head.push_str(&self.requests);
        head
    }

    fn edited(mut self, parsed: &ParsedSource, head: String) -> String {
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        self.take_out_comments(parsed);
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

    /// Comments are most of many packages, and V8 keeps the text of what it may have to compile in each isolate. What stands
    /// behind one stays where it was.
    fn take_out_comments(&mut self, parsed: &ParsedSource) {
        let mut comments: Vec<_> = parsed.comments().get_vec().iter().map(|comment| range(comment.span)).collect();
        comments.sort_by_key(|range| range.start);
        comments.dedup();
        let mut cursor = 0;
        let mut taken_out = Vec::with_capacity(comments.len());
        for comment in comments {
            // The edits before it, which are in order too.
            cursor += self.edits[cursor..].iter().take_while(|(edit, _)| edit.end <= comment.start).count();
            let is_edited = self.edits.get(cursor).is_some_and(|(edit, _)| edit.start < comment.end);
            if let Some(with) = without_comment(self.text, &comment)
                && !is_edited
            {
                taken_out.push((comment, with));
            }
        }
        self.edits.extend(taken_out);
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
    }

    fn read(&self, name: &Ident) -> Option<Read> {
        self.bindings.get(&name.to_id()).cloned()
    }

    /// Rewrites what is called, if it is an imported name: a property must not get its object as `this`.
    fn callee(&mut self, callee: &Expr) -> bool {
        let Expr::Ident(name) = callee else { return false };
        let Some(read) = self.read(name) else { return false };
        let call = match &read {
            Read { property: false, expression, .. } => expression.clone(),
            // At the beginning of a statement a parenthesis would go on with the line above.
            Read { expression, .. } if self.statement == Some(name.span.lo) => format!("fnhost$method({expression})"),
            Read { expression, .. } => format!("(0,{expression})"),
        };
        self.edits.push((range(name.span), call));
        true
    }
}

/// What to put in the place of a comment: its line breaks, which may end a statement, and white space as wide as its last
/// line if something follows in that. None if it is to stay.
fn without_comment(text: &str, comment: &Range<usize>) -> Option<String> {
    const BREAKS: [char; 4] = ['\n', '\r', '\u{2028}', '\u{2029}'];
    let (before, within, after) = (&text[..comment.start], &text[comment.clone()], &text[comment.end..]);
    // Some functions have nothing but a comment, and read it: that was a way to write several lines of text.
    if !within.starts_with('/') || (before.trim_end().ends_with('{') && after.trim_start().starts_with('}')) {
        return None;
    }
    let mut replacement: String = within.matches(BREAKS).collect();
    let rest = after.split(BREAKS).next().unwrap_or_default();
    if !rest.trim().is_empty() {
        let last_line = within.rsplit(BREAKS).next().unwrap_or_default();
        replacement.extend(last_line.encode_utf16().map(|_| ' '));
    }
    Some(replacement)
}

/// Behind those of `words` with which `text` begins, in this order, white space and comments between them included.
fn after_words(text: &str, words: &[&str]) -> usize {
    let mut at = 0;
    for word in words {
        let start = at + trivia(&text[at..]);
        if text[start..].starts_with(word) {
            at = start + word.len();
        }
    }
    at
}

/// Length of the white space and comments with which `text` begins.
fn trivia(text: &str) -> usize {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let comment = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else {
            return text.len() - rest.len();
        };
        rest = &rest[comment..];
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
            if let Some(read) = self.read(name) {
                self.edits.push((range(name.span), read.expression));
            }
            return;
        }
        expression.visit_children_with(self);
    }

    fn visit_expr_stmt(&mut self, statement: &ExprStmt) {
        let outer = self.statement.replace(statement.span.lo);
        statement.visit_children_with(self);
        self.statement = outer;
    }

    fn visit_new_expr(&mut self, new: &NewExpr) {
        // `new f(0).X()` would construct `f`.
        let mut root = &*new.callee;
        loop {
            root = match root {
                Expr::Member(member) => &member.obj,
                Expr::TaggedTpl(template) => &template.tag,
                _ => break,
            };
        }
        if let Expr::Ident(name) = root
            && self.read(name).is_some()
        {
            let name = range(name.span);
            self.insert(name.start, "(");
            self.insert(name.end, ")");
        }
        new.visit_children_with(self);
    }

    fn visit_prop(&mut self, property: &Prop) {
        if let Prop::Shorthand(name) = property {
            if let Some(read) = self.read(name) {
                self.edits.push((range(name.span), format!("{}: {}", name.sym, read.expression)));
            }
            return;
        }
        property.visit_children_with(self);
    }

    fn visit_call_expr(&mut self, call: &CallExpr) {
        match &call.callee {
            Callee::Import(import) => {
                let slot = literal_argument(call).and_then(|specifier| self.slots.get(&specifier));
                let target = slot.map_or("(s,o)=>import(s,o)".to_owned(), |(slot, _)| slot.to_string());
                // The arguments are left as they are.
                let keyword = range(import.span);
                let paren = keyword.end + trivia(&self.text[keyword.end..]);
                self.edits.push((keyword.start..paren + 1, format!("fnhost$dynamic({target},")));
                call.args.visit_with(self);
            }
            Callee::Expr(callee) if self.callee(callee) => call.args.visit_with(self),
            _ => call.visit_children_with(self),
        }
    }

    fn visit_opt_call(&mut self, call: &OptCall) {
        if self.callee(&call.callee) {
            call.args.visit_with(self);
        } else {
            call.visit_children_with(self);
        }
    }

    fn visit_tagged_tpl(&mut self, template: &TaggedTpl) {
        if self.callee(&template.tag) {
            template.tpl.visit_with(self);
        } else {
            template.visit_children_with(self);
        }
    }

    fn visit_meta_prop_expr(&mut self, meta: &MetaPropExpr) {
        if meta.kind == MetaPropKind::ImportMeta {
            self.edits.push((range(meta.span), "fnhost$meta".into()));
        }
    }
}
