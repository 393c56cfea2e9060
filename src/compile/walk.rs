//! The one walk over the syntax tree.
//!
//! It keeps track of scopes and of what encloses the node it is at, and hands what it meets to the steps of the compiler:
//! a lazy `$` to `lazy_state`, promise chains to `promises`; names that nobody declares it gathers for `imports`. What
//! top-level statements become is decided before, in `operations`, because that decides what a `$` in them means.

use std::collections::{HashMap, HashSet};

use deno_ast::swc::ast::*;
use deno_ast::swc::atoms::Atom;
use deno_ast::swc::common::Spanned;
use deno_ast::swc::ecma_visit::{Visit, VisitWith, noop_visit_type};

use super::diagnostic::Problem;
use super::edit::{Edits, Range};
use super::lazy_state::Shape;
use super::parse;
use super::promises;
use super::scope::{self, Binding, Imported, Names};
use super::trivia;
use super::vocabulary::{Meaning, Vocabulary, is_value_helper};

pub(super) struct Walk<'a> {
    pub(super) source: &'a str,
    pub(super) vocabulary: &'a Vocabulary<'a>,
    pub(super) edits: Edits,
    pub(super) problems: Vec<Problem>,
    /// Names used but declared nowhere, in the order of first use.
    pub(super) free: Vec<FreeName>,
    free_by_name: HashMap<Atom, usize>,
    /// The name `state`.
    pub(super) state: Atom,
    /// Scopes from the module's to the innermost.
    pub(super) scopes: Vec<Names>,
    /// What encloses the current node, from the top-level statement inwards.
    pub(super) frames: Vec<Frame>,
    /// Calls of a promise chain that is already taken care of.
    pub(super) links: HashSet<Range>,
    /// What a promise chain needs, once there is one.
    pub(super) deferred: Option<promises::Names>,
    /// Depth of blocks that are not function bodies.
    pub(super) blocks: usize,
    /// Functions around the current node that have `arguments`.
    functions: usize,
    /// The pattern being walked assigns to names, it does not declare them.
    pattern_assigns: bool,
    /// The whole member chain (`$.data.x`) whose root is being walked.
    chain: Option<Range>,
}

/// A name that a job uses without declaring it.
#[derive(Debug)]
pub(super) struct FreeName {
    pub(super) name: Atom,
    /// The first use that fails if the name is not defined.
    pub(super) needed: Option<Range>,
    /// The first plain assignment to it.
    pub(super) assigned: Option<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Read,
    Assign,
    /// `typeof name`: the one use that never fails.
    Typeof,
}

/// Something around the current node that the steps care about.
#[derive(Debug)]
pub(super) enum Frame {
    Statement {
        kind: StatementKind,
        /// There is an `await` in it that belongs to the module.
        awaits: bool,
    },
    Argument(Argument),
    Function,
}

/// What a `$` directly in a top-level statement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatementKind {
    /// A call that makes an operation.
    Operation,
    /// A call that becomes the body of an operation.
    Effect,
    Other,
}

/// An argument of a call.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) range: Range,
    /// The call makes an operation, so its arguments may be functions of the state.
    pub(super) of_operation: bool,
    pub(super) spread: bool,
    pub(super) shape: Shape,
    /// How many scopes there are outside of the argument.
    pub(super) scopes: usize,
    /// There is a lazy `$` in it: it becomes a function of the state.
    pub(super) lazy: bool,
    /// There is an `await` in it, outside of nested functions.
    pub(super) awaits: bool,
}

