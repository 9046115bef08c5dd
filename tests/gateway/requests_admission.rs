//! Who may ask by ordinary HTTP: Origin, token, method.
use crate::requests::{OK, head};
use crate::support::token::good;
use crate::support::*;

const ORIGINS: &str = "[origins]\nallow = [\"https://app.test\"]\n";

async fn behind(more: &str) -> (Gateway, Origin) {
    let origin = Origin::start().await;
    let routes = proxy(&[origin.port]);
    (Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{more}{ORIGINS}{routes}")).await, origin)
}

/// The answer's status, and the head that the backend got where it got one.
async fn ask(gateway: &Gateway, origin: &Origin, request: &str) -> (raw::Head, Option<raw::Asked>) {
    let mut client = gateway.raw().await;
    client.send(request).await;
    tokio::select! {
        (mut server, asked) = origin.asked() => {
            server.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            (client.read_head().await, Some(asked))
        }
        answer = client.read_head() => (answer, None),
    }
}

#[tokio::test]
async fn a_token_is_needed_and_refused_by_status() {
    let (gateway, origin) = behind("").await;
    for headers in ["", "Authorization: Basic x\r\n", "Sec-WebSocket-Protocol: bearer, x\r\n"] {
        let (answer, asked) = ask(&gateway, &origin, &head("GET /live/x", headers)).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{headers}");
        assert!(asked.is_none());
    }
    let (bad, token) = (Token::of("alice").expires_in(-100).sign(), good("alice"));
    let (answer, _) = ask(&gateway, &origin, &head("GET /live/x", &format!("Authorization: Bearer {bad}\r\n"))).await;
    assert_eq!(answer.status, 401);
    let (answer, asked) =
        ask(&gateway, &origin, &head("GET /live/x", &format!("Authorization: Bearer {token}\r\n"))).await;
    assert_eq!(answer.status, 204);
    assert_eq!(asked.unwrap().header("x-client-id"), Some("alice"));
    let (answer, asked) = ask(&gateway, &origin, &head(&format!("GET /live/x?a&token={token}&b"), "")).await;
    assert_eq!(answer.status, 204);
    assert_eq!(asked.unwrap().line, "GET /live/x?a&b HTTP/1.1");
}

#[tokio::test]
async fn a_foreign_origin_is_refused_by_status() {
    let (gateway, origin) = behind("").await;
    let token = format!("Authorization: Bearer {}\r\n", good("alice"));
    for (from, status) in [("https://evil.test", 403), ("null", 403), ("https://app.test", 204)] {
        let (answer, asked) =
            ask(&gateway, &origin, &head("POST /live/x", &format!("{token}Origin: {from}\r\n"))).await;
        assert_eq!((answer.status, asked.is_some()), (status, status == 204), "{from}");
    }
}

/// Browsers send none when a page is opened.
#[tokio::test]
async fn a_missing_origin_matters_where_browsers_would_send_one() {
    let origin = Origin::start().await;
    let rules = format!("{OPEN}{ORIGINS}missing = \"deny\"\n");
    let gateway = Gateway::start(&format!("{PLAIN}{rules}{}", proxy(&[origin.port]))).await;
    for (line, from, status) in [
        ("GET /live/x", "", 204),
        ("HEAD /live/x", "", 204),
        ("GET /live/x", "Origin: https://evil.test\r\n", 403),
        ("GET /live/x", "Origin:\r\n", 403),
        ("POST /live/x", "", 403),
        ("DELETE /live/x", "", 403),
        ("OPTIONS /live/x", "", 403),
        ("POST /live/x", "Origin: https://app.test\r\n", 204),
    ] {
        let (answer, asked) = ask(&gateway, &origin, &head(line, from)).await;
        assert_eq!((answer.status, asked.is_some()), (status, status == 204), "{line} {from}");
    }
}

/// Browsers send cookies with what other sites make them ask.
#[tokio::test]
async fn a_cookie_counts_for_unsafe_methods_only_where_the_request_says_where_it_is_from() {
    let (gateway, origin) = behind("").await;
    let cookie = format!("Cookie: token={}\r\n", good("alice"));
    for (method, from, status) in [
        ("GET", "", 204),
        ("HEAD", "", 204),
        ("POST", "", 401),
        ("DELETE", "Sec-Fetch-Site: cross-site\r\n", 401),
        ("PUT", "Sec-Fetch-Site: same-site\r\n", 401),
        ("PATCH", "Sec-Fetch-Site: none\r\n", 401),
        ("POST", "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n", 401),
        ("PROPFIND", "", 401),
        ("POST", "Sec-Fetch-Site: same-origin\r\n", 204),
        ("POST", "Origin: https://app.test\r\n", 204),
        ("POST", "Origin: https://evil.test\r\n", 403),
    ] {
        let (answer, asked) =
            ask(&gateway, &origin, &head(&format!("{method} /live/x"), &format!("{cookie}{from}"))).await;
        assert_eq!((answer.status, asked.is_some()), (status, status == 204), "{method} {from}");
    }
}

#[tokio::test]
async fn a_preflight_needs_no_token_but_an_allowed_origin() {
    let (gateway, origin) = behind("").await;
    let asks = "Access-Control-Request-Method: POST\r\n";
    for (headers, status) in [
        (format!("{asks}Origin: https://app.test\r\n"), 204),
        (format!("{asks}Origin: https://evil.test\r\n"), 403),
        (asks.to_owned(), 401),
        ("Origin: https://app.test\r\n".to_owned(), 401),
    ] {
        let (answer, asked) = ask(&gateway, &origin, &head("OPTIONS /live/x", &headers)).await;
        assert_eq!(answer.status, status, "{headers}");
        assert_eq!(asked.and_then(|asked| asked.header("x-client-id").map(str::to_owned)), None);
    }
}

#[tokio::test]
async fn methods_that_no_proxy_passes_on_are_refused() {
    let (gateway, origin) = behind("").await;
    let token = format!("Authorization: Bearer {}\r\n", good("alice"));
    for line in ["TRACE /live/x", "CONNECT localhost:80"] {
        let (answer, asked) = ask(&gateway, &origin, &head(line, &token)).await;
        assert_eq!((answer.status, asked.is_some()), (405, false), "{line}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"), "{line}");
    }
}

