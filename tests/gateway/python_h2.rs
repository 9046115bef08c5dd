//! PyPI `h2` and `wsproto`: WebSockets over HTTP/2, and what is none.
use crate::support::*;
use serde_json::{Value, json};

const NO_LIMITS: &str = "[limits]\nmax_message_size = \"2MiB\"\nmax_backlog = \"2MiB\"\nbytes_per_second = 0\n\
                         messages_per_second = 0\nconnections_per_client = 0\n";

async fn gateway(routes: &str) -> Gateway {
    Gateway::start(&format!("{TLS}{ADMIN}{OPEN}{routes}{NO_LIMITS}")).await
}

/// What the client reports of a scenario on this path.
async fn client(gateway: &Gateway, scenario: &str, path: &str, environment: &[(&str, &str)]) -> Option<Value> {
    let ca = gateway.folder.path().join("certs/fullchain.pem").display().to_string();
    let address = format!("https://localhost:{}", gateway.port(0));
    let environment = [environment, &[("WSGATE_TEST_CA", ca.as_str()), ("WSGATE_TEST_PATH", path)]].concat();
    Peer::Python.run("h2_client", &[&address, scenario], &environment).await
}

#[tokio::test]
async fn the_settings_offer_websockets_and_bounds() {
    let gateway = gateway(ECHO).await;
    let Some(settings) = client(&gateway, "settings", "/echo", &[]).await else { return };
    assert_eq!(settings["ENABLE_CONNECT_PROTOCOL"], 1, "{settings}");
    assert!(settings["MAX_CONCURRENT_STREAMS"].as_u64().is_some_and(|n| n >= 100), "{settings}");
    assert!(settings["MAX_HEADER_LIST_SIZE"].is_u64(), "{settings}");
}

#[tokio::test]
async fn messages_of_every_kind_pass() {
    let Some(backend) = Backend::start(Peer::Python).await else { return };
    let gateway = gateway(&format!("{ECHO}{}", proxy(&[backend.port]))).await;
    for (path, protocol) in [("/echo", "chat.v1"), ("/live/x", "chat.v2")] {
        let Some(result) = client(&gateway, "echo", path, &[]).await else { return };
        assert_eq!(result["messages"], 8, "{path}: {result}");
        assert_eq!(result["close"], 1000, "{path}: {result}");
        assert_eq!(result["protocol"], protocol, "{path}: {result}");
    }
}

#[tokio::test]
async fn a_hundred_websockets_share_a_connection() {
    let gateway = gateway(ECHO).await;
    let Some(result) = client(&gateway, "many", "/echo", &[]).await else { return };
    assert_eq!(result["closes"], json!(vec![1000; 100]), "{result}");
}

#[tokio::test]
async fn a_stream_that_does_not_read_holds_up_itself_alone() {
    // npm ws would read on, and keep what it cannot send.
    let Some(backend) = Backend::start(Peer::Python).await else { return };
    let gateway = gateway(&format!("{ECHO}{}", proxy(&[backend.port]))).await;
    for path in ["/echo", "/live/x"] {
        let Some(result) = client(&gateway, "starve", path, &[]).await else { return };
        assert_eq!(result["closes"], json!([1000, 1000]), "{path}: {result}");
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_takes_nothing_with_it() {
    let Some(mut backend) = Backend::start(Peer::Node).await else { return };
    let gateway = gateway(&proxy(&[backend.port])).await;
    let Some(result) = client(&gateway, "reset", "/live/x", &[]).await else { return };
    assert_eq!(result["close"], 1000, "{result}");
    let mut codes = [backend.event("close").await["code"].as_u64(), backend.event("close").await["code"].as_u64()];
    codes.sort();
    assert_eq!(codes, [Some(1000), Some(1001)]);
}

#[tokio::test]
async fn a_connection_that_vanishes_ends_all_of_its_websockets() {
    let Some(mut backend) = Backend::start(Peer::Node).await else { return };
    let gateway = gateway(&proxy(&[backend.port])).await;
    let Some(_) = client(&gateway, "vanish", "/live/x", &[]).await else { return };
    for _ in 0..3 {
        assert_eq!(backend.event("close").await["code"], 1001);
    }
}

#[tokio::test]
async fn a_refusal_is_a_close_or_a_status() {
    let evil = [("WSGATE_TEST_ORIGIN", "https://evil.test")];
    let by_close = Gateway::start(&format!("{TLS}{SECRET_AUTH}{ECHO}")).await;
    let Some(result) = client(&by_close, "closed", "/echo", &[]).await else { return };
    assert_eq!((&result["status"], &result["code"]), (&json!(200), &json!(4001)), "{result}");
    let result = client(&by_close, "closed", "/echo", &evil).await.unwrap();
    assert_eq!((&result["status"], &result["code"]), (&json!(200), &json!(4003)), "{result}");
    let by_status = Gateway::start(&format!("{TLS}{SECRET_AUTH}on_reject = \"http\"\n{ECHO}")).await;
    assert_eq!(client(&by_status, "closed", "/echo", &[]).await.unwrap()["status"], 401);
    assert_eq!(client(&by_status, "closed", "/echo", &evil).await.unwrap()["status"], 403);
}

#[tokio::test]
async fn it_sees_that_the_gateway_stops() {
    let mut gateway = Gateway::start(&format!("[server]\ndrain = \"100ms\"\n{TLS}{ADMIN}{OPEN}{ECHO}")).await;
    if Peer::Python.command("h2_client").is_none() {
        return;
    }
    let (result, ()) = {
        let stop = async {
            eventually(|| async {
                let (_, metrics) = gateway.admin_get("/metrics").await;
                metrics.lines().any(|l| l == "wsgate_sessions{service=\"echo\"} 1").then_some(())
            })
            .await;
            gateway.signal("TERM");
        };
        tokio::join!(client(&gateway, "end", "/echo", &[]), stop)
    };
    assert_eq!(result.unwrap()["code"], 1012);
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn what_is_malformed_ends_its_stream_and_no_other() {
    let gateway = gateway(ECHO).await;
    let Some(result) = client(&gateway, "malformed", "/echo", &[]).await else { return };
    for (name, outcome) in result["outcomes"].as_object().unwrap() {
        let expected = match name.as_str() {
            "CONNECT alone" => "status 405",
            "another :protocol" => "status 501",
            "another version" | "content-length" => "status 400",
            "no route" => "status 404",
            // No field at all: h2 gives up the whole connection, which RFC 9113, 5.4.1 allows.
            "unknown pseudo-header" | "upper case" | "space in a name" | "line feed in a value" | "NUL in a value" => {
                "the connection: PROTOCOL_ERROR"
            }
            _ => "reset PROTOCOL_ERROR",
        };
        assert_eq!(outcome, expected, "{name}");
    }
}
