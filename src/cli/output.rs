//! Writing a state: laid out for people, without touching what is in it.
//!
//! The text that V8 made is laid out again byte by byte. Reading it into numbers and maps first would round long
//! numbers and take several times the memory.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// How JSON is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Two spaces a level, as `JSON.stringify(value, null, 2)` writes it.
    Pretty,
    /// One line.
    Compact,
}

/// Levels that are laid out. What lies deeper stays on one line: indenting a state that is a million levels deep would
/// take a million times its size.
const DEEPEST: usize = 100;

/// Writes valid JSON text in the given layout, and a line end. Keys keep their order, numbers their digits.
pub fn write_json(text: &str, layout: Layout, to: impl Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 16, to);
    let bytes = text.as_bytes();
    let mut depth = 0;
    let mut at = 0;
    let new_line = |to: &mut BufWriter<_>, depth: usize| -> io::Result<()> {
        if layout == Layout::Pretty && depth <= DEEPEST {
            to.write_all(b"\n")?;
            for _ in 0..depth {
                to.write_all(b"  ")?;
            }
        }
        Ok(())
    };
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = end_of_string(bytes, at);
                to.write_all(&bytes[at..end])?;
                at = end;
                continue;
            }
            b'{' | b'[' => {
                let inside = at + 1 + white_space(&bytes[at + 1..]);
                to.write_all(&[byte])?;
                if matches!(bytes.get(inside), Some(b'}' | b']')) {
                    to.write_all(&bytes[inside..=inside])?;
                    at = inside + 1;
                    continue;
                }
                depth += 1;
                new_line(&mut to, depth)?;
            }
            b'}' | b']' => {
                depth -= 1;
                new_line(&mut to, depth)?;
                to.write_all(&[byte])?;
            }
            b',' => {
                to.write_all(b",")?;
                new_line(&mut to, depth)?;
            }
            b':' => to.write_all(if layout == Layout::Pretty { b": " } else { b":" })?,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => to.write_all(&[byte])?,
        }
        at += 1;
    }
    to.write_all(b"\n")?;
    to.flush()
}

/// The index behind the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn white_space(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Writes `text` to stdout. A reader that has seen enough (`| head`) is no error.
pub fn write_to_stdout(text: &str, layout: Layout) -> io::Result<()> {
    ignore_broken_pipe(write_json(text, layout, io::stdout().lock()))
}

/// Prints plain text on stdout, under the same rule.
pub fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    ignore_broken_pipe(stdout.write_all(text).and_then(|()| stdout.flush()))
}

fn ignore_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Why nothing could be written at `path`, if that is plain before a job has run for minutes.
pub fn check_writable(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err(format!("cannot write the output to {}: it is a directory", path.display()));
    }
    let directory = directory_of(path);
    if !directory.is_dir() {
        return Err(format!(
            "cannot write the output to {}: there is no directory {}",
            path.display(),
            directory.display()
        ));
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `text` to a file, as [`write_file`] does.
pub fn write_to_file(text: &str, layout: Layout, path: &Path) -> io::Result<()> {
    write_file(path, |file| write_json(text, layout, file))
}

/// Has a file written that appears all at once: a command that is killed while it writes leaves the old one.
pub fn write_file(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    // Through a link, not over it. A pipe or a device is written where it is.
    let path: PathBuf = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if path.exists() && !path.is_file() {
        return ignore_broken_pipe(write(&File::create(&path)?));
    }
    let temporary = tempfile::Builder::new()
        .prefix(".fnhost-output-")
        .permissions(Permissions::from_mode(0o666)) // less what the user's umask takes away
        .tempfile_in(directory_of(&path))?;
    write(temporary.as_file())?;
    temporary.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(text: &str, layout: Layout) -> String {
        let mut written = Vec::new();
        write_json(text, layout, &mut written).unwrap();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn the_layout_is_that_of_json_stringify() {
        let text = r#"{"a":1,"b":[],"c":{},"d":[1,"x",null,true,{"e":[[]]}]}"#;
        let pretty = "{\n  \"a\": 1,\n  \"b\": [],\n  \"c\": {},\n  \"d\": [\n    1,\n    \"x\",\n    null,\n    true,\n    {\n      \"e\": [\n        []\n      ]\n    }\n  ]\n}\n";
        assert_eq!(laid_out(text, Layout::Pretty), pretty);
        let parsed: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(laid_out(text, Layout::Pretty), format!("{parsed:#}\n"));
        assert_eq!(laid_out(pretty, Layout::Pretty), pretty, "laying out twice changes nothing");
        assert_eq!(laid_out(pretty, Layout::Compact), format!("{text}\n"));
    }

    #[test]
    fn numbers_keys_and_strings_stay_as_they_are() {
        let text = r#"{"z":12345678901234567890,"a":1e400,"9":-0.10,"s":"{\"a\":[1, 2]}\\","ü":"日本 \u00e9"}"#;
        assert_eq!(laid_out(text, Layout::Compact), format!("{text}\n"));
        let pretty = laid_out(text, Layout::Pretty);
        for part in [r#""z": 12345678901234567890,"#, r#""a": 1e400,"#, r#""9": -0.10,"#, r#""s": "{\"a\":[1, 2]}\\","#]
        {
            assert!(pretty.contains(part), "{part} in {pretty}");
        }
    }

    #[test]
    fn the_deepest_levels_stay_on_one_line() {
        let depth = 100_000;
        let text = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let pretty = laid_out(&text, Layout::Pretty);
        assert!(pretty.len() < text.len() + 4 * DEEPEST * DEEPEST);
        assert_eq!(laid_out(&pretty, Layout::Compact), format!("{text}\n"));
    }

    #[test]
    fn a_value_that_is_no_object_is_written_too() {
        for text in ["null", "3", r#""text""#, "[]"] {
            assert_eq!(laid_out(text, Layout::Pretty), format!("{text}\n"));
        }
    }

    #[test]
    fn a_file_is_replaced_through_links_and_readable_like_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("real.json");
        let link = directory.path().join("link.json");
        std::fs::write(&file, "old and much longer than the new one").unwrap();
        let usual_mode = file.metadata().unwrap().permissions().mode();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_to_file("{}", Layout::Pretty, &link).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{}\n");
        assert_eq!(file.metadata().unwrap().permissions().mode(), usual_mode);
        assert!(link.is_symlink());
        write_to_file("{}", Layout::Pretty, Path::new("/dev/null")).unwrap();
        assert_eq!(directory.path().read_dir().unwrap().count(), 2, "nothing temporary stays");
    }

    #[test]
    fn places_that_cannot_be_written_are_known_before_the_run() {
        let directory = tempfile::tempdir().unwrap();
        assert!(check_writable(directory.path()).unwrap_err().contains("is a directory"));
        assert!(check_writable(&directory.path().join("no/out.json")).unwrap_err().contains("there is no directory"));
        assert!(check_writable(&directory.path().join("out.json")).is_ok());
        assert!(check_writable(Path::new("out.json")).is_ok());
    }
}
