//! What a home asks the broker to read again: for members that recover, shards that catch up, and servers.
use super::{BUSY, Home};
use crate::rooms::broker::{Batch, Message};
use crate::rooms::desk::{HistoryView, Refusal, Reply};
use crate::rooms::mail::{Cursor, Feed, Frame, Kind, Mail, RoomKey, SessionRef};
use bytes::Bytes;
use std::sync::Arc;

/// What a member that recovers, or a shard that catches up, is sent at once.
const BATCH: Batch = Batch { messages: 256, bytes: 64 * 1024 };

/// A question that the broker has yet to answer.
pub(super) enum Reading {
    /// Whether what a session missed can be had.
    Join { room: RoomKey, from: SessionRef },
    /// The next messages for a member that recovers; `number` names its recovery.
    Feed { room: RoomKey, from: SessionRef, client: Arc<str>, number: u64, after: u64 },
    /// The next messages for a shard.
    CatchUp { room: RoomKey, shard: u16, loss: u64 },
    /// For a server. `lost`: what it asked for is gone, and it gets what is left.
    History { room: RoomKey, asked: Asked, lost: bool, reply: Reply<Result<Option<HistoryView>, Refusal>> },
}

/// How a server asked.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// From an offset on, and not for the last messages.
    pub(super) from_offset: bool,
    /// Most messages.
    pub(super) limit: usize,
}

/// Bytes of one answer to a server.
const HISTORY_BYTES_MAX: usize = 8 << 20;

impl Asked {
    /// The texts, as many as fit one answer: the first of those after an offset, or the last ones.
    fn within_bytes(self, messages: Vec<Message>) -> Vec<Bytes> {
        let mut texts: Vec<Bytes> = messages.iter().map(Message::text).collect();
        if !self.from_offset {
            texts.reverse();
        }
        let mut bytes = 0;
        let mut fits = |text: &Bytes| {
            bytes += text.len();
            bytes <= HISTORY_BYTES_MAX
        };
        let count = texts.iter().map_while(|text| fits(text).then_some(())).count().max(1);
        texts.truncate(count);
        if !self.from_offset {
            texts.reverse();
        }
        texts
    }
}

impl Home {
    /// A member that recovers can take more.
    pub(super) fn more(&mut self, room: RoomKey, from: SessionRef, client: Arc<str>, cursor: Cursor) {
        let Cursor { number, after } = cursor;
        let Some(found) = self.rooms.get_mut(&room) else { return self.feed(from, &room, Feed::Stale) };
        if found.seat(&client, from).is_none_or(|seat| seat.recovers != Some(number)) {
            return self.feed(from, &room, Feed::Stale);
        }
        // A shard that catches up is sent what its members recover: those who come up to it would get it twice.
        if found.behind(from.shard).is_some() {
            return found.held.push((from, client, cursor));
        }
        let ticket = self.number();
        self.reading.insert(ticket, Reading::Feed { room: room.clone(), from, client, number, after });
        self.broker.read(ticket, &room, after, BATCH);
    }

    /// A shard that fell behind can take more.
    pub(in crate::rooms) fn catch_up(&mut self, room: RoomKey, shard: u16, loss: u64, after: u64) {
        if let Some(found) = self.rooms.get(&room).filter(|r| r.behind(shard) == Some(loss)) {
            // Of a conflated room it is sent the newest, and what waits is sent when its time has come.
            let newest = found.rules.latest_only.map(|_| found.sent().saturating_sub(1));
            let after = newest.unwrap_or(after);
            let ticket = self.number();
            self.reading.insert(ticket, Reading::CatchUp { room: room.clone(), shard, loss });
            self.broker.read(ticket, &room, after, BATCH);
        }
    }

    pub(super) fn was_read(&mut self, ticket: u64, messages: Option<Vec<Message>>, oldest: Option<u64>) {
        match self.reading.remove(&ticket) {
            None => (),
            Some(Reading::Join { room, from }) => self.joins_after_all(&room, from, Some(messages.is_some())),
            Some(Reading::Feed { room, from, client, number, after }) => {
                self.fed(&room, from, &client, (number, after), messages);
            }
            Some(Reading::CatchUp { room, shard, loss }) => {
                self.caught_up(&room, shard, loss, messages);
                if self.rooms.get(&room).is_some_and(|r| r.behind(shard).is_none()) {
                    self.release(&room, shard);
                }
            }
            Some(Reading::History { room, asked, lost, reply }) => match (messages, oldest) {
                (None, Some(oldest)) if !lost => {
                    let again = Reading::History { room: room.clone(), asked, lost: true, reply };
                    self.read_history(&room, oldest - 1, again);
                }
                (messages, _) => {
                    let position = self.rooms.get(&room).and_then(|r| r.position.clone());
                    let lost = asked.from_offset && (lost || messages.is_none());
                    let messages = asked.within_bytes(messages.unwrap_or_default());
                    let _ = reply.send(Ok(position.map(|position| HistoryView { messages, lost, position })));
                    self.server_was_answered(&room);
                }
            },
        }
    }

