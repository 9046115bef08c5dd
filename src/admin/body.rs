//! Bodies of calls: JSON objects whose members are known, each read when the call asks for it.
use super::answer::Fault;
use super::{guard, name};
use crate::rooms::protocol::{NESTED_MAX, is_nested_deeper};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::{HeaderMap, header};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of a body.
pub(super) const BODY_MAX: usize = 4 << 20;
/// Bytes of a body that is too large which are read and thrown away, so that its sender comes to read the answer.
const SKIMMED_MAX: usize = BODY_MAX;
/// Time for a whole body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that has yet to be read.
pub(super) struct Body<'a> {
    pub headers: &'a HeaderMap,
    pub incoming: Incoming,
}

impl Body<'_> {
    /// The text of a body that must be there.
    pub async fn text(self) -> Result<String, Fault> {
        let media_type = guard::one(self.headers, header::CONTENT_TYPE)?.unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/json") {
            return Err(Fault::MediaType("the Content-Type must be application/json"));
        }
        if self.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(Fault::MediaType("a Content-Encoding is not understood"));
        }
        let bytes = timeout(BODY_TIMEOUT, self.bytes()).await.map_err(|_| Fault::Slow)??;
        String::from_utf8(bytes).map_err(|_| Fault::bad("the body is not UTF-8"))
    }

    /// The text of a body that may be missing: an empty object then.
    pub async fn optional_text(self) -> Result<String, Fault> {
        if self.incoming.is_end_stream() { Ok("{}".to_owned()) } else { self.text().await }
    }

    async fn bytes(self) -> Result<Vec<u8>, Fault> {
        let too_large = || Fault::TooLarge("the body is larger than 4 MiB".into());
        let waits_for_leave = self.headers.contains_key(header::EXPECT);
        let mut incoming = self.incoming;
        if waits_for_leave && incoming.size_hint().lower() > BODY_MAX as u64 {
            return Err(too_large());
        }
        let (mut bytes, mut total) = (Vec::new(), 0);
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| Fault::bad("the body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            total += data.len();
            if total <= BODY_MAX {
                bytes.extend_from_slice(&data);
            } else if total <= BODY_MAX + SKIMMED_MAX {
                bytes = Vec::new();
            } else {
                break;
            }
        }
        if total > BODY_MAX { Err(too_large()) } else { Ok(bytes) }
    }
}

/// A JSON object of known members, each at most once.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<(&'static str, &'a RawValue)>);

struct Members(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Members {
    type Value = Object<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(&'static str, &'de RawValue)> = Vec::with_capacity(self.0.len());
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let Some(name) = self.0.iter().find(|known| **known == key) else {
                return Err(A::Error::custom(format_args!("unknown member \"{}\"", name::words(&key, 64))));
            };
            if members.iter().any(|(known, _)| known == name) {
                return Err(A::Error::custom(format_args!("the member \"{name}\" came twice")));
            }
            members.push((name, map.next_value()?));
        }
        Ok(Object(members))
    }
}

/// A JSON array of at most so many items.
struct Items(usize);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() == self.0 {
                return Err(A::Error::custom(format_args!("a list of more than {} items", self.0)));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// What the seed makes of a whole text.
fn read<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Result<S::Value, Fault> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Fault::bad(error.to_string()),
        _ => Fault::bad(format!("not valid JSON: {error}")),
    })
}

/// The items of a list: 1 to `max`.
pub(super) fn list(text: &str, max: usize) -> Result<Vec<&RawValue>, Fault> {
    let items = read(text, Items(max))?;
    if items.is_empty() { Err(Fault::bad("an empty list")) } else { Ok(items) }
}

impl<'a> Object<'a> {
    /// Reads an object that has these members at most.
    ///
    /// # Errors
    /// What is no such object; an unknown or repeated member is named.
    pub fn parse(text: &'a str, known: &'static [&'static str]) -> Result<Object<'a>, Fault> {
        read(text, Members(known))
    }

    /// The member as it came; `null` is a value here.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The member; `null` is as if it were missing.
    fn value(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// Whether the member is there and not `null`.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// A string.
    pub fn string(&self, name: &str) -> Result<Option<String>, Fault> {
        let value = self.value(name).map(|value| serde_json::from_str(value.get()));
        value.transpose().map_err(|_| Fault::bad(format!("\"{name}\" must be a string")))
    }

    /// The name of a room.
    pub fn room(&self, name: &str) -> Result<Option<String>, Fault> {
        let room = self.string(name)?;
        room.iter().try_for_each(|room| name::room(room, &format!("\"{name}\"")))?;
        Ok(room)
    }

    /// The name of a client.
    pub fn client(&self, name: &str) -> Result<Option<String>, Fault> {
        let client = self.string(name)?;
        client.iter().try_for_each(|client| name::client(client, &format!("\"{name}\"")))?;
        Ok(client)
    }

    /// A whole number from 1 to `max`.
    pub fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Fault> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = serde_json::from_str(value.get()).ok().filter(|n| (1..=max).contains(n));
        number.map(Some).ok_or_else(|| Fault::bad(format!("\"{name}\" must be a whole number from 1 to {max}")))
    }

    /// Any JSON that goes on to clients, of at most `max` bytes.
    ///
    /// # Errors
    /// 413 where it is larger; where arrays and objects stand more than 64 deep in it.
    pub fn passed_on(&self, name: &str, max: usize) -> Result<Option<&'a RawValue>, Fault> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        if value.get().len() > max {
            return Err(Fault::TooLarge(format!("\"{name}\" is larger than {max} bytes").into()));
        }
        if is_nested_deeper(value.get(), NESTED_MAX) {
            return Err(Fault::bad(format!("\"{name}\" has more than {NESTED_MAX} levels")));
        }
        Ok(Some(value))
    }
}

