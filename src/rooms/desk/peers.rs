//! What the desks of nodes ask each other, as JSON: who is asked by a newer gateway, and does not know the question,
//! says so, and counts as one that did not answer.
use super::{Desk, RoomLine, SessionView};
use crate::close::{Close, Code};
use crate::config::Namespace;
use crate::rooms::protocol::Status;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How questions and answers are written.
const VERSION: u32 = 1;
/// How long the other nodes have for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer: more is not sent.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Rooms of one answer: a page of the admin interface, and whether there are more.
const ROOMS_MAX: usize = 1001;

/// What came of asking all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfAll<T> {
    /// What those have answered that did.
    pub found: T,
    /// The names of nodes that live and have not answered in time, in order.
    pub unanswered: Vec<Arc<str>>,
}

/// A question.
#[derive(Serialize, Deserialize)]
struct Question<A> {
    v: u32,
    /// The namespace's name: an index is the node's own.
    namespace: Box<str>,
    ask: A,
}

/// What is asked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked<'a> {
    /// To push a text to these clients, or to all. Answered with the number of sessions.
    Notify {
        clients: Option<Vec<Box<str>>>,
        #[serde(borrow)]
        text: &'a RawValue,
    },
    /// Rooms: [`RoomLine`]s in order, at most `limit`.
    Rooms { prefix: Box<str>, after: Option<Box<str>>, limit: usize },
    /// The sessions of a client: [`Session`]s.
    Sessions(OfClient),
    /// To close them. Answered with their number.
    Disconnect(OfClient, Why),
    /// To end its membership in a room, with the number of a code. Answered with the number of sessions.
    Kick(OfClient, Box<str>, u16),
}

/// A client.
#[derive(Serialize, Deserialize)]
pub(super) struct OfClient {
    client: Box<str>,
}

/// Why a session is closed.
#[derive(Serialize, Deserialize)]
pub(super) struct Why {
    code: u16,
    reason: Box<str>,
}

/// An answer. Without `found`: the question was not understood, or the answer is too large.
#[derive(Serialize, Deserialize)]
struct Answer<T> {
    v: u32,
    node: Box<str>,
    found: Option<T>,
}

/// One session of a client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Session {
    node: Option<Box<str>>,
    session_id: Box<str>,
    since_us: i64,
    route: Box<str>,
    rooms: Vec<Box<str>>,
    status: Option<Box<str>>,
}

impl OfClient {
    pub fn named(client: &str) -> OfClient {
        OfClient { client: client.into() }
    }
}

impl Why {
    pub fn of(close: &Close) -> Why {
        Why { code: close.code().unwrap_or(Code::Unknown).number(), reason: close.reason.as_str().into() }
    }
}

impl Session {
    pub fn of(view: SessionView, node: Option<&Arc<str>>) -> Session {
        Session {
            node: node.map(|node| (**node).into()),
            session_id: view.session_id.to_string().into(),
            since_us: view.since.as_microsecond(),
            route: (*view.route).into(),
            rooms: view.rooms.iter().map(|room| (**room).into()).collect(),
            status: view.status.map(|status| status.as_str().into()),
        }
    }

    /// `None` where no gateway can have said so.
    pub fn view(self) -> Option<SessionView> {
        Some(SessionView {
            node: self.node.map(Into::into),
            session_id: self.session_id.parse().ok()?,
            since: Timestamp::from_microsecond(self.since_us).ok()?,
            route: self.route.into(),
            rooms: self.rooms.into_iter().map(Into::into).collect(),
            status: self.status.map(|status| Status::from(&*status)),
        })
    }
}

/// The first `limit` rooms of the nodes' lists, and whether there are more. A room that several nodes have is the same
/// room: each of them knows all its members, and who has heard of more of them is the latest.
pub(super) fn first_rooms(lists: Vec<Vec<RoomLine>>, limit: usize) -> (Vec<RoomLine>, bool) {
    let mut rooms: BTreeMap<Box<str>, RoomLine> = BTreeMap::new();
    for line in lists.into_iter().flatten() {
        match rooms.entry(line.room.clone()) {
            Entry::Vacant(place) => drop(place.insert(line)),
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.members = known.members.max(line.members);
                known.offset = known.offset.max(line.offset);
            }
        }
    }
    let more = rooms.len() > limit;
    (rooms.into_values().take(limit).collect(), more)
}

