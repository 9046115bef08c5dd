//! The rooms whose home is this shard: requests come in, answers and deliveries go out.
mod desk;
mod elsewhere;
mod joining;
mod presence;
mod pushes;
mod reading;
mod receipts;

use super::Shared;
use super::broker::{Broker, Event, Publication};
use super::crowd::Crowds;
use super::desk::{Refusal, Reply, Sent};
use super::mail::{Answer, Ask, Except, Feed, Join, Mail, Request, RoomKey, SessionRef, Ticket};
use super::protocol::push;
use super::room::{Change, Room, Waiting};
use super::schedule::Schedule;
use crate::close::Code;
use crate::config::Rules;
use crate::shard::Shard;
use elsewhere::Elsewhere;
use reading::Reading;
use receipts::Receipts;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(super) struct Home {
    shared: Shared,
    shard: Rc<Shard>,
    rooms: HashMap<RoomKey, Room>,
    /// The same, in the order of their names.
    names: BTreeSet<RoomKey>,
    broker: Box<dyn Broker>,
    publishing: HashMap<u64, Publishing>,
    reading: HashMap<u64, Reading>,
    /// Names publishes, readings, recoveries and losses.
    next_number: u64,
    crowds: Crowds,
    schedule: Schedule<Due>,
    /// Rooms that are open, with those who waited for that.
    opened: VecDeque<RoomKey>,
    receipts: Receipts,
    /// What holds for messages to everyone.
    everyone: Arc<Rules>,
    /// What other nodes hold, as far as that is not dealt with.
    elsewhere: Elsewhere,
}

/// A publish that the broker has yet to answer.
struct Publishing {
    room: RoomKey,
    from: Publisher,
}

enum Publisher {
    Member(SessionRef, Arc<str>, Ticket),
    Server(Reply<Result<Sent, Refusal>>),
}

/// What is to be done in a room at some time.
enum Due {
    Typing(RoomKey, Arc<str>),
    Conflated(RoomKey),
    /// It is to be opened.
    Everyone(RoomKey),
}

