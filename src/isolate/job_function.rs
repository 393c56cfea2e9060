//! A compiled job as the body of a function.
//!
//! As an ES module a job goes through V8's module map, which keeps every module for as long as there is the isolate, and
//! so do the modules that hand it its adaptors. As a function it is compiled once, from a code cache, and called once
//! for each run: what it declares at its top is new in each.
//!
//! The author's text stays where it is. Imports become constants in front of the first line; what stood for imports
//! and exports is blanked out, column by column, so that the way back to the source is that of the module but for the
//! length of that front.
//!
//! Not every module can be a function. One that awaits at its top level, imports at run time or does something out of
//! the ordinary with its exports is left to the module graph.

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use deno_ast::swc::ast::*;
use deno_ast::swc::common::{Span, Spanned};
use deno_ast::{MediaType, ParseParams, ParsedSource};
use deno_core::url::Url;
use deno_core::v8;

use super::loader::SCOPE_URL;
use super::pack::{Pack, module_imports};
use crate::compile::RUNTIME;

/// The parameter of a job's function: `fnhost$import(n)` gives the namespace of the n-th import.
pub const JOB_PARAMETERS: [&str; 1] = ["fnhost$import"];

/// What stands for `export default`, with a semicolon that ends the statement before. Not longer than that.
const DEFAULT: &str = ";fnhost$out=";

/// What a job imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// Number of the adaptor's module in the pack.
    Adaptor(u32),
    /// `@openfn/runtime`.
    Runtime,
    /// `fnhost:scope`.
    Scope,
}

impl Import {
    /// As `js/modules.js` knows it.
    pub fn number(self) -> i32 {
        match self {
            Self::Adaptor(module) => module as i32,
            Self::Runtime => -1,
            Self::Scope => -2,
        }
    }
}

/// A job that can be called.
#[derive(Debug)]
pub struct JobFunction {
    /// Body of a function with [`JOB_PARAMETERS`], which returns `[operations, execute]`.
    pub source: String,
    /// What the n-th import reads from.
    pub imports: Vec<Import>,
    /// UTF-16 columns in front of the first line of the module.
    pub front: u32,
    /// V8's code cache, once it is worth while.
    pub code: OnceLock<Arc<[u8]>>,
    /// Whether an isolate has run the job.
    has_run: AtomicBool,
}

impl JobFunction {
    /// Keeps a code cache, which then has what the run compiled lazily. Not of a job that runs for the first time: many
    /// run only once.
    pub fn harvest(&self, compiled: v8::Local<'_, v8::Function>) {
        if self.has_run.swap(true, Ordering::Relaxed) && self.code.get().is_none() {
            let cache = compiled.create_code_cache();
            let _ = cache.map(|cache| self.code.set(Arc::from(&cache[..])));
        }
    }

    /// Makes a function of a compiled module. None if it has to stay a module.
    pub fn new(code: &str, pack: &Pack) -> Option<Self> {
        // Comments to a script, and not to a module.
        if code.contains("<!--") || code.contains("-->") || code.contains("import.meta") {
            return None;
        }
        let parsed = deno_ast::parse_module(ParseParams {
            specifier: Url::parse("job:/job.js").expect("a constant URL"),
            text: code.into(),
            media_type: MediaType::JavaScript,
            capture_tokens: false,
            scope_analysis: false,
            maybe_syntax: None,
        })
        .ok()?;
        let imports = module_imports(&parsed);
        if imports.top_level_await || imports.computed || !imports.dynamic.is_empty() {
            return None;
        }
        let mut rewrite = Rewrite::new(code, pack);
        rewrite.module(&parsed)?;
        Some(rewrite.finish())
    }
}

struct Rewrite<'a> {
    pack: &'a Pack,
    /// The module, with what stood for imports and exports blanked out.
    body: Vec<u8>,
    imports: Vec<Import>,
    /// What comes before the first line.
    front: String,
    /// The expression that reads the job's or the adaptor's own `execute`.
    execute: Option<String>,
    stars: usize,
}

impl<'a> Rewrite<'a> {
    fn new(code: &str, pack: &'a Pack) -> Self {
        let mut front = String::from("\"use strict\";let fnhost$out;");
        let mut body = code.as_bytes().to_vec();
        if body.starts_with(b"#!") {
            body[..2].copy_from_slice(b"//");
        }
        if code.contains("globalThis") {
            front.push_str("const{globalThis}=fnhost$import(0);");
        }
        let imports = if code.contains("globalThis") { vec![Import::Scope] } else { Vec::new() };
        Self { pack, body, imports, front, execute: None, stars: 0 }
    }

    /// None: it has to stay a module.
    fn module(&mut self, parsed: &ParsedSource) -> Option<()> {
        let deno_ast::ProgramRef::Module(module) = parsed.program_ref() else { return None };
        for item in &module.body {
            if let ModuleItem::ModuleDecl(declaration) = item {
                self.declaration(declaration)?;
            }
        }
        // Two stars may hide what both of them export.
        (self.stars <= 1).then_some(())
    }

