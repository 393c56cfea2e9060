//! What a test run shows of a request instead of sending it.
//!
//! `js/intercept.js` catches requests where they would leave the isolate; here they become text for people. Logs of
//! test runs are passed around, so what a header says about who is asking is left out, whatever else is masked later.

use std::fmt;

use deno_core::url::{Position, Url};

/// A request that was not sent.
pub struct Request<'a> {
    pub method: &'a str,
    pub url: &'a str,
    /// Names and values in the order in which they would have been sent.
    pub headers: &'a [(&'a str, &'a str)],
    /// The beginning of the body, perhaps all of it.
    pub body: &'a [u8],
    /// Bytes in the whole body.
    pub length: usize,
}

const MASK: &str = "***";

/// Headers of the connection rather than of the request. The length shows in the body.
const LEFT_OUT: &[&str] = &["connection", "content-length", "keep-alive", "proxy-connection", "transfer-encoding"];

/// Parts of the names of headers that hold credentials, beside `Authorization`.
const SECRET: &[&str] = &["apikey", "api-key", "cookie", "credential", "password", "secret", "session", "token"];

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(self.url).ok();
        match url.clone().filter(|url| !url.username().is_empty() || url.password().is_some()) {
            Some(mut url) => {
                // Neither can fail: a URL with a user has a host.
                let _ = url.set_username(MASK);
                let _ = url.set_password(None);
                write!(f, "{} {url}", self.method)?;
            }
            None => write!(f, "{} {}", self.method, self.url)?,
        }
        for (name, value) in self.headers {
            let name = name.to_ascii_lowercase();
            let known = name == "host"
                && url.as_ref().is_some_and(|url| *value == &url[Position::BeforeHost..Position::AfterPort]);
            if !known && !LEFT_OUT.contains(&name.as_str()) {
                write!(f, "\n{name}: {}", Value { name: &name, value })?;
            }
        }
        if self.length > 0 {
            write!(f, "\n{}", Body(self))?;
        }
        Ok(())
    }
}

/// The value of a header.
struct Value<'a> {
    /// In lower case.
    name: &'a str,
    value: &'a str,
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.ends_with("authorization") {
            match self.value.split_once(' ') {
                Some((scheme, _)) => write!(f, "{scheme} {MASK}"),
                None => f.write_str(MASK),
            }
        } else if SECRET.iter().any(|part| self.name.contains(part)) {
            f.write_str(MASK)
        } else {
            f.write_str(self.value)
        }
    }
}

struct Body<'a>(&'a Request<'a>);

/// The text but for its last word, which is cut somewhere: half of a secret would no longer be found and masked.
fn without_last_word(text: &str) -> &str {
    let in_word = |c: char| c.is_alphanumeric() || "-._~+/=%".contains(c);
    match text.trim_end_matches(in_word) {
        "" => text,
        rest => rest,
    }
}

impl Body<'_> {
    /// The body as text, if it is text. A last character that is cut in half is left out.
    fn text(&self) -> Option<&str> {
        let bytes = self.0.body;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() && bytes.len() < self.0.length => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
            }
            Err(_) => return None,
        };
        let printable = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
        text.chars().all(printable).then_some(text)
    }
}

impl fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.length;
        let Some(text) = self.text() else {
            let content_type = self.0.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            return match content_type.and_then(|(_, value)| value.split(';').next()) {
                Some(kind) => write!(f, "<{length} bytes of {}>", kind.trim()),
                None => write!(f, "<{length} bytes>"),
            };
        };
        let whole = text.len() == length;
        let text = if whole { text } else { without_last_word(text) };
        f.write_str(&text.replace("\r\n", "\n"))?;
        if whole { Ok(()) } else { write!(f, "… ({} bytes more)", length - text.len()) }
    }
}

/// The message of an error in a test run. Where a connection or a look-up was refused, it says why.
pub fn explained(message: String) -> String {
    if !message.contains("this run has no network") && !message.contains("querySrv UNKNOWN") {
        return message;
    }
    format!("{message}\nThis is a test run (--test): HTTP requests are shown and answered, everything else is refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str, headers: &[(&str, &str)], body: &[u8], length: usize) -> String {
        Request { method: "POST", url, headers, body, length }.to_string()
    }

    #[test]
    fn a_request_is_its_line_its_headers_and_its_body() {
        let headers = [
            ("Host", "example.org"),
            ("Connection", "keep-alive"),
            ("Content-Type", "application/json"),
            ("content-length", "7"),
        ];
        let text = shown("https://example.org/a?b=c", &headers, b"{\"a\":1}", 7);
        assert_eq!(text, "POST https://example.org/a?b=c\ncontent-type: application/json\n{\"a\":1}");
        assert_eq!(
            shown("https://example.org/", &[("host", "other.org")], b"", 0),
            "POST https://example.org/\nhost: other.org"
        );
    }

    #[test]
    fn credentials_are_not_shown() {
        let headers = [
            ("Authorization", "Basic dTpw"),
            ("Proxy-Authorization", "Bearer abc def"),
            ("authorization", "abc"),
            ("Cookie", "sid=1"),
            ("X-Api-Key", "k"),
            ("apikey", "k"),
            ("Private-Token", "t"),
            ("X-Request-Id", "7"),
        ];
        let text = shown("https://u:p@example.org/", &headers, b"", 0);
        let expected = "POST https://***@example.org/\nauthorization: Basic ***\nproxy-authorization: Bearer ***\n\
            authorization: ***\ncookie: ***\nx-api-key: ***\napikey: ***\nprivate-token: ***\nx-request-id: 7";
        assert_eq!(text, expected);
    }

    #[test]
    fn of_a_long_body_the_beginning_is_shown() {
        let body = |bytes: &[u8], length| shown("http://h/", &[], bytes, length);
        assert_eq!(body(b"abc", 10), "POST http://h/\nabc… (7 bytes more)");
        assert_eq!(body("ab€".as_bytes().split_last().unwrap().1, 5), "POST http://h/\nab… (3 bytes more)");
        assert_eq!(body(b"{\"token\":\"abc-d", 99), "POST http://h/\n{\"token\":\"… (89 bytes more)");
        assert_eq!(body(b"a\r\nb", 4), "POST http://h/\na\nb");
    }

    #[test]
    fn what_is_not_text_is_counted() {
        let body = |headers, bytes: &[u8]| shown("http://h/", headers, bytes, bytes.len());
        assert_eq!(
            body(&[("Content-Type", "image/png; q=1")], b"\x89PNG"),
            "POST http://h/\ncontent-type: image/png; q=1\n<4 bytes of image/png>"
        );
        assert_eq!(body(&[], b"a\0b"), "POST http://h/\n<3 bytes>");
        assert_eq!(body(&[], "ab€".as_bytes().split_last().unwrap().1), "POST http://h/\n<4 bytes>");
        assert_eq!(body(&[], b"\x1b[2J"), "POST http://h/\n<4 bytes>");
    }

    #[test]
    fn only_refused_connections_are_explained() {
        assert_eq!(explained("no such file".into()), "no such file");
        let refused = super::super::permissions::reword("getaddrinfo EPERM h", &super::super::Network::Only(Vec::new()));
        assert!(explained(refused).contains("--test"));
    }
}
