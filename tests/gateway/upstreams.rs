//! Which server is asked, and how it is reached.
use crate::support::backend::{Recorder, switch, unused_port};
use crate::support::gateway::{Setup, wsgate};
use crate::support::tls::{Authority, server};
use crate::support::token::good;
use crate::support::*;

pub const ROUTE: &str = "[[route]]\npath = \"/live/*\"\nservice = \"proxy\"\nupstream = \"live\"\n";
/// Until when certificates are good.
const LAST_YEAR: i32 = 2999;
const BY_STATUS: &str = "[auth]\nrequired = false\nsources = []\non_reject = \"http\"\n";

/// The upstream with these servers, and more keys.
pub fn upstream(servers: &[&str], keys: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    format!("{ROUTE}[upstream.live]\nservers = [{}]\n{keys}\n", servers.join(", "))
}

pub fn http(backend: &Recorder) -> String {
    format!("http://127.0.0.1:{}", backend.port)
}

/// So many backends that upgrade, and a gateway before them with more keys of the upstream.
async fn with_backends(number: usize, auth: &str, keys: &str) -> (Gateway, Vec<Recorder>) {
    let mut backends = Vec::new();
    for _ in 0..number {
        backends.push(Recorder::start(switch).await);
    }
    let servers: Vec<String> = backends.iter().map(http).collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let gateway = Gateway::start(&format!("{PLAIN}{ADMIN}{auth}{}", upstream(&servers, keys))).await;
    (gateway, backends)
}

fn counts(backends: &[Recorder]) -> Vec<usize> {
    backends.iter().map(|backend| backend.requests("/live")).collect()
}

/// The status of an upgrade.
pub async fn status(gateway: &Gateway) -> u16 {
    let mut raw = gateway.raw().await;
    raw.send(raw::upgrade_head("/live/x", &[])).await;
    raw.read_head().await.status
}

pub async fn levels(gateway: &Gateway) -> serde_json::Value {
    let (_, body) = gateway.admin_get("/api/status").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    status["upstreams"][0]["servers"].clone()
}

#[tokio::test]
async fn servers_get_their_share_by_weight() {
    let (gateway, backends) = with_backends(2, OPEN, "weights = [3, 1]").await;
    for _ in 0..8 {
        gateway.raw_ws("/live/x").await;
    }
    assert_eq!(counts(&backends), [6, 2]);
}

#[tokio::test]
async fn the_least_used_server_gets_the_next_socket() {
    for balance in ["least-connections", "random-two"] {
        let (gateway, backends) = with_backends(2, OPEN, &format!("balance = \"{balance}\"")).await;
        let mut sockets = Vec::new();
        for _ in 0..4 {
            let before = counts(&backends);
            let socket = gateway.raw_ws("/live/x").await;
            sockets.push((counts(&backends)[1] > before[1], socket));
        }
        assert_eq!(counts(&backends), [2, 2], "{balance}");
        sockets.retain(|(of_second, _)| !of_second);
        eventually(async || (levels(&gateway).await[1]["used"] == 0).then_some(())).await;
        sockets.push((true, gateway.raw_ws("/live/x").await));
        sockets.push((true, gateway.raw_ws("/live/x").await));
        assert_eq!(counts(&backends), [2, 4], "{balance}");
    }
}

#[tokio::test]
async fn a_client_comes_to_its_server_again() {
    let (gateway, backends) = with_backends(3, SECRET_AUTH, "balance = \"hash-client\"").await;
    // So many that a server without any of them is no chance: places depend on the ports.
    for client in (0..48).map(|n| format!("client-{n}")) {
        let before = counts(&backends);
        for _ in 0..2 {
            gateway.open_as("/live/x", &good(&client)).await;
        }
        let after = counts(&backends);
        assert!((0..3).any(|server| after[server] == before[server] + 2), "{before:?} {after:?}");
    }
    assert!(counts(&backends).iter().all(|count| *count > 0));
}

#[tokio::test]
async fn an_address_comes_to_its_server_again() {
    let (gateway, backends) = with_backends(3, OPEN, "balance = \"hash-ip\"").await;
    for _ in 0..6 {
        gateway.raw_ws("/live/x").await;
    }
    assert_eq!(counts(&backends).into_iter().max(), Some(6));
}

