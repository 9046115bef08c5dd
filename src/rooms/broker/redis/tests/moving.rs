//! A Redis Cluster whose slots move.
use super::*;
use crate::cluster::link::tests::moving::{cluster, move_slot, owner_of};

#[tokio::test]
async fn messages_go_on_in_order_while_the_slot_of_their_room_moves() {
    if !has_redis() {
        return;
    }
    let servers = cluster(3, 0).await;
    let (mut a, mut b) = (Node::start(&servers[0], 1).await, Node::start(&servers[1], 2).await);
    let room = key("r");
    let (opened, slot) = (a.open_when_reached(&room).await, slot_of(&a.broker.channel_of(&room)));
    assert_eq!(b.open_when_reached(&room).await, opened);
    let moving = async {
        for _ in 0..3 {
            let from = owner_of(&servers, slot).await;
            let to = servers.iter().find(|server| server.port != from.port).unwrap();
            move_slot(from, to, slot, &servers).await;
        }
    };
    let mut moving = std::pin::pin!(moving);
    let (mut moved, mut sent, mut seen, mut at_b) = (false, 0, Vec::new(), Vec::new());
    while !moved || seen.len() < sent as usize || at_b.len() < seen.len() {
        if !moved && sent < seen.len() as u64 + 32 {
            a.broker.publish(sent, &room, unnamed(sent));
            sent += 1;
        }
        tokio::select! {
            () = &mut moving, if !moved => moved = true,
            event = a.event() => match event {
                Event::Delivered { message, .. } => seen.push(said(&message)),
                // A move that takes long holds publishes up for as long as they may wait.
                Event::Refused { ticket } => a.broker.publish(ticket, &room, unnamed(ticket)),
                Event::Accepted { .. } | Event::Others { .. } => (),
                other => panic!("{other:?}"),
            },
            event = b.event() => match event {
                Event::Delivered { message, .. } => at_b.push(said(&message)),
                Event::Others { .. } => (),
                other => panic!("{other:?}"),
            },
        }
    }
    assert!(sent > 32, "{sent} messages");
    assert_eq!(seen, at_b);
    assert_eq!(seen.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (1..=sent).collect::<Vec<_>>());
    let mut texts: Vec<u64> = seen.iter().map(|(_, text)| text.parse().unwrap()).collect();
    texts.sort_unstable();
    assert_eq!(texts, (0..sent).collect::<Vec<_>>());
    // Who is there is known on the other master too.
    let held = Held { sessions: 1, since: jiff::Timestamp::UNIX_EPOCH, said: None };
    a.broker.holds(&room, &"alice".into(), Some(held));
    let found = b.until(|event| match event {
        Event::Others { clients, .. } => {
            clients.iter().any(|(_, client, held)| &**client == "alice" && held.is_some()).then_some(())
        }
        _ => None,
    });
    a.beside(found).await;
}

/// Whose name is no key, so that a move is short.
fn unnamed(number: u64) -> Publication {
    Publication { named: false, ..publication("alice", &number.to_string()) }
}

impl Node {
    /// Each master is reached by itself.
    async fn open_when_reached(&mut self, room: &RoomKey) -> Position {
        let slot = slot_of(&self.broker.channel_of(room));
        let reached = poll_fn(|cx| {
            while self.poll(cx).is_ready() {}
            if self.broker.link.reaches(slot) { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(DEADLINE, reached).await.unwrap();
        // All that may come while a subscription is made anew.
        let history = History { messages: 100_000, bytes: 64 << 20, ..Rules::default().history };
        self.open_with(room, &rules_of(history)).await
    }
}
