//! The claims of a token whose signature has been verified (RFC 7519, 4.1).
//!
//! jsonwebtoken passes an `iss` or `aud` of the wrong type and has a clock of its own; so it
//! verifies signatures, and everything about claims is decided here.
use super::verify::TokenFault;
use crate::config::Auth;
use crate::identity::{Claims, Identity, is_client};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Most patterns in one of the lists `rooms` and `publish`.
pub const PATTERNS_MAX: usize = 256;
/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 128;
/// Latest time a token may name, in seconds since 1970: the end of the year 9999. Milliseconds
/// where seconds are meant fall beyond it, instead of making tokens that never end.
pub const TIME_SECS_MAX: u64 = 253_402_300_799;

/// What the configuration asks of a token's claims.
#[derive(Debug)]
pub(super) struct Rules {
    issuer: Option<String>,
    audience: Vec<String>,
    leeway: Duration,
    client_id: String,
}

impl Rules {
    pub(super) fn new(auth: &Auth) -> Rules {
        Rules {
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            leeway: auth.leeway,
            client_id: auth.client_id.clone(),
        }
    }

    /// Judges the claims at `now`. Only a token that is good in all else is called expired.
    pub(super) fn judge(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<Identity, TokenFault> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires = claims.get("exp").and_then(time).ok_or(TokenFault::Invalid)?;
        if let Some(begins) = claims.get("nbf") {
            let begins = time(begins).ok_or(TokenFault::Invalid)?;
            if begins > now.saturating_add(self.leeway) {
                return Err(TokenFault::Invalid);
            }
        }
        if !self.issuer_fits(claims.get("iss")) || !self.audience_fits(claims.get("aud")) {
            return Err(TokenFault::Invalid);
        }
        let client = claims.get(&self.client_id).and_then(client).ok_or(TokenFault::Invalid)?;
        let service_claims = Claims {
            rooms: patterns(claims.get("rooms"))?,
            publish: patterns(claims.get("publish"))?,
            broadcast: flag(claims.get("broadcast"))?,
        };
        if now >= expires.saturating_add(self.leeway) {
            return Err(TokenFault::Expired);
        }
        Ok(Identity { client, expires_at: Some(expires.as_secs()), claims: Arc::new(service_claims) })
    }

    fn issuer_fits(&self, claim: Option<&Value>) -> bool {
        self.issuer.as_ref().is_none_or(|issuer| claim.and_then(Value::as_str) == Some(issuer))
    }

    /// A string, or a list of strings of which one is ours.
    fn audience_fits(&self, claim: Option<&Value>) -> bool {
        if self.audience.is_empty() {
            return true;
        }
        let ours = |name: &str| self.audience.iter().any(|own| own == name);
        match claim {
            Some(Value::String(name)) => ours(name),
            Some(Value::Array(names)) => {
                names.iter().all(Value::is_string) && names.iter().filter_map(Value::as_str).any(ours)
            }
            _ => false,
        }
    }
}

/// A NumericDate (RFC 7519, 2), which may have a fraction; from 1970 to the year 9999.
fn time(claim: &Value) -> Option<Duration> {
    let time = match claim.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::try_from_secs_f64(claim.as_f64()?).ok()?,
    };
    (time.as_secs() <= TIME_SECS_MAX).then_some(time)
}

/// The client's name: text, or an integer as databases have them.
fn client(claim: &Value) -> Option<Arc<str>> {
    match claim {
        Value::String(name) if is_client(name) => Some(name.as_str().into()),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string().into()),
        _ => None,
    }
}

/// A list of patterns; `null` is as good as none.
fn patterns(claim: Option<&Value>) -> Result<Option<Vec<String>>, TokenFault> {
    let list = match claim {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) if list.len() <= PATTERNS_MAX => list,
        Some(_) => return Err(TokenFault::Invalid),
    };
    let pattern = |value: &Value| value.as_str().filter(|text| text.len() <= PATTERN_BYTES_MAX).map(str::to_owned);
    list.iter().map(pattern).collect::<Option<Vec<_>>>().map(Some).ok_or(TokenFault::Invalid)
}

