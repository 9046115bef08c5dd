//! Other servers take over: replicas by hand and by Sentinel, and masters of a Redis Cluster; TLS and users.
use crate::admin_api;
use crate::rooms_help::chat;
use crate::support::gateway::Setup;
use crate::support::nodes::*;
use crate::support::*;
use serde_json::{Value, json};

/// Publishes numbers under their own names, and gives the place of the last.
async fn publish(client: &mut Client, numbers: std::ops::RangeInclusive<u64>) -> Value {
    let mut place = Value::Null;
    for n in numbers {
        place = send_until_taken(client, "a", &n.to_string(), json!(n)).await["position"].clone();
    }
    place
}

/// Waits until the replica has so many messages of the room `a`.
async fn has(replica: &Redis, messages: u64) {
    replica.comes_to(&["XLEN", "wsgate:{default/a}:s"], |length| length == messages.to_string()).await;
}

/// Two nodes, with a member each, that have seen eight messages at a master; its replica has five of them, and is a
/// master now too.
struct Lagging {
    master: Redis,
    replica: Redis,
    nodes: [Gateway; 2],
    both: Vec<(Client, Value)>,
    /// The place of the last message.
    lost: Value,
}

impl Lagging {
    async fn begin() -> Option<Lagging> {
        let master = Redis::start().await?;
        let replica = master.replica().await;
        let nodes = nodes::<2>(&[&master.url(), &replica.url()], "").await;
        let mut both = join_each(&nodes, "member", "a").await;
        publish(&mut both[0].0, 1..=5).await;
        has(&replica, 5).await;
        replica.promote().await;
        let lost = publish(&mut both[0].0, 6..=8).await;
        for n in 1..=8 {
            assert_eq!(chat(&mut both[1].0).await, (n, json!(n)));
        }
        Some(Lagging { master, replica, nodes, both, lost })
    }
}

#[tokio::test]
async fn a_replica_that_has_everything_goes_on_with_the_epoch() {
    let Some(mut master) = Redis::start().await else { return };
    let replica = master.replica().await;
    let nodes = nodes::<2>(&[&replica.url(), &master.url()], "").await;
    let mut both = join_each(&nodes, "member", "a").await;
    let place = publish(&mut both[0].0, 1..=5).await;
    has(&replica, 5).await;
    master.stop();
    replica.promote().await;
    let after = publish(&mut both[1].0, 6..=10).await;
    assert_eq!(after, json!({"epoch": place["epoch"], "offset": 10}));
    let mut watcher = session_on(&nodes[0], "watcher").await;
    join_until_let_in(&mut watcher, "a", Some(&json!({"epoch": place["epoch"], "offset": 0}))).await;
    for n in 1..=10 {
        assert_eq!(chat(&mut watcher).await, (n, json!(n)));
    }
}

#[tokio::test]
async fn a_replica_that_lacks_messages_begins_a_new_epoch_and_mixes_nothing() {
    let Some(Lagging { mut master, replica: _replica, nodes: _nodes, mut both, lost }) = Lagging::begin().await else {
        return;
    };
    master.stop();
    for (member, _) in &mut both {
        loses_its_place(member).await;
        begins_anew(member, &lost).await;
    }
    let sent = send_until_taken(&mut both[0].0, "a", "new", json!("new")).await;
    assert_ne!(sent["position"]["epoch"], lost["epoch"], "{sent}");
    let chat = both[1].0.skip_to("chat_message").await;
    assert_eq!((&chat["payload"]["message"], &chat["payload"]["position"]), (&json!("new"), &sent["position"]));
}

#[tokio::test]
async fn what_was_said_at_the_new_master_before_the_others_came_is_not_mixed_with_theirs() {
    let Some(Lagging { mut master, replica, nodes: _nodes, mut both, lost }) = Lagging::begin().await else { return };
    let early = node(&replica.url(), "early", "").await;
    let mut carol = member(&early, "carol", "a").await;
    let other = publish(&mut carol, 101..=105).await;
    assert_eq!(other, json!({"epoch": lost["epoch"], "offset": 10}), "more than the others have seen");
    master.stop();
    for member in both.iter_mut().map(|(member, _)| member).chain([&mut carol]) {
        loses_its_place(member).await;
        begins_anew(member, &lost).await;
    }
}

