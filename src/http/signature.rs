//! Signatures of webhooks: that a body comes from who has the secret, and came recently where the scheme can tell.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::model::{Signature, SignatureEncoding};

/// How far a signed time may be from now, in seconds: long enough for slow clocks and networks, too short for somebody
/// who recorded a request to use it the next day.
const TOLERANCE: u64 = 5 * 60;

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is not signed in this way.
    Missing,
    /// The signature is of something else, or by somebody else.
    Wrong,
    /// It was signed too long ago, or ahead of time.
    Stale,
}

/// Whether one of `secrets` signed this body. `now` is in seconds since 1970.
pub fn verify(scheme: &Signature, secrets: &[&str], headers: &HeaderMap, body: &[u8], now: u64) -> Result<(), Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Refusal::Missing);
    match scheme {
        Signature::StandardWebhooks => {
            let (id, time, signatures) =
                (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
            let digests: Vec<_> = signatures
                .split_ascii_whitespace()
                .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
                .collect();
            let secrets: Vec<_> = secrets.iter().map(|secret| standard_key(secret)).collect();
            signed(&secrets, &[id.as_bytes(), b".", time.as_bytes(), b".", body], &digests)?;
            recent(time, now)
        }
        Signature::Github => {
            let digest = header("x-hub-signature-256")?.strip_prefix("sha256=").ok_or(Refusal::Wrong)?;
            signed(&bytes(secrets), &[body], &decode(digest, SignatureEncoding::Hex))
        }
        Signature::Stripe => {
            let fields: Vec<_> =
                header("stripe-signature")?.split(',').filter_map(|field| field.trim().split_once('=')).collect();
            let time = fields.iter().find(|(name, _)| *name == "t").ok_or(Refusal::Wrong)?.1;
            let digests: Vec<_> =
                fields.iter().filter(|(name, _)| *name == "v1").filter_map(|(_, digest)| unhex(digest)).collect();
            signed(&bytes(secrets), &[time.as_bytes(), b".", body], &digests)?;
            recent(time, now)
        }
        Signature::Shopify => {
            signed(&bytes(secrets), &[body], &decode(header("x-shopify-hmac-sha256")?, SignatureEncoding::Base64))
        }
        Signature::Generic { header: name, prefix, encoding } => {
            let digest = header(name)?.strip_prefix(prefix.as_str()).ok_or(Refusal::Wrong)?;
            signed(&bytes(secrets), &[body], &decode(digest, *encoding))
        }
    }
}

/// Whether any of the digests is that of the parts under any of the keys.
fn signed(keys: &[Vec<u8>], parts: &[&[u8]], digests: &[Vec<u8>]) -> Result<(), Refusal> {
    let any = keys.iter().any(|key| {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
        parts.iter().for_each(|part| mac.update(part));
        // Compares in a time that does not depend on where the difference is.
        digests.iter().any(|digest| mac.clone().verify_slice(digest).is_ok())
    });
    if any { Ok(()) } else { Err(Refusal::Wrong) }
}

fn recent(time: &str, now: u64) -> Result<(), Refusal> {
    let time: u64 = time.parse().map_err(|_| Refusal::Wrong)?;
    if time.abs_diff(now) <= TOLERANCE { Ok(()) } else { Err(Refusal::Stale) }
}

fn bytes(secrets: &[&str]) -> Vec<Vec<u8>> {
    secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect()
}

/// The key of a Standard Webhooks secret, which is written in base64 behind `whsec_`.
fn standard_key(secret: &str) -> Vec<u8> {
    let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
    STANDARD.decode(encoded).unwrap_or_else(|_| secret.as_bytes().to_vec())
}

