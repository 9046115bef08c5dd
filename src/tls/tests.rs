#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::keys::tests::Directory;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use std::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use tokio_rustls::{client, server};

/// A self-signed pair in files of these names.
fn pair(directory: &Directory, file: &str, names: &[&str], alg: &'static SignatureAlgorithm) -> Certificate {
    let key = KeyPair::generate_for(alg).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    Certificate {
        certificate: directory.with(&format!("{file}.pem"), certificate.pem()),
        private_key: directory.with(&format!("{file}.key"), key.serialize_pem()),
        generate: false,
    }
}

fn ec(directory: &Directory, file: &str, names: &[&str]) -> Certificate {
    pair(directory, file, names, &PKCS_ECDSA_P256_SHA256)
}

fn der(pair: &Certificate) -> CertificateDer<'static> {
    read_chain(&pair.certificate).unwrap().remove(0)
}

fn trusting(pairs: &[&Certificate], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    pairs.iter().for_each(|pair| roots.add(der(pair)).unwrap());
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

type Both = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

/// A handshake and one byte each way, after which the client has its tickets.
async fn connect(tls: &Tls, client: &Arc<ClientConfig>, name: &str) -> std::io::Result<Both> {
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(client.clone());
    let (near, far) = tokio::join!(connector.connect(name, near), tls.acceptor().accept(far));
    let (mut near, mut far) = (near?, far?);
    talk(&mut near, &mut far).await;
    Ok((near, far))
}

async fn talk(near: &mut client::TlsStream<DuplexStream>, far: &mut server::TlsStream<DuplexStream>) {
    near.write_all(b"a").await.unwrap();
    near.flush().await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'a');
    far.write_all(b"b").await.unwrap();
    far.flush().await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'b');
}

