//! Reading what a client sent: one pass over the text, in which every value of the payload stays raw
//! until the request's type says what it must be.
use super::{NAME_MAX, Status, is_room_name, is_status};
use crate::rooms::mail::Position;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The deepest nesting of a message's values.
pub const NESTED_MAX: usize = 64;
/// Most clients in one question.
const CLIENTS_MAX: usize = 100;

/// A JSON object of which some members are read, at most once each, and the others ignored. Unlike a
/// derived struct it takes no array, and tells `null` from nothing where its member's type does.
macro_rules! object {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$field_doc:meta])* $field_vis:vis $field:ident: $type:ty = $key:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Default)]
        $vis struct $name<'a> { $($(#[$field_doc])* $field_vis $field: Option<$type>,)+ }

        impl<'de: 'a, 'a> Deserialize<'de> for $name<'a> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Members;
                impl<'de> Visitor<'de> for Members {
                    type Value = $name<'de>;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                            match &*key {
                                $($key if object.$field.is_some() => {
                                    return Err(A::Error::duplicate_field($key));
                                })+
                                $($key => object.$field = Some(map.next_value()?),)+
                                _ => {
                                    map.next_value::<IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(Members)
            }
        }
    };
}

object! {
    /// Any message of a client.
    struct Envelope {
        kind: &'a RawValue = "type",
        payload: Option<Payload<'a>> = "payload",
        metadata: Option<Metadata<'a>> = "metadata",
    }
}

object! {
    struct Named {
        metadata: &'a RawValue = "metadata",
    }
}

object! {
    struct Metadata {
        message_id: &'a RawValue = "message_id",
    }
}

object! {
    /// The values of a payload, by the names that requests use.
    pub struct Payload {
        token: &'a RawValue = "token",
        room_id: &'a RawValue = "room_id",
        message: &'a RawValue = "message",
        limit: &'a RawValue = "limit",
        after: &'a RawValue = "after",
        since: &'a RawValue = "since",
        offset: &'a RawValue = "offset",
        status: &'a RawValue = "status",
        client_ids: &'a RawValue = "client_ids",
    }
}

object! {
    struct Since {
        epoch: &'a RawValue = "epoch",
        offset: &'a RawValue = "offset",
    }
}

/// Names of clients.
pub type Names = Arc<[Box<str>]>;

/// A message of a client whose envelope is in order.
pub struct Request<'a> {
    /// Its type, known or not.
    pub kind: Cow<'a, str>,
    /// The client's name for it, if it gave one.
    pub message_id: Option<Cow<'a, str>>,
    /// Its payload; empty where there was none.
    pub payload: Payload<'a>,
}

/// Why a message was not understood (4006).
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The client's name for it, as far as it could be read.
    pub message_id: Option<String>,
    /// In words, with the field's name.
    pub message: Cow<'static, str>,
}

/// Reads the envelope.
pub fn read(text: &str) -> Result<Request<'_>, Fault> {
    let fault = |message| Fault { message_id: None, message };
    let envelope: Envelope = serde_json::from_str(text).map_err(|e| malformed(text, &e))?;
    let message_id = envelope.metadata.flatten().and_then(|m| m.message_id).filter(|id| id.get() != "null");
    let message_id = message_id.map(|id| name(id, "metadata.message_id")).transpose().map_err(fault)?;
    let with_id = |message| Fault { message_id: message_id.as_deref().map(str::to_owned), message };
    let Some(kind) = envelope.kind else { return Err(with_id("\"type\" is missing".into())) };
    let kind = string(kind, "type").map_err(with_id)?;
    Ok(Request { kind, message_id, payload: envelope.payload.flatten().unwrap_or_default() })
}

/// Why a text is no envelope.
fn malformed(text: &str, error: &serde_json::Error) -> Fault {
    if !error.is_data() {
        return Fault { message_id: None, message: "the message is not valid JSON".into() };
    }
    let words = error.to_string();
    let twice = words.strip_prefix("duplicate field `").and_then(|rest| rest.split_once('`'));
    let message = match twice {
        Some((field, _)) => format!("\"{field}\" is there twice").into(),
        None => "the message, \"payload\" and \"metadata\" must be objects".into(),
    };
    Fault { message_id: message_id_of(text), message }
}

