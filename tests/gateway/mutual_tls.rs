//! Certificates of clients.
use crate::support::gateway::Setup;
use crate::support::tls::{self, Authority};
use crate::support::*;
use std::io;
use std::sync::Arc;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

/// Logs what is said of handshakes, and wants certificates of clients.
fn config() -> String {
    let listener = TLS.replace("generate = true", "generate = true\nclient_ca = \"certs/clients.pem\"");
    format!("[server]\nlog = \"info,wsgate::tls=debug\"\n{listener}{OPEN}{ECHO}{ADMIN}")
}

async fn start(authority: &Authority) -> Gateway {
    Setup::new().file("certs/clients.pem", authority.pem()).start(&config()).await
}

fn client(gateway: &Gateway, versions: tls::Versions, own: Option<&(String, String)>) -> Arc<ClientConfig> {
    tls::client_with(&gateway.folder.read("certs/fullchain.pem"), versions, own)
}

/// Whether a session comes to be, and how the handshake went: a client of TLS 1.3 is done with it before its
/// certificate was judged.
async fn echo(gateway: &Gateway, client: &Arc<ClientConfig>) -> io::Result<HandshakeKind> {
    let stream = tls::connect(gateway.tcp().await, "localhost", client).await?;
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    let mut client = Client::try_open(stream, "/echo", &[]).await.map_err(io::Error::other)?;
    client.text("sealed").await;
    assert_eq!(client.next_text().await, "sealed");
    client.close(1000, "").await;
    Ok(kind)
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_authority_comes_in() {
    let (authority, other) = (Authority::new("clients"), Authority::new("clients"));
    let gateway = start(&authority).await;
    let cases = [
        ("none", None, "no certificates"),
        ("of another authority", Some(other.sign("alice", 4000)), "BadSignature"),
        ("signed by itself", Some(tls::certificate("alice")), "UnknownIssuer"),
        ("expired", Some(authority.sign("alice", 2000)), "xpired"),
    ];
    for (count, (name, own, why)) in cases.iter().enumerate() {
        for (turn, versions) in [tls::ONLY_12, tls::ONLY_13].into_iter().enumerate() {
            assert!(echo(&gateway, &client(&gateway, versions, own.as_ref())).await.is_err(), "{name}");
            let due = (2 * count + turn + 1) as f64;
            eventually(|| async {
                let failed = gateway.metric("wsgate_handshakes_total", &["\"tls_failed\""]).await;
                (failed == due).then_some(())
            })
            .await;
        }
        gateway.wait_for_log(|l| l.contains("handshake failed") && l.contains(why)).await;
    }
    assert_eq!(gateway.metric("wsgate_handshakes_total", &["\"accepted\""]).await, 0.0);
    let good = authority.sign("alice", 4000);
    for versions in [tls::ONLY_12, tls::ONLY_13] {
        echo(&gateway, &client(&gateway, versions, Some(&good))).await.unwrap();
    }
}

/// Or a certificate that was withdrawn, or has expired, would go on to be good for a while.
#[tokio::test]
async fn no_session_is_resumed() {
    let authority = Authority::new("clients");
    let gateway = start(&authority).await;
    let own = authority.sign("alice", 4000);
    for versions in [tls::ONLY_12, tls::ONLY_13] {
        let client = client(&gateway, versions, Some(&own));
        for _ in 0..3 {
            assert_eq!(echo(&gateway, &client).await.unwrap(), HandshakeKind::Full);
        }
    }
}

#[tokio::test]
async fn sighup_reads_the_authorities_again() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let gateway = start(&old).await;
    let before = client(&gateway, tls::ANY, Some(&old.sign("alice", 4000)));
    let after = client(&gateway, tls::ANY, Some(&new.sign("alice", 4000)));
    assert!(echo(&gateway, &after).await.is_err());
    let stream = tls::connect(gateway.tcp().await, "localhost", &before).await.unwrap();
    let mut living = Client::open(stream, "/echo", &[]).await;
    gateway.folder.write("certs/clients.pem", new.pem());
    gateway.signal("HUP");
    gateway.wait_for_log(|l| l.contains("were read again")).await;
    echo(&gateway, &after).await.unwrap();
    assert!(echo(&gateway, &before).await.is_err());
    living.text("still here").await;
    assert_eq!(living.next_text().await, "still here");
    gateway.folder.write("certs/clients.pem", "nothing");
    gateway.signal("HUP");
    gateway.wait_for_log(|l| l.contains("clients.pem") && l.contains("the old ones stay")).await;
    echo(&gateway, &after).await.unwrap();
}