fn shown(near: &client::TlsStream<DuplexStream>) -> CertificateDer<'static> {
    near.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn both_versions_and_http1_alone() {
    let directory = Directory::new();
    let pair = ec(&directory, "a", &["localhost"]);
    let tls = Tls::load(std::slice::from_ref(&pair)).unwrap();
    for (version, number) in [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut client = trusting(&[&pair], &[version]);
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (near, far) = connect(&tls, &client.into(), "localhost").await.unwrap();
        assert_eq!(near.get_ref().1.protocol_version(), Some(number));
        assert_eq!(far.get_ref().1.alpn_protocol(), Some(ALPN_HTTP1));
    }
    let mut only_h2 = trusting(&[&pair], &[&version::TLS13]);
    only_h2.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect(&tls, &only_h2.clone().into(), "localhost").await.is_err(), "RFC 7301, 3.2");
    let tls = Tls::load_with(&[pair], &[ALPN_HTTP2, ALPN_HTTP1], None).unwrap();
    let (near, _far) = connect(&tls, &only_h2.into(), "localhost").await.unwrap();
    assert_eq!(near.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let directory = Directory::new();
    let first = ec(&directory, "first", &["localhost", "127.0.0.1"]);
    let wild = ec(&directory, "wild", &["*.Example.com"]);
    let exact = ec(&directory, "exact", &["api.example.com", "other.test"]);
    let tls = Tls::load(&[first.clone(), wild.clone(), exact.clone()]).unwrap();
    let client = Arc::new(trusting(&[&first, &wild, &exact], &[&version::TLS13]));
    for (name, expected) in [
        ("localhost", &first),
        ("127.0.0.1", &first),
        ("api.example.com", &exact),
        ("API.EXAMPLE.COM", &exact),
        ("other.test", &exact),
        ("www.example.com", &wild),
    ] {
        let (near, _far) = connect(&tls, &client, name).await.unwrap();
        assert_eq!(shown(&near), der(expected), "{name}");
    }
    // The first one is shown, and the client does not take it.
    for name in ["example.com", "a.b.example.com", "unknown.test", "com"] {
        assert!(connect(&tls, &client, name).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_name_may_have_an_ecdsa_and_an_rsa_certificate() {
    let directory = Directory::new();
    let first = ec(&directory, "ec", &["localhost"]);
    let second = pair(&directory, "rsa", &["localhost"], &PKCS_RSA_SHA256);
    let choice = read_all(&[first.clone(), second.clone()], &aws_lc_rs::default_provider()).unwrap();
    let tls = Tls::load(&[first.clone(), second.clone()]).unwrap();
    let (near, _far) =
        connect(&tls, &trusting(&[&first, &second], &[&version::TLS13]).into(), "localhost").await.unwrap();
    assert_eq!(shown(&near), der(&first));
    for (schemes, expected) in [
        (&[SignatureScheme::RSA_PSS_SHA256][..], &second),
        (&[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256], &first),
        (&[SignatureScheme::ED25519], &first),
    ] {
        for name in [Some("localhost"), Some("unknown"), None] {
            assert_eq!(choice.choose(name, schemes).unwrap().cert[0], der(expected), "{name:?} {schemes:?}");
        }
    }
}

#[tokio::test]
async fn sessions_are_resumed_by_tickets_also_after_a_reload() {
    let directory = Directory::new();
    let pair = ec(&directory, "a", &["localhost"]);
    for version in [&version::TLS12, &version::TLS13] {
        let tls = Tls::load(std::slice::from_ref(&pair)).unwrap();
        let client = Arc::new(trusting(&[&pair], &[version]));
        let (near, _far) = connect(&tls, &client, "localhost").await.unwrap();
        assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        for _ in 0..2 {
            let (near, far) = connect(&tls, &client, "localhost").await.unwrap();
            assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
            assert_eq!(far.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
            tls.reload().unwrap();
        }
        let stranger = Tls::load(std::slice::from_ref(&pair)).unwrap();
        let (near, _far) = connect(&stranger, &client, "localhost").await.unwrap();
        assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "other ticket keys");
    }
}

#[tokio::test]
async fn a_reload_changes_certificates_under_living_connections() {
    let directory = Directory::new();
    let source = ec(&directory, "a", &["localhost"]);
    let tls = Tls::load(std::slice::from_ref(&source)).unwrap();
    let before = der(&source);
    let (mut near, mut far) =
        connect(&tls, &trusting(&[&source], &[&version::TLS13]).into(), "localhost").await.unwrap();
    assert_eq!(shown(&near), before);

    // A bad file: the old one stays.
    let text = fs::read(&source.certificate).unwrap();
    fs::write(&source.certificate, "nonsense").unwrap();
    assert!(tls.reload().is_err());
    fs::write(&source.certificate, text).unwrap();
    let (other, _far) = connect(&tls, &trusting(&[&source], &[&version::TLS13]).into(), "localhost").await.unwrap();
    assert_eq!(shown(&other), before);

    ec(&directory, "a", &["localhost"]);
    tls.reload().unwrap();
    assert_ne!(der(&source), before);
    let (other, _far) = connect(&tls, &trusting(&[&source], &[&version::TLS13]).into(), "localhost").await.unwrap();
    assert_eq!(shown(&other), der(&source));
    talk(&mut near, &mut far).await;
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = Directory::new();
    let a = ec(&directory, "a", &["localhost"]);
    let b = ec(&directory, "b", &["localhost"]);
    let hush = directory.with("hush", "-----BEGIN HUSH\nhush\n");
    let cut = directory.with("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let odd = directory.with("odd", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let none = directory.0.join("none");
    for (certificate, private_key, parts) in [
        (&a.certificate, &b.private_key, &["b.key: not the private key", "a.pem"][..]),
        (&a.certificate, &a.certificate, &["a.pem: no private key"]),
        (&a.private_key, &a.private_key, &["a.key: no certificate"]),
        (&hush, &a.private_key, &["hush: malformed PEM"]),
        (&a.certificate, &hush, &["hush: malformed PEM"]),
        (&cut, &a.private_key, &["cut: "]),
        (&a.certificate, &odd, &["odd: a private key of a kind"]),
        (&none, &a.private_key, &["none: No such file"]),
        (&a.certificate, &none, &["none: No such file"]),
    ] {
        let pair = Certificate { certificate: certificate.clone(), private_key: private_key.clone(), generate: false };
        let error = Tls::load(&[a.clone(), pair]).unwrap_err();
        for part in parts {
            assert!(error.to_string().contains(part), "{error}");
        }
        let said = format!("{error:?}");
        assert!(!said.contains("HUSH") && !said.contains("BEGIN"), "{said}");
    }
    assert!(Tls::load(&[]).is_err());
    let key = fs::read_to_string(&a.private_key).unwrap();
    let said = format!("{:?}", Tls::load(&[a]).unwrap());
    assert!(key.lines().all(|line| !said.contains(line)), "{said}");
}
