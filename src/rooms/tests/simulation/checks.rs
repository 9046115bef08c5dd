//! How a run comes to rest, and what must then be so.
use super::view::{Span, What};
use super::*;
use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::task::Waker;

/// A run that is long enough comes to all of these.
pub(super) const MUST_HAPPEN: [&str; 20] = [
    "closed for not reading",
    "deliveries",
    "disconnected",
    "duplicates",
    "joins",
    "kicked",
    "leaves",
    "lost",
    "messages",
    "not recovered",
    "nothing missed",
    "offline",
    "online",
    "overtaken",
    "overtaken in recovery",
    "presence queries",
    "receipts",
    "recovered",
    "refusals",
    "typing",
];
/// Turns in which everything comes to rest, unless something goes round in circles.
const TURNS_MAX: usize = 1_000_000;
/// Turns where a mailbox is full: what it must take goes round until it is not.
const TURNS_WHERE_FULL: usize = 2000;
/// Members of a room, by client, with their sessions.
type Truth = BTreeMap<usize, BTreeMap<usize, usize>>;

impl Sim {
    /// A little of what waits is done, wherever.
    pub(super) fn nudge(&mut self) {
        for _ in 0..self.dice.below(2 * world::SHARDS) {
            let shard = self.dice.below(world::SHARDS);
            for _ in 0..self.dice.below(40) {
                self.shard_turn(shard);
            }
            if self.dice.percent(60) {
                self.world.write_out(shard);
            }
        }
        let numbers: Vec<u32> = self.sessions.keys().copied().collect();
        for number in numbers {
            if self.dice.percent(20) {
                self.session_turn(number);
            }
            if self.dice.percent(10) {
                let most = if self.dice.percent(50) { 1 << 20 } else { self.dice.between(1, 3000) };
                self.reads(number, most);
            }
        }
    }

    fn shard_turn(&mut self, shard: usize) -> bool {
        let worked = self.world.turn(shard);
        if worked {
            self.sessions.values().filter(|s| s.shard == shard && s.slow).for_each(Session::check_backlog);
        }
        worked
    }

    /// What the gateway reads of a session's requests happens now.
    pub(super) fn session_turn(&mut self, number: u32) -> bool {
        let session = self.sessions.get_mut(&number).unwrap();
        let (read, worked) = session.turn(&mut self.world);
        let client = session.client;
        for asked in read {
            match asked.what {
                What::Publish(message) => self.model.sent(message),
                What::Status(status) => {
                    (self.clients[client].said, self.clients[client].unsure) = (status, false);
                    if status != "invisible" {
                        self.clients[client].hidden_since = None;
                    }
                }
                _ => (),
            }
            self.log.line(format!("  #{number} is read: {}", asked.id));
            self.sessions.get_mut(&number).unwrap().view.asks(asked);
        }
        worked
    }

    /// The client takes at most so many bytes of what has come.
    fn reads(&mut self, number: u32, most: usize) -> bool {
        let session = self.sessions.get_mut(&number).unwrap();
        if !session.reads || session.dead {
            return false;
        }
        let (messages, ended) = session.read(most);
        let worked = ended || !messages.is_empty();
        for (message, bytes) in messages {
            self.saw(number, &message, bytes);
        }
        if ended {
            assert!(self.sessions[&number].closed.is_some(), "#{number} ends without a reason");
            self.lose(number);
        }
        worked
    }

    /// Has everything done that can be done now.
    pub(super) fn settle(&mut self) {
        let most = if self.world.is_full() { TURNS_WHERE_FULL } else { TURNS_MAX };
        let mut turns = 0;
        let mut worked = true;
        while worked && turns < most {
            worked = false;
            for shard in 0..world::SHARDS {
                while turns < most && self.shard_turn(shard) {
                    worked = true;
                    turns += 1;
                }
                self.world.write_out(shard);
            }
            for number in self.sessions.keys().copied().collect::<Vec<_>>() {
                worked |= self.session_turn(number);
                worked |= self.reads(number, usize::MAX >> 1);
            }
            self.ask_servers();
            worked |= !self.world.is_at_rest();
        }
        assert!(turns < TURNS_MAX, "it never comes to rest");
        if !self.world.is_full() {
            self.rests();
        }
    }

    /// Nothing is on the way any more, but to those who do not read.
    fn rests(&mut self) {
        assert!(self.world.is_at_rest());
        (self.was_full, self.restless) = (false, Seconds::ZERO);
        let now = Instant::now();
        for session in self.sessions.values_mut().filter(|s| s.reads && !s.dead) {
            session.rested = now;
            session.was_full = false;
            for (room, seen) in &mut session.view.rooms {
                seen.recovers = false;
                self.model.used(*room, &seen.epoch, now);
            }
        }
    }

