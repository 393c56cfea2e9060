//! Takes values out of the tree of a file and says what is wrong with those that do not fit.
//!
//! Nothing here stops: a value that does not fit is reported and left out, and reading goes on, so that all problems of a
//! project are found in one go.

use std::ops::{Range, RangeInclusive};
use std::rc::Rc;
use std::time::Duration;

use super::problem::{Problem, Problems, Source, did_you_mean, quoted};
use super::yaml::{Entry, Fault, Kind, Node};
use crate::quantity::Span;

/// One file that is being read.
pub(super) struct Reader<'a> {
    pub source: &'a Source,
    pub problems: &'a mut Problems,
}

/// The entries of a mapping whose keys are known.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// What stands at `key`, unless it is left out or null.
    pub fn get(&self, key: &str) -> Option<&'n Rc<Node>> {
        self.entry(key).map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    pub fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The keys among `keys` that are there, in the order of the file.
    pub fn among(&self, keys: &[&str]) -> Vec<&'n Entry> {
        self.entries.iter().filter(|entry| keys.contains(&entry.key.as_str())).collect()
    }
}

impl Reader<'_> {
    pub fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        if !self.problems.are_many() {
            self.problems.error(self.source.problem(span, message));
        }
    }

    pub fn error_with_hint(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        if !self.problems.are_many() {
            self.problems.error(self.source.problem(span, message).hint(hint));
        }
    }

    pub fn warning(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        if !self.problems.warnings_are_many() {
            self.problems.warning(self.source.problem(span, message).hint(hint));
        }
    }

    /// A name that leads nowhere: the hint is the known name that is meant, or else `otherwise`.
    pub fn unknown<'k>(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'k str>,
        otherwise: impl Into<String>,
    ) {
        if !self.problems.are_many() {
            let hint = did_you_mean(name, known).unwrap_or_else(|| otherwise.into());
            self.error_with_hint(span, message, hint);
        }
    }

    pub fn faults(&mut self, faults: Vec<Fault>) {
        for Fault { span, mut message, hint, first } in faults.into_iter().take(Problems::MOST) {
            if let Some(first) = first {
                message += &format!("; the first one is in line {}", self.source.line_of(first.start) + 1);
            }
            let problem = Problem { hint, ..self.source.problem(&span, message) };
            self.problems.error(problem);
        }
    }

    /// Something else was expected here.
    pub fn wrong_type(&mut self, node: &Node, what: &str, expected: &str) {
        self.error_with_hint(&node.span, format!("{what} is {}", node.found()), format!("write {expected}"));
    }

    /// The entries of a mapping of names that people choose.
    pub fn entries<'n>(&mut self, node: &'n Node, what: &str, expected: &str) -> &'n [Entry] {
        match &node.kind {
            Kind::Map(entries) => entries,
            _ => {
                self.wrong_type(node, what, expected);
                &[]
            }
        }
    }

    /// The entries of a mapping that may have these keys and no others. Those that begin with `x-` are the author's own.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &str, keys: &[&str]) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            let known = keys.iter().take(3).map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            self.wrong_type(node, what, &format!("a mapping, with keys such as {known}"));
            return None;
        };
        for entry in entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
            if !keys.contains(&entry.key.as_str()) {
                let message = format!("{what} has no key {}", quoted(&entry.key));
                let otherwise = format!("the keys are {}", keys.join(", "));
                self.unknown(&entry.key_span, message, &entry.key, keys.iter().copied(), otherwise);
            }
        }
        Some(Fields { entries })
    }

    /// The items of a list; a single value counts as a list of one.
    pub fn items<'n>(&mut self, node: &'n Rc<Node>) -> &'n [Rc<Node>] {
        match &node.kind {
            Kind::List(items) => items,
            _ => std::slice::from_ref(node),
        }
    }

    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let text = node.as_text();
        if text.is_none() {
            self.wrong_type(node, what, "a text; put it in quotes if it looks like something else");
        }
        text
    }

    /// A name that people choose: what looks like a number is one, too.
    pub fn name<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar(scalar) if !scalar.text.is_empty() => Some(&scalar.text),
            _ => {
                self.wrong_type(node, what, "a name");
                None
            }
        }
    }

    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let value = node.to_value().as_bool();
        if value.is_none() {
            self.wrong_type(node, what, "true or false");
        }
        value
    }

    pub fn integer(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = node.to_value().as_u64().filter(|value| range.contains(value));
        if value.is_none() {
            let (from, to) = (range.start(), range.end());
            let hint = format!("write a whole number from {from} to {to}");
            self.unfit(node, what, hint);
        }
        value
    }

    pub fn number(&mut self, node: &Node, what: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = node.to_value().as_f64().filter(|value| range.contains(value));
        if value.is_none() {
            let hint = format!("write a number from {} to {}", range.start(), range.end());
            self.unfit(node, what, hint);
        }
        value
    }

    pub fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let parsed = match &node.kind {
            Kind::Scalar(scalar) => scalar.text.parse::<Span>(),
            _ => Err("write a length of time such as 30s or 2m".to_owned()),
        };
        match parsed {
            Ok(Span(duration)) => Some(duration),
            Err(hint) => {
                self.error_with_hint(&node.span, format!("{what} is no length of time"), hint);
                None
            }
        }
    }

    /// A value of the right kind, perhaps, that is none of those it can be.
    fn unfit(&mut self, node: &Node, what: &str, hint: String) {
        let found = match &node.kind {
            Kind::Scalar(scalar) => quoted(&scalar.text),
            Kind::List(_) | Kind::Map(_) => node.found().to_owned(),
        };
        self.error_with_hint(&node.span, format!("{what} cannot be {found}"), hint);
    }

    /// One of a few words.
    pub fn keyword<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let written = match &node.kind {
            Kind::Scalar(scalar) => scalar.text.as_str(),
            _ => "",
        };
        let found = words.iter().find(|(word, _)| *word == written).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let otherwise = format!("write {}", known.join(" or "));
            let hint = did_you_mean(written, known).unwrap_or(otherwise);
            self.unfit(node, what, hint);
        }
        found
    }
}
