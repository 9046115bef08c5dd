//! The desk: what servers ask of the rooms, from whatever thread (the admin interface of protocol.md).
//!
//! A call is posted to the home of a room, or to every shard, and answered once. A shard that has ended answers
//! nothing; its part of an answer is then missing. What is asked of sessions and memberships is asked of every node
//! (`peers`); what is asked of a room's order, of this one alone: it comes from the broker.
mod peers;

use super::Shared;
use super::mail::{Mail, Position, RoomKey};
use super::protocol::Status;
use crate::close::{Close, Code};
use crate::config::Namespace;
use bytes::Bytes;
use jiff::Timestamp;
use peers::{Asked, OfClient};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::oneshot;

pub use super::room::Member;
pub use peers::OfAll;

/// Asks the rooms, from any thread.
#[derive(Clone)]
pub struct Desk {
    shared: Shared,
}

/// A message of a server.
pub struct NewMessage {
    /// Whom members see as its sender; `None`: nobody.
    pub sender: Option<Arc<str>>,
    /// The sender's own name for it: a second one with this name is a duplicate. One is made where it is missing.
    pub message_id: Option<Box<str>>,
    /// The message.
    pub message: Box<RawValue>,
}

/// A message that has its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The place.
    pub position: Position,
    /// Whether it is the place of an earlier message with this `message_id`.
    pub duplicate: bool,
    /// Sessions it was posted to.
    pub recipients: usize,
}

/// Why a call was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The code of an `error` with the same meaning.
    pub code: Code,
    /// In words.
    pub message: &'static str,
}

/// A shard that has ended answers nothing.
const STOPPING: Refusal = Refusal { code: Code::Unknown, message: "the gateway is stopping" };

/// One line of the list of rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomLine {
    /// Its name.
    pub room: Box<str>,
    /// Clients in it.
    pub members: usize,
    /// The offset of its last message.
    pub offset: u64,
}

/// A room.
pub struct RoomView {
    /// At most `limit` members, in the order of their names.
    pub members: Vec<Member>,
    /// Whether there are more.
    pub more: bool,
    /// Clients in the room, the invisible ones too.
    pub count: usize,
    /// The place of its last message.
    pub position: Position,
}

/// Messages of a room.
pub struct HistoryView {
    /// Each as it was sent: the JSON text of a `chat_message`.
    pub messages: Vec<Bytes>,
    /// Whether messages after those asked from are not kept any more.
    pub lost: bool,
    /// The place of the room's last message.
    pub position: Position,
}

/// One session of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The name of its node, where there are several.
    pub node: Option<Arc<str>>,
    /// Its id, as in `connection_established`; made by the gateway for sessions of the other services too.
    pub session_id: uuid::Uuid,
    /// Since when.
    pub since: Timestamp,
    /// The path of its route.
    pub route: Arc<str>,
    /// The rooms that it is in.
    pub rooms: Vec<Arc<str>>,
    /// The client's status; `None` where the session is none of a rooms route.
    pub status: Option<Status>,
}

/// The answer to come.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// What is asked of a shard.
pub(super) enum DeskAsk {
    /// Of a shard: to say that it has come so far.
    Settle(Reply<()>),
    /// Of the home: to publish.
    Publish(RoomKey, NewMessage, Reply<Result<Sent, Refusal>>),
    /// Of the home: who is in the room.
    Room { room: RoomKey, limit: usize, after: Option<String>, reply: Reply<Result<Option<RoomView>, Refusal>> },
    /// Of the home: what was said in the room.
    History { room: RoomKey, since: Option<u64>, limit: usize, reply: Reply<Result<Option<HistoryView>, Refusal>> },
    /// Of the home: to end a client's membership. Answered with the number of sessions.
    Kick { room: RoomKey, client: Arc<str>, code: Code, reply: Reply<usize> },
    /// Of every shard: the rooms whose home it is, at most `limit`, in the order of their names.
    Rooms { namespace: Namespace, prefix: Arc<str>, after: Option<Arc<str>>, limit: usize, reply: Reply<Vec<RoomLine>> },
    /// Of every shard: a text for sessions of rooms routes. Answered with their number.
    Notify { namespace: Namespace, clients: Option<Arc<[Box<str>]>>, text: Arc<str>, reply: Reply<usize> },
    /// Of every shard: the sessions of a client.
    Sessions { namespace: Namespace, client: Arc<str>, reply: Reply<Vec<SessionView>> },
    /// Of every shard: to close the sessions of a client. Answered with their number.
    Disconnect { namespace: Namespace, client: Arc<str>, close: Close, reply: Reply<usize> },
}

impl Desk {
    /// The desk of these rooms.
    pub fn new(shared: Shared) -> Desk {
        Desk { shared }
    }

    /// Publishes to a room. The answer comes when the message has its place; messages that are posted one after the
    /// other have their places in that order.
    pub fn publish(
        &self,
        namespace: Namespace,
        room: &str,
        message: NewMessage,
    ) -> impl Future<Output = Result<Sent, Refusal>> + use<> {
        let room = RoomKey { namespace, name: room.into() };
        let answer = self.ask_home(&room.clone(), |reply| DeskAsk::Publish(room, message, reply));
        async move { answer.await.unwrap_or(Err(STOPPING)) }
    }

    /// Pushes a text, which is JSON, to every session of these clients, or of all. How many sessions.
    pub async fn notify(&self, namespace: Namespace, clients: Option<Vec<Box<str>>>, text: &RawValue) -> OfAll<usize> {
        let asked = Asked::Notify { clients: clients.clone(), text };
        self.sum(namespace, &asked, self.notify_here(namespace, clients, text.get())).await
    }

