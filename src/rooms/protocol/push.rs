//! What clients are sent: text that is put together once.
use super::Status;
use crate::close::{Close, Code, whole_ms};
use crate::rooms::broker::Publication;
use crate::rooms::crowd::Changes;
use crate::rooms::mail::Position;
use crate::rooms::room::{Member, Room};
use jiff::Timestamp;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// A string as JSON, quotes included.
pub struct Json<'a>(pub &'a str);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
        if self.0.bytes().all(clean) {
            return write!(f, "\"{}\"", self.0);
        }
        f.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

impl Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"epoch\":\"{}\",\"offset\":{}}}", self.epoch, self.offset)
    }
}

/// Now, or then: RFC 3339, UTC, with milliseconds.
pub struct Time(pub Timestamp);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

/// An answer to the request that named itself `correlation_id`, or a push.
pub fn envelope(kind: &str, payload: &dyn Display, correlation_id: Option<&str>) -> String {
    let message_id = uuid::Uuid::now_v7();
    let mut text = String::with_capacity(256);
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        r#"{{"type":"{kind}","payload":{payload},"metadata":{{"message_id":"{message_id}","timestamp":"{}""#,
        Time(Timestamp::now())
    );
    if let Some(id) = correlation_id {
        let _ = write!(text, r#","correlation_id":{}"#, Json(id));
    }
    text.push_str("}}");
    text
}

