//! Keeps what is in a credential out of what is printed.
//!
//! A job that logs its request, or an adaptor that puts a URL with a token into an error message, must not leave the
//! token in a log file. So every text a run prints goes through [`Secrets::hide`], which looks for all secrets at once.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

/// Shorter values would hide half of every text, and a secret of three letters is none.
const SHORTEST: usize = 4;
/// Secrets looked for at most, and bytes of all of them together: a search structure grows with both.
const MOST: usize = 1000;
const MOST_BYTES: usize = 1 << 20;
/// Of a longer value its first part is looked for. Nothing a server takes as a token is that long.
const LONGEST: usize = 16 << 10;

const MASK: &str = "***";

/// The secrets of a run, ready to be looked for.
#[derive(Debug, Default)]
pub struct Secrets {
    finder: Option<AhoCorasick>,
    /// How many further secrets there were than can be looked for.
    pub left_out: usize,
}

impl Secrets {
    /// All texts within `values`, and the forms in which they commonly travel: escaped in JSON, in a form or in an
    /// address, line by line, and a user name with its password as HTTP's basic authentication sends them.
    pub fn within<'a>(values: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut texts = BTreeSet::new();
        for value in values {
            collect(value, &mut texts);
        }
        let mut texts: Vec<String> = texts.into_iter().collect();
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let total = texts.len();
        let mut bytes = 0;
        texts.truncate(MOST);
        texts.retain(|text| {
            let fits = bytes + text.len() <= MOST_BYTES;
            bytes += if fits { text.len() } else { 0 };
            fits
        });
        let finder = if texts.is_empty() { None } else { AhoCorasick::new(&texts).ok() };
        Self { left_out: total - if finder.is_some() { texts.len() } else { 0 }, finder }
    }

    /// `text` with each secret in it replaced by `***`. Secrets that overlap become one.
    pub fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(finder) = &self.finder else { return Cow::Borrowed(text) };
        let mut found: Vec<(usize, usize)> =
            finder.find_overlapping_iter(text).map(|found| (found.start(), found.end())).collect();
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.sort_unstable();
        let mut hidden = String::with_capacity(text.len());
        let mut end = 0;
        for (start, stop) in found {
            if start >= end {
                hidden.push_str(&text[end..start]);
                hidden.push_str(MASK);
            }
            end = end.max(stop);
        }
        hidden.push_str(&text[end..]);
        Cow::Owned(hidden)
    }
}

fn collect(value: &Value, texts: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            add(text, texts);
            parts_of_address(text).iter().for_each(|part| add(part, texts));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(members) => {
            if let Some(basic) = basic_authentication(members) {
                texts.insert(basic);
            }
            members.values().for_each(|member| collect(member, texts));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn add(text: &str, texts: &mut BTreeSet<String>) {
    let text = &text[..text.floor_char_boundary(LONGEST)];
    if text.len() < SHORTEST || is_plain_address(text) {
        return;
    }
    texts.insert(text.to_owned());
    let quoted = serde_json::to_string(text).unwrap_or_default();
    let escaped = quoted.trim_start_matches('"').strip_suffix('"').unwrap_or(&quoted);
    if escaped != text {
        texts.insert(escaped.to_owned());
    }
    texts.extend(percent_encoded(text).into_iter().filter(|encoded| encoded != text));
    // A private key is often printed line by line, or indented.
    let lines = text.lines().map(str::trim).filter(|line| line.len() >= SHORTEST && *line != text);
    texts.extend(lines.map(str::to_owned));
}

/// Whether `text` is the address of a system and no more: hiding the `baseUrl` of a configuration would leave errors
/// without the one thing that explains them. Addresses with a user, a query or a long segment of path may be secrets
/// themselves, as those of some webhooks are.
fn is_plain_address(text: &str) -> bool {
    const LONGEST_NAME: usize = 20;
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.path().split('/').all(|segment| segment.len() <= LONGEST_NAME)
    })
}

/// What is secret within an address: clients take addresses apart, and name the parts in errors.
fn parts_of_address(text: &str) -> Vec<String> {
    /// Shorter values of a query are numbers of pages and the like.
    const SHORTEST_VALUE: usize = 8;
    let Some(url) = url::Url::parse(text).ok().filter(url::Url::has_host) else { return Vec::new() };
    let mut parts: Vec<String> = url.query_pairs().map(|(_, value)| value.into_owned()).collect();
    parts.retain(|value| value.len() >= SHORTEST_VALUE);
    if let Some(password) = url.password() {
        parts.push(password.to_owned());
        parts.push(BASE64.encode(format!("{}:{password}", url.username())));
    }
    parts
}