/// What a member is for that must be there.
pub(super) fn needed<T>(value: Option<T>, name: &str) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::bad(format!("\"{name}\" is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T: fmt::Debug>(result: Result<T, Fault>) -> String {
        match result {
            Err(Fault::BadRequest(why) | Fault::TooLarge(why)) => why.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn objects_have_known_members_once() {
        let parse = |text| Object::parse(text, &["a", "b"]);
        let object = parse(r#" {"a": "x", "b": null} "#).expect("an object");
        assert_eq!(object.string("a"), Ok(Some("x".to_owned())));
        assert_eq!((object.has("a"), object.has("b")), (true, false));
        assert_eq!(object.raw("b").map(RawValue::get), Some("null"));
        for (text, words) in [
            ("", "not valid JSON"),
            ("{", "not valid JSON"),
            ("{} {}", "not valid JSON"),
            (r#"{"a":01}"#, "not valid JSON"),
            ("[]", "an object"),
            ("null", "an object"),
            (r#"{"a":1,"a":2}"#, "\"a\" came twice"),
            (r#"{"a":1,"\u0061":2}"#, "\"a\" came twice"),
            (r#"{"c\u0000":1}"#, "unknown member \"c \""),
        ] {
            let why = why(parse(text));
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn members_are_checked_and_named() {
        let object = Object::parse(r#"{"a":5,"b":"a b"}"#, &["a", "b", "c"]).expect("an object");
        assert!(why(object.string("a")).contains("\"a\" must be a string"));
        assert!(why(object.room("b")).contains("\"b\" must be 1 to 128 bytes of letters"));
        assert_eq!(object.client("b"), Ok(Some("a b".to_owned())));
        assert_eq!(object.number("a", 5), Ok(Some(5)));
        assert!(why(object.number("a", 4)).contains("from 1 to 4"));
        assert!(why(object.number("b", 4)).contains("\"b\" must be a whole number"));
        assert_eq!(object.number("c", 4), Ok(None));
        assert!(why(needed(object.string("c").expect("nothing"), "c")).contains("\"c\" is missing"));
    }

    #[test]
    fn lists_are_bounded() {
        assert_eq!(list("[1, {}]", 2).map(|l| l.len()), Ok(2));
        assert!(why(list("[1,2,3]", 2)).contains("more than 2 items"));
        assert!(why(list("[ ]", 2)).contains("empty list"));
        assert!(why(list("[1,]", 2)).contains("not valid JSON"));
        assert!(why(list("[1] x", 2)).contains("not valid JSON"));
    }

    #[test]
    fn what_is_passed_on_is_kept_and_bounded() {
        let object = |text: &'static str| Object::parse(text, &["m"]).expect("an object");
        let text = r#"{"m": {"n":1.10,  "b":12345678901234567890 } }"#;
        let kept = object(text).passed_on("m", 100).map(|m| m.map(|m| m.get().to_owned()));
        assert_eq!(kept, Ok(Some(r#"{"n":1.10,  "b":12345678901234567890 }"#.to_owned())));
        assert!(matches!(object(text).passed_on("m", 10), Err(Fault::TooLarge(_))));
        assert!(object(r#"{"m":null}"#).passed_on("m", 10).is_ok_and(|m| m.is_some()));
        let deep = |levels| format!("{{\"m\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let passes = |text: &str| Object::parse(text, &["m"]).and_then(|o| o.passed_on("m", 1 << 20).map(|_| ()));
        assert_eq!(passes(&deep(NESTED_MAX)), Ok(()));
        assert!(why(passes(&deep(NESTED_MAX + 1))).contains("64 levels"));
        assert!(why(passes(&deep(500_000))).contains("64 levels"));
    }

    #[test]
    fn brackets_in_strings_are_no_levels() {
        let text = r#"["[[", "\"[", "\\", {"]": 1}]"#;
        assert!(is_nested_deeper(text, 1) && !is_nested_deeper(text, 2));
        assert!(!is_nested_deeper("1", 0));
    }
}
