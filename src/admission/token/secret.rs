//! The HMAC secret: read, and made where the configuration says so.
use super::LoadError;
use crate::config::keys;
use crate::config::secret::Secret;
use crate::config::{Auth, KeySource};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng;
use rand::rngs::SysRng;
use std::io;
use std::path::Path;

/// Least length of a secret, in bytes (RFC 7518, 3.2: that of SHA-256).
pub const SECRET_BYTES_MIN: usize = 32;

/// The secret of `[auth]`; `None` where its key is of another kind.
///
/// # Errors
/// Where the file cannot be read, or the secret is shorter than [`SECRET_BYTES_MIN`].
pub(super) fn load(auth: &Auth) -> Result<Option<Secret>, LoadError> {
    let short = format!("a secret must have at least {SECRET_BYTES_MIN} bytes");
    match &auth.key {
        Some(KeySource::Secret(secret)) if secret.expose().len() < SECRET_BYTES_MIN => {
            Err(LoadError::about("auth.secret_env", short))
        }
        Some(KeySource::Secret(secret)) => Ok(Some(secret.clone())),
        Some(KeySource::SecretFile { path, .. }) => {
            let bytes = keys::read(path)?;
            keys::warn_if_open(path);
            let secret = bytes.trim_ascii();
            if secret.len() < SECRET_BYTES_MIN {
                return Err(LoadError::file(path, short));
            }
            Ok(Some(Secret::new(secret)))
        }
        Some(KeySource::PublicKey(_) | KeySource::Jwks(_) | KeySource::JwksUrl { .. }) | None => Ok(None),
    }
}

/// Makes a secret of 32 random bytes, as base64url text in a file of mode 0600, unless the file is
/// there. Tells whether this call made it; of several starters one does, and the others read it.
///
/// # Errors
/// What the file system or the random source says, with the path.
pub fn ensure_secret(path: &Path) -> io::Result<bool> {
    let mut bytes = [0; SECRET_BYTES_MIN];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    let text = URL_SAFE_NO_PAD.encode(bytes) + "\n";
    keys::make_new(path, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admission::token::tests::auth;
    use crate::config::keys::tests::Directory;
    use std::fs;

    fn file(path: &Path) -> Auth {
        Auth { key: Some(KeySource::SecretFile { path: path.into(), generate: true }), ..auth() }
    }

    #[test]
    fn makes_and_reads_a_secret() {
        let directory = Directory::new();
        let path = directory.0.join("certs/jwt-secret");
        assert!(load(&file(&path)).is_err());
        assert!(ensure_secret(&path).unwrap());
        let text = fs::read(&path).unwrap();
        assert_eq!(text.len(), 44);
        assert_eq!(load(&file(&path)).unwrap().unwrap().expose(), &text[..43]);
        assert!(!ensure_secret(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), text);
        let other = directory.0.join("other");
        ensure_secret(&other).unwrap();
        assert_ne!(fs::read(&other).unwrap(), text);
    }

    #[test]
    fn refuses_short_secrets_without_printing_them() {
        let directory = Directory::new();
        let path = directory.with("short", "hush hush hush hush hush hush h\n\n\n\n");
        let error = load(&file(&path)).unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains("short") && text.contains("32 bytes") && !text.contains("hush"), "{text}");
        }
        let error = load(&Auth { key: Some(KeySource::Secret(Secret::new("hush"))), ..auth() }).unwrap_err();
        assert_eq!(error.to_string(), "auth.secret_env: a secret must have at least 32 bytes");
    }

    #[test]
    fn white_space_around_is_not_part_of_it() {
        let directory = Directory::new();
        let path = directory.with("spaced", "\n  0123456789abcdef 0123456789abcdef \r\n");
        assert_eq!(load(&file(&path)).unwrap().unwrap().expose(), b"0123456789abcdef 0123456789abcdef");
    }
}
