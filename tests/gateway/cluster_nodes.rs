//! Nodes of a cluster as an operator sees them: status, readiness, names, drains.
use crate::admin_api::call;
use crate::support::gateway::{Setup, wsgate};
use crate::support::nodes::{node, node_file};
use crate::support::*;
use serde_json::{Value, json};

const ALL: [(&str, &str); 3] = [("node-0", "ready"), ("node-1", "ready"), ("node-2", "ready")];

/// Names and phases of the nodes, as this one sees them.
async fn seen(node: &Gateway) -> Vec<(String, String)> {
    let status: Value = serde_json::from_str(&node.admin_get("/api/status").await.1).unwrap();
    let text = |node: &Value, key: &str| node[key].as_str().unwrap().to_owned();
    status["nodes"].as_array().unwrap().iter().map(|node| (text(node, "name"), text(node, "phase"))).collect()
}

async fn sees(node: &Gateway, nodes: &[(&str, &str)]) {
    let is_it =
        |seen: Vec<(String, String)>| seen.iter().map(|(name, phase)| (&**name, &**phase)).eq(nodes.iter().copied());
    eventually(|| async { is_it(seen(node).await).then_some(()) }).await;
}

async fn is_ready(node: &Gateway, ready: bool) -> String {
    eventually(|| async {
        let (status, body) = node.admin_get("/readyz").await;
        (status == if ready { 200 } else { 503 }).then_some(body)
    })
    .await
}

#[tokio::test]
async fn status_shows_the_nodes_that_live() {
    let Some(redis) = Redis::start().await else { return };
    let [a, mut b, c] = nodes::nodes(&[&redis.url()], "").await;
    for node in [&a, &b, &c] {
        sees(node, &ALL).await;
    }
    let _client = nodes::session_on(&b, "alice").await;
    let status = || async { serde_json::from_str::<Value>(&a.admin_get("/api/status").await.1).unwrap() };
    let view = eventually(|| async {
        let status = status().await;
        (status["nodes"][1]["sessions"]["rooms"] == 1).then(|| status["nodes"].clone())
    })
    .await;
    assert_eq!((&view[0]["own"], &view[1]["own"]), (&Value::Bool(true), &Value::Bool(false)), "{view}");
    assert!(view[1]["version"].is_string() && view[1]["connections"].is_u64() && view[1]["rooms"].is_u64(), "{view}");
    assert!(view[0]["id"].as_str().unwrap().len() == 16 && view[0]["id"] != view[1]["id"], "{view}");
    assert_eq!(a.metric("wsgate_cluster_nodes", &[]).await, 3.0);
    assert!(b.stop().await.success());
    sees(&a, &[ALL[0], ALL[2]]).await;
    signal(c.pid(), "KILL");
    sees(&a, &ALL[..1]).await;
}

#[tokio::test]
async fn a_node_without_redis_lives_and_is_not_ready() {
    let Some(mut redis) = Redis::start().await else { return };
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let systemd = tokio::net::UnixDatagram::bind(&path).unwrap();
    let setup = Setup::new().environment("NOTIFY_SOCKET", path.to_str().unwrap());
    let node = setup.start(&node_file(&[&redis.url()], "a", "")).await;
    let heard = async |wanted: &str| loop {
        let mut buffer = [0; 512];
        let length = within(systemd.recv(&mut buffer)).await.unwrap();
        if String::from_utf8_lossy(&buffer[..length]).contains(wanted) {
            return;
        }
    };
    is_ready(&node, true).await;
    let mut client = nodes::session_on(&node, "alice").await;
    redis.stop();
    assert!(is_ready(&node, false).await.contains("Redis is not reached"));
    assert_eq!(node.admin_get("/healthz").await.0, 200);
    assert_eq!(node.metric("wsgate_cluster_redis_reached", &[]).await, 0.0);
    heard("STATUS=serving; Redis is not reached\n").await;
    redis.restart().await;
    is_ready(&node, true).await;
    heard("STATUS=serving\n").await;
    client.close(1000, "").await;
}

