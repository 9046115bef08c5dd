//! Tokens: where they are in a request, whether they are good, and how `wsgate token` makes one.
//!
//! A token or a secret is in no `Debug`, `Display` or log line of this module.
pub mod claims;
pub mod find;
pub mod jwks;
pub mod keyring;
mod remote;
pub mod secret;
pub mod sign;
pub mod verify;

pub use crate::config::keys::LoadError;
pub use find::{Found, Malformed, NotAList, Offered, find, offered_protocols, uri_without_token};
pub use keyring::Keyring;
pub use secret::ensure_secret;
pub use sign::{SignError, sign};
pub use verify::{TokenFault, Verifier};

/// Makes aws-lc-rs the provider of jsonwebtoken. That crate would find it alone as long as no other
/// crate of the tree turns its second backend on, and panics at the first token where one does.
fn install_provider() {
    // An error only says that this has happened before.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::config::{Auth, KeySource, secret::Secret};
    use jsonwebtoken::Algorithm;
    use std::time::{Duration, SystemTime};

    pub(crate) const SECRET: &str = "a secret of more than thirty-two bytes";

    /// HS256 with [`SECRET`], no issuer, no audience, 30 s of leeway.
    pub(crate) fn auth() -> Auth {
        Auth {
            query: "token".into(),
            cookie: "token".into(),
            subprotocol: "bearer".into(),
            algorithms: vec![Algorithm::HS256],
            key: Some(KeySource::Secret(Secret::new(SECRET))),
            issuer: None,
            audience: Vec::new(),
            leeway: Duration::from_secs(30),
            client_id: "sub".into(),
        }
    }

    /// The time that tests are at: 1,000,000,000 s after 1970.
    pub(crate) const NOW: u64 = 1_000_000_000;

    pub(crate) fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}