/// What a call, or any expression, is rooted in.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Root {
    /// Something of an adaptor, a function of the job that makes operations, or a name without meaning.
    Operation,
    /// Another function of the job or the workflow, or whatever else they declare.
    Local,
    /// An array, text or other plain value that the job declares.
    LocalValue,
    /// A name of the global scope, or a literal.
    Plain,
    /// The lazy `$`.
    Lazy,
    /// Anything else, such as a function called on the spot.
    Other,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a str, vocabulary: &'a Vocabulary<'a>, module: &Module) -> Self {
        Self {
            source,
            vocabulary,
            edits: Edits::default(),
            problems: Vec::new(),
            free: Vec::new(),
            free_by_name: HashMap::new(),
            state: "state".into(),
            scopes: vec![scope::module_names(&module.body, vocabulary)],
            frames: Vec::new(),
            links: HashSet::new(),
            deferred: None,
            blocks: 0,
            functions: 0,
            pattern_assigns: false,
            chain: None,
        }
    }

    /// Walks a part of the module's top level; answers whether the module waits in it.
    pub(super) fn top_level(&mut self, kind: StatementKind, node: &(impl VisitWith<Self> + ?Sized)) -> bool {
        self.frames.push(Frame::Statement { kind, awaits: false });
        node.visit_with(self);
        matches!(self.frames.pop(), Some(Frame::Statement { awaits: true, .. }))
    }

    fn binding(&self, name: &Atom) -> Option<&Binding> {
        self.scopes.iter().rev().find_map(|names| names.get(name))
    }

    /// The name is `$` and stands for the state.
    fn is_lazy(&self, ident: &Ident) -> bool {
        &*ident.sym == "$" && self.binding(&ident.sym).is_none()
    }

    /// What an expression is rooted in, through members, calls and parentheses: `console` in `console.log(x).y`.
    pub(super) fn root(&self, expression: &Expr) -> Root {
        let mut at = expression;
        loop {
            at = match at {
                Expr::Paren(paren) => &paren.expr,
                Expr::Member(member) => &member.obj,
                Expr::New(new) => &new.callee,
                Expr::TaggedTpl(tagged) => &tagged.tag,
                Expr::Call(CallExpr { callee: Callee::Expr(callee), .. }) => callee,
                Expr::OptChain(chain) => match &*chain.base {
                    OptChainBase::Member(member) => &member.obj,
                    OptChainBase::Call(call) => &call.callee,
                },
                Expr::Array(_) | Expr::Object(_) | Expr::Lit(_) | Expr::Tpl(_) => {
                    return Root::Plain;
                }
                Expr::Ident(ident) => return self.root_of_name(ident),
                _ => return Root::Other,
            }
        }
    }

    fn root_of_name(&self, ident: &Ident) -> Root {
        if self.is_lazy(ident) {
            return Root::Lazy;
        }
        match self.binding(&ident.sym) {
            Some(Binding::Adaptor(_) | Binding::Operation) => Root::Operation,
            Some(Binding::Local) => Root::Local,
            Some(Binding::PlainValue) => Root::LocalValue,
            None => match self.vocabulary.meaning(&ident.sym) {
                Meaning::Adaptor(_) | Meaning::Runtime | Meaning::Nothing => Root::Operation,
                Meaning::Extra => Root::Local,
                Meaning::Global | Meaning::Unavailable(_) => Root::Plain,
            },
        }
    }

    /// Whether calling `callee` makes an operation: `get`, `http.get`, but not `util.encode`.
    pub(super) fn makes_operation(&self, callee: &Expr) -> bool {
        match callee {
            Expr::Paren(paren) => self.makes_operation(&paren.expr),
            Expr::Member(member) => {
                let plain = matches!(&member.prop, MemberProp::Ident(name) if is_value_helper(&name.sym));
                !plain && self.makes_operation(&member.obj)
            }
            Expr::Ident(ident) => match self.binding(&ident.sym) {
                Some(Binding::Adaptor(Imported::Name(name))) => !is_value_helper(name),
                Some(Binding::Adaptor(Imported::Module) | Binding::Operation) => true,
                Some(Binding::Local | Binding::PlainValue) => false,
                None => &*ident.sym != "$" && self.vocabulary.makes_operation(&ident.sym),
            },
            _ => false,
        }
    }

    /// A name is used. `chain` is the member chain it begins, if it begins one; `shorthand` tells that it is a property's
    /// name as well.
    fn used(&mut self, ident: &Ident, how: Use, shorthand: bool, chain: Option<Range>) {
        let range = Range::from(ident.span);
        let of_function = &*ident.sym == "arguments" && self.functions > 0;
        if of_function || self.binding(&ident.sym).is_some() {
            return;
        }
        if &*ident.sym == "$" {
            if how == Use::Assign {
                self.problems.push(
                    Problem::new(range, "`$` is the state, it cannot be assigned")
                        .help("choose another name, and declare it"),
                );
            } else {
                self.lazy_state(range, chain.unwrap_or(range), shorthand);
            }
            return;
        }
        let index = *self.free_by_name.entry(ident.sym.clone()).or_insert_with(|| {
            self.free.push(FreeName { name: ident.sym.clone(), needed: None, assigned: None });
            self.free.len() - 1
        });
        let name = &mut self.free[index];
        match how {
            Use::Read => name.needed = name.needed.or(Some(range)),
            Use::Assign => name.assigned = name.assigned.or(Some(range)),
            Use::Typeof => {}
        }
    }

    fn call(&mut self, range: Range, callee: &Expr, arguments: &[ExprOrSpread]) {
        if let Expr::Ident(name) = callee.unwrap_parens() {
            if self.is_lazy(name) {
                self.problems.push(
                    Problem::new(name.span, "`$` is the state, it cannot be called")
                        .help("`$` stands for the state when an operation runs: $.data.id"),
                );
                self.arguments(arguments, false);
                return;
            }
            self.refuse_code_generation(name);
        }
        callee.visit_with(self);
        let makes_operation = self.links.contains(&range) || self.makes_operation(callee);
        self.arguments(arguments, makes_operation);
    }

    fn arguments(&mut self, arguments: &[ExprOrSpread], of_operation: bool) {
        for argument in arguments {
            self.frames.push(Frame::Argument(Argument {
                range: argument.expr.span().into(),
                of_operation,
                spread: argument.spread.is_some(),
                shape: Shape::of(&argument.expr),
                scopes: self.scopes.len(),
                lazy: false,
                awaits: false,
            }));
            argument.expr.visit_with(self);
            if let Some(Frame::Argument(argument)) = self.frames.pop() {
                self.leave_argument(argument);
            }
        }
    }

    /// Notes that whatever encloses the current node, up to the next function, waits.
    pub(super) fn awaits_here(&mut self) {
        match self.frames.last_mut() {
            Some(Frame::Argument(Argument { awaits, .. }) | Frame::Statement { awaits, .. }) => *awaits = true,
            Some(Frame::Function) | None => {}
        }
    }

    pub(super) fn in_function(&self) -> bool {
        self.frames.iter().any(|frame| matches!(frame, Frame::Function))
    }

    fn refuse_code_generation(&mut self, callee: &Ident) {
        if matches!(&*callee.sym, "eval" | "Function")
            && self.binding(&callee.sym).is_none()
            && self.vocabulary.meaning(&callee.sym) == Meaning::Global
        {
            let problem =
                Problem::new(callee.span, format!("`{}`: code generation is not allowed in a job", callee.sym));
            self.problems.push(problem.help("write the code into the job, or use JSON.parse for data"));
        }
    }

    fn with_scope(&mut self, names: Names, walk: impl FnOnce(&mut Self)) {
        self.scopes.push(names);
        walk(self);
        self.scopes.pop();
    }

    /// Walks something whose code runs later, or elsewhere: a function, or what a class does when it is made.
    fn with_function(&mut self, names: Names, walk: impl FnOnce(&mut Self)) {
        self.frames.push(Frame::Function);
        self.with_scope(names, walk);
        self.frames.pop();
    }

    /// Like [`Self::with_function`], for functions that have `arguments`.
    fn with_own_arguments(&mut self, names: Names, walk: impl FnOnce(&mut Self)) {
        self.functions += 1;
        self.with_function(names, walk);
        self.functions -= 1;
    }

    fn function(&mut self, name: Option<&Ident>, function: &Function) {
        let mut names = scope::pattern_names(function.params.iter().map(|param| &param.pat));
        if let Some(name) = name {
            names.entry(name.sym.clone()).or_insert(Binding::Local);
        }
        self.with_own_arguments(names, |walk| {
            function.params.visit_with(walk);
            walk.body(function.body.as_ref());
        });
    }

    fn body(&mut self, body: Option<&BlockStmt>) {
        if let Some(body) = body {
            self.with_scope(scope::function_names(&body.stmts), |walk| body.stmts.visit_with(walk));
        }
    }

    fn block(&mut self, names: Names, walk: impl FnOnce(&mut Self)) {
        self.blocks += 1;
        self.with_scope(names, walk);
        self.blocks -= 1;
    }

    /// Walks the pattern of an assignment, whose names are not declared but used.
    fn assigned_pattern(&mut self, walk: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.pattern_assigns, true);
        walk(self);
        self.pattern_assigns = outer;
    }

    fn loop_over(&mut self, head: &ForHead, over: &Expr, body: &Stmt) {
        let names = match head {
            ForHead::VarDecl(declaration) => scope::head_names(declaration),
            ForHead::UsingDecl(using) => scope::pattern_names(using.decls.iter().map(|declarator| &declarator.name)),
            ForHead::Pat(_) => Names::new(),
        };
        self.with_scope(names, |walk| {
            match head {
                ForHead::VarDecl(declaration) => declaration.visit_with(walk),
                ForHead::UsingDecl(using) => using.visit_with(walk),
                ForHead::Pat(pattern) => walk.assigned_pattern(|walk| pattern.visit_with(walk)),
            }
            over.visit_with(walk);
            body.visit_with(walk);
        });
    }
}

