//! JSON for people to read, and no more of it than they will.

use maud::{Markup, html};

use super::layout::size;

/// Bytes that are laid out; the rest can be downloaded.
const MOST_SHOWN: usize = 16 * 1024;

/// JSON text, laid out and cut.
pub fn shown(text: &str, download: &str) -> Markup {
    let part = cut(text, MOST_SHOWN);
    let is_cut = part.len() < text.len();
    html! {
        pre.json tabindex="0" { (laid_out(part)) @if is_cut { "…" } }
        p.muted {
            @if is_cut { "This is the beginning of " (size(text.len())) ". " }
            a href=(download) download { "Download" }
        }
    }
}

/// The beginning of a text, no longer than this.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// JSON text with line breaks and indentation. It goes by the text alone, so numbers of any size stay as they are, and
/// the beginning of a document is as good as a whole one.
fn laid_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if in_string {
            out.push(character);
            in_string = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            continue;
        }
        match character {
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                out.push(character);
                in_string = true;
            }
            white if white.is_ascii_whitespace() => {}
            other => out.push(other),
        }
    }
    out
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_as_serde_json_does_it() {
        for text in [
            r#"{"a":1,"b":[true,null,"x, {y}: \"z\" \\"],"c":{},"d":[],"e":{"f":[{"g":-1.5}]}}"#,
            "[ 1 , { } , [ ] ]",
            r#""text""#,
        ] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(laid_out(text), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        assert_eq!(laid_out("[12345678901234567890123.10]"), "[\n  12345678901234567890123.10\n]");
    }

    #[test]
    fn what_is_long_is_cut_between_characters_and_says_so() {
        let text = format!("[\"{}\"]", "ä".repeat(MOST_SHOWN));
        let page = shown(&text, "/all").into_string();
        assert!(
            page.contains("ä…</pre>") && page.contains("the beginning of 32.0 KiB"),
            "{}",
            &page[page.len() - 200..]
        );
        assert!(!shown("{}", "/all").into_string().contains("beginning"));
    }

    #[test]
    fn nothing_of_a_state_is_markup() {
        let page = shown(r#"{"a":"</pre><script>alert(1)</script>"}"#, "/all").into_string();
        assert!(!page.contains("<script>"), "{page}");
    }
}
