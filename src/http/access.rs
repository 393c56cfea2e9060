//! Who may do what: tokens and their scopes.
//!
//! A token is 32 random bytes; the store keeps its SHA-256 only, so a copy of the database lets nobody in. It comes as
//! `Authorization: Bearer`, as the password of basic authentication, or in the cookie that the sign-in page sets. Checked
//! tokens are remembered for a moment, so that not every request reads the store; a token that is revoked by another
//! process works until that moment has passed.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aes_gcm::aead::OsRng;
use aes_gcm::aead::rand_core::RngCore as _;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Problem;
use crate::model::{MessageId, Timestamp};
use crate::store::{Store, StoreError, Token};

/// What every token begins with, so that people and secret scanners recognise one.
pub const TOKEN_PREFIX: &str = "fnh_";
/// The cookie that holds the token of a person who signed in.
pub const SESSION_COOKIE: &str = "fnhost_session";

const TOKEN_BYTES: usize = 32;
/// How long a checked token is believed.
const MEMORY: Duration = Duration::from_secs(3);
/// Tokens remembered at once.
const MOST_REMEMBERED: usize = 10_000;

/// What a token allows. One that is not listed allows nothing, but that `Admin` allows everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// See messages, runs, logs and states.
    Read,
    /// Start, cancel, repeat.
    Write,
    /// Manage tokens and credentials, and all the rest.
    Admin,
    /// Post to all topics that ask for a key.
    Inbox,
    /// Post to this one.
    InboxTopic(String),
    /// Read metrics.
    Metrics,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write => f.write_str("write"),
            Self::Admin => f.write_str("admin"),
            Self::Inbox => f.write_str("inbox"),
            Self::InboxTopic(topic) => write!(f, "inbox:{topic}"),
            Self::Metrics => f.write_str("metrics"),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            "admin" => Ok(Self::Admin),
            "inbox" => Ok(Self::Inbox),
            "metrics" => Ok(Self::Metrics),
            _ => match text.strip_prefix("inbox:") {
                Some(topic) if !topic.is_empty() => Ok(Self::InboxTopic(topic.to_owned())),
                _ => {
                    Err(format!("there is no scope `{text}`: write read, write, admin, inbox, inbox:TOPIC or metrics"))
                }
            },
        }
    }
}

impl Scope {
    /// Whether a token with this scope may do what asks for `wanted`.
    fn covers(&self, wanted: &Self) -> bool {
        self == wanted || *self == Self::Admin || (*self == Self::Inbox && matches!(wanted, Self::InboxTopic(_)))
    }
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The id of the token; empty if none is asked for.
    pub id: String,
    pub name: String,
    scopes: Vec<Scope>,
}

impl Identity {
    pub fn may(&self, scope: &Scope) -> bool {
        self.scopes.iter().any(|own| own.covers(scope))
    }

    fn anybody() -> Self {
        Self { id: String::new(), name: "anybody".into(), scopes: vec![Scope::Admin] }
    }
}

/// A token that was just made. This is the only time it can be seen.
#[derive(Clone)]
pub struct NewToken {
    pub secret: String,
    pub token: Token,
}

/// Checks tokens against the store.
pub struct Access {
    store: Arc<dyn Store>,
    /// Nobody is asked for a token.
    open: bool,
    known: Mutex<HashMap<[u8; 32], (Identity, Instant)>>,
}

impl Access {
    pub fn new(store: Arc<dyn Store>, open: bool) -> Self {
        Self { store, open, known: Mutex::default() }
    }

    /// Whether nobody is asked for a token.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Makes a token.
    pub async fn create(&self, name: &str, scopes: &[Scope]) -> Result<NewToken, StoreError> {
        let mut bytes = [0; TOKEN_BYTES];
        OsRng.fill_bytes(&mut bytes);
        let secret = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let token = Token {
            id: MessageId::new().to_string(),
            name: name.to_owned(),
            hash: hash(&secret),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            created_at: now(),
            revoked_at: None,
        };
        self.store.add_token(token.clone()).await?;
        Ok(NewToken { secret, token })
    }

