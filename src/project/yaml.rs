//! A YAML or JSON text as a tree in which every key and value knows where it stands.
//!
//! Reading into structs would stop at the first value that does not fit, and forget the places of those that do. So the
//! events of the parser that [`serde_saphyr`] stands on become a tree of our own, and whoever reads the tree says what is
//! wrong at every place where something is.
//!
//! A text is read in linear time whatever is in it: an alias shares what its anchor names, and a tree that would be too
//! large or too deep when written out is refused.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use serde_json::Value;
use serde_saphyr::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, Tag};

/// A value and where it stands.
pub(super) struct Node {
    /// Bytes of the text.
    pub span: Range<usize>,
    pub kind: Kind,
    /// Nodes in it, itself included, as if aliases were written out.
    weight: usize,
    /// Levels below it.
    height: usize,
}

pub(super) enum Kind {
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

pub(super) struct Scalar {
    pub text: String,
    pub style: ScalarStyle,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub value: Rc<Node>,
}

/// Something that is wrong with the text itself.
#[derive(Debug)]
pub(super) struct Fault {
    pub span: Range<usize>,
    pub message: String,
    pub hint: Option<String>,
    /// Where the same key stood first.
    pub first: Option<Range<usize>>,
}

/// What a text holds. `root` is there even if it has faults, unless it could not be read to its end.
pub(super) struct Document {
    pub root: Option<Rc<Node>>,
    pub faults: Vec<Fault>,
}

const DEEPEST: usize = 64;
const MOST_NODES: usize = 1_000_000;

/// Reads a text without byte order mark.
pub(super) fn parse(text: &str) -> Document {
    let mut builder = Builder::default();
    let mut options = Options::default();
    options.emit_comments = false;
    // One more than is allowed, so that the message is ours.
    options.flow_nesting_limit = DEEPEST + 1;
    options.block_nesting_limit = DEEPEST + 1;
    for event in Parser::new_from_str_with_options(text, options) {
        let added = match event {
            Ok((event, span)) => {
                let tag_span = span.tag_span().unwrap_or(span);
                builder.add(event, &bytes(text, &span), &bytes(text, &tag_span))
            }
            Err(error) => Err(scan_fault(text, &error)),
        };
        if let Err(fault) = added {
            builder.faults.push(fault);
            return Document { root: None, faults: builder.faults };
        }
    }
    Document { root: builder.root, faults: builder.faults }
}

/// The parser counts bytes of a text that it has as a whole.
fn bytes(text: &str, span: &Span) -> Range<usize> {
    let at = |offset: Option<usize>| text.floor_char_boundary(offset.unwrap_or(0).min(text.len()));
    at(span.start.byte_offset())..at(span.end.byte_offset())
}

/// Builds the tree from events, without recursion.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    /// Anchor → what it names, once that is complete.
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    nodes: usize,
    faults: Vec<Fault>,
}

/// A list or mapping whose end has not come yet.
struct Open {
    start: usize,
    anchor: usize,
    children: Children,
}

enum Children {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, key: Option<(String, Range<usize>)> },
}

