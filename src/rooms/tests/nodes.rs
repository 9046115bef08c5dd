//! Rooms that several nodes share.
mod hooks;
mod scripted;

use super::twin::Cluster;
use super::*;
use crate::cluster::NodeId;
use crate::rooms::typing::TELL_EVERY;

/// Some nodes, two shards each, without a loop.
struct Nodes {
    cluster: Cluster,
    houses: Vec<House>,
}

impl Nodes {
    fn new(nodes: u64, rules: &config::Rooms) -> Nodes {
        Nodes::with_parts(nodes, || Parts::alone(rules.clone()))
    }

    fn with_parts(nodes: u64, parts: impl Fn() -> Parts) -> Nodes {
        let cluster = Cluster::new(Memory::default());
        let house = |i| {
            let house = House::of(2, parts(), None, || Box::new(cluster.twin(NodeId(i))));
            house.joins(&cluster, NodeId(i));
            house
        };
        let houses = (0..nodes).map(house).collect();
        Nodes { cluster, houses }
    }

    /// A session on a node that has asked to join the room.
    fn member(&self, node: usize, client: &str) -> Tab {
        let tab = self.houses[node].tab_with_member_only(node % 2, client);
        tab.join("room", "join");
        self.settle();
        tab
    }

    /// Has all nodes do what there is to do.
    fn settle(&self) {
        while self.houses.iter().map(House::turn).sum::<usize>() > 0 {}
    }

    /// What a session was sent since the last call, once all is done.
    async fn seen(&self, tab: &mut Tab) -> Vec<Value> {
        self.settle();
        self.houses[0].seen(tab).await
    }

    async fn nothing(&self, tab: &mut Tab) {
        let seen = self.seen(tab).await;
        assert!(seen.is_empty(), "{seen:?}");
    }

    async fn time_passes(&self, time: Duration) {
        tokio::time::advance(time).await;
        self.settle();
    }

    /// A node is killed, and the others know.
    fn kills(&mut self, node: usize) {
        let id = NodeId(node as u64);
        self.cluster.kill(id);
        self.cluster.gone(id);
        self.settle();
    }

    fn lose(&self, mut tab: Tab) {
        tab.lose();
        self.settle();
    }

    /// All have gone, and nothing is left anywhere.
    fn emptied(&self, tabs: impl IntoIterator<Item = Tab>) {
        tabs.into_iter().for_each(|tab| self.lose(tab));
        for house in &self.houses {
            assert_eq!(house.gauges(), (0, 0));
            assert!(house.shards.iter().all(|rooms| rooms.home.borrow().is_empty()));
        }
        assert_eq!(self.cluster.rooms(), []);
    }
}

impl House {
    /// It is a node among others.
    pub(super) fn joins(&self, cluster: &Cluster, node: NodeId) {
        let live = cluster.joins(node);
        self.shards.iter().for_each(|rooms| rooms.home.borrow_mut().joins_cluster(live.clone()));
    }

    /// Has every shard do what there is to do; how much that was.
    fn turn(&self) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut done = 0;
        for rooms in &self.shards {
            rooms.poll_timers(&mut cx);
            while rooms.home.borrow_mut().poll_event(&mut cx).is_ready() {
                done += 1;
            }
            done += self.handle(rooms, usize::MAX);
        }
        done
    }
}

/// Who is told to be what.
fn presences(seen: &[Value]) -> Vec<(&str, &str)> {
    let updates = seen.iter().filter(|m| m["type"] == "presence_update").map(|m| &m["payload"]);
    updates.map(|p| (p["client_id"].as_str().unwrap(), p["status"].as_str().unwrap())).collect()
}

fn types(seen: &[Value]) -> Vec<&str> {
    seen.iter().map(|m| m["type"].as_str().unwrap()).collect()
}

fn answer<'a>(seen: &'a [Value], id: &str) -> &'a Value {
    &seen.iter().find(|m| m["metadata"]["correlation_id"] == id).expect("an answer")["payload"]
}

