//! Clients nobody here wrote, against the gateway's own services and through it to each other.
use crate::support::token::good;
use crate::support::*;
use serde_json::Value;

const BOTH: [Peer; 2] = [Peer::Node, Peer::Python];
const LARGE: &str = "[limits]\nmax_message_size = \"2MiB\"\nmax_backlog = \"2MiB\"\nbytes_per_second = 0\n";

/// A TLS listener, then a plain one, for these routes.
async fn gateway(auth: &str, routes: &str) -> Gateway {
    Gateway::start(&format!("{TLS}{PLAIN}{auth}{routes}{LARGE}")).await
}

fn ca(gateway: &Gateway) -> String {
    gateway.folder.path().join("certs/fullchain.pem").display().to_string()
}

/// Runs the scenario by wss and by ws.
async fn by_both(
    peer: Peer,
    gateway: &Gateway,
    path: &str,
    scenario: &str,
    environment: &[(&str, &str)],
) -> Vec<Value> {
    let ca = ca(gateway);
    let mut results = Vec::new();
    for url in
        [format!("wss://localhost:{}{path}", gateway.port(0)), format!("ws://127.0.0.1:{}{path}", gateway.port(1))]
    {
        let mut environment = environment.to_vec();
        if url.starts_with("wss") {
            environment.push(("WSGATE_TEST_CA", &ca));
        }
        results.extend(peer.client(&url, scenario, &environment).await);
    }
    results
}

#[tokio::test]
async fn echo_serves_them() {
    let gateway = gateway(OPEN, ECHO).await;
    for peer in BOTH {
        for result in by_both(peer, &gateway, "/echo", "echo", &[]).await {
            assert_eq!(result["messages"], 8, "{peer:?}: {result}");
            assert_eq!(result["close"], 1000, "{peer:?}: {result}");
        }
    }
}

#[tokio::test]
async fn they_reach_each_other_through_the_gateway() {
    for server in BOTH {
        let Some(backend) = Backend::start(server).await else { continue };
        let gateway = gateway(OPEN, &proxy(&[backend.port])).await;
        for peer in BOTH {
            let offered = [("WSGATE_TEST_PROTOCOLS", "chat.v1,chat.v2")];
            for result in by_both(peer, &gateway, "/live/x", "echo", &offered).await {
                assert_eq!(result["messages"], 8, "{peer:?} to {server:?}: {result}");
                assert_eq!(result["close"], 1000, "{peer:?} to {server:?}: {result}");
                assert_eq!(result["protocol"], "chat.v2", "{peer:?} to {server:?}: {result}");
                assert!(
                    result["extensions"].to_string().contains("permessage-deflate"),
                    "{peer:?} to {server:?}: {result}"
                );
            }
        }
    }
}

#[tokio::test]
async fn rooms_serve_them() {
    let gateway = gateway(SECRET_AUTH, ROOMS).await;
    for peer in BOTH {
        let token = good("peer");
        for result in by_both(peer, &gateway, "/ws", "rooms", &[("WSGATE_TEST_TOKEN", &token)]).await {
            assert_eq!(result["client_id"], "peer", "{peer:?}: {result}");
            assert_eq!(result["protocol"], "rooms.v1", "{peer:?}: {result}");
            assert_eq!(result["joined"]["room_id"], "peers", "{peer:?}: {result}");
            assert_eq!(result["chat"]["sender_id"], "peer", "{peer:?}: {result}");
            assert_eq!(result["close"], 1000, "{peer:?}: {result}");
        }
    }
}

#[tokio::test]
async fn they_are_told_why_they_are_refused() {
    let gateway = gateway(SECRET_AUTH, ECHO).await;
    let by_status = Gateway::start(&format!("{TLS}{PLAIN}{SECRET_AUTH}on_reject = \"http\"\n{ECHO}")).await;
    for peer in BOTH {
        for result in by_both(peer, &gateway, "/echo", "end", &[]).await {
            assert_eq!(result["code"], 4001, "{peer:?}: {result}");
        }
        for result in by_both(peer, &gateway, "/echo", "end", &[("WSGATE_TEST_ORIGIN", "https://evil.test")]).await {
            assert_eq!(result["code"], 4003, "{peer:?}: {result}");
        }
        for result in by_both(peer, &by_status, "/echo", "end", &[]).await {
            assert_eq!(result["status"], 401, "{peer:?}: {result}");
        }
        for result in by_both(peer, &gateway, "/nowhere", "end", &[]).await {
            assert_eq!(result["status"], 404, "{peer:?}: {result}");
        }
    }
}

#[tokio::test]
async fn they_see_that_the_gateway_stops() {
    for peer in BOTH {
        if peer.command("client").is_none() {
            continue;
        }
        let mut gateway =
            Gateway::start(&format!("[server]\ndrain = \"100ms\"\n{TLS}{PLAIN}{OPEN}{ECHO}{ADMIN}")).await;
        let url = format!("ws://127.0.0.1:{}/echo", gateway.port(1));
        let client = peer.client(&url, "end", &[]);
        let stop = async {
            eventually(|| async {
                let (_, metrics) = gateway.admin_get("/metrics").await;
                // A connection is counted before its upgrade, which a stop would cut off.
                metrics.lines().any(|l| l == "wsgate_sessions{service=\"echo\"} 1").then_some(())
            })
            .await;
            assert!(gateway.stop().await.success());
        };
        let (result, ()) = tokio::join!(client, stop);
        assert_eq!(result.unwrap()["code"], 1012, "{peer:?}");
    }
}