#[tokio::test]
async fn a_sentinel_names_the_new_master() {
    let Some(mut master) = Redis::start().await else { return };
    let replica = master.replica().await;
    let sentinel = Sentinel::of(&master, 1).await;
    let nodes = nodes::<2>(&[&sentinel.url()], "").await;
    let mut both = join_each(&nodes, "member", "a").await;
    let place = publish(&mut both[0].0, 1..=5).await;
    has(&replica, 5).await;
    master.stop();
    let after = publish(&mut both[0].0, 6..=10).await;
    assert_eq!(after, json!({"epoch": place["epoch"], "offset": 10}));
    assert_eq!(sentinel.master().await, replica.port);
    for n in 1..=10 {
        assert_eq!(chat(&mut both[1].0).await, (n, json!(n)));
    }
    for node in &nodes {
        readiness(node, 200).await;
    }
}

#[tokio::test]
async fn a_failover_that_is_asked_for_leaves_the_old_master() {
    let Some(master) = Redis::start().await else { return };
    let replica = master.replica().await;
    let sentinel = Sentinel::of(&master, 1).await;
    let nodes = nodes::<2>(&[&sentinel.url()], "").await;
    let mut both = join_each(&nodes, "member", "a").await;
    let place = publish(&mut both[0].0, 1..=5).await;
    has(&replica, 5).await;
    sentinel.fail_over().await;
    sentinel.has_promoted(&replica).await;
    // The old master is told to follow somewhat later; until then it takes what is lost with it.
    master.comes_to(&["ROLE"], |role| role.contains("slave")).await;
    let sent = send_until_taken(&mut both[0].0, "a", "6", json!(6)).await;
    assert_eq!(sent["position"], json!({"epoch": place["epoch"], "offset": 6}), "{sent}");
    has(&replica, 6).await;
    for n in 1..=6 {
        assert_eq!(chat(&mut both[1].0).await, (n, json!(n)));
    }
}

#[tokio::test]
async fn a_slot_of_a_redis_cluster_moves_while_messages_go_on() {
    let Some(cluster) = RedisCluster::start().await else { return };
    let urls = cluster.urls();
    let nodes = nodes::<2>(&[&urls[0], &urls[1]], "history = { messages = 1000 }").await;
    let slot = cluster.slot("wsgate:{default/a}").await;
    let mut both = join_each(&nodes, "member", "a").await;
    let mut publisher = member(&nodes[0], "publisher", "a").await;
    let streaming = tokio::spawn(async move { publish(&mut publisher, 1..=600).await });
    let mut seen = 0;
    for moved_at in [100, 250, 400] {
        for n in seen + 1..=moved_at {
            assert_eq!(chat(&mut both[0].0).await, (n, json!(n)));
        }
        seen = moved_at;
        let to = (cluster.owner(slot).await + 1) % 3;
        cluster.move_slot(slot, to).await;
    }
    let place = within(streaming).await.unwrap();
    assert_eq!(place["offset"], 600, "one epoch: {place}");
    for n in seen + 1..=600 {
        assert_eq!(chat(&mut both[0].0).await, (n, json!(n)));
    }
    for n in 1..=600 {
        assert_eq!(chat(&mut both[1].0).await, (n, json!(n)));
    }
}

