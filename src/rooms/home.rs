//! The rooms whose home is this shard: requests come in, answers and deliveries go out.
use super::Shared;
use super::broker::{Broker, Event, Publication};
use super::crowd::{CROWD, Crowds};
use super::mail::{Answer, Ask, Frame, Mail, Position, Request, RoomKey, SessionRef, Ticket};
use super::protocol::{Status, push};
use super::room::{Change, Room};
use crate::close::Code;
use crate::shard::Shard;
use crate::ws::frame::{Opcode, frame};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Messages shorter than this are not worth compressing.
const DEFLATE_AT_LEAST: usize = 256;

pub(super) struct Home {
    shared: Shared,
    shard: Rc<Shard>,
    rooms: HashMap<RoomKey, Room>,
    broker: Box<dyn Broker>,
    publishing: HashMap<u64, Publishing>,
    /// Names publishes and losses.
    next_number: u64,
    crowds: Crowds,
}

/// A publish that the broker has yet to answer.
struct Publishing {
    room: RoomKey,
    from: SessionRef,
    ticket: Ticket,
}

impl Home {
    pub(super) fn new(shared: Shared, shard: Rc<Shard>, broker: Box<dyn Broker>) -> Home {
        Home {
            shared,
            shard,
            rooms: HashMap::new(),
            broker,
            publishing: HashMap::new(),
            next_number: 0,
            crowds: Crowds::default(),
        }
    }

