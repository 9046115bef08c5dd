//! Public keys: a PEM file, or a JSON Web Key Set (RFC 7517), of which only what can verify a
//! signature here is taken.
use super::LoadError;
use super::verify::Key;
use crate::config::keys;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse, RSAKeyParameters};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::fmt::Display;
use std::path::Path;

/// Most keys in a set.
pub const KEYS_MAX: usize = 64;
/// Sizes of RSA keys that are accepted, in bits (RFC 7518, 3.3; above, a verification costs too much).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a key is not used. Never says what is in it.
type Reason = &'static str;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// Reads a key set. Keys that cannot be used are left out with a warning.
///
/// # Errors
/// Where the file is no key set, has more than [`KEYS_MAX`] keys, or none that can be used.
pub(super) fn load_set(path: &Path, configured: &[Algorithm]) -> Result<Vec<Key>, LoadError> {
    read_set(&keys::read(path)?, &path.display(), configured)
}

/// Reads a key set that came from `source`.
///
/// # Errors
/// As [`load_set`].
pub(super) fn read_set(bytes: &[u8], source: &dyn Display, configured: &[Algorithm]) -> Result<Vec<Key>, LoadError> {
    // serde's own words may quote the set.
    let set: Set = serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        LoadError::about(source, format!("not a JSON Web Key Set ({place})"))
    })?;
    if set.keys.len() > KEYS_MAX {
        return Err(LoadError::about(source, format!("more than {KEYS_MAX} keys")));
    }
    let mut usable = Vec::new();
    for (place, value) in set.keys.iter().enumerate() {
        match from_value(value, configured) {
            Ok(key) => usable.push(key),
            Err(reason) => {
                let kid = value.get("kid").and_then(Value::as_str);
                tracing::warn!(%source, place, kid, reason, "key of the JWKS left out");
            }
        }
    }
    if usable.is_empty() {
        return Err(LoadError::about(source, "no key that auth.algorithms can use"));
    }
    Ok(usable)
}

fn from_value(value: &Value, configured: &[Algorithm]) -> Result<Key, Reason> {
    if value.get("d").is_some() {
        return Err("a private key, which has no place in a JWKS");
    }
    let jwk = Jwk::deserialize(value).map_err(|_| "malformed")?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("its \"use\" is not \"sig\"");
    }
    if jwk.common.key_operations.as_ref().is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
        return Err("its \"key_ops\" do not have \"verify\"");
    }
    from_jwk(&jwk, configured)
}

/// Allow-list of key types, with the algorithms each is good for.
fn from_jwk(jwk: &Jwk, configured: &[Algorithm]) -> Result<Key, Reason> {
    let (decoding, fitting): (DecodingKey, &[Algorithm]) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => (rsa_key(rsa)?, AlgorithmFamily::Rsa.algorithms()),
        AlgorithmParameters::EllipticCurve(ec) => {
            let (bytes, fitting): (usize, &[Algorithm]) = match ec.curve {
                EllipticCurve::P256 => (32, &[Algorithm::ES256]),
                EllipticCurve::P384 => (48, &[Algorithm::ES384]),
                _ => return Err("its curve is not supported"),
            };
            if [&ec.x, &ec.y].iter().any(|part| bytes_of(part).is_none_or(|part| part.len() != bytes)) {
                return Err("malformed coordinates");
            }
            (DecodingKey::from_ec_components(&ec.x, &ec.y).map_err(|_| "malformed coordinates")?, fitting)
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            if bytes_of(&okp.x).is_none_or(|x| x.len() != 32) {
                return Err("malformed \"x\"");
            }
            let key = DecodingKey::from_ed_components(&okp.x).map_err(|_| "malformed \"x\"")?;
            (key, AlgorithmFamily::Ed.algorithms())
        }
        AlgorithmParameters::OctetKey(_) => return Err("a shared secret, which has no place in a JWKS"),
        _ => return Err("its type is not supported"),
    };
    let own =
        jwk.common.key_algorithm.map(Algorithm::try_from).transpose().map_err(|_| "its \"alg\" is not supported")?;
    let allowed: Vec<Algorithm> =
        fitting.iter().copied().filter(|fit| configured.contains(fit) && own.is_none_or(|own| own == *fit)).collect();
    if allowed.is_empty() {
        return Err("its type or \"alg\" fits none of auth.algorithms");
    }
    Ok(Key::new(jwk.common.key_id.clone(), decoding, allowed))
}

fn rsa_key(rsa: &RSAKeyParameters) -> Result<DecodingKey, Reason> {
    let (modulus, exponent) = (bytes_of(&rsa.n).ok_or("malformed \"n\"")?, bytes_of(&rsa.e).ok_or("malformed \"e\"")?);
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = &modulus[zeros..];
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err("RSA keys must have 2048 to 8192 bits");
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Reads a public key in PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`).
///
/// # Errors
/// Where the file holds anything else, or a key that fits none of the algorithms.
pub(super) fn load_pem(path: &Path, configured: &[Algorithm]) -> Result<Key, LoadError> {
    let bytes = keys::read(path)?;
    let key = public_jwk(&bytes).and_then(|jwk| from_jwk(&jwk, configured));
    key.map_err(|reason| LoadError::file(path, reason))
}

/// Goes through a JWK, so that both kinds of file meet the same rules.
fn public_jwk(pem: &[u8]) -> Result<Jwk, Reason> {
    // jsonwebtoken takes private keys and certificates too, and misreads some of them.
    let text = std::str::from_utf8(pem).map_err(|_| "not PEM")?;
    let mut labels = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    match (labels.next(), labels.next()) {
        (None, _) => return Err("not PEM"),
        (Some(_), Some(_)) => return Err("must hold one public key and nothing else"),
        (Some("PUBLIC KEY" | "RSA PUBLIC KEY"), None) => {}
        (Some("CERTIFICATE"), None) => {
            return Err("a certificate; the public key alone is wanted (openssl x509 -pubkey)");
        }
        (Some(label), None) if label.ends_with("PRIVATE KEY") => {
            return Err("a private key; the public key is wanted (openssl pkey -pubout)");
        }
        (Some(_), None) => return Err("not a public key"),
    }
    let key = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .map_err(|_| "not a public key of RSA, P-256, P-384 or Ed25519")?;
    Jwk::from_decoding_key(&key, None).map_err(|_| "not a public key of RSA, P-256, P-384 or Ed25519")
}
