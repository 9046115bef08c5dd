//! Descriptors: what the system allows is used; a shortage pauses accepting, and it recovers.
use crate::support::backend::{Recorder, switch};
use crate::support::gateway::Setup;
use crate::support::raw::upgrade_head;
use crate::support::*;
use crate::upstreams::{http, upstream};

#[tokio::test]
async fn a_shortage_of_descriptors_is_survived() {
    let config = format!("[server]\nshards = 1\n{}{OPEN}{ECHO}", listener("127.0.0.1:0", "header_timeout = \"10m\""));
    let gateway = Setup::new().descriptors(64).start(&config).await;
    let mut early = gateway.open("/echo").await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(gateway.raw().await);
    }
    for _ in 0..50 {
        early.text("still served").await;
        assert_eq!(early.next_text().await, "still served");
    }
    let mut last = held.pop().unwrap();
    drop(held);
    last.send(upgrade_head("/echo", &[])).await;
    assert_eq!(last.read_head().await.status, 101);
    let mut after = gateway.open("/echo").await;
    after.text("recovered").await;
    assert_eq!(after.next_text().await, "recovered");
}

#[tokio::test]
async fn a_soft_limit_of_descriptors_is_raised() {
    let config = format!("{PLAIN}{OPEN}{ECHO}");
    let gateway = Setup::new().descriptors_at_first(64).start(&config).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(gateway.open("/echo").await);
    }
    for client in &mut clients {
        client.text("served").await;
        assert_eq!(client.next_text().await, "served");
    }
}

/// A check that has no descriptor says nothing of the server.
#[tokio::test]
async fn a_shortage_of_descriptors_makes_no_server_unhealthy() {
    let backend = Recorder::start(switch).await;
    let health = "health = { interval = \"1s\", timeout = \"1s\", rise = 1, fall = 1 }";
    let config = format!(
        "[server]\nshards = 1\nlog = \"info,wsgate::upstream=debug\"\n{OPEN}{}{}",
        listener("127.0.0.1:0", "header_timeout = \"10m\""),
        upstream(&[&http(&backend)], health),
    );
    let gateway = Setup::new().descriptors(64).start(&config).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(gateway.raw().await);
    }
    gateway.wait_for_log(|line| line.contains("could not be checked")).await;
    assert!(!gateway.log().contains("is unhealthy"), "{}", gateway.log());
    drop(held);
    gateway.open("/live/x").await;
}