fn flag(claim: Option<&Value>) -> Result<bool, TokenFault> {
    match claim {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(TokenFault::Invalid),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admission::token::tests::{NOW, at, auth};
    use serde_json::json;

    /// Judges `{"sub": "ann", "exp": NOW + 60}` with `changes` over it; a `null` at the top removes.
    fn judge(auth: &Auth, changes: Value, now: f64) -> Result<Identity, TokenFault> {
        let mut claims = json!({"sub": "ann", "exp": NOW + 60}).as_object().unwrap().clone();
        for (name, value) in changes.as_object().unwrap() {
            if value == "(none)" {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        Rules::new(auth).judge(&claims, SystemTime::UNIX_EPOCH + Duration::from_secs_f64(now))
    }

    fn outcome(auth: &Auth, changes: Value) -> Result<(), TokenFault> {
        judge(auth, changes, NOW as f64).map(drop)
    }

    const INVALID: Result<(), TokenFault> = Err(TokenFault::Invalid);
    const EXPIRED: Result<(), TokenFault> = Err(TokenFault::Expired);

    #[test]
    fn expiry() {
        for (exp, expected) in [
            (json!(NOW + 1), Ok(())),
            (json!(NOW), Ok(())),
            (json!(NOW - 29), Ok(())),
            (json!(NOW - 30), EXPIRED),
            (json!(NOW as f64 - 29.5), Ok(())),
            (json!(NOW as f64 - 30.5), EXPIRED),
            (json!(0), EXPIRED),
            (json!(0.0), EXPIRED),
            (json!(TIME_SECS_MAX), Ok(())),
            (json!(TIME_SECS_MAX + 1), INVALID),
            (json!(NOW * 1000), INVALID),
            (json!(u64::MAX), INVALID),
            (json!(1e300), INVALID),
            (json!(-1), INVALID),
            (json!(-0.5), INVALID),
            (json!(i64::MIN), INVALID),
            (json!((NOW + 60).to_string()), INVALID),
            (json!(null), INVALID),
            (json!(true), INVALID),
            (json!([NOW + 60]), INVALID),
            (json!({}), INVALID),
            (json!("(none)"), INVALID),
        ] {
            assert_eq!(outcome(&auth(), json!({"exp": exp})), expected, "{exp}");
        }
        let exact = Auth { leeway: Duration::ZERO, ..auth() };
        assert!(judge(&exact, json!({"exp": NOW}), NOW as f64 - 0.25).is_ok());
        assert_eq!(judge(&exact, json!({"exp": NOW}), NOW as f64).unwrap_err(), TokenFault::Expired);
        assert_eq!(judge(&auth(), json!({"exp": NOW as f64 + 7.9}), 0.0).unwrap().expires_at, Some(NOW + 7));
        let boundless = Auth { leeway: Duration::MAX, ..auth() };
        assert_eq!(outcome(&boundless, json!({"exp": 0, "nbf": TIME_SECS_MAX})), Ok(()));
    }

    #[test]
    fn beginning() {
        for (nbf, expected) in [
            (json!(0), Ok(())),
            (json!(NOW), Ok(())),
            (json!(NOW + 30), Ok(())),
            (json!(NOW + 31), INVALID),
            (json!(NOW as f64 + 30.5), INVALID),
            (json!(u64::MAX), INVALID),
            (json!(-1), INVALID),
            (json!("0"), INVALID),
            (json!(null), INVALID),
            (json!([]), INVALID),
        ] {
            assert_eq!(outcome(&auth(), json!({"nbf": nbf})), expected, "{nbf}");
        }
    }

    #[test]
    fn issuer_and_audience() {
        let strict =
            Auth { issuer: Some("https://id/".into()), audience: vec!["chat".into(), "games".into()], ..auth() };
        for (iss, aud, expected) in [
            (json!("https://id/"), json!("chat"), Ok(())),
            (json!("https://id/"), json!(["x", "games"]), Ok(())),
            (json!("https://id"), json!("chat"), INVALID),
            (json!("HTTPS://ID/"), json!("chat"), INVALID),
            (json!(["https://id/"]), json!("chat"), INVALID),
            (json!({"a": "https://id/"}), json!("chat"), INVALID),
            (json!(7), json!("chat"), INVALID),
            (json!(null), json!("chat"), INVALID),
            (json!("(none)"), json!("chat"), INVALID),
            (json!("https://id/"), json!("Chat"), INVALID),
            (json!("https://id/"), json!(["x"]), INVALID),
            (json!("https://id/"), json!([]), INVALID),
            (json!("https://id/"), json!(["chat", 7]), INVALID),
            (json!("https://id/"), json!([["chat"]]), INVALID),
            (json!("https://id/"), json!({"chat": "chat"}), INVALID),
            (json!("https://id/"), json!(7), INVALID),
            (json!("https://id/"), json!(true), INVALID),
            (json!("https://id/"), json!(null), INVALID),
            (json!("https://id/"), json!("(none)"), INVALID),
        ] {
            assert_eq!(outcome(&strict, json!({"iss": iss, "aud": aud})), expected, "{iss} {aud}");
            assert_eq!(outcome(&auth(), json!({"iss": iss, "aud": aud})), Ok(()), "not looked at");
        }
    }

    #[test]
    fn the_client() {
        for (sub, name) in [
            (json!("ann"), Some("ann")),
            (json!(42), Some("42")),
            (json!(-7), Some("-7")),
            (json!(u64::MAX), Some("18446744073709551615")),
            (json!("Ån n/@:"), Some("Ån n/@:")),
            (json!(""), None),
            (json!("a\nb"), None),
            (json!("a\0"), None),
            (json!("a\u{7f}"), None),
            (json!("a\u{85}"), None),
            (json!(1.5), None),
            (json!(1e20), None),
            (json!(true), None),
            (json!(null), None),
            (json!(["ann"]), None),
            (json!("(none)"), None),
        ] {
            let seen = judge(&auth(), json!({"sub": sub}), NOW as f64).map(|identity| identity.client);
            assert_eq!(seen.ok().as_deref(), name, "{sub}");
        }
        assert_eq!(outcome(&auth(), json!({"sub": "x".repeat(128)})), Ok(()));
        assert_eq!(outcome(&auth(), json!({"sub": "x".repeat(129)})), INVALID);
        assert_eq!(outcome(&auth(), json!({"sub": "é".repeat(65)})), INVALID, "bytes count, not letters");
        let named = Auth { client_id: "user".into(), ..auth() };
        assert_eq!(outcome(&named, json!({})), INVALID);
        assert_eq!(&*judge(&named, json!({"user": "bob", "sub": 1.5}), 0.0).unwrap().client, "bob");
    }

    #[test]
    fn what_services_read() {
        let identity = judge(
            &auth(),
            json!({"rooms": ["private-*", "x"], "publish": [], "broadcast": true, "other": {"deep": 1}}),
            NOW as f64,
        );
        let claims = identity.unwrap().claims;
        assert_eq!(claims.rooms, Some(vec!["private-*".to_owned(), "x".to_owned()]));
        assert_eq!((&claims.publish, claims.broadcast), (&Some(vec![]), true));
        let none = json!({"rooms": null, "broadcast": null});
        assert_eq!(*judge(&auth(), none, NOW as f64).unwrap().claims, Claims::default());
        for name in ["rooms", "publish"] {
            for (claim, expected) in [
                (json!(vec!["x"; 256]), Ok(())),
                (json!(vec!["x"; 257]), INVALID),
                (json!(["x".repeat(128)]), Ok(())),
                (json!(["x".repeat(129)]), INVALID),
                (json!("x"), INVALID),
                (json!(["x", 1]), INVALID),
                (json!({}), INVALID),
                (json!(true), INVALID),
            ] {
                assert_eq!(outcome(&auth(), json!({ name: claim })), expected, "{name}");
            }
        }
        for (claim, expected) in [(json!(false), Ok(())), (json!("true"), INVALID), (json!(1), INVALID)] {
            assert_eq!(outcome(&auth(), json!({"broadcast": claim})), expected);
        }
    }

    #[test]
    fn expired_is_said_only_of_tokens_that_are_good_otherwise() {
        assert_eq!(outcome(&auth(), json!({"exp": 1})), EXPIRED);
        assert_eq!(outcome(&auth(), json!({"exp": 1, "sub": ""})), INVALID);
        assert_eq!(outcome(&auth(), json!({"exp": 1, "rooms": 1})), INVALID);
        let early = Rules::new(&auth()).judge(json!({"sub": "a", "exp": 1}).as_object().unwrap(), at(0));
        assert!(early.is_ok());
    }
}
