//! Checks of servers, and what becomes of their sockets; the upstreams of a file that has changed.
use crate::support::backend::{Recorder, switch};
use crate::support::*;
use crate::upstreams::{ROUTE, http, levels, status, upstream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const BY_STATUS: &str = "[auth]\nrequired = false\nsources = []\non_reject = \"http\"\n";
const CHECKS: &str = "slow_start = \"0s\"\n\
                      health = { path = \"/healthz?deep=1\", interval = \"1s\", timeout = \"1s\", rise = 1, fall = 1 }";

/// A backend that upgrades, and is well while this says so.
async fn backend() -> (Recorder, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let says = well.clone();
    let backend = Recorder::start(move |head| match head.starts_with("GET /healthz?deep=1 ") {
        true if says.load(SeqCst) => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        true => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nsick".to_vec(),
        false => switch(head),
    });
    (backend.await, well)
}

async fn gateway(backends: &[&Recorder], keys: &str) -> Gateway {
    let servers: Vec<String> = backends.iter().map(|backend| http(backend)).collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    Gateway::start(&format!("{PLAIN}{ADMIN}{BY_STATUS}{}", upstream(&servers, &format!("{CHECKS}\n{keys}")))).await
}

/// Waits until the log says this of a server.
async fn turned(gateway: &Gateway, backend: &Recorder, what: &str) {
    let server = format!("server={}", http(backend));
    gateway.wait_for_log(|line| line.contains(what) && line.contains(&server)).await;
}

#[tokio::test]
async fn checks_decide_and_sockets_stay() {
    let (backend, well) = backend().await;
    let gateway = gateway(&[&backend], "").await;
    let mut socket = gateway.raw_ws("/live/x").await;
    well.store(false, SeqCst);
    turned(&gateway, &backend, "is unhealthy").await;
    assert_eq!(status(&gateway).await, 503);
    assert_eq!(levels(&gateway).await[0]["healthy"], false);
    socket.send(raw::frame(0x81, b"still here")).await;
    eventually(async || {
        backend.bytes().iter().any(|sent| sent.ends_with(&raw::frame(0x81, b"still here"))).then_some(())
    })
    .await;
    well.store(true, SeqCst);
    turned(&gateway, &backend, "is healthy").await;
    assert_eq!(status(&gateway).await, 101);
    let check = backend.received().into_iter().find(|sent| sent.starts_with("GET /healthz")).unwrap();
    assert!(check.contains(&format!("host: 127.0.0.1:{}\r\n", backend.port)), "{check}");
    // Once each way.
    let lines = |what: &str| gateway.log().lines().filter(|line| line.contains(what)).count();
    assert_eq!((lines("is unhealthy"), lines("is healthy")), (1, 1));
}

#[tokio::test]
async fn sockets_of_an_unhealthy_server_are_closed_where_that_is_asked_for() {
    let ((one, one_is_well), (two, _)) = (backend().await, backend().await);
    let gateway = gateway(&[&one, &two], "close_on_unhealthy = true").await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let before = one.requests("/live");
        let client = gateway.open("/live/x").await;
        sockets.push((one.requests("/live") > before, client));
    }
    one_is_well.store(false, SeqCst);
    let mut closed = 0;
    for (of_one, client) in &mut sockets {
        if *of_one {
            assert_eq!(client.closed().await, (4012, "upstream is unhealthy".to_owned()));
            closed += 1;
        }
    }
    assert_eq!(closed, 2);
    let left = levels(&gateway).await;
    assert_eq!((&left[0]["healthy"], &left[1]["used"]), (&false.into(), &2.into()), "{left}");
    // The backend is told too.
    let told = [0x88, 0x82];
    eventually(async || one.bytes().iter().any(|sent| sent.windows(2).any(|w| w == told)).then_some(())).await;
    assert_eq!(status(&gateway).await, 101, "the other goes on");
}

#[tokio::test]
async fn a_file_that_has_changed_brings_other_servers_and_leaves_sockets() {
    let ((one, _), (two, _)) = (backend().await, backend().await);
    let gateway = gateway(&[&one], "").await;
    let mut socket = gateway.raw_ws("/live/x").await;
    let config = gateway.folder.read("gateway.toml");
    gateway.folder.write("gateway.toml", config.replace(&http(&one), &http(&two)));
    gateway.signal("HUP");
    gateway.wait_for_log(|line| line.contains("upstreams were read again")).await;
    assert_eq!(status(&gateway).await, 101);
    assert_eq!((one.requests("/live"), two.requests("/live")), (1, 1));
    assert_eq!(levels(&gateway).await[0]["url"], http(&two));
    socket.send(raw::frame(0x81, b"still here")).await;
    eventually(async || one.bytes().iter().any(|sent| sent.ends_with(&raw::frame(0x81, b"still here"))).then_some(()))
        .await;
    gateway.folder.write("gateway.toml", config.replace("slow_start", "slow_strat"));
    gateway.signal("HUP");
    gateway.wait_for_log(|line| line.contains("the old ones stay") && line.contains("slow_strat")).await;
    assert_eq!((status(&gateway).await, two.requests("/live")), (101, 2));
    assert!(!gateway.log().contains("needs a restart"));
    gateway.folder.write("gateway.toml", config.replace(ROUTE, &format!("{ECHO}{ROUTE}")));
    gateway.signal("HUP");
    gateway.wait_for_log(|line| line.contains("needs a restart")).await;
    assert_eq!((status(&gateway).await, one.requests("/live")), (101, 2), "but its servers are there");
}

#[tokio::test]
async fn sockets_of_a_server_that_is_unhealthy_already_are_closed_when_that_is_asked_for() {
    let (backend, well) = backend().await;
    let gateway = gateway(&[&backend], "").await;
    let mut client = gateway.open("/live/x").await;
    well.store(false, SeqCst);
    turned(&gateway, &backend, "is unhealthy").await;
    let config = gateway.folder.read("gateway.toml");
    gateway.folder.write("gateway.toml", config.replace(CHECKS, &format!("close_on_unhealthy = true\n{CHECKS}")));
    gateway.signal("HUP");
    assert_eq!(client.closed().await, (4012, "upstream is unhealthy".to_owned()));
}
