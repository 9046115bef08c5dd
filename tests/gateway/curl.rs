//! curl, by HTTP/1.1 and HTTP/2, as users try things out with it; an application on node's HTTP server behind.
use crate::support::backend::{program, unused_port};
use crate::support::curl::{bytes, command, curl};
use crate::support::raw::{ACCEPT, KEY};
use crate::support::*;
use serde_json::Value;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// TLS, then plain; `/app/*` is the application, `/echo` the gateway's own.
async fn gateway(port: u16) -> Gateway {
    let app = proxy(&[port]).replace("/live/*", "/app/*");
    Gateway::start(&format!("{TLS}{PLAIN}{OPEN}{ECHO}{app}[limits]\nbytes_per_second = 0\n")).await
}

/// The application and a gateway in front of it; `None` where node or curl is missing.
async fn application() -> Option<(Backend, Gateway)> {
    program("curl")?;
    let backend = Backend::httpd().await?;
    let gateway = gateway(backend.port).await;
    Some((backend, gateway))
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("https://localhost:{}{path}", gateway.port(0))
}

/// Bytes that show where one is missing.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

#[tokio::test]
async fn both_versions_bring_the_application_s_answer() {
    let Some((mut backend, gateway)) = application().await else { return };
    for (version, number) in VERSIONS.into_iter().zip(["1.1", "2"]) {
        let told = curl(&gateway, &[version, "-w", " %{http_version} %{http_code}", &url(&gateway, "/app/?a=1")]).await;
        assert_eq!(told, format!("<!doctype html><title>app</title> {number} 200"));
        let request = backend.event("request").await;
        assert_eq!((&request["method"], &request["path"]), (&"GET".into(), &"/app/?a=1".into()), "{request}");
        assert_eq!(request["headers"]["host"], format!("localhost:{}", gateway.port(0)), "{request}");
        assert_eq!(request["headers"]["x-forwarded-proto"], "https", "{request}");
    }
}