    /// Whether it is kept is not known: who was to be sent it cannot be told that nothing is missing.
    pub(super) fn was_not_read(&mut self, ticket: u64) {
        match self.reading.remove(&ticket) {
            None => (),
            Some(Reading::Join { room, from }) => self.joins_after_all(&room, from, None),
            Some(Reading::Feed { room, from, client, number, after }) => {
                self.fed(&room, from, &client, (number, after), None);
            }
            Some(Reading::CatchUp { room, shard, loss }) => self.caught_up(&room, shard, loss, None),
            Some(Reading::History { room, reply, .. }) => {
                let (code, message) = BUSY;
                let _ = reply.send(Err(Refusal { code, message }));
                self.server_was_answered(&room);
            }
        }
    }

    pub(super) fn read_history(&mut self, room: &RoomKey, after: u64, reading: Reading) {
        let Reading::History { asked, .. } = &reading else { return };
        let batch = Batch { messages: asked.limit, bytes: usize::MAX };
        let ticket = self.number();
        self.reading.insert(ticket, reading);
        self.broker.read(ticket, room, after, batch);
    }

    fn fed(
        &mut self,
        key: &RoomKey,
        from: SessionRef,
        client: &Arc<str>,
        (number, after): (u64, u64),
        messages: Option<Vec<Message>>,
    ) {
        let Some(room) = self.rooms.get_mut(key) else { return self.feed(from, key, Feed::Stale) };
        let known = room.position.as_ref().map_or(0, |position| position.offset);
        let behind = room.behind(from.shard).is_some();
        let Some(seat) = room.seat(client, from).filter(|seat| seat.recovers == Some(number)) else {
            return self.feed(from, key, Feed::Stale);
        };
        if behind {
            return room.held.push((from, client.clone(), Cursor { number, after }));
        }
        let Some(messages) = messages else {
            let change = room.leave(client, from);
            self.feed(from, key, Feed::Overtaken);
            self.went(key, client, change);
            return self.shut_if_unused(key);
        };
        // What was not delivered yet will be.
        let ready = messages.iter().take_while(|m| m.position.offset <= known);
        let last = ready.clone().last().map_or(after, |m| m.position.offset);
        let live = last >= known;
        if live {
            seat.recovers = None;
        }
        let frames = ready.map(|m| m.frame.clone()).collect();
        self.feed(from, key, Feed::Messages { frames, last, live });
    }

    /// What members on this shard asked while it was behind is looked at again.
    pub(super) fn release(&mut self, key: &RoomKey, shard: u16) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        let held = std::mem::take(&mut room.held);
        for (from, client, cursor) in held {
            if from.shard == shard {
                self.more(key.clone(), from, client, cursor);
            } else if let Some(room) = self.rooms.get_mut(key) {
                room.held.push((from, client, cursor));
            }
        }
    }

    fn caught_up(&mut self, key: &RoomKey, shard: u16, loss: u64, messages: Option<Vec<Message>>) {
        let Some(room) = self.rooms.get_mut(key).filter(|r| r.behind(shard) == Some(loss)) else { return };
        let known = room.sent();
        let Some(messages) = messages else {
            let mail = Mail::Overtaken { room: key.clone(), loss };
            return self.shared.post.send(usize::from(shard), mail);
        };
        for message in messages.iter().filter(|m| m.position.offset <= known) {
            let frame = Frame { plain: message.frame.clone(), deflated: None, payload: message.text().len() };
            let (to, kind) = (key.clone(), Kind::Chat(message.position.offset));
            if !self.shared.post.deliver(usize::from(shard), to, frame, kind) {
                return self.shared.post.send(usize::from(shard), Mail::Behind { room: key.clone(), loss });
            }
            if message.position.offset == known {
                return room.caught_up(shard);
            }
        }
        if messages.is_empty() {
            return room.caught_up(shard);
        }
        self.shared.post.send(usize::from(shard), Mail::Behind { room: key.clone(), loss });
    }
}
