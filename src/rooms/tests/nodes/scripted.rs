//! What a home does with what it is told, by a broker that says what it is told to say.
use super::*;
use crate::config::Rules;
use crate::rooms::broker::{Batch, Event, Held, Message, Publication, Telling};
use crate::rooms::statuses::Said;
use jiff::Timestamp;
use std::collections::VecDeque;

/// What was asked of the broker.
#[derive(Debug, PartialEq)]
enum Called {
    Read {
        ticket: u64,
        after: u64,
    },
    /// How many sessions.
    Holds(Arc<str>, Option<u32>),
    Tell(Telling),
}

#[derive(Clone, Default)]
struct Scripted(Rc<RefCell<(VecDeque<Event>, Vec<Called>)>>);

impl Broker for Scripted {
    fn open(&mut self, _: &RoomKey, _: &Arc<Rules>) {}

    fn shut(&mut self, _: &RoomKey) {}

    fn publish(&mut self, _: u64, _: &RoomKey, _: Publication) {}

    fn read(&mut self, ticket: u64, _: &RoomKey, after: u64, _: Batch) {
        self.0.borrow_mut().1.push(Called::Read { ticket, after });
    }

    fn holds(&mut self, _: &RoomKey, client: &Arc<str>, held: Option<Held>) {
        self.0.borrow_mut().1.push(Called::Holds(client.clone(), held.map(|held| held.sessions)));
    }

    fn tell(&mut self, _: &RoomKey, telling: Telling) {
        self.0.borrow_mut().1.push(Called::Tell(telling));
    }