/// Has a server do this, over one connection.
async fn over(stream: &mut tokio::net::TcpStream, command: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut buffer = [0; 64 * 1024];
    let length = within(stream.read(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn a_node_of_which_one_shard_is_without_redis_is_not_ready() {
    let Some(redis) = Redis::start().await else { return };
    let node = node(&redis.url(), "a", "").await;
    is_ready(&node, true).await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", redis.port)).await.unwrap();
    let clients = over(&mut stream, "CLIENT LIST").await;
    // The main thread's was there first.
    let last = clients.lines().rfind(|line| line.contains("name=wsgate-a ")).unwrap();
    let id = last.split([' ', '=']).nth(1).unwrap();
    assert_eq!(over(&mut stream, "CONFIG SET maxclients 1").await, "+OK\r\n");
    assert_eq!(over(&mut stream, &format!("CLIENT KILL ID {id}")).await, ":1\r\n");
    assert!(is_ready(&node, false).await.contains("Redis is not reached"));
    assert_eq!(node.metric("wsgate_cluster_redis_reached", &[]).await, 0.0);
    assert_eq!(over(&mut stream, "CONFIG SET maxclients 1000").await, "+OK\r\n");
    is_ready(&node, true).await;
}

#[tokio::test]
async fn a_second_node_of_a_name_does_not_start() {
    let Some(redis) = Redis::start().await else { return };
    let first = node(&redis.url(), "a", "").await;
    let folder = Folder::new();
    folder.write("jwt-secret", SECRET);
    folder.write("gateway.toml", node_file(&[&redis.url()], "a", ""));
    let output = tokio::task::spawn_blocking(move || wsgate(&folder, &["serve"])).await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("another node that lives has this name"), "{error}");
    is_ready(&first, true).await;
    // The next one waits for the lease of one that was killed.
    signal(first.pid(), "KILL");
    let second = node(&redis.url(), "a", "").await;
    sees(&second, &[("a", "ready")]).await;
}

#[tokio::test]
async fn a_node_is_drained_from_another_one() {
    let Some(redis) = Redis::start().await else { return };
    let [a, mut b, _c] = nodes::nodes(&[&redis.url()], "").await;
    sees(&a, &ALL).await;
    let mut client = nodes::session_on(&b, "alice").await;
    let drain = async |name: &str| call(&a, "POST", "/api/drain", json!({ "node": name })).await;
    assert_eq!(drain("node-3").await.0, 404);
    assert_eq!(drain("node-1").await, (202, json!({"phase": "draining", "node": "node-1"})));
    let disconnect = client.expect("disconnect").await;
    assert_eq!((&disconnect["payload"]["code"], &disconnect["payload"]["reconnect"]), (&1012.into(), &true.into()));
    drop(client);
    assert!(b.exit().await.success());
    sees(&a, &[ALL[0], ALL[2]]).await;
    assert_eq!(drain("node-0").await.0, 202);
}

#[tokio::test]
async fn without_a_cluster_there_is_no_node_to_drain() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}{ADMIN}")).await;
    assert_eq!(call(&gateway, "POST", "/api/drain", json!({ "node": "a" })).await.0, 404);
    assert!(gateway.admin_get("/api/status").await.1.contains("\"nodes\":[]"));
    assert_eq!(gateway.metric("wsgate_cluster_nodes", &[]).await, 0.0);
}

/// A gateway that is waited for by what it says, not by its listeners: it does not get so far.
async fn starting(redis: &str) -> Gateway {
    let file = node_file(&[redis], "a", "").replace(PLAIN, "[[ listener ]]\naddress = \"unix:ws.sock\"\n");
    Setup::new().start(&file).await
}

#[tokio::test]
async fn a_node_that_waits_for_redis_answers_health_and_takes_nobody() {
    let Some(mut redis) = Redis::start().await else { return };
    redis.stop();
    let mut node = starting(&redis.url()).await;
    node.wait_for_log(|line| line.contains("Redis is not reached")).await;
    let (status, body) = node.admin_get("/readyz").await;
    assert!(status == 503 && body.contains("starting"), "{status} {body}");
    assert_eq!(node.admin_get("/healthz").await.0, 200);
    assert_eq!(node.admin_get("/api/status").await.0, 503);
    assert!(!node.folder.path().join("ws.sock").exists(), "nobody would be served there");
    redis.restart().await;
    is_ready(&node, true).await;
    assert!(node.folder.path().join("ws.sock").exists());
    sees(&node, &[("a", "ready")]).await;
    assert!(node.stop().await.success());
}

#[tokio::test]
async fn a_node_whose_shards_do_not_reach_redis_yet_can_be_stopped() {
    let setup = crate::support::redis::Setup::new().line("maxclients 2");
    let Some(redis) = setup.start().await else { return };
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", redis.port)).await.unwrap();
    let mut node = starting(&redis.url()).await;
    node.wait_for_log(|line| line.contains("one of 1 nodes")).await;
    let mut refused = async || {
        let stats = over(&mut stream, "INFO stats").await;
        let field = stats.lines().find_map(|line| line.strip_prefix("rejected_connections:"));
        field.unwrap().parse::<u64>().unwrap()
    };
    // The main thread's connection stands: these are the shards'.
    let before = refused().await;
    within(async { while refused().await == before {} }).await;
    assert_eq!(node.admin_get("/healthz").await.0, 200);
    assert!(node.stop().await.success());
    let log = node.log();
    assert!(!log.contains("not every shard reaches Redis") && !log.contains("ws.sock"), "{log}");
}