    async fn notify_here(&self, namespace: Namespace, clients: Option<Vec<Box<str>>>, text: &str) -> usize {
        let (clients, text) = (clients.map(Arc::from), Arc::<str>::from(text));
        let ask = |reply| DeskAsk::Notify { namespace, clients: clients.clone(), text: text.clone(), reply };
        self.ask_all(ask).await.into_iter().sum()
    }

    /// At most `limit` rooms that have members and whose names begin with `prefix`, after the one of this name; and
    /// whether there are more.
    pub async fn rooms(
        &self,
        namespace: Namespace,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> OfAll<(Vec<RoomLine>, bool)> {
        let one_more = limit.saturating_add(1);
        let asked = Asked::Rooms { prefix: prefix.into(), after: after.map(Into::into), limit: one_more };
        let here = self.rooms_here(namespace, prefix, after, one_more);
        let OfAll { found, unanswered } = self.of_all(namespace, &asked, here).await;
        OfAll { found: peers::first_rooms(found, limit), unanswered }
    }

    async fn rooms_here(&self, namespace: Namespace, prefix: &str, after: Option<&str>, limit: usize) -> Vec<RoomLine> {
        let (prefix, after) = (Arc::<str>::from(prefix), after.map(Arc::<str>::from));
        let ask = |reply| DeskAsk::Rooms { namespace, prefix: prefix.clone(), after: after.clone(), limit, reply };
        let mut rooms: Vec<RoomLine> = self.ask_all(ask).await.into_iter().flatten().collect();
        rooms.sort_by(|a, b| a.room.cmp(&b.room));
        rooms.truncate(limit);
        rooms
    }

    /// A room; `None` where it has neither members nor messages.
    pub async fn room(
        &self,
        namespace: Namespace,
        room: &str,
        limit: usize,
        after: Option<String>,
    ) -> Result<Option<RoomView>, Refusal> {
        let room = RoomKey { namespace, name: room.into() };
        self.ask_home(&room.clone(), |reply| DeskAsk::Room { room, limit, after, reply }).await.unwrap_or(Err(STOPPING))
    }

    /// At most `limit` messages after the offset `since`, or the last ones; `None` as for [`room`](Self::room).
    pub async fn history(
        &self,
        namespace: Namespace,
        room: &str,
        since: Option<u64>,
        limit: usize,
    ) -> Result<Option<HistoryView>, Refusal> {
        let room = RoomKey { namespace, name: room.into() };
        self.ask_home(&room.clone(), |reply| DeskAsk::History { room, since, limit, reply })
            .await
            .unwrap_or(Err(STOPPING))
    }

    /// Every session of a client, on all services.
    pub async fn sessions(&self, namespace: Namespace, client: &str) -> OfAll<Vec<SessionView>> {
        let asked = Asked::Sessions(OfClient::named(client));
        let here = self.sessions_here(namespace, client);
        let OfAll { found, unanswered } = self.of_all(namespace, &asked, here).await;
        let sessions = found.into_iter().flatten().filter_map(peers::Session::view);
        OfAll { found: sessions.collect(), unanswered }
    }

    async fn sessions_here(&self, namespace: Namespace, client: &str) -> Vec<peers::Session> {
        let client = Arc::<str>::from(client);
        let ask = |reply| DeskAsk::Sessions { namespace, client: client.clone(), reply };
        let node = self.shared.cluster.as_ref().map(|cluster| &cluster.config.node);
        let views = self.ask_all(ask).await.into_iter().flatten();
        views.map(|view| peers::Session::of(view, node)).collect()
    }

    /// Closes every session of a client, on all services. How many.
    pub async fn disconnect(&self, namespace: Namespace, client: &str, close: Close) -> OfAll<usize> {
        let asked = Asked::Disconnect(OfClient::named(client), peers::Why::of(&close));
        self.sum(namespace, &asked, self.disconnect_here(namespace, client, close)).await
    }

    async fn disconnect_here(&self, namespace: Namespace, client: &str, close: Close) -> usize {
        let client = Arc::<str>::from(client);
        let ask = |reply| DeskAsk::Disconnect { namespace, client: client.clone(), close: close.clone(), reply };
        self.ask_all(ask).await.into_iter().sum()
    }

    /// Ends a client's membership in a room, with this code in its `room_left`. How many sessions it had there.
    pub async fn kick(&self, namespace: Namespace, room: &str, client: &str, code: Code) -> OfAll<usize> {
        let asked = Asked::Kick(OfClient::named(client), room.into(), code.number());
        self.sum(namespace, &asked, self.kick_here(namespace, room, client, code)).await
    }

    async fn kick_here(&self, namespace: Namespace, room: &str, client: &str, code: Code) -> usize {
        let room = RoomKey { namespace, name: room.into() };
        let client = client.into();
        self.ask_home(&room.clone(), |reply| DeskAsk::Kick { room, client, code, reply }).await.unwrap_or(0)
    }

    fn ask_home<T>(&self, room: &RoomKey, ask: impl FnOnce(Reply<T>) -> DeskAsk) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        self.shared.post.send(self.shared.home_of(room), Mail::Desk(ask(reply)));
        answer
    }

    async fn ask_all<T>(&self, ask: impl Fn(Reply<T>) -> DeskAsk) -> Vec<T> {
        let asked: Vec<_> = (0..self.shared.post.shards())
            .map(|shard| {
                let (reply, answer) = oneshot::channel();
                self.shared.post.send(shard, Mail::Desk(ask(reply)));
                answer
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.extend(answer.await);
        }
        answers
    }
}