#[tokio::test]
async fn rooms_of_a_redis_cluster_lie_on_all_its_masters() {
    let setup = || redis::Setup::new().users(&[&acl_rule()]);
    let Some(cluster) = RedisCluster::start_with(setup).await else { return };
    let url = cluster.urls()[2].replace("://", "://wsgate:a%25pass%2fword@");
    let [left, right] = &nodes::<2>(&[&url], "").await;
    let mut alice = session_on(left, "alice").await;
    let mut bob = session_on(right, "bob").await;
    for n in 0..20 {
        let room = format!("room-{n}");
        alice.join(&room).await;
        bob.join(&room).await;
        alice.publish(&room, json!(n)).await;
        assert_eq!(chat(&mut bob).await, (1, json!(n)));
    }
    for master in &cluster.nodes {
        assert_ne!(master.ask(&["KEYS", "wsgate:{default/room-*}:s"]).await, json!([]));
        assert_eq!(master.ask(&["ACL", "LOG"]).await, json!([]), "nothing that a node does is forbidden");
    }
}

/// The rule that README gives for a user.
fn acl_rule() -> String {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let rule = readme.lines().find_map(|line| line.strip_prefix("user wsgate on ")).expect("a rule");
    format!("wsgate on {}", rule.replace(">PASSWORD", ">a%pass/word"))
}

#[tokio::test]
async fn tls_and_the_acl_user_of_the_readme_are_enough() {
    let authority = tls::Authority::new("Redis' authority");
    let setup = redis::Setup::new().tls(&authority).users(&[&acl_rule()]);
    let Some(redis) = setup.start().await else { return };
    let url = format!("rediss://wsgate@localhost:{}", redis.tls_port.unwrap());
    let mut nodes = Vec::new();
    for n in 0..2 {
        let keys = "redis_ca = \"redis-ca.pem\"\nredis_password_env = \"REDIS_PASSWORD\"\nshared_limits = true\n";
        let file = node_file(&[&url], &format!("node-{n}"), "broadcast_to_all = true");
        let setup = Setup::new().file("redis-ca.pem", authority.pem()).environment("REDIS_PASSWORD", "a%pass/word");
        nodes.push(setup.start(&file.replace("[cluster]\n", &format!("[cluster]\n{keys}"))).await);
    }
    let mut both = join_each(&nodes, "member", "a").await;
    let place = publish(&mut both[0].0, 1..=3).await;
    for n in 1..=3 {
        assert_eq!(chat(&mut both[1].0).await, (n, json!(n)));
    }
    both[0].0.json(json!({"type": "presence_update", "payload": {"status": "away"}})).await;
    both[0].0.json(json!({"type": "typing_start", "payload": {"room_id": "a"}})).await;
    both[1].0.skip_to("typing_start").await;
    let sent = both[0].0.ask("message", json!({"message": "to all"})).await;
    assert_eq!(sent["type"], "message_sent", "{sent}");
    let mut late = session_on(&nodes[1], "late").await;
    let start = json!({"epoch": place["epoch"], "offset": 0});
    assert_eq!(join_until_let_in(&mut late, "a", Some(&start)).await["recovered"], true);
    // Who is asked about sessions is who is known to live.
    let knows_both = async || {
        let status = admin_api::get(&nodes[0], "/api/status").await;
        (status["nodes"].as_array().unwrap().len() == 2).then_some(())
    };
    eventually(knows_both).await;
    let banned = admin_api::done(&nodes[0], "PUT", "/api/bans/member-1", json!({"room_id": "a", "seconds": 60})).await;
    assert_eq!(banned["sessions"], 1, "on the other node: {banned}");
    assert_eq!(both[1].0.skip_to("room_left").await["payload"]["code"], 4009);
    admin_api::done(&nodes[1], "DELETE", "/api/bans/member-1?room_id=a", Value::Null).await;
    let published = json!({"room_id": "a", "message": "x", "sender_id": "server", "message_id": "m"});
    admin_api::done(&nodes[0], "POST", "/api/publish", published).await;
    for path in
        ["/api/rooms", "/api/rooms/a", "/api/rooms/a/history", "/api/clients/member-1", "/api/bans", "/api/status"]
    {
        assert_eq!(nodes[0].admin_get(path).await.0, 200, "{path}");
    }
    drop((both, late));
    for node in &mut nodes {
        assert!(node.stop().await.success());
    }
    assert_eq!(redis.ask(&["ACL", "LOG"]).await, json!([]), "nothing that a node does is forbidden");
}
