//! What homes answer, as the session that asked is told.
use super::entry::Query;
use super::{Entry, unlist};
use crate::rooms::Rooms;
use crate::rooms::mail::{Answer, Joined, SessionRef, Ticket};
use crate::rooms::protocol::push;
use std::rc::Rc;
use tokio::time::Instant;

/// Hands a home's answer to the session that asked.
pub(in crate::rooms) fn answer(rooms: &Rooms, to: SessionRef, ticket: Ticket, answer: Answer) {
    let Some(entry) = rooms.local.borrow().found(to) else { return };
    entry.unanswered.set(entry.unanswered.get().saturating_sub(1));
    let (now, id) = (Instant::now(), Some(&*ticket));
    match answer {
        Answer::Joined(joined) => self::joined(rooms, &entry, &ticket, *joined),
        Answer::Left { room } => {
            unlist(rooms, &entry, &room);
            entry.say("room_left", &format_args!(r#"{{"room_id":"{}"}}"#, room.name), id, now);
        }
        Answer::Sent { room, position, duplicate, recipients } => {
            let room_id = if room.is_everyone() { "null".into() } else { format!("\"{}\"", room.name) };
            let recipients = recipients.map(|n| format!(r#","recipients":{n}"#)).unwrap_or_default();
            let payload = format!(
                r#"{{"message_id":{},"room_id":{room_id},"position":{position},"duplicate":{duplicate}{recipients}}}"#,
                push::Json(&ticket)
            );
            entry.say("message_sent", &payload, id, now);
        }
        Answer::Members(payload) => entry.say("room_members", &payload, id, now),
        Answer::Presences { found, whole } => presences(&entry, &ticket, found, whole),
        Answer::Done => (),
        Answer::Refused { unjoined, code, message } => {
            if let Some(room) = unjoined {
                entry.change(&room, |membership| membership.joins = membership.joins.saturating_sub(1));
            }
            entry.error(code, message, None, id, now);
        }
    }
    if entry.resting.get() && entry.may_ask() {
        entry.handle.wake();
    }
}

fn joined(rooms: &Rooms, entry: &Rc<Entry>, ticket: &str, joined: Joined) {
    let Joined { room, count, position, recovered, missed, conflated } = joined;
    let recovered = recovered.map(|yes| format!(r#","recovered":{yes}"#)).unwrap_or_default();
    let conflated = if conflated { r#","conflated":true"# } else { "" };
    let payload =
        format!(r#"{{"room_id":"{}","count":{count},"position":{position}{recovered}{conflated}}}"#, room.name);
    rooms.local.borrow_mut().list(&room, entry, position.offset, missed);
    entry.say("room_joined", &payload, Some(ticket), Instant::now());
    if missed.is_some() {
        entry.recovery.borrow_mut().rooms.push_back(room);
        entry.feed(rooms);
    }
}

/// One home has answered a question after presences; when all have, the client is told.
fn presences(entry: &Entry, ticket: &str, found: Vec<crate::rooms::room::Member>, whole: bool) {
    let mut queries = entry.queries.borrow_mut();
    let Some(place) = queries.iter().position(|query| &*query.id == ticket) else { return };
    let query = &mut queries[place];
    query.unanswered -= 1;
    for member in found {
        if whole || !query.found.iter().any(|known| known.client == member.client) {
            query.found.push(member);
        }
    }
    if query.unanswered > 0 {
        return;
    }
    let Query { id, clients, found, .. } = queries.swap_remove(place);
    queries.shrink_to_fit();
    drop(queries);
    tell_presences(entry, &id, clients.as_deref(), &found);
}

/// Answers a `presence_query`.
pub(in crate::rooms) fn tell_presences(
    entry: &Entry,
    id: &str,
    clients: Option<&[Box<str>]>,
    found: &[crate::rooms::room::Member],
) {
    let here: std::collections::HashSet<&str> = found.iter().map(|member| &*member.client).collect();
    let missing = clients.unwrap_or_default().iter().map(|client| &**client).filter(|client| !here.contains(client));
    entry.say("presence_update", &push::presences(found, missing), Some(id), Instant::now());
}
