//! TLS: versions, names, reload, garbage.
use crate::support::gateway::Setup;
use crate::support::tls::{self, certificate};
use crate::support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TWO: &str = r#"
[[listener]]
address = "127.0.0.1:0"
[[listener.tls]]
certificate = "certs/a.pem"
private_key = "certs/a.key"
[[listener.tls]]
certificate = "certs/b.pem"
private_key = "certs/b.key"
"#;

/// The gateway with a certificate for `a.test`, then one for `b.test`, and both as PEM.
async fn with_two() -> (Gateway, String, String) {
    let (a, a_key) = certificate("a.test");
    let (b, b_key) = certificate("b.test");
    let setup = Setup::new().file("certs/a.pem", &a).file("certs/a.key", a_key);
    let setup = setup.file("certs/b.pem", &b).file("certs/b.key", b_key);
    (setup.start(&format!("{TWO}{OPEN}{ECHO}")).await, a, b)
}

#[tokio::test]
async fn both_versions_of_tls_carry_websockets() {
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}")).await;
    let roots = gateway.folder.read("certs/fullchain.pem");
    for versions in [tls::ONLY_12, tls::ONLY_13] {
        let stream = tls::connect(gateway.tcp().await, "localhost", &tls::client(&roots, versions)).await.unwrap();
        let mut client = Client::open(stream, "/echo", &[]).await;
        client.text("sealed").await;
        assert_eq!(client.next_text().await, "sealed");
        assert_eq!(client.close(1000, "").await, Some(1000));
    }
}

#[tokio::test]
async fn the_certificate_is_chosen_by_sni() {
    let (gateway, a, b) = with_two().await;
    for (name, roots) in [("a.test", &a), ("b.test", &b)] {
        let stream = tls::connect(gateway.tcp().await, name, &tls::client(roots, tls::ANY)).await;
        let mut client = Client::open(stream.unwrap_or_else(|e| panic!("{name}: {e}")), "/echo", &[]).await;
        client.text(name).await;
        assert_eq!(client.next_text().await, name);
    }
}

#[tokio::test]
async fn an_unknown_name_gets_the_first_certificate() {
    let (gateway, a, _) = with_two().await;
    let refused = tls::connect(gateway.tcp().await, "c.test", &tls::client(&a, tls::ANY)).await.unwrap_err();
    assert!(refused.to_string().contains("a.test"), "another certificate than a.test's: {refused}");
}

#[tokio::test]
async fn sessions_are_resumed_with_tickets() {
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}")).await;
    let config = tls::client(&gateway.folder.read("certs/fullchain.pem"), tls::ANY);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = tls::connect(gateway.tcp().await, "localhost", &config).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        let mut client = Client::open(stream, "/echo", &[]).await;
        client.text("a ticket comes with the first record").await;
        client.next_text().await;
        client.close(1000, "").await;
    }
    assert_eq!(kinds, [tokio_rustls::rustls::HandshakeKind::Full, tokio_rustls::rustls::HandshakeKind::Resumed]);
}

#[tokio::test]
async fn sighup_reads_certificates_again_and_touches_no_socket() {
    let (old, old_key) = certificate("localhost");
    let (new, new_key) = certificate("localhost");
    let setup = Setup::new().file("certs/fullchain.pem", &old).file("certs/privkey.pem", old_key);
    let config = TLS.replace("generate = true", "");
    let gateway = setup.start(&format!("{config}{OPEN}{ECHO}")).await;
    let mut before = Client::open(gateway.tls(0).await, "/echo", &[]).await;
    gateway.folder.write("certs/fullchain.pem", &new);
    gateway.folder.write("certs/privkey.pem", new_key);
    gateway.signal("HUP");
    let trusts_new = tls::client(&new, tls::ANY);
    let stream = eventually(|| async { tls::connect(gateway.tcp().await, "localhost", &trusts_new).await.ok() }).await;
    let mut after = Client::open(stream, "/echo", &[]).await;
    for client in [&mut before, &mut after] {
        client.text("still here").await;
        assert_eq!(client.next_text().await, "still here");
    }
}

#[tokio::test]
async fn sighup_with_a_broken_certificate_keeps_the_old_one() {
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}")).await;
    let old = tls::client(&gateway.folder.read("certs/fullchain.pem"), tls::ANY);
    gateway.folder.write("certs/fullchain.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let seen = gateway.log().lines().count();
    gateway.signal("HUP");
    eventually(|| async { (gateway.log().lines().count() > seen).then_some(()) }).await;
    let stream = tls::connect(gateway.tcp().await, "localhost", &old).await.unwrap();
    let mut client = Client::open(stream, "/echo", &[]).await;
    client.text("still here").await;
    assert_eq!(client.next_text().await, "still here");
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_ends_that_connection_alone() {
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}")).await;
    let mut good = Client::open(gateway.tls(0).await, "/echo", &[]).await;
    let client_hello_cut = [0x16, 3, 1, 0x02, 0, 1, 0, 1, 0xfc, 3, 3];
    let plain_http = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice();
    let oversized_record = [0x16, 3, 1, 0xff, 0xff, 1];
    for garbage in [plain_http, &[0; 512], &[0xff; 512], &oversized_record] {
        let mut tcp = gateway.tcp().await;
        tcp.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let _ = within(tcp.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{:?}", String::from_utf8_lossy(&answer));
    }
    let mut cut = gateway.tcp().await;
    cut.write_all(&client_hello_cut).await.unwrap();
    drop(cut);
    good.text("unharmed").await;
    assert_eq!(good.next_text().await, "unharmed");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_closed_in_time() {
    let config = TLS.replace("[[listener.tls]]", "header_timeout = \"3s\"\n[[listener.tls]]");
    let gateway = Gateway::start(&format!("{config}{OPEN}{ECHO}")).await;
    let mut silent = gateway.tcp().await;
    let mut partial = gateway.tcp().await;
    partial.write_all(&[0x16, 3, 1]).await.unwrap();
    let handshake_only = gateway.tls(0).await;
    let mut answer = Vec::new();
    for stream in [&mut silent, &mut partial] {
        let _ = within(stream.read_to_end(&mut answer)).await;
    }
    RawWs::over(handshake_only).try_read_head().await;
}
