//! Permits: how many may come, how fast, and that each place is given back.
use crate::support::raw::{frame, upgrade_head};
use crate::support::token::good;
use crate::support::*;
use tokio_tungstenite::tungstenite::Error;

/// The answer to a refused upgrade of `/echo`; `None` where it was let in.
async fn refused(gateway: &Gateway) -> Option<raw::Head> {
    let mut raw = gateway.raw().await;
    raw.try_send(upgrade_head("/echo", &[])).await;
    let head = raw.read_head().await;
    (head.status != 101).then_some(head)
}

#[tokio::test]
async fn connections_of_one_address_are_bounded_and_places_come_back() {
    let gateway = Gateway::start(&echo_with_limits("connections_per_ip = 2")).await;
    let mut first = gateway.open("/echo").await;
    let _second = gateway.open("/echo").await;
    let head = refused(&gateway).await.expect("a third connection was let in");
    assert_eq!(head.status, 429, "{head:?}");
    assert!(head.header("retry-after").is_some_and(|v| v.parse::<u32>().is_ok()), "{head:?}");
    first.close(1000, "").await;
    eventually(|| async { refused(&gateway).await.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_before_tls() {
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}[limits]\nconnections_per_ip = 1\n")).await;
    let mut first = Client::open(gateway.tls(0).await, "/echo", &[]).await;
    let roots = gateway.folder.read("certs/fullchain.pem");
    let second = tls::connect(gateway.tcp().await, "localhost", &tls::client(&roots, tls::ANY)).await;
    assert!(second.is_err(), "a handshake was made");
    first.text("still here").await;
    first.next_text().await;
}

#[tokio::test]
async fn handshakes_of_one_address_are_bounded() {
    let gateway = Gateway::start(&echo_with_limits("handshakes_per_second = 1")).await;
    let mut heads = Vec::new();
    while heads.iter().all(Option::is_none) {
        assert!(heads.len() < 1000, "a thousand connections were let in");
        let mut raw = gateway.raw().await;
        raw.try_send(upgrade_head("/echo", &[])).await;
        match raw.try_read_head().await {
            Some(head) if head.status == 101 => heads.push(None),
            Some(head) => heads.push(Some(head)),
            None => break,
        }
    }
    assert!(heads.len() >= 2, "the burst is twice the rate");
    if let Some(Some(head)) = heads.last() {
        assert_eq!(head.status, 429, "{head:?}");
        assert!(head.header("retry-after").is_some(), "{head:?}");
    }
    eventually(|| async { refused_or_closed(&gateway).await.then_some(()) }).await;
}

/// Whether a connection gets its 101 (again).
async fn refused_or_closed(gateway: &Gateway) -> bool {
    let mut raw = gateway.raw().await;
    raw.try_send(upgrade_head("/echo", &[])).await;
    raw.try_read_head().await.is_some_and(|head| head.status == 101)
}

#[tokio::test]
async fn the_process_has_a_limit_too() {
    let config = format!("[server]\nmax_connections = 2\n{PLAIN}{OPEN}{ECHO}");
    let gateway = Gateway::start(&config).await;
    let mut first = gateway.open("/echo").await;
    let _second = gateway.open("/echo").await;
    let head = refused(&gateway).await.expect("a third connection was let in");
    assert_eq!(head.status, 503, "{head:?}");
    assert!(head.header("retry-after").is_some_and(|v| v.parse::<u32>().is_ok()), "{head:?}");
    first.close(1000, "").await;
    eventually(|| async { refused(&gateway).await.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn sockets_of_one_client_are_bounded() {
    let config = format!("{PLAIN}{SECRET_AUTH}{ECHO}{ROOMS}[limits]\nconnections_per_client = 2\n");
    let gateway = Gateway::start(&config).await;
    let mut first = gateway.open_as("/echo", &good("alice")).await;
    let _second = gateway.open_as("/echo", &good("alice")).await;
    gateway.open_as("/echo", &good("alice")).await.closes_with(4011).await;
    let mut bob = gateway.open_as("/echo", &good("bob")).await;
    bob.text("another client").await;
    bob.next_text().await;
    let mut rooms = gateway.open_as("/ws", &good("alice")).await;
    rooms.expect("connection_established").await;
    first.close(1000, "").await;
    eventually(|| async {
        let mut again = gateway.open_as("/echo", &good("alice")).await;
        (again.try_send("hello".into()).await && matches!(again.next().await, Some(m) if m.is_text())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn too_many_sockets_of_a_client_by_status() {
    let config = format!("{PLAIN}{SECRET_AUTH}on_reject = \"http\"\n{ECHO}[limits]\nconnections_per_client = 1\n");
    let gateway = Gateway::start(&config).await;
    let bearer = format!("Bearer {}", good("alice"));
    let _first = gateway.open_as("/echo", &good("alice")).await;
    let error = Client::try_open(gateway.tcp().await, "/echo", &[("Authorization", &bearer)]).await.err();
    let Some(Error::Http(response)) = error.map(|e| *e) else { panic!("a second socket was let in") };
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("Retry-After"));
}

#[tokio::test]
async fn sockets_without_a_token_are_clients_of_their_own() {
    let gateway = Gateway::start(&echo_with_limits("connections_per_client = 1")).await;
    let (mut one, mut two) = (gateway.open("/echo").await, gateway.open("/echo").await);
    for client in [&mut one, &mut two] {
        client.text("alone").await;
        assert_eq!(client.next_text().await, "alone");
    }
}

/// hyper's connection future ends at the 101: a place that hung on it would come back too early.
#[tokio::test]
async fn a_place_is_held_as_long_as_the_socket_lives() {
    let gateway = Gateway::start(&echo_with_limits("connections_per_ip = 1")).await;
    let mut client = gateway.open("/echo").await;
    for _ in 0..20 {
        client.text("still here").await;
        client.next_text().await;
        assert_eq!(refused(&gateway).await.expect("let in beside the first").status, 429);
    }
}

#[tokio::test]
async fn places_come_back_however_a_connection_ends() {
    let config = format!("[server]\nmax_connections = 4\n{PLAIN}{OPEN}{ECHO}[limits]\nconnections_per_ip = 4\n");
    let gateway = Gateway::start(&config).await;
    for _ in 0..20 {
        drop(Client::try_open(gateway.tcp().await, "/echo", &[]).await);
        let mut refused = gateway.raw().await;
        refused.try_send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        drop(refused);
        let mut half = gateway.raw().await;
        half.try_send("GET /ec").await;
        drop(half);
        let mut violating = gateway.raw().await;
        violating.try_send(upgrade_head("/echo", &[])).await;
        violating.try_send(frame(0x83, b"x")).await;
    }
    eventually(|| async {
        let all = [gateway.raw().await, gateway.raw().await, gateway.raw().await, gateway.raw().await];
        let mut open = Vec::new();
        for mut raw in all {
            raw.try_send(upgrade_head("/echo", &[])).await;
            if raw.try_read_head().await.is_some_and(|head| head.status == 101) {
                open.push(raw);
            }
        }
        (open.len() == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn routes_are_tried_in_order_and_by_host() {
    let routes = "[[route]]\nhost = \"b.test\"\npath = \"/x\"\nservice = \"rooms\"\nauth = { required = false }\n\
                  [[route]]\npath = \"/x\"\nservice = \"echo\"\n\
                  [[route]]\npath = \"/below/*\"\nservice = \"echo\"\n";
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{routes}")).await;
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/x", &[]).replace("Host: localhost", "Host: B.test:8080")).await;
    assert_eq!(raw.read_head().await.status, 101);
    let first = raw.read_frame().await;
    assert!(String::from_utf8_lossy(&first.payload).contains("connection_established"), "the host was not looked at");
    let mut echo = gateway.open("/x").await;
    echo.text("echo").await;
    assert_eq!(echo.next_text().await, "echo");
    gateway.open("/below/a/b").await.close(1000, "").await;
    for path in ["/below", "/X", "/x/"] {
        let answer = Client::try_open(gateway.tcp().await, path, &[]).await.err().map(|e| *e);
        assert!(matches!(&answer, Some(Error::Http(r)) if r.status() == 404), "{path}: {answer:?}");
    }
}

/// The first request was counted when the connection came; the next ones count too, and the one that
/// is too many ends the connection.
#[tokio::test]
async fn requests_of_one_connection_are_handshakes_too() {
    let gateway = Gateway::start(&echo_with_limits("handshakes_per_second = 1")).await;
    let mut raw = gateway.raw().await;
    let mut statuses = Vec::new();
    for _ in 0..1000 {
        raw.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let head = raw.read_head().await;
        raw.read_body(&head).await;
        statuses.push(head.status);
        if head.status == 429 {
            assert!(head.header("retry-after").is_some(), "{head:?}");
            assert_eq!(head.header("connection"), Some("close"), "{head:?}");
            break;
        }
    }
    assert!(statuses.len() >= 3 && statuses.last() == Some(&429), "{statuses:?}");
    assert!(statuses[..statuses.len() - 1].iter().all(|s| *s == 404), "{statuses:?}");
    assert!(raw.try_read_head().await.is_none(), "the connection goes on");
}
