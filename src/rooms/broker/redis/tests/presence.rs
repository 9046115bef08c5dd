//! Who is in a room, over several nodes.
use super::*;
use crate::cluster::nodes::NodeView;
use crate::rooms::broker::Elsewhere;
use crate::rooms::protocol::Status;
use crate::rooms::statuses::Said;
use jiff::Timestamp;
use std::collections::BTreeMap;

fn held(sessions: u32) -> Held {
    Held { sessions, since: Timestamp::from_millisecond(1_000).unwrap(), said: None }
}

fn away() -> Held {
    let said = Said {
        status: Status::Text("gone for lunch".into()),
        since: Timestamp::from_microsecond(2_000_001).unwrap(),
        version: 3,
    };
    Held { said: Some(Arc::new(said)), ..held(2) }
}

fn live(own: u64, others: &[u64]) -> Live {
    let node = |id: &u64| NodeView { id: NodeId(*id), name: id.to_string().into(), about: "{}".into() };
    Live { own: NodeId(own), nodes: others.iter().map(node).collect() }
}

/// What others hold, as a home keeps it.
#[derive(Default)]
struct Others(BTreeMap<(NodeId, Arc<str>), Held>);

impl Others {
    fn take(&mut self, clients: Vec<Elsewhere>, whole: bool) {
        if whole {
            self.0.clear();
        }
        for (node, client, held) in clients {
            match held {
                Some(held) => drop(self.0.insert((node, client), held)),
                None => drop(self.0.remove(&(node, client))),
            }
        }
    }

    /// Returns when others hold this and nothing else.
    async fn become_(&mut self, node: &mut Node, wanted: &[(u64, &str, Held)]) {
        let wanted: BTreeMap<_, _> =
            wanted.iter().map(|(node, client, held)| ((NodeId(*node), Arc::from(*client)), held.clone())).collect();
        while self.0 != wanted {
            match node.event().await {
                Event::Others { clients, whole, .. } => self.take(clients, whole),
                Event::Gone { node } => self.0.retain(|(of, _), _| *of != node),
                _ => (),
            }
        }
    }
}

