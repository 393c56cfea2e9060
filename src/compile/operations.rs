//! Which statements are operations, and where they go.
//!
//! A job is a list of calls; a module exports a list of functions of the state. Every call that is a statement of the job
//! becomes an element of the default export, in order. Everything else stays where it is and runs once, when the module is
//! loaded: imports, helpers, constants.
//!
//! The array is opened where the last run of operations begins, so that these, mostly all, need not move: a compiled job is
//! the job with `;` turned into `,`. Only operations that stand before something that stays are moved into the array.

use deno_ast::swc::ast::*;
use deno_ast::swc::common::Spanned;

use super::Operation;
use super::diagnostic::Problem;
use super::edit::{Piece, Range};
use super::lines::{Lines, is_line_end};
use super::promises;
use super::trivia;
use super::walk::{Root, StatementKind, Walk};

/// What becomes of the statements of a job.
pub(super) struct Plan<'m> {
    statements: Vec<Statement<'m>>,
    default_export: DefaultExport<'m>,
    /// The end of the hashbang, which must stay the first line.
    hashbang: u32,
}

struct Statement<'m> {
    range: Range,
    fate: Fate<'m>,
}

enum Fate<'m> {
    Operations(Operations<'m>),
    /// `;` by itself.
    Empty,
    Stays(&'m ModuleItem),
}

/// A statement that is an operation, or several with commas between them.
struct Operations<'m> {
    /// The statement without its semicolon.
    expression: Range,
    calls: Vec<(&'m Expr, StatementKind)>,
}

/// The default export that the author wrote.
enum DefaultExport<'m> {
    None,
    /// A list of operations, to which those of the statements are added.
    Array(&'m ArrayLit),
    /// Anything else. What runs is the author's business then, and statements stay as they are.
    Other,
}

impl<'m> DefaultExport<'m> {
    fn of(module: &'m Module) -> Self {
        let written = module.body.iter().find_map(|item| match item {
            ModuleItem::ModuleDecl(ModuleDecl::ExportDefaultExpr(export)) => Some(match export.expr.unwrap_parens() {
                Expr::Array(array) => Self::Array(array),
                _ => Self::Other,
            }),
            ModuleItem::ModuleDecl(ModuleDecl::ExportDefaultDecl(_)) => Some(Self::Other),
            ModuleItem::ModuleDecl(ModuleDecl::ExportNamed(export)) => {
                export.specifiers.iter().any(exports_default).then_some(Self::Other)
            }
            _ => None,
        });
        written.unwrap_or(Self::None)
    }
}

/// `export { x as default }`
fn exports_default(specifier: &ExportSpecifier) -> bool {
    match specifier {
        ExportSpecifier::Named(named) => {
            matches!(&named.exported, Some(name) if &**name.atom() == "default")
        }
        ExportSpecifier::Namespace(namespace) => &**namespace.name.atom() == "default",
        ExportSpecifier::Default(_) => false,
    }
}

impl<'m> Plan<'m> {
    /// Decides about every statement; `walk` is at the top of the module.
    pub(super) fn new(walk: &mut Walk, module: &'m Module) -> Self {
        let default_export = DefaultExport::of(module);
        let mut statements = Vec::with_capacity(module.body.len());
        for item in &module.body {
            let fate = match item {
                ModuleItem::Stmt(Stmt::Empty(_)) => Fate::Empty,
                ModuleItem::Stmt(Stmt::Expr(statement)) if !matches!(default_export, DefaultExport::Other) => {
                    refuse_bare_function(walk, &statement.expr);
                    match Operations::of(walk, &statement.expr) {
                        Some(operations) => Fate::Operations(operations),
                        None => Fate::Stays(item),
                    }
                }
                _ => Fate::Stays(item),
            };
            let range = item.span().into();
            statements.push(Statement { range, fate });
        }
        let source = walk.source;
        let hashbang = if source.starts_with("#!") { source.find(is_line_end).unwrap_or(source.len()) } else { 0 };
        Self { statements, default_export, hashbang: hashbang as u32 }
    }

    /// Walks all statements, each as what it becomes.
    pub(super) fn walk(&self, walk: &mut Walk) {
        for statement in &self.statements {
            match &statement.fate {
                Fate::Operations(operations) => {
                    for &(call, kind) in &operations.calls {
                        let awaits = walk.top_level(kind, call);
                        if kind == StatementKind::Effect {
                            become_body(walk, call.span().into(), awaits);
                        }
                    }
                }
                Fate::Stays(ModuleItem::ModuleDecl(ModuleDecl::ExportDefaultExpr(export))) => {
                    if let DefaultExport::Array(array) = &self.default_export {
                        for element in array.elems.iter().flatten() {
                            walk.top_level(StatementKind::Operation, element);
                        }
                    } else {
                        walk.top_level(StatementKind::Other, export);
                    }
                }
                Fate::Stays(item) => {
                    walk.top_level(StatementKind::Other, *item);
                }
                Fate::Empty => {}
            }
        }
    }

    /// The operations of the job, in the order in which they run.
    pub(super) fn operations(&self, source: &str, lines: &Lines) -> Vec<Operation> {
        let written: Vec<Option<&Expr>> = match &self.default_export {
            DefaultExport::Array(array) => {
                array.elems.iter().map(|element| element.as_ref().map(|element| &*element.expr)).collect()
            }
            DefaultExport::None | DefaultExport::Other => Vec::new(),
        };
        let added = self.statements.iter().filter_map(Statement::operations);
        let added = added.flat_map(|operations| operations.calls.iter().map(|&(call, _)| Some(call)));
        let mut operations = Vec::new();
        for (order, expression) in (1..).zip(written.into_iter().chain(added)) {
            if let Some(call) = expression.map(awaited)
                && is_call(call)
            {
                let (line, column) = lines.position(source, Range::from(call.span()).lo);
                operations.push(Operation { name: name(call), line: line + 1, column: column + 1, order });
            }
        }
        operations
    }

    /// Lays out the module: the imports on the first line, then the source with its operations in the default export.
    pub(super) fn lay_out(&self, walk: &mut Walk, prelude: String) -> Vec<Piece> {
        let source = walk.source;
        let end = source.len() as u32;
        let mut layout = Vec::new();
        let mut head = 0;
        if self.hashbang > 0 {
            let line_end = match source[self.hashbang as usize..].chars().next() {
                Some('\r') if source[self.hashbang as usize..].starts_with("\r\n") => 2,
                Some(c) => c.len_utf8() as u32,
                None => 0,
            };
            head = self.hashbang + line_end;
            layout.push(Piece::Source(Range::new(0, head)));
            if head == self.hashbang {
                layout.push(Piece::text("\n"));
            }
        }
        if !prelude.is_empty() {
            layout.push(Piece::text(prelude));
            if !source[head as usize..].starts_with(is_line_end) {
                layout.push(Piece::text(" "));
            }
        }
        layout.push(Piece::Source(Range::new(head, end)));
        match &self.default_export {
            DefaultExport::Other => {}
            DefaultExport::Array(array) => self.add_to(walk, array),
            DefaultExport::None => {
                let stays = |statement: &Statement| matches!(statement.fate, Fate::Stays(_));
                let first_after = self.statements.iter().rposition(stays).map_or(0, |last| last + 1);
                let in_place = &self.statements[first_after..];
                if in_place.iter().any(|statement| statement.operations().is_some()) {
                    let moved = self.take_out(walk, first_after, true);
                    export_in_place(walk, in_place, moved);
                } else {
                    let moved = self.take_out(walk, first_after, false);
                    let ends_line = source.ends_with(is_line_end);
                    let new_line = head < end && !ends_line;
                    layout.push(Piece::text(if new_line { "\nexport default [" } else { "export default [" }));
                    layout.extend(moved);
                    layout.push(Piece::text(if ends_line { "];\n" } else { "];" }));
                }
            }
        }
        layout
    }

    /// Moves the operations among the first `until` statements out of their places, with the comments that belong to them,
    /// and answers them as elements of an array.
    fn take_out(&self, walk: &mut Walk, until: usize, more_follow: bool) -> Vec<Piece> {
        let source = walk.source;
        let operations = |statement: &Statement| statement.operations().is_some();
        let last = self.statements[..until].iter().rposition(operations);
        let mut elements = Vec::new();
        for (index, statement) in self.statements[..until].iter().enumerate() {
            let Some(operations) = statement.operations() else {
                continue;
            };
            let before = index.checked_sub(1).map(|before| &self.statements[before]);
            let gap = Range::new(before.map_or(self.hashbang, |before| before.range.hi), statement.range.lo);
            let moved =
                Range::new(trivia::attached_from(source, gap), trivia::trailing_comment(source, statement.range.hi));
            // Without the operation between them, a statement that ends with its line could run on into the next.
            let runs_on = before.is_some_and(|before| {
                matches!(before.fate, Fate::Stays(_)) && !before.range.text(source).ends_with(';')
            });
            let leaving = if runs_on { vec![Piece::text(";")] } else { Vec::new() };
            walk.edits.move_away(moved, leaving);
            if elements.is_empty() && moved.lo < statement.range.lo {
                elements.push(Piece::text("\n"));
            }

            let is_last = !more_follow && last == Some(index);
            statement.end_with(walk, operations, if is_last { "" } else { "," });
            elements.push(Piece::Source(moved));
            // Its comment may run to the end of the line.
            if !is_last || moved.hi > statement.range.hi {
                elements.push(Piece::text("\n"));
            }
        }
        elements
    }

    /// Adds the operations to the array that the author exports.
    fn add_to(&self, walk: &mut Walk, array: &ArrayLit) {
        let mut elements = self.take_out(walk, self.statements.len(), false);
        if elements.is_empty() {
            return;
        }
        if let Some(Some(last)) = array.elems.last() {
            let after = trivia::skip(walk.source, Range::from(last.span()).hi);
            let comma = if walk.source[after as usize..].starts_with(',') { " " } else { ", " };
            elements.insert(0, Piece::text(comma));
        }
        let close = Range::from(array.span).hi - 1;
        walk.edits.replace(Range::new(close, close), elements);
    }
}

/// Opens the default export at the first operation, with the operations that moved there, and closes it after the last.
fn export_in_place(walk: &mut Walk, statements: &[Statement], moved: Vec<Piece>) {
    let mut before = vec![Piece::text("export default [")];
    before.extend(moved);
    let mut before = Some(before);
    let last = statements.iter().rposition(|statement| statement.operations().is_some());
    for (index, statement) in statements.iter().enumerate() {
        match &statement.fate {
            Fate::Operations(operations) => {
                statement.end_with(walk, operations, if last == Some(index) { "];" } else { "," });
                if let Some(before) = before.take() {
                    walk.edits.wrap(operations.expression, before, Vec::new());
                }
            }
            // Within the array, a lone semicolon would be an error.
            Fate::Empty if before.is_none() && Some(index) < last => walk.edits.replace(statement.range, Vec::new()),
            Fate::Empty | Fate::Stays(_) => {}
        }
    }
}

impl<'m> Statement<'m> {
    fn operations(&self) -> Option<&Operations<'m>> {
        match &self.fate {
            Fate::Operations(operations) => Some(operations),
            Fate::Empty | Fate::Stays(_) => None,
        }
    }

    /// Puts `text` in the place of the semicolon, be there one or not.
    fn end_with(&self, walk: &mut Walk, operations: &Operations, text: &'static str) {
        let hi = self.range.hi;
        let semicolon = Range::new(operations.expression.hi.max(hi - 1), hi);
        if semicolon.text(walk.source) == ";" {
            walk.edits.replace(semicolon, vec![Piece::text(text)]);
        } else if !text.is_empty() {
            walk.edits.wrap(operations.expression, Vec::new(), vec![Piece::text(text)]);
        }
    }
}

