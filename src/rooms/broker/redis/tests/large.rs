//! More than Redis lets wait for one connection.
use super::*;

async fn killed(server: &Server) {
    Aside::to(server).await.ask("x", &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
}

/// Puts clients of node 2 into a room, as it would itself.
async fn peopled(aside: &mut Aside, presence: &str, clients: u64) {
    let script = "for i = 1, ARGV[1] do redis.call('HSET', KEYS[1], '0000000000000002 client-' .. i, '1 1000') end
        redis.call('HSET', KEYS[1], 'v', 1)";
    aside.ask(presence, &["EVAL", script, "1", presence, &clients.to_string()]).await;
}

#[tokio::test]
async fn many_rooms_that_have_missed_much_are_filled() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&["--client-output-buffer-limit", "pubsub", "10mb", "0", "0"]).await;
    let (mut a, mut b) = (Node::start(&server, 1).await, Node::start(&server, 2).await);
    let rules = rules_of(History { messages: 300, ..Rules::default().history });
    let rooms: Vec<RoomKey> = (0..60).map(|i| key(&i.to_string())).collect();
    for room in &rooms {
        a.open_with(room, &rules).await;
        b.open_with(room, &rules).await;
        b.turn_deaf(room).await;
    }
    // It is one with subscriptions still.
    b.open(&key("another")).await;
    for room in &rooms {
        let message = RawValue::from_string(format!("\"{}\"", "x".repeat(1000))).unwrap();
        for i in 100..355 {
            a.broker.publish(i, room, Publication { message: message.clone(), ..publication("alice", &i.to_string()) });
        }
        a.publish(room, "alice", "last").await;
        a.passed.clear();
    }
    killed(&server).await;
    assert_eq!(b.deliveries(60 * 256).await.len(), 60 * 256);
}

#[tokio::test]
async fn many_rooms_with_many_members_are_opened() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&["--client-output-buffer-limit", "pubsub", "3mb", "0", "0"]).await;
    let (mut a, mut aside) = (Node::start(&server, 1).await, Aside::to(&server).await);
    for i in 0..60 {
        peopled(&mut aside, &format!("t:{{default/{i}}}:p"), 3000).await;
        a.broker.open(&key(&i.to_string()), &Arc::default());
    }
    let mut opened = 0;
    while opened < 60 {
        match a.event().await {
            Event::Others { clients, whole: true, .. } => assert_eq!(clients.len(), 3000),
            Event::Opened { .. } => opened += 1,
            event => panic!("{event:?}"),
        }
    }
}

/// What changes while a large room is read is not lost, and what is read late does not undo it.
#[tokio::test]
async fn a_room_that_changes_while_it_is_read_is_read_right() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let (mut a, mut b, room) = (Node::start(&server, 1).await, Node::start(&server, 2).await, key("r"));
    let mut aside = Aside::to(&server).await;
    peopled(&mut aside, "t:{default/r}:p", 20_000).await;
    b.open(&room).await;
    // All that node 2 does not hold goes, a bit with each change.
    a.broker.open(&room, &Arc::default());
    let mut others: std::collections::HashMap<Arc<str>, u32> = std::collections::HashMap::new();
    let held = |sessions| Held { sessions, since: jiff::Timestamp::from_second(1).unwrap(), said: None };
    let mut changes = 0;
    while others.len() != 1 || others.get("client-7") != Some(&3) {
        if changes < 200 {
            b.broker.holds(&room, &"client-7".into(), Some(held(changes % 4 + 1)));
            changes += 1;
        }
        if changes == 200 {
            b.broker.holds(&room, &"client-7".into(), Some(held(3)));
            changes += 1;
        }
        let event = poll_fn(|cx| {
            let _ = b.poll(cx);
            a.poll(cx)
        });
        match timeout(DEADLINE, event).await.unwrap() {
            Event::Others { clients, whole, .. } => {
                if whole {
                    others.clear();
                }
                for (_, client, held) in clients {
                    match held {
                        Some(held) => drop(others.insert(client, held.sessions)),
                        None => drop(others.remove(&client)),
                    }
                }
            }
            Event::Opened { .. } => (),
            event => panic!("{event:?}"),
        }
    }
    let presence = "t:{default/r}:p";
    assert_eq!(aside.ask(presence, &["HLEN", presence]).await.int(), Some(2));
}