/// The client's name for a message that has faults elsewhere.
fn message_id_of(text: &str) -> Option<String> {
    let raw = serde_json::from_str::<Named>(text).ok()?.metadata?;
    let id = serde_json::from_str::<Metadata>(raw.get()).ok()?.message_id?;
    name(id, "metadata.message_id").ok().map(Cow::into_owned)
}

impl<'a> Payload<'a> {
    /// `token`, required.
    pub fn token(&self) -> Result<Cow<'a, str>, Cow<'static, str>> {
        string(self.token.ok_or("\"payload.token\" is missing")?, "payload.token")
    }

    /// `message` of a `message`, required: any JSON, of values nested at most 64 deep.
    pub fn message(&self) -> Result<&'a RawValue, Cow<'static, str>> {
        let message = self.message.ok_or("\"payload.message\" is missing")?;
        if is_nested_deeper(message.get(), NESTED_MAX) {
            return Err("\"payload.message\" must not be nested deeper than 64".into());
        }
        Ok(message)
    }

    /// `offset` of a `read_receipt`, required.
    pub fn offset(&self) -> Result<u64, Cow<'static, str>> {
        let raw = self.offset.ok_or("\"payload.offset\" is missing")?;
        serde_json::from_str(raw.get()).map_err(|_| "\"payload.offset\" must be a whole number".into())
    }

    /// `status` of a `presence_update`, required: text of 1 to 64 bytes without controls, and not "offline".
    pub fn status(&self) -> Result<Status, Cow<'static, str>> {
        let text = string(self.status.ok_or("\"payload.status\" is missing")?, "payload.status")?;
        if !is_status(&text) {
            return Err("\"payload.status\" must be 1 to 64 bytes without control characters".into());
        }
        match &*text {
            "online" => Ok(Status::Online),
            "invisible" => Ok(Status::Invisible),
            "offline" => Err("\"payload.status\" cannot be \"offline\": \"invisible\" looks like it".into()),
            text => Ok(Status::Text(text.into())),
        }
    }

    /// `client_ids` of a `presence_query`, where it is there: 1 to 100 names.
    pub fn client_ids(&self) -> Result<Option<Names>, Cow<'static, str>> {
        let Some(raw) = self.client_ids.filter(|r| r.get() != "null") else { return Ok(None) };
        let wrong = "\"payload.client_ids\" must be a list of 1 to 100 names of 1 to 128 bytes";
        let names: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| wrong)?;
        if !(1..=CLIENTS_MAX).contains(&names.len()) {
            return Err(wrong.into());
        }
        let mut clients: Vec<Box<str>> = Vec::with_capacity(names.len());
        for raw in names {
            let client = name(raw, "payload.client_ids").map_err(|_| wrong)?;
            if !clients.iter().any(|known| **known == *client) {
                clients.push((&*client).into());
            }
        }
        Ok(Some(clients.into()))
    }

    /// `room_id`, required.
    pub fn room_id(&self) -> Result<Cow<'a, str>, Cow<'static, str>> {
        Ok(self.room_id_if_any()?.ok_or("\"payload.room_id\" is missing")?)
    }

    /// `room_id`, where it is there and not null.
    pub fn room_id_if_any(&self) -> Result<Option<Cow<'a, str>>, Cow<'static, str>> {
        let Some(raw) = self.room_id.filter(|r| r.get() != "null") else { return Ok(None) };
        let room = string(raw, "payload.room_id")?;
        if !is_room_name(&room) {
            return Err("\"payload.room_id\" must be 1 to 128 bytes of letters, digits and -_.:/@".into());
        }
        Ok(Some(room))
    }

    /// `limit`, at most 1,000, which is the default too.
    pub fn limit(&self) -> Result<usize, Cow<'static, str>> {
        const LIMIT_MAX: usize = 1000;
        let Some(raw) = self.limit.filter(|r| r.get() != "null") else { return Ok(LIMIT_MAX) };
        match serde_json::from_str::<usize>(raw.get()) {
            Ok(limit) if limit > 0 => Ok(limit.min(LIMIT_MAX)),
            _ => Err("\"payload.limit\" must be a whole number above 0".into()),
        }
    }

    /// `since`, where it is there: the place of the last message that the client has.
    pub fn since(&self) -> Result<Option<Position>, Cow<'static, str>> {
        let Some(raw) = self.since.filter(|r| r.get() != "null") else { return Ok(None) };
        let wrong = "\"payload.since\" must have an epoch, a string, and an offset, a whole number";
        let since: Since = serde_json::from_str(raw.get()).map_err(|_| wrong)?;
        let epoch = string(since.epoch.ok_or(wrong)?, "payload.since.epoch")?;
        let offset = serde_json::from_str(since.offset.ok_or(wrong)?.get()).map_err(|_| wrong)?;
        Ok(Some(Position { epoch: epoch.into(), offset }))
    }

    /// `after`, where it is there.
    pub fn after(&self) -> Result<Option<String>, Cow<'static, str>> {
        let Some(raw) = self.after.filter(|r| r.get() != "null") else { return Ok(None) };
        Ok(Some(name(raw, "payload.after")?.into_owned()))
    }
}