impl<'m> Operations<'m> {
    fn of(walk: &Walk, expression: &'m Expr) -> Option<Self> {
        let calls = match expression {
            // `get('/a'), get('/b')`: a slip for a semicolon, and never anything else at this level.
            Expr::Seq(sequence) => {
                sequence.exprs.iter().map(|call| Some((&**call, kind(walk, call)?))).collect::<Option<_>>()?
            }
            call => vec![(call, kind(walk, call)?)],
        };
        Some(Self { expression: expression.span().into(), calls })
    }
}

/// What a call becomes that is a statement; `None` for everything that stays.
fn kind(walk: &Walk, expression: &Expr) -> Option<StatementKind> {
    let call = awaited(expression);
    if !is_call(call) {
        return None;
    }
    match walk.root(call) {
        Root::Operation | Root::Local | Root::Lazy | Root::Other => Some(StatementKind::Operation),
        // `console.log(…)` makes no operation, but belongs between the operations where it stands.
        Root::Plain => Some(StatementKind::Effect),
        // `list.push(1)` prepares what the helpers of the job work with.
        Root::LocalValue => None,
    }
}

fn awaited(expression: &Expr) -> &Expr {
    match expression {
        Expr::Paren(paren) => awaited(&paren.expr),
        Expr::Await(wait) => awaited(&wait.arg),
        other => other,
    }
}

