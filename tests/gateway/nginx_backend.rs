//! nginx behind the gateway: what it serves from files comes to curl as it is, and WebSockets pass through both.
use crate::support::backend::program;
use crate::support::curl::bytes;
use crate::support::nginx::Nginx;
use crate::support::*;

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

fn serves(port: u16, websocket: u16) -> String {
    format!(
        "types {{ text/plain txt; }}
        server {{
            listen 127.0.0.1:{port};
            root .;
            gzip on;
            gzip_proxied any;
            gzip_types text/plain;
            add_header X-Connection $connection always;
            location /live/ {{ alias ./; }}
            location /live/ws {{
                proxy_pass http://127.0.0.1:{websocket};
                proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection upgrade;
            }}
        }}\n"
    )
}

/// What curl writes of this path.
async fn get(gateway: &Gateway, arguments: &[&str], path: &str) -> Vec<u8> {
    let url = format!("https://localhost:{}{path}", gateway.port(0));
    bytes(gateway, &[arguments, &[&url]].concat()).await
}

/// The lines of a head, in small letters.
fn lines(head: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(head).lines().map(str::to_ascii_lowercase).collect()
}

/// The value of a header.
fn value<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn files_come_as_nginx_serves_them() {
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let text = "all work and no play\n".repeat(1000);
    let files: [(&str, &[u8]); 2] = [("large.bin", &large), ("text.txt", text.as_bytes())];
    let Some(nginx) = Nginx::start(|port| serves(port, 9), &files).await else { return };
    if program("curl").is_none() {
        return;
    }
    let config = format!("[server]\nshards = 1\n{TLS}{OPEN}{}", proxy(&[nginx.port]));
    let gateway = Gateway::start(&config).await;
    for version in VERSIONS {
        assert!(get(&gateway, &[version], "/live/large.bin").await == large, "{version}: other bytes");
        assert!(get(&gateway, &[version, "-r", "1000-2000"], "/live/large.bin").await == large[1000..=2000]);
        assert_eq!(get(&gateway, &[version, "--compressed"], "/live/text.txt").await, text.as_bytes());
        let head = lines(&get(&gateway, &[version, "-I"], "/live/large.bin").await);
        assert!(head[0].contains("200") && value(&head, "content-length") == Some("12000000"), "{head:?}");
        let tag = value(&head, "etag").unwrap();
        let known = format!("If-None-Match: {tag}");
        let unchanged = lines(&get(&gateway, &[version, "-i", "-H", &known], "/live/large.bin").await);
        assert!(unchanged[0].contains("304") && value(&unchanged, "etag") == Some(tag), "{unchanged:?}");
        let status = ["-o", "/dev/null", "-w", "%{http_code}"];
        for (arguments, path, expected) in [
            (&["-r", "99999999-"][..], "/live/large.bin", "416"),
            (&[], "/live/none", "404"),
            (&["-d", "body"], "/live/large.bin", "405"),
        ] {
            let answered = get(&gateway, &[&[version], &status[..], arguments].concat(), path).await;
            assert_eq!(String::from_utf8(answered).unwrap(), expected, "{version} {arguments:?} {path}");
        }
        // nginx counts its connections: one that is kept serves the next request too.
        let [first, second] = [
            lines(&get(&gateway, &[version, "-I"], "/live/text.txt").await),
            lines(&get(&gateway, &[version, "-I"], "/live/text.txt").await),
        ];
        assert_eq!(value(&first, "x-connection").unwrap(), value(&second, "x-connection").unwrap(), "{version}");
    }
}

#[tokio::test]
async fn websockets_pass_through_both() {
    let Some(backend) = Backend::start(Peer::Python).await else { return };
    let Some(nginx) = Nginx::start(|port| serves(port, backend.port), &[]).await else { return };
    let gateway = Gateway::start(&format!(
        "{PLAIN}{OPEN}{}[limits]\nmax_message_size = \"4MiB\"\nbytes_per_second = 0\n",
        proxy(&[nginx.port])
    ))
    .await;
    let url = format!("ws://{}/live/ws", gateway.address(0));
    for peer in [Peer::Node, Peer::Python] {
        let Some(result) = peer.client(&url, "echo", &[]).await else { continue };
        assert_eq!(result["close"], 1000, "{peer:?}: {result}");
    }
}
