//! A rolling restart: the clients of a node that drains go on at another one, while all of them are talking.
use crate::support::nodes::node_file;
use crate::support::token::good;
use crate::support::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{interval, sleep};
use tokio_tungstenite::tungstenite::Message;

/// Members of each room.
const MEMBERS: usize = 10;

/// How many clients there are: 300, or as many as `WSGATE_ROLLING_CLIENTS` says, up to 5,000.
fn clients() -> usize {
    let asked = std::env::var("WSGATE_ROLLING_CLIENTS").map(|text| text.parse().expect("a number of clients"));
    asked.unwrap_or(300).clamp(MEMBERS, 5000) / MEMBERS * MEMBERS
}

/// Between two messages of a client: all of them send 600 a second.
fn pace() -> Duration {
    Duration::from_secs(clients() as u64) / 600
}

/// A client that goes where it is told, with what it has seen of its room.
struct Roamer {
    name: String,
    room: String,
    client: Client,
    /// Where it has joined, and then the place of the last message.
    place: Option<(String, u64)>,
    /// The session is a member.
    joined: bool,
    seen: BTreeMap<u64, String>,
    acknowledged: BTreeMap<u64, String>,
    sent: usize,
    /// A message without an answer.
    waits: Option<String>,
    retry_after: Option<Duration>,
    moves: usize,
}

impl Roamer {
    async fn arrive(name: String, room: String, node: &str) -> Roamer {
        let client = open(node, &name).await;
        let mut roamer = Roamer {
            name,
            room,
            client,
            place: None,
            joined: false,
            seen: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            sent: 0,
            waits: None,
            retry_after: None,
            moves: 0,
        };
        roamer.join().await;
        roamer
    }

    async fn join(&mut self) {
        let since = self.place.as_ref().map(|(epoch, offset)| json!({"epoch": epoch, "offset": offset}));
        let payload = json!({"room_id": self.room, "since": since});
        let join = json!({"type": "join_room", "payload": payload, "metadata": {"message_id": "join"}});
        self.joined = false;
        self.client.try_send(Message::text(join.to_string())).await;
    }

    async fn publish(&mut self, name: String) {
        let payload = json!({"room_id": self.room, "message": name});
        let message = json!({"type": "message", "payload": payload, "metadata": {"message_id": name}});
        self.waits = Some(name);
        // A socket that is closed meanwhile says so when it is read.
        self.client.try_send(Message::text(message.to_string())).await;
    }

    /// Talks, and moves on, until all members of its room have said their last word and it has heard them.
    async fn talk(mut self, other: String, talking: Arc<AtomicUsize>, finish: watch::Receiver<bool>) -> Roamer {
        let mut turn = interval(pace());
        let mut ended = false;
        loop {
            tokio::select! {
                message = self.client.next() => match message {
                    Some(Message::Text(text)) => self.hear(&serde_json::from_str(&text).unwrap(), &talking).await,
                    Some(Message::Close(frame)) => assert_eq!(u16::from(frame.unwrap().code), 1012),
                    Some(message) => panic!("{message:?}"),
                    None => {
                        sleep(self.retry_after.take().expect("a disconnect before the end")).await;
                        self.client = open(&other, &self.name).await;
                        self.moves += 1;
                        self.join().await;
                    }
                },
                _ = turn.tick(), if self.joined && self.waits.is_none() && !ended => {
                    ended = *finish.borrow();
                    let word = if ended { "end".to_owned() } else { self.sent.to_string() };
                    self.sent += 1;
                    self.publish(format!("{}-{word}", self.name)).await;
                }
            }
            let ends = self.seen.values().rev().filter(|name| name.ends_with("-end")).count();
            if ended && self.waits.is_none() && ends == MEMBERS {
                return self;
            }
        }
    }