impl Builder {
    fn add(&mut self, event: Event, span: &Range<usize>, tag_span: &Range<usize>) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(fault(span, "a second document begins here").hint("a project is one document: take out the `---`"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                // An explicit `!!str` makes a text of what would be a number, as quotes do.
                let as_text = tag.as_ref().is_some_and(|tag| tag.core_suffix() == Some("str"));
                let style = if as_text { ScalarStyle::DoubleQuoted } else { style };
                self.check_tag(tag.as_deref(), tag_span);
                // What is left out has no length, but the parser calls it `~`.
                let text = if span.is_empty() { String::new() } else { text.into_owned() };
                self.complete(span.clone(), Kind::Scalar(Scalar { text, style }), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), tag_span);
                self.open(span, anchor, Children::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), tag_span);
                self.open(span, anchor, Children::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(fault(span, "this alias stands within what it names"));
                };
                self.count(node.weight, span)?;
                self.attach(node, span)
            }
            _ => Ok(()),
        }
    }

    /// Tags of YAML itself change nothing here; others, such as `!include`, would have to do something.
    fn check_tag(&mut self, tag: Option<&Tag>, span: &Range<usize>) {
        if tag.is_some_and(|tag| tag.core_suffix().is_none()) {
            self.faults.push(fault(span, "this tag has no meaning here").hint("take out the tag"));
        }
    }

    fn open(&mut self, span: &Range<usize>, anchor: usize, children: Children) -> Result<(), Fault> {
        if self.open.len() >= DEEPEST {
            return Err(too_deep(span));
        }
        self.open.push(Open { start: span.start, anchor, children });
        Ok(())
    }

    fn close(&mut self, span: &Range<usize>) -> Result<(), Fault> {
        let Some(Open { start, anchor, children }) = self.open.pop() else { return Ok(()) };
        let kind = match children {
            Children::List(items) => Kind::List(items),
            Children::Map { entries, .. } => Kind::Map(self.merged(entries)),
        };
        self.complete(start..span.end.max(start), kind, anchor)
    }

    fn complete(&mut self, span: Range<usize>, kind: Kind, anchor: usize) -> Result<(), Fault> {
        self.count(1, &span)?;
        let (weight, height) = match &kind {
            Kind::Scalar(_) => (0, 0),
            Kind::List(items) => size(items.iter()),
            Kind::Map(entries) => size(entries.iter().map(|entry| &entry.value)),
        };
        let node = Rc::new(Node { span: span.clone(), kind, weight: weight + 1, height });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, &span)
    }

    /// Puts a node where the text has it; `span` is where it is used.
    fn attach(&mut self, node: Rc<Node>, span: &Range<usize>) -> Result<(), Fault> {
        if self.open.len() + node.height > DEEPEST {
            return Err(too_deep(span));
        }
        match self.open.last_mut().map(|open| &mut open.children) {
            None => self.root = Some(node),
            Some(Children::List(items)) => items.push(node),
            Some(Children::Map { entries, key }) => match key.take() {
                Some((key, key_span)) => entries.push(Entry { key, value: standing_at(node, &key_span), key_span }),
                None => match &node.kind {
                    Kind::Scalar(scalar) => *key = Some((scalar.text.clone(), span.clone())),
                    Kind::List(_) | Kind::Map(_) => {
                        return Err(
                            fault(span, "a list or mapping cannot be a key").hint("put a text in braces in quotes")
                        );
                    }
                },
            },
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: &Range<usize>) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes <= MOST_NODES {
            return Ok(());
        }
        Err(fault(span, format!("there are more than {MOST_NODES} values, those that aliases repeat included")))
    }

    /// The entries with those of `<<` added, after a look for keys that stand twice.
    fn merged(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut places: HashMap<String, usize> = HashMap::with_capacity(entries.len());
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        let mut merges = Vec::new();
        for entry in entries {
            if entry.key == "<<" {
                merges.push(entry);
            } else if let Some(first) = places.get(&entry.key) {
                let first = Some(kept[*first].key_span.clone());
                let duplicate = fault(&entry.key_span, "this key stands here for the second time");
                self.faults.push(Fault { first, ..duplicate.hint("rename one of the two, or take one out") });
            } else {
                places.insert(entry.key.clone(), kept.len());
                kept.push(entry);
            }
        }
        for merge in merges {
            let sources: &[Rc<Node>] = match &merge.value.kind {
                Kind::List(items) => items,
                _ => std::slice::from_ref(&merge.value),
            };
            for source in sources {
                let Kind::Map(added) = &source.kind else {
                    self.faults.push(fault(&source.span, "`<<` takes a mapping, or a list of mappings"));
                    continue;
                };
                for entry in added {
                    if !places.contains_key(&entry.key) {
                        places.insert(entry.key.clone(), kept.len());
                        kept.push(entry.clone());
                    }
                }
            }
        }
        kept
    }
}

