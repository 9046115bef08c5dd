//! Nodes of the library over a real Redis: who lives, and what they say to each other. Periods are short, so that little
//! is waited for; nothing is measured.
use crate::support::redis::Setup;
use crate::support::{DEADLINE, Redis, RedisCluster, TcpProxy, eventually, within};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wsgate::cluster::nodes::{BEAT, LEAVE, Nodes, Periods, Standing, Topic};
use wsgate::cluster::{Call, NodeId, Redis as Server, Reply, Script, Trouble};
use wsgate::config::{Cluster, RedisServer};
use wsgate::metrics::Metrics;

static SCRIPTS: &[&Script] = &[&BEAT, &LEAVE];
const MS: Duration = Duration::from_millis(1);

/// A node, which ends without a word on Drop, as by kill -9.
struct Node {
    nodes: Arc<Nodes>,
    /// Beats so far.
    beats: Arc<AtomicU64>,
    running: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn periods() -> Periods {
    Periods { beat: 50 * MS, lapse: 500 * MS, start: 10_000 * MS, instant: 100 * MS }
}

async fn try_join(port: u16, name: &str, periods: Periods) -> Result<Node, String> {
    let config = Cluster {
        servers: vec![RedisServer { host: "127.0.0.1".into(), port }],
        sentinel_master: None,
        tls: false,
        ca: None,
        user: None,
        password: None,
        prefix: "w".into(),
        node: name.into(),
        shared_limits: false,
    };
    let server = Server::new(&config, Metrics::new(0)).unwrap();
    let beats = Arc::new(AtomicU64::new(0));
    let counted = beats.clone();
    let about = Box::new(move || format!("{{\"beat\": {}}}", counted.fetch_add(1, Relaxed)));
    let (nodes, running) = within(Nodes::join_with(&config, &server, SCRIPTS, about, periods)).await?;
    Ok(Node { nodes, beats, running: tokio::spawn(running) })
}

async fn join(port: u16, name: &str) -> Node {
    try_join(port, name, periods()).await.unwrap()
}

impl Node {
    fn id(&self) -> NodeId {
        self.nodes.live().now().own
    }

    fn names(&self) -> Vec<String> {
        self.nodes.live().now().nodes.iter().map(|node| node.name.to_string()).collect()
    }

    async fn sees(&self, names: &[&str]) {
        eventually(|| async { (self.names() == names).then_some(()) }).await;
    }

    async fn stands(&self, standing: Standing) {
        within(self.nodes.standing().wait_for(|now| *now == standing)).await.unwrap();
    }

    async fn beats(&self, more: u64) {
        let wanted = self.beats.load(Relaxed) + more;
        eventually(|| async { (self.beats.load(Relaxed) >= wanted).then_some(()) }).await;
    }
}

/// With beats so rare that no other news would come in time.
#[tokio::test]
async fn who_comes_and_who_leaves_is_told_at_once() {
    let Some(redis) = Redis::start().await else { return };
    let rare = Periods { beat: 2 * DEADLINE, lapse: 100 * DEADLINE, ..periods() };
    let a = try_join(redis.port, "a", rare).await.unwrap();
    let b = try_join(redis.port, "b", rare).await.unwrap();
    assert_eq!(b.names(), ["a", "b"]);
    let version = a.nodes.live().version();
    a.sees(&["a", "b"]).await;
    assert!(a.nodes.live().version() > version && a.nodes.live().now().has(b.id()));
    b.nodes.leave(DEADLINE).await;
    a.sees(&["a"]).await;
    assert!(!a.nodes.live().now().has(b.id()));
    assert_eq!(redis.ask(&["HKEYS", "w:{nodes}:l"]).await, serde_json::json!(["a"]));
}

#[tokio::test]
async fn a_node_that_ends_without_a_word_is_missed_by_all() {
    let Some(redis) = Redis::start().await else { return };
    let [a, b, c] = [join(redis.port, "a").await, join(redis.port, "b").await, join(redis.port, "c").await];
    for node in [&a, &b, &c] {
        node.sees(&["a", "b", "c"]).await;
    }
    drop(c);
    a.sees(&["a", "b"]).await;
    b.sees(&["a", "b"]).await;
    assert_eq!(redis.ask(&["HLEN", "w:{nodes}:l"]).await, serde_json::json!(2));
}

#[tokio::test]
async fn a_redis_that_was_away_makes_nobody_dead() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    // It is said when it has been away for longer than a lease; that is longer than a way back may take.
    let slow = Periods { lapse: 3_000 * MS, instant: 4_000 * MS, ..periods() };
    let a = try_join(proxy.port, "a", slow).await.unwrap();
    let b = try_join(proxy.port, "b", slow).await.unwrap();
    a.sees(&["a", "b"]).await;
    let before = [&a, &b].map(|node| (node.id(), node.nodes.live().version()));
    proxy.refuse();
    a.stands(Standing::Away).await;
    b.stands(Standing::Away).await;
    assert!(!a.nodes.reaches_redis());
    let call = a.nodes.call(Call::command(b"k", &[b"GET", b"k"])).await;
    assert_eq!(call, Err(Trouble::Away));
    proxy.open();
    a.stands(Standing::Reached).await;
    b.stands(Standing::Reached).await;
    a.beats(3).await;
    b.beats(3).await;
    assert_eq!([&a, &b].map(|node| (node.id(), node.nodes.live().version())), before);
}