    async fn hear(&mut self, message: &Value, talking: &AtomicUsize) {
        let payload = &message["payload"];
        let place = |at: &Value| (at["epoch"].as_str().unwrap().to_owned(), at["offset"].as_u64().unwrap());
        match message["type"].as_str().unwrap() {
            "room_joined" => {
                match &self.place {
                    None => self.place = Some(place(&payload["position"])),
                    Some(_) => assert_eq!(payload["recovered"], true, "{message}"),
                }
                self.joined = true;
                if let Some(name) = self.waits.take() {
                    self.publish(name).await;
                }
            }
            "chat_message" => {
                let (epoch, offset) = self.place.as_mut().expect("a message before the room was joined");
                assert_eq!(place(&payload["position"]), (epoch.clone(), *offset + 1), "{}: {message}", self.name);
                *offset += 1;
                self.seen.insert(*offset, payload["message"].as_str().unwrap().to_owned());
            }
            "message_sent" => {
                let name = self.waits.take().expect("a message that waits");
                assert_eq!(message["metadata"]["correlation_id"], name, "{message}");
                if self.acknowledged.is_empty() {
                    talking.fetch_add(1, Relaxed);
                }
                self.acknowledged.insert(place(&payload["position"]).1, name);
            }
            "disconnect" => {
                assert_eq!((&payload["code"], &payload["reconnect"]), (&json!(1012), &json!(true)), "{message}");
                self.retry_after = Some(Duration::from_millis(payload["retry_after_ms"].as_u64().unwrap()));
            }
            "presence_update" => (),
            _ => panic!("{}: {message}", self.name),
        }
    }
}

async fn open(node: &str, name: &str) -> Client {
    let tcp = within(tokio::net::TcpStream::connect(node)).await.unwrap();
    let mut client = Client::open(tcp, "/ws", &[("Authorization", &format!("Bearer {}", good(name)))]).await;
    client.expect("connection_established").await;
    client
}

/// Every message that was acknowledged was seen by all members at that place, each once.
fn check(room: &[Roamer]) {
    let mut all = BTreeMap::new();
    for roamer in room {
        assert_eq!((roamer.moves, roamer.acknowledged.len()), (1, roamer.sent), "{}", roamer.name);
        for (offset, name) in &roamer.seen {
            assert_eq!(all.entry(*offset).or_insert(name), &name, "{}", roamer.name);
        }
    }
    let names: HashSet<_> = all.values().collect();
    assert_eq!(names.len(), all.len(), "a message was there twice");
    for roamer in room {
        for (offset, name) in &roamer.acknowledged {
            assert_eq!(all.get(offset), Some(&name), "{}", roamer.name);
        }
    }
    assert_eq!(all.len(), room.iter().map(|roamer| roamer.sent).sum::<usize>(), "a message that nobody sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_clients_move_on() {
    let Some(redis) = Redis::start().await else { return };
    let (clients, rooms) = (clients(), clients() / MEMBERS);
    let drain = format!("drain = \"{}s\"", (clients / 250).max(3));
    let file = |name| node_file(&[&redis.url()], name, "").replace("drain = \"100ms\"", &drain);
    let [mut old, new] = [Gateway::start(&file("old")).await, Gateway::start(&file("new")).await];
    let (talking, (finish, finishes)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let mut roamers = Vec::new();
    for n in 0..clients {
        let roamer = Roamer::arrive(format!("c{n}"), format!("room-{}", n % rooms), old.address(0)).await;
        roamers.push(tokio::spawn(roamer.talk(new.address(0).to_owned(), talking.clone(), finishes.clone())));
    }
    eventually(|| async { (talking.load(Relaxed) == clients).then_some(()) }).await;
    assert!(old.stop().await.success());
    finish.send_replace(true);
    let mut found: BTreeMap<String, Vec<Roamer>> = BTreeMap::new();
    for roamer in roamers {
        let roamer = within(roamer).await.unwrap();
        found.entry(roamer.room.clone()).or_default().push(roamer);
    }
    assert_eq!(found.len(), rooms);
    for (room, roamers) in &found {
        check(roamers);
        let mut names: Vec<&str> = roamers.iter().map(|roamer| &*roamer.name).collect();
        names.sort_unstable();
        let path = format!("/api/rooms/{room}");
        eventually(|| async {
            let view: Value = serde_json::from_str(&new.admin_get(&path).await.1).unwrap();
            let members = view["members"].as_array()?.iter().map(|member| member["client_id"].as_str().unwrap());
            members.eq(names.iter().copied()).then_some(())
        })
        .await;
    }
    let all = || found.values().flatten();
    let sent = all().map(|roamer| roamer.sent).sum::<usize>();
    println!("{clients} clients in {rooms} rooms moved on: {sent} messages acknowledged, none lost, none doubled");
}
