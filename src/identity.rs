//! Who a client is, and what its token allows: all that a service knows of admission.
use crate::config::{Permission, pattern};
use std::sync::Arc;

/// Most bytes of a client's name.
pub const CLIENT_BYTES_MAX: usize = 128;

/// A client's identity, made by admission from a token, or invented for a client without one.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name: the configured claim of the token, or `anon-` and a UUID. [`is_client`] holds of it.
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
        // From the thread's generator: `new_v4` asks the system each time, and there is one for each ordinary request.
        let random = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let client = format!("anon-{random}");
        Identity { client: client.into(), expires_at: None, claims: Arc::default() }
    }

    /// Whether no token stands behind it.
    pub fn is_anonymous(&self) -> bool {
        self.expires_at.is_none()
    }

    /// Whether it may join a room to which this permission leads.
    pub fn may_join(&self, permission: Permission, room: &str) -> bool {
        allows(permission, self.claims.rooms.as_deref(), room)
    }

    /// Whether it may publish to a room that it is in, likewise. A token without `publish` allows it where it allows
    /// to join.
    pub fn may_publish(&self, permission: Permission, room: &str) -> bool {
        allows(permission, self.claims.publish.as_deref().or(self.claims.rooms.as_deref()), room)
    }
}

/// Whether the text may name a client: 1 to [`CLIENT_BYTES_MAX`] bytes without control characters.
pub fn is_client(name: &str) -> bool {
    (1..=CLIENT_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

fn allows(permission: Permission, claim: Option<&[String]>, room: &str) -> bool {
    match permission {
        Permission::Any => true,
        Permission::Claim => claim.unwrap_or_default().iter().any(|p| pattern::fits(p, room)),
        Permission::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_are_short_and_hold_no_controls() {
        for name in ["a", " ", "Jürgen O'Neill", &"a".repeat(128), &Identity::anonymous().client] {
            assert!(is_client(name), "{name}");
        }
        for name in ["", "a\n", "\u{85}", &"a".repeat(129), &"ä".repeat(65)] {
            assert!(!is_client(name), "{name:?}");
        }
    }

    #[test]
    fn claims_allow_what_they_list() {
        let list = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        let mut identity = Identity::anonymous();
        assert!(!identity.may_join(Permission::Claim, "a") && identity.may_join(Permission::Any, "a"));
        identity.claims = Arc::new(Claims { rooms: list(&["private-*"]), ..Claims::default() });
        assert!(identity.may_join(Permission::Claim, "private-1") && !identity.may_join(Permission::Claim, "other"));
        assert!(identity.may_publish(Permission::Claim, "private-1"));
        assert!(!identity.may_publish(Permission::None, "private-1"));
        identity.claims = Arc::new(Claims { rooms: list(&["*"]), publish: list(&[]), broadcast: false });
        assert!(!identity.may_publish(Permission::Claim, "private-1"));
    }
}
