//! One member's place in a room: what it says, and the check of all that it hears.
use crate::frame;
use serde::Deserialize;

/// Where a room's order stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Position {
    /// Names the order.
    pub epoch: String,
    /// The last message's place in it.
    pub offset: u64,
}

/// What a member heard, when nothing is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is in the room, which has so many members.
    Joined(u64),
    /// A message of the room, the next in order.
    Chat(String),
    /// Its own message has its place.
    Sent,
    /// The answer to `room_members`: how many there are.
    Members(u64),
    /// One client came or went.
    Presence,
    /// Many did; so many are there now.
    Crowd(u64),
}

/// A place in a room.
pub struct Seat {
    room: String,
    /// Where this member stands: the last message that it has seen, or may ask from.
    pub position: Option<Position>,
    /// Whether it joins again and is owed what it missed.
    recovering: bool,
    joined: bool,
    /// At the floor: texts without an envelope.
    bare: bool,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow, default)]
    payload: Payload<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Payload<'a> {
    room_id: Option<&'a str>,
    #[serde(borrow)]
    message: Option<std::borrow::Cow<'a, str>>,
    position: Option<Position>,
    count: Option<u64>,
    recovered: Option<bool>,
    duplicate: bool,
    client_id: Option<&'a str>,
}

impl Seat {
    /// A place that is yet to be taken; with `since`, what came after that position is owed.
    pub fn new(room: String, since: Option<Position>) -> Seat {
        Seat { room, recovering: since.is_some(), position: since, joined: false, bare: false }
    }

    /// A place at the floor, where nobody joins and texts come as they were sent.
    pub fn bare() -> Seat {
        let position = Some(Position { epoch: String::new(), offset: 0 });
        Seat { position, bare: true, ..Seat::new(String::new(), None) }
    }

