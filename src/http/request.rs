//! A request as a job sees it, in `state.request`, and as it is kept: without the credentials that came with it.
//!
//! What is secret goes by name (a header or query parameter that is called like one) and by value: a secret that came
//! under such a name is taken out of everything else, too, and so are users and passwords in addresses.

use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::{Map, Value};

use super::access::basic;
use super::body::{CloudEvent, add};
use crate::model::Request;

const MASK: &str = "***";
/// Shorter values hide half of every text, and are no secrets.
const SHORTEST: usize = 4;
/// Parts of names that tell of a secret.
const TELLING: [&str; 9] =
    ["token", "secret", "signature", "password", "passwd", "key", "authorization", "cookie", "credential"];
/// Names that are secret and too short to be looked for in others.
const SECRET: [&str; 6] = ["sig", "auth", "pass", "pwd", "x-auth", "session"];
/// Names that look like a secret's and are none.
const PUBLIC: [&str; 1] = ["idempotency-key"];

/// The request without its secrets. `event`: attributes that came in the body are filed as headers.
pub fn described(parts: &Parts, event: Option<&CloudEvent>) -> Request {
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let headers = joined(&parts.headers);
    let secrets = secrets(headers.iter().chain(&query));
    let hide = |name: &str, value: &str| match is_secret(name) {
        true => MASK.to_owned(),
        false => hide(value, &secrets),
    };
    let mut query_params = Map::new();
    for (name, value) in &query {
        add(&mut query_params, name, hide(name, value).into());
    }
    let mut kept: Map<String, Value> =
        headers.iter().map(|(name, value)| (name.clone(), hide(name, value).into())).collect();
    for (name, value) in event.iter().flat_map(|event| &event.headers) {
        kept.insert(name.clone(), hide(name, value).into());
    }
    Request { method: parts.method.as_str().to_owned(), path: hide("", parts.uri.path()), query_params, headers: kept }
}

/// Headers by name; one that came several times as one text.
fn joined(headers: &HeaderMap) -> Vec<(String, String)> {
    let joined = headers.keys().map(|name| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        (name.as_str().to_owned(), values.collect::<Vec<_>>().join(", "))
    });
    joined.collect()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name.as_str();
    !PUBLIC.contains(&name) && (SECRET.contains(&name) || TELLING.iter().any(|part| name.contains(part)))
}

/// The values under names of secrets, and what they are made of; the longest first.
fn secrets<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> Vec<String> {
    let mut secrets = Vec::new();
    for (_, value) in pairs.filter(|(name, _)| is_secret(name)) {
        secrets.push(value.clone());
        // `Bearer x`, `v1,x`, `a=x; b=y`
        secrets.extend(value.split([' ', ',', ';']).map(str::to_owned));
        secrets.extend(value.split([' ', ';']).filter_map(|pair| Some(pair.split_once('=')?.1.to_owned())));
        if let Some((user, password)) = value.split_once(' ').and_then(|(_, encoded)| basic(encoded)) {
            secrets.push(password.clone());
            secrets.push(format!("{user}:{password}"));
        }
    }
    let is_scheme = |text: &str| ["basic", "bearer", "digest"].contains(&text.to_ascii_lowercase().as_str());
    secrets.retain(|secret| secret.len() >= SHORTEST && !is_scheme(secret));
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    secrets
}

fn hide(text: &str, secrets: &[String]) -> String {
    let mut hidden = without_credentials(text);
    for secret in secrets {
        if hidden.contains(secret.as_str()) {
            hidden = hidden.replace(secret.as_str(), MASK);
        }
    }
    hidden
}

/// Takes users, passwords and secret parameters out of the addresses in a text.
fn without_credentials(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        hidden.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "\"<>".contains(c)).unwrap_or(after.len());
        let (address, behind) = after.split_at(end);
        let (authority, path) = address.split_at(address.find(['/', '?', '#']).unwrap_or(address.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => hidden.extend([MASK, "@", host]),
            None => hidden.push_str(authority),
        }
        hidden.push_str(&without_secret_parameters(path));
        rest = behind;
    }
    hidden.push_str(rest);
    hidden
}

fn without_secret_parameters(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={MASK}"),
        _ => parameter.to_owned(),
    });
    format!("{path}?{}", parameters.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn describe(uri: &str, headers: &[(&str, &str)]) -> Value {
        let mut request = http::Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        serde_json::to_value(described(&parts, None)).unwrap()
    }

    #[test]
    fn secrets_go_by_name() {
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "X-Api-Key",
            "X-Hub-Signature-256",
            "X-My-Token",
            "X-Secret",
        ] {
            let seen = describe("/inbox", &[(name, "v4lue-x")]);
            assert_eq!(seen["headers"], json!({ name.to_ascii_lowercase(): "***" }));
        }
        let seen =
            describe("/inbox?api_key=v4lue-x&a=1&a=2&sig=zz", &[("Idempotency-Key", "i1"), ("X-A", "1"), ("X-A", "2")]);
        assert_eq!(seen["query_params"], json!({ "api_key": "***", "a": ["1", "2"], "sig": "***" }));
        assert_eq!(seen["headers"], json!({ "idempotency-key": "i1", "x-a": "1, 2" }));
        assert_eq!((seen["method"].as_str(), seen["path"].as_str()), (Some("POST"), Some("/inbox")));
    }

    #[test]
    fn secrets_go_by_value_wherever_else_they_are() {
        let headers = [("Authorization", "Bearer s3cr3t-x"), ("X-Copy", "it is s3cr3t-x"), ("X-Bearer", "Bearer")];
        let seen = describe("/i/s3cr3t-x?q=s3cr3t-x", &headers);
        assert!(!seen.to_string().contains("s3cr3t"), "{seen}");
        assert_eq!(seen["headers"]["x-bearer"], "Bearer");
        // "jo:p4ssword"
        let headers = [("Authorization", "Basic am86cDRzc3dvcmQ="), ("X-Copy", "p4ssword")];
        assert!(!describe("/i/a", &headers).to_string().contains("p4ss"));
        assert!(!describe("/i/a", &[("Cookie", "sid=c00kie"), ("X-Copy", "c00kie")]).to_string().contains("c00kie"));
    }

    #[test]
    fn addresses_lose_their_credentials() {
        let referer = "see https://jo:pw@example.org/a?token=t0k&b=1#c and http://h/?x=1";
        let seen = describe("/inbox?back=https://u@h/", &[("Referer", referer)]);
        assert_eq!(seen["headers"]["referer"], "see https://***@example.org/a?token=***&b=1#c and http://h/?x=1");
        assert_eq!(seen["query_params"]["back"], "https://***@h/");
    }
}
