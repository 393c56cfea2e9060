//! What is wrong with a job, shown to the person who wrote it.
//!
//! The compiler collects every problem it finds before it gives up, and shows each with its place, the line it is in and,
//! where there is one, a way out.

use std::fmt;
use std::sync::Arc;

use super::edit::Range;
use super::lines::{Lines, utf16_length};

/// Why a job does not compile: all its problems, in the order of the source.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", Rendered(.diagnostics))]
pub struct CompileError {
    pub diagnostics: Vec<Diagnostic>,
}

/// One problem of a job. Its `Display` is the full, several-line form that people read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, in one line.
    pub message: String,
    /// The job as the caller named it.
    pub file_name: Arc<str>,
    /// Line in the source, from 1.
    pub line: u32,
    /// Column in the source, from 1, in UTF-16 code units.
    pub column: u32,
    /// How much of the line is meant, in UTF-16 code units; at least 1.
    pub length: u32,
    /// The line of the source.
    pub source_line: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// A problem while the compiler is still counting in bytes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) range: Range,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Problem {
    pub(super) fn new(range: impl Into<Range>, message: impl Into<String>) -> Self {
        Self { range: range.into(), message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl CompileError {
    pub(super) fn new(file_name: &str, source: &str, lines: &Lines, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        let file_name: Arc<str> = file_name.into();
        let diagnostics = problems
            .into_iter()
            .map(|problem| {
                let (line, column) = lines.position(source, problem.range.lo);
                let source_line = lines.line(source, line);
                let line_end = lines.start(source, line) + source_line.len() as u32;
                let shown = Range::new(problem.range.lo, problem.range.hi.min(line_end));
                Diagnostic {
                    message: problem.message,
                    file_name: Arc::clone(&file_name),
                    line: line + 1,
                    column: column + 1,
                    length: utf16_length(shown.text(source)).max(1),
                    source_line: source_line.to_owned(),
                    help: problem.help,
                }
            })
            .collect();
        Self { diagnostics }
    }
}

struct Rendered<'a>(&'a [Diagnostic]);

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, file_name, line, column, length, source_line, help } = self;
        let snippet = Snippet::new(source_line, *column, *length);
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{file_name}:{line}:{column}: {message}")?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {}", snippet.text)?;
        write!(f, "{gutter} | {}", snippet.carets)?;
        if let Some(help) = help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

/// A line of source cut to a readable width, and the carets that go under it.
struct Snippet {
    text: String,
    carets: String,
}

impl Snippet {
    /// Characters shown of a line. Generated jobs have lines of many kilobytes.
    const WIDTH: usize = 120;
    /// Characters shown before the problem when a line is cut.
    const BEFORE: usize = 40;

    fn new(line: &str, column: u32, length: u32) -> Self {
        // From UTF-16 code units to characters.
        let mut units = 1;
        let mut from = 0_usize;
        let mut marked = 0;
        for c in line.chars() {
            if units < column {
                from += 1;
            } else if units < column + length {
                marked += 1;
            }
            units += c.len_utf16() as u32;
        }
        let total = line.chars().count();
        let first = if total > Self::WIDTH { from.saturating_sub(Self::BEFORE) } else { 0 };
        let last = total.min(first + Self::WIDTH);

        let mut text = String::new();
        let mut carets = String::new();
        if first > 0 {
            text.push('…');
            carets.push(' ');
        }
        for (index, c) in line.chars().enumerate().take(last).skip(first) {
            let marked = (from..from + marked).contains(&index);
            text.push(c);
            match (marked, c) {
                (false, '\t') => carets.push('\t'),
                (false, c) => carets.extend(std::iter::repeat_n(' ', columns(c))),
                // An invisible character can be the very problem.
                (true, c) => carets.extend(std::iter::repeat_n('^', columns(c).max(1))),
            }
        }
        if last < total {
            text.push('…');
        }
        if marked == 0 {
            // The problem is the end of the line itself.
            carets.push('^');
        }
        Self { text, carets: carets.trim_end().to_owned() }
    }
}

/// Cells of a terminal that a character takes: the caret must stand under the problem in Chinese too.
fn columns(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036F | 0x200B..=0x200F | 0xFE00..=0xFE0F | 0xFEFF => 0,
        0x1100..=0x115F
        | 0x2E80..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE4F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1FAFF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str, needle: &str) -> String {
        let lo = source.find(needle).unwrap() as u32;
        let problem = Problem::new(Range::new(lo, lo + needle.len() as u32), "bad");
        let lines = Lines::new(source);
        CompileError::new("job.js", source, &lines, vec![problem]).to_string()
    }

    #[test]
    fn carets_stand_under_the_problem() {
        assert_eq!(
            shown("one;\n\t'é😀数'; wrong;", "wrong"),
            "job.js:2:10: bad\n  |\n2 | \t'é😀数'; wrong;\n  | \t         ^^^^^"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_problem() {
        let source = format!("{}wrong{}", "a".repeat(1000), "b".repeat(1000));
        let shown = shown(&source, "wrong");
        let text = shown.lines().nth(2).unwrap();
        let carets = shown.lines().nth(3).unwrap();
        assert!(text.chars().count() < 140);
        assert_eq!(carets.chars().position(|c| c == '^'), text.chars().position(|c| c == 'w'));
    }

    #[test]
    fn a_problem_of_several_lines_is_shown_on_its_first() {
        assert_eq!(shown("a(b\nc)", "(b\nc)"), "job.js:1:2: bad\n  |\n1 | a(b\n  |  ^^");
    }
}
