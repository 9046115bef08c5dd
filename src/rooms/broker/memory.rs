//! The broker of a single node: the order is this process' own count.
use super::{Broker, Event, Publication};
use crate::rooms::mail::{Position, RoomKey};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Rooms that are open here, with their counts, and events that were not taken yet. Events are
/// taken in the same turn that made them, so the queue stays short.
#[derive(Default)]
pub struct Memory {
    rooms: HashMap<RoomKey, Position>,
    events: VecDeque<Event>,
}

impl Broker for Memory {
    fn open(&mut self, room: &RoomKey) {
        let epoch = || Position { epoch: format!("{:012x}", rand::random::<u64>() >> 16).into(), offset: 0 };
        let position = self.rooms.entry(room.clone()).or_insert_with(epoch).clone();
        self.events.push_back(Event::Opened { room: room.clone(), position });
    }

    fn shut(&mut self, room: &RoomKey) {
        self.rooms.remove(room);
        if self.rooms.capacity() > 4 * self.rooms.len().max(256) {
            self.rooms.shrink_to(2 * self.rooms.len());
        }
    }

    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication) {
        let Some(position) = self.rooms.get_mut(room) else {
            return self.events.push_back(Event::Refused { ticket });
        };
        position.offset += 1;
        let position = Position { epoch: Arc::clone(&position.epoch), offset: position.offset };
        self.events.push_back(Event::Accepted { ticket, position: position.clone(), duplicate: false });
        self.events.push_back(Event::Delivered { room: room.clone(), position, publication });
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
