//! From a place in the compiled module back to the place in the job.
//!
//! V8 reports errors where they happen in the module; people must see where that is in what they wrote. Since the compiler
//! copies stretches of the source verbatim, the way back is exact for every character of them.

use serde_json::{Value, json};

use super::Operation;
use super::edit::Rendered;
use super::lines::{Lines, is_line_end, slice, utf16_length};

/// Maps positions of a compiled module to positions of its source.
///
/// Lines and columns count from 1, columns in UTF-16 code units, as V8 reports them.
#[derive(Debug)]
pub struct SourceMap {
    file_name: String,
    source: String,
    operations: Vec<Operation>,
    /// In the order of the compiled module.
    segments: Vec<Segment>,
}

/// A stretch within one line of the module. Everything counts from 0.
#[derive(Clone, Copy, Debug)]
struct Segment {
    line: u32,
    column: u32,
    /// UTF-16 code units in the module.
    length: u32,
    source_line: u32,
    source_column: u32,
    /// Where the text is in the source, and how many bytes of it: none if the segment only stands for a place.
    source_offset: u32,
    source_length: u32,
    /// What follows was written by the compiler, or is another segment.
    ends_chunk: bool,
}

impl SourceMap {
    pub(super) fn new(
        file_name: &str,
        source: &str,
        lines: &Lines,
        rendered: &Rendered,
        operations: &[Operation],
    ) -> Self {
        let code_lines = Lines::new(&rendered.code);
        let mut segments = Vec::with_capacity(rendered.chunks.len());
        for chunk in &rendered.chunks {
            let end = chunk.generated + chunk.length;
            let mut generated = chunk.generated;
            while generated < end {
                let (line, column) = code_lines.position(&rendered.code, generated);
                let stop = code_lines.start(&rendered.code, line + 1).min(end);
                let text = &rendered.code[generated as usize..stop as usize];
                let visible = text.trim_end_matches(is_line_end);
                let source_offset =
                    if chunk.verbatim { chunk.source + (generated - chunk.generated) } else { chunk.source };
                let (source_line, source_column) = lines.position(source, source_offset);
                segments.push(Segment {
                    line,
                    column,
                    length: utf16_length(visible),
                    source_line,
                    source_column,
                    source_offset,
                    source_length: if chunk.verbatim { visible.len() as u32 } else { 0 },
                    ends_chunk: stop == end,
                });
                generated = stop;
            }
        }
        Self { file_name: file_name.to_owned(), source: source.to_owned(), operations: operations.to_vec(), segments }
    }

    /// The place in the source (line, column) of a place in the module, all counted from 1; `None` in text that stands for
    /// nothing in the source, such as the imports.
    ///
    /// Exact within text taken over from the source. Text that replaces something of the source, such as the `state` of a
    /// lazy `$`, leads to where that begins.
    pub fn original_position(&self, line: u32, column: u32) -> Option<(u32, u32)> {
        let wanted = (line.checked_sub(1)?, column.checked_sub(1)?);
        let after = self.segments.partition_point(|segment| (segment.line, segment.column) <= wanted);
        let segment = &self.segments[after.checked_sub(1)?];
        if segment.line != wanted.0 || wanted.1 > segment.column + segment.length {
            return None;
        }
        let into = if segment.source_length == 0 { 0 } else { wanted.1 - segment.column };
        Some((segment.source_line + 1, segment.source_column + into + 1))
    }

    /// The map in the Source Map v3 format, with the source inside and the operations of the job beside the usual fields.
    ///
    /// Every token of the source gets its own mapping, because the usual readers of the format only know where a mapping
    /// begins.
    pub fn to_json(&self) -> String {
        let operations: Vec<Value> = self
            .operations
            .iter()
            .map(|operation| json!({ "name": operation.name, "line": operation.line, "order": operation.order }))
            .collect();
        json!({
            "version": 3,
            "file": self.file_name,
            "sources": [self.file_name],
            "sourcesContent": [self.source],
            "names": [],
            "mappings": self.mappings(),
            "operations": operations,
        })
        .to_string()
    }

    fn mappings(&self) -> String {
        let mut mappings = Mappings::default();
        for (index, segment) in self.segments.iter().enumerate() {
            let end = segment.source_offset + segment.source_length;
            let text = slice(&self.source, segment.source_offset, end);
            mappings.mapped(segment.line, segment.column, segment.source_line, segment.source_column);
            let mut units = 0;
            let mut in_word = true;
            for (at, c) in text.char_indices() {
                let word = c.is_alphanumeric() || matches!(c, '_' | '$');
                if at > 0 && !c.is_whitespace() && !(word && in_word) {
                    mappings.mapped(
                        segment.line,
                        segment.column + units,
                        segment.source_line,
                        segment.source_column + units,
                    );
                }
                in_word = word;
                units += c.len_utf16() as u32;
            }
            let column_after = segment.column + segment.length;
            let continued = self
                .segments
                .get(index + 1)
                .is_some_and(|next| (next.line, next.column) == (segment.line, column_after));
            if segment.ends_chunk && !continued {
                mappings.unmapped(segment.line, column_after);
            }
        }
        mappings.text
    }
}

/// Writes the `mappings` field: each number as the difference to the one before, in base 64.
#[derive(Default)]
struct Mappings {
    text: String,
    line: u32,
    column: u32,
    source_line: u32,
    source_column: u32,
    mid_line: bool,
}

impl Mappings {
    fn mapped(&mut self, line: u32, column: u32, source_line: u32, source_column: u32) {
        self.unmapped(line, column);
        self.number(0); // the only source
        self.number(i64::from(source_line) - i64::from(self.source_line));
        self.number(i64::from(source_column) - i64::from(self.source_column));
        (self.source_line, self.source_column) = (source_line, source_column);
    }

    fn unmapped(&mut self, line: u32, column: u32) {
        if line > self.line {
            for _ in self.line..line {
                self.text.push(';');
            }
            (self.line, self.column) = (line, 0);
        } else if self.mid_line {
            self.text.push(',');
        }
        self.mid_line = true;
        self.number(i64::from(column) - i64::from(self.column));
        self.column = column;
    }

    /// A base 64 number of variable length, lowest bits first, the sign in the lowest of all.
    fn number(&mut self, value: i64) {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut rest = (value.unsigned_abs() << 1) | u64::from(value < 0);
        loop {
            let digit = rest & 31;
            rest >>= 5;
            let more = if rest > 0 { 32 } else { 0 };
            self.text.push(char::from(DIGITS[(digit | more) as usize]));
            if rest == 0 {
                return;
            }
        }
    }
}
