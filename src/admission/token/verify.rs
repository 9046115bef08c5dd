//! Whether a token is good.
use super::claims::Rules;
use super::{LoadError, install_provider, jwks, secret};
use crate::close::Code;
use crate::config::{Auth, KeySource};
use crate::identity::Identity;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;
use std::time::SystemTime;

/// Longest token that is looked into, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Why a token is refused: all that anybody outside is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// Malformed, badly signed, or its claims do not fit.
    Invalid,
    /// Good, but its time is over.
    Expired,
    /// Its `kid` names no key of the set: invalid, unless a newer set has it.
    UnknownKey,
    /// There is no key set yet.
    NoKeys,
}

impl TokenFault {
    /// What a client is told to do about it.
    pub fn code(self) -> Code {
        match self {
            TokenFault::Invalid | TokenFault::Expired | TokenFault::UnknownKey => Code::AuthFailed,
            // A new token would be as good as the one it has.
            TokenFault::NoKeys => Code::Unknown,
        }
    }

    /// In words.
    pub fn message(self) -> &'static str {
        match self {
            TokenFault::Invalid | TokenFault::UnknownKey => "token invalid",
            TokenFault::Expired => "token expired",
            TokenFault::NoKeys => "the keys for tokens are not available",
        }
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for TokenFault {}

/// One key with the algorithms it may be used with: all of one family, because jsonwebtoken fails on
/// any other list, and because a public key must never do as an HMAC secret.
pub(super) struct Key {
    kid: Option<String>,
    decoding: DecodingKey,
    signatures: Validation,
}

impl Key {
    /// `allowed` is not empty and of the key's own family.
    pub(super) fn new(kid: Option<String>, decoding: DecodingKey, allowed: Vec<Algorithm>) -> Key {
        let signatures = Validation {
            algorithms: allowed,
            // Claims are judged by `Rules`, with the caller's clock.
            required_spec_claims: HashSet::new(),
            validate_exp: false,
            validate_aud: false,
            ..Validation::default()
        };
        Key { kid, decoding, signatures }
    }
}

/// Judges tokens with the keys and rules of `[auth]`. Made once for a configuration and shared.
pub struct Verifier {
    keys: Vec<Key>,
    /// Whether a token's `kid` chooses among the keys (a key set), or says nothing (one key).
    chosen_by_kid: bool,
    rules: Rules,
}

/// Keys must not be printed.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.len()).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads the keys; `None` where the configuration has none, or they are fetched. A secret file that is missing is not
    /// made here ([`super::ensure_secret`]).
    ///
    /// # Errors
    /// Where a file cannot be read, holds no usable key or a secret of under 32 bytes, or where the
    /// key fits none of `auth.algorithms`.
    pub fn load(auth: &Auth) -> Result<Option<Verifier>, LoadError> {
        install_provider();
        let configured = &auth.algorithms;
        let (keys, chosen_by_kid) = match &auth.key {
            None | Some(KeySource::JwksUrl { .. }) => return Ok(None),
            Some(KeySource::Secret(_) | KeySource::SecretFile { .. }) => (vec![hmac_key(auth)?], false),
            Some(KeySource::PublicKey(path)) => (vec![jwks::load_pem(path, configured)?], false),
            Some(KeySource::Jwks(path)) => (jwks::load_set(path, configured)?, true),
        };
        Ok(Some(Verifier { keys, chosen_by_kid, rules: Rules::new(auth) }))
    }

    /// With the keys of a set that was fetched.
    ///
    /// # Errors
    /// Where it is no key set, has too many keys, or none that fits `auth.algorithms`. `source` names it.
    pub fn of_set(set: &[u8], source: &dyn fmt::Display, auth: &Auth) -> Result<Verifier, LoadError> {
        install_provider();
        let keys = jwks::read_set(set, source, &auth.algorithms)?;
        Ok(Verifier { keys, chosen_by_kid: true, rules: Rules::new(auth) })
    }

    /// Judges a token (RFC 7515, 5.2, and RFC 7519, 7.2) at the time `now`.
    ///
    /// # Errors
    /// [`TokenFault`]. A token over [`TOKEN_BYTES_MAX`] is invalid before it is looked into.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::Invalid);
        }
        let header = decode_header(token).map_err(|_| TokenFault::Invalid)?;
        // RFC 7515, 4.1.11: what a token calls critical must be understood, and nothing is here.
        if header.crit.is_some() {
            return Err(TokenFault::Invalid);
        }
        let kid = header.kid.as_deref();
        let key = self.key_for(header.alg, kid).ok_or_else(|| match kid {
            Some(kid) if self.chosen_by_kid && !self.has(kid) => TokenFault::UnknownKey,
            _ => TokenFault::Invalid,
        })?;
        let claims = decode::<Map<String, Value>>(token, &key.decoding, &key.signatures)
            .map_err(|_| TokenFault::Invalid)?
            .claims;
        self.rules.judge(&claims, now)
    }

    fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// The one key that fits; two that do are as bad as none.
    fn key_for(&self, alg: Algorithm, kid: Option<&str>) -> Option<&Key> {
        let mut fitting = self.keys.iter().filter(|key| {
            let named = !self.chosen_by_kid || kid.is_none_or(|kid| key.kid.as_deref() == Some(kid));
            named && key.signatures.algorithms.contains(&alg)
        });
        let key = fitting.next()?;
        fitting.next().is_none().then_some(key)
    }
}

fn hmac_key(auth: &Auth) -> Result<Key, LoadError> {
    let allowed: Vec<Algorithm> =
        auth.algorithms.iter().copied().filter(|alg| alg.family() == AlgorithmFamily::Hmac).collect();
    match secret::load(auth)? {
        Some(secret) if !allowed.is_empty() => Ok(Key::new(None, DecodingKey::from_secret(secret.expose()), allowed)),
        _ => Err(LoadError::about("auth.algorithms", "none of HS256, HS384, HS512, which a secret is for")),
    }
}

#[cfg(test)]
mod tests;
