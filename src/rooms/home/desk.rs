//! What servers ask of rooms.
use super::reading::{Asked, Reading};
use super::{BUSY, Home, Publisher, Waiting};
use crate::close::Code;
use crate::config::Namespace;
use crate::rooms::broker::Publication;
use crate::rooms::desk::{DeskAsk, NewMessage, Refusal, RoomLine, RoomView};
use crate::rooms::mail::RoomKey;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

impl DeskAsk {
    /// It cannot be done now.
    pub(super) fn refuse(self, (code, message): super::Refused) {
        match self {
            DeskAsk::Publish(_, _, reply) => drop(reply.send(Err(Refusal { code, message }))),
            DeskAsk::Kick { reply, .. } => drop(reply.send(0)),
            DeskAsk::Room { reply, .. } => drop(reply.send(unless_missing(code, message))),
            DeskAsk::History { reply, .. } => drop(reply.send(unless_missing(code, message))),
            DeskAsk::Settle(_)
            | DeskAsk::Rooms { .. }
            | DeskAsk::Notify { .. }
            | DeskAsk::Sessions { .. }
            | DeskAsk::Disconnect { .. } => {}
        }
    }
}

/// A room that may not be is none; what else is refused is said.
fn unless_missing<T>(code: Code, message: &'static str) -> Result<Option<T>, Refusal> {
    if code == Code::RoomNotFound { Ok(None) } else { Err(Refusal { code, message }) }
}

/// What servers may have waiting for one room to open.
const SERVERS_WAITING_MAX: usize = 1024;

impl Home {
    /// Something is asked of a room here. It comes to be where it must, and goes again where nobody is in it.
    pub(in crate::rooms) fn desk(&mut self, ask: DeskAsk) {
        let (key, create) = match &ask {
            DeskAsk::Kick { room, .. } => (room.clone(), false),
            DeskAsk::Publish(room, ..) | DeskAsk::Room { room, .. } | DeskAsk::History { room, .. } => {
                (room.clone(), true)
            }
            DeskAsk::Settle(_)
            | DeskAsk::Rooms { .. }
            | DeskAsk::Notify { .. }
            | DeskAsk::Sessions { .. }
            | DeskAsk::Disconnect { .. } => {
                return;
            }
        };
        match self.enter(&key, create) {
            Err(refused) => ask.refuse(refused),
            Ok(room) if room.is_waited_for() => {
                let waiting = room.waiting.iter().filter(|w| matches!(w, Waiting::Desk(_))).count();
                if waiting >= SERVERS_WAITING_MAX {
                    return ask.refuse(BUSY);
                }
                room.waiting.push_back(Waiting::Desk(ask));
            }
            Ok(_) => {
                self.serve_server(ask);
                self.shut_if_unused(&key);
            }
        }
    }

    pub(super) fn serve_server(&mut self, ask: DeskAsk) {
        match ask {
            DeskAsk::Publish(key, message, reply) => {
                let NewMessage { sender, message_id, message } = message;
                let named = message_id.is_some();
                let message_id = message_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string().into());
                let Some(room) = self.rooms.get_mut(&key) else { return };
                room.asked_by_servers += 1;
                let publication = Publication { sender, message_id, named, message };
                self.publish(key, Publisher::Server(reply), publication);
            }
            DeskAsk::Room { room: key, limit, after, reply } => {
                let Some(room) = self.rooms.get(&key) else { return };
                let Some(position) = room.position.clone() else { return };
                let (members, more) = room.page(limit, after.as_deref(), None);
                let view = RoomView { members, more, count: room.count(), position };
                let _ = reply.send(Ok((view.count > 0 || view.position.offset > 0).then_some(view)));
            }
            DeskAsk::History { room: key, since, limit, reply } => {
                let Some(room) = self.rooms.get_mut(&key) else { return };
                let Some(position) = room.position.clone() else { return };
                if room.count() == 0 && position.offset == 0 {
                    return drop(reply.send(Ok(None)));
                }
                room.asked_by_servers += 1;
                let after = since.unwrap_or_else(|| position.offset.saturating_sub(limit as u64));
                let asked = Asked { from_offset: since.is_some(), limit };
                self.read_history(&key, after, Reading::History { room: key.clone(), asked, lost: false, reply });
            }
            DeskAsk::Kick { room, client, code, reply } => {
                let _ = reply.send(self.expel(&room, &client, code));
            }
            DeskAsk::Settle(_)
            | DeskAsk::Rooms { .. }
            | DeskAsk::Notify { .. }
            | DeskAsk::Sessions { .. }
            | DeskAsk::Disconnect { .. } => {}
        }
    }

    /// A server has its answer: the room may be of no use any more.
    pub(super) fn server_was_answered(&mut self, key: &RoomKey) {
        if let Some(room) = self.rooms.get_mut(key) {
            room.asked_by_servers = room.asked_by_servers.saturating_sub(1);
        }
        self.shut_if_unused(key);
    }

    /// The rooms here with members, in the order of their names.
    pub(in crate::rooms) fn list(
        &self,
        namespace: Namespace,
        prefix: &Arc<str>,
        after: Option<&Arc<str>>,
        limit: usize,
    ) -> Vec<RoomLine> {
        let key = |name: &Arc<str>| RoomKey { namespace, name: name.clone() };
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Excluded(key(after)),
            None => Included(key(prefix)),
        };
        let rest = self.names.range((from, Unbounded));
        rest.take_while(|k| k.namespace == namespace && k.name.starts_with(&**prefix))
            .filter_map(|k| Some((k, self.rooms.get(k)?)))
            .filter(|(k, room)| !k.is_everyone() && room.count() > 0)
            .take(limit)
            .map(|(k, room)| RoomLine {
                room: (*k.name).into(),
                members: room.count(),
                offset: room.position.as_ref().map_or(0, |p| p.offset),
            })
            .collect()
    }
}
