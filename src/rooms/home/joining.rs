//! Who comes into a room and who goes, on this node.
use super::{BUSY, Code, Home, Join, Refused};
use crate::rooms::broker::Batch;
use crate::rooms::mail::{Answer, Ask, Cursor, Feed, Joined, Mail, Position, Request, RoomKey, SessionRef, Ticket};
use crate::rooms::room::{Change, Newcomer};
use std::sync::Arc;

impl Home {
    /// A session joins. Where it has seen another place than the room's, the broker is asked first: whether what it has
    /// missed is still to be had, or, where it has seen more over another node, what that is.
    pub(super) fn join(&mut self, request: Request) {
        let Ask::Join(join) = &request.ask else { return };
        let Some(room) = self.rooms.get_mut(&request.room) else { return };
        let asked = match (&room.position, &join.since) {
            (Some(position), Some(since)) if room.rules.latest_only.is_none() => {
                let in_count = since.epoch == position.epoch;
                let missed = in_count && since.offset < position.offset;
                // Other nodes may have been told more, or of another count.
                let ahead = self.shared.cluster.is_some() && since != position;
                (missed || ahead).then_some(if in_count { since.offset } else { position.offset })
            }
            _ => None,
        };
        let Some(after) = asked else { return self.joins(request, false) };
        let (key, from) = (request.room.clone(), request.from);
        room.joining.insert(from, (request, Vec::new()));
        let ticket = self.number();
        self.reading.insert(ticket, super::Reading::Join { room: key.clone(), from });
        self.broker.read(ticket, &key, after, Batch { messages: 0, bytes: 0 });
    }

    /// The broker has said whether what a session missed can be had. `None`: it cannot say that now; the session may ask
    /// again.
    pub(super) fn joins_after_all(&mut self, key: &RoomKey, from: SessionRef, kept: Option<bool>) {
        let Some((request, after)) = self.rooms.get_mut(key).and_then(|r| r.joining.remove(&from)) else { return };
        match kept {
            Some(kept) => self.joins(request, kept),
            None => self.refuse(&request, BUSY.0, BUSY.1),
        }
        for request in after {
            self.request(request);
        }
        self.shut_if_unused(key);
    }

    /// `kept`: what it has missed can be had.
    fn joins(&mut self, request: Request, kept: bool) {
        let Request { room: key, from, client, ticket, ask: Ask::Join(join) } = request else { return };
        let number = self.number();
        match self.admit(&key, from, &client, &join, kept.then_some(number)) {
            Err((code, message)) => {
                self.answer(from, ticket, Answer::Refused { unjoined: Some(key.clone()), code, message });
                self.shut_if_unused(&key);
            }
            Ok((change, joined)) => {
                if change != Change::Nothing {
                    self.shard.metrics().member_joined();
                    self.holds(&key, &client);
                }
                // Before the others are told: where that cannot be delivered the members on that shard lose their
                // place, and this one is among them.
                self.answer(from, ticket, Answer::Joined(Box::new(joined)));
                match (change, join.said) {
                    (Change::Client { .. }, _) => self.came(&key, &client),
                    // The client's other sessions may end before they have told it.
                    (Change::Session | Change::Nothing, Some(said)) => self.status(&key, &client, said),
                    (Change::Session | Change::Nothing, None) => (),
                }
            }
        }
    }