#[tokio::test]
async fn head_has_no_body_and_the_connection_stays() {
    let Some((mut backend, gateway)) = application().await else { return };
    for version in VERSIONS {
        let head = curl(&gateway, &[version, "--head", &url(&gateway, "/app/")]).await.to_ascii_lowercase();
        assert!(head.contains("content-type: text/html\r\n"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(backend.event("request").await["method"], "HEAD");
        // A second request on the connection would find the body of the first, had there been one.
        let (first, second) = (url(&gateway, "/app/"), url(&gateway, "/app/?second"));
        let told = curl(&gateway, &[version, "--head", "-w", "%{num_connects} ", &first, &second]).await;
        assert!(told.ends_with("0 "), "{version}: {told}");
    }
}

#[tokio::test]
async fn uploads_pass_with_and_without_a_length() {
    let Some((mut backend, gateway)) = application().await else { return };
    let body = noise(3 << 20);
    gateway.folder.write("body", &body);
    for version in VERSIONS {
        let url = url(&gateway, "/app/mirror");
        let back = bytes(&gateway, &[version, "--data-binary", "@body", &url]).await;
        assert!(back == body, "{version}: {} bytes came back", back.len());
        assert_eq!(backend.event("body").await["length"], body.len());

        let mut child = command(&gateway, &[version, "-N", "-T", ".", &url]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut back = vec![0; body.len()];
        // The second half is written when the first has come back: nothing waits for a whole body.
        let (first, second) = body.split_at(body.len() / 2);
        let (mut one, mut two) = (vec![0; first.len()], Vec::new());
        let (written, read) = tokio::join!(stdin.write_all(first), within(stdout.read_exact(&mut one)));
        written.unwrap();
        read.unwrap();
        let write = async {
            stdin.write_all(second).await.unwrap();
            drop(stdin);
        };
        tokio::join!(write, async { within(stdout.read_to_end(&mut two)).await.unwrap() });
        back.clear();
        back.extend(one);
        back.extend(two);
        assert!(back == body, "{version}: {} bytes came back", back.len());
        assert_eq!(backend.event("body").await["length"], body.len());
        assert!(within(child.wait()).await.unwrap().success());
    }
}

#[tokio::test]
async fn expect_is_answered_by_the_application() {
    let Some((mut backend, gateway)) = application().await else { return };
    gateway.folder.write("body", noise(2 << 20));
    let url = url(&gateway, "/app/mirror");
    let expect = ["--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "30"];
    let arguments = [&expect[..], &["--data-binary", "@body", "-i", "-o", "answer", "-D", "-", &url]].concat();
    let heads = curl(&gateway, &arguments).await;
    assert!(heads.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{heads}");
    assert_eq!(backend.event("body").await["length"], 2 << 20);
}

#[tokio::test]
async fn an_answer_before_the_body_s_end_is_shown() {
    let Some((_backend, gateway)) = application().await else { return };
    gateway.folder.write("body", noise(2 << 20));
    for version in VERSIONS {
        let url = url(&gateway, "/app/early");
        let told = curl(&gateway, &[version, "--data-binary", "@body", "-w", " %{http_code}", &url]).await;
        assert_eq!(told, "too much 413", "{version}");
    }
}

#[tokio::test]
async fn trailers_pass() {
    let Some((_backend, gateway)) = application().await else { return };
    for version in VERSIONS {
        let url_mirror = url(&gateway, "/app/mirror");
        let told = curl(&gateway, &[version, "-i", "-H", "TE: trailers", "--data-binary", "body", &url_mirror]).await;
        let told = told.to_ascii_lowercase();
        assert!(told.contains("trailer: x-sum\r\n"), "{version}: {told}");
        assert!(told.contains("x-sum: none\r\n"), "{version}: {told}");
    }
}

#[tokio::test]
async fn early_hints_come_before_the_answer() {
    let Some((_backend, gateway)) = application().await else { return };
    for version in VERSIONS {
        let told = curl(&gateway, &[version, "-i", &url(&gateway, "/app/hints")]).await.to_ascii_lowercase();
        let (hints, answer) = told.split_once("\r\n\r\n").unwrap();
        assert!(hints.contains(" 103") && hints.contains("rel=preload"), "{version}: {told}");
        assert!(answer.contains(" 200") && answer.ends_with("hinted"), "{version}: {told}");
    }
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let Some((mut backend, gateway)) = application().await else { return };
    let mut number = 0;
    for version in VERSIONS {
        let mut child = command(&gateway, &[version, "-N", &url(&gateway, "/app/events")]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..3 {
            number += 1;
            assert_eq!(within(lines.next_line()).await.unwrap().unwrap(), format!("data: {number}"), "{version}");
            assert_eq!(within(lines.next_line()).await.unwrap().unwrap(), "", "{version}");
            curl(&gateway, &[version, "-X", "POST", &url(&gateway, "/app/next")]).await;
        }
        number += 1;
        within(child.kill()).await.unwrap();
        backend.event("left").await;
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let Some((_backend, gateway)) = application().await else { return };
    gateway.folder.write("body", noise(100_000));
    for (version, no_upgrade) in VERSIONS.into_iter().zip([426, 400]) {
        let paths = ["/app/", "/app/nowhere", "/nowhere", "/echo", "/app/mirror", "/app/"];
        let urls: Vec<String> = paths.iter().map(|path| url(&gateway, path)).collect();
        let mut arguments = vec![version, "-w", "%{http_code} %{num_connects}\\n"];
        for url in &urls {
            arguments.extend(["-o", "/dev/null", url]);
        }
        let told = curl(&gateway, &arguments).await;
        assert_eq!(told, format!("200 1\n404 0\n404 0\n{no_upgrade} 0\n200 0\n200 0\n"), "{version}");
    }
}

#[tokio::test]
async fn an_upgrade_by_hand_shows_what_is_answered() {
    let Some((_backend, gateway)) = application().await else { return };
    let url = format!("http://127.0.0.1:{}", gateway.port(1));
    let by_hand = ["--include", "--no-buffer", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    let key = format!("Sec-WebSocket-Key: {KEY}");
    for path in ["/echo", "/app/ws"] {
        let url = format!("{url}{path}");
        let whole = [&by_hand[..], &["-H", &key, "-H", "Sec-WebSocket-Version: 13", &url]].concat();
        // What --include writes stays in a buffer here; what --verbose tells does not.
        let mut child = command(&gateway, &[&whole[..], &["--verbose"]].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut head = Vec::new();
        loop {
            let line = within(lines.next_line()).await.unwrap().unwrap();
            match line.strip_prefix("< ").map(str::to_ascii_lowercase) {
                Some(end) if end.is_empty() => break,
                Some(field) => head.push(field),
                None => {}
            }
        }
        assert_eq!(head[0], "http/1.1 101 switching protocols", "{path}");
        let accept = format!("sec-websocket-accept: {}", ACCEPT.to_ascii_lowercase());
        assert!(head.contains(&accept), "{path}: {head:?}");
        within(child.kill()).await.unwrap();

        let without_key = [&by_hand[..], &["-H", "Sec-WebSocket-Version: 13", &url]].concat();
        let told = curl(&gateway, &without_key).await;
        assert!(told.starts_with("HTTP/1.1 400 "), "{path}: {told}");
        let old = [&by_hand[..], &["-H", &key, "-H", "Sec-WebSocket-Version: 8", &url]].concat();
        let told = curl(&gateway, &old).await;
        assert!(told.starts_with("HTTP/1.1 426 "), "{path}: {told}");
        assert!(told.to_ascii_lowercase().contains("sec-websocket-version: 13\r\n"), "{path}: {told}");
    }
}

#[tokio::test]
async fn an_application_that_is_down_is_a_502_in_json() {
    if program("curl").is_none() {
        return;
    }
    let gateway = gateway(unused_port().await).await;
    for version in VERSIONS {
        let told = curl(&gateway, &[version, "-w", "\\n%{http_code}", &url(&gateway, "/app/")]).await;
        let (body, status) = told.rsplit_once('\n').unwrap();
        assert_eq!(status, "502", "{version}: {told}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], 4012, "{version}: {told}");
    }
}
