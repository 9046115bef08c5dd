//! What was sent, and where it must be.
use super::view::Span;
use super::world::{DUPLICATES, RoomRules};
use super::*;

/// Every room's own order, and every message.
pub(super) struct Model {
    pub(super) rooms: Vec<RoomRules>,
    /// By room; that of everyone is the last one.
    orders: Vec<Order>,
    pub(super) messages: Vec<Message>,
    /// By room, sender and `message_id`.
    numbers: BTreeMap<(usize, Option<usize>, String), usize>,
}

#[derive(Default)]
struct Order {
    epochs: BTreeMap<Arc<str>, Epoch>,
    /// The newest epoch.
    current: Option<Arc<str>>,
    /// It was lost once: an epoch may begin at any time, and names of messages are forgotten with the one before.
    lost: bool,
}

#[derive(Default)]
struct Epoch {
    placed: BTreeMap<u64, Placed>,
    /// The offset of the last message.
    head: u64,
    /// Somebody was in the room then.
    used: Option<Instant>,
}

struct Placed {
    message: usize,
    /// Of its frame, where somebody has seen it.
    bytes: Option<usize>,
    at: Span,
}

pub(super) struct Message {
    pub(super) room: usize,
    /// `None`: a server.
    pub(super) sender: Option<usize>,
    pub(super) id: String,
    pub(super) body: Value,
    /// When the gateway first read it.
    read: Option<Instant>,
    sent: usize,
    refused: usize,
    places: Vec<(Position, Span)>,
}

impl Model {
    pub(super) fn new(rooms: Vec<RoomRules>) -> Model {
        let orders = (0..=rooms.len()).map(|_| Order::default()).collect();
        Model { rooms, orders, messages: Vec::new(), numbers: BTreeMap::new() }
    }