    /// The request to join.
    pub fn join(&self) -> String {
        let since = self.position.as_ref().map(|Position { epoch, offset }| {
            format!(r#","since":{{"epoch":{},"offset":{offset}}}"#, serde_json::json!(epoch))
        });
        let since = since.unwrap_or_default();
        format!(r#"{{"type":"join_room","payload":{{"room_id":"{}"{since}}}}}"#, self.room)
    }

    /// The request to publish.
    pub fn publish(&self, text: &str) -> String {
        if self.bare {
            return text.into();
        }
        format!(r#"{{"type":"message","payload":{{"room_id":"{}","message":"{text}"}}}}"#, self.room)
    }

    /// The request for the number of members.
    pub fn members(&self) -> String {
        format!(r#"{{"type":"room_members","payload":{{"room_id":"{}","limit":1}}}}"#, self.room)
    }

    /// The position's offset.
    pub fn offset(&self) -> u64 {
        self.position.as_ref().map_or(0, |p| p.offset)
    }

    /// Checks a message: one that is out of place, of another room or unknown is a fault.
    pub fn hear(&mut self, payload: &[u8]) -> Result<Heard, String> {
        if let Some(position) = self.position.as_mut().filter(|_| self.bare) {
            position.offset += 1;
            return Ok(Heard::Chat(String::from_utf8_lossy(payload).into_owned()));
        }
        let fault = |what: String| {
            let shown = String::from_utf8_lossy(&payload[..payload.len().min(300)]);
            format!("{what}: {shown}")
        };
        let heard: Envelope<'_> =
            serde_json::from_slice(payload).map_err(|e| fault(format!("not understood ({e})")))?;
        let said = heard.payload;
        if said.room_id.is_some_and(|room| room != self.room) {
            return Err(fault(format!("of another room than {}", self.room)));
        }
        match (heard.kind, said) {
            (
                "room_joined",
                Payload { room_id: Some(_), count: Some(count), position: Some(position), recovered, .. },
            ) => {
                self.enter(position, recovered).map_err(fault)?;
                Ok(Heard::Joined(count))
            }
            ("chat_message", Payload { room_id: Some(_), message: Some(text), position: Some(position), .. }) => {
                self.advance(position).map_err(fault)?;
                Ok(Heard::Chat(text.into_owned()))
            }
            ("message_sent", Payload { room_id: Some(_), duplicate: false, .. }) => Ok(Heard::Sent),
            ("room_members", Payload { room_id: Some(_), count: Some(count), .. }) => Ok(Heard::Members(count)),
            ("presence_update", Payload { client_id: Some(_), .. }) => Ok(Heard::Presence),
            ("presence_update", Payload { count: Some(count), .. }) => Ok(Heard::Crowd(count)),
            _ => Err(fault("not expected".into())),
        }
    }

    fn enter(&mut self, position: Position, recovered: Option<bool>) -> Result<(), String> {
        if std::mem::replace(&mut self.joined, true) {
            return Err("joined twice".into());
        }
        match &self.position {
            Some(since) if self.recovering => match recovered {
                Some(true) if since.epoch == position.epoch && since.offset <= position.offset => return Ok(()),
                _ => return Err(format!("what came after offset {} is not recovered", since.offset)),
            },
            _ => self.position = Some(position),
        }
        Ok(())
    }

    fn advance(&mut self, position: Position) -> Result<(), String> {
        match &mut self.position {
            _ if !self.joined => Err("a message before room_joined".into()),
            Some(known) if known.epoch == position.epoch && known.offset + 1 == position.offset => {
                known.offset = position.offset;
                Ok(())
            }
            known => {
                let known = known.as_ref().map_or(0, |p| p.offset);
                Err(format!("offset {} (epoch {}) came after {known}", position.offset, position.epoch))
            }
        }
    }
}

/// The frame of a request.
pub fn text_frame(text: &str) -> Vec<u8> {
    frame::client_frame(1, text.as_bytes())
}

/// What is published: a name of its own, filled up to `size` bytes.
pub fn text_of(name: &str, size: usize) -> String {
    format!("{name:_<size$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(offset: u64, more: &str) -> Vec<u8> {
        let position = format!(r#"{{"epoch":"e","offset":{offset}}}"#);
        format!(r#"{{"type":"room_joined","payload":{{"room_id":"r","count":3,"position":{position}{more}}}}}"#).into()
    }

    fn chat(room: &str, epoch: &str, offset: u64) -> Vec<u8> {
        let position = format!(r#"{{"epoch":"{epoch}","offset":{offset}}}"#);
        format!(r#"{{"type":"chat_message","payload":{{"room_id":"{room}","message":"t","position":{position}}}}}"#)
            .into()
    }

    fn since(offset: u64) -> Option<Position> {
        Some(Position { epoch: "e".into(), offset })
    }

    #[test]
    fn messages_come_in_order_or_are_a_fault() {
        let mut seat = Seat::new("r".into(), None);
        assert!(seat.hear(&chat("r", "e", 1)).is_err(), "before the join");
        assert_eq!(seat.hear(&joined(4, "")), Ok(Heard::Joined(3)));
        assert!(seat.hear(&joined(4, "")).is_err(), "twice");
        assert_eq!(seat.hear(&chat("r", "e", 5)), Ok(Heard::Chat("t".into())));
        for wrong in [chat("r", "e", 5), chat("r", "e", 7), chat("r", "f", 6), chat("s", "e", 6)] {
            assert!(seat.hear(&wrong).is_err());
        }
        assert_eq!((seat.offset(), seat.position.clone()), (5, since(5)));
    }

    #[test]
    fn a_recovering_member_is_owed_all_since_its_position() {
        for refused in [r#","recovered":false"#, ""] {
            let mut seat = Seat::new("r".into(), since(2));
            assert!(seat.join().ends_with(r#""room_id":"r","since":{"epoch":"e","offset":2}}}"#));
            assert!(seat.hear(&joined(9, refused)).is_err_and(|e| e.contains("offset 2 is not recovered")));
        }
        let mut seat = Seat::new("r".into(), since(2));
        assert!(seat.hear(&joined(9, r#","recovered":true"#)).is_ok());
        assert!(seat.hear(&chat("r", "e", 3)).is_ok());
        assert!(seat.hear(&chat("r", "e", 10)).is_err());
    }

    #[test]
    fn refusals_and_strangers_are_faults() {
        let mut seat = Seat::new("r".into(), None);
        let left = br#"{"type":"room_left","payload":{"room_id":"r","code":4010}}"#;
        let error = br#"{"type":"error","payload":{"code":4008,"message":"the \"room\" is full"}}"#;
        for text in [&left[..], &error[..], b"{}", b"x"] {
            assert!(seat.hear(text).is_err());
        }
        let one = br#"{"type":"presence_update","payload":{"room_id":"r","client_id":"c","status":"online"}}"#;
        let many = br#"{"type":"presence_update","payload":{"room_id":"r","joined":5,"left":0,"count":9}}"#;
        assert_eq!((seat.hear(one), seat.hear(many)), (Ok(Heard::Presence), Ok(Heard::Crowd(9))));
        assert_eq!(text_of("m1", 6), "m1____");
    }
}