fn is_call(expression: &Expr) -> bool {
    match expression {
        Expr::Call(call) => matches!(call.callee, Callee::Expr(_)),
        Expr::OptChain(chain) => matches!(&*chain.base, OptChainBase::Call(_)),
        _ => false,
    }
}

/// Makes an operation of a call that is none: it does the call and passes the state on.
fn become_body(walk: &mut Walk, call: Range, awaits: bool) {
    let asynchronous = if awaits { "async " } else { "" };
    // At the beginning of a statement, a brace would open a block.
    let is_object = call.text(walk.source).starts_with('{');
    let (open, close) = if is_object { ("(", ")") } else { ("", "") };
    walk.edits.wrap(
        call,
        vec![Piece::text(format!("{asynchronous}(state) => {{ {open}"))],
        vec![Piece::text(format!("{close}; return state; }}"))],
    );
}

/// What an operation is called: its callee, without the promise chain on it.
fn name(call: &Expr) -> String {
    let callee = match call {
        Expr::Call(call) => match promises::link(call) {
            Some(operation) => return name(awaited(operation)),
            None => match &call.callee {
                Callee::Expr(callee) => callee.unwrap_parens(),
                Callee::Super(_) | Callee::Import(_) => return ANONYMOUS.to_owned(),
            },
        },
        Expr::OptChain(chain) => match &*chain.base {
            OptChainBase::Call(call) => call.callee.unwrap_parens(),
            OptChainBase::Member(member) => return name(&member.obj),
        },
        callee => callee,
    };
    match callee {
        Expr::Ident(name) => name.sym.to_string(),
        Expr::Member(member) => match &member.prop {
            MemberProp::Ident(property) => match member.obj.unwrap_parens() {
                Expr::Ident(_) | Expr::Member(_) | Expr::Call(_) | Expr::OptChain(_) => {
                    format!("{}.{}", name(&member.obj), property.sym)
                }
                _ => property.sym.to_string(),
            },
            _ => name(&member.obj),
        },
        Expr::Call(_) | Expr::OptChain(_) => name(callee),
        _ => ANONYMOUS.to_owned(),
    }
}

const ANONYMOUS: &str = "anonymous";

fn refuse_bare_function(walk: &mut Walk, expression: &Expr) {
    if let Expr::Arrow(_) | Expr::Fn(_) = expression.unwrap_parens() {
        walk.problems.push(
            Problem::new(expression.span(), "a function by itself is not an operation")
                .help("wrap it in fn(…): fn(state => { return state; })"),
        );
    }
}