    fn poll_timers(&mut self, _: &mut Context<'_>) {}

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        self.0.borrow_mut().0.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One node; the broker is that of its last shard.
struct Stage {
    broker: Scripted,
    house: House,
}

impl Stage {
    fn new(shards: usize, rules: config::Rooms) -> Stage {
        let brokers: Vec<Scripted> = (0..shards).map(|_| Scripted::default()).collect();
        let made = Cell::new(0);
        let house = House::new(shards, rules, || Box::new(brokers[made.replace(made.get() + 1)].clone()));
        Stage { broker: brokers[shards - 1].clone(), house }
    }

    /// Members of "room", which is at 9 messages of the epoch "e". They have seen everything so far.
    async fn with<const N: usize>(&self, clients: [&str; N]) -> [Tab; N] {
        let tabs = clients.map(|client| self.house.tab_with_member_only(0, client));
        tabs.iter().for_each(|tab| tab.join("room", "join"));
        self.does([]);
        self.does([opened("e", 9)]);
        let mut tabs = tabs;
        for tab in &mut tabs {
            self.house.seen(tab).await;
        }
        self.calls();
        tabs
    }

    fn does(&self, events: impl IntoIterator<Item = Event>) {
        // What was asked before is asked before.
        while self.house.turn() > 0 {}
        self.broker.0.borrow_mut().0.extend(events);
        while self.house.turn() > 0 {}
    }

    fn calls(&self) -> Vec<Called> {
        self.does([]);
        std::mem::take(&mut self.broker.0.borrow_mut().1)
    }

    /// The one question that was asked since the last look.
    fn asked(&self) -> (u64, u64) {
        match self.calls()[..] {
            [Called::Read { ticket, after }] => (ticket, after),
            ref calls => panic!("{calls:?}"),
        }
    }

    async fn seen(&self, tab: &mut Tab) -> Vec<Value> {
        self.does([]);
        self.house.seen(tab).await
    }
}

fn at(epoch: &str, offset: u64) -> Position {
    Position { epoch: epoch.into(), offset }
}

fn opened(epoch: &str, offset: u64) -> Event {
    Event::Opened { room: key("room"), position: at(epoch, offset) }
}

fn lost(epoch: &str, offset: u64) -> Event {
    Event::Lost { room: key("room"), position: at(epoch, offset) }
}

fn message(offset: u64) -> Message {
    let message = serde_json::value::RawValue::from_string(offset.to_string()).unwrap();
    let publication = Publication { sender: None, message_id: "m".into(), named: false, message };
    Message::new("room", at("e", offset), Timestamp::now(), &publication)
}

fn delivered(offset: u64) -> Event {
    Event::Delivered { room: key("room"), message: message(offset) }
}

fn read(ticket: u64, messages: Option<Vec<Message>>) -> Event {
    Event::Read { ticket, messages, oldest: Some(1) }
}

fn told(telling: Telling) -> Event {
    Event::Told { room: key("room"), telling }
}

fn held(sessions: u32) -> Option<Held> {
    Some(Held { sessions, since: Timestamp::now(), said: None })
}

fn holds(client: &str, sessions: Option<u32>) -> Called {
    Called::Holds(client.into(), sessions)
}

fn others(clients: &[(u64, &str, Option<Held>)], whole: bool) -> Event {
    let clients = clients.iter().map(|(node, client, held)| (NodeId(*node), Arc::from(*client), held.clone()));
    Event::Others { room: key("room"), clients: clients.collect(), whole }
}

fn since(offset: u64) -> Value {
    json!({"room_id": "room", "since": {"epoch": "e", "offset": offset}})
}

#[tokio::test(start_paused = true)]
async fn what_is_held_here_is_told_whenever_it_changes() {
    let stage = Stage::new(1, rules());
    let [mut one, mut two] = stage.with(["alice", "bob"]).await;
    assert!(stage.calls().is_empty());
    let again = stage.house.tab_with_member_only(0, "alice");
    again.join("room", "join");
    assert_eq!(stage.calls(), [holds("alice", Some(2))]);
    // Which it is already.
    again.join("room", "once more");
    assert_eq!(stage.calls(), []);
    again.request("presence_update", "say", json!({"status": "away"}));
    assert_eq!(stage.calls(), [holds("alice", Some(2))]);
    again.request("message", "all", json!({"message": "to all"}));
    assert_eq!(stage.calls(), []);
    again.leave("room", "leave");
    assert_eq!(stage.calls(), [holds("alice", Some(1))]);
    two.lose();
    assert_eq!(stage.calls(), [holds("bob", None)]);
    let desk = stage.house.desk();
    let mut kick = std::pin::pin!(desk.kick(Namespace { index: 0 }, "room", "alice", crate::close::Code::Banned));
    assert!(kick.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
    assert_eq!(stage.calls(), [holds("alice", None)]);
    one.lose();
    assert_eq!(stage.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn others_are_told_only_where_there_are_some() {
    let stage = Stage::new(1, rules());
    let [bob, mut carol] = stage.with(["bob", "carol"]).await;
    let act = || {
        bob.request("typing_start", "t", json!({"room_id": "room"}));
        bob.request("typing_stop", "t", json!({"room_id": "room"}));
        bob.request("read_receipt", "r", json!({"room_id": "room", "offset": stage.house.gauges().0}));
    };
    act();
    assert_eq!(stage.calls(), []);
    tokio::time::advance(LONG).await;
    stage.does([others(&[(1, "alice", held(1))], false)]);
    stage.seen(&mut carol).await;
    let typing = |client: &str, start| Telling::Typing { client: client.into(), start };
    bob.request("typing_start", "t", json!({"room_id": "room"}));
    bob.request("read_receipt", "r", json!({"room_id": "room", "offset": 2}));
    let receipt = |client: &str, offset| Telling::Receipt { client: client.into(), offset };
    assert_eq!(stage.calls(), [Called::Tell(typing("bob", true)), Called::Tell(receipt("bob", 2))]);
    // What others tell is told to those who are here, and no further.
    stage.does([told(typing("alice", true)), told(typing("alice", true)), told(receipt("alice", 3))]);
    tokio::time::advance(LONG).await;
    assert_eq!(stage.calls(), [Called::Tell(typing("bob", false))]);
    let seen = stage.seen(&mut carol).await;
    let all = ["typing_start", "read_receipt", "typing_start", "read_receipt", "typing_stop", "typing_stop"];
    assert_eq!(types(&seen), all, "{seen:?}");
}

/// What Redis sends need not make sense.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_not_told() {
    let stage = Stage::new(1, rules());
    let [mut bob] = stage.with(["bob"]).await;
    let nobody = Telling::Typing { client: "nobody".into(), start: true };
    let beyond = Telling::Receipt { client: "alice".into(), offset: 10 };
    stage.does([
        others(&[(1, "alice", None), (2, "alice", held(1)), (2, "alice", held(u32::MAX))], false),
        told(nobody),
        told(beyond),
        Event::Gone { node: NodeId(7) },
        Event::Unread { ticket: 99 },
        Event::Lost { room: key("another"), position: at("e", 1) },
        Event::Others { room: key("another"), clients: Vec::new(), whole: true },
    ]);
    assert_eq!(presences(&stage.seen(&mut bob).await), [("alice", "online")]);
    stage.does([told(Telling::Receipt { client: "alice".into(), offset: 9 })]);
    assert_eq!(types(&stage.seen(&mut bob).await), ["read_receipt"]);
}

#[tokio::test(start_paused = true)]
async fn a_whole_list_tells_what_is_different_from_before() {
    let stage = Stage::new(1, rules_with(|rules| rules.max_members = 10_000));
    let [mut bob] = stage.with(["bob"]).await;
    let names: Vec<String> = (0..600).map(|i| format!("c{i:03}")).collect();
    let list = |names: &[String], node| names.iter().map(|n| (NodeId(node), Arc::from(&**n), held(1))).collect();
    let whole = |clients| Event::Others { room: key("room"), clients, whole: true };
    stage.does([whole(list(&names[..500], 1))]);
    assert_eq!(presences(&stage.seen(&mut bob).await).len(), 500);
    // All that are left have moved to another node, some are new, and the last come first.
    let mut moved: Vec<_> = list(&names[100..], 2);
    moved.reverse();
    moved.push((NodeId(2), "bob".into(), held(1)));
    stage.does([whole(moved)]);
    let seen = stage.seen(&mut bob).await;
    let (came, went): (Vec<_>, Vec<_>) = presences(&seen).into_iter().partition(|(_, status)| *status == "online");
    assert_eq!(came.iter().map(|(c, _)| *c).collect::<Vec<_>>(), names[500..].iter().map(|n| &**n).collect::<Vec<_>>());
    assert_eq!(went.iter().map(|(c, _)| *c).collect::<Vec<_>>(), names[..100].iter().map(|n| &**n).collect::<Vec<_>>());
    stage.does([Event::Gone { node: NodeId(1) }]);
    assert!(stage.seen(&mut bob).await.is_empty());
    stage.does([whole(Vec::new())]);
    assert_eq!(presences(&stage.seen(&mut bob).await).len(), 500);
    assert_eq!(stage.calls(), []);
}

/// So is one that comes before the room is open, with one who is invisible.
#[tokio::test(start_paused = true)]
async fn who_is_elsewhere_counts_from_the_beginning() {
    let stage = Stage::new(1, rules_with(|rules| rules.max_members = 3));
    let mut bob = stage.house.tab_with_member_only(0, "bob");
    bob.join("room", "join");
    let status = crate::rooms::protocol::Status::Invisible;
    let said = Some(Arc::new(Said { version: 1, since: Timestamp::now(), status }));
    let hidden = held(4).map(|held| Held { said, ..held });
    stage.does([others(&[(1, "alice", held(1)), (2, "hidden", hidden)], true), opened("e", 9)]);
    let seen = stage.seen(&mut bob).await;
    assert_eq!((types(&seen), &seen[0]["payload"]["count"]), (vec!["room_joined"], &json!(2)));
    let carol = &mut stage.house.tab_with_member_only(0, "carol");
    carol.join("room", "join");
    assert_eq!(answer(&stage.seen(carol).await, "join")["code"], 4008);
    bob.lose();
    assert_eq!(stage.calls(), [holds("bob", Some(1)), holds("bob", None)]);
    assert!(stage.house.shards[0].home.borrow().is_empty(), "the room is used by nobody here");
}

#[tokio::test(start_paused = true)]
async fn a_join_about_which_nothing_can_be_said_may_be_tried_again() {
    let stage = Stage::new(1, rules());
    let [_bob] = stage.with(["bob"]).await;
    let mut alice = stage.house.tab_with_member_only(0, "alice");
    alice.request("join_room", "first", since(5));
    alice.publish("room", "too early");
    alice.request("join_room", "second", since(6));
    let (ticket, after) = stage.asked();
    assert_eq!(after, 5);
    stage.does([Event::Unread { ticket }]);
    let (ticket, after) = stage.asked();
    assert_eq!(after, 6);
    stage.does([read(ticket, Some(Vec::new()))]);
    let seen = stage.seen(&mut alice).await;
    let first = answer(&seen, "first");
    assert_eq!((&first["code"], &first["retryable"]), (&json!(4000), &json!(true)));
    assert_eq!(answer(&seen, "too early")["code"], 4007);
    assert_eq!(answer(&seen, "second")["recovered"], true);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_be_fed_loses_its_place() {
    let stage = Stage::new(1, rules());
    let [mut bob] = stage.with(["bob"]).await;
    let mut alice = stage.house.tab_with_member_only(0, "alice");
    alice.request("join_room", "join", since(5));
    stage.does([read(stage.asked().0, Some(Vec::new()))]);
    let Called::Read { ticket, .. } = stage.calls()[1] else { panic!() };
    stage.does([read(ticket, Some(vec![message(6), message(7)]))]);
    let (ticket, after) = stage.asked();
    assert_eq!(after, 7);
    stage.does([Event::Unread { ticket }]);
    let seen = stage.seen(&mut alice).await;
    assert_eq!(types(&seen), ["room_joined", "chat_message", "chat_message", "room_left"]);
    assert_eq!(seen[3]["payload"]["code"], 4010);
    assert_eq!(stage.calls(), [holds("alice", None)]);
    assert_eq!(presences(&stage.seen(&mut bob).await), [("alice", "online"), ("alice", "offline")]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_catch_up_loses_its_place() {
    let stage = Stage::new(2, rules());
    let room = stage.house.room_at(1);
    let mut alice = stage.house.tab_with_member_only(0, "alice");
    let event = |event: fn(RoomKey) -> Event| stage.does([event(key(&room))]);
    alice.join(&room, "join");
    event(|room| Event::Opened { room, position: at("e", 9) });
    stage.seen(&mut alice).await;
    stage.calls();
    stage.house.fill(0);
    event(|room| Event::Delivered { room, message: message(10) });
    stage.house.empty(0);
    stage.does([Event::Unread { ticket: stage.asked().0 }]);
    let seen = stage.seen(&mut alice).await;
    assert_eq!((types(&seen), &seen[0]["payload"]["code"]), (vec!["room_left"], &json!(4010)));
    assert_eq!(stage.calls(), [holds("alice", None)]);
}

#[tokio::test(start_paused = true)]
async fn a_history_that_cannot_be_read_is_refused() {
    let stage = Stage::new(1, rules());
    let desk = stage.house.desk();
    let mut history = std::pin::pin!(desk.history(Namespace { index: 0 }, "room", None, 5));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(history.as_mut().poll(&mut cx).is_pending());
    stage.does([opened("e", 9)]);
    stage.does([Event::Unread { ticket: stage.asked().0 }]);
    let Poll::Ready(Err(refusal)) = history.as_mut().poll(&mut cx) else { panic!() };
    assert_eq!(refusal.code, crate::close::Code::Unknown);
    assert!(stage.house.shards[0].home.borrow().is_empty(), "the room is used by nobody here");
}

/// The question was whether what was missed is kept, and it is; but the count is another by now.
#[tokio::test(start_paused = true)]
async fn a_join_that_waits_is_judged_by_the_place_of_now() {
    for (epoch, recovered) in [("f", false), ("e", true)] {
        let stage = Stage::new(1, rules());
        let [] = stage.with([]).await;
        let mut alice = stage.house.tab_with_member_only(0, "alice");
        alice.request("join_room", "join", since(5));
        stage.does([opened("e", 9)]);
        let ticket = stage.asked().0;
        stage.does([lost(epoch, 12), read(ticket, Some(Vec::new()))]);
        let seen = stage.seen(&mut alice).await;
        let joined = answer(&seen, "join");
        assert_eq!((&joined["recovered"], &joined["position"]["offset"]), (&json!(recovered), &json!(12)));
        assert_eq!(joined["position"]["epoch"], epoch);
    }
}

/// Those who recover, those whose shard is behind, and those that were being told of a loss already.
#[tokio::test(start_paused = true)]
async fn all_members_lose_their_place_once() {
    let stage = Stage::new(1, rules());
    let [mut bob] = stage.with(["bob"]).await;
    let mut alice = stage.house.tab_with_member_only(0, "alice");
    alice.request("join_room", "join", since(5));
    stage.does([read(stage.asked().0, Some(Vec::new()))]);
    let Called::Read { ticket, .. } = stage.calls()[1] else { panic!() };
    stage.does([delivered(10)]);
    stage.house.fill(0);
    stage.does([delivered(11), lost("f", 3), lost("f", 4), read(ticket, Some(vec![message(6)]))]);
    stage.house.empty(0);
    for (tab, before) in [(&mut bob, 2), (&mut alice, 1)] {
        let seen = stage.seen(tab).await;
        assert_eq!(types(&seen)[before..], ["room_left"], "{seen:?}");
        assert!(tab.member.as_ref().unwrap().waits_for().is_none());
    }
    let calls = stage.calls();
    assert!(calls.contains(&holds("bob", None)) && calls.contains(&holds("alice", None)), "{calls:?}");
    assert!(stage.house.shards[0].home.borrow().is_empty());
}

/// Receipts count on where only messages were lost.
#[tokio::test(start_paused = true)]
async fn receipts_of_another_epoch_begin_anew() {
    for (epoch, told) in [("e", 0), ("f", 1)] {
        let stage = Stage::new(1, rules());
        let [mut bob, mut carol] = stage.with(["bob", "carol"]).await;
        let read = |tab: &Tab, offset| tab.request("read_receipt", "r", json!({"room_id": "room", "offset": offset}));
        read(&bob, 9);
        stage.seen(&mut carol).await;
        // A server's question keeps the room from being shut meanwhile.
        let desk = stage.house.desk();
        let mut history = std::pin::pin!(desk.history(Namespace { index: 0 }, "room", None, 5));
        assert!(history.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        stage.does([lost(epoch, 9)]);
        bob.join("room", "again");
        carol.join("room", "again");
        stage.seen(&mut bob).await;
        stage.seen(&mut carol).await;
        read(&bob, 5);
        assert_eq!(stage.seen(&mut carol).await.len(), told, "{epoch}");
    }
}