#[tokio::test]
async fn a_node_whose_lease_is_gone_lives_anew() {
    let Some(redis) = Redis::start().await else { return };
    let [a, b] = [join(redis.port, "a").await, join(redis.port, "b").await];
    a.sees(&["a", "b"]).await;
    let before = (a.id(), b.id());
    redis.flush().await;
    let is_new = |now: (NodeId, NodeId)| now.0 != before.0 && now.1 != before.1;
    eventually(|| async { is_new((a.id(), b.id())).then_some(()) }).await;
    let sees = |node: &Node, other: NodeId| node.nodes.live().now().nodes.iter().any(|view| view.id == other);
    eventually(|| async { (sees(&a, b.id()) && sees(&b, a.id())).then_some(()) }).await;
    assert!(!a.nodes.live().now().has(before.1));
}

/// It alone is cut off, for longer than its lease; and it notices that others have missed it.
#[tokio::test]
async fn a_node_that_was_cut_off_lives_anew() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let [a, b] = [join(redis.port, "a").await, join(proxy.port, "b").await];
    a.sees(&["a", "b"]).await;
    let before = b.id();
    proxy.refuse();
    a.sees(&["a"]).await;
    assert!(b.nodes.live().now().has(before), "it cannot know");
    proxy.open();
    a.sees(&["a", "b"]).await;
    eventually(|| async { (b.id() != before).then_some(()) }).await;
    assert!(a.nodes.live().now().has(b.id()));
}

#[tokio::test]
async fn a_name_has_one_node() {
    let Some(redis) = Redis::start().await else { return };
    let first = join(redis.port, "a").await;
    let error = try_join(redis.port, "a", periods()).await.err().expect("the name is taken");
    assert_eq!(error, "[cluster] node = \"a\": another node that lives has this name");
    let before = first.id();
    drop(first);
    let second = join(redis.port, "a").await;
    assert!(second.id() != before && second.names() == ["a"]);
}

/// It stood still for longer than its lease, and another has its name: it does not take it back, but waits for it.
#[tokio::test]
async fn a_node_that_has_lost_its_name_waits_for_it() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let first = join(proxy.port, "a").await;
    proxy.refuse();
    let second = join(redis.port, "a").await;
    proxy.open();
    first.stands(Standing::Nameless).await;
    second.beats(3).await;
    assert_eq!((second.names(), first.nodes.live().now().nodes[0].id), (vec!["a".to_owned()], second.id()));
    drop(second);
    first.stands(Standing::Reached).await;
}

#[tokio::test]
async fn without_redis_there_is_no_start() {
    let proxy = TcpProxy::to(9).await;
    proxy.refuse();
    let error = try_join(proxy.port, "a", Periods { start: 300 * MS, ..periods() }).await.err().expect("no Redis");
    assert_eq!(error, "[cluster]: Redis was not reached within 0.3 s");
}

#[tokio::test]
async fn what_redis_refuses_is_said() {
    let Some(redis) = Setup::new().users(&[]).start().await else { return };
    redis.ask(&["ACL", "SETUSER", "default", "-hset"]).await;
    let error = try_join(redis.port, "a", Periods { start: 300 * MS, ..periods() }).await.err().expect("a refusal");
    assert!(
        error.starts_with("Redis refuses what a node has to ask of it: ") && error.contains("can't run this command"),
        "{error}"
    );
}

