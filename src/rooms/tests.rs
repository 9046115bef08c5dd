//! The rooms over pipes: several shards in one thread, and every broker through the same tests.
#![allow(clippy::unwrap_used)]
mod delayed;
mod desks;
mod joining;
mod losing;
mod nodes;
mod order;
mod simulation;
mod twin;

use super::broker::{Broker, memory::Memory, redis::tests::over_redis};
use super::mail::RoomKey;
use super::*;
use crate::cluster::link::tests::server::{DEADLINE, Server, has_redis};
use crate::config::{FromUpstream, Limits, OnExcess};
use crate::identity::{Claims, Identity};
use crate::metrics::Metrics;
use crate::outbox::wire::Wire;
use crate::shard::{Seat, Shard};
use delayed::Delayed;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

/// What a test that goes wrong waits, on a clock that is paused.
const LONG: Duration = Duration::from_secs(3600);
/// What a pipe holds that is not read.
const PIPE_BYTES: usize = 1 << 20;

type MakeBroker = fn() -> Box<dyn Broker>;

/// Every broker there is, and one that answers as late as one on another machine.
const BROKERS: [(&str, MakeBroker); 3] = [
    ("memory", memory),
    ("delayed", || Box::new(Delayed::over(Memory::default()))),
    ("twin", || Box::new(twin::Cluster::new(Memory::default()).twin(crate::cluster::NodeId(1)))),
];

fn memory() -> Box<dyn Broker> {
    Box::new(Memory::default())
}

thread_local! {
    /// The route that every session came by.
    static ROUTE: Arc<config::Route> = {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/ws\"\nservice = \"rooms\"\n\
                    auth = { required = false, sources = [] }\n";
        let config = config::file::parse(text, "gateway.toml", &|_| None, 1).unwrap_or_else(|faults| panic!("{faults}"));
        config.routes[0].clone()
    };
}

fn limits() -> Limits {
    Limits {
        max_message_size: 65_536,
        messages_per_second: None,
        message_burst: 1,
        bytes_per_second: None,
        on_excess: OnExcess::Close,
        connections_per_client: None,
        idle_timeout: None,
        ping_interval: None,
        pong_timeout: None,
        max_backlog: 1 << 20,
        from_upstream: FromUpstream::UNLIMITED,
        max_inflated_size: u64::MAX,
        compression: false,
    }
}

fn rules() -> config::Rooms {
    rules_with(|rules| rules.max_members = 100)
}

/// Rules in which something is changed.
fn rules_with(change: impl FnOnce(&mut config::Rules)) -> config::Rooms {
    let mut rules = config::Rules::default();
    change(&mut rules);
    config::Rooms { rules: Arc::new(rules), max_rooms: 100, broadcast_to_all: true, ..config::Rooms::default() }
}

fn key(room: &str) -> RoomKey {
    RoomKey { namespace: Namespace { index: 0 }, name: room.into() }
}

/// Runs a test with every broker: with that over Redis in real time.
async fn with_every_broker(rules: config::Rooms, test: impl AsyncFn(&House)) {
    for (name, broker) in BROKERS {
        eprintln!("with the broker {name}");
        with_house(&House::new(3, rules.clone(), broker), LONG, &test).await;
    }
    if has_redis() {
        eprintln!("with the broker redis");
        tokio::time::resume();
        let server = Server::start(&[]).await;
        let brokers = RefCell::new(Vec::new());
        for _ in 0..3 {
            let broker = over_redis(&server).await;
            brokers.borrow_mut().push(broker);
        }
        let house = House::new(3, rules, || Box::new(brokers.borrow_mut().pop().unwrap()));
        with_house(&house, DEADLINE, &test).await;
    }
}

async fn with_house(house: &House, most: Duration, test: &impl AsyncFn(&House)) {
    LocalSet::new()
        .run_until(async {
            let running = house.run();
            timeout(most, test(house)).await.expect("something was awaited that does not come");
            for task in running {
                assert!(!task.is_finished(), "a loop has ended");
                task.abort();
            }
        })
        .await;
}

/// All shards of a process.
struct House {
    shards: Vec<Rc<Rooms>>,
    inboxes: RefCell<Vec<Inbox>>,
    metrics: Arc<Metrics>,
    /// The claims of those who come from now on.
    claims: RefCell<Arc<Claims>>,
    counts: RefCell<std::collections::HashMap<String, crate::limits::ClientRooms>>,
}

impl House {
    fn new(shards: usize, rules: config::Rooms, broker: impl Fn() -> Box<dyn Broker>) -> House {
        House::of(shards, Parts::alone(rules), None, broker)
    }

    /// `hasher`: says where rooms are at home.
    fn of(shards: usize, parts: Parts, hasher: Option<RandomState>, broker: impl Fn() -> Box<dyn Broker>) -> House {
        let (mut shared, inboxes) = Shared::new(shards, parts);
        shared.hasher = hasher.unwrap_or(shared.hasher);
        let metrics = Metrics::new(shards);
        let shard = |i| Rooms::with_broker(shared.clone(), Shard::new(i, metrics.clone()), broker());
        House {
            shards: (0..shards).map(shard).collect(),
            inboxes: RefCell::new(inboxes),
            metrics,
            claims: RefCell::default(),
            counts: RefCell::default(),
        }
    }

