//! What is between the tokens: white space and comments.
//!
//! The syntax tree has no place for them, but comments must stay with what they are about when a statement moves.

use super::edit::Range;
use super::lines::{is_line_end, slice};

/// A comment, delimiters included, but not the end of its line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Comment {
    pub(super) range: Range,
    /// `//`: whatever follows must be on another line.
    pub(super) to_line_end: bool,
}

/// The comment that begins at a byte, if one does.
fn comment_at(source: &str, at: u32) -> Option<Comment> {
    let rest = slice(source, at, source.len() as u32);
    let (length, to_line_end) = if rest.starts_with("//") {
        (rest.find(is_line_end).unwrap_or(rest.len()), true)
    } else if let Some(inside) = rest.strip_prefix("/*") {
        (inside.find("*/").map_or(rest.len(), |end| end + 4), false)
    } else {
        return None;
    };
    Some(Comment { range: Range::new(at, at + length as u32), to_line_end })
}

/// The first byte from `from` on that is neither white space nor in a comment.
pub(super) fn skip(source: &str, from: u32) -> u32 {
    let end = source.len() as u32;
    let mut at = from;
    loop {
        at += white_space(slice(source, at, end));
        match comment_at(source, at) {
            Some(comment) => at = comment.range.hi,
            None => return at,
        }
    }
}

fn white_space(text: &str) -> u32 {
    (text.len() - text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').len()) as u32
}

/// The comments of a gap between two statements.
fn comments(source: &str, gap: Range) -> Vec<Comment> {
    let mut found = Vec::new();
    let mut at = gap.lo;
    loop {
        at += white_space(slice(source, at, gap.hi));
        match comment_at(source, at) {
            Some(comment) if at < gap.hi => {
                at = comment.range.hi;
                found.push(comment);
            }
            _ => return found,
        }
    }
}

/// Where the comments begin that belong to the statement after the gap: those without an empty line between them and it.
/// A comment on the line on which the statement before the gap ends belongs to that one.
pub(super) fn attached_from(source: &str, gap: Range) -> u32 {
    let has_line_end = |lo, hi| slice(source, lo, hi).contains(is_line_end);
    let mut from = gap.hi;
    for comment in comments(source, gap).iter().rev() {
        let Range { lo, hi } = comment.range;
        let of_previous = gap.lo > 0 && !has_line_end(gap.lo, lo) && has_line_end(hi, gap.hi);
        if of_previous || line_ends(slice(source, hi, from)) > 1 {
            break;
        }
        from = lo;
    }
    from
}

fn line_ends(text: &str) -> usize {
    let chars = text.chars().filter(|&c| is_line_end(c)).count();
    chars - text.matches("\r\n").count()
}

/// The end of a comment on the rest of the line after a statement, or `end` if there is none.
pub(super) fn trailing_comment(source: &str, end: u32) -> u32 {
    let rest = slice(source, end, source.len() as u32);
    let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    match comment_at(source, end + blank as u32) {
        Some(comment) if comment.to_line_end => comment.range.hi,
        Some(comment) => {
            let after = slice(source, comment.range.hi, source.len() as u32).trim_start_matches([' ', '\t']);
            let alone = !comment.range.text(source).contains(is_line_end)
                && (after.is_empty() || after.starts_with(is_line_end));
            if alone { comment.range.hi } else { end }
        }
        None => end,
    }
}

/// `wanted`, or the first variation of it that is no word anywhere in the source.
pub(super) fn unused_name(source: &str, wanted: &str) -> String {
    let is_used = |name: &str| {
        source.match_indices(name).any(|(at, _)| {
            let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
            let starts = !source[..at].ends_with(word);
            let ends = !source[at + name.len()..].starts_with(word);
            starts && ends
        })
    };
    let mut name = wanted.to_owned();
    let mut number = 1;
    while is_used(&name) {
        number += 1;
        name = format!("{wanted}{number}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that goes with the statement `x`, which begins after the gap.
    fn attached(source: &str) -> &str {
        let lo = source.find(';').map_or(0, |semicolon| semicolon + 1) as u32;
        let hi = source.rfind('x').unwrap() as u32;
        slice(source, attached_from(source, Range::new(lo, hi)), hi)
    }

    #[test]
    fn comments_directly_above_belong_to_the_statement() {
        assert_eq!(attached("a;\n// one\n// two\nx"), "// one\n// two\n");
        assert_eq!(attached("// top\r\nx"), "// top\r\n");
        assert_eq!(attached("a; /* why */ x"), "/* why */ ");
    }

    #[test]
    fn comments_further_away_do_not() {
        assert_eq!(attached("// file\n\n// why\nx"), "// why\n");
        assert_eq!(attached("a; // about a\nx"), "");
        assert_eq!(attached("a; // about a\n// why\nx"), "// why\n");
        assert_eq!(attached("a;\n// lost\n\nx"), "");
    }

    #[test]
    fn comments_behind_a_statement_end_with_its_line() {
        let rest = |source: &'static str| slice(source, 2, trailing_comment(source, 2));
        assert_eq!(rest("a; // note\nb"), " // note");
        assert_eq!(rest("a; /* note */\nb"), " /* note */");
        assert_eq!(rest("a; /* of b */ b"), "");
        assert_eq!(rest("a;\n// of b\nb"), "");
        assert_eq!(rest("a; /*/ note */\nb"), " /*/ note */");
    }

    #[test]
    fn names_in_use_are_avoided() {
        assert_eq!(unused_name("map(x => x.p1)", "p"), "p");
        assert_eq!(unused_name("p(p2)", "p"), "p3");
    }
}