    /// Makes a token that may do everything, if there is none in the store.
    pub async fn create_first(&self) -> Result<Option<String>, StoreError> {
        if !self.store.tokens().await?.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.create("first", &[Scope::Admin]).await?.secret))
    }

    /// False: there is no such token in force.
    pub async fn revoke(&self, id: &str) -> Result<bool, StoreError> {
        let revoked = self.store.revoke_token(id, now()).await?;
        self.known.lock().retain(|_, (identity, _)| identity.id != id);
        Ok(revoked)
    }

    /// Who asks, if they may do this.
    pub async fn authorize(&self, headers: &HeaderMap, scope: Scope) -> Result<Identity, Problem> {
        if self.open {
            return match is_from_elsewhere(headers) || !names_this_machine(headers) {
                // Otherwise every page that somebody opens in a browser on this machine could use the API.
                true => Err(Problem::forbidden("without tokens, only programs and pages of this machine may ask")),
                false => Ok(Identity::anybody()),
            };
        }
        let Some(presented) = Presented::of(headers) else {
            return Err(Problem::unauthorized(format!(
                "send a token with the scope `{scope}`: Authorization: Bearer {TOKEN_PREFIX}..."
            )));
        };
        if presented.in_cookie && is_from_elsewhere(headers) {
            return Err(Problem::forbidden("a page of another origin asked in the name of a person who is signed in"));
        }
        let Some(identity) = self.identify(&presented.token).await? else {
            return Err(Problem::unauthorized("this token is not known, or was revoked"));
        };
        match identity.may(&scope) {
            true => Ok(identity),
            false => Err(Problem::forbidden(format!("this token does not have the scope `{scope}`"))),
        }
    }

    /// The token that a request was made with, if it is one that was checked a moment ago.
    pub fn recent(&self, headers: &HeaderMap) -> Option<String> {
        let hash = hash(&Presented::of(headers)?.token);
        self.remembered(&hash).map(|identity| identity.id)
    }

    /// Who holds a token.
    pub async fn identify(&self, token: &str) -> Result<Option<Identity>, StoreError> {
        if !is_well_formed(token) {
            return Ok(None);
        }
        let hash = hash(token);
        if let Some(identity) = self.remembered(&hash) {
            return Ok(Some(identity));
        }
        let Some(token) = self.store.token_by_hash(hash).await? else { return Ok(None) };
        if token.revoked_at.is_some() || !bool::from(token.hash.ct_eq(&hash)) {
            return Ok(None);
        }
        let scopes = token.scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
        let identity = Identity { id: token.id, name: token.name, scopes };
        let mut known = self.known.lock();
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(hash, (identity.clone(), Instant::now()));
        Ok(Some(identity))
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<Identity> {
        let known = self.known.lock();
        let (identity, since) = known.get(hash)?;
        (since.elapsed() < MEMORY).then(|| identity.clone())
    }
}

/// A token as it came.
struct Presented {
    token: String,
    in_cookie: bool,
}

impl Presented {
    fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(authorization) = headers.get(header::AUTHORIZATION) {
            let (scheme, rest) = authorization.to_str().ok()?.trim().split_once(' ')?;
            let token = match scheme.to_ascii_lowercase().as_str() {
                "bearer" => rest.trim().to_owned(),
                "basic" => basic(rest)?.1,
                _ => return None,
            };
            return Some(Self { token, in_cookie: false });
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, token) = pairs.find(|(name, _)| *name == SESSION_COOKIE)?;
        Some(Self { token: token.to_owned(), in_cookie: true })
    }
}

/// User and password of basic authentication: what stands behind `Basic `.
pub(super) fn basic(encoded: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The value of the cookie header that signs a person in; without a token, out.
pub fn session_cookie(token: Option<&str>, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    match token {
        Some(token) => format!("{SESSION_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"),
        None => format!("{SESSION_COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}"),
    }
}

/// Whether a browser says that a page of another origin made the request.
pub(super) fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_none_or(|(_, origin)| origin != host),
        _ => false,
    }
}

