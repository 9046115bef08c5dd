//! `/api/rooms…`: which rooms there are, who is in one, what was said there, and the end of a membership.
use super::answer::{Answer, Fault};
use super::body::{Object, needed};
use super::name;
use super::query::{PAGE, PAGE_MAX};
use super::{Call, asked};
use crate::close::Code;
use crate::rooms::Position;
use crate::rooms::desk::{Member, OfAll, RoomLine};
use crate::rooms::protocol::push::{Json, Time};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::fmt::Write;

const NO_ROOM: Fault = Fault::Missing("no such room");

/// `GET /api/rooms`.
pub(super) async fn list(call: Call<'_>) -> Result<Answer, Fault> {
    let query = call.query(&["namespace", "prefix", "limit", "after"])?;
    let namespace = call.namespace(&query)?;
    let (prefix, after, limit) = (query.get("prefix").unwrap_or_default(), query.after(), query.limit(PAGE)?);
    if !prefix.is_empty() {
        name::room(prefix, "\"prefix\"")?;
    }
    after.iter().try_for_each(|after| name::room(after, "\"after\""))?;
    let OfAll { found: (rooms, more), unanswered } = asked(call.desk()?.rooms(namespace, prefix, after, limit)).await?;
    let line = |line: &RoomLine| json!({ "room_id": *line.room, "members": line.members, "offset": line.offset });
    let mut body = json!({ "rooms": rooms.iter().map(line).collect::<Vec<_>>() });
    if let Some(last) = rooms.last().filter(|_| more) {
        body["next"] = (*last.room).into();
    }
    Ok(Answer::of_all(body, &unanswered))
}

/// `GET /api/rooms/ID`.
pub(super) async fn show(call: Call<'_>, room: &str) -> Result<Answer, Fault> {
    let room = name::room_of(room)?;
    let query = call.query(&["namespace", "limit", "after"])?;
    let (namespace, limit, after) = (call.namespace(&query)?, query.limit(PAGE_MAX)?, query.after());
    after.iter().try_for_each(|after| name::client(after, "\"after\""))?;
    let seen = asked(call.desk()?.room(namespace, &room, limit, after.map(str::to_owned))).await?;
    let seen = seen.map_err(Fault::Refused)?.ok_or(NO_ROOM)?;
    let line = |member: &Member| {
        let (status, since) = (member.status.as_str(), Time(member.since).to_string());
        json!({ "client_id": *member.client, "status": status, "since": since })
    };
    let mut body = json!({
        "room_id": room,
        "members": seen.members.iter().map(line).collect::<Vec<_>>(),
        "count": seen.count,
        "position": position(&seen.position),
    });
    if let Some(last) = seen.members.last().filter(|_| seen.more) {
        body["next"] = (*last.client).into();
    }
    Ok(Answer::json(StatusCode::OK, &body))
}

/// `GET /api/rooms/ID/history`. The messages are passed on as the texts that they are.
pub(super) async fn history(call: Call<'_>, room: &str) -> Result<Answer, Fault> {
    let room = name::room_of(room)?;
    let query = call.query(&["namespace", "since", "limit"])?;
    let (namespace, since, limit) = (call.namespace(&query)?, query.since()?, query.limit(PAGE)?);
    let seen = asked(call.desk()?.history(namespace, &room, since, limit)).await?;
    let seen = seen.map_err(Fault::Refused)?.ok_or(NO_ROOM)?;
    let bytes: usize = seen.messages.iter().map(|message| message.len() + 1).sum();
    let mut text = String::with_capacity(bytes + 512);
    // Writing into a String cannot fail.
    let _ = write!(text, r#"{{"room_id":{},"messages":["#, Json(&room));
    for (i, message) in seen.messages.iter().enumerate() {
        text.push_str(if i > 0 { "," } else { "" });
        text.push_str(std::str::from_utf8(message).map_err(|_| Fault::Internal("a message is not UTF-8"))?);
    }
    let _ = write!(text, r#"],"position":{},"lost":{}}}"#, seen.position, seen.lost);
    Ok(Answer::json_text(StatusCode::OK, text))
}

/// `POST /api/rooms/ID/kick`.
pub(super) async fn kick(call: Call<'_>, room: &str) -> Result<Answer, Fault> {
    let room = name::room_of(room)?;
    let query = call.query(&["namespace"])?;
    let (namespace, desk) = (call.namespace(&query)?, call.desk()?);
    let text = call.body.text().await?;
    let client = Object::parse(&text, &["client_id"])?.client("client_id")?;
    let client = needed(client, "client_id")?;
    let kicked = asked(desk.kick(namespace, &room, &client, Code::Administrator)).await?;
    tracing::info!(room, client, sessions = kicked.found, "kicked by the admin interface");
    Ok(Answer::of_all(json!({ "sessions": kicked.found }), &kicked.unanswered))
}

/// `{epoch, offset}`.
pub(super) fn position(position: &Position) -> Value {
    json!({ "epoch": *position.epoch, "offset": position.offset })
}
