//! Nodes over one redis-server, in real time.
#![allow(clippy::unwrap_used)]
mod large;
mod messages;
mod moving;
mod outages;
mod presence;

use super::*;
use crate::cluster::link::tests::config;
use crate::cluster::link::tests::server::{DEADLINE, Server, has_redis};
use crate::cluster::{Live, NodeId, Reply};
use crate::config::{History, Namespace};
use crate::metrics::Metrics;
use crate::rooms::mail::Position;
use serde_json::value::RawValue;
use std::future::poll_fn;
use std::time::Duration;
use tokio::time::timeout;

const ALL: Batch = Batch { messages: 1000, bytes: usize::MAX };
/// How a Redis keeps everything over its end.
const LASTING: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
/// Names the answer that a test waits for.
const TICKET: u64 = 7;

/// A node's broker.
struct Node {
    broker: Redis,
    live: Arc<LiveNodes>,
    metrics: Arc<Metrics>,
    /// Events that came before an answer that was waited for.
    passed: VecDeque<Event>,
}

/// Two nodes that have a room open, over a Redis of their own.
struct Pair {
    /// Ended with this.
    server: Server,
    a: Node,
    b: Node,
    room: RoomKey,
    /// The place of the room's last message when it was opened.
    opened: Position,
}

impl Pair {
    /// `None` where there is no redis-server.
    async fn over(args: &[&str]) -> Option<Pair> {
        Self::with(args, &Arc::default()).await
    }

    async fn with(args: &[&str], rules: &Arc<Rules>) -> Option<Pair> {
        if !has_redis() {
            return None;
        }
        let server = Server::start(args).await;
        let (mut a, mut b, room) = (Node::start(&server, 1).await, Node::start(&server, 2).await, key("r"));
        let opened = a.open_with(&room, rules).await;
        assert_eq!(b.open_with(&room, rules).await, opened);
        Some(Pair { server, a, b, room, opened })
    }
}

/// The broker of a shard of a node, which reaches Redis.
pub(crate) async fn over_redis(server: &Server) -> Redis {
    Node::start(server, 1).await.broker
}

fn key(name: &str) -> RoomKey {
    RoomKey { namespace: Namespace { index: 0 }, name: name.into() }
}

fn rules_of(history: History) -> Arc<Rules> {
    Arc::new(Rules { history, ..Rules::default() })
}

fn publication(sender: &str, id: &str) -> Publication {
    let message = RawValue::from_string(format!("\"{id}\"")).unwrap();
    Publication { sender: Some(sender.into()), message_id: id.into(), named: true, message }
}

/// What a message says.
fn said(message: &Message) -> (u64, String) {
    let text: serde_json::Value = serde_json::from_slice(&message.text()).unwrap();
    (message.position.offset, text["payload"]["message"].as_str().unwrap().to_owned())
}

impl Node {
    /// A node of this number, which reaches Redis.
    async fn start(server: &Server, number: u64) -> Node {
        let mut node = Node::new(server, number);
        node.reached().await;
        node
    }

