//! JWTs, good and bad.
use super::config::SECRET;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Claims on their way to a token; good until a test changes them.
#[derive(Clone)]
pub struct Token {
    claims: Value,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

impl Token {
    /// A token of this client, good for an hour.
    pub fn of(client: &str) -> Token {
        Token { claims: json!({"sub": client, "exp": now() + 3600}) }
    }

    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Token {
        self.claims[claim] = value.into();
        self
    }

    pub fn without(mut self, claim: &str) -> Token {
        self.claims.as_object_mut().unwrap().remove(claim);
        self
    }

    /// Expires this many seconds from now; before now where negative.
    pub fn expires_in(self, seconds: i64) -> Token {
        self.with("exp", now() + seconds)
    }

    /// Signed by HS256 with the secret that the gateway knows.
    pub fn sign(&self) -> String {
        self.sign_with(&Header::new(Algorithm::HS256), &EncodingKey::from_secret(SECRET.as_bytes()))
    }

    pub fn sign_with(&self, header: &Header, key: &EncodingKey) -> String {
        jsonwebtoken::encode(header, &self.claims, key).unwrap()
    }
}

/// A good token of this client, signed with [`SECRET`].
pub fn good(client: &str) -> String {
    Token::of(client).sign()
}
