//! Changing a text without reprinting it.
//!
//! The compiler never prints a syntax tree: it copies the author's text and records small edits on it. Formatting and
//! comments survive that way, and for every copied stretch the source map is exact by construction.

use std::borrow::Cow;

use deno_ast::swc::common::Span;

use super::lines::slice;

/// A half-open range of bytes of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) lo: u32,
    pub(super) hi: u32,
}

impl Range {
    pub(super) fn new(lo: u32, hi: u32) -> Self {
        Self { lo, hi }
    }

    fn contains(self, other: Range) -> bool {
        self.lo <= other.lo && other.hi <= self.hi
    }

    pub(super) fn text(self, source: &str) -> &str {
        slice(source, self.lo, self.hi)
    }
}

impl From<Span> for Range {
    /// swc counts bytes from 1, so that 0 can mean "nowhere".
    fn from(span: Span) -> Self {
        Self::new(span.lo.0.saturating_sub(1), span.hi.0.saturating_sub(1))
    }
}

/// A part of the result.
#[derive(Debug)]
pub(super) enum Piece {
    /// New text, which may stand for a place in the source.
    Text(Cow<'static, str>, Option<u32>),
    /// A stretch of the source, with the edits that lie inside it.
    Source(Range),
}

impl Piece {
    pub(super) fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Text(text.into(), None)
    }
}

/// Text put around a stretch of source, which stays where it is.
#[derive(Debug)]
struct Wrap {
    range: Range,
    before: Vec<Piece>,
    after: Vec<Piece>,
}

#[derive(Debug)]
struct Replacement {
    range: Range,
    with: Vec<Piece>,
    /// The stretch appears elsewhere, as a [`Piece::Source`] of exactly this range.
    moved: bool,
}

impl Replacement {
    /// Whether a wrap that ends where this stretch ends goes with the stretch.
    fn hides(&self, wrap: Range) -> bool {
        self.range.hi == wrap.hi && self.range.contains(wrap) && (self.moved || self.range != wrap)
    }
}

/// All edits of one source. Edits nest like syntax nodes do; they never overlap by halves.
#[derive(Debug, Default)]
pub(super) struct Edits {
    wraps: Vec<Wrap>,
    replacements: Vec<Replacement>,
}

impl Edits {
    /// Puts text before and after a stretch. Of two wraps of the same stretch the later one is outside.
    pub(super) fn wrap(&mut self, range: Range, before: Vec<Piece>, after: Vec<Piece>) {
        self.wraps.push(Wrap { range, before, after });
    }

    /// Puts `with` in the place of a stretch; a wrap of exactly that stretch stays around it.
    pub(super) fn replace(&mut self, range: Range, with: Vec<Piece>) {
        self.replacements.push(Replacement { range, with, moved: false });
    }

    /// Takes a stretch out, wraps and all, because it is placed elsewhere as a [`Piece::Source`].
    pub(super) fn move_away(&mut self, range: Range, leaving: Vec<Piece>) {
        self.replacements.push(Replacement { range, with: leaving, moved: true });
    }

    /// Applies the edits to `source`, the result laid out as `layout` says.
    pub(super) fn render(&self, source: &str, layout: &[Piece]) -> Rendered {
        let mut rendering = Rendering {
            source,
            edits: self,
            events: self.events(),
            code: String::with_capacity(source.len() + source.len() / 4 + 128),
            chunks: Vec::with_capacity(2 * (self.wraps.len() + self.replacements.len()) + 1),
        };
        rendering.pieces(layout);
        Rendered { code: rendering.code, chunks: rendering.chunks }
    }

    /// What happens at which byte, in the order in which it is written.
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::with_capacity(2 * self.wraps.len() + self.replacements.len());
        for (index, wrap) in self.wraps.iter().enumerate() {
            let (Range { lo, hi }, index) = (wrap.range, index as u32);
            // At one byte, what ends there is closed before anything opens, and the inner closes first; the outer opens first.
            events.push(Event { order: (hi, Turn::Close, !lo, index), index });
            events.push(Event { order: (lo, Turn::Open, !hi, !index), index });
        }
        for (index, replacement) in self.replacements.iter().enumerate() {
            let (Range { lo, hi }, index) = (replacement.range, index as u32);
            // What moves away takes the wraps that begin with it along, so its turn is before theirs.
            let turn = if replacement.moved { Turn::MoveAway } else { Turn::Replace };
            events.push(Event { order: (lo, turn, !hi, index), index });
        }
        events.sort_unstable_by_key(|event| event.order);
        events
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Close,
    MoveAway,
    Open,
    Replace,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    /// Byte, turn at that byte, and two tie-breakers.
    order: (u32, Turn, u32, u32),
    index: u32,
}

/// A stretch of the result that comes from the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) generated: u32,
    pub(super) source: u32,
    /// Bytes of the result.
    pub(super) length: u32,
    /// The same text as in the source; otherwise all of it stands for the one place `source`.
    pub(super) verbatim: bool,
}

#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) code: String,
    /// In the order of the result.
    pub(super) chunks: Vec<Chunk>,
}

struct Rendering<'a> {
    source: &'a str,
    edits: &'a Edits,
    events: Vec<Event>,
    code: String,
    chunks: Vec<Chunk>,
}

impl<'a> Rendering<'a> {
    fn pieces(&mut self, pieces: &'a [Piece]) {
        for piece in pieces {
            match piece {
                Piece::Text(text, anchor) => self.text(text, *anchor),
                Piece::Source(range) => self.source(*range),
            }
        }
    }

    fn text(&mut self, text: &str, anchor: Option<u32>) {
        if let Some(source) = anchor {
            self.chunk(source, text.len() as u32, false);
        }
        self.code.push_str(text);
    }

    fn source(&mut self, range: Range) {
        let edits = self.edits;
        let mut cursor = range.lo;
        let mut replaced: Option<&Replacement> = None;
        let first = self.events.partition_point(|event| event.order.0 < range.lo);
        for index in first..self.events.len() {
            let Event { order, index } = self.events[index];
            let (at, turn, ..) = order;
            if at > range.hi {
                break;
            }
            match turn {
                Turn::Open | Turn::Close => {
                    let wrap = &edits.wraps[index as usize];
                    // Nothing is written of what lies in a replaced stretch, be it that it only ends where the stretch does.
                    let hidden = turn == Turn::Close
                        && at == cursor
                        && replaced.is_some_and(|replacement| replacement.hides(wrap.range));
                    if at < cursor || hidden || !range.contains(wrap.range) {
                        continue;
                    }
                    self.verbatim(cursor, at);
                    cursor = at;
                    self.pieces(if turn == Turn::Open { &wrap.before } else { &wrap.after });
                }
                Turn::MoveAway | Turn::Replace => {
                    let replacement = &edits.replacements[index as usize];
                    let placed_here = replacement.moved && replacement.range == range;
                    if at < cursor || placed_here || !range.contains(replacement.range) {
                        continue;
                    }
                    self.verbatim(cursor, at);
                    self.pieces(&replacement.with);
                    cursor = replacement.range.hi;
                    replaced = Some(replacement);
                }
            }
        }
        self.verbatim(cursor, range.hi);
    }

    fn verbatim(&mut self, lo: u32, hi: u32) {
        let text = slice(self.source, lo, hi);
        if !text.is_empty() {
            self.chunk(lo, text.len() as u32, true);
            self.code.push_str(text);
        }
    }

    fn chunk(&mut self, source: u32, length: u32, verbatim: bool) {
        self.chunks.push(Chunk { generated: self.code.len() as u32, source, length, verbatim });
    }
}
