//! TLS 1.2 and 1.3 by rustls with aws-lc-rs: certificates read from files, chosen by SNI, and read
//! again while sockets live; and, where a listener asks for them, certificates of clients.
mod choice;
pub mod client;
pub mod generate;

pub use crate::config::keys::LoadError;
pub use generate::generate;

use crate::config::{Certificate, keys};
use arc_swap::ArcSwap;
use choice::Choice;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, ServerConfig, version};

/// The ALPN name of HTTP/1.1 (RFC 7301, 6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// The ALPN name of HTTP/2 over TLS (RFC 9113, 3.2).
pub const ALPN_HTTP2: &[u8] = b"h2";

/// The TLS of a listener. Its files can be read again; its ticket keys stay, so that a client
/// resumes its session also after a reload.
pub struct Tls {
    current: ArcSwap<ServerConfig>,
    sources: Sources,
    /// `None` where clients show certificates: each handshake looks at theirs anew.
    ticketer: Option<Arc<dyn ProducesTickets>>,
}

/// What a listener's TLS is made of.
#[derive(Debug, Clone)]
struct Sources {
    certificates: Vec<Certificate>,
    client_ca: Option<PathBuf>,
    alpn: Vec<Vec<u8>>,
}

/// Keys must not be printed.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificates and offers HTTP/1.1 alone by ALPN; clients show no certificates. Files that are missing
    /// are not made here ([`generate()`]).
    ///
    /// # Errors
    /// Names the file that cannot be read, or that holds no certificate or key, or the pair that does
    /// not belong together.
    pub fn load(certificates: &[Certificate]) -> Result<Tls, LoadError> {
        Tls::load_with(certificates, &[ALPN_HTTP1], None)
    }

    /// As [`Tls::load`], with the protocols that ALPN offers, the preferred one first. `client_ca`: a PEM file of
    /// authorities; every client must show a certificate that chains to one of them, and no session is resumed.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn load_with(certificates: &[Certificate], alpn: &[&[u8]], client_ca: Option<&Path>) -> Result<Tls, LoadError> {
        let sources = Sources {
            certificates: certificates.to_vec(),
            client_ca: client_ca.map(Path::to_owned),
            alpn: alpn.iter().map(|name| name.to_vec()).collect(),
        };
        let ticketer = match client_ca {
            Some(_) => None,
            None => Some(aws_lc_rs::Ticketer::new().map_err(|error| LoadError::about("TLS", error))?),
        };
        Ok(Tls { current: ArcSwap::from_pointee(sources.read(ticketer.as_ref())?), sources, ticketer })
    }

    /// What one connection is accepted with: what was read last.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config())
    }

    /// The configuration, for rustls' other interfaces.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads all files again: certificates, and authorities of clients, count from the next handshake on. Living
    /// connections are not touched. Reads files: not to be called on a shard's thread.
    ///
    /// # Errors
    /// As [`Tls::load`]; the old ones stay then, all of them.
    pub fn reload(&self) -> Result<(), LoadError> {
        self.current.store(Arc::new(self.sources.read(self.ticketer.as_ref())?));
        Ok(())
    }
}

impl Sources {
    fn read(&self, ticketer: Option<&Arc<dyn ProducesTickets>>) -> Result<ServerConfig, LoadError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let choice = read_all(&self.certificates, &provider)?;
        let failed = |error: Error| LoadError::about("TLS", error);
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(failed)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(client::of_file(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| LoadError::file(path, error))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(choice));
        config.alpn_protocols.clone_from(&self.alpn);
        // rustls makes no tickets by itself, and keeps sessions in memory. Tickets keep them at the
        // client's; one is enough, since a client gets the next with each resumption.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if let Some(ticketer) = ticketer {
            config.ticketer = ticketer.clone();
            config.send_tls13_tickets = 1;
        }
        Ok(config)
    }
}

fn read_all(sources: &[Certificate], provider: &CryptoProvider) -> Result<Choice, LoadError> {
    let mut choice = Choice::default();
    for source in sources {
        let key = read_pair(source, provider)?;
        choice.add(key).map_err(|error| LoadError::file(&source.certificate, error))?;
    }
    if choice.is_empty() {
        return Err(LoadError::about("TLS", "no certificate"));
    }
    Ok(choice)
}

fn read_pair(source: &Certificate, provider: &CryptoProvider) -> Result<CertifiedKey, LoadError> {
    let Certificate { certificate, private_key, .. } = source;
    let chain = read_chain(certificate)?;
    let key = provider
        .key_provider
        .load_private_key(read_key(private_key)?)
        .map_err(|_| LoadError::file(private_key, "a private key of a kind that is not supported"))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(Error::InconsistentKeys(_)) => {
            let reason = format!("not the private key of the certificate in {}", certificate.display());
            Err(LoadError::file(private_key, reason))
        }
        Err(error) => Err(LoadError::file(certificate, error)),
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let bytes = keys::read(path)?;
    let chain: Vec<_> = rustls_pemfile::certs(&mut bytes.as_slice())
        .collect::<Result<_, _>>()
        .map_err(|_| LoadError::file(path, "malformed PEM"))?;
    if chain.is_empty() { Err(LoadError::file(path, "no certificate in PEM")) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    let bytes = keys::read(path)?;
    keys::warn_if_open(path);
    // The library's own words may quote a line of the file.
    rustls_pemfile::private_key(&mut bytes.as_slice())
        .map_err(|_| LoadError::file(path, "malformed PEM"))?
        .ok_or_else(|| LoadError::file(path, "no private key in PEM (an encrypted one must be decrypted first)"))
}

#[cfg(test)]
mod tests;
