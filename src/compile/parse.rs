//! From text to syntax tree.
//!
//! A compiled job is a module, so it is parsed as one whatever its dialect; what only a sloppy script allows is reported as
//! such. TypeScript has its types replaced by blanks first: every position stays what it was, and one path does for both
//! languages.

use std::borrow::Cow;

use deno_ast::swc::ast::*;
use deno_ast::swc::common::{FileName, SourceMap, Spanned};
use deno_ast::swc::ecma_visit::{Visit, VisitWith};
use deno_ast::swc::parser::error::{Error, SyntaxError};
use deno_ast::swc::parser::{EsSyntax, Syntax, TsSyntax, parse_file_as_module, parse_file_as_script};
use deno_ast::{ModuleSpecifier, TypeStripOptions, type_strip};

use super::diagnostic::Problem;
use super::edit::Range;
use super::lines::{Lines, slice};
use super::{Dialect, Options, trivia};

pub(super) struct Parsed<'s> {
    /// JavaScript, with every character where it is in the source.
    pub(super) text: Cow<'s, str>,
    pub(super) module: Module,
}

/// Parses a job.
pub(super) fn parse<'s>(source: &'s str, options: &Options) -> Result<Parsed<'s>, Vec<Problem>> {
    if is_typescript(options.file_name) {
        let typed = module(source, typescript_syntax())?;
        return without_types(source, &typed);
    }
    let problems = match module(source, javascript_syntax()) {
        Ok(module) => {
            return Ok(Parsed { text: source.into(), module });
        }
        Err(problems) => problems,
    };
    match module(source, typescript_syntax()) {
        Ok(typed) => return without_types(source, &typed),
        // In TypeScript it is the parser that finds these, and then they are all that is wrong.
        Err(slips) if slips.iter().all(|slip| slip.message == RETURN_OUTSIDE) => return Err(slips),
        Err(_) => {}
    }
    if options.dialect == Dialect::Script && script(source).is_ok() {
        return Err(problems.into_iter().map(only_sloppy).collect());
    }
    Err(problems)
}

fn is_typescript(file_name: &str) -> bool {
    [".ts", ".mts", ".cts"].iter().any(|extension| file_name.ends_with(extension))
}

pub(super) fn javascript_syntax() -> Syntax {
    Syntax::Es(EsSyntax {
        import_attributes: true,
        explicit_resource_management: true,
        // The walk says it better.
        allow_return_outside_function: true,
        ..EsSyntax::default()
    })
}

pub(super) fn module(text: &str, syntax: Syntax) -> Result<Module, Vec<Problem>> {
    let map = SourceMap::default();
    let file = map.new_source_file(FileName::Anon.into(), text.to_owned());
    let mut errors = Vec::new();
    let parsed = parse_file_as_module(&file, syntax, EsVersion::latest(), None, &mut errors);
    parsed_or_problems(text, parsed, errors)
}

pub(super) fn script(text: &str) -> Result<Script, Vec<Problem>> {
    let map = SourceMap::default();
    let file = map.new_source_file(FileName::Anon.into(), text.to_owned());
    let mut errors = Vec::new();
    let parsed = parse_file_as_script(&file, javascript_syntax(), EsVersion::latest(), None, &mut errors);
    parsed_or_problems(text, parsed, errors)
}

/// What the parser gave back, unless it found something wrong on the way.
fn parsed_or_problems<T>(text: &str, parsed: Result<T, Error>, errors: Vec<Error>) -> Result<T, Vec<Problem>> {
    match parsed {
        Ok(parsed) if errors.is_empty() => Ok(parsed),
        Ok(_) => Err(errors.into_iter().map(syntax_problem).collect()),
        Err(fatal) => {
            // The parser gave up here. That something else is wrong at the very same place is only a consequence.
            let mut problems: Vec<Problem> = errors.into_iter().map(syntax_problem).collect();
            let fatal = syntax_problem(fatal);
            let at = fatal.range.lo;
            if !problems.iter().any(|problem| problem.range.lo == at || problem.range.hi == at) {
                problems.push(fatal);
            }
            if let Some(problem) = problems.last_mut()
                && let Some(bracket) = bracket_left_open(text, problem.range.lo)
            {
                problem.help.get_or_insert(bracket);
            }
            Err(problems)
        }
    }
}

/// Where a parser stumbles is often lines behind the bracket that somebody forgot to close. What is indented no deeper than
/// the line of an open bracket gives it away.
fn bracket_left_open(text: &str, before: u32) -> Option<String> {
    let mut open = Vec::new();
    let mut at = trivia::skip(text, 0);
    while at < before {
        let rest = slice(text, at, before);
        let c = rest.chars().next()?;
        at += match c {
            '"' | '\'' | '`' => quoted_length(rest, c),
            '(' | '[' | '{' => {
                open.push((c, at));
                1
            }
            ')' | ']' | '}' => {
                open.pop();
                1
            }
            c => c.len_utf8() as u32,
        };
        at = trivia::skip(text, at);
    }
    let lines = Lines::new(text);
    let line_of = |at| lines.position(text, at).0;
    let indent = |line| {
        let line = lines.line(text, line);
        line.len() - line.trim_start().len()
    };
    let here = line_of(before);
    let at_end = trivia::skip(text, before) as usize == text.len();
    let (bracket, line) = open
        .into_iter()
        .rev()
        .map(|(bracket, at)| (bracket, line_of(at)))
        .find(|&(_, line)| line < here && (at_end || indent(line) >= indent(here)))?;
    Some(format!("the \"{bracket}\" on line {} is still open here", line + 1))
}