#[tokio::test]
async fn a_banned_client_is_refused() {
    let (gateway, origin) = behind(ADMIN).await;
    let mut admin = RawWs::over(tokio::net::TcpStream::connect(gateway.admin()).await.unwrap());
    let ban = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    admin.send(format!("PUT /api/bans/alice HTTP/1.1\r\nHost: {}\r\n{ban}", gateway.admin())).await;
    assert_eq!(admin.read_head().await.status, 200);
    for (client, status) in [("alice", 403), ("bob", 204)] {
        let token = format!("Authorization: Bearer {}\r\n", good(client));
        assert_eq!(ask(&gateway, &origin, &head("GET /live/x", &token)).await.0.status, status, "{client}");
    }
}

/// What is refused is; it may be a guess.
#[tokio::test]
async fn a_request_that_is_let_in_is_no_handshake() {
    let (gateway, origin) = behind("[limits]\nhandshakes_per_second = 1\n").await;
    let mut client = gateway.raw().await;
    let token = format!("Authorization: Bearer {}\r\n", good("alice"));
    client.send(head("GET /live/1", &token)).await;
    let (mut server, _) = origin.asked().await;
    server.send(OK).await;
    client.read_head().await;
    client.take(2).await;
    for _ in 0..20 {
        client.send(head("GET /live/more", &token)).await;
        server.try_read_request().await.unwrap();
        server.send(OK).await;
        assert_eq!(client.read_head().await.status, 200);
        client.take(2).await;
    }
    let mut refused = Vec::new();
    while refused.last() != Some(&429) {
        client.send(head("GET /live/guess", "")).await;
        let answer = client.read_head().await;
        client.read_body(&answer).await;
        refused.push(answer.status);
        assert!(refused.len() < 50, "{refused:?}");
    }
    assert_eq!(refused[0], 401);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_sends_a_body() {
    let (gateway, _origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("POST /live/x", "Content-Length: 600000\r\n")).await;
    client.send(vec![b'x'; 600_000]).await;
    let answer = client.read_head().await;
    assert_eq!(answer.status, 401);
    client.read_body(&answer).await;
    // All of it was read, so that the connection is in order.
    client.send(head("GET /live/x", "")).await;
    assert_eq!(client.read_head().await.status, 401);
}