    pub(super) fn everyone(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn room(&self, name: &Value) -> usize {
        if name.is_null() {
            return self.everyone();
        }
        self.rooms.iter().position(|room| *name == *room.name).unwrap_or_else(|| panic!("no room {name}"))
    }

    /// The message of this name: a new one, or one that was sent before.
    pub(super) fn message(&mut self, room: usize, sender: Option<usize>, id: &str, body: impl Fn() -> Value) -> usize {
        let number = self.numbers.entry((room, sender, id.into())).or_insert_with(|| {
            let (id, body) = (id.into(), body());
            let message = Message { room, sender, id, body, read: None, sent: 0, refused: 0, places: Vec::new() };
            self.messages.push(message);
            self.messages.len() - 1
        });
        *number
    }

    /// The gateway has read it, once more perhaps.
    pub(super) fn sent(&mut self, message: usize) {
        let message = &mut self.messages[message];
        message.read.get_or_insert_with(Instant::now);
        message.sent += 1;
    }

    pub(super) fn refused(&mut self, message: usize) {
        self.messages[message].refused += 1;
    }

    /// A session has seen it at its place.
    pub(super) fn seen(&mut self, room: usize, chat: &Value, at: Position, span: Span, bytes: usize) {
        let sender = chat["payload"]["sender_id"].as_str().map(client_of);
        let id = chat["metadata"]["message_id"].as_str().unwrap();
        let number = self.numbers.get(&(room, sender, id.into())).copied();
        let number = number.unwrap_or_else(|| panic!("nobody has sent this: {chat}"));
        assert_eq!(chat["payload"]["message"], self.messages[number].body, "not what was sent");
        self.place(number, &at, span, Some(bytes));
    }

    /// A sender was told its place.
    pub(super) fn acknowledged(&mut self, message: usize, at: &Position, duplicate: bool, span: Span) {
        if !duplicate {
            return self.place(message, at, span, None);
        }
        let Message { sent, places, id, .. } = &self.messages[message];
        assert!(*sent > 1, "{id} was sent once, and is told to be a duplicate");
        let known = places.iter().any(|(place, _)| place == at);
        let sure = places.iter().any(|(place, when)| self.is_remembered(message, place, *when, at, span));
        assert!(known || !sure, "{id} has its place at {places:?}, and not at {at:?}");
        self.place(message, at, span, None);
    }

    /// Whether a message with this place was surely remembered when one of the same name came to another.
    fn is_remembered(&self, message: usize, place: &Position, when: Span, other: &Position, now: Span) -> bool {
        let Message { room, sender, .. } = self.messages[message];
        if now.to.duration_since(when.from) >= DUPLICATES.age || place.offset > other.offset {
            return false;
        }
        // In another epoch of the room: it was to stay as long as it remembers names.
        let Some(epoch) = self.orders[room].epochs.get(&place.epoch).filter(|_| place.epoch == other.epoch) else {
            return !self.orders[room].lost;
        };
        let between = (place.offset + 1..other.offset).map(|offset| epoch.placed.get(&offset));
        let may_be_its = |p: &Option<&Placed>| p.is_none_or(|p| self.messages[p.message].sender == sender);
        between.filter(may_be_its).count() < DUPLICATES.per_client
    }

    fn place(&mut self, number: usize, at: &Position, span: Span, bytes: Option<usize>) {
        let Message { room, read, .. } = self.messages[number];
        let epoch = self.orders[room].epochs.entry(at.epoch.clone()).or_default();
        epoch.head = epoch.head.max(at.offset);
        if let Some(placed) = epoch.placed.get_mut(&at.offset) {
            let (first, second) = (&self.messages[placed.message].id, &self.messages[number].id);
            assert_eq!(placed.message, number, "{first} and {second} are both at {at:?}");
            placed.bytes = placed.bytes.or(bytes);
            placed.at.to = placed.at.to.min(span.to);
            return;
        }
        let from = read.unwrap_or_else(|| panic!("{} was not sent", self.messages[number].id));
        let when = Span { from, to: span.to };
        epoch.placed.insert(at.offset, Placed { message: number, bytes, at: when });
        let Message { id, places, .. } = &self.messages[number];
        for (place, at_place) in places {
            let first = place.offset < at.offset || place.epoch != at.epoch;
            let twice = if first {
                self.is_remembered(number, place, *at_place, at, span)
            } else {
                self.is_remembered(number, at, when, place, *at_place)
            };
            assert!(!twice, "{id} has two places: {place:?} and {at:?}");
        }
        self.messages[number].places.push((at.clone(), when));
    }

    /// A session was told that the room's order had come to this place. `late`: that may be long ago.
    pub(super) fn reached(&mut self, room: usize, at: &Position, now: Instant, late: bool) {
        let age = self.rooms.get(room).map_or(Seconds::MAX, |room| room.history.age);
        let order = &mut self.orders[room];
        let is_known = order.epochs.contains_key(&at.epoch);
        let epoch = order.epochs.entry(at.epoch.clone()).or_default();
        epoch.head = epoch.head.max(at.offset);
        if late || order.current.as_ref() == Some(&at.epoch) {
            return;
        }
        // It may be told late of an epoch that has passed.
        if order.lost && is_known {
            return;
        }
        if let Some(before) = order.current.as_ref().and_then(|epoch| order.epochs.get(epoch)) {
            // It was in use when its last message came, and stays for its age after that.
            let message = before.placed.last_key_value().map(|(_, placed)| placed.at.from);
            let used = before.used.max(message).filter(|_| before.head > 0);
            let unused = used.map_or(Seconds::MAX, |used| now.duration_since(used));
            assert!(unused >= age || order.lost, "a new epoch {unused:?} after the room was used: {at:?}");
        }
        order.current = Some(at.epoch.clone());
    }

    /// What was said in a room is lost.
    pub(super) fn lost(&mut self, room: usize) {
        self.orders[room].lost = true;
    }

    /// This is the place of the room's last message, where everything is at rest.
    pub(super) fn is_at(&mut self, room: usize, at: &Position) {
        let order = &mut self.orders[room];
        if order.lost {
            order.current = Some(at.epoch.clone());
        }
    }

    /// Somebody is in the room now.
    pub(super) fn used(&mut self, room: usize, epoch: &Arc<str>, now: Instant) {
        self.orders[room].epochs.entry(epoch.clone()).or_default().used = Some(now);
    }

    /// The place of the last message.
    pub(super) fn head(&self, room: usize) -> Option<Position> {
        let epoch = self.orders[room].current.clone()?;
        let offset = self.orders[room].epochs[&epoch].head;
        Some(Position { epoch, offset })
    }

    /// Whether all after `since` up to `at` was surely kept when a session joined there: `None`: that is not known.
    pub(super) fn is_kept(&self, room: usize, since: &Position, at: &Position, now: Instant) -> Option<bool> {
        let RoomRules { history, conflated, .. } = &self.rooms[room];
        if *conflated || since.epoch != at.epoch || since.offset > at.offset {
            return Some(false);
        }
        let missed = (at.offset - since.offset) as usize;
        if missed == 0 || missed > history.messages {
            return Some(missed == 0);
        }
        let placed = &self.orders[room].epochs.get(&at.epoch)?.placed;
        let mut bytes = 0;
        for offset in since.offset + 1..=at.offset {
            bytes += placed.get(&offset)?.bytes?;
        }
        let first = placed.get(&(since.offset + 1))?.at;
        if bytes > history.bytes {
            return Some(false);
        }
        (now.duration_since(first.from) < history.age).then_some(true)
    }

    /// What was only ever refused has no place.
    pub(super) fn check(&self) {
        for Message { id, sent, refused, places, .. } in &self.messages {
            assert!(places.is_empty() || refused < sent, "{id} was refused, and is at {places:?}");
        }
    }
}

/// The number of a client of this name.
pub(super) fn client_of(name: &str) -> usize {
    name[1..].parse().unwrap_or_else(|_| panic!("no client {name}"))
}