fn decode(digest: &str, encoding: SignatureEncoding) -> Vec<Vec<u8>> {
    let decoded = match encoding {
        SignatureEncoding::Hex => unhex(digest),
        SignatureEncoding::Base64 => STANDARD.decode(digest.trim()).ok(),
    };
    decoded.into_iter().collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.trim().chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        pairs.iter().map(parse).collect()
    }

    fn hex(key: &str, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_example_of_the_standard_webhooks_specification() {
        let headers = headers(&[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1,bm9ldHUjKzFob2VudXRob2VodWUzMjRvdWVvdW9ldQo= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ]);
        let body = br#"{"test": 2432232314}"#;
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let check = |secrets: &[&str], body, now| verify(&Signature::StandardWebhooks, secrets, &headers, body, now);
        assert_eq!(check(&[secret], body, 1614265330), Ok(()));
        assert_eq!(check(&["whsec_AAAA", secret], body, 1614265330 + TOLERANCE), Ok(()), "any of the secrets");
        assert_eq!(check(&[secret], body, 1614265330 + TOLERANCE + 1), Err(Refusal::Stale));
        assert_eq!(check(&[secret], body, 1614265330 - TOLERANCE - 1), Err(Refusal::Stale));
        assert_eq!(check(&[secret], b"{}", 1614265330), Err(Refusal::Wrong));
        assert_eq!(check(&[], body, 1614265330), Err(Refusal::Wrong));
    }

    #[test]
    fn the_example_of_githubs_documentation() {
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let secret = "It's a Secret to Everybody";
        let check = |header: &str, body: &[u8]| {
            verify(&Signature::Github, &[secret], &headers(&[("x-hub-signature-256", header)]), body, 0)
        };
        assert_eq!(check(signature, b"Hello, World!"), Ok(()));
        assert_eq!(check(signature, b"Hello, World"), Err(Refusal::Wrong));
        assert_eq!(check(&signature[..70], b"Hello, World!"), Err(Refusal::Wrong));
        assert_eq!(check("sha1=00", b"Hello, World!"), Err(Refusal::Wrong));
        assert_eq!(verify(&Signature::Github, &[secret], &headers(&[]), b"", 0), Err(Refusal::Missing));
    }

    #[test]
    fn stripe_signs_the_time_with_the_body() {
        let good = hex("whsec_test", "1700000000.{}");
        let check = |header: &str, now| {
            verify(&Signature::Stripe, &["whsec_test"], &headers(&[("stripe-signature", header)]), b"{}", now)
        };
        assert_eq!(check(&format!("t=1700000000,v1={},v1={good},v0=x", "0".repeat(64)), 1_700_000_010), Ok(()));
        assert_eq!(check(&format!("t=1700000001,v1={good}"), 1_700_000_010), Err(Refusal::Wrong));
        assert_eq!(check(&format!("t=1700000000,v1={good}"), 1_700_001_000), Err(Refusal::Stale));
        assert_eq!(check(&format!("v1={good}"), 1_700_000_010), Err(Refusal::Wrong));
    }

    /// RFC 4231, test case 2.
    #[test]
    fn a_known_digest_in_either_encoding() {
        let body = b"what do ya want for nothing?";
        let hex = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let base64 = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
        let generic = |encoding| Signature::Generic { header: "X-Sig".into(), prefix: "v=".into(), encoding };
        let check = |scheme, value: String| verify(&scheme, &["Jefe"], &headers(&[("x-sig", &value)]), body, 0);
        assert_eq!(check(generic(SignatureEncoding::Hex), format!("v={hex}")), Ok(()));
        assert_eq!(check(generic(SignatureEncoding::Hex), format!("v={}", hex.to_uppercase())), Ok(()));
        assert_eq!(check(generic(SignatureEncoding::Base64), format!("v={base64}")), Ok(()));
        assert_eq!(check(generic(SignatureEncoding::Hex), hex.into()), Err(Refusal::Wrong), "the prefix is part of it");
        let shopify = headers(&[("x-shopify-hmac-sha256", base64)]);
        assert_eq!(verify(&Signature::Shopify, &["Jefe"], &shopify, body, 0), Ok(()));
    }
}
