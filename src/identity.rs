//! Who a client is, and what its token allows: all that a service knows of admission.
use std::sync::Arc;

/// A client's identity, made by admission from a token, or invented for a client without one.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name: the configured claim of the token, or `anon-` and a UUID. 1 to 128 bytes without controls.
    pub client: Arc<str>,
    /// The token's `exp`, in seconds since 1970; `None` without a token.
    pub expires_at: Option<u64>,
    /// The claims that services read.
    pub claims: Arc<Claims>,
}

/// The claims that services read. All are off where the token does not say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `rooms`: patterns of rooms to join.
    pub rooms: Option<Vec<String>>,
    /// `publish`: patterns of rooms to publish to.
    pub publish: Option<Vec<String>>,
    /// `broadcast`: whether messages to every client of the namespace are allowed.
    pub broadcast: bool,
}

impl Identity {
    /// An identity for a socket without a token: a client of its own.
    pub fn anonymous() -> Identity {
        let client = format!("anon-{}", uuid::Uuid::new_v4());
        Identity { client: client.into(), expires_at: None, claims: Arc::default() }
    }

    /// Whether no token stands behind it.
    pub fn is_anonymous(&self) -> bool {
        self.expires_at.is_none()
    }
}