async fn members(nodes: &Nodes, tab: &mut Tab) -> Value {
    tab.request("room_members", "members", json!({"room_id": "room"}));
    answer(&nodes.seen(tab).await, "members").clone()
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_with_its_first_session_of_all_and_goes_with_its_last() {
    let nodes = Nodes::new(3, &rules());
    let mut bob = nodes.member(0, "bob");
    let mut carol = nodes.member(1, "carol");
    assert_eq!(presences(&nodes.seen(&mut bob).await), [("carol", "online")]);
    let joined = nodes.seen(&mut carol).await;
    assert_eq!(answer(&joined, "join")["count"], 2);
    let mut alices = Vec::new();
    for node in [1, 2, 0, 2] {
        alices.push(nodes.member(node, "alice"));
        let seen = nodes.seen(alices.last_mut().unwrap()).await;
        assert_eq!((answer(&seen, "join")["count"].clone(), presences(&seen).len()), (json!(3), 0));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    for tab in [&mut bob, &mut carol] {
        assert_eq!(presences(&nodes.seen(tab).await), [("alice", "online")]);
        let members = members(&nodes, tab).await;
        let list = members["members"].as_array().unwrap().iter();
        let names: Vec<&str> = list.map(|m| m["client_id"].as_str().unwrap()).collect();
        assert_eq!((names, &members["count"]), (vec!["alice", "bob", "carol"], &json!(3)));
    }
    bob.publish("room", "to all");
    assert_eq!(answer(&nodes.seen(&mut bob).await, "to all")["recipients"], 6);
    for tab in alices.iter_mut().chain([&mut carol]) {
        assert_eq!(types(&nodes.seen(tab).await), ["chat_message"]);
    }
    let mut last = alices.pop().unwrap();
    for mut tab in alices {
        tab.lose();
    }
    nodes.nothing(&mut carol).await;
    last.lose();
    for tab in [&mut bob, &mut carol] {
        assert_eq!(presences(&nodes.seen(tab).await), [("alice", "offline")]);
        assert_eq!(members(&nodes, tab).await["count"], 2);
    }
    nodes.emptied([bob, carol]);
}

#[tokio::test(start_paused = true)]
async fn since_is_the_earliest_of_all_nodes() {
    let nodes = Nodes::new(2, &rules());
    let mut bob = nodes.member(0, "bob");
    let there = nodes.member(1, "alice");
    // Lists have milliseconds, and that clock is not paused.
    let came = jiff::Timestamp::now().as_millisecond();
    while jiff::Timestamp::now().as_millisecond() == came {}
    let here = nodes.member(0, "alice");
    let key = key("room");
    let of = |node| nodes.cluster.held(&key, "alice", NodeId(node)).unwrap().since;
    let (first, second) = (of(1), of(0));
    assert!(first < second);
    let listed = members(&nodes, &mut bob).await["members"][0]["since"].clone();
    assert_eq!(listed, format!("{:.3}", first));
    nodes.lose(there);
    let listed = members(&nodes, &mut bob).await["members"][0]["since"].clone();
    assert_eq!(listed, format!("{:.3}", second));
    nodes.emptied([bob, here]);
}

#[tokio::test(start_paused = true)]
async fn a_room_is_full_by_its_members_on_all_nodes() {
    let nodes = Nodes::new(2, &rules_with(|rules| rules.max_members = 2));
    let (bob, alice) = (nodes.member(0, "bob"), nodes.member(1, "alice"));
    let mut carol = nodes.member(0, "carol");
    assert_eq!(answer(&nodes.seen(&mut carol).await, "join")["code"], 4008);
    // Who is in it already takes no other place.
    let mut again = nodes.member(0, "alice");
    assert_eq!(answer(&nodes.seen(&mut again).await, "join")["count"], 2);
    nodes.emptied([bob, alice, carol, again]);
}

/// Also what it said on a node that has gone since, to one that came later.
#[tokio::test(start_paused = true)]
async fn a_status_holds_on_all_nodes() {
    let mut nodes = Nodes::new(3, &rules());
    let (mut bob, here) = (nodes.member(0, "bob"), nodes.member(0, "alice"));
    let there = nodes.member(1, "alice");
    nodes.seen(&mut bob).await;
    there.request("presence_update", "say", json!({"status": "away"}));
    assert_eq!(presences(&nodes.seen(&mut bob).await), [("alice", "away")]);
    let said = nodes.cluster.held(&key("room"), "alice", NodeId(0)).unwrap().said.unwrap();
    assert_eq!(said.status.as_str(), "away", "it is not held where it was not said");
    nodes.kills(1);
    nodes.nothing(&mut bob).await;
    let mut carol = nodes.member(2, "carol");
    assert_eq!(members(&nodes, &mut carol).await["members"][0]["status"], "away");
    // Who comes here with what was not known is shown so.
    nodes.seen(&mut bob).await;
    let dave = nodes.houses[2].tab_with_member_only(1, "dave");
    dave.request("presence_update", "say", json!({"status": "busy"}));
    dave.join("room", "join");
    assert_eq!(presences(&nodes.seen(&mut bob).await), [("dave", "online"), ("dave", "busy")]);
    nodes.houses.remove(1);
    nodes.emptied([bob, carol, dave, here]);
}

#[tokio::test(start_paused = true)]
async fn who_is_invisible_is_so_on_all_nodes() {
    let nodes = Nodes::new(2, &rules());
    let (mut bob, mut alice) = (nodes.member(0, "bob"), nodes.member(1, "alice"));
    nodes.seen(&mut bob).await;
    alice.request("presence_update", "say", json!({"status": "invisible"}));
    assert_eq!(presences(&nodes.seen(&mut bob).await), [("alice", "offline")]);
    assert_eq!(members(&nodes, &mut bob).await["count"], 1);
    bob.publish("room", "x");
    assert_eq!(answer(&nodes.seen(&mut bob).await, "x")["recipients"], 1);
    assert_eq!(members(&nodes, &mut alice).await["count"], 2);
    alice.request("typing_start", "t", json!({"room_id": "room"}));
    alice.request("read_receipt", "r", json!({"room_id": "room", "offset": 1}));
    // A second session of it, where what it has said is not known yet, brings it to light neither.
    let again = nodes.member(0, "alice");
    nodes.nothing(&mut bob).await;
    let held = nodes.cluster.held(&key("room"), "alice", NodeId(0)).unwrap();
    assert_eq!(held.said.unwrap().status.as_str(), "invisible");
    nodes.lose(alice);
    nodes.nothing(&mut bob).await;
    assert_eq!(members(&nodes, &mut bob).await["count"], 1);
    nodes.lose(again);
    nodes.nothing(&mut bob).await;
    nodes.emptied([bob]);
}

#[tokio::test(start_paused = true)]
async fn typing_is_told_to_members_on_all_nodes_once_and_ends_by_itself() {
    let nodes = Nodes::new(3, &rules());
    let (mut bob, mut carol) = (nodes.member(0, "bob"), nodes.member(2, "carol"));
    let alice = nodes.member(1, "alice");
    let types = |kind: &str| alice.request(kind, "t", json!({"room_id": "room"}));
    nodes.seen(&mut bob).await;
    nodes.seen(&mut carol).await;
    for (kind, wait, told) in [
        ("typing_start", 0, "typing_start"),
        ("typing_stop", 0, "typing_stop"),
        // It is too early for another start; it is told when its time has come, and expires.
        ("typing_start", 2, "typing_start"),
        ("", 5, "typing_stop"),
    ] {
        if !kind.is_empty() {
            types(kind);
        }
        nodes.time_passes(Duration::from_secs(wait)).await;
        for tab in [&mut bob, &mut carol] {
            assert_eq!(self::types(&nodes.seen(tab).await), [told], "{kind}");
        }
    }
    nodes.time_passes(LONG).await;
    nodes.nothing(&mut carol).await;
    // A node that dies, or is cut off, tells no end.
    types("typing_start");
    assert_eq!(self::types(&nodes.seen(&mut bob).await), ["typing_start"]);
    nodes.cluster.kill(NodeId(1));
    nodes.time_passes(rules().typing_expiry + TELL_EVERY).await;
    assert_eq!(self::types(&nodes.seen(&mut bob).await), ["typing_stop"]);
    nodes.cluster.gone(NodeId(1));
    assert_eq!(self::types(&nodes.seen(&mut bob).await), ["presence_update"]);
}

#[tokio::test(start_paused = true)]
async fn who_goes_elsewhere_does_not_type_any_more() {
    let mut nodes = Nodes::new(2, &rules());
    let (mut bob, alice) = (nodes.member(0, "bob"), nodes.member(1, "alice"));
    nodes.seen(&mut bob).await;
    alice.request("typing_start", "t", json!({"room_id": "room"}));
    nodes.seen(&mut bob).await;
    nodes.kills(1);
    assert_eq!(types(&nodes.seen(&mut bob).await), ["typing_stop", "presence_update"]);
}

#[tokio::test(start_paused = true)]
async fn receipts_go_to_all_nodes_and_only_forward() {
    let nodes = Nodes::new(2, &rules());
    let (mut bob, mut again) = (nodes.member(0, "bob"), nodes.member(0, "alice"));
    let mut alice = nodes.member(1, "alice");
    for text in ["1", "2", "3"] {
        bob.publish("room", text);
    }
    for tab in [&mut bob, &mut again, &mut alice] {
        nodes.seen(tab).await;
    }
    let read = |tab: &Tab, offset| tab.request("read_receipt", "r", json!({"room_id": "room", "offset": offset}));
    read(&alice, 2);
    for tab in [&mut bob, &mut again] {
        let seen = nodes.seen(tab).await;
        assert_eq!((types(&seen), &seen[0]["payload"]["offset"]), (vec!["read_receipt"], &json!(2)));
    }
    // Her other session is behind what she has read there.
    read(&again, 1);
    for tab in [&mut bob, &mut alice] {
        nodes.nothing(tab).await;
    }
    read(&again, 3);
    assert_eq!(types(&nodes.seen(&mut alice).await), ["read_receipt"]);
    nodes.emptied([bob, again, alice]);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_node_held_is_held_no_more() {
    let mut nodes = Nodes::new(3, &rules());
    let (mut bob, alice) = (nodes.member(0, "bob"), nodes.member(0, "alice"));
    let _there = [nodes.member(1, "alice"), nodes.member(1, "carol"), nodes.member(1, "carol")];
    let dave = nodes.member(2, "dave");
    nodes.seen(&mut bob).await;
    nodes.cluster.kill(NodeId(1));
    nodes.nothing(&mut bob).await;
    assert_eq!(members(&nodes, &mut bob).await["count"], 4);
    nodes.cluster.gone(NodeId(1));
    assert_eq!(presences(&nodes.seen(&mut bob).await), [("carol", "offline")]);
    assert_eq!(members(&nodes, &mut bob).await["count"], 3);
    bob.publish("room", "x");
    assert_eq!(answer(&nodes.seen(&mut bob).await, "x")["recipients"], 3);
    nodes.houses.remove(1);
    nodes.emptied([bob, alice, dave]);
}

/// With a client of this node among them, and more of them than are looked at in one piece.
#[tokio::test(start_paused = true)]
async fn of_many_that_go_with_their_node_each_goes_once() {
    let mut nodes = Nodes::new(2, &rules_with(|rules| rules.max_members = 10_000));
    let (mut bob, here) = (nodes.member(0, "bob"), nodes.member(0, "c0300"));
    let many: Vec<Tab> = (0..900)
        .map(|i| {
            let tab = nodes.houses[1].tab_with_member_only(i % 2, &format!("c{i:04}"));
            tab.join("room", "join");
            tab
        })
        .collect();
    assert_eq!(presences(&nodes.seen(&mut bob).await).len(), 900);
    nodes.kills(1);
    let seen = nodes.seen(&mut bob).await;
    let wanted: Vec<String> = (0..900).filter(|i| *i != 300).map(|i| format!("c{i:04}")).collect();
    let wanted: Vec<(&str, &str)> = wanted.iter().map(|client| (&**client, "offline")).collect();
    assert_eq!(presences(&seen), wanted);
    drop(many);
    nodes.houses.remove(1);
    nodes.emptied([bob, here]);
}

/// Those who were there before anybody was here did not come.
#[tokio::test(start_paused = true)]
async fn a_crowd_on_another_node_is_a_crowd_here() {
    let nodes = Nodes::new(2, &rules_with(|rules| rules.max_members = 10_000));
    let many = |from: usize, to: usize| {
        let tab = |i| {
            let tab = nodes.houses[1].tab_with_member_only(i % 2, &format!("c{i:04}"));
            tab.join("room", "join");
            tab
        };
        let tabs: Vec<Tab> = (from..to).map(tab).collect();
        nodes.settle();
        tabs
    };
    let mut tabs = many(0, 1200);
    let mut bob = nodes.member(0, "bob");
    nodes.time_passes(Duration::from_secs(1)).await;
    let seen = nodes.seen(&mut bob).await;
    let payload = &seen.last().unwrap()["payload"];
    assert_eq!(answer(&seen, "join")["count"], 1201);
    assert_eq!((&payload["joined"], &payload["left"], &payload["count"]), (&json!(1), &json!(0), &json!(1201)));
    tabs.extend(many(1200, 1210));
    tabs.drain(..3).for_each(|mut tab| tab.lose());
    nodes.settle();
    nodes.time_passes(Duration::from_secs(1)).await;
    let seen = nodes.seen(&mut bob).await;
    let payload = &seen[0]["payload"];
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((&payload["joined"], &payload["left"], &payload["count"]), (&json!(10), &json!(3), &json!(1208)));
    nodes.emptied(tabs.into_iter().chain([bob]));
}

#[tokio::test(start_paused = true)]
async fn a_client_leaves_one_node_and_recovers_on_another() {
    let nodes = Nodes::new(2, &rules());
    let (mut bob, mut alice) = (nodes.member(0, "bob"), nodes.member(1, "alice"));
    let at = answer(&nodes.seen(&mut alice).await, "join")["position"].clone();
    alice.lose();
    for text in ["one", "two"] {
        bob.publish("room", text);
    }
    nodes.seen(&mut bob).await;
    let mut alice = nodes.houses[0].tab_with_member_only(1, "alice");
    alice.request("join_room", "join", json!({"room_id": "room", "since": at}));
    let seen = nodes.seen(&mut alice).await;
    assert_eq!(types(&seen), ["room_joined", "chat_message", "chat_message"]);
    assert_eq!(seen[0]["payload"]["recovered"], true);
    bob.publish("room", "one");
    assert_eq!(answer(&nodes.seen(&mut bob).await, "one")["duplicate"], true);
    nodes.emptied([bob, alice]);
}

#[tokio::test(start_paused = true)]
async fn who_is_in_a_room_that_is_lost_must_come_again_on_every_node() {
    let nodes = Nodes::new(2, &rules());
    let (mut bob, mut alice, mut dave) = (nodes.member(0, "bob"), nodes.member(1, "alice"), nodes.member(1, "dave"));
    bob.publish("room", "before");
    bob.request("read_receipt", "r", json!({"room_id": "room", "offset": 1}));
    let at = answer(&nodes.seen(&mut bob).await, "before")["position"].clone();
    for tab in [&mut alice, &mut dave] {
        nodes.seen(tab).await;
    }
    nodes.cluster.lose(&key("room"));
    for tab in [&mut bob, &mut alice, &mut dave] {
        let seen = nodes.seen(tab).await;
        let left: Vec<&Value> = seen.iter().filter(|m| m["type"] == "room_left").collect();
        assert_eq!(left.len(), 1, "{seen:?}");
        assert_eq!((&left[0]["payload"]["code"], &left[0]["payload"]["retryable"]), (&json!(4010), &json!(true)));
    }
    assert_eq!(nodes.cluster.rooms(), []);
    alice.publish("room", "not there");
    assert_eq!(answer(&nodes.seen(&mut alice).await, "not there")["code"], 4007);
    for tab in [&mut bob, &mut alice] {
        tab.request("join_room", "again", json!({"room_id": "room", "since": at}));
        let seen = nodes.seen(tab).await;
        let joined = answer(&seen, "again");
        assert_eq!((&joined["recovered"], &joined["position"]["offset"]), (&json!(false), &json!(0)));
        assert_ne!(joined["position"]["epoch"], at["epoch"]);
    }
    alice.publish("room", "after");
    nodes.seen(&mut alice).await;
    bob.request("read_receipt", "r", json!({"room_id": "room", "offset": 1}));
    assert_eq!(types(&nodes.seen(&mut alice).await), ["read_receipt"]);
    nodes.emptied([bob, alice, dave]);
}

/// What waits there is of the old count.
#[tokio::test(start_paused = true)]
async fn what_waits_in_a_conflated_room_that_is_lost_is_lost() {
    let nodes = Nodes::new(2, &rules_with(|rules| rules.latest_only = Some(Duration::from_secs(10))));
    let (mut bob, alice) = (nodes.member(0, "bob"), nodes.member(1, "alice"));
    for text in ["sent", "waits"] {
        alice.publish("room", text);
    }
    nodes.seen(&mut bob).await;
    nodes.cluster.lose(&key("room"));
    bob.join("room", "again");
    nodes.settle();
    bob.join("room", "again");
    nodes.seen(&mut bob).await;
    nodes.time_passes(Duration::from_secs(10)).await;
    nodes.nothing(&mut bob).await;
    nodes.emptied([bob, alice]);
}

#[tokio::test(start_paused = true)]
async fn messages_to_everyone_that_are_lost_close_nobody() {
    let nodes = Nodes::new(2, &rules());
    let (mut bob, mut alice) = (nodes.member(0, "bob"), nodes.member(1, "alice"));
    let to_all = |tab: &Tab, id: &str| tab.request("message", id, json!({"message": id}));
    to_all(&bob, "one");
    to_all(&alice, "two");
    nodes.seen(&mut bob).await;
    assert_eq!(types(&nodes.seen(&mut alice).await).len(), 4);
    let everyone = RoomKey::everyone(Namespace { index: 0 });
    nodes.cluster.lose(&everyone);
    nodes.nothing(&mut bob).await;
    to_all(&bob, "three");
    assert_eq!(types(&nodes.seen(&mut bob).await), ["message_sent", "chat_message"]);
    assert_eq!(types(&nodes.seen(&mut alice).await), ["chat_message"]);
    assert!(bob.seat.handle.take_order().is_none());
}