/// A question about this namespace.
fn question(namespace: &str, asked: &Asked<'_>) -> Bytes {
    // Such values can be written always.
    let question = Question { v: VERSION, namespace: namespace.into(), ask: asked };
    serde_json::to_vec(&question).unwrap_or_default().into()
}

/// The answer of the node of this name.
fn answer<T: Serialize>(node: &str, found: Option<T>) -> Bytes {
    // Such values can be written always.
    let text = serde_json::to_vec(&Answer { v: VERSION, node: node.into(), found }).unwrap_or_default();
    if text.len() <= ANSWER_BYTES_MAX {
        return text.into();
    }
    tracing::warn!(bytes = text.len(), "an answer to another node is too large: it is not given");
    answer::<()>(node, None)
}

/// What the other nodes have found; who has found nothing is named among those who did not answer.
fn read<T: DeserializeOwned>(answers: &[Bytes], unanswered: &mut Vec<Arc<str>>) -> Vec<T> {
    let mut found = Vec::with_capacity(answers.len());
    for text in answers {
        match serde_json::from_slice::<Answer<&RawValue>>(text) {
            Ok(Answer { v, node, found: given }) => {
                let given = given.filter(|_| v == VERSION).and_then(|raw| serde_json::from_str(raw.get()).ok());
                match given {
                    Some(given) => found.push(given),
                    None => unanswered.push(node.into()),
                }
            }
            Err(error) => tracing::warn!(%error, "a node has answered what is no answer"),
        }
    }
    unanswered.sort();
    unanswered.dedup();
    found
}

impl Desk {
    /// What this node finds, and what the others do.
    pub(super) async fn of_all<T: DeserializeOwned>(
        &self,
        namespace: Namespace,
        asked: &Asked<'_>,
        here: impl Future<Output = T>,
    ) -> OfAll<Vec<T>> {
        let Some(cluster) = &self.shared.cluster else {
            return OfAll { found: vec![here.await], unanswered: Vec::new() };
        };
        let others = cluster.nodes.ask_all(question(self.shared.namespace(namespace), asked), ANSWER_TIMEOUT);
        let (here, (answers, mut unanswered)) = tokio::join!(here, others);
        let mut found = vec![here];
        found.extend(read(&answers, &mut unanswered));
        OfAll { found, unanswered }
    }

    /// The sum of what all nodes count.
    pub(super) async fn sum(
        &self,
        namespace: Namespace,
        asked: &Asked<'_>,
        here: impl Future<Output = usize>,
    ) -> OfAll<usize> {
        let OfAll { found, unanswered } = self.of_all(namespace, asked, here).await;
        OfAll { found: found.into_iter().fold(0, usize::saturating_add), unanswered }
    }

    /// Ends the sessions here of a client that is banned, or its membership in a room. Waits at most 2 s.
    pub async fn keep_out(&self, namespace: Namespace, client: &str, room: Option<&str>) {
        let ended = async {
            match room {
                Some(room) => self.kick_here(namespace, room, client, Code::Banned).await,
                None => self.disconnect_here(namespace, client, Close::gateway(Code::Banned)).await,
            }
        };
        if let Ok(sessions @ 1..) = timeout(ANSWER_TIMEOUT, ended).await {
            tracing::info!(client, room, sessions, "banned at another node");
        }
    }

    /// The answer to another node's question, where it cannot be looked for.
    pub fn no_answer(&self) -> Bytes {
        answer::<()>(self.node(), None)
    }

    fn node(&self) -> &str {
        self.shared.cluster.as_ref().map_or("", |cluster| &cluster.config.node)
    }

