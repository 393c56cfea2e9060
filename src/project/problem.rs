//! What is wrong with a project, told so that people can mend it: where, what, and what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compile::Diagnostic;

/// Something in a project that has to be, or should be, mended. No part of a credential is ever in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1.
    pub line: Option<u64>,
    /// From 1, in UTF-16 code units, as editors count.
    pub column: Option<u64>,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    pub excerpt: Option<Excerpt>,
}

/// The line that a problem is in. There is none where the line may hold a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Excerpt {
    pub line: String,
    /// How much of it is meant, in UTF-16 code units.
    pub length: u64,
}

impl Problem {
    /// A problem with a file as a whole.
    pub fn of_file(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        let (file, message) = (file.into(), printable(&message.into()));
        Self { file, line: None, column: None, message, hint: None, excerpt: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The problem as people read it, in the form of the compiler's; `kind` is `error` or `warning`.
    pub fn render(&self, kind: &str) -> String {
        let message = format!("{kind}: {}", self.message);
        if let (Some(line), Some(column), Some(excerpt)) = (self.line, self.column, &self.excerpt) {
            let diagnostic = Diagnostic {
                message,
                file_name: Arc::from(self.file.to_string_lossy()),
                line: line as u32,
                column: column as u32,
                length: excerpt.length as u32,
                source_line: excerpt.line.clone(),
                help: self.hint.clone(),
            };
            return diagnostic.to_string();
        }
        let place = [self.line, self.column].iter().flatten().map(|number| format!(":{number}")).collect::<String>();
        let help = self.hint.as_ref().map(|hint| format!("\nhelp: {hint}")).unwrap_or_default();
        format!("{}{place}: {message}{help}", self.file.display())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render("error"))
    }
}

/// All that was found while a project was read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Problems {
    /// Of each kind: nobody reads more, and a file of megabytes may be wrong in every line.
    pub const MOST: usize = 100;

    pub fn error(&mut self, problem: Problem) {
        if !self.are_many() {
            self.errors.push(problem);
        }
    }

    pub fn warning(&mut self, problem: Problem) {
        if !self.warnings_are_many() {
            self.warnings.push(problem);
        }
    }

    /// Whether no more errors are kept, so that none need be made.
    pub fn are_many(&self) -> bool {
        self.errors.len() >= Self::MOST
    }

    pub fn warnings_are_many(&self) -> bool {
        self.warnings.len() >= Self::MOST
    }

    /// In the order of the files and their lines.
    pub fn sorted(mut self) -> Self {
        let place = |problem: &Problem| (problem.file.clone(), problem.line, problem.column);
        self.errors.sort_by_key(place);
        self.warnings.sort_by_key(place);
        self
    }
}

/// A file that was read, and the places in it.
pub(super) struct Source {
    /// As messages name it.
    pub file: PathBuf,
    pub text: String,
    line_starts: Vec<usize>,
    /// Where secrets may be: lines that touch these bytes are never shown.
    secret: Vec<Range<usize>>,
}

impl Source {
    /// Lines longer than this were not written by hand, and are not shown.
    pub const LONGEST_LINE: usize = 2000;

    pub fn new(file: &Path, text: String) -> Self {
        let bytes = text.as_bytes();
        let ends_line = |at: &usize| bytes[*at] == b'\n' || bytes[*at] == b'\r' && bytes.get(*at + 1) != Some(&b'\n');
        let line_starts = [0].into_iter().chain((0..bytes.len()).filter(ends_line).map(|at| at + 1)).collect();
        Self { file: file.to_owned(), text, line_starts, secret: Vec::new() }
    }

    /// Takes care that nothing between these bytes is ever shown.
    pub fn keep_secret(&mut self, bytes: Range<usize>) {
        self.secret.push(bytes);
    }

    /// Something is wrong with what stands at `span`.
    pub fn problem(&self, span: &Range<usize>, message: impl Into<String>) -> Problem {
        let start = self.text.floor_char_boundary(span.start);
        let line = self.line_of(start);
        let column = utf16_length(&self.text[self.line_starts[line]..start]);
        Problem {
            file: self.file.clone(),
            line: Some(line as u64 + 1),
            column: Some(column + 1),
            message: printable(&message.into()),
            hint: None,
            excerpt: self.excerpt(line, start, span.end),
        }
    }