/// Whether the request was addressed to this machine by one of its own names. A page elsewhere can have its own name
/// lead here, but cannot change what the browser then sends as the host.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(Ok(authority)) = host.to_str().map(str::parse::<Authority>) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

fn is_well_formed(token: &str) -> bool {
    const ENCODED: usize = (TOKEN_BYTES * 4).div_ceil(3);
    token.strip_prefix(TOKEN_PREFIX).is_some_and(|rest| {
        rest.len() == ENCODED && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    })
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

impl Problem {
    /// 401: whoever asks has to say who they are.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED).with_detail(detail)
    }

    /// 403: whoever asks may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN).with_detail(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse =
            |(name, value): &(&str, &str)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
        pairs.iter().map(parse).collect()
    }

    fn presented(pairs: &[(&str, &str)]) -> Option<(String, bool)> {
        Presented::of(&headers(pairs)).map(|presented| (presented.token, presented.in_cookie))
    }

    #[test]
    fn a_token_is_found_wherever_it_may_come() {
        assert_eq!(presented(&[("authorization", "Bearer fnh_x")]), Some(("fnh_x".into(), false)));
        assert_eq!(presented(&[("authorization", "bearer  fnh_x ")]), Some(("fnh_x".into(), false)));
        // "anyone:fnh_x"
        assert_eq!(presented(&[("authorization", "Basic YW55b25lOmZuaF94")]), Some(("fnh_x".into(), false)));
        assert_eq!(presented(&[("cookie", "a=b; fnhost_session=fnh_x; c=d")]), Some(("fnh_x".into(), true)));
        for nothing in ["fnh_x", "Digest fnh_x", "Basic !", "Bearer"] {
            assert_eq!(presented(&[("authorization", nothing)]), None, "{nothing}");
        }
        assert_eq!(presented(&[("cookie", "fnhost_sessions=fnh_x")]), None);
    }

    #[test]
    fn scopes_cover_what_they_say_and_no_more() {
        let topic = |topic: &str| Scope::InboxTopic(topic.into());
        assert!(Scope::Admin.covers(&Scope::Read) && Scope::Admin.covers(&topic("a")));
        assert!(Scope::Inbox.covers(&topic("a")) && topic("a").covers(&topic("a")));
        assert!(!topic("a").covers(&topic("b")) && !topic("a").covers(&Scope::Inbox));
        assert!(!Scope::Write.covers(&Scope::Read) && !Scope::Read.covers(&Scope::Admin));
        for scope in ["read", "write", "admin", "inbox", "inbox:a", "metrics"] {
            assert_eq!(scope.parse::<Scope>().unwrap().to_string(), scope);
        }
        assert!("inbox:".parse::<Scope>().is_err() && "root".parse::<Scope>().is_err());
    }

    #[test]
    fn pages_of_other_origins_are_told_by_what_browsers_say() {
        for elsewhere in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "http://evil.example"), ("host", "localhost:4001")],
            &[("origin", "null"), ("host", "localhost:4001")],
        ] {
            assert!(is_from_elsewhere(&headers(elsewhere)), "{elsewhere:?}");
        }
        for here in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://localhost:4001"), ("host", "localhost:4001")],
        ] {
            assert!(!is_from_elsewhere(&headers(here)), "{here:?}");
        }
    }

    #[test]
    fn a_foreign_name_that_leads_here_is_not_this_machines() {
        for host in ["localhost:4001", "127.0.0.1:4001", "[::1]:4001", "LOCALHOST"] {
            assert!(names_this_machine(&headers(&[("host", host)])), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:4001", "10.0.0.1", ""] {
            assert!(!names_this_machine(&headers(&[("host", host)])), "{host}");
        }
    }

    #[test]
    fn only_what_looks_like_a_token_is_looked_up() {
        assert!(is_well_formed(&format!("fnh_{}", "a".repeat(43))));
        for token in
            ["", "fnh_", &"a".repeat(47), &format!("fnh_{}", "a".repeat(44)), &format!("fnh_{}'", "a".repeat(42))]
        {
            assert!(!is_well_formed(token), "{token}");
        }
    }
}
