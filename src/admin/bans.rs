//! `/api/bans…`: who is kept out of the gateway, or of a room.
use super::answer::{Answer, Fault};
use super::body::Object;
use super::query::PAGE;
use super::{Call, asked_or, deadline, name};
use crate::bans::{Ban, BanError, Bans, REASON_MAX};
use crate::close::{Close, Code};
use crate::rooms::desk::{Desk, OfAll, Refusal};
use crate::rooms::protocol::push::Time;
use hyper::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// The longest ban that ends by itself: 100 years. It keeps its end within what a date can say.
const SECONDS_MAX: u64 = 100 * 365 * 86_400;
/// Stands between room and client in `after`; no room has it in its name.
const BETWEEN: char = '|';

const PUT_LATE: &str = "no answer in time; it goes on: unless the store fails, the ban will hold and the sessions end";
const LIFT_LATE: &str = "no answer in time; it goes on: unless the store fails, the ban will be lifted";

/// `PUT /api/bans/CLIENT`. Carried out to the end also where the caller is gone, or has waited too long.
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
    let carried_out = tokio::spawn(carry_out(Arc::clone(&state.bans), desk.clone(), ban));
    // It ends without an answer by a panic alone.
    let gone = |_| Fault::Internal("the ban was not carried out to its end");
    let ended = asked_or(PUT_LATE, deadline(), carried_out).await?.map_err(gone)??;
    Ok(Answer::of_all(json!({ "sessions": ended.found }), &ended.unanswered))
}

/// The ban first, then the sessions that are there, so that none slips in between. How many those were.
async fn carry_out(bans: Arc<Bans>, desk: Desk, ban: Ban) -> Result<OfAll<usize>, Fault> {
    let (namespace, client, room) = (ban.namespace, Arc::clone(&ban.client), ban.room.clone());
    bans.put(ban).await.map_err(fault)?;
    let ended = match &room {
        Some(room) => desk.kick(namespace, room, &client, Code::Banned).await,
        None => desk.disconnect(namespace, &client, Close::gateway(Code::Banned)).await,
    };
    let sessions = ended.found;
    tracing::info!(client = &*client, room = room.as_deref(), sessions, "banned by the admin interface");
    Ok(ended)
}

/// `DELETE /api/bans/CLIENT`.
pub(super) async fn lift(call: Call<'_>, client: &str) -> Result<Answer, Fault> {
    let client = name::client_of(client)?;
    let query = call.query(&["namespace", "room_id"])?;
    let (namespace, room, state) = (call.namespace(&query)?, query.get("room_id"), call.state);
    room.iter().try_for_each(|room| name::room(room, "\"room_id\""))?;
    // A `room_id` in a body would be missed, and another ban be lifted.
    Object::parse(&call.body.optional_text().await?, &[])?;
    let lifted = asked_or(LIFT_LATE, deadline(), state.bans.lift(namespace, &client, room)).await?.map_err(fault)?;
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
        BanError::Away => Fault::Refused(Refusal { code: Code::Unknown, message: "Redis is not reached" }),
        BanError::Refused(_) => {
            tracing::error!(%error, "Redis keeps no bans");
            Fault::Internal("Redis refused it")
        }
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
