//! What homes answer, as the session that asked is told.
use super::entry::Query;
use super::{Entry, unlist};
use crate::close::Code;
use crate::rooms::Rooms;
use crate::rooms::mail::{Answer, Joined, SessionRef, Ticket};
use crate::rooms::protocol::push;
use crate::rooms::room::Member;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
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
        Answer::Presences { found } => presences(&entry, &ticket, found),
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
        let mut recovery = entry.recovery.borrow_mut();
        // It may recover already, and have joined anew.
        if !recovery.rooms.contains(&room) {
            recovery.rooms.push_back(room);
        }
        drop(recovery);
        entry.feed(rooms);
    }
}

/// One home has answered a question after presences; when all have, the client is told.
fn presences(entry: &Entry, ticket: &str, found: Result<Vec<Member>, (Code, &'static str)>) {
    let mut queries = entry.queries.borrow_mut();
    let Some(place) = queries.iter().position(|query| *query.number.to_string() == *ticket) else { return };
    let query = &mut queries[place];
    query.unanswered -= 1;
    let refused = found.as_ref().err().copied();
    for member in found.unwrap_or_default() {
        query.found.entry(member.client.clone()).or_insert(member);
    }
    if query.unanswered > 0 {
        return;
    }
    let Query { id, clients, found, .. } = queries.swap_remove(place);
    queries.shrink_to_fit();
    drop(queries);
    match refused {
        None => tell_presences(entry, &id, clients.as_deref(), &found),
        Some((code, message)) => entry.error(code, message, None, Some(&id), Instant::now()),
    }
}

/// Answers a `presence_query`.
pub(in crate::rooms) fn tell_presences(
    entry: &Entry,
    id: &str,
    clients: Option<&[Box<str>]>,
    found: &BTreeMap<Arc<str>, Member>,
) {
    let asked = clients.unwrap_or_default().iter().map(|client| &**client);
    let missing = asked.filter(|client| !found.contains_key(*client));
    entry.say("presence_update", &push::presences(found.values(), missing), Some(id), Instant::now());
}
