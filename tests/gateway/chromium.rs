//! Chromium, which speaks RFC 8441 where a connection that it has offers it, with an application behind the gateway.
use crate::support::backend::program;
use crate::support::token::good;
use crate::support::*;
use serde_json::{Value, json};

const APP: &str = "[[route]]\npath = \"/*\"\nservice = \"proxy\"\nupstream = \"app\"\n";
const APP_ORIGIN: &str = "[origins]\nallow = [\"https://app.test\"]\n";
const NO_LIMITS: &str = "[limits]\nmax_message_size = \"1MiB\"\nbytes_per_second = 0\nmessages_per_second = 0\n";

/// A gateway on TLS in front of the application; `/echo` and `/ws` are its own.
async fn gateway(backend: &Backend, listener: &str, auth: &str, own: &str) -> Gateway {
    let servers = format!("[upstream.app]\nservers = [\"http://127.0.0.1:{}\"]\n", backend.port);
    Gateway::start(&format!("{listener}{ADMIN}{auth}{APP_ORIGIN}{NO_LIMITS}{own}{APP}{servers}")).await
}

/// What Chromium reports of a scenario.
async fn chromium(gateway: &Gateway, arguments: &[&str], environment: &[(&str, &str)]) -> Option<Value> {
    let chromium = program("chromium")?.display().to_string();
    let port = gateway.port(0).to_string();
    let environment = [environment, &[("WSGATE_TEST_CHROMIUM", chromium.as_str())]].concat();
    Peer::Node.run("chromium", &[&[port.as_str()], arguments].concat(), &environment).await
}

#[tokio::test]
async fn its_websockets_share_one_connection() {
    let Some(backend) = Backend::httpd().await else { return };
    let gateway = gateway(&backend, TLS, OPEN, ECHO).await;
    for path in ["/echo", "/app/ws"] {
        let Some(result) = chromium(&gateway, &["sockets", path], &[]).await else { return };
        assert_eq!(result["echoes"], json!(vec![5; 20]), "{path}: {result}");
        let codes: Vec<u16> = std::iter::once(1000).chain(3001..3020).collect();
        assert_eq!(result["codes"], json!(codes), "{path}: {result}");
        assert_eq!(result["clean"], true, "{path}: {result}");
        assert_eq!(result["answers"], json!(vec![200; 20]), "{path}: {result}");
        assert_eq!((&result["http2"], &result["http1"]), (&json!([20]), &json!(0)), "{path}: {result}");
    }
}

#[tokio::test]
async fn without_http2_it_opens_a_connection_for_each() {
    let Some(backend) = Backend::httpd().await else { return };
    let listener = TLS.replace("[[listener.tls]]", "http2 = false\n[[listener.tls]]");
    let gateway = gateway(&backend, &listener, OPEN, ECHO).await;
    let Some(result) = chromium(&gateway, &["sockets", "/echo"], &[]).await else { return };
    assert_eq!(result["echoes"], json!(vec![5; 20]), "{result}");
    assert_eq!(result["answers"], json!(vec![101; 20]), "{result}");
    assert_eq!((&result["http2"], &result["http1"]), (&json!([]), &json!(20)), "{result}");
}

#[tokio::test]
async fn it_shows_why_an_origin_was_refused() {
    let Some(backend) = Backend::httpd().await else { return };
    let gateway = gateway(&backend, TLS, OPEN, ECHO).await;
    let Some(result) = chromium(&gateway, &["refused"], &[]).await else { return };
    assert_eq!((&result["code"], &result["wasClean"]), (&json!(4003), &json!(true)), "{result}");
    assert_eq!(result["answers"], json!([200]), "{result}");
    assert_eq!((&result["http2"], &result["http1"]), (&json!([1]), &json!(0)), "{result}");
}

#[tokio::test]
async fn it_shows_the_code_while_more_is_on_its_way() {
    let Some(backend) = Backend::httpd().await else { return };
    let limits = "limits = { messages_per_second = 1, message_burst = 3 }\n";
    let slow = format!("{}{limits}", ECHO.replace("/echo", "/slow"));
    let gateway = gateway(&backend, TLS, OPEN, &slow).await;
    let Some(result) = chromium(&gateway, &["excess", "/slow"], &[]).await else { return };
    assert_eq!((&result["code"], &result["wasClean"]), (&json!(4004), &json!(true)), "{result}");
    assert_eq!((&result["http2"], &result["http1"]), (&json!([1]), &json!(0)), "{result}");
}

#[tokio::test]
async fn its_pages_meet_in_a_room() {
    let Some(backend) = Backend::httpd().await else { return };
    // The page itself is for everyone.
    let page = "[[route]]\npath = \"/\"\nservice = \"proxy\"\nupstream = \"app\"\nauth = { required = false }\n";
    let gateway = gateway(&backend, TLS, SECRET_AUTH, &format!("{ROOMS}{page}")).await;
    let tokens = format!("{},{}", good("one"), good("two"));
    let Some(result) = chromium(&gateway, &["rooms"], &[("WSGATE_TEST_TOKENS", &tokens)]).await else { return };
    assert_eq!(result["protocol"], "rooms.v1", "{result}");
    assert_eq!(result["chat"]["sender_id"], "one", "{result}");
    assert_eq!(result["chat"]["message"], json!({"text": "gr\u{fc}\u{df} dich"}), "{result}");
    assert_eq!(result["http1"], 0, "{result}");
}

#[tokio::test]
async fn closes_pass_between_it_and_the_application() {
    let Some(mut backend) = Backend::httpd().await else { return };
    let gateway = gateway(&backend, TLS, OPEN, "").await;
    let Some(result) = chromium(&gateway, &["ends"], &[]).await else { return };
    assert_eq!((&result["code"], &result["reason"]), (&json!(4321), &json!("my own")), "{result}");
    assert_eq!((&result["http2"], &result["http1"]), (&json!([2]), &json!(0)), "{result}");
    assert_eq!(backend.event("close").await["code"], 4321);
    // A page that is left closes its WebSockets with 1001.
    let left = backend.event("close").await;
    assert_eq!((&left["path"], &left["code"]), (&json!("/app/left"), &json!(1001)), "{left}");
}

#[tokio::test]
async fn its_ordinary_requests_are_streamed() {
    let Some(mut backend) = Backend::httpd().await else { return };
    let gateway = gateway(&backend, TLS, OPEN, "").await;
    let Some(result) = chromium(&gateway, &["requests"], &[]).await else { return };
    assert_eq!(result["mirrored"], true, "{result}");
    assert_eq!(result["streamed"], "written in pieces", "{result}");
    assert_eq!(result["events"], json!(["1", "2", "3"]), "{result}");
    assert_eq!(result["protocols"], json!(["h2"]), "{result}");
    // A page that no longer listens is no longer sent anything.
    backend.event("left").await;
}