    fn admit(
        &mut self,
        key: &RoomKey,
        session: SessionRef,
        client: &Arc<str>,
        join: &Join,
        recovers: Option<u64>,
    ) -> Result<(Change, Joined), Refused> {
        if self.shared.bans.from_room(key.namespace, &key.name, client).is_some() {
            return Err((Code::Banned, "you are banned from this room"));
        }
        let max_rooms = self.shared.rules.max_rooms_per_client;
        let room = self.rooms.get_mut(key).ok_or(BUSY)?;
        let position = room.position.clone().ok_or(BUSY)?;
        if room.behind(session.shard).is_some() {
            return Err(BUSY);
        }
        if !room.has_client(client) && room.count() >= room.rules.max_members {
            return Err((Code::RoomFull, "the room is full"));
        }
        let since = join.since.as_ref();
        // Its place may have been lost while it waited, or never have been.
        let missed = |since: &Position| since.epoch == position.epoch && since.offset < position.offset;
        let recovers = recovers.filter(|_| since.is_some_and(missed));
        let new = Newcomer { client, session, deflate: join.deflate, said: join.said.clone(), recovers };
        let change =
            room.join(new, || join.rooms.enter(max_rooms)).ok_or((Code::RoomFull, "you are in too many rooms"))?;
        let conflated = room.rules.latest_only.is_some();
        let joined = Joined {
            room: key.clone(),
            count: room.count_for(client),
            recovered: since.map(|since| !conflated && (recovers.is_some() || *since == position)),
            missed: recovers.zip(since).map(|(number, since)| Cursor { number, after: since.offset }),
            position,
            conflated,
        };
        Ok((change, joined))
    }

    /// `ticket`: what the answer goes with, where one is wanted.
    pub(super) fn leave(&mut self, key: &RoomKey, from: SessionRef, client: &Arc<str>, ticket: Option<Ticket>) {
        let change = self.lets_out(key, from, client);
        match ticket {
            Some(ticket) if change == Change::Nothing => {
                let (code, message) = super::NOT_JOINED;
                self.answer(from, ticket, Answer::Refused { unjoined: None, code, message });
            }
            // Before the presence: the session that leaves is not among those it is delivered to.
            Some(ticket) => self.answer(from, ticket, Answer::Left { room: key.clone() }),
            None => (),
        }
        self.went(key, client, change);
        self.shut_if_unused(key);
    }

    /// A session is a member no more. What it asked while its shard was behind is answered: it may recover other rooms.
    fn lets_out(&mut self, key: &RoomKey, session: SessionRef, client: &str) -> Change {
        let Some(room) = self.rooms.get_mut(key) else { return Change::Nothing };
        let change = room.leave(client, session);
        let held = room.held.len();
        room.held.retain(|(from, ..)| *from != session);
        if room.held.len() < held {
            self.feed(session, key, Feed::Stale);
        }
        change
    }

    /// A session may not be in the room any more.
    pub(super) fn forbid(&mut self, key: &RoomKey, from: SessionRef, client: &Arc<str>) {
        let change = self.lets_out(key, from, client);
        if change != Change::Nothing {
            let mail = Mail::Expelled { to: from, room: key.clone(), code: Code::RoomNotFound };
            self.shared.post.send(usize::from(from.shard), mail);
        }
        self.went(key, client, change);
        self.shut_if_unused(key);
    }

    /// The membership of a client ends by the gateway's will. How many sessions it had.
    pub(super) fn expel(&mut self, key: &RoomKey, client: &Arc<str>, code: Code) -> usize {
        let sessions = self.rooms.get(key).map(|room| room.sessions_of(client)).unwrap_or_default();
        for session in &sessions {
            let change = self.lets_out(key, *session, client);
            let mail = Mail::Expelled { to: *session, room: key.clone(), code };
            self.shared.post.send(usize::from(session.shard), mail);
            self.went(key, client, change);
        }
        self.shut_if_unused(key);
        sessions.len()
    }

    /// The members on this shard lost their place and know it.
    pub(in crate::rooms) fn lost(&mut self, key: &RoomKey, shard: u16, loss: u64) {
        // A room that emptied meanwhile, and came to be anew, has lost nothing.
        let Some(room) = self.rooms.get_mut(key).filter(|room| room.behind(shard) == Some(loss)) else { return };
        for (client, change) in room.leave_shard(shard) {
            self.went(key, &client, change);
        }
        self.release(key, shard);
        self.shut_if_unused(key);
    }
}