#[tokio::test]
async fn each_node_knows_what_the_others_hold() {
    let Some(Pair { server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    let (mut at_a, mut at_b) = (Others::default(), Others::default());
    a.broker.holds(&room, &"alice".into(), Some(held(1)));
    a.broker.holds(&room, &"alice b".into(), Some(away()));
    a.broker.publish(1, &room, publication("alice", "one"));
    b.broker.holds(&room, &"bob".into(), Some(held(1)));
    // What a node holds is there before what it says.
    let before = b.until(|event| match event {
        Event::Others { clients, whole, .. } => {
            at_b.take(clients, whole);
            None
        }
        Event::Delivered { .. } => Some(()),
        _ => None,
    });
    a.beside(before).await;
    assert_eq!(at_b.0.len(), 2);
    a.beside(at_b.become_(&mut b, &[(1, "alice", held(1)), (1, "alice b", away())])).await;
    b.beside(at_a.become_(&mut a, &[(2, "bob", held(1))])).await;
    // A node that opens the room later.
    let mut c = Node::start(&server, 3).await;
    c.broker.open(&room, &Arc::default());
    let mut at_c = Others::default();
    at_c.become_(&mut c, &[(1, "alice", held(1)), (1, "alice b", away()), (2, "bob", held(1))]).await;
    assert!(matches!(c.event().await, Event::Opened { .. }));
    // Nothing is left behind of what a node has left.
    a.broker.holds(&room, &"alice".into(), None);
    a.broker.holds(&room, &"alice b".into(), None);
    a.broker.shut(&room);
    a.open(&room).await;
    b.beside(at_c.become_(&mut c, &[(2, "bob", held(1))])).await;
    b.broker.tell(&room, Telling::Receipt { client: "bob".into(), offset: 1 });
    b.broker.tell(&room, Telling::Typing { client: "bob".into(), start: true });
    for node in [&mut a, &mut c] {
        let mut told = Vec::new();
        let all = async {
            while told.len() < 2 {
                if let Event::Told { telling, .. } = node.event().await {
                    told.push(telling);
                }
            }
        };
        b.beside(all).await;
        let receipt = Telling::Receipt { client: "bob".into(), offset: 1 };
        assert_eq!(told, [receipt, Telling::Typing { client: "bob".into(), start: true }]);
    }
    // Who says it is not told.
    b.publish(&room, "bob", "last").await;
    let own = b.until(|event| match event {
        Event::Told { telling, .. } => Some(Some(telling)),
        Event::Delivered { .. } => Some(None),
        _ => None,
    });
    assert_eq!(own.await, None);
}

/// Versions that are missing have everything looked at again.
#[tokio::test]
async fn a_change_that_was_missed_is_found() {
    let Some(Pair { server: _server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    b.turn_deaf(&room).await;
    a.broker.holds(&room, &"alice".into(), Some(held(1)));
    a.publish(&room, "alice", "one").await;
    b.turn_back(&room).await;
    a.broker.holds(&room, &"carol".into(), Some(held(1)));
    a.publish(&room, "alice", "two").await;
    a.beside(Others::default().become_(&mut b, &[(1, "alice", held(1)), (1, "carol", held(1))])).await;
    // Nobody says anything more: it is found at the next look.
    b.turn_deaf(&room).await;
    a.broker.holds(&room, &"alice".into(), None);
    a.publish(&room, "carol", "three").await;
    a.beside(Others::default().become_(&mut b, &[(1, "carol", held(1))])).await;
}

#[tokio::test]
async fn a_large_room_is_told_in_pieces() {
    if !has_redis() {
        return;
    }
    let server = Server::start(&[]).await;
    let (mut a, mut b, room) = (Node::start(&server, 1).await, Node::start(&server, 2).await, key("r"));
    a.open(&room).await;
    for i in 0..2500 {
        a.broker.holds(&room, &format!("client-{i}").into(), Some(held(1)));
    }
    a.publish(&room, "x", "x").await;
    assert_eq!(a.counted("wsgate_cluster_presence_flushes_total"), 3);
    b.broker.open(&room, &Arc::default());
    let others = b.until(|event| if let Event::Others { clients, .. } = event { Some(clients.len()) } else { None });
    assert_eq!(others.await, 2500);
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_learns_who_is_there() {
    let Some(Pair { mut server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    b.live.set(live(2, &[1, 2]));
    let mut at_b = Others::default();
    a.broker.holds(&room, &"alice".into(), Some(held(1)));
    a.beside(at_b.become_(&mut b, &[(1, "alice", held(1))])).await;
    server.kill().await;
    a.lost_redis().await;
    // What happens meanwhile is known afterwards.
    a.broker.holds(&room, &"alice".into(), None);
    a.broker.holds(&room, &"carol".into(), Some(held(1)));
    server.restart().await;
    a.beside(at_b.become_(&mut b, &[(1, "carol", held(1))])).await;
}

/// What a node could not take out when it left a room is taken out when Redis is reached again.
#[tokio::test]
async fn a_room_that_is_left_while_redis_is_away_keeps_no_ghost() {
    let Some(Pair { mut server, mut a, mut b, room, .. }) = Pair::over(LASTING).await else { return };
    b.live.set(live(2, &[1, 2]));
    let mut at_b = Others::default();
    a.broker.holds(&room, &"alice".into(), Some(held(1)));
    a.beside(at_b.become_(&mut b, &[(1, "alice", held(1))])).await;
    server.kill().await;
    a.lost_redis().await;
    a.broker.holds(&room, &"alice".into(), None);
    // It is tried at once.
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(a.poll(&mut cx).is_pending());
    a.broker.shut(&room);
    server.restart().await;
    a.beside(at_b.become_(&mut b, &[])).await;
    assert!(a.broker.leftovers.is_empty());
}

#[tokio::test]
async fn nodes_that_live_no_more_are_told_and_what_they_held_is_not_found_again() {
    let Some(Pair { server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    b.live.set(live(2, &[1, 2]));
    a.broker.holds(&room, &"alice".into(), Some(held(1)));
    let mut at_b = Others::default();
    a.beside(at_b.become_(&mut b, &[(1, "alice", held(1))])).await;
    b.live.set(live(2, &[2]));
    let gone = b.until(|event| if let Event::Gone { node } = event { Some(node) } else { None });
    assert_eq!(gone.await, NodeId(1));
    b.broker.shut(&room);
    b.broker.open(&room, &Arc::default());
    let found = b.until(|event| match event {
        Event::Others { clients, whole: true, .. } => Some(clients),
        _ => None,
    });
    assert_eq!(found.await, []);
    // It lives after all.
    b.live.set(live(2, &[1, 2]));
    a.beside(Others::default().become_(&mut b, &[(1, "alice", held(1))])).await;
    // A node that nobody has ever seen alive counts for a moment.
    let mut c = Node::start(&server, 3).await;
    c.live.set(live(3, &[2, 3]));
    c.broker.open(&room, &Arc::default());
    let mut at_c = Others::default();
    at_c.become_(&mut c, &[(1, "alice", held(1))]).await;
    at_c.become_(&mut c, &[]).await;
}

#[tokio::test]
async fn a_node_that_is_another_one_announces_everything_anew() {
    let Some(Pair { server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    a.broker.holds(&room, &"alice".into(), Some(held(1)));
    let mut at_b = Others::default();
    a.beside(at_b.become_(&mut b, &[(1, "alice", held(1))])).await;
    a.live.set(live(11, &[11]));
    b.live.set(live(2, &[2, 11]));
    a.beside(at_b.become_(&mut b, &[(11, "alice", held(1))])).await;
    // The old record is taken out as well.
    let mut aside = Aside::to(&server).await;
    let presence = "t:{default/r}:p";
    let cleaned = async {
        while aside.ask(presence, &["HLEN", presence]).await.int() != Some(2) {}
        aside.ask(presence, &["HGET", presence, "000000000000000b alice"]).await
    };
    assert_eq!(a.beside(cleaned).await.text(), Some("1 1000"));
}

/// As when a connection was given up, and the kernel has sent what was written there.
#[tokio::test]
async fn what_redis_carries_out_late_is_put_right() {
    let Some(Pair { server: _server, mut a, mut b, room, .. }) = Pair::over(&[]).await else { return };
    a.broker.holds(&room, &"alice".into(), Some(held(1)));
    let mut at_b = Others::default();
    a.beside(at_b.become_(&mut b, &[(1, "alice", held(1))])).await;
    for (client, late) in [("alice", None), ("alice", Some("3 1000")), ("ghost", Some("1 1000"))] {
        let late = late.map(str::to_owned);
        let seen = at_b.0.get(&(NodeId(1), client.into())).cloned();
        let change = [(wire::field(NodeId(1), client), late.clone())];
        let call = scripts::hold(b"t:{default/r}", &change, &Rules::default().history, &b.broker.keeping());
        b.broker.call(Asked::Told, call);
        let changed = async {
            while at_b.0.get(&(NodeId(1), client.into())).cloned() == seen {
                if let Event::Others { clients, whole, .. } = b.event().await {
                    at_b.take(clients, whole);
                }
            }
        };
        timeout(DEADLINE, changed).await.unwrap();
        a.beside(at_b.become_(&mut b, &[(1, "alice", held(1))])).await;
    }
}