/// The length of a quotation at the beginning of a text, up to the quote that ends it.
fn quoted_length(text: &str, quote: char) -> u32 {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let ends = !escaped && c == quote;
        escaped = !escaped && c == '\\';
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1) as u32
}

fn syntax_problem(error: Error) -> Problem {
    let range = Range::from(error.span());
    match error.into_kind() {
        SyntaxError::WithLabel { inner, .. } => syntax_problem(*inner),
        SyntaxError::ReturnNotAllowed => return_outside(range),
        SyntaxError::WithInStrict => Problem::new(range, "`with` is not allowed"),
        SyntaxError::LegacyOctal | SyntaxError::LegacyDecimal | SyntaxError::TS1085 => {
            Problem::new(range, "numbers and escapes that begin with 0 are not allowed")
                .help("write octal numbers as 0o17, and octal escapes as \\x0f")
        }
        SyntaxError::TS1102 => Problem::new(range, "a variable cannot be deleted"),
        kind => Problem::new(range, in_our_words(&kind.msg())),
    }
}

const RETURN_OUTSIDE: &str = "`return` outside of a function";

pub(super) fn return_outside(statement: Range) -> Problem {
    Problem::new(statement, RETURN_OUTSIDE)
        .help("a job is a list of operations; return the state inside of one: fn(state => { return state; })")
}

/// Messages of ours begin in lower case, end without a full stop and do not list everything that could stand there.
fn in_our_words(message: &str) -> String {
    let message = message.split(". Expected ").next().unwrap_or(message);
    let message = message.replace("'<eof>'", "the end of the job").replace("`<eof>`", "the end of the job");
    let message = message.trim_end_matches('.');
    let mut letters = message.chars();
    match letters.next() {
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => message.to_owned(),
    }
}

/// The problem is none in a script, but the module that a script becomes is strict.
fn only_sloppy(mut problem: Problem) -> Problem {
    problem.help.get_or_insert_with(|| {
        "older jobs were sloppy scripts; a compiled job is a module, and modules are strict".to_owned()
    });
    problem
}

fn typescript_syntax() -> Syntax {
    Syntax::Typescript(TsSyntax { disallow_ambiguous_jsx_like: true, ..TsSyntax::default() })
}

fn without_types<'s>(source: &'s str, typed: &Module) -> Result<Parsed<'s>, Vec<Problem>> {
    let mut limits = Limits { problems: Vec::new() };
    typed.visit_with(&mut limits);
    if !limits.problems.is_empty() {
        return Err(limits.problems);
    }
    let text = strip(source).map_err(|message| vec![Problem::new(Range::new(0, 0), message)])?;
    let module = module(&text, javascript_syntax())?;
    Ok(Parsed { text: text.into(), module })
}

fn strip(source: &str) -> Result<String, String> {
    let name = ModuleSpecifier::parse("file:///job.ts").map_err(|error| error.to_string())?;
    let options = TypeStripOptions { module: Some(true) };
    let text = type_strip(&name, source.to_owned(), options).map_err(|error| error.to_string())?;
    if text.len() == source.len() {
        Ok(text)
    } else {
        Err("the types of this job cannot be removed without moving its code".to_owned())
    }
}

/// Finds the TypeScript that is more than types, and so cannot be blanked out.
struct Limits {
    problems: Vec<Problem>,
}

impl Limits {
    fn refuse(&mut self, node: &impl Spanned, what: &str, instead: &str) {
        let message = format!("{what} is not supported: types are removed from a job, not compiled");
        self.problems.push(Problem::new(node.span(), message).help(instead));
    }
}

impl Visit for Limits {
    fn visit_ts_enum_decl(&mut self, node: &TsEnumDecl) {
        if !node.declare {
            self.refuse(&node.id, "a TypeScript enum", "use a constant object: const Color = { Red: 'red' }");
        }
    }

    fn visit_ts_module_decl(&mut self, node: &TsModuleDecl) {
        if !node.declare {
            self.refuse(&node.id, "a TypeScript namespace", "use a constant object, or plain functions");
        }
    }

    fn visit_ts_param_prop(&mut self, node: &TsParamProp) {
        self.refuse(node, "a parameter property", "declare the property in the class and set it in the constructor");
    }

    fn visit_ts_import_equals_decl(&mut self, node: &TsImportEqualsDecl) {
        self.refuse(node, "`import x = …`", "use import … from");
    }

    fn visit_ts_export_assignment(&mut self, node: &TsExportAssignment) {
        self.refuse(node, "`export = …`", "use export default");
    }
}