    /// The number of the line, from 0, that the byte at `at` is in.
    pub fn line_of(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at) - 1
    }

    /// The bytes of a line, without what ends it.
    pub fn line(&self, line: usize) -> Range<usize> {
        let start = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let end = self.line_starts.get(line + 1).copied().unwrap_or(self.text.len());
        start..start + self.text[start..end].trim_end_matches(['\n', '\r']).len()
    }

    fn excerpt(&self, line: usize, from: usize, to: usize) -> Option<Excerpt> {
        let bytes = self.line(line);
        let touches = |secret: &Range<usize>| secret.start < bytes.end && bytes.start < secret.end;
        if bytes.len() > Self::LONGEST_LINE || self.secret.iter().any(touches) {
            return None;
        }
        let to = self.text.floor_char_boundary(to.min(bytes.end)).max(from);
        // As many characters as there are, so that the caret stands below what is meant.
        let shown = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let line = self.text[bytes].chars().map(shown).collect();
        Some(Excerpt { line, length: utf16_length(&self.text[from..to]).max(1) })
    }
}

pub(super) fn utf16_length(text: &str) -> u64 {
    if text.is_ascii() { text.len() as u64 } else { text.chars().map(|c| c.len_utf16() as u64).sum() }
}

/// A name that somebody wrote, as messages show it.
pub(super) fn quoted(name: &str) -> String {
    const LONGEST: usize = 60;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &name[..end]),
        None => format!("`{name}`"),
    }
}

/// A text that stays on its line, and does nothing to a terminal.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    printable
}

/// The one of `known` that is probably meant by `word`, as a hint.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, known).map(|meant| format!("did you mean {}?", quoted(meant)))
}

pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes time in proportion to both lengths; of thousands of names, one that is close says little.
    const LONGEST: usize = 64;
    const MOST: usize = 1000;
    if word.len() > LONGEST {
        return None;
    }
    let wanted = word.to_lowercase();
    known
        .into_iter()
        .take(MOST)
        .filter(|known| known.len() <= LONGEST)
        .map(|known| (strsim::damerau_levenshtein(&wanted, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 5 && *distance < wanted.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_as_editors_count() {
        let source = Source::new(Path::new("p.yaml"), "a\r\nb😀: x\rc\n".into());
        let at = |needle: &str| {
            let start = source.text.find(needle).unwrap();
            let problem = source.problem(&(start..start + needle.len()), "wrong");
            (problem.line.unwrap(), problem.column.unwrap(), problem.excerpt.unwrap().line)
        };
        assert_eq!(at("a"), (1, 1, "a".into()));
        assert_eq!(at("x"), (2, 6, "b😀: x".into()));
        assert_eq!(at("c"), (3, 1, "c".into()));
        assert_eq!(source.problem(&(source.text.len()..99), "end").line, Some(4));
    }

    #[test]
    fn lines_with_secrets_are_not_shown() {
        let mut source = Source::new(Path::new("p.yaml"), "a: 1\nb: hunter2\nc: 2\n".into());
        source.keep_secret(8..15);
        assert_eq!(source.problem(&(5..6), "wrong").render("error"), "p.yaml:2:1: error: wrong");
        assert!(source.problem(&(0..1), "wrong").excerpt.is_some());
        assert!(source.problem(&(16..17), "wrong").excerpt.is_some());
    }

    #[test]
    fn what_is_printed_stays_on_its_line() {
        let source = Source::new(Path::new("p.yaml"), "a: \u{1b}[31mx\n".into());
        let problem = source.problem(&(0..1), format!("no {}", quoted("a\n\u{1b}[31mb")));
        assert_eq!(problem.message, "no `a\\n\\u{1b}[31mb`");
        assert_eq!(problem.excerpt.unwrap().line, "a: \u{fffd}[31mx");
        assert_eq!(quoted(&"x".repeat(1000)), format!("`{}…`", "x".repeat(60)));
    }

    #[test]
    fn what_is_meant_is_close_to_what_is_written() {
        assert_eq!(closest("expresion", ["expression", "trigger"]), Some("expression"));
        assert_eq!(closest("triger", ["expression", "trigger"]), Some("trigger"));
        assert_eq!(closest("x", ["on", "y"]), None);
        assert_eq!(closest("colour", ["cron", "overlap"]), None);
    }
}
