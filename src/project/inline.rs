//! Where a text stands that is written within a project file: a job, or criteria in JSON.

use serde_saphyr::granit_parser::ScalarStyle;

use super::problem::{Source, utf16_length};
use super::yaml::{Kind, Node};

/// The place of a text within a project file.
#[derive(Clone, Debug, PartialEq)]
pub struct Inline {
    /// The line of the file in which the text's first line stands, from 1.
    pub line: u32,
    /// What stands before each of its lines, in UTF-16 code units, if its lines stand in the file as they are.
    pub columns: Option<u32>,
}

impl Inline {
    pub(super) fn of(node: &Node, source: &Source) -> Self {
        let line = source.line_of(node.span.start);
        let Kind::Scalar(scalar) = &node.kind else { return Self { line: line as u32 + 1, columns: None } };
        let written = &source.text[node.span.clone()];
        let from = |at: usize| {
            let before = &source.text[source.line(line).start..at];
            // A file that is one long line would be measured again for each of its texts.
            (before.len() <= Source::LONGEST_LINE).then(|| utf16_length(before) as u32)
        };
        let columns = match scalar.style {
            ScalarStyle::Plain if written == scalar.text => from(node.span.start),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
                if written.get(1..written.len().saturating_sub(1)) == Some(&scalar.text) && !written.contains('\n') =>
            {
                from(node.span.start + 1)
            }
            ScalarStyle::Literal => {
                if let Some((line, spaces)) = block(&scalar.text, written, line, source) {
                    return Self { line: line as u32 + 1, columns: Some(spaces as u32) };
                }
                None
            }
            _ => None,
        };
        Self { line: line as u32 + 1, columns }
    }

    /// The byte of the file that is in this line of the text, from 1, this many bytes behind the line's beginning.
    pub(super) fn byte(&self, line: usize, behind: usize, source: &Source) -> Option<usize> {
        let columns = self.columns?;
        let shown = source.line((self.line as usize + line).saturating_sub(2));
        let mut units = 0;
        let before = source.text[shown.clone()].chars().take_while(|c| {
            units += c.len_utf16() as u32;
            units <= columns
        });
        let before: usize = before.map(char::len_utf8).sum();
        Some((shown.start + before + behind).min(shown.end))
    }
}

/// The line, from 0, in which the first line of a block that begins with `|` stands, and the spaces before each of them.
fn block(text: &str, written: &str, line: usize, source: &Source) -> Option<(usize, usize)> {
    let is_filled = |line: &&str| !line.trim().is_empty();
    let spaces = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let above = text.lines().position(|line| is_filled(&line))?;
    let from = line + usize::from(written.starts_with('|'));
    let mut lines = (from..=from + written.lines().count()).map(|line| &source.text[source.line(line)]);
    let blank = lines.clone().take_while(|line| !is_filled(line)).count();
    let indent = spaces(lines.nth(blank)?).checked_sub(spaces(text.lines().nth(above)?))?;
    Some(((from + blank).checked_sub(above)?, indent))
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
        assert_eq!(inline, Inline { line: 1, columns: None });
    }
}
