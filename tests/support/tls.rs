//! TLS clients and certificates.
use super::within;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

pub type Stream = tokio_rustls::client::TlsStream<TcpStream>;
pub type Versions = &'static [&'static SupportedProtocolVersion];

pub const ANY: Versions = &[&TLS12, &TLS13];
pub const ONLY_12: Versions = &[&TLS12];
pub const ONLY_13: Versions = &[&TLS13];

/// A self-signed certificate for this name and its key, as PEM.
pub fn certificate(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// An authority, and what it has signed.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this name, or address, and its key, as PEM.
    pub fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn roots(&self) -> RootCertStore {
        roots(&self.pem)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

/// A server with this pair; where there is an authority, its clients must show a certificate of that.
pub fn server((certificate, key): &(String, String), clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = rustls_pemfile::certs(&mut certificate.as_bytes()).map(Result::unwrap).collect();
    let key = rustls_pemfile::private_key(&mut key.as_bytes()).unwrap().unwrap();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(ANY).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap(),
            )
        }
    };
    builder.with_single_cert(chain, key).unwrap()
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

/// A client that trusts the certificates of this PEM text alone.
pub fn client(roots_pem: &str, versions: Versions) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots(roots_pem)).with_no_client_auth())
}

/// A handshake with this SNI name, which the certificate must carry.
pub async fn connect(tcp: TcpStream, name: &str, config: &Arc<ClientConfig>) -> io::Result<Stream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within(TlsConnector::from(config.clone()).connect(name, tcp)).await
}