    /// The answer to another node's question: what is found here. It comes in time, or says that it does not.
    pub async fn answer(&self, question: &[u8]) -> Bytes {
        let node = self.node();
        let Ok(Question::<Asked> { v: VERSION, namespace, ask }) = serde_json::from_slice(question) else {
            tracing::debug!("a node asks what is not understood here");
            return self.no_answer();
        };
        let found = self.found(node, Namespace::named(&self.shared.namespaces, &namespace), ask);
        timeout(ANSWER_TIMEOUT, found).await.unwrap_or_else(|_| self.no_answer())
    }

    /// A namespace that this node does not have holds nothing here.
    async fn found(&self, node: &str, namespace: Option<Namespace>, ask: Asked<'_>) -> Bytes {
        let Some(namespace) = namespace else {
            return match ask {
                Asked::Rooms { .. } | Asked::Sessions(_) => answer(node, Some([(); 0])),
                Asked::Notify { .. } | Asked::Disconnect(..) | Asked::Kick(..) => answer(node, Some(0)),
            };
        };
        match ask {
            Asked::Notify { clients, text } => {
                answer(node, Some(self.notify_here(namespace, clients, text.get()).await))
            }
            Asked::Rooms { prefix, after, limit } => {
                let limit = limit.min(ROOMS_MAX);
                answer(node, Some(self.rooms_here(namespace, &prefix, after.as_deref(), limit).await))
            }
            Asked::Sessions(of) => answer(node, Some(self.sessions_here(namespace, &of.client).await)),
            Asked::Disconnect(of, why) => {
                let close = Close::because(code(why.code), why.reason);
                answer(node, Some(self.disconnect_here(namespace, &of.client, close).await))
            }
            Asked::Kick(of, room, number) => {
                answer(node, Some(self.kick_here(namespace, &room, &of.client, code(number)).await))
            }
        }
    }
}

/// The code of this number; one that is not known here means no more than that the connection ends.
fn code(number: u16) -> Code {
    Code::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Code::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(room: &str, members: usize, offset: u64) -> RoomLine {
        RoomLine { room: room.into(), members, offset }
    }

    #[test]
    fn a_room_of_several_nodes_is_listed_once() {
        let lists = || vec![vec![line("a", 2, 7), line("c", 1, 0)], vec![line("a", 3, 6), line("b", 1, 9)], vec![]];
        let listed = |limit| {
            let (rooms, more) = first_rooms(lists(), limit);
            (rooms.iter().map(|line| (line.room.to_string(), line.members, line.offset)).collect::<Vec<_>>(), more)
        };
        let all = [("a".to_owned(), 3, 7), ("b".to_owned(), 1, 9), ("c".to_owned(), 1, 0)];
        assert_eq!(listed(3), (all.to_vec(), false));
        assert_eq!(listed(2), (all[..2].to_vec(), true));
    }

    #[test]
    fn who_does_not_understand_is_named() {
        let answers: Vec<Bytes> = [
            r#"{"v":1,"node":"a","found":2}"#,
            r#"{"v":1,"node":"b","found":"two"}"#,
            r#"{"v":1,"node":"c","found":null}"#,
            r#"{"v":2,"node":"d","found":2,"more":[]}"#,
            r#"{"v":1,"node":"e"}"#,
            r#"[1]"#,
            "",
            r#"{"v":1,"node":"f","found":40}"#,
        ]
        .map(Bytes::from)
        .to_vec();
        let mut unanswered = vec!["z".into(), "c".into()];
        assert_eq!(read::<usize>(&answers, &mut unanswered), [2, 40]);
        assert_eq!(unanswered, ["b", "c", "d", "e", "z"].map(Arc::from));
    }

    #[test]
    fn an_answer_that_is_too_large_is_none() {
        let mut unanswered = Vec::new();
        let answers = [answer("big", Some("x".repeat(ANSWER_BYTES_MAX))), answer("small", Some("x"))];
        assert_eq!(read::<String>(&answers, &mut unanswered), ["x"]);
        assert_eq!(unanswered, [Arc::from("big")]);
    }
}