/// Whether arrays and objects in a valid JSON text are nested deeper than `most`: not every reader can take any depth.
pub fn is_nested_deeper(json: &str, most: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => (),
        }
    }
    false
}

fn string<'a>(raw: &'a RawValue, field: &str) -> Result<Cow<'a, str>, Cow<'static, str>> {
    let text = raw.get();
    if let Ok(plain) = serde_json::from_str::<&'a str>(text) {
        return Ok(Cow::Borrowed(plain));
    }
    // With escapes in it.
    serde_json::from_str(text).map(Cow::Owned).map_err(|_| format!("\"{field}\" must be a string").into())
}

fn name<'a>(raw: &'a RawValue, field: &str) -> Result<Cow<'a, str>, Cow<'static, str>> {
    let text = string(raw, field)?;
    if (1..=NAME_MAX).contains(&text.len()) {
        return Ok(text);
    }
    Err(Cow::Owned(format!("\"{field}\" must be 1 to {NAME_MAX} bytes")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_older_clients_envelope_is_read() {
        let text = r#"{"type":"auth","payload":{"token":"T"},"timestamp":"2024-01-01T00:00:00Z","clientId":null}"#;
        let request = read(text).ok().unwrap();
        assert_eq!((&*request.kind, &*request.payload.token().unwrap()), ("auth", "T"));
        assert!(request.message_id.is_none());
    }

    #[test]
    fn the_message_stays_as_it_came() {
        let text = r#"{"type":"message","payload":{"room_id":"a","message": {"n":1.10,  "b":12345678901234567890 }}}"#;
        let request = read(text).ok().unwrap();
        assert_eq!(request.payload.message().unwrap().get(), r#"{"n":1.10,  "b":12345678901234567890 }"#);
    }

    #[test]
    fn faults_name_the_field() {
        for (text, words) in [
            ("{", "not valid JSON"),
            ("[]", "must be objects"),
            ("{}", "\"type\" is missing"),
            (r#"{"type":5}"#, "\"type\" must be a string"),
            (r#"{"type":"x","payload":[]}"#, "\"payload\""),
            (r#"{"type":"x","metadata":7}"#, "\"metadata\""),
            (r#"{"type":"x","metadata":{"message_id":7}}"#, "\"metadata.message_id\" must be a string"),
            (r#"{"type":"x","metadata":{"message_id":""}}"#, "1 to 128 bytes"),
        ] {
            let fault = read(text).err().unwrap();
            assert!(fault.message.contains(words), "{text}: {}", fault.message);
        }
    }

    #[test]
    fn fields_are_checked_when_their_request_asks_for_them() {
        let payload = |text: &'static str| read(text).ok().unwrap().payload;
        assert!(payload(r#"{"type":"x","payload":{}}"#).room_id().unwrap_err().contains("missing"));
        assert!(payload(r#"{"type":"x","payload":{"room_id":1}}"#).room_id().unwrap_err().contains("string"));
        assert!(payload(r#"{"type":"x","payload":{"room_id":"a b"}}"#).room_id().unwrap_err().contains("letters"));
        assert_eq!(payload(r#"{"type":"x","payload":{"room_id":"\u0061"}}"#).room_id().unwrap(), "a");
        assert!(payload(r#"{"type":"x","payload":{"limit":0}}"#).limit().is_err());
        assert_eq!(payload(r#"{"type":"x","payload":{"limit":5000}}"#).limit().unwrap(), 1000);
        for since in [r#"{}"#, r#"[]"#, r#"{"epoch":"e"}"#, r#"{"epoch":1,"offset":1}"#, r#"{"epoch":"e","offset":-1}"#]
        {
            let text = format!(r#"{{"type":"x","payload":{{"since":{since}}}}}"#);
            let fault = read(&text).ok().unwrap().payload.since().unwrap_err();
            assert!(fault.contains("payload.since"), "{since}: {fault}");
        }
    }

    #[test]
    fn nesting_is_counted_outside_of_strings() {
        assert!(!is_nested_deeper(r#"{"a":[1,"[[[\"[["]}"#, 2));
        assert!(is_nested_deeper(r#"{"a":[[1]]}"#, 2));
        assert!(!is_nested_deeper(r#"[[],[],{"b":{}}]"#, 3));
        let deep =
            |n: usize| format!(r#"{{"type":"message","payload":{{"message":{}{}}}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(read(&deep(64)).ok().unwrap().payload.message().is_ok());
        assert!(read(&deep(65)).ok().unwrap().payload.message().unwrap_err().contains("payload.message"));
        // Neither is the stack that it is read with.
        assert!(read(&deep(30_000)).ok().unwrap().payload.message().is_err());
    }

    #[test]
    fn statuses_and_clients_are_checked() {
        let payload = |text: &str| format!(r#"{{"type":"x","payload":{text}}}"#);
        for (status, wanted) in [
            ("\"online\"", Ok(Status::Online)),
            ("\"invisible\"", Ok(Status::Invisible)),
            ("\"at lunch\"", Ok(Status::Text("at lunch".into()))),
            ("\"offline\"", Err(())),
            ("\"\"", Err(())),
            ("\"a\\nb\"", Err(())),
            ("5", Err(())),
        ] {
            let text = payload(&format!(r#"{{"status":{status}}}"#));
            let read = read(&text).ok().unwrap().payload.status();
            assert!(read.as_ref().err().is_none_or(|fault| fault.contains("payload.status")), "{read:?}");
            assert_eq!(read.map_err(drop), wanted, "{status}");
        }
        for (ids, count) in
            [("[\"a\",\"b\",\"a\"]", Some(2)), ("[]", None), ("[1]", None), ("{}", None), ("[\"\"]", None)]
        {
            let text = payload(&format!(r#"{{"client_ids":{ids}}}"#));
            let read = read(&text).ok().unwrap().payload.client_ids();
            assert!(read.as_ref().err().is_none_or(|fault| fault.contains("payload.client_ids")), "{read:?}");
            assert_eq!(read.ok().flatten().map(|ids| ids.len()), count, "{ids}");
        }
    }

    #[test]
    fn a_duplicate_member_is_a_fault() {
        for (text, field, message_id) in [
            (r#"{"type":"x","type":"y"}"#, "\"type\"", None),
            (r#"{"type":"x","payload":{"limit":1,"limit":1},"metadata":{"message_id":"m"}}"#, "\"limit\"", Some("m")),
            (r#"{"type":"x","metadata":{"message_id":"m","message_id":"m"}}"#, "\"message_id\"", None),
        ] {
            let fault = read(text).err().unwrap();
            assert!(fault.message.contains(field), "{text}: {}", fault.message);
            assert_eq!(fault.message_id.as_deref(), message_id, "{text}");
        }
        assert!(read(r#"{"type":"x","else":1,"else":2,"payload":{"message":{"a":1,"a":2}}}"#).is_ok());
    }

    #[test]
    fn the_answer_goes_with_a_message_whose_payload_is_wrong() {
        for text in [
            r#"{"type":"x","payload":7,"metadata":{"message_id":"m"}}"#,
            r#"{"metadata":{"x":[],"message_id":"m"},"type":"x","payload":[1]}"#,
        ] {
            let fault = read(text).err().unwrap();
            assert!(fault.message.contains("\"payload\""), "{text}: {}", fault.message);
            assert_eq!(fault.message_id.as_deref(), Some("m"), "{text}");
        }
    }
}