/// A value that was left out stands nowhere; messages about it point at its key.
fn standing_at(node: Rc<Node>, key: &Range<usize>) -> Rc<Node> {
    match Rc::try_unwrap(node) {
        Ok(node) if node.span.is_empty() => Rc::new(Node { span: key.clone(), ..node }),
        Ok(node) => Rc::new(node),
        Err(shared) => shared,
    }
}

fn size<'a>(children: impl Iterator<Item = &'a Rc<Node>>) -> (usize, usize) {
    children.fold((0, 0), |(weight, height), child| (weight + child.weight, height.max(child.height + 1)))
}

fn too_deep(span: &Range<usize>) -> Fault {
    fault(span, format!("this is nested more than {DEEPEST} levels deep"))
}

fn fault(span: &Range<usize>, message: impl Into<String>) -> Fault {
    Fault { span: span.clone(), message: message.into(), hint: None, first: None }
}

impl Fault {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What the parser could not read, in words that do not need the grammar of YAML. Nothing of the text is in them.
fn scan_fault(text: &str, error: &ScanError) -> Fault {
    use ErrorKind::*;
    let (message, hint) = match error.kind() {
        TabNotAllowed | TabInBlockIndentation | TabInIndentation | TabInPlainScalar | TabAtBlockScalarStart => {
            ("a tab cannot indent", Some("indent with spaces"))
        }
        MappingValueNotAllowed | InvalidColonPlacement => (
            "a `:` is not expected here",
            Some("put a text that holds `: ` in quotes, and check how the line is indented"),
        ),
        ExpectedBlockMappingKey | SimpleKeyExpected | InvalidSimpleKey => {
            ("a key with a `:` is expected here", Some("check how this line and the one before are indented"))
        }
        InvalidIndentation | InvalidFlowScalarIndent | InvalidBlockScalarIndent => {
            ("this is not indented as what it belongs to", Some("indent the parts of one thing alike"))
        }
        InvalidQuotedScalarIndent => (
            "a text in quotes that begins above goes on here, and is not indented",
            Some("add the quote that ends it, or indent this line further"),
        ),
        UnclosedQuotedScalar | DocumentIndicatorInQuotedScalar => {
            ("the quote that begins a text before this has no end", Some("add the missing quote"))
        }
        InvalidTrailingSingleQuotedScalar | InvalidTrailingDoubleQuotedScalar => (
            "this cannot follow a text in quotes",
            Some("add the `,` or the line break between the two; within single quotes, write '' for a quote"),
        ),
        UnclosedFlowCollection { .. }
        | UnexpectedEofFlowSequence
        | UnexpectedEofFlowMapping
        | UnexpectedEofImplicitFlowMapping => (
            "a value is missing here, or a bracket is not closed",
            Some("close every `[` and `{`, and take out a `,` too many"),
        ),
        ExpectedFlowMappingSeparator | ExpectedFlowSequenceSeparator => (
            "a `,` or a closing bracket is expected here",
            Some("close every `[` and `{`, and put texts that hold them in quotes"),
        ),
        MismatchedFlowCollectionEnd { .. } | MisplacedFlowCollectionEnd => {
            ("this bracket closes nothing", Some("check that every `[` has its `]`, and every `{` its `}`"))
        }
        UnknownAnchor => ("there is no anchor of this name above", Some("put a text that begins with `*` in quotes")),
        UnexpectedCharacter { .. } | MissingAnchorOrAliasName | PlainScalarStartsWithDashFlowIndicator => {
            ("a value cannot begin with this character", Some("put the text in quotes"))
        }
        UnknownQuotedScalarEscape
        | InvalidQuotedScalarHexEscape
        | InvalidUnicodeEscape
        | InvalidLowSurrogateHexEscape
        | InvalidLowSurrogate
        | MissingLowSurrogate
        | UnpairedLowSurrogate => {
            ("what follows this `\\` is no escape", Some("write the text in single quotes, where `\\` is only itself"))
        }
        RecursionLimitExceeded => return too_deep(&place(text, error)),
        BomInsideDocument => ("a byte order mark stands in the middle of the text", Some("take it out")),
        _ => ("this is not valid YAML", Some("check the quotes, the brackets and how the lines are indented")),
    };
    Fault { hint: hint.map(str::to_owned), ..fault(&place(text, error), message) }
}

fn place(text: &str, error: &ScanError) -> Range<usize> {
    let at = text.floor_char_boundary(error.marker().byte_offset().unwrap_or(0).min(text.len()));
    at..at + text[at..].chars().next().map_or(0, char::len_utf8)
}

impl Node {
    /// The text of a scalar that is one: in quotes, or nothing else.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) if scalar.value().is_string() => Some(&scalar.text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.value().is_null())
    }

