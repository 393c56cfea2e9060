//! What an image must know of the program that it holds: which libraries it needs, and which of its bytes.
//!
//! Sections serve linkers and debuggers; what runs is described by segments. So a program without what lies behind its
//! last segment (symbols, names, the table of sections itself) is the same program, a quarter smaller.

use std::path::Path;

/// A program or library for x86_64 Linux.
pub struct Elf<'a> {
    bytes: &'a [u8],
    segments: Vec<Segment>,
}

/// Offsets and lengths in bytes.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
}

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;

/// Entries of the dynamic section.
const END: u64 = 0;
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;

const HEADER: usize = 64;
const SEGMENT: u64 = 56;
/// Where the header says where the table of sections is, and how large.
const SECTION_TABLE: std::ops::Range<usize> = 40..48;
const SECTION_COUNTS: std::ops::Range<usize> = 58..64;

#[derive(Debug, thiserror::Error)]
#[error("{path} is no program for x86_64 Linux{reason}")]
pub struct NotAProgram {
    path: String,
    reason: &'static str,
}

impl<'a> Elf<'a> {
    /// `path` is for messages.
    pub fn parse(bytes: &'a [u8], path: &Path) -> Result<Self, NotAProgram> {
        let fail = |reason| NotAProgram { path: path.display().to_string(), reason };
        // 64 bits, least significant byte first; x86_64.
        if bytes.len() < HEADER || !bytes.starts_with(b"\x7fELF\x02\x01") || bytes[18..20] != [62, 0] {
            return Err(fail(""));
        }
        let damaged = || fail(": it is damaged");
        let table = word(bytes, 32).ok_or_else(damaged)?;
        let count = u64::from(half(bytes, 56).ok_or_else(damaged)?);
        let segment = |index: u64| {
            let at = table.checked_add(index * SEGMENT)?;
            Some(Segment {
                kind: word(bytes, at)? as u32,
                offset: word(bytes, at.checked_add(8)?)?,
                address: word(bytes, at.checked_add(16)?)?,
                length: word(bytes, at.checked_add(32)?)?,
            })
        };
        let segments = (0..count).map(segment).collect::<Option<Vec<_>>>().ok_or_else(damaged)?;
        let elf = Self { bytes, segments };
        if elf.end() > bytes.len() as u64 { Err(damaged()) } else { Ok(elf) }
    }

    /// The loader that it asks for; None if it is linked statically.
    pub fn interpreter(&self) -> Option<&'a str> {
        let segment = self.segments.iter().find(|segment| segment.kind == INTERPRETER)?;
        self.text(segment.offset)
    }

    /// The libraries that it asks for by name.
    pub fn needed(&self) -> Vec<&'a str> {
        let Some(section) = self.segments.iter().find(|segment| segment.kind == DYNAMIC) else { return Vec::new() };
        let entry = |index: u64| {
            let at = section.offset.checked_add(index * 16)?;
            Some((word(self.bytes, at)?, word(self.bytes, at.checked_add(8)?)?))
        };
        let entries: Vec<(u64, u64)> =
            (0..section.length / 16).map_while(entry).take_while(|(tag, _)| *tag != END).collect();
        let strings = entries.iter().find(|(tag, _)| *tag == STRINGS).and_then(|(_, address)| self.offset_of(*address));
        let Some(strings) = strings else { return Vec::new() };
        let needed = entries.iter().filter(|(tag, _)| *tag == NEEDED);
        needed.filter_map(|(_, name)| self.text(strings.checked_add(*name)?)).collect()
    }

    /// The program without what only linkers and debuggers read.
    pub fn stripped(&self) -> Vec<u8> {
        let mut bytes = self.bytes[..self.end() as usize].to_vec();
        bytes[SECTION_TABLE].fill(0);
        bytes[SECTION_COUNTS].fill(0);
        bytes
    }

    /// Where the last segment ends, and at least the header.
    fn end(&self) -> u64 {
        let ends = self.segments.iter().map(|segment| segment.offset.saturating_add(segment.length));
        ends.max().unwrap_or(0).max(HEADER as u64)
    }

    fn offset_of(&self, address: u64) -> Option<u64> {
        let holds = |segment: &&Segment| {
            segment.kind == LOAD && address.checked_sub(segment.address).is_some_and(|behind| behind < segment.length)
        };
        let segment = self.segments.iter().find(holds)?;
        segment.offset.checked_add(address - segment.address)
    }

    fn text(&self, offset: u64) -> Option<&'a str> {
        let bytes = self.bytes.get(offset as usize..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

fn word(bytes: &[u8], at: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_the_same_without_what_lies_behind_its_segments() {
        // Any program does; this one is in every Linux.
        let path = Path::new("/bin/echo");
        let bytes = std::fs::read(path).unwrap();
        let elf = Elf::parse(&bytes, path).unwrap();
        assert_eq!(elf.interpreter(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(elf.needed(), ["libc.so.6"]);
        let stripped = elf.stripped();
        assert!(stripped.len() < bytes.len());
        let again = Elf::parse(&stripped, path).unwrap();
        assert_eq!((again.interpreter(), again.needed()), (elf.interpreter(), elf.needed()));
        assert!(again.stripped() == stripped);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let path = Path::new("x");
        let bytes = std::fs::read("/bin/echo").unwrap();
        assert!(Elf::parse(b"#!/bin/sh", path).is_err());
        assert!(Elf::parse(&bytes[..bytes.len() / 2], path).is_err());
        let mut arm = bytes.clone();
        arm[18] = 183;
        assert!(Elf::parse(&arm, path).is_err());
        let mut wild = bytes;
        wild[32..40].fill(0xff);
        assert!(Elf::parse(&wild, path).is_err());
    }
}