/// A refusal: code and words.
type Refused = (Code, &'static str);

const NOT_JOINED: Refused = (Code::RoomNotFound, "you are not in this room");
const TOO_MANY_ROOMS: Refused = (Code::RoomFull, "the gateway has too many rooms");
const BUSY: Refused = (Code::Unknown, "the gateway is busy; try again");

impl Home {
    pub(super) fn new(shared: Shared, shard: Rc<Shard>, broker: Box<dyn Broker>) -> Home {
        let everyone = Rules { durable: false, latest_only: None, ..(*shared.rules.rules).clone() };
        let mut home = Home {
            opened: VecDeque::new(),
            receipts: Receipts::default(),
            everyone: Arc::new(everyone),
            elsewhere: Elsewhere::new(shared.cluster.as_ref().map(|cluster| cluster.nodes.live().clone())),
            shared,
            shard,
            rooms: HashMap::new(),
            names: BTreeSet::new(),
            broker,
            publishing: HashMap::new(),
            reading: HashMap::new(),
            next_number: 0,
            crowds: Crowds::default(),
            schedule: Schedule::default(),
        };
        home.open_everyone();
        home
    }

    /// Has it know of other nodes.
    #[cfg(test)]
    pub(super) fn joins_cluster(&mut self, live: Arc<crate::cluster::LiveNodes>) {
        self.elsewhere.live = Some(live);
        self.open_everyone();
    }

    /// Whether there is no room, and nothing that the broker has to answer.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.keys().all(RoomKey::is_everyone)
            && self.names.iter().all(RoomKey::is_everyone)
            && self.publishing.is_empty()
            && self.reading.is_empty()
    }

    /// Whether something was sent to everyone from here.
    #[cfg(test)]
    pub(super) fn has_everyone(&self) -> bool {
        self.rooms.keys().any(RoomKey::is_everyone)
    }

    /// Whether nothing here waits for the broker, nor for a room to be open.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let idle = |room: &Room| room.waiting.is_empty() && room.joining.is_empty() && room.asked_by_servers == 0;
        let idle = self.rooms.values().all(idle) && !self.elsewhere.is_waited_for();
        idle && self.publishing.is_empty() && self.reading.is_empty()
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn request(&mut self, request: Request) {
        let create = matches!(request.ask, Ask::Join(_)) || request.room.is_everyone();
        match self.enter(&request.room, create) {
            Err((code, message)) => self.refuse(&request, code, message),
            Ok(room) if room.is_waited_for() => room.waiting.push_back(Waiting::Request(request)),
            Ok(_) => self.serve(request),
        }
    }

    /// The room, which comes to be where that is wanted and allowed.
    fn enter(&mut self, key: &RoomKey, create: bool) -> Result<&mut Room, Refused> {
        match self.rooms.entry(key.clone()) {
            Entry::Occupied(room) => Ok(room.into_mut()),
            Entry::Vacant(_) if !create => Err(NOT_JOINED),
            Entry::Vacant(place) => {
                // The room of everyone is none that a client made, and no pattern is meant for it.
                let everyone = key.is_everyone();
                let rules = if everyone { &self.everyone } else { self.shared.rules.rules_of(&key.name) };
                if !everyone {
                    if !self.shared.rules.may_exist(&key.name) {
                        return Err((Code::RoomNotFound, "there is no such room"));
                    }
                    if !self.shared.rooms.open(self.shared.rules.max_rooms) {
                        return Err(TOO_MANY_ROOMS);
                    }
                    self.shard.metrics().room_opened();
                    self.names.insert(key.clone());
                }
                self.broker.open(key, rules);
                Ok(place.insert(Room::new(self.shared.post.shards(), rules.clone())))
            }
        }
    }

    /// Does a piece of what is left of the broker's last event, or takes its next one, or something that waited for a room
    /// which is open now.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Before anything that the broker tells after it.
        if self.elsewhere.is_waited_for() {
            self.work_elsewhere();
            return Poll::Ready(());
        }
        if let Some(key) = self.opened.pop_front() {
            self.serve_waiting(key);
            return Poll::Ready(());
        }
        self.broker.poll_event(cx).map(|event| self.event(event))
    }

    /// Does what is due by time. Ready never.
    pub(super) fn poll_timers(&mut self, cx: &mut Context<'_>) {
        self.broker.poll_timers(cx);
        while let Poll::Ready(crowded) = self.crowds.poll_due(cx) {
            for (room, changes) in crowded {
                let Some(count) = self.rooms.get(&room).map(|r| r.count_for("")) else { continue };
                self.push(&room, &push::crowd_presence(&room.name, changes, count), Except::None);
            }
        }
        while let Poll::Ready(due) = self.schedule.poll_due(cx) {
            match due {
                Due::Typing(room, client) => self.typing_due(&room, &client),
                Due::Conflated(room) => self.conflated_due(&room),
                Due::Everyone(room) => self.open_everyone_again(&room),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Opened { room: key, position } => {
                let Some(room) = self.rooms.get_mut(&key) else { return };
                room.receipts = self.receipts.take(&key, &position.epoch);
                room.position = Some(position);
                self.opened.push_back(key);
            }
            Event::Unavailable { room } => self.unavailable(&room),
            Event::Accepted { ticket, position, duplicate } => {
                let Some(Publishing { room, from }) = self.publishing.remove(&ticket) else { return };
                match from {
                    Publisher::Member(from, client, ticket) => {
                        let found = self.rooms.get(&room).filter(|_| !room.is_everyone());
                        let recipients = found.map(|r| r.sessions_for(&client));
                        self.answer(from, ticket, Answer::Sent { room, position, duplicate, recipients });
                    }
                    Publisher::Server(reply) => {
                        let recipients = self.rooms.get(&room).map_or(0, Room::sessions);
                        let _ = reply.send(Ok(Sent { position, duplicate, recipients }));
                        self.server_was_answered(&room);
                    }
                }
            }
            Event::Refused { ticket } => {
                let Some(Publishing { room, from }) = self.publishing.remove(&ticket) else { return };
                let (code, message) = (Code::Unknown, "the message found no place; send it again");
                match from {
                    Publisher::Member(from, _, ticket) => {
                        self.answer(from, ticket, Answer::Refused { unjoined: None, code, message });
                    }
                    Publisher::Server(reply) => {
                        let _ = reply.send(Err(Refusal { code, message }));
                        self.server_was_answered(&room);
                    }
                }
            }
            Event::Delivered { room, message } => self.deliver_message(&room, message),
            Event::Read { ticket, messages, oldest } => self.was_read(ticket, messages, oldest),
            Event::Unread { ticket } => self.was_not_read(ticket),
            Event::Lost { room, position } => self.lost_its_place(&room, position),
            Event::Others { room, clients, whole } => self.others(room, clients, whole),
            Event::Gone { node } => self.gone(node),
            Event::Told { room, telling } => self.told(&room, telling),
        }
    }

    /// Serves the first of those that waited for a room, so that others have their turn in between; what comes
    /// meanwhile waits behind them.
    fn serve_waiting(&mut self, key: RoomKey) {
        // It may have been shut meanwhile, and be opened anew.
        let Some(room) = self.rooms.get_mut(&key).filter(|room| room.position.is_some()) else { return };
        match room.waiting.pop_front() {
            Some(Waiting::Request(request)) => self.serve(request),
            Some(Waiting::Desk(ask)) => self.serve_server(ask),
            None => return self.shut_if_unused(&key),
        }
        self.opened.push_front(key);
    }

    /// A room could not be opened, or cannot be used any more: who waits for it may come again.
    fn unavailable(&mut self, key: &RoomKey) {
        let Some(mut room) = self.rooms.remove(key) else { return };
        self.names.remove(key);
        if key.is_everyone() {
            self.open_everyone_later(key);
        } else {
            self.shared.rooms.shut();
            self.shard.metrics().room_closed();
        }
        let joining = room.joining.drain().flat_map(|(_, (join, after))| [join].into_iter().chain(after));
        let waiting = joining.map(Waiting::Request).chain(room.waiting.drain(..));
        for waiting in waiting {
            match waiting {
                Waiting::Request(request) => self.refuse(&request, BUSY.0, BUSY.1),
                Waiting::Desk(ask) => ask.refuse(BUSY),
            }
        }
        for (session, change) in room.leave_all() {
            let mail = Mail::Expelled { to: session, room: key.clone(), code: Code::Unknown };
            self.shared.post.send(usize::from(session.shard), mail);
            self.shard.metrics().members_left(u64::from(change != Change::Nothing));
        }
    }

    fn serve(&mut self, request: Request) {
        let Some(room) = self.rooms.get_mut(&request.room) else {
            return self.refuse(&request, NOT_JOINED.0, NOT_JOINED.1);
        };
        // What a session asks of a room that it is about to join waits for that.
        if let Some((_, after)) = room.joining.get_mut(&request.from) {
            return after.push(request);
        }
        let member = room.has_session(&request.client, request.from) || request.room.is_everyone();
        match request.ask {
            Ask::Join(_) => self.join(request),
            Ask::Leave => self.leave(&request.room, request.from, &request.client, Some(request.ticket)),
            Ask::Gone => self.leave(&request.room, request.from, &request.client, None),
            Ask::Forbidden => self.forbid(&request.room, request.from, &request.client),
            Ask::Status(said) => self.status(&request.room, &request.client, said),
            Ask::More(cursor) => self.more(request.room, request.from, request.client, cursor),
            Ask::Presences { ref clients } => {
                let presences = |room: &Room| match clients {
                    Some(clients) => room.those_of(clients, &request.client),
                    None => room.page(push::MEMBERS_MAX, None, Some(&request.client)).0,
                };
                if clients.is_none() && !member {
                    return self.refuse(&request, NOT_JOINED.0, NOT_JOINED.1);
                }
                let found = self.rooms.get(&request.room).filter(|_| member).map(presences).unwrap_or_default();
                self.answer(request.from, request.ticket, Answer::Presences { found: Ok(found) });
            }
            _ if !member => self.refuse(&request, NOT_JOINED.0, NOT_JOINED.1),
            Ask::Publish { message, named } => {
                let Request { room, from, client, ticket, .. } = request;
                if room.is_everyone() && !(0..self.shared.post.shards()).all(|s| self.shared.post.has_room(s)) {
                    let (code, message) = BUSY;
                    return self.answer(from, ticket, Answer::Refused { unjoined: None, code, message });
                }
                let publication =
                    Publication { sender: Some(client.clone()), message_id: ticket.clone(), named, message };
                self.publish(room, Publisher::Member(from, client, ticket), publication);
            }
            Ask::Members { limit, ref after } => {
                let payload = push::members(&request.room.name, room, &request.client, limit, after.as_deref());
                self.answer(request.from, request.ticket, Answer::Members(payload));
            }
            Ask::Typing { start } => {
                self.typing(&request.room, &request.client, start);
                self.answer(request.from, request.ticket, Answer::Done);
            }
            Ask::Receipt { offset } => self.receipt(request.room, request.from, request.client, request.ticket, offset),
        }
    }

    fn publish(&mut self, room: RoomKey, from: Publisher, publication: Publication) {
        let number = self.number();
        self.publishing.insert(number, Publishing { room: room.clone(), from });
        self.broker.publish(number, &room, publication);
    }

    fn shut_if_unused(&mut self, key: &RoomKey) {
        self.tell_vacated(key);
        if !key.is_everyone() && self.rooms.get(key).is_some_and(Room::is_unused) {
            let room = self.rooms.remove(key);
            if let Some(Room { position: Some(position), receipts, .. }) = room {
                self.receipts.put(key.clone(), position.epoch, receipts);
            }
            self.names.remove(key);
            self.broker.shut(key);
            self.shared.rooms.shut();
            self.shard.metrics().room_closed();
            if self.rooms.capacity() > 4 * self.rooms.len().max(256) {
                self.rooms.shrink_to(2 * self.rooms.len());
            }
        }
    }

    fn refuse(&self, request: &Request, code: Code, message: &'static str) {
        let answer = match request.ask {
            Ask::Gone | Ask::Forbidden | Ask::Status(_) => return,
            Ask::More(_) => return self.feed(request.from, &request.room, Feed::Stale),
            Ask::Presences { clients: Some(_) } => Answer::Presences { found: Ok(Vec::new()) },
            Ask::Presences { clients: None } => Answer::Presences { found: Err((code, message)) },
            Ask::Join(_) => Answer::Refused { unjoined: Some(request.room.clone()), code, message },
            _ => Answer::Refused { unjoined: None, code, message },
        };
        self.answer(request.from, request.ticket.clone(), answer);
    }

    fn answer(&self, to: SessionRef, ticket: Ticket, answer: Answer) {
        self.shared.post.send(usize::from(to.shard), Mail::Answer { to, ticket, answer });
    }

    fn feed(&self, to: SessionRef, room: &RoomKey, feed: Feed) {
        self.shared.post.send(usize::from(to.shard), Mail::Feed { to, room: room.clone(), feed });
    }
}