    fn run(&self) -> Vec<JoinHandle<()>> {
        let inboxes = std::mem::take(&mut *self.inboxes.borrow_mut());
        let mut running = Vec::new();
        for (rooms, inbox) in self.shards.iter().zip(inboxes) {
            running.push(spawn_local(rooms.shard.clone().run_fanout()));
            running.push(spawn_local(rooms.clone().run(inbox)));
        }
        running
    }

    /// A session of this client, past its greeting.
    async fn tab(&self, shard: usize, client: &str) -> Tab {
        self.tab_with(shard, client, &limits(), PIPE_BYTES).await
    }

    async fn tab_with(&self, shard: usize, client: &str, limits: &Limits, pipe_bytes: usize) -> Tab {
        let (pipe, wire) = duplex(pipe_bytes);
        let rooms = &self.shards[shard];
        let seat = rooms.shard.seat(Wire::Pipe(wire));
        let enter = self.enter(&seat, client, limits);
        let member = Member::enter(rooms, &seat.handle, enter, None);
        let mut tab = Tab { member: Some(member), seat, pipe };
        assert_eq!(tab.next().await["type"], "connection_established");
        tab
    }

    /// What a session becomes a member with. A client's sessions share the count of its rooms.
    fn enter<'l>(&self, seat: &Seat, client: &str, limits: &'l Limits) -> Enter<'l> {
        let identity = Identity { client: client.into(), expires_at: Some(1), claims: self.claims.borrow().clone() };
        ROUTE.with(|route| seat.name(route, &identity.client));
        let mut counts = self.counts.borrow_mut();
        let rooms = counts.entry(client.into()).or_insert_with(|| crate::limits::ClientPermit::alone().rooms()).clone();
        Enter { identity, namespace: Namespace { index: 0 }, limits, deflate: false, rooms }
    }

    fn desk(&self) -> desk::Desk {
        desk::Desk::new(self.shards[0].shared.clone())
    }

    /// A room whose home is this shard.
    fn room_at(&self, home: usize) -> String {
        let names = (0..).map(|i| format!("room-{i}"));
        names.into_iter().find(|name| self.shards[0].shared.home_of(&key(name)) == home).unwrap()
    }

    /// Rooms and memberships, as the metrics have them.
    fn gauges(&self) -> (u64, u64) {
        let text = self.metrics.encode();
        let gauge = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().parse().unwrap();
        (gauge("wsgate_rooms "), gauge("wsgate_room_members "))
    }

    /// Returns when no shard holds a room, a member's place or a publish any more.
    async fn emptied(&self) {
        let empty = |rooms: &Rc<Rooms>| rooms.home.borrow().is_empty() && rooms.local.borrow().is_empty();
        let all = async {
            while !self.shards.iter().all(empty) {
                tokio::task::yield_now().await;
            }
        };
        all.await;
        assert_eq!(self.gauges(), (0, 0));
        assert_eq!(self.shards[0].shared.rooms.now(), 0);
    }
}

/// A session, and the other end of its socket.
struct Tab {
    member: Option<Member>,
    seat: Seat,
    pipe: DuplexStream,
}

impl Tab {
    fn text(&self, text: &str) {
        let asked = self.member.as_ref().unwrap().on_text(text);
        assert!(matches!(asked, Ok(None)), "{asked:?}");
    }

    /// Sends a request, which answers name by `id`.
    fn request(&self, kind: &str, id: &str, payload: Value) {
        self.text(&json!({"type": kind, "payload": payload, "metadata": {"message_id": id}}).to_string());
    }

    fn join(&self, room: &str, id: &str) {
        self.request("join_room", id, json!({"room_id": room}));
    }

    fn leave(&self, room: &str, id: &str) {
        self.request("leave_room", id, json!({"room_id": room}));
    }

    fn publish(&self, room: &str, id: &str) {
        self.request("message", id, json!({"room_id": room, "message": id}));
    }

    /// The next message.
    async fn next(&mut self) -> Value {
        let head = [self.pipe.read_u8().await.unwrap(), self.pipe.read_u8().await.unwrap()];
        assert_eq!(head[0], 0x81, "text was expected");
        let length = match head[1] {
            126 => usize::from(self.pipe.read_u16().await.unwrap()),
            127 => self.pipe.read_u64().await.unwrap() as usize,
            short => usize::from(short),
        };
        let mut text = vec![0; length];
        self.pipe.read_exact(&mut text).await.unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The next message, which must be of this type.
    async fn expect(&mut self, kind: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// The answer to the request of this name; what comes before it is returned too.
    async fn answer(&mut self, id: &str) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let message = self.next().await;
            if message["metadata"]["correlation_id"] == id {
                return (message, before);
            }
            before.push(message);
        }
    }

    /// Joins and waits for the answer.
    async fn joined(&mut self, room: &str) -> Value {
        self.join(room, "join");
        let (answer, _) = self.answer("join").await;
        assert_eq!(answer["type"], "room_joined", "{answer}");
        answer["payload"].clone()
    }

    /// Publishes a mark and gives everything that comes before it.
    async fn until_mark(&mut self, room: &str) -> Vec<Value> {
        self.publish(room, "mark");
        let mut before = Vec::new();
        loop {
            let message = self.next().await;
            if message["type"] == "chat_message" && message["payload"]["message"] == "mark" {
                before.retain(|m: &Value| m["metadata"]["correlation_id"] != "mark");
                return before;
            }
            before.push(message);
        }
    }

    /// The session is gone, as by a lost connection.
    fn lose(&mut self) {
        self.member = None;
    }
}
