//! `.env`: variables for a project, one a line, for those that the environment does not set.

use std::collections::BTreeMap;

use super::problem::{Problems, Source};

/// Reads lines such as `NAME=value`, `export NAME='value'` and `NAME="two\nlines"`. Messages never quote the file.
pub(super) fn read(mut source: Source, problems: &mut Problems) -> BTreeMap<String, String> {
    source.keep_secret(0..source.text.len());
    let mut variables = BTreeMap::new();
    let mut at = 0;
    for line in source.text.split_inclusive('\n') {
        let span = at..at + line.trim_end().len();
        at += line.len();
        match variable(line.trim()) {
            Ok(Some((name, value))) => {
                variables.insert(name.to_owned(), value);
            }
            Ok(None) => {}
            Err(message) => problems.error(source.problem(&span, message).hint("write NAME=value, one a line")),
        }
    }
    variables
}

fn variable(line: &str) -> Result<Option<(&str, String)>, &'static str> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("this line has no `=`")?;
    let name = name.trim();
    if !is_name(name) {
        return Err("what stands before the `=` is not the name of a variable");
    }
    Ok(Some((name, unquoted(value.trim())?)))
}

/// Whether `text` can name a variable of the environment.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn unquoted(value: &str) -> Result<String, &'static str> {
    const UNCLOSED: &str = "the quote that begins the value has no end";
    match value.as_bytes().first() {
        Some(b'\'') => {
            let (inside, rest) = value[1..].split_once('\'').ok_or(UNCLOSED)?;
            only_comment(rest).map(|()| inside.to_owned())
        }
        Some(b'"') => {
            let mut text = String::new();
            let mut rest = value[1..].chars();
            loop {
                match rest.next().ok_or(UNCLOSED)? {
                    '"' => return only_comment(rest.as_str()).map(|()| text),
                    '\\' => match rest.next().ok_or(UNCLOSED)? {
                        'n' => text.push('\n'),
                        'r' => text.push('\r'),
                        't' => text.push('\t'),
                        other => text.push(other),
                    },
                    other => text.push(other),
                }
            }
        }
        // A `#` begins a comment only after a space: passwords hold it, too.
        _ => Ok(value.split(" #").next().unwrap_or_default().trim_end().to_owned()),
    }
}

fn only_comment(rest: &str) -> Result<(), &'static str> {
    let rest = rest.trim();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(())
    } else {
        Err("something follows the quote that ends the value")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn values_may_be_bare_or_in_quotes() {
        let text = "# c\nA=1\n\nexport B = two words # c\r\nC='a # \\n'\nD=\"x\\ny\\\"\" # c\nE=p#ss\nF=\n";
        let mut problems = Problems::default();
        let variables = read(Source::new(Path::new(".env"), text.into()), &mut problems);
        let expected = [("A", "1"), ("B", "two words"), ("C", "a # \\n"), ("D", "x\ny\""), ("E", "p#ss"), ("F", "")];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert!(problems.errors.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        let text = "A=1\nhunter2\n=hunter2\nhun-ter2=x\nB='hunter2\nC=\"hunter2\\\nD='a'hunter2";
        let mut problems = Problems::default();
        read(Source::new(Path::new(".env"), text.into()), &mut problems);
        assert_eq!(problems.errors.iter().map(|problem| problem.line.unwrap()).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
        assert!(!format!("{problems:?}").contains("hun"), "{problems:?}");
    }
}
