//! Files that are read in place.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A file of packs or snapshots, shared with all processes that use it, for as long as the process lives.
pub fn mapped(path: &Path) -> io::Result<&'static [u8]> {
    let file = File::open(path)?;
    // SAFETY: nobody writes to these files, which are only ever replaced by others.
    let file = unsafe { Mmap::map(&file) }?;
    Ok(Box::leak(Box::new(file)))
}

/// Of what [`mapped`] gave, nothing is needed for now: this process need not have it in memory. It may still be read.
pub fn leave(bytes: &'static [u8]) {
    // SAFETY: whoever reads the bytes later has them read from the file again.
    unsafe {
        libc::madvise(bytes.as_ptr().cast_mut().cast(), bytes.len(), libc::MADV_DONTNEED);
    }
}
