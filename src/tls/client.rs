//! TLS towards servers: backends, and where keys of tokens are fetched from.
use super::{ALPN_HTTP1, read_chain, read_key};
use crate::config::keys::LoadError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

/// TLS 1.2 and 1.3 with HTTP/1.1 by ALPN. A server's certificate must chain to one of the PEM file `ca`, or of the
/// system's authorities where that is `None`, and be for its name. `identity`: the PEM files of a certificate that is
/// shown where the server asks for one, and of its key. Reads files: not to be called on a shard's thread.
///
/// # Errors
/// Names the file that cannot be read or holds no certificate or key, or says that the system has no authorities.
pub fn config(ca: Option<&Path>, identity: Option<&(PathBuf, PathBuf)>) -> Result<Arc<ClientConfig>, LoadError> {
    let roots = match ca {
        Some(path) => of_file(path)?,
        None => of_system()?,
    };
    let failed = |error| LoadError::about("TLS", error);
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(failed)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, private_key)) => builder
            .with_client_auth_cert(read_chain(certificate)?, read_key(private_key)?)
            .map_err(|error| LoadError::file(certificate, error))?,
    };
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// The authorities of a PEM file.
///
/// # Errors
/// Where it cannot be read, or holds no certificate, or one that is none of an authority.
pub fn of_file(path: &Path) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path)? {
        roots.add(certificate).map_err(|error| LoadError::file(path, error))?;
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore, LoadError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
    Err(LoadError::about("the system's certificate authorities", why))
}
