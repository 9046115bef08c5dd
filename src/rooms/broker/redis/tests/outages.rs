//! Redis goes, and comes back as it was or as another.
use super::*;

#[tokio::test]
async fn while_redis_is_away_everything_is_refused_and_then_goes_on() {
    let Some(Pair { mut server, mut a, mut b, room, opened }) = Pair::over(LASTING).await else { return };
    let other = key("other");
    a.publish(&room, "alice", "one").await;
    b.delivered().await;
    server.kill().await;
    a.lost_redis().await;
    b.lost_redis().await;
    assert_eq!(a.publish(&room, "alice", "two").await, None);
    a.broker.open(&other, &Arc::default());
    a.answer(|event| matches!(event, Event::Unavailable { room } if *room == other).then_some(())).await;
    a.broker.read(3, &room, 0, ALL);
    a.answer(|event| matches!(event, Event::Unread { ticket: 3 }).then_some(())).await;
    server.restart().await;
    a.reached().await;
    assert_eq!(a.publish(&room, "alice", "two").await, Some((Position { offset: 2, ..opened }, false)));
    assert_eq!(b.delivered().await, (2, "two".into()));
}

/// Whoever comes back later reads what it has missed.
#[tokio::test]
async fn what_was_missed_while_redis_was_lost_is_filled() {
    let Some(Pair { server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    let mut aside = Aside::to(&server).await;
    for round in 0..5 {
        for i in 0..10 {
            a.broker.publish(i, &room, publication("alice", &format!("{round}-{i}")));
        }
        // All connections but the one that says so.
        aside.ask("x", &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        let mut ends = 0;
        while ends < 10 {
            ends += usize::from(matches!(a.event().await, Event::Accepted { .. } | Event::Refused { .. }));
        }
    }
    a.lost_or_reached().await;
    let (last, _) = a.publish(&room, "alice", "last").await.unwrap();
    let count = last.offset as usize;
    let seen = b.deliveries(count).await;
    assert_eq!(seen.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (1..=last.offset).collect::<Vec<_>>());
    assert_eq!(seen.last().unwrap().1, "last");
}

#[tokio::test]
async fn a_redis_that_is_empty_begins_another_count() {
    let Some(Pair { server, mut a, mut b, room, opened }) = Pair::over(&[]).await else { return };
    let mut aside = Aside::to(&server).await;
    a.publish(&room, "alice", "one").await;
    b.delivered().await;
    aside.ask("x", &["FLUSHALL"]).await;
    a.broker.publish(1, &room, publication("alice", "two"));
    let lost = a.lost().await;
    assert_ne!(lost.epoch, opened.epoch);
    assert_eq!((lost.offset, b.lost().await), (0, lost.clone()));
    assert_eq!((a.delivered().await, b.delivered().await), ((1, "two".into()), (1, "two".into())));
    // Where nobody says anything it is found all the same.
    aside.ask("x", &["FLUSHALL"]).await;
    let (at_a, at_b) = (a.lost().await, b.lost().await);
    assert_ne!(at_a.epoch, lost.epoch);
    assert_eq!(at_a, at_b);
    assert_eq!(a.counted("wsgate_cluster_places_lost_total{cause=\"epoch\"}"), 2);
}

/// As a replica that was promoted without having the last messages.
#[tokio::test]
async fn a_redis_that_has_less_than_was_seen_begins_another_count() {
    let Some(Pair { server, mut a, mut b, room, opened }) = Pair::over(&[]).await else { return };
    let mut aside = Aside::to(&server).await;
    a.publish(&room, "alice", "one").await;
    let (count, stream) = ("t:{default/r}:m", "t:{default/r}:s");
    let before = aside.ask(count, &["GET", count]).await;
    a.publish(&room, "alice", "two").await;
    b.deliveries(2).await;
    aside.ask(count, &["SET", count, before.text().unwrap()]).await;
    aside.ask(stream, &["XDEL", stream, "2-0"]).await;
    let (position, _) = b.publish(&room, "bob", "another two").await.unwrap();
    assert_ne!(position.epoch, opened.epoch);
    assert_eq!(position.offset, 1);
    assert_eq!(a.lost().await, Position { offset: 0, ..position.clone() });
    assert_eq!(a.delivered().await, (1, "another two".into()));

    // As many messages, but another one at the end.
    let text = aside.ask(count, &["GET", count]).await.text().unwrap().to_owned();
    let mut words: Vec<&str> = text.split(' ').collect();
    words[2] = "12345";
    aside.ask(count, &["SET", count, &words.join(" ")]).await;
    let (after, _) = b.publish(&room, "bob", "three").await.unwrap();
    assert_ne!(after.epoch, position.epoch);
}

/// And others have got places there before this node looks.
#[tokio::test]
async fn another_message_at_a_place_that_was_told_is_found() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let (mut a, mut b, mut aside) =
        (Node::start(&server, 1).await, Node::start(&server, 2).await, Aside::to(&server).await);
    let room = key("r");
    let opened = a.open(&room).await;
    let (count, stream) = ("t:{default/r}:m", "t:{default/r}:s");
    let before = aside.ask(count, &["GET", count]).await;
    a.publish(&room, "alice", "one").await;
    assert_eq!(a.delivered().await, (1, "one".into()));
    a.turn_deaf(&room).await;
    aside.ask(count, &["SET", count, before.text().unwrap()]).await;
    aside.ask(stream, &["DEL", stream]).await;
    b.open(&room).await;
    // What comes now is of another millisecond.
    tokio::time::sleep(Duration::from_millis(2)).await;
    for i in 0..3 {
        b.publish(&room, "bob", &format!("another {i}")).await;
    }
    // As when Redis is reached again: its own message comes before what it has asked.
    let at = a.broker.at(&room).unwrap();
    a.broker.room(at).unwrap().syncing = room::Syncing::Queued;
    let (position, _) = a.publish(&room, "alice", "next").await.unwrap();
    assert_ne!(position.epoch, opened.epoch);
    assert_eq!(a.lost().await, Position { offset: 0, ..position.clone() });
}

#[tokio::test]
async fn the_room_of_everyone_is_open_as_soon_as_redis_is_reached() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let (mut a, mut b) = (Node::new(&server, 1), Node::new(&server, 2));
    let everyone = RoomKey::everyone(Namespace { index: 0 });
    a.broker.open(&everyone, &Arc::default());
    let here = loop {
        match a.event().await {
            Event::Opened { room, position } if room == everyone => break position,
            Event::Others { .. } => (),
            other => panic!("{other:?}"),
        }
    };
    b.reached().await;
    assert_eq!(here, b.open(&everyone).await);
    a.publish(&everyone, "alice", "hello").await;
    assert_eq!(b.delivered().await, (1, "hello".into()));
}

#[tokio::test]
async fn a_room_that_is_wanted_at_the_start_does_not_wait_for_ever() {
    if !has_redis() {
        return;
    }
    let mut server = Server::start(&[]).await;
    server.kill().await;
    let mut node = Node::new(&server, 1);
    for _ in 0..2 {
        // The second time at once.
        node.broker.open(&key("a"), &Arc::default());
        assert!(matches!(node.event().await, Event::Unavailable { room } if room == key("a")));
    }
}

impl Node {
    /// Redis is reached, after it was lost or not.
    async fn lost_or_reached(&mut self) {
        let reached = poll_fn(|cx| {
            while self.poll(cx).is_ready() {}
            if self.broker.link.reaches(0) { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(DEADLINE, reached).await.unwrap();
    }
}