    /// Asks what servers have asked, and sees the answers.
    pub(super) fn ask_servers(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut done = Vec::new();
        self.desk.retain_mut(|call| match call.as_mut().poll(&mut cx) {
            Poll::Ready(answer) => {
                done.extend(answer);
                false
            }
            Poll::Pending => true,
        });
        self.world.collect();
        let now = Instant::now();
        for (message, sent) in done {
            self.model.acknowledged(message, &sent.position, sent.duplicate, Span { from: now, to: now });
        }
    }

    /// Everybody reads, who is dead is noticed, and all that ends by itself has ended.
    pub(super) async fn come_to_rest(&mut self) {
        let dead: Vec<u32> = self.sessions.iter().filter(|(_, s)| s.dead).map(|(n, _)| *n).collect();
        dead.into_iter().for_each(|number| self.lose(number));
        self.sessions.values_mut().for_each(|session| session.reads = true);
        self.world.fill_none();
        self.nodes_come_to_rest();
        self.settle();
        // What another node has told of typing ends later.
        for _ in 0..if self.world.nodes.is_some() { 4 } else { 3 } {
            tokio::time::advance(Seconds::from_secs(3)).await;
            self.settle();
        }
    }

    /// An answer of the desk.
    fn ask_desk<T>(&mut self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(answer) = Pin::as_mut(&mut call).poll(&mut cx) {
                return answer;
            }
            self.world.collect();
            self.settle();
        }
    }

    pub(super) fn check_everything(&mut self) {
        self.log.line(format!("{} at rest", self.step));
        assert!(self.desk.is_empty(), "a server has no answer");
        for (number, session) in &mut self.sessions {
            session.check_at_rest();
            let unanswered = session.view.unanswered();
            assert!(unanswered.is_empty(), "#{number} has no answer to {unanswered:?}");
        }
        for rooms in self.world.houses.iter().flat_map(|house| &house.shards) {
            assert!(rooms.home.borrow().is_idle(), "a room waits for something");
        }
        let truth = self.truth();
        (0..self.world.houses.len()).for_each(|house| self.check_rooms(house, &truth));
        for (number, session) in &self.sessions {
            for (room, seen) in &session.view.rooms {
                self.check_seen(*number, *room, seen, &truth);
            }
        }
        self.check_everyone();
        self.check_answers(&truth);
        self.model.check();
        let now = Instant::now();
        for session in self.sessions.values() {
            let client = &mut self.clients[session.client];
            if client.said == "invisible" {
                client.hidden_since.get_or_insert(now);
            }
        }
    }

    fn truth(&self) -> Truth {
        let mut truth = Truth::new();
        for session in self.sessions.values() {
            for room in session.view.rooms.keys() {
                *truth.entry(*room).or_default().entry(session.client).or_default() += 1;
            }
        }
        truth
    }

    /// Rooms, as the homes of a house have them.
    fn check_rooms(&mut self, house: usize, truth: &Truth) {
        let (desk, here) = (self.world.houses[house].desk(), Namespace { index: 0 });
        let each = self.world.shards_each();
        let sessions = self.sessions.values().filter(|s| s.shard / each == house);
        let memberships: Vec<usize> = sessions.flat_map(|s| s.view.rooms.keys().copied()).collect();
        let used: BTreeSet<usize> = memberships.iter().copied().collect();
        let (lines, more) = self.ask_desk(desk.rooms(here, "", None, 1000)).found;
        assert!(!more);
        let lines: BTreeMap<usize, usize> =
            lines.iter().map(|line| (self.model.room(&json!(*line.room)), line.members)).collect();
        let wanted: BTreeMap<usize, usize> = used.iter().map(|room| (*room, truth[room].len())).collect();
        assert_eq!(lines, wanted, "members of rooms");
        for (room, clients) in truth {
            let name = self.model.rooms[*room].name.clone();
            let view =
                self.ask_desk(desk.room(here, &name, 10_000, None)).expect("no refusal").expect("a room with members");
            self.model.reached(*room, &view.position, Instant::now(), false);
            self.model.is_at(*room, &view.position);
            assert_eq!(Some(view.position), self.model.head(*room), "the place of the last message of {name}");
            let members = view.members.iter().map(|m| (model::client_of(&m.client), m.status.as_str().to_owned()));
            let wanted = clients.keys().map(|client| (*client, self.clients[*client].said.to_owned()));
            assert_eq!(members.collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "members of {name}");
        }
        assert_eq!(self.world.houses[house].gauges(), (used.len() as u64, memberships.len() as u64));
    }

    /// What a client must believe of the others.
    fn others(&self, client: usize, room: usize, truth: &Truth) -> BTreeMap<String, String> {
        let others = truth[&room].keys().filter(|other| **other != client).map(|other| &self.clients[*other]);
        others.filter(|c| c.said != "invisible").map(|c| (c.name.clone(), c.said.to_owned())).collect()
    }

    fn check_seen(&self, number: u32, room: usize, seen: &view::Seen, truth: &Truth) {
        let (name, client) = (&self.model.rooms[room].name, self.sessions[&number].client);
        let head = self.model.head(room).unwrap();
        assert_eq!((&seen.epoch, seen.next), (&head.epoch, head.offset + 1), "#{number} in {name} misses the last");
        if let Some(believed) = &seen.believed {
            assert_eq!(*believed, self.others(client, room, truth), "#{number} in {name} believes what is not so");
        }
        assert!(seen.typing.is_empty(), "#{number} in {name} believes that {:?} type", seen.typing);
    }

    fn check_everyone(&mut self) {
        let Some(head) = self.model.head(self.model.everyone()) else { return };
        for (number, session) in &mut self.sessions {
            let seen = session.view.everyone.get_or_insert_with(|| head.clone());
            assert_eq!(*seen, head, "#{number} misses what was sent to everyone");
        }
    }

    /// Some ask who is there, and are told what is so.
    fn check_answers(&mut self, truth: &Truth) {
        let numbers: Vec<u32> = self.sessions.keys().copied().collect();
        let mut asked = Vec::new();
        for _ in 0..5 {
            let Some(number) = self.dice.pick(&numbers) else { return };
            let session = &self.sessions[&number];
            let (client, rooms) = (session.client, session.view.rooms.keys().copied().collect::<Vec<_>>());
            let some: Vec<usize> = (0..9).map(|_| self.dice.below(self.clients.len())).collect();
            let names: Vec<&String> = some.iter().map(|client| &self.clients[*client].name).collect();
            let names = json!({"client_ids": names});
            self.ask(number, "presence_query", What::Presences, None, names);
            for room in &rooms {
                self.ask(number, "room_members", What::Members, Some(*room), json!({}));
            }
            self.settle();
            for room in &rooms {
                self.check_seen(number, *room, &self.sessions[&number].view.rooms[room], truth);
            }
            let shares = |other: usize| rooms.iter().any(|room| truth[room].contains_key(&other));
            for other in some {
                let said = self.clients[other].said;
                let seen = shares(other) && (said != "invisible" || other == client);
                asked.push((other, if seen { said } else { "offline" }));
            }
            let payload = self.sessions[&number].view.presences.as_ref().unwrap();
            for (other, wanted) in asked.drain(..) {
                let mut found = payload["presences"].as_array().unwrap().iter();
                let found = found.find(|p| p["client_id"] == *self.clients[other].name).expect("an answer");
                assert_eq!(found["status"], wanted, "#{number} is told of {other}: {found}");
            }
        }
    }

    /// All go, and nothing is left.
    pub(super) async fn end(&mut self) {
        self.come_to_rest().await;
        self.check_everything();
        let numbers: Vec<u32> = self.sessions.keys().copied().collect();
        for (i, number) in numbers.iter().enumerate() {
            let rooms: Vec<usize> = self.sessions[number].view.rooms.keys().copied().collect();
            for room in rooms.into_iter().filter(|_| i % 2 == 0) {
                self.ask(*number, "leave_room", What::Leave, Some(room), json!({}));
            }
        }
        self.settle();
        numbers.into_iter().for_each(|number| self.lose(number));
        self.settle();
        for house in &self.world.houses {
            assert_eq!((house.gauges(), house.shards[0].shared.rooms.now()), ((0, 0), 0));
            for rooms in &house.shards {
                assert!(rooms.home.borrow().is_empty() && rooms.home.borrow().is_idle(), "a home holds something");
                assert!(rooms.local.borrow().is_empty(), "a shard holds members");
                assert_eq!(rooms.shard.sessions(), 0);
            }
        }
        self.world.check_mailboxes();
        for _ in 0..40 {
            tokio::time::advance(Seconds::from_secs(30)).await;
            self.world.houses.iter().for_each(|house| house.shards[0].shared.sweep());
            self.settle();
        }
        for house in &self.world.houses {
            assert_eq!(house.shards[0].shared.statuses.len(), 0, "statuses are remembered of clients that have gone");
        }
        // The room of everyone is never shut.
        let everyone = self.world.houses[0].shards.iter().filter(|rooms| rooms.home.borrow().has_everyone()).count();
        assert_eq!(self.world.kept(), (everyone, 0), "brokers keep rooms, and bytes");
        if let Some(nodes) = &self.world.nodes {
            assert_eq!(nodes.cluster.rooms(), [], "something is held in rooms that nobody is in");
        }
    }
}
