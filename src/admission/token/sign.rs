//! Making a token, for `wsgate token`.
use super::claims::TIME_SECS_MAX;
use super::verify::TOKEN_BYTES_MAX;
use super::{LoadError, install_provider, secret};
use crate::config::{Auth, KeySource};
use crate::identity::is_client;
use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header, encode};
use serde_json::{Map, Value};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Why no token was made. Never says anything of the secret.
#[derive(Debug)]
pub enum SignError {
    /// `[auth]` has no key.
    NoKey,
    /// `[auth]` has a public key or a JWKS: only who holds the private key can sign.
    PublicKey,
    /// `auth.algorithms` has none of HS256, HS384, HS512.
    NoAlgorithm,
    /// Not 1 to 128 bytes without controls.
    Client,
    /// A claim that has its own option: the client's, or `exp`.
    Reserved(String),
    /// The token would end after the year 9999.
    Ttl,
    /// The token would be longer than the gateway accepts.
    TooLong,
    /// The secret cannot be used.
    Load(LoadError),
    /// The signature could not be made.
    Signature,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::NoKey => f.write_str("[auth] has no key to sign with"),
            SignError::PublicKey => f.write_str(
                "[auth] holds a public key, which verifies tokens but cannot sign them: \
                 get one from who holds the private key",
            ),
            SignError::NoAlgorithm => f.write_str("auth.algorithms has none of HS256, HS384, HS512"),
            SignError::Client => f.write_str("a client's name is 1 to 128 bytes without control characters"),
            SignError::Reserved(name) => write!(f, "the claim \"{name}\" has an option of its own"),
            SignError::Ttl => f.write_str("the token would end after the year 9999"),
            SignError::TooLong => write!(f, "the token would be longer than {TOKEN_BYTES_MAX} bytes"),
            SignError::Load(error) => write!(f, "{error}"),
            SignError::Signature => f.write_str("the signature could not be made"),
        }
    }
}

impl std::error::Error for SignError {}

/// Signs a token for `client` with the configured secret and the first HMAC algorithm of
/// `auth.algorithms`. It has `iat`, ends `ttl` after `now`, and carries `iss` and `aud` where the
/// configuration asks for them; `extra` claims come on top and may replace those, but not the
/// client's claim or `exp`.
///
/// # Errors
/// [`SignError`]; public keys cannot sign.
pub fn sign(
    auth: &Auth,
    client: &str,
    ttl: Duration,
    extra: &[(String, Value)],
    now: SystemTime,
) -> Result<String, SignError> {
    install_provider();
    match &auth.key {
        None => return Err(SignError::NoKey),
        Some(KeySource::PublicKey(_) | KeySource::Jwks(_) | KeySource::JwksUrl { .. }) => {
            return Err(SignError::PublicKey);
        }
        Some(KeySource::Secret(_) | KeySource::SecretFile { .. }) => {}
    }
    let is_hmac = |alg: &&jsonwebtoken::Algorithm| alg.family() == AlgorithmFamily::Hmac;
    let algorithm = auth.algorithms.iter().find(is_hmac).ok_or(SignError::NoAlgorithm)?;
    let claims = claims(auth, client, ttl, extra, now)?;
    let secret = secret::load(auth).map_err(SignError::Load)?.ok_or(SignError::NoKey)?;
    let key = EncodingKey::from_secret(secret.expose());
    let token = encode(&Header::new(*algorithm), &claims, &key).map_err(|_| SignError::Signature)?;
    if token.len() > TOKEN_BYTES_MAX { Err(SignError::TooLong) } else { Ok(token) }
}

fn claims(
    auth: &Auth,
    client: &str,
    ttl: Duration,
    extra: &[(String, Value)],
    now: SystemTime,
) -> Result<Map<String, Value>, SignError> {
    if !is_client(client) {
        return Err(SignError::Client);
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let expires = now.saturating_add(ttl).as_secs();
    if expires > TIME_SECS_MAX {
        return Err(SignError::Ttl);
    }
    let mut claims = Map::new();
    claims.insert("iat".into(), now.as_secs().into());
    if let Some(issuer) = &auth.issuer {
        claims.insert("iss".into(), issuer.as_str().into());
    }
    match auth.audience.as_slice() {
        [] => {}
        [one] => drop(claims.insert("aud".into(), one.as_str().into())),
        several => drop(claims.insert("aud".into(), several.into())),
    }
    for (name, value) in extra {
        if name == "exp" || *name == auth.client_id {
            return Err(SignError::Reserved(name.clone()));
        }
        claims.insert(name.clone(), value.clone());
    }
    claims.insert("exp".into(), expires.into());
    claims.insert(auth.client_id.clone(), client.into());
    Ok(claims)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admission::token::Verifier;
    use crate::admission::token::tests::{NOW, SECRET, at, auth};
    use crate::config::secret::Secret;
    use jsonwebtoken::Algorithm;
    use serde_json::json;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn signs_what_the_verifier_takes() {
        for audience in [vec!["chat".to_owned()], vec!["chat".to_owned(), "games".to_owned()]] {
            for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let auth = Auth {
                    issuer: Some("https://id/".into()),
                    audience: audience.clone(),
                    algorithms: vec![Algorithm::RS256, alg],
                    client_id: "user".into(),
                    ..auth()
                };
                let extra = [("rooms".to_owned(), json!(["a-*"])), ("broadcast".to_owned(), json!(true))];
                let token = sign(&auth, "ann", HOUR, &extra, at(NOW)).unwrap();
                let identity = Verifier::load(&auth).unwrap().unwrap().verify(&token, at(NOW)).unwrap();
                assert_eq!((&*identity.client, identity.expires_at), ("ann", Some(NOW + 3600)));
                assert_eq!((&identity.claims.rooms, identity.claims.broadcast), (&Some(vec!["a-*".into()]), true));
            }
        }
    }

    #[test]
    fn refuses_what_it_cannot_sign() {
        let refusal = |auth: &Auth, client: &str, ttl, extra: &[(String, Value)]| {
            let error = sign(auth, client, ttl, extra, at(NOW)).unwrap_err();
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains(SECRET));
            }
            error.to_string()
        };
        let public = Auth { key: Some(KeySource::PublicKey("jwt.pem".into())), ..auth() };
        assert!(refusal(&public, "ann", HOUR, &[]).contains("cannot sign"));
        let jwks = Auth { key: Some(KeySource::Jwks("jwks.json".into())), ..auth() };
        assert!(refusal(&jwks, "ann", HOUR, &[]).contains("cannot sign"));
        assert!(refusal(&Auth { key: None, ..auth() }, "ann", HOUR, &[]).contains("no key"));
        let rsa_only = Auth { algorithms: vec![Algorithm::RS256], ..auth() };
        assert!(refusal(&rsa_only, "ann", HOUR, &[]).contains("HS256"));
        let short = Auth { key: Some(KeySource::Secret(Secret::new("short"))), ..auth() };
        assert!(refusal(&short, "ann", HOUR, &[]).contains("32 bytes"));
        assert!(refusal(&auth(), "", HOUR, &[]).contains("1 to 128"));
        assert!(refusal(&auth(), "a\n", HOUR, &[]).contains("control"));
        assert!(refusal(&auth(), "ann", Duration::MAX, &[]).contains("9999"));
        for name in ["sub", "exp"] {
            assert!(refusal(&auth(), "ann", HOUR, &[(name.into(), json!(1))]).contains(name));
        }
        assert!(refusal(&auth(), "ann", HOUR, &[("x".into(), json!("x".repeat(8000)))]).contains("8192"));
    }
}
