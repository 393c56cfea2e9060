//! The list of the documentation's files: every Markdown file in `docs`, so that adding a page is adding a file.

use std::path::Path;
use std::{fs, io};

/// Writes a Rust expression, a list of names and texts, to `to`.
pub fn write_list(docs: &Path, to: &Path) -> io::Result<()> {
    let mut files: Vec<_> = fs::read_dir(docs)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    let entries = files.iter().map(|file| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        format!("    ({name:?}, include_str!({file:?})),\n")
    });
    fs::write(to, format!("&[\n{}]\n", entries.collect::<String>()))
}
