//! What was sent, and where it must be: for every room and epoch one order.
use crate::Verdict;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A place in a room's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub epoch: Arc<str>,
    pub offset: u64,
}

impl Position {
    /// That of a payload, or of what an administrator is answered.
    pub fn of(payload: &Value) -> Verdict<Position> {
        let position = &payload["position"];
        let (epoch, offset) = (position["epoch"].as_str(), position["offset"].as_u64());
        let both = epoch.zip(offset).ok_or_else(|| format!("no position in {payload}"))?;
        Ok(Position { epoch: both.0.into(), offset: both.1 })
    }
}

/// A room, and how many messages its history keeps.
#[derive(Clone)]
pub struct RoomRules {
    pub name: String,
    pub history: u64,
}

/// An unbroken count: which message is at which offset.
struct Epoch {
    name: Arc<str>,
    placed: BTreeMap<u64, usize>,
}

pub struct Message {
    pub room: usize,
    pub sender: String,
    pub id: String,
    pad: usize,
    sent: u32,
    acknowledged: bool,
    places: Vec<Position>,
}

pub struct Ledger {
    pub rooms: Vec<RoomRules>,
    /// By room, in the order in which they were first seen.
    epochs: Vec<Vec<Epoch>>,
    messages: Vec<Message>,
    /// By sender and `message_id`.
    names: HashMap<(String, String), usize>,
    /// How often Redis has lost everything: each time a room may begin a new count.
    pub emptied: usize,
}

impl Ledger {
    pub fn new(rooms: Vec<RoomRules>) -> Ledger {
        let epochs = rooms.iter().map(|_| Vec::new()).collect();
        Ledger { rooms, epochs, messages: Vec::new(), names: HashMap::new(), emptied: 0 }
    }

    pub fn room(&self, name: &Value) -> Verdict<usize> {
        let found = self.rooms.iter().position(|room| *name == *room.name);
        found.ok_or_else(|| format!("no room is called {name}"))
    }

    /// A new message, which has this name for good.
    pub fn write(&mut self, room: usize, sender: &str, id: &str, pad: usize) -> usize {
        let number = self.messages.len();
        let (sender, id) = (sender.to_owned(), id.to_owned());
        self.names.insert((sender.clone(), id.clone()), number);
        self.messages.push(Message { room, sender, id, pad, sent: 0, acknowledged: false, places: Vec::new() });
        number
    }

    pub fn message(&self, number: usize) -> &Message {
        &self.messages[number]
    }

    /// What is said in it.
    pub fn body(&self, number: usize) -> Value {
        let Message { sender, pad, .. } = &self.messages[number];
        json!({"by": sender, "n": number, "pad": "x".repeat(*pad)})
    }

    /// It is on its way, once more perhaps.
    pub fn sent(&mut self, number: usize) {
        self.messages[number].sent += 1;
    }

    /// The number of an epoch of a room, in the order in which they came.
    pub fn epoch(&mut self, room: usize, name: &Arc<str>) -> Verdict<usize> {
        let epochs = &mut self.epochs[room];
        if let Some(place) = epochs.iter().position(|epoch| epoch.name == *name) {
            return Ok(place);
        }
        epochs.push(Epoch { name: name.clone(), placed: BTreeMap::new() });
        if epochs.len() > self.emptied + 1 {
            let names: Vec<_> = epochs.iter().map(|epoch| &epoch.name).collect();
            let (room, emptied) = (&self.rooms[room].name, self.emptied);
            return Err(format!("{room} has epochs {names:?}, and Redis was emptied {emptied} times"));
        }
        Ok(epochs.len() - 1)
    }

    /// Somebody has seen a `chat_message`.
    pub fn seen(&mut self, room: usize, chat: &Value, at: &Position) -> Verdict {
        let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let names = (name(&chat["payload"]["sender_id"]), name(&chat["metadata"]["message_id"]));
        let number = *self.names.get(&names).ok_or_else(|| format!("nobody has sent {chat}"))?;
        let message = &self.messages[number];
        if message.room != room || message.sent == 0 || chat["payload"]["message"] != self.body(number) {
            return Err(format!("{names:?} was sent otherwise than as {chat}"));
        }
        self.place(number, at)
    }

    /// A sender was told the place of its message; whether that is the first time.
    pub fn acknowledged(&mut self, number: usize, at: &Position, duplicate: bool) -> Verdict<bool> {
        let message = &mut self.messages[number];
        let first = !std::mem::replace(&mut message.acknowledged, true);
        if duplicate && message.sent < 2 {
            return Err(format!("{} was sent once, and is told to be a duplicate", message.id));
        }
        self.place(number, at).map(|()| first)
    }

    fn place(&mut self, number: usize, at: &Position) -> Verdict {
        let room = self.messages[number].room;
        let epoch = self.epoch(room, &at.epoch)?;
        let other = *self.epochs[room][epoch].placed.entry(at.offset).or_insert(number);
        let message = &self.messages[number];
        if other != number {
            let other = &self.messages[other];
            return Err(format!(
                "{} of {} and {} of {} are both at {at:?}",
                message.id, message.sender, other.id, other.sender
            ));
        }
        match message.places.iter().find(|place| place.epoch == at.epoch) {
            Some(place) if place != at => {
                Err(format!("{} of {} is at {place:?} and at {at:?}", message.id, message.sender))
            }
            Some(_) => Ok(()),
            None => {
                self.messages[number].places.push(at.clone());
                Ok(())
            }
        }
    }

    /// Whether a member that has seen `since` and joined at `at` had to be given what it missed.
    pub fn must_recover(&self, room: usize, since: &Position, at: &Position) -> Verdict<bool> {
        if since.epoch != at.epoch {
            return Ok(false);
        }
        let missed = at
            .offset
            .checked_sub(since.offset)
            .ok_or_else(|| format!("the count goes back from {since:?} to {at:?}"))?;
        Ok(missed <= self.rooms[room].history)
    }

    /// Nothing is on its way any more and this is the place of the room's last message: all up to it are known, none
    /// comes after it, and the history has the newest of them.
    pub fn check(&mut self, room: usize, head: &Position, history: &[Value]) -> Verdict {
        let (name, kept) = (&self.rooms[room].name, self.rooms[room].history.min(head.offset));
        let (name, first) = (name.clone(), head.offset - kept + 1);
        let epoch = self.epoch(room, &head.epoch)?;
        let placed = &self.epochs[room][epoch].placed;
        if let Some((offset, number)) = placed.range(head.offset + 1..).next() {
            let Message { id, sender, acknowledged, .. } = &self.messages[*number];
            return Err(format!(
                "{name} ends at {head:?}, and {id} of {sender} is at {offset} (acknowledged: {acknowledged})"
            ));
        }
        if let Some(hole) = (1..=head.offset).find(|offset| !placed.contains_key(offset)) {
            return Err(format!("nobody knows what is at {hole} of {name}, whose end is {head:?}"));
        }
        let found: BTreeMap<u64, (&str, &str)> = history
            .iter()
            .filter_map(|message| {
                let names = (message["payload"]["sender_id"].as_str()?, message["metadata"]["message_id"].as_str()?);
                Some((message["payload"]["position"]["offset"].as_u64()?, names))
            })
            .collect();
        for (offset, number) in placed.range(first..) {
            let Message { id, sender, .. } = &self.messages[*number];
            if found.get(offset) != Some(&(sender, id)) {
                let there = found.get(offset);
                return Err(format!("the history of {name} has {there:?} at {offset}, and not {id} of {sender}"));
            }
        }
        Ok(())
    }
}
