//! What the tests have of Redis does what it says.
use crate::support::redis::Setup;
use crate::support::*;
use serde_json::{Value, json};

#[tokio::test]
async fn a_server_forgets_or_remembers_over_a_restart() {
    let Some(mut redis) = Redis::start().await else { return };
    assert_eq!(redis.ask(&["SET", "a", "1"]).await, json!("OK"));
    assert_eq!(redis.ask(&["MGET", "a", "b"]).await, json!(["1", null]));
    assert!(redis.try_ask(&["INCRBY", "a", "x"]).await.unwrap_err().starts_with("ERR value is not an integer"));
    redis.restart().await;
    assert_eq!(redis.ask(&["GET", "a"]).await, Value::Null);
    let mut durable = Setup::new().durable().start().await.unwrap();
    durable.ask(&["SET", "a", "1"]).await;
    durable.restart().await;
    assert_eq!(durable.ask(&["GET", "a"]).await, json!("1"));
    assert_eq!(durable.calls("get").await, 1);
    durable.flush().await;
    assert_eq!(durable.ask(&["GET", "a"]).await, Value::Null);
}

#[tokio::test]
async fn a_paused_server_answers_when_it_goes_on() {
    let Some(redis) = Redis::start().await else { return };
    redis.pause();
    eventually(|| async {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", redis.pid())).unwrap();
        stat.contains(") T ").then_some(())
    })
    .await;
    let mut answer = tokio::spawn(redis::ask_at(redis.port, "PING"));
    tokio::select! {
        answer = &mut answer => panic!("a paused Redis has answered: {answer:?}"),
        () = std::future::ready(()) => {}
    }
    redis.resume();
    assert_eq!(within(answer).await.unwrap(), Ok(json!("PONG")));
}

#[tokio::test]
async fn a_replica_follows_and_is_promoted() {
    let Some(redis) = Redis::start().await else { return };
    redis.ask(&["SET", "a", "1"]).await;
    let replica = redis.replica().await;
    assert_eq!(replica.ask(&["GET", "a"]).await, json!("1"));
    assert!(replica.try_ask(&["SET", "a", "2"]).await.unwrap_err().starts_with("READONLY"));
    replica.promote().await;
    replica.ask(&["SET", "a", "2"]).await;
}

#[tokio::test]
async fn a_sentinel_promotes_the_replica_of_a_dead_master() {
    let Some(mut redis) = Redis::start().await else { return };
    let replica = redis.replica().await;
    let sentinel = Sentinel::of(&redis, 1).await;
    assert_eq!(sentinel.master().await, redis.port);
    redis.stop();
    sentinel.has_promoted(&replica).await;
    assert_eq!(sentinel.master().await, replica.port);
    replica.ask(&["SET", "a", "2"]).await;
}

#[tokio::test]
async fn a_slot_of_a_cluster_moves_with_its_keys() {
    let Some(cluster) = RedisCluster::start().await else { return };
    let slot = cluster.slot("x:{a}").await;
    let from = cluster.owner(slot).await;
    let to = (from + 1) % 3;
    let [old, new] = [from, to].map(|n| &cluster.nodes[n]);
    old.ask(&["SET", "x:{a}", "1"]).await;
    assert!(new.try_ask(&["GET", "x:{a}"]).await.unwrap_err().starts_with(&format!("MOVED {slot} ")));
    let migration = cluster.begin_move(slot, to).await;
    assert_eq!(old.ask(&["GET", "x:{a}"]).await, json!("1"));
    assert!(old.try_ask(&["GET", "y:{a}"]).await.unwrap_err().starts_with(&format!("ASK {slot} ")));
    migration.move_keys().await;
    migration.end().await;
    assert_eq!(new.ask(&["GET", "x:{a}"]).await, json!("1"));
    assert!(old.try_ask(&["GET", "x:{a}"]).await.unwrap_err().starts_with(&format!("MOVED {slot} ")));
    cluster.move_slot(slot, from).await;
    assert_eq!(old.ask(&["GET", "x:{a}"]).await, json!("1"));
}

#[tokio::test]
async fn tls_and_users() {
    let authority = tls::Authority::new("Redis' authority");
    let setup = Setup::new().tls(&authority).users(&["gate on >secret ~wsgate:* &wsgate:* +@all"]);
    let Some(redis) = setup.start().await else { return };
    let users = redis.ask(&["ACL", "LIST"]).await;
    assert_eq!(users.as_array().unwrap().len(), 2, "{users}");
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", redis.tls_port.unwrap())).await.unwrap();
    tls::connect(tcp, "localhost", &tls::client(&authority.pem(), tls::ANY)).await.unwrap();
}

#[tokio::test]
async fn a_proxy_lets_through_cuts_refuses_and_holds() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    assert_eq!(redis::ask_at(proxy.port, "PING").await, Ok(json!("PONG")));
    let open = || async { tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap() };
    let end = async |stream: &mut tokio::net::TcpStream| {
        let read = within(tokio::io::AsyncReadExt::read(stream, &mut [0; 64])).await;
        !matches!(read, Ok(1..))
    };
    let mut stream = open().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"PING\r\n").await.unwrap();
    assert!(!end(&mut stream).await, "an answer comes");
    proxy.cut();
    assert!(end(&mut stream).await);
    proxy.refuse();
    assert!(end(&mut open().await).await);
    proxy.hold();
    let asked = tokio::spawn(redis::ask_at(proxy.port, "PING"));
    let direct = redis.ask(&["PING"]).await;
    assert_eq!((direct, asked.is_finished()), (json!("PONG"), false));
    proxy.open();
    assert_eq!(within(asked).await.unwrap(), Ok(json!("PONG")));
}