    fn new(server: &Server, number: u64) -> Node {
        let config = config(&[server]);
        let metrics = Metrics::new(1);
        let redis = crate::cluster::Redis::new(&config, metrics.clone()).unwrap();
        let live = LiveNodes::new(Live { own: NodeId(number), nodes: Vec::new() });
        let broker = Redis::new(Parts {
            link: Link::new(&redis, &SCRIPTS, Some(0)),
            live: live.clone(),
            standing: watch::Sender::new(Standing::Reached).subscribe(),
            prefix: config.prefix,
            namespaces: [Arc::from("default")].into(),
            duplicates: Duplicates { age: Duration::from_secs(60), per_client: 128 },
            message_bytes: 64 << 10,
            shard: Shard::new(0, metrics.clone()),
        });
        Node { broker, live, metrics, passed: VecDeque::new() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.broker.poll_timers(cx);
        let event = self.broker.poll_event(cx);
        self.broker.poll_timers(cx);
        event
    }

    async fn reached(&mut self) {
        let reached = poll_fn(|cx| {
            let event = self.poll(cx);
            assert!(event.is_pending(), "{event:?}");
            if self.broker.link.reaches(0) { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(DEADLINE, reached).await.unwrap();
    }

    async fn lost_redis(&mut self) {
        while self.broker.link.reaches(0) {
            let next = poll_fn(|cx| {
                let event = self.poll(cx);
                assert!(event.is_pending(), "{event:?}");
                if self.broker.link.reaches(0) { Poll::Pending } else { Poll::Ready(()) }
            });
            timeout(DEADLINE, next).await.unwrap();
        }
    }

    async fn event(&mut self) -> Event {
        match self.passed.pop_front() {
            Some(event) => event,
            None => self.new_event().await,
        }
    }

    async fn new_event(&mut self) -> Event {
        timeout(DEADLINE, poll_fn(|cx| self.poll(cx))).await.expect("an event was awaited that does not come")
    }

    /// The first new event of which this makes something; those before it are kept.
    async fn answer<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            let event = self.new_event().await;
            if let Some(found) = wanted(&event) {
                return found;
            }
            self.passed.push_back(event);
        }
    }

    /// The first event of which this makes something; those before it are passed over.
    async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.event().await) {
                return found;
            }
        }
    }

    async fn open_with(&mut self, room: &RoomKey, rules: &Arc<Rules>) -> Position {
        self.broker.open(room, rules);
        self.until(|event| match event {
            Event::Opened { position, .. } => Some(position),
            Event::Unavailable { .. } => panic!("Redis is away"),
            _ => None,
        })
        .await
    }

    async fn open(&mut self, room: &RoomKey) -> Position {
        self.open_with(room, &Arc::default()).await
    }

    /// The place, and whether it is one of an earlier message.
    async fn publish(&mut self, room: &RoomKey, sender: &str, id: &str) -> Option<(Position, bool)> {
        self.broker.publish(TICKET, room, publication(sender, id));
        self.answer(|event| match event {
            Event::Accepted { ticket: TICKET, position, duplicate } => Some(Some((position.clone(), *duplicate))),
            Event::Refused { ticket: TICKET } => Some(None),
            _ => None,
        })
        .await
    }

    /// The next message, with nothing but answers before it.
    async fn delivered(&mut self) -> (u64, String) {
        self.until(|event| match event {
            Event::Delivered { message, .. } => Some(said(&message)),
            Event::Lost { position, .. } => panic!("the place was lost: {position:?}"),
            _ => None,
        })
        .await
    }

    async fn deliveries(&mut self, count: usize) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.delivered().await);
        }
        all
    }

    async fn lost(&mut self) -> Position {
        self.until(|event| if let Event::Lost { position, .. } = event { Some(position) } else { None }).await
    }

    /// What is kept after an offset, and the oldest offset that is.
    async fn read(&mut self, room: &RoomKey, after: u64, batch: Batch) -> (Option<Vec<u64>>, Option<u64>) {
        self.broker.read(TICKET, room, after, batch);
        self.answer(|event| match event {
            Event::Read { ticket: TICKET, messages, oldest } => {
                Some((messages.as_ref().map(|m| m.iter().map(|m| m.position.offset).collect()), *oldest))
            }
            Event::Unread { ticket: TICKET } => panic!("nothing can be read"),
            _ => None,
        })
        .await
    }

    /// Hears nothing of a room from now on.
    async fn turn_deaf(&mut self, room: &RoomKey) {
        let channel = self.broker.channel_of(room);
        self.broker.link.unsubscribe(&channel);
        self.read(room, 0, Batch { messages: 0, bytes: 0 }).await;
    }

    /// Hears of it again, from now on.
    async fn turn_back(&mut self, room: &RoomKey) {
        let channel = self.broker.channel_of(room);
        self.broker.link.subscribe(&channel);
        self.read(room, 0, Batch { messages: 0, bytes: 0 }).await;
    }

    /// Goes on until something else has happened, and keeps what comes.
    async fn beside<T>(&mut self, wanted: impl Future<Output = T>) -> T {
        let goes_on = poll_fn(|cx| {
            while let Poll::Ready(event) = self.poll(cx) {
                self.passed.push_back(event);
            }
            Poll::Pending
        });
        tokio::select! {
            found = timeout(DEADLINE, wanted) => found.unwrap(),
            () = goes_on => unreachable!(),
        }
    }

    /// A counter of this node.
    fn counted(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
    }
}

/// What a test itself asks of Redis, over a link of its own.
struct Aside {
    link: Link,
}

impl Aside {
    async fn to(server: &Server) -> Aside {
        let Node { broker, .. } = Node::start(server, 99).await;
        Aside { link: broker.link }
    }

    async fn ask(&mut self, key: &str, words: &[&str]) -> Reply {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.link.call(1, Call::command(key.as_bytes(), &words));
        self.link.flush();
        let answer = async {
            loop {
                if let Report::Answered { answer, .. } = poll_fn(|cx| self.link.poll_report(cx)).await {
                    return answer.unwrap();
                }
            }
        };
        timeout(DEADLINE, answer).await.unwrap()
    }
}
