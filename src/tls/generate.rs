//! A self-signed pair for localhost, for development.
use super::LoadError;
use crate::config::{Certificate, keys};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How long a generated certificate is valid: the longest that Apple's clients take (825 days).
pub const VALIDITY: Duration = Duration::from_secs(825 * 24 * 3600);
/// How long before its making it is valid, for clocks that lag.
const BACKDATED: Duration = Duration::from_secs(3600);
/// The names that it is for.
pub const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes the pair where `generate` is on and neither file is there: an ECDSA P-256 key (mode 0600)
/// and a self-signed certificate for [`NAMES`], valid for [`VALIDITY`]. Tells whether this call
/// made it; of several starters one does, and the others wait for it.
///
/// # Errors
/// Where only one of the two files is there (nothing is overwritten), or one cannot be made.
pub fn generate(pair: &Certificate) -> Result<bool, LoadError> {
    if !pair.generate {
        return Ok(false);
    }
    let directory = match pair.private_key.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(|error| LoadError::file(directory, error))?;
    // Two files cannot be made as one: another starter must not look in between. Where the file
    // system has no locks, it finds half a pair and says so.
    let lock = File::open(directory).map_err(|error| LoadError::file(directory, error))?;
    let _ = lock.lock();
    if is_whole(pair)? {
        return Ok(false);
    }
    let (certificate, key) = make().map_err(|error| LoadError::file(&pair.certificate, error))?;
    write(&pair.private_key, &key, 0o600)?;
    write(&pair.certificate, &certificate, 0o644)?;
    Ok(true)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), LoadError> {
    match keys::make_new(path, text.as_bytes(), mode) {
        Ok(true) => Ok(()),
        Ok(false) => Err(LoadError::file(path, io::Error::from(io::ErrorKind::AlreadyExists))),
        // The error has the path.
        Err(error) => Err(LoadError::about("generate", error)),
    }
}

/// Both are there, or neither is.
fn is_whole(pair: &Certificate) -> Result<bool, LoadError> {
    let is_there = |path: &Path| path.try_exists().map_err(|error| LoadError::file(path, error));
    let half = |missing: &Path, there: &Path| {
        let reason = format!("missing, though {} is there: nothing is generated beside half a pair", there.display());
        Err(LoadError::file(missing, reason))
    };
    match (is_there(&pair.certificate)?, is_there(&pair.private_key)?) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => half(&pair.private_key, &pair.certificate),
        (false, true) => half(&pair.certificate, &pair.private_key),
    }
}

/// The certificate and the key, in PEM.
fn make() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(NAMES.map(String::from))?;
    params.distinguished_name.push(DnType::CommonName, "wsgate development certificate");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now - BACKDATED + VALIDITY).into();
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::keys::tests::Directory;
    use crate::tls::Tls;
    use std::os::unix::fs::PermissionsExt;

    fn pair(directory: &Directory) -> Certificate {
        let certs = directory.0.join("certs");
        Certificate { certificate: certs.join("cert.pem"), private_key: certs.join("key.pem"), generate: true }
    }

    #[test]
    fn makes_a_pair_once() {
        let directory = Directory::new();
        let pair = pair(&directory);
        assert!(!generate(&Certificate { generate: false, ..pair.clone() }).unwrap());
        assert!(generate(&pair).unwrap());
        Tls::load(std::slice::from_ref(&pair)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&pair.private_key), 0o600);
        assert_eq!(mode(&pair.certificate), 0o644);
        let before = fs::read(&pair.certificate).unwrap();
        assert!(!generate(&pair).unwrap());
        assert_eq!(fs::read(&pair.certificate).unwrap(), before);
        assert_eq!(fs::read_dir(directory.0.join("certs")).unwrap().count(), 2, "no drafts are left");
    }

    #[test]
    fn of_several_starters_one_makes_it() {
        let directory = Directory::new();
        let pair = pair(&directory);
        let made: Vec<bool> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let made = generate(&pair).unwrap();
                        Tls::load(std::slice::from_ref(&pair)).unwrap();
                        made
                    })
                })
                .collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
    }

    #[test]
    fn half_a_pair_is_not_touched() {
        for kept in ["cert.pem", "key.pem"] {
            let directory = Directory::new();
            let pair = pair(&directory);
            generate(&pair).unwrap();
            let gone = if kept == "cert.pem" { &pair.private_key } else { &pair.certificate };
            fs::remove_file(gone).unwrap();
            let error = generate(&pair).unwrap_err().to_string();
            assert!(error.starts_with(&gone.display().to_string()) && error.contains(kept), "{error}");
            assert!(!gone.exists());
        }
    }
}