    /// Whether there is no room, and no publish on its way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.keys().all(RoomKey::is_everyone) && self.publishing.is_empty()
    }

    pub(super) fn request(&mut self, request: Request) {
        let create = matches!(request.ask, Ask::Join { .. }) || request.room.is_everyone();
        let shards = self.shared.post.shards();
        let room = match self.rooms.entry(request.room.clone()) {
            Entry::Occupied(room) => room.into_mut(),
            Entry::Vacant(_) if !create => {
                return self.refuse(&request, Code::RoomNotFound, "you are not in this room");
            }
            Entry::Vacant(place) => {
                // The room of everyone is none that a client made.
                if !request.room.is_everyone() {
                    if !self.shared.rooms.open(self.shared.rules.max_rooms) {
                        return self.refuse(&request, Code::RoomFull, "the gateway has too many rooms");
                    }
                    self.shard.metrics().room_opened();
                }
                self.broker.open(&request.room);
                place.insert(Room::new(shards))
            }
        };
        if room.position.is_none() { room.waiting.push(request) } else { self.serve(request) }
    }

    /// Takes the broker's next event, or tells crowded rooms what is due.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(event) = self.broker.poll_event(cx) {
            self.event(event);
            return Poll::Ready(());
        }
        self.crowds.poll_due(cx).map(|crowded| {
            for (room, changes) in crowded {
                let Some(count) = self.rooms.get(&room).map(Room::count) else { continue };
                self.deliver(&room, &push::crowd_presence(&room.name, changes, count));
            }
        })
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Opened { room: key, position } => {
                let Some(room) = self.rooms.get_mut(&key) else { return };
                room.position = Some(position);
                for request in std::mem::take(&mut room.waiting) {
                    // The room may empty in between, and be opened anew.
                    self.request(request);
                }
                self.shut_if_empty(&key);
            }
            Event::Accepted { ticket, position, duplicate } => {
                let Some(publishing) = self.publishing.remove(&ticket) else { return };
                let Publishing { room, from, ticket } = publishing;
                let recipients = self.rooms.get(&room).filter(|_| !room.is_everyone()).map(Room::sessions);
                self.answer(from, ticket, Answer::Sent { room, position, duplicate, recipients });
            }
            Event::Refused { ticket } => {
                let Some(Publishing { from, ticket, .. }) = self.publishing.remove(&ticket) else { return };
                let (code, message) = (Code::Unknown, "the message found no place; send it again");
                self.answer(from, ticket, Answer::Refused { unjoined: None, code, message });
            }
            Event::Delivered { room, position, publication } => self.deliver_message(&room, position, &publication),
        }
    }

    fn serve(&mut self, request: Request) {
        let Request { room, from, client, ticket, ask } = request;
        match ask {
            Ask::Join { deflate, since } => self.join(room, (from, deflate), client, ticket, since),
            Ask::Leave => self.leave(&room, from, &client, Some(ticket)),
            Ask::Gone => self.leave(&room, from, &client, None),
            Ask::Publish { message } => {
                let member = self.rooms.get(&room).is_some_and(|r| r.has_session(&client, from));
                if !member && !room.is_everyone() {
                    return self.not_joined(from, ticket);
                }
                if room.is_everyone() && !(0..self.shared.post.shards()).all(|s| self.shared.post.has_room(s)) {
                    let (code, message) = (Code::Unknown, "the gateway is busy; send it again");
                    return self.answer(from, ticket, Answer::Refused { unjoined: None, code, message });
                }
                self.next_number += 1;
                let publication = Publication { sender: client, message_id: ticket.clone(), message };
                self.publishing.insert(self.next_number, Publishing { room: room.clone(), from, ticket });
                self.broker.publish(self.next_number, &room, publication);
            }
            Ask::Members { limit, after } => {
                let Some(found) = self.rooms.get(&room).filter(|r| r.has_session(&client, from)) else {
                    return self.not_joined(from, ticket);
                };
                let (page, more) = found.page(limit, after.as_deref());
                let payload = push::members(&room.name, &page, found.count(), more);
                self.answer(from, ticket, Answer::Members(payload));
            }
        }
    }

    fn join(
        &mut self,
        key: RoomKey,
        (from, deflate): (SessionRef, bool),
        client: Arc<str>,
        ticket: Ticket,
        since: Option<Position>,
    ) {
        let room = self.rooms.get_mut(&key).and_then(|room| Some((room.position.clone()?, room)));
        let busy = (Code::Unknown, "the gateway is busy; join again");
        let found = match room {
            None => Err(busy),
            Some((_, room)) if room.behind(from.shard).is_some() => Err(busy),
            Some((_, room)) if !room.has_client(&client) && room.count() >= self.shared.rules.rules.max_members => {
                Err((Code::RoomFull, "the room is full"))
            }
            Some(found) => Ok(found),
        };
        let (position, room) = match found {
            Ok(found) => found,
            Err((code, message)) => {
                return self.answer(from, ticket, Answer::Refused { unjoined: Some(key), code, message });
            }
        };
        let change = room.join(&client, from, deflate);
        let count = room.count();
        if change != Change::Nothing {
            self.shard.metrics().member_joined();
        }
        if change == Change::Client {
            // Before the answer: the session that joins is not yet among those it is delivered to.
            self.presence(&key, &client, Status::Online);
        }
        self.answer(
            from,
            ticket,
            Answer::Joined { room: key, count, recovered: since.map(|since| since == position), position },
        );
    }

    /// `ticket`: what the answer goes with, where one is wanted.
    fn leave(&mut self, key: &RoomKey, from: SessionRef, client: &Arc<str>, ticket: Option<Ticket>) {
        let change = self.rooms.get_mut(key).map_or(Change::Nothing, |room| room.leave(client, from));
        match ticket {
            Some(ticket) if change == Change::Nothing => self.not_joined(from, ticket),
            // Before the presence: the session that leaves is not among those it is delivered to.
            Some(ticket) => self.answer(from, ticket, Answer::Left { room: key.clone() }),
            None => (),
        }
        if change != Change::Nothing {
            self.shard.metrics().members_left(1);
        }
        if change == Change::Client {
            self.presence(key, client, Status::Offline);
        }
        self.shut_if_empty(key);
    }

    /// The members on this shard lost their place and know it.
    pub(super) fn lost(&mut self, key: &RoomKey, shard: u16, loss: u64) {
        // A room that emptied meanwhile, and came to be anew, has lost nothing.
        let Some(room) = self.rooms.get_mut(key).filter(|room| room.behind(shard) == Some(loss)) else { return };
        let sessions = room.sessions();
        let gone = room.leave_shard(shard);
        self.shard.metrics().members_left((sessions - room.sessions()) as u64);
        for client in gone {
            self.presence(key, &client, Status::Offline);
        }
        self.shut_if_empty(key);
    }

    fn shut_if_empty(&mut self, key: &RoomKey) {
        let empty = |r: &Room| r.count() == 0 && r.position.is_some() && r.waiting.is_empty();
        if !key.is_everyone() && self.rooms.get(key).is_some_and(empty) {
            self.rooms.remove(key);
            self.broker.shut(key);
            self.shared.rooms.shut();
            self.shard.metrics().room_closed();
            if self.rooms.capacity() > 4 * self.rooms.len().max(256) {
                self.rooms.shrink_to(2 * self.rooms.len());
            }
        }
    }

    fn presence(&mut self, key: &RoomKey, client: &str, status: Status) {
        let crowded = self.rooms.get(key).is_some_and(|room| room.count() > CROWD);
        if self.shared.rules.presence && crowded {
            self.crowds.note(key, status);
        } else if self.shared.rules.presence {
            let text = push::presence(&key.name, client, status);
            self.deliver(key, &text);
        }
    }

    fn deliver_message(&mut self, key: &RoomKey, position: Position, publication: &Publication) {
        let known = self.rooms.get_mut(key).and_then(|room| room.position.as_mut());
        // What comes before the room is open was sent to one that had its name before.
        let Some(known) = known else { return };
        let text = push::chat_message(&key.name, &position, publication);
        *known = position;
        self.deliver(key, &text);
    }

    fn deliver(&mut self, key: &RoomKey, text: &str) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        let plain = frame(Opcode::Text, text.as_bytes());
        let deflate = text.len() >= DEFLATE_AT_LEAST && (key.is_everyone() || room.wants_deflate());
        let deflated = deflate.then(|| self.shard.deflater.borrow_mut().frame(Opcode::Text, text.as_bytes())).flatten();
        let frame = Frame { plain, deflated, payload: text.len() };
        let shards: Vec<usize> =
            if key.is_everyone() { (0..self.shared.post.shards()).collect() } else { room.shards().collect() };
        for shard in shards {
            if !self.shared.post.deliver(shard, key.clone(), frame.on_its_own(shard != self.shard.index)) {
                self.next_number += 1;
                room.fell_behind(shard, self.next_number);
                self.shared.post.send(shard, Mail::Behind { room: key.clone(), loss: self.next_number });
            }
        }
    }

    fn not_joined(&self, from: SessionRef, ticket: Ticket) {
        let (code, message) = (Code::RoomNotFound, "you are not in this room");
        self.answer(from, ticket, Answer::Refused { unjoined: None, code, message });
    }

    fn refuse(&self, request: &Request, code: Code, message: &'static str) {
        let answer = match request.ask {
            Ask::Gone => return,
            Ask::Join { .. } => Answer::Refused { unjoined: Some(request.room.clone()), code, message },
            _ => Answer::Refused { unjoined: None, code, message },
        };
        self.answer(request.from, request.ticket.clone(), answer);
    }

    fn answer(&self, to: SessionRef, ticket: Ticket, answer: Answer) {
        self.shared.post.send(usize::from(to.shard), Mail::Answer { to, ticket, answer });
    }
}
