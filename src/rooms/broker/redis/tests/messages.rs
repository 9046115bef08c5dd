//! One order over several nodes, and what is kept of it.
use super::*;

#[tokio::test]
async fn every_node_tells_the_same_in_the_same_order() {
    let Some(Pair { server: _server, mut a, mut b, room, opened }) = Pair::over(&[]).await else { return };
    assert_eq!(opened.offset, 0);
    for i in 0..200 {
        let node = if i % 2 == 0 { &mut a } else { &mut b };
        node.broker.publish(i, &room, publication("alice", &i.to_string()));
    }
    let (at_a, at_b) = tokio::join!(a.deliveries(200), b.deliveries(200));
    assert_eq!(at_a, at_b);
    assert_eq!(at_a.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    // A room that is opened later begins where the others are.
    a.broker.shut(&room);
    assert_eq!(a.open(&room).await, Position { offset: 200, ..opened.clone() });
    b.publish(&room, "bob", "last").await;
    assert_eq!(a.delivered().await, (201, "last".into()));
    assert_eq!((a.counted("wsgate_cluster_gaps_filled_total"), b.counted("wsgate_cluster_gaps_filled_total")), (0, 0));
}

#[tokio::test]
async fn a_message_is_known_again_on_every_node() {
    let Some(Pair { server: _server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    let (first, duplicate) = a.publish(&room, "alice", "m").await.unwrap();
    assert!(!duplicate);
    assert_eq!(b.publish(&room, "alice", "m").await, Some((first.clone(), true)));
    // Of another sender, and one whose name and message run together as those do.
    assert_eq!(b.publish(&room, "bob", "m").await.unwrap().0.offset, 2);
    assert_eq!(b.publish(&room, "alic", "em").await.unwrap().0.offset, 3);
    for offset in [4, 5] {
        let unnamed = Publication { named: false, sender: None, ..publication("", "m") };
        b.broker.publish(TICKET, &room, unnamed);
        let position =
            b.until(|event| if let Event::Accepted { position, .. } = event { Some(position) } else { None });
        assert_eq!(position.await.offset, offset);
    }
}

async fn kept_with(history: History, server: &Server) -> (Node, RoomKey) {
    let (mut node, room) = (Node::start(server, 1).await, key(&format!("{history:?}").replace(['{', '}'], "")));
    node.open_with(&room, &rules_of(history)).await;
    for i in 0..60 {
        node.broker.publish(i, &room, publication("alice", &i.to_string()));
    }
    assert_eq!(node.deliveries(60).await.len(), 60);
    (node, room)
}

#[tokio::test]
async fn a_history_has_its_bounds() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let long = Duration::from_secs(600);
    let history = History { messages: 10, age: long, bytes: 1 << 20 };
    let (mut node, room) = kept_with(history, &server).await;
    assert_eq!(node.read(&room, 50, ALL).await, (Some((51..=60).collect()), Some(51)));
    assert_eq!(node.read(&room, 49, ALL).await, (None, Some(51)));
    assert_eq!(node.read(&room, 60, ALL).await, (Some(vec![]), Some(51)));
    assert_eq!(node.read(&room, 50, Batch { messages: 0, bytes: 0 }).await.0, Some(vec![]));
    assert_eq!(node.read(&room, 49, Batch { messages: 0, bytes: 0 }).await.0, None);
    assert_eq!(node.read(&room, 50, Batch { messages: 9, bytes: 1 }).await.0, Some(vec![51]));
    assert_eq!(node.read(&room, 50, Batch { messages: 3, bytes: 1 << 20 }).await.0, Some(vec![51, 52, 53]));
    let mut aside = Aside::to(&server).await;
    let stream = format!("t:{{default/{}}}:s", room.name);
    let length = aside.ask(&stream, &["XLEN", &stream]).await.int().unwrap();
    assert!((10..=20).contains(&length), "{length}");

    // About 270 bytes each.
    let (mut node, room) = kept_with(History { messages: 1000, age: long, bytes: 2000 }, &server).await;
    let (some, oldest) = node.read(&room, 55, ALL).await;
    assert_eq!((some.unwrap(), oldest), ((56..=60).collect(), Some(54)));

    let (mut node, room) =
        kept_with(History { messages: 1000, age: Duration::from_millis(300), bytes: 1 << 20 }, &server).await;
    let gone = async { while node.read(&room, 59, ALL).await.0.is_some() {} };
    timeout(DEADLINE, gone).await.unwrap();
    assert_eq!(node.read(&room, 60, ALL).await, (Some(vec![]), None));

    for none in [
        History { messages: 0, ..history },
        History { bytes: 0, ..history },
        History { age: Duration::ZERO, ..history },
    ] {
        let (mut node, room) = kept_with(none, &server).await;
        assert_eq!(node.read(&room, 59, ALL).await, (None, None));
        assert_eq!(node.read(&room, 60, ALL).await, (Some(vec![]), None));
    }
}

/// What a node was not sent it reads.
#[tokio::test]
async fn a_gap_is_filled_in_order() {
    let rules = rules_of(History { messages: 5000, ..Rules::default().history });
    let Some(Pair { server: _server, mut a, mut b, room, .. }) = Pair::with(&[], &rules).await else { return };
    b.turn_deaf(&room).await;
    for i in 0..1000 {
        a.broker.publish(i, &room, publication("alice", &i.to_string()));
    }
    let whole = a.deliveries(1000).await;
    b.turn_back(&room).await;
    a.publish(&room, "alice", "next").await;
    let mut seen = b.deliveries(1001).await;
    assert_eq!(seen.pop(), Some((1001, "next".into())));
    assert_eq!(seen, whole);
    assert_eq!(b.counted("wsgate_cluster_gaps_filled_total"), 1);
    assert_eq!(b.counted("wsgate_cluster_messages_filled_total"), 1001);
}

/// A node's own message shows it as well.
#[tokio::test]
async fn a_message_that_does_not_come_back_is_read() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let mut a = Node::start(&server, 1).await;
    let room = key("r");
    a.open(&room).await;
    a.turn_deaf(&room).await;
    a.publish(&room, "alice", "one").await;
    assert_eq!(a.delivered().await, (1, "one".into()));
}

/// And where nothing is said, it is found at the next look.
#[tokio::test]
async fn a_gap_that_nothing_shows_is_found() {
    let Some(Pair { server: _server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    b.turn_deaf(&room).await;
    a.publish(&room, "alice", "one").await;
    assert_eq!(b.delivered().await, (1, "one".into()));
}

#[tokio::test]
async fn a_gap_that_the_stream_has_no_more_is_told() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    for history in
        [History { messages: 5, ..Rules::default().history }, History { messages: 0, ..Rules::default().history }]
    {
        let (mut a, mut b) = (Node::start(&server, 1).await, Node::start(&server, 2).await);
        let (room, rules) = (key(&history.messages.to_string()), rules_of(history));
        let opened = a.open_with(&room, &rules).await;
        b.open_with(&room, &rules).await;
        b.turn_deaf(&room).await;
        for i in 0..50 {
            a.broker.publish(i, &room, publication("alice", &i.to_string()));
        }
        a.deliveries(50).await;
        b.turn_back(&room).await;
        a.publish(&room, "alice", "shows it").await;
        // Or it was found before that.
        let lost = b.lost().await;
        assert!(lost.epoch == opened.epoch && [50, 51].contains(&lost.offset), "{lost:?}");
        a.publish(&room, "alice", "next").await;
        assert_eq!(b.deliveries(52 - lost.offset as usize).await.pop(), Some((52, "next".into())));
        assert_eq!(b.counted("wsgate_cluster_places_lost_total{cause=\"gap\"}"), 1);
    }
}

/// Whoever can publish in Redis can say anything.
#[tokio::test]
async fn what_no_node_says_does_no_harm() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let mut a = Node::start(&server, 1).await;
    let room = key("r");
    let opened = a.open(&room).await;
    let mut aside = Aside::to(&server).await;
    let channel = "t:{default/r}";
    let epoch = opened.epoch.to_string();
    let far = format!("m{epoch} 1000 1 1 1\nab\"x\"");
    let endless = format!("m{epoch} {} 1 1 1\nab\"x\"", u64::MAX);
    let wrong = [
        "",
        "x",
        "m",
        "p",
        "t",
        "r",
        "m 1 1 1 1\nab\"x\"",
        "m<b> 1 1 1 1\nab\"x\"",
        "p1 5 0 0001 ",
        "p1 4",
        "p1 99 0 x",
        "p1 18 3 0000000000000002 a0 0",
        "t2",
        "t1 1 ",
        "r0000000000000002 x a",
        &endless,
        &far,
    ];
    for payload in wrong {
        aside.ask(channel, &["SPUBLISH", channel, payload]).await;
    }
    // And it is not believed: else the count would be broken by what is told of it.
    a.read(&room, 0, Batch { messages: 0, bytes: 0 }).await;
    assert_eq!(a.broker.rooms.iter().map(|(_, room)| room.seen().unwrap().offset).max(), Some(0));
    let next = format!("m{epoch} 1 1 1 1\nab{{");
    aside.ask(channel, &["SPUBLISH", channel, &next]).await;
    assert_eq!(a.publish(&room, "alice", "one").await.unwrap().0, Position { offset: 1, ..opened });
    assert_eq!(a.delivered().await, (1, "one".into()));
}
