//! TLS clients and certificates.
use super::within;
use rcgen::{CertificateParams, KeyPair};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

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

/// A client that trusts the certificates of this PEM text alone.
pub fn client(roots_pem: &str, versions: Versions) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut roots_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A handshake with this SNI name, which the certificate must carry.
pub async fn connect(tcp: TcpStream, name: &str, config: &Arc<ClientConfig>) -> io::Result<Stream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within(TlsConnector::from(config.clone()).connect(name, tcp)).await
}
