//! Where a text stands that is written within a project file: a job, or criteria in JSON.

use serde_saphyr::granit_parser::ScalarStyle;

use super::problem::{Source, utf16_length};
use super::yaml::{Kind, Node};

/// The place of a text within a project file.
#[derive(Clone, Debug, PartialEq)]
pub struct Inline {
    /// The line in which it begins, from 1.
    pub line: u32,
    /// Lines and columns from there to its first character, if its lines stand in the file as they are. Columns are
    /// UTF-16 code units, and the same for all its lines.
    pub offset: Option<(u32, u32)>,
}

impl Inline {
    pub(super) fn of(node: &Node, source: &Source) -> Self {
        let line = source.line_of(node.span.start);
        let Kind::Scalar(scalar) = &node.kind else { return Self { line: line as u32 + 1, offset: None } };
        let written = &source.text[node.span.clone()];
        let from = |at: usize| Some((0, utf16_length(&source.text[source.line(line).start..at]) as u32));
        let offset = match scalar.style {
            ScalarStyle::Plain if written == scalar.text => from(node.span.start),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
                if written.get(1..written.len().saturating_sub(1)) == Some(&scalar.text) && !written.contains('\n') =>
            {
                from(node.span.start + 1)
            }
            ScalarStyle::Literal => block_offset(&scalar.text, written, line, source),
            _ => None,
        };
        Self { line: line as u32 + 1, offset }
    }

    /// The byte of the file that is in this line of the text, from 1, this many bytes behind the line's beginning.
    pub(super) fn byte(&self, line: usize, behind: usize, source: &Source) -> Option<usize> {
        let (lines, columns) = self.offset?;
        let shown = source.line((self.line as usize + lines as usize + line).saturating_sub(2));
        let mut units = 0;
        let before = source.text[shown.clone()].chars().take_while(|c| {
            units += c.len_utf16() as u32;
            units <= columns
        });
        let before: usize = before.map(char::len_utf8).sum();
        Some((shown.start + before + behind).min(shown.end))
    }
}

/// How far the lines of a block that begins with `|` stand below `line`, and how many spaces stand before each.
fn block_offset(text: &str, written: &str, line: usize, source: &Source) -> Option<(u32, u32)> {
    let is_filled = |line: &&str| !line.trim().is_empty();
    let spaces = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let above = text.lines().position(|line| is_filled(&line))?;
    let header = line + usize::from(written.starts_with('|'));
    let mut lines = (header..=header + written.lines().count()).map(|line| &source.text[source.line(line)]);
    let blank = lines.clone().take_while(|line| !is_filled(line)).count();
    let shown = lines.nth(blank)?;
    let indent = spaces(shown).checked_sub(spaces(text.lines().nth(above)?))?;
    Some(((header + blank).checked_sub(line + above)? as u32, indent as u32))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::yaml;
    use super::*;

    #[test]
    fn every_character_is_found_where_it_stands() {
        for text in [
            "a: f(X)",
            "é😀: 'f(X)'",
            "a:   \"f(X)\"",
            "a: |\n  f(\n  X)\n",
            "a: |2-\n\n    f(\n\n   X)\nb: 1",
            "a: | # X\n\n\n  \n    f(\n  \n     X)\n\n\nb: X",
            "a:\r\n  b: |\r\n    f(\r\n      X)\r\n",
        ] {
            let source = Source::new(Path::new("p.yaml"), text.into());
            let mut node = yaml::parse(text).root.unwrap();
            while let Kind::Map(entries) = &node.kind {
                node = entries[0].value.clone();
            }
            let Kind::Scalar(scalar) = &node.kind else { panic!() };
            let (line, shown) = scalar.text.lines().enumerate().find(|(_, line)| line.contains('X')).unwrap();
            let byte = Inline::of(&node, &source).byte(line + 1, shown.find('X').unwrap(), &source);
            assert_eq!(byte, text.find("X)"), "{text}");
        }
        let text = "a: \"f(\\u0058)\"";
        let node = yaml::parse(text).root.unwrap();
        let Kind::Map(entries) = &node.kind else { panic!() };
        let inline = Inline::of(&entries[0].value, &Source::new(Path::new("p.yaml"), text.into()));
        assert_eq!(inline, Inline { line: 1, offset: None });
    }
}
