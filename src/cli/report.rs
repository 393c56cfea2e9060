//! The error of a run as a person wants to read it: what, where, and the line of their own source.

use std::fmt::Write as _;

use crate::isolate::RunError;

/// Characters of a line that are shown. Generated jobs have lines of many kilobytes.
const WIDTH: usize = 120;
/// Characters shown before the error when a line is cut.
const BEFORE: usize = 60;

/// Several lines on `error`, which ended the step `step` whose code is `source`.
pub fn render(error: &RunError, step: &str, source: &str) -> String {
    let mut text = error.to_string();
    let _ = write!(text, "\nError occurred at: {step}");
    if let Some(position) = &error.pos {
        text.push('\n');
        text.push_str(&code_frame(position.line, &position.src, Some(position.column)));
    } else if let (Some(line), Some(operation)) = (error.line, &error.operation_name) {
        let line_of_source = source.lines().nth(line as usize - 1).unwrap_or("");
        let _ = write!(text, ", in {operation}() on line {line}\n{}", code_frame(line, line_of_source, None));
    }
    text
}

/// `12: the line`, with a caret below `column` (1-based, in UTF-16 code units).
fn code_frame(line: u32, source: &str, column: Option<u32>) -> String {
    let source = source.trim_end();
    let at = column.map(|column| characters_before(source, column));
    let first = if source.chars().count() > WIDTH { at.unwrap_or(0).saturating_sub(BEFORE) } else { 0 };
    let cut_before = if first > 0 { "…" } else { "" };
    let cut_after = if source.chars().count() > first + WIDTH { "…" } else { "" };
    let shown: String = source.chars().skip(first).take(WIDTH).collect();
    let mut frame = format!("{line}: {cut_before}{shown}{cut_after}");
    if let Some(at) = at {
        frame.push('\n');
        frame.extend(std::iter::repeat_n(' ', line.to_string().len() + 2 + cut_before.chars().count()));
        for c in shown.chars().take(at - first) {
            match c {
                // A tab in the one line is a tab in the other, however wide the terminal makes it.
                '\t' => frame.push('\t'),
                c => frame.extend(std::iter::repeat_n(' ', cells(c))),
            }
        }
        frame.push('^');
    }
    frame
}

fn characters_before(source: &str, column: u32) -> usize {
    let mut units = 1;
    source
        .chars()
        .take_while(|c| {
            let before = units < column;
            units += c.len_utf16() as u32;
            before
        })
        .count()
}

/// Cells of a terminal that `c` takes: combining marks none, East Asian characters and emoji two.
fn cells(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036F | 0x200B..=0x200F | 0xFE00..=0xFE0F | 0xFEFF => 0,
        0x1100..=0x115F | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF | 0xFE30..=0xFE4F => 2,
        0xFF00..=0xFF60 | 0xFFE0..=0xFFE6 | 0x1F300..=0x1FAFF | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolate::{Position, Severity};

    fn failed() -> RunError {
        RunError {
            subtype: Some("TypeError".into()),
            stack: Some("at ref.js:1:23\nat @openfn/language-common@3.3.4/dist/index.js:270:12".into()),
            line: Some(1),
            operation_name: Some("fn".into()),
            ..RunError::new("RuntimeError", Severity::Fail, "Cannot read properties of undefined (reading 'y')")
        }
    }

    #[test]
    fn an_error_in_the_job_is_shown_in_the_job() {
        let src = "fn((state) => state.x.y)";
        let error = RunError { pos: Some(Position { line: 1, column: 23, src: src.into() }), ..failed() };
        let expected = "\
TypeError: Cannot read properties of undefined (reading 'y')
    at ref.js:1:23
    at @openfn/language-common@3.3.4/dist/index.js:270:12
Error occurred at: ref
1: fn((state) => state.x.y)
                         ^";
        assert_eq!(render(&error, "ref", src), expected);
    }

    #[test]
    fn without_a_position_the_operation_is_shown() {
        let error = RunError { line: Some(2), operation_name: Some("get".into()), ..failed() };
        let text = render(&error, "ref", "fn(s => s);\nget('/patients');");
        assert!(text.ends_with("\nError occurred at: ref, in get() on line 2\n2: get('/patients');"), "{text}");
    }

    #[test]
    fn what_happened_nowhere_is_shown_without_source() {
        let error = RunError::new("TimeoutError", Severity::Kill, "Job took longer than 5 ms to complete");
        assert_eq!(
            render(&error, "ref", ""),
            "TimeoutError: Job took longer than 5 ms to complete\nError occurred at: ref"
        );
    }

    #[test]
    fn the_caret_stands_below_the_error_after_tabs_and_wide_characters() {
        assert_eq!(code_frame(12, "\tf('日本😀', x)", Some(12)), "12: \tf('日本😀', x)\n    \t            ^");
        assert_eq!(code_frame(3, "é\u{301}x", Some(3)), "3: é\u{301}x\n    ^");
        assert_eq!(code_frame(1, "ab", Some(9)), "1: ab\n     ^", "behind the end");
    }

    #[test]
    fn a_long_line_is_cut_around_the_error() {
        let source = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let frame = code_frame(1, &source, Some(501));
        let (line, caret) = frame.split_once('\n').unwrap();
        assert_eq!(line.chars().count(), "1: ".len() + 1 + WIDTH + 1);
        assert_eq!(line.chars().position(|c| c == 'X'), caret.chars().position(|c| c == '^'));
    }
}