    /// What JSON calls the kind of value that this is.
    pub fn found(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Scalar(scalar) => match scalar.value() {
                Value::Null => "nothing",
                Value::Bool(_) => "true or false",
                Value::Number(_) => "a number",
                _ => "a text",
            },
        }
    }

    /// The whole as a value of JSON.
    pub fn to_value(&self) -> Value {
        self.to_value_with(&mut |_, text| text.to_owned())
    }

    /// The same, with every text in it made anew.
    pub fn to_value_with(&self, text: &mut impl FnMut(&Node, &str) -> String) -> Value {
        match &self.kind {
            Kind::Scalar(scalar) => match scalar.value() {
                Value::String(_) => Value::String(text(self, &scalar.text)),
                other => other,
            },
            Kind::List(items) => items.iter().map(|item| item.to_value_with(text)).collect(),
            Kind::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value_with(text))).collect()
            }
        }
    }
}

impl Scalar {
    /// What a scalar is by the core schema of YAML 1.2. Digits that are no number people count with stay text: a leading
    /// zero, or more digits than a number keeps, is the mark of a code.
    pub fn value(&self) -> Value {
        if self.style != ScalarStyle::Plain {
            return Value::String(self.text.clone());
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            text => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
        }
    }
}

fn number(text: &str) -> Option<Value> {
    let radix = [("0x", 16), ("0o", 8)].iter().find_map(|(prefix, radix)| Some((text.strip_prefix(prefix)?, *radix)));
    if let Some((digits, radix)) = radix {
        let is_digits = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        return is_digits.then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Value::from);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') || unsigned.ends_with(['e', 'E', '+', '-']) {
        return None;
    }
    if unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit() {
        return None;
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let plain = text.strip_prefix('+').unwrap_or(text);
        return plain.parse::<i64>().map(Value::from).or_else(|_| plain.parse::<u64>().map(Value::from)).ok();
    }
    let is_decimal = unsigned.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let float = is_decimal.then(|| text.parse::<f64>().ok()).flatten()?;
    serde_json::Number::from_f64(float).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        let document = parse(text);
        assert!(document.faults.is_empty(), "{text}: {:?}", document.faults);
        document.root.map_or(Value::Null, |root| root.to_value())
    }

    fn faults(text: &str) -> Vec<(String, String)> {
        parse(text).faults.into_iter().map(|fault| (text[fault.span].to_owned(), fault.message)).collect()
    }

    #[test]
    fn scalars_are_what_the_core_schema_says() {
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("null", json!(null)),
            ("'null'", json!("null")),
            ("!!str 5", json!("5")),
            ("yes", json!("yes")),
            ("on", json!("on")),
            ("True", json!(true)),
            ("5", json!(5)),
            ("+5", json!(5)),
            ("-5", json!(-5)),
            ("18446744073709551615", json!(u64::MAX)),
            ("123456789012345678901", json!("123456789012345678901")),
            ("0070", json!("0070")),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("1.5e3", json!(1500.0)),
            (".5", json!(0.5)),
            ("1.2.3", json!("1.2.3")),
            ("1e", json!("1e")),
            (".", json!(".")),
            ("-", json!([null])),
            (".inf", json!(".inf")),
            ("2026-11-21", json!("2026-11-21")),
            ("|\n  a\n  b\n", json!("a\nb\n")),
            (">-\n  a\n  b\n", json!("a b")),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn json_is_read_as_it_is() {
        assert_eq!(
            value("{\n\t\"a\": [1, \"\\u00e9\\/\\ud83d\\ude00\"],\n\t\"b\":{}\n}"),
            json!({ "a": [1, "é/😀"], "b": {} })
        );
    }

    #[test]
    fn anchors_and_merges_repeat_what_they_name() {
        let text = "a: &x {n: 1, m: 2}\nb: *x\nc: {<<: *x, n: 3}\nd: {<<: [{p: 1}, *x], m: 4}";
        assert_eq!(
            value(text),
            json!({
                "a": { "n": 1, "m": 2 }, "b": { "n": 1, "m": 2 }, "c": { "n": 3, "m": 2 },
                "d": { "m": 4, "p": 1, "n": 1 },
            })
        );
        assert_eq!(faults("a: &x [*x]")[0].0, "*x");
        assert_eq!(faults("a: {<<: 1}")[0].0, "1");
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let text = "é: 'x y'\nlist:\n  - 1\n  - b: |\n      text\n      more\nempty:\nlast: {a: 1}\n";
        let root = parse(text).root.unwrap();
        let Kind::Map(entries) = &root.kind else { panic!() };
        let shown: Vec<(&str, &str)> =
            entries.iter().map(|entry| (&text[entry.key_span.clone()], &text[entry.value.span.clone()])).collect();
        assert_eq!(shown[0], ("é", "'x y'"));
        assert_eq!(shown[1].0, "list");
        assert!(shown[1].1.starts_with("- 1\n"), "{shown:?}");
        assert_eq!(shown[2], ("empty", "empty"));
        assert_eq!(shown[3], ("last", "{a: 1}"));
    }

    #[test]
    fn faults_are_found_with_their_place() {
        let only = |text| faults(text).remove(0).0;
        assert_eq!(faults("a: 1\nb: 2\na: 3\nb: 4").len(), 2);
        assert_eq!(only("a: 1\n'a': 3"), "'a'");
        assert_eq!(only("[a]: 3"), "[a]");
        assert_eq!(only("a: !include x"), "!include");
        assert!(faults("a: 1\n---\nb: 2")[0].1.contains("second document"));
        assert!(faults("a:\n\t- 1")[0].1.contains("tab"));
        assert!(faults("a: 'x")[0].1.contains("quote"));
        assert!(faults("a: [1, 2")[0].1.contains("is not closed"));
        assert!(faults("a: b: c")[0].1.contains("`:`"));
        assert!(faults("a: *x")[0].1.contains("anchor"));
    }

    #[test]
    fn what_would_be_too_large_or_too_deep_is_refused() {
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for level in 1..60 {
            let before = vec![format!("*a{}", level - 1); 10].join(",");
            bomb += &format!("a{level}: &a{level} [{before}]\n");
        }
        assert!(faults(&bomb)[0].1.contains("more than 1000000 values"));
        let mut ladder = "a0: &a0 [x]\n".to_owned();
        for level in 1..100 {
            ladder += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        for deep in [
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            (0..1000).map(|level| format!("{}a:\n", " ".repeat(level))).collect(),
            ladder,
        ] {
            let faults = faults(&deep);
            assert!(faults[0].1.contains("levels deep"), "{faults:?}");
        }
        assert_eq!(
            parse(&"[".repeat(DEEPEST)).faults[0].message,
            "a value is missing here, or a bracket is not closed"
        );
    }
}