/// `chat_message`. A server that names no sender is nobody: `null`.
pub fn chat_message(room: &str, position: &Position, at: Timestamp, publication: &Publication) -> String {
    let Publication { sender, message_id, message, .. } = publication;
    let (sender, message) = (Name(sender.as_deref()), message.get());
    let mut text = String::with_capacity(message.len() + 320);
    text.push_str(r#"{"type":"chat_message","payload":{"room_id":"#);
    let _ = match room {
        "" => write!(text, "null"),
        room => write!(text, "\"{room}\""),
    };
    let _ = write!(text, r#","sender_id":{sender},"message":"#);
    text.push_str(message);
    let _ = write!(
        text,
        r#","position":{position}}},"metadata":{{"message_id":{},"timestamp":"{}","client_id":{sender}}}}}"#,
        Json(message_id),
        Time(at)
    );
    text
}

/// A name, or `null`.
struct Name<'a>(Option<&'a str>);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => Json(name).fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// `presence_update` of one client in a room.
pub fn presence(room: &str, client: &str, status: &Status) -> String {
    let (client, status) = (Json(client), Json(status.as_str()));
    let payload = format!(r#"{{"room_id":"{room}","client_id":{client},"status":{status}}}"#);
    envelope("presence_update", &payload, None)
}

/// `typing_start` or `typing_stop`.
pub fn typing(room: &str, client: &str, start: bool) -> String {
    let payload = format!(r#"{{"room_id":"{room}","client_id":{}}}"#, Json(client));
    envelope(if start { "typing_start" } else { "typing_stop" }, &payload, None)
}

/// `read_receipt`.
pub fn read_receipt(room: &str, client: &str, offset: u64) -> String {
    let payload = format!(r#"{{"room_id":"{room}","client_id":{},"offset":{offset}}}"#, Json(client));
    envelope("read_receipt", &payload, None)
}

/// The payload of `presence_update` that answers a `presence_query`. `missing`: those that were asked for and are not
/// seen.
pub fn presences<'a>(found: impl Iterator<Item = &'a Member>, missing: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::from(r#"{"presences":["#);
    let mut comma = "";
    for member in found {
        let (client, status, since) = (Json(&member.client), Json(member.status.as_str()), Time(member.status_since));
        let _ = write!(text, r#"{comma}{{"client_id":{client},"status":{status},"since":"{since}"}}"#);
        comma = ",";
    }
    for client in missing {
        let _ = write!(text, r#"{comma}{{"client_id":{},"status":"offline","since":null}}"#, Json(client));
        comma = ",";
    }
    text.push_str("]}");
    text
}

/// `presence_update` of a crowded room.
pub fn crowd_presence(room: &str, changes: Changes, count: usize) -> String {
    let Changes { joined, left } = changes;
    let payload = format!(r#"{{"room_id":"{room}","joined":{joined},"left":{left},"count":{count}}}"#);
    envelope("presence_update", &payload, None)
}

/// Most members in one answer.
pub const MEMBERS_MAX: usize = 1000;

/// The payload of `room_members`, as a client sees them.
pub fn members(name: &str, room: &Room, viewer: &str, limit: usize, after: Option<&str>) -> String {
    let (page, more) = room.page(limit, after, Some(viewer));
    let mut text = format!(r#"{{"room_id":"{name}","members":["#);
    for (i, member) in page.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let (client, status, since) = (Json(&member.client), Json(member.status.as_str()), Time(member.since));
        let _ = write!(text, r#"{comma}{{"client_id":{client},"status":{status},"since":"{since}"}}"#);
    }
    let _ = write!(text, r#"],"count":{}"#, room.count_for(viewer));
    if let Some(last) = page.last().filter(|_| more) {
        let _ = write!(text, r#","next":{}"#, Json(&last.client));
    }
    text.push('}');
    text
}

/// `error`.
pub fn error(code: Code, message: &str, wait: Option<Duration>, correlation_id: Option<&str>) -> String {
    let payload = format!(
        r#"{{"code":{},"message":{},"retryable":{}{}}}"#,
        code.number(),
        Json(message),
        code.retryable(),
        retry_after(wait)
    );
    envelope("error", &payload, correlation_id)
}

/// `disconnect`, sent before a Close of the gateway.
pub fn disconnect(close: &Close) -> String {
    let reconnect = close.code().is_none_or(Code::retryable);
    let payload = format!(
        r#"{{"code":{},"reason":{},"reconnect":{reconnect}{}}}"#,
        close.number.unwrap_or(1005),
        Json(&close.reason),
        retry_after(close.retry_after)
    );
    envelope("disconnect", &payload, None)
}

/// `room_left` by the gateway's will.
pub fn removed(room: &str, code: Code) -> String {
    let payload = format!(
        r#"{{"room_id":"{room}","code":{},"reason":"{}","retryable":{}}}"#,
        code.number(),
        code.message(),
        code.retryable()
    );
    envelope("room_left", &payload, None)
}

fn retry_after(wait: Option<Duration>) -> String {
    wait.map(|w| format!(r#","retry_after_ms":{}"#, whole_ms(w))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn everything_that_is_sent_is_json() {
        let position = Position { epoch: "e1".into(), offset: 7 };
        let message = serde_json::value::RawValue::from_string(r#"{"a": 1.10}"#.into()).unwrap();
        let sender = Some("a\"b\n".into());
        let mut publication = Publication { sender, message_id: "m\\1".into(), named: true, message };
        let chat = chat_message("room", &position, Timestamp::now(), &publication);
        let value: serde_json::Value = serde_json::from_str(&chat).unwrap();
        assert_eq!(value["payload"]["sender_id"], "a\"b\n");
        assert_eq!(value["metadata"]["message_id"], "m\\1");
        assert_eq!(value["payload"]["position"]["offset"], 7);
        assert!(chat.contains(r#""message":{"a": 1.10},"#));
        publication.sender = None;
        let chat = chat_message("", &position, Timestamp::now(), &publication);
        let value: serde_json::Value = serde_json::from_str(&chat).unwrap();
        assert!(value["payload"]["sender_id"].is_null() && value["payload"]["room_id"].is_null());
        let away = Status::Text("\"away\"".into());
        let member = Member {
            client: "c\"".into(),
            since: Timestamp::now(),
            status: away.clone(),
            status_since: Timestamp::now(),
        };
        let close = Close::because(Code::RateLimit, "too \"fast\"").retry_after(Duration::from_millis(5));
        for text in [
            presence("r", "c\"", &away),
            typing("r", "c\"", true),
            read_receipt("r", "c\"", 7),
            envelope("presence_update", &presences([member].iter(), ["x\"", "y"].into_iter()), Some("q")),
            crowd_presence("r", Changes { joined: 2, left: 1 }, 1001),
            envelope("room_members", &members("r", &Room::new(1, Default::default()), "", 9, None), Some("x\"")),
            error(Code::RateLimit, "m", Some(Duration::from_micros(1)), Some("i")),
            disconnect(&close),
            removed("r", Code::SlowConsumer),
        ] {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let time = value["metadata"]["timestamp"].as_str().unwrap();
            assert!(time.ends_with('Z') && time.len() == "2024-01-01T00:00:00.000Z".len(), "{time}");
        }
    }
}