#[tokio::test]
async fn all_others_are_told_and_asked() {
    let Some(redis) = Redis::start().await else { return };
    let [a, b, c] = [join(redis.port, "a").await, join(redis.port, "b").await, join(redis.port, "c").await];
    a.sees(&["a", "b", "c"]).await;
    let (told, mut heard) = mpsc::channel(16);
    for (name, node) in [("a", &a), ("b", &b), ("c", &c)] {
        let told = told.clone();
        let handler = move |payload: Bytes| told.try_send((name, payload)).unwrap();
        node.nodes.handle(Topic::Bans, Box::new(handler));
    }
    let payload = Bytes::from_static(b"alice\n\0\xff");
    a.nodes.tell_all(Topic::Statuses, "nobody handles it".into()).await.unwrap();
    a.nodes.tell_all(Topic::Bans, payload.clone()).await.unwrap();
    let mut names = Vec::new();
    for _ in 0..2 {
        let (name, heard) = within(heard.recv()).await.unwrap();
        assert_eq!(heard, payload);
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!((names, heard.try_recv().is_err()), (vec!["b", "c"], true));

    let answer = |name: &'static str| {
        move |question: Bytes| -> std::pin::Pin<Box<dyn Future<Output = Bytes> + Send>> {
            Box::pin(async move { Bytes::from([name.as_bytes(), &question].concat()) })
        }
    };
    b.nodes.answer(Box::new(answer("b: ")));
    let (answers, missing) = within(a.nodes.ask_all("who?".into(), 300 * MS)).await;
    assert_eq!((answers, missing), (vec![Bytes::from_static(b"b: who?")], vec!["c".into()]));
    assert_eq!(a.nodes.unanswered(), 1);
    c.nodes.answer(Box::new(answer("c: ")));
    let (mut answers, missing) = within(a.nodes.ask_all("who?".into(), DEADLINE)).await;
    answers.sort();
    assert_eq!((answers, missing.len()), (vec!["b: who?".into(), "c: who?".into()], 0));

    let too_large = Bytes::from(vec![0; 9 << 20]);
    assert_eq!(a.nodes.tell_all(Topic::Bans, too_large.clone()).await, Err(Trouble::Full));
    let (answers, missing) = within(a.nodes.ask_all(too_large, DEADLINE)).await;
    assert_eq!((answers.len(), missing.len()), (0, 2));
}

#[tokio::test]
async fn a_node_alone_asks_nobody() {
    let Some(redis) = Redis::start().await else { return };
    let a = join(redis.port, "a").await;
    let (answers, missing) = a.nodes.ask_all("who?".into(), DEADLINE).await;
    assert_eq!((answers.len(), missing.len(), a.nodes.unanswered()), (0, 0, 0));
    let reply = a.nodes.call(Call::command(b"k", &[b"INCR", b"k"])).await;
    assert_eq!(reply, Ok(Reply::Int(1)));
}

#[tokio::test]
async fn a_redis_that_is_back_is_told_of() {
    let Some(mut redis) = Redis::start().await else { return };
    let a = join(redis.port, "a").await;
    let (told, mut heard) = mpsc::channel(16);
    a.nodes.on_reached(Box::new(move || told.try_send(()).unwrap()));
    redis.stop();
    a.stands(Standing::Away).await;
    redis.restart().await;
    within(heard.recv()).await.unwrap();
    a.stands(Standing::Reached).await;
}

/// One master more that is not reached is enough not to be ready; and the slot of the nodes may move.
#[tokio::test]
async fn nodes_over_a_redis_cluster() {
    let Some(mut redis) = RedisCluster::start().await else { return };
    let port = redis.nodes[0].port;
    let [a, b] = [join(port, "a").await, join(port, "b").await];
    a.sees(&["a", "b"]).await;
    a.stands(Standing::Reached).await;
    let (told, mut heard) = mpsc::channel(16);
    b.nodes.handle(Topic::Bans, Box::new(move |payload: Bytes| told.try_send(payload).unwrap()));
    a.nodes.tell_all(Topic::Bans, "one".into()).await.unwrap();
    assert_eq!(within(heard.recv()).await.unwrap(), "one");

    let slot = redis.slot("{nodes}").await;
    let owner = redis.owner(slot).await;
    redis.move_slot(slot, (owner + 1) % 3).await;
    // Pushes may be lost while it moves.
    let heard = &mut heard;
    within(async {
        while heard.try_recv().is_err() {
            let _ = a.nodes.tell_all(Topic::Bans, "two".into()).await;
            a.beats(1).await;
        }
    })
    .await;
    let c = join(port, "c").await;
    a.sees(&["a", "b", "c"]).await;
    drop(c);
    a.sees(&["a", "b"]).await;

    redis.nodes[(owner + 2) % 3].stop();
    a.stands(Standing::Away).await;
    redis.nodes[(owner + 2) % 3].restart().await;
    a.stands(Standing::Reached).await;
    assert_eq!(a.names(), ["a", "b"]);
}