    fn declaration(&mut self, declaration: &ModuleDecl) -> Option<()> {
        match declaration {
            ModuleDecl::Import(import) => self.import(import),
            ModuleDecl::ExportAll(star) => {
                let slot = self.slot(&star.src)?;
                self.stars += 1;
                self.execute.get_or_insert_with(|| format!("fnhost$import({slot}).execute"));
                self.blank(star.span)
            }
            ModuleDecl::ExportDecl(export) => {
                if declares_execute(&export.decl)? {
                    self.execute = Some("execute".into());
                }
                self.blank(Span::new(export.span.lo, export.decl.span_lo()))
            }
            ModuleDecl::ExportNamed(export) if export.src.is_none() => {
                let plain = export.specifiers.iter().all(|specifier| match specifier {
                    ExportSpecifier::Named(named) => {
                        let name = named.exported.as_ref().unwrap_or(&named.orig);
                        !matches!(&**name.atom(), "default" | "execute")
                    }
                    _ => false,
                });
                plain.then(|| self.blank(export.span))?
            }
            ModuleDecl::ExportDefaultExpr(export) => {
                let start = range(export.span).start;
                let words = start..start + "export default".len();
                if self.body.get(words.clone())? != b"export default" {
                    return None;
                }
                self.body[words.clone()].fill(b' ');
                self.body[words.start..words.start + DEFAULT.len()].copy_from_slice(DEFAULT.as_bytes());
                Some(())
            }
            _ => None,
        }
    }

    fn import(&mut self, import: &ImportDecl) -> Option<()> {
        let slot = self.slot(&import.src)?;
        let mut names = String::new();
        for specifier in &import.specifiers {
            let (name, local) = match specifier {
                ImportSpecifier::Named(named) => {
                    let imported = named.imported.as_ref().map(|name| name.atom().to_string());
                    (imported.unwrap_or_else(|| named.local.sym.to_string()), &named.local)
                }
                ImportSpecifier::Default(default) => ("default".to_owned(), &default.local),
                ImportSpecifier::Namespace(namespace) => {
                    let _ = write!(self.front, "const {}=fnhost$import({slot});", namespace.local.sym);
                    continue;
                }
            };
            if !self.exports(slot, &name) {
                return None;
            }
            let quoted = serde_json::to_string(&name).expect("a string is JSON");
            let _ = write!(names, "{quoted}:{},", local.sym);
        }
        // Also without names: whoever imports a module has it evaluated.
        let _ = write!(self.front, "const{{{names}}}=fnhost$import({slot});");
        self.blank(import.span)
    }

    /// Whether what is imported is there. V8 says best what is wrong with a module that imports what is not.
    fn exports(&self, slot: usize, name: &str) -> bool {
        match self.imports[slot] {
            Import::Adaptor(module) => self
                .pack
                .entries
                .values()
                .any(|entry| entry.module == module && entry.exports.iter().any(|export| export == name)),
            Import::Runtime => matches!(name, "defer" | "execute" | "fn" | "alterState"),
            Import::Scope => name == "globalThis",
        }
    }

    fn slot(&mut self, source: &Str) -> Option<usize> {
        let specifier = source.value.to_string_lossy();
        let import = match &*specifier {
            RUNTIME => Import::Runtime,
            SCOPE_URL => Import::Scope,
            _ => Import::Adaptor(self.pack.entries.get(&*specifier)?.module),
        };
        if let Some(known) = self.imports.iter().position(|known| *known == import) {
            return Some(known);
        }
        self.imports.push(import);
        Some(self.imports.len() - 1)
    }

    /// Takes a declaration away, column by column, but for its line breaks and a semicolon: what stands before may rely on
    /// it to end.
    fn blank(&mut self, span: Span) -> Option<()> {
        let text = &mut self.body[range(span)];
        for byte in text.iter_mut().filter(|byte| !matches!(**byte, b'\n' | b'\r')) {
            if !byte.is_ascii() {
                return None;
            }
            *byte = b' ';
        }
        text[0] = b';';
        Some(())
    }

    fn finish(self) -> JobFunction {
        let execute = self.execute.as_deref().unwrap_or("undefined");
        let body = String::from_utf8(self.body).expect("only whole characters were replaced");
        JobFunction {
            front: self.front.encode_utf16().count() as u32,
            source: format!("{}{body}\nreturn[fnhost$out,{execute}];", self.front),
            imports: self.imports,
            code: OnceLock::new(),
            has_run: AtomicBool::new(false),
        }
    }
}

/// None: that is not plain to see.
fn declares_execute(declaration: &Decl) -> Option<bool> {
    match declaration {
        Decl::Fn(function) => Some(function.ident.sym == *"execute"),
        Decl::Class(class) => Some(class.ident.sym == *"execute"),
        Decl::Var(variables) => {
            let mut names = variables.decls.iter().map(|variable| variable.name.as_ident());
            names.try_fold(false, |found, name| Some(found || name?.id.sym == *"execute"))
        }
        _ => None,
    }
}

fn range(span: Span) -> Range<usize> {
    // swc counts bytes from 1.
    span.lo.0 as usize - 1..span.hi.0 as usize - 1
}
