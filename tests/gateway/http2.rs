//! WebSockets over HTTP/2 (RFC 8441).
use crate::support::http2::{Http2, connect};
use crate::support::*;

async fn echo() -> Gateway {
    Gateway::start(&format!("{TLS}{OPEN}{ECHO}")).await
}

#[tokio::test]
async fn an_echo() {
    let gateway = echo().await;
    let mut http2 = Http2::connect(&gateway).await;
    let mut client = http2.open("/echo", &[("sec-websocket-protocol", "a, b")]).await;
    assert_eq!(client.protocol(), Some("a"));
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!client.response.headers().contains_key(name), "{name}");
    }
    client.text("hello").await;
    assert_eq!(client.next_text().await, "hello");
    assert_eq!(client.close(1000, "done").await, Some(1000));
    assert!(client.next().await.is_none());
    let line = gateway.wait_for_log(|l| l.contains("session ended")).await;
    assert!(line.contains("code=1000"), "{line}");
}
