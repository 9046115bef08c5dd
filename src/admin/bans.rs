//! `/api/bans…`: who is kept out of the gateway, or of a room.
use super::answer::{Answer, Fault};
use super::body::Object;
use super::query::PAGE;
use super::{Call, asked, name};
use crate::bans::{Ban, BanError, REASON_MAX};
use crate::close::{Close, Code};
use crate::rooms::desk::Refusal;
use crate::rooms::protocol::push::Time;
use hyper::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The longest ban that ends by itself: 100 years. It keeps its end within what a date can say.
const SECONDS_MAX: u64 = 100 * 365 * 86_400;
/// Stands between room and client in `after`; no room has it in its name.
const BETWEEN: char = '|';

/// `PUT /api/bans/CLIENT`: the ban first, then the sessions that are there, so that none slips in between.
pub(super) async fn put(call: Call<'_>, client: &str) -> Result<Answer, Fault> {
    let client = name::client_of(client)?;
    let query = call.query(&["namespace"])?;
    let (namespace, state, desk) = (call.namespace(&query)?, call.state, call.desk()?);
    let text = call.body.text().await?;
    let body = Object::parse(&text, &["room_id", "seconds", "reason"])?;
    let (room, reason) = (body.room("room_id")?, body.string("reason")?.map(|r| name::words(&r, REASON_MAX)));
    let since = Timestamp::now();
    let until = match body.number("seconds", SECONDS_MAX)? {
        None => None,
        Some(seconds) => Some(
            since
                .checked_add(SignedDuration::from_secs(seconds.cast_signed()))
                .map_err(|_| Fault::bad("\"seconds\" is too large"))?,
        ),
    };
    let ban = Ban {
        namespace,
        client: client.as_str().into(),
        room: room.as_deref().map(Into::into),
        until,
        reason: reason.map(Into::into),
        since,
    };
    asked(state.bans.put(ban)).await?.map_err(fault)?;
    let sessions = match &room {
        Some(room) => asked(desk.kick(namespace, room, &client, Code::Banned)).await?,
        None => asked(desk.disconnect(namespace, &client, Close::gateway(Code::Banned))).await?,
    };
    tracing::info!(client, room, sessions, "banned by the admin interface");
    Ok(Answer::json(StatusCode::OK, &json!({ "sessions": sessions })))
}

/// `DELETE /api/bans/CLIENT`.
pub(super) async fn lift(call: Call<'_>, client: &str) -> Result<Answer, Fault> {
    let client = name::client_of(client)?;
    let query = call.query(&["namespace", "room_id"])?;
    let (namespace, room, state) = (call.namespace(&query)?, query.get("room_id"), call.state);
    room.iter().try_for_each(|room| name::room(room, "\"room_id\""))?;
    // A `room_id` in a body would be missed, and another ban be lifted.
    Object::parse(&call.body.optional_text().await?, &[])?;
    let lifted = asked(state.bans.lift(namespace, &client, room)).await?.map_err(fault)?;
    tracing::info!(client, room, lifted, "a ban was lifted by the admin interface");
    Ok(Answer::json(StatusCode::OK, &json!({ "lifted": lifted })))
}

/// `GET /api/bans`.
pub(super) async fn list(call: Call<'_>) -> Result<Answer, Fault> {
    let query = call.query(&["namespace", "limit", "after"])?;
    let (namespace, limit) = (call.namespace(&query)?, query.limit(PAGE)?);
    let after = query.after().map(place).transpose()?;
    let (bans, more) = call.state.bans.list(namespace, after, limit);
    let mut body = json!({ "bans": bans.iter().map(line).collect::<Vec<_>>() });
    if let Some(last) = bans.last().filter(|_| more) {
        body["next"] = format!("{}{BETWEEN}{}", last.room.as_deref().unwrap_or_default(), last.client).into();
    }
    Ok(Answer::json(StatusCode::OK, &body))
}

fn fault(error: BanError) -> Fault {
    match error {
        BanError::Namespace => Fault::Missing("no such namespace"),
        BanError::Client | BanError::Room | BanError::Reason => Fault::bad(error.to_string()),
        BanError::TooMany => Fault::Unavailable("there are too many bans"),
        BanError::Busy => Fault::Refused(Refusal { code: Code::Unknown, message: "the store has too much to do" }),
        BanError::Store(error) => {
            tracing::error!(%error, "the store of bans failed");
            Fault::Internal("the store failed")
        }
    }
}

/// The ban that `next` named.
fn place(after: &str) -> Result<(&str, Option<&str>), Fault> {
    let (room, client) = after.split_once(BETWEEN).ok_or_else(|| Fault::bad("\"after\" must be a \"next\""))?;
    Ok((client, Some(room).filter(|room| !room.is_empty())))
}

fn line(ban: &Ban) -> Value {
    let mut line = json!({ "client_id": *ban.client, "since": Time(ban.since).to_string() });
    if let Some(room) = &ban.room {
        line["room_id"] = (**room).into();
    }
    if let Some(until) = ban.until {
        line["until"] = Time(until).to_string().into();
    }
    if let Some(reason) = &ban.reason {
        line["reason"] = (**reason).into();
    }
    line
}