#[tokio::test]
async fn a_server_that_cannot_be_connected_to_is_left_alone() {
    let good = Recorder::start(switch).await;
    let dead = format!("http://127.0.0.1:{}", unused_port().await);
    let servers = upstream(&[&dead, &http(&good)], "retries = 1\nweights = [9, 1]");
    let gateway = Gateway::start(&format!("{PLAIN}{ADMIN}{OPEN}{servers}")).await;
    gateway.raw_ws("/live/x").await;
    gateway.wait_for_log(|line| line.contains("cannot be connected to") && line.contains(&dead)).await;
    gateway.raw_ws("/live/x").await;
    assert_eq!(good.requests("/live"), 2);
    let found = levels(&gateway).await;
    assert_eq!((&found[0]["healthy"], &found[1]["healthy"]), (&false.into(), &true.into()), "{found}");
    let (_, metrics) = gateway.admin_get("/metrics").await;
    let series = |name: &str| format!("wsgate_upstream_{name}{{upstream=\"live\",server=\"{dead}\"}}");
    for expected in [series("healthy") + " 0\n", series("ejections_total") + " 1\n"] {
        assert!(metrics.contains(&expected), "{expected}{metrics}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_by_status() {
    let refusing = format!("http://127.0.0.1:{}", unused_port().await);
    // A look-up may take longer than a request waits.
    for (server, expected) in [(refusing.as_str(), 502..=502), ("http://no.such.host.invalid", 503..=504)] {
        let gateway = Gateway::start(&format!("{PLAIN}{BY_STATUS}{}", upstream(&[server], ""))).await;
        let status = status(&gateway).await;
        assert!(expected.contains(&status), "{server}: {status}");
    }
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let backend = Recorder::start(switch).await;
    let server = format!("http://localhost:{}", backend.port);
    let gateway = Gateway::start(&format!("{PLAIN}{ADMIN}{OPEN}{}", upstream(&[&server], "retries = 9"))).await;
    gateway.raw_ws("/live/x").await;
    let address = format!("127.0.0.1:{}", backend.port);
    eventually(async || {
        let addresses = levels(&gateway).await[0]["addresses"].clone();
        let found = addresses.as_array().unwrap().iter().any(|level| level["address"] == address.as_str());
        found.then_some(())
    })
    .await;
    gateway.raw_ws("/live/x").await;
    assert_eq!(backend.requests("/live"), 2);
}

#[tokio::test]
async fn a_server_on_a_unix_socket() {
    let folder = Folder::new();
    let path = folder.path().join("app.sock");
    let backend = Recorder::unix(&path, switch);
    let server = format!("unix:{}", path.display());
    let keys = "preserve_host = false";
    let gateway = Gateway::start(&format!("{PLAIN}{ADMIN}{OPEN}{}", upstream(&[&server], keys))).await;
    let mut socket = gateway.raw_ws("/live/x").await;
    socket.send(raw::frame(0x81, b"to the socket")).await;
    eventually(async || {
        backend.bytes().iter().any(|sent| sent.ends_with(&raw::frame(0x81, b"to the socket"))).then_some(())
    })
    .await;
    assert!(backend.received().iter().any(|sent| sent.contains("host: localhost\r\n")));
}

/// A gateway before an `https://` server of this name, which trusts and shows what stands in `certs`.
async fn tls_gateway(setup: Setup, name: &str, backend: &Recorder, keys: &str) -> Gateway {
    let server = format!("https://{name}:{}", backend.port);
    // Handshakes of a debug build beside other tests take their time.
    let keys = format!("ca = \"certs/ca.pem\"\nretries = 9\nconnect_timeout = \"30s\"\n{keys}");
    setup.start(&format!("{PLAIN}{ADMIN}{BY_STATUS}{}", upstream(&[&server], &keys))).await
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_its_name() {
    let (authority, other) = (Authority::new("servers"), Authority::new("others"));
    let with_ca = |authority: &Authority| Setup::new().file("certs/ca.pem", authority.pem());
    for name in ["localhost", "127.0.0.1"] {
        let backend = Recorder::tls(server(&authority.sign(name, LAST_YEAR), None), switch).await;
        let gateway = tls_gateway(with_ca(&authority), name, &backend, "").await;
        assert_eq!(status(&gateway).await, 101, "{name}");
        assert_eq!(backend.requests("/live"), 1);
    }
    let backend = Recorder::tls(server(&authority.sign("localhost", LAST_YEAR), None), switch).await;
    let misnamed = tls_gateway(with_ca(&authority), "127.0.0.1", &backend, "").await;
    assert_eq!(status(&misnamed).await, 502);
    let unknown = tls_gateway(with_ca(&other), "localhost", &backend, "").await;
    assert_eq!(status(&unknown).await, 502);
    unknown.wait_for_log(|line| line.contains("cannot be connected to") && line.contains("UnknownIssuer")).await;
    assert_eq!(backend.requests(""), 0);
}

#[tokio::test]
async fn a_server_is_shown_a_certificate() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let backend = Recorder::tls(server(&authority.sign("localhost", LAST_YEAR), Some(&clients)), switch).await;
    let setup = || Setup::new().file("certs/ca.pem", authority.pem());
    let anonymous = tls_gateway(setup(), "localhost", &backend, "").await;
    assert_eq!(status(&anonymous).await, 502);
    let (certificate, key) = clients.sign("gateway", LAST_YEAR);
    let known = setup().file("certs/edge.pem", certificate).file("certs/edge.key", key);
    let keys = "certificate = \"certs/edge.pem\"\nprivate_key = \"certs/edge.key\"";
    let gateway = tls_gateway(known, "localhost", &backend, keys).await;
    assert_eq!(status(&gateway).await, 101);
}

#[tokio::test]
async fn authorities_are_read_again_and_a_broken_file_keeps_the_old_ones() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let backend = Recorder::tls(server(&new.sign("localhost", LAST_YEAR), None), switch).await;
    let keys = "health = { fall = 100 }";
    let gateway = tls_gateway(Setup::new().file("certs/ca.pem", old.pem()), "localhost", &backend, keys).await;
    assert_eq!(status(&gateway).await, 502);
    gateway.folder.write("certs/ca.pem", new.pem());
    gateway.signal("HUP");
    gateway.wait_for_log(|line| line.contains("upstreams were read again")).await;
    assert_eq!(status(&gateway).await, 101);
    gateway.folder.write("certs/ca.pem", "no certificate");
    gateway.signal("HUP");
    gateway.wait_for_log(|line| line.contains("the old ones stay") && line.contains("certs/ca.pem")).await;
    assert_eq!(status(&gateway).await, 101);
}

#[test]
fn files_of_an_upstream_that_are_missing_are_named() {
    let folder = Folder::new();
    let config = format!("{PLAIN}{OPEN}{}", upstream(&["https://a.test"], "ca = \"certs/none.pem\""));
    folder.write("gateway.toml", config);
    let checked = wsgate(&folder, &["check", "--config", "gateway.toml"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.contains("certs/none.pem"), "{said}");
    let served = wsgate(&folder, &["serve", "--config", "gateway.toml"]);
    let said = String::from_utf8_lossy(&served.stderr).into_owned();
    assert!(!served.status.success() && said.contains("certs/none.pem"), "{said}");
}

#[tokio::test]
async fn a_connection_begins_with_a_proxy_header() {
    let backend = Recorder::start(switch).await;
    let keys = "proxy_protocol = true\nhealth = { interval = \"1s\", timeout = \"1s\" }";
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}", upstream(&[&http(&backend)], keys))).await;
    gateway.raw_ws("/live/x").await;
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let sent = backend.bytes().into_iter().find(|sent| sent.windows(9).any(|w| w == b"GET /live")).unwrap();
    let length = usize::from(u16::from_be_bytes([sent[14], sent[15]]));
    assert!(sent.starts_with(V2) && sent[16 + length..].starts_with(b"GET /live"), "{sent:?}");
    // A check is nobody's.
    eventually(async || backend.bytes().iter().any(|sent| *sent == [V2, b"\x20\0\0\0"].concat()).then_some(())).await;
}