/// `text` as forms hold it, and as `encodeURIComponent` puts it into an address.
fn percent_encoded(text: &str) -> [String; 2] {
    let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let mut component = form.replace('+', "%20");
    for left_alone in ["!", "'", "(", ")", "~"] {
        component = component.replace(&format!("%{:02X}", left_alone.as_bytes()[0]), left_alone);
    }
    [form, component]
}

fn basic_authentication(members: &Map<String, Value>) -> Option<String> {
    let text = |names: &[&str]| names.iter().find_map(|name| members.get(*name)?.as_str());
    let (user, password) = (text(&["username", "user", "email"])?, text(&["password", "pass"])?);
    Some(BASE64.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hide(configuration: Value, text: &str) -> String {
        Secrets::within([&configuration]).hide(text).into_owned()
    }

    #[test]
    fn texts_at_any_depth_are_hidden_and_short_ones_are_not() {
        let configuration = json!({ "a": ["s3cret", { "b": "t0ken" }], "c": "abc", "d": 123456, "e": true });
        assert_eq!(hide(configuration, "s3cret t0ken abc 123456 true"), "*** *** abc 123456 true");
    }

    #[test]
    fn the_address_of_a_system_is_no_secret_unless_it_holds_one() {
        let hide_url = |url: &str| hide(json!({ "url": url }), &format!("GET {url}/x"));
        assert_eq!(hide_url("https://example.org/api"), "GET https://example.org/api/x");
        for url in [
            "https://u:p@example.org",
            "https://example.org/?key=1",
            "https://hooks.example.org/T0/B0/kR3vT9qLm2ZsW8xYb4Nc7HdF",
        ] {
            assert_eq!(hide_url(url), "GET ***/x");
        }
    }

    #[test]
    fn the_parts_of_an_address_are_hidden_where_they_stand_alone() {
        let configuration = json!({ "url": "postgres://jo:s3cret@db.example.org/x?page=1&key=0123456789" });
        assert_eq!(hide(configuration, "jo s3cret 0123456789 page 1 am86czNjcmV0"), "jo *** *** page 1 ***");
    }

    #[test]
    fn a_secret_within_another_leaves_nothing_of_either() {
        let configuration = json!(["pass", "password1", "word1234"]);
        assert_eq!(hide(configuration.clone(), "<password1>"), "<***>");
        assert_eq!(hide(configuration, "<password1234>"), "<***>");
    }

    #[test]
    fn secrets_are_found_the_way_they_travel() {
        let key = "-----BEGIN KEY-----\nMIIabc\n-----END KEY-----";
        assert_eq!(
            hide(json!({ "key": key }), r#"{"key":"-----BEGIN KEY-----\nMIIabc\n-----END KEY-----"}"#),
            r#"{"key":"***"}"#
        );
        assert_eq!(hide(json!({ "key": key }), "line: MIIabc"), "line: ***");
        assert_eq!(hide(json!({ "key": "a\"b\"c" }), r#""a\"b\"c""#), r#""***""#);
        assert_eq!(hide(json!({ "key": "a b/c(d)" }), "k=a+b%2Fc%28d%29&x ?k=a%20b%2Fc(d)"), "k=***&x ?k=***");
        let basic = json!({ "username": "jo", "password": "p4ss" });
        assert_eq!(hide(basic, "Authorization: Basic am86cDRzcw=="), "Authorization: Basic ***");
    }

    #[test]
    fn the_number_of_secrets_is_bounded_and_the_longest_are_kept() {
        let many: Vec<String> = (0..1500).map(|i| format!("{}{i:04}", "x".repeat(i % 7))).collect();
        let secrets = Secrets::within([&json!(many)]);
        assert_eq!(secrets.left_out, 500);
        assert_eq!(secrets.hide(&many[1490]), "***", "{}", many[1490]);
        let huge = Secrets::within([&json!(["y".repeat(LONGEST * 2), "short"])]);
        assert_eq!(huge.hide(&"y".repeat(LONGEST * 2)), "***");
        assert_eq!(huge.hide("short"), "***");
    }

    #[test]
    fn without_secrets_nothing_is_copied() {
        assert!(matches!(Secrets::default().hide("text"), Cow::Borrowed("text")));
        assert!(matches!(Secrets::within([&json!({ "a": "s3cret" })]).hide("text"), Cow::Borrowed("text")));
    }
}