impl Visit for Walk<'_> {
    noop_visit_type!();

    // Names are met where they are used; an identifier by itself may be a label or a declaration.
    fn visit_ident(&mut self, _: &Ident) {}

    fn visit_expr(&mut self, expression: &Expr) {
        let pattern_assigns = std::mem::replace(&mut self.pattern_assigns, false);
        let chain = self.chain.take();
        match expression {
            Expr::Ident(ident) => self.used(ident, Use::Read, false, chain),
            Expr::Member(_) | Expr::OptChain(_) => {
                self.chain = chain;
                expression.visit_children_with(self);
            }
            _ => expression.visit_children_with(self),
        }
        self.pattern_assigns = pattern_assigns;
    }

    fn visit_member_expr(&mut self, member: &MemberExpr) {
        let chain = self.chain.take().unwrap_or(member.span.into());
        self.chain = Some(chain);
        member.obj.visit_with(self);
        self.chain = None;
        member.prop.visit_with(self);
    }

    fn visit_paren_expr(&mut self, paren: &ParenExpr) {
        let after = trivia::skip(self.source, Range::from(paren.expr.span()).hi);
        if after + 1 != Range::from(paren.span).hi {
            // `(a,)` is nothing; the parser takes it for the parameters of an arrow function that does not come.
            let problem = Problem::new(Range::new(after, after + 1), "expected ')'");
            self.problems.push(problem);
        }
        paren.visit_children_with(self);
    }

    fn visit_unary_expr(&mut self, unary: &UnaryExpr) {
        match (unary.op, unary.arg.unwrap_parens()) {
            (UnaryOp::TypeOf, Expr::Ident(ident)) => self.used(ident, Use::Typeof, false, None),
            _ => unary.visit_children_with(self),
        }
    }

    fn visit_assign_expr(&mut self, assignment: &AssignExpr) {
        match &assignment.left {
            AssignTarget::Simple(SimpleAssignTarget::Ident(target)) => {
                // `x += 1` reads x first.
                let how = if assignment.op == AssignOp::Assign { Use::Assign } else { Use::Read };
                self.used(&target.id, how, false, None);
            }
            AssignTarget::Simple(target) => target.visit_with(self),
            AssignTarget::Pat(pattern) => self.assigned_pattern(|walk| pattern.visit_with(walk)),
        }
        assignment.right.visit_with(self);
    }

    fn visit_pat(&mut self, pattern: &Pat) {
        match pattern {
            Pat::Ident(ident) if self.pattern_assigns => self.used(&ident.id, Use::Assign, false, None),
            _ => pattern.visit_children_with(self),
        }
    }

    fn visit_assign_pat_prop(&mut self, property: &AssignPatProp) {
        if self.pattern_assigns {
            self.used(&property.key.id, Use::Assign, true, None);
        }
        property.value.visit_with(self);
    }

    fn visit_prop(&mut self, property: &Prop) {
        match property {
            Prop::Shorthand(ident) => self.used(ident, Use::Read, true, None),
            // `{ a = 1 }` is for patterns; the parser lets it pass in some places.
            Prop::Assign(assignment) => {
                let problem = Problem::new(assignment.span, "a property is given its value with `:`, not with `=`");
                self.problems.push(problem);
            }
            _ => property.visit_children_with(self),
        }
    }

    fn visit_export_named_specifier(&mut self, specifier: &ExportNamedSpecifier) {
        if let ModuleExportName::Ident(ident) = &specifier.orig {
            self.used(ident, Use::Read, false, None);
        }
    }

    fn visit_named_export(&mut self, export: &NamedExport) {
        // `export { x } from 'y'` does not use a name of this module.
        if export.src.is_none() {
            export.visit_children_with(self);
        }
    }

    fn visit_call_expr(&mut self, call: &CallExpr) {
        match &call.callee {
            Callee::Expr(callee) => {
                self.promise_chain(call);
                self.call(call.span.into(), callee, &call.args);
            }
            Callee::Super(_) | Callee::Import(_) => self.arguments(&call.args, false),
        }
    }

    fn visit_opt_call(&mut self, call: &OptCall) {
        self.call(call.span.into(), &call.callee, &call.args);
    }

    fn visit_new_expr(&mut self, new: &NewExpr) {
        if let Expr::Ident(class) = new.callee.unwrap_parens() {
            self.refuse_code_generation(class);
        }
        new.callee.visit_with(self);
        self.arguments(new.args.as_deref().unwrap_or_default(), false);
    }

    fn visit_await_expr(&mut self, wait: &AwaitExpr) {
        self.awaits_here();
        wait.visit_children_with(self);
    }

    fn visit_return_stmt(&mut self, statement: &ReturnStmt) {
        if !self.in_function() {
            self.problems.push(parse::return_outside(statement.span.into()));
        }
        statement.visit_children_with(self);
    }

    fn visit_function(&mut self, function: &Function) {
        self.function(None, function);
    }

    fn visit_fn_expr(&mut self, expression: &FnExpr) {
        self.function(expression.ident.as_ref(), &expression.function);
    }

    fn visit_arrow_expr(&mut self, arrow: &ArrowExpr) {
        self.with_function(scope::pattern_names(&arrow.params), |walk| {
            arrow.params.visit_with(walk);
            match &*arrow.body {
                BlockStmtOrExpr::BlockStmt(body) => walk.body(Some(body)),
                BlockStmtOrExpr::Expr(value) => value.visit_with(walk),
            }
        });
    }

    fn visit_getter_prop(&mut self, getter: &GetterProp) {
        getter.key.visit_with(self);
        self.with_own_arguments(Names::new(), |walk| walk.body(getter.body.as_ref()));
    }

    fn visit_setter_prop(&mut self, setter: &SetterProp) {
        setter.key.visit_with(self);
        self.with_own_arguments(scope::pattern_names([&*setter.param]), |walk| {
            setter.param.visit_with(walk);
            walk.body(setter.body.as_ref());
        });
    }

    fn visit_constructor(&mut self, constructor: &Constructor) {
        let params = constructor.params.iter().filter_map(|param| match param {
            ParamOrTsParamProp::Param(param) => Some(&param.pat),
            ParamOrTsParamProp::TsParamProp(_) => None,
        });
        self.with_own_arguments(scope::pattern_names(params), |walk| {
            constructor.params.visit_with(walk);
            walk.body(constructor.body.as_ref());
        });
    }

    fn visit_class_expr(&mut self, class: &ClassExpr) {
        let names = class.ident.iter().map(|ident| (ident.sym.clone(), Binding::Local)).collect();
        self.with_scope(names, |walk| class.class.visit_with(walk));
    }

    fn visit_class_prop(&mut self, property: &ClassProp) {
        property.key.visit_with(self);
        self.with_function(Names::new(), |walk| property.value.visit_with(walk));
    }

    fn visit_private_prop(&mut self, property: &PrivateProp) {
        self.with_function(Names::new(), |walk| property.value.visit_with(walk));
    }

    fn visit_auto_accessor(&mut self, accessor: &AutoAccessor) {
        accessor.key.visit_with(self);
        self.with_function(Names::new(), |walk| accessor.value.visit_with(walk));
    }

    fn visit_static_block(&mut self, block: &StaticBlock) {
        self.with_function(Names::new(), |walk| walk.body(Some(&block.body)));
    }

    fn visit_block_stmt(&mut self, block: &BlockStmt) {
        self.block(scope::block_names(&block.stmts), |walk| block.stmts.visit_with(walk));
    }

    fn visit_switch_stmt(&mut self, switch: &SwitchStmt) {
        switch.discriminant.visit_with(self);
        let names = scope::block_names(switch.cases.iter().flat_map(|case| &case.cons));
        self.block(names, |walk| switch.cases.visit_with(walk));
    }

    fn visit_catch_clause(&mut self, handler: &CatchClause) {
        self.with_scope(scope::pattern_names(&handler.param), |walk| handler.visit_children_with(walk));
    }

    fn visit_for_stmt(&mut self, each: &ForStmt) {
        let names = match &each.init {
            Some(VarDeclOrExpr::VarDecl(declaration)) => scope::head_names(declaration),
            Some(VarDeclOrExpr::Expr(_)) | None => Names::new(),
        };
        self.with_scope(names, |walk| each.visit_children_with(walk));
    }

    fn visit_for_in_stmt(&mut self, each: &ForInStmt) {
        self.loop_over(&each.left, &each.right, &each.body);
    }

    fn visit_for_of_stmt(&mut self, each: &ForOfStmt) {
        if each.is_await {
            self.awaits_here();
        }
        self.loop_over(&each.left, &each.right, &each.body);
    }
}
