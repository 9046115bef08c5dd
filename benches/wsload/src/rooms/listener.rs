//! A room to which one client publishes: whoever listens knows what must come.
use super::Place;
use super::crowd::{Ear, Group, Tally};
use super::seat::{Heard, Position, Seat, text_of};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The room.
const ROOM: &str = "r";

/// A member that counts its messages and its answers, and publishes when told to.
pub struct Listener {
    /// Its place.
    pub seat: Seat,
    size: usize,
    members: Arc<AtomicU64>,
}

impl Listener {
    /// One that has not joined; with `since` it is owed what came after.
    pub fn new(place: &Place, since: Option<Position>) -> Listener {
        Listener { seat: seat(place, since), size: place.size, members: Arc::default() }
    }
}

fn seat(place: &Place, since: Option<Position>) -> Seat {
    if place.floor { Seat::bare() } else { Seat::new(ROOM.into(), since) }
}

/// The text of the message at `offset`.
fn text_at(offset: u64, size: usize) -> String {
    text_of(&format!("n{offset}"), size)
}

impl Ear for Listener {
    fn hear(&mut self, payload: &[u8], tally: &Tally) -> Result<Option<String>, String> {
        match self.seat.hear(payload)? {
            Heard::Presence | Heard::Crowd(_) => return Ok(None),
            Heard::Chat(text) if text != text_at(self.seat.offset(), self.size) => {
                return Err(format!("the message at offset {} is {text:?}", self.seat.offset()));
            }
            Heard::Members(count) => self.members.store(count, Relaxed),
            Heard::Chat(_) | Heard::Joined(_) | Heard::Sent => (),
        }
        tally.add();
        Ok(None)
    }

    fn join(&self) -> String {
        self.seat.join()
    }
}

/// The member that publishes, one message after the other.
pub struct Publisher {
    group: Group<Listener>,
    /// Makes its requests.
    seat: Seat,
    size: usize,
    /// What it hears of each message.
    echoes: u64,
    offset: u64,
    members: Arc<AtomicU64>,
}

impl Publisher {
    /// Opens it, with a number after all others, and joins.
    pub async fn open(place: &Place) -> Result<Publisher, String> {
        let members = Arc::new(AtomicU64::new(0));
        let ear = |_| Listener { members: members.clone(), ..Listener::new(place, None) };
        let mut group = Group::open(place, 1_000_000..1_000_001, ear).await?;
        if !place.floor {
            group.join().await?;
        }
        let echoes = if place.floor { 1 } else { 2 };
        Ok(Publisher { group, seat: seat(place, None), size: place.size, echoes, offset: 0, members })
    }

    /// Publishes the next message; returns when it has its place and has come back.
    pub async fn publish(&mut self) -> Result<(), String> {
        self.publish_many(1).await
    }

    /// Publishes the next messages at once; returns when they have their places and have come back.
    pub async fn publish_many(&mut self, messages: u64) -> Result<(), String> {
        for _ in 0..messages {
            self.offset += 1;
            self.group.order(0, self.seat.publish(&text_at(self.offset, self.size)));
        }
        let due = messages * self.echoes;
        self.group.tally.reach(due, "answers to messages and deliveries of them to the publisher").await
    }

    /// How many members the room has.
    pub async fn count(&self) -> Result<u64, String> {
        self.group.order(0, self.seat.members());
        self.group.tally.reach(1, "answers to room_members").await?;
        Ok(self.members.load(Relaxed))
    }

    /// Waits until no more is pushed to it.
    pub async fn calm(&self) -> Result<(), String> {
        self.group.tally.calm().await
    }

    /// Ends it.
    pub async fn end(self) -> Result<(), String> {
        self.group.end().await.map(drop)
    }
}
