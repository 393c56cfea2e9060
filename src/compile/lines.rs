//! Where a byte of a text is, as people and V8 count: lines and columns.
//!
//! swc speaks in byte offsets; error messages, stack traces and source maps speak in lines and in columns of UTF-16 code
//! units. Every crossing between the two goes through here, so all of them agree on what ends a line.

/// The beginnings of the lines of one text.
///
/// A line ends where V8 ends one: `\n`, `\r\n`, `\r`, U+2028 or U+2029.
#[derive(Debug)]
pub(super) struct Lines {
    starts: Vec<u32>,
    /// All bytes are ASCII: a column is then a subtraction, which keeps very long lines cheap.
    ascii: bool,
}

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut starts = vec![0];
        for (at, &byte) in bytes.iter().enumerate() {
            let next = match byte {
                b'\n' => at + 1,
                b'\r' if bytes.get(at + 1) != Some(&b'\n') => at + 1,
                0xE2 if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xA8 | 0xA9])) => at + 3,
                _ => continue,
            };
            starts.push(next as u32);
        }
        Self { starts, ascii: text.is_ascii() }
    }

    /// The line and column of the byte at `offset`, both counted from 0, the column in UTF-16 code units.
    pub(super) fn position(&self, text: &str, offset: u32) -> (u32, u32) {
        let line = self.starts.partition_point(|&start| start <= offset) - 1;
        let start = self.starts[line];
        let column = if self.ascii { offset - start } else { utf16_length(slice(text, start, offset)) };
        (line as u32, column)
    }

    /// The byte at which a line (counted from 0) begins; the end of the text for lines beyond the last.
    pub(super) fn start(&self, text: &str, line: u32) -> u32 {
        self.starts.get(line as usize).copied().unwrap_or(text.len() as u32)
    }

    /// The text of a line (counted from 0), without what ends it.
    pub(super) fn line<'t>(&self, text: &'t str, line: u32) -> &'t str {
        slice(text, self.start(text, line), self.start(text, line + 1)).trim_end_matches(is_line_end)
    }
}

pub(super) fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

pub(super) fn utf16_length(text: &str) -> u32 {
    text.chars().map(|c| c.len_utf16() as u32).sum()
}

/// `text[lo..hi]`, moved down to the nearest character boundaries, so that no offset can panic.
pub(super) fn slice(text: &str, lo: u32, hi: u32) -> &str {
    let lo = text.floor_char_boundary(lo as usize);
    let hi = text.floor_char_boundary(hi as usize).max(lo);
    &text[lo..hi]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_v8_counts() {
        let text = "a\r\nb\rc\u{2028}é😀x\n";
        let lines = Lines::new(text);
        let at = |needle: char| lines.position(text, text.find(needle).unwrap() as u32);
        assert_eq!(at('a'), (0, 0));
        assert_eq!(at('b'), (1, 0));
        assert_eq!(at('c'), (2, 0));
        // one unit for é, two for the emoji
        assert_eq!(at('x'), (3, 3));
        assert_eq!(lines.line(text, 0), "a");
        assert_eq!(lines.line(text, 3), "é😀x");
        assert_eq!(lines.line(text, 4), "");
        assert_eq!(lines.line(text, 99), "");
    }
}
